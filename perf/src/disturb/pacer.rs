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
    work: Option<Work>,
}

struct Work {
    pace: Pace,
    start: Time,
    sent_ns: Vec<u64>,
}

impl Pacer {
    /// Idle until it gets a schedule.
    pub fn new(target: TargetHandle) -> Self {
        Self { target, work: None }
    }

    /// Sends what is due; a turn that came late sends all that it has missed.
    fn send_due(&mut self, cx: &mut Context<'_>) {
        let Some(work) = &mut self.work else {
            return;
        };
        let now = cx.now();
        while let Some(request) = work.pace.requests.get(work.sent_ns.len()) {
            let at = work.due(work.sent_ns.len());
            if at > now {
                return;
            }
            work.sent_ns.push(now.as_nanos());
            let told = work.pace.told.clone();
            let reply = move |answer: Result<_, _>| {
                let answer = answer.map(|_| ()).map_err(|e| format!("{e}"));
                // Whoever does not listen any more has given up on it.
                let _ = told.send(Told::Answered(answer));
            };
            self.target.request(request.clone(), reply);
        }
        if let Some(work) = self.work.take() {
            let _ = work.pace.told.send(Told::Sent(work.sent_ns));
        }
    }
}

impl Work {
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
        if let Some(work) = self.work.take() {
            let _ = work.pace.told.send(Told::Sent(work.sent_ns));
        }
        self.work = Some(Work {
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
        let work = self.work.as_ref()?;
        Some(work.due(work.sent_ns.len()))
    }
}
