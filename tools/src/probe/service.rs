//! The service that owns the controller: brings it up, sends what it is asked to, shuts it down.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use pollux_nvme_tcp::host::{
    AnaLog, Completed, Controller, ControllerEvent, ControllerOptions, Outcome, Request, Stage,
};
use pollux_nvme_tcp::spec::identify::IdentifyController;
use pollux_nvme_tcp::spec::registers::{Cap, Vs};
use pollux_reactor::{Context, Progress, Service, Time};

use super::failure::ReadError;

/// What bringing a controller up has told.
#[derive(Debug)]
pub struct Facts {
    /// Controller identifier, from the answer to Connect.
    pub cntlid: u16,
    /// Capabilities property.
    pub cap: Cap,
    /// Version property.
    pub version: Vs,
    /// Identify Controller data.
    pub identify: Box<IdentifyController>,
    /// Largest transfer of one command in bytes.
    pub transfer_max: usize,
    /// The ANA log; `None` without ANA reporting.
    pub ana: Option<AnaLog>,
}

/// What the calling thread wants.
pub enum Ask {
    /// Send one command and hand back its data.
    Read {
        request: Request,
        reply: SyncSender<Result<Vec<u8>, ReadError>>,
    },
    /// Shut the controller down, then end.
    ShutDown,
}

/// Who waits for what.
enum Waiting {
    Nobody,
    Ready(SyncSender<Result<Facts, ReadError>>),
    Read(SyncSender<Result<Vec<u8>, ReadError>>),
}

/// One controller and who waits for it. One question at a time: the thread that asks waits for the answer.
pub struct ProbeService {
    options: ControllerOptions,
    controller: Option<Controller>,
    waiting: Waiting,
    /// Whoever waits has waited long enough.
    deadline: Option<Time>,
}

impl ProbeService {
    /// Connects when it is started, and tells `ready` how that went.
    pub fn new(options: ControllerOptions, ready: SyncSender<Result<Facts, ReadError>>) -> Self {
        Self {
            options,
            controller: None,
            waiting: Waiting::Ready(ready),
            deadline: None,
        }
    }

    fn timeout(&self) -> Duration {
        self.options.connect.timeout
    }

    fn arm_deadline(&mut self, cx: &mut Context<'_>) {
        self.deadline = Some(cx.now() + self.timeout());
    }

    /// Whoever waits gets this error. A thread that has stopped waiting has ended: nobody is left to tell.
    fn fail(&mut self, error: ReadError) {
        self.deadline = None;
        match std::mem::replace(&mut self.waiting, Waiting::Nobody) {
            Waiting::Nobody => {}
            Waiting::Ready(reply) => drop(reply.send(Err(error))),
            Waiting::Read(reply) => drop(reply.send(Err(error))),
        }
    }

    /// Whoever waits has waited long enough.
    fn give_up(&mut self) {
        self.deadline = None;
        let error = match self.waiting {
            Waiting::Nobody => return,
            Waiting::Ready(_) => ReadError::NotReady(self.timeout()),
            Waiting::Read(_) => ReadError::NoAnswer(self.timeout()),
        };
        self.fail(error);
        if let Some(controller) = &mut self.controller {
            controller.close();
        }
    }

    fn on_event(&mut self, event: ControllerEvent, cx: &mut Context<'_>) {
        match event {
            ControllerEvent::Ready => self.on_ready(),
            ControllerEvent::Admin(completed) => self.on_completed(completed),
            ControllerEvent::Ended(error) => {
                self.fail(error.into());
                cx.request_stop();
            }
            // Changes while we look: what is asked later sees them.
            _ => {}
        }
    }

    fn on_ready(&mut self) {
        let facts = self.controller.as_ref().and_then(|controller| {
            Some(Facts {
                cntlid: controller.id(),
                cap: controller.capabilities(),
                version: controller.version(),
                identify: Box::new(controller.identify()?.clone()),
                transfer_max: controller.transfer_max(),
                ana: controller.ana().cloned(),
            })
        });
        self.deadline = None;
        if let Waiting::Ready(reply) = std::mem::replace(&mut self.waiting, Waiting::Nobody) {
            let _ = reply.send(facts.ok_or(ReadError::Stopped));
        }
    }

    fn on_completed(&mut self, completed: Completed) {
        let result = match completed.outcome {
            Outcome::Completed { status, .. } if status.is_success() => {
                Ok(completed.request.buffer.into_vec())
            }
            Outcome::Completed { status, .. } => Err(ReadError::Refused(status)),
            // The event that says why the connection ended follows.
            Outcome::Lost(_) if self.stage() == Stage::Ended => return,
            Outcome::Lost(lost) => Err(ReadError::Lost(lost)),
        };
        self.deadline = None;
        if let Waiting::Read(reply) = std::mem::replace(&mut self.waiting, Waiting::Nobody) {
            let _ = reply.send(result);
        }
    }

    fn stage(&self) -> Stage {
        self.controller
            .as_ref()
            .map_or(Stage::Ended, Controller::stage)
    }
}

impl Service for ProbeService {
    type Message = Ask;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.arm_deadline(cx);
        let now = cx.now();
        match Controller::connect(cx.net(), now, self.options.clone()) {
            Ok(controller) => self.controller = Some(controller),
            Err(error) => {
                self.fail(ReadError::Socket(error.kind()));
                cx.request_stop();
            }
        }
    }

    fn on_message(&mut self, message: Ask, cx: &mut Context<'_>) {
        let now = cx.now();
        let Some(controller) = &mut self.controller else {
            return;
        };
        match message {
            Ask::Read { request, reply } => {
                let submitted = controller.submit(request);
                self.waiting = Waiting::Read(reply);
                match submitted {
                    Ok(()) => self.arm_deadline(cx),
                    Err(rejected) => self.fail(ReadError::Rejected(rejected.reason)),
                }
            }
            Ask::ShutDown => controller.shut_down(now),
        }
    }

    fn deadline(&self) -> Option<Time> {
        let controller = self.controller.as_ref().and_then(Controller::deadline);
        controller.into_iter().chain(self.deadline).min()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        if let Some(controller) = &mut self.controller {
            progress = controller.poll(cx.now());
            if controller.is_to_connect_again() {
                let now = cx.now();
                controller.connect_again(cx.net(), now);
            }
        }
        while let Some(event) = self.controller.as_mut().and_then(Controller::next_event) {
            progress = Progress::Busy;
            self.on_event(event, cx);
        }
        if self.deadline.is_some_and(|at| at <= cx.now()) {
            // The controller's own deadline may be the same moment, and it knew what it was waiting for.
            self.give_up();
            progress = Progress::Busy;
        }
        progress
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>) {
        if let Some(controller) = &mut self.controller {
            controller.close();
        }
    }
}
