//! Asynchronous events of one controller (NVMe Base 2.1, 5.1.2).

use std::collections::VecDeque;

use crate::spec::log::{AsyncEvent, event};
use crate::spec::status::Status;

/// Asynchronous Event Requests that a host may have outstanding.
pub(in crate::target) const AERS_MAX: u8 = 4;

/// A kind of event. Each has a log page whose reading allows the next event of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) enum Kind {
    Namespace,
    Ana,
    Discovery,
    Health,
    /// A Cross-Controller Reset that was asked for has ended.
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing to tell.
    Quiet,
    /// To be told with the next request.
    Waiting,
    /// Told; the host has not read the log yet, so that there is nothing new to tell.
    Masked,
}

/// Requests of the host and events of the controller, to be brought together.
#[derive(Debug)]
pub(in crate::target) struct AsyncEvents {
    /// The Asynchronous Event Configuration feature.
    pub(in crate::target) config: u32,
    requests: VecDeque<u16>,
    states: [State; 5],
}

const KINDS: [(Kind, u32, AsyncEvent); 5] = [
    (
        Kind::Namespace,
        event::ENABLE_NAMESPACE,
        AsyncEvent::NAMESPACE_ATTRIBUTE_CHANGED,
    ),
    (Kind::Ana, event::ENABLE_ANA, AsyncEvent::ANA_CHANGE),
    (
        Kind::Discovery,
        event::ENABLE_DISCOVERY,
        AsyncEvent::DISCOVERY_CHANGE,
    ),
    (
        Kind::Health,
        event::ENABLE_SMART_RELIABILITY,
        AsyncEvent::RELIABILITY_DEGRADED,
    ),
    (
        Kind::Reset,
        event::ENABLE_CROSS_CONTROLLER_RESET,
        AsyncEvent::CROSS_CONTROLLER_RESET_COMPLETED,
    ),
];

impl AsyncEvents {
    /// Events as configured by default: all that there are.
    pub(in crate::target) fn new() -> Self {
        Self {
            config: event::ENABLE_NAMESPACE
                | event::ENABLE_ANA
                | event::ENABLE_DISCOVERY
                | event::ENABLE_SMART_RELIABILITY
                | event::ENABLE_CROSS_CONTROLLER_RESET,
            requests: VecDeque::new(),
            states: [State::Quiet; 5],
        }
    }

    /// Takes a request of the host.
    pub(in crate::target) fn request(&mut self, cid: u16) -> Result<(), Status> {
        if self.requests.len() >= usize::from(AERS_MAX) {
            return Err(Status::AER_LIMIT_EXCEEDED.with_dnr());
        }
        self.requests.push_back(cid);
        Ok(())
    }

    /// A command of this identifier has come: a request that had it is outstanding no more. Hosts end their requests for
    /// themselves when they detach, without a word, and use the identifiers again at once.
    pub(in crate::target) fn forget(&mut self, cid: u16) {
        self.requests.retain(|&c| c != cid);
    }

    /// Requests that were not answered yet.
    pub(in crate::target) fn outstanding(&self) -> usize {
        self.requests.len()
    }

    /// Takes a request back that is to be aborted. Returns whether it was outstanding.
    pub(in crate::target) fn abort(&mut self, cid: u16) -> bool {
        let before = self.requests.len();
        self.forget(cid);
        self.requests.len() < before
    }

    /// Something happened.
    pub(in crate::target) fn raise(&mut self, kind: Kind) {
        for (state, (k, enable, _)) in self.states.iter_mut().zip(KINDS) {
            if k == kind && self.config & enable != 0 && *state == State::Quiet {
                *state = State::Waiting;
            }
        }
    }

    /// The host has read the log of this kind.
    pub(in crate::target) fn was_read(&mut self, kind: Kind) {
        for (state, (k, _, _)) in self.states.iter_mut().zip(KINDS) {
            if k == kind {
                *state = State::Quiet;
            }
        }
    }

    /// Forgets requests and events: the controller was reset.
    pub(in crate::target) fn reset(&mut self) {
        self.requests.clear();
        self.states = [State::Quiet; 5];
    }

    /// A request with the event that answers it.
    pub(in crate::target) fn next(&mut self) -> Option<(u16, AsyncEvent)> {
        let waiting = self.states.iter().position(|s| *s == State::Waiting)?;
        let cid = self.requests.pop_front()?;
        let (_, _, event) = KINDS.get(waiting)?;
        if let Some(state) = self.states.get_mut(waiting) {
            *state = State::Masked;
        }
        Some((cid, *event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_once_until_its_log_is_read() {
        let mut events = AsyncEvents::new();
        events.raise(Kind::Ana);
        assert_eq!(events.next(), None);
        events.request(7).unwrap();
        events.request(8).unwrap();
        assert_eq!(events.next(), Some((7, AsyncEvent::ANA_CHANGE)));
        events.raise(Kind::Ana);
        assert_eq!(events.next(), None);
        events.was_read(Kind::Ana);
        events.raise(Kind::Ana);
        assert_eq!(events.next(), Some((8, AsyncEvent::ANA_CHANGE)));
    }

    #[test]
    fn kinds_do_not_mask_each_other_and_can_be_switched_off() {
        let mut events = AsyncEvents::new();
        events.config = event::ENABLE_ANA;
        (1..=3).for_each(|cid| events.request(cid).unwrap());
        events.raise(Kind::Namespace);
        events.raise(Kind::Ana);
        assert_eq!(events.next(), Some((1, AsyncEvent::ANA_CHANGE)));
        assert_eq!(events.next(), None);
        events.config |= event::ENABLE_NAMESPACE;
        events.raise(Kind::Namespace);
        assert_eq!(
            events.next(),
            Some((2, AsyncEvent::NAMESPACE_ATTRIBUTE_CHANGED))
        );
    }

    #[test]
    fn one_request_too_many_is_refused_and_requests_can_be_aborted() {
        let mut events = AsyncEvents::new();
        (0..4).for_each(|cid| events.request(cid).unwrap());
        assert_eq!(
            events.request(4),
            Err(Status::AER_LIMIT_EXCEEDED.with_dnr())
        );
        assert!(events.abort(2) && !events.abort(2));
        assert!(events.request(4).is_ok());
        assert_eq!(events.outstanding(), 4);
        events.forget(3);
        assert_eq!(events.outstanding(), 3);
    }
}
