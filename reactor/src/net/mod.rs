//! Byte streams: TCP, Unix sockets, their simulated counterpart, and wrappers around any of them. Users cannot tell which.
//!
//! # What a stream promises
//!
//! * **It never blocks.** What cannot be done now is [`io::ErrorKind::WouldBlock`], and nothing has happened then.
//! * **Bytes.** They come in the order in which they were written, each once, cut anywhere. A call moves as many as it
//!   says, from the front of the buffers; the buffers are the caller's again when the call has returned.
//! * **Edges.** After `WouldBlock`, or a read that did not fill its buffers, [`Stream::take_ready`] becomes true once there
//!   is more: bytes, the end, a broken connection. After a write that did not take everything, [`Stream::take_room`]
//!   becomes true once there is room or the stream is broken. An edge for nothing is allowed, a missing one is not.
//! * **The end.** `Ok(0)` of a read into buffers that have room: the peer sends no more. Dropping a stream closes it; what
//!   was written before still goes out.
//! * **Errors.** Every error but `WouldBlock` is final: the connection is broken, and the stream is good for nothing but to
//!   be dropped.
//! * **Threads.** A stream is used on one reactor at a time. It moves by message, and [`Net::adopt`] takes it in.
//!
//! A [`StreamWrapper`] keeps the same promises to whoever uses it, and can rely on them for what it wraps. Sends that lend
//! the buffers to the kernel until a later notice would be a further method of both, which a wrapper does not have to offer.

mod heat;
mod inbox;
mod ready;
pub(crate) mod sim;
pub(crate) mod tcp;
mod unix;
pub(crate) mod world;
pub(crate) mod wrap;

use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

pub use heat::Heat;
use ready::{Ready, Watch};
use sim::{SimLink, SimListener, SimNetwork};
use tcp::{TcpLink, TcpListener, TcpNet};
use unix::{UnixLink, UnixListener};
use wrap::{Edge, Opened, StreamWrapper, Wrap, Wrapped};

use crate::mailbox::Bell;

thread_local! {
    /// System calls on sockets that this thread has made. Streams move between threads and must not share a counter, so
    /// each call is counted where it happens.
    static SOCKET_CALLS: Cell<u64> = const { Cell::new(0) };
}

/// Counts one socket call of this thread.
fn count_call() {
    SOCKET_CALLS.set(SOCKET_CALLS.get() + 1);
}

/// Where a reactor gets its byte streams from.
#[derive(Debug)]
pub struct Net {
    kind: NetKind,
    /// What is put around each stream, the innermost first.
    wraps: Vec<Wrap>,
    /// Socket calls of all finished turns.
    calls: u64,
    /// This thread's count at the start of the present turn; `None` between turns, when the calls of this thread are not
    /// this reactor's.
    turn_start: Option<u64>,
}

#[derive(Debug)]
enum NetKind {
    Tcp(TcpNet),
    /// The network, and which of its reactors this one is.
    Sim(SimNetwork, usize),
}

impl Net {
    /// Streams over TCP; `bell` wakes the reactor when a wrapper has something.
    pub(crate) fn tcp(mut net: TcpNet, bell: &Arc<Bell>, wraps: Vec<Wrap>) -> Net {
        net.set_bell(bell);
        Net::new(NetKind::Tcp(net), wraps)
    }

    pub(crate) fn simulated(network: SimNetwork, reactor: usize, wraps: Vec<Wrap>) -> Net {
        Net::new(NetKind::Sim(network, reactor), wraps)
    }

    fn new(kind: NetKind, wraps: Vec<Wrap>) -> Net {
        Net {
            kind,
            wraps,
            calls: 0,
            turn_start: None,
        }
    }

    /// Starts to connect to `remote`, from the address `local` if one is given. Never blocks: the stream tells when it is
    /// ready ([`Stream::connected`]).
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if the two addresses are not of one family; what the system says about an address
    /// that is not local, an unreachable network, or no more descriptors. A refusal usually comes later, from
    /// [`Stream::connected`].
    pub fn connect(&mut self, remote: SocketAddr, local: Option<IpAddr>) -> io::Result<Stream> {
        if local.is_some_and(|ip| ip.is_ipv4() != remote.is_ipv4()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "local and remote address are of different families",
            ));
        }
        count_call();
        let kind = match &mut self.kind {
            NetKind::Tcp(net) => StreamKind::Tcp(net.connect(remote, local)?),
            NetKind::Sim(net, _) => StreamKind::Sim(net.connect(remote, local)),
        };
        Ok(self.wrap_opened(Stream { kind, calls: 1 }, Opened::Connected))
    }

    /// Puts a wrapper, which holds a stream of this reactor, where that stream was: around one connection, whereas
    /// [`Group::wrap_streams`](crate::Group::wrap_streams) is for all of them.
    pub fn wrap(&mut self, wrapper: Box<dyn StreamWrapper>) -> Stream {
        let mut wrapped = Wrapped::new(wrapper);
        wrapped.attach(self.destination(None));
        Stream {
            kind: StreamKind::Wrapped(wrapped),
            calls: 0,
        }
    }

    fn wrap_opened(&mut self, stream: Stream, opened: Opened) -> Stream {
        let mut stream = stream;
        for index in 0..self.wraps.len() {
            let wrapper = self.wraps[index].around(stream, opened);
            stream = self.wrap(wrapper);
        }
        stream
    }

    /// Where the edges of a wrapper go.
    fn destination(&self, watch: Option<Watch>) -> Edge {
        match &self.kind {
            NetKind::Tcp(net) => Edge::Reactor(net.raised(), watch),
            NetKind::Sim(network, reactor) => Edge::Simulation(network.clone(), *reactor, watch),
        }
    }

    /// Listens on `addr`; port 0 picks a free one ([`Listener::local_addr`]). The backlog is 1024 connections.
    ///
    /// # Errors
    ///
    /// What the system says, for instance [`io::ErrorKind::AddrInUse`] or [`io::ErrorKind::AddrNotAvailable`].
    pub fn listen(&mut self, addr: SocketAddr) -> io::Result<Listener> {
        let kind = match &mut self.kind {
            NetKind::Tcp(net) => ListenerKind::Tcp(net.listen(addr)?),
            NetKind::Sim(net, _) => ListenerKind::Sim(net.listen(addr)?),
        };
        Ok(Listener { kind })
    }

    /// Accepts connections of a socket that was bound, and listens, before the reactor was started; so whoever starts the
    /// program learns what is wrong with its address.
    ///
    /// # Errors
    ///
    /// What the system says when the socket cannot be watched; [`io::ErrorKind::InvalidInput`] in a simulation.
    #[cfg(feature = "rpc")]
    pub(crate) fn take_listener(&mut self, socket: ListeningSocket) -> io::Result<Listener> {
        let NetKind::Tcp(net) = &mut self.kind else {
            return Err(mixed_worlds());
        };
        let kind = match socket {
            ListeningSocket::Tcp(listener) => ListenerKind::Tcp(net.watch_listener(listener)?),
            ListeningSocket::Unix(listener) => {
                ListenerKind::Unix(UnixListener::watch(net, listener)?)
            }
        };
        Ok(Listener { kind })
    }

    /// Takes in a stream that was opened on another reactor and came by message, so that this reactor's event poll watches
    /// it from now on. Its readiness is set, because an edge may have been seen on the other side.
    ///
    /// # Errors
    ///
    /// What the system says when the stream cannot be watched; the stream is of no further use then.
    pub fn adopt(&mut self, stream: &mut Stream) -> io::Result<()> {
        match (&mut self.kind, &mut stream.kind) {
            (NetKind::Tcp(net), StreamKind::Tcp(link)) => net.adopt(link),
            (NetKind::Sim(..), StreamKind::Sim(link)) => {
                link.adopt();
                Ok(())
            }
            (_, StreamKind::Wrapped(wrapped)) => {
                self.adopt(wrapped.stream())?;
                wrapped.attach(self.destination(None));
                wrapped.raise();
                Ok(())
            }
            _ => Err(mixed_worlds()),
        }
    }

    /// Puts `token` on the list `list` with each first edge of the stream since its readiness was taken, and at once if
    /// there is one already. The stream must be this reactor's.
    pub(crate) fn watch(&mut self, stream: &mut Stream, list: usize, token: u64) {
        let watch = Watch { list, token };
        match (&mut self.kind, &mut stream.kind) {
            (NetKind::Tcp(net), StreamKind::Tcp(link)) => net.watch_link(link, watch),
            (NetKind::Sim(_, reactor), StreamKind::Sim(link)) => link.watch(*reactor, watch),
            (_, StreamKind::Wrapped(wrapped)) => {
                self.watch(wrapped.stream(), list, token);
                wrapped.attach(self.destination(Some(watch)));
            }
            _ => unreachable!("{}", mixed_worlds()),
        }
    }

    /// Puts `token` on the list `list` when the descriptor becomes readable.
    pub(crate) fn watch_descriptor(
        &mut self,
        descriptor: BorrowedFd<'_>,
        list: usize,
        token: u64,
    ) -> io::Result<WatchedDescriptor> {
        match &mut self.kind {
            NetKind::Tcp(net) => {
                let ready = net.watch_descriptor(descriptor, Watch { list, token })?;
                Ok(WatchedDescriptor(ready))
            }
            NetKind::Sim(..) => Err(mixed_worlds()),
        }
    }

    #[inline]
    pub(crate) fn next_ready(&mut self, list: usize) -> Option<u64> {
        match &mut self.kind {
            NetKind::Tcp(net) => net.next_ready(list),
            NetKind::Sim(network, reactor) => network.next_ready(*reactor, list),
        }
    }

    /// Socket system calls (read, write, accept, connect, event poll) made on this reactor so far, by streams too.
    pub fn socket_calls(&self) -> u64 {
        let turn = self
            .turn_start
            .map_or(0, |start| SOCKET_CALLS.get() - start);
        self.calls + turn
    }

    /// Looks for socket events without waiting.
    pub(crate) fn poll_events(&mut self) {
        match &mut self.kind {
            NetKind::Tcp(net) => net.poll(Some(Duration::ZERO)),
            NetKind::Sim(..) => {}
        }
    }

    /// Waits for socket events or the bell, at most for `timeout`.
    pub(crate) fn wait_events(&mut self, timeout: Option<Duration>) {
        match &mut self.kind {
            NetKind::Tcp(net) => net.poll(timeout),
            // A simulation never waits: it moves its clock.
            NetKind::Sim(..) => {}
        }
    }

    /// Whether a wrapper has told of an edge that nobody has taken up yet.
    pub(crate) fn has_raised(&self) -> bool {
        match &self.kind {
            NetKind::Tcp(net) => net.has_raised(),
            NetKind::Sim(..) => false,
        }
    }

    /// Starts attributing this thread's socket calls to this reactor.
    pub(crate) fn begin_turn(&mut self) {
        self.turn_start = Some(SOCKET_CALLS.get());
    }

    /// Stops attributing: in a simulation the thread goes on with another reactor.
    pub(crate) fn end_turn(&mut self) {
        self.calls = self.socket_calls();
        self.turn_start = None;
    }
}

/// A descriptor of the service's own that the reactor watches, for as long as this and the descriptor are there
/// ([`Context::watch_descriptor`](crate::Context::watch_descriptor)).
#[derive(Debug)]
pub struct WatchedDescriptor(Ready);

impl WatchedDescriptor {
    /// Whether the descriptor has become readable since this was asked last. The next edge is told again from now on.
    pub fn take_ready(&mut self) -> bool {
        self.0.take()
    }
}

/// A socket of the standard library that listens.
#[cfg(feature = "rpc")]
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A connected (or still connecting) byte stream that never blocks. Dropping it closes it.
///
/// A *hot* stream is simply read and written in every turn of its reactor. A *cold* one is read only when
/// [`Stream::take_ready`] says so, and then until [`io::ErrorKind::WouldBlock`]. Who has many cold ones lets the reactor
/// name those that had an edge: [`Context::watch`](crate::Context::watch).
///
/// A stream may be sent to another reactor by message; there, [`Net::adopt`] comes first.
#[derive(Debug)]
pub struct Stream {
    kind: StreamKind,
    calls: u64,
}

#[derive(Debug)]
#[cfg_attr(
    not(feature = "rpc"),
    expect(dead_code, reason = "only management listens at Unix sockets")
)]
enum StreamKind {
    Tcp(TcpLink),
    Unix(UnixLink),
    Sim(SimLink),
    /// The open arm: made outside, around another stream.
    Wrapped(Wrapped),
}

impl Stream {
    /// Whether the connection is up. `Ok(false)`: still connecting. Costs a system call only when an event was seen.
    ///
    /// # Errors
    ///
    /// Why the connection could not be made, for instance [`io::ErrorKind::ConnectionRefused`].
    pub fn connected(&mut self) -> io::Result<bool> {
        match &mut self.kind {
            StreamKind::Tcp(link) => link.connected(),
            StreamKind::Unix(_) => Ok(true),
            StreamKind::Sim(link) => link.connected(),
            StreamKind::Wrapped(stream) => stream.connected(),
        }
    }

    /// Reads what has arrived into `bufs`, in order, with one system call. `Ok(0)` is the end of the stream (or no room in
    /// `bufs`).
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when nothing has arrived; otherwise the connection is broken.
    pub fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.count();
        match &mut self.kind {
            StreamKind::Tcp(link) => link.read_vectored(bufs),
            StreamKind::Unix(link) => link.read_vectored(bufs),
            StreamKind::Sim(link) => link.read_vectored(bufs),
            StreamKind::Wrapped(stream) => stream.read_vectored(bufs),
        }
    }

    /// Like [`Stream::read_vectored`] with a single buffer.
    ///
    /// # Errors
    ///
    /// As [`Stream::read_vectored`].
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.count();
        match &mut self.kind {
            StreamKind::Tcp(link) => link.read(buf),
            StreamKind::Unix(link) => link.read(buf),
            StreamKind::Sim(link) => link.read_vectored(&mut [IoSliceMut::new(buf)]),
            StreamKind::Wrapped(stream) => stream.read_vectored(&mut [IoSliceMut::new(buf)]),
        }
    }

    /// Writes as much of `bufs` as the send buffer takes, in order, with one system call. Returns the number of bytes.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when the send buffer is full; otherwise the connection is broken, or not up yet.
    pub fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.count();
        match &mut self.kind {
            StreamKind::Tcp(link) => link.write_vectored(bufs),
            StreamKind::Unix(link) => link.write_vectored(bufs),
            StreamKind::Sim(link) => link.write_vectored(bufs),
            StreamKind::Wrapped(stream) => stream.write_vectored(bufs),
        }
    }

    /// Whether the reactor's event poll saw an edge (readable, writable, closed) since this was last asked. May be true
    /// with nothing to read; is never false for ever when there is something.
    pub fn take_ready(&mut self) -> bool {
        match &mut self.kind {
            StreamKind::Tcp(link) => link.take_ready(),
            StreamKind::Unix(link) => link.take_ready(),
            StreamKind::Sim(link) => link.take_ready(),
            StreamKind::Wrapped(stream) => stream.take_ready(),
        }
    }

    /// Whether an edge since this was last asked told of room to send, or that the stream is broken. Who was told
    /// [`io::ErrorKind::WouldBlock`] by [`Stream::write_vectored`] need not try again before: a peer that does not read
    /// then costs nothing.
    pub fn take_room(&mut self) -> bool {
        match &mut self.kind {
            StreamKind::Tcp(link) => link.take_room(),
            StreamKind::Unix(link) => link.take_room(),
            StreamKind::Sim(link) => link.take_room(),
            StreamKind::Wrapped(stream) => stream.take_room(),
        }
    }

    /// Does without edges until [`Stream::unmute`], where that saves the system work: whoever asks a stream in every turn
    /// need not be told that bytes have come. Both kinds of edges are taken for seen meanwhile, so nothing is missed by
    /// who asks for them. Before its reactor sleeps ([`Service::before_sleep`](crate::Service::before_sleep)) it has to be
    /// unmuted. Only TCP is ever muted; for another stream this does nothing.
    pub fn mute(&mut self) {
        if let StreamKind::Tcp(link) = &mut self.kind {
            link.mute();
        }
    }

    /// Ends [`Stream::mute`]. What came meanwhile is told by an edge.
    pub fn unmute(&mut self) {
        if let StreamKind::Tcp(link) = &mut self.kind {
            link.unmute();
        }
    }

    /// The socket, of TCP without a wrapper around it: to have the system do something to its bytes, as a wrapper of its own
    /// would. Nobody reads or writes data here but the stream.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            StreamKind::Tcp(link) => Some(link.socket()),
            StreamKind::Unix(_) | StreamKind::Sim(_) | StreamKind::Wrapped(_) => None,
        }
    }

    /// This side's address.
    ///
    /// # Errors
    ///
    /// What the system says, when the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            StreamKind::Tcp(link) => link.local_addr(),
            StreamKind::Unix(_) => Err(no_ip_address()),
            StreamKind::Sim(link) => link.local_addr(),
            StreamKind::Wrapped(stream) => stream.local_addr(),
        }
    }

    /// The other side's address.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotConnected`] before the connection is up or after it is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            StreamKind::Tcp(link) => link.peer_addr(),
            StreamKind::Unix(_) => Err(no_ip_address()),
            StreamKind::Sim(link) => link.peer_addr(),
            StreamKind::Wrapped(stream) => stream.peer_addr(),
        }
    }

    /// System calls made for this stream: its connect or accept, its reads and its writes.
    pub fn socket_calls(&self) -> u64 {
        match &self.kind {
            StreamKind::Wrapped(wrapped) => wrapped.socket_calls(),
            _ => self.calls,
        }
    }

    /// Counts a system call of this stream. The calls of a wrapper are those of what it wraps.
    #[inline]
    fn count(&mut self) {
        if !matches!(self.kind, StreamKind::Wrapped(_)) {
            self.calls += 1;
            count_call();
        }
    }
}

/// Accepts connections on one address. Dropping it closes it; connections that were not accepted yet are reset.
///
/// It stays on the reactor whose [`Net::listen`] made it.
#[derive(Debug)]
pub struct Listener {
    kind: ListenerKind,
}

#[derive(Debug)]
#[cfg_attr(
    not(feature = "rpc"),
    expect(dead_code, reason = "only management listens at Unix sockets")
)]
enum ListenerKind {
    Tcp(TcpListener),
    Unix(UnixListener),
    Sim(SimListener),
}

impl Listener {
    /// The next connection that waits, and where it comes from; `None` when none does. Costs a system call only when an
    /// event was seen, so it may be asked each turn.
    ///
    /// # Errors
    ///
    /// A connection that broke before it was accepted, or no more descriptors. The listener itself stays usable.
    pub fn accept(&mut self, net: &mut Net) -> io::Result<Option<(Stream, SocketAddr)>> {
        let accepted = self.accept_plain(net)?;
        Ok(accepted.map(|(stream, peer)| (net.wrap_opened(stream, Opened::Accepted), peer)))
    }

    fn accept_plain(&mut self, net: &mut Net) -> io::Result<Option<(Stream, SocketAddr)>> {
        let (kind, peer) = match (&mut self.kind, &mut net.kind) {
            (ListenerKind::Tcp(listener), NetKind::Tcp(net)) => match listener.accept(net)? {
                Some((link, peer)) => (StreamKind::Tcp(link), peer),
                None => return Ok(None),
            },
            (ListenerKind::Sim(listener), NetKind::Sim(..)) => match listener.accept() {
                Some((link, peer)) => (StreamKind::Sim(link), peer),
                None => return Ok(None),
            },
            (ListenerKind::Unix(_), _) => return Err(no_ip_address()),
            _ => return Err(mixed_worlds()),
        };
        Ok(Some((Stream { kind, calls: 1 }, peer)))
    }

    /// As [`accept`](Self::accept), also from a Unix socket, whose peers have no address. For management: nothing is put
    /// around these streams.
    #[cfg(feature = "rpc")]
    pub(crate) fn accept_stream(&mut self, net: &mut Net) -> io::Result<Option<Stream>> {
        match (&mut self.kind, &mut net.kind) {
            (ListenerKind::Unix(listener), NetKind::Tcp(net)) => {
                let link = listener.accept(net)?;
                Ok(link.map(|link| Stream {
                    kind: StreamKind::Unix(link),
                    calls: 1,
                }))
            }
            _ => Ok(self.accept_plain(net)?.map(|(stream, _)| stream)),
        }
    }

    /// The address that is listened on, with the real port.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.kind {
            ListenerKind::Tcp(listener) => listener.local_addr(),
            ListenerKind::Unix(_) => Err(no_ip_address()),
            ListenerKind::Sim(listener) => Ok(listener.local_addr()),
        }
    }
}

/// A Unix socket was asked for an IP address.
fn no_ip_address() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "a Unix socket has no IP address",
    )
}

/// A stream or listener of a simulation was brought to a real reactor, or to another one's world.
fn mixed_worlds() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "real and simulated streams do not mix",
    )
}

const _: () = {
    const fn assert_send<T: Send>() {}
    assert_send::<Stream>();
    assert_send::<Listener>();
};
