//! The read of the ANA log, in parts where it is larger than one transfer (rules B3.1 and B3.3).

use super::scan::NAMESPACES_MAX;
use super::{Next, Step};
use crate::host::LOG_FLAG;
use crate::host::ana_log::AnaLog;
use crate::host::controller::event::ControllerError;
use crate::host::controller::known::Known;

/// Most groups in an ANA log that is read, whatever the controller claims.
const ANA_GROUPS_MAX: usize = 4096;

/// Most tries to read an ANA log that changes between the reads of its parts.
const ANA_TRIES_MAX: u8 = 8;

/// An ANA log being read, in parts if it is larger than one transfer.
#[derive(Debug)]
pub(in crate::host::controller) struct AnaRead {
    total: usize,
    bytes: Vec<u8>,
    tries: u8,
}

impl AnaRead {
    /// A read that is still to begin, of as much as the log may be long by what the controller says of itself.
    pub fn new(known: &Known) -> Self {
        let id = known.identify();
        let groups = id.map_or(0, |id| id.nanagrpid.get());
        let namespaces = id.map_or(0, |id| match id.mnan.get() {
            0 => id.nn.get(),
            mnan => mnan,
        });
        let at_most = |n: u32, limit: usize| (n as usize).min(limit);
        let total =
            16 + 32 * at_most(groups, ANA_GROUPS_MAX) + 4 * at_most(namespaces, NAMESPACES_MAX);
        Self {
            total,
            bytes: Vec::new(),
            tries: 0,
        }
    }

    /// Nothing of it was asked for yet.
    pub fn is_new(&self) -> bool {
        self.bytes.is_empty() && self.tries == 0
    }

    /// True once all parts are there. A controller need not answer what lies behind the end of its log.
    fn is_read(&self) -> bool {
        self.bytes.len() >= self.total || AnaLog::is_whole(&self.bytes)
    }

    /// Offset and length of the next part; after the last of several, the header once more.
    pub fn next_part(&self, transfer_max: usize) -> (usize, usize) {
        if self.is_read() {
            return (0, 16);
        }
        let rest = self.total - self.bytes.len();
        (self.bytes.len(), rest.min(transfer_max))
    }

    pub fn on_part(mut self, known: &mut Known, data: &[u8]) -> Result<Next, ControllerError> {
        let mut whole =
            self.bytes.is_empty() && (data.len() >= self.total || AnaLog::is_whole(data));
        if !self.is_read() {
            self.bytes.extend_from_slice(data);
            if !whole {
                return Ok(Next::Step(Step::Ana(self)));
            }
        } else {
            // The log may have changed between two parts: its change count tells.
            whole = data.get(..8) == self.bytes.get(..8);
        }
        let parsed = if whole {
            AnaLog::parse(&self.bytes)
        } else {
            Err("ANA log changed while it was read")
        };
        match parsed {
            Ok(log) => known.ana = Some(log),
            Err(why) => {
                known.bad_ana_logs += u64::from(whole);
                let remote = known.options.connect.remote;
                log::warn!(target: LOG_FLAG, "{remote}: bad ANA log: {why}");
                self.tries += 1;
                // A bad log is read again once; one that moved under the reader, a few times.
                let tries_max = if whole { 2 } else { ANA_TRIES_MAX };
                if self.tries < tries_max {
                    self.bytes.clear();
                    return Ok(Next::Step(Step::Ana(self)));
                }
                if !known.is_up {
                    return Err(ControllerError::BadData(why));
                }
            }
        }
        Ok(match known.is_up {
            true => Next::Ana,
            false => Next::Ready,
        })
    }
}
