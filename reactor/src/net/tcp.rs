//! Non-blocking TCP over `mio`.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::net::{TcpListener as MioListener, TcpStream as MioStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::count_call;
use super::ready::{Ready, ReadyLists, Watch};
use super::wrap::Raised;
use crate::mailbox::Bell;

/// The bell's token. Never an index of the table.
const BELL: Token = Token(usize::MAX);

/// Events taken by one poll. What does not fit comes with the next one; a reactor has tens of streams, not thousands.
const EVENTS: usize = 256;

/// Connections that may wait to be accepted: a host may open hundreds of queues at once when it comes back.
const BACKLOG: i32 = 1024;

/// Flags below which the table just grows, without looking for streams that are gone.
const SWEEP_MIN: usize = 64;

pub(super) const STREAM_EVENTS: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// One stream or listener that is watched, and who is told of its edges besides its flag.
#[derive(Debug)]
struct Watched {
    ready: Ready,
    watch: Option<Watch>,
}

/// A reactor's event queue and the flags of all that it watches.
#[derive(Debug)]
pub(crate) struct TcpNet {
    poll: Poll,
    events: Events,
    /// Shared with the streams, which leave their old reactor's queue when they move.
    registry: Arc<Registry>,
    /// Indexed by token.
    table: Vec<Watched>,
    lists: ReadyLists,
    /// Edges that wrappers tell of, from whatever thread.
    raised: Arc<Raised>,
    free: Vec<usize>,
    /// Table size at which to look for entries whose stream is gone. Streams are dropped on any thread, so they cannot
    /// free their entry themselves.
    sweep_at: usize,
}

impl TcpNet {
    /// An event queue, and the waker that ends a wait on it.
    pub(crate) fn new() -> io::Result<(TcpNet, Waker)> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, BELL)?;
        let net = TcpNet {
            poll,
            events: Events::with_capacity(EVENTS),
            registry: Arc::new(registry),
            table: Vec::new(),
            lists: ReadyLists::default(),
            raised: Arc::default(),
            free: Vec::new(),
            sweep_at: SWEEP_MIN,
        };
        Ok((net, waker))
    }

    pub(super) fn set_bell(&mut self, bell: &Arc<Bell>) {
        self.raised.set_bell(bell);
    }

    pub(super) fn raised(&self) -> Arc<Raised> {
        Arc::clone(&self.raised)
    }

    pub(super) fn has_raised(&self) -> bool {
        !self.raised.is_empty()
    }

    /// Sets the flag of everything that has an event, after waiting for at most `timeout` (in steps of a millisecond,
    /// rounded up).
    pub(super) fn poll(&mut self, timeout: Option<Duration>) {
        while let Some(watch) = self.raised.take() {
            if let Some(watch) = watch {
                self.lists.push(watch);
            }
        }
        count_call();
        if let Err(error) = self.poll.poll(&mut self.events, timeout) {
            // The queue is ours and valid for as long as `self` is, so a signal is the only reason.
            assert_eq!(
                error.kind(),
                io::ErrorKind::Interrupted,
                "event queue: {error}"
            );
            return;
        }
        for event in &self.events {
            // Every stream that was registered is in the table, the bell is not: the wait has ended, and that is all.
            let Some(watched) = self.table.get(event.token().0) else {
                assert!(event.token() == BELL, "an event of {:?}", event.token());
                continue;
            };
            let room = event.is_writable() || event.is_write_closed() || event.is_error();
            if watched.ready.note(room)
                && let Some(watch) = watched.watch
            {
                self.lists.push(watch);
            }
        }
    }

    pub(super) fn connect(
        &mut self,
        remote: SocketAddr,
        local: Option<IpAddr>,
    ) -> io::Result<TcpLink> {
        let socket = Socket::new(
            Domain::for_address(remote),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(ip) = local {
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        if let Err(error) = socket.connect(&remote.into())
            && error.raw_os_error() != Some(libc::EINPROGRESS)
        {
            return Err(error);
        }
        let io = MioStream::from_std(StdStream::from(socket));
        self.link(io, State::Connecting { edge: false }, false)
    }

    pub(super) fn listen(&mut self, addr: SocketAddr) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        self.watch_listener(socket.into())
    }

    /// Takes a socket that listens already.
    pub(super) fn watch_listener(&mut self, listener: StdListener) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        let mut io = MioListener::from_std(listener);
        let ready = self.watch(&mut io, Interest::READABLE)?;
        Ok(TcpListener { io, ready })
    }

    pub(super) fn adopt(&mut self, link: &mut TcpLink) -> io::Result<()> {
        if !link.muted {
            link.registry.deregister(&mut link.io)?;
        }
        let (token, ready) = self.flag(true);
        self.registry.register(&mut link.io, token, STREAM_EVENTS)?;
        link.muted = false;
        link.registry = Arc::clone(&self.registry);
        link.ready = ready;
        link.token = token;
        Ok(())
    }

    /// Lists the stream's token with each first edge from now on, and at once if one was seen already.
    pub(super) fn watch_link(&mut self, link: &TcpLink, watch: Watch) {
        assert!(
            Arc::ptr_eq(&link.registry, &self.registry),
            "a stream is watched on the reactor that has adopted it"
        );
        let watched = &mut self.table[link.token.0];
        watched.watch = Some(watch);
        if watched.ready.get() {
            self.lists.push(watch);
        }
    }

    /// Lists the token with each first edge of a descriptor that becomes readable, until it is closed.
    pub(super) fn watch_descriptor(
        &mut self,
        descriptor: BorrowedFd<'_>,
        watch: Watch,
    ) -> io::Result<Ready> {
        let (token, ready) = self.flag(false);
        let mut source = SourceFd(&descriptor.as_raw_fd());
        self.registry
            .register(&mut source, token, Interest::READABLE)?;
        self.table[token.0].watch = Some(watch);
        Ok(ready)
    }

    #[inline]
    pub(super) fn next_ready(&mut self, list: usize) -> Option<u64> {
        self.lists.pop(list)
    }

    fn link(&mut self, mut io: MioStream, state: State, ready: bool) -> io::Result<TcpLink> {
        let (token, ready) = self.flag(ready);
        self.registry.register(&mut io, token, STREAM_EVENTS)?;
        Ok(TcpLink {
            io,
            ready,
            token,
            registry: Arc::clone(&self.registry),
            state,
            muted: false,
        })
    }

    /// Watches `source`; returns the flag that its events set.
    pub(super) fn watch(
        &mut self,
        source: &mut impl mio::event::Source,
        events: Interest,
    ) -> io::Result<Ready> {
        let (token, ready) = self.flag(true);
        self.registry.register(source, token, events)?;
        Ok(ready)
    }

    /// A new flag and its token. An event of a former holder of the token can set it at worst once for nothing.
    fn flag(&mut self, ready: bool) -> (Token, Ready) {
        if self.free.is_empty() && self.table.len() >= self.sweep_at {
            let orphans = self.table.iter().enumerate();
            self.free
                .extend(orphans.filter(|(_, w)| w.ready.is_orphan()).map(|(i, _)| i));
            let live = self.table.len() - self.free.len();
            self.sweep_at = (2 * live).max(SWEEP_MIN);
        }
        let ready = Ready::new(ready);
        let watched = Watched {
            ready: ready.clone(),
            watch: None,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.table[index] = watched;
                index
            }
            None => {
                self.table.push(watched);
                self.table.len() - 1
            }
        };
        (Token(index), ready)
    }
}

#[derive(Debug)]
enum State {
    /// `edge`: an event was handed out by `take_ready` and not yet looked at by `connected`.
    Connecting {
        edge: bool,
    },
    Open,
}

/// One TCP connection.
///
/// Reads and writes are system calls without libc around them: its functions are cancellation points, for which they make
/// two atomic operations a call.
#[derive(Debug)]
pub(super) struct TcpLink {
    io: MioStream,
    ready: Ready,
    /// Its place in the table of the reactor that watches it.
    token: Token,
    registry: Arc<Registry>,
    state: State,
    /// It is not registered.
    muted: bool,
}

impl TcpLink {
    pub(super) fn connected(&mut self) -> io::Result<bool> {
        let State::Connecting { edge } = &mut self.state else {
            return Ok(true);
        };
        // The outcome of a connect is an event, so without one there is nothing to ask the system for.
        if !*edge && !self.ready.get() {
            return Ok(false);
        }
        *edge = false;
        if let Some(error) = self.io.take_error()? {
            return Err(error);
        }
        match self.io.peer_addr() {
            Ok(peer) => {
                // On loopback, a connect to a free port of the ephemeral range can pick that very port as its own and
                // meet itself. Nobody listens there.
                if self.io.local_addr()? == peer {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                self.state = State::Open;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                // An edge without an outcome: wait for the next one.
                self.ready.reset();
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(rustix::io::readv(&self.io, bufs)?)
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (len, _) = rustix::net::recv(&self.io, buf, RecvFlags::empty())?;
        Ok(len)
    }

    pub(super) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match bufs {
            // The system has less to do for one piece that is sent than for one that is written.
            [one] => Ok(rustix::net::send(&self.io, one, SendFlags::NOSIGNAL)?),
            _ => Ok(rustix::io::writev(&self.io, bufs)?),
        }
    }

    pub(super) fn mute(&mut self) {
        if !self.muted && matches!(self.state, State::Open) {
            self.muted = self.registry.deregister(&mut self.io).is_ok();
        }
    }

    pub(super) fn unmute(&mut self) {
        // A stream that cannot be registered goes on as one that may always have something. One that can has an edge at
        // once: it has room.
        if self.muted
            && self
                .registry
                .register(&mut self.io, self.token, STREAM_EVENTS)
                .is_ok()
        {
            self.muted = false;
        }
    }

    pub(super) fn take_ready(&mut self) -> bool {
        let ready = self.ready.take() | self.muted;
        if let State::Connecting { edge } = &mut self.state {
            *edge |= ready;
        }
        ready
    }

    pub(super) fn take_room(&mut self) -> bool {
        self.ready.take_room() | self.muted
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.peer_addr()
    }
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct TcpListener {
    io: MioListener,
    ready: Ready,
}

impl TcpListener {
    pub(super) fn accept(&mut self, net: &mut TcpNet) -> io::Result<Option<(TcpLink, SocketAddr)>> {
        if !self.ready.get() {
            return Ok(None);
        }
        count_call();
        match self.io.accept() {
            Ok((io, peer)) => {
                io.set_nodelay(true)?;
                // Data may have come before the stream was watched.
                Ok(Some((net.link(io, State::Open, true)?, peer)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready.reset();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A stream and its peer.
    fn pair() -> (TcpNet, TcpLink, StdStream) {
        let (mut net, _waker) = TcpNet::new().unwrap();
        let mut listener = net.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let link = loop {
            net.poll(None);
            if let Some((link, _)) = listener.accept(&mut net).unwrap() {
                break link;
            }
        };
        (net, link, peer)
    }

    /// Takes all edges that there are now.
    fn settle(net: &mut TcpNet, link: &mut TcpLink) {
        net.poll(Some(Duration::ZERO));
        link.take_ready();
        link.take_room();
    }

    #[test]
    fn what_comes_to_a_muted_stream_is_not_missed() {
        let (mut net, mut link, mut peer) = pair();
        settle(&mut net, &mut link);
        assert!(!link.take_ready() && !link.take_room());

        link.mute();
        assert!(
            link.take_ready() && link.take_room(),
            "it may have something"
        );
        assert!(link.take_ready() && link.take_room(), "and so it goes on");
        peer.write_all(b"while it is muted").unwrap();
        let mut buffer = [0; 64];
        while link.read(&mut buffer).is_err() {}
        net.poll(Some(Duration::ZERO));
        assert!(net.events.is_empty(), "an edge of a stream that is muted");

        peer.write_all(b"before the end of it").unwrap();
        link.unmute();
        while !link.take_ready() {
            net.poll(None);
        }
        while link.read(&mut buffer).is_err() {}
        settle(&mut net, &mut link);
        assert!(!link.take_ready() && !link.take_room());
        peer.write_all(b"after it").unwrap();
        while !link.take_ready() {
            net.poll(None);
        }
    }

    #[test]
    fn a_muted_stream_moves_to_another_reactor() {
        let (_net, mut link, mut peer) = pair();
        link.mute();
        let (mut net, _waker) = TcpNet::new().unwrap();
        net.adopt(&mut link).unwrap();
        settle(&mut net, &mut link);
        assert!(!link.take_ready());
        peer.write_all(b"to the new one").unwrap();
        while !link.take_ready() {
            net.poll(None);
        }
    }
}
