//! Data of the Identify command (NVMe Base 2.1, 5.1.13).

use crate::target::zeroed;
use zerocopy::little_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use crate::spec::identify::{
    CSI_NVM, IDENTIFY_LEN, IdentifyController, IdentifyNamespace, IdentifyNamespaceIndependent,
    IdentifyNvmController, IdentifyNvmNamespace, LbaFormat, NamespaceList, ascii_field, ctrl,
    descriptor_type, ns, put_namespace_id_descriptor,
};
use crate::spec::log::{AnaState, event};
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::admin::controller::{
    ABORTS_MAX, Controller, ERROR_LOG_ENTRIES, KAS, QUEUE_ENTRIES_MAX, VERSION,
};
use crate::target::admin::events::AERS_MAX;
use crate::target::admin::reset_log::RESETS_MAX;
use crate::target::config::SubsystemConfig;
use crate::target::conn::connection::{IN_CAPSULE_MAX, wire_len};
use crate::target::io::command::COMMANDS;
use crate::target::subsystem::ana::{ANA_GROUP_MAX, ANATT_SECS};
use crate::target::subsystem::{Configuration, NAMESPACES_MAX, Namespace, Subsystem};

/// MDTS counts in powers of two of this many bytes (CAP.MPSMIN).
pub(in crate::target) const MDTS_UNIT: u32 = 4096;

/// MDTS of a data length, a power of two above [`MDTS_UNIT`]: an MDTS of 0 would be no limit.
const fn mdts_of(bytes: u32) -> u8 {
    // At most 31, so nothing is cut off.
    (bytes / MDTS_UNIT).ilog2().to_le_bytes()[0]
}

/// Firmware revision: the package's version.
pub(in crate::target) const FIRMWARE: &str = env!("CARGO_PKG_VERSION");

/// Identify Controller, CNS 01h. `subsystem` is `None` for a discovery controller.
pub(in crate::target) fn controller(
    controller: &Controller,
    subsystem: Option<&Subsystem>,
    config: &Configuration,
) -> Vec<u8> {
    let mut id: Box<IdentifyController> = zeroed();
    id.sn = ascii_field(subsystem.map_or("POLLUX00000000000000", |s| &s.config.serial));
    id.mn = ascii_field(subsystem.map_or("Pollux discovery", |s| &s.config.model));
    id.fr = ascii_field(FIRMWARE);
    id.cntlid = controller.cntlid.into();
    id.ver = VERSION.into_bits().into();
    id.mdts = mdts_of(controller.promised.transfer_max);
    id.ctratt = ctrl::CTRATT_HOST_ID_128.into();
    let [crdt1, crdt2, crdt3] = config.retry_delays;
    (id.crdt1, id.crdt2, id.crdt3) = (crdt1.into(), crdt2.into(), crdt3.into());
    id.acl_z = ABORTS_MAX - 1;
    id.aerl_z = AERS_MAX - 1;
    id.frmw = 0b11; // one slot, read-only
    id.lpa = ctrl::LPA_COMMAND_EFFECTS | ctrl::LPA_EXTENDED_DATA;
    id.elpe_z = ERROR_LOG_ENTRIES - 1;
    id.kas = KAS.into();
    id.maxcmd = QUEUE_ENTRIES_MAX.into();
    id.sgls = (ctrl::SGLS_SUPPORTED | ctrl::SGLS_OFFSET | ctrl::SGLS_TRANSPORT).into();
    id.msdbd = 1;
    id.ofcs = ctrl::OFCS_DISCONNECT.into();
    let nqn = subsystem.map_or_else(Nqn::discovery, |s| s.config.nqn.clone());
    id.subnqn = nqn.to_field();
    let Some(subsystem) = subsystem else {
        id.oaes = event::ENABLE_DISCOVERY.into();
        id.cntrltype = ctrl::CNTRLTYPE_DISCOVERY;
        return id.as_bytes().to_vec();
    };
    id.ioccsz = wire_len((64 + IN_CAPSULE_MAX) / ctrl::CAPSULE_UNIT as usize).into();
    id.iorcsz = 1.into();
    id.sqes = ctrl::SQES_64;
    id.cqes = ctrl::CQES_16;
    id.cmic = ctrl::CMIC_MULTI_PORT | ctrl::CMIC_MULTI_CONTROLLER;
    id.cntrltype = ctrl::CNTRLTYPE_IO;
    id.nn = subsystem.config.max_namespaces.into();
    id.mnan = subsystem.config.max_namespaces.into();
    let oncs = COMMANDS.iter().fold(0, |oncs, c| oncs | c.oncs);
    id.oncs = (oncs & !controller.promised.masked_oncs).into();
    id.vwc = ctrl::VWC_PRESENT | ctrl::VWC_FLUSH_ALL_SUPPORTED;
    let mut events = event::ENABLE_NAMESPACE;
    if controller.promised.resets_others() {
        events |= event::ENABLE_CROSS_CONTROLLER_RESET;
        id.ciu = controller.instance.ciu;
        id.cirn = controller.instance.cirn.into();
        id.ccrl = RESETS_MAX;
        id.cqt = controller.promised.cqt_ms.into();
    }
    if subsystem.config.ana_reporting {
        events |= event::ENABLE_ANA;
        id.cmic |= ctrl::CMIC_ANA_REPORTING;
        id.anatt = ANATT_SECS;
        id.anacap = ctrl::ANACAP_OPTIMIZED
            | ctrl::ANACAP_NON_OPTIMIZED
            | ctrl::ANACAP_INACCESSIBLE
            | ctrl::ANACAP_PERSISTENT_LOSS
            | ctrl::ANACAP_CHANGE;
        id.anagrpmax = ANA_GROUP_MAX.into();
        id.nanagrpid = ANA_GROUP_MAX.into();
    }
    id.oaes = events.into();
    id.as_bytes().to_vec()
}

/// Identify Namespace, CNS 00h; zeroes for a namespace that is not active.
pub(in crate::target) fn namespace(
    namespace: Option<&Namespace>,
    ana: AnaState,
    ana_reporting: bool,
) -> Vec<u8> {
    // All fields of an inactive namespace are zero (NVMe Base 2.1, 5.1.13.2).
    let Some(namespace) = namespace else {
        return vec![0; IDENTIFY_LEN];
    };
    let mut id: Box<IdentifyNamespace> = zeroed();
    id.nsze = namespace.blocks.into();
    id.ncap = namespace.blocks.into();
    // Not known through a path that cannot reach the namespace (NVMe Base 2.1, 8.1.1.6).
    let reachable = !matches!(ana, AnaState::INACCESSIBLE | AnaState::PERSISTENT_LOSS);
    id.nuse = if reachable { namespace.blocks } else { 0 }.into();
    id.nvmcap = u128::from(namespace.bytes()).into();
    id.nmic = ns::NMIC_SHARED;
    let capabilities = namespace.disk.capabilities();
    if capabilities.deallocates_to_zeroes {
        id.dlfeat = ns::DLFEAT_READS_ZEROES | ns::DLFEAT_WRITE_ZEROES_DEALLOCATES;
    }
    if let Some(bytes) = capabilities.granularity {
        let blocks = (bytes >> namespace.block_shift).max(1);
        // A hint: a larger piece than can be said is said as large as can be.
        let z = u16::try_from(blocks - 1).unwrap_or(u16::MAX).into();
        id.nsfeat |= ns::NSFEAT_OPTIMAL_PERFORMANCE;
        (id.npwg_z, id.npwa_z, id.nows_z) = (z, z, z);
        (id.npdg_z, id.npda_z) = (z, z);
    }
    if ana_reporting {
        id.anagrpid = namespace.ana_group.into();
    }
    id.nguid = namespace.nguid;
    id.eui64 = namespace.eui64.unwrap_or_default();
    if let Some(format) = id.lbaf.first_mut() {
        *format = LbaFormat {
            lbads: namespace.block_shift,
            ..LbaFormat::default()
        };
    }
    id.as_bytes().to_vec()
}

/// Namespace Identification Descriptor list, CNS 03h.
pub(in crate::target) fn descriptors(namespace: &Namespace) -> Vec<u8> {
    let mut list = Vec::with_capacity(IDENTIFY_LEN);
    put_namespace_id_descriptor(&mut list, descriptor_type::UUID, namespace.uuid.as_bytes());
    put_namespace_id_descriptor(&mut list, descriptor_type::NGUID, &namespace.nguid);
    if let Some(eui64) = namespace.eui64 {
        put_namespace_id_descriptor(&mut list, descriptor_type::EUI64, &eui64);
    }
    put_namespace_id_descriptor(&mut list, descriptor_type::CSI, &[CSI_NVM]);
    list.resize(IDENTIFY_LEN, 0);
    list
}

/// Active namespaces above `above` that a host may see, CNS 02h and 07h.
pub(in crate::target) fn active_list(subsystem: &Subsystem, host: &HostNqn, above: u32) -> Vec<u8> {
    let seen = subsystem.seen_by(host).map(|(nsid, _)| nsid);
    namespace_list(seen.filter(|&nsid| nsid > above))
}

/// A list of up to 1,024 NSIDs.
pub(in crate::target) fn namespace_list(nsids: impl Iterator<Item = u32>) -> Vec<u8> {
    const { assert!(NAMESPACES_MAX as usize <= NamespaceList::MAX) };
    let mut list = Vec::with_capacity(IDENTIFY_LEN);
    for nsid in nsids.take(NamespaceList::MAX) {
        list.extend_from_slice(U32::new(nsid).as_bytes());
    }
    list.resize(IDENTIFY_LEN, 0);
    list
}

/// NVM command set specific namespace data, CNS 05h: no protection information, one format.
pub(in crate::target) fn nvm_namespace() -> Vec<u8> {
    IdentifyNvmNamespace::new_box_zeroed()
        .map_or_else(|_| vec![0; IDENTIFY_LEN], |id| id.as_bytes().to_vec())
}

/// NVM command set specific controller data, CNS 06h. Zeroing and deallocation keep no reactor busy, so they need
/// no limit but that which was asked for.
pub(in crate::target) fn nvm_controller(config: &SubsystemConfig) -> Vec<u8> {
    let mut id: Box<IdentifyNvmController> = zeroed();
    id.wzsl = config.wzsl;
    if config.dmrsl != 0 {
        id.dmrl = u8::MAX;
        id.dmrsl = config.dmrsl.into();
        id.dmsl = (u64::from(id.dmrl) * u64::from(config.dmrsl)).into();
    }
    id.as_bytes().to_vec()
}

/// Command set independent namespace data, CNS 08h.
pub(in crate::target) fn namespace_independent(
    namespace: &Namespace,
    ana_reporting: bool,
) -> Vec<u8> {
    let mut id: Box<IdentifyNamespaceIndependent> = zeroed();
    id.nmic = ns::NMIC_SHARED;
    if ana_reporting {
        id.anagrpid = namespace.ana_group.into();
    }
    id.nstat = ns::NSTAT_READY;
    id.as_bytes().to_vec()
}

/// I/O command sets, CNS 1Ch: one combination, with the NVM command set.
pub(in crate::target) fn command_sets() -> Vec<u8> {
    let mut list = vec![0; IDENTIFY_LEN];
    if let Some(first) = list.first_mut() {
        *first = 1;
    }
    list
}
