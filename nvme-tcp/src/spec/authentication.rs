//! In-band authentication: Authentication Send and Receive (NVMe Base 2.1, 6.1 and 6.2) and the messages of DH-HMAC-CHAP that
//! they carry (8.3.5.5).
//!
//! [`Message::parse`] reads what a peer has sent, whatever it is; [`Message::emit`] writes. The length of a value is checked
//! against the bytes that are there, and nothing else: whether it fits the hash function and the DH group that were agreed on
//! is for who knows them.

use zerocopy::FromZeros;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::opcode::{FABRICS, fctype};
use super::sqe::{SglDescriptor, Sqe};

/// Security Protocol of both commands: NVMe.
pub const SECP_NVME: u8 = 0xE9;
/// Security Protocol Specific Field 0 and 1 of both commands.
pub const SPSP: u8 = 0x01;
/// AL of Authentication Receive commands, in bytes: room for every message.
pub const RECEIVE_LEN: u32 = 4096;
/// Longest message that a host sends, in bytes: a Reply with SHA-512 and ffdhe8192 is 1,168 long, a Negotiate with all 255
/// descriptors 16,328; nobody has more than a few protocols.
pub const SEND_MAX: usize = 4096;
/// Longest challenge and response, in bytes: those of SHA-512.
pub const HASH_LEN_MAX: usize = 64;

/// Authentication Send and Authentication Receive, 64 bytes; they differ in FCTYPE.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct AuthenticationCommand {
    /// Opcode: 7Fh.
    pub opcode: u8,
    /// PSDT in bits 7:6.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type: 05h sends, 06h receives.
    pub fctype: u8,
    /// Reserved.
    pub rsvd5: [u8; 19],
    /// SGL Entry 1.
    pub sgl: SglDescriptor,
    /// Reserved.
    pub rsvd40: u8,
    /// Security Protocol Specific Field 0: 01h.
    pub spsp0: u8,
    /// Security Protocol Specific Field 1: 01h.
    pub spsp1: u8,
    /// Security Protocol: E9h.
    pub secp: u8,
    /// Transfer Length or Allocation Length in bytes.
    pub length: U32,
    /// Reserved.
    pub rsvd48: [u8; 16],
}
assert_layout!(AuthenticationCommand, 64, fctype @ 4, sgl @ 24, spsp0 @ 41, secp @ 43, length @ 44);

impl AuthenticationCommand {
    /// Sends a message of `length` bytes, which are in the capsule.
    pub fn send(length: u32) -> Self {
        Self {
            fctype: fctype::AUTHENTICATION_SEND,
            sgl: SglDescriptor::in_capsule(0, length),
            ..Self::new(length)
        }
    }

    /// Asks for a message of at most `length` bytes.
    pub fn receive(length: u32) -> Self {
        Self {
            fctype: fctype::AUTHENTICATION_RECEIVE,
            sgl: SglDescriptor::transport(length),
            ..Self::new(length)
        }
    }

    fn new(length: u32) -> Self {
        Self {
            opcode: FABRICS,
            flags: Sqe::PSDT_SGL,
            spsp0: SPSP,
            spsp1: SPSP,
            secp: SECP_NVME,
            length: U32::new(length),
            ..Self::new_zeroed()
        }
    }

    /// Whether this is about the messages of this module, as the security protocol says.
    pub const fn is_nvme(&self) -> bool {
        self.secp == SECP_NVME && self.spsp0 == SPSP && self.spsp1 == SPSP
    }
}

/// AUTH_TYPE of messages that every protocol has.
const COMMON: u8 = 0x00;
/// AUTH_TYPE of messages of DH-HMAC-CHAP.
const DHCHAP: u8 = 0x01;
/// AUTH_ID of each message.
mod auth_id {
    pub(super) const NEGOTIATE: u8 = 0x00;
    pub(super) const CHALLENGE: u8 = 0x01;
    pub(super) const REPLY: u8 = 0x02;
    pub(super) const SUCCESS1: u8 = 0x03;
    pub(super) const SUCCESS2: u8 = 0x04;
    pub(super) const FAILURE2: u8 = 0xF0;
    pub(super) const FAILURE1: u8 = 0xF1;
}
/// AuthID of the descriptor of DH-HMAC-CHAP in a Negotiate.
const PROTOCOL_DHCHAP: u8 = 0x01;
/// Reason Code: Authentication failure, the only one.
const RC_FAILURE: u8 = 0x01;
/// SC_C: no secure channel is to come out of this.
pub const SC_C_NONE: u8 = 0x00;
/// SC_C: a new pre-shared key for TLS is to come out of this (NEWTLSPSK).
pub const SC_C_NEW_TLS_PSK: u8 = 0x02;
/// The same in place of a key that came out of an earlier one (REPLACETLSPSK). No controller here takes it: a new key is made by
/// connecting anew.
pub const SC_C_REPLACE_TLS_PSK: u8 = 0x03;

open_code! {
    /// Identifier of a hash function.
    HashId(u8) {
        /// SHA-256.
        SHA256 = 0x01, "sha256";
        /// SHA-384.
        SHA384 = 0x02, "sha384";
        /// SHA-512.
        SHA512 = 0x03, "sha512";
    }
}

open_code! {
    /// Identifier of a DH group.
    DhGroupId(u8) {
        /// None: a plain challenge and response.
        NULL = 0x00, "null";
        /// 2048 bits (RFC 7919).
        FFDHE2048 = 0x01, "ffdhe2048";
        /// 3072 bits.
        FFDHE3072 = 0x02, "ffdhe3072";
        /// 4096 bits.
        FFDHE4096 = 0x03, "ffdhe4096";
        /// 6144 bits.
        FFDHE6144 = 0x04, "ffdhe6144";
        /// 8192 bits.
        FFDHE8192 = 0x05, "ffdhe8192";
    }
}

open_code! {
    /// Reason Code Explanation of AUTH_Failure1 and AUTH_Failure2.
    Explanation(u8) {
        /// A response is wrong, or a key is missing: nobody is told which.
        AUTHENTICATION_FAILED = 0x01, "authentication failed";
        /// No protocol in common.
        PROTOCOL_NOT_USABLE = 0x02, "no authentication protocol in common";
        /// One side wants a secure channel, the other does not.
        CONCATENATION_MISMATCH = 0x03, "secure channel concatenation mismatch";
        /// No hash function in common.
        HASH_NOT_USABLE = 0x04, "no hash function in common";
        /// No DH group in common, or a value that is not in it.
        DH_GROUP_NOT_USABLE = 0x05, "no DH group in common";
        /// A field or a length is wrong.
        INCORRECT_PAYLOAD = 0x06, "incorrect payload";
        /// Not the message that is due.
        INCORRECT_MESSAGE = 0x07, "incorrect protocol message";
    }
}

/// Start of every message.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    auth_type: u8,
    auth_id: u8,
    rsvd2: [u8; 2],
    t_id: U16,
}
assert_layout!(Header, 6, t_id @ 4);

/// The rest of a Negotiate, before its descriptors.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct NegotiateHead {
    sc_c: u8,
    napd: u8,
}
assert_layout!(NegotiateHead, 2);

/// Descriptor of a protocol in a Negotiate.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Descriptor {
    auth_id: u8,
    rsvd1: u8,
    halen: u8,
    dhlen: u8,
    hashes: [u8; 30],
    groups: [u8; 30],
}
assert_layout!(Descriptor, 64, halen @ 2, hashes @ 4, groups @ 34);

/// The rest of a Challenge and of a Reply, before the values. `a` and `b` are HashID and DHgID of a Challenge, CVALID and
/// reserved of a Reply.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ValuesHead {
    hl: u8,
    rsvd7: u8,
    a: u8,
    b: u8,
    dhvlen: U16,
    seqnum: U32,
}
assert_layout!(ValuesHead, 10, a @ 2, dhvlen @ 4, seqnum @ 6);

/// The rest of a Success1 and, but for HL and RVALID, of a Success2.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SuccessHead {
    hl: u8,
    rsvd7: u8,
    rvalid: u8,
    rsvd9: [u8; 7],
}
assert_layout!(SuccessHead, 10, rvalid @ 2);

/// The rest of a Failure1 and of a Failure2.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FailureHead {
    rc: u8,
    rce: u8,
}
assert_layout!(FailureHead, 2);

/// A message of an authentication transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Transaction Identifier.
    pub t_id: u16,
    /// What is said.
    pub body: Body<'a>,
}

/// What a [`Message`] says. Values are as they travel; DH values are big-endian numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// AUTH_Negotiate, of the host.
    Negotiate {
        /// Secure Channel Concatenation, see [`SC_C_NONE`].
        sc_c: u8,
        /// Hash functions and DH groups of DH-HMAC-CHAP, one identifier a byte, the preferred first. `None`: the host offers
        /// other protocols only.
        offer: Option<Offer<'a>>,
    },
    /// DH-HMAC-CHAP_Challenge, of the controller.
    Challenge {
        /// The hash function that the controller has chosen.
        hash: HashId,
        /// The DH group that it has chosen.
        group: DhGroupId,
        /// Sequence Number S1.
        seqnum: u32,
        /// Challenge Value C1.
        challenge: &'a [u8],
        /// DH Value g^x, empty without DH.
        dh: &'a [u8],
    },
    /// DH-HMAC-CHAP_Reply, of the host.
    Reply {
        /// Response Value R1.
        response: &'a [u8],
        /// Challenge Value C2, if the controller is to authenticate itself.
        challenge: Option<&'a [u8]>,
        /// Sequence Number S2.
        seqnum: u32,
        /// DH Value g^y, empty without DH.
        dh: &'a [u8],
    },
    /// DH-HMAC-CHAP_Success1, of the controller.
    Success1 {
        /// HL, which is there without a response, too.
        hash_len: u8,
        /// Response Value R2, if there was a C2.
        response: Option<&'a [u8]>,
    },
    /// DH-HMAC-CHAP_Success2, of the host.
    Success2,
    /// AUTH_Failure1, of the controller.
    Failure1(Explanation),
    /// AUTH_Failure2, of the host.
    Failure2(Explanation),
}

/// What a host offers in a Negotiate: identifiers, the preferred first, at most 30 of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    /// [`HashId`]s.
    pub hashes: &'a [u8],
    /// [`DhGroupId`]s.
    pub groups: &'a [u8],
}

/// Takes the first `len` bytes off.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], Explanation> {
    let (taken, rest) = bytes
        .split_at_checked(len)
        .ok_or(Explanation::INCORRECT_PAYLOAD)?;
    *bytes = rest;
    Ok(taken)
}

/// Takes a structure off.
fn head<'a, T: FromBytes + KnownLayout + Immutable + Unaligned>(
    bytes: &mut &'a [u8],
) -> Result<&'a T, Explanation> {
    let (head, rest) = T::ref_from_prefix(bytes).map_err(|_| Explanation::INCORRECT_PAYLOAD)?;
    *bytes = rest;
    Ok(head)
}

/// A flag that is 0 or 1.
fn flag(byte: u8) -> Result<bool, Explanation> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Explanation::INCORRECT_PAYLOAD),
    }
}

impl<'a> Message<'a> {
    /// Reads a message. The T_ID of what cannot be read comes with the error, where it is there. Messages of a controller may
    /// be followed by anything: a host asks for more bytes than there are.
    ///
    /// # Errors
    /// What to say of a message that is too short or too long, or that nobody knows.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, (u16, Explanation)> {
        let header: &Header = head(&mut bytes).map_err(|e| (0, e))?;
        let t_id = header.t_id.get();
        let body = Body::parse(header.auth_type, header.auth_id, bytes).map_err(|e| (t_id, e))?;
        Ok(Self { t_id, body })
    }

    /// The bytes of the message.
    ///
    /// # Panics
    /// A value is longer than its length field can say, or an offer has more than 30 entries.
    pub fn emit(&self) -> Vec<u8> {
        let (auth_type, auth_id) = self.body.kind();
        let header = Header {
            auth_type,
            auth_id,
            rsvd2: [0; 2],
            t_id: U16::new(self.t_id),
        };
        let mut out = header.as_bytes().to_vec();
        self.body.emit(&mut out);
        out
    }
}

impl<'a> Body<'a> {
    /// The name in the specification, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Negotiate { .. } => "AUTH_Negotiate",
            Self::Challenge { .. } => "DH-HMAC-CHAP_Challenge",
            Self::Reply { .. } => "DH-HMAC-CHAP_Reply",
            Self::Success1 { .. } => "DH-HMAC-CHAP_Success1",
            Self::Success2 => "DH-HMAC-CHAP_Success2",
            Self::Failure1(_) => "AUTH_Failure1",
            Self::Failure2(_) => "AUTH_Failure2",
        }
    }

    const fn kind(&self) -> (u8, u8) {
        match self {
            Self::Negotiate { .. } => (COMMON, auth_id::NEGOTIATE),
            Self::Challenge { .. } => (DHCHAP, auth_id::CHALLENGE),
            Self::Reply { .. } => (DHCHAP, auth_id::REPLY),
            Self::Success1 { .. } => (DHCHAP, auth_id::SUCCESS1),
            Self::Success2 => (DHCHAP, auth_id::SUCCESS2),
            Self::Failure1(_) => (COMMON, auth_id::FAILURE1),
            Self::Failure2(_) => (COMMON, auth_id::FAILURE2),
        }
    }

    fn parse(auth_type: u8, id: u8, mut bytes: &'a [u8]) -> Result<Self, Explanation> {
        let rest = &mut bytes;
        let (body, trailing) = match (auth_type, id) {
            (COMMON, auth_id::NEGOTIATE) => (Self::negotiate(rest)?, false),
            (DHCHAP, auth_id::CHALLENGE) => {
                let head: &ValuesHead = head(rest)?;
                let challenge = take(rest, head.hl.into())?;
                let dh = take(rest, head.dhvlen.get().into())?;
                let body = Self::Challenge {
                    hash: HashId(head.a),
                    group: DhGroupId(head.b),
                    seqnum: head.seqnum.get(),
                    challenge,
                    dh,
                };
                (body, true)
            }
            (DHCHAP, auth_id::REPLY) => {
                let head: &ValuesHead = head(rest)?;
                let response = take(rest, head.hl.into())?;
                // The room for C2 is there in any case.
                let challenge = take(rest, head.hl.into())?;
                let dh = take(rest, head.dhvlen.get().into())?;
                let body = Self::Reply {
                    response,
                    challenge: flag(head.a)?.then_some(challenge),
                    seqnum: head.seqnum.get(),
                    dh,
                };
                (body, false)
            }
            (DHCHAP, auth_id::SUCCESS1) => {
                let head: &SuccessHead = head(rest)?;
                let response = match flag(head.rvalid)? {
                    true => Some(take(rest, head.hl.into())?),
                    false => None,
                };
                let hash_len = head.hl;
                (Self::Success1 { hash_len, response }, true)
            }
            (DHCHAP, auth_id::SUCCESS2) => {
                let _: &SuccessHead = head(rest)?;
                (Self::Success2, false)
            }
            (COMMON, auth_id::FAILURE1) => {
                let head: &FailureHead = head(rest)?;
                (Self::Failure1(Explanation(head.rce)), true)
            }
            (COMMON, auth_id::FAILURE2) => {
                let head: &FailureHead = head(rest)?;
                (Self::Failure2(Explanation(head.rce)), false)
            }
            _ => return Err(Explanation::INCORRECT_MESSAGE),
        };
        if !trailing && !bytes.is_empty() {
            return Err(Explanation::INCORRECT_PAYLOAD);
        }
        Ok(body)
    }

    fn negotiate(rest: &mut &'a [u8]) -> Result<Self, Explanation> {
        let &NegotiateHead { sc_c, napd } = head(rest)?;
        let mut offer = None;
        for _ in 0..napd {
            let descriptor: &Descriptor = head(rest)?;
            if descriptor.auth_id != PROTOCOL_DHCHAP || offer.is_some() {
                continue;
            }
            let (mut hashes, mut groups) = (&descriptor.hashes[..], &descriptor.groups[..]);
            offer = Some(Offer {
                hashes: take(&mut hashes, descriptor.halen.into())?,
                groups: take(&mut groups, descriptor.dhlen.into())?,
            });
        }
        Ok(Self::Negotiate { sc_c, offer })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        #[expect(
            clippy::expect_used,
            reason = "a hash or a list of identifiers is short"
        )]
        let byte = |len: usize| u8::try_from(len).expect("a length of one byte");
        #[expect(clippy::expect_used, reason = "the largest group has 1,024 bytes")]
        let word = |len: usize| U16::new(u16::try_from(len).expect("a DH value of 1,024 bytes"));
        match *self {
            Self::Negotiate { sc_c, offer } => {
                let napd = offer.is_some().into();
                out.extend_from_slice(NegotiateHead { sc_c, napd }.as_bytes());
                if let Some(offer) = offer {
                    let mut descriptor = Descriptor::new_zeroed();
                    descriptor.auth_id = PROTOCOL_DHCHAP;
                    descriptor.halen = byte(offer.hashes.len());
                    descriptor.dhlen = byte(offer.groups.len());
                    descriptor.hashes[..offer.hashes.len()].copy_from_slice(offer.hashes);
                    descriptor.groups[..offer.groups.len()].copy_from_slice(offer.groups);
                    out.extend_from_slice(descriptor.as_bytes());
                }
            }
            Self::Challenge {
                hash,
                group,
                seqnum,
                challenge,
                dh,
            } => {
                let head = ValuesHead {
                    hl: byte(challenge.len()),
                    rsvd7: 0,
                    a: hash.0,
                    b: group.0,
                    dhvlen: word(dh.len()),
                    seqnum: U32::new(seqnum),
                };
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(challenge);
                out.extend_from_slice(dh);
            }
            Self::Reply {
                response,
                challenge,
                seqnum,
                dh,
            } => {
                let head = ValuesHead {
                    hl: byte(response.len()),
                    rsvd7: 0,
                    a: challenge.is_some().into(),
                    b: 0,
                    dhvlen: word(dh.len()),
                    seqnum: U32::new(seqnum),
                };
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(response);
                let start = out.len();
                out.resize(start + response.len(), 0);
                if let Some(challenge) = challenge {
                    out[start..].copy_from_slice(challenge);
                }
                out.extend_from_slice(dh);
            }
            Self::Success1 { hash_len, response } => {
                let head = SuccessHead {
                    hl: hash_len,
                    rvalid: response.is_some().into(),
                    ..SuccessHead::new_zeroed()
                };
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(response.unwrap_or_default());
            }
            Self::Success2 => out.extend_from_slice(SuccessHead::new_zeroed().as_bytes()),
            Self::Failure1(Explanation(rce)) | Self::Failure2(Explanation(rce)) => {
                let rc = RC_FAILURE;
                out.extend_from_slice(FailureHead { rc, rce }.as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: [u8; 32] = [0xC1; 32];
    const R: [u8; 32] = [0xA1; 32];
    const DH: [u8; 8] = [0xD1; 8];

    fn bodies() -> [Body<'static>; 10] {
        let offer = Offer {
            hashes: &[3, 1],
            groups: &[5, 0],
        };
        [
            Body::Negotiate {
                sc_c: SC_C_NONE,
                offer: Some(offer),
            },
            Body::Negotiate {
                sc_c: 2,
                offer: None,
            },
            Body::Challenge {
                hash: HashId::SHA256,
                group: DhGroupId::FFDHE4096,
                seqnum: 0x0403_0201,
                challenge: &C,
                dh: &DH,
            },
            Body::Reply {
                response: &R,
                challenge: Some(&C),
                seqnum: 0x0403_0201,
                dh: &DH,
            },
            Body::Reply {
                response: &R,
                challenge: None,
                seqnum: 0,
                dh: &[],
            },
            Body::Success1 {
                hash_len: 32,
                response: Some(&R),
            },
            Body::Success1 {
                hash_len: 48,
                response: None,
            },
            Body::Success2,
            Body::Failure1(Explanation::HASH_NOT_USABLE),
            Body::Failure2(Explanation::AUTHENTICATION_FAILED),
        ]
    }

    fn bytes(body: Body<'_>) -> Vec<u8> {
        let t_id = 0x0B0A;
        Message { t_id, body }.emit()
    }

    /// Offsets as of the figures of Base 2.1, 8.3.5.5.
    #[test]
    fn fields_are_where_the_specification_has_them() {
        let bodies = bodies().map(bytes);
        let negotiate = &bodies[0];
        assert_eq!(negotiate.len(), 8 + 64);
        assert_eq!(negotiate[..8], [0, 0, 0, 0, 0x0A, 0x0B, 0, 1]);
        assert_eq!(negotiate[8..15], [1, 0, 2, 2, 3, 1, 0]);
        assert_eq!(negotiate[8 + 34..8 + 37], [5, 0, 0]);
        assert_eq!(bodies[1], [0, 0, 0, 0, 0x0A, 0x0B, 2, 0]);
        let challenge = &bodies[2];
        let head = [1, 1, 0, 0, 0x0A, 0x0B, 32, 0, 1, 3, 8, 0, 1, 2, 3, 4];
        assert_eq!(challenge[..16], head);
        assert_eq!((&challenge[16..48], &challenge[48..]), (&C[..], &DH[..]));
        let reply = &bodies[3];
        let head = [1, 2, 0, 0, 0x0A, 0x0B, 32, 0, 1, 0, 8, 0, 1, 2, 3, 4];
        assert_eq!(reply[..16], head);
        assert_eq!((&reply[16..48], &reply[48..80]), (&R[..], &C[..]));
        assert_eq!(reply[80..], DH);
        assert_eq!((bodies[4].len(), bodies[4][8]), (80, 0));
        let head = [1, 3, 0, 0, 0x0A, 0x0B, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!((&bodies[5][..16], &bodies[5][16..]), (&head[..], &R[..]));
        assert_eq!((bodies[6].len(), bodies[6][6], bodies[6][8]), (16, 48, 0));
        assert_eq!((bodies[7].len(), &bodies[7][..2]), (16, &[1, 4][..]));
        assert_eq!(bodies[8], [0, 0xF1, 0, 0, 0x0A, 0x0B, 1, 4]);
        assert_eq!(bodies[9], [0, 0xF0, 0, 0, 0x0A, 0x0B, 1, 1]);
    }

    #[test]
    fn what_is_written_is_read() {
        for body in bodies() {
            let bytes = bytes(body);
            let t_id = 0x0B0A;
            assert_eq!(Message::parse(&bytes), Ok(Message { t_id, body }));
        }
    }

    /// Cut anywhere, with any byte changed to any value, with something behind it: an explanation or a message, never more.
    #[test]
    fn hostile_bytes_are_explained() {
        for body in bodies() {
            let good = bytes(body);
            for len in 0..good.len() {
                let (t_id, explanation) = Message::parse(&good[..len]).unwrap_err();
                assert_eq!(explanation, Explanation::INCORRECT_PAYLOAD);
                assert_eq!(t_id, if len < 6 { 0 } else { 0x0B0A });
            }
            for at in 0..good.len() {
                for value in 0..=255 {
                    let mut bad = good.clone();
                    bad[at] = value;
                    let _ = Message::parse(&bad);
                }
            }
            let mut longer = good.clone();
            longer.push(0);
            let of_controller = matches!(
                body,
                Body::Challenge { .. } | Body::Success1 { .. } | Body::Failure1(_)
            );
            assert_eq!(Message::parse(&longer).is_ok(), of_controller, "{body:?}");
        }
    }

    #[test]
    fn lengths_that_lie_are_incorrect_payloads() {
        let [negotiate, _, challenge, reply, _, success1, ..] = bodies().map(bytes);
        for (mut message, at, value) in [
            (negotiate.clone(), 7, 2),
            (negotiate.clone(), 7, 255),
            (negotiate.clone(), 10, 31),
            (negotiate, 11, 255),
            (challenge.clone(), 6, 255),
            (challenge, 11, 255),
            (reply.clone(), 6, 255),
            (reply.clone(), 6, 31),
            (reply.clone(), 8, 2),
            (reply, 10, 9),
            (success1.clone(), 6, 33),
            (success1, 8, 0x81),
        ] {
            message[at] = value;
            let error = Message::parse(&message).unwrap_err();
            assert_eq!(error, (0x0B0A, Explanation::INCORRECT_PAYLOAD));
        }
        let unknown = [1, 5, 0, 0, 7, 0];
        let error = Message::parse(&unknown).unwrap_err();
        assert_eq!(error, (7, Explanation::INCORRECT_MESSAGE));
    }

    #[test]
    fn commands() {
        let send = AuthenticationCommand::send(72);
        let bytes = send.as_bytes();
        assert_eq!((bytes[0], bytes[4]), (0x7F, 0x05));
        assert_eq!(bytes[41..48], [1, 1, 0xE9, 72, 0, 0, 0]);
        assert!(send.is_nvme());
        let receive = AuthenticationCommand::receive(RECEIVE_LEN);
        assert_eq!(receive.as_bytes()[4], 0x06);
        assert_eq!(receive.sgl.kind, SglDescriptor::TRANSPORT);
        let other = AuthenticationCommand { secp: 0, ..send };
        assert!(!other.is_nvme());
    }
}
