//! The steps by which a controller is brought up, read again and shut down: what each one sends, and what
//! follows from its answer (NVMe Base 2.1, 3.5).

mod ana_read;
mod scan;

use self::ana_read::AnaRead;
use self::scan::Scan;
use super::event::ControllerError;
use super::known::Known;
use crate::host::LOG_FLAG;
use crate::host::admin::AdminCommand;
use crate::host::request::Request;
use crate::spec::fabrics::property;
use crate::spec::features::fid;
use crate::spec::identify::cns;
use crate::spec::log::lid;
use crate::spec::registers::{Cap, Cc, Csts, Vs};
use crate::spec::sqe::NSID_ALL;
use crate::spec::status::Status;

/// The completion of a step's command.
pub(in crate::host::controller) struct Answer<'a> {
    pub status: Status,
    pub result: u64,
    pub data: &'a [u8],
}

/// What follows from an answer.
pub(in crate::host::controller) enum Next {
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
pub(in crate::host::controller) enum Step {
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

impl Step {
    /// How bringing up begins, once the admin queue is connected.
    pub const FIRST: Step = Step::Capabilities;

    /// How a new scan of the namespaces begins: reading the changed list re-arms its event.
    pub const RESCAN: Step = Step::ChangedNamespaces;

    /// How a new read of the ANA log begins.
    pub fn ana(known: &Known) -> Step {
        Step::Ana(AnaRead::new(known))
    }

    /// True for the first command of a new read of the ANA log.
    pub fn begins_ana_read(&self) -> bool {
        matches!(self, Step::Ana(read) if read.is_new())
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

    pub fn request(&self, known: &Known) -> Request {
        match self {
            Step::Capabilities => AdminCommand::property_get(property::CAP, true),
            Step::Version => AdminCommand::property_get(property::VS, false),
            Step::Enable => AdminCommand::property_set(property::CC, configuration(known).into()),
            Step::WaitReady | Step::Status | Step::WaitShutDown => {
                AdminCommand::property_get(property::CSTS, false)
            }
            Step::IdentifyController => AdminCommand::identify(cns::CONTROLLER, 0, 0),
            Step::NumberOfQueues => {
                let count = u32::from(known.options.io_queues.max(1) - 1);
                AdminCommand::set_features(fid::NUMBER_OF_QUEUES, count | count << 16)
            }
            Step::EventConfiguration => {
                AdminCommand::set_features(fid::ASYNC_EVENT_CONFIG, wanted_events(known))
            }
            Step::ChangedNamespaces => {
                AdminCommand::get_log_page(lid::CHANGED_NAMESPACE_LIST, NSID_ALL, 0, 4096, false)
            }
            Step::ActiveList(scan) => {
                AdminCommand::identify(cns::ACTIVE_NAMESPACE_LIST, scan.after(), 0)
            }
            Step::Namespace(scan) => AdminCommand::identify(cns::NAMESPACE, scan.next_nsid(), 0),
            Step::Descriptors(scan) => {
                AdminCommand::identify(cns::NAMESPACE_ID_DESCRIPTORS, scan.current_nsid(), 0)
            }
            Step::Ana(read) => {
                let (offset, length) = read.next_part(known.transfer_max());
                AdminCommand::get_log_page(lid::ANA, NSID_ALL, offset as u64, length, false)
            }
            Step::ShutDown => AdminCommand::property_set(
                property::CC,
                configuration(known).with_shn(Cc::SHN_NORMAL).into(),
            ),
        }
    }

    /// What follows in a controller that is in use when all tries have ended with a transient status: what is
    /// known stays (rules B3.4, B10).
    pub fn given_up(self, known: &mut Known) -> Next {
        match self {
            Step::ChangedNamespaces => Next::Step(Step::ActiveList(Scan::default())),
            Step::ActiveList(_) => Next::Namespaces,
            Step::Namespace(scan) | Step::Descriptors(scan) => scan.given_up(known),
            Step::Ana(_) => {
                known.bad_ana_logs += 1;
                Next::Ana
            }
            // Only what is read again and again is left: the status register.
            _ => Next::Well,
        }
    }

    /// Applies an answer to the controller.
    pub fn answered(self, known: &mut Known, answer: &Answer<'_>) -> Result<Next, ControllerError> {
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
        #[expect(clippy::cast_possible_truncation, reason = "dword 0 of the two")]
        let low = answer.result as u32;
        Ok(Next::Step(match self {
            Step::Capabilities => {
                known.cap = Cap::from(answer.result);
                check_capabilities(known)?;
                Step::Version
            }
            Step::Version => {
                known.version = Vs::from(low);
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
                if !known.set_identify(answer.data) {
                    return Err(ControllerError::BadData(
                        "Identify Controller data is too short",
                    ));
                }
                check_identity(known)?;
                match known.options.io_queues {
                    0 => Step::EventConfiguration,
                    _ => Step::NumberOfQueues,
                }
            }
            Step::NumberOfQueues => {
                // Both counts are 0's based; what was asked for and what is granted may differ either way.
                let granted = (low & 0xffff).min(low >> 16) as u16;
                known.io_queues = granted.saturating_add(1).min(known.options.io_queues);
                Step::EventConfiguration
            }
            Step::EventConfiguration => {
                if known.is_discovery() {
                    return Ok(Next::Ready);
                }
                Step::ActiveList(Scan::default())
            }
            Step::ChangedNamespaces => Step::ActiveList(Scan::default()),
            Step::ActiveList(scan) => return scan.on_list(known, answer.data),
            Step::Namespace(scan) => return Ok(scan.on_namespace(known, answer)),
            Step::Descriptors(scan) => return Ok(scan.on_descriptors(known, answer)),
            Step::Ana(read) => return read.on_part(known, answer.data),
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
fn check_capabilities(known: &Known) -> Result<(), ControllerError> {
    if known.options.io_queues == 0 {
        return Ok(());
    }
    let bad = |why| Err(ControllerError::BadData(why));
    if known.cap.max_queue_entries() < 2 {
        return bad("CAP.MQES is 0: a queue of one entry holds no command, at least 1 is needed");
    }
    if known.cap.css() & (Cap::CSS_NVM | Cap::CSS_IOCS) == 0 {
        return bad("CAP.CSS has neither the NVM command set (bit 0) nor others (bit 6)");
    }
    Ok(())
}

/// The data must be that of the controller and the subsystem which Connect was accepted by.
fn check_identity(known: &Known) -> Result<(), ControllerError> {
    let Some(id) = known.identify() else {
        return Ok(());
    };
    let (connected, identified) = (known.cntlid, id.cntlid.get());
    if connected != identified {
        return Err(ControllerError::OtherController {
            connected,
            identified,
        });
    }
    // A discovery controller may have a name of its own behind the well-known one.
    let asked = &known.options.connect.subnqn;
    // Without a 0 all of it is the name.
    let name = id.subnqn.split(|&b| b == 0).next().unwrap_or_default();
    if !asked.is_discovery() && name != asked.as_str().as_bytes() {
        let remote = known.options.connect.remote;
        log::warn!(
            target: LOG_FLAG,
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
fn configuration(known: &Known) -> Cc {
    let css = if known.cap.css() & Cap::CSS_IOCS != 0 {
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
/// ANA change 11, Cross-Controller Reset completed 20, discovery log 31.
fn wanted_events(known: &Known) -> u32 {
    let supported = known.identify().map_or(0, |id| id.oaes.get());
    supported & (1 << 8 | 1 << 11 | 1 << 20 | 1 << 31)
}
