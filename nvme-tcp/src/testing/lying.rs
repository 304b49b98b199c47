//! A controller behind an admin queue that answers as one with a single namespace would, unless it is told
//! to lie.

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::nqn;
use super::peer::Peer;
use super::wire::{Checked, Received};
use crate::spec::fabrics::property;
use crate::spec::features::{NumberOfQueues, fid};
use crate::spec::identify::{IdentifyController, IdentifyNamespace, LbaFormat, cns, ctrl};
use crate::spec::log::{AnaGroupDescriptor, AnaLogHeader, AnaState, event, lid};
use crate::spec::opcode::{FABRICS, admin, fctype};
use crate::spec::pdu::{CapsuleCmd, PduType};
use crate::spec::registers::{Cap, Csts, Vs};
use crate::spec::status::Status;
use crate::spec::{Cqe, Sqe};

/// What a command is answered with.
#[derive(Debug)]
pub enum Reply {
    /// Nothing, for now.
    Silence,
    /// The end of the connection.
    HangUp,
    /// A completion with this status.
    Status(Status),
    /// Success, with this result.
    Result(u64),
    /// Data, with zeroes up to the length that was asked for, and success.
    Data(Vec<u8>),
    /// No more than this data, and success.
    Short(Vec<u8>),
    /// These bytes as they are.
    Raw(Vec<u8>),
}

/// A lie: `None` for commands that are answered truly.
pub type Lie = Box<dyn FnMut(&Sqe) -> Option<Reply> + Send>;

/// Accepts the queue and answers commands until the host closes or sends anything else. Returns that.
pub fn serve(mut peer: Peer, mut lie: Lie) -> Checked<Received> {
    peer.accept_queue(0)?;
    loop {
        let received = peer.wire.receive()?;
        let Received::Pdu(bytes) = &received else {
            return Ok(received);
        };
        if received.pdu_type() != Some(PduType::CAPSULE_CMD) {
            return Ok(received);
        }
        let (capsule, _) = CapsuleCmd::read_from_prefix(bytes).map_err(|e| e.to_string())?;
        let sqe = capsule.sqe;
        let cid = sqe.cid.get();
        let asked_for = usize::try_from(sqe.sgl.length.get()).unwrap_or(0);
        match lie(&sqe).unwrap_or_else(|| truth(&sqe)) {
            Reply::Silence => {}
            Reply::HangUp => return Ok(Received::End),
            Reply::Status(status) => peer.complete(cid, Cqe::new(cid, status))?,
            Reply::Result(result) => {
                let cqe = Cqe {
                    result: result.into(),
                    ..Cqe::default()
                };
                peer.complete(cid, cqe)?;
            }
            Reply::Data(mut data) => {
                data.resize(asked_for, 0);
                peer.data(cid, &data)?;
                peer.complete(cid, Cqe::default())?;
            }
            Reply::Short(data) => {
                peer.data(cid, &data)?;
                peer.complete(cid, Cqe::default())?;
            }
            Reply::Raw(bytes) => peer.wire.send(&bytes)?,
        }
    }
}

/// Controller properties: 128 entries a queue, ready within 7.5 s.
pub fn cap() -> Cap {
    Cap::new()
        .with_mqes_z(127)
        .with_to(15)
        .with_css(Cap::CSS_NVM)
}

/// Identify Controller data: controller 0, 32 namespaces, ANA, 8 KiB in-capsule.
pub fn identify_controller() -> Box<IdentifyController> {
    let mut id = IdentifyController::new_box_zeroed().unwrap();
    id.mdts = 5;
    let nqn = nqn();
    let name = nqn.as_str().as_bytes();
    id.subnqn[..name.len()].copy_from_slice(name);
    id.cmic = ctrl::CMIC_ANA_REPORTING;
    id.oaes = (event::ENABLE_ANA | event::ENABLE_NAMESPACE).into();
    id.aerl_z = 3;
    id.kas = 1.into();
    id.cntrltype = ctrl::CNTRLTYPE_IO;
    id.nn = 32.into();
    id.anatt = 10;
    id.anagrpmax = 4.into();
    id.nanagrpid = 4.into();
    id.ioccsz = 516.into();
    id
}

/// Identify Namespace data: 2,048 blocks of 512 bytes.
pub fn identify_namespace() -> Box<IdentifyNamespace> {
    let mut id = IdentifyNamespace::new_box_zeroed().unwrap();
    id.nsze = 2048.into();
    id.ncap = 2048.into();
    id.anagrpid = 1.into();
    id.lbaf[0] = LbaFormat {
        lbads: 9,
        ..LbaFormat::default()
    };
    id
}

/// An ANA log with these groups: identifier, state, namespaces.
pub fn ana_log(groups: &[(u32, AnaState, &[u32])]) -> Vec<u8> {
    let mut header = AnaLogHeader::new_zeroed();
    header.chgcnt = 1.into();
    header.ngrps = u16::try_from(groups.len()).unwrap().into();
    let mut log = header.as_bytes().to_vec();
    for (id, state, nsids) in groups {
        let count = u32::try_from(nsids.len()).unwrap();
        let descriptor = AnaGroupDescriptor::new(*id, count, 1, *state);
        log.extend_from_slice(descriptor.as_bytes());
        for nsid in *nsids {
            log.extend_from_slice(&nsid.to_le_bytes());
        }
    }
    log
}

/// Namespace identifiers as in an Active Namespace ID list.
pub fn nsids(list: impl IntoIterator<Item = u32>) -> Vec<u8> {
    list.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// CNS of an Identify command, LID of a Get Log Page, FID of a Set Features, offset of a Property command.
pub fn selector(sqe: &Sqe) -> u32 {
    match sqe.opcode {
        FABRICS => sqe.as_property_get().ofst.get(),
        _ => sqe.cdw10.get() & 0xff,
    }
}

/// Whether this is a Property Get.
pub fn is_property_get(sqe: &Sqe) -> bool {
    sqe.opcode == FABRICS && sqe.fctype() == fctype::PROPERTY_GET
}

fn truth(sqe: &Sqe) -> Reply {
    let selector = selector(sqe);
    let low = u8::try_from(selector).unwrap_or(u8::MAX);
    match sqe.opcode {
        FABRICS if is_property_get(sqe) => Reply::Result(match selector {
            property::CAP => cap().into_bits(),
            property::VS => Vs::V1_4.into_bits().into(),
            property::CSTS => Csts::new().with_rdy(true).into_bits().into(),
            _ => 0,
        }),
        admin::IDENTIFY => Reply::Data(match low {
            cns::CONTROLLER => identify_controller().as_bytes().to_vec(),
            cns::ACTIVE_NAMESPACE_LIST => nsids([1]),
            cns::NAMESPACE => identify_namespace().as_bytes().to_vec(),
            _ => Vec::new(),
        }),
        admin::GET_LOG_PAGE if low == lid::ANA => {
            Reply::Data(ana_log(&[(1, AnaState::OPTIMIZED, &[1])]))
        }
        admin::GET_LOG_PAGE => Reply::Data(Vec::new()),
        admin::SET_FEATURES if low == fid::NUMBER_OF_QUEUES => {
            Reply::Result(NumberOfQueues::of(4).into_bits().into())
        }
        admin::ASYNC_EVENT_REQUEST => Reply::Silence,
        _ => Reply::Result(0),
    }
}
