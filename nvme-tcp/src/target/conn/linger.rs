//! Connections that have ended and are about to be closed.
//!
//! A socket that is closed with unread bytes resets the connection, and the peer may then never see the
//! TermReq or the last response. So what still arrives is read and dropped until the peer closes, for a
//! limited time (NVMe/TCP 1.1, 3.5: the side that got a TermReq closes).

use std::time::Duration;

use pollux_reactor::{Context, Progress, Time};

use crate::target::conn::buffers::Buffers;
use crate::target::conn::connection::{Connection, End};
use crate::target::token;

/// How long to wait for the peer to close.
const LINGER: Duration = Duration::from_secs(5);

/// Connections beyond this number are closed at once.
const LINGERING_MAX: usize = 64;

/// Receives per connection and turn.
const ROUNDS_MAX: usize = 4;

/// A connection that is about to be closed.
#[derive(Debug)]
struct Leaving {
    connection: Connection,
    deadline: Time,
    /// To be read even without an edge.
    unread: bool,
}

/// The connections that are about to be closed.
#[derive(Debug, Default)]
pub(in crate::target) struct Lingering {
    /// In the order of their deadlines.
    connections: Vec<Leaving>,
    /// One of them has had an edge.
    due: bool,
}

impl Lingering {
    /// Sees a connection off that ended for this reason.
    pub(in crate::target) fn add(
        &mut self,
        mut connection: Connection,
        end: End,
        buffers: &mut Buffers,
        cx: &mut Context<'_>,
    ) {
        let waits = matches!(end, End::Fault(_) | End::Disconnected);
        let waits = waits && connection.flush().is_ok();
        let unread = connection.rx.data().len();
        connection.rx.consume(unread);
        if !waits || self.connections.len() >= LINGERING_MAX {
            connection.out.tx.clear();
            connection.rest(buffers);
            return;
        }
        connection.rest(buffers);
        let deadline = cx.now() + LINGER;
        let token = token::of(token::LINGERING, connection.id);
        cx.watch(&mut connection.stream, token);
        self.due = true;
        self.connections.push(Leaving {
            connection,
            deadline,
            unread: true,
        });
    }

    /// Has the next poll look at the connections.
    pub(in crate::target) fn wake(&mut self) {
        self.due = true;
    }

    /// When the time of the first of them is over.
    #[inline]
    pub(in crate::target) fn deadline(&self) -> Option<Time> {
        Some(self.connections.first()?.deadline)
    }

    /// Sends, drops what arrives, and closes what is closed or late.
    #[inline]
    pub(in crate::target) fn poll(&mut self, buffers: &mut Buffers, cx: &Context<'_>) -> Progress {
        let is_over = self.deadline().is_some_and(|at| cx.now() >= at);
        if !std::mem::take(&mut self.due) && !is_over {
            return Progress::Idle;
        }
        self.connections.retain_mut(|leaving| {
            if cx.now() >= leaving.deadline {
                return false;
            }
            if leaving.connection.stream.take_ready() | leaving.unread {
                leaving.connection.wake(buffers);
                let received = drain(&mut leaving.connection);
                leaving.connection.rest(buffers);
                leaving.unread = received == Ok(true);
                self.due |= leaving.unread;
                return received.is_ok();
            }
            true
        });
        match self.due {
            true => Progress::Busy,
            false => Progress::Idle,
        }
    }
}

/// Sends what waits and drops what has arrived. Returns whether there may be more of it.
fn drain(connection: &mut Connection) -> Result<bool, End> {
    let _ = connection.flush()?;
    for _ in 0..ROUNDS_MAX {
        let unread = connection.rx.data().len();
        connection.rx.consume(unread);
        if connection.fill()? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
