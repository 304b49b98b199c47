//! Names of hosts where an address is expected: they are looked up on a thread of their own, because that may take long,
//! and the method sees the address.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::error::RpcError;
use super::params::Params;

/// Names that are looked up at a time; each takes a thread.
const LOOK_UPS_MAX: usize = 16;

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

/// The name of a host in the place of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostName {
    name: String,
    /// The family that is asked for.
    is_v6: Option<bool>,
}

/// Where a method takes an address: a member `traddr`, beside `adrfam`, of its parameters or of an object in them.
#[derive(Debug, Clone)]
pub(super) struct Place {
    object: Option<&'static str>,
    at_once: Arc<AtomicUsize>,
}

impl Place {
    pub(super) fn new(object: Option<&'static str>) -> Place {
        Place {
            object,
            at_once: Arc::default(),
        }
    }

    /// The name that stands there; `None`: an address, or what the method says something about.
    pub(super) fn name(&self, params: &Params) -> Option<HostName> {
        let members = match self.object {
            Some(object) => params.values().get(object)?.as_object()?,
            None => params.values(),
        };
        let name = members.get("traddr")?.as_str()?;
        if name.parse::<IpAddr>().is_ok() {
            return None;
        }
        let family = members.get("adrfam").and_then(Value::as_str);
        let is_v6 = family.map(|family| family.eq_ignore_ascii_case("ipv6"));
        let name = name.to_owned();
        Some(HostName { name, is_v6 })
    }

    /// Gives the parameters to `then` with the address of the name that stands there, from another thread.
    pub(super) fn resolve(
        &self,
        HostName { name, is_v6 }: HostName,
        mut params: Params,
        then: impl FnOnce(Result<Params, RpcError>) + Send + 'static,
    ) {
        if self.at_once.fetch_add(1, Ordering::Relaxed) >= LOOK_UPS_MAX {
            self.at_once.fetch_sub(1, Ordering::Relaxed);
            let error =
                format!("'traddr' '{name}': {LOOK_UPS_MAX} names are being looked up already");
            return then(Err(RpcError::invalid_params(error)));
        }
        let (object, at_once) = (self.object, Arc::clone(&self.at_once));
        // Without a thread the closure is dropped, and with it the responder, which answers by itself.
        let _ = thread::Builder::new()
            .name("look-up".to_owned())
            .spawn(move || {
                let found = look_up(&name, is_v6);
                at_once.fetch_sub(1, Ordering::Relaxed);
                then(match found {
                    Ok(addr) => {
                        params.set_address(object, addr);
                        Ok(params)
                    }
                    Err(error) => Err(RpcError::invalid_params(format!("'traddr' {error}"))),
                });
            });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn params(values: Value) -> Params {
        let Value::Object(values) = values else {
            panic!("an object");
        };
        Params::new(values)
    }

    #[test]
    fn names_are_told_from_addresses_and_from_slips() {
        let place = Place::new(None);
        for addr in ["127.0.0.1", "::1"] {
            assert_eq!(place.name(&params(json!({"traddr": addr}))), None);
        }
        assert_eq!(place.name(&params(json!({"traddr": 1}))), None);
        let nested = Place::new(Some("listen_address"));
        let address = json!({"traddr": "localhost", "adrfam": "IPv4"});
        let found = nested.name(&params(json!({"listen_address": address})));
        let wanted = HostName {
            name: "localhost".to_owned(),
            is_v6: Some(false),
        };
        assert_eq!(found, Some(wanted));
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
