//! Reading from one controller: connect, ask, shut down in order.

mod args;
mod failure;
mod report;
mod service;

use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use pollux_multipath::TransportId;
use pollux_nvme_tcp::host::{ControllerOptions, Request};
use pollux_reactor::{Group, Idle, Sender, mailbox};

pub use args::ConnectArgs;
pub use failure::ReadError;
pub use report::{Text, bytes_text, flags_text, hex_text, print};
pub use service::Facts;

use service::{Ask, ProbeService};

/// Idle time after which the reactor sleeps.
const PARK_AFTER: Duration = Duration::from_micros(50);

/// A controller that is ready to be asked.
pub struct Probe {
    /// Which one.
    pub transport: TransportId,
    /// What bringing it up has told.
    pub facts: Facts,
    sender: Sender<Ask>,
}

impl Probe {
    /// Sends one admin command that reads, and waits for its data.
    ///
    /// # Errors
    /// The controller refused it, did not answer within the connect timeout, or is gone.
    pub fn read(&mut self, request: Request) -> Result<Vec<u8>, ReadError> {
        let (reply, answer) = mpsc::sync_channel(1);
        if self.sender.send(Ask::Read { request, reply }).is_err() {
            return Err(ReadError::Stopped);
        }
        answer.recv().unwrap_or(Err(ReadError::Stopped))
    }
}

/// Connects to the controller that `args` name, lets `ask` ask it, and shuts it down.
///
/// # Errors
/// It could not be made ready within the connect timeout, or the error of `ask`; both name the controller's
/// address.
pub fn with_controller<T>(
    args: &ConnectArgs,
    ask: impl FnOnce(&mut Probe) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let transport = args.transport_id()?;
    let connect = args.connect_options(&transport);
    let timeout = connect.timeout;
    let host_nqn = connect.host.nqn.clone();
    let (sender, receiver) = mailbox(4);
    let (ready, made_ready) = mpsc::sync_channel(1);
    let mut options = ControllerOptions::new(connect);
    options.io_queue_size = 2;
    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Park { after: PARK_AFTER });
    group.add_service(reactor, receiver, move || ProbeService::new(options, ready));
    let running = group.start()?;

    let result = match made_ready.recv().unwrap_or(Err(ReadError::Stopped)) {
        Ok(facts) => {
            let mut probe = Probe {
                transport: transport.clone(),
                facts,
                sender,
            };
            let result = ask(&mut probe);
            // The reactor ends when the controller is shut down; if it cannot be told, it has ended.
            let _ = probe.sender.send(Ask::ShutDown);
            result
        }
        Err(error) => Err(match error.explain(&transport.subnqn, &host_nqn, timeout) {
            Some(text) => anyhow::Error::msg(text),
            None => error.into(),
        }),
    };
    running.join();
    result.with_context(|| transport.addr.to_string())
}
