//! Reading a discovery log in parts (NVMe Base 2.1, 5.1.12.3.1).

use std::net::{IpAddr, SocketAddr};

use pollux_nvme_tcp::host::{AdminCommand, Request};
use pollux_nvme_tcp::spec::log::{DiscoveryLogEntry, DiscoveryLogHeader, discovery, lid};
use pollux_nvme_tcp::spec::nqn::Nqn;
use zerocopy::FromBytes;

/// Length of the header and of each record in bytes.
const RECORD_LEN: usize = 1024;
/// Most records that are read, whatever the log claims to have.
const RECORDS_MAX: u64 = 4096;
/// Most bytes that are asked for at once.
const PART_MAX: usize = 64 * 1024;
/// Most tries to read a log that changes between the reads of its parts.
const TRIES_MAX: u32 = 10;

/// A log that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Log {
    /// What can be followed. Other transports are left out, and referrals to a service that is reached by TLS only.
    pub records: Vec<Record>,
    /// Records of NVMe/TCP that name nothing to connect to, in words.
    pub unusable: Vec<String>,
}

/// Why a log cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LogError {
    #[error("an answer is shorter than what was asked for")]
    Short,
    #[error("record format {0} is unknown, it must be 0")]
    Format(u16),
    #[error("it claims {0} records, more than {RECORDS_MAX} are not followed")]
    TooManyRecords(u64),
    #[error("it changed {TRIES_MAX} times while it was read")]
    Unsettled,
}

/// What a record leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// An NVM subsystem at an address, and whether a secure channel is required there.
    Subsystem {
        addr: SocketAddr,
        nqn: Nqn,
        secure: bool,
    },
    /// Another discovery service.
    Referral(SocketAddr),
}

/// One reading of the log, which starts anew when the log changed meanwhile.
#[derive(Debug)]
pub(super) struct LogReader {
    part_max: usize,
    /// Generation counter and number of records.
    header: Option<(u64, u64)>,
    records: Vec<u8>,
    tries: u32,
}

impl LogReader {
    /// A reader that asks for at most `transfer_max` bytes at once.
    pub fn new(transfer_max: usize) -> LogReader {
        LogReader {
            part_max: (transfer_max.min(PART_MAX) / RECORD_LEN).max(1) * RECORD_LEN,
            header: None,
            records: Vec::new(),
            tries: 0,
        }
    }

    fn missing(&self) -> usize {
        let count = self.header.map_or(0, |(_, count)| count);
        let len = RECORD_LEN * usize::try_from(count).unwrap_or(usize::MAX / RECORD_LEN);
        len.saturating_sub(self.records.len())
    }

    /// What to ask for next: the header, a part of the records, the header again.
    pub fn request(&self) -> Request {
        let (offset, length) = match self.missing() {
            0 => (0, RECORD_LEN),
            missing => (RECORD_LEN + self.records.len(), missing.min(self.part_max)),
        };
        // Reading it takes the event back; a change from now on makes another one.
        AdminCommand::get_log_page(lid::DISCOVERY, 0, offset as u64, length, false)
    }

    /// Takes the answer. `None`: more is to be asked for.
    ///
    /// # Errors
    /// The log makes no sense or changes all the time.
    pub fn answered(&mut self, data: &[u8]) -> Result<Option<Log>, LogError> {
        if self.missing() > 0 {
            let part = data.get(..self.missing().min(self.part_max));
            self.records.extend_from_slice(part.ok_or(LogError::Short)?);
            return Ok(None);
        }
        let (header, _) = DiscoveryLogHeader::ref_from_prefix(data).map_err(|_| LogError::Short)?;
        let now = (header.genctr.get(), header.numrec.get());
        if header.recfmt.get() != 0 {
            return Err(LogError::Format(header.recfmt.get()));
        }
        if now.1 > RECORDS_MAX {
            return Err(LogError::TooManyRecords(now.1));
        }
        if self.header == Some(now) || now.1 == 0 {
            let mut log = Log {
                records: Vec::new(),
                unusable: Vec::new(),
            };
            if now.1 > 0 {
                let entries = self.records.chunks_exact(RECORD_LEN);
                for entry in entries.filter_map(|e| DiscoveryLogEntry::ref_from_bytes(e).ok()) {
                    match record(entry) {
                        Ok(record) => log.records.extend(record),
                        Err(why) => log.unusable.push(why),
                    }
                }
            }
            return Ok(Some(log));
        }
        self.tries += 1;
        if self.tries > TRIES_MAX {
            return Err(LogError::Unsettled);
        }
        self.header = Some(now);
        self.records.clear();
        Ok(None)
    }
}

/// What a record leads to, if it is for this host.
///
/// # Errors
/// It is for this host but names nothing that can be connected to. An unspecified address (0.0.0.0, ::) would
/// lead to whatever listens on the host itself.
fn record(entry: &DiscoveryLogEntry) -> Result<Option<Record>, String> {
    let is_secure = entry.treq & 0b11 == discovery::TREQ_SECURE_REQUIRED;
    if entry.trtype != discovery::TRTYPE_TCP {
        return Ok(None);
    }
    let is_subsystem = match entry.subtype {
        discovery::SUBTYPE_NVM => true,
        // No key is known for a discovery service.
        discovery::SUBTYPE_REFERRAL if !is_secure => false,
        _ => return Ok(None),
    };
    let (ip, port) = (entry.traddr_text(), entry.trsvcid_text());
    let unusable = |why: &str| {
        let (ip, port) = (ip.escape_default(), port.escape_default());
        Err(format!("address '{ip}', service '{port}': {why}"))
    };
    let Ok(addr) = ip.parse::<IpAddr>() else {
        return unusable("the address is not an IP address");
    };
    // An IPv4 address that is written as an IPv6 one leads to the same place.
    let plain = addr.to_canonical();
    if plain.is_unspecified() || plain.is_multicast() {
        return unusable("no host has this address");
    }
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 => port,
        _ => return unusable("the service is not a port from 1 to 65535"),
    };
    let addr = SocketAddr::new(addr, port);
    Ok(Some(match (is_subsystem, entry.subnqn()) {
        (false, _) => Record::Referral(addr),
        (true, Ok(nqn)) => Record::Subsystem {
            addr,
            nqn,
            secure: is_secure,
        },
        (true, Err(_)) => return unusable("the subsystem's NQN is not valid"),
    }))
}

#[cfg(test)]
mod tests {
    use pollux_nvme_tcp::spec::identify::ascii_field;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    fn log(genctr: u64, count: u64) -> Vec<u8> {
        let mut header = DiscoveryLogHeader::new_box_zeroed().unwrap();
        header.genctr = genctr.into();
        header.numrec = count.into();
        let mut bytes = header.as_bytes().to_vec();
        for port in 0..count {
            let mut entry = DiscoveryLogEntry::new_box_zeroed().unwrap();
            entry.trtype = discovery::TRTYPE_TCP;
            entry.subtype = discovery::SUBTYPE_REFERRAL;
            entry.traddr = ascii_field("127.0.0.1");
            entry.trsvcid = ascii_field(&(port + 1).to_string());
            bytes.extend_from_slice(entry.as_bytes());
        }
        bytes
    }

    /// Answers requests from what `log` gives for the nth of them.
    fn read(log: impl Fn(usize) -> Vec<u8>) -> (Result<Log, LogError>, usize) {
        let mut reader = LogReader::new(2048);
        for n in 0.. {
            let request = reader.request();
            let start = usize::try_from(request.command.cdw[2]).unwrap();
            let mut data = log(n).get(start..).unwrap_or_default().to_vec();
            data.resize(request.length, 0);
            match reader.answered(&data) {
                Ok(None) => {}
                Ok(Some(records)) => return (Ok(records), n + 1),
                Err(error) => return (Err(error), n + 1),
            }
        }
        unreachable!()
    }

    #[test]
    fn a_log_is_read_in_parts_and_anew_when_it_changes() {
        let (records, reads) = read(|_| log(1, 5));
        assert_eq!(records.unwrap().records.len(), 5);
        assert_eq!(reads, 1 + 3 + 1);
        let (records, reads) = read(|n| if n < 3 { log(1, 5) } else { log(2, 2) });
        assert_eq!(records.unwrap().records.len(), 2);
        // Header and three parts, then another header; one part, and the same header.
        assert_eq!(reads, 4 + 1 + 1 + 1);
        assert_eq!(read(|_| log(3, 0)).0.unwrap().records, []);
    }

    #[test]
    fn a_log_that_makes_no_sense_is_refused() {
        let many = |_| {
            let mut bytes = log(1, 0);
            bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
            bytes
        };
        assert_eq!(read(many).0, Err(LogError::TooManyRecords(u64::MAX)));
        let changing = |n: usize| log(n as u64, 1);
        assert_eq!(read(changing).0, Err(LogError::Unsettled));
    }

    #[test]
    fn a_record_without_an_address_to_connect_to_is_named() {
        let with = |ip: &str, port: &str| {
            let mut bytes = log(1, 1);
            let entry = DiscoveryLogEntry::mut_from_bytes(&mut bytes[RECORD_LEN..]).unwrap();
            entry.traddr = ascii_field(ip);
            entry.trsvcid = ascii_field(port);
            let log = read(|_| bytes.clone()).0.unwrap();
            (log.records.len(), log.unusable.len())
        };
        for ip in ["127.0.0.1", "::1"] {
            assert_eq!(with(ip, "4420"), (1, 0), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "::",
            "::ffff:0.0.0.0",
            "224.0.0.1",
            "::ffff:224.0.0.1",
            "ff02::1",
            "host.example",
            "",
        ] {
            assert_eq!(with(ip, "4420"), (0, 1), "{ip}");
        }
        for port in ["0", "", "65536", "-1", "x"] {
            assert_eq!(with("127.0.0.1", port), (0, 1), "{port}");
        }
    }
}
