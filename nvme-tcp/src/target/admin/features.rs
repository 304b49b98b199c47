//! Set Features and Get Features (NVMe Base 2.1, 5.1.25 and 5.1.11).

use crate::spec::Sqe;
use crate::spec::features::{
    GetFeaturesCdw10, HOST_IDENTIFIER_EXHID, NumberOfQueues, SetFeaturesCdw10,
    VOLATILE_WRITE_CACHE_WCE, fid, select,
};
use crate::spec::sqe::NSID_ALL;
use crate::spec::status::Status;
use crate::target::admin::Handled;
use crate::target::admin::controller::{Controller, IO_QUEUES_MAX};
use crate::target::subsystem::Subsystem;

/// Length of the data of Host Behavior Support in bytes.
pub(in crate::target) const HOST_BEHAVIOR_LEN: usize = 512;

/// Temperature Threshold: off, as far as a threshold can be (composite sensor, over temperature).
const TEMPERATURE_THRESHOLD: u32 = 0xffff;

/// Sets a feature. Nothing can be saved.
pub(in crate::target) fn set(
    controller: &mut Controller,
    sqe: &Sqe,
    data: &[u8],
) -> Result<Handled, Status> {
    let cdw10 = SetFeaturesCdw10::from_bits(sqe.cdw10.get());
    let value = sqe.cdw11.get();
    if cdw10.sv() {
        return Err(Status::FEATURE_NOT_SAVEABLE.with_dnr());
    }
    let id = cdw10.fid();
    match id {
        fid::ASYNC_EVENT_CONFIG => controller.events.config = value,
        fid::KEEP_ALIVE_TIMER => {
            controller.kato_ms = value;
            return Ok(Handled::KeepAlive);
        }
        _ if controller.is_discovery() => return Err(Status::INVALID_FIELD.with_dnr()),
        fid::NUMBER_OF_QUEUES => {
            let wanted = NumberOfQueues::from_bits(value);
            if wanted.nsq_z() == u16::MAX || wanted.ncq_z() == u16::MAX {
                return Err(Status::INVALID_FIELD.with_dnr());
            }
            if !controller.io_queues.is_empty() {
                return Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr());
            }
            let granted = NumberOfQueues::of(IO_QUEUES_MAX).into_bits();
            return Ok(Handled::Done(granted.into()));
        }
        fid::HOST_BEHAVIOR_SUPPORT => {
            let new = data
                .get(..HOST_BEHAVIOR_LEN)
                .ok_or(Status::DATA_SGL_LENGTH_INVALID.with_dnr())?;
            controller.host_behavior.copy_from_slice(new);
        }
        fid::VOLATILE_WRITE_CACHE if value & VOLATILE_WRITE_CACHE_WCE != 0 => {}
        // Only one combination of I/O command sets exists (CNS 1Ch).
        fid::IO_COMMAND_SET_PROFILE if value & 0x1ff == 0 => {}
        fid::IO_COMMAND_SET_PROFILE => {
            return Err(Status::IO_COMMAND_SET_COMBINATION_REJECTED.with_dnr());
        }
        // Connect has told it.
        fid::HOST_IDENTIFIER => return Err(Status::COMMAND_SEQUENCE_ERROR.with_dnr()),
        fid::ARBITRATION
        | fid::POWER_MANAGEMENT
        | fid::TEMPERATURE_THRESHOLD
        | fid::ERROR_RECOVERY
        | fid::VOLATILE_WRITE_CACHE
        | fid::WRITE_ATOMICITY_NORMAL => return Err(Status::FEATURE_NOT_CHANGEABLE.with_dnr()),
        _ => return Err(Status::INVALID_FIELD.with_dnr()),
    }
    Ok(Handled::Done(0))
}

/// Gets a feature. Default and saved values are the current ones of features that cannot be changed; of the
/// others the current value stands for all.
pub(in crate::target) fn get(
    controller: &Controller,
    subsystem: Option<&Subsystem>,
    sqe: &Sqe,
) -> Result<Handled, Status> {
    let cdw10 = GetFeaturesCdw10::from_bits(sqe.cdw10.get());
    let id = cdw10.fid();
    let changeable = matches!(
        id,
        fid::ASYNC_EVENT_CONFIG
            | fid::KEEP_ALIVE_TIMER
            | fid::NUMBER_OF_QUEUES
            | fid::HOST_BEHAVIOR_SUPPORT
    );
    let value = match id {
        fid::ASYNC_EVENT_CONFIG => controller.events.config,
        fid::KEEP_ALIVE_TIMER => controller.kato_ms,
        _ if controller.is_discovery() => return Err(Status::INVALID_FIELD.with_dnr()),
        fid::NUMBER_OF_QUEUES => NumberOfQueues::of(IO_QUEUES_MAX).into_bits(),
        fid::ARBITRATION
        | fid::POWER_MANAGEMENT
        | fid::WRITE_ATOMICITY_NORMAL
        | fid::IO_COMMAND_SET_PROFILE => 0,
        fid::TEMPERATURE_THRESHOLD => TEMPERATURE_THRESHOLD,
        fid::VOLATILE_WRITE_CACHE => VOLATILE_WRITE_CACHE_WCE,
        fid::ERROR_RECOVERY => {
            check_namespace(controller, subsystem, sqe.nsid.get())?;
            0
        }
        fid::HOST_IDENTIFIER if sqe.cdw11.get() & HOST_IDENTIFIER_EXHID == 0 => {
            return Err(Status::INVALID_FIELD.with_dnr());
        }
        fid::HOST_IDENTIFIER | fid::HOST_BEHAVIOR_SUPPORT => 0,
        _ => return Err(Status::INVALID_FIELD.with_dnr()),
    };
    match (cdw10.sel(), id) {
        // Bit 2: changeable.
        (select::SUPPORTED_CAPABILITIES, _) => Ok(Handled::Done(u64::from(changeable) << 2)),
        (select::SUPPORTED_CAPABILITIES.., _) => Err(Status::INVALID_FIELD.with_dnr()),
        (_, fid::HOST_IDENTIFIER) => Ok(Handled::Data(controller.hostid.to_vec())),
        (_, fid::HOST_BEHAVIOR_SUPPORT) => Ok(Handled::Data(controller.host_behavior.to_vec())),
        _ => Ok(Handled::Done(value.into())),
    }
}

/// A feature of a namespace needs one that is there and can be reached (NVMe Base 2.1, 8.1.1).
fn check_namespace(
    controller: &Controller,
    subsystem: Option<&Subsystem>,
    nsid: u32,
) -> Result<(), Status> {
    if nsid == NSID_ALL {
        return Ok(());
    }
    let view = subsystem.and_then(|s| s.view(controller, nsid));
    match view.map(|v| v.ana.refusal()) {
        None => Err(Status::INVALID_NAMESPACE.with_dnr()),
        Some(Some(status)) => Err(status),
        Some(None) => Ok(()),
    }
}
