//! Files that hold a key, one each. Nobody but their owner may look into them.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::{Secret, SecretError};
use crate::tls::{ConfiguredPsk, PskError};

/// Longest key that is read from a file, in bytes: the longest that there is, a secret of 64 bytes, is less than half of that.
const LEN_MAX: usize = 256;
/// Who else may not have any access.
const GROUP_AND_OTHERS: u32 = 0o077;

/// Why a file cannot be used as a key. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// No name.
    #[error("the path of a key file is empty")]
    Empty,
    /// It cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A folder, a pipe or a device.
    #[error("not a regular file")]
    NotAFile,
    /// Others may look.
    #[error("mode {0:04o}: a key file must not be accessible to group and others (chmod 600)")]
    Open(u32),
    /// Somebody else can change it.
    #[error("owned by user {0}: a key file must belong to the user who runs this program")]
    Owner(u32),
    /// Too long.
    #[error("{0} bytes: no key is longer than {LEN_MAX}")]
    TooLong(u64),
    /// Not text.
    #[error("not text: a key is one line of text")]
    NotText,
    /// Not a key of the kind that is wanted.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Not a key for TLS, where one is wanted.
    #[error(transparent)]
    Psk(#[from] PskError),
}

/// The text of a key, which is wiped when it is dropped. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(Zeroizing<String>);

impl KeyText {
    /// A key that came by another way than a file.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The key, without the end of its line.
    pub fn as_str(&self) -> &str {
        self.0.trim_ascii()
    }

    /// Reads a file: a regular one, of the user who runs this program, with no access for group and others.
    ///
    /// # Errors
    /// What is wrong with the file, as a line that names neither path nor content.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        if path.as_os_str().is_empty() {
            return Err(KeyFileError::Empty);
        }
        // A pipe that nobody writes to must not keep this waiting.
        let mut open = OpenOptions::new();
        let file = open.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        // Of the open file: what the name means may change meanwhile.
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(KeyFileError::NotAFile);
        }
        if metadata.mode() & GROUP_AND_OTHERS != 0 {
            return Err(KeyFileError::Open(metadata.mode() & 0o7777));
        }
        if metadata.uid() != own_user()? {
            return Err(KeyFileError::Owner(metadata.uid()));
        }
        if metadata.len() > LEN_MAX as u64 {
            return Err(KeyFileError::TooLong(metadata.len()));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(LEN_MAX));
        file.take(LEN_MAX as u64).read_to_end(&mut bytes)?;
        let text = str::from_utf8(&bytes).map_err(|_| KeyFileError::NotText)?;
        Ok(Self::new(text.to_owned()))
    }

    /// Writes it into a new file with mode 0600.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyFileError> {
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(self.as_str().as_bytes())?;
        file.write_all(b"\n")?;
        Ok(())
    }
}

impl Secret {
    /// Reads a file with a secret, as [`KeyText::read`] does.
    ///
    /// # Errors
    /// The file cannot be used, or holds no secret.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        Ok(KeyText::read(path)?.as_str().parse()?)
    }
}

impl ConfiguredPsk {
    /// Reads a file with a key for TLS, as [`KeyText::read`] does.
    ///
    /// # Errors
    /// The file cannot be used, or holds no such key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        Ok(KeyText::read(path)?.as_str().parse()?)
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyText").finish_non_exhaustive()
    }
}

/// The user who runs this program: the kernel makes its own folder in `/proc` that user's.
fn own_user() -> io::Result<u32> {
    Ok(std::fs::metadata("/proc/self")?.uid())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let name = format!("pollux-key-file-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_written_is_read_and_others_cannot() {
        let folder = folder("round");
        let path = folder.join("key");
        let key = KeyText::new("DHHC-1:00:secret:".into());
        key.write_new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(KeyText::read(&path).unwrap().as_str(), key.as_str());
        assert!(matches!(key.write_new(&path), Err(KeyFileError::Io(_))));
        assert!(!format!("{key:?}").contains("secret"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn files_that_are_no_key_files() {
        let folder = folder("bad");
        let file = |name: &str, bytes: &[u8], mode| {
            let path = folder.join(name);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let open = file("open", b"key", 0o640);
        let text = file("text", &[0xFF], 0o600);
        let long = file("long", b"", 0o600);
        let gigabyte = OpenOptions::new().write(true).open(&long).unwrap();
        gigabyte.set_len(1 << 30).unwrap();
        let missing = folder.join("missing");
        for (path, line) in [
            (Path::new(""), "the path of a key file is empty"),
            (
                &open,
                "mode 0640: a key file must not be accessible to group and others (chmod 600)",
            ),
            (&text, "not text: a key is one line of text"),
            (&long, "1073741824 bytes: no key is longer than 256"),
            (&folder, "not a regular file"),
            (&missing, "No such file or directory (os error 2)"),
            (Path::new("/dev/null"), "not a regular file"),
        ] {
            assert_eq!(KeyText::read(path).unwrap_err().to_string(), line);
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
