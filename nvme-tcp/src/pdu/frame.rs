//! Framing of received PDUs.

use zerocopy::FromBytes;

use super::digest::header_digest;
use super::error::ProtocolError;
use crate::spec::pdu::{
    C2hData, CapsuleCmd, CapsuleResp, CommonHeader, DIGEST_LEN, Fes, H2cData, Icreq, Icresp,
    PduType, R2t, TermReq, flags,
};

/// Offsets of header fields, for FEI.
const FLAGS_OFFSET: u32 = 1;
const HLEN_OFFSET: u32 = 2;
const PDO_OFFSET: u32 = 3;
const PLEN_OFFSET: u32 = 4;
const DATAL_OFFSET: u32 = 16;

/// Who receives a PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The host: ICResp, C2HTermReq, CapsuleResp, C2HData, R2T.
    Host,
    /// The controller: ICReq, H2CTermReq, CapsuleCmd, H2CData.
    Controller,
}

/// How received bytes are to be read, as agreed by ICReq and ICResp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxFraming {
    /// Which side this is.
    pub receiver: Receiver,
    /// Header digests are on.
    pub hdgst: bool,
    /// Data digests are on.
    pub ddgst: bool,
    /// The alignment of data that this side asked for, in dwords minus one: HPDA of a host, CPDA of
    /// a controller.
    pub pda: u8,
    /// Largest PLEN to accept in a PDU with data, in bytes.
    pub max_plen: u32,
    /// ICReq and ICResp have been exchanged: from then on they may not come again, before it
    /// nothing else may.
    pub initialized: bool,
}

/// Where the parts of one PDU are, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// PDU-Type: one that this receiver may get.
    pub pdu_type: PduType,
    /// FLAGS: only bits that the type has.
    pub flags: u8,
    /// HLEN: the length of the type's header.
    pub header_len: usize,
    /// Start of the data; zero where there is none.
    pub data_offset: usize,
    /// Length of the data, without digest.
    pub data_len: usize,
    /// A data digest of 4 bytes follows the data.
    pub ddgst: bool,
    /// PLEN: length of the whole PDU.
    pub total_len: usize,
}

impl Frame {
    /// LAST_PDU is set.
    pub const fn is_last(&self) -> bool {
        self.flags & flags::LAST_PDU != 0
    }

    /// SUCCESS is set.
    pub const fn is_success(&self) -> bool {
        self.flags & flags::SUCCESS != 0
    }
}

/// Which data a type of PDU has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    Never,
    Optional,
    Always,
    /// The rest of a TermReq: not aligned, no digest, short.
    Offending,
}

/// What is fixed for a type of PDU.
#[derive(Clone, Copy)]
struct Shape {
    receiver: Receiver,
    /// May come only before, only after, or at any time of the exchange of ICReq and ICResp.
    phase: Phase,
    hlen: u8,
    /// Flags that are not reserved.
    flags: u8,
    data: Data,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Before,
    After,
    Any,
}

impl Shape {
    const fn new<H>(receiver: Receiver, phase: Phase, flags: u8, data: Data) -> Option<Self> {
        assert!(size_of::<H>() <= 128);
        #[expect(clippy::cast_possible_truncation, reason = "asserted above")]
        let hlen = size_of::<H>() as u8;
        Some(Self {
            receiver,
            phase,
            hlen,
            flags,
            data,
        })
    }
}

/// By PDU-Type.
static SHAPES: [Option<Shape>; 16] = {
    use Receiver::{Controller, Host};
    const DIGESTS: u8 = flags::HDGSTF | flags::DDGSTF;
    const H2C: u8 = DIGESTS | flags::LAST_PDU;
    const C2H: u8 = H2C | flags::SUCCESS;
    [
        Shape::new::<Icreq>(Controller, Phase::Before, 0, Data::Never),
        Shape::new::<Icresp>(Host, Phase::Before, 0, Data::Never),
        Shape::new::<TermReq>(Controller, Phase::Any, 0, Data::Offending),
        Shape::new::<TermReq>(Host, Phase::Any, 0, Data::Offending),
        Shape::new::<CapsuleCmd>(Controller, Phase::After, DIGESTS, Data::Optional),
        Shape::new::<CapsuleResp>(Host, Phase::After, flags::HDGSTF, Data::Never),
        Shape::new::<H2cData>(Controller, Phase::After, H2C, Data::Always),
        Shape::new::<C2hData>(Host, Phase::After, C2H, Data::Always),
        None,
        Shape::new::<R2t>(Host, Phase::After, flags::HDGSTF, Data::Never),
        None,
        None,
        None,
        None,
        None,
        None,
    ]
};

/// Where the parts of a PDU are, as its first 8 bytes tell it.
#[derive(Clone, Copy, Debug)]
struct Placed {
    frame: Frame,
    /// The header's digest follows it.
    hdgst: bool,
    /// The header has a DATAL.
    datal: bool,
}

/// How the PDU before began, and where its parts were. Under load most PDUs of a connection begin with the same 8 bytes:
/// their parts are at the same places, and nothing has to be checked anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before {
    first: [u8; size_of::<CommonHeader>()],
    placed: Option<Placed>,
}

impl RxFraming {
    /// Finds the PDU at the start of `bytes`.
    ///
    /// `Ok(None)`: more bytes are needed to tell, at least the header and its digest. The data need
    /// not be there yet. What can be seen to be wrong from the first 8 bytes is reported as soon as
    /// they are there.
    ///
    /// The data digest is left to the caller, who sees the data.
    ///
    /// # Errors
    /// The PDU breaks the protocol; the connection cannot go on.
    #[inline]
    pub fn frame(&self, bytes: &[u8]) -> Result<Option<Frame>, ProtocolError> {
        self.frame_after(&mut Before::default(), bytes)
    }

    /// As [`frame`](Self::frame), for one PDU after the other of a connection: `before` is its own, and at first the
    /// default. How it is framed does not change any more once it is initialized, nor may the caller change it then.
    ///
    /// # Errors
    /// As [`frame`](Self::frame).
    #[inline]
    pub fn frame_after(
        &self,
        before: &mut Before,
        bytes: &[u8],
    ) -> Result<Option<Frame>, ProtocolError> {
        let Some(first) = bytes.first_chunk() else {
            return Ok(None);
        };
        let placed = match before.placed {
            Some(placed) if before.first == *first => placed,
            _ => {
                let placed = self.place(first)?;
                if self.initialized {
                    *before = Before {
                        first: *first,
                        placed: Some(placed),
                    };
                }
                placed
            }
        };
        let Some((header, rest)) = bytes.split_at_checked(placed.frame.header_len) else {
            return Ok(None);
        };
        if placed.hdgst {
            let Some(received) = rest.first_chunk::<DIGEST_LEN>() else {
                return Ok(None);
            };
            if *received != header_digest(header) {
                return Err(ProtocolError {
                    fes: Fes::HEADER_DIGEST_ERROR,
                    fei: u32::from_le_bytes(*received),
                    reason: "header digest does not match",
                });
            }
        }
        if placed.datal {
            // H2CData and C2HData have DATAL at the same place.
            #[expect(
                clippy::expect_used,
                reason = "HLEN was checked to be that of the type"
            )]
            let datal = H2cData::ref_from_bytes(header)
                .expect("a data PDU's header")
                .datal
                .get();
            if datal as usize != placed.frame.data_len {
                return Err(ProtocolError::field(
                    DATAL_OFFSET,
                    "DATAL is not the length of the data",
                ));
            }
        }
        Ok(Some(placed.frame))
    }

    /// Checks the first 8 bytes of a PDU, and finds its parts.
    fn place(&self, first: &[u8; size_of::<CommonHeader>()]) -> Result<Placed, ProtocolError> {
        let ch: &CommonHeader = zerocopy::transmute_ref!(first);
        // Of several wrong fields the first is reported, so they are looked at in their order.
        let shape = self.shape(ch.pdu_type)?;
        // The digests this PDU has to have: those agreed, as far as its type takes them.
        let digests = shape.flags
            & ((u8::from(self.hdgst) * flags::HDGSTF) | (u8::from(self.ddgst) * flags::DDGSTF));
        let hlen = usize::from(shape.hlen);
        let head = hlen + usize::from(digests & flags::HDGSTF) * DIGEST_LEN;
        let plen = ch.plen.get() as usize;
        let expected = match shape.data {
            Data::Optional if plen == head => digests & flags::HDGSTF,
            // Too short for its header: whether there should be data cannot be told.
            Data::Optional if plen < head => digests & flags::HDGSTF | ch.flags & flags::DDGSTF,
            _ => digests,
        };
        check_flags(ch.flags, shape.flags, expected)?;
        if ch.hlen != shape.hlen {
            return Err(ProtocolError::field(
                HLEN_OFFSET,
                "HLEN is not that of the PDU type",
            ));
        }
        let mut frame = Frame {
            pdu_type: ch.pdu_type,
            flags: ch.flags,
            header_len: hlen,
            data_offset: 0,
            data_len: 0,
            ddgst: false,
            total_len: plen,
        };
        match shape.data {
            Data::Always => self.place_data(&mut frame, ch.pdo, head, digests)?,
            Data::Optional if frame.total_len != head => {
                self.place_data(&mut frame, ch.pdo, head, digests)?;
            }
            Data::Offending => place_offending(&mut frame)?,
            Data::Optional | Data::Never => {
                if frame.total_len != head {
                    return Err(ProtocolError::field(
                        PLEN_OFFSET,
                        "PLEN is not that of the PDU type",
                    ));
                }
            }
        }
        Ok(Placed {
            frame,
            hdgst: digests & flags::HDGSTF != 0,
            datal: shape.data == Data::Always,
        })
    }

    /// The shape of a type that this receiver may get now.
    fn shape(&self, pdu_type: PduType) -> Result<Shape, ProtocolError> {
        let shape = SHAPES.get(usize::from(pdu_type.0)).copied().flatten();
        let Some(shape) = shape.filter(|shape| shape.receiver == self.receiver) else {
            return Err(ProtocolError::field(
                0,
                "PDU type is unknown or not for this receiver",
            ));
        };
        match (shape.phase, self.initialized) {
            (Phase::Any, _) | (Phase::Before, false) | (Phase::After, true) => Ok(shape),
            (Phase::Before, true) => {
                Err(ProtocolError::sequence("connection is already initialized"))
            }
            (Phase::After, false) => {
                Err(ProtocolError::sequence("connection is not yet initialized"))
            }
        }
    }

    /// Fills in the place of the data; `head` is the length of header and header digest.
    fn place_data(
        &self,
        frame: &mut Frame,
        pdo: u8,
        head: usize,
        digests: u8,
    ) -> Result<(), ProtocolError> {
        if frame.total_len < head {
            return Err(ProtocolError::field(
                PLEN_OFFSET,
                "PLEN is less than the header",
            ));
        }
        let alignment = (u32::from(self.pda) + 1) * 4;
        let data_offset = usize::from(pdo);
        if data_offset < head || data_offset > frame.total_len {
            return Err(ProtocolError::field(PDO_OFFSET, "PDO is outside the PDU"));
        }
        if !u32::from(pdo).is_multiple_of(alignment) {
            return Err(ProtocolError::field(
                PDO_OFFSET,
                "PDO is not aligned as agreed",
            ));
        }
        if frame.total_len > self.max_plen as usize {
            return Err(match frame.pdu_type {
                // It is the data that is too long (MAXH2CDATA), not the header that is wrong.
                PduType::H2C_DATA => {
                    ProtocolError::new(Fes::LIMIT_EXCEEDED, "more data than MAXH2CDATA allows")
                }
                _ => ProtocolError::field(PLEN_OFFSET, "PLEN is above the limit"),
            });
        }
        let ddgst_len = usize::from(digests & flags::DDGSTF != 0) * DIGEST_LEN;
        let data_len = (frame.total_len - data_offset).saturating_sub(ddgst_len);
        if data_len == 0 {
            return Err(ProtocolError::field(
                PLEN_OFFSET,
                "PLEN leaves no room for data",
            ));
        }
        frame.data_offset = data_offset;
        frame.data_len = data_len;
        frame.ddgst = ddgst_len != 0;
        Ok(())
    }
}

/// Checks FLAGS: `allowed` are those of the type, `digests` those that this PDU has to have.
fn check_flags(found: u8, allowed: u8, digests: u8) -> Result<(), ProtocolError> {
    let reason = if found & !allowed != 0 {
        "reserved flag is set"
    } else if (found ^ digests) & flags::HDGSTF != 0 {
        "HDGSTF is not as agreed"
    } else if (found ^ digests) & flags::DDGSTF != 0 {
        "DDGSTF is not as agreed, or there is no data"
    } else if found & (flags::LAST_PDU | flags::SUCCESS) == flags::SUCCESS {
        "SUCCESS without LAST_PDU"
    } else {
        return Ok(());
    };
    Err(ProtocolError::field(FLAGS_OFFSET, reason))
}

/// Fills in the place of the offending header in a TermReq.
#[cold]
fn place_offending(frame: &mut Frame) -> Result<(), ProtocolError> {
    let Some(data_len) = frame
        .total_len
        .checked_sub(size_of::<TermReq>())
        .filter(|&len| len <= TermReq::MAX_DATA)
    else {
        return Err(ProtocolError::field(
            PLEN_OFFSET,
            "PLEN of a TermReq is not 24 to 152",
        ));
    };
    if data_len != 0 {
        frame.data_offset = size_of::<TermReq>();
        frame.data_len = data_len;
    }
    Ok(())
}
