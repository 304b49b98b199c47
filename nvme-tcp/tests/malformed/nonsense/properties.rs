//! Properties, features and events that make no sense.

use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::Cqe;
use pollux_nvme_tcp::spec::fabrics::property;
use pollux_nvme_tcp::spec::features::fid;
use pollux_nvme_tcp::spec::opcode::admin;
use pollux_nvme_tcp::spec::pdu::{CapsuleResp, R2t};
use pollux_nvme_tcp::spec::registers::{Cap, Csts};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::lying::{Reply, cap, selector};
use pollux_nvme_tcp::testing::wire::pdu;

use super::{Nonsense, Outlook, answer_to, nonsense, property_get};
use crate::to_host::SHORT;

pub fn table() -> Vec<Nonsense> {
    use Outlook::{GivenUp, Usable};
    vec![
        nonsense(
            "CAP 0",
            GivenUp("CAP.MQES is 0"),
            property_get(property::CAP, || Reply::Result(0)),
        ),
        nonsense(
            "CAP with queues of one entry",
            GivenUp("CAP.MQES is 0"),
            property_get(property::CAP, || {
                Reply::Result(cap().with_mqes_z(0).into_bits())
            }),
        ),
        nonsense(
            "CAP without a command set for I/O",
            GivenUp("CAP.CSS"),
            property_get(property::CAP, || {
                Reply::Result(cap().with_css(Cap::CSS_ADMIN_ONLY).into_bits())
            }),
        ),
        nonsense(
            "CAP all ones",
            Usable(1, 0),
            property_get(property::CAP, || Reply::Result(u64::MAX)),
        ),
        nonsense(
            "CAP refused",
            GivenUp("CAP"),
            property_get(property::CAP, || Reply::Status(Status::INVALID_FIELD)),
        ),
        nonsense(
            "VS all ones",
            Usable(1, 0),
            property_get(property::VS, || Reply::Result(u64::MAX)),
        ),
        nonsense(
            "CSTS.CFS",
            GivenUp("CSTS.CFS"),
            property_get(property::CSTS, || {
                Reply::Result(Csts::new().with_rdy(true).with_cfs(true).into_bits().into())
            }),
        ),
        nonsense(
            "CSTS all ones",
            GivenUp("CSTS.CFS"),
            property_get(property::CSTS, || Reply::Result(u64::MAX)),
        ),
        Nonsense {
            timeout: SHORT,
            ..nonsense(
                "never ready",
                GivenUp("CSTS"),
                property_get(property::CSTS, || Reply::Result(0)),
            )
        },
        Nonsense {
            timeout: SHORT,
            ..nonsense(
                "no answer to Property Get",
                GivenUp("CAP"),
                property_get(property::CAP, || Reply::Silence),
            )
        },
        nonsense(
            "hangs up instead of CSTS",
            GivenUp("closed"),
            property_get(property::CSTS, || Reply::HangUp),
        ),
        nonsense("65,536 I/O queues", Usable(1, 0), |sqe| {
            let queues = u32::from(fid::NUMBER_OF_QUEUES);
            (sqe.opcode == admin::SET_FEATURES && selector(sqe) == queues)
                .then_some(Reply::Result(u64::MAX))
        }),
        nonsense(
            "Number of Queues refused",
            GivenUp("Number of Queues"),
            answer_to(admin::SET_FEATURES, || {
                Reply::Status(Status::INTERNAL_ERROR.with_dnr())
            }),
        ),
        nonsense(
            "completion of no command",
            GivenUp("protocol"),
            answer_to(admin::IDENTIFY, || {
                let cqe = Cqe::new(0x7777, Status::SUCCESS);
                Reply::Raw(pdu(TxFraming::default(), &CapsuleResp::new(cqe), &[]))
            }),
        ),
        nonsense("R2T for Identify", GivenUp("protocol"), |sqe| {
            let r2t = R2t::new(sqe.cid.get(), 0, 0, 512);
            (sqe.opcode == admin::IDENTIFY)
                .then(|| Reply::Raw(pdu(TxFraming::default(), &r2t, &[])))
        }),
        nonsense("events of no kind", Usable(1, 0), {
            let mut events = 0u64;
            answer_to(admin::ASYNC_EVENT_REQUEST, move || {
                events += 1;
                match events {
                    1..=40 => Reply::Result(events.wrapping_mul(0x1f3d_5b79_0000_0007) | 7),
                    _ => Reply::Silence,
                }
            })
        }),
        nonsense("a change of ANA states in each event", Usable(1, 0), {
            let mut events = 0u64;
            answer_to(admin::ASYNC_EVENT_REQUEST, move || {
                events += 1;
                match events {
                    1..=40 => Reply::Result(0x0c_0302),
                    _ => Reply::Silence,
                }
            })
        }),
        nonsense(
            "Asynchronous Event Request refused",
            Usable(1, 0),
            answer_to(admin::ASYNC_EVENT_REQUEST, || {
                Reply::Status(Status::AER_LIMIT_EXCEEDED)
            }),
        ),
        Nonsense {
            keep_alive_ms: 500,
            ..nonsense(
                "Keep Alive refused",
                GivenUp("Keep Alive"),
                answer_to(admin::KEEP_ALIVE, || {
                    Reply::Status(Status::INVALID_FIELD.with_dnr())
                }),
            )
        },
        Nonsense {
            keep_alive_ms: 500,
            ..nonsense(
                "no answer to Keep Alive",
                GivenUp("keep-alive"),
                answer_to(admin::KEEP_ALIVE, || Reply::Silence),
            )
        },
    ]
}
