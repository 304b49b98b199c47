//! Everything that reads what the other side has written into a structure. The first byte says which.

use pollux_nvme_tcp::host::AnaLog;
use pollux_nvme_tcp::spec::Sqe;
use pollux_nvme_tcp::spec::authentication::Message;
use pollux_nvme_tcp::spec::cross_controller_reset::Impacted;
use pollux_nvme_tcp::spec::fabrics::ConnectData;
use pollux_nvme_tcp::spec::identify::{
    IdentifyController, IdentifyNamespace, NamespaceList, namespace_id_descriptors,
};
use pollux_nvme_tcp::spec::log::{DiscoveryLogEntry, GetLogPage};
use pollux_nvme_tcp::spec::nqn::{HostNqn, Nqn};
use pollux_reactor::rpc::Config;
use zerocopy::FromBytes;

/// As long as the longest of them.
const LEN: usize = 4096;

pub fn run(bytes: &[u8]) {
    let Some((&which, rest)) = bytes.split_first() else {
        return;
    };
    let mut padded = rest.to_vec();
    padded.resize(LEN.max(rest.len()), 0);
    match which % 10 {
        0 => controller(&IdentifyController::read_from_prefix(&padded).unwrap().0),
        1 => {
            let id = IdentifyNamespace::read_from_prefix(&padded).unwrap().0;
            let size = id.block_size();
            assert!(size.is_none() || id.format().is_some());
            assert!(size.is_none_or(|size| size.is_power_of_two()));
        }
        2 => {
            let list = NamespaceList::read_from_prefix(&padded).unwrap().0;
            assert!(list.iter().count() <= 1024);
        }
        3 => {
            let total: usize = namespace_id_descriptors(rest)
                .map(|(_, id)| id.len() + 4)
                .sum();
            assert!(total <= rest.len());
        }
        4 => {
            if let Ok(log) = AnaLog::parse(rest) {
                for nsid in 0..8 {
                    if let Some((group, state)) = log.of_namespace(nsid) {
                        assert_eq!(log.of_group(group), Some(state));
                    }
                }
            }
        }
        5 => {
            let entry = DiscoveryLogEntry::read_from_prefix(&padded).unwrap().0;
            assert!(entry.traddr_text().len() <= 256 * 4 && entry.trsvcid_text().len() <= 32 * 4);
            nqn(entry.subnqn().ok());
        }
        6 => {
            let data = ConnectData::read_from_prefix(&padded).unwrap().0;
            nqn(data.subnqn().ok());
            assert!(
                data.hostnqn().is_err()
                    || data.hostnqn().is_ok_and(|name| name.as_str().len() < 256)
            );
        }
        7 => {
            if let Ok(message) = Message::parse(rest) {
                assert_eq!(Message::parse(&message.emit()), Ok(message));
            }
        }
        8 => {
            let text = String::from_utf8_lossy(rest);
            nqn(Nqn::new(&text).ok());
            drop(HostNqn::new(&text));
            drop(Config::parse(&text));
        }
        _ => {
            let sqe = Sqe::read_from_prefix(&padded).unwrap().0;
            let get = GetLogPage::from_sqe(&sqe);
            assert_eq!(GetLogPage::from_sqe(&get.to_sqe(1)), get);
            let impacted = Impacted::from_sqe(&sqe);
            assert_eq!(Impacted::from_sqe(&impacted.to_sqe()), impacted);
        }
    }
}

fn controller(id: &IdentifyController) {
    let _ = (id.serial(), id.model(), id.firmware());
    nqn(id.subnqn().ok());
    let _ = id.in_capsule_data_len();
    for mpsmin in 0..16 {
        assert_ne!(id.max_transfer_len(mpsmin), Some(0));
    }
}

/// A name that was read is written as it was read.
fn nqn(name: Option<Nqn>) {
    if let Some(name) = name {
        assert_eq!(Nqn::from_field(&name.to_field()), Ok(name));
    }
}
