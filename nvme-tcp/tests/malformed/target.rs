//! The target gets broken bytes over TCP: that connection ends, or that command fails, as the specification
//! says, and no other connection notices.
//!
//! Each row of the tables is one connection that was in order up to its stage and then sends the bytes of
//! the row. What is expected follows from NVMe/TCP 1.1, 3.6 (FES and FEI of the TermReq; of several wrong
//! header fields the first is named), NVMe Base 2.1, 6 (Connect, properties) and 4.2.3 (status codes).

use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::fabrics::{CNTLID_DYNAMIC, PropertySet, property};
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::{GetLogPage, lid};
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::pdu::{CapsuleCmd, Icreq, PduType};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Cqe, Sqe};
use pollux_nvme_tcp::testing::wire::{Checked, Received, Wire, pdu};
use pollux_nvme_tcp::testing::{Initiator, Options, Pdu, TestTarget, host_nqn, pattern};

use crate::broken::check_term_req;
use crate::broken::table::{report, run_all, wrong_header_digest};
use crate::client::{
    Healthy, begin_write, closed_nqn, digests, invalid_parameter, start, succeeded, write_by_r2t,
};
use crate::to_target::{At, Expect, Row, Stage, WRITE_LEN, identify, log_page, table};

/// A panic of `step` as a text, so that the row is named in which it happened.
fn checked<T>(step: impl FnOnce() -> T) -> Checked<T> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.unwrap_or_else(|| format!("{:?}", panic.downcast_ref::<&str>()))
    })
}

/// A connection in the stage of its row.
fn bring_up(row: &Row, target: &TestTarget, healthy: &Healthy, qid: u16) -> (Initiator, At) {
    let none = Options::default();
    let mut client = Initiator::open(target.addr);
    let mut write = (0, 0);
    match row.stage {
        Stage::Tcp => {}
        Stage::Admin => {
            client.initialize(none);
            client.enable(&target.nqn, none);
        }
        Stage::Initialized(dgst) => client.initialize(digests(dgst)),
        Stage::Io(dgst) | Stage::Writing(dgst) => {
            client.initialize(digests(dgst));
            client.join(&target.nqn, healthy.cntlid, qid, 32, none);
        }
        Stage::SmallQueue => {
            client.initialize(none);
            client.join(&target.nqn, healthy.cntlid, qid, 4, none);
        }
    }
    if let Stage::Writing(_) = row.stage {
        write = begin_write(&mut client, WRITE_LEN);
    }
    let at = At {
        cid: client.new_cid(),
        framing: client.tx,
        write,
        cntlid: healthy.cntlid,
        nqn: target.nqn.clone(),
        closed_nqn: closed_nqn(),
    };
    (client, at)
}

/// What comes next but R2Ts, which some rows provoke; nothing if the connection has ended.
fn next(client: &mut Initiator) -> Option<Pdu> {
    std::iter::from_fn(|| client.try_receive()).find(|pdu| pdu.frame.pdu_type != PduType::R2T)
}

/// Says that nothing more will be sent.
fn end_sending(client: &Initiator) {
    // Fails only if the connection is over already.
    let _ = client.stream.shutdown(Shutdown::Write);
}

/// The end, with nothing before it.
fn expect_end(client: &mut Initiator) {
    assert_eq!(client.try_receive(), None);
}

fn expect_term(client: &mut Initiator, expected: (u16, u32), offending: &[u8]) {
    let pdu = next(client).expect("the end instead of C2HTermReq");
    assert_eq!(pdu.frame.pdu_type, PduType::C2H_TERM_REQ, "{pdu:02x?}");
    check_term_req(&pdu.bytes, PduType::C2H_TERM_REQ, expected, offending).unwrap();
    // The host that gets a TermReq closes; then so does the target, with nothing more to say.
    end_sending(client);
    expect_end(client);
}

/// The next completion: that of the row's command, or of the write that its data belongs to.
fn expect_status(client: &mut Initiator, at: &At, expected: Status) -> Cqe {
    let cqe = next(client).expect("the end instead of a completion").cqe();
    let cid = cqe.cid.get();
    assert!(
        cid == at.cid || cid == at.write.0,
        "a completion of {cid:#x}"
    );
    let status = cqe.status();
    assert_eq!(status.code(), expected.code(), "{status}, not {expected}");
    cqe
}

/// Shows that a connection is as good as before.
fn goes_on(client: &mut Initiator, stage: Stage, target: &TestTarget) {
    let none = Options::default();
    match stage {
        Stage::Tcp | Stage::Initialized(_) => {
            if stage == Stage::Tcp {
                assert_eq!(client.receive().frame.pdu_type, PduType::ICRESP);
                client.rx.initialized = true;
            }
            succeeded(&client.connect(0, 32, CNTLID_DYNAMIC, &target.nqn, none));
        }
        Stage::Admin => succeeded(&client.command(Sqe::new(admin::KEEP_ALIVE, 0), &[]).0),
        Stage::Io(_) | Stage::Writing(_) | Stage::SmallQueue => {
            succeeded(&client.command(Sqe::new(nvm::FLUSH, 1), &[]).0);
        }
    }
}

fn run(row: &Row, target: &TestTarget, healthy: &Healthy, qid: u16) {
    let (mut client, at) = bring_up(row, target, healthy, qid);
    let offending = row.send(&at, |bytes| {
        client.send_raw(bytes);
        Ok(())
    });
    let offending = offending.unwrap();
    match row.expect {
        Expect::Term(fes, fei) => expect_term(&mut client, (fes, fei), &offending),
        Expect::HeaderDigest => {
            expect_term(&mut client, wrong_header_digest(&offending), &offending);
        }
        Expect::StatusThenTerm(status, fes, fei) => {
            expect_status(&mut client, &at, status);
            expect_term(&mut client, (fes, fei), &offending);
        }
        Expect::Closed => expect_end(&mut client),
        Expect::Cut => {
            end_sending(&client);
            expect_end(&mut client);
        }
        Expect::Status(status) => {
            expect_status(&mut client, &at, status);
            goes_on(&mut client, row.stage, target);
        }
        Expect::Invalid(in_data, offset) => {
            let (status, detail) = invalid_parameter(in_data, offset);
            let cqe = expect_status(&mut client, &at, status);
            assert_eq!(cqe.dw0(), detail);
            goes_on(&mut client, row.stage, target);
        }
        Expect::GoesOn => goes_on(&mut client, row.stage, target),
    }
}

/// Waits until the target has noticed the ends of all connections but two.
fn wait_for_the_ends(target: &TestTarget) -> Checked<()> {
    for _ in 0..100_000 {
        let status = target.status();
        let mut controllers = status.subsystems.iter().flat_map(|s| &s.controllers);
        if let (Some(one), None) = (controllers.next(), controllers.next())
            && one.qpairs.len() == 2
        {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err("queues of ended connections are still there".into())
}

#[test]
fn broken_bytes_end_as_the_specification_says_and_disturb_nobody() {
    let table = table();
    let broken = table
        .iter()
        .filter(|row| !matches!(row.expect, Expect::GoesOn));
    assert!(broken.count() >= 60);
    let mut target = start();
    let mut healthy = Healthy::connect(&target);
    healthy.check();
    let rows = table.iter().zip((2..=120).cycle()).map(|(row, qid)| {
        let name = format!("{} ({:?})", row.name, row.stage);
        (name, (row, qid))
    });
    let mut failures = run_all(
        rows,
        &mut healthy,
        |(row, qid), healthy| checked(|| run(row, &target, healthy, qid)),
        |healthy| checked(|| healthy.check()),
    );
    if let Err(what) = wait_for_the_ends(&target) {
        failures.push(what);
    }
    let faults = table.iter().filter(|row| {
        let closed = matches!(row.expect, Expect::Closed | Expect::HeaderDigest);
        closed || matches!(row.expect, Expect::Term(..) | Expect::StatusThenTerm(..))
    });
    let (noted, expected) = (target.status().faults_total, faults.count() as u64);
    if noted != expected {
        failures.push(format!("{noted} faults noted instead of {expected}"));
    }
    target.stop();
    report(&failures, table.len());
}

/// A valid exchange with a few bytes changed, of every kind: whatever it means now, the target answers or
/// ends the connection, and goes on with the others.
#[test]
fn changed_bytes_of_a_valid_exchange_disturb_nobody() {
    let mut target = start();
    let mut healthy = Healthy::connect(&target);
    for seed in 0..300 {
        let changes = pattern(32, seed);
        let digests = changes[0] & 3;
        let framing = TxFraming {
            hdgst: digests & 1 != 0,
            ddgst: digests & 2 != 0,
            pda: 0,
        };
        let at = At {
            cid: 1,
            framing,
            write: (2, 0),
            cntlid: healthy.cntlid,
            nqn: target.nqn.clone(),
            closed_nqn: closed_nqn(),
        };
        let mut exchange = pdu(TxFraming::default(), &Icreq::new(0, digests, 0), &[]);
        if changes[1] & 1 == 0 {
            exchange.extend(at.connect_io(|c, _| c.qid = 2.into()));
            exchange.extend(at.capsule(Sqe::new(nvm::FLUSH, 1), &[]));
            exchange.extend(pdu(
                framing,
                &CapsuleCmd::new(write_by_r2t(2, WRITE_LEN)),
                &[],
            ));
            exchange.extend(at.data(0, WRITE_LEN, true));
        } else {
            exchange.extend(at.connect(|_, _| ()));
            exchange.extend(at.capsule(PropertySet::new(property::CC, 0x0046_0001), &[]));
            exchange.extend(at.capsule(identify(cns::CONTROLLER, 0, |_| ()), &[]));
            exchange.extend(at.capsule(log_page(GetLogPage::new(lid::SMART, 0, 512), 512), &[]));
        }
        // Up to six bytes, mostly of headers: payload is not interesting.
        for change in changes[2..]
            .chunks_exact(4)
            .take(usize::from(changes[2] % 6) + 1)
        {
            let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % exchange.len();
            exchange[place % 1600] ^= change[2];
        }
        let row = checked(|| {
            let mut client = Initiator::open(target.addr);
            client.send_raw(&exchange);
            end_sending(&client);
            // Whatever the target understood, what it says are PDUs, and it comes to an end.
            let mut wire = Wire::new(client.stream)?;
            while wire.receive()? != Received::End {}
            Ok(())
        });
        row.flatten()
            .unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        checked(|| healthy.check()).unwrap_or_else(|what| panic!("after seed {seed}: {what}"));
    }
    wait_for_the_ends(&target).unwrap();
    succeeded(&healthy.admin.command(Sqe::new(admin::KEEP_ALIVE, 0), &[]).0);
    assert_eq!(
        target.status().subsystems[1].controllers[0].hostnqn,
        host_nqn()
    );
    target.stop();
}
