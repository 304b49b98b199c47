//! What a target gets instead of Connect.

use std::mem::offset_of;

use pollux_nvme_tcp::spec::fabrics::{
    CNTLID_DYNAMIC, ConnectCommand, ConnectData, DisconnectCommand, PropertyGet, property,
};
use pollux_nvme_tcp::spec::opcode::admin;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use zerocopy::IntoBytes;

use super::{Expect, LIMIT, Row, SEQUENCE, Stage, TTAG, command, icreq, row};
use crate::broken::Spoil;
use crate::client::{connect_data, write_by_r2t};

/// Where there must be a Connect.
pub fn table() -> Vec<Row> {
    type Change = fn(&mut ConnectCommand, &mut ConnectData);
    const STAGE: Stage = Stage::Initialized(0);
    let invalid = |in_data: bool, offset: usize| Expect::Invalid(in_data, offset);
    let status = |status: Status| Expect::Status(status);
    let admin_queue = |name: &str, expect, change: Change| {
        row(format!("Connect: {name}"), STAGE, expect, move |at| {
            at.connect(change)
        })
    };
    let io_queue = |name: &str, expect, change: Change| {
        row(
            format!("Connect of an I/O queue: {name}"),
            STAGE,
            expect,
            move |at| at.connect_io(change),
        )
    };
    let sqsize = offset_of!(ConnectCommand, sqsize_z);
    let (subnqn, hostnqn) = (
        offset_of!(ConnectData, subnqn),
        offset_of!(ConnectData, hostnqn),
    );
    let cntlid = offset_of!(ConnectData, cntlid);
    let mut table = vec![
        admin_queue(
            "RECFMT 1",
            status(Status::CONNECT_INCOMPATIBLE_FORMAT),
            |c, _| {
                c.recfmt = 1.into();
            },
        ),
        admin_queue("SQSIZE 0", invalid(false, sqsize), |c, _| {
            c.sqsize_z = 0.into()
        }),
        admin_queue("SQSIZE FFFFh", invalid(false, sqsize), |c, _| {
            c.sqsize_z = 0xffff.into();
        }),
        admin_queue("SQSIZE above MQES", invalid(false, sqsize), |c, _| {
            c.sqsize_z = 1024.into();
        }),
        admin_queue("CNTLID 1", invalid(true, cntlid), |_, d| {
            d.cntlid = 1.into()
        }),
        admin_queue("CNTLID FFF0h", invalid(true, cntlid), |_, d| {
            d.cntlid = 0xfff0.into();
        }),
        admin_queue("SUBNQN not terminated", invalid(true, subnqn), |_, d| {
            d.subnqn = [b'n'; 256];
        }),
        admin_queue("SUBNQN empty", invalid(true, subnqn), |_, d| {
            d.subnqn = [0; 256]
        }),
        admin_queue("SUBNQN of 224 bytes", invalid(true, subnqn), |_, d| {
            d.subnqn[..224].fill(b'x');
            d.subnqn[..21].copy_from_slice(b"nqn.2014-08.org.examp");
        }),
        admin_queue("SUBNQN not UTF-8", invalid(true, subnqn), |_, d| {
            d.subnqn[20] = 0xff
        }),
        admin_queue("SUBNQN of no subsystem", invalid(true, subnqn), |_, d| {
            d.subnqn[27] = b'X';
        }),
        admin_queue("HOSTNQN not terminated", invalid(true, hostnqn), |_, d| {
            d.hostnqn = [b'n'; 256];
        }),
        admin_queue("HOSTNQN of 224 bytes", invalid(true, hostnqn), |_, d| {
            d.hostnqn[..224].fill(b'n');
        }),
        admin_queue("HOSTNQN with a line end", invalid(true, hostnqn), |_, d| {
            d.hostnqn[20] = b'\n';
        }),
        admin_queue("HOSTNQN not UTF-8", invalid(true, hostnqn), |_, d| {
            d.hostnqn[20] = 0xff;
        }),
        admin_queue(
            "transport SGL",
            status(Status::SGL_DESCRIPTOR_TYPE_INVALID),
            |c, _| c.sgl = SglDescriptor::transport(ConnectData::LEN),
        ),
        admin_queue(
            "keyed SGL",
            status(Status::SGL_DESCRIPTOR_TYPE_INVALID),
            |c, _| {
                c.sgl.kind = 0x40;
            },
        ),
        admin_queue(
            "SGL of 512 bytes",
            status(Status::DATA_SGL_LENGTH_INVALID),
            |c, _| {
                c.sgl.length = 512.into();
            },
        ),
        admin_queue(
            "SGL of 4 GiB",
            status(Status::DATA_SGL_LENGTH_INVALID),
            |c, _| {
                c.sgl.length = u32::MAX.into();
            },
        ),
        admin_queue(
            "SGL offset 8",
            status(Status::SGL_OFFSET_INVALID),
            |c, _| {
                c.sgl.address = 8.into();
            },
        ),
        io_queue("CNTLID of nobody", invalid(true, cntlid), |_, d| {
            d.cntlid = 0x7fff.into();
        }),
        io_queue("CNTLID FFFFh", invalid(true, cntlid), |_, d| {
            d.cntlid = CNTLID_DYNAMIC.into();
        }),
        io_queue(
            "QID FFFFh",
            invalid(false, offset_of!(ConnectCommand, qid)),
            |c, _| c.qid = 0xffff.into(),
        ),
        io_queue(
            "QID in use",
            status(Status::COMMAND_SEQUENCE_ERROR),
            |c, _| {
                c.qid = 1.into();
            },
        ),
        io_queue("SQSIZE 0", invalid(false, sqsize), |c, _| {
            c.sqsize_z = 0.into()
        }),
        io_queue("another HOSTNQN", invalid(true, cntlid), |_, d| {
            d.hostnqn[25] ^= 1
        }),
        io_queue("another HOSTID", invalid(true, cntlid), |_, d| {
            d.hostid[3] ^= 1
        }),
    ];
    table.extend([
        row(
            "Connect: a subsystem that is not for this host",
            STAGE,
            status(Status::CONNECT_INVALID_HOST),
            |at| at.connect(|_, d| d.subnqn = at.closed_nqn.to_field()),
        ),
        row(
            "Connect: a subsystem that is not for a host without a name",
            STAGE,
            status(Status::CONNECT_INVALID_HOST),
            |at| {
                at.connect(|_, d| {
                    d.subnqn = at.closed_nqn.to_field();
                    d.hostnqn = [0; 256];
                })
            },
        ),
        row(
            "Connect of an I/O queue: another subsystem",
            STAGE,
            invalid(true, cntlid),
            |at| at.connect_io(|_, d| d.subnqn = at.closed_nqn.to_field()),
        ),
        row(
            "Connect with 512 bytes of data",
            STAGE,
            status(Status::DATA_SGL_LENGTH_INVALID),
            |at| {
                let data = connect_data(CNTLID_DYNAMIC, &at.nqn);
                at.capsule(ConnectCommand::new(0, 32, 0, 0), &data.as_bytes()[..512])
            },
        ),
        row(
            "Connect without data",
            STAGE,
            status(Status::DATA_SGL_LENGTH_INVALID),
            |at| at.capsule(ConnectCommand::new(0, 32, 0, 0), &[]),
        ),
        row(
            "Connect with a wrong data digest",
            Stage::Initialized(2),
            status(Status::TRANSIENT_TRANSPORT_ERROR),
            |at| at.connect(|_, _| ()).flip_last(),
        ),
        row(
            "Connect with a wrong header digest",
            Stage::Initialized(1),
            Expect::HeaderDigest,
            |at| at.connect(|_, _| ()).flip(75),
        ),
        row("Connect with 9,000 bytes of data", STAGE, LIMIT, |at| {
            at.capsule(ConnectCommand::new(0, 32, 0, 0), &[0; 9000])
        }),
        row("second ICReq", STAGE, SEQUENCE, |_| icreq()),
        row("H2CData before Connect", STAGE, TTAG, |at| {
            at.data_for(0, 0, 0, 512, true)
        }),
        command(
            "Property Get before Connect",
            STAGE,
            status(Status::COMMAND_SEQUENCE_ERROR),
            || PropertyGet::new(property::CAP, property::SIZE_8).into(),
        ),
        command(
            "Identify before Connect",
            STAGE,
            status(Status::COMMAND_SEQUENCE_ERROR),
            || Sqe::new(admin::IDENTIFY, 0),
        ),
        command(
            "Write before Connect",
            STAGE,
            status(Status::COMMAND_SEQUENCE_ERROR),
            || write_by_r2t(0, 4096),
        ),
        command(
            "Disconnect before Connect",
            STAGE,
            status(Status::COMMAND_SEQUENCE_ERROR),
            || DisconnectCommand::new().into(),
        ),
        row("Connect with PLEN one short", STAGE, Expect::Cut, |at| {
            at.connect(|_, _| ()).cut(1095)
        }),
    ]);
    for len in [1, 8, 71, 72, 73, 600] {
        table.push(row(
            format!("{len} bytes of Connect"),
            STAGE,
            Expect::Cut,
            move |at| at.connect(|_, _| ()).cut(len),
        ));
    }
    table
}
