//! The hash functions.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384, Sha512};
use zeroize::{Zeroize, Zeroizing};

use crate::spec::authentication::HashId;

/// A hash function that DH-HMAC-CHAP knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Hash {
    /// SHA-256: 32 bytes.
    Sha256,
    /// SHA-384: 48 bytes.
    Sha384,
    /// SHA-512: 64 bytes.
    Sha512,
}

/// Runs `$body` with `$hasher` as the type of the hash function.
macro_rules! with_hasher {
    ($hash:expr, $hasher:ident, $body:expr) => {
        match $hash {
            Hash::Sha256 => {
                type $hasher = Sha256;
                $body
            }
            Hash::Sha384 => {
                type $hasher = Sha384;
                $body
            }
            Hash::Sha512 => {
                type $hasher = Sha512;
                $body
            }
        }
    };
}

impl Hash {
    /// All of them, the strongest first.
    pub const ALL: [Self; 3] = [Self::Sha512, Self::Sha384, Self::Sha256];

    /// The function with this identifier.
    pub const fn from_id(id: HashId) -> Option<Self> {
        match id {
            HashId::SHA256 => Some(Self::Sha256),
            HashId::SHA384 => Some(Self::Sha384),
            HashId::SHA512 => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Its identifier.
    pub const fn id(self) -> HashId {
        match self {
            Self::Sha256 => HashId::SHA256,
            Self::Sha384 => HashId::SHA384,
            Self::Sha512 => HashId::SHA512,
        }
    }

    /// The function with this name: `sha256`, `sha384` or `sha512`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.name() == name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of what it gives, in bytes: 32, 48 or 64.
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of some bytes.
    pub(super) fn digest(self, bytes: &[u8]) -> Zeroizing<Vec<u8>> {
        leaving_nothing(|| {
            with_hasher!(self, Hasher, Zeroizing::new(Hasher::digest(bytes).to_vec()))
        })
    }

    /// The HMAC of these parts, one after the other.
    pub(crate) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        leaving_nothing(|| {
            with_hasher!(self, Hasher, {
                let mac = keyed::<Hmac<Hasher>>(key, parts);
                Zeroizing::new(mac.finalize().into_bytes().to_vec())
            })
        })
    }

    /// Whether `expected` is the HMAC of these parts; takes as long wherever they differ.
    pub(super) fn verify(self, key: &[u8], parts: &[&[u8]], expected: &[u8]) -> bool {
        leaving_nothing(|| {
            with_hasher!(self, Hasher, {
                keyed::<Hmac<Hasher>>(key, parts)
                    .verify_slice(expected)
                    .is_ok()
            })
        })
    }
}

/// What `compute` gives, with the memory wiped that it used on the stack: what comes out of a hash function, which may be a key,
/// is moved about there.
fn leaving_nothing<R>(compute: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn below<R>(compute: impl FnOnce() -> R) -> R {
        compute()
    }
    #[inline(never)]
    fn wipe() {
        /// 8 KiB: the functions take a few hundred bytes.
        const WORDS: usize = 1024;
        let mut words = [0u64; WORDS];
        words.zeroize();
    }
    let result = below(compute);
    wipe();
    result
}

fn keyed<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> M {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("an HMAC key");
    for part in parts {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// FIPS 180-2, "abc"; RFC 4231, test case 2.
    #[test]
    fn known_answers() {
        for (hash, digest, hmac) in [
            (
                Hash::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                Hash::Sha384,
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Hash::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ] {
            assert_eq!(hex(&hash.digest(b"abc")), digest);
            let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
            let mac = hash.hmac(b"Jefe", &parts);
            assert_eq!(hex(&mac), hmac);
            assert_eq!(mac.len(), hash.size());
            assert!(hash.verify(b"Jefe", &parts, &mac));
            assert!(!hash.verify(b"Jeff", &parts, &mac));
            assert!(!hash.verify(b"Jefe", &parts, &mac[1..]));
            assert_eq!(Hash::from_id(hash.id()), Some(hash));
            assert_eq!(Hash::from_name(hash.name()), Some(hash));
        }
        assert_eq!(Hash::from_id(HashId(4)), None);
    }
}
