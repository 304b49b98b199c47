//! What every connection has to keep to: commands are named once while they are outstanding, a queue holds no more than
//! its size, data moves as it was asked for. Host and target are both judged by it.

use std::collections::BTreeMap;

use pollux_nvme_tcp::spec::opcode::FABRICS;
use pollux_nvme_tcp::spec::pdu::{PduType, flags};

use super::frames::{Frames, Header, Place};

/// A command that was not answered yet.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    pub opcode: u8,
    /// Dword 10.
    pub dword10: u32,
    /// Bytes that the target has sent for it.
    received: u32,
}

/// Data that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: u32,
    left: u32,
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
    open: BTreeMap<u16, Open>,
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
        for &byte in bytes {
            let (_, complete) = self.sent.take(byte);
            if complete {
                let header = self.sent.header().clone();
                self.on_sent(&header)?;
            }
        }
        Ok(())
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
        Ok(place)
    }

    /// Header of the PDU that is being received.
    pub fn header(&self) -> &Header {
        self.received.header()
    }

    /// The command of this name, if it is outstanding.
    pub fn command(&self, cid: u16) -> Option<&Open> {
        self.open.get(&cid)
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
        let open = Open {
            opcode: header.byte(8),
            dword10: header.u32(48),
            received: 0,
        };
        self.commands += 1;
        if self.open.insert(cid, open).is_some() {
            return Err(format!("command identifier {cid} is used twice"));
        }
        if open.opcode == FABRICS && header.byte(12) == 1 {
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
            PduType::ICRESP => self.data_max = header.u32(12),
            PduType::CAPSULE_RESP => {
                let cid = header.u16(20);
                let open = self.open.remove(&cid);
                open.ok_or(format!("command {cid} is answered, which is not open"))?;
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
