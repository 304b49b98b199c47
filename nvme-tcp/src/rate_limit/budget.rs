//! What the owner of a limit knows: how much of it is granted, and who waits for more.

use std::collections::VecDeque;
use std::time::Duration;

use pollux_reactor::Time;

use super::{Ask, BURST, RateLimits, Resource};

/// A slice for a reactor, which is to be told to its [`Throttle`](super::Throttle).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The reactor that had asked.
    pub reactor: usize,
    /// Of what, and how much.
    pub slice: Ask,
}

/// The budget of a disk or volume: what its limits give, whatever the number of reactors that use it.
#[derive(Debug)]
pub struct Budget([Bucket; 4]);

/// The budget of one resource.
#[derive(Debug, Default)]
struct Bucket {
    /// Units per second; 0: no limit.
    rate: u64,
    /// When all that was granted is paid off. From then on something can be granted; how much does not matter, since that
    /// has to be paid off before the next.
    paid: Time,
    /// Who waits, in order.
    asks: VecDeque<(usize, u64)>,
}

impl Budget {
    /// The budget of these limits, which nothing was granted of.
    pub fn new(limits: RateLimits) -> Self {
        Self(limits.rates().map(|rate| Bucket {
            rate,
            ..Bucket::default()
        }))
    }

    /// A reactor asks for a slice. It is among what is granted next, or later.
    pub fn ask(&mut self, reactor: usize, ask: Ask, now: Time) {
        let bucket = &mut self.0[ask.resource as usize];
        if bucket.asks.is_empty() {
            // Nobody has waited, so that what is older than that is lost. While somebody waits nothing is, however late
            // the owner has its turns.
            let oldest = now.saturating_since(Time::ZERO).saturating_sub(BURST);
            bucket.paid = bucket.paid.max(Time::ZERO + oldest);
        }
        bucket.asks.push_back((reactor, ask.amount));
    }

    /// The next slice that can be granted by now.
    pub fn grant(&mut self, now: Time) -> Option<Granted> {
        for resource in Resource::ALL {
            let bucket = &mut self.0[resource as usize];
            if bucket.paid > now {
                continue;
            }
            if let Some((reactor, amount)) = bucket.asks.pop_front() {
                bucket.paid = bucket.paid + bucket.price(amount);
                let slice = Ask { resource, amount };
                return Some(Granted { reactor, slice });
            }
        }
        None
    }

    /// When there is something to grant, if anybody waits.
    pub fn deadline(&self) -> Option<Time> {
        let waited_for = self.0.iter().filter(|bucket| !bucket.asks.is_empty());
        waited_for.map(|bucket| bucket.paid).min()
    }
}

impl Bucket {
    /// How long it takes to pay off so much; rounded up, so that the limit is never exceeded.
    fn price(&self, amount: u64) -> Duration {
        if self.rate == 0 {
            return Duration::ZERO;
        }
        let nanos = (u128::from(amount) * 1_000_000_000).div_ceil(u128::from(self.rate));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
