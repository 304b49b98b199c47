//! Data for a write that waits for it.

use pollux_nvme_tcp::spec::Sqe;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::CapsuleCmd;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::wire::pdu;

use super::{
    At, CCCID, DATAL, Expect, LIMIT, MAXH2CDATA, OUT_OF_RANGE, Row, SEQUENCE, Stage, TTAG,
    WRITE_LEN, row, rows,
};
use crate::broken::Spoil;
use crate::client::write_by_r2t;

/// Data for a write that waits for it.
pub fn table() -> Vec<Row> {
    let io =
        |name: &str, expect, bytes: fn(&At) -> Vec<u8>| row(name, Stage::Writing(0), expect, bytes);
    let two = |name: &str, expect, bytes: fn(&At) -> Vec<Vec<u8>>| {
        rows(name, Stage::Writing(0), expect, bytes)
    };
    let mut all = vec![
        row("data without an R2T", Stage::Io(0), TTAG, |at| {
            at.data_for(at.cid, 0, 0, 512, true)
        }),
        row("data with TTAG FFFFh", Stage::Io(0), TTAG, |at| {
            at.data_for(at.cid, 0xffff, 0, 512, true)
        }),
        io("data: TTAG of no R2T", TTAG, |at| {
            at.data_for(at.write.0, at.write.1 + 1, 0, WRITE_LEN, true)
        }),
        io("data: CCCID of no command", CCCID, |at| {
            at.data_for(at.write.0 + 1, at.write.1, 0, WRITE_LEN, true)
        }),
        io("data: not from the start", SEQUENCE, |at| {
            at.data(512, 512, false)
        }),
        two("data: a gap", SEQUENCE, |at| {
            vec![at.data(0, 4096, false), at.data(8192, 8192, true)]
        }),
        two("data: the same twice", SEQUENCE, |at| {
            vec![at.data(0, 4096, false), at.data(0, 4096, false)]
        }),
        two("data: an overlap", SEQUENCE, |at| {
            vec![at.data(0, 4096, false), at.data(2048, 4096, false)]
        }),
        io("data: more than was asked for", OUT_OF_RANGE, |at| {
            at.data(0, WRITE_LEN + 512, true)
        }),
        io("data: behind what was asked for", OUT_OF_RANGE, |at| {
            at.data(WRITE_LEN, 512, true)
        }),
        two("data: over the end", OUT_OF_RANGE, |at| {
            vec![at.data(0, 8192, false), at.data(8192, 8196, true)]
        }),
        io("data: DATAO FFFFFFFFh", OUT_OF_RANGE, |at| {
            at.data(u32::MAX, 512, true)
        }),
        io("data: DATAO + DATAL is 2^32", OUT_OF_RANGE, |at| {
            at.data(u32::MAX - 511, 512, true)
        }),
        io("data: LAST_PDU too early", SEQUENCE, |at| {
            at.data(0, 4096, true)
        }),
        io("data: no LAST_PDU", SEQUENCE, |at| {
            at.data(0, WRITE_LEN, false)
        }),
        io("data: DATAL below the data", DATAL, |at| {
            at.data(0, 8192, false).with(16, &4096u32.to_le_bytes())
        }),
        io("data: just above MAXH2CDATA", LIMIT, |at| {
            at.data(0, MAXH2CDATA + 4, true)
        }),
        io("data: 2 x MAXH2CDATA", LIMIT, |at| {
            at.data(0, 2 * MAXH2CDATA, true)
        }),
        io("data: PLEN FFFFFFFFh", LIMIT, |at| {
            at.data(0, 512, false).plen(u32::MAX)
        }),
        two(
            "data: once more when all is there",
            Expect::StatusThenTerm(Status::SUCCESS, 1, 10),
            |at| vec![at.data(0, WRITE_LEN, true), at.data(0, WRITE_LEN, true)],
        ),
        io(
            "a second command with the same CID",
            Expect::Status(Status::COMMAND_ID_CONFLICT),
            |at| {
                let mut sqe = Sqe::new(nvm::FLUSH, 1);
                sqe.cid = at.write.0.into();
                pdu(at.framing, &CapsuleCmd::new(sqe), &[])
            },
        ),
        row(
            "data: wrong data digest",
            Stage::Writing(2),
            Expect::Status(Status::TRANSIENT_TRANSPORT_ERROR),
            |at| at.data(0, WRITE_LEN, true).flip_last(),
        ),
        rows(
            "data: wrong data digest of the first of two",
            Stage::Writing(2),
            Expect::Status(Status::TRANSIENT_TRANSPORT_ERROR),
            |at| {
                vec![
                    at.data(0, 8192, false).flip_last(),
                    at.data(8192, 8192, true),
                ]
            },
        ),
        row(
            "data: wrong header digest",
            Stage::Writing(1),
            Expect::HeaderDigest,
            |at| at.data(0, WRITE_LEN, true).flip(12),
        ),
        rows(
            "more commands than the queue holds",
            Stage::SmallQueue,
            SEQUENCE,
            |at| {
                (0..5)
                    .map(|cid| pdu(at.framing, &CapsuleCmd::new(write_by_r2t(cid, 4096)), &[]))
                    .collect()
            },
        ),
    ];
    for len in [8, 23, 24, 25, 5000, 16407] {
        all.push(row(
            format!("{len} bytes of data"),
            Stage::Writing(0),
            Expect::Cut,
            move |at| at.data(0, WRITE_LEN, true).cut(len),
        ));
    }
    all
}
