//! One I/O reactor's end of a controller: its queue pair and whether it may be used.

use std::time::Duration;

use pollux_nvme_tcp::host::{CommandTimeout, Completed, QueueError, QueuePair, TimeoutAction};
use pollux_reactor::{Context, Progress, Time};

use crate::messages::ControllerId;
use crate::silence::{self, Finding, Silence};

#[derive(Debug)]
pub(crate) struct Link {
    pub id: ControllerId,
    pub incarnation: u32,
    queue: Option<QueuePair>,
    /// Socket calls of the queue pairs before it.
    earlier_socket_calls: u64,
    /// Control has seen every part of the controller in place.
    enabled: bool,
    announced: bool,
    /// The connection is being made again, or may be.
    pub recovering: bool,
    /// I/O no longer waits for this controller.
    pub excluded: bool,
    /// CRDT1 to CRDT3, in 100 ms.
    pub retry_delays: [u16; 3],
    timeout: Option<CommandTimeout>,
    /// When its commands are next looked through for some that are overdue.
    age_at: Time,
    /// How often control wants to know whether there is traffic.
    traffic: Option<Duration>,
    /// When that is looked at next.
    traffic_at: Time,
    silence: Option<Silence>,
    /// The earliest of the three: when [`age`](Self::age) is to be called.
    pub due_at: Time,
}

/// Commands that were not answered in time, and whether any were answered at all.
#[derive(Debug, Default)]
pub(crate) struct OverdueCommands {
    /// How many there are that were not told before.
    pub count: usize,
    /// Those of them that are to be aborted, by command identifier.
    pub to_abort: Vec<u16>,
    /// The connection has to end, and why.
    pub give_up: Option<QueueError>,
    /// There was an answer since this was asked last.
    pub traffic: bool,
}

/// What a link has to report.
pub(crate) enum News {
    Ready,
    Lost(QueueError),
}

impl Link {
    pub fn new(id: ControllerId) -> Self {
        Self {
            id,
            incarnation: 0,
            queue: None,
            earlier_socket_calls: 0,
            enabled: false,
            announced: false,
            recovering: true,
            excluded: false,
            retry_delays: [0; 3],
            timeout: None,
            age_at: Time::MAX,
            traffic: None,
            traffic_at: Time::MAX,
            silence: None,
            due_at: Time::MAX,
        }
    }

    /// Starts to connect.
    pub fn connect(
        &mut self,
        incarnation: u32,
        options: pollux_nvme_tcp::host::ConnectOptions,
        timeout: Option<CommandTimeout>,
        traffic: Option<Duration>,
        silence: Option<Duration>,
        cx: &mut Context<'_>,
    ) -> Result<(), QueueError> {
        let now = cx.now();
        self.silence = silence.map(|limit| Silence::new(limit, now));
        self.timeout = timeout;
        self.age_at = timeout.map_or(Time::MAX, |timeout| now + timeout.tick());
        self.traffic = traffic;
        self.traffic_at = traffic.map_or(Time::MAX, |interval| now + interval);
        self.set_due();
        self.incarnation = incarnation;
        self.enabled = false;
        self.announced = false;
        self.recovering = true;
        self.take_queue();
        self.queue = Some(
            QueuePair::connect(cx.net(), now, options)
                .map_err(|e| QueueError::TcpConnect(e.kind()))?,
        );
        Ok(())
    }

    pub fn enable(&mut self) {
        self.enabled = true;
        self.recovering = false;
        self.excluded = false;
    }

    /// Connected and released for I/O.
    #[inline]
    pub fn is_connected(&self) -> bool {
        self.enabled && self.queue.as_ref().is_some_and(QueuePair::is_ready)
    }

    #[inline]
    pub fn outstanding(&self) -> usize {
        self.queue.as_ref().map_or(0, QueuePair::outstanding)
    }

    #[inline]
    pub fn queue(&mut self) -> Option<&mut QueuePair> {
        self.queue.as_mut()
    }

    /// Receives and hands completed requests to `sink`.
    #[inline]
    pub fn receive(
        &mut self,
        now: Time,
        sink: &mut impl FnMut(Completed),
    ) -> (Progress, Option<News>) {
        let Some(queue) = &mut self.queue else {
            return (Progress::Idle, None);
        };
        match queue.receive(now, sink) {
            Ok(progress) => {
                if !self.announced && queue.is_ready() {
                    self.announced = true;
                    return (progress, Some(News::Ready));
                }
                (progress, None)
            }
            Err(error) => {
                self.drop_queue();
                (Progress::Busy, Some(News::Lost(error)))
            }
        }
    }

    /// Sends what was submitted.
    #[inline]
    pub fn transmit(&mut self, sink: &mut impl FnMut(Completed)) -> Option<News> {
        let queue = self.queue.as_mut()?;
        let error = queue.transmit(sink).err()?;
        self.drop_queue();
        Some(News::Lost(error))
    }

    /// Looks for commands that are overdue, and whether there was traffic; to be called once `due_at` has
    /// come (rules B9.1, B9.2).
    #[cold]
    pub fn age(&mut self, now: Time) -> OverdueCommands {
        let mut overdue = OverdueCommands::default();
        if let Some(interval) = self.traffic
            && now >= self.traffic_at
        {
            let answered = |queue: &QueuePair| queue.received_at() + interval > self.traffic_at;
            overdue.traffic = self.queue.as_ref().is_some_and(answered);
            self.traffic_at = now + interval;
        }
        if let Some(timeout) = self.timeout
            && now >= self.age_at
        {
            self.age_at = now + timeout.tick();
            self.find_overdue(timeout, &mut overdue);
        }
        self.watch_silence(now, &mut overdue);
        self.set_due();
        overdue
    }

    fn set_due(&mut self) {
        let silence = self.silence.as_ref().map_or(Time::MAX, |s| s.check_at);
        self.due_at = self.age_at.min(self.traffic_at).min(silence);
    }

    /// Whether the queue pair still says anything (rule B9.4).
    fn watch_silence(&mut self, now: Time, overdue: &mut OverdueCommands) {
        let Some(silence) = self.silence.as_mut().filter(|s| now >= s.check_at) else {
            return;
        };
        let Some(queue) = self.queue.as_mut().filter(|queue| queue.is_ready()) else {
            // What connecting takes has a limit of its own.
            silence.check(now, 0, now);
            return;
        };
        match silence.check(now, queue.outstanding(), queue.received_at()) {
            Finding::Fine => {}
            Finding::Suspect => {
                if queue.submit_probe(silence::probe()).is_ok() {
                    silence.probed(now);
                }
            }
            Finding::Dead => overdue.give_up = Some(QueueError::Silent),
        }
    }

    /// The longest time that the queue pair has said nothing while commands were outstanding.
    pub fn longest_silence(&self) -> Duration {
        self.silence
            .as_ref()
            .map_or(Duration::ZERO, Silence::longest)
    }

    fn find_overdue(&mut self, timeout: CommandTimeout, overdue: &mut OverdueCommands) {
        // What connecting takes has a limit of its own.
        if let Some(queue) = self.queue.as_mut().filter(|queue| queue.is_ready()) {
            queue.age(CommandTimeout::TICKS, &mut |command| {
                overdue.count += usize::from(!command.again);
                match timeout.action {
                    TimeoutAction::None => {}
                    TimeoutAction::Abort if !command.again => {
                        overdue.to_abort.extend(command.command_id);
                    }
                    TimeoutAction::Abort | TimeoutAction::Reset => {
                        overdue.give_up = Some(QueueError::CommandTimeout);
                    }
                }
            });
        }
    }

    /// The queue identifier at the controller; 0 without a queue pair.
    pub fn queue_id(&self) -> u16 {
        self.queue.as_ref().map_or(0, |q| q.options().queue_id)
    }

    /// Ends the connection for a reason of the host's own; what was outstanding goes to `sink` as lost.
    pub fn give_up(&mut self, error: QueueError, sink: &mut impl FnMut(Completed)) -> News {
        if let Some(queue) = &mut self.queue {
            queue.fail(error, sink);
        }
        self.drop_queue();
        News::Lost(error)
    }

    /// Closes the queue pair; what was outstanding goes to `sink` as lost.
    pub fn disconnect(&mut self, sink: &mut impl FnMut(Completed)) {
        if let Some(mut queue) = self.take_queue() {
            queue.close(sink);
        }
        self.enabled = false;
    }

    /// When it has something to do although nothing arrives.
    pub fn deadline(&self) -> Option<Time> {
        let queue = self.queue.as_ref()?;
        let silence = self.silence.as_ref().map_or(Time::MAX, |s| s.check_at);
        let aging = (queue.outstanding() > 0).then_some(self.age_at.min(silence));
        [queue.deadline(), aging.filter(|&at| at < Time::MAX)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Of this queue pair and of those that it came after.
    pub fn socket_calls(&self) -> u64 {
        let calls = self.queue.as_ref().map_or(0, QueuePair::socket_calls);
        self.earlier_socket_calls + calls
    }

    fn take_queue(&mut self) -> Option<QueuePair> {
        self.earlier_socket_calls = self.socket_calls();
        self.queue.take()
    }

    fn drop_queue(&mut self) {
        self.take_queue();
        self.enabled = false;
        self.recovering = true;
    }
}
