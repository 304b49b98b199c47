//! Subscriptions to path events, on real threads and sockets.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::mpsc::{Sender, channel};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use pollux_multipath::{
    Application, AttachRequest, Host, HostError, PathEvent, PathEventKind, PathEvents, PollGroup,
    Recovery, TransportId,
};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::Backend;
use pollux_nvme_tcp::testing::{TestTarget, nqn};
use pollux_reactor::{Context, Group, Idle, Progress, Running};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Subscribes in its first turn, says so by `None`, and passes on what it is told there.
struct Watcher {
    events: Option<PathEvents>,
    told: Sender<Option<PathEvent>>,
}

impl Application for Watcher {
    type Message = ();

    fn on_message(&mut self, (): (), _: &mut PollGroup, _: &mut Context<'_>) {}

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        let events = self.events.get_or_insert_with(|| {
            let events = group.path_events(64).unwrap();
            let _ = self.told.send(None);
            events
        });
        let mut progress = Progress::Idle;
        while let Some(event) = events.next_event() {
            let _ = self.told.send(Some(event));
            progress = Progress::Busy;
        }
        progress
    }
}

struct World {
    target: TestTarget,
    host: Host,
    running: Running,
    /// What the application on the second reactor is told; control is on the first.
    told: std::sync::mpsc::Receiver<Option<PathEvent>>,
}

impl World {
    /// Nothing is attached yet. The reactors sleep at once, so that what does not wake them is not seen.
    fn new() -> Self {
        let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
        let mut group = Group::new();
        let after = Duration::ZERO;
        let reactors = [0; 2].map(|_| group.add_reactor(None, Idle::Park { after }));
        let (sender, told) = channel();
        let host = Host::builder().control(reactors[0]).io(&reactors[1..]);
        let host = host.install(&mut group, move |_| Watcher {
            events: None,
            told: sender.clone(),
        });
        let running = group.start().unwrap();
        Self {
            target,
            host,
            running,
            told,
        }
    }

    fn attach(&self) {
        let transport = TransportId::new(self.target.addr, nqn());
        let mut request = AttachRequest::new("disk0", transport);
        request.options.recovery = Recovery::default();
        request.options.recovery.reconnect_delay = Duration::from_millis(10);
        self.host.attach(request).unwrap();
    }

    /// The path goes and comes back; all of it has been published when this is back.
    fn disturb(&self, events: &mut PathEvents) {
        let addr = self.target.addr;
        self.target.unlisten(addr);
        await_kind(events, |kind| matches!(kind, PathEventKind::Lost(_)));
        self.target.listen_at(addr);
        await_kind(events, |kind| *kind == PathEventKind::Reconnected);
        self.target.set_ana(addr, AnaState::INACCESSIBLE);
        await_kind(events, |kind| ana_of(kind) == Some(AnaState::INACCESSIBLE));
        self.target.set_ana(addr, AnaState::OPTIMIZED);
        await_kind(events, |kind| ana_of(kind) == Some(AnaState::OPTIMIZED));
    }
}

fn ana_of(kind: &PathEventKind) -> Option<AnaState> {
    match kind {
        PathEventKind::Ana { to, .. } => Some(*to),
        _ => None,
    }
}

fn await_kind(events: &mut PathEvents, is_wanted: impl Fn(&PathEventKind) -> bool) -> PathEvent {
    loop {
        let event = events.wait(PATIENCE).unwrap();
        if is_wanted(&event.kind) {
            return event;
        }
    }
}

fn is_readable(events: &mut PathEvents, limit: Duration) -> bool {
    let fd = events.event_fd().unwrap();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut fds, Some(&limit)).unwrap() == 1
}

/// What one event is about, without the times.
fn short(event: &PathEvent) -> (String, String) {
    (event.name.to_string(), event.kind.to_string())
}

/// B13.3: any thread is told what happens to a path; one that takes nothing has the latest, and is told how many it has lost.
#[test]
fn a_path_goes_and_comes_back_and_who_does_not_look_knows_what_was_lost() {
    let world = World::new();
    let mut looks = world.host.path_events(64).unwrap();
    let mut all = world.host.path_events(4096).unwrap();
    let mut sleeps = world.host.path_events(3).unwrap();
    world.attach();
    let added = await_kind(&mut looks, |kind| matches!(kind, PathEventKind::Added(_)));
    let volume = world.host.volume("disk0n1").info().unwrap().id;
    let of_it = (added.volume, added.transport.addr);
    assert_eq!(of_it, (volume, world.target.addr));
    for _ in 0..3 {
        world.disturb(&mut looks);
    }
    world.host.detach("disk0", None).unwrap();
    await_kind(&mut looks, |kind| *kind == PathEventKind::Removed);
    assert_eq!((looks.dropped(), looks.is_closed()), (0, false));

    world.host.shut_down().unwrap();
    world.running.stop();
    world.running.join();
    assert!(looks.is_closed() && all.is_closed() && sleeps.is_closed());
    let all_events: Vec<_> = std::iter::from_fn(|| all.next_event()).collect();
    let latest: Vec<_> = std::iter::from_fn(|| sleeps.next_event()).collect();
    assert!(all_events.len() > 3 * 4, "{all_events:?}");
    assert_eq!(all.dropped(), 0);
    assert_eq!(latest.len(), 3);
    assert_eq!(sleeps.dropped(), all_events.len() as u64 - 3);
    let end = all_events[all_events.len() - 3..].iter().map(short);
    assert!(latest.iter().map(short).eq(end), "{latest:?}");
    assert!(all.wait(PATIENCE).is_none(), "none is to come");
}

/// B13.3: an application on a reactor that sleeps is told as well.
#[test]
fn an_application_is_told_on_its_reactor() {
    let world = World::new();
    let mut events = world.host.path_events(64).unwrap();
    assert!(world.told.recv_timeout(PATIENCE).unwrap().is_none());
    world.attach();
    world.disturb(&mut events);
    let mut wanted = vec![PathEventKind::Reconnected];
    wanted.push(PathEventKind::Added(AnaState::INACCESSIBLE));
    while !wanted.is_empty() {
        let event = world.told.recv_timeout(PATIENCE).unwrap().unwrap();
        wanted.retain(|kind| *kind != event.kind);
    }
    assert_eq!(events.dropped(), 0);
}

/// Tasks and event loops wait as well as threads do.
#[test]
fn a_task_and_an_event_loop_are_woken() {
    let world = World::new();
    let mut events = world.host.path_events(64).unwrap();
    assert!(is_readable(&mut events, PATIENCE), "the first look is due");
    assert!(events.next_event().is_none());
    assert!(!is_readable(&mut events, Duration::ZERO));
    world.attach();
    assert!(is_readable(&mut events, PATIENCE));
    while events.next_event().is_some() {}
    world.host.detach("disk0", None).unwrap();
    assert!(is_readable(&mut events, PATIENCE));
    while events.next_event().is_some() {}
    world.running.stop();
    world.running.join();
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert!(matches!(events.poll_event(&mut cx), Poll::Ready(None)));
}

/// A subscription that is not possible is refused with what is.
#[test]
fn a_capacity_is_within_bounds() {
    let world = World::new();
    for capacity in [0, 65_537] {
        let refused = world.host.path_events(capacity).unwrap_err();
        let allowed = "capacity for path events: 1 to 65,536 are allowed";
        assert_eq!(refused, HostError::Invalid(allowed));
    }
    assert!(world.host.path_events(65_536).is_ok());
    world.running.stop();
    world.running.join();
    let stopped = world.host.path_events(1).unwrap_err();
    assert_eq!(stopped, HostError::Cancelled("the host has stopped"));
}
