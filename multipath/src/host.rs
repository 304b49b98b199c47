//! Puts the services of a host on the reactors of a group.

use std::sync::mpsc;
use std::time::Duration;

use pollux_nvme_tcp::host::HostIdentity;
use pollux_reactor::{Executor, Sender, mailbox};

use crate::control::Control;
use crate::error::HostError;
use crate::io::{Application, IoMessage, IoService};
use crate::messages::ControlMessage;
use crate::request::{AttachRequest, Attached, HostRequest, Reply};
use crate::status::{ControllerStatus, VolumeStatus};
use crate::transport_id::TransportId;

/// Messages that may wait in a mailbox of the host; what exceeds it waits with the sender.
const MAILBOX_CAPACITY: usize = 4096;

/// Sets a host up: control on one reactor, a poll group and an application on each I/O reactor.
#[derive(Debug)]
pub struct Host;

/// Talks to a running host. Every call but [`request`](Self::request) blocks, and so must not be made on a
/// reactor; errors come back, and a host that has stopped answers [`HostError::Cancelled`].
pub struct HostHandle<M> {
    control: Sender<ControlMessage>,
    reactors: Vec<Sender<IoMessage<M>>>,
}

impl<M> Clone for HostHandle<M> {
    fn clone(&self) -> Self {
        Self {
            control: self.control.clone(),
            reactors: self.reactors.clone(),
        }
    }
}

impl Host {
    /// Adds the services to `executor`: control to reactor `control`, an I/O service to each reactor of `io`.
    /// `application` makes the application of the nth I/O reactor, on that reactor's thread.
    pub fn install<A: Application>(
        executor: &mut impl Executor,
        identity: HostIdentity,
        control: usize,
        io: &[usize],
        application: impl Fn(usize) -> A + Clone + Send + 'static,
    ) -> HostHandle<A::Message> {
        let (control_sender, control_receiver) = mailbox(MAILBOX_CAPACITY);
        let mut reactors = Vec::new();
        for (index, &reactor) in io.iter().enumerate() {
            let (sender, receiver) = mailbox(MAILBOX_CAPACITY);
            reactors.push(sender);
            let control = control_sender.clone();
            let application = application.clone();
            executor.add_service(reactor, receiver, move || {
                IoService::new(index, control, application(index))
            });
        }
        let senders = reactors.clone();
        let own = control_sender.clone();
        executor.add_service(control, control_receiver, move || {
            Control::new(identity, own, senders)
        });
        HostHandle {
            control: control_sender,
            reactors,
        }
    }
}

impl<M: Send + 'static> HostHandle<M> {
    /// Sends a request without waiting; its reply runs on the control reactor.
    ///
    /// # Errors
    /// The request, if the host has stopped or its mailbox is full.
    pub fn request(&self, request: HostRequest) -> Result<(), HostRequest> {
        self.control
            .send(ControlMessage::Request(request))
            .map_err(|message| match message {
                ControlMessage::Request(request) => request,
                ControlMessage::Io { .. } | ControlMessage::Woken => {
                    unreachable!("a request was sent")
                }
            })
    }

    /// Sends a message to the application on the nth I/O reactor. False if the reactor has stopped or its
    /// mailbox is full.
    pub fn tell(&self, reactor: usize, message: M) -> bool {
        self.reactors
            .get(reactor)
            .is_some_and(|r| r.send(IoMessage::application(message)).is_ok())
    }

    /// Connects a controller and waits until its paths are usable.
    ///
    /// # Errors
    /// Why it failed; nothing has changed then.
    pub fn attach(&self, request: AttachRequest) -> Result<Attached, HostError> {
        self.call(|reply| HostRequest::Attach(Box::new(request), reply))
    }

    /// Detaches the controller of `name` at `transport`, or all of that name.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn detach(&self, name: &str, transport: Option<TransportId>) -> Result<(), HostError> {
        let name = name.to_owned();
        self.call(|reply| HostRequest::Detach {
            name,
            transport,
            reply,
        })
    }

    /// Status of all volumes.
    ///
    /// # Errors
    /// [`HostError::Cancelled`].
    pub fn volumes(&self) -> Result<Vec<VolumeStatus>, HostError> {
        self.call(HostRequest::Volumes)
    }

    /// Status of all controllers.
    ///
    /// # Errors
    /// [`HostError::Cancelled`].
    pub fn controllers(&self) -> Result<Vec<ControllerStatus>, HostError> {
        self.call(HostRequest::Controllers)
    }

    /// Ends all controllers in order and waits until they are gone.
    ///
    /// # Errors
    /// [`HostError::Cancelled`].
    pub fn shut_down(&self) -> Result<(), HostError> {
        self.call(HostRequest::Shutdown)
    }

    /// As [`shut_down`](Self::shut_down), but waits no longer than this; what is not gone by then ends with
    /// its reactors.
    pub fn shut_down_within(&self, time: Duration) {
        let (done, ended) = mpsc::channel();
        let reply = Box::new(move |_| {
            // Whoever waited too long no longer listens.
            let _ = done.send(());
        });
        // Refused only by a host that has stopped, which has nothing left to end.
        if self.request(HostRequest::Shutdown(reply)).is_ok() {
            let _ = ended.recv_timeout(time);
        }
    }

    fn call<T: Send + 'static>(
        &self,
        request: impl FnOnce(Reply<T>) -> HostRequest,
    ) -> Result<T, HostError> {
        let stopped = HostError::Cancelled("the host has stopped");
        let (sender, receiver) = mpsc::sync_channel(1);
        let reply: Reply<T> = Box::new(move |result| {
            // The caller waits for exactly this; if it is gone, no one is left to tell.
            let _ = sender.send(result);
        });
        if self.request(request(reply)).is_err() {
            return Err(stopped);
        }
        receiver.recv().unwrap_or(Err(stopped))
    }
}
