//! What every connection has to keep to: commands are named once while they are outstanding, a queue holds no more than
//! its size, data moves as it was asked for. Host and target are both judged by it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use pollux_nvme_tcp::spec::cross_controller_reset::{
    IMMEDIATE_RESET_SUCCESSFUL, Impacted, LogEntry, LogHeader, ResetStatus, ccrf,
};
use pollux_nvme_tcp::spec::fabrics::property;
use pollux_nvme_tcp::spec::identify::{IdentifyController, cns};
use pollux_nvme_tcp::spec::log::lid;
use pollux_nvme_tcp::spec::opcode::{FABRICS, admin, nvm};
use pollux_nvme_tcp::spec::pdu::{PduType, flags};
use pollux_nvme_tcp::spec::registers::Cc;
use pollux_nvme_tcp::spec::sqe::Sqe;
use pollux_nvme_tcp::spec::status::Status;
use zerocopy::FromBytes;

use super::doubts::Change;
use super::frames::{Frames, Header, Place};

/// Data of a capsule that is of interest: Connect's host identifier and CNTLID, the first range of Dataset Management.
const CAPSULE_DATA: usize = 18;

/// Connect in a Fabrics command's field FCTYPE.
const CONNECT: u8 = 1;

/// Property Set, in the same place.
const PROPERTY_SET: u8 = 0;

/// Property Get, in the same place.
const PROPERTY_GET: u8 = 4;

/// Bytes of a command in its capsule, from the end of the common header on.
const SQE: Range<usize> = 8..72;

/// A command that was not answered yet.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub opcode: u8,
    /// Dword 10.
    pub dword10: u32,
    /// Dword 11.
    dword11: u32,
    nsid: u32,
    /// Blocks that it changes, if it does.
    changes: Option<(u64, u64)>,
    /// Whom it asks to be reset, if it does.
    impacted: Option<Impacted>,
    /// Bytes that the target has sent for it.
    received: u32,
}

impl Open {
    /// What a command changes that changes data.
    pub fn changes(&self) -> Option<Change> {
        let (at, count) = self.changes?;
        Some(Change::new(self.opcode, self.nsid, at, count))
    }
}

/// What has come to be known.
#[derive(Debug)]
pub enum News {
    /// Host identifier and CNTLID of an I/O queue.
    Joined(u16),
    /// The host ends the controller: nothing that it sends later keeps it alive.
    Ended,
    /// Who the controller is.
    Identified(Impacted),
    /// The host has sent a command that changes data.
    Changes(Change),
    /// The controller has told that it has reset another one.
    Reset(Impacted),
    /// The host has asked the controller for a sign of life.
    KeepAlive,
    /// The controller has given one.
    Alive,
    /// A command for this namespace was refused because of its ANA state.
    Shut(u32),
    /// The host has sent a command for this namespace.
    Sent(u32),
    /// The controller has told something of itself or of its namespaces.
    Told,
}

/// What is gathered of the data that is being received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gather {
    #[default]
    Nothing,
    Identify,
    ResetLog,
}

/// Data that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: u32,
    left: u32,
}

/// Whether a status, as it stands behind the phase bit, says that the ANA state does not let the command be executed.
fn is_ana(bits: u16) -> bool {
    let status = Status::new(
        u8::try_from(bits >> 8 & 7).unwrap_or(0),
        bits.to_le_bytes()[0],
    );
    status.is_ana()
}

/// One connection, as its host has it.
#[derive(Debug, Default)]
pub struct Monitor {
    sent: Frames,
    received: Frames,
    /// Largest number of commands that may be outstanding, once Connect has said it.
    room: Option<usize>,
    /// Identifier of the queue, once Connect has said it.
    pub qid: Option<u16>,
    /// Largest data of an H2CData PDU.
    data_max: u32,
    /// What the host is told instead of what the target says.
    pub told_data_max: Option<u32>,
    open: BTreeMap<u16, Open>,
    /// Host identifier, once Connect has said it.
    pub host: Option<u128>,
    /// What the capsule that is being sent has brought.
    capsule: Vec<u8>,
    gather: Gather,
    gathered: Vec<u8>,
    /// Resets that the controller was asked for and that have not ended.
    resets: Vec<Impacted>,
    /// What has come to be known, for whoever follows it.
    pub news: VecDeque<News>,
    asked: BTreeMap<(u16, u16), Asked>,
    /// Commands seen.
    pub commands: u64,
}

impl Monitor {
    /// The host has sent these bytes.
    ///
    /// # Errors
    /// What it must not do.
    pub fn sent(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        loop {
            // Of data, only the beginning of what a capsule brings is looked at.
            let is_seen = self.sent.header().kind() == PduType::CAPSULE_CMD
                && self.capsule.len() < CAPSULE_DATA;
            if !is_seen {
                rest = &rest[self.sent.skip(rest.len())..];
            }
            let Some((&byte, after)) = rest.split_first() else {
                break;
            };
            rest = after;
            let (place, complete) = self.sent.take(byte);
            if complete {
                let header = self.sent.header().clone();
                self.on_sent(&header)?;
            }
            if matches!(place, Place::Data(at) if at == self.capsule.len() && at < CAPSULE_DATA)
                && self.sent.header().kind() == PduType::CAPSULE_CMD
            {
                self.capsule.push(byte);
                self.on_capsule_data();
            }
        }
        Ok(())
    }

    /// The host is about to receive bytes that are data of no interest: how many at most `most`.
    pub fn skip(&mut self, most: usize) -> usize {
        match self.gather {
            Gather::Nothing => self.received.skip(most),
            Gather::Identify | Gather::ResetLog => 0,
        }
    }

    /// The host is about to receive this byte: where it is in its PDU.
    ///
    /// # Errors
    /// What the target must not do.
    pub fn received(&mut self, byte: u8) -> Result<Place, String> {
        let (place, complete) = self.received.take(byte);
        if complete {
            let header = self.received.header().clone();
            self.on_received(&header)?;
        }
        if let Place::Data(_) = place
            && self.gather != Gather::Nothing
        {
            self.gathered.push(byte);
            self.on_gathered();
        }
        Ok(place)
    }

    /// Commands that change data and were not answered.
    pub fn in_doubt(&self) -> impl Iterator<Item = Change> {
        self.open.values().filter_map(Open::changes)
    }

    /// Header of the PDU that is being received.
    pub fn header(&self) -> &Header {
        self.received.header()
    }

    /// The command of this name, if it is outstanding.
    pub fn command(&self, cid: u16) -> Option<&Open> {
        self.open.get(&cid)
    }

    /// Nothing is outstanding but a question for the controller's status.
    pub fn only_asks_for_status(&self) -> bool {
        let mut open = self.open.values();
        let asks = |c: &Open| {
            let what = (c.opcode, c.nsid.to_le_bytes()[0], c.dword11);
            what == (FABRICS, PROPERTY_GET, property::CSTS)
        };
        open.next().is_some_and(asks) && open.next().is_none()
    }

    fn on_sent(&mut self, header: &Header) -> Result<(), String> {
        match header.kind() {
            PduType::CAPSULE_CMD => self.on_command(header),
            PduType::H2C_DATA => self.on_host_data(header),
            _ => Ok(()),
        }
    }

    fn on_command(&mut self, header: &Header) -> Result<(), String> {
        let cid = header.u16(10);
        let mut open = Open {
            opcode: header.byte(8),
            dword10: header.u32(48),
            dword11: header.u32(52),
            nsid: header.u32(12),
            changes: None,
            impacted: None,
            received: 0,
        };
        self.commands += 1;
        self.capsule.clear();
        let is_io = self.qid.is_some_and(|qid| qid != 0) && open.opcode != FABRICS;
        match open.opcode {
            nvm::WRITE | nvm::WRITE_ZEROES if is_io => {
                let at = u64::from(open.dword10) | u64::from(header.u32(52)) << 32;
                open.changes = Some((at, u64::from(header.u16(56)) + 1));
            }
            FABRICS if header.byte(12) == PROPERTY_SET && header.u32(52) == property::CC => {
                let cc = Cc::from_bits(header.u32(56));
                if cc.shn() != Cc::SHN_NONE || !cc.en() {
                    self.news.push_back(News::Ended);
                }
            }
            admin::CROSS_CONTROLLER_RESET if self.qid == Some(0) => {
                let sqe = Sqe::read_from_bytes(header.bytes(SQE)).ok();
                open.impacted = sqe.map(|sqe| Impacted::from_sqe(&sqe));
                self.resets.extend(open.impacted);
            }
            _ => {}
        }
        if self.open.insert(cid, open).is_some() {
            return Err(format!("command identifier {cid} is used twice"));
        }
        self.news.extend(open.changes().map(News::Changes));
        if self.qid == Some(0) && open.opcode == admin::KEEP_ALIVE {
            self.news.push_back(News::KeepAlive);
        }
        if is_io {
            self.news.push_back(News::Sent(open.nsid));
        }
        if open.opcode == FABRICS && header.byte(12) == CONNECT {
            self.qid = Some(header.u16(50));
            // Zero-based: one entry of a queue stays free.
            self.room = Some(usize::from(header.u16(52)));
        }
        match self.room {
            Some(room) if self.open.len() > room.max(1) => Err(format!(
                "{} commands are outstanding on queue {:?} with room for {room}",
                self.open.len(),
                self.qid
            )),
            _ => Ok(()),
        }
    }

    /// A byte more of a command's data in its capsule.
    fn on_capsule_data(&mut self) {
        let header = self.sent.header();
        let (opcode, cid) = (header.byte(8), header.u16(10));
        let le = |bytes: &[u8]| {
            let bytes = bytes.iter().rev();
            bytes.fold(0, |value, &byte| value << 8 | u128::from(byte))
        };
        let u64_of = |bytes: &[u8]| u64::try_from(le(bytes)).unwrap_or(u64::MAX);
        match self.capsule.len() {
            16 if opcode == nvm::DATASET_MANAGEMENT && self.qid.is_some_and(|qid| qid != 0) => {
                let range = (u64_of(&self.capsule[8..]), u64_of(&self.capsule[4..8]));
                if let Some(open) = self.open.get_mut(&cid) {
                    open.changes = Some(range);
                    self.news.extend(open.changes().map(News::Changes));
                }
            }
            CAPSULE_DATA if opcode == FABRICS && header.byte(12) == CONNECT => {
                self.host = Some(le(&self.capsule[..16]));
                if self.qid.is_some_and(|qid| qid != 0) {
                    let cntlid = u16::from_le_bytes([self.capsule[16], self.capsule[17]]);
                    self.news.push_back(News::Joined(cntlid));
                }
            }
            _ => {}
        }
    }

    /// A byte more of what is gathered.
    fn on_gathered(&mut self) {
        const HEADER: usize = size_of::<LogHeader>();
        const ENTRY: usize = size_of::<LogEntry>();
        let data = &self.gathered;
        match self.gather {
            Gather::Identify if data.len() == size_of::<IdentifyController>() => {
                if let Ok(id) = IdentifyController::ref_from_bytes(data) {
                    self.news.push_back(News::Identified(Impacted {
                        icid: id.cntlid.get(),
                        ciu: id.ciu,
                        cirn: id.cirn.get(),
                    }));
                }
            }
            Gather::ResetLog
                if data.len() > HEADER && (data.len() - HEADER).is_multiple_of(ENTRY) =>
            {
                let count = LogHeader::ref_from_prefix(data).map_or(0, |(h, _)| h.ne.get());
                let number = (data.len() - HEADER) / ENTRY;
                let Ok(entry) = LogEntry::read_from_bytes(&data[data.len() - ENTRY..]) else {
                    return;
                };
                let is_done = entry.ccrs == ResetStatus::SUCCESSFUL
                    && entry.ccrf & ccrf::VALIDATED != 0
                    && number <= usize::from(count);
                let is_it = |i: &Impacted| (i.icid, i.ciu) == (entry.icid.get(), entry.ciu);
                if is_done && let Some(&reset) = self.resets.iter().find(|i| is_it(i)) {
                    self.news.push_back(News::Reset(reset));
                }
            }
            _ => {}
        }
    }

    fn on_host_data(&mut self, header: &Header) -> Result<(), String> {
        let (cid, tag) = (header.u16(8), header.u16(10));
        let (offset, len) = (header.u32(12), header.u32(16));
        let Some(asked) = self.asked.get_mut(&(cid, tag)) else {
            return Err(format!("data of command {cid} that no R2T {tag} asks for"));
        };
        if asked.at != offset || len > asked.left || len > self.data_max {
            return Err(format!(
                "{len} bytes at {offset} for command {cid} where {asked:?} was asked for, at most {}",
                self.data_max
            ));
        }
        asked.at += len;
        asked.left -= len;
        let is_last = header.flags() & flags::LAST_PDU != 0;
        if is_last != (asked.left == 0) {
            return Err(format!(
                "last data of command {cid} is not told from others"
            ));
        }
        if is_last {
            self.asked.remove(&(cid, tag));
        }
        Ok(())
    }

    fn on_received(&mut self, header: &Header) -> Result<(), String> {
        match header.kind() {
            PduType::ICRESP => self.data_max = self.told_data_max.unwrap_or(header.u32(12)),
            PduType::CAPSULE_RESP => {
                let cid = header.u16(20);
                let open = self.open.remove(&cid);
                let open = open.ok_or(format!("command {cid} is answered, which is not open"))?;
                if self.qid.is_some_and(|qid| qid != 0) && is_ana(header.u16(22) >> 1) {
                    self.news.push_back(News::Shut(open.nsid));
                }
                if self.qid == Some(0) && open.opcode == admin::KEEP_ALIVE {
                    self.news.push_back(News::Alive);
                }
                let is_done =
                    header.u16(22) >> 1 == 0 && header.u32(8) & IMMEDIATE_RESET_SUCCESSFUL != 0;
                if let Some(reset) = open.impacted.filter(|_| is_done) {
                    self.news.push_back(News::Reset(reset));
                }
                if self.asked.keys().any(|&(of, _)| of == cid) && header.u16(22) >> 1 == 0 {
                    return Err(format!("command {cid} succeeds without its data"));
                }
                self.asked.retain(|&(of, _), _| of != cid);
            }
            PduType::C2H_DATA => {
                let (cid, offset, len) = (header.u16(8), header.u32(12), header.u32(16));
                let open = self.open.get_mut(&cid);
                let open = open.ok_or(format!("data for command {cid}, which is not open"))?;
                if offset != open.received {
                    let expected = open.received;
                    return Err(format!("data of command {cid} at {offset}, not {expected}"));
                }
                open.received += len;
                if self.qid == Some(0) {
                    self.news.push_back(News::Told);
                }
                if offset == 0 {
                    self.gathered.clear();
                    self.gather = match (open.opcode, open.dword10 & 0xff) {
                        _ if self.qid != Some(0) => Gather::Nothing,
                        (admin::IDENTIFY, kind) if kind == u32::from(cns::CONTROLLER) => {
                            Gather::Identify
                        }
                        (admin::GET_LOG_PAGE, page)
                            if page == u32::from(lid::CROSS_CONTROLLER_RESET) =>
                        {
                            Gather::ResetLog
                        }
                        _ => Gather::Nothing,
                    };
                }
                if header.flags() & flags::SUCCESS != 0 {
                    self.open.remove(&cid);
                }
            }
            PduType::R2T => {
                let (cid, tag) = (header.u16(8), header.u16(10));
                let asked = Asked {
                    at: header.u32(12),
                    left: header.u32(16),
                };
                if !self.open.contains_key(&cid) {
                    return Err(format!("an R2T for command {cid}, which is not open"));
                }
                if self.asked.insert((cid, tag), asked).is_some() {
                    return Err(format!("R2T {tag} of command {cid} is used twice"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
