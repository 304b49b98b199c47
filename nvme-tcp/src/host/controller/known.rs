//! What is known of a controller: what it was asked with, and what it has said of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use zerocopy::FromBytes;

use super::notices::AERS_MAX;
use super::options::ControllerOptions;
use crate::host::ana_log::AnaLog;
use crate::host::namespaces::Namespace;
use crate::host::queue_pair::ConnectOptions;
use crate::spec::cross_controller_reset::Impacted;
use crate::spec::fabrics::CNTLID_DYNAMIC;
use crate::spec::identify::{IdentifyController, ctrl};
use crate::spec::registers::{Cap, Vs};
use crate::spec::status::Status;

/// Most entries of an I/O queue.
const QUEUE_ENTRIES_MAX: u32 = 1024;

/// Filled in by the steps by which the controller is brought up and read again.
#[derive(Debug)]
pub(super) struct Known {
    pub options: ControllerOptions,
    /// CNTLID that Connect has answered.
    pub cntlid: u16,
    pub cap: Cap,
    pub version: Vs,
    pub identify: Option<Box<IdentifyController>>,
    /// I/O queue pairs that it grants.
    pub io_queues: u16,
    pub namespaces: BTreeMap<u32, Namespace>,
    /// Namespaces that were left out, and why.
    pub left_out: BTreeMap<u32, &'static str>,
    pub ana: Option<AnaLog>,
    /// Bad ANA logs seen (rule B3.3).
    pub bad_ana_logs: u64,
    /// The controller was brought up: what is read now is read again.
    pub is_up: bool,
}

impl Known {
    pub fn new(options: ControllerOptions) -> Self {
        Self {
            options,
            cntlid: CNTLID_DYNAMIC,
            cap: Cap::from(0),
            version: Vs::new(),
            identify: None,
            io_queues: 0,
            namespaces: BTreeMap::new(),
            left_out: BTreeMap::new(),
            ana: None,
            bad_ana_logs: 0,
            is_up: false,
        }
    }

    /// Takes Identify Controller data over; false if it is too short.
    pub fn set_identify(&mut self, bytes: &[u8]) -> bool {
        self.identify = boxed(bytes);
        self.identify.is_some()
    }

    pub fn identify(&self) -> Option<&IdentifyController> {
        self.identify.as_deref()
    }

    /// See [`Controller::anatt`](super::Controller::anatt).
    pub fn anatt(&self) -> Duration {
        let seconds = self.identify().map_or(0, |id| id.anatt);
        Duration::from_secs(if seconds == 0 { 10 } else { seconds.into() })
    }

    /// See [`Controller::transfer_max`](super::Controller::transfer_max).
    pub fn transfer_max(&self) -> usize {
        const UNLIMITED: usize = 4 << 20;
        let page = 1usize << (12 + u32::from(self.cap.mpsmin()));
        match self.identify().map_or(0, |id| id.mdts) {
            0 => UNLIMITED,
            // The controller may say anything up to 2^255 pages.
            mdts => 1usize
                .checked_shl(u32::from(mdts))
                .and_then(|pages| pages.checked_mul(page))
                .map_or(UNLIMITED, |bytes| bytes.min(UNLIMITED)),
        }
    }

    /// See [`Controller::io_options`](super::Controller::io_options).
    pub fn io_options(&self, queue_id: u16) -> ConnectOptions {
        // One more than is wanted: the last is kept for a probe.
        let size = (u32::from(self.options.io_queue_size) + 1)
            .min(self.cap.max_queue_entries())
            .clamp(2, QUEUE_ENTRIES_MAX);
        let queue_size = size as u16;
        // IOCCSZ is the controller's, in 16 bytes, and counts the submission queue entry (NVMe Base 2.1, 5.1.13.2.1).
        let in_capsule = self
            .identify()
            .filter(|id| id.icdoff.get() == 0)
            .map_or(0, |id| (id.ioccsz.get() as usize * 16).saturating_sub(64));
        ConnectOptions {
            queue_id,
            queue_size,
            controller_id: self.cntlid,
            keep_alive_ms: 0,
            in_capsule_max: in_capsule,
            transfer_max: self.transfer_max(),
            receive_buffer: 256 * 1024,
            keep_probe_slot: size > 2,
            ..self.options.connect.clone()
        }
    }

    pub fn reports_ana(&self) -> bool {
        self.identify().is_some_and(|id| id.cmic & 8 != 0)
    }

    pub fn counts_traffic(&self) -> bool {
        self.identify()
            .is_some_and(|id| id.ctratt.get() & ctrl::CTRATT_TBKAS != 0)
    }

    /// See [`Controller::instance`](super::Controller::instance).
    pub fn instance(&self) -> Option<Impacted> {
        let id = self.identify()?;
        (id.ciu != 0 && id.cirn.get() != 0).then_some(Impacted {
            icid: self.cntlid,
            ciu: id.ciu,
            cirn: id.cirn.get(),
        })
    }

    pub fn is_discovery(&self) -> bool {
        self.options.connect.subnqn.is_discovery()
            || self.identify().is_some_and(|id| id.cntrltype == 2)
    }

    /// Abort commands that the controller takes at a time (ACL).
    pub fn acl(&self) -> usize {
        self.identify().map_or(1, |id| usize::from(id.acl_z) + 1)
    }

    /// AERs that the controller takes (AERL), as far as they are of use.
    pub fn aerl(&self) -> usize {
        let aerl = self.identify().map_or(1, |id| usize::from(id.aerl_z) + 1);
        aerl.min(AERS_MAX)
    }

    /// The delay that a status names (CRD), by the controller's CRDT1 to CRDT3.
    pub fn asked_delay(&self, status: Status) -> Option<Duration> {
        let id = self.identify()?;
        let tenths = match status.crd() {
            1 => id.crdt1,
            2 => id.crdt2,
            3 => id.crdt3,
            _ => return None,
        };
        Some(Duration::from_millis(100) * tenths.get().into())
    }
}

/// Reads Identify Controller data into a box of its own: 4 KiB do not belong on the stack.
fn boxed(bytes: &[u8]) -> Option<Box<IdentifyController>> {
    let (data, _) = IdentifyController::ref_from_prefix(bytes).ok()?;
    let mut boxed = <IdentifyController as zerocopy::FromZeros>::new_box_zeroed().ok()?;
    zerocopy::IntoBytes::as_mut_bytes(&mut *boxed)
        .copy_from_slice(zerocopy::IntoBytes::as_bytes(data));
    Some(boxed)
}
