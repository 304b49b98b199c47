//! Commands that a controller is asked to abort (NVMe Base 2.1, 5.1.1): at most ACL at a time, and asked again
//! where that ends with a status that may pass (rules B9.1, B9.5).

use std::collections::VecDeque;

use pollux_reactor::Time;

use super::retry::{RETRIES_MAX, retry_delay};
use crate::spec::status::Status;

/// Abort commands outstanding at most; the controller's ACL holds if it is lower.
pub(super) const ABORTS_MAX: usize = 4;

/// A command to abort. While it is asked for, the request that does so carries this.
#[derive(Debug)]
pub(super) struct Abort {
    pub queue_id: u16,
    pub cid: u16,
    /// The owner is told where it is refused.
    insist: bool,
    retries: u32,
    /// Not sent before.
    at: Time,
}

/// All of one controller.
#[derive(Debug, Default)]
pub(super) struct Aborts {
    waiting: VecDeque<Abort>,
    outstanding: usize,
}

impl Aborts {
    pub fn add(&mut self, queue_id: u16, cid: u16, insist: bool) {
        self.waiting.push_back(Abort {
            queue_id,
            cid,
            insist,
            retries: 0,
            at: Time::ZERO,
        });
    }

    fn has_room(&self, limit: usize) -> bool {
        self.outstanding < limit.min(ABORTS_MAX)
    }

    /// The next to be sent to a controller that takes `limit` at a time. It comes back by
    /// [`answered`](Self::answered) or [`unsent`](Self::unsent).
    pub fn take(&mut self, limit: usize, now: Time) -> Option<Abort> {
        if !self.has_room(limit) {
            return None;
        }
        let place = self.waiting.iter().position(|abort| abort.at <= now)?;
        let abort = self.waiting.remove(place)?;
        self.outstanding += 1;
        Some(abort)
    }

    /// The queue had no room for an abort.
    pub fn unsent(&mut self, abort: Abort) {
        self.outstanding -= 1;
        self.waiting.push_front(abort);
    }

    /// When the next is sent that has to wait for a time, not for others to be answered.
    pub fn deadline(&self, limit: usize) -> Option<Time> {
        if !self.has_room(limit) {
            return None;
        }
        self.waiting.iter().map(|abort| abort.at).min()
    }

    /// One was answered. True if the owner is to be told that it was refused.
    pub fn answered(&mut self, mut abort: Abort, status: Status, now: Time) -> bool {
        self.outstanding -= 1;
        // Too many at a time passes, whatever the bits say.
        let may_pass = status.is_transient() || status.code() == Status::ABORT_LIMIT_EXCEEDED;
        if may_pass && abort.retries < RETRIES_MAX {
            abort.at = now + retry_delay(abort.retries);
            abort.retries += 1;
            self.waiting.push_back(abort);
            return false;
        }
        !status.is_success() && abort.insist
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn send(aborts: &mut Aborts, limit: usize, now: Time) -> Vec<Abort> {
        std::iter::from_fn(|| aborts.take(limit, now)).collect()
    }

    fn cids(sent: &[Abort]) -> Vec<u16> {
        sent.iter().map(|abort| abort.cid).collect()
    }

    #[test]
    fn no_more_than_the_controller_takes_are_outstanding() {
        let mut aborts = Aborts::default();
        for cid in 0..6 {
            aborts.add(1, cid, true);
        }
        let mut sent = send(&mut aborts, 2, at(0));
        assert_eq!(cids(&sent), [0, 1]);
        assert!(!aborts.answered(sent.remove(1), Status::SUCCESS, at(0)));
        sent = send(&mut aborts, 2, at(0));
        assert_eq!(cids(&sent), [2]);
        sent = send(&mut aborts, 255, at(0));
        assert_eq!(cids(&sent), [3, 4]);
        // The queue had no room for the first of them.
        aborts.unsent(sent.remove(0));
        assert_eq!(cids(&send(&mut aborts, 255, at(0))), [3]);
    }

    /// B9.5
    #[test]
    fn an_abort_that_ends_with_a_transient_status_is_sent_again_with_growing_delays() {
        for status in [
            Status::INTERNAL_ERROR,
            Status::COMMAND_INTERRUPTED,
            Status::ABORT_LIMIT_EXCEEDED.with_dnr(),
        ] {
            let mut aborts = Aborts::default();
            aborts.add(1, 7, true);
            let (mut now, mut delays) = (at(0), Vec::new());
            loop {
                let sent = send(&mut aborts, 1, now);
                assert_eq!(cids(&sent), [7]);
                let refused = sent.into_iter().any(|a| aborts.answered(a, status, now));
                if refused {
                    break;
                }
                assert_eq!(cids(&send(&mut aborts, 1, now)), [0; 0]);
                let next = aborts.deadline(1).unwrap();
                delays.push((next - now).as_millis());
                now = next;
            }
            assert_eq!(delays, [50, 100, 200, 400, 800, 1600]);
        }
    }

    #[test]
    fn a_final_status_is_told_to_who_insists() {
        let mut aborts = Aborts::default();
        aborts.add(1, 7, true);
        aborts.add(2, 7, false);
        let sent = send(&mut aborts, 4, at(0));
        assert_eq!(cids(&sent), [7, 7]);
        let refused = Status::INVALID_OPCODE;
        let told = sent
            .into_iter()
            .map(|abort| (abort.queue_id, aborts.answered(abort, refused, at(0))));
        assert_eq!(told.collect::<Vec<_>>(), [(1, true), (2, false)]);
        assert_eq!(aborts.deadline(4), None);
    }
}
