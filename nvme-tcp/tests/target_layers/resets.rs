//! Cross-Controller Reset, and the end of a controller, where disks hold what a host has sent.

use std::time::Duration;

use pollux_nvme_tcp::spec::Sqe;
use pollux_nvme_tcp::spec::cross_controller_reset::Impacted;
use pollux_nvme_tcp::spec::fabrics::property;
use pollux_nvme_tcp::spec::log::event;
use pollux_nvme_tcp::spec::log::{GetLogPage, lid};
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::testing::Options;
use pollux_reactor::Time;
use serde_json::json;

use crate::world::{NQN, Queue, SLACK, World, bring, pattern, write};

const LONG: Duration = Duration::from_secs(2);

/// One namespace whose writes take a second, and one in memory.
fn world() -> World {
    let mut w = World::new(|world| {
        let base = world.malloc("Malloc0");
        let delayed = world.delay("Delay0", &base, 0, 1_000_000);
        let held = world.malloc("Malloc1");
        vec![delayed, world.error_disk(&held), world.malloc("Malloc2")]
    });
    w.call("nvmf_set_config", json!({"cqt_ms": 1000}));
    w
}

fn instance(queue: &mut Queue) -> Impacted {
    let id = queue.identify_controller();
    Impacted {
        icid: id.cntlid.get(),
        ciu: id.ciu,
        cirn: id.cirn.get(),
    }
}

/// The status of the command, and whether the reset was done at once.
fn reset(queue: &mut Queue, impacted: Impacted) -> (Status, bool) {
    let (cqe, _) = queue.command(impacted.to_sqe(), &[]);
    (cqe.status(), cqe.dw0() & 1 != 0)
}

/// Enables or disables a controller.
fn enable(admin: &mut Queue, enable: bool) {
    admin.property_set(property::CC, 0x0046_0000 | u32::from(enable));
}

/// Writes over what the other controller may have written, and sees that it stays.
fn overwrite(w: &mut World, io: &mut Queue, nsid: u32) {
    let newer = pattern(4096, 2);
    let (cqe, _) = io.command(write(nsid, 0, 8), &newer);
    assert_eq!(cqe.status(), Status::SUCCESS);
    w.sim.borrow_mut().run_for(LONG);
    assert!(io.read(nsid, 0, 8).unwrap() == newer, "namespace {nsid}");
}

#[test]
fn nothing_of_a_controller_executes_after_its_reset_was_answered() {
    let mut w = world();
    let (mut admin1, mut one) = w.connect(false);
    let mut two = w.io_queue(&admin1, 2);
    let (mut admin2, mut other) = w.connect(false);
    w.inject("EE_Malloc1", "write", "pending", json!({"num": 10}));
    let data = pattern(4096, 1);
    // Held by disks, on both reactors, and waiting for data that was asked for.
    for io in [&mut one, &mut two] {
        for nsid in [1, 2] {
            io.submit(write(nsid, 0, 8), &data);
        }
        io.submit(bring(nvm::WRITE, 3, 0, 64, false), &[]);
    }
    w.sim.borrow_mut().run_for(SLACK);
    let impacted = instance(&mut admin1);
    let start = w.now();
    assert_eq!(reset(&mut admin2, impacted), (Status::SUCCESS, true));
    assert!(w.now() - start < SLACK, "disks give up what they hold");
    // What arrives now is too late.
    one.submit(write(3, 0, 8), &data);
    w.call("bdev_error_resume_pending", json!({"name": "EE_Malloc1"}));
    w.inject("EE_Malloc1", "clear", "failure", json!({}));
    for nsid in [1, 2, 3] {
        overwrite(&mut w, &mut other, nsid);
    }
    for queue in [&admin1, &one, &two] {
        assert!(queue.stream.is_closed());
    }
    // It has ended, and that can be heard again.
    assert_eq!(reset(&mut admin2, impacted), (Status::SUCCESS, true));
    let controllers = w.call("nvmf_subsystem_get_controllers", json!({"nqn": NQN}));
    assert_eq!(controllers.as_array().unwrap().len(), 1);
}

#[test]
fn a_controller_that_its_host_has_left_is_known_to_have_ended() {
    let mut w = world();
    let (mut admin1, mut io) = w.connect(false);
    let (mut admin2, mut other) = w.connect(false);
    let impacted = instance(&mut admin1);
    io.submit(write(1, 0, 8), &pattern(4096, 1));
    w.sim.borrow_mut().run_for(SLACK);
    admin1.stream.close();
    w.sim.borrow_mut().run_for(SLACK);
    let (mut admin3, _io) = w.connect(false);
    let again = instance(&mut admin3);
    assert_ne!(again.cirn, impacted.cirn);
    assert_eq!(reset(&mut admin2, impacted), (Status::SUCCESS, true));
    assert_eq!(reset(&mut admin3, impacted), (Status::SUCCESS, true));
    overwrite(&mut w, &mut other, 1);
    assert_eq!(instance(&mut admin3), again, "it stays");
}

#[test]
fn what_is_no_other_controller_of_the_host_is_refused() {
    let mut w = world();
    let (mut admin1, mut io) = w.connect(false);
    w.host = "nqn.2014-08.org.example:other";
    let (mut stranger, _io) = w.connect(false);
    let own = instance(&mut stranger);
    let of_another = instance(&mut admin1);
    let unknown = Status::INVALID_CONTROLLER_ID.with_dnr();
    let rows = [
        (own, Status::INVALID_FIELD.with_dnr()),
        (of_another, unknown),
        (Impacted { icid: 4711, ..own }, unknown),
        (
            Impacted {
                cirn: own.cirn ^ 1,
                ..own
            },
            unknown,
        ),
        (
            Impacted {
                ciu: own.ciu ^ 1,
                ..own
            },
            unknown,
        ),
        (
            Impacted {
                icid: 0,
                ciu: 0,
                cirn: 0,
            },
            unknown,
        ),
    ];
    for (impacted, wanted) in rows {
        let (status, done) = reset(&mut stranger, impacted);
        assert_eq!((status, done), (wanted.with_more(), false), "{impacted:?}");
    }
    // Nor what has gone of another host.
    admin1.stream.close();
    w.sim.borrow_mut().run_for(SLACK);
    let (status, done) = reset(&mut stranger, of_another);
    assert_eq!((status, done), (unknown.with_more(), false));
    assert!(io.stream.is_closed(), "with its admin queue");
    assert_eq!(instance(&mut stranger), own);
    io = w.io_queue(&stranger, 2);
    overwrite(&mut w, &mut io, 3);
}

#[test]
fn an_instance_ends_when_the_controller_is_disabled() {
    let mut w = world();
    let (mut admin1, mut io) = w.connect(false);
    let (mut admin2, mut other) = w.connect(false);
    let before = instance(&mut admin1);
    io.submit(write(1, 0, 8), &pattern(4096, 1));
    w.sim.borrow_mut().run_for(SLACK);
    enable(&mut admin1, false);
    assert_eq!(reset(&mut admin2, before), (Status::SUCCESS, true));
    enable(&mut admin1, true);
    let after = instance(&mut admin1);
    assert_ne!((after.ciu, after.cirn), (before.ciu, before.cirn));
    assert!(after.ciu != 0 && after.cirn != 0);
    assert_eq!(reset(&mut admin2, before), (Status::SUCCESS, true));
    overwrite(&mut w, &mut other, 1);
    assert!(!admin1.stream.is_closed());
    assert_eq!(reset(&mut admin2, after), (Status::SUCCESS, true));
    w.sim.borrow_mut().run_for(SLACK);
    assert!(admin1.stream.is_closed());
}

/// What a target without a CQT says of it: nothing. A controller goes on with what it has said.
#[test]
fn a_target_says_what_it_keeps() {
    let mut w = World::new(|world| vec![world.malloc("Malloc0")]);
    let said = |admin: &mut Queue| {
        let id = admin.identify_controller();
        let announces = id.oaes.get() & event::ENABLE_CROSS_CONTROLLER_RESET != 0;
        let is_named = (id.ciu != 0, id.cirn.get() != 0);
        let pages = admin.log_page(GetLogPage::new(lid::SUPPORTED_LOG_PAGES, 0, 1024));
        let has_log = pages.unwrap()[usize::from(lid::CROSS_CONTROLLER_RESET) * 4] != 0;
        assert_eq!((is_named.0, announces), (is_named.1, has_log));
        assert_eq!(is_named.0, announces);
        (id.cqt.get(), id.ccrl, announces)
    };
    let log = GetLogPage::new(lid::CROSS_CONTROLLER_RESET, 0, 4096);
    let nobody = Impacted {
        icid: 9,
        ciu: 9,
        cirn: 9,
    };
    for (ms, ccrl) in [(0, 0), (250, 4), (0, 0)] {
        w.call("nvmf_set_config", json!({"cqt_ms": ms}));
        let (mut admin, _io) = w.connect(false);
        w.call("nvmf_set_config", json!({"cqt_ms": 250 - ms}));
        assert_eq!(said(&mut admin), (ms, ccrl, ms > 0));
        let wanted = match ms {
            0 => Status::INVALID_OPCODE,
            _ => Status::INVALID_CONTROLLER_ID,
        };
        let (status, _) = reset(&mut admin, nobody);
        assert_eq!(status, wanted.with_dnr().with_more());
        assert_eq!(admin.log_page(log).is_ok(), ms > 0);
    }
    w.call(
        "nvmf_set_config",
        json!({"cqt_ms": 65_535, "dup_host_policy": "restrict_per_listener"}),
    );
    let saved = w.config().to_string();
    for part in [
        "nvmf_set_config",
        "\"cqt_ms\":65535",
        "\"dup_host_policy\":\"restrict_per_listener\"",
    ] {
        assert!(saved.contains(part), "{saved}");
    }
    // What SPDK's target saves.
    let of_spdk = json!({
        "discovery_filter": "match_any",
        "admin_cmd_passthru": {"identify_ctrlr": false},
        "dhchap_digests": ["sha256"],
        "dup_host_policy": "allow",
    });
    w.call("nvmf_set_config", of_spdk);
    let refused = [
        json!({"cqt_ms": 65_536}),
        json!({"dup_host_policy": "never"}),
        json!({"discovery_filter": "address"}),
        json!({"discovery_filters": ["match_any", "transport"]}),
        json!({"admin_cmd_passthru": {"get_log_page": true}}),
        json!({"cqt": 1}),
    ];
    for params in refused {
        assert_eq!(w.error("nvmf_set_config", params).0, -32602);
    }
    let (mut admin, _io) = w.connect(false);
    assert_eq!(said(&mut admin).0, 65_535);
}

#[test]
fn a_host_has_one_controller_by_a_listener_where_that_is_wanted() {
    let mut w = world();
    w.call(
        "nvmf_set_config",
        json!({"dup_host_policy": "restrict_per_listener"}),
    );
    let (admin, _io) = w.connect(false);
    assert_eq!(w.try_connect(), Status::CONNECT_CONTROLLER_BUSY);
    w.host = "nqn.2014-08.org.example:other";
    assert_eq!(w.try_connect(), Status::SUCCESS);
    w.host = "nqn.2014-08.org.example:third";
    admin.stream.close();
    let _twin = w.connect(false);
    w.call("nvmf_set_config", json!({"dup_host_policy": "allow"}));
    assert_eq!(w.try_connect(), Status::SUCCESS);
}

fn keep_alive(admin: &mut Queue) {
    let (cqe, _) = admin.command(Sqe::new(admin::KEEP_ALIVE, 0), &[]);
    assert_eq!(cqe.status(), Status::SUCCESS);
}

/// Both reactors end the queues of a host that is not heard of; which commands it sends beside Keep Alive does not count,
/// nor does another CQT that was set after the host was told of this one.
#[test]
fn a_controller_is_served_for_its_keep_alive_timeout_and_a_quarter_of_cqt() {
    for later in [1000, 0, 60_000] {
        served_for_its_time(later);
    }
}

fn served_for_its_time(later: u16) {
    const SECOND: Duration = Duration::from_secs(1);
    let mut w = world();
    let options = Options {
        kato_ms: 900,
        ..Options::default()
    };
    let (mut admin, mut io) = w.connect_as(options);
    let mut two = w.io_queue(&admin, 2);
    w.call("nvmf_set_config", json!({"cqt_ms": later}));
    let until = |w: &World, at: Time| {
        let left = at - w.now();
        w.sim.borrow_mut().run_for(left);
    };
    let start = w.now();
    until(&w, start + SECOND);
    keep_alive(&mut admin);
    let heard = w.now();
    let (status, _) = w.timed(&mut io, write(3, 0, 8), &pattern(4096, 1));
    assert_eq!(status, Status::SUCCESS);
    // KATO is rounded up to a second.
    let served = SECOND + Duration::from_millis(250);
    until(&w, heard + (served - Duration::from_millis(2)));
    admin.identify_controller();
    for io in [&mut io, &mut two] {
        assert_eq!(
            w.timed(io, write(3, 0, 8), &pattern(4096, 2)).0,
            Status::SUCCESS
        );
    }
    until(&w, heard + served + Duration::from_millis(1));
    for queue in [&admin, &io, &two] {
        assert!(queue.stream.is_closed());
    }
}

/// A reactor that has stood still, be it the one with the controllers or another one, executes nothing that came in the
/// meantime, and a Keep Alive that waited in a socket is no sign of life. The others do not wait for it.
#[test]
fn a_reactor_that_stood_still_serves_nobody_whose_time_is_over() {
    for still in [0, 1] {
        let mut w = world();
        let options = Options {
            kato_ms: 1000,
            ..Options::default()
        };
        let (mut admin, one) = w.connect_as(options);
        let two = w.io_queue(&admin, 2);
        let mut queues = [one, two];
        let run = |w: &World, ms| w.sim.borrow_mut().run_for(Duration::from_millis(ms));
        w.sim
            .borrow_mut()
            .stand_still(still, Duration::from_secs(5));
        queues[still].submit(write(3, 0, 8), &pattern(4096, 1));
        admin.submit(Sqe::new(admin::KEEP_ALIVE, 0), &[]);
        run(&w, 1300);
        assert!(queues[1 - still].stream.is_closed());
        assert!(!queues[still].stream.is_closed());
        run(&w, 5000);
        for queue in queues.iter().chain([&admin]) {
            assert!(queue.stream.is_closed());
        }
        let (_admin, mut other) = w.connect(false);
        assert_eq!(other.read(3, 0, 8).unwrap(), [0; 4096]);
    }
}
