//! Keys by name, as methods and command lines name them: files, and what was in them when they were added; and keys that the
//! Linux kernel keeps, if that is asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::kernel_keyring::{self, KernelKeyError};
use super::{KeyFileError, KeyNames, KeyText, Keys, Secret, SecretError};
use crate::tls::{ConfiguredPsk, PskError};

/// Keys by name. Shows nothing of them.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: BTreeMap<String, Entry>,
    /// Names that begin with a colon are also looked for in the kernel's keyring.
    with_kernel: bool,
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    text: KeyText,
}

/// Why a key is not to be had. Never shows any of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// The name is taken.
    #[error("there is a key '{0}' already")]
    Exists(String),
    /// The name is not known.
    #[error("there is no key '{0}'")]
    Unknown(String),
    /// Its file cannot be used.
    #[error("key '{name}', file '{}': {error}", path.display())]
    File {
        /// Its name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        error: KeyFileError,
    },
    /// The kernel's keyring does not give it.
    #[error("key '{name}': {error}")]
    Kernel {
        /// Its name.
        name: String,
        /// Why.
        error: KernelKeyError,
    },
    /// It is not a secret for DH-HMAC-CHAP.
    #[error("key '{name}': {error}")]
    Secret {
        /// Its name.
        name: String,
        /// What is wrong.
        error: SecretError,
    },
    /// It is not a key for TLS.
    #[error("key '{name}': {error}")]
    Psk {
        /// Its name.
        name: String,
        /// What is wrong.
        error: PskError,
    },
}

impl Keyring {
    /// Adds the key of a file, which is read now. Later changes of the file change nothing.
    ///
    /// # Errors
    /// The name is taken, or the file cannot be used.
    pub fn add_file(&mut self, name: &str, path: &Path) -> Result<(), KeyringError> {
        if self.keys.contains_key(name) {
            return Err(KeyringError::Exists(name.into()));
        }
        let text = KeyText::read(path).map_err(|error| KeyringError::File {
            name: name.into(),
            path: path.into(),
            error,
        })?;
        let path = path.into();
        self.keys.insert(name.into(), Entry { path, text });
        Ok(())
    }

    /// Forgets a key. Whoever was given it keeps it.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn remove(&mut self, name: &str) -> Result<(), KeyringError> {
        match self.keys.remove(name) {
            Some(_) => Ok(()),
            None => Err(KeyringError::Unknown(name.into())),
        }
    }

    /// The secret of this name, for DH-HMAC-CHAP.
    ///
    /// # Errors
    /// There is none, or it is something else.
    pub fn secret(&self, name: &str) -> Result<Secret, KeyringError> {
        self.text(name)?
            .as_str()
            .parse()
            .map_err(|error| KeyringError::Secret {
                name: name.into(),
                error,
            })
    }

    /// The key of this name, for TLS.
    ///
    /// # Errors
    /// There is none, or it is something else.
    pub fn psk(&self, name: &str) -> Result<ConfiguredPsk, KeyringError> {
        self.text(name)?
            .as_str()
            .parse()
            .map_err(|error| KeyringError::Psk {
                name: name.into(),
                error,
            })
    }

    /// From now on names that begin with a colon and are those of no file are looked for in the kernel's keyring, each time
    /// that they are used; or no more.
    pub fn set_with_kernel(&mut self, with_kernel: bool) {
        self.with_kernel = with_kernel;
    }

    /// Whether the kernel's keyring is looked into.
    pub fn is_with_kernel(&self) -> bool {
        self.with_kernel
    }

    /// Names and files of the keys that are in files.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        let keys = self.keys.iter();
        keys.map(|(name, entry)| (name.as_str(), entry.path.as_path()))
    }

    fn text(&self, name: &str) -> Result<KeyText, KeyringError> {
        match self.keys.get(name) {
            Some(entry) => Ok(entry.text.clone()),
            None if self.with_kernel && name.starts_with(kernel_keyring::PREFIX) => {
                kernel_keyring::read(name).map_err(|error| KeyringError::Kernel {
                    name: name.into(),
                    error,
                })
            }
            None => Err(KeyringError::Unknown(name.into())),
        }
    }

    /// The secrets of these names.
    ///
    /// # Errors
    /// As [`secret`](Self::secret).
    pub fn keys(&self, names: &KeyNames) -> Result<Keys, KeyringError> {
        let controller = names.dhchap_ctrlr_key.as_ref();
        Ok(Keys {
            host: self.secret(&names.dhchap_key)?,
            controller: controller.map(|name| self.secret(name)).transpose()?,
        })
    }
}
