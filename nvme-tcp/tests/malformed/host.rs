//! The host gets broken bytes from a controller over TCP: that connection ends, or that command fails, as
//! the specification says, and no other connection notices.
//!
//! Each row of the tables is one connection to a scripted controller that was in order up to its stage and
//! then sends the bytes of the row. What is expected follows from NVMe/TCP 1.1, 3.6 (FES and FEI of the
//! TermReq; of several wrong header fields the first is named) and from NVMe Base 2.1, 3.5 (bringing a
//! controller up) and 8.1.1 (ANA).

use std::thread;

use pollux_nvme_tcp::host::{
    AdminCommand, Command, ControllerOptions, Digests, Lost, Outcome, QueueError, Request, Transfer,
};
use pollux_nvme_tcp::spec::Cqe;
use pollux_nvme_tcp::spec::features::fid;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{PduType, flags};

use crate::broken::check_term_req;
use crate::broken::table::{report, run_all, wrong_header_digest};
use crate::nonsense::{Nonsense, Outlook};
use crate::test_host::{Event, Events, Order, TestHost};
use crate::to_host::{At, Expect, READ_LEN, Row, SHORT, Stage, WRITE_LEN, icresp, row};
use pollux_nvme_tcp::testing::lying::serve;
use pollux_nvme_tcp::testing::pattern;
use pollux_nvme_tcp::testing::peer::Peer;
use pollux_nvme_tcp::testing::wire::{Checked, Received, describe};

fn request(stage: Stage) -> Option<Request> {
    let block =
        |opcode, len: u32| Request::block(opcode, 1, 0, len / 512, 9, vec![0xa5; len as usize]);
    match stage {
        Stage::Icresp | Stage::Connect => None,
        Stage::Read(_) | Stage::SecondRead => Some(block(nvm::READ, READ_LEN)),
        Stage::Write => Some(block(nvm::WRITE, WRITE_LEN)),
        Stage::InCapsule => Some(block(nvm::WRITE, 4096)),
        Stage::Flush => Some(flush()),
    }
}

fn flush() -> Request {
    let command = Command {
        opcode: nvm::FLUSH,
        nsid: 1,
        ..Command::default()
    };
    Request::plain(command, Transfer::None, 0, Vec::new())
}

/// Sends a request and takes its command. Returns the CID.
fn issue(host: &TestHost, peer: &mut Peer, request: Request) -> Checked<u16> {
    host.order(Order::Request(request));
    loop {
        match peer.wire.receive()? {
            // Data of a write that has ended already.
            Received::Pdu(bytes) if bytes.first() == Some(&PduType::H2C_DATA.0) => {}
            Received::Pdu(bytes) if bytes.first() == Some(&PduType::CAPSULE_CMD.0) => {
                return Ok(u16::from_le_bytes([bytes[10], bytes[11]]));
            }
            other => return Err(format!("{} instead of a command", describe(&other))),
        }
    }
}

fn expect_ready(events: &Events) -> Checked<()> {
    match events.next()? {
        Event::Ready => Ok(()),
        other => Err(format!("{other:?} instead of a connection")),
    }
}

/// A connection in the stage of its row.
fn bring_up(row: &Row, host: &TestHost) -> Checked<(Peer, Events, At)> {
    let dgst = match row.stage {
        Stage::Read(dgst) => dgst,
        _ => 0,
    };
    let mut options = host.options();
    options.digests = Digests {
        header: dgst & 1 != 0,
        data: dgst & 2 != 0,
    };
    if matches!(row.expect, Expect::Ends(QueueError::Timeout(_))) {
        options.timeout = SHORT;
    }
    let (mut peer, events) = host.queue(options)?;
    let (mut cid, mut old_cid) = (0, 0);
    match row.stage {
        Stage::Icresp => peer.icreq()?,
        Stage::Connect => {
            peer.accept_icreq(0)?;
            cid = peer.command()?.cid.get();
        }
        _ => {
            peer.accept_queue(dgst)?;
            expect_ready(&events)?;
        }
    }
    if row.stage == Stage::SecondRead
        && let Some(first) = request(row.stage)
    {
        old_cid = issue(host, &mut peer, first)?;
        peer.data(old_cid, &[0; READ_LEN as usize])?;
        peer.complete(old_cid, Cqe::default())?;
        events.ended()?;
    }
    if let Some(request) = request(row.stage) {
        cid = issue(host, &mut peer, request)?;
    }
    let framing = peer.framing;
    Ok((
        peer,
        events,
        At {
            cid,
            old_cid,
            framing,
        },
    ))
}

/// What comes next from the host but data that it was asked for.
fn next(peer: &mut Peer) -> Checked<Received> {
    loop {
        let received = peer.wire.receive()?;
        if received.pdu_type() != Some(PduType::H2C_DATA) {
            return Ok(received);
        }
    }
}

/// The host ends the connection without a word. What was half sent stays so.
fn expect_end(peer: &mut Peer) -> Checked<()> {
    match next(peer)? {
        Received::End => Ok(()),
        other => Err(format!("{} instead of the end", describe(&other))),
    }
}

/// The host's report of the end. The request, if it had not ended before, is lost with the connection.
fn expect_error(events: &Events) -> Checked<QueueError> {
    loop {
        match events.next()? {
            Event::Error(error) => return Ok(error),
            Event::Ended(completed) => match completed.outcome {
                Outcome::Lost(Lost::Connection { sent: true }) | Outcome::Completed { .. } => {}
                other => return Err(format!("{other:?} at the end of the connection")),
            },
            other => return Err(format!("{other:?} instead of the end")),
        }
    }
}

fn expect_term(
    peer: &mut Peer,
    events: &Events,
    (fes, fei): (u16, u32),
    offending: &[u8],
) -> Checked<()> {
    let error = expect_error(events)?;
    let (QueueError::Protocol(told) | QueueError::Icresp(told)) = error else {
        return Err(format!("{error}, not a fault of the protocol"));
    };
    if (told.fes.0, told.fei) != (fes, fei) {
        return Err(format!("{told} instead of FES {fes:#x}, FEI {fei:#x}"));
    }
    match next(peer)? {
        Received::Pdu(bytes) if bytes.first() == Some(&PduType::H2C_TERM_REQ.0) => {
            check_term_req(&bytes, PduType::H2C_TERM_REQ, (fes, fei), offending)?;
        }
        other => {
            return Err(format!(
                "{} instead of H2CTermReq ({told})",
                describe(&other)
            ));
        }
    }
    peer.wire.expect_end()
}

fn run(row: &Row, host: &TestHost) -> Checked<()> {
    let (mut peer, events, at) = bring_up(row, host)?;
    let offending = row.send(&at, |bytes| peer.wire.send(bytes))?;
    match row.expect {
        Expect::Term(fes, fei) => expect_term(&mut peer, &events, (fes, fei), &offending),
        Expect::HeaderDigest => {
            let expected = wrong_header_digest(&offending);
            expect_term(&mut peer, &events, expected, &offending)
        }
        Expect::Ends(expected) => {
            let error = expect_error(&events)?;
            if error != expected {
                return Err(format!("{error:?} instead of {expected:?}"));
            }
            expect_end(&mut peer)
        }
        Expect::Cut => {
            peer.wire.finish();
            let error = expect_error(&events)?;
            if error != QueueError::Closed {
                return Err(format!("{error:?} instead of {:?}", QueueError::Closed));
            }
            expect_end(&mut peer)
        }
        Expect::EndsQuietly => {
            let error = expect_error(&events)?;
            if !matches!(error, QueueError::Protocol(_)) {
                return Err(format!("{error:?}, not a fault of the protocol"));
            }
            expect_end(&mut peer)
        }
        Expect::Outcome(expected) => {
            let completed = events.ended()?;
            if completed.outcome != expected {
                return Err(format!("{:?} instead of {expected:?}", completed.outcome));
            }
            goes_on(host, &mut peer, &events)
        }
        Expect::Ready => {
            let connect = peer.command()?;
            peer.complete(connect.cid.get(), Cqe::default())?;
            expect_ready(&events)?;
            goes_on(host, &mut peer, &events)
        }
    }
}

/// Shows that a connection is as good as before, and ends it.
fn goes_on(host: &TestHost, peer: &mut Peer, events: &Events) -> Checked<()> {
    let cid = issue(host, peer, flush())?;
    peer.complete(cid, Cqe::default())?;
    let completed = events.ended()?;
    if !completed.outcome.is_success() {
        return Err(format!("{:?} of a Flush after it", completed.outcome));
    }
    host.order(Order::Close);
    expect_end(peer)
}

#[test]
fn broken_bytes_end_as_the_specification_says_and_disturb_nobody() {
    let table = crate::to_host::table();
    let broken = table
        .iter()
        .filter(|row| !matches!(row.expect, Expect::Ready));
    assert!(broken.count() >= 60);
    let mut host = TestHost::start();
    host.check().unwrap();
    let rows = table
        .iter()
        .map(|row| (format!("{} ({:?})", row.name, row.stage), row));
    let run = |row: &Row, host: &TestHost| {
        let result = run(row, host);
        host.order(Order::Close);
        result
    };
    let failures = run_all(rows, &mut host, run, TestHost::check);
    host.stop();
    report(&failures, table.len());
}

/// Valid answers with a few bytes changed: whatever they mean now, the host takes them or ends the
/// connection, and goes on with the others.
#[test]
fn changed_bytes_of_valid_answers_disturb_nobody() {
    let mut host = TestHost::start();
    host.check().unwrap();
    for seed in 0..300u64 {
        let changes = pattern(32, seed);
        let stage = match changes[0] % 8 {
            0 => Stage::Icresp,
            1 => Stage::Connect,
            2 | 3 => Stage::Write,
            n => Stage::Read(n - 4),
        };
        let row = row("", stage, Expect::Cut, |_| Vec::new());
        let (mut peer, events, at) = bring_up(&row, &host).unwrap();
        let mut answer = match stage {
            Stage::Icresp => icresp(),
            Stage::Connect => at.success(),
            Stage::Write => [at.r2t(0, 4096), at.r2t(4096, 8192), at.success()].concat(),
            _ => [
                at.data(0, 2048, 0),
                at.data(2048, 2048, flags::LAST_PDU),
                at.success(),
            ]
            .concat(),
        };
        for change in changes[1..]
            .chunks_exact(3)
            .take(usize::from(changes[1] % 4) + 1)
        {
            let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % answer.len();
            // Headers are more interesting than payload.
            let headers = answer.len().min(256);
            answer[place % headers] ^= change[2];
        }
        peer.wire.send(&answer).unwrap();
        peer.wire.finish();
        while !matches!(
            events.next().unwrap_or_else(|e| panic!("seed {seed}: {e}")),
            Event::Error(_)
        ) {}
        host.check()
            .unwrap_or_else(|what| panic!("after seed {seed}: {what}"));
    }
    host.stop();
}

fn run_controller(host: &TestHost, row: Nonsense) -> Checked<()> {
    let mut connect = host.options();
    connect.queue_id = 0;
    connect.transfer_max = 4096;
    connect.controller_id = 0xffff;
    connect.keep_alive_ms = row.keep_alive_ms;
    connect.timeout = row.timeout;
    let mut options = ControllerOptions::new(connect);
    options.io_queues = 2;
    let (peer, events) = host.controller(options)?;
    let lie = row.lie;
    let controller = thread::spawn(move || serve(peer, lie));
    let result = judge(host, &events, &row.outlook);
    host.order(Order::Close);
    let last = controller
        .join()
        .map_err(|_| "the scripted controller panicked")??;
    // A host that gives up says why only if the protocol was broken.
    if let Received::Pdu(bytes) = &last
        && bytes.first() != Some(&PduType::H2C_TERM_REQ.0)
    {
        return Err(describe(&last));
    }
    result
}

fn judge(host: &TestHost, events: &Events, outlook: &Outlook) -> Checked<()> {
    loop {
        let event = events.next()?;
        match (outlook, event) {
            (Outlook::Usable(namespaces, left_out), Event::Controller(found, left, queues)) => {
                if (found, left) != (*namespaces, *left_out) || !(1..=2).contains(&queues) {
                    return Err(format!(
                        "{found} namespaces, {left} left out, {queues} queues"
                    ));
                }
                let question = AdminCommand::get_features(fid::ASYNC_EVENT_CONFIG);
                host.order(Order::Admin(question));
                let completed = events.ended()?;
                return match completed.outcome.is_success() {
                    true => Ok(()),
                    false => Err(format!("{:?} after that", completed.outcome)),
                };
            }
            // Some only go wrong once the controller is usable.
            (Outlook::GivenUp(_), Event::Controller(..)) => {}
            (Outlook::GivenUp(text), Event::ControllerError(error)) => {
                let message = error.to_string();
                return match message.contains(text) {
                    true => Ok(()),
                    false => Err(format!("'{message}' does not say '{text}'")),
                };
            }
            (_, other) => return Err(format!("{other:?}")),
        }
    }
}

/// B3.3 where it is about ANA logs: what a controller says of itself that makes no sense.
#[test]
fn nonsense_in_admin_answers_is_refused_or_made_do_with() {
    let mut host = TestHost::start();
    host.check().unwrap();
    let table = crate::nonsense::table();
    let count = table.len();
    let rows = table.into_iter().map(|row| (row.name.to_owned(), row));
    let failures = run_all(
        rows,
        &mut host,
        |row, host| run_controller(host, row),
        TestHost::check,
    );
    host.stop();
    report(&failures, count);
}
