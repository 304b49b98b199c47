//! Fault injection: commands that end with an error because somebody has asked for that, so that what is above a
//! queue pair can be tried.
//!
//! Whoever submits to a queue pair keeps a [`FaultInjection`] beside it while any is wanted, and no longer: it
//! shows it what is to be submitted and what has completed. The queue pair knows nothing of it.

use std::time::Duration;

use pollux_reactor::Time;

use super::queue_pair::Overdue;
use super::request::{Completed, Lost, Outcome, Request};
use crate::spec::status::Status;

/// An error to be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InjectedFault {
    /// Opcode of the commands that end with it.
    pub opcode: u8,
    /// How many commands do.
    pub count: u32,
    /// The status that they end with.
    pub status: Status,
    /// `None`: the command is carried out, and only its status is replaced. Else it is not even sent, and
    /// ends after this time.
    pub held_for: Option<Duration>,
}

impl InjectedFault {
    /// So many commands of an opcode end with a status at once.
    pub const fn new(opcode: u8, count: u32, status: Status) -> Self {
        Self {
            opcode,
            count,
            status,
            held_for: None,
        }
    }
}

/// A change of what is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultChange {
    /// Inject this fault as well, on the connections that there are now.
    Add(InjectedFault),
    /// Inject no more faults into commands with this opcode. What is held back already still ends with its error.
    Remove(u8),
}

/// A request that is not sent.
#[derive(Debug)]
struct Held<T> {
    request: Request<T>,
    status: Status,
    length: Duration,
    /// When it ends; known from the first look at the clock on.
    at: Option<Time>,
    /// Calls of [`FaultInjection::age`] since it was submitted or last found overdue.
    age: u32,
    overdue: bool,
}

impl<T> Held<T> {
    fn end(self, outcome: Outcome) -> Completed<T> {
        Completed {
            request: self.request,
            outcome,
        }
    }
}

/// The faults that are injected into the commands of one queue pair, and what is held back for them.
#[derive(Debug)]
pub struct FaultInjection<T> {
    faults: Vec<InjectedFault>,
    held: Vec<Held<T>>,
}

impl<T> Default for FaultInjection<T> {
    fn default() -> Self {
        Self {
            faults: Vec::new(),
            held: Vec::new(),
        }
    }
}

impl<T> FaultInjection<T> {
    /// Adds faults to those that there are, or takes some away.
    pub fn change(&mut self, change: FaultChange) {
        match change {
            FaultChange::Add(fault) => self.faults.push(fault),
            FaultChange::Remove(opcode) => self.faults.retain(|fault| fault.opcode != opcode),
        }
    }

    /// The next fault of a kind for a command, which it uses up once.
    fn next(&mut self, opcode: u8, holds: bool) -> Option<InjectedFault> {
        let fault = self.faults.iter_mut().find(|fault| {
            fault.opcode == opcode && fault.count > 0 && fault.held_for.is_some() == holds
        })?;
        fault.count -= 1;
        Some(*fault)
    }

    /// A request that is about to be submitted; it comes back if it is to be.
    pub fn submit(&mut self, request: Request<T>) -> Option<Request<T>> {
        let Some((fault, length)) = self
            .next(request.command.opcode, true)
            .and_then(|fault| Some((fault, fault.held_for?)))
        else {
            return Some(request);
        };
        self.held.push(Held {
            request,
            status: fault.status,
            length,
            at: None,
            age: 0,
            overdue: false,
        });
        None
    }

    /// A request that has ended: where a fault is due, its status is replaced.
    pub fn complete(&mut self, completed: &mut Completed<T>) {
        if let Outcome::Completed { status, .. } = &mut completed.outcome
            && let Some(fault) = self.next(completed.request.command.opcode, false)
        {
            *status = fault.status;
        }
    }

    /// Ends a held request whose time has come, if there is one.
    pub fn release(&mut self, now: Time) -> Option<Completed<T>> {
        for held in &mut self.held {
            held.at.get_or_insert(now + held.length);
        }
        let is_due = |held: &Held<T>| held.at.is_some_and(|at| at <= now);
        let held = self.held.swap_remove(self.held.iter().position(is_due)?);
        let (status, result) = (held.status, 0);
        Some(held.end(Outcome::Completed { status, result }))
    }

    /// When a held request ends: to be called again by then.
    pub fn deadline(&self) -> Option<Time> {
        let at = |held: &Held<T>| held.at.unwrap_or(Time::ZERO);
        self.held.iter().map(at).min()
    }

    /// The connection has ended: what was held is lost with it, and was never sent.
    pub fn disconnect(self, mut lost: impl FnMut(Completed<T>)) {
        for held in self.held {
            lost(held.end(Outcome::Lost(Lost::Connection { sent: false })));
        }
    }

    /// Requests that are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes a held request back.
    pub fn withdraw(&mut self, wanted: impl Fn(&T) -> bool) -> Option<Request<T>> {
        let place = |held: &Held<T>| wanted(&held.request.user);
        let place = self.held.iter().position(place)?;
        Some(self.held.swap_remove(place).request)
    }

    /// As [`QueuePair::look_through`](super::QueuePair::look_through), for what is held.
    pub fn look_through(&mut self, look: &mut impl FnMut(&mut T, Option<u16>)) {
        for held in &mut self.held {
            look(&mut held.request.user, None);
        }
    }

    /// As [`QueuePair::age`](super::QueuePair::age), for what is held.
    pub fn age(&mut self, limit: u32, found: &mut impl FnMut(Overdue<'_, T>)) {
        for held in &mut self.held {
            held.age += 1;
            if held.age >= limit {
                held.age = 0;
                found(Overdue {
                    user: &held.request.user,
                    command_id: None,
                    again: std::mem::replace(&mut held.overdue, true),
                });
            }
        }
    }

    /// True if nothing is held, and nothing will be injected any more.
    pub fn is_spent(&self) -> bool {
        self.held.is_empty() && self.faults.iter().all(|fault| fault.count == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::request::{Command, Transfer};

    const FAULT: InjectedFault = InjectedFault {
        opcode: 2,
        count: 2,
        status: Status::INVALID_FIELD,
        held_for: None,
    };

    fn request(opcode: u8, user: u8) -> Request<u8> {
        let command = Command {
            opcode,
            ..Command::default()
        };
        Request::plain(command, Transfer::None, 0, Vec::new()).with(user)
    }

    #[test]
    fn a_status_is_replaced_as_often_as_was_asked_for() {
        let mut faults = FaultInjection::default();
        faults.change(FaultChange::Add(FAULT));
        let mut end = |opcode| {
            let request = faults.submit(request(opcode, 0)).unwrap();
            let outcome = Outcome::Completed {
                status: Status::SUCCESS,
                result: 0,
            };
            let mut completed = Completed { request, outcome };
            faults.complete(&mut completed);
            completed.outcome.is_success()
        };
        assert!(end(1));
        assert!(!end(2) && !end(2) && end(2));
        assert!(faults.is_spent());
    }

    #[test]
    fn a_command_is_held_for_its_time_or_until_it_is_taken_back() {
        let mut faults = FaultInjection::default();
        faults.change(FaultChange::Add(InjectedFault {
            held_for: Some(Duration::from_nanos(5)),
            ..FAULT
        }));
        assert!(faults.submit(request(1, 0)).is_some());
        assert!(faults.submit(request(2, 7)).is_none());
        assert!(faults.submit(request(2, 8)).is_none());
        assert!(faults.submit(request(2, 9)).is_some());
        assert_eq!(faults.deadline(), Some(Time::ZERO), "to be looked at");
        assert!(faults.release(Time::from_nanos(100)).is_none());
        assert_eq!(faults.deadline(), Some(Time::from_nanos(105)));
        assert!(faults.withdraw(|&user| user == 8).is_some());
        assert!(!faults.is_spent());
        let due = faults.release(Time::from_nanos(105)).unwrap();
        let (status, result) = (Status::INVALID_FIELD, 0);
        assert_eq!(due.request.user, 7);
        assert_eq!(due.outcome, Outcome::Completed { status, result });
        assert!(faults.release(Time::MAX).is_none());
        assert!(faults.is_spent());
    }

    #[test]
    fn what_is_held_grows_old_and_is_lost_unsent_with_its_connection() {
        let mut faults = FaultInjection::default();
        faults.change(FaultChange::Add(InjectedFault {
            held_for: Some(Duration::MAX),
            ..FAULT
        }));
        assert!(faults.submit(request(2, 7)).is_none());
        let mut found = Vec::new();
        for _ in 0..4 {
            faults.age(2, &mut |o| found.push((*o.user, o.command_id, o.again)));
        }
        assert_eq!(found, [(7, None, false), (7, None, true)]);
        let mut lost = Vec::new();
        faults.disconnect(|completed| lost.push((completed.request.user, completed.outcome)));
        let outcome = Outcome::Lost(Lost::Connection { sent: false });
        assert_eq!(lost, [(7, outcome)]);
    }
}
