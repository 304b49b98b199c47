//! Whose turn it is: hosts take turns, and so do the queues of each, so that a host with many connections has no more than
//! one with a single one.

use std::collections::VecDeque;

/// The queues of a reactor that are polled, by their places, and their hosts. The next one is at the front.
#[derive(Debug, Default)]
pub(in crate::target) struct Round {
    /// Hosts that have queues here.
    hosts: VecDeque<usize>,
    /// By host.
    queues: Vec<VecDeque<usize>>,
    len: usize,
}

impl Round {
    /// How many queues are polled.
    #[inline]
    pub(in crate::target) fn len(&self) -> usize {
        self.len
    }

    /// How many hosts they are of.
    #[inline]
    pub(in crate::target) fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// How many of them are a host's.
    #[inline]
    pub(in crate::target) fn queues_of(&self, host: usize) -> usize {
        self.queues.get(host).map_or(0, VecDeque::len)
    }

    /// The host whose turn it is; it stands behind the others then.
    #[inline]
    pub(in crate::target) fn next_host(&mut self) -> Option<usize> {
        next(&mut self.hosts)
    }

    /// The queue of this host whose turn it is; it stands behind the host's others then.
    #[inline]
    pub(in crate::target) fn next_of(&mut self, host: usize) -> Option<usize> {
        next(self.queues.get_mut(host)?)
    }

    /// A queue that was not polled is polled from now on.
    pub(in crate::target) fn enter(&mut self, host: usize, place: usize) {
        if host >= self.queues.len() {
            self.queues.resize_with(host + 1, VecDeque::new);
        }
        let Some(queues) = self.queues.get_mut(host) else {
            unreachable!("the list of a host was just made");
        };
        if queues.is_empty() {
            self.hosts.push_back(host);
        }
        queues.push_back(place);
        self.len += 1;
    }

    /// A queue that was polled is polled no longer.
    pub(in crate::target) fn leave(&mut self, host: usize, place: usize) {
        let Some(queues) = self.queues.get_mut(host) else {
            return;
        };
        self.len -= queues.len();
        queues.retain(|&polled| polled != place);
        self.len += queues.len();
        if queues.is_empty() {
            self.hosts.retain(|&polled| polled != host);
        }
    }

    /// The places of all queues that are polled.
    pub(in crate::target) fn places(&self) -> impl Iterator<Item = usize> {
        self.queues.iter().flatten().copied()
    }
}

#[inline]
fn next(ring: &mut VecDeque<usize>) -> Option<usize> {
    let &first = ring.front()?;
    if ring.len() > 1 {
        ring.rotate_left(1);
    }
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom so many visits go to.
    fn visits(round: &mut Round, count: usize) -> Vec<usize> {
        let mut visited = Vec::new();
        for _ in 0..count {
            let host = round.next_host().unwrap();
            visited.push(round.next_of(host).unwrap());
        }
        visited
    }

    #[test]
    fn hosts_take_turns_and_the_queues_of_each() {
        let mut round = Round::default();
        for (host, place) in [(2, 20), (2, 21), (2, 22), (0, 5), (1, 10), (1, 11)] {
            round.enter(host, place);
        }
        assert_eq!((round.len(), round.hosts()), (6, 3));
        assert_eq!(visits(&mut round, 7), [20, 5, 10, 21, 5, 11, 22]);
        // Host 0 is next, and goes.
        round.leave(0, 5);
        assert_eq!((round.len(), round.hosts(), round.queues_of(0)), (5, 2, 0));
        assert_eq!(visits(&mut round, 3), [10, 20, 11]);
        // It comes back behind the others.
        round.enter(0, 6);
        assert_eq!(visits(&mut round, 3), [21, 10, 6]);
        let mut places: Vec<usize> = round.places().collect();
        places.sort_unstable();
        assert_eq!(places, [6, 10, 11, 20, 21, 22]);
        // What does not stand here cannot leave twice.
        round.leave(0, 5);
        round.leave(9, 5);
        assert_eq!(round.len(), 6);
    }
}
