//! Carries out what a scenario has, and what follows from it later.

use std::collections::BTreeMap;
use std::time::Duration;

use pollux_multipath::ControllerChange;
use pollux_nvme_tcp::spec::log::AnaState;

use super::peer::Mischief;
use super::scenario::{Event, What};
use super::world::{World, addr, index, policy};

/// Time between two reports of a group that is without access.
const FLAP_US: u64 = 1_700_000;

/// Something that is due at a time.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Event(Event),
    /// What an event began ends.
    EndBlackHole(u64),
    EndRefuse(u64),
    Release(u64),
    EndChunk,
    /// A group is told once more to be without access, until then.
    Flap(u64, u64),
    Listen(u64),
    Restart,
    Add(u64),
    Attach(u64, u64),
    Enable(u64),
    Status,
}

/// What is to come, in the order of time.
#[derive(Debug, Default)]
pub struct Agenda {
    next: u64,
    acts: BTreeMap<(u64, u64), Act>,
    /// How often what was done.
    pub done: BTreeMap<What, u64>,
}

impl Agenda {
    /// At a time in us.
    pub fn at(&mut self, at: u64, act: Act) {
        self.next += 1;
        self.acts.insert((at, self.next), act);
    }

    /// Takes what is due next, and when.
    pub fn next(&mut self) -> Option<(u64, Act)> {
        let ((at, _), act) = self.acts.pop_first()?;
        Some((at, act))
    }

    /// Nothing of it takes place any more.
    pub fn clear(&mut self) {
        self.acts.clear();
    }

    /// Does what is due at `at`.
    pub fn act(&mut self, act: Act, at: u64, world: &mut World) {
        match act {
            Act::Event(event) => {
                world.book.borrow_mut().tell(|| format!("-- {event}"));
                *self.done.entry(event.what).or_default() += 1;
                self.event(event, world);
            }
            Act::Flap(group, until) => {
                let states = [AnaState::INACCESSIBLE, AnaState::CHANGE];
                for path in 0..u64::from(world.shape.paths) {
                    let state = match at < until {
                        true => states[index((at / FLAP_US + path) % 2)],
                        false => AnaState::OPTIMIZED,
                    };
                    world.set_ana(path, u32::try_from(group).unwrap_or(0), state);
                }
                if at < until {
                    self.at((at + FLAP_US).min(until), act);
                }
            }
            Act::Status => {
                world.ask_status();
                self.at(at + u64::from(world.shape.status_us.max(1)), Act::Status);
            }
            _ => {
                world.book.borrow_mut().tell(|| format!("-- {act:?}"));
                end(act, world);
                if matches!(act, Act::Restart) && !world.is_target_alive() {
                    self.at(at + 1000, act);
                }
            }
        }
    }

    fn event(&mut self, event: Event, world: &mut World) {
        let Event { at, what, args } = event;
        let [a, b, c] = args;
        let (paths, hosts) = (u64::from(world.shape.paths), u64::from(world.shape.hosts));
        let path = a % paths;
        match what {
            What::Sever => world.sim.network().sever(addr(path)),
            What::BlackHole => {
                world.sim.network().black_hole(addr(path), true);
                self.at(at + b, Act::EndBlackHole(path));
            }
            What::Refuse => {
                world.sim.network().refuse(addr(path), true);
                self.at(at + b, Act::EndRefuse(path));
            }
            What::Stall => {
                if let Some(id) = world.wires.stall(a) {
                    self.at(at + b, Act::Release(id));
                }
            }
            What::HalfClose => world.wires.half_close(a),
            What::Flip => world.wires.flip(a),
            What::Latency => {
                let latency = Duration::from_micros(a);
                world.sim.network().set_latency(latency);
            }
            What::Chunk => {
                world.sim.network().set_max_chunk(index(a.max(1)));
                self.at(at + b, Act::EndChunk);
            }
            What::Ana => {
                let state = AnaState(u8::try_from(c).unwrap_or(1));
                world.set_ana(path, u32::try_from(b).unwrap_or(0), state);
            }
            What::Unlisten => {
                world.listen(path, false);
                self.at(at + b, Act::Listen(path));
            }
            What::Crash => {
                world.crash();
                self.at(at + a.max(1000), Act::Restart);
            }
            What::Regroup => {
                let nsid = 1 + (a.max(1) - 1) % u64::from(world.shape.namespaces);
                let number = |n| u32::try_from(n).unwrap_or(1);
                world.regroup(number(nsid), number(b.max(1)));
            }
            What::Remove => {
                let nsid = 1 + (a.max(1) - 1) % u64::from(world.shape.namespaces);
                world.remove_namespace(nsid);
                self.at(at + b, Act::Add(nsid));
            }
            What::Detach => {
                let path = b % paths;
                world.detach(a % hosts, Some(path));
                self.at(at + c, Act::Attach(a % hosts, path));
            }
            What::Reset => world.change(a % hosts, Some(b % paths), ControllerChange::Reset),
            What::Disable => {
                world.change(a % hosts, Some(b % paths), ControllerChange::Disable);
                self.at(at + c, Act::Enable(a % hosts));
            }
            What::Policy => {
                let wanted = policy(c, world.shape.min_io);
                world.set_policy(a % hosts, b, wanted);
            }
            What::Prefer => world.prefer(a % hosts, b, c % paths),
            What::Failback => world.set_failback(a % hosts, b != 0),
            What::StandStill => {
                let reactors = world.reactors();
                let which = reactors[index(a) % reactors.len()];
                world.disturb(Duration::from_micros(b));
                world.sim.stand_still(which, Duration::from_micros(b));
            }
            What::Hold => {
                let reactors = world.reactors();
                let which = reactors[index(a) % reactors.len()];
                world.disturb(Duration::from_micros(b));
                world.sim.hold_messages(which, Duration::from_micros(b));
            }
            What::Flap => self.at(at, Act::Flap(a, at + b)),
            What::DiskErrors => {
                if let Some(disk) = world.disk(a) {
                    disk.fail(b);
                }
            }
            What::DiskStop => {
                if let Some(disk) = world.disk(a) {
                    disk.stop(world.sim.now() + Duration::from_micros(b));
                }
            }
            What::Status
            | What::WrongCid
            | What::WrongR2t
            | What::BadAnaLog
            | What::Identify
            | What::Fatal => {
                world.wires.mischief(addr(path), |mischief| {
                    begin(mischief, what, (b, c));
                });
            }
        }
    }
}

fn begin(mischief: &mut Mischief, what: What, (b, c): (u64, u64)) {
    match what {
        What::Status => mischief.statuses = (c, index(b)),
        What::WrongCid => mischief.wrong_cids = 1,
        What::WrongR2t => mischief.wrong_r2ts = 1,
        What::Identify => mischief.identifies = (c, index(b)),
        What::Fatal => mischief.fatal = b,
        _ => mischief.bad_logs = (c, b),
    }
}

fn end(act: Act, world: &mut World) {
    match act {
        Act::EndBlackHole(path) => world.sim.network().black_hole(addr(path), false),
        Act::EndRefuse(path) => world.sim.network().refuse(addr(path), false),
        Act::Release(id) => world.wires.release(id),
        Act::EndChunk => world.calm_network(),
        Act::Listen(path) => world.listen(path, true),
        Act::Restart if !world.is_target_alive() => world.start_target(),
        Act::Add(nsid) => world.add_namespace(nsid),
        Act::Attach(host, path) => world.attach(host, path),
        Act::Enable(host) => world.change(host, None, ControllerChange::Enable),
        Act::Restart | Act::Event(_) | Act::Flap(..) | Act::Status => {}
    }
}

/// Nothing is wrong any more from now on, as far as hosts are not asked.
pub fn heal(agenda: &mut Agenda, world: &mut World) {
    agenda.clear();
    world.calm_network();
    world.wires.heal();
    for disk in world.disks() {
        disk.heal();
    }
    for reactor in world.reactors() {
        world.sim.stand_still(reactor, Duration::ZERO);
        world.sim.hold_messages(reactor, Duration::ZERO);
    }
    if !world.is_target_alive() {
        world.start_target();
    }
    for path in 0..u64::from(world.shape.paths) {
        world.sim.network().refuse(addr(path), false);
        world.sim.network().black_hole(addr(path), false);
        world.listen(path, true);
    }
}
