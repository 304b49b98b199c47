//! A controller's authentication messages, each of their bytes changed and cut at each length: the host ends that connection
//! and says why, and no other connection notices.

use pollux_nvme_tcp::auth::{
    Answered, AuthError, ControllerTransaction, DhGroup, Hash, HostAuth, Keys, Names, Nonce,
    Policy, Secret,
};
use pollux_nvme_tcp::host::{ConnectOptions, QueueError};
use pollux_nvme_tcp::spec::Cqe;
use pollux_nvme_tcp::spec::fabrics::ConnectSuccess;
use pollux_nvme_tcp::spec::opcode::fctype;
use pollux_nvme_tcp::spec::pdu::{CapsuleCmd, PduType};
use pollux_nvme_tcp::testing::nqn;
use pollux_nvme_tcp::testing::peer::Peer;
use pollux_nvme_tcp::testing::wire::{Checked, Received};
use zerocopy::FromBytes;

use crate::test_host::{Event, Events, Order, TestHost};

/// Bytes of both messages, with a hash of 32 bytes and without a DH value.
const LEN: usize = 48;

fn keys() -> Keys {
    let secret = |byte| Secret::new(&[byte; 32], Some(Hash::Sha256)).unwrap();
    Keys {
        host: secret(1),
        controller: Some(secret(2)),
    }
}

fn policy() -> Policy {
    Policy {
        hashes: vec![Hash::Sha256],
        groups: vec![DhGroup::Null],
    }
}

/// Bytes of the challenge (0) and of Success1 (1) that the specification reserves.
fn says_nothing(message: usize, at: usize) -> bool {
    matches!((message, at), (_, 2 | 3 | 7) | (1, 9..16))
}

/// Answers Connect: the host has to authenticate.
fn require(peer: &mut Peer) -> Checked<()> {
    peer.accept_icreq(0)?;
    let connect = peer.command()?;
    let success = ConnectSuccess::new().with_cntlid(1).with_atr(true);
    let result = u64::from(success.into_bits()).into();
    let cqe = Cqe {
        result,
        ..Cqe::default()
    };
    peer.complete(connect.cid.get(), cqe)
}

/// Answers as a controller would, its messages by their number going through `change`, until the host has gone, or has sent
/// its last message.
fn serve(
    peer: &mut Peer,
    hostnqn: &str,
    message: usize,
    change: &dyn Fn(&mut Vec<u8>),
) -> Checked<()> {
    require(peer)?;
    let names = Names {
        host: hostnqn.into(),
        subsystem: nqn().as_str().into(),
    };
    let nonce = Nonce::draw().map_err(|e| e.to_string())?;
    let mut transaction = ControllerTransaction::new(names, keys(), policy(), nonce);
    let mut told = 0;
    loop {
        let bytes = match peer.wire.receive()? {
            Received::End => return Ok(()),
            Received::Pdu(bytes) if bytes.first() == Some(&PduType::CAPSULE_CMD.0) => bytes,
            Received::Pdu(bytes) => return Err(format!("{bytes:02x?} instead of a command")),
        };
        let (capsule, data) = CapsuleCmd::read_from_prefix(&bytes).map_err(|e| e.to_string())?;
        let cid = capsule.sqe.cid.get();
        if capsule.sqe.fctype() == fctype::AUTHENTICATION_SEND {
            assert!(
                transaction.send(data).is_none(),
                "the NULL group has no values"
            );
            peer.complete(cid, Cqe::default())?;
            if transaction.outcome().is_some() {
                return Ok(());
            }
            continue;
        }
        let room = capsule.sqe.sgl.length.get() as usize;
        let Answered::Message(mut answer) = transaction.receive(room) else {
            return Err("nothing to be told".into());
        };
        if told == message {
            change(&mut answer);
        }
        told += 1;
        // What is shorter than the message was cut, and comes so.
        if answer.len() >= LEN {
            answer.resize(room, 0);
        }
        if !answer.is_empty() {
            peer.data(cid, &answer)?;
        }
        peer.complete(cid, Cqe::default())?;
    }
}

fn options(host: &TestHost) -> ConnectOptions {
    let mut options = host.options();
    options.auth = Some(HostAuth::new(keys(), policy()));
    options
}

/// Connects a queue; how it has come off. `None`: it is ready.
fn exchange(
    host: &TestHost,
    message: usize,
    change: &dyn Fn(&mut Vec<u8>),
) -> Checked<Option<QueueError>> {
    let options = options(host);
    let hostnqn = options.host.nqn.as_str().to_owned();
    let (mut peer, events) = host.queue(options)?;
    serve(&mut peer, &hostnqn, message, change)?;
    let end = first(&events)?;
    host.order(Order::Close);
    peer.wire.expect_end()?;
    Ok(end)
}

fn first(events: &Events) -> Checked<Option<QueueError>> {
    match events.next()? {
        Event::Ready => Ok(None),
        Event::Error(error) => Ok(Some(error)),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn a_controllers_messages_changed_and_cut() {
    let mut host = TestHost::start();
    host.check().unwrap();
    let mut malformed = 0;
    for message in [0, 1] {
        for at in 0..LEN {
            let changed = |bytes: &mut Vec<u8>| {
                assert_eq!(bytes.len(), LEN);
                bytes[at] ^= 0xff;
            };
            let cut = |bytes: &mut Vec<u8>| bytes.truncate(at);
            for (what, change) in [
                ("changed", &changed as &dyn Fn(&mut Vec<u8>)),
                ("cut", &cut),
            ] {
                let name = format!("message {message}, {what} at {at}");
                let end =
                    exchange(&host, message, change).unwrap_or_else(|e| panic!("{name}: {e}"));
                let is_same = what == "changed" && says_nothing(message, at);
                match end {
                    // The last bytes may be the zeroes that stand for what is not there.
                    None => assert!(is_same || what == "cut" && at >= LEN - 4, "{name}"),
                    Some(QueueError::Authentication(error)) => {
                        assert!(!is_same, "{name}: {error}");
                        let told = [
                            matches!(error, AuthError::Protocol(_)),
                            matches!(error, AuthError::ControllerNotAuthentic),
                            // A challenge that was changed: the response to it is wrong.
                            matches!(error, AuthError::Refused(_)) && message == 0,
                        ];
                        assert!(told.contains(&true), "{name}: {error}");
                        malformed += 1;
                    }
                    Some(error) => panic!("{name}: {error}"),
                }
            }
            host.check()
                .unwrap_or_else(|what| panic!("after {message} {at}: {what}"));
        }
    }
    assert!(malformed >= 100);
    println!("{malformed} malformed exchanges");
    assert_eq!(exchange(&host, usize::MAX, &|_| ()), Ok(None));
    host.stop();
}

#[test]
fn a_controller_that_ends_the_connection_instead() {
    let host = TestHost::start();
    for concatenates in [false, true] {
        let mut options = options(&host);
        // It is the admin queue that asks for a key.
        options.queue_id = 0;
        options.auth.as_mut().unwrap().concatenate = concatenates;
        let (mut peer, events) = host.queue(options).unwrap();
        require(&mut peer).unwrap();
        peer.command().unwrap();
        peer.wire.finish();
        let error = first(&events).unwrap().unwrap();
        let wanted = QueueError::Authentication(AuthError::Ended { concatenates });
        assert_eq!(error, wanted);
        let hint = error.to_string().contains("secure_concatenation");
        assert_eq!(hint, concatenates, "{error}");
        host.order(Order::Close);
    }
    host.stop();
}
