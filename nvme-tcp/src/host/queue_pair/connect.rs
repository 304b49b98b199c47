//! How a queue pair comes to be usable: TCP, ICReq and ICResp, the Connect command (NVMe/TCP 1.1, 3.1).

use pollux_reactor::{Progress, Time};

use super::handshake;
use super::{QueueError, QueuePair, State};
use crate::host::LOG_FLAG;
use crate::host::request::{Completed, Outcome};
use crate::spec::pdu::Icresp;
use crate::tls::TlsError;

impl<T> QueuePair<T> {
    pub(super) fn connecting(
        &mut self,
        now: Time,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<Progress, QueueError> {
        let state = self.state;
        let mut progress = Progress::Idle;
        if state == State::Authenticating {
            progress = self.take_computed(now)?;
        }
        // A peer that says nothing costs its reactor no system call.
        if self.may_receive() {
            self.unread = false;
            match state {
                State::Tcp => {
                    if self
                        .stream
                        .connected()
                        .map_err(|e| match TlsError::of(&e) {
                            Some(error) => QueueError::Tls(error),
                            None => QueueError::TcpConnect(e.kind()),
                        })?
                    {
                        self.transmitter
                            .put_plain(&handshake::icreq(self.options.digests));
                        self.state = State::Icresp;
                        // The edge that told of the connection may have told of an answer as well.
                        self.unread = true;
                        self.transmitter
                            .transmit(&mut self.stream, &mut self.table)?;
                    }
                }
                _ => {
                    let received = self.receive_once(sink)?;
                    self.unread = received == Progress::Busy;
                    progress = progress.or(received);
                }
            }
        }
        let over_at = match state {
            State::Tcp => self.tcp_deadline,
            _ => self.deadline,
        };
        if self.state == state && now >= over_at {
            return Err(QueueError::Timeout(match state {
                State::Tcp if self.options.tls.is_some() => "TCP connection and TLS handshake",
                State::Tcp => "TCP connection",
                State::Icresp => "ICResp",
                State::Authenticating => "end of authentication",
                _ => "answer to Connect",
            }));
        }
        Ok(match self.state == state {
            true => progress,
            false => Progress::Busy,
        })
    }

    pub(super) fn on_icresp(&mut self, answer: &Icresp) -> Result<(), QueueError> {
        let settled =
            handshake::settle(self.options.digests, answer).map_err(QueueError::Icresp)?;
        let (asked, granted) = (self.options.digests, settled.digests);
        if granted != asked {
            if self.options.require_digests {
                return Err(QueueError::NoDigests { asked, granted });
            }
            // Once per controller: its I/O queues will be answered the same.
            if self.options.queue_id == 0 {
                let remote = self.options.remote;
                log::warn!(
                    target: LOG_FLAG,
                    "{remote}: {asked} were asked for, the controller grants {granted}"
                );
            }
        }
        self.framing.hdgst = settled.digests.header;
        self.framing.ddgst = settled.digests.data;
        self.framing.initialized = true;
        self.transmitter.settle(&settled);
        let connect = handshake::connect_request(&self.options);
        let issued = self.issue_own(connect);
        debug_assert!(issued, "no slot for Connect, which comes before all else");
        self.state = State::Connect;
        self.transmitter.transmit(&mut self.stream, &mut self.table)
    }

    /// Takes the answer to Connect.
    pub(super) fn on_connect_answer(&mut self, outcome: Outcome) -> Result<(), QueueError> {
        match outcome {
            #[expect(clippy::cast_possible_truncation, reason = "takes the fields apart")]
            Outcome::Completed { status, result } if status.is_success() => {
                self.connected(result as u32)
            }
            #[expect(clippy::cast_possible_truncation, reason = "takes the fields apart")]
            Outcome::Completed { status, result } => Err(QueueError::Refused {
                status,
                result: result as u32,
            }),
            Outcome::Lost(_) => Err(QueueError::Closed),
        }
    }
}
