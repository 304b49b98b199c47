//! The limit to measure against: the bytes of NVMe/TCP over bare TCP, and nothing else.
//!
//! Two pinned threads, one connection on loopback, non-blocking sockets. Each side takes all that has arrived with one
//! `recv`, counts whole messages, and answers them all with one `send`. No byte is looked at, no buffer is managed, no
//! command is looked up: what is left is the price of moving the bytes.
//!
//! What one `recv` takes and one `send` gives at most decides how many system calls a message costs and whether its
//! bytes are still in the cache: small buffers are better for large messages, large ones for many small messages, and
//! where they meet is the machine's. So the run tries [`BUFFERS`] first and takes the fastest.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use core_affinity::CoreId;
use serde_json::json;

use crate::cli::{Direction, FloorArgs};
use crate::clock::now;
use crate::cores::Placement;
use crate::machine::{self, Machine};
use crate::report::{PathReport, Report};
use crate::size::human_bytes;
use crate::stats::{Gap, JobStats, PathIos, RunStats};

/// A command capsule: common header and submission queue entry (NVMe/TCP 1.1, 3.6.2.6).
const CAPSULE_CMD_BYTES: usize = 72;
/// A response capsule: common header and completion queue entry (NVMe/TCP 1.1, 3.6.2.7).
const CAPSULE_RESP_BYTES: usize = 24;
/// The header of a C2HData PDU (NVMe/TCP 1.1, 3.6.2.11).
const C2H_DATA_BYTES: usize = 24;
/// Most data of a write that goes with its command; more is asked for by an R2T (NVMe/TCP 1.1, 3.3.2).
const IN_CAPSULE_MAX: usize = 8192;
/// The header of an R2T PDU (NVMe/TCP 1.1, 3.6.2.10).
const R2T_BYTES: usize = 24;
/// The header of an H2CData PDU (NVMe/TCP 1.1, 3.6.2.9).
const H2C_DATA_BYTES: usize = 24;
/// Buffers that are tried, in bytes: what one `recv` takes at most, and one `send` gives.
const BUFFERS: [usize; 5] = [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];
/// Each buffer is tried so often, in turns, and the best try counts: what disturbs one try makes it only slower.
const TRIES: u32 = 3;
/// Length of one try.
const TRY_TIME: Duration = Duration::from_millis(60);
/// Without data the clock is read every so many turns.
const IDLE_TURNS: u32 = 1024;

/// Bytes of a request and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exchange {
    request: usize,
    response: usize,
}

impl Exchange {
    fn new(direction: Direction, payload: usize, capsule_resp: bool) -> Self {
        match direction {
            Direction::Read => Self {
                request: CAPSULE_CMD_BYTES,
                response: C2H_DATA_BYTES
                    + payload
                    + if capsule_resp { CAPSULE_RESP_BYTES } else { 0 },
            },
            Direction::Write if payload <= IN_CAPSULE_MAX => Self {
                request: CAPSULE_CMD_BYTES + payload,
                response: CAPSULE_RESP_BYTES,
            },
            // The bytes of both round trips in one: a floor does not wait for the R2T.
            Direction::Write => Self {
                request: CAPSULE_CMD_BYTES + H2C_DATA_BYTES + payload,
                response: R2T_BYTES + CAPSULE_RESP_BYTES,
            },
        }
    }
}

/// One side of the connection.
struct Side {
    stream: TcpStream,
    received: Vec<u8>,
    to_send: Vec<u8>,
    message_in: usize,
    message_out: usize,
    /// Bytes of a message that has not arrived completely.
    partial: usize,
    /// Bytes that are due and not sent yet.
    due: usize,
}

impl Side {
    /// A side whose buffers have `buffer` bytes each.
    fn new(
        stream: TcpStream,
        message_in: usize,
        message_out: usize,
        buffer: usize,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            received: vec![0; buffer],
            to_send: vec![0; buffer],
            message_in,
            message_out,
            partial: 0,
            due: 0,
        })
    }

    /// One receive; the number of messages that it completed, `None` at the end of the stream.
    fn receive(&mut self) -> io::Result<Option<usize>> {
        match self.stream.read(&mut self.received) {
            Ok(0) => Ok(None),
            Ok(bytes) => {
                let bytes = self.partial + bytes;
                self.partial = bytes % self.message_in;
                Ok(Some(bytes / self.message_in))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Sends what is due and `messages` more, as much as one send takes.
    fn send(&mut self, messages: usize) -> io::Result<()> {
        self.due += messages * self.message_out;
        if self.due == 0 {
            return Ok(());
        }
        let now = self.due.min(self.to_send.len());
        match self.stream.write(&self.to_send[..now]) {
            Ok(bytes) => self.due -= bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Idle {
    Spin,
    Yield,
}

impl Idle {
    fn rest(self) {
        match self {
            Self::Spin => std::hint::spin_loop(),
            Self::Yield => thread::yield_now(),
        }
    }
}

/// Two threads and the connection between them.
struct Wire<'a> {
    exchange: Exchange,
    depth: usize,
    server_core: usize,
    client_core: usize,
    idle: Idle,
    stop: &'a AtomicBool,
}

impl Wire<'_> {
    /// The one of [`BUFFERS`] with the most messages per second.
    fn fastest_buffer(&self) -> anyhow::Result<usize> {
        let mut best = [0.0_f64; BUFFERS.len()];
        for _ in 0..TRIES {
            for (buffer, best) in BUFFERS.into_iter().zip(&mut best) {
                let (outcome, _) = self.run(buffer, TRY_TIME)?;
                let rate = outcome.stats.reads as f64 / outcome.end_ns.max(1) as f64;
                *best = best.max(rate);
            }
        }
        let fastest = BUFFERS
            .into_iter()
            .zip(best)
            .max_by(|a, b| a.1.total_cmp(&b.1));
        Ok(fastest.map_or(BUFFERS[0], |(buffer, _)| buffer))
    }

    /// Exchanges messages for `time` over a connection of its own. Also returns the server's address.
    fn run(&self, buffer: usize, time: Duration) -> anyhow::Result<(Outcome, SocketAddr)> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on loopback")?;
        let address = listener.local_addr()?;
        let client = TcpStream::connect(address).context("connecting on loopback")?;
        let (server, _) = listener.accept()?;
        let Exchange { request, response } = self.exchange;
        let mut server = Side::new(server, request, response, buffer)?;
        let mut client = Side::new(client, response, request, buffer)?;
        let outcome = thread::scope(|scope| {
            let serving = scope.spawn(|| {
                pin(self.server_core)?;
                serve(&mut server, self.idle)
            });
            let loading = scope.spawn(move || {
                pin(self.client_core)?;
                let outcome = load(&mut client, self.depth, time, self.idle, self.stop);
                // The server ends with the stream, also when this side failed.
                let _ = client.stream.shutdown(std::net::Shutdown::Both);
                outcome
            });
            let outcome = join(loading);
            let served = join(serving);
            outcome.and_then(|outcome| served.map(|()| outcome))
        })?;
        Ok((outcome, address))
    }
}

/// Runs the floor and reports it. `stop` ends it early.
pub fn run(args: &FloorArgs, stop: &AtomicBool) -> anyhow::Result<Report> {
    let available = pollux_reactor::available_cores();
    let placement = Placement::pair(args.cores.as_ref(), &available).map_err(crate::Usage)?;
    let exchange = Exchange::new(args.workload, args.io_size as usize, args.capsule_resp);
    let idle = if placement.shared {
        Idle::Yield
    } else {
        Idle::Spin
    };

    let wire = Wire {
        exchange,
        depth: args.depth as usize,
        server_core: placement.target,
        client_core: placement.host.first().copied().unwrap_or(placement.target),
        idle,
        stop,
    };
    let buffer = wire.fastest_buffer()?;
    let (outcome, address) = wire.run(buffer, args.time)?;

    let mut stats = RunStats::new();
    let mut part = outcome.stats;
    let bytes = u64::from(args.io_size);
    part.bytes = part.reads * bytes;
    if args.workload == Direction::Write {
        part.writes = std::mem::take(&mut part.reads);
    }
    stats.merge(&part);
    let machine = Machine::read(available);
    let mut doubts = machine.doubts();
    if placement.shared {
        doubts.push("client and server share a core".to_owned());
    } else {
        doubts.extend(machine::interrupted(outcome.preemptions, args.time));
    }
    let direction = match args.workload {
        Direction::Read => "read",
        Direction::Write => "write",
    };
    Ok(Report {
        title: format!(
            "floor: {direction} {}, depth {}, {} B requests, {} B answers, bare TCP, {} buffers",
            human_bytes(bytes),
            args.depth,
            exchange.request,
            exchange.response,
            human_bytes(buffer as u64)
        ),
        kind: "floor",
        options: json!({
            "workload": direction,
            "depth": args.depth,
            "io_size": args.io_size,
            "request_bytes": exchange.request,
            "response_bytes": exchange.response,
            "buffer_bytes": buffer,
        }),
        submitted: stats.total.ios(),
        completed: stats.total.ios(),
        paths: vec![PathReport {
            traddr: address.ip().to_string(),
            trsvcid: address.port().to_string(),
            ios: PathIos {
                ios: stats.total.ios(),
                errors: 0,
            },
            ana_state: "none".to_owned(),
        }],
        stats,
        start_ns: 0,
        end_ns: outcome.end_ns,
        verified: None,
        interrupted: stop.load(Ordering::Relaxed),
        waited: Duration::ZERO,
        socket_calls: None,
        host_cores: placement.host,
        target_core: Some(placement.target),
        machine,
        doubts,
    })
}

fn join<T>(handle: thread::ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    handle
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Moves this thread to `core` and checks that it is there.
fn pin(core: usize) -> anyhow::Result<()> {
    let pinned = core_affinity::set_for_current(CoreId { id: core });
    let cores = pollux_reactor::available_cores();
    if !pinned || cores != [core] {
        bail!(
            "core {core} cannot be had: this thread may use {}",
            crate::cores::join(&cores)
        );
    }
    Ok(())
}

fn serve(side: &mut Side, idle: Idle) -> anyhow::Result<()> {
    loop {
        let requests = match side.receive() {
            Ok(Some(requests)) => requests,
            Ok(None) => return Ok(()),
            // The client closes with requests in flight.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("server: receiving"),
        };
        match side.send(requests) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error).context("server: sending"),
        }
        if requests == 0 {
            idle.rest();
        }
    }
}

struct Outcome {
    stats: JobStats,
    end_ns: u64,
    preemptions: u64,
}

fn load(
    side: &mut Side,
    depth: usize,
    time: Duration,
    idle: Idle,
    stop: &AtomicBool,
) -> anyhow::Result<Outcome> {
    let mut stats = JobStats::new();
    let start = now();
    let since_start = || u64::try_from(now().duration_since(start).as_nanos()).unwrap_or(u64::MAX);
    let end_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    // Answers come in the order of the requests.
    let mut sent_ns: VecDeque<u64> = VecDeque::with_capacity(depth);
    sent_ns.extend(std::iter::repeat_n(0, depth));
    let mut last_ns = 0;
    let mut idle_turns = 0;
    side.send(depth).context("client: sending")?;
    loop {
        let Some(answers) = side.receive().context("client: receiving")? else {
            bail!("the server closed the connection");
        };
        if answers == 0 {
            side.send(0).context("client: sending")?;
            idle.rest();
            idle_turns += 1;
            if idle_turns == IDLE_TURNS {
                idle_turns = 0;
                if since_start() >= end_ns || stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            continue;
        }
        idle_turns = 0;
        let now_ns = since_start();
        for _ in 0..answers {
            if let Some(at_ns) = sent_ns.pop_front() {
                stats.latency.saturating_record(now_ns - at_ns);
                sent_ns.push_back(now_ns);
            }
        }
        stats.reads += answers as u64;
        stats.note_gap(Gap {
            job: 0,
            start_ns: last_ns,
            end_ns: now_ns,
            open: false,
        });
        last_ns = now_ns;
        if now_ns >= end_ns || stop.load(Ordering::Relaxed) {
            break;
        }
        side.send(answers).context("client: sending")?;
    }
    Ok(Outcome {
        stats,
        end_ns: last_ns,
        preemptions: machine::preemptions(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_nvme_tcp() {
        let exchange = |direction, capsule_resp| Exchange::new(direction, 4096, capsule_resp);
        assert_eq!(
            exchange(Direction::Read, false),
            Exchange {
                request: 72,
                response: 4120
            }
        );
        assert_eq!(
            exchange(Direction::Read, true),
            Exchange {
                request: 72,
                response: 4144
            }
        );
        assert_eq!(
            exchange(Direction::Write, false),
            Exchange {
                request: 4168,
                response: 24
            }
        );
        assert_eq!(
            Exchange::new(Direction::Write, 131_072, false),
            Exchange {
                request: 131_168,
                response: 48
            }
        );
    }

    #[test]
    fn messages_are_counted_across_receives() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut side = Side::new(listener.accept().unwrap().0, 100, 10, 4096).unwrap();
        let mut receive_bytes = |bytes: usize| {
            peer.write_all(&vec![0; bytes]).unwrap();
            let before = side.partial;
            let mut messages = 0;
            let wanted = before + bytes;
            while messages * 100 + side.partial < wanted {
                messages += side.receive().unwrap().unwrap();
            }
            messages
        };
        assert_eq!(receive_bytes(250), 2);
        assert_eq!(receive_bytes(49), 0);
        assert_eq!(receive_bytes(1), 1);
        assert_eq!(receive_bytes(100), 1);
        drop(peer);
        assert_eq!(side.receive().unwrap(), None);
    }
}
