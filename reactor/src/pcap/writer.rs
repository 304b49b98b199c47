//! The thread that makes packets and writes them.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::frame::{ACK, FIN, PSH, RST, SYN, Tcp};
use super::{Captured, Content, Event, Segment, What};
use crate::net::wrap::Opened;
use crate::time::Time;

/// Classic format, times in nanoseconds, in the byte order of this machine.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
/// The longest packet that readers must expect.
const SNAPLEN: u32 = 0x4_0000;
const LINKTYPE_ETHERNET: u32 = 1;

/// Connections that were written and are gone, of which the other end may still come.
const GONE_MAX: usize = 1024;

/// A connection by its addresses: who connected, who accepted.
type Pair = (SocketAddr, SocketAddr);

struct Flow {
    opened: Opened,
    local: SocketAddr,
    peer: SocketAddr,
    /// Sequence number of the first byte of either direction.
    first_sent: u32,
    first_received: u32,
}

impl Flow {
    fn pair(&self) -> Pair {
        match self.opened {
            Opened::Connected => (self.local, self.peer),
            Opened::Accepted => (self.peer, self.local),
        }
    }
}

/// A file and the connections that are written to it.
pub(super) struct Writer {
    file: BufWriter<File>,
    /// One moment by either clock.
    wall: Duration,
    clock: Time,
    flows: BTreeMap<u64, Flow>,
    written: BTreeMap<Pair, u64>,
    gone: VecDeque<Pair>,
    captured: Captured,
}

impl Writer {
    pub(super) fn new(file: File) -> io::Result<Writer> {
        #[expect(
            clippy::disallowed_methods,
            reason = "packets bear the time of day, which no reactor knows; it decides nothing"
        )]
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut file = BufWriter::new(file);
        let mut header = Vec::new();
        header.extend_from_slice(&MAGIC.to_ne_bytes());
        header.extend(VERSION.into_iter().flat_map(u16::to_ne_bytes));
        header.extend_from_slice(&[0; 8]);
        header.extend_from_slice(&SNAPLEN.to_ne_bytes());
        header.extend_from_slice(&LINKTYPE_ETHERNET.to_ne_bytes());
        file.write_all(&header)?;
        file.flush()?;
        Ok(Writer {
            file,
            // A clock before 1970 is as good as 1970.
            wall: wall.unwrap_or_default(),
            clock: Time::read_clock(),
            flows: BTreeMap::new(),
            written: BTreeMap::new(),
            gone: VecDeque::new(),
            captured: Captured::default(),
        })
    }

    /// Writes until it is told to finish, or nobody is left to tell it.
    pub(super) fn run(mut self, events: &Receiver<Event>) -> Captured {
        loop {
            let event = match events.try_recv() {
                Ok(event) => event,
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // A process that is killed leaves all but the last moment.
                    self.flush();
                    match events.recv() {
                        Ok(event) => event,
                        Err(_) => break,
                    }
                }
            };
            if matches!(event.what, What::Finish) {
                break;
            }
            self.take(event);
        }
        self.flush();
        self.captured
    }

    fn take(&mut self, event: Event) {
        let Event { flow: id, at, what } = event;
        match what {
            What::Open {
                opened,
                local,
                peer,
                skip,
            } => {
                let flow = Flow {
                    opened,
                    local,
                    peer,
                    first_sent: initial(2 * id),
                    first_received: initial(2 * id + 1),
                };
                let pair = flow.pair();
                let late = opened == Opened::Accepted && self.gone.contains(&pair);
                if late || self.written.contains_key(&pair) {
                    skip.store(true, Ordering::Relaxed);
                    return;
                }
                self.handshake(&flow, at);
                self.written.insert(pair, id);
                self.flows.insert(id, flow);
            }
            What::Segment(segment) => self.segment(id, at, &segment),
            What::Gone => {
                let Some(flow) = self.flows.remove(&id) else {
                    return;
                };
                let pair = flow.pair();
                self.written.remove(&pair);
                if flow.opened == Opened::Connected {
                    self.gone.truncate(GONE_MAX - 1);
                    self.gone.push_front(pair);
                }
            }
            What::Finish => unreachable!("the loop ends by it"),
        }
    }

    fn handshake(&mut self, flow: &Flow, at: Time) {
        let (client, server) = flow.pair();
        let (of_client, of_server) = match flow.opened {
            Opened::Connected => (flow.first_sent, flow.first_received),
            Opened::Accepted => (flow.first_received, flow.first_sent),
        };
        let before = |first: u32| first.wrapping_sub(1);
        self.put(
            at,
            &Tcp {
                from: client,
                to: server,
                seq: before(of_client),
                ack: 0,
                flags: SYN,
                payload: &[],
            },
        );
        self.put(
            at,
            &Tcp {
                from: server,
                to: client,
                seq: before(of_server),
                ack: of_client,
                flags: SYN | ACK,
                payload: &[],
            },
        );
        self.put(
            at,
            &Tcp {
                from: client,
                to: server,
                seq: of_client,
                ack: of_server,
                flags: ACK,
                payload: &[],
            },
        );
    }

    fn segment(&mut self, id: u64, at: Time, segment: &Segment) {
        // A connection whose other end is written tells a little more before it knows that.
        let Some(flow) = self.flows.get(&id) else {
            return;
        };
        let (flags, payload): (u8, &[u8]) = match &segment.content {
            Content::Bytes(bytes) => (PSH | ACK, bytes),
            Content::Fin => (FIN | ACK, &[]),
            Content::Reset => (RST | ACK, &[]),
        };
        let sent = (flow.local, flow.first_sent);
        let received = (flow.peer, flow.first_received);
        let ((from, first), (to, other)) = match segment.is_sent {
            true => (sent, received),
            false => (received, sent),
        };
        let packet = Tcp {
            from,
            to,
            seq: place(first, segment.offset),
            ack: place(other, segment.acknowledged),
            flags,
            payload,
        };
        self.put(at, &packet);
    }

    fn put(&mut self, at: Time, packet: &Tcp<'_>) {
        if self.captured.error.is_some() {
            self.captured.left_out += 1;
            return;
        }
        let frame = packet.frame();
        let time = self.wall + (at - self.clock);
        match self.record(time, &frame) {
            Ok(()) => self.captured.packets += 1,
            Err(error) => {
                self.captured.left_out += 1;
                self.captured.error = Some(error);
            }
        }
    }

    fn record(&mut self, time: Duration, frame: &[u8]) -> io::Result<()> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the format has 32 bits for seconds, and for lengths below SNAPLEN"
        )]
        let words = [
            time.as_secs() as u32,
            time.subsec_nanos(),
            frame.len() as u32,
            frame.len() as u32,
        ];
        for word in words {
            self.file.write_all(&word.to_ne_bytes())?;
        }
        self.file.write_all(frame)
    }

    fn flush(&mut self) {
        if self.captured.error.is_none()
            && let Err(error) = self.file.flush()
        {
            self.captured.error = Some(error);
        }
    }
}

/// Sequence number of the first byte of a direction: another one for each, so that a connection that has the addresses of
/// an earlier one is not taken for it.
fn initial(direction: u64) -> u32 {
    place(1, direction.wrapping_mul(0x9e37_79b1))
}

/// The sequence number `offset` bytes after `first`.
pub(super) fn place(first: u32, offset: u64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "sequence numbers wrap around at 32 bits"
    )]
    let offset = offset as u32;
    first.wrapping_add(offset)
}
