//! Writes in doubt, as the network sees them (rule B14): a host that has lost a connection with a command on it that
//! changes data sends nothing that overlaps it on any connection of the same reactor before the controller can no longer
//! execute it. That is so 2 x KATO + CQT after the loss, and at once when another controller has told that it has reset
//! the lost one.
//!
//! This follows from what is sent and received alone; what the host says of its fences is not asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use pollux_nvme_tcp::spec::cross_controller_reset::Impacted;
use pollux_reactor::Time;

/// An I/O reactor: of which host, and the identifier of its queues, which is the same at every controller.
pub type Queue = (u128, u16);

/// What a command changes, and by which opcode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub opcode: u8,
    pub nsid: u32,
    pub first: u64,
    pub end: u64,
}

impl Change {
    pub fn new(opcode: u8, nsid: u32, first: u64, blocks: u64) -> Change {
        Change {
            opcode,
            nsid,
            first,
            end: first.saturating_add(blocks),
        }
    }

    fn overlaps(&self, other: &Change) -> bool {
        self.nsid == other.nsid && self.first < other.end && other.first < self.end
    }
}

/// A controller of a host, by the number of its admin connection.
#[derive(Debug)]
struct Controller {
    host: u128,
    path: SocketAddr,
    instance: Impacted,
    /// When the host has given it up as a whole.
    lost_at: Option<Time>,
    /// It was told that it was reset.
    was_reset: bool,
}

/// What a lost controller may still execute.
#[derive(Debug)]
struct Doubt {
    controller: u64,
    queue: Queue,
    change: Change,
    lost_at: Time,
}

/// All that is in doubt.
#[derive(Debug, Default)]
pub struct Doubts {
    /// For how long; `None`: hosts do not wait.
    time: Option<Duration>,
    controllers: BTreeMap<u64, Controller>,
    doubts: Vec<Doubt>,
    /// When I/Os were submitted that have not ended.
    open: BTreeMap<(Queue, Change), Vec<Time>>,
    /// Before this time a reactor may not have heard yet what another one had told it.
    calm_from: Time,
    /// Doubts that there were, and those that a reset has ended.
    pub count: u64,
    pub ended_by_reset: u64,
}

impl Doubts {
    pub fn new(time: Option<Duration>) -> Doubts {
        Doubts {
            time,
            ..Doubts::default()
        }
    }

    /// A controller has said who it is on this admin connection.
    pub fn identified(&mut self, admin: u64, host: u128, path: SocketAddr, instance: Impacted) {
        self.controllers.entry(admin).or_insert(Controller {
            host,
            path,
            instance,
            lost_at: None,
            was_reset: false,
        });
    }

    /// The controller that an I/O queue is connected to.
    pub fn controller(&self, host: u128, path: SocketAddr, cntlid: u16) -> Option<u64> {
        let is_it = |c: &Controller| (c.host, c.path, c.instance.icid) == (host, path, cntlid);
        let mut found = self.controllers.iter().rev();
        found.find_map(|(&admin, c)| is_it(c).then_some(admin))
    }

    /// The host has closed an admin connection, or has ended the controller.
    pub fn admin_lost(&mut self, admin: u64, now: Time) {
        if let Some(controller) = self.controllers.get_mut(&admin) {
            controller.lost_at.get_or_insert(now);
        }
    }

    /// The host has closed a connection on which this was outstanding.
    pub fn lost(&mut self, controller: u64, queue: Queue, change: Change, now: Time) {
        if self.time.is_none() {
            return;
        }
        self.count += 1;
        self.doubts.push(Doubt {
            controller,
            queue,
            change,
            lost_at: now,
        });
    }

    /// A controller of the host has told that it has reset this one.
    pub fn was_reset(&mut self, host: u128, instance: Impacted) {
        let found = self.controllers.values_mut();
        for controller in found.filter(|c| c.host == host && c.instance == instance) {
            controller.was_reset = true;
        }
        let controllers = &self.controllers;
        let before = self.doubts.len();
        self.doubts
            .retain(|d| !controllers.get(&d.controller).is_some_and(|c| c.was_reset));
        self.ended_by_reset += (before - self.doubts.len()) as u64;
    }

    /// An I/O that changes data was submitted.
    pub fn begins(&mut self, queue: Queue, change: Change, now: Time) {
        let open = self.open.entry((queue, change)).or_default();
        open.push(now);
    }

    /// It has ended.
    pub fn ends(&mut self, queue: Queue, change: Change, submitted: Time) {
        let key = (queue, change);
        if let Some(open) = self.open.get_mut(&key) {
            if let Some(at) = open.iter().position(|at| *at == submitted) {
                open.swap_remove(at);
            }
            if open.is_empty() {
                self.open.remove(&key);
            }
        }
    }

    /// Whether what is sent may be an I/O that was submitted before this was lost, and is another one: the two have no order.
    fn is_beside(&self, queue: Queue, change: &Change, doubt: &Doubt) -> bool {
        let open = self.open.get(&(queue, change.clone()));
        let before = open.map_or(0, |o| o.iter().filter(|at| **at <= doubt.lost_at).count());
        let is_it = |d: &&Doubt| (d.queue, &d.change) == (queue, change);
        before > self.doubts.iter().filter(is_it).count()
    }

    /// The volume is another one than before: nothing of the old one is sent any more.
    pub fn forget(&mut self, queue: Queue, nsid: u32) {
        self.doubts
            .retain(|d| (d.queue, d.change.nsid) != (queue, nsid));
    }

    /// Messages between reactors may be late until then.
    pub fn disturb(&mut self, until: Time) {
        self.calm_from = self.calm_from.max(until);
    }

    /// When a doubt is over.
    fn over(&self, doubt: &Doubt, time: Duration) -> Time {
        let over = doubt.lost_at + time;
        let controller = self.controllers.get(&doubt.controller);
        match controller {
            Some(c) if c.was_reset => Time::ZERO,
            // The host keeps a controller alive until it has given it up as a whole.
            Some(Controller {
                lost_at: Some(at), ..
            }) if *at < over && self.calm_from <= doubt.lost_at => over.max(*at + time),
            _ => over,
        }
    }

    /// A reactor sends a command that changes data.
    ///
    /// # Errors
    /// What it overtakes.
    pub fn sent(&mut self, queue: Queue, change: &Change, now: Time) -> Result<(), String> {
        let Some(time) = self.time.filter(|_| !self.doubts.is_empty()) else {
            return Ok(());
        };
        let overlaps = |d: &&Doubt| {
            d.queue == queue && d.change.overlaps(change) && !self.is_beside(queue, change, d)
        };
        let early = self.doubts.iter().filter(overlaps);
        let early = early.map(|d| (d, self.over(d, time)));
        let early = early.filter(|(_, over)| now < *over).max_by_key(|e| e.1);
        if let Some((doubt, over)) = early {
            let left = over - now;
            return Err(format!(
                "{change:?} is sent by queue {}, {left:?} before it is over that a lost \
                 controller may still execute {doubt:?}",
                queue.1
            ));
        }
        // What has waited for long enough is in doubt no more.
        let over: Vec<Time> = self.doubts.iter().map(|d| self.over(d, time)).collect();
        let mut over = over.into_iter();
        self.doubts
            .retain(|_| over.next().is_none_or(|at| now < at));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    const TIME: Duration = Duration::from_secs(2);
    const QUEUE: Queue = (7, 1);
    const ONE: Impacted = Impacted {
        icid: 1,
        ciu: 1,
        cirn: 11,
    };
    const TWO: Impacted = Impacted { cirn: 12, ..ONE };

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    fn path() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 4420))
    }

    fn in_doubt() -> Doubts {
        let mut doubts = Doubts::new(Some(TIME));
        doubts.identified(3, 7, path(), ONE);
        doubts.identified(4, 7, path(), TWO);
        assert_eq!(doubts.controller(7, path(), 1), Some(4), "the last");
        doubts.lost(3, QUEUE, change(8..16), at(0));
        doubts
    }

    fn change(blocks: Range<u64>) -> Change {
        Change::new(1, 1, blocks.start, blocks.end - blocks.start)
    }

    fn is_free(doubts: &mut Doubts, blocks: Range<u64>, ms: u64) -> bool {
        doubts.sent(QUEUE, &change(blocks), at(ms)).is_ok()
    }

    #[test]
    fn what_overlaps_waits_for_its_time() {
        let mut doubts = in_doubt();
        assert!(!is_free(&mut doubts, 15..20, 1999));
        assert!(is_free(&mut doubts, 16..20, 0), "no block of it");
        assert!(doubts.sent((7, 2), &change(8..16), at(0)).is_ok());
        let other = Change::new(1, 2, 8, 8);
        assert!(doubts.sent(QUEUE, &other, at(0)).is_ok());
        assert!(is_free(&mut doubts, 15..20, 2000));
    }

    #[test]
    fn the_time_counts_from_when_the_host_has_given_all_up() {
        let mut doubts = in_doubt();
        doubts.admin_lost(3, at(500));
        assert!(!is_free(&mut doubts, 8..9, 2499));
        assert!(is_free(&mut doubts, 8..9, 2500));
    }

    #[test]
    fn a_reset_ends_what_is_in_doubt_of_that_controller_alone() {
        let mut doubts = in_doubt();
        doubts.was_reset(7, TWO);
        doubts.was_reset(8, ONE);
        assert!(!is_free(&mut doubts, 8..9, 10));
        doubts.was_reset(7, ONE);
        assert!(is_free(&mut doubts, 8..9, 10));
        // Its host closes the other connections later.
        doubts.lost(3, QUEUE, change(0..1), at(20));
        assert!(is_free(&mut doubts, 0..1, 20));
    }

    #[test]
    fn what_was_under_way_beside_it_need_not_wait() {
        let mut doubts = in_doubt();
        doubts.begins(QUEUE, change(10..12), at(0));
        assert!(is_free(&mut doubts, 10..12, 1));
        doubts.ends(QUEUE, change(10..12), at(0));
        doubts.begins(QUEUE, change(10..12), at(1));
        assert!(!is_free(&mut doubts, 10..12, 1), "submitted later");
        // The write in doubt itself, and another one of the same blocks.
        doubts.begins(QUEUE, change(8..16), at(0));
        assert!(!is_free(&mut doubts, 8..16, 1));
        doubts.begins(QUEUE, change(8..16), at(0));
        assert!(is_free(&mut doubts, 8..16, 1));
    }

    #[test]
    fn another_volume_waits_for_nothing() {
        let mut doubts = in_doubt();
        doubts.forget(QUEUE, 1);
        assert!(is_free(&mut doubts, 8..9, 0));
    }
}
