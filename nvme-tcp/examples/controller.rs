//! Brings one controller up over its admin queue, asks it two things and shuts it down:
//! `cargo run -p pollux-nvme-tcp --example controller 127.0.0.1:4420 nqn.2026-01.io.pollux:target`
use std::error::Error;

use pollux_nvme_tcp::host::{
    AdminCommand, ConnectOptions, Controller, ControllerEvent, ControllerOptions, HostIdentity,
    Outcome,
};
use pollux_nvme_tcp::spec::features::fid;
use pollux_reactor::{Context, Group, Idle, Progress, Service, mailbox};

/// What it is asked; it comes back with the answer.
#[derive(Debug, PartialEq)]
enum Question {
    Abort,
    KeepAliveTimer,
}

/// Drives the controller; its events lead from one question to the next.
struct Asker {
    options: ControllerOptions,
    controller: Option<Controller<Question>>,
}

impl Asker {
    fn on_event(&mut self, event: ControllerEvent<Question>, cx: &mut Context<'_>) {
        let Some(controller) = &mut self.controller else {
            return;
        };
        let next = match event {
            ControllerEvent::Ready => {
                println!("controller {} is ready", controller.id());
                // A command that is not there: the answer must be "not aborted" (result bit 0 is 1).
                Some(AdminCommand::abort(1, 0xfff0).with(Question::Abort))
            }
            ControllerEvent::Admin(done) => {
                let question = done.request.user;
                match done.outcome {
                    Outcome::Completed { status, result } => {
                        println!("{question:?}: {status}, result {result:#x}");
                    }
                    Outcome::Lost(lost) => println!("{question:?}: {lost}"),
                }
                (question == Question::Abort).then(|| {
                    AdminCommand::get_features(fid::KEEP_ALIVE_TIMER).with(Question::KeepAliveTimer)
                })
            }
            ControllerEvent::Ended(error) => {
                println!("ended: {error}");
                cx.request_stop();
                return;
            }
            _ => return,
        };
        let asked = next.is_some_and(|request| controller.submit(request).is_ok());
        if !asked {
            controller.shut_down(cx.now());
        }
    }
}

impl Service for Asker {
    type Message = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        match Controller::connect(cx.net(), now, self.options.clone()) {
            Ok(controller) => self.controller = Some(controller),
            Err(error) => {
                println!("not connected: {error}");
                cx.request_stop();
            }
        }
    }

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        if let Some(controller) = &mut self.controller {
            progress = controller.poll(cx.now());
        }
        while let Some(event) = self.controller.as_mut().and_then(Controller::next_event) {
            self.on_event(event, cx);
            progress = Progress::Busy;
        }
        progress
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(addr), Some(nqn)) = (words.next(), words.next()) else {
        return Err("usage: controller ADDR:PORT NQN".into());
    };
    let mut connect = ConnectOptions::admin(addr.parse()?, nqn.parse()?, HostIdentity::random());
    connect.keep_alive_ms = 5000;
    let mut options = ControllerOptions::new(connect);
    options.io_queue_size = 2;
    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Yield);
    let (_sender, receiver) = mailbox(1);
    group.add_service(reactor, receiver, move || Asker {
        options,
        controller: None,
    });
    group.start()?.join();
    Ok(())
}
