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
//!
//! What is known of each is here; [`follow_resets`](super::follow_resets) has control take the steps.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pollux_nvme_tcp::host::{Completed, Outcome};
use pollux_nvme_tcp::spec::cross_controller_reset::{
    Impacted, LOG_ENTRIES_MAX, LogEntry, LogHeader, ResetStatus, ccrf,
};
use pollux_reactor::Time;
use zerocopy::FromBytes;

use crate::ids::{ControllerId, VolumeId};
use crate::transport_id::TransportId;

/// Time until a controller that cannot reset another one for now is asked again, and until the log is read although
/// nothing has announced it; doubled with each time, up to the second one.
const DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Bytes of the log that are read: all that it may have.
pub(super) const LOG_LEN: usize = size_of::<LogHeader>() + LOG_ENTRIES_MAX * size_of::<LogEntry>();

/// One connection of a controller, by which it is told apart from itself connected again.
pub(super) type Connection = (ControllerId, u32);

/// One connection of a controller, and once it is lost what is done about the writes that are in doubt.
pub(super) struct Reset {
    pub lost: Connection,
    pub is_lost: bool,
    /// What the controller is called by others.
    pub impacted: Impacted,
    pub group: String,
    pub transport: Arc<TransportId>,
    /// Volumes that have writes in doubt.
    pub volumes: Vec<VolumeId>,
    /// When no fence is left.
    pub until: Time,
    /// Who is asked, and where that is.
    pub by: Option<(Connection, SocketAddr)>,
    /// Who was asked in vain.
    pub refused: Vec<Connection>,
    /// Answers of the one that is asked which may be others the next time.
    pub tries: u32,
    pub step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A controller is to be asked, from this time on.
    Wanted(Time),
    /// A controller was asked, by the admin command of this number.
    Asked(u64),
    /// The reset has begun; the log is read at this time, or when it is announced.
    Pending(Time),
    /// The log is being read, by the admin command of this number.
    Reading(u64),
    /// The log is read so that it has room for one more.
    Emptying(u64),
}

/// What is known of all connections to controllers that can be reset by others.
#[derive(Default)]
pub(super) struct Resets {
    pub list: Vec<Reset>,
    /// What was answered to their admin commands, by number.
    pub answers: VecDeque<(u64, Outcome, Vec<u8>)>,
    /// Resets that are to be asked for or are under way.
    pub wanted: usize,
}

impl Reset {
    pub fn is_wanted(&self) -> bool {
        self.is_lost && !self.volumes.is_empty()
    }

    pub fn awaits(&self, number: u64) -> bool {
        matches!(self.step, Step::Asked(n) | Step::Reading(n) | Step::Emptying(n) if n == number)
    }

    pub fn delay(&mut self) -> Duration {
        let (first, longest) = DELAY;
        let delay = (first * (1 << self.tries.min(8))).min(longest);
        self.tries += 1;
        delay
    }

    /// The one that was asked does it not: it is not asked again.
    pub fn refuse(&mut self, now: Time) {
        self.refused.extend(self.by.take().map(|(by, _)| by));
        self.tries = 0;
        self.step = Step::Wanted(now);
    }
}

impl Resets {
    /// A controller is connected; `impacted` is what it calls itself.
    pub fn connected(
        &mut self,
        connection: Connection,
        impacted: Impacted,
        (group, transport): (&str, &Arc<TransportId>),
        now: Time,
    ) {
        self.forget_over(now);
        self.list.push(Reset {
            lost: connection,
            is_lost: false,
            impacted,
            group: group.to_owned(),
            transport: Arc::clone(transport),
            volumes: Vec::new(),
            until: now,
            by: None,
            refused: Vec::new(),
            tries: 0,
            step: Step::Wanted(now),
        });
    }

    /// Forgets connections that were lost and of which nothing is fenced any more.
    pub fn forget_over(&mut self, now: Time) {
        self.list
            .retain(|reset| !reset.is_lost || now < reset.until);
    }

    fn of(&mut self, lost: Connection) -> Option<&mut Reset> {
        self.list.iter_mut().find(|reset| reset.lost == lost)
    }

    /// A connection is lost; what may have been sent by it is fenced until then.
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

    pub fn count(&mut self) {
        self.wanted = self.list.iter().filter(|reset| reset.is_wanted()).count();
    }

    /// Takes the answer to an admin command if it is one of these.
    pub fn take_answer(&mut self, number: u64, completed: Completed) -> Option<Completed> {
        if !self.list.iter().any(|reset| reset.awaits(number)) {
            return Some(completed);
        }
        let Completed { request, outcome } = completed;
        self.answers
            .push_back((number, outcome, request.buffer.into_vec()));
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

/// How the reset of a controller has ended by what the log says: `None` while it has not, or where the log contradicts
/// itself.
pub(super) fn told_by(log: &[u8], impacted: Impacted) -> Option<bool> {
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
