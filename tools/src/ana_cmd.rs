//! `pollux ana`: the ANA log of a controller.

use anyhow::bail;
use clap::Args;
use pollux_nvme_tcp::host::AnaLog;
use serde_json::{Value, json};

use crate::probe::{ConnectArgs, Text, print, with_controller};

const EXAMPLES: &str = "\
Examples:
  pollux ana -r 'trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:4420 subnqn:NQN'
  pollux ana -a 127.0.0.1 -s 4421 -n nqn.2026-01.io.pollux:target --json

Exit code: 0, 1 (cannot be read, or the controller does not report ANA), 2 (wrong usage).";

/// Print the ANA states that a controller reports, by ANA group.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AnaArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Reads and prints the ANA log.
///
/// # Errors
/// The controller cannot be read from or does not report ANA.
pub fn run(args: &AnaArgs) -> anyhow::Result<()> {
    let (heading, log) = with_controller(&args.connect, |probe| {
        let Some(log) = probe.facts.ana.take() else {
            bail!(
                "this controller of '{}' does not report ANA",
                probe.transport.subnqn
            );
        };
        let heading = format!(
            "Controller {} at {}, {}",
            probe.facts.cntlid, probe.transport.addr, probe.transport.subnqn
        );
        Ok((heading, log))
    })?;
    print(args.connect.json, &document(&log), &text(&heading, &log))
}

fn document(log: &AnaLog) -> Value {
    let groups: Vec<_> = log
        .groups
        .iter()
        .map(|group| {
            json!({
                "group": group.id,
                "change_count": group.change_count,
                "state": group.state.to_string(),
                "nsids": group.nsids,
            })
        })
        .collect();
    json!({ "change_count": log.change_count, "groups": groups })
}

fn text(heading: &str, log: &AnaLog) -> Text {
    let mut text = Text::default();
    text.line(heading);
    let groups = log.groups.len();
    text.line(&format!(
        "ANA log: change count {}, {groups} group{}",
        log.change_count,
        if groups == 1 { "" } else { "s" }
    ));
    if groups > 0 {
        text.line("  group  state            change count  namespaces");
    }
    for group in &log.groups {
        let nsids: Vec<_> = group.nsids.iter().map(u32::to_string).collect();
        let nsids = if nsids.is_empty() {
            "none".to_owned()
        } else {
            nsids.join(", ")
        };
        text.line(&format!(
            "  {:5}  {:15}  {:12}  {nsids}",
            group.id,
            group.state.to_string(),
            group.change_count,
        ));
    }
    text
}
