//! What a host gets instead of the answer to Connect.

use pollux_nvme_tcp::host::QueueError;
use pollux_nvme_tcp::spec::pdu::flags;
use pollux_nvme_tcp::spec::status::Status;

use super::{
    At, CCCID, CQE_CID, Expect, FLAGS, HLEN, OUT_OF_RANGE, PLEN, Row, SEQUENCE, Stage, TERMINATED,
    icresp, row, term_req,
};
use crate::broken::Spoil;

/// Instead of the answer to Connect.
pub fn table() -> Vec<Row> {
    let answer = |name: &str, expect, bytes: fn(&At) -> Vec<u8>| {
        row(
            format!("for Connect: {name}"),
            Stage::Connect,
            expect,
            bytes,
        )
    };
    let refused =
        |status: Status, result: u32| Expect::Ends(QueueError::Refused { status, result });
    vec![
        answer("another CID", CQE_CID, |at| {
            at.response(at.cid ^ 1, Status::SUCCESS)
        }),
        answer("CID FFFFh", CQE_CID, |at| {
            at.response(0xffff, Status::SUCCESS)
        }),
        answer(
            "Connect Invalid Host",
            refused(Status::CONNECT_INVALID_HOST.with_dnr(), 0),
            |at| at.response(at.cid, Status::CONNECT_INVALID_HOST.with_dnr()),
        ),
        answer(
            "a status that does not exist",
            refused(Status::new(6, 0xee), 0),
            |at| at.response(at.cid, Status::new(6, 0xee)),
        ),
        answer(
            "Connect Invalid Parameters",
            refused(Status::CONNECT_INVALID_PARAMETERS, 0x1_0100),
            |at| {
                at.response(at.cid, Status::CONNECT_INVALID_PARAMETERS)
                    .with(8, &0x1_0100u32.to_le_bytes())
            },
        ),
        answer("ICResp once more", SEQUENCE, |_| icresp()),
        answer("C2HData", CCCID, |at| at.data(0, 512, flags::LAST_PDU)),
        answer("R2T for data that is there", SEQUENCE, |at| at.r2t(0, 1024)),
        answer("R2T for more than there is", OUT_OF_RANGE, |at| {
            at.r2t(1024, 4)
        }),
        answer("HLEN 23", HLEN, |at| at.success().hlen(23)),
        answer("PLEN 28", PLEN, |at| at.success().plen(28)),
        answer("HDGSTF not agreed", FLAGS, |at| {
            at.success().flags(flags::HDGSTF)
        }),
        answer("C2HTermReq", TERMINATED, |_| term_req()),
        answer("nothing", Expect::Cut, |_| Vec::new()),
        answer("23 bytes", Expect::Cut, |at| at.success().cut(23)),
        answer(
            "silence",
            Expect::Ends(QueueError::Timeout("answer to Connect")),
            |_| Vec::new(),
        ),
    ]
}
