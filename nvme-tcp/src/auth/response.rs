//! What both sides compute alike: challenges, responses (NVMe Base 2.1, 8.3.5.5.4 to 8.3.5.5.6), and what they draw for a
//! transaction.

use std::fmt;
use std::io;

use zeroize::Zeroizing;

use super::{DhGroup, Hash, Secret};
use crate::spec::authentication::HASH_LEN_MAX;
use crate::tls::TlsPsk;

/// The secrets of a host at a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Whoever has it is this host.
    pub host: Secret,
    /// Whoever has it is the subsystem: a host may ask for a proof. `None`: the subsystem cannot give one.
    pub controller: Option<Secret>,
}

/// Who authenticates to whom. Names are the bytes that Connect has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// HOSTNQN.
    pub host: String,
    /// SUBNQN.
    pub subsystem: String,
}

/// What may be agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Hash functions, the preferred first.
    pub hashes: Vec<Hash>,
    /// Groups, the preferred first.
    pub groups: Vec<DhGroup>,
}

impl Policy {
    /// What of it a key for TLS can be made with: values of a group, and the hash function of a cipher suite.
    #[must_use]
    pub(super) fn for_tls(&self) -> Self {
        let mut policy = self.clone();
        policy.hashes.retain(|&hash| hash != Hash::Sha512);
        policy.groups.retain(|&group| group != DhGroup::Null);
        policy
    }
}

impl Default for Policy {
    /// All, the strongest first.
    fn default() -> Self {
        Self {
            hashes: Hash::ALL.to_vec(),
            groups: DhGroup::ALL.to_vec(),
        }
    }
}

/// What was agreed on by a transaction that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreed {
    /// The hash function.
    pub hash: Hash,
    /// The group.
    pub group: DhGroup,
    /// The controller has proved itself as well.
    pub both_ways: bool,
}

impl Keys {
    /// The controller has to prove itself, too.
    pub fn are_both_ways(&self) -> bool {
        self.controller.is_some()
    }
}

impl Agreed {
    /// Names of the hash function and of the group.
    pub fn names(&self) -> (&'static str, &'static str) {
        (self.hash.name(), self.group.name())
    }
}

/// What one side draws for one transaction. Each is used once.
#[derive(Clone)]
pub struct Nonce {
    pub(super) challenge: [u8; HASH_LEN_MAX],
    pub(super) seqnum: u32,
    pub(super) exponent: Zeroizing<[u8; 64]>,
}

impl Nonce {
    /// Draws from the operating system, in simulations as well: whoever can guess what is drawn can read along.
    ///
    /// # Errors
    /// The system has no random bytes to give.
    pub fn draw() -> io::Result<Self> {
        let (mut challenge, mut seqnum) = ([0; HASH_LEN_MAX], [0; 4]);
        let mut exponent = Zeroizing::new([0; 64]);
        getrandom::fill(&mut challenge)?;
        getrandom::fill(&mut seqnum)?;
        getrandom::fill(&mut *exponent)?;
        Ok(Self {
            challenge,
            // 0 means that there is none.
            seqnum: u32::from_le_bytes(seqnum).max(1),
            exponent,
        })
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nonce").finish_non_exhaustive()
    }
}

/// What a response is computed of, but for the secret.
pub(super) struct Proof<'a> {
    pub(super) hash: Hash,
    pub(super) t_id: u16,
    pub(super) sc_c: u8,
    pub(super) seqnum: u32,
    pub(super) challenge: &'a [u8],
    /// What both sides know by Diffie-Hellman.
    pub(super) shared: Option<&'a [u8]>,
    pub(super) names: &'a Names,
}

impl Proof<'_> {
    /// The host's response to the controller's challenge.
    pub(super) fn of_host(&self, secret: &Secret) -> Zeroizing<Vec<u8>> {
        let names = (&*self.names.host, &*self.names.subsystem);
        self.compute(secret, b"HostHost", names, |key, parts| {
            self.hash.hmac(key, parts)
        })
    }

    /// Whether this is that response.
    pub(super) fn is_of_host(&self, secret: &Secret, response: &[u8]) -> bool {
        let names = (&*self.names.host, &*self.names.subsystem);
        self.compute(secret, b"HostHost", names, |key, parts| {
            self.hash.verify(key, parts, response)
        })
    }

    /// The controller's response to the host's challenge.
    pub(super) fn of_controller(&self, secret: &Secret) -> Zeroizing<Vec<u8>> {
        let names = (&*self.names.subsystem, &*self.names.host);
        self.compute(secret, b"Controller", names, |key, parts| {
            self.hash.hmac(key, parts)
        })
    }

    /// Whether this is that response.
    pub(super) fn is_of_controller(&self, secret: &Secret, response: &[u8]) -> bool {
        let names = (&*self.names.subsystem, &*self.names.host);
        self.compute(secret, b"Controller", names, |key, parts| {
            self.hash.verify(key, parts, response)
        })
    }

    fn compute<R>(
        &self,
        secret: &Secret,
        label: &[u8],
        (own, other): (&str, &str),
        finish: impl FnOnce(&[u8], &[&[u8]]) -> R,
    ) -> R {
        let key = secret.transformed(own);
        let challenge = match self.shared {
            None => Zeroizing::new(self.challenge.to_vec()),
            Some(shared) => {
                let session_key = self.hash.digest(shared);
                self.hash.hmac(&session_key, &[self.challenge])
            }
        };
        let (seqnum, t_id) = (self.seqnum.to_le_bytes(), self.t_id.to_le_bytes());
        let parts: [&[u8]; 8] = [
            &challenge,
            &seqnum,
            &t_id,
            &[self.sc_c],
            label,
            own.as_bytes(),
            &[0],
            other.as_bytes(),
        ];
        finish(key.as_bytes(), &parts)
    }
}

/// The key for TLS that both sides make of what they know by Diffie-Hellman and of both challenges (8.3.5.5.9), as it is
/// used between these two.
pub(super) fn generate(
    hash: Hash,
    shared: &[u8],
    [of_controller, of_host]: [&[u8]; 2],
    names: &Names,
) -> Option<TlsPsk> {
    let session_key = hash.digest(shared);
    let psk = hash.hmac(&session_key, &[of_controller, of_host]);
    TlsPsk::generated(hash, &psk, &names.host, &names.subsystem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::authentication::SC_C_NONE;

    /// Computed with Python's `hmac` and `hashlib`, as the specification's formulas say.
    #[test]
    fn known_responses() {
        let text = "DHHC-1:01:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";
        let secret: Secret = text.parse().unwrap();
        let names = Names {
            host: "nqn.2014-08.org.example:host".into(),
            subsystem: "nqn.2014-08.org.example:disk1".into(),
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        for (hash, shared, host, controller) in [
            (
                Hash::Sha256,
                None,
                "d91594d145072468e5dd0a050079fed19c6d47b754c9ac36daa95646d133261a",
                "17be259d80a8eca9afc85d5171245e243d589edc636b3a23abf650bad6f02376",
            ),
            (
                Hash::Sha256,
                Some(&[0, 5, 6][..]),
                "f2861369eccda58adb3a098acb700c703b7ed15ddd48784c2dee8fe4bcb8ffe5",
                "2660cc72db44faa95f77a9dded60600b80545f9d6b1101aa84e08e2d4750454d",
            ),
            (
                Hash::Sha384,
                None,
                "0743e7a3b91f1c9aa7a3c9509413e667373d6b6a60dc640ca8653db9007500e47e81aa4125ac4d503e0db0aeba1c3d79",
                "d7a93c5f2e8757493be71eaafb8d1335c63d1017682a17e2a0f35485f8cf07ad2be9e15f2bc218b2b50c349e4a9fec61",
            ),
            (
                Hash::Sha384,
                Some(&[0, 5, 6][..]),
                "d414d8cf3c89a39ffd0524f3a9f52482afb9b1355d30a18c040c0407f67e1a063d288ce3568220d338c678bee3d2364a",
                "77aa08b8f9af7711924623eb988a92925531390c8c49fa0193eda3879eb7e095f801e217608c61a6e60b93f1487b17f0",
            ),
            (
                Hash::Sha512,
                None,
                "3b4a133f00411422fe3eef4dd1f0cfd61fd686f01a33b14567f11afdd2b4dcb19e6caaca689d12d595990fde58bd0382da3844759efc1fdd0fd78c69279861d2",
                "60d8b94be746157746a550348a9ff6344c6e8eafcec6c58be4e5a6387ebf4fc19990aa4c296118d28d67e703598d05a69359488943bac3cfc9f5de55842982ab",
            ),
            (
                Hash::Sha512,
                Some(&[0, 5, 6][..]),
                "368ae7c5832be072435bff1ca6dee3e334941ac07ab7a549d2578c6788c5603fc49e33994df614bad74fcf9103bd2ec4320cdf75915971ffb1c21239f82b643d",
                "16f1cacd42b5ed9a2e7f02065e330460d7c17da39e611f5b4302d7af94a8369076e6c0cd940bbf59aec7fbb7caf4a0b836b99446b56647c6f8b92619c415e511",
            ),
        ] {
            let challenge: Vec<u8> = (0..64).take(hash.size()).collect();
            let proof = Proof {
                hash,
                t_id: 0x1234,
                sc_c: SC_C_NONE,
                seqnum: 0x89AB_CDEF,
                challenge: &challenge,
                shared,
                names: &names,
            };
            assert_eq!(hex(&proof.of_host(&secret)), host);
            assert_eq!(hex(&proof.of_controller(&secret)), controller);
            assert!(proof.is_of_host(&secret, &proof.of_host(&secret)));
            assert!(!proof.is_of_host(&secret, &proof.of_controller(&secret)));
            assert!(proof.is_of_controller(&secret, &proof.of_controller(&secret)));
            assert!(!proof.is_of_controller(&secret, &[]));
        }
    }
}
