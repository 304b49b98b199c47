//! The token that clients show on sockets that are not guarded by the file system.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Fewest and most characters of a token: what is shorter could be guessed, what is longer was meant to be something else.
const LEN_MIN: usize = 16;
const LEN_MAX: usize = 256;

/// What a client has to know that manages a program over TCP. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<[u8]>);

/// Why something is no token. Says nothing of what it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A folder, a pipe or a device.
    #[error("not a regular file")]
    NotAFile,
    /// Others may look.
    #[error("mode {0:04o}: a token's file must not be accessible to group and others (chmod 600)")]
    Open(u32),
    /// Too short, too long, or not printable.
    #[error(
        "a token is one line of {LEN_MIN} to {LEN_MAX} printable ASCII characters without spaces"
    )]
    Malformed,
}

impl Token {
    /// A token as it is written; the end of its line is not part of it.
    ///
    /// # Errors
    /// It has fewer than 16 or more than 256 characters, or others than printable ones of ASCII.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim_ascii().as_bytes();
        let is_sound = (LEN_MIN..=LEN_MAX).contains(&text.len())
            && text.iter().all(|byte| byte.is_ascii_graphic());
        match is_sound {
            true => Ok(Self(text.into())),
            false => Err(TokenError::Malformed),
        }
    }

    /// Reads a file that holds a token and that only its owner may read.
    ///
    /// # Errors
    /// It cannot be read, others may read it, or it holds no token.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        // A pipe that nobody writes to must not keep this waiting.
        let mut open = OpenOptions::new();
        let file = open.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(TokenError::NotAFile);
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(TokenError::Open(metadata.mode() & 0o7777));
        }
        let mut text = String::new();
        // One character and a line end more than the longest: then it is too long.
        file.take(LEN_MAX as u64 + 3)
            .read_to_string(&mut text)
            .map_err(|_| TokenError::Malformed)?;
        Self::new(&text)
    }

    /// Its text, for the request that shows it.
    pub(super) fn text(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether this is the token. Takes as long for any text of the same length.
    pub(super) fn is(&self, text: &str) -> bool {
        let pairs = self.0.iter().zip(text.as_bytes());
        let differences = pairs.fold(0, |sum, (a, b)| sum | (a ^ b));
        self.0.len() == text.len() && std::hint::black_box(differences) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TEXT: &str = "0123456789abcdef";

    #[test]
    fn only_the_same_text_is_the_token() {
        let token = Token::new(&format!("{TEXT}\n")).unwrap();
        assert!(token.is(TEXT));
        for other in [
            "",
            "0123456789abcdeF",
            "0123456789abcde",
            "0123456789abcdef0",
        ] {
            assert!(!token.is(other), "{other}");
        }
        assert!(!format!("{token:?}").contains("0123"));
        let long = "x".repeat(257);
        for bad in [
            "",
            "0123456789abcde",
            "0123456789 abcdef",
            "0123456789abcd\u{e9}f",
            &long,
        ] {
            assert!(
                matches!(Token::new(bad), Err(TokenError::Malformed)),
                "{bad}"
            );
        }
    }

    #[test]
    fn files_that_hold_a_token() {
        let name = format!("pollux-token-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, TEXT).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o600);
        assert!(Token::read(&path).unwrap().is(TEXT));
        mode(0o644);
        assert!(matches!(Token::read(&path), Err(TokenError::Open(0o644))));
        mode(0o600);
        std::fs::write(&path, [0xff; 20]).unwrap();
        assert!(matches!(Token::read(&path), Err(TokenError::Malformed)));
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        assert!(matches!(Token::read(&path), Err(TokenError::Malformed)));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Token::read(&path), Err(TokenError::Io(_))));
        assert!(matches!(
            Token::read(&std::env::temp_dir()),
            Err(TokenError::NotAFile)
        ));
    }
}
