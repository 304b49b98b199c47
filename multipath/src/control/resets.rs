//! Cross-Controller Reset (rules B14.6 to B14.8; NVMe base specification 2.3, 8.3.3): of a controller that was lost with
//! writes in doubt, another controller of the same NVM subsystem is asked to make an end. Once it has, nothing that was
//! sent to the lost one can be executed any more, and what was fenced goes on.
//!
//! ```text
//!   lost, and writes are fenced       answered: reset         told by the log: reset
//!            |                              |                          |
//!            v                              |                          v
//!         Wanted  ------ asked ------>    Asked   --- in progress -> Pending <--> Reading
//!            ^                              |                          |             |
//!            +--- refused, failed, lost: another controller, if there is one --------+
//! ```
//!
//! A reset never makes a fence longer, and nothing but success makes it shorter: what is refused, lost, late or makes no
//! sense leaves the time-based rule (B14.3).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pollux_nvme_tcp::host::{AdminCommand, Completed, Outcome, Request};
use pollux_nvme_tcp::spec::cross_controller_reset::{
    IMMEDIATE_RESET_SUCCESSFUL, Impacted, LOG_ENTRIES_MAX, LogEntry, LogHeader, ResetStatus, ccrf,
};
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::{Progress, Time};
use zerocopy::FromBytes;

use super::lifecycle::Lifecycle;
use super::member::Member;
use super::{Control, journal};
use crate::ids::{ControllerId, VolumeId};
use crate::io::ToIo;
use crate::status::PathEventKind;
use crate::transport_id::TransportId;

/// Time until a controller that cannot reset another one for now is asked again, and until the log is read although
/// nothing has announced it; doubled with each time, up to the second one.
const DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often a controller that answers with a status that may pass is asked.
const TRIES_MAX: u32 = 8;

/// Bytes of the log that are read: all that it may have.
const LOG_LEN: usize = size_of::<LogHeader>() + LOG_ENTRIES_MAX * size_of::<LogEntry>();

/// One connection of a controller, by which it is told apart from itself connected again.
type Connection = (ControllerId, u32);

/// One connection of a controller, and once it is lost what is done about the writes that are in doubt.
struct Reset {
    lost: Connection,
    is_lost: bool,
    /// What the controller is called by others.
    impacted: Impacted,
    group: String,
    transport: Arc<TransportId>,
    /// Volumes that have writes in doubt.
    volumes: Vec<VolumeId>,
    /// When no fence is left.
    until: Time,
    /// Who is asked, and where that is.
    by: Option<(Connection, SocketAddr)>,
    /// Who was asked in vain.
    refused: Vec<Connection>,
    /// Answers of the one that is asked which may be others the next time.
    tries: u32,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A controller is to be asked, from this time on.
    Wanted(Time),
    /// It was, by the admin command of this number.
    Asked(u64),
    /// It has begun; the log is read at this time, or when it is announced.
    Pending(Time),
    /// The log is being read, by the admin command of this number.
    Reading(u64),
    /// So that it has room for one more.
    Emptying(u64),
}

/// What is known of all connections to controllers that can be reset by others.
#[derive(Default)]
pub(super) struct Resets {
    list: Vec<Reset>,
    answers: VecDeque<(u64, Outcome, Vec<u8>)>,
    /// Resets that are to be asked for or are under way.
    wanted: usize,
}

impl Reset {
    fn is_wanted(&self) -> bool {
        self.is_lost && !self.volumes.is_empty()
    }

    fn awaits(&self, number: u64) -> bool {
        matches!(self.step, Step::Asked(n) | Step::Reading(n) | Step::Emptying(n) if n == number)
    }

    fn delay(&mut self) -> Duration {
        let (first, longest) = DELAY;
        let delay = (first * (1 << self.tries.min(8))).min(longest);
        self.tries += 1;
        delay
    }

    /// The one that was asked does it not: it is not asked again.
    fn refuse(&mut self, now: Time) {
        self.refused.extend(self.by.take().map(|(by, _)| by));
        self.tries = 0;
        self.step = Step::Wanted(now);
    }
}

impl Resets {
    /// A controller is connected; `impacted` is what it calls itself.
    pub fn connected(&mut self, member: &Member, impacted: Impacted, now: Time) {
        self.list
            .retain(|reset| !reset.is_lost || now < reset.until);
        self.list.push(Reset {
            lost: (member.id, member.incarnation),
            is_lost: false,
            impacted,
            group: member.group.clone(),
            transport: Arc::clone(&member.transport),
            volumes: Vec::new(),
            until: now,
            by: None,
            refused: Vec::new(),
            tries: 0,
            step: Step::Wanted(now),
        });
    }

    fn of(&mut self, lost: Connection) -> Option<&mut Reset> {
        self.list.iter_mut().find(|reset| reset.lost == lost)
    }

    /// That connection is lost; what may have been sent by it is fenced until then.
    pub fn lost(&mut self, lost: Connection, until: Time) {
        if let Some(reset) = self.of(lost) {
            reset.is_lost = true;
            reset.until = reset.until.max(until);
        }
        self.count();
    }

    /// Writes of a volume are in doubt because of that connection, until then.
    pub fn fenced(&mut self, lost: Connection, volume: VolumeId, until: Time) {
        if let Some(reset) = self.of(lost) {
            reset.until = reset.until.max(until);
            if !reset.volumes.contains(&volume) {
                reset.volumes.push(volume);
            }
        }
        self.count();
    }

    fn count(&mut self) {
        self.wanted = self.list.iter().filter(|reset| reset.is_wanted()).count();
    }

    /// Takes the answer to an admin command if it is one of these.
    pub fn take_answer(&mut self, number: u64, completed: Completed) -> Option<Completed> {
        if !self.list.iter().any(|reset| reset.awaits(number)) {
            return Some(completed);
        }
        let Completed { request, outcome } = completed;
        self.answers.push_back((number, outcome, request.buffer));
        None
    }

    /// A controller announces that its log has something to tell.
    pub fn announced(&mut self, id: ControllerId, now: Time) {
        for reset in &mut self.list {
            if let (Step::Pending(at), Some(((by, _), _))) = (&mut reset.step, reset.by)
                && by == id
            {
                *at = now;
            }
        }
    }

    /// When one is due although nothing arrives.
    pub fn deadline(&self) -> Option<Time> {
        if self.wanted == 0 {
            return None;
        }
        let wanted = self.list.iter().filter(|reset| reset.is_wanted());
        let at = wanted.map(|reset| match reset.step {
            Step::Pending(at) => at.min(reset.until),
            // Whoever is to be asked has to be there first.
            Step::Wanted(at) if reset.tries > 0 => at.min(reset.until),
            _ => reset.until,
        });
        at.min()
    }
}

impl Control {
    /// Goes on with the resets of controllers that were lost.
    pub(super) fn follow_resets(&mut self) -> Progress {
        if self.shared.resets.wanted == 0 {
            self.shared.resets.answers.clear();
            return Progress::Idle;
        }
        let mut resets = std::mem::take(&mut self.shared.resets);
        let mut progress = Progress::Idle;
        while let Some((number, outcome, data)) = resets.answers.pop_front() {
            progress = Progress::Busy;
            let found = resets.list.iter().position(|reset| reset.awaits(number));
            if let Some(at) = found
                && self.reset_answered(&mut resets.list[at], outcome, &data)
            {
                let reset = resets.list.swap_remove(at);
                self.reset_done(&reset);
            }
        }
        let now = self.shared.now;
        resets
            .list
            .retain(|reset| !reset.is_lost || now < reset.until);
        for reset in resets.list.iter_mut().filter(|reset| reset.is_wanted()) {
            progress = progress.or(self.follow_reset(reset));
        }
        resets.count();
        self.shared.resets = resets;
        progress
    }

    fn follow_reset(&mut self, reset: &mut Reset) -> Progress {
        let now = self.shared.now;
        let is_there = |m: &Member, by: Connection| {
            m.lifecycle() == Lifecycle::Live && (m.id, m.incarnation) == by
        };
        if let Some((by, _)) = reset.by
            && !self.members.iter().any(|m| is_there(m, by))
        {
            (reset.by, reset.step) = (None, Step::Wanted(now));
        }
        match reset.step {
            Step::Wanted(at) if now >= at => self.ask_for_reset(reset),
            Step::Pending(at) if now >= at => {
                let number =
                    self.send_for(reset, AdminCommand::cross_controller_reset_log(LOG_LEN));
                reset.step = match number {
                    Some(number) => Step::Reading(number),
                    None => Step::Pending(now + reset.delay()),
                };
                Progress::Busy
            }
            _ => Progress::Idle,
        }
    }

    /// Asks another controller of the subsystem, or the same one connected again.
    fn ask_for_reset(&mut self, reset: &mut Reset) -> Progress {
        let now = self.shared.now;
        if reset.by.is_none() {
            let may_be_asked = |m: &&Member| {
                let connection = (m.id, m.incarnation);
                m.lifecycle() == Lifecycle::Live
                    && m.controller.as_ref().is_some_and(|c| c.resets_others())
                    && connection != reset.lost
                    && !reset.refused.contains(&connection)
            };
            let candidates = self.members.group(&reset.group).filter(may_be_asked);
            let Some(by) = candidates.min_by_key(|m| m.id == reset.lost.0) else {
                return Progress::Idle;
            };
            reset.by = Some(((by.id, by.incarnation), by.transport.addr));
            let by = by.transport.addr;
            self.record_reset(reset, &PathEventKind::ResetAsked { by });
        }
        let request = AdminCommand::cross_controller_reset(reset.impacted);
        reset.step = match self.send_for(reset, request) {
            Some(number) => Step::Asked(number),
            None => Step::Wanted(now + reset.delay()),
        };
        Progress::Busy
    }

    /// Sends an admin command to the controller that is asked. Returns its number.
    fn send_for(&mut self, reset: &Reset, request: Request) -> Option<u64> {
        let ((id, _), _) = reset.by?;
        let number = self.shared.admin_number();
        let controller = self.members.get_mut(id)?.controller.as_mut()?;
        controller.submit(request.with(number)).ok()?;
        Some(number)
    }

    /// Takes in what the controller that was asked has answered. Returns whether the lost one was reset.
    fn reset_answered(&mut self, reset: &mut Reset, outcome: Outcome, data: &[u8]) -> bool {
        let now = self.shared.now;
        let Outcome::Completed { status, result } = outcome else {
            // Whoever was asked is lost as well.
            (reset.by, reset.step) = (None, Step::Wanted(now));
            return false;
        };
        match (reset.step, status.is_success()) {
            (Step::Asked(_), true) => {
                if result & u64::from(IMMEDIATE_RESET_SUCCESSFUL) != 0 {
                    return true;
                }
                reset.tries = 0;
                reset.step = Step::Pending(now + reset.delay());
            }
            (Step::Asked(_), false) => self.reset_refused(reset, status),
            (Step::Reading(_), true) => match told_by(data, reset.impacted) {
                Some(true) => return true,
                Some(false) => {
                    let why = "the reset has failed".into();
                    self.record_refusal(reset, why);
                    reset.refuse(now);
                }
                None => reset.step = Step::Pending(now + reset.delay()),
            },
            // It may be read another time; the fence has an end of its own.
            (Step::Reading(_), false) => reset.step = Step::Pending(now + reset.delay()),
            _ => reset.step = Step::Wanted(now + reset.delay()),
        }
        false
    }

    fn reset_refused(&mut self, reset: &mut Reset, status: Status) {
        let now = self.shared.now;
        let may_pass = matches!(
            status.code(),
            Status::CROSS_CONTROLLER_RESET_IN_PROGRESS
                | Status::CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED
        ) || (status.is_transient() && reset.tries < TRIES_MAX);
        if status.code() == Status::CROSS_CONTROLLER_RESET_LOG_FULL {
            let read = AdminCommand::cross_controller_reset_log(LOG_LEN);
            if let Some(number) = self.send_for(reset, read) {
                reset.step = Step::Emptying(number);
                return;
            }
        }
        if may_pass {
            reset.step = Step::Wanted(now + reset.delay());
            return;
        }
        self.record_refusal(reset, status.to_string());
        reset.refuse(now);
    }

    /// Nothing of the lost connection can be executed any more.
    fn reset_done(&mut self, reset: &Reset) {
        if let Some((_, by)) = reset.by {
            self.record_reset(reset, &PathEventKind::Reset { by });
        }
        let (controller, incarnation) = reset.lost;
        self.shared.reactors.broadcast(|| ToIo::EndFence {
            controller,
            incarnation,
        });
    }

    fn record_refusal(&mut self, reset: &Reset, why: String) {
        if let Some((_, by)) = reset.by {
            self.record_reset(reset, &PathEventKind::ResetRefused { by, why });
        }
    }

    fn record_reset(&mut self, reset: &Reset, kind: &PathEventKind) {
        journal::reset(&reset.group, reset.transport.addr, kind);
        let now = self.shared.now;
        for &volume in &reset.volumes {
            if let Some(volume) = self.shared.volumes.get_mut(volume) {
                volume.record(now, reset.lost.0, &reset.transport, kind.clone());
            }
        }
    }
}

/// How the reset of a controller has ended by what the log says: `None` while it has not, or where the log contradicts
/// itself.
fn told_by(log: &[u8], impacted: Impacted) -> Option<bool> {
    let (header, rest) = LogHeader::ref_from_prefix(log).ok()?;
    let entries = rest.chunks_exact(size_of::<LogEntry>());
    // There may be more than what was read.
    let entries = entries.take(header.ne.get().into());
    let entries = entries.filter_map(|bytes| LogEntry::read_from_bytes(bytes).ok());
    let of_it = entries.filter(|e| e.icid.get() == impacted.icid && e.ciu == impacted.ciu);
    let mut told = of_it.map(|entry| match entry.ccrs {
        // What was not found to be a controller was not reset.
        ResetStatus::SUCCESSFUL if entry.ccrf & ccrf::VALIDATED != 0 => Some(true),
        ResetStatus::FAILED => Some(false),
        _ => None,
    });
    let first = told.next()?;
    told.all(|other| other == first).then_some(first)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    const LOST: Impacted = Impacted {
        icid: 7,
        ciu: 3,
        cirn: 9,
    };

    fn log(ne: u16, entries: &[(u16, u8, ResetStatus, u8)]) -> Vec<u8> {
        let header = LogHeader {
            ne: ne.into(),
            ..LogHeader::default()
        };
        let mut bytes = header.as_bytes().to_vec();
        for &(icid, ciu, ccrs, ccrf) in entries {
            let entry = LogEntry {
                icid: icid.into(),
                ciu,
                ccrs,
                ccrf,
                ..LogEntry::default()
            };
            bytes.extend_from_slice(entry.as_bytes());
        }
        bytes
    }

    /// B14.8: only an entry about the lost controller that is in order counts, and no log does harm.
    #[test]
    fn a_log_that_lies_is_no_proof() {
        const DONE: (u16, u8, ResetStatus, u8) = (7, 3, ResetStatus::SUCCESSFUL, 0b11);
        let rows: [(Vec<u8>, Option<bool>); 11] = [
            (log(1, &[DONE]), Some(true)),
            (log(2, &[DONE, DONE]), Some(true)),
            (log(1, &[(7, 3, ResetStatus::FAILED, 0b11)]), Some(false)),
            (log(1, &[(7, 3, ResetStatus::IN_PROGRESS, 0b11)]), None),
            (log(1, &[(7, 3, ResetStatus(9), 0b11)]), None),
            // Not found to be a controller, and reset all the same.
            (log(1, &[(7, 3, ResetStatus::SUCCESSFUL, 0b10)]), None),
            // Others.
            (log(2, &[(8, 3, DONE.2, 0b11), (7, 4, DONE.2, 0b11)]), None),
            // Two that contradict each other.
            (log(2, &[DONE, (7, 3, ResetStatus::FAILED, 0b11)]), None),
            // More than there are, fewer, and none at all.
            (log(u16::MAX, &[DONE]), Some(true)),
            (log(0, &[DONE]), None),
            (vec![1, 0, 0], None),
        ];
        for (bytes, wanted) in rows {
            assert_eq!(told_by(&bytes, LOST), wanted, "{bytes:?}");
        }
        let whole = log(1, &[DONE]);
        for len in 0..whole.len() {
            assert_eq!(told_by(&whole[..len], LOST), None);
        }
    }
}
