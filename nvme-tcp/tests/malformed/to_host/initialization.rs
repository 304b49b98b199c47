//! What a host gets instead of ICResp.

use pollux_nvme_tcp::host::QueueError;
use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::pdu::{Icreq, PduType, flags};

use super::{
    Expect, FLAGS, HLEN, PLEN, Row, SEQUENCE, Stage, TERMINATED, TYPE, field, icresp, row, term_req,
};
use crate::broken::{Spoil, bare};
use pollux_nvme_tcp::testing::pattern;
use pollux_nvme_tcp::testing::wire::pdu;

/// Instead of ICResp.
pub fn table() -> Vec<Row> {
    let first = |name: &str, expect, bytes: fn() -> Vec<u8>| {
        row(
            format!("for ICReq: {name}"),
            Stage::Icresp,
            expect,
            move |_| bytes(),
        )
    };
    vec![
        first("PFV 1", Expect::Term(6, 8), || icresp().with(8, &[1])),
        first("PFV FF00h", Expect::Term(6, 8), || {
            icresp().with(9, &[0xff])
        }),
        first("CPDA 32", field(10), || icresp().with(10, &[32])),
        first("CPDA 255", field(10), || icresp().with(10, &[255])),
        first("HDGST not asked for", Expect::Term(6, 11), || {
            icresp().with(11, &[1])
        }),
        first("DDGST not asked for", Expect::Term(6, 11), || {
            icresp().with(11, &[2])
        }),
        first("reserved bits of DGST", field(11), || {
            icresp().with(11, &[0x80])
        }),
        first("MAXH2CDATA 0", field(12), || icresp().with(12, &[0; 4])),
        first("MAXH2CDATA 4092", field(12), || {
            icresp().with(12, &4092u32.to_le_bytes())
        }),
        first("MAXH2CDATA 4098", field(12), || {
            icresp().with(12, &4098u32.to_le_bytes())
        }),
        first("MAXH2CDATA FFFFFFFFh", field(12), || {
            icresp().with(12, &[0xff; 4])
        }),
        first("PFV and CPDA", Expect::Term(6, 8), || {
            icresp().with(8, &[1, 0, 77])
        }),
        first("HLEN 127", HLEN, || icresp().hlen(127)),
        first("HLEN 0", HLEN, || icresp().hlen(0)),
        first("HLEN 255", HLEN, || icresp().hlen(255)),
        first("PLEN 0", PLEN, || icresp().plen(0)),
        first("PLEN 127", PLEN, || icresp().plen(127)),
        first("PLEN 129", PLEN, || icresp().plen(129)),
        first("PLEN FFFFFFFFh", PLEN, || icresp().plen(u32::MAX)),
        first("HDGSTF", FLAGS, || icresp().flags(flags::HDGSTF)),
        first("flag 7 and HLEN", FLAGS, || icresp().flags(0x80).hlen(8)),
        first("ICReq", TYPE, || {
            pdu(TxFraming::default(), &Icreq::new(0, 0, 0), &[])
        }),
        first("H2CTermReq", TYPE, || term_req().with(0, &[2])),
        first("CapsuleCmd", TYPE, || {
            bare(PduType::CAPSULE_CMD, 0, 72, 0, 72, 72)
        }),
        first("H2CData", TYPE, || {
            bare(PduType::H2C_DATA, 0, 24, 24, 28, 28)
        }),
        first("type 08h", TYPE, || icresp().with(0, &[8])),
        first("type FFh", TYPE, || icresp().with(0, &[0xff])),
        first("CapsuleResp", SEQUENCE, || {
            bare(PduType::CAPSULE_RESP, 0, 24, 0, 24, 24)
        }),
        first("C2HData", SEQUENCE, || {
            bare(PduType::C2H_DATA, 0, 24, 24, 28, 28)
        }),
        first("R2T", SEQUENCE, || bare(PduType::R2T, 0, 24, 0, 24, 24)),
        first("C2HTermReq", TERMINATED, term_req),
        first("C2HTermReq with PLEN 23", Expect::EndsQuietly, || {
            term_req().plen(23)
        }),
        first("C2HTermReq with PLEN 153", Expect::EndsQuietly, || {
            term_req().plen(153)
        }),
        first(
            "8 bytes of C2HTermReq with PLEN 9999",
            Expect::EndsQuietly,
            || term_req().plen(9999).cut(8),
        ),
        first("an SSH greeting", TYPE, || {
            b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec()
        }),
        first("zeroes", TYPE, || vec![0; 4096]),
        first("noise", TYPE, || pattern(65536, 5).with(0, &[0xd5])),
        first("nothing", Expect::Cut, Vec::new),
        first("1 byte", Expect::Cut, || icresp().cut(1)),
        first("8 bytes", Expect::Cut, || icresp().cut(8)),
        first("127 bytes", Expect::Cut, || icresp().cut(127)),
        first(
            "silence",
            Expect::Ends(QueueError::Timeout("ICResp")),
            Vec::new,
        ),
        first(
            "half of it, and silence",
            Expect::Ends(QueueError::Timeout("ICResp")),
            || icresp().cut(64),
        ),
        Row {
            slowly: true,
            ..first("byte by byte", Expect::Ready, icresp)
        },
        first("reserved bytes", Expect::Ready, || {
            icresp().with(16, &[0xff; 112])
        }),
    ]
}
