//! Keys that the Linux kernel keeps: type `user`, in the session keyring of this process or in one that is linked to it. The
//! kernel wipes them, ends them when their time is over, and has never written them to a disk.

use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use zeroize::Zeroizing;

use super::KeyText;

/// Names that begin so are those of keys in the kernel's keyring.
pub(super) const PREFIX: char = ':';
/// Longest key that is read, in bytes: as of a file.
const LEN_MAX: usize = 256;
/// What group and others may do with a key: the lower two bytes of its permissions.
const GROUP_AND_OTHERS: u32 = 0xffff;

/// Why a key of the kernel cannot be used. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelKeyError {
    /// There is none, or its time is over.
    #[error(
        "the session keyring has no such key of type 'user' (keyctl add user NAME KEY @s adds one)"
    )]
    Absent,
    /// Others may look.
    #[error(
        "permissions {0:#010x}: a key must not be accessible to group and others (keyctl setperm KEY 0x3f3f0000)"
    )]
    Open(u32),
    /// Too long.
    #[error("{0} bytes: no key is longer than {LEN_MAX}")]
    TooLong(usize),
    /// Not text.
    #[error("not text: a key is one line of text")]
    NotText,
    /// The kernel says no.
    #[error("the kernel's keyring: {0:?}")]
    Kernel(KeyError),
}

impl From<KeyError> for KernelKeyError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked => Self::Absent,
            error => Self::Kernel(error),
        }
    }
}

/// Reads the key of this name, as it is now.
pub(super) fn read(name: &str) -> Result<KeyText, KernelKeyError> {
    let session = KeyRing::from_special_id(KeyRingIdentifier::Session, false)?;
    let key = session.search(name)?;
    let permissions = key.metadata()?.get_perms().bits();
    if permissions & GROUP_AND_OTHERS != 0 {
        return Err(KernelKeyError::Open(permissions));
    }
    let mut bytes = Zeroizing::new([0; LEN_MAX]);
    // Of a key that does not fit, the kernel tells the length.
    let len = key.read(&mut bytes)?;
    let text = bytes.get(..len).ok_or(KernelKeyError::TooLong(len))?;
    let text = str::from_utf8(text).map_err(|_| KernelKeyError::NotText)?;
    Ok(KeyText::new(text.to_owned()))
}
