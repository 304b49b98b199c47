//! Framing against emission, and framing against whatever a peer may send.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::digest::header_digest;
use super::*;
use crate::spec::pdu::{
    C2hData, CapsuleCmd, CapsuleResp, CommonHeader, DIGEST_LEN, Fes, H2cData, Icreq, Icresp,
    PduType, R2t, TermReq, flags,
};
use crate::spec::{Cqe, Sqe, Status};

const MAX_PLEN: u32 = 64 * 1024;

/// Reproducible numbers, good enough to hit odd cases.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[1]
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit
    }
}

fn rx(receiver: Receiver, digests: u8, pda: u8) -> RxFraming {
    RxFraming {
        receiver,
        hdgst: digests & flags::HDGSTF != 0,
        ddgst: digests & flags::DDGSTF != 0,
        pda,
        max_plen: MAX_PLEN,
        initialized: true,
    }
}

/// What the peer of `rx` sends with.
fn tx(rx: &RxFraming) -> TxFraming {
    TxFraming {
        hdgst: rx.hdgst,
        ddgst: rx.ddgst,
        pda: rx.pda,
    }
}

/// A whole PDU with `data_len` bytes of data.
fn emit<H: IntoBytes + Immutable>(tx: &TxFraming, header: &H, data_len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let layout = tx.put_header(&mut out, header, data_len);
    assert_eq!(out.len(), layout.head_len);
    let data: Vec<u8> = (0..=255u8).cycle().take(data_len).collect();
    out.extend_from_slice(&data);
    if layout.ddgst {
        let mut digest = DataDigest::new();
        digest.update(&data);
        out.extend_from_slice(&digest.finish());
    }
    assert_eq!(out.len(), layout.plen);
    out
}

fn sqe() -> Sqe {
    Sqe::for_blocks(crate::spec::opcode::nvm::WRITE, 1, 0x1122_3344_5566, 8)
}

/// Every type of PDU that `rx` may get once it is initialized, with all sorts of data.
fn valid_pdus(rx: &RxFraming) -> Vec<Vec<u8>> {
    let tx = tx(rx);
    let mut pdus = Vec::new();
    let lengths = [1usize, 4, 511, 512, 4096];
    match rx.receiver {
        Receiver::Controller => {
            pdus.push(emit(&tx, &CapsuleCmd::new(sqe()), 0));
            for len in lengths {
                let datal = u32::try_from(len).unwrap();
                pdus.push(emit(&tx, &CapsuleCmd::new(sqe()), len));
                pdus.push(emit(&tx, &H2cData::new(1, 2, 512, datal, true), len));
                pdus.push(emit(&tx, &H2cData::new(1, 2, 512, datal, false), len));
            }
        }
        Receiver::Host => {
            pdus.push(emit(
                &tx,
                &CapsuleResp::new(Cqe::new(7, Status::SUCCESS)),
                0,
            ));
            pdus.push(emit(&tx, &R2t::new(1, 2, 0, 65536), 0));
            for len in lengths {
                let datal = u32::try_from(len).unwrap();
                for flags in [0, flags::LAST_PDU, flags::LAST_PDU | flags::SUCCESS] {
                    pdus.push(emit(&tx, &C2hData::new(1, 0, datal, flags), len));
                }
            }
        }
    }
    let sender = match rx.receiver {
        Receiver::Host => Receiver::Controller,
        Receiver::Controller => Receiver::Host,
    };
    let mut term = Vec::new();
    emit_term_req(
        &mut term,
        sender,
        ProtocolError::field(2, "test"),
        &[40; 60],
    );
    pdus.push(term);
    pdus
}

/// All agreements two sides can come to, as far as they differ for framing.
fn all_framings() -> Vec<RxFraming> {
    let mut all = Vec::new();
    for receiver in [Receiver::Host, Receiver::Controller] {
        for digests in 0..4 {
            for pda in [0, 1, 2, 7, 15, 30, 31] {
                all.push(rx(receiver, digests, pda));
            }
        }
    }
    all
}

/// Length of header and header digest of a framed PDU.
fn head_len(rx: &RxFraming, frame: &Frame) -> usize {
    let has_digest = rx.hdgst
        && !matches!(
            frame.pdu_type,
            PduType::ICREQ | PduType::ICRESP | PduType::H2C_TERM_REQ | PduType::C2H_TERM_REQ
        );
    frame.header_len + usize::from(has_digest) * DIGEST_LEN
}

#[test]
fn what_is_emitted_is_framed() {
    for rx in all_framings() {
        for pdu in valid_pdus(&rx) {
            let frame = rx.frame(&pdu).unwrap().unwrap();
            assert_eq!(frame.total_len, pdu.len());
            let (ch, _) = CommonHeader::ref_from_prefix(&pdu).unwrap();
            assert_eq!(frame.pdu_type, ch.pdu_type);
            assert_eq!(frame.flags, ch.flags);
            assert_eq!(frame.header_len, usize::from(ch.hlen));
            let digest_len = usize::from(frame.ddgst) * DIGEST_LEN;
            if frame.data_len == 0 {
                assert_eq!((frame.data_offset, digest_len, ch.pdo), (0, 0, 0));
                assert_eq!(head_len(&rx, &frame), pdu.len());
                continue;
            }
            assert_eq!(frame.data_offset + frame.data_len + digest_len, pdu.len());
            if frame.pdu_type == PduType::H2C_TERM_REQ || frame.pdu_type == PduType::C2H_TERM_REQ {
                assert_eq!(
                    (frame.data_offset, frame.data_len, frame.ddgst),
                    (24, 40, false)
                );
                continue;
            }
            assert_eq!(frame.ddgst, rx.ddgst);
            assert_eq!(frame.data_offset % ((usize::from(rx.pda) + 1) * 4), 0);
            let data = &pdu[frame.data_offset..][..frame.data_len];
            assert!(
                data.iter()
                    .copied()
                    .eq((0..=255u8).cycle().take(frame.data_len))
            );
            assert!(
                pdu[head_len(&rx, &frame)..frame.data_offset]
                    .iter()
                    .all(|&b| b == 0),
                "padding must not leak memory"
            );
            if frame.ddgst {
                let mut digest = DataDigest::new();
                for piece in data.chunks(7) {
                    digest.update(piece);
                }
                assert_eq!(pdu[pdu.len() - DIGEST_LEN..], digest.finish());
            }
        }
    }
}

#[test]
fn a_pdu_is_framed_as_soon_as_its_header_is_there() {
    for rx in all_framings() {
        for pdu in valid_pdus(&rx) {
            let whole = rx.frame(&pdu).unwrap().unwrap();
            let head = head_len(&rx, &whole);
            for len in 0..head {
                assert_eq!(rx.frame(&pdu[..len]), Ok(None), "{len} of {whole:?}");
            }
            for len in [head, head + 1, pdu.len()] {
                let len = len.min(pdu.len());
                assert_eq!(rx.frame(&pdu[..len]), Ok(Some(whole)), "{len} of {whole:?}");
            }
        }
    }
}

#[test]
fn what_came_before_changes_nothing() {
    for rx in all_framings() {
        let pdus = valid_pdus(&rx);
        let mut before = Before::default();
        for first in &pdus {
            for second in &pdus {
                // Each is also cut, and has a wrong byte wherever it can matter.
                for pdu in [first, second, second] {
                    for len in [7, 8, 24, pdu.len()] {
                        let bytes = &pdu[..len.min(pdu.len())];
                        assert_eq!(rx.frame_after(&mut before, bytes), rx.frame(bytes));
                    }
                }
                for at in 0..20 {
                    let mut wrong = second.clone();
                    wrong[at] ^= 0x40;
                    assert_eq!(rx.frame_after(&mut before, &wrong), rx.frame(&wrong));
                    assert_eq!(rx.frame_after(&mut before, second), rx.frame(second));
                }
            }
        }
    }
}

#[test]
fn initialization_is_framed_before_and_refused_after() {
    let cases = [
        (
            Receiver::Controller,
            emit(&TxFraming::default(), &Icreq::new(0, 3, 0), 0),
        ),
        (
            Receiver::Host,
            emit(&TxFraming::default(), &Icresp::new(0, 3, 4096), 0),
        ),
    ];
    for (receiver, pdu) in cases {
        let mut rx = rx(receiver, 0, 0);
        rx.initialized = false;
        let mut before = Before::default();
        let frame = rx.frame_after(&mut before, &pdu).unwrap().unwrap();
        assert_eq!(
            (frame.header_len, frame.data_len, frame.total_len),
            (128, 0, 128)
        );
        for len in 0..pdu.len() {
            assert_eq!(rx.frame(&pdu[..len]), Ok(None));
        }
        rx.initialized = true;
        let again = rx.frame_after(&mut before, &pdu);
        assert_eq!(again.unwrap_err().fes, Fes::SEQUENCE_ERROR);
    }
}

#[test]
fn every_flipped_bit_is_found_by_the_header_digest() {
    for rx in all_framings().into_iter().filter(|rx| rx.hdgst) {
        for pdu in valid_pdus(&rx) {
            let frame = rx.frame(&pdu).unwrap().unwrap();
            let head = head_len(&rx, &frame);
            if head == frame.header_len {
                continue;
            }
            let mut bytes = pdu.clone();
            for bit in 0..head * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let result = rx.frame(&bytes);
                assert!(result.is_err(), "bit {bit} of {frame:?}: {result:?}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

#[test]
fn every_flipped_bit_gives_an_error_or_a_sound_frame() {
    for rx in all_framings() {
        for pdu in valid_pdus(&rx) {
            let mut bytes = pdu.clone();
            for bit in 0..pdu.len().min(128) * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_sound(&rx, &bytes);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

/// Frames `bytes`, and if that works checks that no part of the PDU can be outside of it.
fn assert_sound(rx: &RxFraming, bytes: &[u8]) -> bool {
    match rx.frame(bytes) {
        Ok(Some(frame)) => {
            let digest = usize::from(frame.ddgst) * DIGEST_LEN;
            assert!(bytes.len() >= head_len(rx, &frame), "{frame:?}");
            if frame.data_len == 0 {
                assert_eq!((frame.data_offset, digest), (0, 0), "{frame:?}");
                assert_eq!(frame.total_len, head_len(rx, &frame));
            } else {
                assert!(frame.data_offset >= head_len(rx, &frame), "{frame:?}");
                let end = frame.data_offset + frame.data_len + digest;
                assert_eq!(end, frame.total_len, "{frame:?}");
                assert!(frame.total_len <= rx.max_plen as usize, "{frame:?}");
            }
            true
        }
        Ok(None) => {
            assert!(bytes.len() < 128 + DIGEST_LEN);
            false
        }
        Err(error) => {
            assert_ne!(error.fes.name(), None);
            assert!(
                error.fes != Fes::INVALID_HEADER_FIELD || error.fei < 24,
                "{error:?}"
            );
            true
        }
    }
}

#[test]
fn random_bytes_do_no_harm() {
    let mut random = Lcg(42);
    let framings = all_framings();
    let mut framed = 0;
    for round in 0..300_000u32 {
        let mut rx = framings[random.next() as usize % framings.len()];
        rx.initialized = random.below(8) != 0;
        let mut bytes = [0u8; 160];
        bytes.iter_mut().for_each(|b| *b = random.byte());
        // Pure noise would hardly ever get past the first checks.
        if round % 4 != 0 {
            bytes[0] = random.byte() % 10;
            bytes[1] &= 0x0F;
            bytes[2] = [128, 128, 24, 24, 72, 24, 24, 24, 24, 24][usize::from(bytes[0])];
            bytes[4..8].copy_from_slice(&random.below(300).to_le_bytes());
        }
        if round % 8 == 7 {
            let hlen = usize::from(bytes[2]);
            bytes[3] = random.byte() & 0xFC;
            let datal = random.below(300);
            bytes[16..20].copy_from_slice(&datal.to_le_bytes());
            let plen = u32::from(bytes[3]) + datal + u32::from(bytes[1] & 2) * 2;
            bytes[4..8].copy_from_slice(&plen.to_le_bytes());
            let digest = header_digest(&bytes[..hlen]);
            bytes[hlen..hlen + 4].copy_from_slice(&digest);
        }
        let len = random.below(161) as usize;
        assert_sound(&rx, &bytes[..len]);
        framed += u32::from(matches!(rx.frame(&bytes), Ok(Some(_))));
    }
    assert!(framed > 100, "only {framed} of the random PDUs were valid");
}

/// A broken PDU and what is to be said about it.
struct Broken {
    name: &'static str,
    rx: RxFraming,
    pdu: Vec<u8>,
    fes: Fes,
    fei: u32,
}

/// Changes a valid PDU; its header digest, where it has one, is made right again.
fn broken(
    name: &'static str,
    rx: RxFraming,
    valid: Vec<u8>,
    change: impl FnOnce(&mut Vec<u8>),
    fei: u32,
) -> Broken {
    let frame = rx.frame(&valid).unwrap().unwrap();
    let mut pdu = valid;
    change(&mut pdu);
    if head_len(&rx, &frame) != frame.header_len {
        let digest = header_digest(&pdu[..frame.header_len]);
        pdu[frame.header_len..][..DIGEST_LEN].copy_from_slice(&digest);
    }
    Broken {
        name,
        rx,
        pdu,
        fes: Fes::INVALID_HEADER_FIELD,
        fei,
    }
}

fn set_plen(plen: u32) -> impl FnOnce(&mut Vec<u8>) {
    move |pdu| pdu[4..8].copy_from_slice(&plen.to_le_bytes())
}

fn set(offset: usize, value: u8) -> impl FnOnce(&mut Vec<u8>) {
    move |pdu| pdu[offset] = value
}

fn set_datal(datal: u32) -> impl FnOnce(&mut Vec<u8>) {
    move |pdu| pdu[16..20].copy_from_slice(&datal.to_le_bytes())
}

fn broken_by_controller() -> Vec<Broken> {
    let host = |digests, pda| rx(Receiver::Host, digests, pda);
    let plain = host(0, 0);
    let both = host(flags::HDGSTF | flags::DDGSTF, 0);
    let resp = |rx: &RxFraming| emit(&tx(rx), &CapsuleResp::new(Cqe::new(1, Status::SUCCESS)), 0);
    let r2t = |rx: &RxFraming| emit(&tx(rx), &R2t::new(1, 2, 0, 8192), 0);
    let data = |rx: &RxFraming| emit(&tx(rx), &C2hData::new(1, 0, 512, flags::LAST_PDU), 512);
    let uninitialized = RxFraming {
        initialized: false,
        ..plain
    };
    let icresp = || emit(&TxFraming::default(), &Icresp::new(0, 0, 8192), 0);
    let term = || {
        let mut out = Vec::new();
        let error = ProtocolError::field(0, "test");
        emit_term_req(&mut out, Receiver::Controller, error, &[1; 24]);
        out
    };
    let aligned = host(0, 7);
    vec![
        broken("CapsuleCmd to a host", plain, resp(&plain), set(0, 0x04), 0),
        broken("H2CData to a host", plain, data(&plain), set(0, 0x06), 0),
        broken("ICReq to a host", plain, resp(&plain), set(0, 0x00), 0),
        broken("H2CTermReq to a host", plain, resp(&plain), set(0, 0x02), 0),
        broken("type 08h", plain, resp(&plain), set(0, 0x08), 0),
        broken("type 0Ah", plain, resp(&plain), set(0, 0x0A), 0),
        broken("type 10h", plain, resp(&plain), set(0, 0x10), 0),
        broken("type FFh", plain, resp(&plain), set(0, 0xFF), 0),
        broken("CapsuleResp HLEN 16", plain, resp(&plain), set(2, 16), 2),
        broken("CapsuleResp HLEN 28", both, resp(&both), set(2, 28), 2),
        broken("R2T HLEN 0", plain, r2t(&plain), set(2, 0), 2),
        broken("C2HData HLEN 255", both, data(&both), set(2, 255), 2),
        broken("ICResp HLEN 127", uninitialized, icresp(), set(2, 127), 2),
        broken(
            "ICResp flags",
            uninitialized,
            icresp(),
            set(1, flags::HDGSTF),
            1,
        ),
        broken("ICResp PLEN 132", uninitialized, icresp(), set_plen(132), 4),
        broken(
            "CapsuleResp reserved flag",
            plain,
            resp(&plain),
            set(1, 0x10),
            1,
        ),
        broken("CapsuleResp DDGSTF", both, resp(&both), set(1, 0x03), 1),
        broken("CapsuleResp LAST_PDU", plain, resp(&plain), set(1, 0x04), 1),
        broken("R2T SUCCESS", plain, r2t(&plain), set(1, 0x08), 1),
        broken("C2HData bit 7", plain, data(&plain), set(1, 0x84), 1),
        broken(
            "C2HData SUCCESS without LAST_PDU",
            plain,
            data(&plain),
            set(1, 0x08),
            1,
        ),
        broken("C2HData no HDGSTF", both, data(&both), set(1, 0x06), 1),
        broken("C2HData no DDGSTF", both, data(&both), set(1, 0x05), 1),
        broken(
            "C2HData HDGSTF not agreed",
            plain,
            data(&plain),
            set(1, 0x05),
            1,
        ),
        broken(
            "C2HData DDGSTF not agreed",
            plain,
            data(&plain),
            set(1, 0x06),
            1,
        ),
        broken("CapsuleResp no HDGSTF", both, resp(&both), set(1, 0), 1),
        broken("C2HData PDO 0", plain, data(&plain), set(3, 0), 3),
        broken("C2HData PDO in header", plain, data(&plain), set(3, 20), 3),
        broken("C2HData PDO in HDGST", both, data(&both), set(3, 24), 3),
        broken("C2HData PDO odd", plain, data(&plain), set(3, 26), 3),
        broken(
            "C2HData PDO not aligned to 32",
            aligned,
            data(&aligned),
            set(3, 24),
            3,
        ),
        broken(
            "C2HData PDO at 48 of 32",
            aligned,
            data(&aligned),
            set(3, 48),
            3,
        ),
        broken(
            "C2HData PDO behind the end",
            plain,
            emit(&tx(&plain), &C2hData::new(1, 0, 4, 0), 4),
            set(3, 32),
            3,
        ),
        broken("C2HData PLEN 0", plain, data(&plain), set_plen(0), 4),
        broken("C2HData PLEN 24", plain, data(&plain), set_plen(24), 4),
        broken(
            "C2HData PLEN without data",
            both,
            data(&both),
            set_plen(32),
            4,
        ),
        broken(
            "C2HData PLEN above limit",
            plain,
            data(&plain),
            set_plen(MAX_PLEN + 1),
            4,
        ),
        broken(
            "C2HData PLEN huge",
            plain,
            data(&plain),
            set_plen(u32::MAX),
            4,
        ),
        broken("CapsuleResp PLEN 23", plain, resp(&plain), set_plen(23), 4),
        broken(
            "CapsuleResp PLEN without HDGST",
            both,
            resp(&both),
            set_plen(24),
            4,
        ),
        broken("R2T PLEN with data", plain, r2t(&plain), set_plen(28), 4),
        broken(
            "C2HData DATAL too small",
            plain,
            data(&plain),
            set_datal(511),
            16,
        ),
        broken(
            "C2HData DATAL too large",
            both,
            data(&both),
            set_datal(516),
            16,
        ),
        broken(
            "C2HData DATAL huge",
            both,
            data(&both),
            set_datal(u32::MAX),
            16,
        ),
        broken("C2HTermReq HLEN", plain, term(), set(2, 23), 2),
        broken("C2HTermReq flags", plain, term(), set(1, flags::HDGSTF), 1),
        broken("C2HTermReq PLEN 23", plain, term(), set_plen(23), 4),
        broken("C2HTermReq PLEN 153", both, term(), set_plen(153), 4),
    ]
}

fn broken_by_host() -> Vec<Broken> {
    let controller = |digests, pda| rx(Receiver::Controller, digests, pda);
    let plain = controller(0, 0);
    let both = controller(flags::HDGSTF | flags::DDGSTF, 0);
    let uninitialized = RxFraming {
        initialized: false,
        ..plain
    };
    let icreq = || emit(&TxFraming::default(), &Icreq::new(0, 0, 0), 0);
    let cmd = |rx: &RxFraming, len| emit(&tx(rx), &CapsuleCmd::new(sqe()), len);
    let data = |rx: &RxFraming| emit(&tx(rx), &H2cData::new(1, 2, 0, 512, true), 512);
    vec![
        broken(
            "CapsuleResp to a controller",
            plain,
            data(&plain),
            set(0, 0x05),
            0,
        ),
        broken("R2T to a controller", plain, data(&plain), set(0, 0x09), 0),
        broken(
            "C2HTermReq to a controller",
            plain,
            data(&plain),
            set(0, 0x03),
            0,
        ),
        broken(
            "ICResp to a controller",
            uninitialized,
            icreq(),
            set(0, 0x01),
            0,
        ),
        broken("ICReq HLEN", uninitialized, icreq(), set(2, 24), 2),
        broken("ICReq flags", uninitialized, icreq(), set(1, 0x80), 1),
        broken("ICReq PLEN", uninitialized, icreq(), set_plen(127), 4),
        broken("CapsuleCmd HLEN", plain, cmd(&plain, 0), set(2, 64), 2),
        broken(
            "CapsuleCmd LAST_PDU",
            plain,
            cmd(&plain, 0),
            set(1, 0x04),
            1,
        ),
        broken(
            "CapsuleCmd DDGSTF without data",
            both,
            cmd(&both, 0),
            set(1, 0x03),
            1,
        ),
        broken(
            "CapsuleCmd no DDGSTF",
            both,
            cmd(&both, 512),
            set(1, 0x01),
            1,
        ),
        broken(
            "CapsuleCmd no HDGSTF",
            both,
            cmd(&both, 512),
            set(1, 0x02),
            1,
        ),
        broken("CapsuleCmd PDO", plain, cmd(&plain, 512), set(3, 68), 3),
        broken(
            "CapsuleCmd PDO in HDGST",
            both,
            cmd(&both, 512),
            set(3, 72),
            3,
        ),
        broken(
            "CapsuleCmd PLEN 71",
            plain,
            cmd(&plain, 512),
            set_plen(71),
            4,
        ),
        broken(
            "CapsuleCmd PLEN cut in HDGST",
            both,
            cmd(&both, 512),
            set_plen(72),
            4,
        ),
        broken(
            "CapsuleCmd PLEN above limit",
            plain,
            cmd(&plain, 512),
            set_plen(MAX_PLEN + 1),
            4,
        ),
        broken(
            "CapsuleCmd PLEN only DDGST",
            both,
            cmd(&both, 512),
            set_plen(80),
            4,
        ),
        broken("H2CData SUCCESS", plain, data(&plain), set(1, 0x0C), 1),
        broken("H2CData DATAL", plain, data(&plain), set_datal(0), 16),
        broken("H2CData PDO", plain, data(&plain), set(3, 255), 3),
        Broken {
            name: "CapsuleCmd before ICReq",
            rx: uninitialized,
            pdu: cmd(&plain, 0),
            fes: Fes::SEQUENCE_ERROR,
            fei: 0,
        },
        Broken {
            name: "H2CData before ICReq",
            rx: uninitialized,
            pdu: data(&plain),
            fes: Fes::SEQUENCE_ERROR,
            fei: 0,
        },
        Broken {
            name: "second ICReq",
            rx: both,
            pdu: icreq(),
            fes: Fes::SEQUENCE_ERROR,
            fei: 0,
        },
    ]
}

#[test]
fn broken_headers_are_named() {
    let rows: Vec<Broken> = broken_by_controller()
        .into_iter()
        .chain(broken_by_host())
        .collect();
    assert!(rows.len() >= 60);
    for row in rows {
        let error = row.rx.frame(&row.pdu).expect_err(row.name);
        assert_eq!(
            (error.fes, error.fei),
            (row.fes, row.fei),
            "{}: {error}",
            row.name
        );
        // What is wrong in the first 8 bytes is seen at once.
        if row.fei < 8 {
            assert_eq!(row.rx.frame(&row.pdu[..8]), Err(error), "{}", row.name);
        }
    }
}

#[test]
fn header_digest_error_carries_the_received_digest() {
    let rx = rx(Receiver::Host, flags::HDGSTF, 0);
    let mut pdu = emit(&tx(&rx), &R2t::new(1, 2, 0, 8192), 0);
    pdu[24..28].copy_from_slice(&[0x11, 0x22, 0x33, 0x44]);
    let error = rx.frame(&pdu).unwrap_err();
    assert_eq!(error.fes, Fes::HEADER_DIGEST_ERROR);
    assert_eq!(error.fei, 0x4433_2211);
    assert_eq!(
        error.to_string(),
        "header digest does not match (Header Digest Error, FEI 0x44332211)"
    );
}

#[test]
fn data_offset_of_a_capsule_without_data_is_ignored() {
    let rx = rx(Receiver::Controller, 0, 0);
    let mut pdu = emit(&tx(&rx), &CapsuleCmd::new(sqe()), 0);
    pdu[3] = 72;
    let frame = rx.frame(&pdu).unwrap().unwrap();
    assert_eq!((frame.data_offset, frame.data_len), (0, 0));
}

#[test]
fn a_larger_data_offset_than_needed_is_taken() {
    let rx = rx(Receiver::Host, 0, 0);
    let mut pdu = emit(&tx(&rx), &C2hData::new(1, 0, 16, 0), 16);
    pdu.splice(24..24, [0; 8]);
    pdu[3] = 32;
    pdu[4..8].copy_from_slice(&48u32.to_le_bytes());
    let frame = rx.frame(&pdu).unwrap().unwrap();
    assert_eq!((frame.data_offset, frame.data_len), (32, 16));
}

#[test]
fn term_req_holds_the_offending_header() {
    let error = ProtocolError::field(16, "DATAL");
    for (found_by, pdu_type) in [
        (Receiver::Host, PduType::H2C_TERM_REQ),
        (Receiver::Controller, PduType::C2H_TERM_REQ),
    ] {
        // HLEN, bytes at hand, and how many of them go along: the header, and never more than that.
        for (hlen, len, goes_along) in [
            (24, 0, 0),
            (24, 7, 7),
            (24, 24, 24),
            (24, 4096, 24),
            (128, 4096, 128),
            (129, 4096, 8),
            (0, 4096, 8),
            (72, 71, 8),
        ] {
            let mut offending = vec![0x5A; len];
            if let Some(place) = offending.get_mut(2) {
                *place = hlen;
            }
            let mut out = vec![0xEE; 3];
            emit_term_req(&mut out, found_by, error, &offending);
            let pdu = &out[3..];
            let (term, data) = TermReq::ref_from_prefix(pdu).unwrap();
            assert_eq!(term.ch.pdu_type, pdu_type);
            assert_eq!((term.ch.flags, term.ch.hlen, term.ch.pdo), (0, 24, 0));
            assert_eq!(term.ch.plen.get() as usize, pdu.len());
            assert_eq!(
                (term.fes(), term.fei.get()),
                (Fes::INVALID_HEADER_FIELD, 16)
            );
            assert_eq!(data, &offending[..goes_along]);
        }
    }
}

#[test]
fn headers_are_laid_out_as_in_the_figures() {
    let bytes = emit(&TxFraming::default(), &CapsuleCmd::new(sqe()), 4096);
    assert_eq!(bytes[..8], [0x04, 0x00, 0x48, 0x48, 0x48, 0x10, 0x00, 0x00]);
    let tx = TxFraming {
        hdgst: true,
        ddgst: true,
        pda: 31,
    };
    let bytes = emit(&tx, &C2hData::new(0x0102, 0x0304_0506, 0x1000, 0x0C), 4096);
    assert_eq!(
        bytes[..24],
        [
            0x07, 0x0F, 0x18, 0x80, 0x84, 0x10, 0x00, 0x00, // type, flags, HLEN, PDO, PLEN
            0x02, 0x01, 0x00, 0x00, 0x06, 0x05, 0x04, 0x03, // CCCID, reserved, DATAO
            0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // DATAL, reserved
        ]
    );
    let bytes = emit(&TxFraming::default(), &R2t::new(7, 9, 4096, 8192), 0);
    assert_eq!(
        bytes,
        [
            0x09, 0x00, 0x18, 0x00, 0x18, 0x00, 0x00, 0x00, // type, flags, HLEN, PDO, PLEN
            0x07, 0x00, 0x09, 0x00, 0x00, 0x10, 0x00, 0x00, // CCCID, TTAG, R2TO
            0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // R2TL, reserved
        ]
    );
    let bytes = emit(&TxFraming::default(), &Icreq::new(1, 3, 4), 0);
    assert_eq!(
        bytes[..16],
        [0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 1, 3, 4, 0, 0, 0]
    );
    assert!(bytes[16..].iter().all(|&b| b == 0));
}

#[test]
fn digests_are_crc32c() {
    // Test patterns of RFC 3720, B.4.
    assert_eq!(header_digest(&[0; 32]), [0xAA, 0x36, 0x91, 0x8A]);
    assert_eq!(header_digest(&[0xFF; 32]), [0x43, 0xAB, 0xA8, 0x62]);
    let ascending: Vec<u8> = (0..32).collect();
    assert_eq!(header_digest(&ascending), [0x4E, 0x79, 0xDD, 0x46]);
    let mut digest = DataDigest::new();
    for piece in ascending.chunks(5) {
        digest.update(piece);
    }
    assert_eq!(digest.finish(), [0x4E, 0x79, 0xDD, 0x46]);
    assert_eq!(DataDigest::new().finish(), [0; 4]);
}

/// Both ways to compute it agree, whatever the length, the alignment and the pieces.
#[test]
fn a_data_digest_is_the_crc32c_of_all_its_pieces() {
    let data: Vec<u8> = (0..9000u32)
        .map(|n| n.wrapping_mul(0x9E37_79B1).to_le_bytes()[3])
        .collect();
    for start in [0, 1, 7, 63] {
        for len in (0..300).chain([511, 512, 513, 1024, 4095, 4096, 4097, 8192]) {
            let data = &data[start..start + len];
            let expected = crc32c::crc32c(data).to_le_bytes();
            for cut in [0, 1, len / 3, len / 2 + 1, len].map(|cut| cut.min(len)) {
                let mut digest = DataDigest::new();
                digest.update(&data[..cut]);
                digest.update(&data[cut..]);
                assert_eq!(digest.finish(), expected, "{start}, {len}, {cut}");
            }
        }
    }
}

#[test]
fn a_header_goes_behind_what_is_already_there() {
    let tx = TxFraming {
        hdgst: true,
        ..TxFraming::default()
    };
    let alone = emit(&tx, &CapsuleResp::new(Cqe::new_zeroed()), 0);
    let mut out = vec![1, 2, 3];
    tx.put_header(&mut out, &CapsuleResp::new(Cqe::new_zeroed()), 0);
    assert_eq!(out[..3], [1, 2, 3]);
    assert_eq!(out[3..], alone[..]);
}
