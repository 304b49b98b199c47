//! What a command on an I/O queue asks for, and whether it may have it (NVM Command Set 1.1, 3).

use zerocopy::transmute;

use crate::spec::identify::ctrl;
use crate::spec::log::AnaState;
use crate::spec::nvm::{DatasetRange, dsm};
use crate::spec::opcode::nvm;
use crate::spec::sqe::NSID_ALL;
use crate::spec::status::Status;
use crate::spec::{SglDescriptor, Sqe};
use crate::target::conn::connection::IN_CAPSULE_MAX;
use crate::target::disk::{Capabilities, Op, Range};

/// Bytes of a Dataset Management range.
const RANGE_LEN: usize = size_of::<DatasetRange>();
/// Most ranges of a Dataset Management command.
pub(in crate::target) const RANGES_MAX: usize = dsm::MAX_RANGES as usize;

/// A command that I/O queues carry out, as Identify Controller and the Commands Supported and Effects log tell of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct IoCommand {
    pub(in crate::target) opcode: u8,
    /// Blocks may change by it.
    pub(in crate::target) writes: bool,
    /// The command's bit of ONCS; zero for what every controller can.
    pub(in crate::target) oncs: u16,
}

/// All of them. What [`plan`] and [`op`] do not know is not in here, and the other way round.
pub(in crate::target) const COMMANDS: [IoCommand; 6] = [
    command(nvm::FLUSH, false, 0),
    command(nvm::WRITE, true, 0),
    command(nvm::READ, false, 0),
    command(nvm::COMPARE, false, ctrl::ONCS_COMPARE),
    command(nvm::WRITE_ZEROES, true, ctrl::ONCS_WRITE_ZEROES),
    command(nvm::DATASET_MANAGEMENT, true, ctrl::ONCS_DATASET_MANAGEMENT),
];

const fn command(opcode: u8, writes: bool, oncs: u16) -> IoCommand {
    IoCommand {
        opcode,
        writes,
        oncs,
    }
}

/// What a controller keeps commands to, as Identify Controller tells it.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct Limits {
    /// Most data of one command in bytes: what MDTS says.
    pub(in crate::target) transfer_max: u32,
    /// Bits of ONCS of commands that the controller does without.
    pub(in crate::target) masked_oncs: u16,
    /// Most blocks of a range of Dataset Management (DMRSL); 0: no limit.
    pub(in crate::target) range_blocks_max: u32,
    /// Most bytes of a Write Zeroes: what WZSL says.
    pub(in crate::target) zeroed_max: u64,
}

impl Limits {
    /// Refuses an optional command, named by its bit of ONCS, that the controller does without.
    fn allow(&self, oncs: u16) -> Result<(), Status> {
        match self.masked_oncs & oncs {
            0 => Ok(()),
            _ => Err(Status::INVALID_OPCODE.with_dnr()),
        }
    }
}

/// A namespace as one controller's queues on this reactor see it.
#[derive(Debug, Clone)]
pub(in crate::target) struct View {
    /// The channel of its disk.
    pub(in crate::target) channel: usize,
    /// What its disk can do.
    pub(in crate::target) capabilities: Capabilities,
    /// Log2 of the block size in bytes.
    pub(in crate::target) block_shift: u8,
    pub(in crate::target) blocks: u64,
    pub(in crate::target) limits: Limits,
    /// State of its ANA group through the controller's listener.
    pub(in crate::target) ana: AnaState,
}

/// Views of a controller's namespaces.
#[derive(Debug, Default)]
pub(in crate::target) struct Namespaces {
    /// The view of NSID n is at n - 1.
    views: Vec<Option<View>>,
}

impl Namespaces {
    #[inline]
    pub(in crate::target) fn get(&self, nsid: u32) -> Option<&View> {
        let at = (nsid as usize).checked_sub(1)?;
        self.views.get(at).and_then(Option::as_ref)
    }

    /// Namespace identifiers and views.
    pub(in crate::target) fn iter(&self) -> impl Iterator<Item = (u32, &View)> {
        let views = (1..).zip(&self.views);
        views.filter_map(|(nsid, view)| Some((nsid, view.as_ref()?)))
    }

    /// The disk of this channel can do something else from now on.
    pub(in crate::target) fn set_capabilities(
        &mut self,
        channel: usize,
        capabilities: Capabilities,
    ) {
        let views = self.views.iter_mut().flatten();
        for view in views.filter(|view| view.channel == channel) {
            view.capabilities = capabilities;
        }
    }

    /// Returns what was there before.
    pub(in crate::target) fn set(&mut self, nsid: u32, view: Option<View>) -> Option<View> {
        let at = (nsid as usize).checked_sub(1)?;
        if at >= self.views.len() {
            self.views.resize(at + 1, None);
        }
        std::mem::replace(self.views.get_mut(at)?, view)
    }
}

/// What is to be done for a command that may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) enum Plan {
    /// Send this range of the namespace, in bytes.
    Read {
        offset: u64,
        len: u64,
        /// The disk reads in place.
        in_place: bool,
    },
    /// Wait for this many bytes from the host, then see [`op`].
    Receive {
        len: u32,
        /// Where they go if they are there already: they are those of a write, and its disk writes in place.
        in_place: Option<InPlace>,
    },
    /// The command needs no data: see [`op`].
    Nothing,
}

/// A place on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) struct InPlace {
    pub(in crate::target) channel: usize,
    pub(in crate::target) offset: u64,
}

/// The usable namespace that a command names.
#[inline]
pub(in crate::target) fn namespace(namespaces: &Namespaces, nsid: u32) -> Result<&View, Status> {
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
pub(in crate::target) fn plan(sqe: &Sqe, namespaces: &Namespaces) -> Result<Plan, Status> {
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
            Ok(Plan::Read {
                offset,
                len,
                in_place: view.capabilities.in_place,
            })
        }
        nvm::WRITE => {
            let view = namespace(namespaces, nsid)?;
            let (offset, len) = blocks(sqe, view)?;
            let len = data_len(sqe, len, view)?;
            host_data(sqe)?;
            let channel = view.channel;
            let writes_in_place = view.capabilities.in_place;
            Ok(Plan::Receive {
                len,
                in_place: writes_in_place.then_some(InPlace { channel, offset }),
            })
        }
        nvm::COMPARE => {
            let view = namespace(namespaces, nsid)?;
            view.limits.allow(ctrl::ONCS_COMPARE)?;
            let (_, len) = blocks(sqe, view)?;
            let len = data_len(sqe, len, view)?;
            host_data(sqe)?;
            Ok(Plan::Receive {
                len,
                in_place: None,
            })
        }
        nvm::DATASET_MANAGEMENT => {
            let view = namespace(namespaces, nsid)?;
            view.limits.allow(ctrl::ONCS_DATASET_MANAGEMENT)?;
            let ranges = range_count(sqe);
            let len = sqe.sgl.length.get();
            // Linux always sends 4,096 bytes, even for one range.
            if (len as usize) < ranges * RANGE_LEN || len as usize > RANGES_MAX * RANGE_LEN {
                return Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr());
            }
            host_data(sqe)?;
            Ok(Plan::Receive {
                len,
                in_place: None,
            })
        }
        nvm::WRITE_ZEROES => {
            let view = namespace(namespaces, nsid)?;
            view.limits.allow(ctrl::ONCS_WRITE_ZEROES)?;
            let (_, len) = blocks(sqe, view)?;
            if len > view.limits.zeroed_max {
                return Err(Status::INVALID_FIELD.with_dnr());
            }
            Ok(Plan::Nothing)
        }
        nvm::FLUSH => {
            if nsid != NSID_ALL {
                namespace(namespaces, nsid)?;
            }
            Ok(Plan::Nothing)
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
fn blocks(sqe: &Sqe, view: &View) -> Result<(u64, u64), Status> {
    in_range(sqe.slba(), u64::from(sqe.blocks()), view)
}

#[inline]
fn in_range(lba: u64, count: u64, view: &View) -> Result<(u64, u64), Status> {
    match lba.checked_add(count) {
        Some(end) if end <= view.blocks => Ok((lba << view.block_shift, count << view.block_shift)),
        _ => Err(Status::LBA_OUT_OF_RANGE.with_dnr()),
    }
}

/// Checks a data length that follows from NLB against MDTS and the SGL.
#[inline]
fn data_len(sqe: &Sqe, len: u64, view: &View) -> Result<u32, Status> {
    let len = u32::try_from(len)
        .ok()
        .filter(|&l| l <= view.limits.transfer_max)
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

/// What a command whose data is there asks of its disk; nothing if it is done without.
///
/// Range and length are checked again: the namespace may have changed while the data was on its way.
#[inline]
pub(in crate::target) fn op(sqe: &Sqe, data: &[u8], view: &View) -> Result<Option<Op>, Status> {
    let (deac, fua) = (sqe.nvm_cdw12().deac(), sqe.nvm_cdw12().fua());
    let range = || blocks(sqe, view);
    Ok(Some(match sqe.opcode {
        nvm::READ => Op::Read { offset: range()?.0 },
        nvm::WRITE => Op::Write {
            offset: data_range(range()?, data)?,
            fua,
        },
        nvm::COMPARE => Op::Compare {
            offset: data_range(range()?, data)?,
        },
        nvm::WRITE_ZEROES => {
            let (offset, len) = range()?;
            Op::Zero {
                range: Range { offset, len },
                deallocate: deac,
                fua,
            }
        }
        nvm::DATASET_MANAGEMENT => {
            let ranges = ranges(sqe, data, view)?;
            if ranges.is_empty() {
                return Ok(None);
            }
            Op::Deallocate { ranges }
        }
        nvm::FLUSH => Op::Flush,
        _ => return Err(Status::INVALID_OPCODE.with_dnr()),
    }))
}

/// Start of a range that is as long as the data.
#[inline]
fn data_range((offset, len): (u64, u64), data: &[u8]) -> Result<u64, Status> {
    if len != data.len() as u64 {
        return Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr());
    }
    Ok(offset)
}

/// The ranges that Dataset Management deallocates; attributes other than Deallocate are hints, and ignored.
fn ranges(sqe: &Sqe, data: &[u8], view: &View) -> Result<Vec<Range>, Status> {
    let mut ranges = Vec::new();
    for range in data
        .as_chunks::<RANGE_LEN>()
        .0
        .iter()
        .take(range_count(sqe))
    {
        let range: DatasetRange = transmute!(*range);
        let blocks_max = view.limits.range_blocks_max;
        if blocks_max != 0 && range.nlb.get() > blocks_max {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_dnr());
        }
        let (offset, len) = in_range(range.slba.get(), u64::from(range.nlb.get()), view)?;
        if len > 0 {
            ranges.push(Range { offset, len });
        }
    }
    if sqe.cdw11.get() & dsm::DEALLOCATE == 0 {
        ranges.clear();
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_is_what_is_carried_out() {
        let mut told: Vec<u8> = COMMANDS.iter().map(|command| command.opcode).collect();
        let known = (0..=u8::MAX).filter(|&opcode| {
            let mut sqe = Sqe::new(opcode, 1);
            sqe.flags = Sqe::PSDT_SGL;
            let refused = Err(Status::INVALID_OPCODE.with_dnr());
            plan(&sqe, &Namespaces::default()) != refused
        });
        let known: Vec<u8> = known.collect();
        told.sort_unstable();
        assert_eq!(told, known);
    }
}
