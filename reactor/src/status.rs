//! What a reactor can tell of itself when it is asked.

use std::time::Duration;

use crate::counters::Counters;

/// One reactor at the moment of the question.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReactorStatus {
    /// Which one, as counted by `add_reactor`.
    pub reactor: usize,
    /// The thread that it has; `None` in a simulation.
    pub thread: Option<ThreadStatus>,
    /// How long it has run.
    pub up: Duration,
    /// Its counters, up to the turn before this one.
    pub counters: Counters,
    /// Its services, in the order in which each turn visits them.
    pub services: Vec<ServiceStatus>,
}

/// The thread of a reactor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThreadStatus {
    /// Its number in the system.
    pub id: u64,
    /// The cores that it may run on.
    pub cores: Vec<usize>,
    /// The one on which it runs now; `None` if the system does not tell.
    pub core: Option<usize>,
    /// It sleeps when it has been idle for long ([`Idle::Park`](crate::Idle::Park)).
    pub parks: bool,
}

/// One service of a reactor. Each turn visits every service once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Its type, without the modules.
    pub name: String,
    /// Turns in which it found something to do.
    pub busy_turns: u64,
}

/// What is kept of a thread while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: u64,
    pub(crate) cores: Vec<usize>,
    pub(crate) parks: bool,
}

/// What is kept of a service while it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceCounters {
    /// As the compiler spells its type.
    pub(crate) type_name: &'static str,
    pub(crate) busy_turns: u64,
}

impl ServiceCounters {
    pub(crate) fn status(&self) -> ServiceStatus {
        ServiceStatus {
            name: without_modules(self.type_name),
            busy_turns: self.busy_turns,
        }
    }
}

/// `a::b::Service<c::Application>` is `Service<Application>`.
fn without_modules(type_name: &str) -> String {
    let mut name = String::new();
    for piece in type_name.split_inclusive(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
        name.push_str(piece.rsplit("::").next().unwrap_or(piece));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_without_modules() {
        for (long, short) in [
            ("u8", "u8"),
            ("a::b_c::Control", "Control"),
            ("a::Io<b::Jobs>", "Io<Jobs>"),
            ("a::Io<b::Two<c::D, e::F>>", "Io<Two<D, F>>"),
            ("a::Io<()>", "Io<()>"),
        ] {
            assert_eq!(without_modules(long), short);
        }
    }
}
