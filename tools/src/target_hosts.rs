//! Which hosts may connect to `pollux target`, and the keys that they need for it.

#[cfg(feature = "auth")]
use std::path::{Path, PathBuf};

use clap::Args;
use pollux_nvme_tcp::auth::Keyring;
#[cfg(feature = "auth")]
use pollux_nvme_tcp::auth::{KeyNames, KeyringError, Keys};
use pollux_nvme_tcp::spec::{HostNqn, Nqn};
use pollux_nvme_tcp::target::HostAccess;
#[cfg(feature = "auth")]
use pollux_nvme_tcp::target::HostKeys;
#[cfg(feature = "auth")]
use pollux_nvme_tcp::tls::HostPsk;

use crate::UsageError;

// The options, and what the keys in their files are called where keys have names.
#[cfg(feature = "auth")]
const DHCHAP_KEY: [&str; 2] = ["--dhchap-key", "dhchap_key"];
#[cfg(feature = "auth")]
const DHCHAP_CTRLR_KEY: [&str; 2] = ["--dhchap-ctrlr-key", "dhchap_ctrlr_key"];
#[cfg(feature = "tls")]
const TLS_PSK: [&str; 2] = ["--tls-psk", "tls_psk"];

/// Who may connect, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hosts")]
pub struct AllowArgs {
    /// Host that may connect; repeatable. Without it any host may.
    #[arg(long, value_name = "NQN", value_parser = parse_host)]
    allow_host: Vec<HostNqn>,

    /// File with the key with which these hosts have to authenticate (DH-HMAC-CHAP). Management can give each host a key of
    /// its own.
    #[cfg(feature = "auth")]
    #[arg(long, value_name = "FILE", requires = "allow_host")]
    dhchap_key: Option<PathBuf>,

    /// File with the key with which the subsystem proves itself to hosts that ask for it.
    #[cfg(feature = "auth")]
    #[arg(long, value_name = "FILE", requires = "dhchap_key")]
    dhchap_ctrlr_key: Option<PathBuf>,

    /// File with the key for TLS of these hosts: all listeners are secure, and speak nothing else.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "allow_host")]
    tls_psk: Option<PathBuf>,

    /// Have the kernel encrypt (kTLS) where it can; otherwise it is done here.
    #[cfg(feature = "tls")]
    #[arg(long, requires = "allow_host")]
    ktls: bool,
}

/// What was in the files of keys.
pub struct Access {
    /// Each host that may connect, and how.
    pub hosts: Vec<(HostNqn, HostAccess)>,
    /// The keys by name.
    pub keyring: Keyring,
}

impl AllowArgs {
    /// Whether nothing is said of hosts: any may connect.
    pub fn is_empty(&self) -> bool {
        self.allow_host.is_empty()
    }

    /// Whether listeners are secure.
    pub fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls_psk.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// Whether the kernel is to encrypt.
    pub const fn ktls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.ktls;
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// Reads the files.
    ///
    /// # Errors
    /// [`UsageError`]: a file cannot be used, in one line that shows nothing of what is in it.
    #[cfg(feature = "auth")]
    pub fn read(&self, subsystem: &Nqn) -> Result<Access, UsageError> {
        let mut keyring = Keyring::default();
        let keys = self.keys(&mut keyring)?;
        let psks = self.psks(&mut keyring, subsystem)?;
        let access = |psk| {
            let mut access = HostAccess::default();
            access.keys = keys.clone();
            access.psk = psk;
            access
        };
        let hosts = self.allow_host.iter().cloned();
        Ok(Access {
            hosts: hosts.zip(psks.into_iter().map(access)).collect(),
            keyring,
        })
    }

    /// Without the feature there are no keys.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "auth"))]
    pub fn read(&self, _: &Nqn) -> Result<Access, UsageError> {
        let hosts = self.allow_host.iter();
        let hosts = hosts.map(|host| (host.clone(), HostAccess::default()));
        Ok(Access {
            hosts: hosts.collect(),
            keyring: Keyring::default(),
        })
    }

    #[cfg(feature = "auth")]
    fn keys(&self, keyring: &mut Keyring) -> Result<Option<HostKeys>, UsageError> {
        let Some(path) = &self.dhchap_key else {
            return Ok(None);
        };
        let host = take(keyring, DHCHAP_KEY, path, Keyring::secret)?;
        let controller = match &self.dhchap_ctrlr_key {
            Some(path) => Some(take(keyring, DHCHAP_CTRLR_KEY, path, Keyring::secret)?),
            None => None,
        };
        let [_, name] = DHCHAP_CTRLR_KEY;
        let names = KeyNames {
            dhchap_key: DHCHAP_KEY[1].into(),
            dhchap_ctrlr_key: controller.is_some().then(|| name.into()),
        };
        let keys = Keys { host, controller };
        Ok(Some(HostKeys { keys, names }))
    }

    /// The key for TLS of each host.
    #[cfg(feature = "tls")]
    fn psks(
        &self,
        keyring: &mut Keyring,
        subsystem: &Nqn,
    ) -> Result<Vec<Option<HostPsk>>, UsageError> {
        let Some(path) = &self.tls_psk else {
            return Ok(vec![None; self.allow_host.len()]);
        };
        let psk = take(keyring, TLS_PSK, path, Keyring::psk)?;
        let [option, name] = TLS_PSK;
        let of_host = |host| match HostPsk::new(name, &psk, host, subsystem) {
            Ok(psk) => Ok(Some(psk)),
            Err(error) => Err(UsageError(format!("{option} for {host}: {error}"))),
        };
        self.allow_host.iter().map(of_host).collect()
    }

    /// Without the feature, none.
    #[cfg(all(feature = "auth", not(feature = "tls")))]
    fn psks(&self, _: &mut Keyring, _: &Nqn) -> Result<Vec<Option<HostPsk>>, UsageError> {
        Ok(vec![None; self.allow_host.len()])
    }
}

/// Reads a file into the keyring, and takes the key from there.
#[cfg(feature = "auth")]
fn take<K>(
    keyring: &mut Keyring,
    [option, name]: [&str; 2],
    path: &Path,
    key: impl FnOnce(&Keyring, &str) -> Result<K, KeyringError>,
) -> Result<K, UsageError> {
    // A saved configuration is loaded elsewhere.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let added = keyring.add_file(name, &absolute);
    added.and_then(|()| key(keyring, name)).map_err(|error| {
        let error = match error {
            KeyringError::File { error, .. } => error.to_string(),
            KeyringError::Secret { error, .. } => error.to_string(),
            KeyringError::Psk { error, .. } => error.to_string(),
            error => error.to_string(),
        };
        UsageError(format!("{option} {}: {error}", path.display()))
    })
}

/// A name under which a host can be allowed: whatever it calls itself, but it must have a name.
fn parse_host(text: &str) -> Result<HostNqn, String> {
    match HostNqn::new(text) {
        Ok(_) if text.is_empty() => Err("a host that is allowed has a name".into()),
        Ok(host) => Ok(host),
        Err(error) => Err(error.to_string()),
    }
}
