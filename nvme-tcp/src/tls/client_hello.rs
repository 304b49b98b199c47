//! The PSK identities that a client offers, read from its first flight (RFC 8446, 4.1.2 and 4.2.11), so that the library is
//! handed the keys that may be meant and not those of every host. What cannot be read is left to the library: it has all keys
//! then, and says what is wrong.

use std::collections::BTreeSet;

/// Kind of a record with handshake messages.
const HANDSHAKE: u8 = 22;
/// Kind of the handshake message.
const CLIENT_HELLO: u8 = 1;
/// Type of the extension.
const PRE_SHARED_KEY: u16 = 41;
/// Bytes of version and random at the front of a ClientHello.
const VERSION_AND_RANDOM: usize = 2 + 32;
/// Bytes of the obfuscated ticket age behind each identity.
const TICKET_AGE: usize = 4;

/// The identities in these records, which begin with a ClientHello; `None`: it is not there as a whole, or is not one.
pub(super) fn identities(records: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let message = message(records)?;
    let mut rest = message.as_slice();
    let _ = take(&mut rest, VERSION_AND_RANDOM)?;
    let _session = vector8(&mut rest)?;
    let _suites = vector16(&mut rest)?;
    let _compressions = vector8(&mut rest)?;
    let mut extensions = vector16(&mut rest)?;
    let mut offered = BTreeSet::new();
    while !extensions.is_empty() {
        let kind = number16(&mut extensions)?;
        let mut extension = vector16(&mut extensions)?;
        if kind != PRE_SHARED_KEY {
            continue;
        }
        let mut identities = vector16(&mut extension)?;
        while !identities.is_empty() {
            offered.insert(vector16(&mut identities)?.to_vec());
            let _ = take(&mut identities, TICKET_AGE)?;
        }
    }
    Some(offered)
}

/// The body of the ClientHello at the front of these records.
fn message(mut records: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(&[kind, high, middle, low]) = bytes.first_chunk() {
            let len = u32::from_be_bytes([0, high, middle, low]) as usize;
            if kind != CLIENT_HELLO {
                return None;
            }
            if let Some(body) = bytes.get(4..4 + len) {
                return Some(body.to_vec());
            }
        }
        let &[kind, _, _] = take(&mut records, 3)?.first_chunk()?;
        if kind != HANDSHAKE {
            return None;
        }
        bytes.extend_from_slice(vector16(&mut records)?);
    }
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn number16(bytes: &mut &[u8]) -> Option<u16> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u16::from_be_bytes(*number))
}

fn vector16<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = number16(bytes)?;
    take(bytes, len.into())
}

fn vector8<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = *take(bytes, 1)?.first()?;
    take(bytes, len.into())
}

#[cfg(test)]
mod tests {
    use super::super::engine::{Engine, Side, Wire};
    use super::super::psk::{ConfiguredPsk, IdentityVersion};
    use super::*;

    fn hello() -> (Vec<u8>, BTreeSet<Vec<u8>>) {
        let psk = ConfiguredPsk::new(&[7; 32], None).unwrap();
        let mut engine = Engine::new(Side::Host, false).unwrap();
        let mut offered = BTreeSet::new();
        for version in IdentityVersion::ALL {
            let key = psk.tls_psk(version, "host", "subsystem").unwrap();
            engine.add(&key).unwrap();
            offered.insert(key.identity.into_bytes());
        }
        let (incoming, mut outgoing): (&[u8], _) = (&[], Vec::new());
        let mut wire = Wire {
            incoming,
            outgoing: &mut outgoing,
        };
        assert!(!engine.negotiate(&mut wire).unwrap());
        (outgoing, offered)
    }

    #[test]
    fn what_a_client_offers_is_found() {
        let (bytes, offered) = hello();
        assert_eq!(identities(&bytes), Some(offered.clone()));
        // The same in two records.
        let (first, second) = bytes[5..].split_at(100);
        let mut split = Vec::new();
        for part in [first, second] {
            split.extend_from_slice(&[HANDSHAKE, 3, 1]);
            split.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
            split.extend_from_slice(part);
        }
        assert_eq!(identities(&split), Some(offered));
        assert_eq!(identities(&split[..200]), None);
    }

    /// Each byte changed, and cut at each length: something is found or not, and nothing happens.
    #[test]
    fn what_is_no_client_hello_says_nothing() {
        let (bytes, offered) = hello();
        let mut others = 0;
        for at in 0..bytes.len() {
            assert_eq!(identities(&bytes[..at]), None);
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            others += usize::from(identities(&changed) != Some(offered.clone()));
        }
        assert!(others > 100, "{others}");
    }

    /// What the keys of a thousand hosts cost a handshake, all of them and those that are offered.
    #[test]
    #[ignore = "a figure"]
    #[expect(clippy::disallowed_methods, reason = "it measures")]
    fn keys_of_many_hosts() {
        let (bytes, _) = hello();
        let psk = ConfiguredPsk::new(&[7; 32], None).unwrap();
        let names = (0..1000).map(|n| format!("host{n}"));
        let of_host = |host: String| {
            IdentityVersion::ALL.map(|v| psk.tls_psk(v, &host, "subsystem").unwrap())
        };
        let keys: Vec<_> = names.flat_map(of_host).collect();
        for filter in [false, true] {
            let begun = std::time::Instant::now();
            for _ in 0..10 {
                let offered = filter.then(|| identities(&bytes).unwrap());
                let mut engine = Engine::new(Side::Target, false).unwrap();
                for key in &keys {
                    if offered
                        .as_ref()
                        .is_none_or(|o| o.contains(key.identity.as_bytes()))
                    {
                        engine.add(key).unwrap();
                    }
                }
                let mut outgoing = Vec::new();
                let mut wire = Wire {
                    incoming: &bytes,
                    outgoing: &mut outgoing,
                };
                let _ = engine.negotiate(&mut wire);
            }
            println!("chosen: {filter}: {:?} a handshake", begun.elapsed() / 10);
        }
    }
}
