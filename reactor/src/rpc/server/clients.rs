//! Clients: who is accepted, what they send and are sent, and whether they may ask at all.

use std::time::Duration;

use serde_json::Value;

use super::requests::answer_text;
use super::{RpcService, Stage};
use crate::context::Context;
use crate::rpc::LOG_FLAG;
use crate::rpc::connection::{Connection, Filled, Next};
use crate::rpc::error::RpcError;
use crate::rpc::params::Params;
use crate::service::Progress;
use crate::time::Time;

/// Clients at a time.
const CLIENTS_MAX: usize = 64;

/// Clients accepted per turn and socket.
const ACCEPTS_MAX: usize = 4;

/// How long nobody is accepted after the system could not.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// How long the log says nothing more of clients that are closed to make room.
const EVICTION_QUIET: Duration = Duration::from_secs(10);

/// Reads per client and turn, each of up to [`READ_LEN`] bytes.
const READS_MAX: usize = 4;
pub(super) const READ_LEN: usize = 64 * 1024;

/// The method by which a client shows the token.
pub(super) const AUTHORIZE: &str = "pollux_authorize";

impl RpcService {
    pub(super) fn accept(&mut self, cx: &mut Context<'_>) -> Progress {
        // Whoever comes while the configuration is made waits until it stands.
        if matches!(self.stage, Stage::Configuring | Stage::Failed) && !self.waits_for_start {
            return Progress::Idle;
        }
        if self.accept_again.is_some_and(|again| cx.now() < again) {
            return Progress::Idle;
        }
        self.accept_again = None;
        let mut progress = Progress::Idle;
        let mut streams = Vec::new();
        for (listener, token) in &mut self.listeners {
            for _ in 0..ACCEPTS_MAX {
                match listener.accept_stream(cx.net()) {
                    Ok(Some(stream)) => streams.push((stream, token.clone())),
                    Ok(None) => break,
                    // A client that is gone already, or no descriptors: to ask again at once would cost every turn.
                    Err(_) => {
                        self.accept_again = Some(cx.now() + ACCEPT_BACKOFF);
                        break;
                    }
                }
                progress = Progress::Busy;
            }
        }
        for (stream, token) in streams {
            let mut connection = Connection::new(stream, token);
            connection.last = cx.now();
            if self.clients.len() >= CLIENTS_MAX {
                self.end_idlest(cx.now());
            }
            let id = self.new_id();
            self.clients.insert(id, connection);
        }
        progress
    }

    /// Ends one client to make room for another, so that those who hold connections lock nobody out: first one that has
    /// never asked for anything, then one that waits for nothing, then any; of these the one that was silent longest.
    /// What was asked for goes on; the answer finds nobody.
    fn end_idlest(&mut self, now: Time) {
        let idlest = self.clients.iter().min_by_key(|(_, client)| {
            let busy = client.outstanding > 0 || client.has_unsent();
            (busy, client.has_asked, client.last)
        });
        if let Some((&id, _)) = idlest {
            self.clients.remove(&id);
            if now >= self.quiet_until {
                self.quiet_until = now + EVICTION_QUIET;
                log::warn!(target: LOG_FLAG, "more than {CLIENTS_MAX} management clients: the longest idle are closed");
            }
        }
    }

    /// Reads a client's requests and starts them.
    pub(super) fn serve(&mut self, id: u64, now: Time) {
        let mut reads = 0;
        while let Some(client) = self.clients.get_mut(&id) {
            client.is_due = false;
            if client.is_full() || client.is_closing() {
                return;
            }
            match client.next() {
                Next::Value(value) => {
                    client.outstanding += 1;
                    client.has_asked = true;
                    client.last = now;
                    self.start(id, &value);
                    continue;
                }
                Next::Fault(error) => {
                    client.push(&answer_text("null", &Err(error)));
                    return;
                }
                Next::Nothing => {}
            }
            if reads == READS_MAX {
                client.is_due = true;
                return;
            }
            reads += 1;
            match client.fill(&mut self.buffer) {
                Ok(Filled::Some) => {}
                Ok(Filled::Nothing) => return,
                Ok(Filled::End) => {
                    if let Some(error) = client.on_end() {
                        client.push(&answer_text("null", &Err(error)));
                    }
                    return;
                }
                Err(_) => {
                    // What it has asked for goes on; the answers find nobody.
                    self.clients.remove(&id);
                    return;
                }
            }
        }
    }

    pub(super) fn flush(&mut self) {
        self.clients.retain(|_, client| {
            let was_full = client.is_full();
            let alive = client.flush().is_ok();
            if was_full && !client.is_full() {
                client.is_due = true;
            }
            alive && !client.is_finished()
        });
    }

    /// `pollux_authorize`: the client shows its token. Where none is needed any will do, so that scripts need not ask.
    pub(super) fn authorize(
        &mut self,
        client: u64,
        mut params: Params,
    ) -> Result<Option<Value>, RpcError> {
        let shown = params.required::<String>("token");
        let shown = shown.and_then(|shown| params.finish().map(|()| shown));
        if let (Ok(shown), Some(connection)) = (&shown, self.clients.get_mut(&client)) {
            connection.token.take_if(|token| token.is(shown));
        }
        self.check_authorized(client)?;
        shown.map(|_| Some(Value::Bool(true)))
    }

    /// Ends a client that has not shown its token: one that guesses has to come again for each guess.
    pub(super) fn check_authorized(&mut self, client: u64) -> Result<(), RpcError> {
        match self.clients.get_mut(&client) {
            Some(connection) if connection.token.is_some() => {
                connection.stop_reading();
                Err(RpcError::new(
                    -1,
                    "not authorized: the first call must be pollux_authorize with the token of this program (--rpc-token-file)",
                ))
            }
            _ => Ok(()),
        }
    }
}
