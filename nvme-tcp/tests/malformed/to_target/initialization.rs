//! What a target gets instead of ICReq.

use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::Sqe;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{CapsuleCmd, H2cData, Icresp, PduType, flags};

use super::{Expect, FLAGS, HLEN, PLEN, Row, SEQUENCE, Stage, TYPE, field, icreq, row, term_req};
use crate::broken::{Spoil, bare};
use pollux_nvme_tcp::testing::pattern;
use pollux_nvme_tcp::testing::wire::pdu;

/// Before ICReq.
pub fn table() -> Vec<Row> {
    let tcp = |name: &str, expect, bytes: fn() -> Vec<u8>| {
        row(
            format!("first PDU: {name}"),
            Stage::Tcp,
            expect,
            move |_| bytes(),
        )
    };
    vec![
        tcp("ICResp", TYPE, || {
            pdu(TxFraming::default(), &Icresp::new(0, 0, 4096), &[])
        }),
        tcp("C2HTermReq", TYPE, || term_req().with(0, &[3])),
        tcp("CapsuleResp", TYPE, || {
            bare(PduType::CAPSULE_RESP, 0, 24, 0, 24, 24)
        }),
        tcp("C2HData", TYPE, || {
            bare(PduType::C2H_DATA, 0, 24, 24, 28, 28)
        }),
        tcp("R2T", TYPE, || bare(PduType::R2T, 0, 24, 0, 24, 24)),
        tcp("type 08h", TYPE, || icreq().with(0, &[8])),
        tcp("type 0Ah", TYPE, || icreq().with(0, &[10])),
        tcp("type FFh", TYPE, || icreq().with(0, &[0xff])),
        tcp("only 8 bytes of type FFh", TYPE, || vec![0xff; 8]),
        tcp("CapsuleCmd", SEQUENCE, || {
            pdu(
                TxFraming::default(),
                &CapsuleCmd::new(Sqe::new(nvm::READ, 1)),
                &[],
            )
        }),
        tcp("H2CData", SEQUENCE, || {
            pdu(
                TxFraming::default(),
                &H2cData::new(0, 0, 0, 4, true),
                &[0; 4],
            )
        }),
        tcp("H2CTermReq", Expect::Closed, term_req),
        tcp("an HTTP request", TYPE, || {
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()
        }),
        tcp("a TLS greeting", TYPE, || {
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00".to_vec()
        }),
        tcp("zeroes", HLEN, || vec![0; 256]),
        tcp("64 KiB of noise", TYPE, || {
            pattern(65536, 3).with(0, &[0x5f])
        }),
        tcp("HLEN 127", HLEN, || icreq().hlen(127)),
        tcp("HLEN 0", HLEN, || icreq().hlen(0)),
        tcp("HLEN 255", HLEN, || icreq().hlen(255)),
        tcp("PLEN 0", PLEN, || icreq().plen(0)),
        tcp("PLEN 127", PLEN, || icreq().plen(127)),
        tcp("PLEN 129", PLEN, || icreq().plen(129)),
        tcp("PLEN FFFFFFFFh", PLEN, || icreq().plen(u32::MAX)),
        tcp("HDGSTF", FLAGS, || icreq().flags(flags::HDGSTF)),
        tcp("all flags", FLAGS, || icreq().flags(0xff)),
        tcp("flags, HLEN and PLEN", FLAGS, || {
            icreq().flags(4).hlen(1).plen(2)
        }),
        tcp("HLEN and PLEN", HLEN, || icreq().hlen(1).plen(2)),
        tcp("PFV 1", Expect::Term(6, 8), || icreq().with(8, &[1])),
        tcp("PFV FFFFh", Expect::Term(6, 8), || {
            icreq().with(8, &[0xff, 0xff])
        }),
        tcp("HPDA 32", field(10), || icreq().with(10, &[32])),
        tcp("HPDA 255", field(10), || icreq().with(10, &[255])),
        tcp("MAXR2T FFFFFFFFh", Expect::GoesOn, || {
            icreq().with(12, &[0xff; 4])
        }),
        tcp("reserved bytes", Expect::GoesOn, || {
            icreq().with(16, &[0xff; 112])
        }),
        tcp("nothing", Expect::Cut, Vec::new),
        tcp("1 byte", Expect::Cut, || icreq().cut(1)),
        tcp("7 bytes", Expect::Cut, || icreq().cut(7)),
        tcp("8 bytes", Expect::Cut, || icreq().cut(8)),
        tcp("127 bytes", Expect::Cut, || icreq().cut(127)),
        Row {
            slowly: true,
            ..tcp("byte by byte", Expect::GoesOn, icreq)
        },
    ]
}
