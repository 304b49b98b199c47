//! The host's machine against the controller's, and both against peers that lie.

use super::controller::{Answered, ControllerTransaction};
use super::host::{HostStep, HostTransaction};
use super::*;
use crate::spec::authentication::{Body, Explanation, Message, RECEIVE_LEN, SC_C_REPLACE_TLS_PSK};

const T_ID: u16 = 0x77;

fn names() -> Names {
    Names {
        host: "nqn.2014-08.org.example:host".into(),
        subsystem: "nqn.2014-08.org.example:disk1".into(),
    }
}

fn secret(byte: u8) -> Secret {
    Secret::new(&[byte; 48], Some(Hash::Sha384)).unwrap()
}

fn keys(host: u8, controller: Option<u8>) -> Keys {
    Keys {
        host: secret(host),
        controller: controller.map(secret),
    }
}

fn only(hash: Hash, group: DhGroup) -> Policy {
    Policy {
        hashes: vec![hash],
        groups: vec![group],
    }
}

fn controller(keys: Keys, policy: Policy) -> ControllerTransaction {
    ControllerTransaction::new(names(), keys, policy, Nonce::draw().unwrap())
}

fn host(keys: Keys, policy: Policy) -> HostTransaction {
    HostTransaction::new(names(), keys, policy, Nonce::draw().unwrap(), T_ID)
}

/// Runs both against each other; `tamper` sees each message with its number. Returns how each has ended, the controller
/// with nothing if it waits for more.
fn run(
    host: &mut HostTransaction,
    controller: &mut ControllerTransaction,
    mut tamper: impl FnMut(usize, &mut Vec<u8>),
) -> (
    Result<Agreed, AuthError>,
    Option<Result<Agreed, Explanation>>,
) {
    let mut number = 0;
    let ended = loop {
        assert!(number < 10, "it does not end");
        match host.step() {
            HostStep::Send(mut bytes) => {
                tamper(number, &mut bytes);
                number += 1;
                if let Some(job) = controller.send(&bytes) {
                    assert_eq!(controller.receive(4096), Answered::Later);
                    controller.computed(job.run());
                }
            }
            HostStep::Receive => match controller.receive(RECEIVE_LEN as usize) {
                Answered::Message(mut bytes) => {
                    tamper(number, &mut bytes);
                    number += 1;
                    bytes.resize(RECEIVE_LEN as usize, 0);
                    host.received(&bytes);
                }
                answer => panic!("{answer:?}"),
            },
            HostStep::Compute(job) => {
                assert!(matches!(host.step(), HostStep::Wait));
                host.computed(job.run());
            }
            HostStep::Wait => panic!("nothing to wait for"),
            HostStep::Done(agreed) => break Ok(agreed),
            HostStep::Failed(error) => break Err(error),
        }
    };
    (ended, controller.outcome())
}

#[test]
fn every_hash_group_and_direction() {
    for hash in Hash::ALL {
        for group in DhGroup::ALL {
            for of_controller in [None, Some(9)] {
                let mut host = host(keys(1, of_controller), only(hash, group));
                let mut controller = controller(keys(1, Some(9)), Policy::default());
                let agreed = Agreed {
                    hash,
                    group,
                    both_ways: of_controller.is_some(),
                };
                let ended = run(&mut host, &mut controller, |_, _| {});
                assert_eq!(ended, (Ok(agreed), Some(Ok(agreed))));
            }
        }
    }
}

/// Both have the same key, a new one each time, whether the controller proves itself as well or not; without a group, or with
/// the hash function that no cipher suite has, or where the controller does not want it, there is none.
#[test]
fn keys_for_tls_come_out_of_it() {
    let mut seen = Vec::new();
    for hash in [Hash::Sha256, Hash::Sha384] {
        for of_controller in [None, Some(9)] {
            let mut host = host(keys(1, of_controller), only(hash, DhGroup::Ffdhe2048));
            host = host.with_concatenation();
            let mut controller = controller(keys(1, Some(9)), Policy::default());
            controller = controller.with_concatenation(true);
            assert!(host.generated().is_none() && controller.generated().is_none());
            let (ended, _) = run(&mut host, &mut controller, |_, _| {});
            assert_eq!(ended.unwrap().both_ways, of_controller.is_some());
            let key = host.generated().unwrap();
            assert_eq!(Some(key), controller.generated());
            assert_eq!(key.suite.hash(), hash);
            let start = format!(
                "NVMe1G{:02} {} {} ",
                hash.id().0,
                names().host,
                names().subsystem
            );
            assert!(key.identity.starts_with(&start), "{}", key.identity);
            assert!(!seen.contains(key));
            seen.push(key.clone());
        }
    }
    let refused = |policy, may| {
        let mut host = host(keys(1, None), policy).with_concatenation();
        let mut controller = controller(keys(1, None), Policy::default()).with_concatenation(may);
        let ended = run(&mut host, &mut controller, |_, _| {}).0.unwrap_err();
        assert!(host.generated().is_none() && controller.generated().is_none());
        ended
    };
    for (policy, may, explanation) in [
        (
            Policy::default(),
            false,
            Explanation::CONCATENATION_MISMATCH,
        ),
        (
            only(Hash::Sha512, DhGroup::Ffdhe2048),
            true,
            Explanation::HASH_NOT_USABLE,
        ),
        (
            only(Hash::Sha256, DhGroup::Null),
            true,
            Explanation::DH_GROUP_NOT_USABLE,
        ),
    ] {
        assert_eq!(refused(policy, may), AuthError::Refused(explanation));
    }
    // A key in place of another one is asked for in vain, as is what has no meaning, by whoever may have a new one.
    for sc_c in [1, SC_C_REPLACE_TLS_PSK, 4, 255] {
        let mut host = host(keys(1, None), Policy::default()).with_concatenation();
        let mut controller = controller(keys(1, None), Policy::default()).with_concatenation(true);
        let ask = |number: usize, bytes: &mut Vec<u8>| {
            if number == 0 {
                bytes[6] = sc_c;
            }
        };
        let mismatch = Explanation::CONCATENATION_MISMATCH;
        let ended = run(&mut host, &mut controller, ask);
        assert_eq!(
            ended,
            (Err(AuthError::Refused(mismatch)), Some(Err(mismatch)))
        );
    }
    // Whoever changes on the way what is asked for gets no further: what is asked for is part of the proof.
    let mut host = host(keys(1, None), only(Hash::Sha256, DhGroup::Ffdhe2048)).with_concatenation();
    let mut controller = controller(keys(1, None), Policy::default()).with_concatenation(true);
    let without = |number: usize, bytes: &mut Vec<u8>| {
        if number == 0 {
            bytes[6] = 0;
        }
    };
    let (ended, outcome) = run(&mut host, &mut controller, without);
    assert!(ended.is_err() && outcome.is_some_and(|outcome| outcome.is_err()));
}

#[test]
fn the_controllers_choice_is_the_first_of_its_own_that_is_offered() {
    let policy = Policy {
        hashes: vec![Hash::Sha384, Hash::Sha512],
        groups: vec![DhGroup::Ffdhe2048, DhGroup::Null],
    };
    let mut controller = controller(keys(1, None), policy);
    let mut host = host(keys(1, None), Policy::default());
    let (ended, _) = run(&mut host, &mut controller, |_, _| {});
    let agreed = ended.unwrap();
    assert_eq!(
        (agreed.hash, agreed.group),
        (Hash::Sha384, DhGroup::Ffdhe2048)
    );
}

/// Which key was wrong, or missing, is not told.
#[test]
fn wrong_keys() {
    let failed = Explanation::AUTHENTICATION_FAILED;
    for group in [DhGroup::Null, DhGroup::Ffdhe2048] {
        let run = |of_host, of_controller| {
            let mut host = host(of_host, only(Hash::Sha256, group));
            let mut controller = controller(of_controller, Policy::default());
            run(&mut host, &mut controller, |_, _| {})
        };
        let refused = (Err(AuthError::Refused(failed)), Some(Err(failed)));
        assert_eq!(run(keys(2, None), keys(1, None)), refused);
        assert_eq!(run(keys(2, Some(9)), keys(1, Some(9))), refused);
        assert_eq!(run(keys(1, Some(9)), keys(1, None)), refused);
        // Here the host finds out, and says so.
        let not_authentic = Err(AuthError::ControllerNotAuthentic);
        let ended = run(keys(1, Some(8)), keys(1, Some(9)));
        assert_eq!(ended, (not_authentic, Some(Err(failed))));
    }
}

#[test]
fn nothing_in_common() {
    let only_null = only(Hash::Sha256, DhGroup::Null);
    for (policy, explanation) in [
        (
            only(Hash::Sha512, DhGroup::Null),
            Explanation::HASH_NOT_USABLE,
        ),
        (
            only(Hash::Sha256, DhGroup::Ffdhe2048),
            Explanation::DH_GROUP_NOT_USABLE,
        ),
    ] {
        let mut host = host(keys(1, None), policy);
        let mut controller = controller(keys(1, None), only_null.clone());
        let ended = run(&mut host, &mut controller, |_, _| {});
        let expected = (Err(AuthError::Refused(explanation)), Some(Err(explanation)));
        assert_eq!(ended, expected);
    }
}

/// One byte of a message changed: the number of the message (0 Negotiate, 1 Challenge, 2 Reply, 3 Success1, 4 Success2), the
/// offset, the new value, and what follows. `None`: the host finds out; else the controller.
#[test]
fn messages_that_lie() {
    const OTHER_T_ID: u8 = 0x78;
    let payload = Explanation::INCORRECT_PAYLOAD;
    let message = Explanation::INCORRECT_MESSAGE;
    let failed = Explanation::AUTHENTICATION_FAILED;
    for (number, at, value, explanation) in [
        (0, 0, 1, message),
        (0, 1, 4, message),
        (0, 1, 9, message),
        (0, 6, 1, Explanation::CONCATENATION_MISMATCH),
        (0, 6, 2, Explanation::CONCATENATION_MISMATCH),
        (0, 7, 0, payload),
        (0, 7, 2, payload),
        (0, 8, 2, Explanation::PROTOCOL_NOT_USABLE),
        (0, 10, 0, Explanation::HASH_NOT_USABLE),
        (0, 10, 31, payload),
        (0, 11, 0, Explanation::DH_GROUP_NOT_USABLE),
        (0, 12, 9, Explanation::HASH_NOT_USABLE),
        (0, 42, 9, Explanation::DH_GROUP_NOT_USABLE),
        (2, 1, 1, message),
        (2, 1, 9, message),
        (2, 4, OTHER_T_ID, payload),
        (2, 6, 31, payload),
        (2, 8, 2, payload),
        (2, 10, 1, payload),
        (2, 16, 0, failed),
        (4, 4, OTHER_T_ID, payload),
        (4, 1, 3, message),
    ] {
        let mut host = host(keys(1, Some(9)), only(Hash::Sha256, DhGroup::Null));
        let mut controller = controller(keys(1, Some(9)), Policy::default());
        let mut changed = false;
        let (_, _) = run(&mut host, &mut controller, |n, bytes| {
            if n == number {
                // The byte is another one for sure.
                bytes[at] = if bytes[at] == value {
                    value ^ 0x40
                } else {
                    value
                };
                changed = true;
            }
        });
        assert!(changed);
        let Answered::Message(bytes) = controller.receive(4096) else {
            panic!("no message");
        };
        let body = Message::parse(&bytes).unwrap().body;
        assert_eq!(body, Body::Failure1(explanation), "{number} {at} {value}");
        assert_eq!(controller.outcome(), Some(Err(explanation)));
    }
    for (number, at, value, told) in [
        (1, 1, 3, message),
        (1, 4, OTHER_T_ID, payload),
        (1, 6, 48, payload),
        (1, 8, 3, Explanation::HASH_NOT_USABLE),
        (1, 9, 1, Explanation::DH_GROUP_NOT_USABLE),
        (1, 10, 1, payload),
        (1, 8, 99, Explanation::HASH_NOT_USABLE),
        (3, 6, 31, failed),
        (3, 8, 0, failed),
        (3, 8, 7, payload),
        (3, 16, 0, failed),
    ] {
        let mut host = host(keys(1, Some(9)), only(Hash::Sha256, DhGroup::Null));
        let mut controller = controller(keys(1, Some(9)), Policy::default());
        let mut last = Vec::new();
        let (ended, _) = run(&mut host, &mut controller, |n, bytes| {
            if n == number {
                bytes[at] = if bytes[at] == value {
                    value ^ 0x40
                } else {
                    value
                };
            }
            last.clone_from(bytes);
        });
        assert!(
            !matches!(ended, Ok(_) | Err(AuthError::Refused(_))),
            "{ended:?}"
        );
        let body = Message::parse(&last).unwrap().body;
        assert_eq!(body, Body::Failure2(told), "{number} {at} {value}");
    }
}

#[test]
fn order_replay_and_size() {
    let message = Explanation::INCORRECT_MESSAGE;
    let failure = |controller: &mut ControllerTransaction| match controller.receive(4096) {
        Answered::Message(bytes) => match Message::parse(&bytes).unwrap().body {
            Body::Failure1(explanation) => explanation,
            body => panic!("{body:?}"),
        },
        answer => panic!("{answer:?}"),
    };
    let fresh = || controller(keys(1, None), only(Hash::Sha256, DhGroup::Null));
    let mut host = host(keys(1, None), Policy::default());
    let HostStep::Send(negotiate) = host.step() else {
        panic!("the first step sends");
    };

    // Nothing to fetch yet.
    assert_eq!(failure(&mut fresh()), message);
    // Negotiate twice.
    let mut one = fresh();
    assert!(one.send(&negotiate).is_none());
    assert!(one.send(&negotiate).is_none());
    assert_eq!(failure(&mut one), message);
    // What comes after a failure changes nothing, and the failure can be fetched again.
    assert!(one.send(&negotiate).is_none());
    assert_eq!(failure(&mut one), message);
    // No room for the message, which is there still.
    let mut two = fresh();
    assert!(two.send(&negotiate).is_none());
    assert_eq!(two.receive(47), Answered::NoRoom);
    let Answered::Message(challenge) = two.receive(48) else {
        panic!("a challenge of 48 bytes");
    };
    // The reply to it does not help with the next challenge.
    host.received(&challenge);
    let HostStep::Send(reply) = host.step() else {
        panic!("a reply");
    };
    let mut three = fresh();
    assert!(three.send(&negotiate).is_none());
    assert!(matches!(three.receive(4096), Answered::Message(_)));
    assert!(three.send(&reply).is_none());
    assert_eq!(failure(&mut three), Explanation::AUTHENTICATION_FAILED);
    // Nor does it help twice.
    assert!(two.send(&reply).is_none());
    assert!(two.send(&reply).is_none());
    assert_eq!(failure(&mut two), message);
    // Too much.
    let mut four = fresh();
    assert!(four.send(&vec![0; 5000]).is_none());
    assert_eq!(failure(&mut four), Explanation::INCORRECT_PAYLOAD);
    // The host gives up instead of replying.
    let mut five = fresh();
    assert!(five.send(&negotiate).is_none());
    assert!(matches!(five.receive(4096), Answered::Message(_)));
    let body = Body::Failure2(message);
    assert!(five.send(&Message { t_id: T_ID, body }.emit()).is_none());
    assert_eq!(five.outcome(), Some(Err(message)));
}

#[test]
fn dh_values_that_give_the_secret_away() {
    let prime_long = [0xFF; 256];
    let values: [&[u8]; 4] = [&[0; 256], &[1], &prime_long, &[7; 257]];
    for value in values {
        let mut host = host(keys(1, None), only(Hash::Sha256, DhGroup::Ffdhe2048));
        let mut controller = controller(keys(1, None), Policy::default());
        let (ended, outcome) = run(&mut host, &mut controller, |number, bytes| {
            if number == 2 {
                bytes.truncate(16 + 64);
                bytes[10..12].copy_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes());
                bytes.extend_from_slice(value);
            }
        });
        let explanation = Explanation::INCORRECT_PAYLOAD;
        assert_eq!(ended, Err(AuthError::Refused(explanation)));
        assert_eq!(outcome, Some(Err(explanation)));
    }
    // The controller's own value sent back.
    let mut host = host(keys(1, None), only(Hash::Sha256, DhGroup::Ffdhe2048));
    let mut controller = controller(keys(1, None), Policy::default());
    let mut own = Vec::new();
    let (ended, _) = run(&mut host, &mut controller, |number, bytes| match number {
        1 => own = bytes[48..].to_vec(),
        2 => bytes[80..].copy_from_slice(&own),
        _ => {}
    });
    assert_eq!(
        ended,
        Err(AuthError::Refused(Explanation::INCORRECT_PAYLOAD))
    );
}

#[test]
fn secrets_do_not_show() {
    let mut host = host(keys(0xAB, Some(0xCD)), only(Hash::Sha256, DhGroup::Null));
    let mut controller = controller(keys(0xAB, Some(0xCD)), Policy::default());
    let _ = host.step();
    let shown = format!("{host:?} {controller:?}");
    let _ = run(&mut host, &mut controller, |_, _| {});
    let shown = format!("{shown} {host:?} {controller:?}");
    for secret in ["171", "205", "ab", "cd"] {
        assert!(!shown.contains(&format!("{secret}, {secret}")), "{shown}");
    }
}
