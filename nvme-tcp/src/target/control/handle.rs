//! The way to a running target from outside.

use std::net::SocketAddr;
use std::sync::mpsc;

use pollux_reactor::Sender;

use crate::spec::log::AnaState;
use crate::spec::nqn::Nqn;
use crate::target::config::{NamespaceConfig, SubsystemConfig};
use crate::target::control::message::{Envelope, HomeMessage, TargetMessage};
use crate::target::control::request::TargetRequest;
use crate::target::error::TargetError;
use crate::target::status::TargetStatus;

/// Asks a target for something. Clones reach the same target.
///
/// [`request`](Self::request) is for reactors, [`call`](Self::call) for threads that may wait. The requests that most programs
/// make have methods of their own, which wait.
#[derive(Debug, Clone)]
pub struct TargetHandle {
    pub(in crate::target) home: Sender<TargetMessage>,
}

impl TargetHandle {
    /// Sends a request. `reply` runs with the answer on the home reactor, so it must not block; it is
    /// dropped without being run if the target stops before.
    ///
    /// ```no_run
    /// # use pollux_nvme_tcp::target::{TargetHandle, TargetRequest};
    /// # fn example(target: &TargetHandle) {
    /// target.request(TargetRequest::status(), |status| match status {
    ///     Ok(status) => println!("{} subsystems", status.subsystems.len()),
    ///     Err(error) => eprintln!("{error}"),
    /// });
    /// # }
    /// ```
    pub fn request<A: Send + 'static>(
        &self,
        request: TargetRequest<A>,
        reply: impl FnOnce(Result<A, TargetError>) + Send + 'static,
    ) {
        let order = HomeMessage::Order(Box::new(move |taken| match taken {
            Ok((home, turn)) => request.carry_out(home, turn, Box::new(reply)),
            Err(error) => reply(Err(error)),
        }));
        if let Err(TargetMessage(Envelope::Home(HomeMessage::Order(order)))) =
            self.home.send(TargetMessage(Envelope::Home(order)))
        {
            order(Err(TargetError::Busy));
        }
    }

    /// Sends a request and waits for the answer. For ordinary threads: on a reactor it would block, and on
    /// the target's own forever.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use pollux_nvme_tcp::target::{TargetError, TargetHandle, TargetRequest};
    /// # fn example(target: &TargetHandle, nqn: pollux_nvme_tcp::spec::Nqn) -> Result<(), TargetError> {
    /// let removal = TargetRequest::remove_namespace(nqn, 1);
    /// target.call(removal.within(Duration::from_secs(5)))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the target has to say against the request, [`TargetError::Busy`], or
    /// [`TargetError::Stopped`].
    pub fn call<A: Send + 'static>(&self, request: TargetRequest<A>) -> Result<A, TargetError> {
        let (sender, receiver) = mpsc::channel();
        self.request(request, move |answer| {
            // The caller waits below, so there is somebody to take the answer.
            let _ = sender.send(answer);
        });
        receiver.recv().unwrap_or(Err(TargetError::Stopped))
    }

    /// Makes a subsystem without namespaces and listeners, and waits until it is there.
    ///
    /// ```no_run
    /// # use pollux_nvme_tcp::target::{Backend, NamespaceConfig, SubsystemConfig, TargetHandle};
    /// # fn example(target: &TargetHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// let nqn = "nqn.2014-08.org.example:disk1".parse()?;
    /// target.create_subsystem(SubsystemConfig::new(nqn))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn create_subsystem(&self, config: SubsystemConfig) -> Result<(), TargetError> {
        self.call(TargetRequest::create_subsystem(config))
    }

    /// Adds a namespace with the lowest identifier that is free, and waits until it is served. Returns its identifier.
    ///
    /// ```no_run
    /// # use pollux_nvme_tcp::spec::Nqn;
    /// # use pollux_nvme_tcp::target::{Backend, NamespaceConfig, TargetError, TargetHandle};
    /// # fn example(target: &TargetHandle, nqn: &Nqn) -> Result<(), TargetError> {
    /// let memory = Backend::Memory { bytes: 1 << 30 };
    /// let nsid = target.add_namespace(nqn, NamespaceConfig::new(memory, 512))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn add_namespace(&self, nqn: &Nqn, namespace: NamespaceConfig) -> Result<u32, TargetError> {
        self.call(TargetRequest::add_namespace(nqn.clone(), None, namespace))
    }

    /// Lets hosts connect to a subsystem at an address. Returns the address, with the port that was taken if it was given
    /// as 0.
    ///
    /// ```no_run
    /// # use pollux_nvme_tcp::spec::Nqn;
    /// # use pollux_nvme_tcp::target::TargetHandle;
    /// # fn example(target: &TargetHandle, nqn: &Nqn) -> Result<(), Box<dyn std::error::Error>> {
    /// let addr = target.add_listener(nqn, "127.0.0.1:0".parse()?)?;
    /// println!("hosts connect to {addr}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn add_listener(&self, nqn: &Nqn, addr: SocketAddr) -> Result<SocketAddr, TargetError> {
        self.call(TargetRequest::add_listener(nqn.clone(), addr))
    }

    /// Changes what one listener reports for all ANA groups, and waits until every reactor uses it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn set_ana_state(
        &self,
        nqn: &Nqn,
        addr: SocketAddr,
        state: AnaState,
    ) -> Result<(), TargetError> {
        self.call(TargetRequest::set_ana_state(nqn.clone(), addr, None, state))
    }

    /// Configuration, controllers, queues, counters and latest faults.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn status(&self) -> Result<TargetStatus, TargetError> {
        self.call(TargetRequest::status())
    }
}
