//! Who is let in: how many connections may be there without a Connect, and which descriptors hosts leave to the rest of
//! the process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use pollux_reactor::{Time, descriptors_max, descriptors_open};

use crate::target::LOG_FLAG;
use crate::target::status::AdmissionCounters;

/// Connections without a Connect at a time. With more the oldest end, so that silent ones use up neither memory nor
/// descriptors.
const UNCONNECTED_MAX: usize = 256;

/// Descriptors that connections of hosts never take, beside those that are open when a listener is added (a quarter of
/// them all, if that is less): management, files and what else the process opens have them.
const DESCRIPTORS_RESERVED: usize = 256;

/// How long nothing is accepted after the system could not.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Room for everybody for so long means that a shortage is over.
const OVER_AFTER: Duration = Duration::from_secs(5);

/// What happens to a connection that has come.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::target) enum Verdict {
    /// Room enough.
    Admit,
    /// Room enough once this connection has ended, for the reason given.
    Replace(u64, &'static str),
    /// No room, for the reason given.
    Refuse(&'static str),
}

#[derive(Debug)]
struct Shortage {
    began: Time,
    latest: Time,
    before: AdmissionCounters,
}

/// The state of admission at one target.
#[derive(Debug)]
pub(in crate::target) struct Admission {
    /// Connections that had not connected when they were last looked at, the oldest first, and where they come from.
    unconnected: BTreeMap<u64, IpAddr>,
    /// Connections of hosts that there may be.
    connections_max: usize,
    /// Nothing is accepted before this time.
    again: Option<Time>,
    shortage: Option<Shortage>,
    counters: AdmissionCounters,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            unconnected: BTreeMap::new(),
            connections_max: usize::MAX,
            again: None,
            shortage: None,
            counters: AdmissionCounters::default(),
        }
    }
}

impl Admission {
    /// Takes the measure of the process: what is open when a listener is added is not there for hosts. `connections` of
    /// these are hosts'.
    pub(in crate::target) fn measure(&mut self, connections: usize) {
        let limit = descriptors_max();
        let reserve = (limit / 4).min(DESCRIPTORS_RESERVED);
        let others = descriptors_open().saturating_sub(connections);
        self.connections_max = limit.saturating_sub(others + reserve).max(1);
    }

    /// Whether the system is to be asked for connections.
    #[inline]
    pub(in crate::target) fn may_accept(&mut self, now: Time) -> bool {
        self.again.take_if(|again| now >= *again);
        self.again.is_none()
    }

    /// When the system is to be asked for connections again.
    pub(in crate::target) fn deadline(&self) -> Option<Time> {
        self.again
    }

    /// The system could not accept. To ask again at once would cost a turn and bring nothing: that is done later.
    pub(in crate::target) fn accept_failed(&mut self, now: Time) {
        self.bites(now);
        self.counters.failed_accepts += 1;
        self.again = Some(now + ACCEPT_BACKOFF);
    }

    /// One more connection has come while there are `connections`. With too many that have not connected yet, or too few
    /// descriptors, the oldest of those of the address that has most of them ends: a host that connects at once is always
    /// in time.
    pub(in crate::target) fn admit(
        &mut self,
        connections: usize,
        is_unconnected: impl Fn(u64) -> bool,
        now: Time,
    ) -> Verdict {
        let full = connections >= self.connections_max;
        if !full && self.unconnected.len() >= UNCONNECTED_MAX {
            self.unconnected.retain(|&id, _| is_unconnected(id));
        }
        if !full && self.unconnected.len() < UNCONNECTED_MAX {
            self.has_room(now);
            return Verdict::Admit;
        }
        self.unconnected.retain(|&id, _| is_unconnected(id));
        self.bites(now);
        let reason = match full {
            true => "no descriptor is left for another connection (raise the limit of open files)",
            false => "too many connections without a Connect: the oldest end",
        };
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for &ip in self.unconnected.values() {
            *counts.entry(ip).or_default() += 1;
        }
        let greediest = counts.into_iter().max_by_key(|&(_, n)| n).map(|(ip, _)| ip);
        let mut candidates = self.unconnected.iter();
        let oldest = candidates.find(|&(_, &ip)| Some(ip) == greediest);
        let Some((&id, _)) = oldest else {
            self.counters.refused_connections += 1;
            return Verdict::Refuse(reason);
        };
        self.unconnected.remove(&id);
        self.counters.ended_unconnected += 1;
        Verdict::Replace(id, reason)
    }

    /// The connection `id` has come from `ip`.
    pub(in crate::target) fn note(&mut self, id: u64, ip: IpAddr) {
        self.unconnected.insert(id, ip);
    }

    pub(in crate::target) fn counters(&self) -> AdmissionCounters {
        self.counters
    }

    fn bites(&mut self, now: Time) {
        let before = self.counters;
        let shortage = self.shortage.get_or_insert(Shortage {
            began: now,
            latest: now,
            before,
        });
        shortage.latest = now;
    }

    fn has_room(&mut self, now: Time) {
        let is_over = |s: &mut Shortage| now.saturating_since(s.latest) >= OVER_AFTER;
        if let Some(over) = self.shortage.take_if(is_over) {
            log::info!(target: LOG_FLAG, "{}", self.describe(&over));
        }
    }

    fn describe(&self, over: &Shortage) -> String {
        let (now, before) = (&self.counters, &over.before);
        format!(
            "there is room for connections again: in {:.1?} {} without a Connect were ended, {} refused, accept failed {} times",
            over.latest.saturating_since(over.began),
            now.ended_unconnected - before.ended_unconnected,
            now.refused_connections - before.refused_connections,
            now.failed_accepts - before.failed_accepts,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn the_oldest_of_the_greediest_address_makes_room() {
        let mut admission = Admission::default();
        for (open, id) in (0..UNCONNECTED_MAX).zip(0..) {
            // Every fourth is of another address; the two oldest are.
            let of = if id < 2 || id % 4 == 0 { 1 } else { 2 };
            assert_eq!(admission.admit(open, |_| true, at(1)), Verdict::Admit);
            admission.note(id, ip(of));
        }
        assert!(admission.shortage.is_none());
        let verdict = admission.admit(0, |_| true, at(1));
        assert!(matches!(verdict, Verdict::Replace(2, _)), "{verdict:?}");
        admission.note(1_000, ip(3));
        let verdict = admission.admit(0, |_| true, at(2));
        assert!(matches!(verdict, Verdict::Replace(3, _)), "{verdict:?}");
        assert_eq!(admission.counters().ended_unconnected, 2);
        // Connections that have had their Connect since take none of the room.
        assert_eq!(admission.admit(0, |id| id > 100, at(3)), Verdict::Admit);
        assert!(admission.shortage.is_some(), "not over at once");
        assert_eq!(admission.admit(0, |_| true, at(7)), Verdict::Admit);
        assert!(admission.shortage.is_none());
    }

    #[test]
    fn without_descriptors_who_has_connected_stays() {
        let mut admission = Admission {
            connections_max: 3,
            ..Admission::default()
        };
        for (open, id) in (0..3).zip(0..) {
            assert_eq!(admission.admit(open, |_| true, at(1)), Verdict::Admit);
            admission.note(id, ip(1));
        }
        // Number 1 alone has not connected.
        let verdict = admission.admit(3, |id| id == 1, at(1));
        assert!(matches!(verdict, Verdict::Replace(1, _)), "{verdict:?}");
        let verdict = admission.admit(3, |_| false, at(2));
        assert!(matches!(verdict, Verdict::Refuse(_)), "{verdict:?}");
        assert!(admission.may_accept(at(2)));
        admission.accept_failed(at(2));
        let again = admission.deadline().unwrap();
        assert!(!admission.may_accept(at(2)) && admission.may_accept(again));
        let shortage = admission.shortage.take().unwrap();
        assert_eq!(
            admission.describe(&shortage),
            "there is room for connections again: in 1.0s 1 without a Connect were ended, 1 refused, accept failed 1 times"
        );
    }

    #[test]
    fn hosts_leave_descriptors_to_the_rest_of_the_process() {
        let mut admission = Admission::default();
        admission.measure(0);
        let (limit, open) = (descriptors_max(), descriptors_open());
        assert!(open > 2 && admission.connections_max + open <= limit);
    }
}
