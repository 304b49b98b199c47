//! The commands of one queue that layers hold back, and what layers say about those that are being carried out.

use std::sync::Arc;
use std::time::Duration;

use pollux_reactor::{Context, Time, TimerId};

use super::layers::{Corruption, Descent, Faults};
use crate::spec::Sqe;
use crate::spec::status::Status;

/// A command on its way down, with the data that came in its capsule.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) sqe: Sqe,
    pub(super) data: Box<[u8]>,
    pub(super) descent: Descent,
}

/// Until when a command is held.
#[derive(Debug)]
pub(super) enum Until {
    Due(Time),
    /// [`Faults::resumed`] is another number.
    Resumed(Arc<Faults>, u64),
}

/// What happens to a command that is held no more.
#[derive(Debug)]
pub(super) enum Then {
    /// It goes on down.
    GoOn(Box<Task>),
    /// Its data is read and sent.
    Read(Sqe, Option<Corruption>),
    /// It was carried out, and is answered.
    Answer(Result<(), Status>),
}

#[derive(Debug)]
struct HeldCommand {
    cid: u16,
    nsid: u32,
    until: Until,
    then: Then,
}

/// What the layers have said about a command that is being carried out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ruling {
    /// By how much its answer is late.
    pub(super) delay: Duration,
    pub(super) corruption: Option<Corruption>,
}

/// The commands that are held.
#[derive(Debug)]
pub(super) struct Held {
    list: Vec<HeldCommand>,
    /// Earliest time that one of them waits for.
    next: Time,
    /// Those that wait for no time.
    pending: usize,
    /// By command identifier.
    rulings: Vec<(u16, Ruling)>,
    timer: Option<(TimerId, Time)>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            next: Time::MAX,
            pending: 0,
            rulings: Vec::new(),
            timer: None,
        }
    }
}

impl Held {
    /// Nothing is held and no timer is set.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.list.is_empty() && self.timer.is_none()
    }

    pub(super) fn hold(&mut self, cid: u16, nsid: u32, until: Until, then: Then) {
        match until {
            Until::Due(at) => self.next = self.next.min(at),
            Until::Resumed(..) => self.pending += 1,
        }
        self.list.push(HeldCommand {
            cid,
            nsid,
            until,
            then,
        });
    }

    /// Whether a command waits for a resume, of which no timer tells.
    #[inline]
    pub(super) fn may_be_resumed(&self) -> bool {
        self.pending > 0
    }

    /// Whether [`take_due`](Self::take_due) may find something.
    pub(super) fn may_be_due(&self, now: Time) -> bool {
        self.next <= now || self.pending > 0
    }

    /// The command that has waited for the earliest time, or for a resume that has come. What waits for a resume goes on
    /// as well when its namespace is gone: nobody could resume it any more.
    pub(super) fn take_due(
        &mut self,
        now: Time,
        is_gone: impl Fn(u32) -> bool,
    ) -> Option<(u16, u32, Then)> {
        if !self.may_be_due(now) {
            return None;
        }
        let due = |held: &HeldCommand| match &held.until {
            Until::Due(at) => (*at <= now).then_some(*at),
            Until::Resumed(faults, resumed) => {
                (faults.resumed() != *resumed || is_gone(held.nsid)).then_some(Time::ZERO)
            }
        };
        let found = self.list.iter().enumerate();
        let found = found.filter_map(|(at, held)| Some((due(held)?, at)));
        let (_, at) = found.min()?;
        Some(self.remove(at))
    }

    /// Takes a command out, whatever it waits for.
    pub(super) fn take(&mut self, cid: u16) -> bool {
        let at = self.list.iter().position(|held| held.cid == cid);
        at.map(|at| self.remove(at)).is_some()
    }

    fn remove(&mut self, at: usize) -> (u16, u32, Then) {
        let held = self.list.remove(at);
        let times = self.list.iter().filter_map(|held| match held.until {
            Until::Due(at) => Some(at),
            Until::Resumed(..) => None,
        });
        self.next = times.min().unwrap_or(Time::MAX);
        if matches!(held.until, Until::Resumed(..)) {
            self.pending -= 1;
        }
        (held.cid, held.nsid, held.then)
    }

    pub(super) fn contains(&self, cid: u16) -> bool {
        self.list.iter().any(|held| held.cid == cid)
    }

    /// Notes what the layers have said about a command that is carried out now.
    pub(super) fn rule(&mut self, cid: u16, ruling: Ruling) {
        self.rulings.push((cid, ruling));
    }

    #[inline]
    pub(super) fn has_rulings(&self) -> bool {
        !self.rulings.is_empty()
    }

    pub(super) fn take_ruling(&mut self, cid: u16) -> Option<Ruling> {
        let at = self.rulings.iter().position(|(c, _)| *c == cid)?;
        Some(self.rulings.swap_remove(at).1)
    }

    /// Sees to it that the timer `token` fires when the next command is due.
    pub(super) fn set_timer(&mut self, token: u64, cx: &mut Context<'_>) {
        if let Some((id, at)) = self.timer {
            if at == self.next && at > cx.now() {
                return;
            }
            // It may have fired.
            cx.cancel_timer(id);
            self.timer = None;
        }
        // What is due already, but found no room, goes on when the peer has read.
        if self.next > cx.now() && self.next < Time::MAX {
            self.timer = Some((cx.set_timer(self.next, token), self.next));
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, cx: &mut Context<'_>) {
        if let Some((id, _)) = self.timer {
            cx.cancel_timer(id);
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_goes_first_and_what_waits_for_a_resume_waits() {
        let faults = Arc::new(Faults::default());
        let mut held = Held::default();
        let at = |n| Until::Due(Time::from_nanos(n));
        held.hold(1, 1, at(30), Then::Answer(Ok(())));
        held.hold(2, 1, at(20), Then::Answer(Ok(())));
        let resumed = Until::Resumed(Arc::clone(&faults), faults.resumed());
        held.hold(3, 1, resumed, Then::Answer(Ok(())));
        let resumed = Until::Resumed(Arc::clone(&faults), faults.resumed());
        held.hold(4, 2, resumed, Then::Answer(Ok(())));
        held.hold(5, 1, at(50), Then::Answer(Ok(())));
        let cid = |held: &mut Held, now, gone: u32| {
            let now = Time::from_nanos(now);
            held.take_due(now, |nsid| nsid == gone).map(|(cid, ..)| cid)
        };
        assert_eq!(cid(&mut held, 19, 0), None);
        assert_eq!(cid(&mut held, 40, 0), Some(2));
        assert_eq!(cid(&mut held, 40, 0), Some(1));
        assert_eq!(cid(&mut held, 40, 0), None);
        assert_eq!(cid(&mut held, 40, 2), Some(4));
        faults.resume();
        assert_eq!(cid(&mut held, 40, 0), Some(3));
        assert!(!held.may_be_due(Time::from_nanos(49)));
        assert!(held.contains(5) && held.take(5) && !held.take(5));
        assert!(held.is_idle());
    }
}
