//! Wrong options, and peers that do not answer: one line that names the value, and an exit code.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use crate::programs::{NQN, pollux, trid};

const COMMANDS: [&str; 3] = ["identify", "discover", "ana"];

/// Runs every command against this address with a connect timeout of one second: the line of each failure.
fn failures(addr: SocketAddr) -> Vec<String> {
    COMMANDS
        .iter()
        .map(|command| {
            let trid = trid(addr, NQN);
            pollux(&[command, "-r", &trid, "--connect-timeout", "1"]).failed(1)
        })
        .collect()
}

#[test]
fn a_refused_port_is_named() {
    // Nobody listens once the listener is gone, and no other test uses this address.
    let addr = TcpListener::bind("127.0.0.77:0")
        .and_then(|listener| listener.local_addr())
        .unwrap();
    for error in failures(addr) {
        assert!(error.contains(&addr.to_string()), "{error}");
        assert!(error.contains("connection refused"), "{error}");
    }
}

#[test]
fn a_silent_peer_is_given_up() {
    // The system accepts connections for it; nothing ever answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    for error in failures(addr) {
        assert!(error.contains(&addr.to_string()), "{error}");
        assert!(error.contains("no ICResp"), "{error}");
        assert!(error.contains("connect timeout of 1 s"), "{error}");
    }
}

#[test]
fn a_peer_that_falls_silent_is_given_up() {
    // ICResp: type, HLEN, PLEN, MAXH2CDATA; all else is zero.
    let mut icresp = [0; 128];
    (icresp[0], icresp[2], icresp[4]) = (1, 128, 128);
    icresp[12..16].copy_from_slice(&8192u32.to_le_bytes());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&icresp).unwrap();
        // The Connect command comes; then the host closes.
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        received.len()
    });
    let args = ["-r", &trid(addr, NQN), "--connect-timeout", "1"];
    let error = pollux(&[&["identify"], &args[..]].concat()).failed(1);
    assert!(error.contains("no answer to Connect"), "{error}");
    assert!(error.contains("timeout of 1 s"), "{error}");
    // ICReq, a command of 72 bytes, its data of 1,024.
    assert_eq!(peer.join().unwrap(), 128 + 72 + 1024);
}

#[test]
fn a_peer_that_hangs_up_or_talks_nonsense_is_an_error() {
    let answers: [(&[u8], &str); 2] = [
        (b"", "closed by the peer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "broke the protocol"),
    ];
    for (answer, part) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || {
            for _ in COMMANDS {
                let (mut stream, _) = listener.accept().unwrap();
                // The whole ICReq, so that closing is a FIN and not a reset.
                stream.read_exact(&mut [0; 128]).unwrap();
                stream.write_all(answer).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                // Until the host closes, so that it reads all of the answer.
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        for error in failures(addr) {
            assert!(error.contains(part), "{error}");
        }
        peer.join().unwrap();
    }
}

#[test]
fn wrong_values_are_named_with_what_is_allowed() {
    let long = format!("nqn.2014-08.org:{}", "a".repeat(224));
    for (options, value, allowed) in [
        (
            &["-r", "traddr:he/re"][..],
            "'he/re'",
            "IPv4 or IPv6 address",
        ),
        (&["-r", "traddr:1.2.3.4 trsvcid:x"], "'x'", "1 to 65535"),
        (&["-r", "traddr:1.2.3.4 subnqn:x"], "'x'", "nqn.yyyy-mm"),
        (&["-r", "trtype:RDMA traddr:1.2.3.4"], "'RDMA'", "TCP"),
        (&["-r", "traddr:1.2.3.4 color:red"], "'color'", "expected"),
        (
            &["-r", "trsvcid:4420"],
            "'trsvcid:4420'",
            "traddr is missing",
        ),
        (&["-a", "1.2.3"], "'1.2.3'", "IPv4 or IPv6"),
        (&["-a", "::1", "-s", "70000"], "'70000'", "1 to 65535"),
        (&["-a", "::1", "-n", &long], &long, "223 bytes"),
        (&["-a", "::1", "--hostnqn", "me"], "'me'", "nqn.yyyy-mm"),
        (
            &["-a", "::1", "--connect-timeout", "0"],
            "'0'",
            "0.001 to 3600",
        ),
        (&["-t", "rdma", "-a", "::1"], "'rdma'", "tcp"),
        (&["-s", "4420"], "--traddr", "required"),
        (
            &["-a", "::1", "-r", "traddr:::1"],
            "--transport",
            "cannot be used",
        ),
        (&[], "-r ", "is needed"),
        (&["--nonsense"], "--nonsense", "unexpected"),
    ] {
        for command in COMMANDS {
            let error = pollux(&[&[command], options].concat()).failed(2);
            assert!(error.contains(value), "{command}: {error}");
            assert!(error.contains(allowed), "{command}: {error}");
        }
    }
    let error = pollux(&["identify", "-a", "::1", "-N", "0"]).failed(2);
    assert!(
        error.contains("'0'") && error.contains("1 to 4294967294"),
        "{error}"
    );
}

#[test]
fn help_has_examples() {
    for command in COMMANDS {
        let help = pollux(&[command, "--help"]).succeeded();
        for part in [
            "Examples:",
            &format!("pollux {command} -"),
            "--json",
            "Exit code",
        ] {
            assert!(help.contains(part), "{part}: {help}");
        }
    }
}
