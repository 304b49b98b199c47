//! Diffie-Hellman in the ffdhe groups (RFC 7919): the arithmetic takes milliseconds, so it is a [`Job`] for another thread.

use std::fmt;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U512, U2048, U3072, U4096, U6144, U8192, Uint};
use zeroize::Zeroizing;

use super::primes;
use crate::spec::authentication::DhGroupId;

/// A group that DH-HMAC-CHAP knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DhGroup {
    /// No Diffie-Hellman: a plain challenge and response.
    Null,
    /// 2048 bits.
    Ffdhe2048,
    /// 3072 bits.
    Ffdhe3072,
    /// 4096 bits.
    Ffdhe4096,
    /// 6144 bits.
    Ffdhe6144,
    /// 8192 bits.
    Ffdhe8192,
}

impl DhGroup {
    /// All of them, the strongest first.
    pub const ALL: [Self; 6] = [
        Self::Ffdhe8192,
        Self::Ffdhe6144,
        Self::Ffdhe4096,
        Self::Ffdhe3072,
        Self::Ffdhe2048,
        Self::Null,
    ];

    /// The group with this identifier.
    pub fn from_id(id: DhGroupId) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.id() == id)
    }

    /// Its identifier.
    pub const fn id(self) -> DhGroupId {
        match self {
            Self::Null => DhGroupId::NULL,
            Self::Ffdhe2048 => DhGroupId::FFDHE2048,
            Self::Ffdhe3072 => DhGroupId::FFDHE3072,
            Self::Ffdhe4096 => DhGroupId::FFDHE4096,
            Self::Ffdhe6144 => DhGroupId::FFDHE6144,
            Self::Ffdhe8192 => DhGroupId::FFDHE8192,
        }
    }

    /// The group with this name: `null`, or `ffdhe2048` to `ffdhe8192`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Ffdhe2048 => "ffdhe2048",
            Self::Ffdhe3072 => "ffdhe3072",
            Self::Ffdhe4096 => "ffdhe4096",
            Self::Ffdhe6144 => "ffdhe6144",
            Self::Ffdhe8192 => "ffdhe8192",
        }
    }

    /// Length of its numbers, in bytes; 0 without Diffie-Hellman.
    pub const fn value_len(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Ffdhe2048 => 256,
            Self::Ffdhe3072 => 384,
            Self::Ffdhe4096 => 512,
            Self::Ffdhe6144 => 768,
            Self::Ffdhe8192 => 1024,
        }
    }

    /// Bits of an exponent: what RFC 7919, 5.2 asks for, up to whole limbs.
    const fn exponent_bits(self) -> u32 {
        match self {
            Self::Null | Self::Ffdhe2048 => 256,
            Self::Ffdhe3072 => 320,
            Self::Ffdhe4096 | Self::Ffdhe6144 => 384,
            Self::Ffdhe8192 => 448,
        }
    }

    /// `base` to the power of an exponent, as long as the group's numbers are: a number that starts with zeroes keeps them.
    /// `None`: the base is not in 2 to p - 2. Takes as long whatever the exponent is.
    fn power(self, base: &[u8], exponent: &U512) -> Option<Zeroizing<Vec<u8>>> {
        let bits = self.exponent_bits();
        match self {
            Self::Null => None,
            Self::Ffdhe2048 => power::<{ U2048::LIMBS }>(primes::FFDHE2048, base, exponent, bits),
            Self::Ffdhe3072 => power::<{ U3072::LIMBS }>(primes::FFDHE3072, base, exponent, bits),
            Self::Ffdhe4096 => power::<{ U4096::LIMBS }>(primes::FFDHE4096, base, exponent, bits),
            Self::Ffdhe6144 => power::<{ U6144::LIMBS }>(primes::FFDHE6144, base, exponent, bits),
            Self::Ffdhe8192 => power::<{ U8192::LIMBS }>(primes::FFDHE8192, base, exponent, bits),
        }
    }
}

/// The generator of all the groups.
const GENERATOR: &[u8] = &[2];

fn power<const LIMBS: usize>(
    prime: &str,
    base: &[u8],
    exponent: &U512,
    bits: u32,
) -> Option<Zeroizing<Vec<u8>>> {
    let modulus = Odd::<Uint<LIMBS>>::from_be_hex(prime);
    let mut padded = vec![0; prime.len() / 2];
    let at = padded.len().checked_sub(base.len())?;
    padded[at..].copy_from_slice(base);
    let base = Uint::<LIMBS>::from_be_slice(&padded);
    let two = Uint::<LIMBS>::from_u64(2);
    // Of what a peer sends, which everybody may see.
    if base < two || base > modulus.as_ref().wrapping_sub(&two) {
        return None;
    }
    let params = FixedMontyParams::new_vartime(modulus);
    let power = FixedMontyForm::new(&base, &params)
        .pow_bounded_exp(exponent, bits)
        .retrieve();
    let bytes = Zeroizing::new(power.to_be_bytes());
    Some(Zeroizing::new(bytes.as_ref().to_vec()))
}

/// Arithmetic of one side of one transaction: milliseconds of work, which no reactor does in its turn.
pub struct Job {
    group: DhGroup,
    exponent: Zeroizing<[u8; 64]>,
    /// The public value of the other side, once it is known.
    peer: Option<Vec<u8>>,
    /// The own public value is wanted.
    publish: bool,
}

/// What comes out of a [`Job`].
pub struct Powers {
    /// The own public value.
    pub(super) public: Vec<u8>,
    /// What both sides know; `None` if the value of the other side was not one of the group, or not known.
    pub(super) shared: Option<Zeroizing<Vec<u8>>>,
}

impl Job {
    /// The own public value.
    pub(super) fn publish(group: DhGroup, exponent: &Zeroizing<[u8; 64]>) -> Self {
        Self {
            group,
            exponent: exponent.clone(),
            peer: None,
            publish: true,
        }
    }

    /// What both sides know, of the public value of the other side.
    pub(super) fn agree(group: DhGroup, exponent: &Zeroizing<[u8; 64]>, peer: &[u8]) -> Self {
        Self {
            peer: Some(peer.to_vec()),
            publish: false,
            ..Self::publish(group, exponent)
        }
    }

    /// Both at once.
    pub(super) fn publish_and_agree(
        group: DhGroup,
        exponent: &Zeroizing<[u8; 64]>,
        peer: &[u8],
    ) -> Self {
        Self {
            publish: true,
            ..Self::agree(group, exponent, peer)
        }
    }

    /// Does it: 0.4 ms to 12 ms.
    pub fn run(self) -> Powers {
        let exponent = Zeroizing::new(U512::from_be_slice(&*self.exponent));
        let shared = self
            .peer
            .as_ref()
            .and_then(|peer| self.group.power(peer, &exponent));
        let public = match self.publish {
            true => self.group.power(GENERATOR, &exponent),
            false => None,
        };
        Powers {
            public: public.map_or_else(Vec::new, |public| public.to_vec()),
            shared,
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Powers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Powers").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The exponent 0101…01, by Python's `pow`, and the digest of it by `hashlib`.
    #[test]
    fn known_powers() {
        let exponent = U512::from_be_slice(&[1; 64]);
        for (group, sha256) in [
            (
                DhGroup::Ffdhe2048,
                "624fd1aa9988410965b356d2e27a5550cbc8b82355a944a26bea2d03aeab77fa",
            ),
            (
                DhGroup::Ffdhe3072,
                "770732e9b3b08f0e44ba71ac3294d41d6f3e25b29d8cea3ffc66bc35ab7de2fd",
            ),
            (
                DhGroup::Ffdhe4096,
                "dadc32e6b0a63244b171f64d160843cff30c8a73e6b62ca9da2ac9ba161ecbcb",
            ),
            (
                DhGroup::Ffdhe6144,
                "7c1a8edf4b3b45aff9154cb88aafc65aa500fff60a4039e9160c79b57db21295",
            ),
            (
                DhGroup::Ffdhe8192,
                "2ec9af6cd8ed98dd0fc94ae4387ab7779950f0d17a57a5603d589ec6186079fb",
            ),
        ] {
            let power = group.power(GENERATOR, &exponent).unwrap();
            assert_eq!(power.len(), group.value_len());
            assert_eq!(
                hex(&super::super::Hash::Sha256.digest(&power)),
                sha256,
                "{group:?}"
            );
            assert_eq!(DhGroup::from_id(group.id()), Some(group));
            assert_eq!(DhGroup::from_name(group.name()), Some(group));
        }
        assert_eq!(DhGroup::from_id(DhGroupId(6)), None);
    }

    #[test]
    fn both_sides_agree_and_leading_zeroes_stay() {
        let group = DhGroup::Ffdhe2048;
        let exponent = |n: u8| Zeroizing::new([n; 64]);
        let of = |n: u8| Job::publish(group, &exponent(n)).run().public;
        for (a, b) in [(1, 2), (3, 200)] {
            let ab = Job::agree(group, &exponent(a), &of(b)).run();
            let ba = Job::publish_and_agree(group, &exponent(b), &of(a)).run();
            assert_eq!(ab.shared, ba.shared);
            assert_eq!((ab.public.len(), ba.public), (0, of(b)));
            assert_eq!(ab.shared.unwrap().len(), group.value_len());
        }
        // 2 to the power of 8 is mostly zeroes, and as long as all others. A value of a peer may have lost them.
        let eight = U512::from_u64(8);
        let power = group.power(GENERATOR, &eight).unwrap();
        assert_eq!((power.len(), power[254], power[255]), (256, 1, 0));
        assert_eq!(
            group.power(&power, &eight),
            group.power(&power[254..], &eight)
        );
    }

    #[test]
    fn values_that_are_not_of_the_group() {
        let group = DhGroup::Ffdhe2048;
        let exponent = Zeroizing::new([7; 64]);
        let prime: Vec<u8> = (0..256)
            .map(|at| u8::from_str_radix(&primes::FFDHE2048[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let less = |by: u8| {
            let mut value = prime.clone();
            value[255] -= by;
            value
        };
        let bad: [&[u8]; 7] = [
            &[],
            &[0; 256],
            &[1],
            &prime,
            &less(1),
            &[255; 256],
            &[2; 257],
        ];
        for peer in bad {
            assert!(Job::agree(group, &exponent, peer).run().shared.is_none());
        }
        assert!(
            Job::agree(group, &exponent, &less(2))
                .run()
                .shared
                .is_some()
        );
    }
}
