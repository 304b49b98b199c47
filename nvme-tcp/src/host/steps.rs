//! The steps by which a controller is brought up, read again and shut down: what each one sends, and what
//! follows from its answer (NVMe Base 2.1, 3.5).

use std::collections::{BTreeMap, VecDeque};

use super::admin::AdminCommand;
use super::ana_log::AnaLog;
use super::controller::{Controller, ControllerError, Stage, boxed_identify};
use super::namespaces::Namespace;
use super::request::Request;
use crate::spec::fabrics::property;
use crate::spec::features::fid;
use crate::spec::identify::cns;
use crate::spec::log::lid;
use crate::spec::registers::{Cap, Cc, Csts, Vs};
use crate::spec::sqe::NSID_ALL;
use crate::spec::status::Status;

/// Namespaces in one Active Namespace ID list.
const LIST_LEN: usize = 1024;

/// Most active namespaces of one controller; without a limit a peer could fill the memory with them.
const NAMESPACES_MAX: usize = 65_536;

/// Most groups in an ANA log that is read, whatever the controller claims.
const ANA_GROUPS_MAX: usize = 4096;

/// Most tries to read an ANA log that changes between the reads of its parts.
const ANA_TRIES_MAX: u8 = 8;

/// The completion of a step's command.
pub(super) struct Answer<'a> {
    pub status: Status,
    pub result: u64,
    pub data: &'a [u8],
}

/// What follows from an answer.
pub(super) enum Next {
    Step(Step),
    /// The same once more, a little later.
    Again(Step),
    /// The controller is usable.
    Ready,
    /// The namespaces were read again.
    Namespaces,
    /// The ANA log was read again.
    Ana,
    /// The controller reports no fatal status.
    Well,
    /// The controller is shut down.
    ShutDown,
}

/// One admin command and its place in the sequence.
#[derive(Debug)]
pub(super) enum Step {
    Capabilities,
    Version,
    Enable,
    WaitReady,
    IdentifyController,
    NumberOfQueues,
    EventConfiguration,
    ChangedNamespaces,
    ActiveList(Scan),
    Namespace(Scan),
    Descriptors(Scan),
    Ana(AnaRead),
    Status,
    ShutDown,
    WaitShutDown,
}

/// A scan of the active namespaces under way.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Where the next part of the list begins.
    after: u32,
    waiting: VecDeque<u32>,
    current: Option<Namespace>,
    found: BTreeMap<u32, Namespace>,
    left_out: BTreeMap<u32, &'static str>,
}

/// An ANA log being read, in parts if it is larger than one transfer.
#[derive(Debug, Default)]
pub(super) struct AnaRead {
    total: usize,
    bytes: Vec<u8>,
    tries: u8,
}

impl Step {
    /// How bringing up begins, once the admin queue is connected.
    pub const FIRST: Step = Step::Capabilities;

    /// How a new scan of the namespaces begins: reading the changed list re-arms its event.
    pub const RESCAN: Step = Step::ChangedNamespaces;

    pub fn ana(controller: &Controller) -> Step {
        let id = controller.identify();
        let groups = id.map_or(0, |id| id.nanagrpid.get());
        let namespaces = id.map_or(0, |id| match id.mnan.get() {
            0 => id.nn.get(),
            mnan => mnan,
        });
        let at_most = |n: u32, limit: usize| usize::try_from(n).unwrap_or(limit).min(limit);
        Step::Ana(AnaRead {
            total: 16
                + 32 * at_most(groups, ANA_GROUPS_MAX)
                + 4 * at_most(namespaces, NAMESPACES_MAX),
            ..AnaRead::default()
        })
    }

    /// True for the first command of a new read of the ANA log.
    pub fn begins_ana_read(&self) -> bool {
        matches!(self, Step::Ana(read) if read.bytes.is_empty() && read.tries == 0)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Step::Capabilities => "Property Get CAP",
            Step::Version => "Property Get VS",
            Step::Enable => "Property Set CC (enable)",
            Step::WaitReady => "Property Get CSTS (ready)",
            Step::IdentifyController => "Identify Controller",
            Step::NumberOfQueues => "Set Features Number of Queues",
            Step::EventConfiguration => "Set Features Asynchronous Event Configuration",
            Step::ChangedNamespaces => "Get Log Page Changed Namespace List",
            Step::ActiveList(_) => "Identify Active Namespace ID list",
            Step::Namespace(_) => "Identify Namespace",
            Step::Descriptors(_) => "Identify Namespace ID descriptors",
            Step::Ana(_) => "Get Log Page ANA",
            Step::Status => "Property Get CSTS",
            Step::ShutDown => "Property Set CC (shutdown)",
            Step::WaitShutDown => "Property Get CSTS (shutdown)",
        }
    }

    pub fn request(&self, controller: &Controller) -> Request {
        match self {
            Step::Capabilities => AdminCommand::property_get(property::CAP, true),
            Step::Version => AdminCommand::property_get(property::VS, false),
            Step::Enable => {
                AdminCommand::property_set(property::CC, configuration(controller).into())
            }
            Step::WaitReady | Step::Status | Step::WaitShutDown => {
                AdminCommand::property_get(property::CSTS, false)
            }
            Step::IdentifyController => AdminCommand::identify(cns::CONTROLLER, 0, 0),
            Step::NumberOfQueues => {
                let count = u32::from(controller.options().io_queues.max(1) - 1);
                AdminCommand::set_features(fid::NUMBER_OF_QUEUES, count | count << 16)
            }
            Step::EventConfiguration => {
                AdminCommand::set_features(fid::ASYNC_EVENT_CONFIG, wanted_events(controller))
            }
            Step::ChangedNamespaces => {
                AdminCommand::get_log_page(lid::CHANGED_NAMESPACE_LIST, NSID_ALL, 0, 4096, false)
            }
            Step::ActiveList(scan) => {
                AdminCommand::identify(cns::ACTIVE_NAMESPACE_LIST, scan.after, 0)
            }
            Step::Namespace(scan) => AdminCommand::identify(
                cns::NAMESPACE,
                scan.waiting.front().copied().unwrap_or(0),
                0,
            ),
            Step::Descriptors(scan) => AdminCommand::identify(
                cns::NAMESPACE_ID_DESCRIPTORS,
                scan.current.map_or(0, |n| n.nsid),
                0,
            ),
            Step::Ana(read) => {
                let (offset, length) = read.next_part(controller.transfer_max());
                AdminCommand::get_log_page(lid::ANA, NSID_ALL, offset as u64, length, false)
            }
            Step::ShutDown => AdminCommand::property_set(
                property::CC,
                configuration(controller).with_shn(Cc::SHN_NORMAL).into(),
            ),
        }
    }

    /// What follows in a controller that is in use when all tries have ended with a transient status: what is
    /// known stays (rules B3.4, B10).
    pub fn given_up(self, controller: &mut Controller) -> Next {
        match self {
            Step::ChangedNamespaces => Next::Step(Step::ActiveList(Scan::default())),
            Step::ActiveList(_) => Next::Namespaces,
            Step::Namespace(mut scan) => {
                let nsid = scan.waiting.pop_front().unwrap_or(0);
                scan.keep(nsid, controller)
            }
            Step::Descriptors(mut scan) => {
                let nsid = scan.current.take().map_or(0, |n| n.nsid);
                scan.keep(nsid, controller)
            }
            Step::Ana(_) => {
                controller.bad_ana_logs += 1;
                Next::Ana
            }
            // Only what is read again and again is left: the status register.
            _ => Next::Well,
        }
    }

    /// Applies an answer to the controller.
    pub fn answered(
        self,
        controller: &mut Controller,
        answer: &Answer<'_>,
    ) -> Result<Next, ControllerError> {
        let optional = match self {
            Step::ChangedNamespaces | Step::EventConfiguration => true,
            // What cannot be told for now is not the same as what is not there.
            Step::Namespace(_) | Step::Descriptors(_) => !answer.status.is_transient(),
            _ => false,
        };
        if !answer.status.is_success() && !optional {
            return Err(ControllerError::Refused {
                step: self.name(),
                status: answer.status,
            });
        }
        let low = u32::try_from(answer.result & 0xffff_ffff).unwrap_or_default();
        Ok(Next::Step(match self {
            Step::Capabilities => {
                controller.cap = Cap::from(answer.result);
                check_capabilities(controller)?;
                Step::Version
            }
            Step::Version => {
                controller.version = Vs::from(low);
                Step::Enable
            }
            Step::Enable => Step::WaitReady,
            Step::WaitReady | Step::Status => {
                let csts = Csts::from(low);
                if csts.cfs() {
                    return Err(ControllerError::BadData(
                        "controller reports a fatal status (CSTS.CFS)",
                    ));
                }
                match self {
                    Step::Status => return Ok(Next::Well),
                    _ if csts.rdy() => Step::IdentifyController,
                    _ => return Ok(Next::Again(Step::WaitReady)),
                }
            }
            Step::IdentifyController => {
                controller.identify = boxed_identify(answer.data);
                check_identity(controller)?;
                controller.apply_transfer_max();
                match controller.options().io_queues {
                    0 => Step::EventConfiguration,
                    _ => Step::NumberOfQueues,
                }
            }
            Step::NumberOfQueues => {
                // Both counts are 0's based; what was asked for and what is granted may differ either way.
                let granted = (low & 0xffff).min(low >> 16) + 1;
                let wanted = u32::from(controller.options().io_queues);
                controller.io_queues = u16::try_from(granted.min(wanted)).unwrap_or(u16::MAX);
                Step::EventConfiguration
            }
            Step::EventConfiguration => {
                if controller.is_discovery() {
                    return Ok(Next::Ready);
                }
                Step::ActiveList(Scan::default())
            }
            Step::ChangedNamespaces => Step::ActiveList(Scan::default()),
            Step::ActiveList(scan) => return scan.on_list(controller, answer.data),
            Step::Namespace(scan) => return Ok(scan.on_namespace(controller, answer)),
            Step::Descriptors(scan) => return Ok(scan.on_descriptors(controller, answer)),
            Step::Ana(read) => return read.on_part(controller, answer.data),
            Step::ShutDown => Step::WaitShutDown,
            Step::WaitShutDown => {
                return Ok(match Csts::from(low).shst() {
                    Csts::SHST_COMPLETE => Next::ShutDown,
                    _ => Next::Again(Step::WaitShutDown),
                });
            }
        }))
    }
}

/// A controller for I/O must have queues of two entries and the NVM command set.
fn check_capabilities(controller: &Controller) -> Result<(), ControllerError> {
    if controller.options().io_queues == 0 {
        return Ok(());
    }
    let bad = |why| Err(ControllerError::BadData(why));
    if controller.cap.max_queue_entries() < 2 {
        return bad("CAP.MQES is 0: a queue of one entry holds no command, at least 1 is needed");
    }
    if controller.cap.css() & (Cap::CSS_NVM | Cap::CSS_IOCS) == 0 {
        return bad("CAP.CSS has neither the NVM command set (bit 0) nor others (bit 6)");
    }
    Ok(())
}

/// The data must be that of the controller and the subsystem which Connect was accepted by.
fn check_identity(controller: &Controller) -> Result<(), ControllerError> {
    let Some(id) = controller.identify() else {
        return Err(ControllerError::BadData(
            "Identify Controller data is too short",
        ));
    };
    let (connected, identified) = (controller.id(), id.cntlid.get());
    if connected != identified {
        return Err(ControllerError::OtherController {
            connected,
            identified,
        });
    }
    // A discovery controller may have a name of its own behind the well-known one.
    let asked = &controller.options().connect.subnqn;
    let name = id.subnqn.split(|&b| b == 0).next().unwrap_or_default();
    if !asked.is_discovery() && name != asked.as_str().as_bytes() {
        let remote = controller.options().connect.remote;
        log::warn!(
            target: super::LOG_FLAG,
            "{remote}: connected to {}, Identify Controller names '{}'",
            asked.as_str(),
            name.escape_ascii()
        );
        return Err(ControllerError::BadData(
            "Identify Controller names another subsystem (SUBNQN) than the one that was connected to",
        ));
    }
    Ok(())
}

/// CC as it is while the controller is enabled.
fn configuration(controller: &Controller) -> Cc {
    let css = if controller.cap.css() & Cap::CSS_IOCS != 0 {
        Cc::CSS_IOCS
    } else {
        Cc::CSS_NVM
    };
    // 64-byte submission and 16-byte completion queue entries.
    Cc::new()
        .with_en(true)
        .with_css(css)
        .with_iosqes(6)
        .with_iocqes(4)
}

/// The notices to be sent (Feature 0Bh; the bits stand as in OAES): attached namespace attribute 8,
/// ANA change 11, discovery log 31.
fn wanted_events(controller: &Controller) -> u32 {
    let supported = controller.identify().map_or(0, |id| id.oaes.get());
    supported & (1 << 8 | 1 << 11 | 1 << 31)
}

impl Scan {
    fn on_list(
        mut self,
        controller: &mut Controller,
        data: &[u8],
    ) -> Result<Next, ControllerError> {
        let (ids, _) = data.as_chunks::<4>();
        let mut count = 0;
        for nsid in ids.iter().map(|id| u32::from_le_bytes(*id)).take(LIST_LEN) {
            if nsid == 0 {
                break;
            }
            if nsid <= self.after {
                return Err(ControllerError::BadData(
                    "Active Namespace ID list is not in rising order",
                ));
            }
            self.after = nsid;
            self.waiting.push_back(nsid);
            count += 1;
        }
        if self.waiting.len() > NAMESPACES_MAX {
            return Err(ControllerError::BadData(
                "more than 65536 active namespaces",
            ));
        }
        if count == LIST_LEN {
            return Ok(Next::Step(Step::ActiveList(self)));
        }
        Ok(self.next(controller))
    }

    fn on_namespace(mut self, controller: &mut Controller, answer: &Answer<'_>) -> Next {
        let nsid = self.waiting.pop_front().unwrap_or(0);
        let parsed = if answer.status.is_success() {
            Namespace::parse(nsid, answer.data)
        } else {
            Err("Identify Namespace was refused")
        };
        match parsed {
            Ok(namespace) => {
                self.current = Some(namespace);
                Next::Step(Step::Descriptors(self))
            }
            Err(why) => {
                self.left_out.insert(nsid, why);
                self.next(controller)
            }
        }
    }

    fn on_descriptors(mut self, controller: &mut Controller, answer: &Answer<'_>) -> Next {
        if let Some(mut namespace) = self.current.take() {
            if answer.status.is_success() {
                namespace.add_descriptors(answer.data);
            }
            if namespace.ids.csi == 0 {
                self.found.insert(namespace.nsid, namespace);
            } else {
                self.left_out
                    .insert(namespace.nsid, "not of the NVM command set");
            }
        }
        self.next(controller)
    }

    /// Of this one nothing new is known.
    fn keep(mut self, nsid: u32, controller: &mut Controller) -> Next {
        match controller.namespaces.get(&nsid) {
            Some(known) => {
                self.found.insert(nsid, *known);
            }
            None => {
                let why = "Identify Namespace ends with a transient status; asked again";
                self.left_out.insert(nsid, why);
            }
        }
        self.next(controller)
    }

    fn next(self, controller: &mut Controller) -> Next {
        if !self.waiting.is_empty() {
            return Next::Step(Step::Namespace(self));
        }
        controller.namespaces = self.found;
        controller.left_out = self.left_out;
        match controller.stage() {
            Stage::Starting if controller.reports_ana() => Next::Step(Step::ana(controller)),
            Stage::Starting => Next::Ready,
            _ => Next::Namespaces,
        }
    }
}

impl AnaRead {
    /// True once all parts are there. A controller need not answer what lies behind the end of its log.
    fn is_read(&self) -> bool {
        self.bytes.len() >= self.total || AnaLog::is_whole(&self.bytes)
    }

    /// Offset and length of the next part; after the last of several, the header once more.
    fn next_part(&self, transfer_max: usize) -> (usize, usize) {
        if self.is_read() {
            return (0, 16);
        }
        let rest = self.total - self.bytes.len();
        (self.bytes.len(), rest.min(transfer_max))
    }

    fn on_part(
        mut self,
        controller: &mut Controller,
        data: &[u8],
    ) -> Result<Next, ControllerError> {
        let mut whole =
            self.bytes.is_empty() && (data.len() >= self.total || AnaLog::is_whole(data));
        if !self.is_read() {
            self.bytes.extend_from_slice(data);
            if !whole {
                return Ok(Next::Step(Step::Ana(self)));
            }
        } else {
            // The log may have changed between two parts: its change count tells.
            whole = data.get(..8) == self.bytes.get(..8);
        }
        let parsed = if whole {
            AnaLog::parse(&self.bytes)
        } else {
            Err("ANA log changed while it was read")
        };
        match parsed {
            Ok(log) => controller.ana = Some(log),
            Err(why) => {
                controller.bad_ana_logs += u64::from(whole);
                let remote = controller.options().connect.remote;
                log::warn!(target: super::LOG_FLAG, "{remote}: bad ANA log: {why}");
                self.tries += 1;
                // A bad log is read again once; one that moved under the reader, a few times.
                let tries_max = if whole { 2 } else { ANA_TRIES_MAX };
                if self.tries < tries_max {
                    self.bytes.clear();
                    return Ok(Next::Step(Step::Ana(self)));
                }
                if controller.stage() == Stage::Starting {
                    return Err(ControllerError::BadData(why));
                }
            }
        }
        Ok(match controller.stage() {
            Stage::Starting => Next::Ready,
            _ => Next::Ana,
        })
    }
}
