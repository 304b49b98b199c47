//! Answers to a read.

use pollux_nvme_tcp::host::Outcome;
use pollux_nvme_tcp::spec::pdu::flags;
use pollux_nvme_tcp::spec::status::Status;

use super::{
    At, BAD_DATA, CCCID, CQE_CID, Expect, OUT_OF_RANGE, READ_LEN, Row, SEQUENCE, SHORT_DATA,
    SUCCESS, Stage, row, rows,
};
use crate::broken::Spoil;

/// Answers to a read.
pub fn table() -> Vec<Row> {
    const LAST: u8 = flags::LAST_PDU;
    const DONE: u8 = flags::LAST_PDU | flags::SUCCESS;
    let one = |name: &str, expect, bytes: fn(&At) -> Vec<u8>| {
        row(format!("read: {name}"), Stage::Read(0), expect, bytes)
    };
    let some = |name: &str, expect, bytes: fn(&At) -> Vec<Vec<u8>>| {
        rows(format!("read: {name}"), Stage::Read(0), expect, bytes)
    };
    let digest = |name: &str, expect, bytes: fn(&At) -> Vec<Vec<u8>>| {
        rows(format!("read: {name}"), Stage::Read(3), expect, bytes)
    };
    let second = |name: &str, expect, bytes: fn(&At) -> Vec<u8>| {
        row(
            format!("second read: {name}"),
            Stage::SecondRead,
            expect,
            bytes,
        )
    };
    let mut all = vec![
        one("completion of no command", CQE_CID, |at| {
            at.response(at.cid ^ 1, Status::SUCCESS)
        }),
        one("completion of CID FFFFh", CQE_CID, |at| {
            at.response(0xffff, Status::SUCCESS)
        }),
        one("completion of the generation before", CQE_CID, |at| {
            at.response(at.cid.wrapping_sub(1 << 10), Status::SUCCESS)
        }),
        second("completion of the first", CQE_CID, |at| {
            at.response(at.old_cid, Status::SUCCESS)
        }),
        second("data of the first", CCCID, |at| {
            at.data_for(at.old_cid, 0, 512, 0)
        }),
        one("data of no command", CCCID, |at| {
            at.data_for(at.cid ^ 3, 0, 512, 0)
        }),
        one("data of CID FFFFh", CCCID, |at| {
            at.data_for(0xffff, 0, 512, 0)
        }),
        some("two completions", CQE_CID, |at| {
            vec![at.all(LAST), at.success(), at.success()]
        }),
        some("completion after SUCCESS", CQE_CID, |at| {
            vec![at.all(DONE), at.success()]
        }),
        some("data after SUCCESS", CCCID, |at| {
            vec![at.all(DONE), at.all(DONE)]
        }),
        some("data after the completion", CCCID, |at| {
            vec![at.response(at.cid, Status::INTERNAL_ERROR), at.all(DONE)]
        }),
        one("more data than asked for", OUT_OF_RANGE, |at| {
            at.data(0, READ_LEN + 512, LAST)
        }),
        one("data behind what was asked for", OUT_OF_RANGE, |at| {
            at.data(READ_LEN, 512, LAST)
        }),
        some("data over the end", OUT_OF_RANGE, |at| {
            vec![at.data(0, 2048, 0), at.data(2048, 2052, LAST)]
        }),
        one("1 MiB of data", OUT_OF_RANGE, |at| {
            at.data(0, 1 << 20, LAST)
        }),
        one("DATAO FFFFFFFFh", OUT_OF_RANGE, |at| {
            at.data(u32::MAX, 512, LAST)
        }),
        one("DATAO + DATAL is 2^32", OUT_OF_RANGE, |at| {
            at.data(u32::MAX - 511, 512, LAST)
        }),
        one("PLEN and DATAL for 4 GiB", OUT_OF_RANGE, |at| {
            at.all(LAST)
                .plen(u32::MAX)
                .with(16, &(u32::MAX - 24).to_le_bytes())
        }),
        one("data not from the start", SEQUENCE, |at| {
            at.data(512, 512, 0)
        }),
        some("a gap", SEQUENCE, |at| {
            vec![at.data(0, 512, 0), at.data(1024, 512, 0)]
        }),
        some("the same data twice", SEQUENCE, |at| {
            vec![at.data(0, 512, 0), at.data(0, 512, 0)]
        }),
        some("an overlap", SEQUENCE, |at| {
            vec![at.data(0, 1024, 0), at.data(512, 1024, 0)]
        }),
        some("data after LAST_PDU", SEQUENCE, |at| {
            vec![at.data(0, 512, LAST), at.data(512, 3584, LAST)]
        }),
        one("an R2T", CCCID, |at| at.r2t(0, READ_LEN)),
        one("success without data", SHORT_DATA, At::success),
        some("success after half of the data", SHORT_DATA, |at| {
            vec![at.data(0, 2048, LAST), at.success()]
        }),
        one("SUCCESS with half of the data", SHORT_DATA, |at| {
            at.data(0, 2048, DONE)
        }),
        one(
            "a status that does not exist",
            Expect::Outcome(Outcome::Completed {
                status: Status::new(5, 0xab).with_dnr(),
                result: 0,
            }),
            |at| at.response(at.cid, Status::new(5, 0xab).with_dnr()),
        ),
        some(
            "an error after all of the data",
            Expect::Outcome(Outcome::Completed {
                status: Status::UNRECOVERED_READ_ERROR,
                result: 0,
            }),
            |at| {
                vec![
                    at.all(LAST),
                    at.response(at.cid, Status::UNRECOVERED_READ_ERROR),
                ]
            },
        ),
        digest("wrong data digest", BAD_DATA, |at| {
            vec![at.all(LAST).flip_last(), at.success()]
        }),
        digest("wrong data digest, SUCCESS", BAD_DATA, |at| {
            vec![at.all(DONE).flip_last()]
        }),
        digest("data changed below its digest", BAD_DATA, |at| {
            vec![at.all(LAST).flip(1000), at.success()]
        }),
        digest("wrong data digest of the first of two", BAD_DATA, |at| {
            vec![at.data(0, 2048, 0).flip_last(), at.data(2048, 2048, DONE)]
        }),
        Row {
            slowly: true,
            ..some("byte by byte", SUCCESS, |at| {
                vec![at.all(LAST), at.success()]
            })
        },
        Row {
            slowly: true,
            ..digest("byte by byte, with digests", SUCCESS, |at| {
                vec![at.all(LAST), at.success()]
            })
        },
        some("data in pieces of 4 bytes", SUCCESS, |at| {
            let pieces = (0..READ_LEN).step_by(4);
            pieces
                .map(|from| at.data(from, 4, if from + 4 == READ_LEN { DONE } else { 0 }))
                .collect()
        }),
        row("flush: data", Stage::Flush, CCCID, |at| {
            at.data(0, 512, LAST)
        }),
        row("flush: R2T", Stage::Flush, CCCID, |at| at.r2t(0, 512)),
    ];
    for len in [1, 8, 23, 24, 100, 4119] {
        all.push(row(
            format!("read: {len} bytes of data"),
            Stage::Read(0),
            Expect::Cut,
            move |at| at.all(LAST).cut(len),
        ));
    }
    all.extend([
        one("nothing", Expect::Cut, |_| Vec::new()),
        row(
            "read: half a header digest",
            Stage::Read(1),
            Expect::Cut,
            |at| at.success().cut(26),
        ),
        row(
            "read: half a data digest",
            Stage::Read(2),
            Expect::Cut,
            |at| {
                let data = at.all(LAST);
                let len = data.len() - 2;
                data.cut(len)
            },
        ),
    ]);
    all
}
