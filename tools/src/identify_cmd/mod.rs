//! `pollux identify`: what a controller says of itself and of its namespaces.

mod controller;
mod namespace;

use anyhow::{Context, bail};
use clap::Args;
use pollux_nvme_tcp::host::AdminCommand;
use pollux_nvme_tcp::spec::identify::{IdentifyNamespace, NamespaceList, cns, ctrl};
use pollux_nvme_tcp::spec::status::Status;
use serde_json::json;
use zerocopy::FromBytes;

use crate::probe::{ConnectArgs, Probe, ReadError, Text, print, with_controller};
use namespace::NamespaceReport;

const EXAMPLES: &str = "\
Examples:
  pollux identify -r 'trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:4420 subnqn:NQN'
  pollux identify -a 127.0.0.1 -s 4420 -n nqn.2026-01.io.pollux:target -N 1 --json
  pollux identify -a 127.0.0.1 -s 4420
      the discovery controller there

Exit code: 0, 1 (cannot be read, no such namespace), 2 (wrong usage).";

/// Most namespaces that are listed, whatever the controller claims to have.
const NAMESPACES_MAX: usize = 65_536;

/// Print identify data of a controller and its active namespaces.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct IdentifyArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// This namespace only.
    #[arg(short = 'N', long, value_name = "NSID", value_parser = parse_nsid)]
    nsid: Option<u32>,
}

fn parse_nsid(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|nsid| (1..u32::MAX).contains(nsid))
        .ok_or_else(|| "a namespace identifier from 1 to 4294967294 is allowed".into())
}

/// Reads and prints identify data.
///
/// # Errors
/// The controller cannot be read from, or has no such namespace.
pub fn run(args: &IdentifyArgs) -> anyhow::Result<()> {
    let (document, text) = with_controller(&args.connect, |probe| {
        let mut namespaces = Vec::new();
        for nsid in wanted_namespaces(probe, args.nsid)? {
            namespaces.extend(read_namespace(probe, nsid)?);
        }
        let mut text = Text::default();
        text.line(&format!(
            "Controller {} at {}",
            probe.facts.cntlid, probe.transport.addr
        ));
        controller::describe(&probe.facts, &mut text);
        for namespace in &namespaces {
            namespace.describe(probe.facts.ana.as_ref(), &mut text);
        }
        let namespaces: Vec<_> = namespaces.iter().map(NamespaceReport::document).collect();
        let document = json!({
            "controller": controller::document(&probe.facts),
            "namespaces": namespaces,
        });
        Ok((document, text))
    })?;
    print(args.connect.json, &document, &text)
}

/// The active namespaces, or the wanted one of them.
fn wanted_namespaces(probe: &mut Probe, wanted: Option<u32>) -> anyhow::Result<Vec<u32>> {
    let identify = &probe.facts.identify;
    let has_none = probe.transport.subnqn.is_discovery()
        || matches!(
            identify.cntrltype,
            ctrl::CNTRLTYPE_DISCOVERY | ctrl::CNTRLTYPE_ADMINISTRATIVE
        );
    let active = if has_none {
        Vec::new()
    } else {
        active_namespaces(|after| {
            probe.read(AdminCommand::identify(cns::ACTIVE_NAMESPACE_LIST, after, 0))
        })?
    };
    match wanted {
        Some(nsid) if active.contains(&nsid) => Ok(vec![nsid]),
        Some(nsid) => {
            let shown: Vec<_> = active.iter().take(16).map(u32::to_string).collect();
            let more = if active.len() > shown.len() {
                ", ..."
            } else {
                ""
            };
            match active.is_empty() {
                true => bail!("namespace {nsid} is not active; no namespace is"),
                false => bail!(
                    "namespace {nsid} is not active; those that are: {}{more}",
                    shown.join(", ")
                ),
            }
        }
        None => Ok(active),
    }
}

/// Reads the Active Namespace ID list, which comes in parts of 1,024.
fn active_namespaces(
    mut read_after: impl FnMut(u32) -> Result<Vec<u8>, ReadError>,
) -> anyhow::Result<Vec<u32>> {
    let mut nsids: Vec<u32> = Vec::new();
    loop {
        let last = nsids.last().copied().unwrap_or(0);
        let data = read_after(last).context("Identify Active Namespace ID list")?;
        let (list, _) = NamespaceList::ref_from_prefix(&data)
            .map_err(|_| anyhow::anyhow!("Identify Active Namespace ID list: cut off"))?;
        let before = nsids.len();
        for nsid in list.iter() {
            if nsid <= nsids.last().copied().unwrap_or(0) {
                bail!("Identify Active Namespace ID list: not in rising order");
            }
            nsids.push(nsid);
        }
        if nsids.len() - before < NamespaceList::MAX {
            return Ok(nsids);
        }
        if nsids.len() >= NAMESPACES_MAX {
            bail!("more than {NAMESPACES_MAX} active namespaces");
        }
    }
}

/// What the controller says of a namespace; `None` if it has gone meanwhile.
fn read_namespace(probe: &mut Probe, nsid: u32) -> anyhow::Result<Option<NamespaceReport>> {
    let data = match probe.read(AdminCommand::identify(cns::NAMESPACE, nsid, 0)) {
        Err(ReadError::Refused(status)) if status.code() == Status::INVALID_NAMESPACE => {
            return Ok(None);
        }
        result => result.with_context(|| format!("Identify Namespace {nsid}"))?,
    };
    let identify = IdentifyNamespace::read_from_bytes(&data)
        .map_err(|_| anyhow::anyhow!("Identify Namespace {nsid}: cut off"))?;
    if identify.nsze.get() == 0 {
        return Ok(None);
    }
    let descriptors = AdminCommand::identify(cns::NAMESPACE_ID_DESCRIPTORS, nsid, 0);
    let descriptors = match probe.read(descriptors) {
        // Optional before NVMe 1.3.
        Err(ReadError::Refused(_)) => Vec::new(),
        result => result.with_context(|| format!("Identify Namespace ID descriptors of {nsid}"))?,
    };
    Ok(Some(NamespaceReport::new(nsid, identify, &descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_read_in_parts() {
        let nsids: Vec<u32> = (1..=2048).map(|n| n * 2).collect();
        let mut reads = Vec::new();
        let found = active_namespaces(|after| {
            reads.push(after);
            let part = nsids.iter().filter(|&&n| n > after).take(1024);
            let mut data: Vec<u8> = part.flat_map(|n| n.to_le_bytes()).collect();
            data.resize(4096, 0);
            Ok(data)
        });
        assert_eq!(found.unwrap(), nsids);
        assert_eq!(reads, [0, 2048, 4096]);
    }

    #[test]
    fn a_list_that_never_ends_is_refused() {
        let same = |_| Ok([5u32.to_le_bytes(); 1024].concat());
        assert!(active_namespaces(same).is_err());
        let endless = active_namespaces(|after| {
            Ok((1..=1024).flat_map(|n| (after + n).to_le_bytes()).collect())
        });
        assert!(endless.unwrap_err().to_string().contains("65536"));
    }

    #[test]
    fn namespace_identifiers_have_a_range() {
        assert_eq!(parse_nsid("1"), Ok(1));
        for text in ["0", "4294967295", "-1", "one"] {
            assert!(parse_nsid(text).is_err(), "{text}");
        }
    }
}
