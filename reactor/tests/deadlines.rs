//! A service says when it next has something to do, and has a turn then, on parked and on simulated reactors.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use pollux_reactor::{Context, Group, Idle, Progress, Service, Simulation, Time, mailbox};

const STEP: Duration = Duration::from_millis(3);
const STEPS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(20);

/// Does something every now and then, without a timer.
struct Periodic {
    next: Option<Time>,
    done: Vec<Time>,
    report: Sender<Vec<Time>>,
}

impl Periodic {
    fn new(report: Sender<Vec<Time>>) -> Periodic {
        Periodic {
            next: None,
            done: Vec::new(),
            report,
        }
    }
}

impl Service for Periodic {
    type Message = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.next = Some(cx.now() + STEP);
    }

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let Some(next) = self.next.filter(|&next| next <= cx.now()) else {
            return Progress::Idle;
        };
        self.done.push(cx.now());
        self.next = (self.done.len() < STEPS).then_some(next + STEP);
        if self.next.is_none() {
            self.report.send(std::mem::take(&mut self.done)).unwrap();
        }
        Progress::Busy
    }

    fn deadline(&self) -> Option<Time> {
        self.next
    }
}

#[test]
fn a_parked_reactor_wakes_for_a_deadline() {
    let (report, reported) = channel();
    let (_sender, receiver) = mailbox(1);
    let mut group = Group::new();
    let idle = Idle::Park {
        after: Duration::ZERO,
    };
    let reactor = group.add_reactor(None, idle);
    group.add_service(reactor, receiver, move || Periodic::new(report));
    let running = group.start().unwrap();
    let times = reported.recv_timeout(PATIENCE).unwrap();
    assert_eq!(times.len(), STEPS);
    running.stop();
    assert_eq!(running.join()[0].timers, 0);
}

#[test]
fn a_simulation_jumps_to_the_deadline() {
    let (report, reported) = channel();
    let (_sender, receiver) = mailbox(1);
    let mut simulation = Simulation::new(7);
    let reactor = simulation.add_reactor();
    simulation.add_service(reactor, receiver, || Periodic::new(report));
    simulation.run_for(Duration::from_secs(1));
    let steps: Vec<Duration> = (1u32..).take(STEPS).map(|n| STEP * n).collect();
    let times: Vec<Duration> = reported
        .recv()
        .unwrap()
        .iter()
        .map(|&at| at - Time::ZERO)
        .collect();
    assert_eq!(times, steps);
}

/// Says that it is due and never does it.
struct Overdue;

impl Service for Overdue {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }

    fn deadline(&self) -> Option<Time> {
        Some(Time::ZERO)
    }
}

#[test]
fn what_is_due_and_not_done_does_not_stop_the_clock() {
    let (_sender, receiver) = mailbox(1);
    let mut simulation = Simulation::new(7);
    let reactor = simulation.add_reactor();
    simulation.add_service(reactor, receiver, || Overdue);
    simulation.run_for(Duration::from_millis(1));
    assert!(simulation.now() >= Time::ZERO + Duration::from_millis(1));
}
