//! How a connection becomes a queue: ICReq (NVMe/TCP 1.1, 3.6.2.2) and Connect (NVMe Base 2.1, 6.3).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::offset_of;

use zerocopy::FromBytes;

use crate::pdu::{Frame, ProtocolError};
use crate::spec::fabrics::{
    CNTLID_DYNAMIC, ConnectCommand, ConnectData, ConnectInvalidParameter, ConnectSuccess,
    SQHD_FLOW_CONTROL_DISABLED, cattr,
};
use crate::spec::nqn::{HostNqn, Nqn};
use crate::spec::opcode::{FABRICS, fctype};
use crate::spec::pdu::{DDGST_ENABLE, Fes, HDGST_ENABLE, Icreq, Icresp, MAX_PDA, PFV};
use crate::spec::registers::{Cc, Csts};
use crate::spec::status::Status;
use crate::spec::{Cqe, Sqe};
use crate::target::admin::command::host_data;
use crate::target::admin::controller::{
    AdminQueue, Controller, IO_QUEUES_MAX, IoQueueEntry, KeepAlive, QUEUE_ENTRIES_MAX,
};
use crate::target::admin::events::AsyncEvents;
use crate::target::admin::reset_log::ResetLog;
use crate::target::conn::connection::{Connection, End, MAXH2CDATA};
use crate::target::control::Home;
use crate::target::control::HomeTurn;
use crate::target::control::quiesce;
use crate::target::io::ControllerKey;
use crate::target::io::channels::Owner;
use crate::target::io::message::IoMessage;
use crate::tls::Session;

/// An accepted Connect.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct Connected {
    pub(in crate::target) key: ControllerKey,
    pub(in crate::target) cntlid: u16,
    /// 0: the admin queue.
    pub(in crate::target) qid: u16,
    pub(in crate::target) entries: u16,
    pub(in crate::target) flow_control: bool,
    /// Where an I/O queue is served.
    pub(in crate::target) reactor: usize,
    /// The host has to authenticate first.
    pub(in crate::target) authenticate: bool,
}

/// Answers the ICReq at the start of the receive buffer.
pub(in crate::target) fn initialize(conn: &mut Connection, frame: &Frame) -> Result<(), End> {
    #[expect(
        clippy::expect_used,
        reason = "an ICReq is all header, and framing waits for the header"
    )]
    let (request, _) = Icreq::read_from_prefix(conn.rx.data()).expect("a whole ICReq");
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

/// Why a Connect was refused.
#[derive(Debug)]
pub(in crate::target) struct Refusal {
    status: Status,
    /// Dword 0 of the response: for some statuses, the place of what is wrong.
    dw0: u32,
    /// For the log.
    reason: Cow<'static, str>,
}

impl Refusal {
    pub(in crate::target) fn new(status: Status, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            dw0: 0,
            reason: reason.into(),
        }
    }

    /// A field of the command is wrong.
    fn of_command(of: usize, reason: impl Into<Cow<'static, str>>) -> Self {
        let dw0 = ConnectInvalidParameter::of_command(offset(of)).into_bits();
        let status = Status::CONNECT_INVALID_PARAMETERS.with_dnr();
        Self {
            dw0,
            ..Self::new(status, reason)
        }
    }

    /// A field of the data is wrong.
    fn of_data(of: usize, reason: impl Into<Cow<'static, str>>) -> Self {
        let dw0 = ConnectInvalidParameter::of_data(offset(of)).into_bits();
        let status = Status::CONNECT_INVALID_PARAMETERS.with_dnr();
        Self {
            dw0,
            ..Self::new(status, reason)
        }
    }

    /// A line for the log about the Connect with this data.
    #[cold]
    pub(in crate::target) fn describe(&self, data: &[u8]) -> String {
        let (reason, status) = (&self.reason, self.status);
        match ConnectData::ref_from_bytes(data) {
            Ok(data) => format!(
                "Connect of host '{}' to subsystem '{}' refused: {reason} ({status})",
                legible(&data.hostnqn),
                legible(&data.subnqn),
            ),
            Err(_) => format!("Connect refused: {reason} ({status})"),
        }
    }
}

/// A field with a name, which may be anything, as it can be shown.
fn legible(field: &[u8; Nqn::FIELD_LEN]) -> String {
    let name = field.split(|&b| b == 0).next().unwrap_or_default();
    let name = name.get(..Nqn::MAX_LEN).unwrap_or(name);
    String::from_utf8_lossy(name).escape_debug().to_string()
}

/// The completion of a Connect: status, and the CNTLID or what was wrong.
pub(in crate::target) fn connect_response(sqe: &Sqe, result: &Result<Connected, Refusal>) -> Cqe {
    match result {
        Ok(connected) => Cqe {
            result: u64::from(
                ConnectSuccess::new()
                    .with_cntlid(connected.cntlid)
                    .with_atr(connected.authenticate)
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
        Err(refusal) => Cqe {
            result: u64::from(refusal.dw0).into(),
            ..Cqe::new(sqe.cid.get(), refusal.status)
        },
    }
}

/// The offset of a field, which is below 1,024 in the structures of this module.
fn offset(of: usize) -> u16 {
    #[expect(clippy::expect_used, reason = "no structure is longer")]
    u16::try_from(of).expect("an offset within 1,024 bytes")
}

/// What a Connect asks for.
struct Wanted<'a> {
    conn: &'a Connection,
    data: &'a ConnectData,
    subnqn: Nqn,
    hostnqn: HostNqn,
    entries: u16,
    flow_control: bool,
}

impl Wanted<'_> {
    /// What has made the connection secure, if it is.
    fn session(&self) -> Option<&Session> {
        self.conn.session.as_ref().filter(|s| s.is_open())
    }
}

impl Home {
    /// Checks a Connect, and makes the controller or notes the I/O queue.
    pub(in crate::target) fn connect(
        &mut self,
        conn: &Connection,
        sqe: &Sqe,
        data: &[u8],
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<Connected, Refusal> {
        if sqe.opcode != FABRICS || sqe.fctype() != fctype::CONNECT {
            return Err(Refusal::new(
                Status::COMMAND_SEQUENCE_ERROR.with_dnr(),
                format!("the first command is opcode {:02X}h", sqe.opcode),
            ));
        }
        let command = sqe.as_connect();
        if command.recfmt.get() != 0 {
            return Err(Refusal::new(
                Status::CONNECT_INCOMPATIBLE_FORMAT.with_dnr(),
                format!("RECFMT {}: 0 is allowed", command.recfmt.get()),
            ));
        }
        let data = host_data(sqe, data)
            .map_err(|status| Refusal::new(status, "the SGL does not describe the data"))?;
        let Ok(data) = ConnectData::ref_from_bytes(data) else {
            return Err(Refusal::new(
                Status::DATA_SGL_LENGTH_INVALID.with_dnr(),
                format!("{} bytes of data: 1024 are expected", data.len()),
            ));
        };
        let entries = command
            .sqsize_z
            .get()
            .checked_add(1)
            .filter(|n| (2..=QUEUE_ENTRIES_MAX).contains(n))
            .ok_or_else(|| {
                let sqsize = command.sqsize_z.get();
                let reason = format!("SQSIZE {sqsize}: 1 to {} is allowed", QUEUE_ENTRIES_MAX - 1);
                Refusal::of_command(offset_of!(ConnectCommand, sqsize_z), reason)
            })?;
        let subnqn = data.subnqn().map_err(|e| {
            Refusal::of_data(offset_of!(ConnectData, subnqn), format!("SUBNQN: {e}"))
        })?;
        let hostnqn = data.hostnqn().map_err(|e| {
            Refusal::of_data(offset_of!(ConnectData, hostnqn), format!("HOSTNQN: {e}"))
        })?;
        let wanted = Wanted {
            conn,
            data,
            subnqn,
            hostnqn,
            entries,
            flow_control: command.cattr & cattr::DISABLE_SQ_FLOW_CONTROL == 0,
        };
        self.check_security(&wanted)?;
        match command.qid.get() {
            0 => self.connect_admin(wanted, command.kato.get(), turn),
            qid => self.connect_io(&wanted, qid, turn),
        }
    }

    /// A host that has a key for TLS comes by it, and by no other way; and who came by TLS is who its key says.
    fn check_security(&self, wanted: &Wanted<'_>) -> Result<(), Refusal> {
        let subsystem = self.config.subsystems.get(&wanted.subnqn);
        let access = subsystem.and_then(|s| s.hosts.get(&wanted.hostnqn));
        let psk = access.and_then(|access| access.psk.as_ref());
        let (subnqn, hostnqn) = (&wanted.subnqn, &wanted.hostnqn);
        let reason = match (wanted.session(), psk) {
            (None, None) => return Ok(()),
            (None, Some(_)) => "the host has a key for TLS, and this listener is not secure",
            (Some(session), Some(psk)) if session.used(psk) => return Ok(()),
            (Some(session), _) if self.is_generated(session, subnqn, hostnqn) => return Ok(()),
            (Some(session), None)
                if subnqn.is_discovery() && self.may_discover(session, hostnqn) =>
            {
                return Ok(());
            }
            (Some(_), _) => "the key of its TLS is another host's or for another subsystem",
        };
        Err(Refusal::new(
            Status::CONNECT_INVALID_HOST.with_dnr(),
            reason,
        ))
    }

    /// Whether the connection uses the key that this host has at some subsystem, for discovery.
    fn may_discover(&self, session: &Session, hostnqn: &HostNqn) -> bool {
        let subsystems = self.config.subsystems.values();
        let mut psks = subsystems.filter_map(|s| s.hosts.get(hostnqn)?.psk.as_ref());
        psks.any(|psk| session.used_for_discovery(psk))
    }

    fn connect_admin(
        &mut self,
        wanted: Wanted<'_>,
        kato_ms: u32,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<Connected, Refusal> {
        if wanted.data.cntlid.get() != CNTLID_DYNAMIC {
            return Err(Refusal::of_data(
                offset_of!(ConnectData, cntlid),
                format!(
                    "CNTLID {:X}h of an admin queue: FFFFh is allowed",
                    wanted.data.cntlid.get()
                ),
            ));
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
            let unknown = |reason| Refusal::of_data(offset_of!(ConnectData, subnqn), reason);
            let subsystem = self
                .config
                .subsystems
                .get_mut(&wanted.subnqn)
                .ok_or_else(|| unknown("there is no such subsystem"))?;
            subsystem
                .listener(listener)
                .ok_or_else(|| unknown("the subsystem has no listener at this address"))?;
            if !subsystem.allows(&wanted.hostnqn) {
                return Err(Refusal::new(
                    Status::CONNECT_INVALID_HOST.with_dnr(),
                    "the host is not on the subsystem's list",
                ));
            }
            let is_twin = |c: &Controller| {
                c.subnqn == wanted.subnqn
                    && c.hostnqn == wanted.hostnqn
                    && c.hostid == wanted.data.hostid
                    && c.listener == listener
            };
            if !self.config.duplicate_hosts && self.controllers.values().any(is_twin) {
                return Err(Refusal::new(
                    Status::CONNECT_CONTROLLER_BUSY,
                    "the host has a controller of the subsystem by this listener, and dup_host_policy is restrict_per_listener",
                ));
            }
            subsystem.new_cntlid(&used)
        };
        let cntlid = cntlid.ok_or_else(|| {
            Refusal::new(
                Status::CONNECT_CONTROLLER_BUSY,
                "all controller identifiers are in use",
            )
        })?;
        let claimed = wanted.session().and_then(|session| self.claim(session));
        let keys = self.keys_of(&wanted.subnqn, &wanted.hostnqn);
        let authenticate = keys.is_some() && claimed.is_none();
        let (generated, agreed) = claimed.unzip();
        let key = ControllerKey(self.new_id());
        let now = turn.cx.now();
        let instance = quiesce::first_instance(cntlid, turn.cx.rng());
        let controller = Controller {
            key,
            cntlid,
            instance,
            resets: ResetLog::default(),
            subnqn: wanted.subnqn,
            hostnqn: wanted.hostnqn,
            hostid: wanted.data.hostid,
            listener,
            promised: self.config.promised,
            local: wanted.conn.local,
            admin: AdminQueue {
                connection: wanted.conn.id,
                peer: wanted.conn.peer,
                digests: (wanted.conn.rx_framing.hdgst, wanted.conn.rx_framing.ddgst),
                secure: wanted.conn.is_secure(),
                ktls: wanted.conn.is_ktls(),
                auth: agreed,
                entries: wanted.entries,
                flow_control: wanted.flow_control,
                sqhd: 1 % wanted.entries,
                commands: 1,
                failed: 0,
                answers: VecDeque::new(),
                pending: BTreeSet::new(),
            },
            generated,
            io_queues: BTreeMap::new(),
            cc: Cc::new(),
            csts: Csts::new(),
            kato_ms,
            keep_alive: KeepAlive {
                since: now,
                timer: None,
                in_grace: false,
            },
            last_seen: now,
            created: now,
            events: AsyncEvents::new(),
            changed_namespaces: BTreeSet::new(),
            errors: VecDeque::new(),
            error_count: 0,
            host_behavior: vec![0; crate::target::admin::features::HOST_BEHAVIOR_LEN]
                .into_boxed_slice(),
        };
        log::debug!(
            target: crate::target::LOG_FLAG,
            "{}: controller {cntlid} of {} for host {}",
            controller.admin.peer, controller.subnqn, controller.hostnqn
        );
        self.open_views(&controller, turn);
        self.controllers.insert(key, controller);
        self.start_keep_alive(key, turn);
        self.admin_qpairs += 1;
        Ok(Connected {
            key,
            cntlid,
            qid: 0,
            entries: wanted.entries,
            flow_control: wanted.flow_control,
            reactor: 0,
            authenticate,
        })
    }

    /// Tells all reactors about a new controller and its namespaces.
    fn open_views(&self, controller: &Controller, turn: &mut HomeTurn<'_, '_>) {
        if controller.is_discovery() {
            return;
        }
        #[expect(
            clippy::expect_used,
            reason = "a subsystem is deleted after its controllers"
        )]
        let subsystem = self
            .config
            .subsystems
            .get(&controller.subnqn)
            .expect("the subsystem of a controller");
        let key = controller.key;
        for reactor in 0..turn.links.reactors() {
            turn.links.send_io(
                reactor,
                IoMessage::Open {
                    key,
                    host: (controller.hostnqn.clone(), controller.hostid),
                    owner: Owner {
                        subsystem: controller.subnqn.clone(),
                        listener: controller.listener,
                        host: controller.hostnqn.clone(),
                    },
                },
            );
            for (nsid, _) in subsystem.seen_by(&controller.hostnqn) {
                let view = subsystem.view(controller, nsid);
                turn.links
                    .send_io(reactor, IoMessage::Namespace { key, nsid, view });
            }
        }
    }

    fn connect_io(
        &mut self,
        wanted: &Wanted<'_>,
        qid: u16,
        turn: &mut HomeTurn<'_, '_>,
    ) -> Result<Connected, Refusal> {
        let has_keys = self.keys_of(&wanted.subnqn, &wanted.hostnqn).is_some();
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
            .ok_or_else(|| {
                let cntlid = wanted.data.cntlid.get();
                let reason = format!("this host has no controller {cntlid} of the subsystem here");
                Refusal::of_data(offset_of!(ConnectData, cntlid), reason)
            })?;
        let authenticate = match &controller.generated {
            None => has_keys,
            Some(psk) if wanted.session().is_some_and(|s| s.used(psk)) => false,
            Some(_) => {
                let reason =
                    "the controller's queues come by TLS with the key of its authentication";
                return Err(Refusal::new(
                    Status::CONNECT_INVALID_HOST.with_dnr(),
                    reason,
                ));
            }
        };
        if controller.is_discovery() || qid > IO_QUEUES_MAX {
            let max = match controller.is_discovery() {
                true => 0,
                false => IO_QUEUES_MAX,
            };
            return Err(Refusal::of_command(
                offset_of!(ConnectCommand, qid),
                format!("QID {qid}: at most {max} is allowed"),
            ));
        }
        if !controller.is_ready() || controller.io_queues.contains_key(&qid) {
            let reason = match controller.is_ready() {
                true => format!("QID {qid} is in use"),
                false => "the controller is not enabled".into(),
            };
            return Err(Refusal::new(
                Status::COMMAND_SEQUENCE_ERROR.with_dnr(),
                reason,
            ));
        }
        let reactor = usize::from(qid - 1) % turn.links.reactors();
        controller.io_queues.insert(
            qid,
            IoQueueEntry {
                connection: wanted.conn.id,
                auth: controller
                    .admin
                    .auth
                    .filter(|_| controller.generated.is_some()),
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
            authenticate,
        })
    }
}
