//! What a 4 KiB read and a 4 KiB write cost in instructions, on the host and on the target. `tools/instructions/count.py`
//! runs it under callgrind, which counts by function: the turns of each side are in functions of their own.
//!
//! Target and host share one reactor and talk over loopback, so that they take turns without waiting for each other: the
//! same I/Os take the same instructions each time, whatever else the machine does.
use std::cell::Cell;
use std::error::Error;
use std::hint::black_box;
use std::sync::mpsc::{Sender, channel};

use pollux_multipath::reactor::{Receiver, Service};
use pollux_multipath::target::{self, Backend, NamespaceConfig, SubsystemConfig};
use pollux_multipath::{
    Application, AttachOptions, AttachRequest, Buffer, Context, Executor, Group, Host, Idle, Io,
    Nqn, Op, PollGroup, Progress, Time, TransportId,
};

const NQN: &str = "nqn.2026-01.io.pollux:instructions";
const BLOCK: u32 = 4096;
const BLOCKS: u64 = 256;
/// I/Os in flight.
const DEPTH: u64 = 32;
/// I/Os that are counted, and those before them that are not.
const COUNTED: u64 = 10_000;
const WARM_UP: u64 = 1_000;

/// What is done, one after the other, and where it is counted.
const STEPS: [(Op, u64, Tally); 4] = [
    (Op::Read, WARM_UP, Tally::Uncounted),
    (Op::Read, COUNTED, Tally::Read),
    (Op::Write, WARM_UP, Tally::Uncounted),
    (Op::Write, COUNTED, Tally::Write),
];

#[derive(Clone, Copy)]
enum Tally {
    Uncounted,
    Read,
    Write,
}

thread_local! {
    /// Of the one reactor.
    static TALLY: Cell<Tally> = const { Cell::new(Tally::Uncounted) };
}

#[derive(Clone, Copy)]
enum Side {
    Host,
    Target,
}

/// A part of a turn, in the function in which it is counted.
fn counted<R>(side: Side, part: impl FnOnce() -> R) -> R {
    match (side, TALLY.get()) {
        (_, Tally::Uncounted) => part(),
        (Side::Host, Tally::Read) => host_read(part),
        (Side::Host, Tally::Write) => host_write(part),
        (Side::Target, Tally::Read) => target_read(part),
        (Side::Target, Tally::Write) => target_write(part),
    }
}

// Each is another number, or the compiler would make them one function.

#[inline(never)]
fn host_read<R>(part: impl FnOnce() -> R) -> R {
    black_box(1);
    part()
}

#[inline(never)]
fn host_write<R>(part: impl FnOnce() -> R) -> R {
    black_box(2);
    part()
}

#[inline(never)]
fn target_read<R>(part: impl FnOnce() -> R) -> R {
    black_box(3);
    part()
}

#[inline(never)]
fn target_write<R>(part: impl FnOnce() -> R) -> R {
    black_box(4);
    part()
}

/// Seats services of one side so that their turns are counted.
struct Counting<'g>(&'g mut Group, Side);

impl Executor for Counting<'_> {
    fn reactors(&self) -> usize {
        self.0.reactors()
    }

    fn add_service<S: Service>(
        &mut self,
        reactor: usize,
        receiver: Receiver<S::Message>,
        build: impl FnOnce() -> S + Send + 'static,
    ) {
        let side = self.1;
        self.0
            .add_service(reactor, receiver, move || Counted(build(), side));
    }

    fn allows_threads(&self) -> bool {
        self.0.allows_threads()
    }
}

/// A service in its counting function.
struct Counted<S>(S, Side);

impl<S: Service> Service for Counted<S> {
    type Message = S::Message;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.0.on_start(cx);
    }

    fn on_message(&mut self, message: S::Message, cx: &mut Context<'_>) {
        counted(self.1, || self.0.on_message(message, cx));
    }

    fn on_timer(&mut self, token: u64, cx: &mut Context<'_>) {
        counted(self.1, || self.0.on_timer(token, cx));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        counted(self.1, || self.0.poll(cx))
    }

    fn in_flight(&self, out: &mut String) {
        self.0.in_flight(out);
    }

    fn deadline(&self) -> Option<Time> {
        self.0.deadline()
    }

    fn on_stop(&mut self, cx: &mut Context<'_>) {
        self.0.on_stop(cx);
    }
}

/// Keeps `DEPTH` I/Os in flight, step by step.
struct Load {
    step: usize,
    submitted: u64,
    completed: u64,
    spare: Vec<Buffer>,
    done: Option<Sender<Result<(), String>>>,
}

impl Application for Load {
    type Message = Sender<Result<(), String>>;

    fn on_message(&mut self, done: Self::Message, _: &mut PollGroup, _: &mut Context<'_>) {
        self.spare = (0..DEPTH).map(|_| vec![1; BLOCK as usize].into()).collect();
        self.done = Some(done);
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        while let Some(done) = group.next_completion() {
            self.completed += 1;
            self.spare.push(done.io.buffer);
            if let Err(error) = done.result {
                self.end(Err(error.to_string()));
            }
        }
        let Some(&(op, ios, tally)) = STEPS.get(self.step).filter(|_| self.done.is_some()) else {
            return Progress::Idle;
        };
        if self.completed == ios {
            (self.step, self.submitted, self.completed) = (self.step + 1, 0, 0);
            TALLY.set(Tally::Uncounted);
            if self.step == STEPS.len() {
                self.end(Ok(()));
            }
            return Progress::Busy;
        }
        TALLY.set(tally);
        let volume = group.volumes().next().map(|volume| volume.id);
        while self.submitted < ios
            && let (Some(volume), Some(buffer)) = (volume, self.spare.pop())
        {
            // Another order than one after the other, and the same each time.
            let lba = self.submitted * 37 % BLOCKS;
            if let Err((_, error)) = group.submit(volume, Io::new(op, lba, 1, buffer)) {
                self.end(Err(error.to_string()));
            }
            self.submitted += 1;
        }
        Progress::Busy
    }
}

impl Load {
    fn end(&mut self, outcome: Result<(), String>) {
        if let Some(done) = self.done.take() {
            // Whoever has stopped waiting does not need it.
            let _ = done.send(outcome);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Yield);
    let handle = target::install(&mut Counting(&mut group, Side::Target), &[reactor]);
    let host = Host::builder().install(&mut Counting(&mut group, Side::Host), |_| Load {
        step: 0,
        submitted: 0,
        completed: 0,
        spare: Vec::new(),
        done: None,
    });
    let running = group.start()?;
    let nqn = Nqn::new(NQN)?;
    let bytes = BLOCKS * u64::from(BLOCK);
    handle.create_subsystem(SubsystemConfig::new(nqn.clone()))?;
    // Memory is copied by instructions that repeat themselves, of which each time would count as one.
    let backend = Backend::Null { bytes };
    handle.add_namespace(&nqn, NamespaceConfig::new(backend, BLOCK))?;
    let addr = handle.add_listener(&nqn, "127.0.0.1:0".parse()?)?;
    let mut request = AttachRequest::new(
        "disk",
        TransportId {
            addr,
            subnqn: nqn,
            hostnqn: None,
        },
    );
    // Under callgrind everything takes fifty times as long; nothing is to happen because of that.
    request.options = AttachOptions::default();
    request.options.keep_alive_ms = 600_000;
    request.options.silence_timeout = None;
    host.attach(request)?;
    let (sender, done) = channel();
    host.tell(0, sender).map_err(|_| "the host has stopped")?;
    done.recv()??;
    host.shut_down()?;
    running.stop();
    println!("{COUNTED}");
    Ok(())
}
