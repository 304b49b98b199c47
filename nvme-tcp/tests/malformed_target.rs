//! The target gets broken bytes over TCP: that connection ends, or that command fails, as the specification
//! says, and no other connection notices.
//!
//! Each row of the tables is one connection that was in order up to its stage and then sends the bytes of
//! the row. What is expected follows from NVMe/TCP 1.1, 3.6 (FES and FEI of the TermReq; of several wrong
//! header fields the first is named), NVMe Base 2.1, 6 (Connect, properties) and 4.2.3 (status codes).
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod broken;
#[path = "broken/client.rs"]
mod client;
#[path = "broken/to_target/mod.rs"]
mod to_target;

use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::fabrics::{CNTLID_DYNAMIC, PropertySet, property};
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::{GetLogPage, lid};
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::pdu::{CapsuleCmd, Icreq, PduType};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Cqe, Sqe};

use broken::table::{report, run_all, wrong_header_digest};
use broken::{Checked, DEADLINE, Received, check_term_req, describe, noise, pdu};
use client::{
    Client, Healthy, TestTarget, completion, host_nqn, invalid_parameter, succeeded, write_by_r2t,
};
use to_target::{At, Expect, Row, Stage, WRITE_LEN, identify, log_page, table};

/// A connection in the stage of its row.
fn bring_up(row: &Row, target: &TestTarget, healthy: &Healthy, qid: u16) -> Checked<(Client, At)> {
    let mut client = match row.stage {
        Stage::Admin => Client::admin(target.addr, &target.nqn, 0)?.0,
        _ => Client::open(target.addr)?,
    };
    let mut write = (0, 0);
    let entries = if row.stage == Stage::SmallQueue {
        4
    } else {
        32
    };
    match row.stage {
        Stage::Tcp | Stage::Admin => {}
        Stage::Initialized(dgst) => client.initialize(dgst)?,
        Stage::Io(dgst) | Stage::Writing(dgst) => {
            client.initialize(dgst)?;
            client.connect(qid, entries, healthy.cntlid, &target.nqn)?;
        }
        Stage::SmallQueue => {
            client.initialize(0)?;
            client.connect(qid, entries, healthy.cntlid, &target.nqn)?;
        }
    }
    if let Stage::Writing(_) = row.stage {
        write = client.begin_write(WRITE_LEN)?;
    }
    let at = At {
        cid: client.new_cid(),
        framing: client.framing,
        write,
        cntlid: healthy.cntlid,
        nqn: target.nqn.clone(),
        closed_nqn: target.closed_nqn.clone(),
    };
    Ok((client, at))
}

/// What comes next but R2Ts, which some rows provoke.
fn next(client: &mut Client) -> Checked<Received> {
    loop {
        let received = client.wire.next()?;
        if received.pdu_type() != Some(PduType::R2T) {
            return Ok(received);
        }
    }
}

fn expect_term(client: &mut Client, expected: (u16, u32), offending: &[u8]) -> Checked<()> {
    match next(client)? {
        Received::Pdu(bytes) if bytes.first() == Some(&PduType::C2H_TERM_REQ.0) => {
            check_term_req(&bytes, PduType::C2H_TERM_REQ, expected, offending)?;
        }
        other => return Err(format!("{} instead of C2HTermReq", describe(&other))),
    }
    // The host that gets a TermReq closes; then so does the target, with nothing more to say.
    client.wire.finish();
    client.wire.expect_end()
}

/// The next completion: that of the row's command, or of the write that its data belongs to.
fn expect_status(client: &mut Client, at: &At, expected: Status) -> Checked<Cqe> {
    let cqe = match next(client)? {
        Received::Pdu(bytes) if bytes.first() == Some(&PduType::CAPSULE_RESP.0) => {
            completion(&bytes)?
        }
        other => return Err(format!("{} instead of {expected}", describe(&other))),
    };
    if cqe.cid.get() != at.cid && cqe.cid.get() != at.write.0 {
        return Err(format!("a completion of command {:#x}", cqe.cid));
    }
    if cqe.status().code() != expected.code() {
        return Err(format!("{} instead of {expected}", cqe.status()));
    }
    Ok(cqe)
}

/// Shows that a connection is as good as before.
fn goes_on(client: &mut Client, stage: Stage, target: &TestTarget) -> Checked<()> {
    match stage {
        Stage::Tcp => {
            client.wire.expect(PduType::ICRESP)?;
            client.connect(0, 32, CNTLID_DYNAMIC, &target.nqn)?;
        }
        Stage::Initialized(_) => {
            client.connect(0, 32, CNTLID_DYNAMIC, &target.nqn)?;
        }
        Stage::Admin => succeeded(&client.command(Sqe::new(admin::KEEP_ALIVE, 0), &[])?.0)?,
        Stage::Io(_) | Stage::Writing(_) | Stage::SmallQueue => {
            succeeded(&client.command(Sqe::new(nvm::FLUSH, 1), &[])?.0)?;
        }
    }
    Ok(())
}

fn run(row: &Row, target: &TestTarget, healthy: &Healthy, qid: u16) -> Checked<()> {
    let (mut client, at) = bring_up(row, target, healthy, qid)?;
    let offending = row.send(&mut client.wire, &at)?;
    match row.expect {
        Expect::Term(fes, fei) => expect_term(&mut client, (fes, fei), &offending),
        Expect::HeaderDigest => {
            expect_term(&mut client, wrong_header_digest(&offending), &offending)
        }
        Expect::StatusThenTerm(status, fes, fei) => {
            expect_status(&mut client, &at, status)?;
            expect_term(&mut client, (fes, fei), &offending)
        }
        Expect::Closed => client.wire.expect_end(),
        Expect::Cut => {
            client.wire.finish();
            client.wire.expect_end()
        }
        Expect::Status(status) => {
            expect_status(&mut client, &at, status)?;
            goes_on(&mut client, row.stage, target)
        }
        Expect::Invalid(in_data, offset) => {
            let (status, detail) = invalid_parameter(in_data, offset);
            let cqe = expect_status(&mut client, &at, status)?;
            if cqe.dw0() != detail {
                return Err(format!("dword 0 {:#x} instead of {detail:#x}", cqe.dw0()));
            }
            goes_on(&mut client, row.stage, target)
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
    let target = TestTarget::start();
    let mut healthy = Healthy::connect(&target).unwrap();
    healthy.check().unwrap();
    let rows = table.iter().zip((2..=120).cycle()).map(|(row, qid)| {
        let name = format!("{} ({:?})", row.name, row.stage);
        (name, (row, qid))
    });
    let mut failures = run_all(
        rows,
        &mut healthy,
        |(row, qid), healthy| run(row, &target, healthy, qid),
        Healthy::check,
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
    let target = TestTarget::start();
    let mut healthy = Healthy::connect(&target).unwrap();
    for seed in 0..300 {
        let changes = noise(32, seed);
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
            closed_nqn: target.closed_nqn.clone(),
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
        let mut client = Client::open(target.addr).unwrap();
        client.wire.send(&exchange).unwrap();
        client.wire.finish();
        loop {
            match client.wire.next() {
                Ok(Received::Pdu(_)) => {}
                Ok(Received::End) => break,
                Err(what) => panic!("seed {seed}, within {DEADLINE:?}: {what}"),
            }
        }
        healthy
            .check()
            .unwrap_or_else(|what| panic!("after seed {seed}: {what}"));
    }
    wait_for_the_ends(&target).unwrap();
    assert!(
        healthy
            .admin
            .command(Sqe::new(admin::KEEP_ALIVE, 0), &[])
            .is_ok()
    );
    assert_eq!(
        target.status().subsystems[1].controllers[0].hostnqn,
        host_nqn()
    );
    target.stop();
}
