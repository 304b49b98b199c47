//! Hundreds of reads outstanding on one queue pair, and a controller that answers them in any order, shape and pieces: each
//! buffer has the data of its own read. (A deep queue pair receives into the buffers whose data it expects next; see
//! `host/queue_pair/expected.rs`.)

use pollux_nvme_tcp::host::{Completed, Lost, Outcome, QueueError, Request};
use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::Cqe;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{C2hData, CapsuleResp, flags};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::pattern;
use pollux_nvme_tcp::testing::wire::{Checked, pdu};

use pollux_reactor::Rng;

use crate::test_host::{Event, Events, Order, TestHost};

const READS: u64 = 300;
const BLOCK: usize = 512;

/// A read whose command has come.
#[derive(Clone, Copy)]
struct Read {
    lba: u64,
    cid: u16,
    len: usize,
}

/// How the controller answers.
#[derive(Clone, Copy, Debug)]
enum Answers {
    InOrder,
    Reversed,
    /// Now and then the next two are swapped.
    SomeSwapped,
    Shuffled,
    /// Now and then the data comes in two PDUs.
    SomeInParts,
    /// Each has a response of its own.
    WithResponses,
    /// Now and then there is an error instead of data.
    SomeFail,
}

const ALL: [Answers; 7] = [
    Answers::InOrder,
    Answers::Reversed,
    Answers::SomeSwapped,
    Answers::Shuffled,
    Answers::SomeInParts,
    Answers::WithResponses,
    Answers::SomeFail,
];

fn data(read: &Read, from: usize, to: usize, flags: u8) -> Vec<u8> {
    let dword = |bytes| u32::try_from(bytes).unwrap();
    let header = C2hData::new(read.cid, dword(from), dword(to - from), flags);
    pdu(
        TxFraming::default(),
        &header,
        &pattern(read.len, read.lba)[from..to],
    )
}

fn response(read: &Read, status: Status) -> Vec<u8> {
    let cqe = Cqe {
        cid: read.cid.into(),
        status: status.to_cqe(),
        ..Cqe::default()
    };
    pdu(TxFraming::default(), &CapsuleResp::new(cqe), &[])
}

/// The bytes that answer all reads.
fn bytes(reads: &[Read], answers: Answers, random: &mut Rng) -> Vec<u8> {
    let mut reads = reads.to_vec();
    match answers {
        Answers::Reversed => reads.reverse(),
        Answers::SomeSwapped => {
            for pair in reads.chunks_exact_mut(2) {
                if random.below(16) == 0 {
                    pair.reverse();
                }
            }
        }
        Answers::Shuffled => {
            for n in (1..reads.len()).rev() {
                reads.swap(n, usize::try_from(random.below(n as u64 + 1)).unwrap());
            }
        }
        _ => {}
    }
    let whole = |read: &Read| data(read, 0, read.len, flags::LAST_PDU | flags::SUCCESS);
    let mut all = Vec::new();
    for read in &reads {
        let sometimes = random.below(16) == 0;
        match answers {
            Answers::SomeInParts if sometimes => {
                all.extend(data(read, 0, 1024, 0));
                let last = flags::LAST_PDU | flags::SUCCESS;
                all.extend(data(read, 1024, read.len, last));
            }
            Answers::WithResponses => {
                all.extend(data(read, 0, read.len, flags::LAST_PDU));
                all.extend(response(read, Status::SUCCESS));
            }
            Answers::SomeFail if sometimes => {
                all.extend(response(read, Status::LBA_OUT_OF_RANGE));
            }
            _ => all.extend(whole(read)),
        }
    }
    all
}

/// Has the host issue all reads, and takes their commands.
fn issue(
    host: &TestHost,
    peer: &mut pollux_nvme_tcp::testing::peer::Peer,
    random: &mut Rng,
) -> Checked<Vec<Read>> {
    let mut reads = Vec::new();
    for n in 0..READS {
        let len = if random.below(4) == 0 { 8192 } else { 4096 };
        let (lba, count) = (16 * n, u32::try_from(len / BLOCK).unwrap());
        let read = Request::block(nvm::READ, 1, lba, count, 9, vec![0; len]);
        host.order(Order::Request(read));
        let cid = peer.command()?.cid.get();
        reads.push(Read { lba, cid, len });
    }
    Ok(reads)
}

/// The LBA of a read that has ended.
fn lba_of(completed: &Completed) -> u64 {
    let cdw = completed.request.command.cdw;
    u64::from(cdw[0]) | u64::from(cdw[1]) << 32
}

fn ready(events: &Events) {
    let event = events.next().unwrap();
    assert!(matches!(event, Event::Ready), "{event:?}");
}

#[test]
fn each_read_gets_its_own_data_however_it_is_answered() {
    let host = TestHost::start();
    let mut random = Rng::seeded(1);
    for answers in ALL {
        let mut options = host.options();
        options.queue_size = 400;
        let (mut peer, events) = host.queue(options).unwrap();
        peer.accept_queue(0).unwrap();
        ready(&events);
        // The same connection again and again: what is not expected makes it do without for a while.
        for round in 0..8 {
            let reads = issue(&host, &mut peer, &mut random).unwrap();
            let all = bytes(&reads, answers, &mut random);
            let mut rest = all.as_slice();
            while !rest.is_empty() {
                // Pieces of any size: headers and data are cut anywhere.
                let most = [16, 4120, 100_000][usize::try_from(random.below(3)).unwrap()];
                let len = 1 + usize::try_from(random.below(most)).unwrap();
                let (now, later) = rest.split_at(len.min(rest.len()));
                peer.wire.send(now).unwrap();
                rest = later;
            }
            for _ in 0..READS {
                let completed = events.ended().unwrap();
                let lba = lba_of(&completed);
                let buffer = &completed.request.buffer;
                match completed.outcome {
                    outcome if outcome.is_success() => assert_eq!(
                        *buffer,
                        pattern(buffer.len(), lba),
                        "{answers:?}, round {round}, LBA {lba}"
                    ),
                    Outcome::Completed { status, .. } => {
                        assert_eq!(status, Status::LBA_OUT_OF_RANGE);
                        assert!(matches!(answers, Answers::SomeFail));
                    }
                    other => panic!("{answers:?}, round {round}, LBA {lba}: {other:?}"),
                }
            }
        }
        host.order(Order::Close);
        peer.wire.expect_end().unwrap();
    }
    host.stop();
}

#[test]
fn data_for_nobody_among_what_is_expected_ends_the_connection() {
    let host = TestHost::start();
    let mut random = Rng::seeded(2);
    let mut options = host.options();
    options.queue_size = 400;
    let (mut peer, events) = host.queue(options).unwrap();
    peer.accept_queue(0).unwrap();
    ready(&events);
    let reads = issue(&host, &mut peer, &mut random).unwrap();
    let mut all = bytes(&reads[..20], Answers::InOrder, &mut random);
    // The first one again.
    all.extend(data(&reads[0], 0, reads[0].len, flags::LAST_PDU));
    peer.wire.send(&all).unwrap();
    let mut succeeded = 0;
    let error = loop {
        match events.next().unwrap() {
            Event::Ended(completed) if completed.outcome.is_success() => {
                let lba = lba_of(&completed);
                let buffer = completed.request.buffer;
                assert_eq!(buffer, pattern(buffer.len(), lba));
                succeeded += 1;
            }
            Event::Ended(completed) => assert!(
                matches!(completed.outcome, Outcome::Lost(Lost::Connection { .. })),
                "{completed:?}"
            ),
            Event::Error(error) => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(succeeded, 20);
    let QueueError::Protocol(fault) = error else {
        panic!("{error:?}");
    };
    assert_eq!(fault.reason, "data for a command that is not outstanding");
    host.stop();
}
