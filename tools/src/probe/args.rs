//! Options that say which controller to read from, and how to connect to it.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use pollux_multipath::{TransportId, TransportIdError};
use pollux_nvme_tcp::auth::HostAuth;
#[cfg(feature = "auth")]
use pollux_nvme_tcp::auth::{KeyFileError, Keys, Policy, Secret};
use pollux_nvme_tcp::host::{ConnectOptions, Digests, HostIdentity};
use pollux_nvme_tcp::spec::Nqn;
#[cfg(feature = "tls")]
use pollux_nvme_tcp::tls::ConfiguredPsk;
use pollux_nvme_tcp::tls::HostTls;
use uuid::Uuid;

use crate::UsageError;

/// Longest connect timeout in seconds.
const TIMEOUT_MAX_S: f64 = 3600.0;

/// A transport.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Trtype {
    /// NVMe/TCP.
    Tcp,
}

/// Which controller, and how to connect to it.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// The controller: 'trtype:TCP adrfam:IPv4 traddr:ADDR trsvcid:PORT subnqn:NQN'. All but traddr, which may be
    /// the name of a host, may be left out: the subsystem is then the discovery subsystem.
    #[arg(
        short = 'r',
        long,
        value_name = "TRID",
        value_parser = TransportId::look_up,
        conflicts_with_all = ["trtype", "traddr", "trsvcid", "nqn"]
    )]
    transport: Option<TransportId>,

    /// The controller's transport; only tcp is there.
    #[arg(
        short = 't',
        long,
        value_enum,
        value_name = "TYPE",
        default_value = "tcp",
        ignore_case = true
    )]
    trtype: Trtype,

    /// The controller's IP address or the name of its host, instead of -r.
    #[arg(short = 'a', long, value_name = "ADDR", value_parser = parse_ip)]
    traddr: Option<IpAddr>,

    /// Its TCP port [default: 4420, of the discovery subsystem 8009].
    #[arg(short = 's', long, value_name = "PORT", value_parser = parse_port, requires = "traddr")]
    trsvcid: Option<u16>,

    /// Its subsystem's NQN, or 'discovery' [default: discovery].
    #[arg(short = 'n', long, value_name = "NQN", value_parser = parse_nqn, requires = "traddr")]
    nqn: Option<Nqn>,

    /// Host NQN to connect with [default: a new one].
    #[arg(long, value_name = "NQN")]
    hostnqn: Option<Nqn>,

    /// File with the host's key for DH-HMAC-CHAP, if the controller wants it to authenticate; with --hostnqn, whose key it
    /// is.
    #[cfg(feature = "auth")]
    #[arg(long, value_name = "FILE", value_parser = parse_key)]
    dhchap_key: Option<Secret>,

    /// File with the controller's key, with which it has to prove itself to the host.
    #[cfg(feature = "auth")]
    #[arg(long, value_name = "FILE", value_parser = parse_key, requires = "dhchap_key")]
    dhchap_ctrlr_key: Option<Secret>,

    /// Have the authentication bring a key for TLS, and connect again with it.
    #[cfg(feature = "tls")]
    #[arg(long, requires = "dhchap_key", group = "secure")]
    secure_concatenation: bool,

    /// File with the host's key for TLS, for a listener that is secure; with --hostnqn, whose key it is.
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", value_parser = parse_psk, group = "secure")]
    tls_psk: Option<ConfiguredPsk>,

    /// Have the kernel encrypt (kTLS) where it can; otherwise it is done here.
    #[cfg(feature = "tls")]
    #[arg(long, requires = "secure")]
    ktls: bool,

    /// Time until the controller must be ready, and for each answer after that.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_timeout)]
    connect_timeout: Duration,

    /// Ask for header digests (CRC32C).
    #[arg(long)]
    hdgst: bool,

    /// Ask for data digests (CRC32C).
    #[arg(long)]
    ddgst: bool,

    /// Refuse a controller that does not grant the digests asked for.
    #[arg(long)]
    require_digests: bool,

    /// Print JSON, with the field names of nvme-cli.
    #[arg(long)]
    pub json: bool,
}

impl ConnectArgs {
    /// The controller that is meant.
    ///
    /// # Errors
    /// [`UsageError`]: none was named.
    pub fn transport_id(&self) -> anyhow::Result<TransportId> {
        if let Some(transport) = &self.transport {
            return Ok(transport.clone());
        }
        let Some(traddr) = self.traddr else {
            return Err(UsageError(
                "no controller is named: -r 'trtype:TCP traddr:ADDR trsvcid:PORT subnqn:NQN' or \
                 -a ADDR -s PORT -n NQN is needed"
                    .into(),
            )
            .into());
        };
        let Trtype::Tcp = self.trtype;
        let mut text = format!("trtype:TCP traddr:{traddr}");
        if let Some(port) = self.trsvcid {
            text += &format!(" trsvcid:{port}");
        }
        if let Some(nqn) = &self.nqn {
            text += &format!(" subnqn:{nqn}");
        }
        Ok(text.parse()?)
    }

    #[cfg(feature = "auth")]
    fn auth(&self) -> Option<HostAuth> {
        let keys = Keys {
            host: self.dhchap_key.clone()?,
            controller: self.dhchap_ctrlr_key.clone(),
        };
        #[cfg_attr(
            not(feature = "tls"),
            expect(unused_mut, reason = "nothing concatenates")
        )]
        let mut auth = HostAuth::new(keys, Policy::default());
        #[cfg(feature = "tls")]
        {
            auth.concatenate = self.secure_concatenation;
        }
        Some(auth)
    }

    #[cfg(not(feature = "auth"))]
    fn auth(&self) -> Option<HostAuth> {
        None
    }

    /// With what connections are made secure.
    #[cfg(feature = "tls")]
    fn tls(&self) -> Option<HostTls> {
        Some(HostTls::new(self.tls_psk.clone()?))
    }

    /// Without the feature, with nothing.
    #[cfg(not(feature = "tls"))]
    fn tls(&self) -> Option<HostTls> {
        None
    }

    /// Options of the admin connection.
    pub fn connect_options(&self, transport: &TransportId) -> ConnectOptions {
        let host_nqn = self.hostnqn.as_ref().or(transport.hostnqn.as_ref());
        let host = match host_nqn {
            Some(nqn) => HostIdentity {
                nqn: nqn.clone(),
                id: host_id(nqn),
            },
            None => HostIdentity::random(),
        };
        let mut options = ConnectOptions::admin(transport.addr, transport.subnqn.clone(), host);
        options.digests = Digests {
            header: self.hdgst,
            data: self.ddgst,
        };
        options.require_digests = self.require_digests;
        options.auth = self.auth();
        options.tls = self.tls();
        #[cfg(feature = "tls")]
        {
            options.ktls = self.ktls;
        }
        options.timeout = self.connect_timeout;
        options
    }
}

/// A host has one host identifier (NVMe Base 2.1, 4.7): that in its NQN if there is one.
fn host_id(nqn: &Nqn) -> Uuid {
    nqn.as_str()
        .split_once(":uuid:")
        .and_then(|(_, uuid)| uuid.parse().ok())
        .unwrap_or_else(Uuid::new_v4)
}

/// An NQN, or `discovery` for the discovery subsystem's.
fn parse_nqn(text: &str) -> Result<Nqn, String> {
    match text {
        "discovery" => Ok(Nqn::discovery()),
        _ => text.parse().map_err(|e| format!("{e}")),
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, TransportIdError> {
    match text.parse() {
        Ok(ip) => Ok(ip),
        Err(_) => TransportId::look_up(&format!("traddr:{text}")).map(|id| id.addr.ip()),
    }
}

#[cfg(feature = "tls")]
fn parse_psk(path: &str) -> Result<ConfiguredPsk, KeyFileError> {
    ConfiguredPsk::read(path.as_ref())
}

#[cfg(feature = "auth")]
fn parse_key(path: &str) -> Result<Secret, KeyFileError> {
    Secret::read(path.as_ref())
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|&port| port > 0)
        .ok_or_else(|| "a port from 1 to 65535 is allowed".into())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.001..=TIMEOUT_MAX_S).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("0.001 to {TIMEOUT_MAX_S} seconds are allowed"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        connect: ConnectArgs,
    }

    fn parse(args: &[&str]) -> Result<ConnectArgs, String> {
        Line::try_parse_from(std::iter::once("pollux").chain(args.iter().copied()))
            .map(|line| line.connect)
            .map_err(|e| e.to_string())
    }

    fn transport(args: &[&str]) -> String {
        parse(args).unwrap().transport_id().unwrap().to_string()
    }

    #[test]
    fn both_notations_name_the_same_controller() {
        let trid = "trtype:TCP adrfam:IPv4 traddr:192.0.2.1 trsvcid:4421 subnqn:nqn.2014-08.org:a";
        assert_eq!(transport(&["-r", trid]), trid);
        let words = [
            "-t",
            "tcp",
            "-a",
            "192.0.2.1",
            "-s",
            "4421",
            "-n",
            "nqn.2014-08.org:a",
        ];
        assert_eq!(transport(&words), trid);
        let discovery = transport(&["--traddr", "::1"]);
        assert!(discovery.contains("traddr:::1 trsvcid:8009"), "{discovery}");
        assert_eq!(discovery, transport(&["-a", "::1", "-n", "discovery"]));
        let default = transport(&["-a", "::1", "-n", "nqn.2014-08.org:a"]);
        assert!(default.contains("trsvcid:4420"), "{default}");
    }

    #[test]
    fn a_controller_must_be_named() {
        let error = parse(&[]).unwrap().transport_id().unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("-r "));
        for args in [
            &["-s", "4420"][..],
            &["-n", "discovery"],
            &["-r", "traddr:::1", "-a", "::1"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn bad_values_are_named_with_what_is_allowed() {
        for (option, value, allowed) in [
            ("-r", "traddr:he/re", "IPv4 or IPv6"),
            ("-t", "rdma", "possible values: tcp"),
            ("-a", "he/re", "IPv4 or IPv6"),
            ("-s", "0", "1 to 65535"),
            ("-s", "65536", "1 to 65535"),
            ("-n", "a", "nqn.yyyy-mm"),
            ("--hostnqn", "a", "nqn.yyyy-mm"),
            ("--dhchap-key", "/dev/null", "not a regular file"),
            ("--dhchap-ctrlr-key", "/nonexistent", "No such file"),
            ("--connect-timeout", "0", "0.001 to 3600"),
            ("--connect-timeout", "3601", "0.001 to 3600"),
            ("--connect-timeout", "NaN", "0.001 to 3600"),
            ("--connect-timeout", "soon", "0.001 to 3600"),
        ] {
            let error = parse(&[option, value]).unwrap_err();
            assert!(error.contains(&format!("'{value}'")), "{error}");
            assert!(error.contains(allowed), "{error}");
        }
    }

    #[test]
    fn the_host_is_who_the_options_say() {
        let uuid = "2cd2c43b-a90a-45c1-a8cd-86b33ab273b5";
        let nqn = format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}");
        let args = parse(&["-a", "::1", "--hostnqn", &nqn, "--ddgst"]).unwrap();
        let options = args.connect_options(&args.transport_id().unwrap());
        assert_eq!(options.host.nqn.as_str(), nqn);
        assert_eq!(options.host.id.to_string(), uuid);
        assert!(options.digests.data && !options.digests.header);
        let args = parse(&["-r", "traddr:::1 hostnqn:nqn.2014-08.org:h"]).unwrap();
        let options = args.connect_options(&args.transport_id().unwrap());
        assert_eq!(options.host.nqn.as_str(), "nqn.2014-08.org:h");
    }
}
