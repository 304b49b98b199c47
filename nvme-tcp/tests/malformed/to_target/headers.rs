//! Headers on an I/O queue, and digests.

use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{C2hData, CapsuleResp, R2t, flags};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Cqe, SglDescriptor, Sqe};

use super::{
    At, DATAL, Expect, FLAGS, HLEN, PDO, PLEN, Row, SEQUENCE, Stage, TYPE, icreq, row, term_req,
};
use crate::broken::Spoil;
use crate::client::write_by_r2t;
use pollux_nvme_tcp::testing::pattern;
use pollux_nvme_tcp::testing::wire::pdu;

/// Headers on an I/O queue.
pub fn table() -> Vec<Row> {
    fn flush(at: &At) -> Vec<u8> {
        at.capsule(Sqe::new(nvm::FLUSH, 1), &[])
    }
    fn write(at: &At) -> Vec<u8> {
        let mut sqe = write_by_r2t(0, 512);
        sqe.sgl = SglDescriptor::in_capsule(0, 512);
        at.capsule(sqe, &[0; 512])
    }
    let io = |name: &str, expect, bytes: fn(&At) -> Vec<u8>| row(name, Stage::Io(0), expect, bytes);
    let hdgst =
        |name: &str, expect, bytes: fn(&At) -> Vec<u8>| row(name, Stage::Io(1), expect, bytes);
    let both =
        |name: &str, expect, bytes: fn(&At) -> Vec<u8>| row(name, Stage::Io(3), expect, bytes);
    let mut all = vec![
        io("type 08h", TYPE, |at| flush(at).with(0, &[8])),
        io("type 80h", TYPE, |at| flush(at).with(0, &[0x80])),
        io("CapsuleResp to the target", TYPE, |at| {
            pdu(
                at.framing,
                &CapsuleResp::new(Cqe::new(1, Status::SUCCESS)),
                &[],
            )
        }),
        io("C2HData to the target", TYPE, |at| {
            pdu(at.framing, &C2hData::new(1, 0, 8, flags::LAST_PDU), &[0; 8])
        }),
        io("R2T to the target", TYPE, |at| {
            pdu(at.framing, &R2t::new(1, 0, 0, 512), &[])
        }),
        io("C2HTermReq to the target", TYPE, |_| {
            term_req().with(0, &[3])
        }),
        io("ICResp to the target", TYPE, |_| icreq().with(0, &[1])),
        io("ICReq on an I/O queue", SEQUENCE, |_| icreq()),
        io("capsule: HLEN 0", HLEN, |at| flush(at).hlen(0)),
        io("capsule: HLEN 71", HLEN, |at| flush(at).hlen(71)),
        io("capsule: HLEN 73", HLEN, |at| flush(at).hlen(73)),
        io("capsule: HLEN 255", HLEN, |at| flush(at).hlen(255)),
        io("capsule: HDGSTF not agreed", FLAGS, |at| {
            flush(at).flags(flags::HDGSTF)
        }),
        io("capsule: DDGSTF not agreed", FLAGS, |at| {
            write(at).flags(flags::DDGSTF)
        }),
        io("capsule: LAST_PDU", FLAGS, |at| {
            flush(at).flags(flags::LAST_PDU)
        }),
        io("capsule: SUCCESS", FLAGS, |at| {
            flush(at).flags(flags::SUCCESS)
        }),
        io("capsule: flag 7", FLAGS, |at| flush(at).flags(0x80)),
        io("capsule: flags and PDO", FLAGS, |at| {
            write(at).flags(0x80).pdo(7)
        }),
        io("capsule: PDO and PLEN", PDO, |at| {
            write(at).pdo(7).plen(u32::MAX)
        }),
        io("capsule: PLEN 0", PLEN, |at| flush(at).plen(0)),
        io("capsule: PLEN 8", PLEN, |at| flush(at).plen(8)),
        io("capsule: PLEN 71", PLEN, |at| flush(at).plen(71)),
        io("capsule: PLEN 16 MiB", PLEN, |at| write(at).plen(16 << 20)),
        io("capsule: PLEN FFFFFFFFh", PLEN, |at| {
            write(at).plen(u32::MAX)
        }),
        io("capsule: data without PDO", PDO, |at| write(at).pdo(0)),
        io("capsule: PDO in the header", PDO, |at| write(at).pdo(68)),
        io("capsule: PDO not aligned", PDO, |at| write(at).pdo(74)),
        io("capsule: PDO beyond PLEN", PDO, |at| {
            write(at).pdo(252).plen(100)
        }),
        io(
            "capsule: PDO without data is reserved",
            Expect::Status(Status::SUCCESS),
            |at| flush(at).pdo(72),
        ),
        io("H2CData: HLEN 23", HLEN, |at| {
            at.data_for(1, 0, 0, 8, true).hlen(23)
        }),
        io("H2CData: SUCCESS", FLAGS, |at| {
            at.data_for(1, 0, 0, 8, true)
                .flags(flags::LAST_PDU | flags::SUCCESS)
        }),
        io("H2CData: PDO 0", PDO, |at| {
            at.data_for(1, 0, 0, 8, true).pdo(0)
        }),
        io("H2CData: PDO 16", PDO, |at| {
            at.data_for(1, 0, 0, 8, true).pdo(16)
        }),
        io("H2CData: PLEN 20", PLEN, |at| {
            at.data_for(1, 0, 0, 8, true).plen(20)
        }),
        io("H2CData: no data", PLEN, |at| {
            at.data_for(1, 0, 0, 8, true).plen(24)
        }),
        io("H2CData: DATAL above the data", DATAL, |at| {
            at.data_for(1, 0, 0, 8, true).with(16, &[12])
        }),
        io("H2CData: DATAL 0", DATAL, |at| {
            at.data_for(1, 0, 0, 8, true).with(16, &[0])
        }),
        io("H2CTermReq", Expect::Closed, |_| term_req()),
        io("H2CTermReq: HLEN 25", Expect::Closed, |_| {
            term_req().hlen(25)
        }),
        io("H2CTermReq: flags", Expect::Closed, |_| term_req().flags(1)),
        io("H2CTermReq: PLEN 23", Expect::Closed, |_| {
            term_req().plen(23)
        }),
        io("H2CTermReq: PLEN 153", Expect::Closed, |_| {
            term_req().plen(153)
        }),
        io(
            "H2CTermReq: only 8 bytes, with PLEN 4096",
            Expect::Closed,
            |_| term_req().plen(4096).cut(8),
        ),
        hdgst("capsule without the agreed digest", FLAGS, |at| {
            let capsule = At {
                framing: TxFraming::default(),
                nqn: at.nqn.clone(),
                closed_nqn: at.closed_nqn.clone(),
                ..*at
            };
            flush(&capsule)
        }),
        hdgst("header digest off by a bit", Expect::HeaderDigest, |at| {
            flush(at).flip(72)
        }),
        hdgst("header digest 0", Expect::HeaderDigest, |at| {
            flush(at).with(72, &[0; 4])
        }),
        hdgst(
            "opcode changed below the digest",
            Expect::HeaderDigest,
            |at| flush(at).flip(8),
        ),
        hdgst("CID changed below the digest", Expect::HeaderDigest, |at| {
            flush(at).flip(10)
        }),
        hdgst("PLEN cuts the digest", PLEN, |at| flush(at).plen(72)),
        hdgst("PDO in the digest", PDO, |at| write(at).pdo(72)),
        hdgst("half a header digest", Expect::Cut, |at| flush(at).cut(74)),
        both(
            "data digest off by a bit",
            Expect::Status(Status::TRANSIENT_TRANSPORT_ERROR),
            |at| write(at).flip_last(),
        ),
        both(
            "data off by a bit",
            Expect::Status(Status::TRANSIENT_TRANSPORT_ERROR),
            |at| write(at).flip(200),
        ),
        both("data without the agreed digest", FLAGS, |at| {
            write(at).flags(flags::HDGSTF)
        }),
        both("DDGSTF without data", FLAGS, |at| {
            flush(at).flags(flags::HDGSTF | flags::DDGSTF)
        }),
        both("PLEN only for the data digest", PLEN, |at| {
            write(at).plen(80)
        }),
        both("half a data digest", Expect::Cut, |at| {
            let capsule = write(at);
            let len = capsule.len() - 2;
            capsule.cut(len)
        }),
        io("noise after a command", TYPE, |_| {
            pattern(70_000, 11).with(0, &[0x77])
        }),
        Row {
            slowly: true,
            ..io(
                "a write byte by byte",
                Expect::Status(Status::SUCCESS),
                write,
            )
        },
    ];
    for len in [1, 7, 8, 40, 71, 72, 300, 583] {
        all.push(row(
            format!("{len} bytes of a write"),
            Stage::Io(0),
            Expect::Cut,
            move |at| write(at).cut(len),
        ));
    }
    all
}
