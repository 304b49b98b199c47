//! Writes what streams carry to a file that packet analysers read.
//!
//! A stream knows bytes and no packets, so the packets are made up: Ethernet, IP and TCP headers with the real addresses,
//! sequence numbers that count the real bytes, a handshake at the start and a FIN at the end. Times are those at which a
//! reactor read or wrote. Retransmissions, windows and what else only the kernel sees are not there.
//!
//! A connection of which both ends are in this process is written once, as its connecting side sees it.
//!
//! The reactors only copy. A thread of its own makes the packets and writes the file; up to 1,024 packets of
//! 32 KiB at most wait for it (32 MiB). What does not fit is left out and counted, and shows in the file as a
//! gap of the sequence numbers. Copies cost time and memory: a run that is captured is no measurement.
//!
//! ```no_run
//! use pollux_reactor::Group;
//! use pollux_reactor::pcap::Capture;
//!
//! let capture = Capture::create("io.pcap".as_ref())?;
//! let mut group = Group::new();
//! group.wrap_streams(capture.wrapper());
//! // Reactors and services are added, the group runs and ends; then:
//! let captured = capture.finish();
//! println!("{} packets, {} left out", captured.packets, captured.left_out);
//! # Ok::<(), std::io::Error>(())
//! ```

mod frame;
mod tap;
mod writer;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use tap::Tap;
use writer::Writer;

use crate::net::Stream;
use crate::net::wrap::{Opened, StreamWrapper};
use crate::time::Time;

/// Packets that wait to be written.
const QUEUE: usize = 1024;

/// Payload of a packet: with its headers it fits into the 64 KiB of an IP packet.
const SEGMENT: usize = 32 * 1024;

/// A file that is being written.
#[derive(Debug)]
pub struct Capture {
    shared: Shared,
    thread: Option<JoinHandle<Captured>>,
}

/// What came of a [`Capture`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Captured {
    /// Packets in the file.
    pub packets: u64,
    /// Packets that are not in the file, because its writer did not keep up or the file could not be written.
    pub left_out: u64,
    /// Why the file could not be written any more.
    pub error: Option<io::Error>,
}

/// What all taps share.
#[derive(Clone, Debug)]
struct Shared {
    events: SyncSender<Event>,
    left_out: Arc<AtomicU64>,
    /// Names the next connection.
    next_flow: Arc<AtomicU64>,
}

/// What happens on one connection, from the taps to the writer.
#[derive(Debug)]
struct Event {
    flow: u64,
    at: Time,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The connection is up. `skip` is set if its other end is being written already.
    Open {
        opened: Opened,
        local: std::net::SocketAddr,
        peer: std::net::SocketAddr,
        skip: Arc<AtomicBool>,
    },
    /// Bytes, or an end, in one direction.
    Segment(Segment),
    /// This side is gone.
    Gone,
    /// The file is complete.
    Finish,
}

/// A piece of one direction, by its place in that direction's bytes.
#[derive(Debug)]
struct Segment {
    is_sent: bool,
    offset: u64,
    /// Bytes of the other direction so far.
    acknowledged: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

impl Capture {
    /// Creates the file, or empties the one that is there, and starts its writer.
    ///
    /// # Errors
    ///
    /// What the system says of the file or the thread.
    pub fn create(path: &Path) -> io::Result<Capture> {
        let (events, received) = sync_channel(QUEUE);
        let writer = Writer::new(File::create(path)?)?;
        let thread = Builder::new()
            .name("pcap".into())
            .spawn(move || writer.run(&received))?;
        Ok(Capture {
            shared: Shared {
                events,
                left_out: Arc::default(),
                next_flow: Arc::default(),
            },
            thread: Some(thread),
        })
    }

    /// What goes to [`Group::wrap_streams`](crate::Group::wrap_streams).
    pub fn wrapper(
        &self,
    ) -> impl Fn(Stream, Opened) -> Box<dyn StreamWrapper> + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |stream, opened| Box::new(Tap::new(stream, opened, shared.clone()))
    }

    /// Waits until everything that was captured so far is in the file. What streams carry later is left out, so this comes
    /// after the reactors have ended. Blocks.
    pub fn finish(mut self) -> Captured {
        self.end()
    }

    fn end(&mut self) -> Captured {
        let Some(thread) = self.thread.take() else {
            return Captured::default();
        };
        let finish = Event {
            flow: 0,
            at: Time::read_clock(),
            what: What::Finish,
        };
        // Refused by a writer that has ended by a panic, which the join tells.
        let _ = self.shared.events.send(finish);
        match thread.join() {
            Ok(mut captured) => {
                captured.left_out += self.shared.left_out.load(Ordering::Relaxed);
                captured
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests;
