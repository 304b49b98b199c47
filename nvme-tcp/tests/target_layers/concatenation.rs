//! Keys for TLS that come out of authentications (secure concatenation): how long the target keeps one that nobody comes with,
//! how many of them, and for whom.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use pollux_nvme_tcp::auth::{DhGroup, Hash, HostAuth, KeyNames, Keys, Policy, Secret};
use pollux_nvme_tcp::host::{
    ConnectOptions, Controller, ControllerEvent, ControllerOptions, HostIdentity, QueuePair,
};
use pollux_nvme_tcp::spec::HostNqn;
use pollux_nvme_tcp::target::{self, HostKeys, TargetRequest};
use pollux_nvme_tcp::testing::{nqn, set_up};
use pollux_reactor::{Context, Progress, Sender, Service, Simulation, mailbox};

const MILLI: Duration = Duration::from_millis(1);
/// How long a key is kept that nobody comes with, and how many of one host.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(30);
const UNCLAIMED_MAX: usize = 16;

fn keys() -> Keys {
    Keys {
        host: Secret::new(&[7; 32], None).unwrap(),
        controller: None,
    }
}

/// What the host is to do, and what has come of it, by the number of a controller.
#[derive(Default)]
struct Seen {
    /// So many controllers are to be connected, each by an authentication that brings a key.
    wanted: usize,
    /// These have a key, and do not come with it yet.
    waiting: BTreeSet<usize>,
    /// These are to come with it.
    go: BTreeSet<usize>,
    ready: BTreeSet<usize>,
    ended: BTreeMap<usize, String>,
    /// An I/O queue of the first controller is to be connected with the key of the second.
    cross: Option<(usize, usize)>,
    /// What has become of that queue.
    crossed: Option<Result<(), String>>,
}

struct Host {
    addr: SocketAddr,
    identity: HostIdentity,
    admins: Vec<Controller>,
    io: Option<QueuePair<()>>,
    seen: Rc<RefCell<Seen>>,
}

impl Host {
    fn options(&self) -> ControllerOptions {
        let policy = Policy {
            hashes: vec![Hash::Sha256],
            groups: vec![DhGroup::Ffdhe2048],
        };
        let mut auth = HostAuth::new(keys(), policy);
        auth.threads = false;
        auth.concatenate = true;
        let mut connect = ConnectOptions::admin(self.addr, nqn(), self.identity.clone());
        connect.auth = Some(auth);
        let mut options = ControllerOptions::new(connect);
        options.io_queues = 1;
        options.io_queue_size = 32;
        options
    }
}

impl Service for Host {
    type Message = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        let now = cx.now();
        cx.set_timer(now + MILLI, 0);
    }

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn on_timer(&mut self, _: u64, cx: &mut Context<'_>) {
        let at = cx.now() + MILLI;
        cx.set_timer(at, 0);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let (now, seen) = (cx.now(), Rc::clone(&self.seen));
        let seen = &mut *seen.borrow_mut();
        if self.admins.len() < seen.wanted {
            let options = self.options();
            let admin = Controller::connect(cx.net(), now, options).unwrap();
            self.admins.push(admin);
        }
        let mut progress = Progress::Idle;
        for (number, admin) in self.admins.iter_mut().enumerate() {
            progress = progress.or(admin.poll(now));
            if admin.is_to_connect_again() {
                seen.waiting.insert(number);
                if seen.go.remove(&number) {
                    admin.connect_again(cx.net(), now);
                    seen.waiting.remove(&number);
                }
            }
            while let Some(event) = admin.next_event() {
                match event {
                    ControllerEvent::Ready => drop(seen.ready.insert(number)),
                    ControllerEvent::Ended(error) => {
                        seen.ended.insert(number, error.to_string());
                    }
                    _ => {}
                }
            }
        }
        if let Some((of, with)) = seen.cross.take() {
            let mut options = self.admins[of].io_options(1);
            options.tls = self.admins[with].io_options(1).tls;
            assert!(options.tls.is_some() && options.tls != self.admins[of].io_options(1).tls);
            self.io = Some(QueuePair::connect(cx.net(), now, options).unwrap());
        }
        if let Some(io) = &mut self.io {
            match io.receive(now, false, &mut |_| {}) {
                Ok(_) if io.is_ready() => seen.crossed = Some(Ok(())),
                Ok(received) => progress = progress.or(received),
                Err(error) => {
                    seen.crossed = Some(Err(error.to_string()));
                    self.io = None;
                }
            }
        }
        progress
    }
}

/// A target where the host has to authenticate, and the host.
struct World {
    sim: Simulation,
    seen: Rc<RefCell<Seen>>,
    _wire: Sender<()>,
}

impl World {
    fn new() -> Self {
        let mut sim = Simulation::new(11);
        let [first, second] = [0; 2].map(|_| sim.add_reactor());
        let handle = target::install(&mut sim, &[first]);
        let addr = SocketAddr::from(([10, 0, 0, 1], 4420));
        set_up(&handle, &[], &[addr]);
        let identity = HostIdentity::random();
        let host = HostNqn::new(identity.nqn.as_str()).unwrap();
        let names = KeyNames {
            dhchap_key: "key0".into(),
            dhchap_ctrlr_key: None,
        };
        let keys = Some(HostKeys {
            keys: keys(),
            names,
        });
        let request = TargetRequest::add_host_with_keys(nqn(), host, keys);
        handle.request(request, |answer| answer.unwrap());
        let seen = Rc::<RefCell<Seen>>::default();
        let (wire, receiver) = mailbox(1);
        let service = Host {
            addr,
            identity,
            admins: Vec::new(),
            io: None,
            seen: Rc::clone(&seen),
        };
        sim.add_service(second, receiver, || service);
        sim.run_for(MILLI);
        Self {
            sim,
            seen,
            _wire: wire,
        }
    }

    /// So many controllers that have a key each, one after the other.
    fn with_keys(count: usize) -> Self {
        let mut w = Self::new();
        for number in 0..count {
            w.seen.borrow_mut().wanted += 1;
            w.until(|seen| seen.waiting.contains(&number));
        }
        w
    }

    fn until(&mut self, holds: impl Fn(&Seen) -> bool) {
        for _ in 0..20_000 {
            if holds(&self.seen.borrow()) {
                return;
            }
            self.sim.run_for(MILLI);
        }
        panic!("nothing comes of it: ended {:?}", self.seen.borrow().ended);
    }

    /// Has one come with its key: whether it gets in.
    fn claim(&mut self, number: usize) -> Result<(), String> {
        self.seen.borrow_mut().go.insert(number);
        self.until(|seen| seen.ready.contains(&number) || seen.ended.contains_key(&number));
        match self.seen.borrow().ended.get(&number) {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }
}

#[test]
fn a_key_that_nobody_comes_with_is_forgotten() {
    let mut w = World::with_keys(3);
    w.sim.run_for(CLAIM_TIMEOUT - 100 * MILLI);
    assert_eq!(w.claim(2), Ok(()));
    w.sim.run_for(200 * MILLI);
    for late in [0, 1] {
        let error = w.claim(late).unwrap_err();
        assert!(error.contains("TLS: the peer refuses"), "{error}");
    }
    // The one that was used in time is its controller's for as long as that is there.
    w.sim.run_for(CLAIM_TIMEOUT);
    assert!(w.seen.borrow().ended.keys().eq(&[0, 1]));
}

#[test]
fn of_too_many_keys_the_oldest_is_forgotten() {
    let mut w = World::with_keys(UNCLAIMED_MAX + 2);
    for oldest in [0, 1] {
        let error = w.claim(oldest).unwrap_err();
        assert!(error.contains("TLS: the peer refuses"), "{error}");
    }
    for number in 2..UNCLAIMED_MAX + 2 {
        assert_eq!(w.claim(number), Ok(()), "{number}");
    }
}

/// The host has two controllers, each with a key of its own.
#[test]
fn the_key_of_another_controller_opens_no_queue() {
    let mut w = World::with_keys(2);
    for number in [0, 1] {
        assert_eq!(w.claim(number), Ok(()));
    }
    w.seen.borrow_mut().cross = Some((0, 1));
    w.until(|seen| seen.crossed.is_some());
    let crossed = w.seen.borrow_mut().crossed.take();
    let error = crossed.unwrap().unwrap_err();
    assert!(error.contains("Connect Invalid Host"), "{error}");
    // Both controllers go on.
    w.sim.run_for(CLAIM_TIMEOUT);
    assert!(w.seen.borrow().ended.is_empty());
}
