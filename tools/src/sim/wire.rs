//! What is around every stream of a run: it judges what passes ([`Monitor`]) and does what the network cannot.
#![expect(
    clippy::disallowed_types,
    reason = "a stream must be Send although a run has one thread; the lock is never contended"
)]

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pollux_nvme_tcp::spec::pdu::PduType;
use pollux_reactor::{Edges, Opened, Stream, StreamWrapper};

use super::frames::{Frames, Place};
use super::monitor::Monitor;
use super::peer::{Doing, Mischief, tamper};
use super::scenario::What;

/// All streams of a run.
#[derive(Clone, Debug)]
pub struct Wires(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Bit 0 header, bit 1 data, as [`Shape::digests`](super::scenario::Shape::digests).
    digests: u32,
    next: u64,
    ends: BTreeMap<u64, End>,
    mischief: BTreeMap<SocketAddr, Mischief>,
    /// The first fault of a protocol.
    broken: Option<String>,
    done: BTreeMap<What, u64>,
    commands: u64,
}

/// One end of a connection.
#[derive(Debug, Default)]
struct End {
    edges: Option<Edges>,
    is_stalled: bool,
    is_half_closed: bool,
    flips: u32,
}

impl Wires {
    pub fn new(digests: u32) -> Wires {
        Wires(Arc::new(Mutex::new(State {
            digests,
            next: 0,
            ends: BTreeMap::new(),
            mischief: BTreeMap::new(),
            broken: None,
            done: BTreeMap::new(),
            commands: 0,
        })))
    }

    /// What is put around a stream.
    pub fn around(&self, stream: Stream, opened: Opened) -> Box<dyn StreamWrapper> {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.ends.insert(id, End::default());
        Box::new(Wire {
            wires: self.clone(),
            stream,
            id,
            side: match opened {
                Opened::Connected => Side::Host(Box::default(), Doing::Nothing),
                Opened::Accepted => Side::Target(Frames::default()),
            },
        })
    }

    /// Streams that there are.
    pub fn open(&self) -> usize {
        self.state().ends.len()
    }

    /// What a peer must not have done.
    pub fn broken(&self) -> Option<String> {
        self.state().broken.take()
    }

    /// Commands that hosts have sent.
    pub fn commands(&self) -> u64 {
        self.state().commands
    }

    /// How often what was done on the way.
    pub fn done(&self) -> BTreeMap<What, u64> {
        self.state().done.clone()
    }

    /// Has one end do something; the one at this place among all.
    fn one(&self, which: u64, act: impl FnOnce(&mut End)) -> Option<u64> {
        let mut state = self.state();
        let count = state.ends.len() as u64;
        let at = usize::try_from(which.checked_rem(count)?).ok()?;
        let (&id, end) = state.ends.iter_mut().nth(at)?;
        act(end);
        Some(id)
    }

    /// An end delivers nothing from now on. Returns its name.
    pub fn stall(&self, which: u64) -> Option<u64> {
        self.one(which, |end| end.is_stalled = true)
    }

    /// It does again.
    pub fn release(&self, id: u64) {
        let edges = self.state().ends.get_mut(&id).and_then(|end| {
            end.is_stalled = false;
            end.edges.clone()
        });
        if let Some(edges) = edges {
            edges.raise();
        }
    }

    /// An end sees the end of the stream.
    pub fn half_close(&self, which: u64) {
        let mut edges = None;
        self.one(which, |end| {
            end.is_half_closed = true;
            edges = end.edges.clone();
        });
        if let Some(edges) = edges {
            edges.raise();
        }
    }

    /// A byte changes that an end receives.
    pub fn flip(&self, which: u64) {
        self.one(which, |end| end.flips += 1);
    }

    /// Does something to a path.
    pub fn mischief(&self, path: SocketAddr, act: impl FnOnce(&mut Mischief)) {
        act(self.state().mischief.entry(path).or_default());
    }

    /// Nothing more happens to anybody.
    pub fn heal(&self) {
        let mut state = self.state();
        state.mischief.clear();
        let ends = state.ends.values_mut();
        let stalled: Vec<Edges> = ends
            .filter_map(|end| {
                end.flips = 0;
                let stalled = std::mem::take(&mut end.is_stalled);
                end.edges.clone().filter(|_| stalled)
            })
            .collect();
        drop(state);
        for edges in stalled {
            edges.raise();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum Side {
    Host(Box<Monitor>, Doing),
    Target(Frames),
}

#[derive(Debug)]
struct Wire {
    wires: Wires,
    stream: Stream,
    id: u64,
    side: Side,
}

impl StreamWrapper for Wire {
    fn inner(&self) -> &Stream {
        &self.stream
    }

    fn inner_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn on_edges(&mut self, edges: Edges) {
        if let Some(end) = self.wires.state().ends.get_mut(&self.id) {
            end.edges = Some(edges);
        }
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        {
            let state = self.wires.state();
            let end = state.ends.get(&self.id);
            if end.is_some_and(|end| end.is_half_closed) {
                return Ok(0);
            }
            if end.is_some_and(|end| end.is_stalled) {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
        let len = self.stream.read_vectored(bufs)?;
        let path = self.stream.peer_addr().ok();
        let mut state = self.wires.state();
        let mut left = len;
        for buf in bufs {
            let here = left.min(buf.len());
            for byte in &mut buf[..here] {
                state.pass(self.id, &mut self.side, path, byte);
            }
            left -= here;
        }
        Ok(len)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = self.stream.write_vectored(bufs)?;
        if let Side::Host(monitor, _) = &mut self.side {
            let mut left = len;
            let before = monitor.commands;
            for buf in bufs {
                let here = left.min(buf.len());
                if let Err(broken) = monitor.sent(&buf[..here]) {
                    self.wires.state().broken.get_or_insert(broken);
                }
                left -= here;
            }
            if monitor.commands != before {
                self.wires.state().commands += monitor.commands - before;
            }
        }
        Ok(len)
    }
}

impl State {
    /// A byte goes to whoever reads at this end.
    fn pass(&mut self, id: u64, side: &mut Side, path: Option<SocketAddr>, byte: &mut u8) {
        let (place, kind) = match side {
            Side::Host(monitor, doing) => {
                let place = match monitor.received(*byte) {
                    Ok(place) => place,
                    Err(broken) => {
                        self.broken.get_or_insert(broken);
                        return;
                    }
                };
                if let Some(mischief) = path.and_then(|path| self.mischief.get_mut(&path))
                    && let Some(what) = tamper(mischief, doing, monitor, place, byte)
                {
                    *self.done.entry(what).or_default() += 1;
                }
                (place, monitor.header().kind())
            }
            Side::Target(frames) => (frames.take(*byte).0, frames.header().kind()),
        };
        let covered = match place {
            Place::Header(_) => self.digests & 1 != 0,
            Place::Data(_) => self.digests & 2 != 0,
            Place::Between => false,
        };
        let has_digests = ![
            PduType::ICREQ,
            PduType::ICRESP,
            PduType::H2C_TERM_REQ,
            PduType::C2H_TERM_REQ,
        ]
        .contains(&kind);
        if covered
            && has_digests
            && let Some(end) = self.ends.get_mut(&id)
            && end.flips > 0
        {
            end.flips -= 1;
            *byte ^= 0x10;
            *self.done.entry(What::Flip).or_default() += 1;
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.wires.state().ends.remove(&self.id);
    }
}
