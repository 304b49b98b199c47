//! Admin and Fabrics commands as [`Command`]s.

use super::request::{Command, Request, Transfer};
use crate::spec::cross_controller_reset::{Impacted, LSP_REMOVE_COMPLETED};
use crate::spec::log::lid;
use crate::spec::opcode;
use crate::spec::sqe::NSID_ALL;

/// Builds the admin commands that a host sends.
#[derive(Debug)]
pub struct AdminCommand;

fn admin(opcode: u8, nsid: u32, cdw: [u32; 6]) -> Command {
    Command { opcode, nsid, cdw }
}

fn read(command: Command, length: usize) -> Request {
    Request::plain(command, Transfer::FromController, length, vec![0; length])
}

fn no_data(command: Command) -> Request {
    Request::plain(command, Transfer::None, 0, Vec::new())
}

impl AdminCommand {
    /// Identify with a CNS value (NVMe Base 2.1, 5.1.13); 4096 bytes come back. `csi` is the command set
    /// identifier of the forms that have one, else 0.
    pub fn identify(cns: u8, nsid: u32, csi: u8) -> Request {
        let cdw = [u32::from(cns), u32::from(csi) << 24, 0, 0, 0, 0];
        read(admin(opcode::admin::IDENTIFY, nsid, cdw), 4096)
    }

    /// Get Log Page (NVMe Base 2.1, 5.1.12): `length` bytes (a multiple of 4) from byte `offset` on. With
    /// `retain` the event that announced the page stays pending.
    ///
    /// # Panics
    /// If `length` is 16 GiB or more, which the command cannot say.
    #[expect(clippy::expect_used, reason = "the caller decides the length")]
    pub fn get_log_page(lid: u8, nsid: u32, offset: u64, length: usize, retain: bool) -> Request {
        let dwords = u32::try_from(length / 4).expect("less than 16 GiB of a log page");
        let dwords = dwords.max(1) - 1;
        let [a, b, c, d, e, f, g, h] = offset.to_le_bytes();
        let cdw = [
            u32::from(lid) | u32::from(retain) << 15 | (dwords & 0xffff) << 16,
            dwords >> 16,
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
            0,
            0,
        ];
        read(admin(opcode::admin::GET_LOG_PAGE, nsid, cdw), length)
    }

    /// Set Features without data (NVMe Base 2.1, 5.1.25).
    pub fn set_features(fid: u8, cdw11: u32) -> Request {
        no_data(admin(
            opcode::admin::SET_FEATURES,
            0,
            [u32::from(fid), cdw11, 0, 0, 0, 0],
        ))
    }

    /// Get Features, current value, without data (NVMe Base 2.1, 5.1.11).
    pub fn get_features(fid: u8) -> Request {
        no_data(admin(
            opcode::admin::GET_FEATURES,
            0,
            [u32::from(fid), 0, 0, 0, 0, 0],
        ))
    }

    /// Keep Alive (NVMe Base 2.1, 5.1.14).
    pub fn keep_alive() -> Request {
        no_data(admin(opcode::admin::KEEP_ALIVE, 0, [0; 6]))
    }

    /// Asynchronous Event Request (NVMe Base 2.1, 5.1.2).
    pub fn async_event_request() -> Request {
        no_data(admin(opcode::admin::ASYNC_EVENT_REQUEST, 0, [0; 6]))
    }

    /// Abort command `cid` of queue `queue_id` (NVMe Base 2.1, 5.1.1).
    pub fn abort(queue_id: u16, cid: u16) -> Request {
        let cdw10 = u32::from(queue_id) | u32::from(cid) << 16;
        no_data(admin(opcode::admin::ABORT, 0, [cdw10, 0, 0, 0, 0, 0]))
    }

    /// Cross-Controller Reset of another controller of this host (NVMe Base 2.3, 5.4.3).
    pub fn cross_controller_reset(impacted: Impacted) -> Request {
        let sqe = impacted.to_sqe();
        let cdw = [
            sqe.cdw10, sqe.cdw11, sqe.cdw12, sqe.cdw13, sqe.cdw14, sqe.cdw15,
        ];
        no_data(admin(sqe.opcode, 0, cdw.map(|dword| dword.get())))
    }

    /// Get Log Page of the Cross-Controller Reset log: `length` bytes (a multiple of 4) of it. What it tells of resets
    /// that have ended is told once.
    pub fn cross_controller_reset_log(length: usize) -> Request {
        let lid = lid::CROSS_CONTROLLER_RESET;
        let mut request = Self::get_log_page(lid, NSID_ALL, 0, length, false);
        if let Some(cdw10) = request.command.cdw.first_mut() {
            *cdw10 |= u32::from(LSP_REMOVE_COMPLETED) << 8;
        }
        request
    }

    /// Property Get of 4 or 8 bytes (NVMe Base 2.1, 6.5).
    pub fn property_get(offset: u32, eight_bytes: bool) -> Request {
        no_data(admin(
            opcode::FABRICS,
            u32::from(opcode::fctype::PROPERTY_GET),
            [u32::from(eight_bytes), offset, 0, 0, 0, 0],
        ))
    }

    /// Property Set of 4 bytes (NVMe Base 2.1, 6.6).
    pub fn property_set(offset: u32, value: u32) -> Request {
        no_data(admin(
            opcode::FABRICS,
            u32::from(opcode::fctype::PROPERTY_SET),
            [0, offset, value, 0, 0, 0],
        ))
    }
}
