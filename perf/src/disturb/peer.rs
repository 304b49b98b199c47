//! Peers that do not behave: one that relays and can be frozen, one that never answers, one that answers byte by byte, and
//! an address that swallows connects.
//!
//! These peers run on a reactor of their own, which sleeps in its event queue while nothing happens, so that their share of the
//! cores is nothing but what the disturbance itself makes.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pollux_reactor::{
    Context, Group, Idle, Listener, Progress, Running, Sender, Service, Stream, Time, mailbox,
};
use socket2::{Domain, Socket, Type};

/// Bytes that the relay takes at a time.
const RELAY_BYTES: usize = 64 << 10;
/// Orders that wait.
const MAILBOX: usize = 16;
/// Begin of a right ICResp (NVMe/TCP 1.1, 3.6.2.3): type, flags, HLEN, PDO, PLEN. What follows is zero but MAXH2CDATA.
const ICRESP: [u8; 16] = [1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
/// Connections that fill a backlog of zero; the kernel grants one or two more than it is told.
const FILL_MAX: usize = 16;
/// A connect on loopback that is not answered within this time is not answered at all.
const FILL_PATIENCE: Duration = Duration::from_millis(300);

/// What a peer does with a connection.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// Passes everything on to this address and back, unless it is frozen.
    Relay(SocketAddr),
    /// Accepts, and neither reads nor writes.
    Silent,
    /// Accepts, and sends one byte of an answer in each such time.
    Drip(Duration),
}

/// A running peer.
pub struct Peer {
    /// Where it listens.
    pub addr: SocketAddr,
    orders: Sender<Order>,
    silent: Arc<AtomicU64>,
    running: Running,
}

enum Order {
    Freeze,
    Thaw,
}

impl Peer {
    /// Starts it on loopback.
    pub fn start(behaviour: Behaviour) -> anyhow::Result<Self> {
        let mut group = Group::new();
        let idle = Idle::Park {
            after: Duration::ZERO,
        };
        let reactor = group.add_reactor(None, idle);
        let (orders, receiver) = mailbox(MAILBOX);
        let (listening, where_) = mpsc::channel();
        let silent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&silent);
        group.add_service(reactor, receiver, move || PeerService {
            behaviour,
            listening,
            listener: None,
            frozen: false,
            pipes: Vec::new(),
            held: Vec::new(),
            silent: counted,
            drip_at: None,
        });
        let running = group.start().context("starting a peer")?;
        let addr = where_.recv().context("a peer has ended")??;
        Ok(Self {
            addr,
            orders,
            silent,
            running,
        })
    }

    /// Neither read nor answer any more; keep all connections open, and take new ones without a word.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.order(Order::Freeze)
    }

    /// Close what was frozen, and relay what comes from now on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.order(Order::Thaw)
    }

    /// Connections that were accepted and never answered.
    pub fn silent_connections(&self) -> u64 {
        self.silent.load(Ordering::Relaxed)
    }

    /// Ends it with all its connections.
    pub fn end(self) {
        self.running.stop();
        self.running.join();
    }

    fn order(&self, order: Order) -> anyhow::Result<()> {
        if self.orders.send(order).is_err() {
            bail!("a peer takes no orders any more");
        }
        Ok(())
    }
}

struct PeerService {
    behaviour: Behaviour,
    listening: mpsc::Sender<io::Result<SocketAddr>>,
    listener: Option<Listener>,
    frozen: bool,
    pipes: Vec<Pipe>,
    /// Connections that get no proper answer, and what they were sent.
    held: Vec<(Stream, usize)>,
    silent: Arc<AtomicU64>,
    /// When they are sent the next byte.
    drip_at: Option<Time>,
}

/// One relayed connection.
struct Pipe {
    client: Stream,
    server: Stream,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Service for PeerService {
    type Message = Order;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let listening = cx
            .net()
            .listen((Ipv4Addr::LOCALHOST, 0).into())
            .and_then(|listener| {
                let addr = listener.local_addr()?;
                self.listener = Some(listener);
                Ok(addr)
            });
        // Whoever started this waits for it.
        let _ = self.listening.send(listening);
    }

    fn on_message(&mut self, order: Order, _cx: &mut Context<'_>) {
        self.frozen = matches!(order, Order::Freeze);
        if !self.frozen {
            self.pipes.clear();
            self.held.clear();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        self.drip(cx.now());
        while let Some(Ok(Some((client, _)))) = self.listener.as_mut().map(|l| l.accept(cx.net())) {
            progress = Progress::Busy;
            self.take(client, cx);
        }
        if !self.frozen {
            self.pipes.retain_mut(|pipe| match pipe.pump() {
                Ok(moved) => {
                    progress = progress.or(moved);
                    true
                }
                // Either side has gone: so does the other.
                Err(_) => false,
            });
        }
        progress
    }

    fn deadline(&self) -> Option<Time> {
        self.drip_at
    }
}

impl PeerService {
    fn drip(&mut self, now: Time) {
        let Behaviour::Drip(every) = self.behaviour else {
            return;
        };
        if self.drip_at.is_some_and(|at| now >= at) {
            self.held.retain_mut(|(stream, sent)| {
                let byte = ICRESP.get(*sent).copied().unwrap_or(0);
                *sent += 1;
                stream.write_vectored(&[IoSlice::new(&[byte])]).is_ok()
            });
            self.drip_at = (!self.held.is_empty()).then(|| now + every);
        }
    }

    fn take(&mut self, client: Stream, cx: &mut Context<'_>) {
        if let (Behaviour::Relay(target), false) = (self.behaviour, self.frozen) {
            // A target that cannot be reached is a client that is closed.
            if let Ok(server) = cx.net().connect(target, None) {
                self.pipes.push(Pipe {
                    client,
                    server,
                    to_server: Vec::new(),
                    to_client: Vec::new(),
                });
            }
            return;
        }
        self.silent.fetch_add(1, Ordering::Relaxed);
        self.held.push((client, 0));
        if let Behaviour::Drip(every) = self.behaviour {
            self.drip_at.get_or_insert(cx.now() + every);
        }
    }
}

impl Pipe {
    fn pump(&mut self) -> io::Result<Progress> {
        if !self.server.connected()? {
            return Ok(Progress::Idle);
        }
        let there = pump(&mut self.client, &mut self.server, &mut self.to_server)?;
        let back = pump(&mut self.server, &mut self.client, &mut self.to_client)?;
        Ok(there.or(back))
    }
}

/// Moves what has arrived; an error also at the end of the stream.
fn pump(from: &mut Stream, to: &mut Stream, buffer: &mut Vec<u8>) -> io::Result<Progress> {
    let mut progress = Progress::Idle;
    if buffer.is_empty() {
        buffer.resize(RELAY_BYTES, 0);
        let read = from.read(buffer);
        buffer.truncate(*read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => progress = Progress::Busy,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if !buffer.is_empty() {
        match to.write_vectored(&[IoSlice::new(buffer)]) {
            Ok(written) => {
                buffer.drain(..written);
                progress = Progress::Busy;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(progress)
}

/// An address whose connects are neither accepted nor refused: a listener whose backlog is full, so that the kernel drops
/// every further SYN.
pub struct Swallow {
    /// The address.
    pub addr: SocketAddr,
    _listener: Socket,
    _backlog: Vec<TcpStream>,
}

impl Swallow {
    /// Fills the backlog until a connect is verifiably not answered.
    pub fn start() -> anyhow::Result<Self> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.listen(0)?;
        let addr = listener.local_addr()?.as_socket();
        let addr = addr.context("a listener without an IP address")?;
        let mut backlog = Vec::new();
        while backlog.len() < FILL_MAX {
            match TcpStream::connect_timeout(&addr, FILL_PATIENCE) {
                Ok(stream) => backlog.push(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Ok(Self {
                        addr,
                        _listener: listener,
                        _backlog: backlog,
                    });
                }
                Err(error) => return Err(error).context("filling a backlog"),
            }
        }
        bail!("the kernel still answers connects with {FILL_MAX} in a backlog of zero")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const MOMENT: Duration = Duration::from_millis(100);
    const PATIENCE: Duration = Duration::from_secs(20);

    fn connect(peer: &Peer) -> TcpStream {
        let stream = TcpStream::connect(peer.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn is_silent(stream: &mut TcpStream) -> bool {
        stream.set_read_timeout(Some(MOMENT)).unwrap();
        let kind = stream.read(&mut [0]).map_err(|e| e.kind());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(
            kind,
            Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        )
    }

    #[test]
    fn a_relay_freezes_with_its_connections_open_and_thaws_without_them() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Peer::start(Behaviour::Relay(echo.local_addr().unwrap())).unwrap();
        let mut client = connect(&peer);
        client.write_all(b"there").unwrap();
        let mut server = echo.accept().unwrap().0;
        let mut word = [0; 5];
        server.read_exact(&mut word).unwrap();
        server.write_all(b"back!").unwrap();
        client.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"back!");

        peer.freeze().unwrap();
        while peer.silent_connections() == 0 {
            // The order may come after the connect.
            let mut late = connect(&peer);
            assert!(is_silent(&mut late));
        }
        server.write_all(b"lost?").unwrap();
        assert!(is_silent(&mut client), "frozen, and not closed");

        peer.thaw().unwrap();
        let end = client.read(&mut word);
        assert!(matches!(end, Ok(0) | Err(_)), "closed: {end:?}");
        connect(&peer).write_all(b"again").unwrap();
        // The first of those that came through may be one from before the order.
        let again = (0..3).any(|_| {
            let mut server = echo.accept().unwrap().0;
            server.read_exact(&mut word).is_ok() && &word == b"again"
        });
        assert!(again);
        peer.end();
    }

    #[test]
    fn the_others_accept_and_say_little() {
        let silent = Peer::start(Behaviour::Silent).unwrap();
        assert!(is_silent(&mut connect(&silent)));
        assert_eq!(silent.silent_connections(), 1);
        silent.end();
        let drip = Peer::start(Behaviour::Drip(Duration::from_millis(2))).unwrap();
        let mut answer = [0; 5];
        connect(&drip).read_exact(&mut answer).unwrap();
        assert_eq!(answer, [1, 0, 128, 0, 128]);
        drip.end();
    }

    #[test]
    fn an_address_swallows_connects() {
        let swallow = Swallow::start().unwrap();
        let error = TcpStream::connect_timeout(&swallow.addr, MOMENT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
