//! Options of `pollux target`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use pollux_multipath::TransportId;
use pollux_nvme_tcp::spec::Nqn;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::{Backend, FileEngine};

use crate::manage::ManageArgs;
use crate::reactor_args::ReactorArgs;
use crate::target_hosts::AllowArgs;

const EXAMPLES: &str = "\
Examples:
  pollux target
      64 MiB of memory on 127.0.0.1:4420
  pollux target --listen 127.0.0.1:4420 --listen 127.0.0.1:4421 --ana 127.0.0.1:4421=non_optimized
      two paths to it, the second one not optimized
  pollux target --cores 0,1 --namespace null:1T --namespace file:/tmp/disk:1G --listen 0.0.0.0:4420
      two namespaces, served by reactors pinned to cores 0 and 1
  pollux target --listen 0.0.0.0:4420 --allow-host nqn.2014-08.org.example:host --tls-psk tls.key
      by TLS alone, for one host, with a key that 'pollux key gen --tls -o tls.key' has made
  pollux target -r /run/pollux.sock
      nothing yet: everything is set up by JSON-RPC

Stop it with Ctrl-C or SIGTERM. Exit code: 0, 1 (could not start), 2 (wrong usage).";

/// Serve namespaces over NVMe/TCP.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TargetArgs {
    /// Address, or name of this host, to listen on; repeatable, each one is a path. Port 0 takes a free one. [default:
    /// 127.0.0.1:4420, and none with --rpc-socket]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_addr)]
    pub listen: Vec<SocketAddr>,

    /// ANA state of one listener: optimized (the default), non_optimized, inaccessible,
    /// persistent_loss or change; repeatable.
    #[arg(long, value_name = "ADDR:PORT=STATE")]
    pub ana: Vec<ListenerState>,

    /// Namespace: memory:SIZE, null:SIZE (reads zeroes, drops writes) or file:PATH, file:PATH:SIZE (with SIZE
    /// the file is created or extended; PATH may be a block device); repeatable. Files are served by io_uring where the
    /// system has it, else by threads; with uring: instead of file: it has to be io_uring. SIZE is in bytes or with K, M, G
    /// or T. [default: memory:64M, and none with --rpc-socket]
    #[arg(long, value_name = "KIND:...", value_parser = parse_backend)]
    pub namespace: Vec<Backend>,

    /// Let others that say the same use the files and devices of --namespace at the same time. Without it each is
    /// locked, and refused if somebody else has it.
    #[arg(long)]
    pub shared: bool,

    /// Bytes per logical block of all namespaces: 512 or 4096.
    #[arg(long, value_name = "BYTES", default_value = "512", value_parser = parse_block_size)]
    pub block_size: u32,

    /// Command Quiesce Time that controllers report, in ms: nothing of a controller that is lost is executed later than 2
    /// x KATO + CQT after its host has lost it, if disks end what they have within half of that time. Hosts that fence
    /// writes count with it, and controllers of one host reset each other then. 0: none is reported. [default: 1000]
    #[arg(long, value_name = "MS")]
    pub cqt: Option<u16>,

    /// Name of the subsystem.
    #[arg(long, default_value = "nqn.2026-01.io.pollux:target", value_parser = parse_nqn)]
    pub nqn: Nqn,

    /// Lowest controller identifier. Targets that serve one subsystem together (--shared) must not give the same ones.
    #[arg(long, value_name = "ID", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=0xffef))]
    pub min_cntlid: u16,

    #[command(flatten)]
    pub reactors: ReactorArgs,

    #[command(flatten)]
    pub hosts: AllowArgs,

    #[command(flatten)]
    pub manage: ManageArgs,
}

impl TargetArgs {
    /// Puts the defaults in. A target that is managed starts empty unless something was asked for.
    pub fn complete(&mut self) {
        for backend in &mut self.namespace {
            if let Backend::File { shared, .. } = backend {
                *shared = self.shared;
            }
        }
        if self.manage.is_used() && self.is_empty() && self.hosts.is_empty() {
            return;
        }
        if self.listen.is_empty() {
            self.listen.push(SocketAddr::from(([127, 0, 0, 1], 4420)));
        }
        if self.namespace.is_empty() {
            self.namespace.push(Backend::Memory { bytes: 64 << 20 });
        }
    }

    /// Nothing is to be set up before the first request.
    pub fn is_empty(&self) -> bool {
        self.listen.is_empty() && self.namespace.is_empty()
    }
}

/// The ANA state of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenerState {
    pub addr: SocketAddr,
    pub state: AnaState,
}

impl FromStr for ListenerState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, state) = text
            .split_once('=')
            .ok_or("ADDR:PORT=STATE is allowed, for example 127.0.0.1:4421=non_optimized")?;
        Ok(Self {
            addr: parse_addr(addr)?,
            state: state
                .parse()
                .map_err(|e| format!("'{state}' is no ANA state: {e}"))?,
        })
    }
}

/// An address and a port; the name of a host is looked up here and now.
fn parse_addr(text: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let named = text
        .rsplit_once(':')
        .and_then(|(name, port)| Some((name, port.parse().ok()?)));
    let allowed =
        "an address and a port are allowed, such as 127.0.0.1:4420, [::1]:4420 or localhost:4420";
    let (name, port) = named.ok_or_else(|| format!("'{text}': {allowed}"))?;
    let found = TransportId::look_up(&format!("traddr:{name}"));
    let found = found.map_err(|error| format!("'{text}': {error}; {allowed}"))?;
    Ok(SocketAddr::new(found.addr.ip(), port))
}

fn parse_nqn(text: &str) -> Result<Nqn, String> {
    let nqn: Nqn = text.parse().map_err(|e| format!("{e}"))?;
    if nqn.is_discovery() {
        return Err("the discovery NQN cannot have namespaces".into());
    }
    Ok(nqn)
}

fn parse_block_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" | "4K" | "4k" => Ok(4096),
        _ => Err("512 or 4096 is allowed".into()),
    }
}

fn parse_backend(text: &str) -> Result<Backend, String> {
    let allowed = "memory:SIZE, null:SIZE, file:PATH[:SIZE] or uring:PATH[:SIZE] is allowed";
    let (kind, rest) = text.split_once(':').ok_or(allowed)?;
    match kind {
        "memory" => Ok(Backend::Memory {
            bytes: parse_size(rest)?,
        }),
        "null" => Ok(Backend::Null {
            bytes: parse_size(rest)?,
        }),
        "file" | "uring" => {
            // What follows the last colon is a size if it reads as one; paths may have colons.
            let sized = rest
                .rsplit_once(':')
                .and_then(|(path, size)| Some((path, parse_size(size).ok()?)));
            let (path, bytes) = match sized {
                Some((path, bytes)) => (path, Some(bytes)),
                None => (rest, None),
            };
            if path.is_empty() {
                return Err(allowed.into());
            }
            Ok(Backend::File {
                path: PathBuf::from(path),
                bytes,
                shared: false,
                engine: match kind {
                    "uring" => FileEngine::Uring,
                    _ => FileEngine::Auto,
                },
            })
        }
        _ => Err(allowed.into()),
    }
}

/// Bytes, or a number with K, M, G or T (powers of 1024; "KiB" and "KB" mean the same).
fn parse_size(text: &str) -> Result<u64, String> {
    let allowed =
        || format!("'{text}' is no size: a number above 0 is allowed, with K, M, G or T if wanted");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(allowed)?;
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let shift = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(allowed()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|&n| n > 0)
        .ok_or_else(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("512", 512),
            ("4k", 4096),
            ("64M", 64 << 20),
            ("1GiB", 1 << 30),
            ("2TB", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "M", "-1", "1.5G", "1X", "1kk", "99999999T", "é"] {
            let error = parse_size(text).unwrap_err();
            assert!(error.contains(&format!("'{text}'")), "{error}");
        }
    }

    #[test]
    fn namespaces_have_four_kinds() {
        let with = |engine, path: &str, bytes| Backend::File {
            shared: false,
            path: path.into(),
            bytes,
            engine,
        };
        let file = |path: &str, bytes| with(FileEngine::Auto, path, bytes);
        for (text, backend) in [
            ("memory:1M", Backend::Memory { bytes: 1 << 20 }),
            ("null:512", Backend::Null { bytes: 512 }),
            ("file:/a/b", file("/a/b", None)),
            ("file:/a/b:1G", file("/a/b", Some(1 << 30))),
            ("file:/a:c", file("/a:c", None)),
            ("file:/a:c:4K", file("/a:c", Some(4096))),
            ("uring:/a:1M", with(FileEngine::Uring, "/a", Some(1 << 20))),
        ] {
            assert_eq!(parse_backend(text), Ok(backend), "{text}");
        }
        for text in ["memory", "memory:", "disk:1M", "file:", "uring:", "null:-1"] {
            assert!(parse_backend(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listener_states_name_a_listener() {
        let state: ListenerState = "[::1]:4421=non_optimized".parse().unwrap();
        assert_eq!(state.addr, "[::1]:4421".parse().unwrap());
        assert_eq!(state.state, AnaState::NON_OPTIMIZED);
        for text in ["optimized", "127.0.0.1=optimized", "127.0.0.1:1=bad"] {
            let error = text.parse::<ListenerState>().unwrap_err();
            assert!(
                error.contains("allowed") || error.contains("must be"),
                "{error}"
            );
        }
    }
}
