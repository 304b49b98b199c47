//! The model behind the simulated network: full-duplex byte streams between addresses, on a virtual clock.
//!
//! It shows what TCP shows: reads and writes of any size, delay, full send buffers, refusals, resets, silence. It does
//! not lose or reorder bytes inside a stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::inbox::Inbox;
use super::ready::{ReadyLists, Watch};
use crate::rng::Rng;
use crate::time::{Time, nanos};

/// First port for those who do not choose one, as on a real system.
const EPHEMERAL: u16 = 49_152;

/// Connections that may wait to be accepted, as on real listeners.
const BACKLOG: usize = 1024;

/// Bytes that one side can have under way before a write would block. Of the order of a real socket's, small enough that
/// tests with large transfers meet it.
const SEND_BUFFER: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Comes up, or is refused, at this time.
    Connecting(Time),
    Open,
    /// Broken; every call says so.
    Broken(ErrorKind),
}

/// One side of a connection. It lives as long as the stream that names it, or while it waits to be accepted; the other
/// side may be gone before.
#[derive(Debug)]
struct End {
    local: SocketAddr,
    remote: SocketAddr,
    /// The other side; it may be gone.
    peer: Option<u64>,
    state: State,
    /// What the other side has sent.
    inbox: Inbox,
    /// When the end of the stream arrives, once the other side has closed.
    end_at: Option<Time>,
    /// An edge was seen and not yet taken.
    ready: bool,
    /// An edge that told of room, and not yet taken.
    room: bool,
    /// The last write filled the send buffer: room is an edge.
    blocked: bool,
    /// Who is told of edges: a reactor and one of its lists.
    watch: Option<(usize, Watch)>,
}

/// The whole network.
#[derive(Debug)]
pub(super) struct World {
    now: Time,
    /// Nothing arrives and no connect comes up before this time.
    next_at: Time,
    rng: Rng,
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) max_chunk: usize,
    pub(super) send_buffer: usize,
    ends: BTreeMap<u64, End>,
    /// By reactor.
    ready: BTreeMap<usize, ReadyLists>,
    next_end: u64,
    /// Connections that wait to be accepted, by listening address.
    listeners: BTreeMap<SocketAddr, VecDeque<u64>>,
    refusing: BTreeSet<SocketAddr>,
    black_holes: BTreeSet<SocketAddr>,
    next_port: u16,
    /// Grows with everything that another reactor could notice.
    activity: u64,
    trace: Trace,
}

impl World {
    pub(super) fn new(rng: Rng) -> World {
        World {
            now: Time::ZERO,
            next_at: Time::ZERO,
            rng,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            max_chunk: usize::MAX,
            send_buffer: SEND_BUFFER,
            ends: BTreeMap::new(),
            ready: BTreeMap::new(),
            next_end: 0,
            listeners: BTreeMap::new(),
            refusing: BTreeSet::new(),
            black_holes: BTreeSet::new(),
            next_port: EPHEMERAL,
            activity: 0,
            trace: Trace::default(),
        }
    }

    /// Moves the clock: what arrives until `now` is there then.
    pub(super) fn set_now(&mut self, now: Time) {
        let before = self.now;
        self.now = now;
        if now < self.next_at {
            return;
        }
        for end in self.ends.values_mut() {
            if is_dark(&self.black_holes, end) {
                continue;
            }
            if end.next_arrival(before).is_some_and(|at| at <= now) {
                end.edge(&mut self.ready);
            }
        }
        let due: Vec<u64> = self
            .ends
            .iter()
            .filter(|(_, end)| matches!(end.state, State::Connecting(at) if at <= now))
            .filter(|(_, end)| !is_dark(&self.black_holes, end))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            self.finish_connect(id);
        }
        self.next_at = self.next_deadline().unwrap_or(Time::MAX);
    }

    /// The next time at which something arrives.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.ends
            .values()
            .filter(|end| !is_dark(&self.black_holes, end))
            .filter_map(|end| match end.state {
                State::Connecting(at) => Some(at),
                State::Open => end.next_arrival(self.now),
                State::Broken(_) => None,
            })
            .min()
    }

    pub(super) fn activity(&self) -> u64 {
        self.activity
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.0
    }

    pub(super) fn connect(&mut self, remote: SocketAddr, local: Option<IpAddr>) -> u64 {
        // There is one network and no routing, so the same address serves at both ends.
        let local = SocketAddr::new(local.unwrap_or(remote.ip()), self.ephemeral_port());
        let up_at = self.now + (self.delay() + self.delay());
        self.next_at = self.next_at.min(up_at);
        let id = self.add_end(End {
            local,
            remote,
            peer: None,
            state: State::Connecting(up_at),
            inbox: Inbox::default(),
            end_at: None,
            ready: false,
            room: false,
            blocked: false,
            watch: None,
        });
        self.note(id, 0);
        id
    }

    pub(super) fn listen(&mut self, mut addr: SocketAddr) -> io::Result<SocketAddr> {
        if addr.port() == 0 {
            addr.set_port(self.ephemeral_port());
        }
        if self.listeners.contains_key(&addr) {
            return Err(ErrorKind::AddrInUse.into());
        }
        self.listeners.insert(addr, VecDeque::new());
        Ok(addr)
    }

    pub(super) fn accept(&mut self, listener: SocketAddr) -> Option<(u64, SocketAddr)> {
        let id = queue(&mut self.listeners, listener).pop_front()?;
        self.note(id, 0);
        Some((id, self.end(id).remote))
    }

    pub(super) fn stop_listening(&mut self, listener: SocketAddr) {
        let waiting = std::mem::take(queue(&mut self.listeners, listener));
        self.listeners.remove(&listener);
        for id in waiting {
            if let Some(peer) = self.remove_end(id).peer {
                self.break_end(peer, ErrorKind::ConnectionReset);
            }
        }
        self.activity += 1;
    }

    pub(super) fn connected(&self, id: u64) -> io::Result<bool> {
        match self.end(id).state {
            State::Connecting(_) => Ok(false),
            State::Open => Ok(true),
            State::Broken(kind) => Err(kind.into()),
        }
    }

    pub(super) fn read(&mut self, id: u64, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let limit = self.chunk();
        let now = self.now;
        let end = live(&mut self.ends, id);
        end.check_open()?;
        if is_dark(&self.black_holes, end) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let arrived = end.inbox.arrived(now);
        if arrived == 0 {
            return match end.end_at {
                Some(at) if at <= now && end.inbox.len() == 0 => Ok(0),
                _ => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let len = end.inbox.take(bufs, arrived.min(limit));
        if len == 0 {
            return Ok(0);
        }
        // Where only the chunk limit cut the read short, what is left is an edge: on real sockets a read that
        // does not fill the buffer has taken everything.
        if len == limit && len < arrived {
            end.edge(&mut self.ready);
        }
        let peer = end.peer;
        if let Some(peer) = peer.and_then(|peer| self.ends.get_mut(&peer))
            && peer.blocked
        {
            peer.blocked = false;
            peer.edge(&mut self.ready);
        }
        self.note(id, len);
        Ok(len)
    }

    pub(super) fn write(&mut self, id: u64, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let limit = self.chunk();
        let at = self.now + self.delay();
        let now = self.now;
        let end = self.end(id);
        end.check_open()?;
        let total = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        let closed = end.end_at.is_some_and(|at| at <= now);
        let Some(peer) = end.peer.filter(|peer| self.ends.contains_key(peer)) else {
            // The other side has closed. Until we can know of it, what we send is lost in silence.
            return if closed {
                Err(ErrorKind::BrokenPipe.into())
            } else {
                Ok(total)
            };
        };
        // The buffer may have been made smaller than what is in it.
        let room = self.send_buffer.saturating_sub(self.end(peer).inbox.len());
        let len = total.min(room).min(limit);
        let end = live(&mut self.ends, id);
        if len < total {
            // Room is an edge. Where only the chunk limit cut the write short, there is room already.
            end.blocked = len == room;
            if len < room {
                end.edge(&mut self.ready);
            }
        }
        if len == 0 && total > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let peer = live(&mut self.ends, peer);
        let at = peer.inbox.not_before_last(at);
        let mut left = len;
        for buf in bufs {
            let bytes = &buf[..buf.len().min(left)];
            peer.inbox.put(at, bytes);
            left -= bytes.len();
        }
        if at <= now {
            peer.edge(&mut self.ready);
        } else {
            self.next_at = self.next_at.min(at);
        }
        self.note(id, len);
        Ok(len)
    }

    pub(super) fn take_ready(&mut self, id: u64) -> bool {
        std::mem::take(&mut live(&mut self.ends, id).ready)
    }

    pub(super) fn take_room(&mut self, id: u64) -> bool {
        std::mem::take(&mut live(&mut self.ends, id).room)
    }

    /// Another reactor has the end from now on: nobody is told of its edges until it is watched again.
    pub(super) fn adopt(&mut self, id: u64) {
        let end = live(&mut self.ends, id);
        end.watch = None;
        end.ready = true;
        end.room = true;
    }

    pub(super) fn watch(&mut self, id: u64, reactor: usize, watch: Watch) {
        let end = live(&mut self.ends, id);
        end.watch = Some((reactor, watch));
        if end.ready {
            self.ready.entry(reactor).or_default().push(watch);
        }
    }

    /// An edge that comes from a wrapper and not from the network; a stream that is not watched is looked at anyway.
    pub(super) fn raise(&mut self, reactor: usize, watch: Option<Watch>) {
        if let Some(watch) = watch {
            self.ready.entry(reactor).or_default().push(watch);
        }
        self.activity += 1;
    }

    pub(super) fn next_ready(&mut self, reactor: usize, list: usize) -> Option<u64> {
        self.ready.get_mut(&reactor)?.pop(list)
    }

    pub(super) fn local_addr(&self, id: u64) -> SocketAddr {
        self.end(id).local
    }

    pub(super) fn peer_addr(&self, id: u64) -> io::Result<SocketAddr> {
        let end = self.end(id);
        match end.state {
            State::Open => Ok(end.remote),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// One side is dropped.
    pub(super) fn close(&mut self, id: u64) {
        let at = self.now + self.delay();
        let end = self.remove_end(id);
        self.note(id, 0);
        if let Some(peer) = end.peer.and_then(|peer| self.ends.get_mut(&peer)) {
            let at = peer.inbox.not_before_last(at);
            peer.end_at = Some(at);
            // What is sent to nobody finds room.
            peer.blocked = false;
            if at <= self.now {
                peer.edge(&mut self.ready);
            } else {
                self.next_at = self.next_at.min(at);
            }
        }
    }

    /// Breaks every connection from or to `addr`.
    pub(super) fn sever(&mut self, addr: SocketAddr) {
        let hit: Vec<u64> = self
            .ends
            .iter()
            .filter(|(_, end)| end.local == addr || end.remote == addr)
            .map(|(&id, _)| id)
            .collect();
        for id in hit {
            self.break_end(id, ErrorKind::ConnectionReset);
        }
    }

    pub(super) fn set_black_hole(&mut self, addr: SocketAddr, on: bool) {
        if on {
            self.black_holes.insert(addr);
            return;
        }
        self.black_holes.remove(&addr);
        self.next_at = Time::ZERO;
        // What was held back is there now.
        for end in self.ends.values_mut() {
            if end.local == addr || end.remote == addr {
                end.edge(&mut self.ready);
            }
        }
        self.activity += 1;
    }

    pub(super) fn set_refusing(&mut self, addr: SocketAddr, on: bool) {
        if on {
            self.refusing.insert(addr);
        } else {
            self.refusing.remove(&addr);
        }
    }

    /// The three-way handshake is over, or its first packet met nobody.
    fn finish_connect(&mut self, id: u64) {
        let &End { local, remote, .. } = self.end(id);
        let wildcard = match remote.ip() {
            IpAddr::V4(_) => IpAddr::from([0u8; 4]),
            IpAddr::V6(_) => IpAddr::from([0u8; 16]),
        };
        let listener = [remote, SocketAddr::new(wildcard, remote.port())]
            .into_iter()
            .find(|addr| self.listeners.contains_key(addr))
            .filter(|_| !self.refusing.contains(&remote));
        let server_id = self.next_end;
        let queued = listener
            .and_then(|addr| self.listeners.get_mut(&addr))
            .filter(|queue| queue.len() < BACKLOG)
            .map(|queue| queue.push_back(server_id));
        if queued.is_none() {
            self.break_end(id, ErrorKind::ConnectionRefused);
            return;
        }
        self.add_end(End {
            local: remote,
            remote: local,
            peer: Some(id),
            state: State::Open,
            inbox: Inbox::default(),
            end_at: None,
            ready: true,
            room: true,
            blocked: false,
            watch: None,
        });
        let end = live(&mut self.ends, id);
        end.peer = Some(server_id);
        end.state = State::Open;
        end.edge(&mut self.ready);
        self.note(id, 0);
    }

    /// Breaks one side, if it is still there.
    fn break_end(&mut self, id: u64, kind: ErrorKind) {
        if let Some(end) = self.ends.get_mut(&id) {
            end.state = State::Broken(kind);
            end.inbox.clear();
            end.blocked = false;
            end.edge(&mut self.ready);
        }
        self.note(id, 0);
    }

    #[expect(clippy::expect_used, reason = "whoever names an end has it")]
    fn end(&self, id: u64) -> &End {
        self.ends.get(&id).expect("an end that is gone was named")
    }

    #[expect(clippy::expect_used, reason = "whoever names an end has it")]
    fn remove_end(&mut self, id: u64) -> End {
        self.ends.remove(&id).expect("an end was closed twice")
    }

    fn add_end(&mut self, end: End) -> u64 {
        let id = self.next_end;
        self.next_end += 1;
        self.ends.insert(id, end);
        id
    }

    fn ephemeral_port(&mut self) -> u16 {
        let port = self.next_port;
        // Behind the last port the first ones come again.
        self.next_port = port.checked_add(1).unwrap_or(EPHEMERAL);
        port
    }

    fn delay(&mut self) -> Duration {
        self.latency + Duration::from_nanos(self.rng.below(nanos(self.jitter)))
    }

    /// How many bytes the next read or write may move.
    fn chunk(&mut self) -> usize {
        if self.max_chunk == usize::MAX {
            return usize::MAX;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most the number that it was drawn from"
        )]
        let chunk = 1 + self.rng.below(self.max_chunk as u64) as usize;
        chunk
    }

    /// Notes that an end did something that others may see.
    fn note(&mut self, id: u64, len: usize) {
        self.activity += 1;
        self.trace.add(self.now.as_nanos());
        self.trace.add(id);
        self.trace.add(len as u64);
    }
}

/// One side, which is there: whoever names it has its stream.
#[expect(clippy::expect_used, reason = "whoever names an end has it")]
fn live(ends: &mut BTreeMap<u64, End>, id: u64) -> &mut End {
    ends.get_mut(&id).expect("an end that is gone was named")
}

/// What waits to be accepted at an address that is listened on.
#[expect(clippy::expect_used, reason = "whoever names a listener has it")]
fn queue(
    listeners: &mut BTreeMap<SocketAddr, VecDeque<u64>>,
    listener: SocketAddr,
) -> &mut VecDeque<u64> {
    let queue = listeners.get_mut(&listener);
    queue.expect("a listener that is gone was named")
}

impl End {
    /// Whether bytes can move.
    fn check_open(&self) -> io::Result<()> {
        match self.state {
            State::Open => Ok(()),
            State::Connecting(_) => Err(ErrorKind::WouldBlock.into()),
            State::Broken(kind) => Err(kind.into()),
        }
    }

    /// Something happened that its user should see.
    fn edge(&mut self, lists: &mut BTreeMap<usize, ReadyLists>) {
        if !self.ready
            && let Some((reactor, watch)) = self.watch
        {
            lists.entry(reactor).or_default().push(watch);
        }
        self.ready = true;
        self.room |= !self.blocked;
    }

    /// When the first byte, or the end of the stream, arrives after `time`.
    fn next_arrival(&self, time: Time) -> Option<Time> {
        self.inbox
            .next_arrival(time)
            .or(self.end_at.filter(|&at| at > time))
    }
}

fn is_dark(black_holes: &BTreeSet<SocketAddr>, end: &End) -> bool {
    black_holes.contains(&end.local) || black_holes.contains(&end.remote)
}

/// A running hash (FNV-1a) of what happened, to compare two runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace(pub(crate) u64);

impl Default for Trace {
    fn default() -> Trace {
        Trace(0xCBF2_9CE4_8422_2325)
    }
}

impl Trace {
    pub(crate) fn add(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}
