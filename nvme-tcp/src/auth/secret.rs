//! Secrets as they are written down (NVMe Base 2.1, 8.3.5.5.7 to 8.3.5.5.9): `DHHC-1:hh:BASE64:`, where `hh` names the hash
//! function that transforms the secret before it is used and BASE64 holds the secret and its CRC-32.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::Hash;
use super::interchange::{CRC_LEN, Flaw, decode, encode};
use crate::spec::authentication::HashId;

/// What every secret begins with.
const PREFIX: &str = "DHHC-1";
/// What ends the bytes that a secret is transformed with.
const TRANSFORM_LABEL: &[u8] = b"NVMe-over-Fabrics";

/// The secret of a host or of a controller. Shows nothing of itself but how long it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    transform: Option<Hash>,
}

/// A secret as it is used, by one host or one controller. It is what a [`Secret`] becomes with the name of its owner.
#[derive(Clone, PartialEq, Eq)]
pub struct TransformedSecret(Zeroizing<Vec<u8>>);

/// Why a text is not a secret. Never shows any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Not of that form at all.
    #[error("a key has the form 'DHHC-1:HH:BASE64:', where HH is 00, 01, 02 or 03")]
    Form,
    /// A hash function that there is not.
    #[error(
        "unknown hash function in a key: 00 (none), 01, 02 and 03 (SHA-256, 384, 512) are known"
    )]
    Hash,
    /// Not base64.
    #[error("a key's third field is not base64")]
    Base64,
    /// Of another length.
    #[error("a key has 32, 48 or 64 bytes and a CRC-32 of 4: this one has {0} in all")]
    Length(usize),
    /// Damaged.
    #[error("a key's CRC-32 is wrong: it was damaged on the way, or cut")]
    Crc,
}

impl Secret {
    /// Lengths that a secret may have, in bytes.
    pub const LENGTHS: [usize; 3] = [32, 48, 64];

    /// A secret of these bytes, which is transformed by `transform` before it is used.
    ///
    /// # Errors
    /// [`SecretError::Length`]: they are none of [`Secret::LENGTHS`].
    pub fn new(bytes: &[u8], transform: Option<Hash>) -> Result<Self, SecretError> {
        if !Self::LENGTHS.contains(&bytes.len()) {
            return Err(SecretError::Length(bytes.len() + CRC_LEN));
        }
        Ok(Self {
            bytes: Zeroizing::new(bytes.to_vec()),
            transform,
        })
    }

    /// A new secret of `len` random bytes.
    ///
    /// # Errors
    /// A length that no secret has, as [`std::io::ErrorKind::InvalidInput`]; the system has no random bytes to give.
    pub fn generate(len: usize, transform: Option<Hash>) -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; len]);
        getrandom::fill(&mut bytes).map_err(std::io::Error::from)?;
        Self::new(&bytes, transform)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))
    }

    /// The hash function that transforms it.
    pub const fn transform(&self) -> Option<Hash> {
        self.transform
    }

    /// How long it is: 32, 48 or 64 bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The text to write down. It is the secret: for files with mode 0600, not for logs.
    pub fn to_text(&self) -> Zeroizing<String> {
        encode(
            PREFIX,
            self.transform.map_or(0, |hash| hash.id().0),
            &self.bytes,
        )
    }

    /// The secret as the host or the subsystem of this name uses it (8.3.5.5.7).
    pub fn transformed(&self, nqn: &str) -> TransformedSecret {
        TransformedSecret(match self.transform {
            None => self.bytes.clone(),
            Some(hash) => hash.hmac(&self.bytes, &[nqn.as_bytes(), TRANSFORM_LABEL]),
        })
    }
}

impl TransformedSecret {
    /// The bytes that key an HMAC.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as a secret that is used as it is, for those who do not transform.
    pub fn to_secret(&self) -> Secret {
        Secret {
            bytes: self.0.clone(),
            transform: None,
        }
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let (hash, bytes) = decode(PREFIX, text, &Self::LENGTHS)?;
        let transform = match hash {
            0 => None,
            id => Some(Hash::from_id(HashId(id)).ok_or(SecretError::Hash)?),
        };
        Ok(Self { bytes, transform })
    }
}

impl From<Flaw> for SecretError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Form => Self::Form,
            Flaw::Base64 => Self::Base64,
            Flaw::Length(length) => Self::Length(length),
            Flaw::Crc => Self::Crc,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("len", &self.size())
            .field("transform", &self.transform)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TransformedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransformedSecret").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;

    use super::*;

    /// The example of the specification's text, which libnvme's tests have, too.
    const EXAMPLE: &str = "ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n";

    fn parse(text: &str) -> Result<Secret, SecretError> {
        text.parse()
    }

    /// What `nvme gen-dhchap-key` and others have made, with every hash function and two lengths.
    #[test]
    fn keys_of_others_are_read_and_written_as_they_were() {
        for (hash, transform) in [
            ("00", None),
            ("01", Some(Hash::Sha256)),
            ("02", Some(Hash::Sha384)),
            ("03", Some(Hash::Sha512)),
        ] {
            let text = format!("DHHC-1:{hash}:{EXAMPLE}:");
            let secret = parse(&text).unwrap();
            assert_eq!((secret.transform(), secret.size()), (transform, 32));
            assert_eq!(*secret.to_text(), text);
        }
        for (text, len) in [
            (
                "DHHC-1:00:RbgmpCGRaCwY1m4SexVxhf7tsJCXuAg77iH0Z18Ys25TgI/K:",
                32,
            ),
            (
                "DHHC-1:01:vYcm5QemILkz5zSIeZidb4nPGcxongu2l/OaWMRgM9iIk/2A:\n",
                32,
            ),
            (
                "DHHC-1:02:Hi9ha9idssh3FgURRbfMUvOY7NlHiApDCmHhmIRCdhdlNQwebHEt/7DHoag3SmCHFvei/Q==:",
                48,
            ),
        ] {
            assert_eq!(parse(text).unwrap().size(), len);
        }
    }

    /// Computed with Python's `hmac` and `hashlib`.
    #[test]
    fn a_secret_is_transformed_with_the_name_of_its_owner() {
        let nqn = "nqn.2014-08.org.example:host";
        for (hash, expected) in [
            (
                "00",
                "89aeb31a874eaf84841b46736b0dfdf2ba58d30aa2a545a3e235a3521e07594c",
            ),
            (
                "01",
                "1f6b04cd6dd0e5f4e9ea66fa38f209e2c811d1d8d4f17f30c45bcb48640236b2",
            ),
            (
                "02",
                "249e79004b66e2b96bd02e5380e6109c70e23e9426645afdb18d1c4c694309844912ddeb15b534af9c5f0974b4c8d408",
            ),
            (
                "03",
                "4dc26cbaaece2adfadb3a6f7d5d586fc6a25ddc8c8e98f84bbeeab3ec0ce4acadd0754c7930f6c1df0ec6bc17db1d8b44b16339a91821a6ca44a6eb6237ddfa7",
            ),
        ] {
            let secret = parse(&format!("DHHC-1:{hash}:{EXAMPLE}:")).unwrap();
            let transformed = secret.transformed(nqn);
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            assert_eq!(hex(transformed.as_bytes()), expected);
            let derived = transformed.to_secret();
            assert_eq!(derived.transformed("somebody else"), transformed);
        }
    }

    #[test]
    fn what_is_no_secret_is_told_without_showing_it() {
        let short = BASE64.encode([1; 20]);
        let damaged = EXAMPLE.replace("ia6z", "ia6y");
        for (text, error) in [
            (String::new(), SecretError::Form),
            ("DHHC-1".into(), SecretError::Form),
            (format!("DHHC-2:00:{EXAMPLE}:"), SecretError::Form),
            (format!("NVMeTLSkey-1:01:{EXAMPLE}:"), SecretError::Form),
            (format!("DHHC-1:00:{EXAMPLE}"), SecretError::Form),
            (format!("DHHC-1:0:{EXAMPLE}:"), SecretError::Form),
            (format!("DHHC-1:+1:{EXAMPLE}:"), SecretError::Form),
            (format!("DHHC-1:04:{EXAMPLE}:"), SecretError::Hash),
            (format!("DHHC-1:00:!{EXAMPLE}:"), SecretError::Base64),
            (format!("DHHC-1:00:{short}:"), SecretError::Length(20)),
            ("DHHC-1:00::".into(), SecretError::Length(0)),
            (format!("DHHC-1:00:{damaged}:"), SecretError::Crc),
            (
                format!("DHHC-1:00:{}:", "A".repeat(1 << 20)),
                SecretError::Form,
            ),
        ] {
            let found = parse(&text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("ia6"), "{found}");
        }
        let secret = parse(&format!("DHHC-1:01:{EXAMPLE}:")).unwrap();
        let shown = format!("{secret:?} {:?}", secret.transformed("x"));
        assert!(!shown.contains("ia6z") && !shown.contains("137"), "{shown}");
    }

    #[test]
    fn generated_secrets_are_new_each_time() {
        for len in Secret::LENGTHS {
            let secret = Secret::generate(len, Some(Hash::Sha512)).unwrap();
            assert_eq!(secret.size(), len);
            assert_eq!(parse(&secret.to_text()), Ok(secret.clone()));
            assert_ne!(Secret::generate(len, Some(Hash::Sha512)).unwrap(), secret);
        }
        assert!(Secret::generate(33, None).is_err());
    }
}
