//! One controller, as text and as JSON.

use pollux_nvme_tcp::spec::identify::{IdentifyController, ctrl, text as ascii_text};
use pollux_nvme_tcp::spec::registers::Vs;
use serde_json::{Value, json};

use crate::probe::{Facts, Text, bytes_text, flags_text, hex_text};

/// Unit of KAS in milliseconds.
const KAS_UNIT_MS: u32 = 100;

const CMIC: [(u64, &str); 3] = [
    (ctrl::CMIC_MULTI_PORT as u64, "several ports"),
    (ctrl::CMIC_MULTI_CONTROLLER as u64, "several controllers"),
    (ctrl::CMIC_ANA_REPORTING as u64, "ANA reporting"),
];

const ANACAP: [(u64, &str); 7] = [
    (ctrl::ANACAP_OPTIMIZED as u64, "optimized"),
    (ctrl::ANACAP_NON_OPTIMIZED as u64, "non_optimized"),
    (ctrl::ANACAP_INACCESSIBLE as u64, "inaccessible"),
    (ctrl::ANACAP_PERSISTENT_LOSS as u64, "persistent_loss"),
    (ctrl::ANACAP_CHANGE as u64, "change"),
    (ctrl::ANACAP_FIXED_GROUP as u64, "group identifiers fixed"),
    (ctrl::ANACAP_GROUP_ID as u64, "group identifiers settable"),
];

const ONCS: [(u64, &str); 9] = [
    (ctrl::ONCS_COMPARE as u64, "compare"),
    (ctrl::ONCS_WRITE_UNCORRECTABLE as u64, "write uncorrectable"),
    (ctrl::ONCS_DATASET_MANAGEMENT as u64, "dataset management"),
    (ctrl::ONCS_WRITE_ZEROES as u64, "write zeroes"),
    (ctrl::ONCS_SAVE_SELECT as u64, "save and select"),
    (ctrl::ONCS_RESERVATIONS as u64, "reservations"),
    (ctrl::ONCS_TIMESTAMP as u64, "timestamp"),
    (ctrl::ONCS_VERIFY as u64, "verify"),
    (ctrl::ONCS_COPY as u64, "copy"),
];

const FUSES: [(u64, &str); 1] = [(ctrl::FUSES_COMPARE_WRITE as u64, "compare and write")];

const SGLS: [(u64, &str); 4] = [
    (0b11, "SGLs"),
    (ctrl::SGLS_KEYED as u64, "keyed"),
    (ctrl::SGLS_OFFSET as u64, "offset"),
    (ctrl::SGLS_TRANSPORT as u64, "transport"),
];

/// Text for people: what it is, then what it can do.
pub fn describe(facts: &Facts, text: &mut Text) {
    let id = &*facts.identify;
    text.row("Subsystem NQN", ascii_text(&id.subnqn));
    text.row("Model", id.model());
    text.row("Serial number", id.serial());
    text.row("Firmware", id.firmware());
    text.row("Controller ID", id.cntlid);
    text.row(
        "Controller type",
        match id.cntrltype {
            0 => "not reported".to_owned(),
            ctrl::CNTRLTYPE_IO => "I/O".to_owned(),
            ctrl::CNTRLTYPE_DISCOVERY => "discovery".to_owned(),
            ctrl::CNTRLTYPE_ADMINISTRATIVE => "administrative".to_owned(),
            other => format!("unknown ({other})"),
        },
    );
    text.row("NVMe version", version_text(facts.version));
    text.row(
        "Largest transfer (MDTS)",
        match id.max_transfer_len(facts.cap.mpsmin()) {
            Some(bytes) => bytes_text(bytes.into()),
            None => "no limit".to_owned(),
        },
    );
    text.row("Multipath (CMIC)", flags_text(id.cmic, &CMIC));
    if id.cmic & ctrl::CMIC_ANA_REPORTING != 0 {
        text.row("ANA capabilities", flags_text(id.anacap, &ANACAP));
        text.row("ANA transition time", format!("{} s", id.anatt));
        let groups = format!("{}, identifiers up to {}", id.nanagrpid, id.anagrpmax);
        text.row("ANA groups", groups);
    }
    text.row(
        "Keep-alive (KAS)",
        match id.kas.get() {
            0 => "not supported".to_owned(),
            kas => format!("in steps of {} ms", u32::from(kas) * KAS_UNIT_MS),
        },
    );
    text.row(
        "Asynchronous events",
        format!("{} at once (AERL)", u32::from(id.aerl_z) + 1),
    );
    if id.cntrltype == ctrl::CNTRLTYPE_DISCOVERY {
        return;
    }
    text.row("Commands (ONCS)", flags_text(id.oncs, &ONCS));
    text.row("Fused commands (FUSES)", flags_text(id.fuses, &FUSES));
    text.row(
        "Write cache (VWC)",
        match id.vwc & ctrl::VWC_PRESENT {
            0 => "none",
            _ => "present",
        },
    );
    text.row("SGLs", flags_text(id.sgls, &SGLS));
    let in_capsule = bytes_text(id.in_capsule_data_len().into());
    text.row("In-capsule data (IOCCSZ)", in_capsule);
    text.row("Entries per queue (MQES)", facts.cap.max_queue_entries());
    text.row(
        "Commands per queue",
        match id.maxcmd.get() {
            0 => "not reported".to_owned(),
            maxcmd => format!("{maxcmd} (MAXCMD)"),
        },
    );
    text.row("Highest namespace (NN)", id.nn);
}

/// JSON with the field names of nvme-cli; numbers are as in the identify data, 0's based ones too.
pub fn document(facts: &Facts) -> Value {
    let id = &*facts.identify;
    let mut document = json!({
        "sn": id.serial(),
        "mn": id.model(),
        "fr": id.firmware(),
        "subnqn": ascii_text(&id.subnqn),
        "cntlid": id.cntlid.get(),
        "cntrltype": id.cntrltype,
        "ver": id.ver.get(),
        "version": version_text(Vs::from(id.ver.get())),
        "vid": id.vid.get(),
        "ssvid": id.ssvid.get(),
        "ieee": ieee(id),
        "fguid": hex_text(&id.fguid),
        "max_transfer_bytes": id.max_transfer_len(facts.cap.mpsmin()),
        "max_queue_entries": facts.cap.max_queue_entries(),
    });
    // One macro call for all of them would exceed the compiler's recursion limit.
    for part in [admin_fields(id), io_fields(id)] {
        if let (Value::Object(all), Value::Object(part)) = (&mut document, part) {
            all.extend(part);
        }
    }
    document
}

fn admin_fields(id: &IdentifyController) -> Value {
    json!({
        "rab": id.rab,
        "cmic": id.cmic,
        "mdts": id.mdts,
        "rtd3r": id.rtd3r.get(),
        "rtd3e": id.rtd3e.get(),
        "oaes": id.oaes.get(),
        "ctratt": id.ctratt.get(),
        "rrls": id.rrls.get(),
        "crdt1": id.crdt1.get(),
        "crdt2": id.crdt2.get(),
        "crdt3": id.crdt3.get(),
        "oacs": id.oacs.get(),
        "acl": id.acl_z,
        "aerl": id.aerl_z,
        "frmw": id.frmw,
        "lpa": id.lpa,
        "elpe": id.elpe_z,
        "npss": id.npss_z,
        "wctemp": id.wctemp.get(),
        "cctemp": id.cctemp.get(),
        "tnvmcap": u64::try_from(id.tnvmcap.get()).unwrap_or(u64::MAX),
        "unvmcap": u64::try_from(id.unvmcap.get()).unwrap_or(u64::MAX),
        "kas": id.kas.get(),
        "sanicap": id.sanicap.get(),
        "nsetidmax": id.nsetidmax.get(),
        "endgidmax": id.endgidmax.get(),
        "anatt": id.anatt,
        "anacap": id.anacap,
        "anagrpmax": id.anagrpmax.get(),
        "nanagrpid": id.nanagrpid.get(),
        "domainid": id.did.get(),
        "cqt": id.cqt.get(),
    })
}

fn io_fields(id: &IdentifyController) -> Value {
    json!({
        "sqes": id.sqes,
        "cqes": id.cqes,
        "maxcmd": id.maxcmd.get(),
        "nn": id.nn.get(),
        "oncs": id.oncs.get(),
        "fuses": id.fuses.get(),
        "fna": id.fna,
        "vwc": id.vwc,
        "awun": id.awun_z.get(),
        "awupf": id.awupf_z.get(),
        "nwpc": id.nwpc,
        "acwu": id.acwu_z.get(),
        "ocfs": id.cdfs.get(),
        "sgls": id.sgls.get(),
        "mnan": id.mnan.get(),
        "ioccsz": id.ioccsz.get(),
        "iorcsz": id.iorcsz.get(),
        "icdoff": id.icdoff.get(),
        "fcatt": id.fcatt,
        "msdbd": id.msdbd,
        "ofcs": id.ofcs.get(),
    })
}

/// OUI as a number: the least significant byte comes first.
fn ieee(id: &IdentifyController) -> u32 {
    let [a, b, c] = id.ieee;
    u32::from_le_bytes([a, b, c, 0])
}

fn version_text(version: Vs) -> String {
    format!("{}.{}.{}", version.mjr(), version.mnr(), version.ter())
}
