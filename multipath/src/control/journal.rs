//! What control says in the program's log, so that an operator need not ask.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use pollux_nvme_tcp::spec::nqn::Nqn;

use crate::LOG_FLAG;
use crate::error::HostError;
use crate::ids::VolumeInfo;
use crate::status::PathEventKind;

/// Records of a discovery log that are told one by one.
const UNUSABLE_TOLD: usize = 4;

/// What a line is about: the name of a controller's group or of a volume, and the address of the controller.
#[derive(Clone, Copy)]
pub(super) struct Who<'a>(pub &'a str, pub SocketAddr);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

/// Something has happened to a controller, and so to all its paths.
pub(super) fn controller_event(who: Who<'_>, kind: &PathEventKind) {
    match kind {
        PathEventKind::Lost(_) | PathEventKind::CommandTimeout { .. } => {
            log::warn!(target: LOG_FLAG, "{who}: {kind}")
        }
        PathEventKind::Reconnected | PathEventKind::Closed(_) => {
            log::info!(target: LOG_FLAG, "{who}: {kind}")
        }
        _ => log::debug!(target: LOG_FLAG, "{who}: {kind}"),
    }
}

/// Something has happened to one path. What concerns its controller was told with that; `is_new`: the controller is
/// connected for the first time.
pub(super) fn path_event(who: Who<'_>, kind: &PathEventKind, is_new: bool) {
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
        PathEventKind::Fenced { .. } => log::warn!(target: LOG_FLAG, "{who}: {kind}"),
        PathEventKind::FenceOver { .. } => {
            log::info!(target: LOG_FLAG, "{who}: {kind}");
        }
        PathEventKind::AnattExpired => {
            log::warn!(target: LOG_FLAG, "{who}: {kind}");
        }
        // The first state of a path that is just being added is no news.
        PathEventKind::Ana { .. } if is_new => {
            log::debug!(target: LOG_FLAG, "{who}: {kind}");
        }
        PathEventKind::Ana { from, to, .. } => {
            log::info!(target: LOG_FLAG, "{who}: ANA state {from} -> {to}");
        }
        PathEventKind::Added(_) | PathEventKind::Removed => {
            log::debug!(target: LOG_FLAG, "{who}: {kind}");
        }
        PathEventKind::Applied { .. } | PathEventKind::AnaStatus { .. } => {
            log::trace!(target: LOG_FLAG, "{who}: {kind}");
        }
    }
}

/// A controller that was lost with writes in doubt is to be reset by another one.
pub(super) fn reset(who: Who<'_>, kind: &PathEventKind) {
    match kind {
        PathEventKind::ResetRefused { .. } => log::warn!(target: LOG_FLAG, "{who}: {kind}"),
        _ => log::info!(target: LOG_FLAG, "{who}: {kind}"),
    }
}

/// A controller's first connection stands.
pub(super) fn attached(who: Who<'_>, cntlid: u16, subnqn: &Nqn) {
    let subnqn = subnqn.as_str();
    log::info!(target: LOG_FLAG, "{who}: attached, controller {cntlid} of {subnqn}");
}

/// A first connection did not come about. Whoever asked for it is told; a discovery tries again.
pub(super) fn not_attached(who: Who<'_>, error: &HostError) {
    log::debug!(target: LOG_FLAG, "{who}: not attached: {error}");
}

/// A controller goes for good.
pub(super) fn detached(who: Who<'_>) {
    log::info!(target: LOG_FLAG, "{who}: detached");
}

/// A controller was lost for longer than it may be.
pub(super) fn given_up(who: Who<'_>) {
    log::error!(target: LOG_FLAG, "{who}: given up, ctrlr_loss_timeout_sec has passed");
}

/// A try to connect a controller again has failed.
pub(super) fn still_lost(who: Who<'_>, why: &str, lost_for: Duration, tries: u32, is_due: bool) {
    if !is_due {
        log::debug!(target: LOG_FLAG, "{who}: still lost: {why}");
        return;
    }
    log::warn!(
        target: LOG_FLAG,
        "{who}: still lost after {lost_for:.0?}, {tries} tries to reconnect have failed: {why}"
    );
}

/// A namespace does not take part.
pub(super) fn left_out(who: Who<'_>, nsid: u32, why: &str) {
    log::warn!(target: LOG_FLAG, "{who}: namespace {nsid} is left out: {why}");
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
pub(super) fn replaced(who: Who<'_>, why: &str) {
    log::error!(
        target: LOG_FLAG,
        "{who}: another namespace has taken the place of this one: {why}; the path is removed"
    );
}

/// A namespace is no longer active.
pub(super) fn not_listed(who: Who<'_>) {
    log::warn!(target: LOG_FLAG, "{who}: the controller no longer has this namespace, the path is removed");
}

/// A volume has gone with its last path. Why the path is gone was said before, or is asked for.
pub(super) fn volume_removed(name: &str) {
    log::info!(target: LOG_FLAG, "{name}: removed with its last path");
}

/// A volume of a name that is served to others is not the one that they know.
pub(super) fn not_served(name: &str) {
    log::error!(
        target: LOG_FLAG,
        "{name}: is another namespace than the one that is served under this name, by its identifiers or its block size; it is not served"
    );
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

/// I/O of a volume waits, and no path is available. `is_limited`: one of the paths is not waited for for ever.
pub(super) fn stalled(
    name: &str,
    mut paths: Vec<String>,
    is_limited: bool,
    waiting: usize,
    length: Duration,
) {
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
