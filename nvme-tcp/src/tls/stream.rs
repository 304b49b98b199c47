//! TLS as one more byte stream around another: the state machines above know nothing of it.
//!
//! The handshake is carried out by the threads for cryptography, and looks like a connection that is not up yet (the host) or
//! on which nothing has arrived yet (the target). Afterwards all that has arrived is decrypted straight into its user's buffers,
//! and what its user sends in one call goes out in one call, in records as large as there are (16 KiB). Where the
//! kernel is asked for, and can, it does both from then on.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::take;
use std::sync::Arc;

use pollux_reactor::{Edges, Net, Stream, StreamWrapper};

use super::engine::{Engine, Side, Wire};
use super::kernel::{Control, Kernel, NoKtls, Secrets, module};
use super::psk::TlsPsk;
use super::secure::Secured;
use super::{Manner, Session, TlsError, client_hello};
use crate::auth::Computation;

/// Plaintext of one record at most (RFC 8446, 5.1).
const RECORD_MAX: usize = 16 * 1024;
/// What is encrypted in one call at most: others are waiting.
const CALL_MAX: usize = 16 * RECORD_MAX;
/// Bytes that one receive takes at most.
const RECEIVE_MAX: usize = 64 * 1024;
/// Bytes that a peer may send before its handshake is over. One with a key takes a few hundred.
const HANDSHAKE_MAX: usize = 16 * 1024;
/// What records are: change_cipher_spec, alert, handshake, application_data.
const RECORD_KINDS: std::ops::RangeInclusive<u8> = 20..=23;
/// Receives of one call.
const ROUNDS_MAX: usize = 4;
/// A fatal alert (handshake_failure) in a record of its own, as it is sent before there are keys.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

thread_local! {
    /// Memory that a stream needs during a call, for all streams of a reactor.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Debug, Default)]
struct Scratch {
    received: Vec<u8>,
    plain: Vec<u8>,
    records: Vec<u8>,
}

/// A stream that encrypts.
#[derive(Debug)]
pub(crate) struct TlsStream {
    stream: Stream,
    edges: Option<Edges>,
    state: State,
    /// What was received and is not read yet.
    received: Vec<u8>,
    /// Records that the stream has not taken yet.
    unsent: Vec<u8>,
    /// Bytes received for the handshake.
    shaken: usize,
    /// Where the kernel is to encrypt, nothing is received that comes behind the handshake.
    manner: Manner,
    session: Session,
}

#[derive(Debug)]
enum State {
    /// Nothing has been done yet.
    New(Side, Vec<Arc<[TlsPsk]>>),
    /// The handshake goes on when more has arrived.
    Shaking(Box<Engine>),
    /// It goes on elsewhere.
    Away(Computation<Shaken>),
    /// It is over, and its last bytes are on their way.
    Over(Box<Engine>, Finished),
    Open(Box<Engine>),
    /// The kernel encrypts and decrypts.
    Kernel(Box<Kernel>),
    /// The peer does without.
    Plain,
    Broken(TlsError),
}

/// What comes of a step of a handshake.
#[derive(Debug)]
struct Shaken {
    engine: Result<Box<Engine>, TlsError>,
    /// What it has left.
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// Once it is over.
    finished: Option<Finished>,
}

/// How a handshake has ended.
#[derive(Debug)]
struct Finished {
    /// The identity that was used.
    identity: String,
    /// What the kernel needs, if it was asked for.
    secrets: Option<Result<Secrets, NoKtls>>,
}

impl TlsStream {
    /// Puts TLS around a connection that this side has begun, or that it has accepted, with these keys.
    pub(super) fn wrap(
        net: &mut Net,
        stream: Stream,
        side: Side,
        keys: Vec<Arc<[TlsPsk]>>,
        manner: Manner,
    ) -> (Stream, Session) {
        let session = Session::default();
        let wrapper = Self {
            stream,
            edges: None,
            state: State::New(side, keys),
            received: Vec::new(),
            unsent: Vec::new(),
            shaken: 0,
            manner,
            session: session.clone(),
        };
        (net.wrap(Box::new(wrapper)), session)
    }

    /// Drives the handshake on. Whether it is over.
    fn shake(&mut self) -> io::Result<bool> {
        loop {
            if !self.unsent.is_empty() && !matches!(self.state, State::Open(_)) {
                self.push()?;
            }
            match &mut self.state {
                State::Open(_) | State::Kernel(_) | State::Plain => return Ok(true),
                State::Over(..) if !self.unsent.is_empty() => return Ok(false),
                State::Over(..) => self.hand_over()?,
                State::Broken(error) => return Err((*error).into()),
                State::Away(computation) => match computation.take() {
                    None => return Ok(false),
                    Some(shaken) => self.take_shaken(shaken)?,
                },
                State::New(Side::Host, _) => self.step(),
                State::New(Side::Target, _) | State::Shaking(_) => match self.receive_handshake() {
                    Ok(()) if matches!(self.state, State::Plain) => {}
                    Ok(()) if whole_records(&self.received) > 0 => self.step(),
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => {
                        let tls = TlsError::of(&error).unwrap_or(TlsError::Closed);
                        self.state = State::Broken(tls);
                        return Err(error);
                    }
                },
            }
        }
    }

    fn receive_handshake(&mut self) -> io::Result<()> {
        let mut buf = [0; 2048];
        let before = self.shaken;
        loop {
            // What is behind the handshake is for the kernel: one record, and nothing of the next one.
            let room = match self.manner.ktls {
                false => buf.len(),
                true => match missing(&self.received) {
                    0 => return Ok(()),
                    missing => missing.min(buf.len()),
                },
            };
            let len = match self.stream.read(buf.get_mut(..room).unwrap_or_default()) {
                // What has come before is looked at first: it may say why.
                Ok(0) | Err(_) if self.shaken > before => return Ok(()),
                Ok(0) => return Err(TlsError::Closed.into()),
                Ok(len) => len,
                Err(error) => return Err(error),
            };
            let first = buf.first().filter(|_| self.shaken == 0);
            if first.is_some_and(|kind| !RECORD_KINDS.contains(kind)) {
                if !self.manner.optional {
                    return Err(TlsError::NotTls.into());
                }
                self.received = buf.get(..len).unwrap_or_default().to_vec();
                self.state = State::Plain;
                return Ok(());
            }
            self.shaken += len;
            if self.shaken > HANDSHAKE_MAX {
                return Err(TlsError::TooLong.into());
            }
            self.received
                .extend_from_slice(buf.get(..len).unwrap_or_default());
        }
    }

    /// Has the next step computed.
    fn step(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Broken(TlsError::Closed));
        // A part of a record brings it no further.
        let tail = self.received.split_off(whole_records(&self.received));
        let received = std::mem::replace(&mut self.received, tail);
        let edges = self.edges.clone();
        let Manner { threads, ktls, .. } = self.manner;
        let job = move || step(state, received, ktls);
        let done = move || {
            if let Some(edges) = edges {
                edges.raise();
            }
        };
        self.state = State::Away(Computation::of(job, done, threads));
    }

    fn take_shaken(&mut self, shaken: Shaken) -> io::Result<()> {
        let tail = std::mem::replace(&mut self.received, shaken.received);
        self.received.extend_from_slice(&tail);
        self.unsent.extend_from_slice(&shaken.unsent);
        match shaken.engine {
            Ok(engine) => {
                self.state = match shaken.finished {
                    Some(finished) => State::Over(engine, finished),
                    None => State::Shaking(engine),
                };
                self.push().map(|_| ())
            }
            Err(error) => {
                // The peer learns of it if there is room for that.
                let _ = self.push();
                self.state = State::Broken(error);
                Err(error.into())
            }
        }
    }

    /// Ends the handshake, all of which is sent: the kernel goes on if it was asked for and can, or the library.
    fn hand_over(&mut self) -> io::Result<()> {
        let state = std::mem::replace(&mut self.state, State::Broken(TlsError::Closed));
        let State::Over(engine, finished) = state else {
            unreachable!("a handshake that is over");
        };
        let kernel = match finished.secrets {
            None => None,
            Some(secrets) => {
                let installed = match secrets {
                    Ok(secrets) => self.install(secrets),
                    Err(why) => Ok(Err(why)),
                };
                match installed {
                    Ok(Ok(kernel)) => Some(kernel),
                    Ok(Err(why)) => {
                        why.tell();
                        None
                    }
                    Err(error) => {
                        self.state = State::Broken(error);
                        return Err(error.into());
                    }
                }
            }
        };
        self.session.set(Secured {
            identity: finished.identity,
            ktls: kernel.is_some(),
        });
        self.state = match kernel {
            Some(kernel) => State::Kernel(Box::new(kernel)),
            None => State::Open(engine),
        };
        Ok(())
    }

    fn install(&self, secrets: Secrets) -> Result<Result<Kernel, NoKtls>, TlsError> {
        match self.stream.socket() {
            _ if !self.received.is_empty() => Ok(Err(NoKtls::Data)),
            None => Ok(Err(NoKtls::NoSocket)),
            Some(socket) => Kernel::install(socket, secrets),
        }
    }

    /// Reads what the kernel has decrypted, and follows the records that are not data.
    fn read_kernel(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let State::Kernel(kernel) = &mut self.state else {
            return Ok(0);
        };
        for _ in 0..ROUNDS_MAX {
            let error = match self.stream.read_vectored(bufs) {
                Ok(len) => {
                    // A record that is not data may be next, and of one that the kernel has looked at no edge tells.
                    if len > 0
                        && len < bufs.iter().map(|buf| buf.len()).sum()
                        && let Some(edges) = &self.edges
                    {
                        edges.raise();
                    }
                    return Ok(len);
                }
                Err(error) => error,
            };
            match (error.raw_os_error(), self.stream.socket()) {
                (Some(libc::EIO), Some(socket)) => match kernel.receive_control(socket)? {
                    Control::Done => {}
                    Control::End => return Ok(0),
                },
                (Some(libc::EBADMSG), _) => {
                    return Err(TlsError::Failed("a record that cannot be decrypted").into());
                }
                _ => return Err(error),
            }
        }
        // Others have their turn first.
        if let Some(edges) = &self.edges {
            edges.raise();
        }
        Err(ErrorKind::WouldBlock.into())
    }

    fn write_kernel(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let State::Kernel(kernel) = &mut self.state else {
            return Ok(0);
        };
        if let Some(socket) = self.stream.socket() {
            kernel.before_data(socket)?;
        }
        let written = self.stream.write_vectored(bufs);
        if let Ok(len) = written {
            kernel.count(len);
        }
        written
    }

    /// Sends records that are left. Whether none are.
    fn push(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        while let Some(left) = self.unsent.get(sent..).filter(|left| !left.is_empty()) {
            match self.stream.write_vectored(&[IoSlice::new(left)]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.drain(..sent);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        Ok(true)
    }

    /// Decrypts into `bufs` what has arrived. Whether there is more to read from the stream, and the bytes put there; `None`
    /// once the peer sends no more.
    fn decrypt(
        engine: &mut Engine,
        wire: &mut Wire<'_>,
        bufs: &mut Filling<'_, '_>,
    ) -> Result<Decrypted, TlsError> {
        while let Some(buf) = bufs.rest() {
            match engine.decrypt(buf, wire)? {
                Some(0) => return Ok(Decrypted::End),
                Some(len) => bufs.advance(len),
                None => return Ok(Decrypted::All),
            }
        }
        Ok(Decrypted::Full)
    }

    /// Reads what a peer sends that does without TLS: first what it was known by.
    fn read_plain(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if self.received.is_empty() {
            return self.stream.read_vectored(bufs);
        }
        let mut left = self.received.as_slice();
        let len = io::Read::read_vectored(&mut left, bufs)?;
        self.received = left.to_vec();
        // There may be more, and no edge tells of it.
        if let Some(edges) = &self.edges {
            edges.raise();
        }
        Ok(len)
    }

    fn read(&mut self, bufs: &mut Filling<'_, '_>, scratch: &mut Scratch) -> io::Result<()> {
        let State::Open(engine) = &mut self.state else {
            return Ok(());
        };
        let mut more = true;
        // What was left over first.
        if !self.received.is_empty() || engine.has_decrypted() {
            let left = take(&mut self.received);
            let mut wire = Wire {
                incoming: &left,
                outgoing: &mut self.unsent,
            };
            let decrypted = Self::decrypt(engine, &mut wire, bufs)?;
            self.received = wire.incoming.to_vec();
            more = decrypted == Decrypted::All;
        }
        scratch.received.resize(RECEIVE_MAX, 0);
        let mut rounds = 0;
        while more {
            if rounds == ROUNDS_MAX {
                // There may be more, and no edge tells of it. Others have their turn first: of records without data one can
                // send as many as one likes.
                if let Some(edges) = &self.edges {
                    edges.raise();
                }
                match bufs.filled {
                    0 => return Err(ErrorKind::WouldBlock.into()),
                    _ => break,
                }
            }
            rounds += 1;
            let len = match self.stream.read(&mut scratch.received) {
                Ok(0) => break,
                Ok(len) => len,
                Err(_) if bufs.filled > 0 => break,
                Err(error) => return Err(error),
            };
            let mut wire = Wire {
                incoming: scratch.received.get(..len).unwrap_or_default(),
                outgoing: &mut self.unsent,
            };
            let decrypted = Self::decrypt(engine, &mut wire, bufs)?;
            self.received = wire.incoming.to_vec();
            // Without data it was less than a record, or records of something else.
            more = decrypted == Decrypted::All && (len == RECEIVE_MAX || bufs.filled == 0);
        }
        Ok(())
    }

    fn write(&mut self, bufs: &[IoSlice<'_>], scratch: &mut Scratch) -> io::Result<usize> {
        let State::Open(engine) = &mut self.state else {
            return Ok(0);
        };
        let mut taken = 0;
        scratch.plain.clear();
        scratch.records.clear();
        for buf in bufs {
            let mut left: &[u8] = buf;
            while !left.is_empty() && taken < CALL_MAX {
                // Of a large piece nothing is copied but what fills up the record before it.
                let room = RECORD_MAX - scratch.plain.len();
                let (now, later) = left.split_at(room.min(left.len()));
                if now.len() == RECORD_MAX {
                    engine.encrypt(now, &mut scratch.records)?;
                } else {
                    scratch.plain.extend_from_slice(now);
                    if scratch.plain.len() == RECORD_MAX {
                        engine.encrypt(&scratch.plain, &mut scratch.records)?;
                        scratch.plain.clear();
                    }
                }
                taken += now.len();
                left = later;
            }
        }
        engine.encrypt(&scratch.plain, &mut scratch.records)?;
        let mut sent = 0;
        while let Some(left) = scratch.records.get(sent..).filter(|left| !left.is_empty()) {
            match self.stream.write_vectored(&[IoSlice::new(left)]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.extend_from_slice(left);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// After an error nothing is done any more.
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != ErrorKind::WouldBlock
            && let State::Open(_) | State::Kernel(_) = self.state
        {
            let tls = TlsError::of(error).unwrap_or(TlsError::Closed);
            self.state = State::Broken(tls);
        }
        result
    }
}

/// The length of the records at the front of `bytes` that are there as a whole.
fn whole_records(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(&[_, _, _, high, low]) =
        bytes.get(whole..whole + 5).and_then(|h| h.first_chunk())
    {
        let end = whole + 5 + usize::from(u16::from_be_bytes([high, low]));
        if end > bytes.len() {
            break;
        }
        whole = end;
    }
    whole
}

/// The bytes that the first record in `received` wants, or its header: none if it is there as a whole.
fn missing(received: &[u8]) -> usize {
    let whole = match received.first_chunk() {
        None => 5,
        Some(&[_, _, _, high, low]) => 5 + usize::from(u16::from_be_bytes([high, low])),
    };
    whole.saturating_sub(received.len())
}

/// One step of a handshake, after which the kernel is to encrypt if `ktls` is said.
fn step(state: State, received: Vec<u8>, ktls: bool) -> Shaken {
    let begun = match state {
        State::New(side, keys) => Engine::new(side, ktls).and_then(|mut engine| {
            // A target may have thousands.
            let offered = match side {
                Side::Target => client_hello::identities(&received),
                Side::Host => None,
            };
            let is_offered = |key: &&TlsPsk| {
                let identity = key.identity.as_bytes();
                offered
                    .as_ref()
                    .is_none_or(|offered| offered.contains(identity))
            };
            let keys = keys.iter().flat_map(|keys| keys.iter());
            keys.filter(is_offered)
                .try_for_each(|psk| engine.add(psk))?;
            Ok(Box::new(engine))
        }),
        State::Shaking(engine) => Ok(engine),
        State::Away(_) | State::Over(..) | State::Open(_) | State::Kernel(_) | State::Plain => {
            Err(TlsError::Closed)
        }
        State::Broken(error) => Err(error),
    };
    let mut unsent = Vec::new();
    let mut wire = Wire {
        incoming: &received,
        outgoing: &mut unsent,
    };
    let shaken = begun.and_then(|mut engine| {
        let finished = match engine.negotiate(&mut wire)? {
            true => Some(Finished {
                identity: engine.identity()?,
                secrets: ktls.then(|| {
                    module()?;
                    engine.take_secrets().ok_or(NoKtls::NoSecrets)
                }),
            }),
            false => None,
        };
        Ok((engine, finished))
    });
    let left = wire.incoming.to_vec();
    let (engine, finished) = match shaken {
        Ok((engine, finished)) => (Ok(engine), finished),
        Err(error) => {
            // Whoever has no keys yet can tell in the clear; an alert is not answered with another one.
            if unsent.is_empty() && !matches!(error, TlsError::Alert(_)) {
                unsent.extend_from_slice(&ALERT);
            }
            (Err(error), None)
        }
    };
    Shaken {
        engine,
        received: left,
        unsent,
        finished,
    }
}

/// What became of what had arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decrypted {
    /// It was all used.
    All,
    /// The buffers are full; some may be left.
    Full,
    /// The peer sends no more.
    End,
}

/// Buffers that are being filled, one after the other.
#[derive(Debug)]
struct Filling<'a, 'b> {
    bufs: &'a mut [IoSliceMut<'b>],
    at: usize,
    within: usize,
    filled: usize,
}

impl Filling<'_, '_> {
    /// The rest of the first that has room.
    fn rest(&mut self) -> Option<&mut [u8]> {
        while self.bufs.get(self.at)?.len() <= self.within {
            self.at += 1;
            self.within = 0;
        }
        self.bufs.get_mut(self.at)?.get_mut(self.within..)
    }

    fn advance(&mut self, len: usize) {
        self.within += len;
        self.filled += len;
    }
}

impl StreamWrapper for TlsStream {
    fn inner(&self) -> &Stream {
        &self.stream
    }

    fn inner_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn on_edges(&mut self, edges: Edges) {
        self.edges = Some(edges);
    }

    fn connected(&mut self) -> io::Result<bool> {
        Ok(self.stream.connected()? && self.shake()?)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if !self.shake()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        match self.state {
            State::Plain => return self.read_plain(bufs),
            State::Kernel(_) => {
                let read = self.read_kernel(bufs);
                return self.note(read);
            }
            _ => {}
        }
        // Whoever has nothing more to send does not come to ask for it.
        if !self.unsent.is_empty() {
            let pushed = self.push();
            self.note(pushed)?;
        }
        let mut filling = Filling {
            bufs,
            at: 0,
            within: 0,
            filled: 0,
        };
        let read = SCRATCH.with_borrow_mut(|scratch| self.read(&mut filling, scratch));
        self.note(read)?;
        Ok(filling.filled)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.shake()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        match self.state {
            State::Plain => return self.stream.write_vectored(bufs),
            State::Kernel(_) => {
                let written = self.write_kernel(bufs);
                return self.note(written);
            }
            _ => {}
        }
        if !self.unsent.is_empty() {
            let pushed = self.push();
            if !self.note(pushed)? {
                return Err(ErrorKind::WouldBlock.into());
            }
        }
        let written = SCRATCH.with_borrow_mut(|scratch| self.write(bufs, scratch));
        self.note(written)
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // The peer sees the end in any case.
        match (&mut self.state, self.stream.socket()) {
            (State::Open(engine), _) => {
                engine.close(&mut self.unsent);
                let _ = self.push();
            }
            (State::Kernel(kernel), Some(socket)) => kernel.close(socket),
            _ => {}
        }
    }
}
