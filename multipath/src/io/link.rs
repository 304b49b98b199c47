//! One I/O reactor's end of a controller: its queue pair, whether it may be used, and faults injected into it.

use std::time::Duration;

use pollux_nvme_tcp::auth::{HostAuth, LOOK_AGAIN};
use pollux_nvme_tcp::host::{
    CommandTimeout, Completed, ConnectOptions, FaultChange, FaultInjection, Overdue, QueueError,
    QueuePair, Rejected, TimeoutAction, Withdrawn,
};
use pollux_nvme_tcp::spec::Nqn;
use pollux_reactor::{Context, Progress, Time};

use super::in_flight::{InFlight, IoRequest};
use super::silence::{Finding, Silence};
use crate::ids::ControllerId;

/// Where completed I/Os go.
pub(super) type Inbox = Vec<Completed<InFlight>>;

/// Tokens from here on are of the streams of links: the rest is the slot.
pub(super) const LINK_TOKENS: u64 = 1 << 63;

#[derive(Debug)]
pub(crate) struct Link {
    pub id: ControllerId,
    /// The poll group looks at it in every turn.
    pub is_polled: bool,
    pub incarnation: u32,
    /// The subsystem, once a connection was begun.
    pub subnqn: Option<Nqn>,
    queue: Option<QueuePair<InFlight>>,
    /// While faults are injected into its commands.
    faults: Option<Box<FaultInjection<InFlight>>>,
    /// Socket calls of the queue pairs before it.
    earlier_socket_calls: u64,
    /// Control has seen every part of the controller in place.
    enabled: bool,
    announced: bool,
    /// The connection is being made again, or may be.
    pub recovering: bool,
    /// I/O no longer waits for this controller.
    pub excluded: bool,
    /// For how long a command that was sent may be executed after the controller was lost; `None`: that is not
    /// waited for (rule B14).
    pub fence: Option<Duration>,
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
    /// When to go on with an authentication of the queue pair that control has asked for.
    authenticate_at: Time,
    /// The earliest of the four: when [`age`](Self::age) is to be called.
    pub due_at: Time,
}

/// Commands that were not answered in time, and whether any were answered at all.
#[derive(Debug, Default)]
pub(crate) struct OverdueCommands {
    /// How many there are that were not told before.
    pub count: usize,
    /// The ones among them that are to be aborted, by command identifier.
    pub to_abort: Vec<u16>,
    /// The connection has to end, and why.
    pub give_up: Option<QueueError>,
    /// There was an answer since this was asked last.
    pub traffic: bool,
    /// The queue pair has authenticated again.
    pub authenticated: bool,
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
            is_polled: false,
            incarnation: 0,
            subnqn: None,
            queue: None,
            faults: None,
            earlier_socket_calls: 0,
            enabled: false,
            announced: false,
            recovering: true,
            excluded: false,
            fence: None,
            retry_delays: [0; 3],
            timeout: None,
            age_at: Time::MAX,
            traffic: None,
            traffic_at: Time::MAX,
            silence: None,
            authenticate_at: Time::MAX,
            due_at: Time::MAX,
        }
    }

    /// Whether a turn has nothing to do for it before something happens to it, such as an edge of its stream, which is
    /// told by the token of its slot ([`LINK_TOKENS`]).
    #[inline]
    pub fn rests(&mut self) -> bool {
        self.faults.is_none() && self.queue.as_mut().is_none_or(QueuePair::rests)
    }

    /// Starts to connect. A connection that there still is ends; what was outstanding on it goes to `inbox`.
    #[expect(clippy::too_many_arguments, reason = "what control says, one by one")]
    pub fn connect(
        &mut self,
        incarnation: u32,
        options: ConnectOptions,
        timeout: Option<CommandTimeout>,
        traffic: Option<Duration>,
        silence: Option<Duration>,
        inbox: &mut Inbox,
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
        self.disconnect(inbox);
        self.authenticate_at = Time::MAX;
        self.announced = false;
        self.recovering = true;
        self.subnqn = Some(options.subnqn.clone());
        let mut queue = QueuePair::connect(cx.net(), now, options)
            .map_err(|e| QueueError::TcpConnect(e.kind()))?;
        queue.watch(cx, LINK_TOKENS + u64::from(self.id.slot));
        self.queue = Some(queue);
        Ok(())
    }

    /// Control has seen every part of the controller in place. A connection that was lost meanwhile is made again: control
    /// is about to hear of it.
    pub fn enable(&mut self) {
        self.enabled = self.queue.is_some();
        self.recovering = self.queue.is_none();
        self.excluded = false;
    }

    /// Connected and released for I/O.
    #[inline]
    pub fn is_connected(&self) -> bool {
        self.enabled && self.queue.as_ref().is_some_and(QueuePair::is_ready)
    }

    /// Commands that have not ended.
    #[inline]
    pub fn outstanding(&self) -> usize {
        let held = self.faults.as_ref().map_or(0, |faults| faults.held());
        self.queue.as_ref().map_or(0, QueuePair::outstanding) + held
    }

    /// Submits an I/O to the queue pair, which is connected.
    ///
    /// # Errors
    /// [`Rejected`], with the I/O.
    #[inline]
    #[expect(
        clippy::expect_used,
        reason = "a path without a queue pair is not picked"
    )]
    #[expect(clippy::result_large_err, reason = "a box would be an allocation")]
    pub fn submit(&mut self, request: IoRequest) -> Result<(), Rejected<InFlight>> {
        let queue = self.queue.as_mut().expect("an I/O for no queue pair");
        let Some(faults) = &mut self.faults else {
            return queue.submit(request);
        };
        match faults.submit(request) {
            Some(request) => queue.submit(request),
            None => Ok(()),
        }
    }

    /// As [`QueuePair::withdraw`], also of what is held back.
    pub fn withdraw(&mut self, wanted: impl Fn(&InFlight) -> bool) -> Option<Withdrawn<InFlight>> {
        let faults = self.faults.as_mut();
        if let Some(held) = faults.and_then(|faults| faults.withdraw(&wanted)) {
            return Some(Withdrawn::Unsent(held));
        }
        self.queue.as_mut()?.withdraw(wanted)
    }

    /// As [`QueuePair::look_through`], also of what is held back.
    pub fn look_through(&mut self, look: &mut impl FnMut(&mut InFlight, Option<u16>)) {
        if let Some(faults) = &mut self.faults {
            faults.look_through(look);
        }
        if let Some(queue) = &mut self.queue {
            queue.look_through(look);
        }
    }

    /// The I/Os that the queue pair has, with their command identifiers.
    pub fn in_flight(&self) -> impl Iterator<Item = (&InFlight, Option<u16>)> {
        self.queue.iter().flat_map(QueuePair::in_flight)
    }

    /// Injects faults into the commands on the connection that there is now, or stops that.
    pub fn inject(&mut self, change: FaultChange) {
        if self.queue.is_some() {
            self.faults.get_or_insert_default().change(change);
        }
    }

    /// Injects faults into what has completed, and ends what was held back for long enough.
    #[cold]
    fn apply_faults(&mut self, now: Time, inbox: &mut Inbox) {
        let Some(faults) = &mut self.faults else {
            return;
        };
        for completed in &mut *inbox {
            faults.complete(completed);
        }
        inbox.extend(std::iter::from_fn(|| faults.release(now)));
        self.faults.take_if(|faults| faults.is_spent());
    }

    /// As [`QueuePair::want_edges`].
    pub fn want_edges(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.want_edges();
        }
    }

    /// Receives; what has completed goes to `inbox`, which is empty. `among_others`: other links are polled in this turn.
    #[inline]
    pub fn receive(
        &mut self,
        now: Time,
        among_others: bool,
        inbox: &mut Inbox,
    ) -> (Progress, Option<News>) {
        let Some(queue) = &mut self.queue else {
            return (Progress::Idle, None);
        };
        let received = queue.receive(now, among_others, &mut |completed| inbox.push(completed));
        let is_new = !self.announced && queue.is_ready();
        if self.faults.is_some() {
            self.apply_faults(now, inbox);
        }
        match received {
            Ok(progress) if is_new => {
                self.announced = true;
                (progress, Some(News::Ready))
            }
            Ok(progress) => (progress, None),
            Err(error) => {
                self.lost(inbox);
                (Progress::Busy, Some(News::Lost(error)))
            }
        }
    }

    /// Sends what was submitted; what has completed goes to `inbox`, which is empty.
    #[inline]
    pub fn transmit(&mut self, now: Time, inbox: &mut Inbox) -> Option<News> {
        let queue = self.queue.as_mut()?;
        let sent = queue.transmit(&mut |completed| inbox.push(completed));
        if self.faults.is_some() {
            self.apply_faults(now, inbox);
        }
        let error = sent.err()?;
        self.lost(inbox);
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
            let answered =
                |queue: &QueuePair<InFlight>| queue.received_at() + interval > self.traffic_at;
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
        self.go_on_authenticating(now, &mut overdue);
        self.set_due();
        overdue
    }

    fn set_due(&mut self) {
        let silence = self.silence.as_ref().map_or(Time::MAX, |s| s.check_at);
        let due_at = self.age_at.min(self.traffic_at).min(silence);
        self.due_at = due_at.min(self.authenticate_at);
    }

    /// Authenticates with other keys while the queue pair goes on serving.
    pub fn authenticate_again(&mut self, auth: Option<HostAuth>, now: Time) {
        if let Some(queue) = &mut self.queue {
            queue.authenticate_again(auth);
            self.authenticate_at = now;
            self.set_due();
        }
    }

    fn go_on_authenticating(&mut self, now: Time, overdue: &mut OverdueCommands) {
        let Some(queue) = self.queue.as_mut().filter(|_| now >= self.authenticate_at) else {
            return;
        };
        self.authenticate_at = Time::MAX;
        match queue.go_on_authenticating(now) {
            Ok(true) => self.authenticate_at = now + LOOK_AGAIN,
            Ok(false) => overdue.authenticated = true,
            Err(error) => overdue.give_up = Some(error),
        }
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
                if queue.probe() {
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
        let Some(queue) = self.queue.as_mut().filter(|queue| queue.is_ready()) else {
            return;
        };
        let mut found = |command: Overdue<'_, InFlight>| {
            overdue.count += usize::from(!command.again);
            match timeout.action {
                TimeoutAction::None => {}
                TimeoutAction::Abort if !command.again => {
                    overdue.to_abort.extend(command.command_id);
                }
                // Reset, and what an Abort was of no avail for.
                _ => {
                    overdue.give_up = Some(QueueError::CommandTimeout);
                }
            }
        };
        queue.age(CommandTimeout::TICKS, &mut found);
        if let Some(faults) = &mut self.faults {
            faults.age(CommandTimeout::TICKS, &mut found);
        }
    }

    /// The queue identifier at the controller; 0 without a queue pair.
    pub fn queue_id(&self) -> u16 {
        self.queue.as_ref().map_or(0, |q| q.options().queue_id)
    }

    /// Ends the connection for a reason of the host's own; what was outstanding goes to `inbox` as lost.
    pub fn give_up(&mut self, error: QueueError, inbox: &mut Inbox) -> News {
        if let Some(queue) = &mut self.queue {
            queue.fail(error, &mut |completed| inbox.push(completed));
        }
        self.lost(inbox);
        News::Lost(error)
    }

    /// Closes the queue pair; what was outstanding goes to `inbox` as lost.
    pub fn disconnect(&mut self, inbox: &mut Inbox) {
        if let Some(mut queue) = self.take_queue(inbox) {
            queue.close(&mut |completed| inbox.push(completed));
        }
        self.enabled = false;
    }

    /// When it has something to do although nothing arrives.
    pub fn deadline(&self) -> Option<Time> {
        let queue = self.queue.as_ref()?;
        let silence = self.silence.as_ref().map_or(Time::MAX, |s| s.check_at);
        let aging = (self.outstanding() > 0).then_some(self.age_at.min(silence));
        let faults = self.faults.as_ref().and_then(|faults| faults.deadline());
        let aging = aging.filter(|&at| at < Time::MAX);
        let again = Some(self.authenticate_at).filter(|&at| at < Time::MAX);
        [queue.deadline(), aging, faults, again]
            .into_iter()
            .flatten()
            .min()
    }

    /// Socket calls of this queue pair and of all before it.
    pub fn socket_calls(&self) -> u64 {
        let calls = self.queue.as_ref().map_or(0, QueuePair::socket_calls);
        self.earlier_socket_calls + calls
    }

    /// Takes the queue pair away, and ends what was held back on its connection.
    fn take_queue(&mut self, inbox: &mut Inbox) -> Option<QueuePair<InFlight>> {
        self.earlier_socket_calls = self.socket_calls();
        if let Some(faults) = self.faults.take() {
            faults.disconnect(|completed| inbox.push(completed));
        }
        self.queue.take()
    }

    /// The connection has ended, and may be made again.
    fn lost(&mut self, inbox: &mut Inbox) {
        self.take_queue(inbox);
        self.enabled = false;
        self.recovering = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_was_lost_on_the_way_is_waited_for() {
        let (slot, generation) = (0, 1);
        let mut link = Link::new(ControllerId { slot, generation });
        link.excluded = true;
        link.enable();
        assert!(!link.is_connected());
        assert!(link.recovering && !link.excluded);
    }
}
