//! How a connection begins: initialize connection PDUs, then the Fabrics Connect command.

use std::fmt;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::auth::HostAuth;
use crate::host::request::{Command, Request, Transfer};
use crate::pdu::ProtocolError;
use crate::spec::fabrics::{CNTLID_DYNAMIC, ConnectData, cattr};
use crate::spec::nqn::Nqn;
use crate::spec::opcode;
use crate::spec::pdu::{
    DDGST_ENABLE, Fes, HDGST_ENABLE, Icreq, Icresp, MAX_PDA, MIN_MAXH2CDATA, PFV,
};
use crate::tls::HostTls;

/// R2Ts a controller may have outstanding per command (MAXR2T is this less one; NVMe/TCP 1.1, 3.6.2.2).
pub(super) const R2TS_MAX: u8 = 4;

/// Who the host is (NVMe Base 2.1, 4.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIdentity {
    /// Host NQN.
    pub nqn: Nqn,
    /// Host identifier, 16 bytes.
    pub id: Uuid,
}

impl HostIdentity {
    /// A new random identity with an NQN in the UUID form.
    pub fn random() -> Self {
        let id = Uuid::new_v4();
        Self {
            nqn: Nqn::from_uuid(id),
            id,
        }
    }
}

/// Which digests to ask for, or are in use (NVMe/TCP 1.1, 3.3.1). The peer may decline either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digests {
    /// CRC32C over each PDU header.
    pub header: bool,
    /// CRC32C over the data of each PDU.
    pub data: bool,
}

/// Everything one queue pair needs to connect.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Where the controller listens.
    pub remote: SocketAddr,
    /// Local address to connect from, if it matters.
    pub local: Option<IpAddr>,
    /// Subsystem to connect to.
    pub subnqn: Nqn,
    /// Who connects.
    pub host: HostIdentity,
    /// Queue identifier: 0 is the admin queue.
    pub queue_id: u16,
    /// Entries of the submission queue; one less command can be outstanding. 2 to 1024.
    pub queue_size: u16,
    /// Controller to connect to: FFFFh for an admin queue to a new one, else as Connect answered there.
    pub controller_id: u16,
    /// Keep-alive timeout in ms, admin queue only; 0 turns keep-alive off.
    pub keep_alive_ms: u32,
    /// Digests to ask for.
    pub digests: Digests,
    /// End the connection if the controller does not grant them.
    pub require_digests: bool,
    /// With what to authenticate if the controller wants that; a controller whose key is known has to in any case.
    pub auth: Option<HostAuth>,
    /// With what to make the connection secure; without it, it is not.
    pub tls: Option<HostTls>,
    /// Have the kernel encrypt what is secure, also by a key that an authentication has brought, where it can (kTLS). Where it
    /// cannot, the connection is encrypted in user space as without this, and the reason is logged once.
    pub ktls: bool,
    /// Ask for SQ flow control to be disabled, so that the controller may leave out the completion of
    /// reads that succeed.
    pub disable_sq_flow_control: bool,
    /// Most data bytes that may travel inside a command capsule.
    pub in_capsule_max: usize,
    /// Most data bytes of one command.
    pub transfer_max: usize,
    /// Bytes of the receive buffer.
    pub receive_buffer: usize,
    /// Keep the last entry of the queue for a probe: see [`QueuePair::probe`](super::QueuePair::probe).
    pub keep_probe_slot: bool,
    /// Time until the connection must be usable.
    pub timeout: Duration,
    /// Time until TCP must be connected, if that is to be less.
    pub tcp_timeout: Option<Duration>,
}

impl ConnectOptions {
    /// Options for an admin queue with the usual values: 32 entries, no keep-alive, no digests, 10 s.
    pub fn admin(remote: SocketAddr, subnqn: Nqn, host: HostIdentity) -> Self {
        Self {
            remote,
            local: None,
            subnqn,
            host,
            queue_id: 0,
            queue_size: 32,
            controller_id: CNTLID_DYNAMIC,
            keep_alive_ms: 0,
            digests: Digests::default(),
            require_digests: false,
            auth: None,
            tls: None,
            ktls: false,
            disable_sq_flow_control: true,
            // Every controller takes this much on its admin queue (NVMe/TCP 1.1, 3.4.1).
            in_capsule_max: 8192,
            transfer_max: 4096,
            receive_buffer: 64 * 1024,
            keep_probe_slot: false,
            timeout: Duration::from_secs(10),
            tcp_timeout: None,
        }
    }
}

impl fmt::Display for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.header, self.data) {
            (true, true) => "header and data digests",
            (true, false) => "header digests",
            (false, true) => "data digests",
            (false, false) => "no digests",
        })
    }
}

pub(super) fn icreq(digests: Digests) -> Icreq {
    let dgst =
        if digests.header { HDGST_ENABLE } else { 0 } | if digests.data { DDGST_ENABLE } else { 0 };
    let mut pdu = Icreq::new(0, dgst, u32::from(R2TS_MAX) - 1);
    pdu.ch.hlen = 128;
    pdu.ch.plen.set(128);
    pdu
}

/// What ICResp settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settled {
    pub digests: Digests,
    pub cpda: u8,
    pub max_h2c_data: usize,
}

/// Checks ICResp; an error is what the controller is told by H2CTermReq.
pub(super) fn settle(asked: Digests, answer: &Icresp) -> Result<Settled, ProtocolError> {
    // FEI of either status is the offset of the field.
    let unsupported = |field: usize, reason| ProtocolError {
        fes: Fes::UNSUPPORTED_PARAMETER,
        ..invalid(field, reason)
    };
    let digests = Digests {
        header: answer.dgst & HDGST_ENABLE != 0,
        data: answer.dgst & DDGST_ENABLE != 0,
    };
    if answer.pfv.get() != PFV {
        return Err(unsupported(offset_of!(Icresp, pfv), "PFV is not 0"));
    }
    if answer.cpda_z > MAX_PDA {
        return Err(invalid(offset_of!(Icresp, cpda_z), "CPDA is above 31"));
    }
    if answer.dgst & !(HDGST_ENABLE | DDGST_ENABLE) != 0 {
        return Err(invalid(
            offset_of!(Icresp, dgst),
            "DGST has reserved bits set",
        ));
    }
    if digests.header && !asked.header || digests.data && !asked.data {
        return Err(unsupported(
            offset_of!(Icresp, dgst),
            "a digest was enabled that was not asked for",
        ));
    }
    // Below 4,096 the specification forbids; dword granularity keeps H2CData PDUs aligned.
    let max = answer.maxh2cdata.get();
    if max < MIN_MAXH2CDATA || !max.is_multiple_of(4) {
        return Err(invalid(
            offset_of!(Icresp, maxh2cdata),
            "MAXH2CDATA is below 4096 or not a multiple of 4",
        ));
    }
    Ok(Settled {
        digests,
        cpda: answer.cpda_z,
        max_h2c_data: max as usize,
    })
}

/// A field of ICResp, by its offset, that has a value it must not have.
fn invalid(field: usize, reason: &'static str) -> ProtocolError {
    #[expect(clippy::cast_possible_truncation, reason = "ICResp is 128 bytes long")]
    let offset = field as u32;
    ProtocolError::field(offset, reason)
}

/// The Connect command with its 1024 bytes of data (NVMe-oF 1.1, 3.3; NVMe Base 2.1, 6.3).
pub(super) fn connect_request(options: &ConnectOptions) -> Request {
    let connect = ConnectData::new(
        *options.host.id.as_bytes(),
        options.controller_id,
        &options.subnqn,
        &options.host.nqn,
    );
    let data = connect.as_bytes().to_vec();
    let attributes = if options.disable_sq_flow_control {
        u32::from(cattr::DISABLE_SQ_FLOW_CONTROL)
    } else {
        0
    };
    let command = Command {
        opcode: opcode::FABRICS,
        nsid: u32::from(opcode::fctype::CONNECT),
        cdw: [
            u32::from(options.queue_id) << 16,
            u32::from(options.queue_size - 1) | attributes << 16,
            if options.queue_id == 0 {
                options.keep_alive_ms
            } else {
                0
            },
            0,
            0,
            0,
        ],
    };
    let length = data.len();
    Request::plain(command, Transfer::ToController, length, data)
}
