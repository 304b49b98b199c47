//! Names of hosts.

use std::net::{IpAddr, ToSocketAddrs};

/// Why the name of a host has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}': {why}: expected an IPv4 or IPv6 address or the name of a host")]
pub struct LookUpError {
    name: String,
    why: String,
}

/// Looks the name of a host up, which may block: for the start of a program or a thread of its own, never for a reactor. Of
/// several addresses the first one of the family that is wanted is taken, and without one IPv4 goes first.
///
/// # Errors
/// It is no name, or has no address.
pub fn look_up(name: &str, is_v6: Option<bool>) -> Result<IpAddr, LookUpError> {
    let refused = |why: String| LookUpError {
        name: name.to_owned(),
        why,
    };
    let is_name = name.split('.').all(|label| {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(known)
    });
    // A number is a slip in an address, which the system would complete in its own way (1.2.3 to 1.2.0.3).
    let last = name.rsplit('.').next().unwrap_or(name);
    if !is_name || !last.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(refused("not a name".to_owned()));
    }
    let found = (name, 0)
        .to_socket_addrs()
        .map_err(|error| refused(error.to_string()))?;
    let mut addresses: Vec<IpAddr> = found.map(|addr| addr.ip()).collect();
    match is_v6 {
        Some(is_v6) => addresses.retain(|addr| addr.is_ipv6() == is_v6),
        None => addresses.sort_by_key(IpAddr::is_ipv6),
    }
    let first = addresses.first().copied();
    first.ok_or_else(|| refused("no address of that family".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_slips_in_addresses() {
        assert!(look_up("localhost", Some(false)).unwrap().is_loopback());
        for slip in [
            "127.0.0",
            "127.0.0.256",
            "a b",
            "",
            ".",
            "-.1",
            "host..name",
        ] {
            let error = look_up(slip, None).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("'{slip}': not a name")),
                "{error}"
            );
        }
    }
}
