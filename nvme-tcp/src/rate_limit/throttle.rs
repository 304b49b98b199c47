//! What a reactor knows of a limit: what it may still use, and what waits.

use std::collections::VecDeque;

use super::{RateLimits, Resource};

/// In how many parts what a limit gives in a second is cut.
const SLICES_PER_SECOND: u64 = 1000;

/// So much of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What of.
    pub resource: Resource,
    /// How much: I/Os or bytes.
    pub amount: u64,
}

/// What an I/O costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// A read of so many bytes.
    Read(u64),
    /// A write, or a compare, of so many bytes.
    Write(u64),
    /// Nothing: it moves no data.
    Free,
}

impl Cost {
    /// By resource.
    pub(super) fn amounts(self) -> [u64; 4] {
        match self {
            Self::Read(bytes) => [1, bytes, bytes, 0],
            Self::Write(bytes) => [1, bytes, 0, bytes],
            Self::Free => [0; 4],
        }
    }
}

/// What waits, with its place in the order of all that waits.
#[derive(Debug)]
struct Waiting<T> {
    place: u64,
    cost: Cost,
    io: T,
}

/// One disk or volume with a limit, on one reactor. `T` is an I/O.
///
/// Reads wait apart from the rest, so that neither waits for a limit that is only on the other.
#[derive(Debug)]
pub struct Throttle<T> {
    /// What the owner calls the limit; another one after each change.
    id: u64,
    limits: RateLimits,
    /// How much is asked for at once; 0: no limit.
    slices: [u64; 4],
    left: [u64; 4],
    asked: [bool; 4],
    reads: VecDeque<Waiting<T>>,
    others: VecDeque<Waiting<T>>,
    places: u64,
    asks: Vec<Ask>,
}

impl<T> Throttle<T> {
    /// One that has nothing yet of the limit that the owner calls `id`.
    pub fn new(id: u64, limits: RateLimits) -> Self {
        let mut throttle = Self {
            id,
            limits,
            slices: [0; 4],
            left: [0; 4],
            asked: [false; 4],
            reads: VecDeque::new(),
            others: VecDeque::new(),
            places: 0,
            asks: Vec::new(),
        };
        throttle.set(id, limits);
        throttle
    }

    /// The limit is another one: what was granted of the one before is void, and what waits waits for the new one.
    pub fn set(&mut self, id: u64, limits: RateLimits) {
        let slice = |rate: u64| rate.div_ceil(SLICES_PER_SECOND);
        self.id = id;
        self.limits = limits;
        self.slices = limits.rates().map(slice);
        self.left = [0; 4];
        self.asked = [false; 4];
        self.asks.clear();
    }

    /// What the owner calls the limit.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The limits.
    pub fn limits(&self) -> RateLimits {
        self.limits
    }

    /// How many I/Os wait.
    pub fn waiting(&self) -> usize {
        self.reads.len() + self.others.len()
    }

    /// Hands back an I/O that may go on at once; its cost is spent then. Else it waits, behind those that do.
    pub fn offer(&mut self, cost: Cost, io: T) -> Option<T> {
        if self.admit(cost) {
            return Some(io);
        }
        self.wait(cost, io);
        None
    }

    fn admit(&mut self, cost: Cost) -> bool {
        let (own, other) = match cost {
            Cost::Read(_) => (&self.reads, &self.others),
            Cost::Write(_) | Cost::Free => (&self.others, &self.reads),
        };
        let passes = |waiting: &Waiting<T>| !self.lacks_shared(waiting.cost);
        own.is_empty() && other.front().is_none_or(passes) && self.spend(cost)
    }

    fn wait(&mut self, cost: Cost, io: T) {
        self.places += 1;
        let waiting = Waiting {
            place: self.places,
            cost,
            io,
        };
        match cost {
            Cost::Read(_) => self.reads.push_back(waiting),
            Cost::Write(_) | Cost::Free => self.others.push_back(waiting),
        }
    }

    /// The next I/O that may go on, if there is something for it.
    pub fn next_admitted(&mut self) -> Option<T> {
        let place = |queue: &VecDeque<Waiting<T>>| queue.front().map_or(u64::MAX, |w| w.place);
        let reads_first = place(&self.reads) < place(&self.others);
        for is_read in [reads_first, !reads_first] {
            let queue = if is_read { &self.reads } else { &self.others };
            let Some(cost) = queue.front().map(|waiting| waiting.cost) else {
                continue;
            };
            if self.spend(cost) {
                let queue = if is_read {
                    &mut self.reads
                } else {
                    &mut self.others
                };
                return queue.pop_front().map(|waiting| waiting.io);
            }
            if self.lacks_shared(cost) {
                // It is the first of all that want it.
                return None;
            }
        }
        None
    }

    /// Takes an I/O out that waits.
    pub fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        for queue in [&mut self.reads, &mut self.others] {
            if let Some(at) = queue.iter().position(|waiting| is_it(&waiting.io)) {
                return queue.remove(at).map(|waiting| waiting.io);
            }
        }
        None
    }

    /// Takes all out that are of this kind.
    pub fn extract(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for queue in [&mut self.reads, &mut self.others] {
            let (found, left) = std::mem::take(queue)
                .into_iter()
                .partition(|w| is_it(&w.io));
            *queue = left;
            let found: VecDeque<Waiting<T>> = found;
            out.extend(found.into_iter().map(|waiting| waiting.io));
        }
        out
    }

    /// What waits.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.reads.iter().chain(&self.others).map(|w| &w.io)
    }

    /// The owner grants a slice of the limit that it calls `id`.
    pub fn granted(&mut self, id: u64, Ask { resource, amount }: Ask) {
        if id == self.id {
            self.left[resource as usize] += amount;
            self.asked[resource as usize] = false;
        }
    }

    /// What the owner is to be asked for.
    pub fn asks(&mut self) -> impl Iterator<Item = Ask> {
        self.asks.drain(..)
    }

    /// Spends what an I/O costs, or asks for what is missing.
    fn spend(&mut self, cost: Cost) -> bool {
        let amounts = cost.amounts();
        let mut is_enough = true;
        for resource in Resource::ALL {
            let at = resource as usize;
            if self.slices[at] == 0 || amounts[at] <= self.left[at] {
                continue;
            }
            is_enough = false;
            if !self.asked[at] {
                self.asked[at] = true;
                let amount = self.slices[at].max(amounts[at] - self.left[at]);
                self.asks.push(Ask { resource, amount });
            }
        }
        if is_enough {
            for (left, amount) in self.left.iter_mut().zip(amounts) {
                *left = left.saturating_sub(amount);
            }
        }
        is_enough
    }

    /// Whether there is not enough of what reads and writes share.
    fn lacks_shared(&self, cost: Cost) -> bool {
        let amounts = cost.amounts();
        let shared = [Resource::Ios, Resource::Bytes].map(|resource| resource as usize);
        let mut shared = shared.into_iter();
        shared.any(|at| self.slices[at] > 0 && amounts[at] > self.left[at])
    }
}
