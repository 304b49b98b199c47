//! Answers to a write.

use pollux_nvme_tcp::host::Outcome;
use pollux_nvme_tcp::spec::pdu::flags;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::peer::MAXR2T_Z;

use super::{
    At, CCCID, Expect, LIMIT, OUT_OF_RANGE, R2TL, Row, SEQUENCE, SHORT_DATA, Stage, WRITE_LEN, row,
    rows,
};
use crate::broken::Spoil;

/// Answers to a write.
pub fn table() -> Vec<Row> {
    let one = |name: &str, expect, bytes: fn(&At) -> Vec<u8>| {
        row(format!("write: {name}"), Stage::Write, expect, bytes)
    };
    let some = |name: &str, expect, bytes: fn(&At) -> Vec<Vec<u8>>| {
        rows(format!("write: {name}"), Stage::Write, expect, bytes)
    };
    vec![
        one("R2T for no command", CCCID, |at| {
            at.r2t_for(at.cid ^ 1, 0, 4096)
        }),
        one("R2T for CID FFFFh", CCCID, |at| at.r2t_for(0xffff, 0, 4096)),
        one("R2T of the generation before", CCCID, |at| {
            at.r2t_for(at.cid.wrapping_sub(1 << 10), 0, 4096)
        }),
        one("R2T for more than there is", OUT_OF_RANGE, |at| {
            at.r2t(0, WRITE_LEN + 4)
        }),
        one("R2T behind what there is", OUT_OF_RANGE, |at| {
            at.r2t(WRITE_LEN, 4096)
        }),
        one("R2T for 4 GiB", OUT_OF_RANGE, |at| at.r2t(0, u32::MAX)),
        one("R2TO FFFFFFFFh", OUT_OF_RANGE, |at| at.r2t(u32::MAX, 4096)),
        one("R2TO + R2TL is 2^32", OUT_OF_RANGE, |at| {
            at.r2t(u32::MAX - 4095, 4096)
        }),
        some("R2T over the end", OUT_OF_RANGE, |at| {
            vec![at.r2t(0, 32768), at.r2t(32768, 32772)]
        }),
        one("R2T for nothing", R2TL, |at| at.r2t(0, 0)),
        one("R2T not from the start", SEQUENCE, |at| at.r2t(4096, 4096)),
        some("R2T with a gap", SEQUENCE, |at| {
            vec![at.r2t(0, 4096), at.r2t(8192, 4096)]
        }),
        some("R2T twice", SEQUENCE, |at| {
            vec![at.r2t(0, 4096), at.r2t(0, 4096)]
        }),
        some("R2T with an overlap", SEQUENCE, |at| {
            vec![at.r2t(0, 8192), at.r2t(4096, 8192)]
        }),
        some("one R2T too many", LIMIT, |at| {
            (0..=MAXR2T_Z + 1).map(|i| at.r2t(i * 4096, 4096)).collect()
        }),
        one("data", CCCID, |at| at.data(0, 4096, flags::LAST_PDU)),
        one("success without an R2T", SHORT_DATA, At::success),
        some("success before the data", SEQUENCE, |at| {
            vec![at.r2t(0, WRITE_LEN), at.success()]
        }),
        some(
            "an error before the data",
            Expect::Outcome(Outcome::Completed {
                status: Status::WRITE_FAULT,
                result: 0,
            }),
            |at| {
                vec![
                    at.r2t(0, WRITE_LEN),
                    at.response(at.cid, Status::WRITE_FAULT),
                ]
            },
        ),
        one("11 bytes of an R2T", Expect::Cut, |at| {
            at.r2t(0, WRITE_LEN).cut(11)
        }),
        some("one and a half R2Ts", Expect::Cut, |at| {
            vec![at.r2t(0, 4096), at.r2t(4096, 4096).cut(12)]
        }),
        row("in-capsule write: R2T", Stage::InCapsule, SEQUENCE, |at| {
            at.r2t(0, 4096)
        }),
        row("in-capsule write: data", Stage::InCapsule, CCCID, |at| {
            at.data(0, 4096, flags::LAST_PDU)
        }),
    ]
}
