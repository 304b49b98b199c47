//! `pollux discover`: the discovery log of a discovery controller.

use anyhow::{Context, bail};
use clap::Args;
use pollux_nvme_tcp::host::AdminCommand;
use pollux_nvme_tcp::spec::identify::{ctrl, text as ascii_text};
use pollux_nvme_tcp::spec::log::{DiscoveryLogEntry, DiscoveryLogHeader, discovery, lid};
use serde_json::{Value, json};
use zerocopy::FromBytes;

use crate::probe::{ConnectArgs, ReadError, Text, print, with_controller};

const EXAMPLES: &str = "\
Examples:
  pollux discover -r 'trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:4420'
  pollux discover -a 127.0.0.1 -s 4420 --json
  pollux discover -a 192.0.2.1
      port 8009, that of discovery services

Exit code: 0, 1 (cannot be read), 2 (wrong usage).";

/// Length of the log's header and of each of its records in bytes.
const RECORD_LEN: usize = 1024;

/// Most records that are read, whatever the log claims to have: 16 MiB of log.
const RECORDS_MAX: u64 = 16_384;

/// Most bytes that are asked for at once.
const PART_MAX: usize = 64 * 1024;

/// Most tries to read a log that changes between the reads of its parts.
const TRIES_MAX: u32 = 10;

/// Print what a discovery controller lists: the subsystems there are and their addresses.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DiscoverArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// A whole discovery log.
#[derive(Debug)]
struct DiscoveryLog {
    genctr: u64,
    records: Vec<DiscoveryLogEntry>,
}

/// Reads and prints the discovery log.
///
/// # Errors
/// The log cannot be read.
pub fn run(args: &DiscoverArgs) -> anyhow::Result<()> {
    let (addr, log) = with_controller(&args.connect, |probe| {
        if probe.facts.identify.cntrltype == ctrl::CNTRLTYPE_IO {
            bail!(
                "'{}' is a subsystem of I/O controllers, which has no discovery log: leave the NQN out",
                probe.transport.subnqn
            );
        }
        let part_max = probe.facts.transfer_max.min(PART_MAX) / RECORD_LEN * RECORD_LEN;
        let log = read_log(part_max, |offset, length| {
            let request = AdminCommand::get_log_page(lid::DISCOVERY, 0, offset, length, false);
            probe.read(request)
        })?;
        Ok((probe.transport.addr, log))
    })?;
    let heading = format!("Discovery log of {addr}: {} records", log.records.len());
    print(args.connect.json, &document(&log), &text(&heading, &log))
}

/// Reads the log in parts of at most `part_max` bytes. It may change between two reads, which its generation
/// counter tells: then all is read again (NVMe Base 2.1, 5.1.12.3.1).
fn read_log(
    part_max: usize,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, ReadError>,
) -> anyhow::Result<DiscoveryLog> {
    let mut read = |offset, length| read(offset, length).context("Get Log Page Discovery");
    for _ in 0..TRIES_MAX {
        let (genctr, count) = header(&read(0, RECORD_LEN)?)?;
        if count > RECORDS_MAX {
            bail!("the discovery log claims {count} records; at most {RECORDS_MAX} are read");
        }
        let end = RECORD_LEN * (1 + usize::try_from(count)?);
        let mut records = Vec::new();
        let mut offset = RECORD_LEN;
        while offset < end {
            let length = part_max.min(end - offset);
            let part = read(u64::try_from(offset)?, length)?;
            let entries = part.chunks_exact(RECORD_LEN);
            records.extend(entries.filter_map(|e| DiscoveryLogEntry::read_from_bytes(e).ok()));
            offset += length;
        }
        if count == 0 || header(&read(0, RECORD_LEN)?)? == (genctr, count) {
            return Ok(DiscoveryLog { genctr, records });
        }
    }
    bail!("the discovery log changed during each of {TRIES_MAX} tries to read it")
}

/// Generation counter and number of records.
fn header(bytes: &[u8]) -> anyhow::Result<(u64, u64)> {
    let (header, _) = DiscoveryLogHeader::ref_from_prefix(bytes)
        .map_err(|_| anyhow::anyhow!("the discovery log has no room for its header"))?;
    if header.recfmt.get() != 0 {
        bail!(
            "the discovery log has record format {}; only 0 is known",
            header.recfmt
        );
    }
    Ok((header.genctr.get(), header.numrec.get()))
}

fn document(log: &DiscoveryLog) -> Value {
    let records: Vec<_> = log
        .records
        .iter()
        .map(|record| {
            json!({
                "trtype": trtype(record),
                "adrfam": adrfam(record),
                "subtype": subtype(record),
                "treq": treq(record),
                "portid": record.portid.get(),
                "cntlid": record.cntlid.get(),
                "asqsz": record.asqsz.get(),
                "trsvcid": record.trsvcid_text(),
                "subnqn": ascii_text(&record.subnqn),
                "traddr": record.traddr_text(),
                "eflags": eflags(record),
                "sectype": sectype(record),
            })
        })
        .collect();
    json!({ "genctr": log.genctr, "records": records })
}

fn text(heading: &str, log: &DiscoveryLog) -> Text {
    let mut text = Text::default();
    text.line(heading);
    text.row("Generation counter", log.genctr);
    for (index, record) in log.records.iter().enumerate() {
        text.line(&format!("Record {index}: {}", subtype(record)));
        let (traddr, trsvcid) = (record.traddr_text(), record.trsvcid_text());
        text.row("Subsystem NQN", ascii_text(&record.subnqn));
        text.row(
            "Address",
            format!(
                "{} {} {traddr} port {trsvcid}",
                trtype(record),
                adrfam(record)
            ),
        );
        text.row("Port ID", record.portid);
        text.row(
            "Controller ID",
            match record.cntlid.get() {
                0xffff => "dynamic".to_owned(),
                0xfffe => "static".to_owned(),
                id => id.to_string(),
            },
        );
        text.row("Admin queue entries", record.asqsz);
        text.row("Secure channel", treq(record));
    }
    text
}

// The names that nvme-cli prints.

const UNKNOWN: &str = "unrecognized";

fn trtype(record: &DiscoveryLogEntry) -> &'static str {
    match record.trtype {
        discovery::TRTYPE_RDMA => "rdma",
        discovery::TRTYPE_FC => "fc",
        discovery::TRTYPE_TCP => "tcp",
        _ => UNKNOWN,
    }
}

fn adrfam(record: &DiscoveryLogEntry) -> &'static str {
    match record.adrfam {
        discovery::ADRFAM_IPV4 => "ipv4",
        discovery::ADRFAM_IPV6 => "ipv6",
        3 => "infiniband",
        4 => "fibre-channel",
        _ => UNKNOWN,
    }
}

fn subtype(record: &DiscoveryLogEntry) -> &'static str {
    match record.subtype {
        discovery::SUBTYPE_REFERRAL => "discovery subsystem referral",
        discovery::SUBTYPE_NVM => "nvme subsystem",
        discovery::SUBTYPE_CURRENT => "current discovery subsystem",
        _ => UNKNOWN,
    }
}

fn treq(record: &DiscoveryLogEntry) -> String {
    let secure = match record.treq & 0b11 {
        0 => "not specified",
        discovery::TREQ_SECURE_REQUIRED => "required",
        discovery::TREQ_SECURE_NOT_REQUIRED => "not required",
        _ => UNKNOWN,
    };
    match record.treq & discovery::TREQ_SQ_FLOW_CONTROL_OPTIONAL {
        0 => secure.to_owned(),
        _ => format!("{secure}, sq flow control disable supported"),
    }
}

fn eflags(record: &DiscoveryLogEntry) -> String {
    let flags = record.eflags.get();
    let named = [
        (discovery::EFLAGS_EPCSD, "explicit discovery connections"),
        (
            discovery::EFLAGS_DUPRETINFO,
            "duplicate discovery information",
        ),
    ];
    let set: Vec<_> = named
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|&(_, name)| name)
        .collect();
    match set.is_empty() {
        true => "none".to_owned(),
        false => set.join(", "),
    }
}

/// Security type of a TCP address: the first byte of TSAS (NVMe/TCP 1.1, 3.1.1).
fn sectype(record: &DiscoveryLogEntry) -> &'static str {
    match (record.trtype, record.tsas.first()) {
        (discovery::TRTYPE_TCP, Some(1)) => "tls",
        (discovery::TRTYPE_TCP, Some(2)) => "tls13",
        _ => "none",
    }
}

#[cfg(test)]
mod tests {
    use pollux_nvme_tcp::spec::identify::ascii_field;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    /// The bytes of a log whose records have the ports `0..count`.
    fn log_bytes(genctr: u64, count: u16) -> Vec<u8> {
        let mut header = DiscoveryLogHeader::new_box_zeroed().unwrap();
        header.genctr = genctr.into();
        header.numrec = u64::from(count).into();
        let mut bytes = header.as_bytes().to_vec();
        for port in 0..count {
            let mut record = DiscoveryLogEntry::new_box_zeroed().unwrap();
            record.portid = port.into();
            record.trtype = discovery::TRTYPE_TCP;
            record.adrfam = discovery::ADRFAM_IPV6;
            record.subtype = discovery::SUBTYPE_REFERRAL;
            record.treq = discovery::TREQ_SECURE_REQUIRED;
            record.eflags = (discovery::EFLAGS_EPCSD | discovery::EFLAGS_DUPRETINFO).into();
            record.trsvcid = ascii_field("8009");
            record.traddr = ascii_field("::1");
            bytes.extend_from_slice(record.as_bytes());
        }
        bytes
    }

    fn part(bytes: &[u8], offset: u64, length: usize) -> Vec<u8> {
        let offset = usize::try_from(offset).unwrap();
        let mut part = bytes.get(offset..).unwrap_or_default().to_vec();
        part.resize(length, 0);
        part
    }

    #[test]
    fn a_log_is_read_in_parts() {
        let bytes = log_bytes(7, 9);
        let mut reads = Vec::new();
        let log = read_log(4096, |offset, length| {
            reads.push((offset, length));
            Ok(part(&bytes, offset, length))
        })
        .unwrap();
        assert_eq!(log.genctr, 7);
        let ports: Vec<_> = log.records.iter().map(|r| r.portid.get()).collect();
        assert_eq!(ports, (0..9).collect::<Vec<_>>());
        let parts = [
            (0, 1024),
            (1024, 4096),
            (5120, 4096),
            (9216, 1024),
            (0, 1024),
        ];
        assert_eq!(reads, parts);
        let record = &document(&log)["records"][8];
        assert_eq!(record["trtype"], "tcp");
        assert_eq!(record["adrfam"], "ipv6");
        assert_eq!(record["subtype"], "discovery subsystem referral");
        assert_eq!(record["treq"], "required");
        assert_eq!(record["trsvcid"], "8009");
        assert_eq!(
            record["eflags"],
            "explicit discovery connections, duplicate discovery information"
        );
    }

    #[test]
    fn a_log_that_changes_is_read_again() {
        // The third read finds a log with one record less.
        let (old, new) = (log_bytes(7, 8), log_bytes(8, 7));
        let mut reads = 0;
        let log = read_log(4096, |offset, length| {
            reads += 1;
            let bytes = if reads < 3 { &old } else { &new };
            Ok(part(bytes, offset, length))
        })
        .unwrap();
        assert_eq!((log.genctr, log.records.len()), (8, 7));
        assert_eq!(reads, 4 + 4);
        let mut genctr = 0;
        let error = read_log(4096, |offset, length| {
            genctr += 1;
            Ok(part(&log_bytes(genctr, 2), offset, length))
        })
        .unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");
    }

    #[test]
    fn a_log_that_makes_no_sense_is_refused() {
        let mut huge = log_bytes(1, 0);
        huge[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut format = log_bytes(1, 1);
        format[16] = 1;
        for (bytes, part_of_error) in [(huge, "at most 16384"), (format, "record format 1")] {
            let error =
                read_log(4096, |offset, length| Ok(part(&bytes, offset, length))).unwrap_err();
            assert!(error.to_string().contains(part_of_error), "{error}");
        }
        let none = read_log(4096, |offset, length| {
            Ok(part(&log_bytes(3, 0), offset, length))
        });
        assert!(none.unwrap().records.is_empty());
    }
}
