//! Where a controller is reached, in the words that SPDK's tools use.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_reactor::look_up;

/// Address of one controller: transport, address, port and subsystem NQN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportId {
    /// IP address and port.
    pub addr: SocketAddr,
    /// Subsystem; the discovery subsystem if none was named.
    pub subnqn: Nqn,
    /// Host NQN, if one was named.
    pub hostnqn: Option<Nqn>,
}

impl TransportId {
    /// A controller of a subsystem at an address.
    pub fn new(addr: SocketAddr, subnqn: Nqn) -> Self {
        Self {
            addr,
            subnqn,
            hostnqn: None,
        }
    }
}

/// Why a text is no transport ID; the message names the value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransportIdError(String);

/// Port of NVMe/TCP I/O controllers, and of discovery controllers (NVMe/TCP 1.1, 3.1.1).
const PORT_IO: u16 = 4420;
const PORT_DISCOVERY: u16 = 8009;

impl FromStr for TransportId {
    type Err = TransportIdError;

    /// Reads `trtype:TCP adrfam:IPv4 traddr:192.0.2.1 trsvcid:4420 subnqn:NQN`. Only `traddr` must be
    /// there: the port is 4420 (8009 for discovery) and the subsystem the discovery subsystem otherwise.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |message: String| Err(TransportIdError(message));
        let (mut traddr, mut trsvcid, mut subnqn, mut hostnqn) = (None, None, None, None);
        let mut adrfam = None;
        for word in text.split_whitespace() {
            let Some((key, value)) = word.split_once([':', '=']) else {
                return fail(format!(
                    "transport ID '{word}': expected KEY:VALUE, as in 'trtype:TCP traddr:127.0.0.1 trsvcid:4420 subnqn:NQN'"
                ));
            };
            match key.to_ascii_lowercase().as_str() {
                "trtype" => {
                    if !value.eq_ignore_ascii_case("tcp") {
                        return fail(format!("trtype '{value}': only TCP is supported"));
                    }
                }
                "adrfam" => match value.to_ascii_lowercase().as_str() {
                    "ipv4" => adrfam = Some(false),
                    "ipv6" => adrfam = Some(true),
                    _ => return fail(format!("adrfam '{value}': expected IPv4 or IPv6")),
                },
                "traddr" => match value.parse::<IpAddr>() {
                    Ok(ip) => traddr = Some(ip),
                    Err(_) => {
                        return fail(format!(
                            "traddr '{value}': expected an IPv4 or IPv6 address"
                        ));
                    }
                },
                "trsvcid" => match value.parse::<u16>() {
                    Ok(port) if port > 0 => trsvcid = Some(port),
                    _ => {
                        return fail(format!(
                            "trsvcid '{value}': expected a port from 1 to 65535"
                        ));
                    }
                },
                "subnqn" => subnqn = Some(nqn("subnqn", value)?),
                "hostnqn" => hostnqn = Some(nqn("hostnqn", value)?),
                _ => {
                    return fail(format!(
                        "transport ID key '{key}': expected trtype, adrfam, traddr, trsvcid, subnqn or hostnqn"
                    ));
                }
            }
        }
        let Some(ip) = traddr else {
            return fail(format!("transport ID '{text}': traddr is missing"));
        };
        if adrfam.is_some_and(|v6| v6 != ip.is_ipv6()) {
            return fail(format!("traddr '{ip}' is not of the adrfam given"));
        }
        let subnqn = subnqn.unwrap_or_else(Nqn::discovery);
        let default = if subnqn.is_discovery() {
            PORT_DISCOVERY
        } else {
            PORT_IO
        };
        Ok(Self {
            addr: SocketAddr::new(ip, trsvcid.unwrap_or(default)),
            subnqn,
            hostnqn,
        })
    }
}

impl TransportId {
    /// As [`from_str`](FromStr::from_str), but `traddr` may be the name of a host. It is looked up here and now,
    /// which may block: for the start of a program, never for a reactor. Of several addresses the first one that
    /// is of the `adrfam` given is taken, and without one IPv4 goes first.
    ///
    /// # Errors
    /// As [`from_str`](FromStr::from_str); the name is not one, or has no address.
    pub fn look_up(text: &str) -> Result<Self, TransportIdError> {
        let value_of = |wanted: &str| {
            text.split_whitespace()
                .filter_map(|word| word.split_once([':', '=']))
                .find(|(key, _)| key.eq_ignore_ascii_case(wanted))
                .map(|(_, value)| value)
        };
        let name = match value_of("traddr") {
            Some(value) if value.parse::<IpAddr>().is_err() => value,
            _ => return text.parse(),
        };
        let is_v6 = value_of("adrfam").map(|family| family.eq_ignore_ascii_case("ipv6"));
        let address =
            look_up(name, is_v6).map_err(|error| TransportIdError(format!("traddr {error}")))?;
        let words = text.split_whitespace().map(|word| {
            let key = word.split_once([':', '=']).map(|(key, _)| key);
            match key.is_some_and(|key| key.eq_ignore_ascii_case("traddr")) {
                true => format!("traddr:{address}"),
                false => word.to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" ").parse()
    }
}

fn nqn(key: &str, value: &str) -> Result<Nqn, TransportIdError> {
    if value == "discovery" {
        return Ok(Nqn::discovery());
    }
    Nqn::new(value).map_err(|e| TransportIdError(format!("{key} '{value}': {e}")))
}

impl fmt::Display for TransportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "trtype:TCP adrfam:{} traddr:{} trsvcid:{} subnqn:{}",
            if self.addr.is_ipv6() { "IPv6" } else { "IPv4" },
            self.addr.ip(),
            self.addr.port(),
            self.subnqn.as_str()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spdk_notation_is_read_and_printed() {
        let text = "trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:4421 subnqn:nqn.2016-06.io.spdk:cnode1";
        let id: TransportId = text.parse().unwrap();
        assert_eq!(id.addr, "127.0.0.1:4421".parse().unwrap());
        assert_eq!(id.to_string(), text);
        let id: TransportId = "traddr=::1".parse().unwrap();
        assert_eq!(id.addr, "[::1]:8009".parse().unwrap());
        assert!(id.subnqn.is_discovery());
    }

    #[test]
    fn bad_values_are_named_with_what_is_allowed() {
        for (text, part) in [
            ("", "traddr is missing"),
            ("trtype:TCP", "traddr is missing"),
            ("traddr", "expected KEY:VALUE"),
            ("trtype:RDMA traddr:1.2.3.4", "only TCP"),
            ("traddr:nowhere", "'nowhere'"),
            ("traddr:1.2.3.4 trsvcid:0", "1 to 65535"),
            ("traddr:1.2.3.4 trsvcid:70000", "'70000'"),
            ("traddr:1.2.3.4 adrfam:IPv6", "adrfam"),
            ("traddr:1.2.3.4 adrfam:IB", "IPv4 or IPv6"),
            ("traddr:1.2.3.4 subnqn:x", "subnqn 'x'"),
            ("traddr:1.2.3.4 color:red", "'color'"),
        ] {
            let error = text.parse::<TransportId>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn names_of_hosts_are_looked_up() {
        let text = "adrfam:IPv4 traddr:localhost trsvcid:4421 subnqn:nqn.2026-01.io.pollux:a";
        let id = TransportId::look_up(text).unwrap();
        assert!(id.addr.ip().is_loopback() && id.addr.is_ipv4(), "{id}");
        assert_eq!(id.addr.port(), 4421);
        let address = "traddr:::1 subnqn:nqn.2026-01.io.pollux:a";
        assert_eq!(TransportId::look_up(address), address.parse());
        for (text, wanted) in [
            ("traddr:no/where", "'no/where': not a name"),
            ("traddr:a..b", "name of a host"),
            ("traddr:1.2.3", "'1.2.3': not a name"),
            ("traddr:0x7f000001", "not a name"),
            ("traddr:localhost trsvcid:0", "trsvcid '0'"),
            ("trsvcid:1", "traddr is missing"),
        ] {
            let error = TransportId::look_up(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
