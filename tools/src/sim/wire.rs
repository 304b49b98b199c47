//! What is around every stream of a run: it judges what passes ([`Monitor`]) and does what the network cannot.
#![expect(
    clippy::disallowed_types,
    reason = "a stream must be Send although a run has one thread; the lock is never contended"
)]

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pollux_nvme_tcp::spec::pdu::PduType;
use pollux_reactor::{Edges, Opened, Stream, StreamWrapper, Time};

use super::book::Books;
use super::doubts::{Doubts, Queue};
use super::frames::{Frames, Place};
use super::monitor::{Monitor, News};
use super::peer::{Doing, Mischief, tamper};
use super::scenario::What;

/// All streams of a run.
#[derive(Clone, Debug)]
pub struct Wires(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Bit 0 header, bit 1 data, as [`Shape::digests`](super::scenario::Shape::digests).
    digests: u32,
    /// Most data of an H2CData PDU that hosts are told.
    data_max: Option<u32>,
    next: u64,
    ends: BTreeMap<u64, End>,
    mischief: BTreeMap<SocketAddr, Mischief>,
    /// The first rule that was broken, and how.
    broken: Option<(&'static str, String)>,
    doubts: Doubts,
    shut: Vec<Shut>,
    /// Since when controllers owe a sign of life, by the number of their admin connection.
    owed: BTreeMap<u64, Time>,
    books: Books,
    done: BTreeMap<What, u64>,
    commands: u64,
}

/// A namespace that a controller has refused a command for because of its ANA state: until the controller has told more, the
/// reactor sends no further one there (rule B3.4).
#[derive(Debug)]
struct Shut {
    /// The connection, and the controller by the number of its admin connection.
    id: u64,
    controller: u64,
    nsid: u32,
    queue: Queue,
    /// Turns that the reactor has had since.
    turns: u32,
}

/// One end of a connection.
#[derive(Debug, Default)]
struct End {
    edges: Option<Edges>,
    is_stalled: bool,
    is_half_closed: bool,
    flips: u32,
    /// They are for data.
    spares_headers: bool,
}

impl Wires {
    pub fn new((digests, h2c_kib): (u32, u32), doubts: Doubts, books: Books) -> Wires {
        Wires(Arc::new(Mutex::new(State {
            digests,
            data_max: (h2c_kib != 0).then_some(h2c_kib * 1024),
            next: 0,
            ends: BTreeMap::new(),
            mischief: BTreeMap::new(),
            broken: None,
            doubts,
            shut: Vec::new(),
            owed: BTreeMap::new(),
            books,
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
                Opened::Connected => {
                    let mut end = HostEnd::default();
                    end.monitor.told_data_max = state.data_max;
                    Side::Host(Box::new(end))
                }
                Opened::Accepted => Side::Target(Frames::default()),
            },
        })
    }

    /// Streams that there are.
    pub fn open(&self) -> usize {
        self.state().ends.len()
    }

    /// A rule that was broken, and how.
    pub fn broken(&self) -> Option<(&'static str, String)> {
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

    /// Does something with what is known of writes in doubt.
    pub fn doubts<T>(&self, act: impl FnOnce(&mut Doubts) -> T) -> T {
        act(&mut self.state().doubts)
    }

    /// No controller has owed its host a sign of life for so long, and is connected.
    pub fn judge_owed(&self, longest: Duration) {
        let mut state = self.state();
        let now = state.books.now();
        let late = state.owed.values().find(|&&since| now > since + longest);
        if let Some(&since) = late {
            let what = format!("Keep Alive of {since:?} was not answered, and the host waits");
            let rule = "a controller that misses a Keep Alive is reset (B9.2)";
            state.broken.get_or_insert((rule, what));
        }
    }

    /// The I/O reactor has received what there was, and is about to submit and to send.
    pub fn turn(&self, queue: Queue) {
        let mut state = self.state();
        for shut in state.shut.iter_mut().filter(|shut| shut.queue == queue) {
            shut.turns += 1;
        }
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
        self.one(which, |end| {
            end.flips += 1;
            end.spares_headers = !which.is_multiple_of(3);
        });
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

/// The end of a connection that is its host's.
#[derive(Debug, Default)]
struct HostEnd {
    monitor: Monitor,
    doing: Doing,
    /// The controller of an I/O queue, by the number of its admin connection.
    controller: Option<u64>,
    /// Not all that the host wanted to send was taken: what it has decided before may be sent later.
    is_behind: bool,
}

#[derive(Debug)]
enum Side {
    Host(Box<HostEnd>),
    Target(Frames),
}

/// The rule that [`Monitor`] judges by.
const PROTOCOL: &str = "the wire protocol is kept to";

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
            state.pass_all(self.id, &mut self.side, path, &mut buf[..here]);
            left -= here;
        }
        Ok(len)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.stream.write_vectored(bufs);
        if let Side::Host(end) = &mut self.side {
            let total = bufs.iter().map(|buf| buf.len()).sum::<usize>();
            end.is_behind = written.as_ref().map_or(true, |len| *len < total);
        }
        let len = written?;
        if let Side::Host(end) = &mut self.side {
            let mut left = len;
            let before = end.monitor.commands;
            for buf in bufs {
                let here = left.min(buf.len());
                if let Err(broken) = end.monitor.sent(&buf[..here]) {
                    self.wires.state().broken.get_or_insert((PROTOCOL, broken));
                }
                left -= here;
            }
            let mut state = self.wires.state();
            state.commands += end.monitor.commands - before;
            state.follow(self.id, end, self.stream.peer_addr().ok());
        }
        Ok(len)
    }
}

impl State {
    /// Takes in what has come to be known on a connection.
    fn follow(&mut self, id: u64, end: &mut HostEnd, path: Option<SocketAddr>) {
        while let Some(news) = end.monitor.news.pop_front() {
            let (Some(host), Some(path)) = (end.monitor.host, path) else {
                continue;
            };
            match news {
                News::Joined(cntlid) => {
                    end.controller = self.doubts.controller(host, path, cntlid);
                }
                News::Identified(instance) => {
                    self.doubts.identified(id, host, path, instance);
                }
                News::Ended => self.doubts.admin_lost(id, self.books.now()),
                News::Reset(instance) => self.doubts.was_reset(host, instance),
                News::KeepAlive => {
                    let now = self.books.now();
                    self.owed.entry(id).or_insert(now);
                }
                News::Alive => {
                    self.owed.remove(&id);
                }
                News::Told => self.shut.retain(|shut| shut.controller != id),
                News::Shut(nsid) => self.shuts(id, end, (host, path), nsid),
                News::Sent(nsid) => {
                    let is_it = |s: &Shut| (s.id, s.nsid) == (id, nsid) && s.turns > 1;
                    if self.shut.iter().any(is_it) {
                        let rule = "what an ANA status says counts at once (B3.4)";
                        let what = format!("a command for namespace {nsid} is sent to {path}");
                        self.broken.get_or_insert((rule, what));
                    }
                }
                News::Changes(change) => {
                    let queue = (host, end.monitor.qid.unwrap_or(0));
                    let now = self.books.now();
                    if let Err(what) = self.doubts.sent(queue, &change, now) {
                        let rule = "what is in doubt is not overtaken (B14)";
                        self.broken.get_or_insert((rule, what));
                    }
                }
            }
        }
    }

    /// A controller has refused a command because of the ANA state.
    fn shuts(&mut self, id: u64, end: &HostEnd, (host, path): (u128, SocketAddr), nsid: u32) {
        // What was done to a completion on its way is another status for the host.
        let (Some(controller), Some(qid)) = (end.controller, end.monitor.qid) else {
            return;
        };
        let is_known = self.shut.iter().any(|s| (s.id, s.nsid) == (id, nsid));
        if !is_known && !end.is_behind && !self.mischief.contains_key(&path) {
            self.shut.push(Shut {
                id,
                controller,
                nsid,
                queue: (host, qid),
                turns: 0,
            });
        }
    }

    /// The host has closed a connection.
    fn closed(&mut self, id: u64, end: &HostEnd) {
        self.owed.remove(&id);
        self.shut
            .retain(|shut| shut.id != id && shut.controller != id);
        let now = self.books.now();
        self.doubts.admin_lost(id, now);
        let (monitor, controller) = (&end.monitor, end.controller);
        if let (Some(host), Some(qid), Some(controller)) = (monitor.host, monitor.qid, controller) {
            for changes in monitor.in_doubt() {
                self.doubts.lost(controller, (host, qid), changes, now);
            }
        }
    }

    /// Bytes go to whoever reads at this end. Data that nothing happens to is not looked at.
    fn pass_all(
        &mut self,
        id: u64,
        side: &mut Side,
        path: Option<SocketAddr>,
        mut bytes: &mut [u8],
    ) {
        let is_harmed = self.ends.get(&id).is_some_and(|end| end.flips > 0)
            || path.is_some_and(|path| self.mischief.contains_key(&path));
        loop {
            if !is_harmed {
                let skipped = match side {
                    Side::Host(end) => end.monitor.skip(bytes.len()),
                    Side::Target(frames) => frames.skip(bytes.len()),
                };
                bytes = &mut bytes[skipped..];
            }
            let Some((byte, rest)) = bytes.split_first_mut() else {
                return;
            };
            self.pass(id, side, path, byte);
            bytes = rest;
        }
    }

    /// A byte goes to whoever reads at this end.
    fn pass(&mut self, id: u64, side: &mut Side, path: Option<SocketAddr>, byte: &mut u8) {
        let (place, kind) = match side {
            Side::Host(end) => {
                let place = match end.monitor.received(*byte) {
                    Ok(place) => place,
                    Err(broken) => {
                        self.broken.get_or_insert((PROTOCOL, broken));
                        return;
                    }
                };
                if !end.monitor.news.is_empty() {
                    self.follow(id, end, path);
                }
                if let (Some(most), Place::Header(at @ 12..16), PduType::ICRESP) =
                    (self.data_max, place, end.monitor.header().kind())
                {
                    *byte = most.to_le_bytes()[at - 12];
                }
                let HostEnd { monitor, doing, .. } = &mut **end;
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
            && !(end.spares_headers && self.digests & 2 != 0 && matches!(place, Place::Header(_)))
        {
            end.flips -= 1;
            *byte ^= 0x10;
            *self.done.entry(What::Flip).or_default() += 1;
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut state = self.wires.state();
        state.ends.remove(&self.id);
        if let Side::Host(end) = &self.side {
            state.closed(self.id, end);
        }
    }
}
