//! The front door: a host as a value, and its volumes by name.

use std::iter::repeat_n;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pollux_nvme_tcp::host::HostIdentity;
use pollux_nvme_tcp::rate_limit::RateLimits;
use pollux_reactor::{Executor, Sender, mailbox};

use crate::control::Control;
use crate::counters::CounterReset;
use crate::error::HostError;
use crate::ids::VolumeInfo;
use crate::io::{Application, IoMessage, IoService};
use crate::messages::ControlMessage;
use crate::path_events::PathEvents;
use crate::policy::Policy;
use crate::queue::{self, Completions, Queue, QueueMessage};
use crate::request::{AttachRequest, Attached, HostRequest, Reply};
use crate::status::{ControllerStatus, VolumeStatus};
use crate::transport_id::TransportId;
use pollux_nvme_tcp::histogram::{HistogramLayout, LatencyHistogram};

/// Messages that may wait in a mailbox of the host; what exceeds it waits with the sender.
const MAILBOX_CAPACITY: usize = 2 * queue::DEPTH_MAX;

/// A host that is installed on an executor; clones are the same host. `M` is what its applications are told.
///
/// Its methods block until the answer is there, and so must not be called on a reactor; a host that has stopped answers
/// [`HostError::Cancelled`]. [`request`](Self::request) is the way that does not block: the answer is called back.
pub struct Host<M = ()> {
    control: ControlSender,
    reactors: Vec<Sender<IoMessage<M>>>,
    /// What the queues of each I/O reactor have room for together.
    depths: Vec<Arc<AtomicUsize>>,
}

/// What a host is made of. What is not said has a default that is safe.
#[derive(Debug, Default)]
pub struct HostBuilder {
    identity: Option<HostIdentity>,
    control: Option<usize>,
    io: Option<Vec<usize>>,
    queue_pairs: Option<usize>,
}

/// A volume of a host, by its name. It need not be there: its methods answer [`HostError::NotFound`] as long as it is not.
/// Methods block, as those of [`Host`].
#[derive(Clone)]
pub struct VolumeHandle {
    control: ControlSender,
    name: String,
}

/// The way to control.
#[derive(Clone)]
struct ControlSender(Sender<ControlMessage>);

impl HostBuilder {
    /// Who the host says it is; a random NQN and identifier unless this is called.
    pub fn identity(mut self, identity: HostIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The reactor that control runs on; the first I/O reactor unless this is called.
    pub fn control(mut self, reactor: usize) -> Self {
        self.control = Some(reactor);
        self
    }

    /// The reactors that carry I/O, each with queue pairs of its own; all that the executor has unless this is called.
    pub fn io(mut self, reactors: &[usize]) -> Self {
        self.io = Some(reactors.to_vec());
        self
    }

    /// How many queue pairs there are for each path and I/O reactor; 1 unless this is called. A connection is received from and
    /// sent to by one core of the target at a time, so several of them may help where the target has more cores than the host,
    /// or where one TCP connection is not as fast as the network.
    ///
    /// Each is that of a poll group of its own, with an application of its own, which selects paths by itself; and wherever
    /// the nth I/O reactor is spoken of, those of the first reactor come first, and then those of the next one.
    pub fn queue_pairs(mut self, count: usize) -> Self {
        self.queue_pairs = Some(count);
        self
    }

    /// Installs the host. `application` makes the application of the nth I/O reactor, on that reactor's thread.
    ///
    /// # Panics
    ///
    /// If there is no I/O reactor, or the executor has no such reactors; if there are to be no queue pairs.
    pub fn install<A: Application>(
        self,
        executor: &mut impl Executor,
        application: impl Fn(usize) -> A + Clone + Send + 'static,
    ) -> Host<A::Message> {
        let io = self
            .io
            .unwrap_or_else(|| (0..executor.reactors()).collect());
        let queue_pairs = self.queue_pairs.unwrap_or(1);
        let io: Vec<usize> = io
            .into_iter()
            .flat_map(|reactor| repeat_n(reactor, queue_pairs))
            .collect();
        assert!(
            !io.is_empty(),
            "a host needs a reactor for its I/O, and a queue pair"
        );
        let (control, control_receiver) = mailbox(MAILBOX_CAPACITY);
        let mut reactors = Vec::new();
        for (index, &reactor) in io.iter().enumerate() {
            let (sender, receiver) = mailbox(MAILBOX_CAPACITY);
            reactors.push(sender);
            let control = control.clone();
            let application = application.clone();
            executor.add_service(reactor, receiver, move || {
                IoService::new(index, control, application(index))
            });
        }
        let (own, senders) = (control.clone(), reactors.clone());
        let identity = self.identity.unwrap_or_else(HostIdentity::random);
        let reactor = self.control.unwrap_or(io[0]);
        executor.add_service(reactor, control_receiver, move || {
            Control::new(identity, own, senders)
        });
        Host {
            control: ControlSender(control),
            depths: reactors.iter().map(|_| Arc::default()).collect(),
            reactors,
        }
    }
}

impl Host {
    /// A host to be set up; see the example on the [crate's page](crate).
    pub fn builder() -> HostBuilder {
        HostBuilder::default()
    }
}

impl<M: Send + 'static> Host<M> {
    /// Sends a request without waiting. Its reply runs on the control reactor, so it must not block; it is dropped
    /// without being run if the host stops before.
    ///
    /// ```no_run
    /// # use pollux_multipath::{AttachRequest, Host, HostRequest};
    /// # fn example(host: &Host, request: AttachRequest) {
    /// let reply = Box::new(|attached| println!("{attached:?}"));
    /// if host.request(HostRequest::Attach(Box::new(request), reply)).is_err() {
    ///     println!("the host has stopped, or has too much to do");
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// The request, if the host has stopped or its mailbox is full.
    pub fn request(&self, request: HostRequest) -> Result<(), HostRequest> {
        self.control.request(request)
    }

    /// Sends a message to the application on the nth I/O reactor, and wakes that. From any thread.
    ///
    /// # Errors
    /// The message with all it owns, if the reactor has stopped or its mailbox is full.
    ///
    /// # Panics
    /// If there is no such I/O reactor.
    pub fn tell(&self, reactor: usize, message: M) -> Result<(), M> {
        self.reactors[reactor]
            .send(IoMessage::application(message))
            .map_err(IoMessage::into_application)
    }

    /// How many I/O reactors there are; one for each queue pair of a path.
    pub fn io_reactors(&self) -> usize {
        self.reactors.len()
    }

    /// Connects a controller and waits until its paths are usable.
    ///
    /// ```no_run
    /// # use pollux_multipath::{AttachRequest, Host};
    /// # fn example(host: &Host) -> Result<(), Box<dyn std::error::Error>> {
    /// for port in [4420, 4421] {
    ///     let path = format!("traddr:127.0.0.1 trsvcid:{port} subnqn:nqn.2014-08.org.example:disk1");
    ///     let attached = host.attach(AttachRequest::new("disk0", path.parse()?))?;
    ///     println!("{:?}", attached.volumes);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Why it failed; nothing has changed then.
    pub fn attach(&self, request: AttachRequest) -> Result<Attached, HostError> {
        self.control
            .call(|reply| HostRequest::Attach(Box::new(request), reply))
    }

    /// Detaches the controller of `name` at `transport`, or all of that name; waits until they are gone.
    ///
    /// ```no_run
    /// # fn example(host: &pollux_multipath::Host) -> Result<(), Box<dyn std::error::Error>> {
    /// host.detach("disk0", None)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn detach(&self, name: &str, transport: Option<TransportId>) -> Result<(), HostError> {
        let name = name.to_owned();
        self.control.call(|reply| HostRequest::Detach {
            name,
            transport,
            reply,
        })
    }

    /// The volume of this name, whether it is there yet or not.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use pollux_multipath::Policy;
    /// # fn example(host: &pollux_multipath::Host) -> Result<(), Box<dyn std::error::Error>> {
    /// let volume = host.volume("disk0n1");
    /// volume.wait(Duration::from_secs(5))?;
    /// volume.set_policy(Policy::ActivePassive)?;
    /// for path in &volume.status()?.reactors[0].paths {
    ///     println!("{}: {}, current {}", path.transport.addr, path.ana_state, path.current);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn volume(&self, name: &str) -> VolumeHandle {
        VolumeHandle {
            control: self.control.clone(),
            name: name.to_owned(),
        }
    }

    /// Status of all volumes.
    ///
    /// # Errors
    /// [`HostError::Cancelled`].
    pub fn volumes(&self) -> Result<Vec<VolumeStatus>, HostError> {
        self.control.call(HostRequest::Volumes)
    }

    /// Status of all controllers.
    ///
    /// # Errors
    /// [`HostError::Cancelled`].
    pub fn controllers(&self) -> Result<Vec<ControllerStatus>, HostError> {
        self.control.call(HostRequest::Controllers)
    }

    /// Subscribes to what happens to the paths of all volumes, from now on: up to `capacity` events are kept until they are
    /// taken. Of what does not fit the oldest are dropped, and [`PathEvents::dropped`] says how many. What the paths are like
    /// at first is in [`volumes`](Self::volumes), asked after this.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn example(host: &pollux_multipath::Host) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut events = host.path_events(256)?;
    /// loop {
    ///     match events.wait(Duration::from_secs(1)) {
    ///         Some(event) => println!("{} {}: {}", event.name, event.transport.addr, event.kind),
    ///         None if events.is_closed() => break,
    ///         None => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HostError::Invalid`], unless the capacity is 1 to 65,536, and [`HostError::Cancelled`].
    pub fn path_events(&self, capacity: usize) -> Result<PathEvents, HostError> {
        self.control
            .call(|reply| HostRequest::PathEvents { capacity, reply })
    }

    /// Ends all controllers in order and waits until they are gone.
    ///
    /// # Errors
    /// [`HostError::Cancelled`].
    pub fn shut_down(&self) -> Result<(), HostError> {
        self.control.call(HostRequest::Shutdown)
    }

    /// As [`shut_down`](Self::shut_down), but waits no longer than this; what is not gone by then ends with
    /// its reactors.
    pub fn shut_down_within(&self, time: Duration) {
        let (done, ended) = mpsc::channel();
        let reply = Box::new(move |_| {
            // Whoever waited too long no longer listens.
            let _ = done.send(());
        });
        // A host that refuses it has stopped, or ends with its reactors.
        if self.request(HostRequest::Shutdown(reply)).is_ok() {
            let _ = ended.recv_timeout(time);
        }
    }
}

impl Host<QueueMessage> {
    /// The way to control.
    pub(crate) fn control(&self) -> &Sender<ControlMessage> {
        &self.control.0
    }

    /// Makes a queue to the nth I/O reactor, by which any thread submits I/O, and what takes the ends of it; see
    /// [`queue`](crate::queue). As long as any of its I/Os is under way, or a handle is left, it has its `depth`, of which
    /// all queues of a reactor together have 4,096.
    ///
    /// # Errors
    /// [`HostError::Invalid`], if the depth is 0 or more than is left, and [`HostError::Cancelled`].
    ///
    /// # Panics
    /// If there is no such I/O reactor.
    pub fn queue(&self, reactor: usize, depth: usize) -> Result<(Queue, Completions), HostError> {
        queue::queue(depth, &self.reactors[reactor], &self.depths[reactor])
    }
}

impl VolumeHandle {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its status, from every I/O reactor.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn status(&self) -> Result<VolumeStatus, HostError> {
        let mut volumes = self.control.call(HostRequest::Volumes)?.into_iter();
        let found = volumes.find(|volume| volume.name == self.name);
        found.ok_or_else(|| HostError::NotFound(format!("volume '{}'", self.name)))
    }

    /// What it is: its identity, by which I/O is submitted to it, and its size.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn info(&self) -> Result<VolumeInfo, HostError> {
        Ok(self.status()?.info())
    }

    /// Waits until it is there.
    ///
    /// # Errors
    /// [`HostError::NotFound`], if it is not within this time.
    pub fn wait(&self, timeout: Duration) -> Result<(), HostError> {
        let name = self.name.clone();
        self.control.call(|reply| HostRequest::AwaitVolume {
            name,
            timeout,
            reply,
        })
    }

    /// Sets how it selects paths, on all I/O reactors.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn set_policy(&self, policy: Policy) -> Result<(), HostError> {
        let volume = self.name.clone();
        self.control.call(|reply| HostRequest::SetPolicy {
            volume,
            policy,
            reply,
        })
    }

    /// Has it prefer the path by the controller with this CNTLID.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn prefer(&self, cntlid: u16) -> Result<(), HostError> {
        let volume = self.name.clone();
        self.control.call(|reply| HostRequest::SetPreferredPath {
            volume,
            cntlid,
            reply,
        })
    }

    /// Limits how fast it may be used, by all I/O reactors and over all paths together, in place of the limits that it had.
    /// They are gone with the volume.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn set_rate_limits(&self, limits: RateLimits) -> Result<(), HostError> {
        let volume = self.name.clone();
        self.control.call(|reply| HostRequest::SetRateLimits {
            volume,
            change: limits.into(),
            reply,
        })
    }

    /// Begins or ends to count its latencies; what was counted before is forgotten.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn set_histogram(&self, layout: Option<HistogramLayout>) -> Result<(), HostError> {
        let volume = self.name.clone();
        self.control.call(|reply| HostRequest::SetHistogram {
            volume,
            layout,
            reply,
        })
    }

    /// The latencies counted since, on all I/O reactors; `None` if none are counted.
    ///
    /// # Errors
    /// [`HostError::NotFound`].
    pub fn histogram(&self) -> Result<Option<LatencyHistogram>, HostError> {
        let volume = self.name.clone();
        self.control
            .call(|reply| HostRequest::Histogram { volume, reply })
    }

    /// Begins some of its counters anew.
    ///
    /// # Errors
    /// [`HostError::Cancelled`].
    pub fn reset_counters(&self, what: CounterReset) -> Result<(), HostError> {
        let volumes = vec![self.name.clone()];
        let told = self.control.call(|reply| HostRequest::ResetCounters {
            volumes,
            what,
            reply,
        });
        told.map(drop)
    }
}

impl ControlSender {
    fn request(&self, request: HostRequest) -> Result<(), HostRequest> {
        self.0
            .send(ControlMessage::Request(request))
            .map_err(|message| match message {
                ControlMessage::Request(request) => request,
                _ => unreachable!("a request was sent"),
            })
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
            return Err(match self.0.is_closed() {
                true => stopped,
                false => HostError::Cancelled("too many requests wait for the host"),
            });
        }
        receiver.recv().unwrap_or(Err(stopped))
    }
}

impl<M> Clone for Host<M> {
    fn clone(&self) -> Self {
        Self {
            control: self.control.clone(),
            reactors: self.reactors.clone(),
            depths: self.depths.clone(),
        }
    }
}

impl<M> std::fmt::Debug for Host<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("io_reactors", &self.reactors.len())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for VolumeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeHandle")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use pollux_reactor::{Context, Progress, Simulation};

    use super::*;
    use crate::io::PollGroup;

    /// Sets a timer for each message, and hands the message back when it is due.
    struct Late {
        waiting: Vec<u64>,
        told: mpsc::Sender<Box<u64>>,
    }

    impl Application for Late {
        type Message = Box<u64>;

        fn on_message(&mut self, message: Box<u64>, _: &mut PollGroup, cx: &mut Context<'_>) {
            cx.set_timer(cx.now() + Duration::from_millis(*message), *message);
            self.waiting.push(*message);
        }

        fn on_timer(&mut self, token: u64, _: &mut PollGroup, _: &mut Context<'_>) {
            let place = self.waiting.iter().position(|message| *message == token);
            let _ = self
                .told
                .send(Box::new(self.waiting.remove(place.unwrap())));
        }

        fn poll(&mut self, _: &mut PollGroup, _: &mut Context<'_>) -> Progress {
            Progress::Idle
        }
    }

    fn host() -> (Simulation, Host<Box<u64>>, mpsc::Receiver<Box<u64>>) {
        let mut simulation = Simulation::new(5);
        simulation.add_reactor();
        simulation.add_reactor();
        let (told, late) = mpsc::channel();
        let host = Host::builder().install(&mut simulation, move |_| Late {
            waiting: Vec::new(),
            told: told.clone(),
        });
        (simulation, host, late)
    }

    #[test]
    fn an_application_has_timers() {
        let (mut simulation, host, late) = host();
        assert_eq!(host.io_reactors(), 2, "all reactors, unless told otherwise");
        for time in [7, 3, 5] {
            assert_eq!(host.tell(1, Box::new(time)), Ok(()));
        }
        simulation.run_for(Duration::from_millis(6));
        assert_eq!(late.try_iter().map(|m| *m).collect::<Vec<_>>(), [3, 5]);
        simulation.run_for(Duration::from_millis(2));
        assert_eq!(late.try_iter().map(|m| *m).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn a_message_that_is_not_taken_comes_back() {
        let (mut simulation, host, _late) = host();
        let taken = (0..).take_while(|n| host.tell(0, Box::new(*n)).is_ok());
        assert_eq!(taken.count(), MAILBOX_CAPACITY);
        assert_eq!(host.tell(0, Box::new(99)), Err(Box::new(99)), "full");
        simulation.stop();
        assert_eq!(host.tell(0, Box::new(98)), Err(Box::new(98)), "stopped");
        let error = host.volume("disk0n1").status().unwrap_err();
        assert_eq!(error, HostError::Cancelled("the host has stopped"));
    }
}
