//! Pre-shared keys as they are written down (TCP Transport 1.1, 3.6.1.5): `NVMeTLSkey-1:hh:BASE64:`; and the way from there to
//! the key and the identity of a handshake (3.6.1.3, 3.6.1.4).
//!
//! ```text
//! configured PSK --"HostNQN", HOSTNQN--> retained PSK --"nvme-tls-psk", identity--> TLS PSK
//! ```

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::auth::Hash;
use crate::auth::interchange::{CRC_LEN, Flaw, decode, encode};
use crate::spec::authentication::HashId;

/// What every key begins with.
const PREFIX: &str = "NVMeTLSkey-1";
/// What ends the bytes that the digest of an identity is made of.
const DIGEST_LABEL: &[u8] = b"NVMe-over-Fabrics";

/// A pre-shared key as it was configured, for one host. Shows nothing of itself but how long it is.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfiguredPsk {
    bytes: Zeroizing<Vec<u8>>,
    /// The hash function that makes it a retained PSK; without one it is a retained PSK already.
    transform: Option<Hash>,
}

/// The cipher suites of NVMe/TCP, which follow from the length of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CipherSuite {
    /// TLS_AES_128_GCM_SHA256: keys of 32 bytes.
    Aes128GcmSha256,
    /// TLS_AES_256_GCM_SHA384: keys of 48 bytes.
    Aes256GcmSha384,
}

/// Versions of PSK identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum IdentityVersion {
    /// `NVMe0R0h HOSTNQN SUBNQN`.
    V0,
    /// `NVMe1R0h HOSTNQN SUBNQN DIGEST`: it tells the keys of one host at one subsystem apart.
    V1,
}

/// The key of handshakes between one host and one subsystem, and what it is called there. Shows nothing of the key.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsPsk {
    /// The PSK identity. It is sent in the clear.
    pub identity: String,
    /// The cipher suite that it is for.
    pub suite: CipherSuite,
    key: Zeroizing<Vec<u8>>,
}

/// Why a text is not a key, or a key cannot be used. Never shows any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PskError {
    /// Not of that form at all.
    #[error("a TLS key has the form 'NVMeTLSkey-1:HH:BASE64:', where HH is 00, 01 or 02")]
    Form,
    /// A hash function that there is not.
    #[error(
        "unknown hash function in a TLS key: 00 (none), 01 (SHA-256) and 02 (SHA-384) are known"
    )]
    Hash,
    /// Not base64.
    #[error("a TLS key's third field is not base64")]
    Base64,
    /// Of another length.
    #[error("a TLS key has 32 or 48 bytes and a CRC-32 of 4: this one has {0} in all")]
    Length(usize),
    /// Not as long as its hash function wants.
    #[error(
        "a TLS key of {0} bytes does not go with its hash function: 01 (SHA-256) has 32, 02 (SHA-384) has 48"
    )]
    LengthOfHash(usize),
    /// Damaged.
    #[error("a TLS key's CRC-32 is wrong: it was damaged on the way, or cut")]
    Crc,
    /// The names are too long for the identity that was asked for.
    #[error(
        "the NQNs of host and subsystem make a PSK identity of {0} bytes: one of version 0 has at most {max}",
        max = TlsPsk::CONTEXT_MAX
    )]
    IdentityTooLong(usize),
}

impl CipherSuite {
    /// Both, as they are offered.
    pub const ALL: [Self; 2] = [Self::Aes128GcmSha256, Self::Aes256GcmSha384];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128GcmSha256 => "TLS_AES_128_GCM_SHA256",
            Self::Aes256GcmSha384 => "TLS_AES_256_GCM_SHA384",
        }
    }

    /// Its hash function.
    pub const fn hash(self) -> Hash {
        match self {
            Self::Aes128GcmSha256 => Hash::Sha256,
            Self::Aes256GcmSha384 => Hash::Sha384,
        }
    }
}

impl IdentityVersion {
    /// Both, as they are offered: the one that everybody knows first.
    pub const ALL: [Self; 2] = [Self::V0, Self::V1];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::V0 => Self::V1,
            Self::V1 => Self::V0,
        }
    }
}

impl ConfiguredPsk {
    /// Lengths that a key may have, in bytes.
    pub const LENGTHS: [usize; 2] = [32, 48];

    /// A key of these bytes; `transform` makes it a retained PSK.
    ///
    /// # Errors
    /// A length that is not allowed, or not with this hash function.
    pub fn new(bytes: &[u8], transform: Option<Hash>) -> Result<Self, PskError> {
        Self::of(Zeroizing::new(bytes.to_vec()), transform)
    }

    fn of(bytes: Zeroizing<Vec<u8>>, transform: Option<Hash>) -> Result<Self, PskError> {
        if !Self::LENGTHS.contains(&bytes.len()) {
            return Err(PskError::Length(bytes.len() + CRC_LEN));
        }
        match transform {
            Some(Hash::Sha512) => Err(PskError::Hash),
            Some(hash) if hash.size() != bytes.len() => Err(PskError::LengthOfHash(bytes.len())),
            _ => Ok(Self { bytes, transform }),
        }
    }

    /// A new key of `len` random bytes.
    ///
    /// # Errors
    /// A length that no such key has, as [`std::io::ErrorKind::InvalidInput`]; the system has no random bytes to give.
    pub fn generate(len: usize, transform: Option<Hash>) -> std::io::Result<Self> {
        let mut bytes = Zeroizing::new(vec![0; len]);
        getrandom::fill(&mut bytes).map_err(std::io::Error::from)?;
        Self::of(bytes, transform)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))
    }

    /// The hash function that makes it a retained PSK.
    pub const fn transform(&self) -> Option<Hash> {
        self.transform
    }

    /// How long it is: 32 or 48 bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The cipher suite that it is for.
    pub fn suite(&self) -> CipherSuite {
        match self.size() {
            32 => CipherSuite::Aes128GcmSha256,
            _ => CipherSuite::Aes256GcmSha384,
        }
    }

    /// The text to write down. It is the key: for files with mode 0600, not for logs.
    pub fn to_text(&self) -> Zeroizing<String> {
        let hash = self.transform.map_or(0, |hash| hash.id().0);
        encode(PREFIX, hash, &self.bytes)
    }

    /// The retained PSK of a host: what is left to be kept of a configured one, by host or target.
    pub fn retained(&self, hostnqn: &str) -> Self {
        Self {
            bytes: match self.transform {
                None => self.bytes.clone(),
                Some(hash) => derive(hash, &self.bytes, "HostNQN", hostnqn),
            },
            transform: None,
        }
    }

    /// The key and the identity of handshakes between a host and a subsystem.
    ///
    /// # Errors
    /// [`PskError::IdentityTooLong`]: version 0 does not go with names as long as these.
    pub fn tls_psk(
        &self,
        version: IdentityVersion,
        hostnqn: &str,
        subnqn: &str,
    ) -> Result<TlsPsk, PskError> {
        let suite = self.suite();
        let hash = suite.hash();
        let retained = self.retained(hostnqn).bytes;
        let specifier = hash.id().0;
        let (identity, context) = match version {
            IdentityVersion::V0 => {
                let identity = format!("NVMe0R{specifier:02} {hostnqn} {subnqn}");
                (identity.clone(), identity)
            }
            IdentityVersion::V1 => return Ok(with_digest('R', suite, &retained, hostnqn, subnqn)),
        };
        if context.len() > TlsPsk::CONTEXT_MAX {
            return Err(PskError::IdentityTooLong(context.len()));
        }
        Ok(TlsPsk {
            key: derive(hash, &retained, "nvme-tls-psk", &context),
            identity,
            suite,
        })
    }
}

/// The key and the identity that has a digest, of a retained PSK (R) or a generated one (G).
fn with_digest(kind: char, suite: CipherSuite, psk: &[u8], host: &str, subsystem: &str) -> TlsPsk {
    let hash = suite.hash();
    let specifier = hash.id().0;
    let parts: [&[u8]; 5] = [
        host.as_bytes(),
        b" ",
        subsystem.as_bytes(),
        b" ",
        DIGEST_LABEL,
    ];
    let digest = BASE64.encode(&*hash.hmac(psk, &parts));
    TlsPsk {
        key: derive(
            hash,
            psk,
            "nvme-tls-psk",
            &format!("{specifier:02} {digest}"),
        ),
        identity: format!("NVMe1{kind}{specifier:02} {host} {subsystem} {digest}"),
        suite,
    }
}

impl TlsPsk {
    /// The key and the identity of handshakes after a secure concatenation, of the key that came out of it (NVMe Base 2.1,
    /// 8.3.5.5.9). None of SHA-512, which no cipher suite has.
    pub(crate) fn generated(hash: Hash, psk: &[u8], host: &str, subsystem: &str) -> Option<Self> {
        let suite = CipherSuite::ALL.into_iter().find(|s| s.hash() == hash)?;
        Some(with_digest('G', suite, psk, host, subsystem))
    }

    /// Longest text that a key can be derived with, in bytes.
    const CONTEXT_MAX: usize = 255;

    /// The bytes of the key. For a handshake, and for peers that derive nothing themselves; not for logs.
    pub fn key(&self) -> &[u8] {
        &self.key
    }
}

/// HKDF-Extract without salt, and HKDF-Expand-Label to as many bytes as the hash function gives (RFC 5869; RFC 8446, 7.1).
/// Whoever calls sees to the length of the context.
fn derive(hash: Hash, key: &[u8], label: &str, context: &str) -> Zeroizing<Vec<u8>> {
    let zeroes = [0; 64];
    let extracted = hash.hmac(zeroes.get(..hash.size()).unwrap_or(&zeroes), &[key]);
    expand_label(hash, &extracted, label, context, hash.size())
}

/// HKDF-Expand-Label to `len` bytes, which are no more than the hash function gives (RFC 8446, 7.1). No context is longer than
/// 255 bytes.
pub(super) fn expand_label(
    hash: Hash,
    secret: &[u8],
    label: &str,
    context: &str,
    len: usize,
) -> Zeroizing<Vec<u8>> {
    let byte = |len: usize| {
        #[expect(clippy::expect_used, reason = "names and labels have been measured")]
        u8::try_from(len).expect("a label and a context of at most 255 bytes")
    };
    assert!(len <= hash.size(), "{len} bytes in one round");
    let length = [0, byte(len)];
    let label = format!("tls13 {label}");
    // One round of HKDF-Expand, whose number is the last byte.
    let parts: [&[u8]; 6] = [
        &length,
        &[byte(label.len())],
        label.as_bytes(),
        &[byte(context.len())],
        context.as_bytes(),
        &[1],
    ];
    let mut output = hash.hmac(secret, &parts);
    output.truncate(len);
    output
}

impl FromStr for ConfiguredPsk {
    type Err = PskError;

    fn from_str(text: &str) -> Result<Self, PskError> {
        let (hash, bytes) = decode(PREFIX, text, &Self::LENGTHS)?;
        let transform = match hash {
            0 => None,
            id => Some(Hash::from_id(HashId(id)).ok_or(PskError::Hash)?),
        };
        Self::of(bytes, transform)
    }
}

impl From<Flaw> for PskError {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Form => Self::Form,
            Flaw::Base64 => Self::Base64,
            Flaw::Length(length) => Self::Length(length),
            Flaw::Crc => Self::Crc,
        }
    }
}

impl fmt::Debug for ConfiguredPsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfiguredPsk")
            .field("len", &self.size())
            .field("transform", &self.transform)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsPsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPsk")
            .field("identity", &self.identity)
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys, names and V1 identities of libnvme's tests.
    const KEY_32: &str = "VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ";
    const KEY_48: &str = "VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3W2LxIcLXVsDn8kXZQ==";
    const HOST: &str = "nqn.psk-test-host";
    const SUBSYSTEM: &str = "nqn.psk-test-subsys";

    fn parse(text: &str) -> Result<ConfiguredPsk, PskError> {
        text.parse()
    }

    #[test]
    fn keys_of_others_are_read_and_written_as_they_were() {
        for (hash, key, transform, size, suite) in [
            ("00", KEY_32, None, 32, CipherSuite::Aes128GcmSha256),
            ("00", KEY_48, None, 48, CipherSuite::Aes256GcmSha384),
            (
                "01",
                KEY_32,
                Some(Hash::Sha256),
                32,
                CipherSuite::Aes128GcmSha256,
            ),
            (
                "02",
                KEY_48,
                Some(Hash::Sha384),
                48,
                CipherSuite::Aes256GcmSha384,
            ),
        ] {
            let text = format!("NVMeTLSkey-1:{hash}:{key}:");
            let psk = parse(&text).unwrap();
            assert_eq!((psk.transform(), psk.size()), (transform, size));
            assert_eq!(psk.suite(), suite);
            assert_eq!(*psk.to_text(), text);
            assert_eq!(parse(&format!(" {text}\n")), Ok(psk));
        }
    }

    /// Identities of version 1 are those of libnvme's tests; keys were computed with Python's `hmac` and `hashlib`.
    #[test]
    fn identities_and_keys_are_those_that_others_derive() {
        for (text, version, identity, key) in [
            (
                format!("01:{KEY_32}"),
                IdentityVersion::V0,
                "NVMe0R01 nqn.psk-test-host nqn.psk-test-subsys",
                "05c6503551ad136e6ee32e6eeb3f6d500b69701d84ec71e328f65c7f51566f68",
            ),
            (
                format!("01:{KEY_32}"),
                IdentityVersion::V1,
                "NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys iSbjiStwJ/1TrTvDlt2fjFmzvsytOJelidNnA+X5lEU=",
                "8fc3c0badfd4c0c66fa3ca33aadd0314f85536cc9bc47338b60f3e6e563786ca",
            ),
            (
                format!("02:{KEY_48}"),
                IdentityVersion::V0,
                "NVMe0R02 nqn.psk-test-host nqn.psk-test-subsys",
                "f42ba63824cdfe421914c582921f85b5b5b7e2d4df084caeedc9be20b212e8bb0fe8a23e9d59a1c8fc6449da4970a78d",
            ),
            (
                format!("02:{KEY_48}"),
                IdentityVersion::V1,
                "NVMe1R02 nqn.psk-test-host nqn.psk-test-subsys QhW2+Rp6RzHlNtCslyRxMnwJ11tKKhz8JCAQpQ+XUD8f9td1VeH5h53yz2wKJG1a",
                "a2b2f943f479fc682555cec89857c80ed004ce92f32a973d5764155bb7e36b17a85368a0666d250afac9282dda2e62ca",
            ),
            (
                format!("00:{KEY_32}"),
                IdentityVersion::V0,
                "NVMe0R01 nqn.psk-test-host nqn.psk-test-subsys",
                "ec85300ba827726bd3bc4fc07f3a34aec5fe7c8ccac05fefc2f021c74e0df9ef",
            ),
            (
                format!("00:{KEY_32}"),
                IdentityVersion::V1,
                "NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys quJVUJjp/BImWR0UQay/MjSfEgyAr6TyBOWybS/B404=",
                "a45d08ee4639c7570729bb3e57e905e466a49a15ece5401af906830c4d3bdb0b",
            ),
        ] {
            let psk = parse(&format!("NVMeTLSkey-1:{text}:")).unwrap();
            let tls = psk.tls_psk(version, HOST, SUBSYSTEM).unwrap();
            let hex = tls
                .key()
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>();
            assert_eq!(
                (tls.identity.as_str(), hex.as_str()),
                (identity, key),
                "{text}"
            );
            assert_eq!(tls.suite, psk.suite());
            let retained = psk.retained(HOST);
            assert_eq!(retained.tls_psk(version, HOST, SUBSYSTEM), Ok(tls));
        }
    }

    #[test]
    fn a_key_is_another_for_every_host_and_subsystem() {
        let psk = parse(&format!("NVMeTLSkey-1:01:{KEY_32}:")).unwrap();
        for version in IdentityVersion::ALL {
            let key = |host, subsystem| psk.tls_psk(version, host, subsystem).unwrap().key;
            assert_ne!(key("a", "b"), key("b", "b"));
            assert_ne!(key("a", "b"), key("a", "a"));
        }
    }

    #[test]
    fn names_that_are_too_long_for_one_version_go_with_the_other() {
        let psk = parse(&format!("NVMeTLSkey-1:01:{KEY_32}:")).unwrap();
        let (host, subsystem) = ("h".repeat(223), "s".repeat(22));
        let derived = |version, subsystem: &str| psk.tls_psk(version, &host, subsystem);
        assert!(derived(IdentityVersion::V0, &subsystem).is_ok());
        let longer = format!("{subsystem}s");
        assert_eq!(
            derived(IdentityVersion::V0, &longer),
            Err(PskError::IdentityTooLong(256))
        );
        assert!(derived(IdentityVersion::V1, &"s".repeat(223)).is_ok());
    }

    #[test]
    fn what_is_no_key_is_told_without_showing_it() {
        let short = encode(PREFIX, 1, &[1; 16]);
        let damaged = KEY_32.replace("VRLb", "VRLa");
        for (text, error) in [
            (String::new(), PskError::Form),
            ("NVMeTLSkey-1".into(), PskError::Form),
            (format!("NVMeTLSkey-2:01:{KEY_32}:"), PskError::Form),
            (format!("DHHC-1:01:{KEY_32}:"), PskError::Form),
            (format!("NVMeTLSkey-1:1:{KEY_32}:"), PskError::Form),
            (format!("NVMeTLSkey-1:03:{KEY_32}:"), PskError::Hash),
            (format!("NVMeTLSkey-1:77:{KEY_32}:"), PskError::Hash),
            (format!("NVMeTLSkey-1:01:!{KEY_32}:"), PskError::Base64),
            (short.to_string(), PskError::Length(20)),
            ("NVMeTLSkey-1:01::".into(), PskError::Length(0)),
            (
                format!("NVMeTLSkey-1:02:{KEY_32}:"),
                PskError::LengthOfHash(32),
            ),
            (
                format!("NVMeTLSkey-1:01:{KEY_48}:"),
                PskError::LengthOfHash(48),
            ),
            (format!("NVMeTLSkey-1:01:{damaged}:"), PskError::Crc),
        ] {
            let found = parse(&text).unwrap_err();
            assert_eq!(found, error, "{text}");
            assert!(!found.to_string().contains("VRL"), "{found}");
        }
        let psk = parse(&format!("NVMeTLSkey-1:01:{KEY_32}:")).unwrap();
        let tls = psk.tls_psk(IdentityVersion::V0, HOST, SUBSYSTEM).unwrap();
        let shown = format!("{psk:?} {tls:?}");
        assert!(
            !shown.contains("VRL") && !shown.contains("85, 18"),
            "{shown}"
        );
    }

    #[test]
    fn generated_keys_are_new_each_time() {
        for (len, hash) in [
            (32, Some(Hash::Sha256)),
            (48, Some(Hash::Sha384)),
            (48, None),
        ] {
            let psk = ConfiguredPsk::generate(len, hash).unwrap();
            assert_eq!(parse(&psk.to_text()), Ok(psk.clone()));
            assert_ne!(ConfiguredPsk::generate(len, hash).unwrap(), psk);
        }
        assert!(ConfiguredPsk::generate(64, None).is_err());
        assert!(ConfiguredPsk::generate(48, Some(Hash::Sha256)).is_err());
    }
}
