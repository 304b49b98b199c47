//! One namespace, as text and as JSON.

use pollux_nvme_tcp::host::AnaLog;
use pollux_nvme_tcp::spec::identify::{
    IdentifyNamespace, descriptor_type, namespace_id_descriptors, ns,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::probe::{Text, bytes_text, flags_text, hex_text};

/// What a controller says of a namespace.
#[derive(Debug)]
pub struct NamespaceReport {
    nsid: u32,
    identify: IdentifyNamespace,
    uuid: Option<Uuid>,
    nguid: Option<[u8; 16]>,
    eui64: Option<[u8; 8]>,
    /// Command Set Identifier, where it is told.
    csi: Option<u8>,
}

impl NamespaceReport {
    /// Identifiers come from the descriptor list, and those it does not have from the identify data.
    pub fn new(nsid: u32, identify: IdentifyNamespace, descriptors: &[u8]) -> Self {
        let mut report = Self {
            nsid,
            uuid: None,
            nguid: Some(identify.nguid),
            eui64: Some(identify.eui64),
            csi: None,
            identify,
        };
        for (kind, id) in namespace_id_descriptors(descriptors) {
            match kind {
                descriptor_type::UUID => report.uuid = Uuid::from_slice(id).ok(),
                descriptor_type::NGUID => report.nguid = id.try_into().ok(),
                descriptor_type::EUI64 => report.eui64 = id.try_into().ok(),
                descriptor_type::CSI => report.csi = id.first().copied(),
                _ => {}
            }
        }
        report.nguid = report.nguid.filter(|id| *id != [0; 16]);
        report.eui64 = report.eui64.filter(|id| *id != [0; 8]);
        report
    }

    /// JSON with the field names of nvme-cli.
    pub fn document(&self) -> Value {
        let id = &self.identify;
        json!({
            "nsid": self.nsid,
            "nsze": id.nsze.get(),
            "ncap": id.ncap.get(),
            "nuse": id.nuse.get(),
            "block_size": id.block_size(),
            "metadata_size": id.format().map(|format| format.ms.get()),
            "anagrpid": id.anagrpid.get(),
            "uuid": self.uuid.map(|uuid| uuid.to_string()),
            "nguid": self.nguid.map(|nguid| hex_text(&nguid)),
            "eui64": self.eui64.map(|eui64| hex_text(&eui64)),
            "csi": self.csi,
            "nsfeat": id.nsfeat,
            "nlbaf": id.nlbaf_z,
            "flbas": id.flbas,
            "mc": id.mc,
            "dpc": id.dpc,
            "dps": id.dps,
            "nmic": id.nmic,
            "rescap": id.rescap,
            "dlfeat": id.dlfeat,
            "nawun": id.nawun_z.get(),
            "nawupf": id.nawupf_z.get(),
            "nacwu": id.nacwu_z.get(),
            "noiob": id.noiob.get(),
            "nvmcap": u64::try_from(id.nvmcap.get()).unwrap_or(u64::MAX),
            "nsattr": id.nsattr,
            "nvmsetid": id.nvmsetid.get(),
            "endgid": id.endgid.get(),
        })
    }

    /// Text for people; the ANA state of its group stands in `ana`.
    pub fn describe(&self, ana: Option<&AnaLog>, text: &mut Text) {
        let id = &self.identify;
        text.line(&format!("Namespace {}", self.nsid));
        let blocks = |count: u64| match id.block_size() {
            Some(size) => format!(
                "{}, {count} blocks",
                bytes_text(u128::from(count) * u128::from(size))
            ),
            None => format!("{count} blocks"),
        };
        text.row("Size", blocks(id.nsze.get()));
        if id.ncap != id.nsze {
            text.row("Capacity", blocks(id.ncap.get()));
        }
        text.row("Used", blocks(id.nuse.get()));
        text.row(
            "Block size",
            match (id.block_size(), id.format()) {
                (Some(size), Some(format)) if format.ms.get() > 0 => {
                    format!("{size} bytes and {} of metadata", format.ms)
                }
                (Some(size), _) => format!("{size} bytes"),
                (None, _) => format!("none that is known (FLBAS {:#x})", id.flbas),
            },
        );
        let sharing = [(u64::from(ns::NMIC_SHARED), "shared by controllers")];
        text.row("Sharing (NMIC)", flags_text(id.nmic, &sharing));
        let group = id.anagrpid.get();
        if group != 0 {
            let state = ana
                .and_then(|log| log.of_group(group))
                .map_or(String::new(), |state| format!(", {state}"));
            text.row("ANA group", format!("{group}{state}"));
        }
        if let Some(uuid) = self.uuid {
            text.row("UUID", uuid);
        }
        if let Some(nguid) = self.nguid {
            text.row("NGUID", hex_text(&nguid));
        }
        if let Some(eui64) = self.eui64 {
            text.row("EUI-64", hex_text(&eui64));
        }
        match self.csi {
            None | Some(0) => {}
            Some(csi) => text.row("Command set (CSI)", format!("{csi:#x}, not NVM")),
        }
    }
}

#[cfg(test)]
mod tests {
    use pollux_nvme_tcp::spec::identify::put_namespace_id_descriptor;
    use zerocopy::FromZeros;

    use super::*;

    #[test]
    fn identifiers_come_from_both_places() {
        let mut identify = IdentifyNamespace::new_zeroed();
        identify.nguid = [0x11; 16];
        identify.lbaf[0].lbads = 12;
        let none = NamespaceReport::new(3, identify.clone(), &[]).document();
        assert_eq!(none["nguid"], "11".repeat(16));
        assert_eq!(none["uuid"], Value::Null);
        assert_eq!(none["eui64"], Value::Null);
        assert_eq!(none["block_size"], 4096);
        let mut list = Vec::new();
        put_namespace_id_descriptor(&mut list, descriptor_type::UUID, &[0xab; 16]);
        put_namespace_id_descriptor(&mut list, descriptor_type::NGUID, &[0x22; 16]);
        put_namespace_id_descriptor(&mut list, descriptor_type::EUI64, &[1, 2, 3, 4, 5, 6, 7, 8]);
        put_namespace_id_descriptor(&mut list, descriptor_type::CSI, &[0]);
        let all = NamespaceReport::new(3, identify, &list).document();
        assert_eq!(all["nguid"], "22".repeat(16));
        assert_eq!(all["uuid"], "abababab-abab-abab-abab-abababababab");
        assert_eq!(all["eui64"], "0102030405060708");
        assert_eq!(all["csi"], 0);
    }
}
