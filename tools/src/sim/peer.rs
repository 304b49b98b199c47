//! A target that does not behave: changes what a host receives where no digest would tell, byte for byte on its way.

use pollux_nvme_tcp::spec::identify::cns;
use pollux_nvme_tcp::spec::opcode::admin;
use pollux_nvme_tcp::spec::pdu::PduType;
use pollux_nvme_tcp::spec::status::Status;

use super::frames::Place;
use super::monitor::Monitor;
use super::scenario::What;

/// Statuses that completions of I/O come back with.
pub const STATUSES: [Status; 8] = [
    Status::INTERNAL_ERROR,
    Status::INTERNAL_ERROR.with_crd(1),
    Status::INTERNAL_ERROR.with_dnr(),
    Status::ASYMMETRIC_ACCESS_INACCESSIBLE,
    Status::ASYMMETRIC_ACCESS_TRANSITION,
    Status::new(3, 0x00),
    Status::new(3, 0x70),
    Status::ABORTED_SQ_DELETION,
];

/// Fields of Identify Controller that come back as something else: where, and as which bytes.
pub const FIELDS: [(usize, &[u8]); 4] = [
    // MDTS: 8 KiB.
    (77, &[1]),
    // CNTLID: none that there is.
    (78, &[0xee, 0xee]),
    // SUBNQN: another one.
    (768, b"nqn.2014-08.net"),
    // IOCCSZ: no data in a capsule.
    (1792, &[4, 0, 0, 0]),
];

/// What the connections of one path are to suffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mischief {
    /// Completions of I/O that come back with the status of this number.
    pub statuses: (u64, usize),
    pub wrong_cids: u64,
    pub wrong_r2ts: u64,
    /// ANA logs that lie, and how.
    pub bad_logs: (u64, u64),
    /// Identify Controller data in which one of [`FIELDS`] is another, and which.
    pub identifies: (u64, usize),
    /// Statuses of a controller that are fatal.
    pub fatal: u64,
}

/// What is being done to the PDU that is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doing {
    #[default]
    Nothing,
    Status(Status),
    BadLog(u64),
    Identify(usize),
}

/// Changes a byte on its way to a host, after the monitor has seen it as it was. Says what was done when something begins.
pub fn tamper(
    mischief: &mut Mischief,
    doing: &mut Doing,
    monitor: &Monitor,
    place: Place,
    byte: &mut u8,
) -> Option<What> {
    let header = monitor.header();
    match (header.kind(), place) {
        (PduType::CAPSULE_RESP, Place::Header(at)) => {
            on_response(mischief, doing, monitor, at, byte)
        }
        // The offset that an R2T asks for.
        (PduType::R2T, Place::Header(15)) if mischief.wrong_r2ts > 0 => {
            mischief.wrong_r2ts -= 1;
            *byte ^= 0x40;
            Some(What::WrongR2t)
        }
        (PduType::C2H_DATA, Place::Data(at)) => {
            let cid = header.u16(8);
            let command = monitor.command(cid);
            let is_log = monitor.qid == Some(0)
                && command.is_some_and(|c| c.opcode == admin::GET_LOG_PAGE)
                && command.is_some_and(|c| c.dword10 & 0xff == 0x0c);
            let is_identify = monitor.qid == Some(0)
                && command.is_some_and(|c| c.opcode == admin::IDENTIFY)
                && command.is_some_and(|c| c.dword10 & 0xff == u32::from(cns::CONTROLLER));
            let begins = at == 0 && header.u32(12) == 0;
            let mut told = None;
            if begins {
                *doing = Doing::Nothing;
                if is_log && mischief.bad_logs.0 > 0 {
                    mischief.bad_logs.0 -= 1;
                    *doing = Doing::BadLog(mischief.bad_logs.1);
                    told = Some(What::BadAnaLog);
                }
                if is_identify && mischief.identifies.0 > 0 {
                    mischief.identifies.0 -= 1;
                    *doing = Doing::Identify(mischief.identifies.1 % FIELDS.len());
                    told = Some(What::Identify);
                }
            }
            let position = at + header.u32(12) as usize;
            match *doing {
                // More groups than there is room for.
                Doing::BadLog(0) if at == 9 => *byte = 0xff,
                // A state that there is not.
                Doing::BadLog(1) if at == 16 + 16 => *byte = 0x07,
                Doing::Identify(field) => {
                    let (start, bytes) = FIELDS[field];
                    if let Some(other) = position.checked_sub(start).and_then(|n| bytes.get(n)) {
                        *byte = *other;
                    }
                }
                _ => {}
            }
            told
        }
        _ => None,
    }
}

fn on_response(
    mischief: &mut Mischief,
    doing: &mut Doing,
    monitor: &Monitor,
    at: usize,
    byte: &mut u8,
) -> Option<What> {
    match at {
        0 => {
            *doing = Doing::Nothing;
            None
        }
        // The lowest byte of CSTS: CFS.
        8 if mischief.fatal > 0 && monitor.only_asks_for_status() => {
            mischief.fatal -= 1;
            *byte |= 2;
            Some(What::Fatal)
        }
        // The high byte of the command identifier.
        21 if monitor.qid.is_some_and(|qid| qid != 0) && mischief.wrong_cids > 0 => {
            mischief.wrong_cids -= 1;
            *byte |= 0xf0;
            Some(What::WrongCid)
        }
        22 => {
            let cid = monitor.header().u16(20);
            // Connect is none that I/O could be retried for.
            let is_io = monitor.qid.is_some_and(|qid| qid != 0)
                && monitor.command(cid).is_some_and(|c| c.opcode < 0x7f);
            if !is_io || mischief.statuses.0 == 0 {
                return None;
            }
            mischief.statuses.0 -= 1;
            let status = STATUSES[mischief.statuses.1 % STATUSES.len()];
            *doing = Doing::Status(status);
            *byte = status.to_cqe().to_bytes()[0];
            Some(What::Status)
        }
        23 => {
            if let Doing::Status(status) = *doing {
                *byte = status.to_cqe().to_bytes()[1];
                *doing = Doing::Nothing;
            }
            None
        }
        _ => None,
    }
}
