//! The two sides of the connections, and the threads they run on.

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

/// One side of the connections. No byte is looked at, so they share its buffers.
struct Side {
    connections: Vec<Connection>,
    received: Vec<u8>,
    to_send: Vec<u8>,
    message_in: usize,
    message_out: usize,
}

/// One side of one connection.
struct Connection {
    stream: TcpStream,
    /// Bytes of a message that has not arrived completely.
    partial: usize,
    /// Bytes that are due and not sent yet.
    due: usize,
}

impl Side {
    /// A side whose buffers have `buffer` bytes each.
    fn new(
        streams: Vec<TcpStream>,
        message_in: usize,
        message_out: usize,
        buffer: usize,
    ) -> io::Result<Self> {
        let connection = |stream: TcpStream| {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(Connection {
                stream,
                partial: 0,
                due: 0,
            })
        };
        Ok(Self {
            connections: streams
                .into_iter()
                .map(connection)
                .collect::<io::Result<_>>()?,
            received: vec![0; buffer],
            to_send: vec![0; buffer],
            message_in,
            message_out,
        })
    }

    /// One receive from a connection; the number of messages that it completed, `None` at the end of the stream.
    fn receive(&mut self, at: usize) -> io::Result<Option<usize>> {
        let connection = &mut self.connections[at];
        match connection.stream.read(&mut self.received) {
            Ok(0) => Ok(None),
            Ok(bytes) => {
                let bytes = connection.partial + bytes;
                connection.partial = bytes % self.message_in;
                Ok(Some(bytes / self.message_in))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Sends what is due on a connection and `messages` more, as much as one send takes.
    fn send(&mut self, at: usize, messages: usize) -> io::Result<()> {
        let connection = &mut self.connections[at];
        connection.due += messages * self.message_out;
        if connection.due == 0 {
            return Ok(());
        }
        let now = connection.due.min(self.to_send.len());
        match connection.stream.write(&self.to_send[..now]) {
            Ok(bytes) => connection.due -= bytes,
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

/// Two threads and the connections between them.
pub struct Wire<'a> {
    pub exchange: Exchange,
    /// Requests in flight, over all connections.
    pub depth: usize,
    pub connections: usize,
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

    /// Exchanges messages for `time` over connections of its own. Also returns the server's address.
    pub fn run(&self, buffer: usize, time: Duration) -> anyhow::Result<(Counted, SocketAddr)> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening on loopback")?;
        let address = listener.local_addr()?;
        let (mut client, mut server) = (Vec::new(), Vec::new());
        for _ in 0..self.connections {
            client.push(TcpStream::connect(address).context("connecting on loopback")?);
            server.push(listener.accept()?.0);
        }
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
                for connection in &client.connections {
                    let _ = connection.stream.shutdown(std::net::Shutdown::Both);
                }
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
        let mut requests = 0;
        for at in 0..side.connections.len() {
            let arrived = match side.receive(at) {
                Ok(Some(arrived)) => arrived,
                Ok(None) => return Ok(()),
                // The client closes with requests in flight.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error).context("server: receiving"),
            };
            match side.send(at, arrived) {
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
            requests += arrived;
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
    let connections = side.connections.len();
    // When each request was sent, by connection: answers come in the order of the requests.
    let mut sent_ns: Vec<VecDeque<u64>> = Vec::with_capacity(connections);
    for at in 0..connections {
        let share = depth / connections + usize::from(at < depth % connections);
        sent_ns.push(std::iter::repeat_n(0, share).collect());
        side.send(at, share).context("client: sending")?;
    }
    let mut last_ns = 0;
    let mut idle_turns = 0;
    let mut at = 0;
    loop {
        let Some(answers) = side.receive(at).context("client: receiving")? else {
            bail!("the server closed the connection");
        };
        if answers == 0 {
            side.send(at, 0).context("client: sending")?;
            idle.rest();
            idle_turns += 1;
            if idle_turns == IDLE_TURNS {
                idle_turns = 0;
                if since_start() >= end_ns || stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        } else {
            idle_turns = 0;
            let now_ns = since_start();
            for _ in 0..answers {
                if let Some(at_ns) = sent_ns[at].pop_front() {
                    stats.latency.saturating_record(now_ns - at_ns);
                    sent_ns[at].push_back(now_ns);
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
            side.send(at, answers).context("client: sending")?;
        }
        at = (at + 1) % connections;
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
        let stream = listener.accept().unwrap().0;
        let mut side = Side::new(vec![stream], 100, 10, 4096).unwrap();
        let mut receive_bytes = |bytes: usize| {
            peer.write_all(&vec![0; bytes]).unwrap();
            let before = side.connections[0].partial;
            let mut messages = 0;
            let wanted = before + bytes;
            while messages * 100 + side.connections[0].partial < wanted {
                messages += side.receive(0).unwrap().unwrap();
            }
            messages
        };
        assert_eq!(receive_bytes(250), 2);
        assert_eq!(receive_bytes(49), 0);
        assert_eq!(receive_bytes(1), 1);
        assert_eq!(receive_bytes(100), 1);
        drop(peer);
        assert_eq!(side.receive(0).unwrap(), None);
    }
}
