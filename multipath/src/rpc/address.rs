//! Transport addresses as parameters and in answers.

use std::net::{IpAddr, SocketAddr};

use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_reactor::rpc::{Params, RpcError};
use serde_json::{Map, Value, json};

use crate::transport_id::TransportId;

/// Port of an NVMe/TCP controller if none is named (NVMe/TCP 1.1, 3.1.1).
const PORT: u16 = 4420;

/// Takes `trtype`, which can only be TCP.
pub(super) fn transport_type(params: &mut Params) -> Result<(), RpcError> {
    match params.optional::<String>("trtype")? {
        Some(name) if !name.eq_ignore_ascii_case("tcp") => {
            Err(params.invalid("trtype", format!("'{name}', only tcp is supported")))
        }
        _ => Ok(()),
    }
}

/// Takes `traddr`, `trsvcid` and `adrfam`; `None` without `traddr`.
pub(super) fn socket(params: &mut Params) -> Result<Option<SocketAddr>, RpcError> {
    let addr = ip(params, "traddr")?;
    let port = match params.optional::<String>("trsvcid")? {
        None => PORT,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => {
                return Err(params.invalid(
                    "trsvcid",
                    format!("'{text}', a port from 1 to 65535 is expected"),
                ));
            }
        },
    };
    if let Some(family) = params.optional::<String>("adrfam")? {
        let is_v6 = match family.to_ascii_lowercase().as_str() {
            "ipv4" => false,
            "ipv6" => true,
            _ => return Err(params.invalid("adrfam", format!("'{family}', not ipv4 or ipv6"))),
        };
        if addr.is_some_and(|addr| addr.is_ipv6() != is_v6) {
            return Err(params.invalid("traddr", format!("is not of family {family}")));
        }
    }
    Ok(addr.map(|addr| SocketAddr::new(addr, port)))
}

/// Takes an IP address.
pub(super) fn ip(params: &mut Params, name: &str) -> Result<Option<IpAddr>, RpcError> {
    let Some(text) = params.optional::<String>(name)? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(addr) => Ok(Some(addr)),
        Err(_) => Err(params.invalid(
            name,
            format!("'{text}', an IP address such as 192.0.2.1 or ::1 is expected"),
        )),
    }
}

/// Takes an NQN.
pub(super) fn nqn(params: &mut Params, name: &str) -> Result<Option<Nqn>, RpcError> {
    let Some(text) = params.optional::<String>(name)? else {
        return Ok(None);
    };
    match Nqn::new(&text) {
        Ok(nqn) => Ok(Some(nqn)),
        Err(error) => Err(params.invalid(name, format!("'{text}': {error}"))),
    }
}

/// A transport ID as clients read it.
pub(super) fn show(transport: &TransportId) -> Value {
    let mut members = plain(transport);
    members.insert("subnqn".into(), transport.subnqn.as_str().into());
    members.into()
}

/// A transport ID without the subsystem.
pub(super) fn show_plain(transport: &TransportId) -> Value {
    plain(transport).into()
}

fn plain(transport: &TransportId) -> Map<String, Value> {
    let addr = transport.addr;
    let family = if addr.is_ipv6() { "IPv6" } else { "IPv4" };
    let mut members = Map::new();
    members.insert("trtype".into(), json!("TCP"));
    members.insert("adrfam".into(), json!(family));
    members.insert("traddr".into(), addr.ip().to_string().into());
    members.insert("trsvcid".into(), addr.port().to_string().into());
    members
}
