//! The Cross-Controller Reset log of one controller, LID 1Eh (NVMe Base 2.3, 8.3.3): the resets that it was asked for and that
//! were not ended at once.

use std::collections::VecDeque;

use zerocopy::IntoBytes;

use crate::spec::cross_controller_reset::{
    Impacted, LOG_ENTRIES_MAX, LogEntry, LogHeader, ResetStatus, ccrf,
};

/// CCRL: resets in progress at the request of one controller.
pub(in crate::target) const RESETS_MAX: u8 = 4;

/// The oldest first.
#[derive(Debug, Default)]
pub(in crate::target) struct ResetLog {
    entries: VecDeque<LogEntry>,
}

impl ResetLog {
    /// There is room for one more, `pending` being about to be added.
    pub(in crate::target) fn has_room(&self, pending: usize) -> bool {
        self.entries.len() + pending < LOG_ENTRIES_MAX
    }

    /// A reset is in progress; `acid` is a controller that can be asked as well.
    pub(in crate::target) fn begin(&mut self, impacted: Impacted, acid: u16) {
        self.entries.push_back(LogEntry {
            icid: impacted.icid.into(),
            ciu: impacted.ciu,
            acid: acid.into(),
            ccrs: ResetStatus::IN_PROGRESS,
            ccrf: ccrf::VALIDATED | ccrf::RESET_INITIATED,
            ..LogEntry::default()
        });
    }

    /// It has succeeded.
    pub(in crate::target) fn end(&mut self, impacted: Impacted) {
        for entry in &mut self.entries {
            if (entry.icid.get(), entry.ciu) == (impacted.icid, impacted.ciu) {
                entry.ccrs = ResetStatus::SUCCESSFUL;
            }
        }
    }

    /// The log page.
    pub(in crate::target) fn bytes(&self) -> Vec<u8> {
        #[expect(
            clippy::expect_used,
            reason = "an entry is added only if there is room"
        )]
        let ne = u16::try_from(self.entries.len()).expect("at most 511 entries");
        let header = LogHeader {
            ne: ne.into(),
            ..LogHeader::default()
        };
        let mut log = header.as_bytes().to_vec();
        for entry in &self.entries {
            log.extend_from_slice(entry.as_bytes());
        }
        log
    }

    /// Forgets resets that have ended, as far as the host has read of them: `len` bytes of the log from `offset` on. What
    /// was longer than its buffer it can still read.
    pub(in crate::target) fn remove_completed(&mut self, offset: u64, len: usize) {
        let mut next = size_of::<LogHeader>() as u64;
        let end = offset.saturating_add(len as u64);
        self.entries.retain(|entry| {
            let start = next;
            next += size_of::<LogEntry>() as u64;
            let was_read = start >= offset && next <= end;
            entry.ccrs == ResetStatus::IN_PROGRESS || !was_read
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(icid: u16) -> Impacted {
        Impacted {
            icid,
            ciu: 1,
            cirn: 2,
        }
    }

    fn listed(log: &ResetLog) -> Vec<u16> {
        let bytes = log.bytes();
        let ne = u16::from_le_bytes([bytes[0], bytes[1]]);
        assert_eq!(bytes.len(), 8 + 8 * usize::from(ne));
        let ids = bytes[8..].chunks(8);
        ids.map(|e| u16::from_le_bytes([e[0], e[1]])).collect()
    }

    #[test]
    fn only_what_has_ended_and_was_read_is_removed() {
        let mut log = ResetLog::default();
        for icid in 1..=4 {
            log.begin(controller(icid), 9);
        }
        for icid in [1, 2, 4] {
            log.end(controller(icid));
        }
        // The header and one entry and a half.
        log.remove_completed(0, 20);
        assert_eq!(listed(&log), [2, 3, 4]);
        log.remove_completed(12, 4096);
        assert_eq!(listed(&log), [2, 3]);
        log.remove_completed(0, 4096);
        assert_eq!(listed(&log), [3]);
        log.remove_completed(u64::MAX, usize::MAX);
        assert_eq!(listed(&log), [3]);
    }

    #[test]
    fn the_log_has_room_for_as_many_as_its_page() {
        let mut log = ResetLog::default();
        for icid in 0..511 {
            assert_eq!(log.has_room(3), icid < 508);
            assert!(log.has_room(0));
            log.begin(controller(icid), 9);
        }
        assert!(!log.has_room(0));
        assert_eq!(log.bytes().len(), 4096);
    }
}
