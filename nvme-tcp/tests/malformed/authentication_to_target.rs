//! A host's authentication messages, each of their bytes changed and cut at each length: the target says what is wrong as the
//! specification has it, ends that connection, and no other one notices.

use std::net::Shutdown;

use pollux_nvme_tcp::auth::{
    DhGroup, Hash, HostStep, HostTransaction, KeyNames, Keys, Names, Nonce, Policy, Secret,
};
use pollux_nvme_tcp::spec::authentication::{
    AuthenticationCommand, Body, Explanation, Message, RECEIVE_LEN, SC_C_REPLACE_TLS_PSK,
};
use pollux_nvme_tcp::spec::fabrics::{CNTLID_DYNAMIC, ConnectSuccess, PropertyGet, property};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{HostNqn, Nqn};
use pollux_nvme_tcp::target::{HostKeys, TargetRequest};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, nqn};

use crate::client::{Healthy, start};

/// The messages of a host, with a hash of 32 bytes and without a DH value, and how long they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Negotiate,
    Reply,
    Success2,
    /// In place of the reply.
    Failure2,
}

const MESSAGES: [(Of, usize); 4] = [
    (Of::Negotiate, 72),
    (Of::Reply, 80),
    (Of::Success2, 16),
    (Of::Failure2, 8),
];

/// What follows a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// What follows the message as it should be.
    Same,
    /// The same, but what was changed is in it, so that the host cannot use it.
    Other,
    /// AUTH_Failure1 with this, and the end.
    Failure(Explanation),
    /// The end: the host has given up, and need not be told anything.
    End,
    /// The command fails, and nothing else does.
    Refused,
}

/// What the target makes of a message with this byte changed.
fn when_changed(of: Of, at: usize) -> Then {
    use Then::{End, Failure, Other, Same};
    match (of, at) {
        (_, 0 | 1) => Failure(Explanation::INCORRECT_MESSAGE),
        (Of::Failure2, 2 | 3) => End,
        (_, 2 | 3) => Same,
        // The first message says what the T_ID is.
        (Of::Negotiate, 4 | 5) => Other,
        (_, 4 | 5) => Failure(Explanation::INCORRECT_PAYLOAD),
        (Of::Negotiate, 6) => Failure(Explanation::CONCATENATION_MISMATCH),
        (Of::Negotiate, 7 | 10 | 11) => Failure(Explanation::INCORRECT_PAYLOAD),
        (Of::Negotiate, 8) => Failure(Explanation::PROTOCOL_NOT_USABLE),
        (Of::Negotiate, 12) => Failure(Explanation::HASH_NOT_USABLE),
        (Of::Negotiate, 42) => Failure(Explanation::DH_GROUP_NOT_USABLE),
        (Of::Negotiate, _) => Same,
        (Of::Reply, 6 | 8 | 10 | 11) => Failure(Explanation::INCORRECT_PAYLOAD),
        (Of::Reply, 7 | 9) => Same,
        // S2 and C2: the controller proves itself for another challenge.
        (Of::Reply, 12..16 | 48..) => Other,
        (Of::Reply, _) => Failure(Explanation::AUTHENTICATION_FAILED),
        (Of::Success2, _) => Same,
        (Of::Failure2, _) => End,
    }
}

fn keys() -> Keys {
    let secret = |byte| Secret::new(&[byte; 32], Some(Hash::Sha256)).unwrap();
    Keys {
        host: secret(1),
        controller: Some(secret(2)),
    }
}

fn hostile() -> Nqn {
    "nqn.2014-08.org.example:hostile".parse().unwrap()
}

fn send(initiator: &mut Initiator, message: &[u8]) -> Status {
    let command = AuthenticationCommand::send(u32::try_from(message.len()).unwrap());
    initiator.command(command.into(), message).0.status()
}

fn fetch(initiator: &mut Initiator) -> Vec<u8> {
    let command = AuthenticationCommand::receive(RECEIVE_LEN);
    let (cqe, data) = initiator.command(command.into(), &[]);
    assert!(cqe.status().is_success(), "{}", cqe.status());
    data
}

/// Whether a command that is none of authentication is carried out.
fn may_be_used(initiator: &mut Initiator) -> bool {
    let get = PropertyGet::new(property::CSTS, property::SIZE_4);
    let status = initiator.command(get.into(), &[]).0.status();
    if !status.is_success() {
        assert_eq!(status, Status::AUTHENTICATION_REQUIRED.with_dnr());
    }
    status.is_success()
}

/// Connects, and authenticates with one message that goes through `change`. Checks what follows it.
fn exchange(target: &TestTarget, of: Of, change: &dyn Fn(&mut Vec<u8>), then: Then) {
    let mut host = Initiator::initialized(target.addr, Options::default());
    host.hostnqn = hostile();
    let cqe = host.connect(0, 32, CNTLID_DYNAMIC, &target.nqn, Options::default());
    assert!(ConnectSuccess::from_bits(cqe.dw0()).atr());
    let names = Names {
        host: hostile().as_str().into(),
        subsystem: nqn().as_str().into(),
    };
    let policy = Policy {
        hashes: vec![Hash::Sha256],
        groups: vec![DhGroup::Null],
    };
    let mut transaction =
        HostTransaction::new(names, keys(), policy, Nonce::draw().unwrap(), 0x0201);
    let mut sent = [Of::Negotiate, Of::Reply, Of::Success2].into_iter();
    loop {
        match transaction.step() {
            HostStep::Send(mut message) => {
                let mut current = sent.next().unwrap();
                if (current, of) == (Of::Reply, Of::Failure2) {
                    current = Of::Failure2;
                    let body = Body::Failure2(Explanation::AUTHENTICATION_FAILED);
                    message = Message { t_id: 0x0201, body }.emit();
                }
                if current != of {
                    assert!(send(&mut host, &message).is_success());
                    continue;
                }
                let mut changed = message.clone();
                change(&mut changed);
                let status = send(&mut host, &changed);
                if then == Then::Refused {
                    assert_eq!(status, Status::INVALID_FIELD.with_dnr());
                    // Nothing was said by it.
                    assert!(send(&mut host, &message).is_success());
                } else {
                    assert!(status.is_success(), "{status}");
                }
                match then {
                    // The host may be gone by now, and cannot be told.
                    Then::End => break,
                    Then::Failure(explanation) => {
                        let told = fetch(&mut host);
                        assert_eq!((told[1], Explanation(told[7])), (0xF1, explanation));
                        break;
                    }
                    Then::Other => {
                        let told = fetch(&mut host);
                        // A challenge, or Success1.
                        let wanted = if of == Of::Negotiate { 1 } else { 3 };
                        assert_eq!((told[0], told[1]), (1, wanted));
                        transaction.received(&told);
                        let gives_up = transaction.step();
                        assert!(matches!(gives_up, HostStep::Send(_)), "{gives_up:?}");
                        let then = transaction.step();
                        assert!(matches!(then, HostStep::Failed(_)), "{then:?}");
                        return;
                    }
                    Then::Refused if of == Of::Failure2 => break,
                    Then::Same | Then::Refused => {}
                }
            }
            HostStep::Receive => {
                let message = fetch(&mut host);
                transaction.received(&message);
            }
            HostStep::Compute(_) | HostStep::Wait => {
                unreachable!("the NULL group has no values")
            }
            HostStep::Done(_) => {
                assert!(may_be_used(&mut host));
                return;
            }
            HostStep::Failed(error) => panic!("{error}"),
        }
    }
    // The target leaves it to the host to close; what comes meanwhile is not answered.
    let get = PropertyGet::new(property::CSTS, property::SIZE_4);
    host.submit(get.into(), &[]);
    let _ = host.stream.shutdown(Shutdown::Write);
    assert!(host.try_receive().is_none(), "the connection goes on");
}

#[test]
fn a_hosts_messages_changed_and_cut() {
    let mut target = start();
    let names = KeyNames {
        dhchap_key: "key0".into(),
        dhchap_ctrlr_key: Some("key1".into()),
    };
    let keys = Some(HostKeys {
        keys: keys(),
        names,
    });
    let host = HostNqn::new(hostile().as_str()).unwrap();
    let request = TargetRequest::add_host_with_keys(target.nqn.clone(), host, keys);
    target.handle.call(request).unwrap();
    let mut healthy = Healthy::connect(&target);
    let mut malformed = 0;
    for (of, len) in MESSAGES {
        for at in 0..len {
            let changed = |bytes: &mut Vec<u8>| {
                assert_eq!(bytes.len(), len);
                bytes[at] ^= 0xff;
            };
            let cut = |bytes: &mut Vec<u8>| bytes.truncate(at);
            let when_cut = match at {
                0 => Then::Refused,
                _ => Then::Failure(Explanation::INCORRECT_PAYLOAD),
            };
            for (what, change, then) in [
                (
                    "changed",
                    &changed as &dyn Fn(&mut Vec<u8>),
                    when_changed(of, at),
                ),
                ("cut", &cut, when_cut),
            ] {
                println!("{of:?} {what} at {at}: {then:?}");
                exchange(&target, of, change, then);
                malformed += usize::from(then != Then::Same);
            }
            healthy.check();
        }
    }
    println!("{malformed} malformed exchanges");
    assert!(malformed >= 100);
    // A key for TLS in place of another one is refused like what has no meaning.
    for sc_c in [1, SC_C_REPLACE_TLS_PSK] {
        let ask = |bytes: &mut Vec<u8>| bytes[6] = sc_c;
        let then = Then::Failure(Explanation::CONCATENATION_MISMATCH);
        exchange(&target, Of::Negotiate, &ask, then);
        healthy.check();
    }
    exchange(&target, Of::Negotiate, &|_| (), Then::Same);
    target.stop();
}
