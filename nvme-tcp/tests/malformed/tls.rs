//! Between a host and a target that speak TLS, each record cut, flipped, dropped, doubled, retyped and replaced; and noise in
//! place of TLS. The connection ends on both sides, and no other one notices.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use pollux_nvme_tcp::host::{
    ConnectOptions, ControllerError, ControllerOptions, HostIdentity, QueueError,
};
use pollux_nvme_tcp::spec::{HostNqn, Nqn};
use pollux_nvme_tcp::target::{HostAccess, TargetRequest};
use pollux_nvme_tcp::testing::wire::PATIENCE;
use pollux_nvme_tcp::testing::{TestTarget, host_nqn, nqn, pattern, wait_for};
use pollux_nvme_tcp::tls::{ConfiguredPsk, HostPsk, HostTls, TlsError};
use uuid::Uuid;

use crate::client::{Healthy, start};
use crate::test_host::{Event, Events, Order, TestHost};

/// How long a relay waits for more once it has taken something away: whoever waits for it waits in vain.
const IDLE: Duration = Duration::from_millis(20);

/// Bytes before the content of a record: what it is, a version, and how long it is.
const HEADER: usize = 5;

/// Who connects by TLS.
pub fn hostnqn() -> Nqn {
    "nqn.2014-08.org.example:secure".parse().unwrap()
}

/// Who gets what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Target,
    Host,
}

/// What becomes of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    /// So much of it comes, and then the end.
    Cut(usize),
    /// One bit of this byte is another.
    Flip(usize),
    Drop,
    Double,
    /// It says that it is of this kind.
    Retype(u8),
    /// Something else of the same length.
    Replace,
}

impl Harm {
    /// What is sent in place of the record, and whether that was the last.
    fn apply(self, record: &[u8]) -> (Vec<u8>, bool) {
        let mut bytes = record.to_vec();
        match self {
            Harm::None => {}
            Harm::Cut(len) => {
                bytes.truncate(len);
                return (bytes, true);
            }
            Harm::Flip(at) => bytes[at] ^= 0x10,
            Harm::Drop => bytes.clear(),
            Harm::Double => bytes.extend_from_slice(record),
            Harm::Retype(kind) => bytes[0] = kind,
            Harm::Replace => {
                let noise = pattern(record.len() - HEADER, 77);
                bytes.truncate(HEADER);
                bytes.extend_from_slice(&noise);
            }
        }
        (bytes, false)
    }

    /// What is done to each record, of `len` bytes.
    fn all(len: usize) -> impl Iterator<Item = Harm> {
        let cuts = [1, len / 2, len - 1].map(Harm::Cut);
        let flips = [0, 1, 3, 4, HEADER, len - 1].map(Harm::Flip);
        let rest = [Harm::Drop, Harm::Double, Harm::Retype(21), Harm::Replace];
        cuts.into_iter().chain(flips).chain(rest)
    }

    /// Whether this record is none that matters, or that part of it is not.
    fn is_harmless(self, at: usize) -> bool {
        match at {
            // The version in the first record of each side says nothing (RFC 8446, 5.1).
            0 => self == Harm::Flip(1),
            // A change_cipher_spec may come or not (appendix D.4).
            1 => matches!(self, Harm::Drop | Harm::Double),
            _ => false,
        }
    }

    /// Whether the victim sees less than there should be, and nothing that is wrong.
    fn takes_away(self) -> bool {
        matches!(self, Harm::Cut(_) | Harm::Drop | Harm::Flip(3 | 4))
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Victim::Target => "to the target",
            Victim::Host => "to the host",
        })
    }
}

/// Passes records on, one of them not as it is. Returns how long those were that came.
fn relay(mut from: TcpStream, mut to: TcpStream, at: usize, harm: Harm) -> Vec<usize> {
    let (mut bytes, mut buffer, mut records) = (Vec::new(), [0; 16 * 1024], Vec::new());
    'more: while let Ok(len @ 1..) = from.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..len]);
        while let Some(&[_, _, _, high, low]) = bytes.first_chunk() {
            let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
            if bytes.len() < len {
                break;
            }
            let record: Vec<u8> = bytes.drain(..len).collect();
            let is_meant = records.len() == at && harm != Harm::None;
            records.push(len);
            let (out, is_last) = match is_meant {
                true => harm.apply(&record),
                false => (record, false),
            };
            if is_meant && harm.takes_away() && !harm.is_harmless(at) {
                from.set_read_timeout(Some(IDLE)).unwrap();
            }
            if to.write_all(&out).is_err() || is_last {
                break 'more;
            }
        }
    }
    for end in [&from, &to] {
        // What is closed already need not be closed.
        let _ = end.shutdown(Shutdown::Both);
    }
    records
}

/// A host and a target that have a key in common, each with a connection beside that is in order.
pub struct Pair {
    pub host: TestHost,
    pub target: TestTarget,
    healthy: Healthy,
    psk: ConfiguredPsk,
    /// Where the target listens for TLS.
    pub secure: SocketAddr,
    between: TcpListener,
}

impl Pair {
    fn start() -> Self {
        Self::with(&ConfiguredPsk::new(&[7; 32], None).unwrap())
    }

    /// With this key.
    pub fn with(psk: &ConfiguredPsk) -> Self {
        let target = start();
        let call = |request| target.handle.call(request).unwrap();
        let healthy = HostNqn::new(host_nqn().as_str()).unwrap();
        call(TargetRequest::add_host(nqn(), healthy));
        call(TargetRequest::allow_any_host(nqn(), false));
        let host = HostNqn::new(hostnqn().as_str()).unwrap();
        let mut access = HostAccess::default();
        access.psk = Some(HostPsk::new("key", psk, &host, &nqn()).unwrap());
        call(TargetRequest::add_host_with(nqn(), host, access));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let request = TargetRequest::add_secure_listener(nqn(), any);
        let secure = target.handle.call(request).unwrap();
        Self {
            host: TestHost::start(),
            healthy: Healthy::connect(&target),
            target,
            psk: psk.clone(),
            secure,
            between: TcpListener::bind(("127.0.0.1", 0)).unwrap(),
        }
    }

    /// With what the host connects to the relay.
    pub fn options(&self) -> ConnectOptions {
        let identity = HostIdentity {
            nqn: hostnqn(),
            id: Uuid::from_u128(7),
        };
        let addr = self.between.local_addr().unwrap();
        let mut options = ConnectOptions::admin(addr, nqn(), identity);
        options.timeout = PATIENCE;
        options.tls = Some(HostTls::new(self.psk.clone()));
        options
    }

    /// The same for the admin queue of a controller.
    pub fn controller(&self) -> ControllerOptions {
        let mut options = ControllerOptions::new(self.options());
        options.io_queues = 1;
        options.io_queue_size = 32;
        options
    }

    /// Connects with this harm done to one record.
    fn exchange(&self, victim: Victim, at: usize, harm: Harm) -> Exchange {
        let events = self.host.connect(self.options());
        let (host, _) = self.between.accept().unwrap();
        let target = TcpStream::connect(self.secure).unwrap();
        let peer = target.local_addr().unwrap();
        let ends = [&host, &target].map(|end| {
            end.set_nodelay(true).unwrap();
            end.try_clone().unwrap()
        });
        let [harm_to_target, harm_to_host] = match victim {
            Victim::Target => [harm, Harm::None],
            Victim::Host => [Harm::None, harm],
        };
        std::thread::scope(|scope| {
            let [to_target, to_host] = [
                scope.spawn(|| relay(host, target, at, harm_to_target)),
                scope.spawn(|| {
                    let [host, target] = ends;
                    relay(target, host, at, harm_to_host)
                }),
            ];
            let end = end_of(&events);
            self.host.order(Order::Close);
            let [to_target, to_host] = [to_target, to_host].map(|relay| relay.join().unwrap());
            let records = match victim {
                Victim::Target => to_target,
                Victim::Host => to_host,
            };
            Exchange { end, records, peer }
        })
    }

    /// What the target has noted of a connection, if it has.
    fn fault(&self, peer: SocketAddr) -> Option<&'static str> {
        let faults = self.target.status().faults;
        let fault = faults.iter().find(|fault| fault.peer == peer);
        fault.map(|fault| fault.reason)
    }

    /// The connections beside are served.
    fn check(&mut self) {
        self.host.check().unwrap();
        self.healthy.check();
    }

    pub fn stop(mut self) {
        self.host.stop();
        self.target.stop();
    }
}

/// How a connection has come off; `None`: well.
fn end_of(events: &Events) -> Option<QueueError> {
    match events.next().unwrap() {
        Event::Ready => None,
        Event::Error(error) => Some(error),
        other => panic!("{other:?}"),
    }
}

/// How an exchange has ended at the host, how long the records were that went to the victim, and who the target was connected
/// to.
struct Exchange {
    end: Option<QueueError>,
    records: Vec<usize>,
    peer: SocketAddr,
}

fn each_record(victim: Victim, count: usize) {
    let mut pair = Pair::start();
    let Exchange { end, records, .. } = pair.exchange(victim, 0, Harm::None);
    assert_eq!(end, None);
    let mut harmful = 0;
    for (at, &len) in records.iter().enumerate().take(count) {
        for harm in Harm::all(len) {
            let Exchange { end, peer, .. } = pair.exchange(victim, at, harm);
            println!("{victim}, record {at} of {len} bytes, {harm:?}: {end:?}");
            pair.check();
            if harm.is_harmless(at) {
                assert_eq!(end, None);
                continue;
            }
            harmful += 1;
            let end = end.expect("an exchange that was harmed");
            match victim {
                _ if harm.takes_away() => assert!(
                    matches!(end, QueueError::Tls(_) | QueueError::Closed),
                    "{end}"
                ),
                Victim::Host => assert!(matches!(end, QueueError::Tls(_)), "{end}"),
                Victim::Target => {
                    wait_for("the target to note it", || pair.fault(peer).is_some());
                    let reason = pair.fault(peer).unwrap();
                    assert!(reason.contains("TLS"), "{reason}");
                }
            }
        }
    }
    println!("{harmful} exchanges");
    assert!(harmful >= 60);
    assert_eq!(pair.exchange(victim, 0, Harm::None).end, None);
    pair.stop();
}

#[test]
fn records_to_a_target() {
    // The last one is what the host says when it closes.
    each_record(Victim::Target, 5);
}

#[test]
fn records_to_a_host() {
    each_record(Victim::Host, 6);
}

/// What the host's controller has come to at a listener that ends each handshake with these bytes, and how often it was there.
fn refuse_each(pair: &Pair, last: &[u8]) -> (ControllerError, usize) {
    let events = pair.host.connect_controller(pair.controller());
    let mut connections = 0;
    let mut refuse = || {
        while let Ok((mut stream, _)) = pair.between.accept() {
            connections += 1;
            stream.set_nonblocking(false).unwrap();
            // The ClientHello, which comes in one piece: a reset would take the answer away.
            let len = stream.read(&mut [0; 4096]).unwrap();
            assert!(len > 0, "a ClientHello");
            stream.write_all(last).unwrap();
        }
    };
    pair.between.set_nonblocking(true).unwrap();
    let mut end = None;
    wait_for("the controller to end", || {
        refuse();
        end = events.poll();
        end.is_some()
    });
    // Nobody comes once it is over.
    refuse();
    match end {
        Some(Event::ControllerError(error)) => (error, connections),
        other => panic!("{other:?}"),
    }
}

/// A peer that ends the handshake may know the identity that it was not offered first: it is asked once more, and that is all.
#[test]
fn a_host_turns_its_identities_once() {
    let pair = Pair::start();
    let alert = |code| [21, 3, 3, 0, 2, 2, code];
    for code in [40, 47, 51, 80, 115] {
        let (error, connections) = refuse_each(&pair, &alert(code));
        let of = QueueError::Tls(TlsError::Alert(code));
        assert_eq!((error, connections), (ControllerError::Queue(of), 2));
    }
    let (error, connections) = refuse_each(&pair, &[]);
    let of = QueueError::Tls(TlsError::Closed);
    assert_eq!((error, connections), (ControllerError::Queue(of), 2));
    // Another version of TLS, or none, is no matter of order.
    let (error, connections) = refuse_each(&pair, &alert(70));
    let of = QueueError::Tls(TlsError::Alert(70));
    assert_eq!((error, connections), (ControllerError::Queue(of), 1));
    let (error, connections) = refuse_each(&pair, b"220 mail");
    let of = QueueError::Tls(TlsError::NotTls);
    assert_eq!((error, connections), (ControllerError::Queue(of), 1));
    pair.stop();
}

/// Bytes that are no TLS, some of which look like records for a while.
fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = pattern(600, seed);
    match seed % 4 {
        0 => bytes[..5].copy_from_slice(&[22, 3, 1, 2, 0]),
        1 => bytes[..3].copy_from_slice(&[20 + (seed / 4 % 4) as u8, 3, 3]),
        // As a ClientHello begins, or a ServerHello.
        2 => bytes[..9].copy_from_slice(&[22, 3, 3, 2, 0, 1 + (seed / 4 % 2) as u8, 0, 1, 252]),
        _ => {}
    }
    bytes
}

const NOISES: u64 = 32;

#[test]
fn noise_to_a_target_and_to_a_host() {
    let mut pair = Pair::start();
    for seed in 0..NOISES {
        let mut stream = TcpStream::connect(pair.secure).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&noise(seed)).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        // Who has not read all that was sent resets the connection.
        let _ = stream.read_to_end(&mut answer);
        // Nothing, or an alert.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:02x?}");

        let events = pair.host.connect(pair.options());
        let (mut stream, _) = pair.between.accept().unwrap();
        stream.write_all(&noise(seed)).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        let end = end_of(&events).expect("noise");
        assert!(matches!(end, QueueError::Tls(_)), "{seed}: {end}");
        pair.host.order(Order::Close);
        pair.check();
    }
    assert_eq!(pair.exchange(Victim::Host, 0, Harm::None).end, None);
    pair.stop();
}
