//! The two sides of the connection, and the threads they run on.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use core_affinity::CoreId;

use super::exchange::Exchange;
use crate::clock::{now, wall};
use crate::machine;
use crate::stats::{Gap, JobStats};

/// Buffers that are tried, in bytes: what one `recv` takes at most, and one `send` gives.
const BUFFERS: [usize; 5] = [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20];

/// Each buffer is tried so often, in turns, and the best try counts: what disturbs one try makes it only slower.
const TRIES: u32 = 3;

/// Length of one try.
const TRY_TIME: Duration = Duration::from_millis(60);

/// Without data the clock is read every so many turns.
const IDLE_TURNS: u32 = 1024;

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

/// What a side does that has nothing to do.
#[derive(Clone, Copy)]
pub enum Idle {
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
pub struct Wire<'a> {
    pub exchange: Exchange,
    pub depth: usize,
    pub server_core: usize,
    pub client_core: usize,
    pub idle: Idle,
    pub stop: &'a AtomicBool,
}

impl Wire<'_> {
    /// The one of [`BUFFERS`] with the most messages per second.
    pub fn fastest_buffer(&self) -> anyhow::Result<usize> {
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
    pub fn run(&self, buffer: usize, time: Duration) -> anyhow::Result<(Counted, SocketAddr)> {
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

/// What the client has counted.
pub struct Counted {
    pub stats: JobStats,
    pub end_ns: u64,
    pub began: std::time::SystemTime,
    pub preemptions: u64,
}

fn load(
    side: &mut Side,
    depth: usize,
    time: Duration,
    idle: Idle,
    stop: &AtomicBool,
) -> anyhow::Result<Counted> {
    let mut stats = JobStats::new();
    let (start, began) = (now(), wall());
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
    Ok(Counted {
        stats,
        end_ns: last_ns,
        began,
        preemptions: machine::preemptions(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
