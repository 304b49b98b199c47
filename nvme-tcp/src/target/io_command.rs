//! What a command on an I/O queue asks for, and whether it may have it (NVM Command Set 1.1, 3).

use zerocopy::transmute;

use super::connection::IN_CAPSULE_MAX;
use super::disk::Range;
use super::message::NamespaceView;
use crate::spec::nvm::{DatasetRange, dsm};
use crate::spec::opcode::nvm;
use crate::spec::sqe::NSID_ALL;
use crate::spec::status::Status;
use crate::spec::{SglDescriptor, Sqe};

/// Bytes of a Dataset Management range.
const RANGE_LEN: usize = size_of::<DatasetRange>();
/// Most ranges of a Dataset Management command.
pub(super) const RANGES_MAX: usize = dsm::MAX_RANGES as usize;

/// Views of a controller's namespaces.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// The view of NSID n is at n - 1.
    views: Vec<Option<NamespaceView>>,
    /// One of them has layers.
    layered: bool,
}

impl Namespaces {
    #[inline]
    pub(super) fn get(&self, nsid: u32) -> Option<&NamespaceView> {
        let at = (nsid as usize).checked_sub(1)?;
        self.views.get(at).and_then(Option::as_ref)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &NamespaceView> {
        self.views.iter().flatten()
    }

    /// Whether any of them has layers: the one thing that a command on a namespace without them looks at.
    #[inline]
    pub(super) fn are_layered(&self) -> bool {
        self.layered
    }

    pub(super) fn set(&mut self, nsid: u32, view: Option<NamespaceView>) {
        let Some(at) = (nsid as usize).checked_sub(1) else {
            return;
        };
        if at >= self.views.len() {
            self.views.resize(at + 1, None);
        }
        if let Some(place) = self.views.get_mut(at) {
            *place = view;
        }
        let layered = self.iter().any(|view| view.layers.is_some());
        self.layered = layered;
    }
}

/// What is to be done for a command that may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Send this range of the namespace, in bytes.
    Read { offset: u64, len: u64 },
    /// Wait for this many bytes from the host, then see [`execute`].
    Receive { len: u32 },
    /// Zero this range of the namespace, in bytes.
    Zero { offset: u64, len: u64 },
    /// Make what was written survive a loss of power.
    Flush,
}

/// The usable namespace that a command names.
#[inline]
pub(super) fn namespace(namespaces: &Namespaces, nsid: u32) -> Result<&NamespaceView, Status> {
    let view = namespaces
        .get(nsid)
        .ok_or(Status::INVALID_NAMESPACE.with_dnr())?;
    // Without DNR: the state may pass, or another path may do (NVMe Base 2.1, 8.1.1).
    match view.ana.refusal() {
        None => Ok(view),
        Some(status) => Err(status),
    }
}

/// Checks a command as far as can be done without its data.
#[inline]
pub(super) fn plan(sqe: &Sqe, namespaces: &Namespaces) -> Result<Plan, Status> {
    if sqe.flags & (Sqe::PSDT_MASK | Sqe::FUSE_MASK) != Sqe::PSDT_SGL {
        // Metadata SGLs and fused commands are not supported; PRPs are not allowed on fabrics.
        return Err(Status::INVALID_FIELD.with_dnr());
    }
    let nsid = sqe.nsid.get();
    match sqe.opcode {
        nvm::READ => {
            let view = namespace(namespaces, nsid)?;
            let (offset, len) = blocks(sqe, view)?;
            if sqe.sgl.kind != SglDescriptor::TRANSPORT {
                return Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.with_dnr());
            }
            data_len(sqe, len, view)?;
            Ok(Plan::Read { offset, len })
        }
        nvm::WRITE | nvm::COMPARE => {
            let view = namespace(namespaces, nsid)?;
            let (_, len) = blocks(sqe, view)?;
            let len = data_len(sqe, len, view)?;
            host_data(sqe)?;
            Ok(Plan::Receive { len })
        }
        nvm::DATASET_MANAGEMENT => {
            namespace(namespaces, nsid)?;
            let ranges = range_count(sqe);
            let len = sqe.sgl.length.get();
            // Linux always sends 4,096 bytes, even for one range.
            if (len as usize) < ranges * RANGE_LEN || len as usize > RANGES_MAX * RANGE_LEN {
                return Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr());
            }
            host_data(sqe)?;
            Ok(Plan::Receive { len })
        }
        nvm::WRITE_ZEROES => {
            let (offset, len) = blocks(sqe, namespace(namespaces, nsid)?)?;
            Ok(Plan::Zero { offset, len })
        }
        nvm::FLUSH => {
            if nsid != NSID_ALL {
                namespace(namespaces, nsid)?;
            }
            Ok(Plan::Flush)
        }
        _ => Err(Status::INVALID_OPCODE.with_dnr()),
    }
}

/// Number of ranges of a Dataset Management command.
#[inline]
fn range_count(sqe: &Sqe) -> usize {
    (sqe.cdw10.get() & dsm::NR_MASK) as usize + 1
}

/// The range of a command with SLBA and NLB, in bytes.
#[inline]
fn blocks(sqe: &Sqe, view: &NamespaceView) -> Result<(u64, u64), Status> {
    in_range(sqe.slba(), u64::from(sqe.blocks()), view)
}

#[inline]
fn in_range(lba: u64, count: u64, view: &NamespaceView) -> Result<(u64, u64), Status> {
    match lba.checked_add(count) {
        Some(end) if end <= view.blocks => Ok((lba << view.block_shift, count << view.block_shift)),
        _ => Err(Status::LBA_OUT_OF_RANGE.with_dnr()),
    }
}

/// Checks a data length that follows from NLB against MDTS and the SGL.
#[inline]
fn data_len(sqe: &Sqe, len: u64, view: &NamespaceView) -> Result<u32, Status> {
    let len = u32::try_from(len)
        .ok()
        .filter(|&l| l <= view.transfer_max)
        .ok_or(Status::INVALID_FIELD.with_dnr())?;
    if sqe.sgl.length.get() != len {
        return Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr());
    }
    Ok(len)
}

/// Checks the SGL of a command whose data comes from the host.
#[inline]
fn host_data(sqe: &Sqe) -> Result<(), Status> {
    match sqe.sgl.kind {
        SglDescriptor::TRANSPORT => Ok(()),
        // ICDOFF is 0: the data starts where the capsule's data starts.
        SglDescriptor::IN_CAPSULE
            if sqe.sgl.address.get() != 0 || sqe.sgl.length.get() as usize > IN_CAPSULE_MAX =>
        {
            Err(Status::SGL_OFFSET_INVALID.with_dnr())
        }
        SglDescriptor::IN_CAPSULE => Ok(()),
        _ => Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.with_dnr()),
    }
}

/// Carries out a command whose data is there, but for what is left to its disk (see `IoQueue::carry_on`). Dataset
/// Management leaves the ranges to deallocate in `ranges`.
///
/// The namespace is looked up and checked again: it may have changed while the data was on its way.
#[inline]
pub(super) fn execute(
    sqe: &Sqe,
    data: &[u8],
    namespaces: &Namespaces,
    ranges: &mut Vec<Range>,
) -> Result<(), Status> {
    let view = namespace(namespaces, sqe.nsid.get())?;
    if sqe.opcode == nvm::DATASET_MANAGEMENT {
        return deallocate(sqe, data, view, ranges);
    }
    let (offset, len) = blocks(sqe, view)?;
    if len != data.len() as u64 {
        return Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr());
    }
    if sqe.opcode == nvm::COMPARE {
        return match view.store.compare(offset, data) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Status::COMPARE_FAILURE.with_dnr()),
            Err(status) => Err(status),
        };
    }
    view.store.write(offset, data)
}

/// Dataset Management; attributes other than Deallocate are hints, and ignored.
fn deallocate(
    sqe: &Sqe,
    data: &[u8],
    view: &NamespaceView,
    ranges: &mut Vec<Range>,
) -> Result<(), Status> {
    ranges.clear();
    for range in data
        .as_chunks::<RANGE_LEN>()
        .0
        .iter()
        .take(range_count(sqe))
    {
        let range: DatasetRange = transmute!(*range);
        let (offset, len) = in_range(range.slba.get(), u64::from(range.nlb.get()), view)?;
        if len > 0 {
            ranges.push(Range { offset, len });
        }
    }
    if sqe.cdw11.get() & dsm::DEALLOCATE == 0 {
        ranges.clear();
    }
    Ok(())
}
