//! Services that are watched: what each of their turns has cost.

use pollux_reactor::{Context, Executor, Group, Progress, Receiver, Service, Time};

/// Installs services on a group so that `after` is called after each poll of one, on its thread, with the socket calls
/// that the poll has made.
#[derive(Debug)]
pub struct Watching<'g, F> {
    /// Where they are installed.
    pub group: &'g mut Group,
    /// Called after each poll.
    pub after: F,
}

impl<F: FnMut(u64) + Clone + Send + 'static> Executor for Watching<'_, F> {
    fn reactors(&self) -> usize {
        self.group.reactors()
    }

    fn add_service<S: Service>(
        &mut self,
        reactor: usize,
        receiver: Receiver<S::Message>,
        build: impl FnOnce() -> S + Send + 'static,
    ) {
        let after = self.after.clone();
        self.group.add_service(reactor, receiver, move || Watched {
            service: build(),
            after,
        });
    }

    fn allows_threads(&self) -> bool {
        self.group.allows_threads()
    }
}

struct Watched<S, F> {
    service: S,
    after: F,
}

impl<S: Service, F: FnMut(u64) + 'static> Service for Watched<S, F> {
    type Message = S::Message;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        self.service.on_start(cx);
    }

    fn on_message(&mut self, message: S::Message, cx: &mut Context<'_>) {
        self.service.on_message(message, cx);
    }

    fn on_timer(&mut self, token: u64, cx: &mut Context<'_>) {
        self.service.on_timer(token, cx);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let before = cx.net().socket_calls();
        let progress = self.service.poll(cx);
        (self.after)(cx.net().socket_calls() - before);
        progress
    }

    fn in_flight(&self, out: &mut String) {
        self.service.in_flight(out);
    }

    fn deadline(&self) -> Option<Time> {
        self.service.deadline()
    }

    fn on_stop(&mut self, cx: &mut Context<'_>) {
        self.service.on_stop(cx);
    }
}
