//! Sends the target requests at planned times, whether or not those before were answered.
//!
//! It runs on the target's reactor, where a timer is exact to a turn; a thread that sleeps between spinning reactors would
//! wake when the scheduler likes.

use std::sync::mpsc;
use std::time::Duration;

use pollux_nvme_tcp::target::{TargetHandle, TargetRequest};
use pollux_reactor::{Context, Progress, Service, Time};

/// A schedule.
pub struct Pace {
    /// What to send, in order.
    pub requests: Vec<TargetRequest>,
    /// Time from one to the next.
    pub every: Duration,
    /// Gets all that is told.
    pub told: mpsc::Sender<Told>,
}

/// What the pacer tells.
#[derive(Debug)]
pub enum Told {
    /// A request was answered.
    Answered(Result<(), String>),
    /// The schedule is over: so many were sent, at these times by the reactor's clock.
    Sent(Vec<u64>),
}

/// The service.
pub struct Pacer {
    target: TargetHandle,
    sending: Option<Sending>,
}

struct Sending {
    pace: Pace,
    start: Time,
    sent_ns: Vec<u64>,
}

impl Pacer {
    /// Idle until it gets a schedule.
    pub fn new(target: TargetHandle) -> Self {
        Self {
            target,
            sending: None,
        }
    }

    /// Sends what is due; a turn that came late sends all that it has missed.
    fn send_due(&mut self, cx: &mut Context<'_>) {
        let Some(sending) = &mut self.sending else {
            return;
        };
        let now = cx.now();
        while let Some(request) = sending.pace.requests.get(sending.sent_ns.len()) {
            let at = sending.due(sending.sent_ns.len());
            if at > now {
                return;
            }
            sending.sent_ns.push(now.as_nanos());
            let told = sending.pace.told.clone();
            let reply = move |answer: Result<_, _>| {
                let answer = answer.map(|_| ()).map_err(|e| format!("{e}"));
                // Whoever does not listen any more has given up on it.
                let _ = told.send(Told::Answered(answer));
            };
            self.target.request(request.clone(), reply);
        }
        if let Some(sending) = self.sending.take() {
            let _ = sending.pace.told.send(Told::Sent(sending.sent_ns));
        }
    }
}

impl Sending {
    fn due(&self, index: usize) -> Time {
        self.start
            + self
                .pace
                .every
                .saturating_mul(u32::try_from(index).unwrap_or(u32::MAX))
    }
}

impl Service for Pacer {
    type Message = Pace;

    /// A new schedule ends the one before; an empty one only does that.
    fn on_message(&mut self, pace: Pace, cx: &mut Context<'_>) {
        if let Some(sending) = self.sending.take() {
            let _ = sending.pace.told.send(Told::Sent(sending.sent_ns));
        }
        self.sending = Some(Sending {
            sent_ns: Vec::with_capacity(pace.requests.len()),
            pace,
            start: cx.now(),
        });
        self.send_due(cx);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        self.send_due(cx);
        Progress::Idle
    }

    fn deadline(&self) -> Option<Time> {
        let sending = self.sending.as_ref()?;
        Some(sending.due(sending.sent_ns.len()))
    }
}
