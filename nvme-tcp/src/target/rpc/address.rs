//! Transport addresses.

use std::net::{IpAddr, SocketAddr};

use pollux_reactor::rpc::{Params, RpcError};
use serde_json::{Value, json};

/// Takes the address object `name`: `trtype`, `traddr`, `trsvcid` and, if given, `adrfam`.
pub(super) fn take(params: &mut Params, name: &str) -> Result<SocketAddr, RpcError> {
    let Some(mut address) = params.object(name)? else {
        return Err(params.invalid(name, "is missing"));
    };
    transport_type(&mut address)?;
    let ip: String = address.required("traddr")?;
    let ip: IpAddr = ip.parse().map_err(|_| {
        address.invalid(
            "traddr",
            format!("'{ip}', an IP address such as 192.0.2.1 or ::1 is expected"),
        )
    })?;
    let port: String = address.required("trsvcid")?;
    let port: u16 = port.parse().map_err(|_| {
        address.invalid(
            "trsvcid",
            format!("'{port}', a port from 0 (any) to 65535 is expected"),
        )
    })?;
    if let Some(family) = address.optional::<String>("adrfam")? {
        let is_v6 = match family.to_ascii_lowercase().as_str() {
            "ipv4" => false,
            "ipv6" => true,
            _ => return Err(address.invalid("adrfam", format!("'{family}', not ipv4 or ipv6"))),
        };
        if is_v6 != ip.is_ipv6() {
            return Err(address.invalid("traddr", format!("'{ip}' is not of family {family}")));
        }
    }
    address.finish()?;
    Ok(SocketAddr::new(ip, port))
}

/// Takes `trtype`, which can only be TCP.
pub(super) fn transport_type(params: &mut Params) -> Result<(), RpcError> {
    let name: String = params.required("trtype")?;
    if name.eq_ignore_ascii_case("tcp") {
        return Ok(());
    }
    Err(params.invalid("trtype", format!("'{name}', only tcp is supported")))
}

/// An address as clients read it.
pub(super) fn show(addr: SocketAddr) -> Value {
    json!({
        "trtype": "TCP",
        "adrfam": if addr.is_ipv6() { "IPv6" } else { "IPv4" },
        "traddr": addr.ip().to_string(),
        "trsvcid": addr.port().to_string(),
    })
}
