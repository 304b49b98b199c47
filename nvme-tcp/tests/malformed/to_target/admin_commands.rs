//! Commands that an admin queue does not take.

use pollux_nvme_tcp::spec::fabrics::{
    ConnectCommand, DisconnectCommand, PropertyGet, PropertySet, property,
};
use pollux_nvme_tcp::spec::features::{NumberOfQueues, SetFeaturesCdw10, fid};
use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::log::{GetLogPage, lid};
use pollux_nvme_tcp::spec::opcode::{FABRICS, admin};
use pollux_nvme_tcp::spec::pdu::CapsuleCmd;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::testing::wire::pdu;

use super::{
    At, Expect, IN_CAPSULE_MAX, LIMIT, Row, SEQUENCE, Stage, TTAG, command, icreq, identify,
    log_page, row, rows, term_req,
};
use crate::broken::Spoil;

fn set_features(id: u8, value: u32, save: bool) -> Sqe {
    let mut sqe = Sqe::new(admin::SET_FEATURES, 0);
    sqe.cdw10 = SetFeaturesCdw10::new()
        .with_fid(id)
        .with_sv(save)
        .into_bits()
        .into();
    sqe.cdw11 = value.into();
    sqe
}

/// Of an admin queue.
pub fn table() -> Vec<Row> {
    type Make = fn() -> Sqe;
    let field_error = Status::INVALID_FIELD;
    let table: Vec<(&str, Status, Make)> = vec![
        ("Connect once more", Status::COMMAND_SEQUENCE_ERROR, || {
            ConnectCommand::new(0, 32, 0, 0).into()
        }),
        (
            "Disconnect of the admin queue",
            Status::INVALID_QUEUE_TYPE,
            || DisconnectCommand::new().into(),
        ),
        ("FCTYPE 3Fh", Status::INVALID_OPCODE, || {
            Sqe::new(FABRICS, 0x3f)
        }),
        (
            "Create I/O Submission Queue",
            Status::INVALID_OPCODE,
            || Sqe::new(admin::CREATE_IO_SQ, 0),
        ),
        ("opcode C5h", Status::INVALID_OPCODE, || Sqe::new(0xc5, 0)),
        ("Format NVM", Status::INVALID_OPCODE, || {
            Sqe::new(admin::FORMAT_NVM, 1)
        }),
        ("Property Get of offset 1000h", field_error, || {
            PropertyGet::new(0x1000, property::SIZE_4).into()
        }),
        ("Property Get of offset 2h", field_error, || {
            PropertyGet::new(2, property::SIZE_4).into()
        }),
        ("Property Get of VS with 8 bytes", field_error, || {
            PropertyGet::new(property::VS, property::SIZE_8).into()
        }),
        ("Property Get with a reserved size", field_error, || {
            PropertyGet::new(property::CAP, 5).into()
        }),
        ("Property Set of CAP", field_error, || {
            PropertySet::new(property::CAP, 0).into()
        }),
        ("Property Set of CSTS", field_error, || {
            PropertySet::new(property::CSTS, 0).into()
        }),
        ("Property Set of offset FFFFFFFCh", field_error, || {
            PropertySet::new(0xffff_fffc, 0).into()
        }),
        ("Property Set of CC with 8 bytes", field_error, || {
            let mut set = PropertySet::new(property::CC, 0x0046_0001);
            set.attrib = property::SIZE_8;
            set.into()
        }),
        ("Identify CNS FFh", field_error, || {
            identify(0xff, 1, |_| ())
        }),
        (
            "Identify of namespace FFFFFFFEh",
            Status::INVALID_NAMESPACE,
            || identify(cns::NAMESPACE, 0xffff_fffe, |_| ()),
        ),
        (
            "Identify into 512 bytes",
            Status::DATA_SGL_LENGTH_INVALID,
            || {
                identify(cns::CONTROLLER, 0, |s| {
                    s.sgl = SglDescriptor::transport(512)
                })
            },
        ),
        (
            "Identify into the capsule",
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
            || {
                identify(cns::CONTROLLER, 0, |s| {
                    s.sgl = SglDescriptor::in_capsule(0, 4096);
                })
            },
        ),
        (
            "Identify with a segment SGL",
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
            || identify(cns::CONTROLLER, 0, |s| s.sgl.kind = 0x20),
        ),
        ("Identify with PRPs", field_error, || {
            identify(cns::CONTROLLER, 0, |s| s.flags = 0)
        }),
        ("Identify, fused", field_error, || {
            identify(cns::CONTROLLER, 0, |s| s.flags |= 1)
        }),
        ("log page 7Fh", Status::INVALID_LOG_PAGE, || {
            log_page(GetLogPage::new(0x7f, 0, 512), 512)
        }),
        ("SMART log from byte 1,000,000 on", field_error, || {
            log_page(GetLogPage::new(lid::COMMAND_EFFECTS, 1_000_000, 512), 512)
        }),
        ("log of 16 GiB", field_error, || {
            let mut sqe = log_page(GetLogPage::new(lid::ANA, 0, 4), 4);
            sqe.cdw10 = (sqe.cdw10.get() | 0xffff_0000).into();
            sqe.cdw11 = 0xffff.into();
            sqe
        }),
        (
            "log into an SGL of another length",
            Status::DATA_SGL_LENGTH_INVALID,
            || log_page(GetLogPage::new(lid::ANA, 0, 4096), 512),
        ),
        ("Get Features FEh", field_error, || {
            let mut sqe = Sqe::new(admin::GET_FEATURES, 0);
            sqe.cdw10 = 0xfe.into();
            sqe
        }),
        ("Set Features FEh", field_error, || {
            set_features(0xfe, 0, false)
        }),
        ("Set Features, saved", Status::FEATURE_NOT_SAVEABLE, || {
            set_features(fid::ASYNC_EVENT_CONFIG, 0, true)
        }),
        ("65,536 I/O queues", field_error, || {
            let all = NumberOfQueues::from_bits(u32::MAX);
            set_features(fid::NUMBER_OF_QUEUES, all.into_bits(), false)
        }),
        (
            "Host Behavior without data",
            Status::DATA_SGL_LENGTH_INVALID,
            || set_features(fid::HOST_BEHAVIOR_SUPPORT, 0, false),
        ),
    ];
    let mut all: Vec<Row> = table
        .into_iter()
        .map(|(name, status, make)| command(name, Stage::Admin, Expect::Status(status), make))
        .collect();
    let aer = |at: &At, cid: u16| {
        let mut sqe = Sqe::new(admin::ASYNC_EVENT_REQUEST, 0);
        sqe.cid = cid.into();
        pdu(at.framing, &CapsuleCmd::new(sqe), &[])
    };
    all.extend([
        rows(
            "one Asynchronous Event Request too many",
            Stage::Admin,
            Expect::Status(Status::AER_LIMIT_EXCEEDED),
            move |at| (0..4).chain([at.cid]).map(|cid| aer(at, cid)).collect(),
        ),
        // The newer command has the identifier, so there is no request too many.
        rows(
            "Asynchronous Event Requests that all have one CID, and Keep Alive with it",
            Stage::Admin,
            Expect::Status(Status::SUCCESS),
            move |at| {
                let mut pdus = vec![aer(at, at.cid); 8];
                let mut sqe = Sqe::new(admin::KEEP_ALIVE, 0);
                sqe.cid = at.cid.into();
                pdus.push(pdu(at.framing, &CapsuleCmd::new(sqe), &[]));
                pdus
            },
        ),
        row("H2CData on an admin queue", Stage::Admin, TTAG, |at| {
            at.data_for(0, 0, 0, 512, true)
        }),
        row(
            "8,193 bytes in a capsule of an admin queue",
            Stage::Admin,
            LIMIT,
            |at| at.capsule(Sqe::new(admin::SET_FEATURES, 0), &[0; IN_CAPSULE_MAX + 1]),
        ),
        row("ICReq on an admin queue", Stage::Admin, SEQUENCE, |_| {
            icreq()
        }),
        row(
            "H2CTermReq on an admin queue",
            Stage::Admin,
            Expect::Closed,
            |_| term_req(),
        ),
        row(
            "half a command on an admin queue",
            Stage::Admin,
            Expect::Cut,
            |at| at.capsule(Sqe::new(admin::KEEP_ALIVE, 0), &[]).cut(40),
        ),
    ]);
    all
}
