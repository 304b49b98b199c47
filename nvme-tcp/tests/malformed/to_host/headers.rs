//! Headers and digests that no request makes right.

use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{CapsuleCmd, CapsuleResp, H2cData, flags};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Cqe, Sqe};

use super::{
    At, DATAL, Expect, FLAGS, HLEN, PDO, PLEN, Row, SEQUENCE, Stage, TERMINATED, TYPE, icresp, row,
    term_req,
};
use crate::broken::Spoil;
use pollux_nvme_tcp::testing::pattern;
use pollux_nvme_tcp::testing::wire::pdu;

/// Headers that no request makes right.
pub fn table() -> Vec<Row> {
    const LAST: u8 = flags::LAST_PDU;
    let plain =
        |name: &str, expect, bytes: fn(&At) -> Vec<u8>| row(name, Stage::Read(0), expect, bytes);
    let hdgst =
        |name: &str, expect, bytes: fn(&At) -> Vec<u8>| row(name, Stage::Read(1), expect, bytes);
    let both =
        |name: &str, expect, bytes: fn(&At) -> Vec<u8>| row(name, Stage::Read(3), expect, bytes);
    vec![
        plain("type 08h to the host", TYPE, |at| {
            at.success().with(0, &[8])
        }),
        plain("type 8Ah to the host", TYPE, |at| {
            at.success().with(0, &[0x8a])
        }),
        plain("CapsuleCmd to the host", TYPE, |at| {
            pdu(at.framing, &CapsuleCmd::new(Sqe::new(nvm::READ, 1)), &[])
        }),
        plain("H2CData to the host", TYPE, |at| {
            pdu(at.framing, &H2cData::new(at.cid, 0, 0, 8, true), &[0; 8])
        }),
        plain("ICReq to the host", TYPE, |_| icresp().with(0, &[0])),
        plain("H2CTermReq to the host", TYPE, |_| term_req().with(0, &[2])),
        plain("ICResp once more", SEQUENCE, |_| icresp()),
        plain("C2HTermReq", TERMINATED, |_| term_req()),
        plain("C2HTermReq with HLEN 25", Expect::EndsQuietly, |_| {
            term_req().hlen(25)
        }),
        plain("C2HTermReq with flags", Expect::EndsQuietly, |_| {
            term_req().flags(1)
        }),
        plain("C2HTermReq with PLEN 4 GiB", Expect::EndsQuietly, |_| {
            term_req().plen(u32::MAX)
        }),
        plain("response: HLEN 0", HLEN, |at| at.success().hlen(0)),
        plain("response: HLEN 25", HLEN, |at| at.success().hlen(25)),
        plain("response: PLEN 0", PLEN, |at| at.success().plen(0)),
        plain("response: PLEN 23", PLEN, |at| at.success().plen(23)),
        plain("response: PLEN FFFFFFFFh", PLEN, |at| {
            at.success().plen(u32::MAX)
        }),
        plain("response: HDGSTF not agreed", FLAGS, |at| {
            at.success().flags(flags::HDGSTF)
        }),
        plain("response: DDGSTF", FLAGS, |at| {
            at.success().flags(flags::DDGSTF)
        }),
        plain("response: LAST_PDU", FLAGS, |at| {
            at.success().flags(flags::LAST_PDU)
        }),
        plain("R2T: HLEN 20", HLEN, |at| at.r2t(0, 512).hlen(20)),
        plain("R2T: PLEN 1024", PLEN, |at| at.r2t(0, 512).plen(1024)),
        plain("R2T: LAST_PDU", FLAGS, |at| {
            at.r2t(0, 512).flags(flags::LAST_PDU)
        }),
        plain("data: HLEN 72", HLEN, |at| at.all(LAST).hlen(72)),
        plain("data: HDGSTF not agreed", FLAGS, |at| {
            at.all(LAST).flags(LAST | flags::HDGSTF)
        }),
        plain("data: DDGSTF not agreed", FLAGS, |at| {
            at.all(LAST).flags(LAST | flags::DDGSTF)
        }),
        plain("data: flag 4", FLAGS, |at| at.all(LAST).flags(LAST | 0x10)),
        plain("data: SUCCESS without LAST_PDU", FLAGS, |at| {
            at.all(flags::SUCCESS)
        }),
        plain("data: flags, HLEN, PDO and PLEN", FLAGS, |at| {
            at.all(flags::SUCCESS).hlen(1).pdo(2).plen(3)
        }),
        plain("data: PDO 0", PDO, |at| at.all(LAST).pdo(0)),
        plain("data: PDO in the header", PDO, |at| at.all(LAST).pdo(20)),
        plain("data: PDO not aligned", PDO, |at| at.all(LAST).pdo(26)),
        plain("data: PDO beyond PLEN", PDO, |at| {
            at.data(0, 8, LAST).pdo(200)
        }),
        plain("data: PLEN 20", PLEN, |at| at.all(LAST).plen(20)),
        plain("data: PLEN 0", PLEN, |at| at.all(LAST).plen(0)),
        plain("data: none", PLEN, |at| at.all(LAST).plen(24)),
        plain("data: DATAL 0", DATAL, |at| at.all(LAST).with(16, &[0; 4])),
        plain("data: DATAL above PLEN", DATAL, |at| {
            at.all(LAST).with(16, &8192u32.to_le_bytes())
        }),
        plain("data: DATAL FFFFFFFFh", DATAL, |at| {
            at.all(LAST).with(16, &[0xff; 4])
        }),
        plain("data: PLEN FFFFFFFFh", DATAL, |at| {
            at.all(LAST).plen(u32::MAX)
        }),
        hdgst("response without the agreed digest", FLAGS, |at| {
            pdu(
                TxFraming::default(),
                &CapsuleResp::new(Cqe::new(at.cid, Status::SUCCESS)),
                &[],
            )
        }),
        hdgst(
            "response: header digest off by a bit",
            Expect::HeaderDigest,
            |at| at.success().flip(24),
        ),
        hdgst(
            "response: status changed below the digest",
            Expect::HeaderDigest,
            |at| at.success().flip(22),
        ),
        hdgst("response: PLEN without the digest", PLEN, |at| {
            at.success().plen(24)
        }),
        hdgst("data: header digest 0", Expect::HeaderDigest, |at| {
            at.all(LAST).with(24, &[0; 4])
        }),
        hdgst(
            "data: CCCID changed below the digest",
            Expect::HeaderDigest,
            |at| at.all(LAST).flip(8),
        ),
        hdgst("data: PDO in the digest", PDO, |at| at.all(LAST).pdo(24)),
        hdgst(
            "R2T: header digest off by a bit",
            Expect::HeaderDigest,
            |at| at.r2t(0, 512).flip(26),
        ),
        both("data without the agreed digest", FLAGS, |at| {
            at.all(LAST).flags(LAST | flags::HDGSTF)
        }),
        both("response with DDGSTF", FLAGS, |at| {
            at.success().flags(flags::HDGSTF | flags::DDGSTF)
        }),
        both("PLEN only for the data digest", PLEN, |at| {
            at.all(LAST).plen(32)
        }),
        plain("noise", TYPE, |_| pattern(300_000, 9).with(0, &[0xc3])),
    ]
}
