//! How a queue pair comes to be usable: TCP, ICReq and ICResp, the Connect command (NVMe/TCP 1.1, 3.1).

use pollux_reactor::{Progress, Time};

use super::handshake;
use super::{QueueError, QueuePair, State};
use crate::host::LOG_FLAG;
use crate::host::request::{Completed, Outcome};
use crate::spec::pdu::Icresp;

impl<T> QueuePair<T> {
    pub(super) fn connecting(
        &mut self,
        now: Time,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<Progress, QueueError> {
        let state = self.state;
        // A peer that says nothing costs its reactor no system call.
        if self.may_receive() {
            self.unread = false;
            match state {
                State::Tcp => {
                    if self
                        .stream
                        .connected()
                        .map_err(|e| QueueError::TcpConnect(e.kind()))?
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
                _ => self.unread = self.receive_once(sink)? == Progress::Busy,
            }
        }
        if self.state == state && self.deadline().is_some_and(|at| now >= at) {
            return Err(QueueError::Timeout(match state {
                State::Tcp => "TCP connection",
                State::Icresp => "ICResp",
                _ => "answer to Connect",
            }));
        }
        Ok(if self.state == state {
            Progress::Idle
        } else {
            Progress::Busy
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
            // CNTLID stands in the low 16 bits of dword 0 (NVMe Base 2.1, 6.3).
            #[expect(clippy::cast_possible_truncation, reason = "takes the fields apart")]
            Outcome::Completed { status, result } if status.is_success() => {
                self.controller_id = result as u16;
                self.state = State::Ready;
                self.transmitter.finish_connect();
                Ok(())
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
