//! Whoever has subscribed to path events.

use super::reactors::Reactors;
use crate::io::ToIo;
use crate::path_events::Publisher;
use crate::status::PathEvent;

#[derive(Default)]
pub(super) struct Subscribers {
    list: Vec<Subscriber>,
    /// Not all have been told of what was published.
    is_to_tell: bool,
}

struct Subscriber {
    publisher: Publisher,
    /// The I/O reactor whose application it is, which is given a turn; `None`: any thread.
    reactor: Option<usize>,
}

impl Subscribers {
    pub fn add(&mut self, publisher: Publisher, reactor: Option<usize>) {
        self.list.push(Subscriber { publisher, reactor });
    }

    pub fn publish(&mut self, event: &PathEvent) {
        self.list.retain(|one| !one.publisher.is_unused());
        for one in &self.list {
            one.publisher.put(event.clone());
            self.is_to_tell = true;
        }
    }

    /// Wakes them all, if anything was published since.
    pub fn tell(&mut self, reactors: &mut Reactors) {
        if !std::mem::take(&mut self.is_to_tell) {
            return;
        }
        for one in &self.list {
            if let Some(reactor) = one.reactor {
                reactors.post(reactor, ToIo::PathEvents);
            }
            one.publisher.wake();
        }
    }
}
