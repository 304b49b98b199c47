//! Peers that break the protocol: that connection ends, with the right TermReq, and no other does.

use std::io::Write;

use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{CommonHeader, H2cData, Icreq, PduType, R2t, TermReq};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::Backend;
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, pattern, wait_for};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

fn start() -> TestTarget {
    TestTarget::start(2, &[Backend::Memory { bytes: 1 << 20 }])
}

fn io_queue(target: &TestTarget, options: Options) -> (Initiator, Initiator) {
    let admin = Initiator::admin(target.addr, &target.nqn, options);
    let io = Initiator::io(target.addr, &target.nqn, admin.cntlid, 2, options);
    (admin, io)
}

fn write_sqe(len: u32) -> Sqe {
    let mut sqe = Sqe::for_blocks(nvm::WRITE, 1, 0, len / 512);
    sqe.sgl = SglDescriptor::transport(len);
    sqe
}

/// Sends a write and takes its R2T. Returns the command's identifier and the transfer tag.
pub fn begin_write(io: &mut Initiator, len: u32) -> (u16, u16) {
    let cid = io.submit(write_sqe(len), &[]);
    let pdu = io.receive();
    assert_eq!(pdu.frame.pdu_type, PduType::R2T);
    let (r2t, _) = R2t::read_from_prefix(&pdu.bytes).unwrap();
    assert_eq!((r2t.r2to.get(), r2t.r2tl.get()), (0, len));
    (cid, r2t.ttag.get())
}

#[test]
fn broken_handshakes_end_with_a_term_req() {
    let target = start();
    let icreq = |change: &dyn Fn(&mut Icreq)| {
        let mut request = Icreq::new(0, 0, 0);
        request.ch.hlen = 128;
        request.ch.plen = 128.into();
        change(&mut request);
        request.as_bytes().to_vec()
    };
    let mut capsule = vec![4, 0, 72, 0, 72, 0, 0, 0];
    capsule.resize(72, 0);
    let cases = [
        (icreq(&|r| r.pfv = 1.into()), (6, 8)),
        (icreq(&|r| r.hpda_z = 32), (1, 10)),
        (icreq(&|r| r.ch.hlen = 127), (1, 2)),
        (icreq(&|r| r.ch.plen = 129.into()), (1, 4)),
        (icreq(&|r| r.ch.flags = 1), (1, 1)),
        (icreq(&|r| r.ch.pdu_type = PduType::ICRESP), (1, 0)),
        (icreq(&|r| r.ch.pdu_type = PduType(0x55)), (1, 0)),
        (capsule, (2, 0)),
        (vec![0xff; 64], (1, 0)),
    ];
    for (bytes, expected) in cases {
        let mut host = Initiator::open(target.addr);
        host.send_raw(&bytes);
        assert_eq!(host.expect_term_req(), expected, "{:02x?}", &bytes[..16]);
        // The rest of what a peer sends is dropped, and its end is waited for.
        drop(host);
    }
    assert_eq!(target.status().faults_total, 9);
    Initiator::admin(target.addr, &target.nqn, Options::default());
}

#[test]
fn broken_pdus_end_their_queue_and_no_other() {
    let target = start();
    let (mut admin, mut good) = io_queue(&target, Options::default());
    let data = pattern(16384, 5);
    assert_eq!(good.write(1, 0, &data), Status::SUCCESS);
    type Case<'a> = (&'a str, (u16, u32), &'a dyn Fn(&mut Initiator));
    let header = |pdu_type: PduType, flags: u8, hlen: u8, pdo: u8, plen: u32| {
        let mut bytes = CommonHeader {
            pdu_type,
            flags,
            hlen,
            pdo,
            plen: plen.into(),
        }
        .as_bytes()
        .to_vec();
        bytes.resize(128, 0);
        bytes
    };
    let cases: [Case<'_>; 18] = [
        ("type", (1, 0), &|q| {
            q.send_raw(&header(PduType(8), 0, 24, 0, 24));
        }),
        ("C2H type", (1, 0), &|q| {
            q.send_raw(&header(PduType::R2T, 0, 24, 0, 24));
        }),
        ("second ICReq", (2, 0), &|q| {
            q.send_raw(&header(PduType::ICREQ, 0, 128, 0, 128));
        }),
        ("HLEN", (1, 2), &|q| {
            q.send_raw(&header(PduType::CAPSULE_CMD, 0, 71, 0, 72));
        }),
        ("PLEN below", (1, 4), &|q| {
            q.send_raw(&header(PduType::CAPSULE_CMD, 0, 72, 0, 40));
        }),
        ("PLEN above", (1, 4), &|q| {
            q.send_raw(&header(PduType::CAPSULE_CMD, 0, 72, 72, u32::MAX));
        }),
        ("PDO in header", (1, 3), &|q| {
            q.send_raw(&header(PduType::CAPSULE_CMD, 0, 72, 8, 600));
        }),
        ("digest flag", (1, 1), &|q| {
            q.send_raw(&header(PduType::CAPSULE_CMD, 1, 72, 0, 76));
        }),
        ("too much in-capsule data", (5, 0), &|q| {
            let mut sqe = write_sqe(16384);
            sqe.sgl = SglDescriptor::in_capsule(0, 16384);
            q.submit(sqe, &[0; 16384]);
        }),
        ("unknown TTAG", (1, 10), &|q| {
            q.send_data(1, 9, 0, &[0; 512], true);
        }),
        ("TTAG beyond the table", (1, 10), &|q| {
            q.send_data(1, 0xffff, 0, &[0; 512], true);
        }),
        ("CCCID", (1, 8), &|q| {
            let (cid, ttag) = begin_write(q, 16384);
            q.send_data(cid + 1, ttag, 0, &[0; 16384], true);
        }),
        ("out of order", (2, 0), &|q| {
            let (cid, ttag) = begin_write(q, 16384);
            q.send_data(cid, ttag, 8192, &[0; 8192], true);
        }),
        ("beyond the range", (4, 0), &|q| {
            let (cid, ttag) = begin_write(q, 16384);
            q.send_data(cid, ttag, 0, &[0; 16896], true);
        }),
        ("offset that wraps", (4, 0), &|q| {
            let (cid, ttag) = begin_write(q, 16384);
            q.send_data(cid, ttag, u32::MAX as usize, &[0; 512], true);
        }),
        ("LAST_PDU too early", (2, 0), &|q| {
            let (cid, ttag) = begin_write(q, 16384);
            q.send_data(cid, ttag, 0, &[0; 8192], true);
        }),
        ("no LAST_PDU", (2, 0), &|q| {
            let (cid, ttag) = begin_write(q, 16384);
            q.send_data(cid, ttag, 0, &[0; 16384], false);
        }),
        ("DATAL", (1, 16), &|q| {
            let (cid, ttag) = begin_write(q, 16384);
            let mut out = Vec::new();
            let wrong = H2cData::new(cid, ttag, 0, 512, false);
            q.tx.put_header(&mut out, &wrong, 1024);
            out.resize(out.len() + 1024, 0);
            q.send_raw(&out);
        }),
    ];
    for (qid, (what, expected, action)) in (10..).zip(cases) {
        let mut queue = Initiator::io(
            target.addr,
            &target.nqn,
            admin.cntlid,
            qid,
            Options::default(),
        );
        action(&mut queue);
        assert_eq!(queue.expect_term_req(), expected, "{what}");
        assert!(good.read(1, 0, 32).unwrap() == data, "after {what}");
    }
    assert!(admin.identify(1, 0).is_ok());
    wait_for("all ends", || target.status().faults_total == 18);
    let status = target.status();
    assert_eq!(status.subsystems[0].controllers[0].qpairs.len(), 2);
}

#[test]
fn what_comes_before_a_fault_is_answered_and_what_comes_after_is_dropped() {
    let target = start();
    let (_admin, mut io) = io_queue(&target, Options::default());
    let mut out = Vec::new();
    let mut sqe = Sqe::new(nvm::FLUSH, 1);
    sqe.cid = io.new_cid().into();
    io.put_capsule(&mut out, sqe, &[]);
    out.extend_from_slice(&[0x55; 300_000]);
    io.send_raw(&out);
    assert_eq!(io.receive().cqe().status(), Status::SUCCESS);
    assert_eq!(io.receive().term_req(), (1, 0));
}

#[test]
fn a_bad_header_digest_is_fatal() {
    let target = start();
    let options = Options {
        hdgst: true,
        ..Options::default()
    };
    let (_admin, mut io) = io_queue(&target, options);
    let mut out = Vec::new();
    io.put_capsule(&mut out, Sqe::new(nvm::FLUSH, 1), &[]);
    out[72] ^= 1;
    io.send_raw(&out);
    let sent = u32::from_le_bytes([out[72], out[73], out[74], out[75]]);
    assert_eq!(io.expect_term_req(), (3, sent));
}

#[test]
fn a_bad_data_digest_fails_only_its_command() {
    let target = start();
    let options = Options {
        hdgst: true,
        ddgst: true,
        ..Options::default()
    };
    let (_admin, mut io) = io_queue(&target, options);
    let before = pattern(16384, 1);
    assert_eq!(io.write(1, 0, &before), Status::SUCCESS);

    let mut sqe = write_sqe(4096);
    sqe.sgl = SglDescriptor::in_capsule(0, 4096);
    sqe.cid = io.new_cid().into();
    let mut out = Vec::new();
    io.put_capsule(&mut out, sqe, &[7; 4096]);
    *out.last_mut().unwrap() ^= 0x80;
    io.send_raw(&out);
    let (cqe, _) = io.finish(sqe.cid.get(), &[]);
    assert_eq!(cqe.status(), Status::TRANSIENT_TRANSPORT_ERROR);

    let (cid, ttag) = begin_write(&mut io, 16384);
    let mut out = Vec::new();
    let header = H2cData::new(cid, ttag, 0, 16384, true);
    io.tx.put_header(&mut out, &header, 16384);
    out.resize(out.len() + 16384 + 4, 0x11);
    io.send_raw(&out);
    let (cqe, _) = io.finish(cid, &[]);
    assert_eq!(cqe.status(), Status::TRANSIENT_TRANSPORT_ERROR);
    assert!(io.read(1, 0, 32).unwrap() == before);
}

#[test]
fn a_command_identifier_in_use_is_a_conflict() {
    let target = start();
    let (_admin, mut io) = io_queue(&target, Options::default());
    let (cid, ttag) = begin_write(&mut io, 16384);
    let mut sqe = Sqe::new(nvm::FLUSH, 1);
    sqe.cid = cid.into();
    let mut out = Vec::new();
    io.put_capsule(&mut out, sqe, &[]);
    io.send_raw(&out);
    let (cqe, _) = io.finish(cid, &[]);
    assert_eq!(cqe.status().code(), Status::COMMAND_ID_CONFLICT);
    io.send_data(cid, ttag, 0, &[3; 16384], true);
    assert_eq!(io.finish(cid, &[]).0.status(), Status::SUCCESS);
}

#[test]
fn more_commands_than_entries_end_the_queue() {
    let target = start();
    let admin = Initiator::admin(target.addr, &target.nqn, Options::default());
    let mut io = Initiator::initialized(target.addr, Options::default());
    let cqe = io.connect(1, 4, admin.cntlid, &target.nqn, Options::default());
    assert_eq!(cqe.status(), Status::SUCCESS);
    for _ in 0..5 {
        io.submit(write_sqe(16384), &[]);
    }
    assert_eq!(io.expect_term_req(), (2, 0));
}

#[test]
fn a_term_req_of_the_host_is_not_answered() {
    let target = start();
    let (_admin, mut io) = io_queue(&target, Options::default());
    let mut term = TermReq::new_zeroed();
    term.ch = CommonHeader {
        pdu_type: PduType::H2C_TERM_REQ,
        flags: 0,
        hlen: 24,
        pdo: 0,
        plen: 24.into(),
    };
    term.fes = 1.into();
    io.send_raw(term.as_bytes());
    assert!(io.try_receive().is_none());
    wait_for("the fault", || {
        let faults = target.status().faults;
        faults.iter().any(|f| f.reason == "host sent H2CTermReq")
    });
}

/// Whoever connects and says nothing locks nobody out: the oldest of those make room.
#[test]
fn silent_connections_lock_nobody_out() {
    let target = start();
    let mut silent: Vec<Initiator> = (0..400).map(|_| Initiator::open(target.addr)).collect();
    let (mut admin, mut io) = io_queue(&target, Options::default());
    assert!(admin.identify_controller().cntlid.get() > 0);
    assert!(io.read(1, 0, 1).is_ok());
    assert!(silent[0].try_receive().is_none());
    // The newest is still listened to, and those that have connected are not touched by more silence.
    let mut newest = silent.pop().unwrap();
    let mut out = Vec::new();
    newest.tx.put_header(&mut out, &Icreq::new(0, 0, 0), 0);
    newest.send_raw(&out);
    assert_eq!(newest.receive().frame.pdu_type, PduType::ICRESP);
    silent.extend((0..400).map(|_| Initiator::open(target.addr)));
    assert!(io.read(1, 0, 1).is_ok());
    let (_other, mut io) = io_queue(&target, Options::default());
    assert!(io.read(1, 0, 1).is_ok());
}

/// Every byte sequence of a short valid exchange cut at every place, and with every byte changed, must not
/// disturb anybody else.
#[test]
fn cut_and_changed_bytes_disturb_nobody() {
    let target = start();
    let (mut admin, mut good) = io_queue(&target, Options::default());
    let mut sqe = write_sqe(512);
    sqe.sgl = SglDescriptor::in_capsule(0, 512);
    let mut valid = Vec::new();
    good.put_capsule(&mut valid, sqe, &[0; 512]);
    let mut out = Vec::new();
    good.tx.put_header(&mut out, &Icreq::new(0, 0, 0), 0);
    for (qid, at) in (20..).zip((0..96).step_by(3)) {
        let mut changed = valid.clone();
        changed[at] ^= 0x5a;
        let mut queue = Initiator::io(
            target.addr,
            &target.nqn,
            admin.cntlid,
            qid,
            Options::default(),
        );
        // The peer may have closed by the second write.
        let _ = queue.stream.write_all(&changed);
        let _ = queue.stream.write_all(&valid[..at]);
        drop(queue);
        let mut host = Initiator::open(target.addr);
        host.send_raw(&out[..at]);
    }
    assert!(good.read(1, 8, 8).is_ok());
    assert!(admin.identify(1, 0).is_ok());
    wait_for("the queues' ends", || {
        target.status().subsystems[0].controllers[0].qpairs.len() == 2
    });
}
