//! A controller: one host's association with a subsystem, as the home reactor keeps it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use pollux_reactor::{Time, TimerId};
use zerocopy::FromZeros;

use crate::auth::Agreed;
use crate::spec::cross_controller_reset::Impacted;
use crate::spec::fabrics::property;
use crate::spec::log::ErrorLogEntry;
use crate::spec::nqn::{HostNqn, Nqn};
use crate::spec::registers::{Cap, Cc, Csts, Vs};
use crate::spec::status::Status;
use crate::spec::{Cqe, Sqe};
use crate::target::admin::events::AsyncEvents;
use crate::target::admin::reset_log::ResetLog;
use crate::target::conn::connection::Outgoing;
use crate::target::io::ControllerKey;
use crate::tls::HostPsk;

/// Version of the specification that controllers report.
pub(in crate::target) const VERSION: Vs = Vs::V1_4;
/// Entries of the largest queue (CAP.MQES).
pub(in crate::target) const QUEUE_ENTRIES_MAX: u16 = 1024;
/// I/O queues of a controller.
pub(in crate::target) const IO_QUEUES_MAX: u16 = 128;
/// Abort commands that a host may have outstanding.
pub(in crate::target) const ABORTS_MAX: u8 = 4;
/// Entries of the Error Information log.
pub(in crate::target) const ERROR_LOG_ENTRIES: u8 = 64;
/// Granularity of the keep-alive timeout in units of 100 ms.
pub(in crate::target) const KAS: u16 = 10;
/// Time added to a keep-alive timeout that has passed; less if a lease is over before.
pub(in crate::target) const KEEP_ALIVE_GRACE: Duration = Duration::from_secs(1);

fn keep_alive_timeout(kato_ms: u32) -> Option<Duration> {
    let step = u64::from(KAS) * 100;
    (kato_ms > 0).then(|| Duration::from_millis(u64::from(kato_ms).div_ceil(step) * step))
}

/// For how long after its last Keep Alive the target serves a host with this keep-alive timeout, where it promises this
/// CQT. `None`: without an end.
pub fn lease_time(kato_ms: u32, cqt: Duration) -> Option<Duration> {
    let timeout = keep_alive_timeout(kato_ms).filter(|_| !cqt.is_zero())?;
    Some(timeout + (cqt / 4).min(KEEP_ALIVE_GRACE))
}

/// Most data in one C2HData PDU on an admin queue.
const ADMIN_CHUNK: usize = 64 * 1024;

/// An answer on the admin queue, with what of its data is sent.
#[derive(Debug)]
pub(in crate::target) struct Answer {
    pub(in crate::target) cqe: Cqe,
    pub(in crate::target) data: Vec<u8>,
    pub(in crate::target) sent: usize,
}

/// The admin queue.
#[derive(Debug)]
pub(in crate::target) struct AdminQueue {
    /// The connection that carries it.
    pub(in crate::target) connection: u64,
    pub(in crate::target) peer: SocketAddr,
    /// Header and data digests are in use.
    pub(in crate::target) digests: (bool, bool),
    /// It comes by TLS.
    pub(in crate::target) secure: bool,
    /// The kernel encrypts it.
    pub(in crate::target) ktls: bool,
    /// What the host has authenticated with.
    pub(in crate::target) auth: Option<Agreed>,
    pub(in crate::target) entries: u16,
    pub(in crate::target) flow_control: bool,
    pub(in crate::target) sqhd: u16,
    pub(in crate::target) commands: u64,
    pub(in crate::target) failed: u64,
    /// What is to be sent.
    pub(in crate::target) answers: VecDeque<Answer>,
    /// Commands whose answer needs something from another reactor.
    pub(in crate::target) pending: BTreeSet<u16>,
}

/// An I/O queue, as home knows it.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct IoQueueEntry {
    pub(in crate::target) connection: u64,
    /// What the host has authenticated with on it.
    pub(in crate::target) auth: Option<Agreed>,
    pub(in crate::target) reactor: usize,
}

/// Where the keep-alive timer stands.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct KeepAlive {
    /// When the timer was started anew.
    pub(in crate::target) since: Time,
    pub(in crate::target) timer: Option<TimerId>,
    /// The timeout has passed; what arrives until the timer fires again still counts. Without that a host
    /// would be dropped after every stall of our own, with its command waiting in the socket.
    pub(in crate::target) in_grace: bool,
}

/// What Identify Controller tells the host and the controller then has to keep for as long as it exists, whatever is
/// configured meanwhile.
#[derive(Debug, Clone, Copy)]
pub(in crate::target) struct Promised {
    /// MDTS: most data of one command in bytes.
    pub(in crate::target) transfer_max: u32,
    /// Bits of ONCS of commands that it does without.
    pub(in crate::target) masked_oncs: u16,
    /// CQT in ms. Zero: none, and the controller resets no other one.
    pub(in crate::target) cqt_ms: u16,
}

impl Promised {
    /// The controller resets others of its host (Cross-Controller Reset).
    pub(in crate::target) fn resets_others(self) -> bool {
        self.cqt_ms > 0
    }

    pub(in crate::target) fn cqt(self) -> Duration {
        Duration::from_millis(self.cqt_ms.into())
    }
}

/// A controller.
#[derive(Debug)]
pub(in crate::target) struct Controller {
    pub(in crate::target) key: ControllerKey,
    pub(in crate::target) cntlid: u16,
    /// Its name for a Cross-Controller Reset, which another controller of the host is asked for.
    pub(in crate::target) instance: Impacted,
    /// Resets of others that it was asked for.
    pub(in crate::target) resets: ResetLog,
    pub(in crate::target) subnqn: Nqn,
    pub(in crate::target) hostnqn: HostNqn,
    pub(in crate::target) hostid: [u8; 16],
    pub(in crate::target) listener: SocketAddr,
    pub(in crate::target) promised: Promised,
    /// Our address of the admin connection.
    pub(in crate::target) local: SocketAddr,
    pub(in crate::target) admin: AdminQueue,
    /// The key for TLS of all of its queues, if it has come out of an authentication.
    pub(in crate::target) generated: Option<HostPsk>,
    pub(in crate::target) io_queues: BTreeMap<u16, IoQueueEntry>,
    pub(in crate::target) cc: Cc,
    pub(in crate::target) csts: Csts,
    /// Keep-alive timeout; zero: none.
    pub(in crate::target) kato_ms: u32,
    pub(in crate::target) keep_alive: KeepAlive,
    /// When the last admin command came.
    pub(in crate::target) last_seen: Time,
    pub(in crate::target) created: Time,
    pub(in crate::target) events: AsyncEvents,
    /// Namespaces that changed since the log was last read.
    pub(in crate::target) changed_namespaces: BTreeSet<u32>,
    /// The latest first.
    pub(in crate::target) errors: VecDeque<ErrorLogEntry>,
    pub(in crate::target) error_count: u64,
    /// Host Behavior Support, as the host set it.
    pub(in crate::target) host_behavior: Box<[u8]>,
}

/// What a Property Set wants done beyond the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::target) enum Transition {
    None,
    /// CC.EN went to 0, or a shutdown: queues and outstanding events are to go.
    Stop,
}

impl Controller {
    pub(in crate::target) fn is_discovery(&self) -> bool {
        self.subnqn.is_discovery()
    }

    /// CAP (NVMe Base 2.1, 3.1.4.1).
    pub(in crate::target) fn cap(&self) -> Cap {
        let css = if self.is_discovery() {
            Cap::CSS_NVM
        } else {
            Cap::CSS_NVM | Cap::CSS_IOCS
        };
        Cap::new()
            .with_mqes_z(QUEUE_ENTRIES_MAX - 1)
            .with_to(15)
            .with_css(css)
    }

    /// The value of a property.
    pub(in crate::target) fn property(&self, offset: u32, size: u8) -> Result<u64, Status> {
        let four = size & property::SIZE_MASK == property::SIZE_4;
        let eight = size & property::SIZE_MASK == property::SIZE_8;
        match offset {
            property::CAP if eight => Ok(self.cap().into_bits()),
            property::VS if four => Ok(VERSION.into_bits().into()),
            property::CC if four => Ok(self.cc.into_bits().into()),
            property::CSTS if four => Ok(self.csts.into_bits().into()),
            _ => Err(Status::INVALID_FIELD.with_dnr()),
        }
    }

    /// Sets a property; only CC can be (NVMe Base 2.1, 3.1.4.5).
    pub(in crate::target) fn set_property(
        &mut self,
        offset: u32,
        size: u8,
        value: u64,
    ) -> Result<Transition, Status> {
        if offset != property::CC || size & property::SIZE_MASK != property::SIZE_4 {
            return Err(Status::INVALID_FIELD.with_dnr());
        }
        // The upper half is reserved for a property of 4 bytes.
        let [a, b, c, d, ..] = value.to_le_bytes();
        let new = Cc::from_bits(u32::from_le_bytes([a, b, c, d]));
        let old = self.cc;
        self.cc = new;
        if new.en() && !old.en() {
            self.enable();
        }
        let mut transition = Transition::None;
        if !new.en() && old.en() {
            self.csts = Csts::new();
            transition = Transition::Stop;
        }
        if new.shn() != Cc::SHN_NONE && old.shn() == Cc::SHN_NONE {
            self.csts = self.csts.with_shst(Csts::SHST_COMPLETE);
            transition = Transition::Stop;
        }
        if new.shn() == Cc::SHN_NONE && old.shn() != Cc::SHN_NONE {
            self.csts = self.csts.with_shst(Csts::SHST_NORMAL);
        }
        Ok(transition)
    }

    /// CC.EN went to 1: ready if the rest of CC is something that we have.
    fn enable(&mut self) {
        let cc = self.cc;
        let css = match cc.css() {
            Cc::CSS_NVM => true,
            Cc::CSS_IOCS => !self.is_discovery(),
            _ => false,
        };
        // Entry sizes are required by the time I/O queues are made; a discovery controller has none.
        let sizes = self.is_discovery() || (cc.iosqes() == 6 && cc.iocqes() == 4);
        if css && sizes && cc.mps() == 0 && cc.ams() == 0 {
            self.csts = Csts::new().with_rdy(true);
        } else {
            self.csts = Csts::new().with_cfs(true);
        }
    }

    pub(in crate::target) fn is_ready(&self) -> bool {
        self.csts.rdy()
    }

    /// How long the host may stay silent: KATO in steps of KAS. `None`: forever.
    pub(in crate::target) fn keep_alive_timeout(&self) -> Option<Duration> {
        keep_alive_timeout(self.kato_ms)
    }

    /// Until when reactors may serve it without another Keep Alive, where a CQT is promised; see
    /// [`keep_alive`](crate::target::control::keep_alive).
    pub(in crate::target) fn lease(&self) -> Time {
        match lease_time(self.kato_ms, self.promised.cqt()) {
            Some(time) => self.keep_alive.since + time,
            None => Time::MAX,
        }
    }

    /// Whether the host has as many commands outstanding as the admin queue has entries.
    pub(in crate::target) fn is_admin_queue_full(&self) -> bool {
        let outstanding =
            self.events.outstanding() + self.admin.pending.len() + self.admin.answers.len();
        outstanding >= usize::from(self.admin.entries)
    }

    /// Notes a failed command in the Error Information log.
    pub(in crate::target) fn log_error(&mut self, sqid: u16, sqe: &Sqe, status: Status) {
        self.error_count += 1;
        let mut entry = ErrorLogEntry::new_zeroed();
        entry.error_count = self.error_count.into();
        entry.sqid = sqid.into();
        entry.cid = sqe.cid;
        entry.status = status.to_cqe();
        entry.nsid = sqe.nsid;
        entry.opc = sqe.opcode;
        entry.trtype = crate::spec::log::discovery::TRTYPE_TCP;
        self.errors.truncate(usize::from(ERROR_LOG_ENTRIES) - 1);
        self.errors.push_front(entry);
    }

    /// Counts a command that has come on the admin queue.
    pub(in crate::target) fn note_command(&mut self, now: Time) {
        self.last_seen = now;
        self.admin.commands += 1;
        self.admin.sqhd = (self.admin.sqhd + 1) % self.admin.entries;
    }

    /// Queues an answer.
    pub(in crate::target) fn answer(
        &mut self,
        cid: u16,
        status: Status,
        result: u64,
        data: Vec<u8>,
    ) {
        if !status.is_success() {
            self.admin.failed += 1;
        }
        let cqe = Cqe {
            result: result.into(),
            sqhd: if self.admin.flow_control {
                self.admin.sqhd
            } else {
                0
            }
            .into(),
            ..Cqe::new(cid, status)
        };
        self.admin.answers.push_back(Answer { cqe, data, sent: 0 });
    }

    /// Queues answers to be sent, as far as there is room. Returns whether that was all.
    pub(in crate::target) fn put_answers(&mut self, out: &mut Outgoing) -> bool {
        while let Some(answer) = self.admin.answers.front_mut() {
            let left = answer.data.len() - answer.sent;
            let n = left.min(ADMIN_CHUNK);
            if !out.has_room_for(n) {
                return false;
            }
            if n > 0 {
                let data = &answer.data[answer.sent..answer.sent + n];
                out.put_data(answer.cqe.cid.get(), answer.sent, data, n == left);
                answer.sent += n;
            }
            if n == left {
                out.complete(answer.cqe);
                self.admin.answers.pop_front();
            }
        }
        true
    }

    /// Answers outstanding event requests with events that wait. Returns whether there were any.
    pub(in crate::target) fn deliver_events(&mut self) -> bool {
        let mut any = false;
        while let Some((cid, event)) = self.events.next() {
            self.answer(cid, Status::SUCCESS, event.into_bits().into(), Vec::new());
            any = true;
        }
        any
    }
}
