//! Follows the PDUs of one direction of a connection, whatever pieces they come in.

use std::ops::Range;

use pollux_nvme_tcp::spec::pdu::PduType;

/// The longest PDU header there is (ICReq, ICResp).
const HEADER_MAX: usize = 128;

/// A PDU's header: all of it, or what has come so far.
#[derive(Clone, Debug)]
pub struct Header {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

impl Header {
    pub fn kind(&self) -> PduType {
        PduType(self.bytes[0])
    }

    pub fn flags(&self) -> u8 {
        self.bytes[1]
    }

    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    pub fn bytes(&self, at: Range<usize>) -> &[u8] {
        &self.bytes[at]
    }

    pub fn byte(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    fn hlen(&self) -> usize {
        usize::from(self.bytes[2]).clamp(8, HEADER_MAX)
    }

    fn data_offset(&self) -> usize {
        usize::from(self.bytes[3])
    }

    fn plen(&self) -> usize {
        (self.u32(4) as usize).max(self.hlen())
    }
}

/// Where a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This byte of the header.
    Header(usize),
    /// This byte of the data, or of its digest.
    Data(usize),
    /// Digest of the header, or padding.
    Between,
}

/// Follows one direction.
#[derive(Clone, Debug)]
pub struct Frames {
    header: Header,
    at: usize,
}

impl Default for Frames {
    fn default() -> Self {
        let bytes = [0; HEADER_MAX];
        Frames {
            header: Header { bytes, len: 0 },
            at: 0,
        }
    }
}

impl Frames {
    /// The header of the PDU that the last byte belongs to.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Passes over bytes behind a header, none of which anybody looks at: how many of these there are at most `most`.
    pub fn skip(&mut self, most: usize) -> usize {
        if self.at < 8 || self.at < self.header.hlen() {
            return 0;
        }
        let plen = self.header.plen();
        let count = most.min(plen - self.at);
        self.at += count;
        if self.at == plen {
            self.at = 0;
        }
        count
    }

    /// Takes the next byte: where it is, and whether it completes the header.
    pub fn take(&mut self, byte: u8) -> (Place, bool) {
        let at = self.at;
        if at == 0 {
            self.header.len = 0;
        }
        self.at += 1;
        let in_header = at < 8 || at < self.header.hlen();
        if in_header {
            self.header.bytes[at] = byte;
            self.header.len = at + 1;
        }
        let complete = in_header && at + 1 >= 8 && at + 1 == self.header.hlen();
        let place = match self.header.data_offset() {
            _ if in_header => Place::Header(at),
            offset if offset != 0 && at >= offset => Place::Data(at - offset),
            _ => Place::Between,
        };
        if self.at >= 8 && self.at >= self.header.plen() {
            self.at = 0;
        }
        (place, complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_are_followed() {
        // H2CData with a header digest, 4 bytes of padding and 8 bytes of data; then a CapsuleResp.
        let mut bytes = vec![6, 1, 24, 32, 40, 0, 0, 0];
        bytes.extend([7; 16]);
        bytes.extend([9; 8]);
        bytes.extend([5; 8]);
        bytes.extend([5, 0, 24, 0, 24, 0, 0, 0]);
        bytes.extend([3; 16]);
        let mut frames = Frames::default();
        let mut headers = Vec::new();
        let mut data = 0;
        for &byte in &bytes {
            let (place, complete) = frames.take(byte);
            if complete {
                headers.push((frames.header().kind(), frames.header().byte(23)));
            }
            data += usize::from(matches!(place, Place::Data(_)));
        }
        assert_eq!(
            headers,
            [(PduType::H2C_DATA, 7), (PduType::CAPSULE_RESP, 3)]
        );
        assert_eq!(data, 8);
        assert_eq!(frames.at, 0);
        for &byte in &bytes[..24] {
            assert_eq!(frames.skip(100), 0);
            frames.take(byte);
        }
        assert_eq!(frames.skip(5), 5);
        assert_eq!(frames.take(0).0, Place::Between);
        assert_eq!(frames.skip(100), 10);
        assert_eq!(frames.at, 0);
    }
}
