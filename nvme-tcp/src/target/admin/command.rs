//! Commands on admin queues (NVMe Base 2.1, 5).

use crate::spec::cross_controller_reset::{Impacted, LSP_REMOVE_COMPLETED};
use crate::spec::identify::{CSI_NVM, IDENTIFY_LEN, IdentifyCdw10, IdentifyCdw11, cns};
use crate::spec::log::{AnaLogHeader, GetLogPage, lid};
use crate::spec::opcode::{DataDirection, FABRICS, admin, fctype};
use crate::spec::sqe::NSID_ALL;
use crate::spec::status::Status;
use crate::spec::{SglDescriptor, Sqe};
use crate::target::admin::Handled;
use crate::target::admin::controller::{Controller, Transition};
use crate::target::admin::events::Kind;
use crate::target::admin::features;
use crate::target::admin::identify;
use crate::target::admin::log_page;
use crate::target::io::TRANSFER_MAX;
use crate::target::subsystem::ana;
use crate::target::subsystem::{Configuration, Subsystem};

/// The part of a log that is asked for, padded with zeroes: hosts ask for more than there is.
pub(in crate::target) fn cut(mut log: Vec<u8>, offset: u64, len: usize) -> Result<Vec<u8>, Status> {
    let offset = usize::try_from(offset)
        .ok()
        .filter(|&o| o <= log.len())
        .ok_or(Status::INVALID_FIELD.with_dnr())?;
    log.drain(..offset);
    log.resize(len, 0);
    Ok(log)
}

/// Carries out a command of a controller that has it in [`Controller::admin`].
pub(in crate::target) fn execute(
    controller: &mut Controller,
    config: &Configuration,
    sqe: &Sqe,
    data: &[u8],
) -> Result<Handled, Status> {
    if sqe.opcode == FABRICS {
        return fabrics(controller, sqe);
    }
    if sqe.flags & (Sqe::PSDT_MASK | Sqe::FUSE_MASK) != Sqe::PSDT_SGL {
        return Err(Status::INVALID_FIELD.with_dnr());
    }
    if sqe.opcode == admin::KEEP_ALIVE {
        return Ok(Handled::KeepAlive);
    }
    if !controller.is_ready() {
        return Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr());
    }
    let subsystem = config.subsystems.get(&controller.subnqn);
    let outcome = match sqe.opcode {
        admin::IDENTIFY => Handled::Data(identify_data(controller, subsystem, sqe, config)?),
        admin::GET_LOG_PAGE => log_page(controller, config, sqe)?,
        admin::GET_FEATURES => features::get(controller, subsystem, sqe)?,
        admin::SET_FEATURES => features::set(controller, sqe, host_data(sqe, data)?)?,
        admin::ASYNC_EVENT_REQUEST => {
            controller.events.request(sqe.cid.get())?;
            Handled::Later
        }
        admin::ABORT => abort(controller, sqe),
        admin::CROSS_CONTROLLER_RESET
            if controller.promised.resets_others() && subsystem.is_some() =>
        {
            Handled::Reset(Impacted::from_sqe(sqe))
        }
        _ => return Err(Status::INVALID_OPCODE.with_dnr()),
    };
    if let Handled::Data(data) = &outcome {
        check_answer_len(sqe, data.len())?;
    }
    Ok(outcome)
}

fn fabrics(controller: &mut Controller, sqe: &Sqe) -> Result<Handled, Status> {
    match sqe.fctype() {
        fctype::PROPERTY_GET => {
            let get = sqe.as_property_get();
            let value = controller.property(get.ofst.get(), get.attrib)?;
            Ok(Handled::Done(value))
        }
        fctype::PROPERTY_SET => {
            let set = sqe.as_property_set();
            match controller.set_property(set.ofst.get(), set.attrib, set.value.get())? {
                Transition::None => Ok(Handled::Done(0)),
                Transition::Stop => {
                    controller.events.reset();
                    controller.io_queues.clear();
                    controller.admin.pending.clear();
                    Ok(Handled::Stopped)
                }
            }
        }
        fctype::CONNECT => Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr()),
        // Only I/O queues can be disconnected.
        fctype::DISCONNECT => Err(Status::INVALID_QUEUE_TYPE.with_dnr()),
        _ => Err(Status::INVALID_OPCODE.with_dnr()),
    }
}

fn log_page(
    controller: &mut Controller,
    config: &Configuration,
    sqe: &Sqe,
) -> Result<Handled, Status> {
    let invalid = Status::INVALID_FIELD.with_dnr();
    let get = GetLogPage::from_sqe(sqe);
    let len = usize::try_from(get.len).map_err(|_| invalid)?;
    if get.ot || len > TRANSFER_MAX as usize {
        return Err(invalid);
    }
    check_answer_len(sqe, len)?;
    let subsystem = config.subsystems.get(&controller.subnqn);
    let mut read = None;
    let log = match (get.lid, subsystem) {
        (lid::SUPPORTED_LOG_PAGES, _) => log_page::supported(
            controller.is_discovery(),
            controller.promised.resets_others(),
        ),
        (lid::ERROR_INFORMATION, _) => log_page::errors(controller),
        (lid::DISCOVERY, None) => {
            read = Some(Kind::Discovery);
            let host = &controller.hostnqn;
            config
                .discovery
                .log(&config.subsystems, host, controller.local)
        }
        (lid::SMART, Some(_)) => {
            controller.admin.pending.insert(sqe.cid.get());
            if !get.rae {
                controller.events.was_read(Kind::Health);
            }
            return Ok(Handled::Smart {
                offset: get.offset,
                len,
            });
        }
        (lid::FIRMWARE_SLOT, Some(_)) => log_page::firmware(),
        (lid::COMMAND_EFFECTS, Some(_)) => log_page::command_effects(controller.promised),
        (lid::CHANGED_NAMESPACE_LIST, Some(_)) => {
            read = Some(Kind::Namespace);
            identify::namespace_list(controller.changed_namespaces.iter().copied())
        }
        (lid::ANA, Some(subsystem)) if subsystem.config.ana_reporting => {
            read = Some(Kind::Ana);
            let groups_only = get.lsp & AnaLogHeader::LSP_RGO != 0;
            let listener = subsystem
                .listener(controller.listener)
                .ok_or(Status::INTERNAL_ERROR)?;
            let mut log = listener
                .ana
                .log(subsystem.members(&controller.hostnqn), groups_only);
            let len_max = ana::log_len_max(subsystem.config.max_namespaces);
            log.resize(log.len().max(len_max), 0);
            log
        }
        (lid::CROSS_CONTROLLER_RESET, Some(_)) if controller.promised.resets_others() => {
            read = Some(Kind::Reset);
            controller.resets.bytes()
        }
        _ => return Err(Status::INVALID_LOG_PAGE.with_dnr()),
    };
    let log = cut(log, get.offset, len)?;
    if read == Some(Kind::Reset) && get.lsp & LSP_REMOVE_COMPLETED != 0 {
        controller.resets.remove_completed(get.offset, len);
    }
    if let Some(kind) = read.filter(|_| !get.rae) {
        controller.events.was_read(kind);
        if kind == Kind::Namespace {
            controller.changed_namespaces.clear();
        }
    }
    Ok(Handled::Data(log))
}

/// The SGL of a command that returns data must be a transport data block of just that length.
/// Checks that a command has room for exactly so much data.
pub(in crate::target) fn check_answer_len(sqe: &Sqe, len: usize) -> Result<(), Status> {
    if sqe.sgl.kind != SglDescriptor::TRANSPORT {
        return Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.with_dnr());
    }
    if sqe.sgl.length.get() as usize != len {
        return Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr());
    }
    Ok(())
}

/// The data of a command that brings some, which must be in its capsule.
pub(in crate::target) fn host_data<'a>(sqe: &Sqe, data: &'a [u8]) -> Result<&'a [u8], Status> {
    let len = sqe.sgl.length.get() as usize;
    if sqe.data_direction() != DataDirection::HostToController || len == 0 {
        return Ok(&[]);
    }
    if sqe.sgl.kind != SglDescriptor::IN_CAPSULE {
        return Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.with_dnr());
    }
    if sqe.sgl.address.get() != 0 {
        return Err(Status::SGL_OFFSET_INVALID.with_dnr());
    }
    if len != data.len() {
        return Err(Status::DATA_SGL_LENGTH_INVALID.with_dnr());
    }
    Ok(data)
}

/// Identify (NVMe Base 2.1, 5.1.13).
fn identify_data(
    controller: &Controller,
    subsystem: Option<&Subsystem>,
    sqe: &Sqe,
    config: &Configuration,
) -> Result<Vec<u8>, Status> {
    let invalid = Status::INVALID_FIELD.with_dnr();
    let structure = IdentifyCdw10::from_bits(sqe.cdw10.get()).cns();
    if structure == cns::CONTROLLER {
        return Ok(identify::controller(controller, subsystem, config));
    }
    // A discovery controller has no namespaces.
    let subsystem = subsystem.ok_or(invalid)?;
    let csi = IdentifyCdw11::from_bits(sqe.cdw11.get()).csi();
    let nsid = sqe.nsid.get();
    let ana = subsystem.config.ana_reporting;
    let valid = (1..=subsystem.config.max_namespaces).contains(&nsid);
    // What is hidden from the host is as inactive as what is not there.
    let host = &controller.hostnqn;
    let namespace = subsystem.seen(host, nsid);
    let invalid_namespace = Status::INVALID_NAMESPACE.with_dnr();
    match structure {
        // Fields that hold for every namespace.
        cns::NAMESPACE if nsid == NSID_ALL => Err(invalid_namespace),
        cns::NAMESPACE if !valid => Err(invalid_namespace),
        cns::NAMESPACE => {
            let group = namespace.map_or(0, |n| n.ana_group);
            let state = subsystem.ana_state(controller.listener, group);
            Ok(identify::namespace(namespace, state, ana))
        }
        cns::ACTIVE_NAMESPACE_LIST if nsid < 0xffff_fffe => {
            Ok(identify::active_list(subsystem, host, nsid))
        }
        cns::ACTIVE_NAMESPACE_LIST => Err(invalid_namespace),
        cns::NAMESPACE_ID_DESCRIPTORS => namespace
            .map(identify::descriptors)
            .ok_or(invalid_namespace),
        cns::COMMAND_SETS => Ok(identify::command_sets()),
        cns::NAMESPACE_INDEPENDENT => namespace
            .map(|n| identify::namespace_independent(n, ana))
            .ok_or(invalid_namespace),
        cns::NAMESPACE_CSI | cns::CONTROLLER_CSI | cns::ACTIVE_NAMESPACE_LIST_CSI
            if csi != CSI_NVM =>
        {
            Err(Status::IO_COMMAND_SET_NOT_SUPPORTED.with_dnr())
        }
        cns::NAMESPACE_CSI => namespace
            .map(|_| identify::nvm_namespace())
            .ok_or(invalid_namespace),
        cns::CONTROLLER_CSI => Ok(identify::nvm_controller(&subsystem.config)),
        cns::ACTIVE_NAMESPACE_LIST_CSI if nsid < 0xffff_fffe => {
            Ok(identify::active_list(subsystem, host, nsid))
        }
        _ => Err(invalid),
    }
    .inspect(|data| debug_assert_eq!(data.len(), IDENTIFY_LEN))
}

/// Abort (NVMe Base 2.1, 5.1.1). Bit 0 of the result: the command was not aborted.
fn abort(controller: &mut Controller, sqe: &Sqe) -> Handled {
    const NOT_ABORTED: u64 = 1;
    let [sqid0, sqid1, cid0, cid1] = sqe.cdw10.get().to_le_bytes();
    let qid = u16::from_le_bytes([sqid0, sqid1]);
    let cid = u16::from_le_bytes([cid0, cid1]);
    if qid == 0 {
        if !controller.events.abort(cid) {
            return Handled::Done(NOT_ABORTED);
        }
        controller.answer(cid, Status::ABORTED_BY_REQUEST, 0, Vec::new());
        return Handled::Done(0);
    }
    let Some(queue) = controller.io_queues.get(&qid) else {
        return Handled::Done(NOT_ABORTED);
    };
    controller.admin.pending.insert(sqe.cid.get());
    Handled::Abort {
        reactor: queue.reactor,
        qid,
        cid,
    }
}
