//! Streams that are made outside and wrap another one: a fault injector, a tracer, a writer of packets, TLS.
//!
//! A wrapper promises what every stream promises (see the module above). All its methods but two pass on to what it wraps,
//! so it says only what it does otherwise. What its socket cannot tell of, it tells by [`Edges`]: bytes that it has kept
//! back, room that it has again, the end of a handshake on another thread.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::SegQueue;

use super::Stream;
use super::ready::Watch;
use super::sim::SimNetwork;
use crate::mailbox::Bell;

/// A stream around another one. What goes in here is called in turns of the reactor and must not block.
///
/// ```
/// use std::io::{self, IoSliceMut};
/// use pollux_reactor::{Group, Stream, StreamWrapper};
///
/// /// Counts what is read, and tells it when the connection is closed.
/// #[derive(Debug)]
/// struct Counting {
///     stream: Stream,
///     read: usize,
/// }
///
/// impl StreamWrapper for Counting {
///     fn inner(&self) -> &Stream {
///         &self.stream
///     }
///
///     fn inner_mut(&mut self) -> &mut Stream {
///         &mut self.stream
///     }
///
///     fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
///         let len = self.stream.read_vectored(bufs)?;
///         self.read += len;
///         Ok(len)
///     }
/// }
///
/// impl Drop for Counting {
///     fn drop(&mut self) {
///         eprintln!("{} bytes read", self.read);
///     }
/// }
///
/// let mut group = Group::new();
/// group.wrap_streams(|stream, _opened| Box::new(Counting { stream, read: 0 }));
/// ```
pub trait StreamWrapper: Send + fmt::Debug {
    /// What is wrapped.
    fn inner(&self) -> &Stream;

    /// What is wrapped.
    fn inner_mut(&mut self) -> &mut Stream;

    /// Takes what the wrapper tells of its own edges by: at first when the stream is opened, and anew whenever it moves to
    /// another reactor or its user wants to be told otherwise. The last one counts.
    fn on_edges(&mut self, edges: Edges) {
        let _ = edges;
    }

    /// As [`Stream::connected`].
    ///
    /// # Errors
    ///
    /// As there.
    fn connected(&mut self) -> io::Result<bool> {
        self.inner_mut().connected()
    }

    /// As [`Stream::read_vectored`].
    ///
    /// # Errors
    ///
    /// As there.
    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.inner_mut().read_vectored(bufs)
    }

    /// As [`Stream::write_vectored`].
    ///
    /// # Errors
    ///
    /// As there.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.inner_mut().write_vectored(bufs)
    }
}

/// How a stream came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// By [`Net::connect`](super::Net::connect); it may still be connecting.
    Connected,
    /// By [`Listener::accept`](super::Listener::accept).
    Accepted,
}

/// By which a wrapper tells of an edge, from any thread.
#[derive(Clone, Debug)]
pub struct Edges {
    seen: Arc<AtomicU8>,
    to: Edge,
}

impl Edges {
    /// The stream has something to read, room to write, an end, or may: whoever uses it looks, and a reactor that sleeps
    /// wakes for it.
    pub fn raise(&self) {
        let before = self.seen.swap(READY | ROOM, Ordering::AcqRel);
        // A token is told once until readiness is asked for. The reactor has a turn in any case: a stream that is looked at
        // in every turn is not asked.
        let is_first = before & READY == 0;
        match &self.to {
            Edge::Reactor(raised, watch) => match watch.filter(|_| is_first) {
                None if !raised.is_empty() => {}
                watch => raised.put(watch),
            },
            Edge::Simulation(network, reactor, watch) => {
                network.raise(*reactor, watch.filter(|_| is_first));
            }
        }
    }
}

const READY: u8 = 1;
const ROOM: u8 = 2;

/// Where edges go.
#[derive(Clone, Debug)]
pub(super) enum Edge {
    Reactor(Arc<Raised>, Option<Watch>),
    Simulation(SimNetwork, usize, Option<Watch>),
}

/// Edges that wrappers have told one reactor of.
#[derive(Debug, Default)]
pub(crate) struct Raised {
    /// Who is told; `None` for streams that are looked at in every turn.
    queue: SegQueue<Option<Watch>>,
    bell: OnceLock<Arc<Bell>>,
}

impl Raised {
    pub(super) fn set_bell(&self, bell: &Arc<Bell>) {
        assert!(
            self.bell.set(Arc::clone(bell)).is_ok(),
            "a reactor has one bell"
        );
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn take(&self) -> Option<Option<Watch>> {
        self.queue.pop()
    }

    fn put(&self, watch: Option<Watch>) {
        self.queue.push(watch);
        // Pairs with the fence in `Bell::sleep_unless`: either we see that the reactor sleeps, or it sees the edge.
        fence(Ordering::SeqCst);
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }
}

/// Makes wrappers; the same for every reactor.
#[derive(Clone)]
pub(crate) struct Wrap(Arc<dyn Fn(Stream, Opened) -> Box<dyn StreamWrapper> + Send + Sync>);

impl Wrap {
    pub(crate) fn new(
        wrap: impl Fn(Stream, Opened) -> Box<dyn StreamWrapper> + Send + Sync + 'static,
    ) -> Wrap {
        Wrap(Arc::new(wrap))
    }

    pub(super) fn around(&self, stream: Stream, opened: Opened) -> Box<dyn StreamWrapper> {
        (self.0)(stream, opened)
    }
}

impl fmt::Debug for Wrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrap")
    }
}

/// A wrapper and its own edges.
#[derive(Debug)]
pub(super) struct Wrapped {
    wrapper: Box<dyn StreamWrapper>,
    seen: Arc<AtomicU8>,
    edges: Option<Edges>,
}

impl Wrapped {
    pub(super) fn new(wrapper: Box<dyn StreamWrapper>) -> Wrapped {
        Wrapped {
            wrapper,
            seen: Arc::default(),
            edges: None,
        }
    }

    pub(super) fn stream(&mut self) -> &mut Stream {
        self.wrapper.inner_mut()
    }

    /// Says where edges go from now on. One that was raised before and not looked at goes there at once.
    pub(super) fn attach(&mut self, to: Edge) {
        let edges = Edges {
            seen: Arc::clone(&self.seen),
            to,
        };
        let raised = self.seen.fetch_and(!READY, Ordering::AcqRel) & READY != 0;
        self.wrapper.on_edges(edges.clone());
        if raised {
            edges.raise();
        }
        self.edges = Some(edges);
    }

    pub(super) fn raise(&self) {
        if let Some(edges) = &self.edges {
            edges.raise();
        }
    }

    pub(super) fn connected(&mut self) -> io::Result<bool> {
        self.wrapper.connected()
    }

    pub(super) fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.wrapper.read_vectored(bufs)
    }

    pub(super) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.wrapper.write_vectored(bufs)
    }

    pub(super) fn take_ready(&mut self) -> bool {
        let own = self.seen.fetch_and(!READY, Ordering::AcqRel) & READY != 0;
        self.stream().take_ready() | own
    }

    pub(super) fn take_room(&mut self) -> bool {
        let own = self.seen.fetch_and(!ROOM, Ordering::AcqRel) & ROOM != 0;
        self.stream().take_room() | own
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.wrapper.inner().local_addr()
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.wrapper.inner().peer_addr()
    }

    pub(super) fn socket_calls(&self) -> u64 {
        self.wrapper.inner().socket_calls()
    }
}
