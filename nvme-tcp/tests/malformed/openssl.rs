//! OpenSSL as a third opinion on TLS: its client in front of the target, its server before the host, with keys for both cipher
//! suites and identities of both versions; keys that its client changes while data flows. Where it is not installed the test says so,
//! and passes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pollux_nvme_tcp::host::{ControllerError, QueueError};
use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::Cqe;
use pollux_nvme_tcp::spec::fabrics::CNTLID_DYNAMIC;
use pollux_nvme_tcp::spec::pdu::{CapsuleCmd, CapsuleResp, Icreq, Icresp, PduType};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{HostNqn, Nqn};
use pollux_nvme_tcp::target::{HostAccess, SubsystemConfig, TargetRequest};
use pollux_nvme_tcp::testing::wire::pdu;
use pollux_nvme_tcp::testing::{Bytes, DEADLINE, Initiator, Options, nqn, wait_for};
use pollux_nvme_tcp::tls::{CipherSuite, ConfiguredPsk, HostPsk, IdentityVersion, TlsPsk};
use zerocopy::FromBytes;

use crate::test_host::{Event, Order};
use crate::tls::{Pair, hostnqn};

/// Whether there is an `openssl`.
fn is_installed() -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok();
    if !found {
        println!("skipped: openssl is not installed");
    }
    found
}

/// One of its programs, as bytes that come and go.
struct OpenSsl {
    process: Child,
    stdin: ChildStdin,
    output: mpsc::Receiver<Vec<u8>>,
    /// What it says of itself.
    said: BufReader<ChildStderr>,
    /// A file that holds its key, if there is one.
    session: PathBuf,
}

impl OpenSsl {
    fn start(program: &str, place: [&str; 2], key: &TlsPsk) -> Self {
        let name = format!("pollux-openssl-{program}-{}.pem", std::process::id());
        let session = std::env::temp_dir().join(name);
        std::fs::write(&session, session_of(key)).unwrap();
        let mut command = Self::command(program, place, key);
        command.arg("-psk_session").arg(&session);
        match program {
            "s_server" => command.args(["-naccept", "1"]),
            // Like this it takes orders as well.
            _ => command.arg("-brief"),
        };
        Self::spawn(command, session)
    }

    /// A server that takes its key for whatever identity comes first, so that it ends a handshake which begins with another one;
    /// two of them. Keys for SHA-256 only.
    fn single_minded(place: [&str; 2], key: &TlsPsk) -> Self {
        let digits: String = key.key().iter().map(|b| format!("{b:02x}")).collect();
        let mut command = Self::command("s_server", place, key);
        command.args(["-psk", &digits, "-naccept", "2"]);
        Self::spawn(command, PathBuf::new())
    }

    fn command(program: &str, place: [&str; 2], key: &TlsPsk) -> Command {
        let mut command = Command::new("openssl");
        command.arg(program).args(place).args(["-tls1_3"]);
        command.args(["-ciphersuites", key.suite.name()]);
        command.args(["-psk_identity", &key.identity]);
        if program == "s_server" {
            command.args(["-quiet", "-nocert"]);
        }
        command
    }

    fn spawn(mut command: Command, session: PathBuf) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let (stdin, mut stdout) = (
            process.stdin.take().unwrap(),
            process.stdout.take().unwrap(),
        );
        let said = BufReader::new(process.stderr.take().unwrap());
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(len @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            process,
            stdin,
            output,
            said,
            session,
        }
    }

    /// Has it change its keys, and ask its peer to do so. All that was sent must have been answered: an order is what
    /// begins with its letter.
    fn change_keys(&mut self) {
        self.send(b"K\n");
        let mut line = String::new();
        while line != "KEYUPDATE\n" {
            line.clear();
            assert_ne!(
                self.said.read_line(&mut line).unwrap(),
                0,
                "openssl has ended"
            );
        }
    }

    /// So many bytes that its peer has sent.
    fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            assert!(self.receive(&mut bytes), "openssl has ended");
        }
        assert_eq!(bytes.len(), len);
        bytes
    }
}

impl Bytes for OpenSsl {
    fn send(&mut self, bytes: &[u8]) {
        // If it has ended, that shows when something is awaited of it.
        let _ = self
            .stdin
            .write_all(bytes)
            .and_then(|()| self.stdin.flush());
    }

    fn receive(&mut self, into: &mut Vec<u8>) -> bool {
        match self.output.recv_timeout(DEADLINE) {
            Ok(bytes) => into.extend_from_slice(&bytes),
            Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing comes from openssl"),
        }
        true
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.session);
    }
}

/// A key as a session, the only form in which its programs take one that is not for SHA-256 (SSL_SESSION_ASN1: versions of the
/// structure and of TLS, cipher suite, session identifier, key).
fn session_of(key: &TlsPsk) -> String {
    let suite = match key.suite {
        CipherSuite::Aes128GcmSha256 => 1,
        CipherSuite::Aes256GcmSha384 => 2,
        other => panic!("no number is known of {other:?}"),
    };
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let mut fields = vec![2, 1, 1, 2, 2, 3, 4, 4, 2, 0x13, suite, 4, 0];
    fields.extend_from_slice(&[4, length(key.key())]);
    fields.extend_from_slice(key.key());
    let mut der = vec![0x30, length(&fields)];
    der.extend_from_slice(&fields);
    let label = "SSL SESSION PARAMETERS";
    let lines: Vec<String> = BASE64
        .encode(&der)
        .as_bytes()
        .chunks(64)
        .map(text)
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn each_key(mut with: impl FnMut(&ConfiguredPsk, &TlsPsk)) {
    for len in ConfiguredPsk::LENGTHS {
        for version in IdentityVersion::ALL {
            let psk = ConfiguredPsk::new(&vec![7; len], None).unwrap();
            let key = psk.tls_psk(version, hostnqn().as_str(), nqn().as_str());
            println!("{len} bytes, {version:?}");
            with(&psk, &key.unwrap());
        }
    }
}

/// A subsystem where the host has another key, at the same secure listener.
fn add_subsystem(pair: &Pair) -> Nqn {
    let other: Nqn = "nqn.2014-08.org.example:disk2".parse().unwrap();
    let mut config = SubsystemConfig::new(other.clone());
    config.allow_any_host = false;
    pair.target.handle.create_subsystem(config).unwrap();
    let host = HostNqn::new(hostnqn().as_str()).unwrap();
    let psk = ConfiguredPsk::new(&[8; 32], None).unwrap();
    let mut access = HostAccess::default();
    access.psk = Some(HostPsk::new("other", &psk, &host, &other).unwrap());
    let call = |request| pair.target.handle.call(request).unwrap();
    call(TargetRequest::add_host_with(other.clone(), host, access));
    let listener = TargetRequest::add_secure_listener(other.clone(), pair.secure);
    pair.target.handle.call(listener).unwrap();
    other
}

#[test]
fn its_client_and_our_target() {
    if !is_installed() {
        return;
    }
    each_key(|psk, key| {
        let pair = Pair::with(psk);
        let addr = pair.secure.to_string();
        let connect = |key: &TlsPsk| {
            let stream = OpenSsl::start("s_client", ["-connect", &addr], key);
            let mut host = Initiator::over(stream);
            host.hostnqn = hostnqn();
            host
        };
        let mut host = connect(key);
        host.initialize(Options::default());
        host.enable(&nqn(), Options::default());
        assert_eq!(host.identify_controller().nn.get(), 32);
        for _ in 0..3 {
            host.stream.change_keys();
            for _ in 0..2 {
                assert_eq!(host.identify_controller().nn.get(), 32);
            }
        }

        // A key that was made for one subsystem lets nobody into another, wherever both are.
        let other = add_subsystem(&pair);
        let mut host = connect(key);
        host.initialize(Options::default());
        let cqe = host.connect(0, 32, CNTLID_DYNAMIC, &other, Options::default());
        assert_eq!(cqe.status(), Status::CONNECT_INVALID_HOST.with_dnr());

        // Nor does another key with the same identity.
        let wrong = ConfiguredPsk::new(&vec![9; psk.size()], None).unwrap();
        let mut wrong = wrong
            .tls_psk(IdentityVersion::V0, hostnqn().as_str(), nqn().as_str())
            .unwrap();
        wrong.identity.clone_from(&key.identity);
        let mut host = connect(&wrong);
        let mut none = Vec::new();
        assert!(!host.stream.receive(&mut none), "{none:02x?}");
        pair.stop();
    });
}

#[test]
fn its_server_and_our_host() {
    if !is_installed() {
        return;
    }
    each_key(|psk, key| {
        let pair = Pair::with(psk);
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let remote = free.local_addr().unwrap();
        drop(free);
        let mut server = OpenSsl::start("s_server", ["-accept", &remote.to_string()], key);
        let mut options = pair.options();
        options.remote = remote;
        let mut events = pair.host.connect(options.clone());
        let mut icreq = Vec::new();
        wait_for("openssl to be connected", || {
            match events.poll() {
                // It does not listen yet.
                Some(Event::Error(QueueError::TcpConnect(_))) => {
                    events = pair.host.connect(options.clone());
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
            icreq.extend(server.output.try_iter().flatten());
            icreq.len() == size_of::<Icreq>()
        });
        assert_eq!(icreq[0], PduType::ICREQ.0);
        let plain = TxFraming::default();
        server.send(&pdu(plain, &Icresp::new(0, 0, 8192), &[]));
        let connect = server.take(size_of::<CapsuleCmd>() + 1024);
        let (capsule, _) = CapsuleCmd::read_from_prefix(&connect).unwrap();
        let cqe = Cqe::new(capsule.sqe.cid.get(), Status::SUCCESS);
        server.send(&pdu(plain, &CapsuleResp::new(cqe), &[]));
        assert!(matches!(events.next().unwrap(), Event::Ready));
        pair.host.order(Order::Close);
        pair.stop();
    });
}

/// A server that knows one identity, and ends a handshake in which another one comes first.
#[test]
fn its_server_that_looks_at_the_first_identity_only() {
    if !is_installed() {
        return;
    }
    let psk = ConfiguredPsk::new(&[7; 32], None).unwrap();
    for known in IdentityVersion::ALL {
        for first in IdentityVersion::ALL {
            let pair = Pair::with(&psk);
            let key = psk.tls_psk(known, hostnqn().as_str(), nqn().as_str());
            let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let remote = free.local_addr().unwrap();
            drop(free);
            let place = ["-accept", &remote.to_string()];
            let server = OpenSsl::single_minded(place, &key.unwrap());
            let mut options = pair.controller();
            options.connect.remote = remote;
            options.connect.tls.as_mut().unwrap().first = first;
            let mut events = pair.host.connect_controller(options.clone());
            let mut said = Vec::new();
            wait_for("openssl to be connected", || {
                match events.poll() {
                    // It does not listen yet.
                    Some(Event::ControllerError(ControllerError::Queue(
                        QueueError::TcpConnect(_),
                    ))) => events = pair.host.connect_controller(options.clone()),
                    Some(other) => panic!("{known:?} is known, {first:?} first: {other:?}"),
                    None => {}
                }
                said.extend(server.output.try_iter().flatten());
                // What it says of an identity that it did not expect comes before what its peer sends.
                let icreq = said.last_chunk::<{ size_of::<Icreq>() }>();
                icreq.is_some_and(|icreq| icreq[..3] == [PduType::ICREQ.0, 0, 128])
            });
            pair.host.order(Order::Close);
            pair.stop();
        }
    }
}
