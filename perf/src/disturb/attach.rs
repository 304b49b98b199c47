//! `attach`: attaches over JSON-RPC to peers that do not answer, each of which must end by its deadline, while I/O runs on
//! another volume of the reactor that control runs on too.

use std::net::SocketAddr;
use std::time::Duration;

use pollux_multipath::Policy;
use pollux_reactor::rpc::{CallError, Client};
use serde_json::{Value, json};

use super::bench::{Bench, Layout};
use super::drive::{Drive, Slice};
use super::peer::{Behaviour, Peer, Swallow};
use super::results::{Section, spread, spread_json};
use super::slices::alternate;
use super::{Setup, on_bench};
use crate::clock::now;
use crate::load::Workload;
use crate::stats::latency_histogram;

/// The slow peer sends a byte this often.
const DRIP: Duration = Duration::from_secs(1);
/// An attach that ends this much after its deadline was not ended by it.
const LATE_MAX: Duration = Duration::from_secs(3);
/// Name of the group that must never come to be.
const NAME: &str = "silent";

pub(super) fn run(setup: &Setup) -> anyhow::Result<Section> {
    let layout = Layout::beside(&setup.cores);
    let about =
        "attaches to peers that do not answer run into their deadline, I/O on the same reactor";
    let mut section = Section::new("attach", about, Some(&layout));
    on_bench(
        setup,
        &mut section,
        &layout,
        Policy::ActivePassive,
        |bench, section| {
            let volume = bench.attach_both()?;
            let mut drive = Drive::start(bench, &volume, Workload::RandRead, setup.args.depth)?;
            let mut parts = Vec::new();

            let swallow = Swallow::start()?;
            let name = "SYNs are swallowed";
            parts.push(part(setup, bench, section, &mut drive, name, swallow.addr)?);
            for (name, behaviour) in [
                ("accepts, stays silent", Behaviour::Silent),
                ("answers a byte a second", Behaviour::Drip(DRIP)),
            ] {
                if setup.stopped() {
                    break;
                }
                let peer = Peer::start(behaviour)?;
                let result = part(setup, bench, section, &mut drive, name, peer.addr);
                peer.end();
                parts.push(result?);
            }
            let totals = drive.finish(&setup.stop)?;
            let io = section.io("I/O", &totals);
            section.put("deadline_ms", millis(setup.args.attach_timeout).into());
            section.put("parts", parts.into());
            section.put("io", io);
            Ok(())
        },
    )?;
    Ok(section)
}

fn part(
    setup: &Setup,
    bench: &Bench,
    section: &mut Section,
    drive: &mut Drive<'_>,
    name: &str,
    addr: SocketAddr,
) -> anyhow::Result<Value> {
    let deadline = setup.args.attach_timeout;
    let mut client = bench.client()?;
    let mut taken = latency_histogram();
    let mut last_error = None;
    let mut failures = Vec::new();
    let label = format!("attach: {name}");
    let rounds = setup.args.rounds as usize;
    let comparison = alternate(
        setup,
        &label,
        drive,
        rounds,
        deadline,
        |drive| -> anyhow::Result<Slice> {
            drive.exchange()?;
            let begun = now();
            let answer = attach(&mut client, bench, addr, deadline)?;
            let took = begun.elapsed();
            let slice = drive.exchange()?;
            taken.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            match answer {
                Ok(_) => failures.push(format!("{name}: the attach succeeded")),
                Err(error) => last_error = Some(error),
            }
            // How late it may be is the scheduler's; not to end at all is not.
            if took > deadline + LATE_MAX {
                failures.push(format!(
                    "{name}: ended after {took:?}, deadline {deadline:?}"
                ));
            }
            if is_left_behind(&mut client)? {
                failures.push(format!(
                    "{name}: the failed attach left a controller behind"
                ));
            }
            Ok(slice)
        },
    )?;
    section.failures.extend(failures);
    section.line(
        name,
        format!("deadline {deadline:?}, ended after {}", spread(&taken)),
    );
    section.rows(comparison.rows());
    Ok(json!({
        "peer": name,
        "deadline_ms": millis(deadline),
        "taken_ns": spread_json(&taken),
        "error": last_error,
        "comparison": comparison.json(),
    }))
}

fn attach(
    client: &mut Client,
    bench: &Bench,
    addr: SocketAddr,
    deadline: Duration,
) -> anyhow::Result<Result<Value, String>> {
    let transports = bench.embedded.transports();
    let subnqn = transports.first().map(|t| t.subnqn.as_str().to_owned());
    let params = json!({
        "name": NAME,
        "trtype": "tcp",
        "traddr": addr.ip().to_string(),
        "trsvcid": addr.port().to_string(),
        "subnqn": subnqn,
        "fabrics_connect_timeout_us": u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX),
    });
    match client.call("bdev_nvme_attach_controller", Some(params)) {
        Ok(result) => Ok(Ok(result)),
        Err(refused @ CallError::Refused { .. }) => Ok(Err(refused.to_string())),
        Err(error) => Err(error.into()),
    }
}

fn is_left_behind(client: &mut Client) -> anyhow::Result<bool> {
    let controllers = client.call("bdev_nvme_get_controllers", None)?;
    let mut names = controllers.as_array().into_iter().flatten();
    Ok(names.any(|controller| controller.get("name").is_some_and(|name| name == NAME)))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
