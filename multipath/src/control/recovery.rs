//! What happens to one controller from its first connection through losses and resets to its end (rules B8, B11).
//! Each step is a pair of the table in [`lifecycle`](super::lifecycle).

use std::time::Duration;

use pollux_nvme_tcp::host::{Controller, ControllerError};
use pollux_reactor::{Context, Time};

use super::journal;
use super::lifecycle::Lifecycle;
use super::member::Member;
use super::shared::Shared;
use super::waiters::Until;
use crate::error::HostError;
use crate::ids::ControllerId;
use crate::io::ToIo;
use crate::options::Reported;
use crate::request::Attached;
use crate::status::PathEventKind;

/// Time for TCP to connect again to a controller that was lost: enough for one segment to be sent once more. A path that
/// swallowed the first ones is tried anew after that, instead of waiting for retransmissions further and further apart.
const RECONNECT_TCP_MAX: Duration = Duration::from_secs(3);

/// How often it is said that a controller is still lost, for the same reason.
const STILL_LOST_PERIOD: Duration = Duration::from_secs(300);

impl Member {
    /// Connects the admin queue again.
    pub fn reconnect(&mut self, shared: &mut Shared, cx: &mut Context<'_>) {
        self.enter(Lifecycle::Connecting);
        self.connect(shared, cx);
    }

    /// Connects the admin queue, for the first time or again.
    pub fn connect(&mut self, shared: &mut Shared, cx: &mut Context<'_>) {
        self.incarnation += 1;
        self.queues_ready = 0;
        let options = &self.options;
        let (mut limit, mut tcp_limit) = (options.connect_timeout, options.tcp_connect_timeout);
        if self.attach.is_none() {
            // A try to connect again that hangs must not keep a path away that has healed meanwhile.
            if options.keep_alive_ms > 0 {
                limit = limit.min(Duration::from_millis(options.keep_alive_ms.into()));
            }
            tcp_limit = Some(tcp_limit.map_or(RECONNECT_TCP_MAX, |t| t.min(RECONNECT_TCP_MAX)));
        }
        self.attach_deadline = shared.now + limit;
        self.controller_options.connect.tcp_timeout = tcp_limit;
        self.controller_options.connect.remote = self.transport.addr;
        match Controller::connect(cx.net(), shared.now, self.controller_options.clone()) {
            Ok(mut controller) => {
                // Which of them has an edge is not asked: it is rare, and all are polled then.
                controller.watch(cx, 0);
                self.controller = Some(controller);
            }
            Err(e) => {
                let error = HostError::Socket(self.transport.to_string(), e.kind());
                self.lose_by(error, shared);
            }
        }
    }

    /// Admin queue up, everything read: connect an I/O queue pair on every I/O reactor.
    pub fn connect_queues(&mut self, shared: &mut Shared) {
        self.enter(Lifecycle::Queues);
        let Some(controller) = &self.controller else {
            unreachable!("what is ready is a controller");
        };
        self.cntlid = controller.id();
        let keep_alive = Duration::from_millis(self.options.keep_alive_ms.into());
        let traffic = (controller.counts_traffic() && !keep_alive.is_zero())
            // With this and the half of KATO after which Keep Alive is sent there is a quarter to spare.
            .then_some(keep_alive / 4);
        let options = &self.options;
        let fence = options
            .fencing
            .time(options.keep_alive_ms, Reported::by(controller));
        #[expect(clippy::expect_used, reason = "checked when the controller was ready")]
        let fence = fence.expect("a fence time that was not checked");
        if let Some(impacted) = controller.instance().filter(|_| fence.is_some()) {
            let now = shared.now;
            let connection = (self.id, self.incarnation);
            let at = (self.group.as_str(), &self.transport);
            shared.resets.connected(connection, impacted, at, now);
        }
        // A controller that does not say has no delays.
        let retry_delays = controller.identify().map_or([0; 3], |identify| {
            [
                identify.crdt1.get(),
                identify.crdt2.get(),
                identify.crdt3.get(),
            ]
        });
        // The controller was found to grant as many queues as there are reactors, and queues are counted in 16 bits.
        for (reactor, queue) in (0..shared.reactors.len()).zip(1..=u16::MAX) {
            let options = Box::new(controller.io_options(queue));
            let message = ToIo::Connect {
                controller: self.id,
                incarnation: self.incarnation,
                options,
                retry_delays,
                timeout: self.options.io_timeout,
                traffic,
                silence: self.options.silence_timeout,
                fence,
            };
            shared.reactors.post(reactor, message);
        }
    }

    /// One more I/O reactor has its queue pair.
    pub fn queue_ready(&mut self, shared: &mut Shared) {
        if self.lifecycle() != Lifecycle::Queues {
            // What was meant for is over: lost, disabled or stopped since.
            return;
        }
        self.queues_ready += 1;
        if self.queues_ready == shared.reactors.len() {
            self.go_live(shared);
        }
    }

    /// All queue pairs are connected: the paths may carry I/O (rule B8.2).
    fn go_live(&mut self, shared: &mut Shared) {
        self.update_paths(shared);
        self.apply_ana(shared);
        self.enter(Lifecycle::Live);
        let again = self.lost_at.take().is_some();
        self.retries.succeeded();
        self.still_lost_at = Time::ZERO;
        self.plan_authentication(shared.now);
        self.excluded = false;
        self.addresses_tried = 0;
        let controller = self.id;
        shared.reactors.broadcast(|| ToIo::Enable { controller });
        if again {
            self.record_all(&PathEventKind::Reconnected, shared);
        }
        if let Some(asker) = self.attach.take() {
            journal::attached(self.who(), self.cntlid, &self.transport.subnqn);
            let volumes = self.volumes(shared);
            shared.answer_attach(asker, Ok(Attached { volumes }));
        }
        shared.settle(self.id, Ok(()));
    }

    /// The controller is lost: its I/O goes elsewhere, it is connected again (rule B8). An attach that was
    /// under way has failed.
    pub fn lose(&mut self, error: ControllerError, shared: &mut Shared) {
        let transport = self.transport.to_string();
        self.lose_by(HostError::Connect { transport, error }, shared);
    }

    /// As [`lose`](Self::lose), for any reason. What is without a connection already cannot be lost again.
    pub fn lose_by(&mut self, error: HostError, shared: &mut Shared) {
        if !self.lifecycle().has_connection() {
            return;
        }
        let text = match &error {
            // The address stands beside it.
            HostError::Connect { error, .. } => error.to_string(),
            error => error.to_string(),
        };
        self.last_error = Some(text.clone());
        if self.attach.is_some() {
            return self.fail_attach(error, shared);
        }
        self.note_loss(shared);
        self.controller = None;
        self.queues_ready = 0;
        let failed = Err(error.clone());
        shared
            .waiters
            .arrived(self.id, Until::Authenticated, &failed);
        shared.cancel_admin(self.id);
        // The first try follows at once, as does one at each other address; further ones after the delay.
        let first = self.lost_at.is_none();
        self.lost_at.get_or_insert(shared.now);
        let at_once = self.next_address() || first;
        let delay = self.options.recovery.reconnect_delay;
        let recovering = at_once || !delay.is_zero();
        self.enter(match (recovering, at_once) {
            (false, _) => Lifecycle::Failed,
            (true, true) => Lifecycle::Waiting(shared.now),
            (true, false) => Lifecycle::Waiting(shared.now + delay + spread(self.id, delay)),
        });
        self.connection_gone(recovering, shared);
        if first {
            let kind = match error {
                HostError::Connect {
                    error: ControllerError::OnRequest(what),
                    ..
                } => PathEventKind::Closed(what),
                _ => PathEventKind::Lost(text),
            };
            self.record_all(&kind, shared);
        } else {
            self.say_still_lost(&text, shared.now);
            shared.settle(self.id, Err(error));
        }
    }

    /// A try to connect again has failed: a line where the reason is another one than before, and one every few minutes.
    fn say_still_lost(&mut self, why: &str, now: Time) {
        let is_news = self.retries.failed(why.to_owned());
        let is_due = is_news || now >= self.still_lost_at;
        if is_due {
            self.still_lost_at = now + STILL_LOST_PERIOD;
        }
        let lost_for = self.lost_at.map_or(Duration::ZERO, |at| now - at);
        journal::still_lost(self.who(), why, lost_for, self.retries.tries(), is_due);
    }

    /// What was sent by the connection that there was may still be executed for as long as its fence lasts.
    fn note_loss(&self, shared: &mut Shared) {
        let fence = self.controller.as_ref().and_then(|controller| {
            let options = &self.options;
            let reported = Reported::by(controller);
            let fence = options.fencing.time(options.keep_alive_ms, reported);
            // Where there is none because the two do not go together, the controller never carried I/O.
            fence.ok().flatten()
        });
        if let Some(fence) = fence {
            let until = shared.now + fence;
            shared.resets.lost((self.id, self.incarnation), until);
        }
    }

    /// The connection is gone, on all reactors: the log that a new one reads decides afresh.
    fn connection_gone(&mut self, recovering: bool, shared: &mut Shared) {
        for path in &mut self.paths {
            path.anatt_at = None;
            path.anatt_expired = false;
            shared.volumes.reported(path.volume, self.id, None);
        }
        let controller = self.id;
        shared.reactors.broadcast(|| ToIo::Disconnect {
            controller,
            recovering,
        });
    }

    /// An attach has failed: the member goes, whoever asked is told why, everything else is as it was.
    pub fn fail_attach(&mut self, error: HostError, shared: &mut Shared) {
        journal::not_attached(self.who(), &error);
        self.note_loss(shared);
        if let Some(mut controller) = self.controller.take() {
            controller.close();
        }
        self.remove_paths(shared);
        self.enter(Lifecycle::Gone);
        let controller = self.id;
        shared
            .reactors
            .broadcast(|| ToIo::RemoveController { controller });
        if let Some(asker) = self.attach.take() {
            shared.answer_attach(asker, Err(error));
        }
    }

    /// Ends a controller for good: its paths go first, so that its I/O finds another one.
    pub fn stop(&mut self, shared: &mut Shared) {
        if self.lifecycle() == Lifecycle::Stopping {
            return;
        }
        self.note_loss(shared);
        self.remove_paths(shared);
        match self.attach.take() {
            Some(asker) => {
                let error = HostError::Cancelled("the controller was detached");
                shared.answer_attach(asker, Err(error));
            }
            None => journal::detached(self.who()),
        }
        self.enter(Lifecycle::Stopping);
        self.lost_at = None;
        let controller = self.id;
        shared
            .reactors
            .broadcast(|| ToIo::RemoveController { controller });
        match &mut self.controller {
            Some(controller) => controller.shut_down(shared.now),
            None => self.enter(Lifecycle::Gone),
        }
    }

    /// Connects anew (rule B8.2), or brings the next try forward.
    pub fn reset(&mut self, shared: &mut Shared, cx: &mut Context<'_>) {
        match self.lifecycle() {
            // Without a connection the next try is now.
            Lifecycle::Waiting(_) | Lifecycle::Failed => self.reconnect(shared, cx),
            Lifecycle::Live => self.lose(ControllerError::OnRequest("reset"), shared),
            // Being connected is what a reset is to lead to, and what stops goes for good.
            Lifecycle::Connecting | Lifecycle::Queues | Lifecycle::Stopping => {}
            Lifecycle::Disabled | Lifecycle::Gone => {
                unreachable!("a reset of a controller that is {:?}", self.lifecycle())
            }
        }
    }

    /// Closes the controller's queue pairs for as long as it is disabled: I/O neither uses nor awaits it.
    pub fn disable(&mut self, shared: &mut Shared) {
        let error = HostError::Cancelled("the controller was disabled");
        if self.lifecycle() == Lifecycle::Stopping {
            // What stops has no paths any more.
            return;
        }
        if self.attach.is_some() {
            return self.fail_attach(error, shared);
        }
        shared.cancel_admin(self.id);
        shared.settle(self.id, Err(error));
        self.enter(Lifecycle::Disabled);
        self.note_loss(shared);
        self.controller = None;
        self.lost_at = None;
        self.connection_gone(false, shared);
        self.record_all(&PathEventKind::Closed("disabled"), shared);
    }

    /// Everything that is due by time: reconnects, ANATT, timeouts.
    pub fn do_what_is_due(&mut self, shared: &mut Shared, cx: &mut Context<'_>) {
        let now = shared.now;
        let controller = self.id;
        if self.loss_deadline().is_some_and(|at| now >= at) {
            journal::given_up(self.who());
            return self.stop(shared);
        }
        if self.exclusion_deadline().is_some_and(|at| now >= at) {
            self.excluded = true;
            shared.reactors.broadcast(|| ToIo::Exclude { controller });
        }
        let mut expired = Vec::new();
        for path in &mut self.paths {
            if path.anatt_at.take_if(|at| now >= *at).is_some() {
                path.anatt_expired = true;
                expired.push((path.volume, path.state.epoch));
            }
        }
        match self.lifecycle() {
            Lifecycle::Waiting(at) if now >= at => self.reconnect(shared, cx),
            Lifecycle::Connecting | Lifecycle::Queues if now >= self.attach_deadline => {
                match self.attach {
                    Some(_) => {
                        let error = HostError::Timeout(self.transport.to_string());
                        self.fail_attach(error, shared);
                    }
                    None => self.lose(ControllerError::Timeout("connection"), shared),
                }
            }
            _ => {}
        }
        self.await_no_longer(shared);
        if self.authenticate_at.is_some_and(|at| now >= at) && self.lifecycle() == Lifecycle::Live {
            self.authenticate_again(shared);
        }
        for (volume, epoch) in expired {
            shared.reactors.broadcast(|| ToIo::AnattExpired {
                volume,
                controller,
                epoch,
            });
            self.record(volume, PathEventKind::AnattExpired, shared);
        }
    }
}

/// What a controller waits longer than the reconnect delay, so that those which were lost together do not come back
/// all at once to a target that has just started: up to an eighth, by its place in the table.
fn spread(id: ControllerId, delay: Duration) -> Duration {
    const STEPS: u32 = 64;
    delay * (u32::from(id.slot) % STEPS) / (STEPS * 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B8.3
    #[test]
    fn controllers_lost_together_come_back_one_after_the_other() {
        let delay = Duration::from_secs(1);
        let of = |slot| {
            let generation = 1;
            spread(ControllerId { slot, generation }, delay)
        };
        assert_eq!(of(0), Duration::ZERO, "one alone waits no longer");
        assert!((1..64).all(|slot| of(slot) > of(slot - 1)));
        assert!(of(63) < delay / 8);
    }
}
