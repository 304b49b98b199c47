//! How a connection becomes a queue: ICReq (NVMe/TCP 1.1, 3.6.2.2) and Connect (NVMe Base 2.1, 6.3).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::offset_of;

use zerocopy::FromBytes;

use super::Turn;
use super::admin::host_data;
use super::connection::{Connection, End, MAXH2CDATA};
use super::controller::{
    AdminQueue, Controller, IO_QUEUES_MAX, IoQueueEntry, KeepAlive, QUEUE_ENTRIES_MAX,
};
use super::events::AsyncEvents;
use super::home::Home;
use super::message::{ControllerKey, IoMessage};
use crate::pdu::{Frame, ProtocolError};
use crate::spec::fabrics::{
    CNTLID_DYNAMIC, ConnectCommand, ConnectData, ConnectInvalidParameter, ConnectSuccess,
    SQHD_FLOW_CONTROL_DISABLED, cattr,
};
use crate::spec::nqn::Nqn;
use crate::spec::opcode::{FABRICS, fctype};
use crate::spec::pdu::{DDGST_ENABLE, Fes, HDGST_ENABLE, Icreq, Icresp, MAX_PDA, PFV};
use crate::spec::registers::{Cc, Csts};
use crate::spec::status::Status;
use crate::spec::{Cqe, Sqe};

/// An accepted Connect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connected {
    pub(super) key: ControllerKey,
    pub(super) cntlid: u16,
    /// 0: the admin queue.
    pub(super) qid: u16,
    pub(super) entries: u16,
    pub(super) flow_control: bool,
    /// Where an I/O queue is served.
    pub(super) reactor: usize,
}

/// Answers the ICReq at the start of the receive buffer.
pub(super) fn initialize(conn: &mut Connection, frame: &Frame) -> Result<(), End> {
    let Ok((request, _)) = Icreq::read_from_prefix(conn.rx.data()) else {
        return Ok(());
    };
    if request.pfv.get() != PFV {
        return Err(conn.fault(ProtocolError {
            fes: Fes::UNSUPPORTED_PARAMETER,
            fei: offset(offset_of!(Icreq, pfv)).into(),
            reason: "ICReq with an unknown PFV",
        }));
    }
    if request.hpda_z > MAX_PDA {
        return Err(conn.fault(ProtocolError::field(
            offset(offset_of!(Icreq, hpda_z)).into(),
            "HPDA is above 31",
        )));
    }
    conn.rx.consume(frame.total_len);
    let digests = request.dgst & (HDGST_ENABLE | DDGST_ENABLE);
    let framing = conn.out.framing;
    conn.out
        .tx
        .put(|out| framing.put_header(out, &Icresp::new(0, digests, MAXH2CDATA), 0));
    let (hdgst, ddgst) = (digests & HDGST_ENABLE != 0, digests & DDGST_ENABLE != 0);
    conn.rx_framing.hdgst = hdgst;
    conn.rx_framing.ddgst = ddgst;
    conn.rx_framing.initialized = true;
    conn.out.framing.hdgst = hdgst;
    conn.out.framing.ddgst = ddgst;
    conn.out.framing.pda = request.hpda_z;
    Ok(())
}

/// The completion of a Connect: status, and the CNTLID or what was wrong.
pub(super) fn connect_response(sqe: &Sqe, result: &Result<Connected, (Status, u32)>) -> Cqe {
    match result {
        Ok(connected) => Cqe {
            result: u64::from(
                ConnectSuccess::new()
                    .with_cntlid(connected.cntlid)
                    .into_bits(),
            )
            .into(),
            sqhd: if connected.flow_control {
                1
            } else {
                SQHD_FLOW_CONTROL_DISABLED
            }
            .into(),
            ..Cqe::new(sqe.cid.get(), Status::SUCCESS)
        },
        Err((status, dw0)) => Cqe {
            result: u64::from(*dw0).into(),
            ..Cqe::new(sqe.cid.get(), *status)
        },
    }
}

/// Offsets within the structures of this module are below 1,024.
fn offset(of: usize) -> u16 {
    u16::try_from(of).unwrap_or(0)
}

fn invalid_command(of: usize) -> (Status, u32) {
    (
        Status::CONNECT_INVALID_PARAMETERS.with_dnr(),
        ConnectInvalidParameter::of_command(offset(of)).into_bits(),
    )
}

fn invalid_data(of: usize) -> (Status, u32) {
    (
        Status::CONNECT_INVALID_PARAMETERS.with_dnr(),
        ConnectInvalidParameter::of_data(offset(of)).into_bits(),
    )
}

/// What a Connect asks for.
struct Wanted<'a> {
    conn: &'a Connection,
    data: &'a ConnectData,
    subnqn: Nqn,
    hostnqn: Nqn,
    entries: u16,
    flow_control: bool,
}

impl Home {
    /// Checks a Connect, and makes the controller or notes the I/O queue.
    pub(super) fn connect(
        &mut self,
        conn: &Connection,
        sqe: &Sqe,
        data: &[u8],
        turn: &mut Turn<'_, '_>,
    ) -> Result<Connected, (Status, u32)> {
        if sqe.opcode != FABRICS || sqe.fctype() != fctype::CONNECT {
            return Err((Status::COMMAND_SEQUENCE_ERROR.with_dnr(), 0));
        }
        let command = sqe.as_connect();
        if command.recfmt.get() != 0 {
            return Err((Status::CONNECT_INCOMPATIBLE_FORMAT.with_dnr(), 0));
        }
        let data = host_data(sqe, data).map_err(|status| (status, 0))?;
        let Ok(data) = ConnectData::ref_from_bytes(data) else {
            return Err((Status::DATA_SGL_LENGTH_INVALID.with_dnr(), 0));
        };
        let entries = command
            .sqsize_z
            .get()
            .checked_add(1)
            .filter(|n| (2..=QUEUE_ENTRIES_MAX).contains(n))
            .ok_or(invalid_command(offset_of!(ConnectCommand, sqsize_z)))?;
        let subnqn = data
            .subnqn()
            .map_err(|_| invalid_data(offset_of!(ConnectData, subnqn)))?;
        let hostnqn = data
            .hostnqn()
            .map_err(|_| invalid_data(offset_of!(ConnectData, hostnqn)))?;
        let wanted = Wanted {
            conn,
            data,
            subnqn,
            hostnqn,
            entries,
            flow_control: command.cattr & cattr::DISABLE_SQ_FLOW_CONTROL == 0,
        };
        match command.qid.get() {
            0 => self.connect_admin(wanted, command.kato.get(), turn),
            qid => self.connect_io(&wanted, qid, turn),
        }
    }

    fn connect_admin(
        &mut self,
        wanted: Wanted<'_>,
        kato_ms: u32,
        turn: &mut Turn<'_, '_>,
    ) -> Result<Connected, (Status, u32)> {
        if wanted.data.cntlid.get() != CNTLID_DYNAMIC {
            return Err(invalid_data(offset_of!(ConnectData, cntlid)));
        }
        let used: BTreeSet<u16> = self
            .controllers
            .values()
            .filter(|c| c.subnqn == wanted.subnqn)
            .map(|c| c.cntlid)
            .collect();
        let listener = wanted.conn.listener;
        let cntlid = if wanted.subnqn.is_discovery() {
            (1..=crate::spec::fabrics::CNTLID_MAX).find(|c| !used.contains(c))
        } else {
            let unknown = invalid_data(offset_of!(ConnectData, subnqn));
            let subsystem = self.subsystems.get_mut(&wanted.subnqn).ok_or(unknown)?;
            subsystem.listener(listener).ok_or(unknown)?;
            if !subsystem.allows(&wanted.hostnqn) {
                return Err((Status::CONNECT_INVALID_HOST.with_dnr(), 0));
            }
            subsystem.new_cntlid(&used)
        };
        let cntlid = cntlid.ok_or((Status::CONNECT_CONTROLLER_BUSY, 0))?;
        let key = ControllerKey(self.new_id());
        let now = turn.cx.now();
        let mut controller = Controller {
            key,
            cntlid,
            subnqn: wanted.subnqn,
            hostnqn: wanted.hostnqn,
            hostid: wanted.data.hostid,
            listener,
            local: wanted.conn.local,
            admin: AdminQueue {
                connection: wanted.conn.id,
                peer: wanted.conn.peer,
                digests: (wanted.conn.rx_framing.hdgst, wanted.conn.rx_framing.ddgst),
                entries: wanted.entries,
                flow_control: wanted.flow_control,
                sqhd: 1 % wanted.entries,
                commands: 1,
                failed: 0,
                answers: VecDeque::new(),
                pending: BTreeSet::new(),
            },
            io_queues: BTreeMap::new(),
            cc: Cc::new(),
            csts: Csts::new(),
            kato_ms,
            keep_alive: KeepAlive::default(),
            last_seen: now,
            created: now,
            events: AsyncEvents::new(),
            changed_namespaces: BTreeSet::new(),
            errors: VecDeque::new(),
            error_count: 0,
            host_behavior: vec![0; super::features::HOST_BEHAVIOR_LEN].into_boxed_slice(),
        };
        log::debug!(
            target: super::LOG_FLAG,
            "{}: controller {cntlid} of {} for host {}",
            controller.admin.peer, controller.subnqn, controller.hostnqn
        );
        Self::start_keep_alive(&mut controller, turn);
        self.open_views(&controller, turn);
        self.controllers.insert(key, controller);
        self.admin_qpairs += 1;
        Ok(Connected {
            key,
            cntlid,
            qid: 0,
            entries: wanted.entries,
            flow_control: wanted.flow_control,
            reactor: 0,
        })
    }

    /// Tells all reactors about a new controller and its namespaces.
    fn open_views(&self, controller: &Controller, turn: &mut Turn<'_, '_>) {
        let Some(subsystem) = self.subsystems.get(&controller.subnqn) else {
            return;
        };
        let key = controller.key;
        for reactor in 0..turn.links.reactors() {
            turn.links.send_io(reactor, IoMessage::Open { key });
            for &nsid in subsystem.namespaces.keys() {
                let view = subsystem.view(controller.listener, nsid);
                turn.links
                    .send_io(reactor, IoMessage::Namespace { key, nsid, view });
            }
        }
    }

    fn connect_io(
        &mut self,
        wanted: &Wanted<'_>,
        qid: u16,
        turn: &mut Turn<'_, '_>,
    ) -> Result<Connected, (Status, u32)> {
        let controller = self
            .controllers
            .values_mut()
            .find(|c| {
                c.cntlid == wanted.data.cntlid.get()
                    && c.subnqn == wanted.subnqn
                    && c.hostnqn == wanted.hostnqn
                    && c.hostid == wanted.data.hostid
                    && c.listener == wanted.conn.listener
            })
            .ok_or(invalid_data(offset_of!(ConnectData, cntlid)))?;
        if controller.is_discovery() || qid > IO_QUEUES_MAX {
            return Err(invalid_command(offset_of!(ConnectCommand, qid)));
        }
        if !controller.is_ready() || controller.io_queues.contains_key(&qid) {
            return Err((Status::COMMAND_SEQUENCE_ERROR.with_dnr(), 0));
        }
        let reactor = usize::from(qid - 1) % turn.links.reactors();
        controller.io_queues.insert(
            qid,
            IoQueueEntry {
                connection: wanted.conn.id,
                reactor,
            },
        );
        Ok(Connected {
            key: controller.key,
            cntlid: controller.cntlid,
            qid,
            entries: wanted.entries,
            flow_control: wanted.flow_control,
            reactor,
        })
    }
}
