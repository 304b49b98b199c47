//! One run: everything is attached, goes wrong as planned, is healed, verified, detached, and nothing is left.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use pollux_multipath::ControllerChange;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::Progress;

use super::actions::{Act, Agenda, heal};
use super::book::{Activity, Allowed, Violation};
use super::scenario::{Scenario, Shape, What};
use super::world::World;

/// The longest that hosts may take to be whole again, beside what their options say.
const HEALED_WITHIN: Duration = Duration::from_secs(40);

/// After this time nothing is left of what was detached: no keep-alive timer, no connection that lingers.
const STILL_AFTER: Duration = Duration::from_secs(120);

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct RunResult {
    pub violation: Option<Violation>,
    pub timeline: Vec<String>,
    /// The same in each run of the same scenario.
    pub hash: u64,
    pub ios: u64,
    pub commands: u64,
    pub statuses: u64,
    /// Virtual time in ns.
    pub time: u64,
    pub errors: BTreeMap<&'static str, u64>,
    /// Events that took place; of what the wires do, only what they have done.
    pub done: BTreeMap<What, u64>,
}

/// Runs a scenario. What panics has broken a rule as well.
pub fn run(scenario: &Scenario, tracing: bool) -> RunResult {
    let mut world = World::new(scenario.seed, scenario.shape, tracing);
    let mut agenda = Agenda::default();
    let phases = AssertUnwindSafe(|| all(scenario, &mut world, &mut agenda));
    let panicked = catch_unwind(phases).err();
    let World {
        sim,
        book,
        wires,
        inbox,
        ..
    } = &mut world;
    let mut book = book.borrow_mut();
    if panicked.is_some() {
        book.now = sim.now();
        book.violate("no panic", super::panics::last());
    }
    let trace = sim.trace();
    book.hash(trace);
    let mut done = std::mem::take(&mut agenda.done);
    for what in [
        What::Flip,
        What::Status,
        What::WrongCid,
        What::WrongR2t,
        What::BadAnaLog,
        What::Identify,
        What::Fatal,
    ] {
        done.remove(&what);
    }
    done.extend(wires.done());
    let outcome = RunResult {
        violation: book.violation.take(),
        timeline: book.timeline.take().unwrap_or_default(),
        hash: book.hash,
        ios: book.ended,
        commands: wires.commands(),
        statuses: inbox.statuses,
        time: sim.now().as_nanos(),
        errors: std::mem::take(&mut book.errors),
        done,
    };
    drop(book);
    if panicked.is_some() {
        // What has panicked is in no state to be dropped in order.
        std::mem::forget(world);
    }
    outcome
}

/// The phases; ends early once a rule is broken.
fn all(scenario: &Scenario, world: &mut World, agenda: &mut Agenda) -> Option<()> {
    begin(world)?;
    world.book.borrow_mut().allowed = allowed(scenario);
    go_wrong(scenario, world, agenda)?;
    get_well(scenario, world, agenda)?;
    verify(world)?;
    detach(world)
}

/// `None` once a rule was broken.
fn sound(world: &World) -> Option<()> {
    world.book.borrow().violation.is_none().then_some(())
}

/// A condition came to hold, or a rule is broken.
fn expect(
    world: &World,
    holds: bool,
    rule: &'static str,
    what: impl FnOnce() -> String,
) -> Option<()> {
    if !holds {
        world.book.borrow_mut().violate(rule, what());
    }
    sound(world)
}

fn begin(world: &mut World) -> Option<()> {
    let (hosts, paths) = (world.shape.hosts, world.shape.paths);
    // The target takes up what it was told at its start.
    world.run_until(Duration::from_millis(1), |_, _| false);
    for host in 0..u64::from(hosts) {
        for path in 0..u64::from(paths) {
            world.attach(host, path);
        }
    }
    let attached = world.run_until(Duration::from_secs(10), |inbox, _| inbox.open == 0);
    expect(world, attached, "every request is answered", || {
        "an attach is not".into()
    })?;
    world.ask_status();
    world.run_until(Duration::from_secs(1), |inbox, _| inbox.open == 0);
    let whole = world.is_whole();
    expect(world, whole, "what is attached is usable", || {
        describe(world)
    })
}

fn go_wrong(scenario: &Scenario, world: &mut World, agenda: &mut Agenda) -> Option<()> {
    let begun = world.sim.now();
    let mut end = u64::from(scenario.shape.horizon_ms) * 1000;
    for &event in &scenario.events {
        agenda.at(event.at, Act::Event(event));
        end = end.max(event.at);
    }
    agenda.at(0, Act::Status);
    world.book.borrow_mut().activity = Activity::Run;
    while let Some((at, act)) = agenda.next() {
        let until = begun + Duration::from_micros(at.min(end));
        let wait = until.saturating_since(world.sim.now());
        if !wait.is_zero() {
            world.run_until(wait, |_, _| false);
        }
        sound(world)?;
        if at > end {
            break;
        }
        agenda.act(act, at, world);
    }
    sound(world)
}

/// What the hosts need at most once nothing is wrong any more.
fn patience(shape: &Shape) -> Duration {
    // The target counts KATO in seconds.
    let fence = 3 * shape.kato_ms.next_multiple_of(1000) + shape.cqt_ms + shape.target_cqt_ms;
    let own = [
        fence,
        shape.kato_ms,
        shape.silence_ms,
        shape.reconnect_ms,
        shape.timeout_ms,
    ];
    HEALED_WITHIN + Duration::from_millis(own.map(u64::from).iter().map(|ms| 2 * ms).sum())
}

fn get_well(scenario: &Scenario, world: &mut World, agenda: &mut Agenda) -> Option<()> {
    world
        .book
        .borrow_mut()
        .tell(|| "-- everything is healed".into());
    world.book.borrow_mut().activity = Activity::Drain;
    heal(agenda, world);
    let paths = u64::from(scenario.shape.paths);
    if scenario.events.iter().any(|e| e.what == What::BadAnaLog) {
        // What a host could not read it reads with the next change.
        for path in 0..paths {
            world.set_ana(path, 0, AnaState::NON_OPTIMIZED);
        }
        world.run_until(Duration::from_millis(200), |_, _| false);
    }
    for path in 0..paths {
        world.set_ana(path, 0, AnaState::OPTIMIZED);
    }
    for host in 0..u64::from(scenario.shape.hosts) {
        world.change(host, None, ControllerChange::Enable);
    }
    let end = world.sim.now() + patience(&scenario.shape);
    loop {
        world.run_until(Duration::from_millis(100), |_, _| false);
        world.ask_status();
        world.run_until(Duration::from_millis(20), |inbox, _| inbox.open == 0);
        sound(world)?;
        let ended = {
            let book = world.book.borrow();
            book.submitted == book.ended
        };
        if ended && world.inbox.open == 0 && world.is_whole() {
            return Some(());
        }
        if world.sim.now() > end {
            let book = world.book.borrow();
            let open = book.submitted - book.ended;
            drop(book);
            expect(
                world,
                open == 0,
                "all I/O ends once nothing is wrong",
                || format!("{open} I/Os have not; {}", describe(world)),
            )?;
            let asked = world.inbox.open;
            expect(world, asked == 0, "every request is answered", || {
                format!("{asked} are not; {}", describe(world))
            })?;
            return expect(world, false, "all paths come back", || describe(world));
        }
        again(world, paths);
        if scenario.events.iter().any(|e| e.what == What::Remove) {
            // One that was still being removed could not be added.
            for nsid in 1..=u64::from(scenario.shape.namespaces) {
                world.add_namespace(nsid);
            }
        }
    }
}

/// Attaches what is not attached, enables what is disabled.
fn again(world: &mut World, paths: u64) {
    if world.inbox.open > 0 {
        return;
    }
    for host in 0..u64::from(world.shape.hosts) {
        let controllers = &world.inbox.controllers[super::world::index(host)];
        let missing: Vec<u64> = (0..paths)
            .filter(|&path| {
                let addr = super::world::addr(path);
                !controllers.iter().any(|c| c.transport.addr == addr)
            })
            .collect();
        let disabled = controllers.iter().any(|c| c.state == "disabled");
        for path in missing {
            world.attach(host, path);
        }
        if disabled {
            world.change(host, None, ControllerChange::Enable);
        }
    }
}

fn verify(world: &mut World) -> Option<()> {
    world.book.borrow_mut().activity = Activity::Verify;
    let readers = (world.shape.hosts * world.shape.io_reactors) as usize;
    let read = world.run_until(Duration::from_secs(60), |_, book| book.verified == readers);
    expect(world, read, "all I/O ends once nothing is wrong", || {
        format!("blocks cannot be read: {}", describe(world))
    })?;
    world.ask_status();
    world.run_until(Duration::from_secs(1), |inbox, _| inbox.open == 0);
    sound(world)?;
    let reactors = || {
        world
            .inbox
            .volumes
            .iter()
            .flatten()
            .flat_map(|v| &v.reactors)
    };
    let open: usize = reactors()
        .map(|r| r.waiting + r.paths.iter().map(|p| p.outstanding).sum::<usize>())
        .sum();
    // A silent queue is asked for a sign of life, and what is asked counts as well.
    let at_rest = open == 0 || world.shape.silence_ms != 0;
    expect(
        world,
        at_rest,
        "what has ended is not outstanding (B13.1)",
        || format!("{open} I/Os are, of all paths"),
    )
}

fn detach(world: &mut World) -> Option<()> {
    world.book.borrow_mut().activity = Activity::Drain;
    for host in 0..u64::from(world.shape.hosts) {
        world.detach(host, None);
    }
    let detached = world.run_until(Duration::from_secs(30), |inbox, _| inbox.open == 0);
    expect(world, detached, "every request is answered", || {
        "a detach is not".into()
    })?;
    world.ask_status();
    world.run_until(Duration::from_secs(1), |inbox, _| inbox.open == 0);
    let inbox = &world.inbox;
    let left =
        inbox.volumes.iter().all(Vec::is_empty) && inbox.controllers.iter().all(Vec::is_empty);
    expect(world, left, "nothing is left after a detach (B11)", || {
        describe(world)
    })?;
    world.run_until(STILL_AFTER, |_, _| false);
    sound(world)?;
    let open = world.wires.open();
    expect(
        world,
        open == 0,
        "nothing is left after a detach (B11)",
        || format!("{open} ends of connections are"),
    )?;
    let still = (0..50).all(|_| world.sim.step() == Progress::Idle);
    expect(world, still, "nothing is left after a detach (B11)", || {
        "a timer is".into()
    })?;
    let answer = world.ask_target_status();
    world.run_until(Duration::from_millis(10), |_, _| false);
    let status = answer.try_recv().unwrap_or_default();
    let controllers: usize = status.subsystems.iter().map(|s| s.controllers.len()).sum();
    let held: usize = status.reactors.iter().map(|r| r.staging_held).sum();
    let busy: usize = status
        .subsystems
        .iter()
        .flat_map(|s| &s.namespaces)
        .map(|n| n.in_flight)
        .sum();
    let left = (controllers, held, busy);
    expect(
        world,
        left == (0, 0, 0),
        "nothing is left on the target",
        || format!("{controllers} controllers, {held} bytes of staging memory, {busy} I/Os are"),
    )
}

/// What the hosts have said last.
fn describe(world: &World) -> String {
    let mut text = String::new();
    for (host, controllers) in world.inbox.controllers.iter().enumerate() {
        for c in controllers {
            let port = c.transport.addr.port();
            let error = c.last_error.as_deref().unwrap_or("none");
            text += &format!("host {host} port {port} {}, last error: {error}; ", c.state);
        }
    }
    for (host, volumes) in world.inbox.volumes.iter().enumerate() {
        for reactor in volumes.iter().flat_map(|v| &v.reactors) {
            let (which, waiting) = (reactor.reactor, reactor.waiting);
            text += &format!("host {host} reactor {which}: {waiting} wait, paths");
            for p in &reactor.paths {
                let state = p.ana_state;
                text += &format!(
                    " [{state} connected {} accessible {}]",
                    p.connected, p.accessible
                );
            }
            text += "; ";
        }
    }
    text
}

/// Errors that I/O may end with, by what a scenario has.
fn allowed(scenario: &Scenario) -> Allowed {
    let shape = &scenario.shape;
    let has = |what: &[What]| {
        scenario
            .events
            .iter()
            .any(|event| what.contains(&event.what))
    };
    let mut allowed = Vec::new();
    let mut allow = |when: bool, names: &[&'static str]| {
        if when {
            allowed.extend_from_slice(names);
        }
    };
    let changes = has(&[
        What::Ana,
        What::Flap,
        What::Status,
        What::BadAnaLog,
        What::Regroup,
    ]);
    // ANATT runs out only in ten seconds; also of a path that is lost meanwhile.
    allow(changes, &["no path: ANATT expired"]);
    let loses = scenario
        .events
        .iter()
        .any(|e| e.what == What::Ana && e.args[2] == 4);
    allow(loses, &["no path: persistent loss"]);
    allow(shape.fast_fail_ms != 0, &["no path: fast I/O fail"]);
    allow(
        has(&[What::Remove]),
        &[
            "removed",
            "status",
            "no path: namespace inactive",
            "no path: none",
        ],
    );
    let goes = shape.loss_ms != 0 || has(&[What::Detach]);
    allow(goes, &["removed", "no path: none"]);
    let disabled = goes || has(&[What::Disable, What::Reset]);
    allow(disabled, &["no path: controller lost"]);
    allow(
        has(&[What::Status, What::DiskErrors]),
        &["status", "aborted"],
    );
    allow(
        shape.timeout_action != 0 && shape.timeout_ms != 0,
        &["aborted"],
    );
    allow(has(&[What::Flip]), &["data lost", "status"]);
    allow(shape.deadline_ms != 0, &["deadline", "aborted"]);
    allow(shape.aborts != 0, &["aborted"]);
    allowed
}
