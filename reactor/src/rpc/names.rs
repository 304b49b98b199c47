//! Names of hosts where an address is expected: they are looked up on a thread of their own, because that may take long,
//! and the method sees the address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::error::RpcError;
use super::params::Params;
use crate::look_up::look_up;

/// Names that are looked up at a time; each takes a thread.
const LOOK_UPS_MAX: usize = 16;

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
    fn names_are_told_from_addresses() {
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
    }
}
