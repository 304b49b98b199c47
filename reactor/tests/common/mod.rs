//! Services that the tests run on real and on simulated reactors alike.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses its own part"
)]
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use pollux_reactor::{Context, Listener, Outbox, Progress, Service, Stream, Time};

/// Longer than any test takes when it works.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Messages that nobody sends.
pub enum Never {}

/// Whether a stream is read and written in every turn, or only when the reactor has named it and told of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temper {
    Hot,
    Cold,
}

/// One accepted connection whose bytes go back to where they came from.
pub struct Echo {
    stream: Stream,
    backlog: VecDeque<u8>,
    temper: Temper,
    /// Its token was named since it was last looked at.
    is_named: bool,
    /// A write found no room.
    is_blocked: bool,
}

impl Echo {
    pub fn new(stream: Stream, temper: Temper) -> Echo {
        Echo {
            stream,
            backlog: VecDeque::new(),
            temper,
            is_named: false,
            is_blocked: false,
        }
    }

    /// `Err` when the connection has ended: `None` at the end of the stream, otherwise why.
    pub fn poll(&mut self) -> Result<Progress, Option<ErrorKind>> {
        if self.temper == Temper::Cold {
            if !std::mem::take(&mut self.is_named) {
                return Ok(Progress::Idle);
            }
            self.stream.take_ready();
            self.is_blocked &= !self.stream.take_room();
        }
        let mut progress = Progress::Idle;
        loop {
            // A full backlog is not read into, so that the other side's send buffer fills.
            let mut would_block = true;
            if self.backlog.len() < 4096 {
                let (mut head, mut tail) = ([0u8; 7], [0u8; 1000]);
                let mut bufs = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut tail)];
                match self.stream.read_vectored(&mut bufs) {
                    Ok(0) => return Err(None),
                    Ok(len) => {
                        let bytes = head.iter().chain(&tail).take(len);
                        self.backlog.extend(bytes);
                        would_block = false;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(Some(error.kind())),
                }
            }
            if !self.backlog.is_empty() && !self.is_blocked {
                let (front, back) = self.backlog.as_slices();
                let bufs = [IoSlice::new(front), IoSlice::new(back)];
                match self.stream.write_vectored(&bufs) {
                    Ok(len) => {
                        self.backlog.drain(..len);
                        would_block = false;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.is_blocked = self.temper == Temper::Cold;
                    }
                    Err(error) => return Err(Some(error.kind())),
                }
            }
            if would_block {
                return Ok(progress);
            }
            progress = Progress::Busy;
            if self.temper == Temper::Hot {
                return Ok(progress);
            }
        }
    }
}

/// Listens, and echoes on every connection, or hands connections on to another service.
pub struct EchoServer {
    pub addr: SocketAddr,
    pub temper: Temper,
    /// Is told the address with the real port.
    pub listening: mpsc::Sender<SocketAddr>,
    /// Is told how each connection ended.
    pub ended: mpsc::Sender<Option<ErrorKind>>,
    hand_on: Option<Outbox<Stream>>,
    listener: Option<Listener>,
    echoes: BTreeMap<u64, Echo>,
}

impl EchoServer {
    pub fn new(
        addr: SocketAddr,
        temper: Temper,
        listening: mpsc::Sender<SocketAddr>,
        ended: mpsc::Sender<Option<ErrorKind>>,
    ) -> EchoServer {
        EchoServer {
            addr,
            temper,
            listening,
            ended,
            hand_on: None,
            listener: None,
            echoes: BTreeMap::new(),
        }
    }

    /// Sends connections to another server instead of serving them.
    pub fn handing_on(mut self, to: Outbox<Stream>) -> EchoServer {
        self.hand_on = Some(to);
        self
    }

    fn serve(&mut self, mut stream: Stream, cx: &mut Context<'_>) {
        let token = self.echoes.keys().last().map_or(0, |last| last + 1);
        cx.watch(&mut stream, token);
        self.echoes.insert(token, Echo::new(stream, self.temper));
    }
}

impl Service for EchoServer {
    /// A connection that another server accepted.
    type Message = Stream;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let listener = cx.net().listen(self.addr).unwrap();
        let _ = self.listening.send(listener.local_addr().unwrap());
        self.listener = Some(listener);
    }

    fn on_message(&mut self, mut stream: Stream, cx: &mut Context<'_>) {
        cx.net().adopt(&mut stream).unwrap();
        self.serve(stream, cx);
    }

    fn on_timer(&mut self, token: u64, _cx: &mut Context<'_>) {
        panic!("timer {token}");
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        while let Some((stream, peer)) = self.listener.as_mut().unwrap().accept(cx.net()).unwrap() {
            assert_eq!(stream.peer_addr().unwrap(), peer);
            progress = Progress::Busy;
            match &mut self.hand_on {
                Some(outbox) => outbox.post(stream),
                None => self.serve(stream, cx),
            }
        }
        while let Some(token) = cx.next_ready() {
            if let Some(echo) = self.echoes.get_mut(&token) {
                echo.is_named = true;
            }
        }
        self.echoes.retain(|_, echo| match echo.poll() {
            Ok(of_one) => {
                progress = progress.or(of_one);
                true
            }
            Err(why) => {
                let _ = self.ended.send(why);
                false
            }
        });
        progress
    }
}

/// How a client's work ended.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientResult {
    /// Every byte came back, in order.
    Echoed {
        at: Time,
        socket_calls: u64,
    },
    Failed(ErrorKind),
}

/// Connects, sends a pattern, checks that the same comes back.
pub struct Client {
    remote: SocketAddr,
    local: Option<IpAddr>,
    total: usize,
    sent: usize,
    received: usize,
    stream: Option<Stream>,
    outcome: mpsc::Sender<ClientResult>,
}

impl Client {
    pub fn new(remote: SocketAddr, total: usize, outcome: mpsc::Sender<ClientResult>) -> Client {
        Client {
            remote,
            local: None,
            total,
            sent: 0,
            received: 0,
            stream: None,
            outcome,
        }
    }

    pub fn with_local(mut self, local: IpAddr) -> Client {
        self.local = Some(local);
        self
    }

    fn exchange(&mut self) -> Result<Progress, ErrorKind> {
        let Some(stream) = &mut self.stream else {
            return Ok(Progress::Idle);
        };
        if !stream.connected().map_err(|e| e.kind())? {
            return Ok(Progress::Idle);
        }
        let mut progress = Progress::Idle;
        if self.sent < self.total {
            let bytes: Vec<u8> = (self.sent..self.total).take(5000).map(pattern).collect();
            let (head, tail) = bytes.split_at(bytes.len() / 3);
            match stream.write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]) {
                Ok(len) => {
                    self.sent += len;
                    progress = Progress::Busy;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.kind()),
            }
        }
        let mut buf = [0u8; 3000];
        match stream.read(&mut buf) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof),
            Ok(len) => {
                for byte in &buf[..len] {
                    assert_eq!(*byte, pattern(self.received), "byte {}", self.received);
                    self.received += 1;
                }
                progress = Progress::Busy;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.kind()),
        }
        Ok(progress)
    }
}

fn pattern(position: usize) -> u8 {
    // A prime period, so that no buffer size hides a shift.
    u8::try_from(position % 251).unwrap()
}

impl Service for Client {
    type Message = Never;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        match cx.net().connect(self.remote, self.local) {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => {
                let _ = self.outcome.send(ClientResult::Failed(error.kind()));
            }
        }
    }

    fn on_message(&mut self, message: Never, _cx: &mut Context<'_>) {
        match message {}
    }

    fn on_timer(&mut self, token: u64, _cx: &mut Context<'_>) {
        panic!("timer {token}");
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        match self.exchange() {
            Ok(_) if self.stream.is_some() && self.received == self.total => {
                let socket_calls = self.stream.take().map_or(0, |s| s.socket_calls());
                assert!(socket_calls <= cx.net().socket_calls());
                let at = cx.now();
                let _ = self.outcome.send(ClientResult::Echoed { at, socket_calls });
                Progress::Busy
            }
            Ok(progress) => progress,
            Err(kind) => {
                self.stream = None;
                let _ = self.outcome.send(ClientResult::Failed(kind));
                Progress::Busy
            }
        }
    }
}
