//! Broken bytes for a host: the words of the tables' rows, and the tables.

mod connects;
mod headers;
mod initialization;
mod reads;
mod writes;

use std::time::Duration;

use pollux_nvme_tcp::host::{Lost, Outcome, QueueError};
use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::Cqe;
use pollux_nvme_tcp::spec::pdu::{C2hData, CapsuleResp, Icresp, PduType, R2t, TermReq};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::wire::pdu;
use zerocopy::FromZeros;

use crate::broken::table;

/// How far a connection has come before the controller sends the bytes of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The host waits for ICResp.
    Icresp,
    /// The host waits for the answer to Connect.
    Connect,
    /// A read of [`READ_LEN`] bytes is outstanding, with these bits of DGST agreed.
    Read(u8),
    /// The same after another read that was completed; both use the same entry of the host's table.
    SecondRead,
    /// A write of [`WRITE_LEN`] bytes waits for an R2T.
    Write,
    /// A write of 4 KiB that came in-capsule is outstanding.
    InCapsule,
    /// A Flush is outstanding.
    Flush,
}

/// What a row ends with.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// H2CTermReq with this FES and FEI, and the end.
    Term(u16, u32),
    /// H2CTermReq for a wrong header digest: FEI is the digest as it was sent.
    HeaderDigest,
    /// The end for this reason, without H2CTermReq.
    Ends(QueueError),
    /// The end after the controller has ended its half of the connection.
    Cut,
    /// The end without H2CTermReq, because the controller's TermReq, wrong as it is, is the last word.
    EndsQuietly,
    /// The request ends like this, and the connection goes on.
    Outcome(Outcome),
    /// The connection becomes usable.
    Ready,
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
pub const DATAL: Expect = field(16);
pub const R2TL: Expect = field(16);
pub const CQE_CID: Expect = field(20);

/// For what must time out: long enough for everything before it, on a busy machine too.
pub const SHORT: Duration = Duration::from_millis(300);

pub const READ_LEN: u32 = 4096;
pub const WRITE_LEN: u32 = 64 * 1024;

/// The request succeeds.
pub const SUCCESS: Expect = Expect::Outcome(Outcome::Completed {
    status: Status::SUCCESS,
    result: 0,
});
pub const BAD_DATA: Expect = Expect::Outcome(Outcome::Lost(Lost::DataDigest));
pub const SHORT_DATA: Expect = Expect::Outcome(Outcome::Lost(Lost::ShortData));

/// What a row needs to know of its connection.
#[derive(Clone, Copy)]
pub struct At {
    /// Of the outstanding command.
    pub cid: u16,
    /// Of a command that was completed.
    pub old_cid: u16,
    pub framing: TxFraming,
}

impl At {
    pub fn response(&self, cid: u16, status: Status) -> Vec<u8> {
        pdu(self.framing, &CapsuleResp::new(Cqe::new(cid, status)), &[])
    }

    pub fn success(&self) -> Vec<u8> {
        self.response(self.cid, Status::SUCCESS)
    }

    /// C2HData for the outstanding command.
    pub fn data(&self, datao: u32, len: u32, flags: u8) -> Vec<u8> {
        self.data_for(self.cid, datao, len, flags)
    }

    pub fn data_for(&self, cid: u16, datao: u32, len: u32, flags: u8) -> Vec<u8> {
        let header = C2hData::new(cid, datao, len, flags);
        pdu(self.framing, &header, &vec![0x5a; len as usize])
    }

    /// All data of the read, in one PDU.
    pub fn all(&self, flags: u8) -> Vec<u8> {
        self.data(0, READ_LEN, flags)
    }

    pub fn r2t(&self, r2to: u32, r2tl: u32) -> Vec<u8> {
        self.r2t_for(self.cid, r2to, r2tl)
    }

    pub fn r2t_for(&self, cid: u16, r2to: u32, r2tl: u32) -> Vec<u8> {
        pdu(self.framing, &R2t::new(cid, 7, r2to, r2tl), &[])
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

pub fn icresp() -> Vec<u8> {
    pdu(TxFraming::default(), &Icresp::new(0, 0, 8192), &[])
}

/// C2HTermReq that is in order: Invalid PDU Header Field at offset 2.
pub fn term_req() -> Vec<u8> {
    let mut header = TermReq::new_zeroed();
    header.ch.pdu_type = PduType::C2H_TERM_REQ;
    header.fes = 1.into();
    header.fei = 2.into();
    pdu(TxFraming::default(), &header, &[])
}

pub const TERMINATED: Expect = Expect::Ends(QueueError::Terminated { fes: 1, fei: 2 });

/// All rows.
pub fn table() -> Vec<Row> {
    [
        initialization::table(),
        connects::table(),
        headers::table(),
        reads::table(),
        writes::table(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
