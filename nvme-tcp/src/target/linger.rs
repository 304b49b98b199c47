//! Connections that are over but for their last words.
//!
//! A socket that is closed with unread bytes resets the connection, and the peer may then never see the
//! TermReq or the last response. So what still arrives is read and dropped until the peer closes, for a
//! limited time (NVMe/TCP 1.1, 3.5: the side that got a TermReq closes).

use std::time::Duration;

use pollux_reactor::{Context, Progress, Time};

use super::connection::{Connection, End};

/// How long to wait for the peer to close.
const LINGER: Duration = Duration::from_secs(5);

/// Connections beyond this number are closed at once.
const LINGERING_MAX: usize = 64;

/// Token of the timers that [`Lingering::add`] sets; they only wake the reactor.
pub(super) const LINGER_TIMER: u64 = u64::MAX;

/// The connections that are about to be closed.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    connections: Vec<(Connection, Time)>,
}

impl Lingering {
    /// Sees a connection off that ended for this reason.
    pub(super) fn add(&mut self, mut connection: Connection, end: End, cx: &mut Context<'_>) {
        let waits = matches!(end, End::Fault(_) | End::Disconnected);
        if !waits || connection.flush().is_err() || self.connections.len() >= LINGERING_MAX {
            return;
        }
        let deadline = cx.now() + LINGER;
        cx.set_timer(deadline, LINGER_TIMER);
        self.connections.push((connection, deadline));
    }

    /// Sends, drops what arrives, and closes what is closed or late.
    #[inline]
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Progress {
        if self.connections.is_empty() {
            return Progress::Idle;
        }
        let mut progress = Progress::Idle;
        self.connections.retain_mut(|(connection, deadline)| {
            let sent = connection.flush();
            let unread = connection.rx.data().len();
            connection.rx.consume(unread);
            let received = connection.fill();
            if matches!(received, Ok(1..)) {
                progress = Progress::Busy;
            }
            sent.is_ok() && received.is_ok() && cx.now() < *deadline
        });
        progress
    }
}
