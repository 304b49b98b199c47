//! Broken bytes for a target: the words of the tables' rows, and the tables.

mod admin_commands;
mod connects;
mod data;
mod headers;
mod initialization;
mod io_commands;

use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::fabrics::{CNTLID_DYNAMIC, ConnectCommand, ConnectData};
use pollux_nvme_tcp::spec::log::GetLogPage;
use pollux_nvme_tcp::spec::opcode::admin;
use pollux_nvme_tcp::spec::pdu::{CapsuleCmd, H2cData, Icreq, PduType, TermReq};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Nqn, SglDescriptor, Sqe};
use pollux_nvme_tcp::testing::wire::pdu;
use zerocopy::{FromZeros, IntoBytes};

use crate::broken::table;
use crate::client::connect_data;

/// How far a connection has come before it sends the bytes of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TCP.
    Tcp,
    /// ICReq and ICResp, with these bits of DGST.
    Initialized(u8),
    /// An admin queue, the controller enabled.
    Admin,
    /// An I/O queue, with these bits of DGST.
    Io(u8),
    /// An I/O queue with a write of [`WRITE_LEN`] bytes that has its R2T.
    Writing(u8),
    /// An I/O queue of four entries.
    SmallQueue,
}

/// What a row ends with. The last three leave the connection usable, the others end it.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// C2HTermReq with this FES and FEI, then nothing.
    Term(u16, u32),
    /// C2HTermReq for a wrong header digest: FEI is the digest as it was sent.
    HeaderDigest,
    /// A completion with this status, and only then C2HTermReq.
    StatusThenTerm(Status, u16, u32),
    /// The end without a word.
    Closed,
    /// As `Closed`, once this side has ended its half.
    Cut,
    /// A completion with this status (SCT and SC).
    Status(Status),
    /// Connect Invalid Parameters that names a field of the data (true) or of the command.
    Invalid(bool, usize),
    /// Nothing special.
    GoesOn,
}

/// Invalid PDU Header Field, at this offset.
pub const fn field(offset: u32) -> Expect {
    Expect::Term(1, offset)
}
pub const SEQUENCE: Expect = Expect::Term(2, 0);
pub const OUT_OF_RANGE: Expect = Expect::Term(4, 0);
pub const LIMIT: Expect = Expect::Term(5, 0);

/// Of fields that are often wrong.
pub const TYPE: Expect = field(0);
pub const FLAGS: Expect = field(1);
pub const HLEN: Expect = field(2);
pub const PDO: Expect = field(3);
pub const PLEN: Expect = field(4);
pub const CCCID: Expect = field(8);
pub const TTAG: Expect = field(10);
pub const DATAL: Expect = field(16);

/// Data of the write that waits in stage `Writing`: 16 KiB, by R2T.
pub const WRITE_LEN: u32 = 16 * 1024;
/// MAXH2CDATA and the in-capsule limit that the target states.
pub const MAXH2CDATA: u32 = 1 << 20;
pub const IN_CAPSULE_MAX: usize = 8192;

/// What a row needs to know of its connection.
pub struct At {
    /// For the command of the row.
    pub cid: u16,
    pub framing: TxFraming,
    /// CID and TTAG of the write that waits.
    pub write: (u16, u16),
    /// Of a controller that is enabled and has an I/O queue 1.
    pub cntlid: u16,
    pub nqn: Nqn,
    pub closed_nqn: Nqn,
}

impl At {
    pub fn capsule(&self, sqe: impl Into<Sqe>, data: &[u8]) -> Vec<u8> {
        let mut sqe = sqe.into();
        sqe.cid = self.cid.into();
        pdu(self.framing, &CapsuleCmd::new(sqe), data)
    }

    /// Connect for an admin queue, changed.
    pub fn connect(&self, change: impl FnOnce(&mut ConnectCommand, &mut ConnectData)) -> Vec<u8> {
        let mut command = ConnectCommand::new(0, 32, 0, 0);
        let mut data = connect_data(CNTLID_DYNAMIC, &self.nqn);
        change(&mut command, &mut data);
        self.capsule(command, data.as_bytes())
    }

    /// Connect for I/O queue 9 of the controller, changed.
    pub fn connect_io(
        &self,
        change: impl FnOnce(&mut ConnectCommand, &mut ConnectData),
    ) -> Vec<u8> {
        self.connect(|command, data| {
            command.qid = 9.into();
            data.cntlid = self.cntlid.into();
            change(command, data);
        })
    }

    /// H2CData for the write that waits, with `len` bytes of data.
    pub fn data(&self, datao: u32, len: u32, last: bool) -> Vec<u8> {
        let (cid, ttag) = self.write;
        self.data_for(cid, ttag, datao, len, last)
    }

    pub fn data_for(&self, cid: u16, ttag: u16, datao: u32, len: u32, last: bool) -> Vec<u8> {
        let header = H2cData::new(cid, ttag, datao, len, last);
        pdu(self.framing, &header, &vec![0; len as usize])
    }
}

pub type Row = table::Row<Stage, Expect, At>;

/// A row of one PDU.
pub fn row(
    name: impl Into<String>,
    stage: Stage,
    expect: Expect,
    bytes: impl Fn(&At) -> Vec<u8> + 'static,
) -> Row {
    Row::new(name, stage, expect, move |at| vec![bytes(at)])
}

/// A row of several PDUs.
pub fn rows(
    name: impl Into<String>,
    stage: Stage,
    expect: Expect,
    bytes: impl Fn(&At) -> Vec<Vec<u8>> + 'static,
) -> Row {
    Row::new(name, stage, expect, bytes)
}

/// A row with a command of its own and no data.
pub fn command(
    name: impl Into<String>,
    stage: Stage,
    expect: Expect,
    sqe: impl Fn() -> Sqe + 'static,
) -> Row {
    row(name, stage, expect, move |at| at.capsule(sqe(), &[]))
}

pub fn icreq() -> Vec<u8> {
    pdu(TxFraming::default(), &Icreq::new(0, 0, 0), &[])
}

/// H2CTermReq that is in order.
pub fn term_req() -> Vec<u8> {
    let mut header = TermReq::new_zeroed();
    header.ch.pdu_type = PduType::H2C_TERM_REQ;
    header.fes = 1.into();
    pdu(TxFraming::default(), &header, &[])
}

/// Identify, changed.
pub fn identify(structure: u8, nsid: u32, change: impl FnOnce(&mut Sqe)) -> Sqe {
    let mut sqe = Sqe::new(admin::IDENTIFY, nsid);
    sqe.cdw10 = u32::from(structure).into();
    sqe.sgl = SglDescriptor::transport(4096);
    change(&mut sqe);
    sqe
}

/// Get Log Page with an SGL of this length.
pub fn log_page(get: GetLogPage, sgl_len: u32) -> Sqe {
    let mut sqe = get.to_sqe(0xffff_ffff);
    sqe.sgl = SglDescriptor::transport(sgl_len);
    sqe
}

/// All rows.
pub fn table() -> Vec<Row> {
    [
        initialization::table(),
        connects::table(),
        admin_commands::table(),
        headers::table(),
        data::table(),
        io_commands::table(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
