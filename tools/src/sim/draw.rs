//! Draws a run from its seed. Each run has some kinds of faults and not others, so that none hides another.

use pollux_reactor::Rng;

use super::scenario::{Event, Scenario, Shape, What};

/// ANATT of the target, in us.
const ANATT_US: u64 = super::ANATT.as_secs() * 1_000_000;

/// The run of a seed.
pub fn scenario(seed: u64) -> Scenario {
    let mut draw = Draw(Rng::seeded(seed ^ 0x706C_616E));
    let mut shape = draw.shape();
    let events = draw.events(&shape);
    let slowest = events
        .iter()
        .filter(|e| e.what == What::StandStill || e.what == What::DiskStop)
        .map(|e| e.args[1])
        .max()
        .unwrap_or(0);
    // What the target may need for what it has begun when it has lost a host.
    let most = u64::from(shape.disk_us) + slowest;
    let most = u32::try_from(most.div_ceil(1000)).unwrap_or(u32::MAX);
    if shape.fencing != 2 && shape.cqt_ms > 0 {
        shape.cqt_ms += most;
    }
    if shape.target_cqt_ms > 0 {
        // Half of it is for that.
        shape.target_cqt_ms += 2 * most;
    }
    Scenario {
        seed,
        shape,
        events,
    }
}

struct Draw(Rng);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    fn chance(&mut self, of_hundred: u64) -> bool {
        self.below(100) < of_hundred
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.below(from.len() as u64);
        from[usize::try_from(at).unwrap_or(0)]
    }

    /// One of these as often as the other; else the usual value.
    fn maybe(&mut self, of_hundred: u64, usual: u32, from: &[u32]) -> u32 {
        match self.chance(of_hundred) {
            true => self.pick(from),
            false => usual,
        }
    }

    /// From 1 to `most`, each order of magnitude equally likely.
    fn spread(&mut self, most: u64) -> u64 {
        let bits = u64::from(most.max(1).ilog2()) + 1;
        let below = 1 << (1 + self.below(bits));
        (1 + self.below(below)).min(most)
    }

    fn shape(&mut self) -> Shape {
        let disk = self.maybe(60, 0, &[1]);
        let fencing = self.pick(&[0, 0, 0, 1, 1, 2]);
        let digests = self.maybe(40, 0, &[1, 2, 3, 3]);
        let horizon_ms = self.pick(&[20, 200, 1000, 3000, 15_000]);
        let kato_ms = self.pick(&[200, 500, 1000, 5000]);
        let reconnect_ms = self.pick(&[1, 10, 50, 500]);
        let loss_ms = self.maybe(15, 0, &[500, 2000]);
        let fast_fail_ms = match loss_ms {
            0 => self.maybe(15, 0, &[500, 1000]),
            _ => 0,
        };
        Shape {
            hosts: self.maybe(25, 1, &[2]),
            io_reactors: self.pick(&[1, 1, 2, 3]),
            target_reactors: self.pick(&[1, 2, 3]),
            paths: self.pick(&[1, 2, 2, 2, 3, 4]),
            namespaces: self.maybe(30, 1, &[2, 3]),
            blocks: self.pick(&[16, 64, 256]),
            depth: self.pick(&[1, 4, 8, 32]),
            max_blocks: self.pick(&[1, 4, 8, 16, 48]),
            budget: self.pick(&[50, 150, 300]),
            share: self.maybe(30, 0, &[1]),
            reads: self.pick(&[20, 50, 80]),
            horizon_ms,
            latency_us: self.pick(&[0, 10, 100, 100, 1000]),
            jitter_us: self.pick(&[0, 0, 10, 500]),
            chunk: self.maybe(20, 0, &[100, 1000, 7000]),
            send_kib: self.pick(&[4, 64, 256]),
            policy: self.below_u32(3),
            min_io: self.pick(&[1, 1, 3]),
            kato_ms,
            silence_ms: self.pick(&[0, 100, 1000]),
            reconnect_ms,
            fast_fail_ms,
            loss_ms,
            digests,
            h2c_kib: self.maybe(20, 0, &[4, 8]),
            flow_control: self.below_u32(2),
            queue_size: self.pick(&[2, 5, 32, 128]),
            fencing,
            cqt_ms: match fencing {
                0 => self.pick(&[0, 20, 50]),
                1 => self.pick(&[20, 50]),
                _ => 0,
            },
            target_cqt_ms: self.pick(&[0, 20, 400, 1000]),
            timeout_ms: self.maybe(15, 0, &[300, 2000]),
            timeout_action: self.below_u32(3),
            deadline_ms: self.maybe(15, 0, &[1, 20, 500]),
            aborts: self.maybe(15, 0, &[5, 50]),
            disk,
            disk_us: match disk {
                0 => 0,
                _ => self.pick(&[1, 100, 2000, 30_000]),
            },
            status_us: horizon_ms * self.pick(&[3, 10, 50]),
        }
    }

    fn below_u32(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(bound.into())).unwrap_or(0)
    }

    fn events(&mut self, shape: &Shape) -> Vec<Event> {
        let kinds: Vec<What> = What::ALL
            .iter()
            .copied()
            .filter(|&what| possible(what, shape))
            // A byte does harm only where it meets data.
            .filter(|&what| {
                self.chance(match what {
                    What::Flip => 60,
                    _ => 25,
                })
            })
            .collect();
        if kinds.is_empty() {
            return Vec::new();
        }
        let count = self.spread(24);
        let mut events = Vec::new();
        for _ in 0..count {
            let what = self.pick(&kinds);
            let at = self.below(u64::from(shape.horizon_ms) * 1000);
            self.event(what, at, shape, &mut events);
        }
        events.sort();
        events
    }

    /// For how long paths are without access: often a little longer than ANATT.
    fn flap(&mut self, drawn: u64, shape: &Shape) -> u64 {
        match shape.horizon_ms > 10_000 && self.chance(70) {
            true => ANATT_US + self.spread(3_000_000),
            false => drawn,
        }
    }

    fn event(&mut self, what: What, at: u64, shape: &Shape, events: &mut Vec<Event>) {
        let mut args = [0; 3];
        let horizon = u64::from(shape.horizon_ms) * 1000;
        let names = what.arguments().split(' ');
        for (name, arg) in names.zip(&mut args) {
            *arg = match name {
                "path" => self.below(shape.paths.into()),
                "host" => self.below(shape.hosts.into()),
                "nsid" => 1 + self.below(shape.namespaces.into()),
                "group" => self.below(u64::from(shape.namespaces) + 1),
                "which" => self.below(64),
                "us" => self.spread(horizon),
                "bytes" => self.spread(8192),
                "state" => self.pick(&[1, 2, 2, 3, 3, 3, 4, 15]),
                "policy" => self.below(3),
                "on" | "how" => self.below(2),
                "field" => self.below(super::peer::FIELDS.len() as u64),
                "count" => self.spread(20),
                "status" => self.below(super::peer::STATUSES.len() as u64),
                "reactor" => self.below(16),
                _ => unreachable!("an argument {name}"),
            };
        }
        match what {
            What::StandStill | What::DiskStop => args[1] = args[1].min(1_000_000),
            What::Hold => args[1] = args[1].min(400_000),
            What::BlackHole | What::Stall if shape.horizon_ms >= 3000 && self.chance(50) => {
                // About as long as it takes to give the other side up, and to be sure of its end.
                let kato = u64::from(shape.kato_ms.next_multiple_of(1000)) * 1000;
                args[1] = kato + self.below(4 * kato);
            }
            What::Flap => args[1] = self.flap(args[1], shape),
            What::Latency => args[0] = args[0].min(20_000),
            What::Chunk => args[1] = args[1].min(500_000),
            What::Regroup => args[1] = args[1].max(1),
            _ => {}
        }
        let at = match what {
            // There is to be time left for it.
            What::Flap if args[1] > ANATT_US => at % 2_000_000,
            _ => at,
        };
        events.push(Event { at, what, args });
        let is_of_a_path = matches!(what, What::Sever | What::BlackHole | What::Unlisten);
        if is_of_a_path && shape.paths > 1 && self.chance(40) {
            // Another path goes the same way, before all is done that the first one calls for.
            let paths = u64::from(shape.paths);
            args[0] = (args[0] + 1 + self.below(paths - 1)) % paths;
            let at = at + self.spread(20_000);
            events.push(Event { at, what, args });
        }
        if what == What::Ana && self.chance(50) {
            // It comes back; often near the time that the host gives it.
            let after = match self.chance(50) {
                true if shape.horizon_ms > 10_000 => {
                    let near = self.spread(20_000);
                    match self.chance(50) {
                        true => ANATT_US + near,
                        false => ANATT_US - near,
                    }
                }
                _ => self.spread(horizon),
            };
            args[2] = self.pick(&[1, 1, 2]);
            events.push(Event {
                at: at + after,
                what,
                args,
            });
        }
    }
}

/// Whether it can happen in a run of this shape.
fn possible(what: What, shape: &Shape) -> bool {
    match what {
        What::Flip => shape.digests != 0,
        // The digests would tell.
        What::Status | What::WrongCid | What::WrongR2t | What::Fatal => shape.digests & 1 == 0,
        What::BadAnaLog | What::Identify => shape.digests & 2 == 0,
        What::DiskErrors | What::DiskStop => shape.disk != 0,
        _ => true,
    }
}
