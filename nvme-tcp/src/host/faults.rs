//! Errors that a queue pair makes up on request, so that what is above it can be tried.

use std::time::Duration;

use pollux_reactor::Time;

use super::request::Outcome;
use crate::spec::status::Status;

/// An error to be made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Of commands with this opcode.
    pub opcode: u8,
    /// Of so many of them.
    pub count: u32,
    /// The status that they end with.
    pub status: Status,
    /// `None`: the command is carried out, and only its status is replaced. Else it is not even sent, and
    /// ends after this time.
    pub held_for: Option<Duration>,
}

/// A command that is not sent.
#[derive(Debug)]
struct Held {
    slot: u16,
    status: Status,
    length: Duration,
    /// When it ends; known from the first poll on.
    at: Option<Time>,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    held: Vec<Held>,
}

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.list.push(fault);
    }

    pub fn remove(&mut self, opcode: u8) {
        self.list.retain(|fault| fault.opcode != opcode);
    }

    /// The next fault of a kind for a command, which it uses up once.
    fn next(&mut self, opcode: Option<u8>, holds: bool) -> Option<Fault> {
        let fault = self.list.iter_mut().find(|fault| {
            Some(fault.opcode) == opcode && fault.count > 0 && fault.held_for.is_some() == holds
        })?;
        fault.count -= 1;
        Some(*fault)
    }

    /// Whether the command in `slot` is not to be sent.
    pub fn hold(&mut self, slot: u16, opcode: Option<u8>) -> bool {
        let Some(fault) = self.next(opcode, true) else {
            return false;
        };
        self.held.push(Held {
            slot,
            status: fault.status,
            length: fault.held_for.unwrap_or_default(),
            at: None,
        });
        true
    }

    /// Replaces the status of a command that was carried out.
    pub fn spoil(&mut self, opcode: Option<u8>, outcome: &mut Outcome) {
        if let Outcome::Completed { status, .. } = outcome
            && let Some(fault) = self.next(opcode, false)
        {
            *status = fault.status;
        }
    }

    /// The next held command whose time has come.
    pub fn due(&mut self, now: Time) -> Option<(u16, Status)> {
        for held in &mut self.held {
            held.at.get_or_insert(now + held.length);
        }
        let index = self
            .held
            .iter()
            .position(|held| held.at.is_some_and(|at| at <= now))?;
        let held = self.held.swap_remove(index);
        Some((held.slot, held.status))
    }

    /// The command in `slot` has ended in another way.
    pub fn forget(&mut self, slot: u16) {
        self.held.retain(|held| held.slot != slot);
    }

    pub fn is_spent(&self) -> bool {
        self.held.is_empty() && self.list.iter().all(|fault| fault.count == 0)
    }

    pub fn deadline(&self) -> Option<Time> {
        let at = |held: &Held| held.at.unwrap_or(Time::ZERO);
        self.held.iter().map(at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: Fault = Fault {
        opcode: 2,
        count: 2,
        status: Status::INVALID_FIELD,
        held_for: None,
    };

    #[test]
    fn a_status_is_replaced_as_often_as_was_asked_for() {
        let mut faults = Faults::default();
        faults.add(FAULT);
        let mut end = |opcode| {
            let mut outcome = Outcome::Completed {
                status: Status::SUCCESS,
                result: 0,
            };
            faults.spoil(Some(opcode), &mut outcome);
            outcome.is_success()
        };
        assert!(end(1));
        assert!(!end(2) && !end(2) && end(2));
        assert!(faults.is_spent());
    }

    #[test]
    fn a_command_is_held_for_its_time_or_until_it_is_forgotten() {
        let mut faults = Faults::default();
        faults.add(Fault {
            held_for: Some(Duration::from_nanos(5)),
            ..FAULT
        });
        assert!(!faults.hold(7, Some(1)));
        assert!(faults.hold(7, Some(2)) && faults.hold(8, Some(2)) && !faults.hold(9, Some(2)));
        assert_eq!(faults.deadline(), Some(Time::ZERO), "to be looked at");
        assert_eq!(faults.due(Time::from_nanos(100)), None);
        assert_eq!(faults.deadline(), Some(Time::from_nanos(105)));
        faults.forget(8);
        assert!(!faults.is_spent());
        let due = faults.due(Time::from_nanos(105));
        assert_eq!(due, Some((7, Status::INVALID_FIELD)));
        assert_eq!(faults.due(Time::MAX), None);
        assert!(faults.is_spent());
    }
}
