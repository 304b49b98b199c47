//! One client: bytes in, complete values out; answers in, bytes out.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use super::error::RpcError;
use super::scan::{Scan, Scanner};
use super::token::Token;
use crate::net::Stream;
use crate::time::Time;

/// Longest request, in bytes.
const REQUEST_MAX: usize = 1 << 20;

/// Answers that may wait for a client before it is no longer read from, in bytes.
const UNSENT_MAX: usize = 1 << 20;

/// Requests that may be outstanding before a client is no longer read from.
const OUTSTANDING_MAX: usize = 64;

/// What the bytes that have arrived hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A complete value.
    Value(Vec<u8>),
    /// Nothing complete.
    Nothing,
    /// There is no going on: to be answered, then the connection ends.
    Fault(RpcError),
}

/// What a read has brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Some,
    /// Nothing has arrived that was not read yet.
    Nothing,
    /// The client sends no more.
    End,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    received: Vec<u8>,
    /// Start of the value that is being received.
    head: usize,
    scanner: Scanner,
    unsent: Vec<u8>,
    /// Bytes of `unsent` that have been sent.
    sent: usize,
    /// Values that are not answered yet; a batch is one.
    pub(super) outstanding: usize,
    /// What the client has to show before it may do anything.
    pub(super) token: Option<Arc<Token>>,
    /// A request has come.
    pub(super) has_asked: bool,
    /// When the last request came, or the client did.
    pub(super) last: Time,
    /// Nothing more will be read: the client said so, or there is no sense in it.
    closing: bool,
    /// There may be more to read, or a value to take.
    pub(super) is_due: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream, token: Option<Arc<Token>>) -> Connection {
        Connection {
            stream,
            received: Vec::new(),
            head: 0,
            scanner: Scanner::default(),
            unsent: Vec::new(),
            sent: 0,
            outstanding: 0,
            token,
            has_asked: false,
            last: Time::ZERO,
            closing: false,
            is_due: true,
        }
    }

    /// An event was seen.
    pub(super) fn take_ready(&mut self) -> bool {
        self.stream.take_ready()
    }

    /// The client has too much outstanding to be given more.
    pub(super) fn is_full(&self) -> bool {
        self.outstanding >= OUTSTANDING_MAX || self.unsent.len() - self.sent > UNSENT_MAX
    }

    /// An answer waits for the client to read.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Takes the next complete value.
    pub(super) fn next(&mut self) -> Next {
        if self.closing {
            return Next::Nothing;
        }
        let rest = &self.received[self.head..];
        if self.scanner.is_new() {
            self.head += rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        }
        let value = &self.received[self.head..];
        let scan = self.scanner.advance(value);
        match scan {
            Scan::Complete(end) if end <= REQUEST_MAX => {
                let value = value[..end].to_vec();
                self.head += end;
                self.scanner = Scanner::default();
                return Next::Value(value);
            }
            Scan::Partial if value.len() <= REQUEST_MAX => {
                self.received.drain(..self.head);
                self.head = 0;
                return Next::Nothing;
            }
            _ => {}
        }
        self.stop_reading();
        Next::Fault(match scan {
            Scan::Bad(what) => RpcError::parse(what),
            _ => RpcError::invalid_request("longer than 1 MiB"),
        })
    }

    /// Reads what has arrived, at most the length of `buffer`.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Filled> {
        match self.stream.read(buffer) {
            Ok(0) => Ok(Filled::End),
            Ok(len) => {
                self.received.extend_from_slice(&buffer[..len]);
                Ok(Filled::Some)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Filled::Nothing),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Filled::Some),
            Err(error) => Err(error),
        }
    }

    /// The client sends no more. What it has asked for is still answered. The error is that it stopped in the middle.
    pub(super) fn on_end(&mut self) -> Option<RpcError> {
        let cut = self.received.len() > self.head && !self.closing;
        self.stop_reading();
        cut.then(|| RpcError::parse("the request is incomplete"))
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(super) fn stop_reading(&mut self) {
        self.closing = true;
        self.received = Vec::new();
        self.head = 0;
    }

    /// Appends an answer.
    pub(super) fn push(&mut self, answer: &str) {
        self.unsent.extend_from_slice(answer.as_bytes());
        self.unsent.push(b'\n');
    }

    /// Sends what can be sent.
    ///
    /// # Errors
    ///
    /// The connection is broken.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.unsent.len() {
            let bytes = IoSlice::new(&self.unsent[self.sent..]);
            match self.stream.write_vectored(&[bytes]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        // A long answer must not keep its memory for ever.
        self.unsent.shrink_to(1 << 16);
        Ok(())
    }

    /// Everything that was asked for is answered and sent, and no more will come.
    pub(super) fn is_finished(&self) -> bool {
        self.closing && self.outstanding == 0 && self.unsent.is_empty()
    }
}
