//! What control says in the program's log, so that an operator need not ask.

use std::net::SocketAddr;
use std::time::Duration;

use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_reactor::Time;

use super::lifecycle::Lifecycle;
use super::member::Member;
use super::members::Members;
use crate::LOG_FLAG;
use crate::error::HostError;
use crate::ids::{VolumeId, VolumeInfo};
use crate::status::PathEventKind;

/// How often it is said that a controller is still lost, for the same reason.
const STILL_LOST_PERIOD: Duration = Duration::from_secs(300);

/// Records of a discovery log that are told one by one.
const UNUSABLE_TOLD: usize = 4;

/// Something has happened to a controller, and so to all its paths.
pub(super) fn controller_event(member: &Member, kind: &PathEventKind) {
    let (name, addr) = who(member);
    match kind {
        PathEventKind::Lost(_) | PathEventKind::CommandTimeout { .. } => {
            log::warn!(target: LOG_FLAG, "{name} {addr}: {kind}")
        }
        PathEventKind::Reconnected | PathEventKind::Closed(_) => {
            log::info!(target: LOG_FLAG, "{name} {addr}: {kind}")
        }
        _ => log::debug!(target: LOG_FLAG, "{name} {addr}: {kind}"),
    }
}

/// Something has happened to one path. What concerns its controller was told with that.
pub(super) fn path_event(member: &Member, volume: &str, kind: &PathEventKind) {
    let addr = member.transport.addr;
    match kind {
        PathEventKind::Lost(_)
        | PathEventKind::Closed(_)
        | PathEventKind::Reconnected
        | PathEventKind::CommandTimeout { .. }
        | PathEventKind::AnaNotice => {}
        // Told of the controller that was lost.
        PathEventKind::ResetAsked { .. }
        | PathEventKind::Reset { .. }
        | PathEventKind::ResetRefused { .. } => {}
        PathEventKind::Fenced { .. } => log::warn!(target: LOG_FLAG, "{volume} {addr}: {kind}"),
        PathEventKind::FenceOver { .. } => {
            log::info!(target: LOG_FLAG, "{volume} {addr}: {kind}");
        }
        PathEventKind::AnattExpired => {
            log::warn!(target: LOG_FLAG, "{volume} {addr}: {kind}");
        }
        // The first state of a path that is just being added is no news.
        PathEventKind::Ana { .. }
            if member.lifecycle() != Lifecycle::Live && member.lost_at.is_none() =>
        {
            log::debug!(target: LOG_FLAG, "{volume} {addr}: {kind}");
        }
        PathEventKind::Ana { from, to, .. } => {
            log::info!(target: LOG_FLAG, "{volume} {addr}: ANA state {from} -> {to}");
        }
        PathEventKind::Added(_) | PathEventKind::Removed => {
            log::debug!(target: LOG_FLAG, "{volume} {addr}: {kind}");
        }
        PathEventKind::Applied { .. } | PathEventKind::AnaStatus { .. } => {
            log::trace!(target: LOG_FLAG, "{volume} {addr}: {kind}");
        }
    }
}

/// A controller that was lost with writes in doubt is to be reset by another one.
pub(super) fn reset(name: &str, addr: SocketAddr, kind: &PathEventKind) {
    match kind {
        PathEventKind::ResetRefused { .. } => log::warn!(target: LOG_FLAG, "{name} {addr}: {kind}"),
        _ => log::info!(target: LOG_FLAG, "{name} {addr}: {kind}"),
    }
}

/// A controller's first connection stands.
pub(super) fn attached(member: &Member) {
    let (name, addr) = who(member);
    let (id, subnqn) = (member.cntlid, member.transport.subnqn.as_str());
    log::info!(target: LOG_FLAG, "{name} {addr}: attached, controller {id} of {subnqn}");
}

/// A first connection did not come about. Whoever asked for it is told; a discovery tries again.
pub(super) fn not_attached(member: &Member, error: &HostError) {
    let (name, addr) = who(member);
    log::debug!(target: LOG_FLAG, "{name} {addr}: not attached: {error}");
}

/// A controller goes for good.
pub(super) fn detached(member: &Member) {
    let (name, addr) = who(member);
    log::info!(target: LOG_FLAG, "{name} {addr}: detached");
}

/// A controller was lost for longer than it may be.
pub(super) fn given_up(member: &Member) {
    let (name, addr) = who(member);
    log::error!(target: LOG_FLAG, "{name} {addr}: given up, ctrlr_loss_timeout_sec has passed");
}

/// A try to connect a controller again has failed: a line where the reason is another one than before, and one every
/// few minutes.
pub(super) fn still_lost(member: &mut Member, why: &str, now: Time) {
    let is_news = member.retries.failed(why.to_owned());
    let is_due = now >= member.still_lost_at;
    let (name, addr) = (&member.group, member.transport.addr);
    let lost_for = member.lost_at.map_or(Duration::ZERO, |at| now - at);
    let count = member.retries.tries();
    if !is_news && !is_due {
        log::debug!(target: LOG_FLAG, "{name} {addr}: still lost: {why}");
        return;
    }
    log::warn!(
        target: LOG_FLAG,
        "{name} {addr}: still lost after {lost_for:.0?}, {count} tries to reconnect have failed: {why}"
    );
    member.still_lost_at = now + STILL_LOST_PERIOD;
}

/// Namespaces do not take part; those that did not before are not told again.
pub(super) fn left_out(member: &Member, left_out: &[(u32, String)]) {
    let (name, addr) = who(member);
    for (nsid, why) in left_out.iter().filter(|one| !member.left_out.contains(one)) {
        log::warn!(target: LOG_FLAG, "{name} {addr}: namespace {nsid} is left out: {why}");
    }
}

/// A discovery service cannot be reached or read, for the first time or for another reason than before.
pub(super) fn discovery_lost(name: &str, addr: SocketAddr, why: &str, delay: Duration) {
    log::warn!(target: LOG_FLAG, "discovery {name} {addr}: {why}; next try in {delay:.0?}");
}

/// A discovery service was read after it had failed.
pub(super) fn discovery_found(name: &str, addr: SocketAddr) {
    log::info!(target: LOG_FLAG, "discovery {name} {addr}: reached again");
}

/// Records of a discovery log that name nothing to connect to.
pub(super) fn discovery_unusable(name: &str, addr: SocketAddr, records: &[String]) {
    for record in records.iter().take(UNUSABLE_TOLD) {
        log::warn!(target: LOG_FLAG, "discovery {name} {addr}: a record is left out: {record}");
    }
    if let Some(more) = records.len().checked_sub(UNUSABLE_TOLD).filter(|&n| n > 0) {
        log::warn!(target: LOG_FLAG, "discovery {name} {addr}: {more} more records are left out");
    }
}

/// A subsystem that a discovery service lists could not be attached, for the first time or for another
/// reason than before.
pub(super) fn discovery_not_attached(name: &str, nqn: &Nqn, error: &HostError, delay: Duration) {
    log::warn!(
        target: LOG_FLAG,
        "discovery {name}: {nqn} is not attached: {error}; next try in {delay:.0?}"
    );
}

/// What is behind a path is another namespace than before.
pub(super) fn replaced(member: &Member, volume: &str, why: &str) {
    let addr = member.transport.addr;
    log::error!(
        target: LOG_FLAG,
        "{volume} {addr}: another namespace has taken the place of this one: {why}; the path is removed"
    );
}

/// A namespace is no longer active.
pub(super) fn not_listed(member: &Member, volume: &str) {
    let addr = member.transport.addr;
    log::warn!(target: LOG_FLAG, "{volume} {addr}: the controller no longer has this namespace, the path is removed");
}

/// A volume has gone with its last path. Why the path is gone was said before, or is asked for.
pub(super) fn volume_removed(name: &str) {
    log::info!(target: LOG_FLAG, "{name}: removed with its last path");
}

/// The size of a volume changes.
pub(super) fn resized(volume: &VolumeInfo, blocks: u64) {
    let (name, before, size) = (&volume.name, volume.blocks, volume.block_size());
    match blocks < before {
        true => log::warn!(
            target: LOG_FLAG,
            "{name}: shrinks from {before} to {blocks} blocks of {size} bytes"
        ),
        false => log::info!(
            target: LOG_FLAG,
            "{name}: grows from {before} to {blocks} blocks of {size} bytes"
        ),
    }
}

/// Paths that are told one by one.
const PATHS_TOLD: usize = 4;

/// I/O of a volume waits, and no path is available.
pub(super) fn stalled(
    name: &str,
    volume: VolumeId,
    members: &Members,
    waiting: usize,
    length: Duration,
) {
    let mut paths = Vec::new();
    let mut is_limited = false;
    for member in members.iter() {
        let Some(path) = member.paths.iter().find(|p| p.volume == volume) else {
            continue;
        };
        let recovery = member.options.recovery;
        is_limited |=
            recovery.controller_loss_timeout.is_some() || recovery.fast_io_fail_timeout.is_some();
        paths.push(match member.lifecycle() {
            Lifecycle::Live => format!("{} {}", member.transport.addr, path.state.ana),
            _ => format!(
                "{} {}: {}",
                member.transport.addr,
                member.state_name(),
                member.last_error.as_deref().unwrap_or("no answer yet")
            ),
        });
    }
    if let Some(more) = paths.len().checked_sub(PATHS_TOLD).filter(|&n| n > 0) {
        paths.truncate(PATHS_TOLD);
        paths.push(format!("and {more} more"));
    }
    let limit = match is_limited {
        true => "until one is back, or its time limits have passed",
        false => {
            "until one is back (neither fast_io_fail_timeout_sec nor ctrlr_loss_timeout_sec is set)"
        }
    };
    let paths = paths.join("; ");
    log::warn!(
        target: LOG_FLAG,
        "{name}: no path is available, {waiting} I/Os have waited for {length:.1?}; they wait {limit}: {paths}"
    );
}

/// I/O that had no path goes on, or has ended.
pub(super) fn resumed(name: &str, length: Duration) {
    log::warn!(target: LOG_FLAG, "{name}: I/O waits for a path no more, after {length:.1?}");
}

fn who(member: &Member) -> (&str, SocketAddr) {
    (&member.group, member.transport.addr)
}
