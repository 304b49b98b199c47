//! What a run is: its seed, its shape and its events. Drawn from a seed ([`super::draw`]) or read from a file.
//!
//! Shape and events are plain numbers with names, so that printing, reading and shrinking need not know what they mean.

use std::fmt;
use std::time::Duration;

use crate::UsageError;

/// A run, wholly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// All that happens at random follows from it: order of reactors, network, workload.
    pub seed: u64,
    pub shape: Shape,
    /// In order of time.
    pub events: Vec<Event>,
}

macro_rules! shape {
    ($($(#[doc = $doc:literal])* $name:ident = $simple:literal),* $(,)?) => {
        /// What there is, and how it is set up.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Shape {
            $($(#[doc = $doc])* pub $name: u32,)*
        }

        impl Shape {
            /// The simplest of all.
            pub const SIMPLE: Shape = Shape { $($name: $simple,)* };

            /// Names and values.
            pub fn fields(&mut self) -> Vec<(&'static str, &mut u32)> {
                vec![$((stringify!($name), &mut self.$name),)*]
            }
        }
    };
}

shape! {
    /// Hosts, each with a control reactor of its own.
    hosts = 1,
    /// I/O reactors of each host.
    io_reactors = 1,
    /// Reactors of the target.
    target_reactors = 1,
    /// Listeners of the target, which are the paths of each volume.
    paths = 2,
    /// Namespaces of the subsystem.
    namespaces = 1,
    /// Blocks of each, of 512 bytes.
    blocks = 64,
    /// I/Os that each I/O reactor keeps outstanding.
    depth = 4,
    /// Largest I/O in blocks.
    max_blocks = 8,
    /// I/Os of each I/O reactor.
    budget = 200,
    /// Reactors write blocks of each other.
    share = 0,
    /// I/Os of a hundred that only read.
    reads = 50,
    /// For how long things may go wrong, in ms.
    horizon_ms = 1000,
    /// One way.
    latency_us = 100,
    /// Added at random.
    jitter_us = 0,
    /// Most bytes of a read or write of a stream; 0: no limit.
    chunk = 0,
    /// Send buffer of a stream in KiB.
    send_kib = 256,
    /// 0 `active_passive`, 1 `round_robin`, 2 `queue_depth`.
    policy = 0,
    /// I/Os on one path before the next.
    min_io = 1,
    /// Keep-alive timeout.
    kato_ms = 1000,
    /// Time after which a silent queue pair is probed; 0: never.
    silence_ms = 0,
    /// Time between tries to connect.
    reconnect_ms = 50,
    /// 0: none.
    fast_fail_ms = 0,
    /// 0: none.
    loss_ms = 0,
    /// Bit 0 header, bit 1 data.
    digests = 0,
    /// Most data in one H2CData PDU that hosts are told, in KiB; 0: what the target says.
    h2c_kib = 0,
    /// SQ flow control is kept.
    flow_control = 0,
    /// Entries of each I/O queue.
    queue_size = 32,
    /// 0 `auto`, 1 `always`, 2 `off`.
    fencing = 1,
    /// Command quiesce time that is configured; 0: none.
    cqt_ms = 1500,
    /// Command quiesce time that the target promises; 0: none, and its controllers do not reset each other.
    target_cqt_ms = 0,
    /// Time within which an I/O command must be answered; 0: none.
    timeout_ms = 0,
    /// 0 nothing, 1 abort, 2 reset.
    timeout_action = 0,
    /// Deadline of each I/O; 0: none.
    deadline_ms = 0,
    /// I/Os of a thousand that are aborted.
    aborts = 0,
    /// 0 memory, 1 a disk that answers late and loses at a crash what was not flushed.
    disk = 0,
    /// The longest that the disk takes for an I/O.
    disk_us = 0,
    /// Time between two looks at the status.
    status_us = 20_000,
}

impl Shape {
    /// What is written may be executed once more after it was sent again: there is no fence.
    pub fn is_hazardous(&self) -> bool {
        self.fencing == 2 || (self.fencing == 0 && self.cqt_ms == 0 && self.target_cqt_ms == 0)
    }

    /// For how long a write in doubt waits, where it does; the target counts KATO in seconds.
    pub fn fence(&self) -> Option<Duration> {
        let cqt = self.cqt_ms.max(self.target_cqt_ms);
        let time = 2 * self.kato_ms.next_multiple_of(1000) + cqt;
        (!self.is_hazardous()).then(|| Duration::from_millis(time.into()))
    }
}

macro_rules! what {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $args:literal;)*) => {
        /// What can happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum What {
            $($(#[doc = $doc])* $name,)*
        }

        impl What {
            pub const ALL: &'static [What] = &[$(What::$name,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(What::$name => $text,)*
                }
            }

            /// Names of the arguments.
            pub fn arguments(self) -> &'static str {
                match self {
                    $(What::$name => $args,)*
                }
            }
        }
    };
}

what! {
    /// All connections of a path are reset.
    Sever = "sever", "path";
    /// Nothing of a path arrives; what is under way arrives when it ends.
    BlackHole = "black_hole", "path us";
    /// Connects to a path are refused.
    Refuse = "refuse", "path us";
    /// One connection delivers nothing for a while.
    Stall = "stall", "which us";
    /// The other side of one connection sends no more.
    HalfClose = "half_close", "which";
    /// A byte of one connection changes where a digest covers it.
    Flip = "flip", "which";
    /// Another latency, for all.
    Latency = "latency", "us";
    /// Reads and writes become small, for a while.
    Chunk = "chunk", "bytes us";
    /// Another ANA state of a group on a path; group 0: all.
    Ana = "ana", "path group state";
    /// A listener goes and comes back.
    Unlisten = "unlisten", "path us";
    /// The target dies and comes back with its data.
    Crash = "crash", "us";
    /// A namespace goes to another ANA group.
    Regroup = "regroup", "nsid group";
    /// A namespace is removed and added again with its data.
    Remove = "remove", "nsid us";
    /// A host detaches a path and attaches it again later.
    Detach = "detach", "host path us";
    /// A host resets a path's controller.
    Reset = "reset", "host path";
    /// A host disables a path's controller for a while.
    Disable = "disable", "host path us";
    /// A host changes the policy of a volume.
    Policy = "policy", "host nsid policy";
    /// A host prefers a path.
    Prefer = "prefer", "host nsid path";
    /// A host turns automatic failback on or off.
    Failback = "failback", "host on";
    /// A reactor stands still.
    StandStill = "stand_still", "reactor us";
    /// Messages to a reactor are late.
    Hold = "hold", "reactor us";
    /// All paths of a group are without access for a while, which each listener tells again and again.
    Flap = "flap", "group us";
    /// The disk fails some I/Os.
    DiskErrors = "disk_errors", "nsid count";
    /// The disk takes nothing up for a while.
    DiskStop = "disk_stop", "nsid us";
    /// Completions of one path come back with another status.
    Status = "status", "path status count";
    /// A response names a command that there is not.
    WrongCid = "wrong_cid", "path";
    /// An R2T asks for what the command does not have.
    WrongR2t = "wrong_r2t", "path";
    /// The ANA log of a path lies, as often as said.
    BadAnaLog = "bad_ana_log", "path how count";
    /// A controller says other things of itself when it is connected to again, as often as said.
    Identify = "identify", "path field count";
    /// A controller that is being enabled reports a fatal status, as often as said.
    Fatal = "fatal", "path count";
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// When, in us since I/O began.
    pub at: u64,
    pub what: What,
    /// As [`What::arguments`] names them.
    pub args: [u64; 3],
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} {}", self.at, self.what.name())?;
        for (name, value) in self.what.arguments().split(' ').zip(self.args) {
            write!(f, " {name} {value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Scenario {
    /// As [`Scenario::read`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        let (mut shape, mut simple) = (self.shape, Shape::SIMPLE);
        for ((name, value), (_, usual)) in shape.fields().into_iter().zip(simple.fields()) {
            if value != usual {
                writeln!(f, "{name} {value}")?;
            }
        }
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        Ok(())
    }
}

impl Scenario {
    /// Reads what [`Display`](fmt::Display) writes. Empty lines, and what follows a `#`, say nothing; what is not said of
    /// the shape is simple.
    ///
    /// # Errors
    /// The line that says something else.
    pub fn read(text: &str) -> Result<Scenario, UsageError> {
        let mut scenario = Scenario {
            seed: 0,
            shape: Shape::SIMPLE,
            events: Vec::new(),
        };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            if !words.is_empty() && scenario.read_line(&words).is_none() {
                return Err(UsageError(format!("line {number} of the scenario: {line}")));
            }
        }
        scenario.events.sort();
        Ok(scenario)
    }

    fn read_line(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            ["seed", seed] => self.seed = seed.parse().ok()?,
            ["at", at, what, ref rest @ ..] => {
                let what = What::ALL.iter().find(|w| w.name() == what)?;
                let mut args = [0; 3];
                let mut rest = rest.iter();
                for (name, value) in what.arguments().split(' ').zip(&mut args) {
                    if *rest.next()? != name {
                        return None;
                    }
                    *value = rest.next()?.parse().ok()?;
                }
                self.events.push(Event {
                    at: at.parse().ok()?,
                    what: *what,
                    args,
                });
            }
            [name, value] => {
                let fields = self.shape.fields();
                let (_, field) = fields.into_iter().find(|(known, _)| *known == name)?;
                *field = value.parse().ok()?;
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for seed in 0..50 {
            let scenario = super::super::draw::scenario(seed);
            assert_eq!(
                Scenario::read(&scenario.to_string()).unwrap(),
                scenario,
                "{scenario}"
            );
        }
    }

    #[test]
    fn what_says_nothing_known_is_refused_with_its_line() {
        for (text, line) in [
            ("seed 1\nblocks x", "line 2"),
            ("at 5 sever", "line 1"),
            ("# of no interest\n\nat 5 sever path", "line 3"),
            ("at 5 fly high 1", "line 1"),
            ("nonsense 5", "line 1"),
        ] {
            let error = Scenario::read(text).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }
}
