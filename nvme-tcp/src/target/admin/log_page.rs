//! Log pages that are not about ANA or discovery (NVMe Base 2.1, 5.1.12.1).

use std::time::Duration;

use zerocopy::IntoBytes;

use crate::spec::identify::ascii_field;
use crate::spec::log::{
    CommandEffectsLog, ErrorLogEntry, FirmwareSlotLog, LID_SUPPORTED_LEN, SmartLog, effects, lid,
};
use crate::spec::nqn::HostNqn;
use crate::spec::opcode::{FABRICS, admin};
use crate::target::admin::controller::{Controller, ERROR_LOG_ENTRIES, Promised};
use crate::target::admin::identify::FIRMWARE;
use crate::target::io::command::{COMMANDS, IoCommand};
use crate::target::status::QpairCounters;
use crate::target::subsystem::Subsystem;
use crate::target::zeroed;

/// 25 °C: there is nothing to measure, and tools warn at zero.
const TEMPERATURE_KELVIN: u16 = 298;

/// The logs of an I/O controller.
const SUPPORTED: [u8; 7] = [
    lid::SUPPORTED_LOG_PAGES,
    lid::ERROR_INFORMATION,
    lid::SMART,
    lid::FIRMWARE_SLOT,
    lid::CHANGED_NAMESPACE_LIST,
    lid::COMMAND_EFFECTS,
    lid::ANA,
];

/// Supported Log Pages, LID 00h: bit 0 (LSUPP) of one dword per identifier. `resets`: controllers reset others.
pub(in crate::target) fn supported(discovery: bool, resets: bool) -> Vec<u8> {
    let mut log = vec![0; LID_SUPPORTED_LEN];
    let lids: &[u8] = if discovery {
        &[
            lid::SUPPORTED_LOG_PAGES,
            lid::ERROR_INFORMATION,
            lid::DISCOVERY,
        ]
    } else {
        &SUPPORTED
    };
    let resets = (resets && !discovery).then_some(&lid::CROSS_CONTROLLER_RESET);
    for &lid in lids.iter().chain(resets) {
        if let Some(entry) = log.get_mut(usize::from(lid) * 4) {
            *entry = 1;
        }
    }
    log
}

/// Error Information, LID 01h: the latest first.
pub(in crate::target) fn errors(controller: &Controller) -> Vec<u8> {
    let mut log: Vec<u8> = Vec::new();
    for entry in &controller.errors {
        log.extend_from_slice(entry.as_bytes());
    }
    log.resize(
        usize::from(ERROR_LOG_ENTRIES) * size_of::<ErrorLogEntry>(),
        0,
    );
    log
}

/// Critical warning: the reliability is degraded by errors of the media.
const WARNING_RELIABILITY: u8 = 1 << 2;
/// Critical warning: all media take no more writes.
const WARNING_READ_ONLY: u8 = 1 << 3;

/// SMART / Health Information, LID 02h. `subsystem` is that of the controller, `host` its host.
pub(in crate::target) fn smart(
    (subsystem, host): (Option<&Subsystem>, &HostNqn),
    counters: &QpairCounters,
    error_count: u64,
    age: Duration,
) -> Vec<u8> {
    let mut log: Box<SmartLog> = zeroed();
    // Thousands of 512 bytes, rounded up.
    let units = |bytes: u64| u128::from(bytes).div_ceil(512_000);
    // Nothing is told of what the host does not see.
    let namespaces = || {
        let seen = subsystem.iter().flat_map(|s| s.seen_by(host));
        seen.map(|(_, namespace)| namespace)
    };
    let failed = namespaces().filter(|n| n.disk.failure().is_some()).count();
    if failed > 0 {
        log.critical_warning |= WARNING_RELIABILITY;
    }
    if failed > 0 && failed == namespaces().count() {
        log.critical_warning |= WARNING_READ_ONLY;
    }
    let errors = namespaces().map(|n| u128::from(n.disk.errors()));
    log.media_errors = errors.sum::<u128>().into();
    log.composite_temperature = TEMPERATURE_KELVIN.into();
    log.available_spare = 100;
    log.data_units_read = units(counters.bytes_read).into();
    log.data_units_written = units(counters.bytes_written).into();
    log.host_read_commands = u128::from(counters.reads).into();
    log.host_write_commands = u128::from(counters.writes).into();
    log.power_cycles = 1.into();
    log.power_on_hours = u128::from(age.as_secs() / 3600).into();
    log.error_log_entries = u128::from(error_count).into();
    log.as_bytes().to_vec()
}

/// Firmware Slot Information, LID 03h: one slot.
pub(in crate::target) fn firmware() -> Vec<u8> {
    let mut log: Box<FirmwareSlotLog> = zeroed();
    log.afi = 1;
    if let Some(slot) = log.frs.first_mut() {
        *slot = ascii_field(FIRMWARE);
    }
    log.as_bytes().to_vec()
}

/// Commands Supported and Effects, LID 05h. `resets`: controllers reset others.
pub(in crate::target) fn command_effects(promised: Promised) -> Vec<u8> {
    const ADMIN: [u8; 8] = [
        admin::GET_LOG_PAGE,
        admin::IDENTIFY,
        admin::ABORT,
        admin::SET_FEATURES,
        admin::GET_FEATURES,
        admin::ASYNC_EVENT_REQUEST,
        admin::KEEP_ALIVE,
        FABRICS,
    ];
    let mut log: Box<CommandEffectsLog> = zeroed();
    let resets = promised
        .resets_others()
        .then_some(admin::CROSS_CONTROLLER_RESET);
    for opcode in ADMIN.into_iter().chain(resets) {
        log.acs[usize::from(opcode)] = effects::CSUPP.into();
    }
    let is_there = |command: &IoCommand| command.oncs & promised.masked_oncs == 0;
    for command in COMMANDS.into_iter().filter(is_there) {
        let changes = if command.writes { effects::LBCC } else { 0 };
        log.iocs[usize::from(command.opcode)] = (effects::CSUPP | changes).into();
    }
    log.as_bytes().to_vec()
}
