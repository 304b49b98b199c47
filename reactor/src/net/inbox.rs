//! What is on its way to one side of a simulated connection.

use std::collections::VecDeque;
use std::io::IoSliceMut;

use crate::time::Time;

/// Bytes that were sent, and when they arrive.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: VecDeque<u8>,
    /// Time of arrival of the next so many bytes. Times never fall.
    arrivals: VecDeque<(Time, usize)>,
}

impl Inbox {
    /// Adds bytes that arrive at `at`, which is not before what was put last.
    pub(super) fn put(&mut self, at: Time, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.bytes.extend(bytes);
        match self.arrivals.back_mut() {
            Some((last, len)) if *last == at => *len += bytes.len(),
            _ => self.arrivals.push_back((at, bytes.len())),
        }
    }

    /// Bytes that were sent and not yet taken, arrived or not.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that are there at `now`.
    pub(super) fn arrived(&self, now: Time) -> usize {
        let arrived = self.arrivals.iter().take_while(|&&(at, _)| at <= now);
        arrived.map(|&(_, len)| len).sum()
    }

    /// Takes the first `limit` bytes at most, as many as `bufs` hold. Returns how many.
    pub(super) fn take(&mut self, bufs: &mut [IoSliceMut<'_>], limit: usize) -> usize {
        let mut taken = 0;
        for buf in bufs {
            let len = buf.len().min(limit - taken).min(self.bytes.len());
            for (slot, byte) in buf.iter_mut().zip(self.bytes.drain(..len)) {
                *slot = byte;
            }
            taken += len;
        }
        let mut left = taken;
        while let Some((_, len)) = self.arrivals.front_mut() {
            if *len > left {
                *len -= left;
                break;
            }
            left -= *len;
            self.arrivals.pop_front();
        }
        taken
    }

    /// When the first byte that is not there at `time` arrives.
    pub(super) fn next_arrival(&self, time: Time) -> Option<Time> {
        let mut arrivals = self.arrivals.iter().map(|&(at, _)| at);
        arrivals.find(|&at| at > time)
    }

    /// The last arrival, or `at` if that is later: nothing overtakes.
    pub(super) fn not_before_last(&self, at: Time) -> Time {
        self.arrivals.back().map_or(at, |&(last, _)| at.max(last))
    }

    /// Loses everything.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.arrivals.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn agrees_with_a_list_of_bytes_and_times() {
        for seed in 0..50 {
            let mut rng = Rng::seeded(seed);
            let mut draw = |bound| usize::try_from(rng.below(bound)).unwrap();
            let mut inbox = Inbox::default();
            let mut oracle: VecDeque<(Time, u8)> = VecDeque::new();
            let mut now = Time::ZERO;
            let mut next = 0u8;
            for _ in 0..300 {
                if draw(2) == 0 {
                    let bytes: Vec<u8> = (0..draw(6))
                        .map(|_| {
                            next = next.wrapping_add(1);
                            next
                        })
                        .collect();
                    let delay = std::time::Duration::from_nanos(u64::try_from(draw(20)).unwrap());
                    let at = inbox.not_before_last(now + delay);
                    inbox.put(at, &bytes);
                    oracle.extend(bytes.iter().map(|&byte| (at, byte)));
                } else {
                    now = now + std::time::Duration::from_nanos(u64::try_from(draw(10)).unwrap());
                    let there = oracle.iter().filter(|&&(at, _)| at <= now).count();
                    assert_eq!(inbox.arrived(now), there, "seed {seed}");
                    let (mut head, mut tail) = (vec![0; draw(4)], vec![0; draw(8)]);
                    let bufs = &mut [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
                    let len = inbox.take(bufs, there.min(draw(12)));
                    let expected: Vec<u8> = oracle.drain(..len).map(|(_, byte)| byte).collect();
                    head.append(&mut tail);
                    assert_eq!(head[..len], expected, "seed {seed}");
                }
                assert_eq!(inbox.len(), oracle.len(), "seed {seed}");
                let later = oracle.iter().map(|&(at, _)| at).find(|&at| at > now);
                assert_eq!(inbox.next_arrival(now), later, "seed {seed}");
            }
        }
    }
}
