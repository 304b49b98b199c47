//! Namespaces that not every host sees.

use std::time::Duration;

use pollux_nvme_tcp::spec::features::fid;
use pollux_nvme_tcp::spec::identify::{NamespaceList, cns};
use pollux_nvme_tcp::spec::log::{AnaState, GetLogPage, lid};
use pollux_nvme_tcp::spec::opcode::{FABRICS, admin, nvm};
use pollux_nvme_tcp::spec::sqe::NSID_ALL;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{HostNqn, Nqn, SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{
    Backend, FileEngine, NamespaceConfig, Removed, TargetError, TargetRequest,
};
use pollux_nvme_tcp::testing::{Initiator, ManagedTarget, NQN, Options, TestTarget, nqn, pattern};
use pollux_reactor::rpc::Config;
use serde_json::json;
use zerocopy::FromBytes;

use crate::ana::{ana_log, set};
use crate::layers::PARKED;
use crate::removals::{Freezer, Frozen, MIB};

const GUEST: &str = "nqn.2014-08.org.example:guest";
const OWNER: &str = "nqn.2014-08.org.example:owner";

/// The namespace that not everybody sees, and one that nobody has.
const HIDDEN: u32 = 2;
const ABSENT: u32 = 3;

fn host(name: &str) -> HostNqn {
    HostNqn::new(name).unwrap()
}

/// Admin queue and I/O queue 1 of a host of this name.
fn connect(target: &TestTarget, name: &str) -> (Initiator, Initiator) {
    let nqn: Nqn = name.parse().unwrap();
    let options = Options::default();
    let queue = || {
        let mut queue = Initiator::initialized(target.addr, options);
        queue.hostnqn = nqn.clone();
        queue
    };
    let (mut admin, mut io) = (queue(), queue());
    admin.enable(&target.nqn, options);
    io.join(&target.nqn, admin.cntlid, 1, 128, options);
    (admin, io)
}

/// A target with a namespace that everybody sees and one that nobody does.
fn start(hidden: Backend) -> TestTarget {
    let target = TestTarget::start(2, &[Backend::Memory { bytes: MIB }]);
    let mut namespace = NamespaceConfig::new(hidden, 512);
    namespace.auto_visible = false;
    let add = TargetRequest::add_namespace(target.nqn.clone(), Some(HIDDEN), namespace);
    assert_eq!(target.handle.call(add), Ok(HIDDEN));
    target
}

fn show(target: &TestTarget, name: &str) {
    let show = TargetRequest::show_namespace(target.nqn.clone(), HIDDEN, host(name));
    target.handle.call(show).unwrap();
}

fn hiding(target: &TestTarget, name: &str) -> TargetRequest<Removed> {
    TargetRequest::hide_namespace(target.nqn.clone(), HIDDEN, host(name))
}

fn active(admin: &mut Initiator) -> Vec<u32> {
    let list = |structure, admin: &mut Initiator| {
        let data = admin.identify(structure, 0).unwrap();
        let list = NamespaceList::read_from_bytes(&data).unwrap();
        list.iter().collect::<Vec<u32>>()
    };
    let nsids = list(cns::ACTIVE_NAMESPACE_LIST, admin);
    assert_eq!(list(cns::ACTIVE_NAMESPACE_LIST_CSI, admin), nsids);
    nsids
}

fn request_event(admin: &mut Initiator) -> u16 {
    admin.submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[])
}

/// The answer to an event request is a change of namespaces; these.
fn changed(admin: &mut Initiator, event: u16) -> Vec<u32> {
    let (cqe, _) = admin.finish(event, &[]);
    assert_eq!(cqe.dw0(), 0x0004_0002);
    changed_list(admin)
}

fn changed_list(admin: &mut Initiator) -> Vec<u32> {
    let get = GetLogPage::new(lid::CHANGED_NAMESPACE_LIST, 0, 4096);
    let log = admin.log_page(get).unwrap();
    let list = NamespaceList::read_from_bytes(&log).unwrap();
    list.iter().collect()
}

/// What a command is answered with: its status and its data.
fn answer(queue: &mut Initiator, mut sqe: Sqe, nsid: u32) -> (Status, Vec<u8>) {
    sqe.nsid = nsid.into();
    let (cqe, data) = queue.command(sqe, &[0; 512]);
    (cqe.status(), data)
}

/// Whatever a host asks for: a namespace that is hidden from it is answered for as one that is not there.
#[test]
fn a_host_that_guesses_the_identifier_learns_nothing() {
    let target = start(Backend::Memory { bytes: MIB });
    show(&target, OWNER);
    let (mut owner_admin, mut owner) = connect(&target, OWNER);
    assert_eq!(active(&mut owner_admin), [1, HIDDEN]);
    let data = pattern(4096, 1);
    assert!(owner.write(HIDDEN, 0, &data).is_success());

    let (mut guest_admin, mut guest) = connect(&target, GUEST);
    assert_eq!(active(&mut guest_admin), [1]);
    let mut refused = 0;
    for opcode in (0..=u8::MAX).filter(|&opcode| opcode != FABRICS) {
        let mut sqe = Sqe::for_blocks(opcode, 0, 0, 1);
        sqe.sgl = match opcode & 3 {
            1 | 3 => SglDescriptor::in_capsule(0, 512),
            _ => SglDescriptor::transport(512),
        };
        let found = answer(&mut guest, sqe, HIDDEN);
        assert_eq!(found, answer(&mut guest, sqe, ABSENT), "opcode {opcode:#x}");
        assert!(!found.0.is_success() && found.1.is_empty());
        refused += usize::from(found.0 == Status::INVALID_NAMESPACE.with_dnr());
    }
    assert!(refused >= 5, "read, write, flush and others: {refused}");
    // Everything that it sees, and nothing else.
    let flush = Sqe::new(nvm::FLUSH, NSID_ALL);
    assert!(guest.command(flush, &[]).0.status().is_success());

    for structure in 0..=u8::MAX {
        let mut found = guest_admin.identify(structure, HIDDEN);
        let mut absent = guest_admin.identify(structure, ABSENT);
        // Lists begin above the identifier that they are asked for.
        if [cns::ACTIVE_NAMESPACE_LIST, cns::ACTIVE_NAMESPACE_LIST_CSI].contains(&structure) {
            (found, absent) = (guest_admin.identify(structure, 1), Ok(vec![0; 4096]));
        }
        assert_eq!(found, absent, "CNS {structure:#x}");
    }
    assert_eq!(
        guest_admin.identify(cns::NAMESPACE, HIDDEN),
        Ok(vec![0; 4096])
    );
    for feature in 0..=u8::MAX {
        let mut sqe = Sqe::new(admin::GET_FEATURES, 0);
        sqe.cdw10 = u32::from(feature).into();
        if [fid::HOST_IDENTIFIER, fid::HOST_BEHAVIOR_SUPPORT].contains(&feature) {
            continue;
        }
        let found = answer(&mut guest_admin, sqe, HIDDEN);
        assert_eq!(found, answer(&mut guest_admin, sqe, ABSENT), "{feature:#x}");
    }
    let (_, groups) = ana_log(&mut guest_admin);
    assert_eq!(groups, [(1, AnaState::OPTIMIZED, vec![1])]);
    let groups = ana_log(&mut owner_admin).1;
    assert_eq!(groups[1], (2, AnaState::OPTIMIZED, vec![HIDDEN]));
    assert_eq!(owner.read(HIDDEN, 0, 8).unwrap(), data, "it is as it was");
}

/// What becomes of a namespace is told to those who see it.
#[test]
fn no_event_tells_of_what_is_hidden() {
    let target = start(Backend::Memory { bytes: MIB });
    show(&target, OWNER);
    let (mut owner, _owner_io) = connect(&target, OWNER);
    let (mut guest, _guest_io) = connect(&target, GUEST);
    let guest_event = request_event(&mut guest);
    let silent = |guest: &mut Initiator| {
        // An event would be answered first.
        guest.identify(cns::CONTROLLER, 0).unwrap();
    };
    let nqn = || target.nqn.clone();

    let event = request_event(&mut owner);
    let resize = TargetRequest::resize_namespace(nqn(), HIDDEN, 2 * MIB);
    target.handle.call(resize).unwrap();
    assert_eq!(changed(&mut owner, event), [HIDDEN]);
    silent(&mut guest);

    let event = request_event(&mut owner);
    set(&target, target.addr, Some(HIDDEN), AnaState::NON_OPTIMIZED);
    assert_eq!(owner.finish(event, &[]).0.dw0(), 0x000c_0302);
    ana_log(&mut owner);
    silent(&mut guest);

    let events = [request_event(&mut owner), request_event(&mut owner)];
    let group = TargetRequest::set_namespace_ana_group(nqn(), HIDDEN, 9);
    target.handle.call(group).unwrap();
    let told = events.map(|event| owner.finish(event, &[]).0.dw0());
    assert_eq!(told, [0x0004_0002, 0x000c_0302]);
    assert_eq!(changed_list(&mut owner), [HIDDEN]);
    silent(&mut guest);

    let event = request_event(&mut owner);
    let remove = TargetRequest::remove_namespace(nqn(), HIDDEN);
    assert_eq!(target.handle.call(remove), Ok(Removed));
    assert_eq!(changed(&mut owner, event), [HIDDEN]);
    silent(&mut guest);

    // The group that the guest is in is another matter.
    set(&target, target.addr, Some(1), AnaState::NON_OPTIMIZED);
    assert_eq!(guest.finish(guest_event, &[]).0.dw0(), 0x000c_0302);
}

/// Hosts that are connected hear that a namespace has come or gone for them; others hear nothing.
#[test]
fn a_namespace_comes_and_goes_for_a_host_that_is_connected() {
    let target = start(Backend::Memory { bytes: MIB });
    let (mut owner_admin, mut owner) = connect(&target, OWNER);
    let (mut guest_admin, mut guest) = connect(&target, GUEST);
    let gone = Status::INVALID_NAMESPACE.with_dnr();
    let other_event = request_event(&mut guest_admin);
    for round in 0..3 {
        let event = request_event(&mut owner_admin);
        show(&target, OWNER);
        assert_eq!(changed(&mut owner_admin, event), [HIDDEN]);
        assert_eq!(active(&mut owner_admin), [1, HIDDEN]);
        let data = pattern(512, round);
        assert!(owner.write(HIDDEN, round, &data).is_success());
        // Nothing has changed, so nothing is told.
        let event = request_event(&mut owner_admin);
        show(&target, OWNER);
        assert_eq!(active(&mut owner_admin), [1, HIDDEN]);
        assert_eq!(target.handle.call(hiding(&target, OWNER)), Ok(Removed));
        assert_eq!(changed(&mut owner_admin, event), [HIDDEN]);
        assert_eq!(active(&mut owner_admin), [1]);
        assert_eq!(owner.read(HIDDEN, 0, 1), Err(gone));
        assert!(owner.read(1, 0, 1).is_ok(), "the other one stays");
        assert_eq!(guest.read(HIDDEN, 0, 1), Err(gone));
    }
    let event = request_event(&mut owner_admin);
    assert_eq!(target.handle.call(hiding(&target, OWNER)), Ok(Removed));
    assert_eq!(active(&mut owner_admin), [1]);
    show(&target, GUEST);
    assert_eq!(changed(&mut guest_admin, other_event), [HIDDEN]);
    assert!(guest.read(HIDDEN, 2, 1).unwrap() == pattern(512, 2));
    assert_eq!(active(&mut owner_admin), [1]);
    let hosts = target.status().subsystems[0].namespaces[1].hosts.clone();
    assert_eq!(hosts, Some(vec![host(GUEST)]));
    drop((event, owner_admin));

    let visible = TargetRequest::show_namespace(target.nqn.clone(), 1, host(OWNER));
    let error = target.handle.call(visible).unwrap_err();
    assert!(error.to_string().contains("no_auto_visible"), "{error}");
    let absent = TargetRequest::hide_namespace(target.nqn.clone(), ABSENT, host(OWNER));
    let error = target.handle.call(absent).unwrap_err();
    assert_eq!(error, TargetError::NoSuchNamespace(ABSENT));
}

/// What is with a disk that can let go of it is cancelled, for the host that no longer sees it alone.
#[test]
fn what_is_in_flight_for_a_host_ends_when_the_namespace_is_hidden_from_it() {
    let mut t = ManagedTarget::start(PARKED, Config::default());
    t.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    t.call(
        "nvmf_create_subsystem",
        json!({"nqn": NQN, "allow_any_host": true}),
    );
    let disk = json!({"name": "Malloc0", "num_blocks": 2048, "block_size": 512});
    t.call("bdev_malloc_create", disk);
    t.call("bdev_error_create", json!({"base_name": "Malloc0"}));
    let namespace = json!({"bdev_name": "EE_Malloc0", "nsid": HIDDEN, "no_auto_visible": true});
    t.call(
        "nvmf_subsystem_add_ns",
        json!({"nqn": NQN, "namespace": namespace}),
    );
    let addr = t.listen();
    let mut hosts = Vec::new();
    for name in [OWNER, GUEST] {
        let add = json!({"nqn": NQN, "nsid": HIDDEN, "host": name});
        assert_eq!(t.call("nvmf_ns_add_host", add), true);
        let options = Options::default();
        let queue = || {
            let mut queue = Initiator::initialized(addr, options);
            queue.hostnqn = name.parse().unwrap();
            queue
        };
        let (mut admin, mut io) = (queue(), queue());
        admin.enable(&nqn(), options);
        io.join(&nqn(), admin.cntlid, 1, 128, options);
        hosts.push((admin, io));
    }
    t.call(
        "bdev_error_inject_error",
        json!({"name": "EE_Malloc0", "io_type": "read", "error_type": "pending", "num": 2}),
    );
    let mut read = Sqe::for_blocks(nvm::READ, HIDDEN, 0, 8);
    read.sgl = SglDescriptor::transport(4096);
    let held: Vec<u16> = hosts.iter_mut().map(|h| h.1.submit(read, &[])).collect();
    for (_, io) in &mut hosts {
        // Behind the read on its connection, so that the disk has it.
        let flush = io.submit(Sqe::new(nvm::FLUSH, HIDDEN), &[]);
        assert!(io.finish(flush, &[]).0.status().is_success());
    }
    let remove = json!({"nqn": NQN, "nsid": HIDDEN, "host": OWNER});
    assert_eq!(t.call("nvmf_ns_remove_host", remove), true);
    let (cqe, _) = hosts[0].1.finish(held[0], &[]);
    assert_eq!(cqe.status(), Status::INVALID_NAMESPACE.with_dnr());
    t.call("bdev_error_resume_pending", json!({"name": "EE_Malloc0"}));
    let (cqe, data) = hosts[1].1.finish(held[1], &[]);
    assert_eq!((cqe.status(), data.len()), (Status::SUCCESS, 4096));
}

/// What a disk cannot let go of is waited for: afterwards nothing of that host's can execute.
#[test]
fn hiding_waits_for_what_cannot_be_cancelled() {
    let Some(freezer) = Freezer::new("masking") else {
        eprintln!("no file system of its own for this user: not tested");
        return;
    };
    let target = start(Backend::File {
        path: freezer.file(),
        bytes: None,
        shared: false,
        engine: FileEngine::Auto,
    });
    show(&target, OWNER);
    let (_admin, mut io) = connect(&target, OWNER);
    freezer.freeze();
    let frozen = Frozen(&freezer);
    let mut write = Sqe::for_blocks(nvm::WRITE, HIDDEN, 0, 1);
    write.sgl = SglDescriptor::in_capsule(0, 512);
    let open = io.submit(write, &pattern(512, 1));
    while !freezer.has_caller() {
        std::thread::yield_now();
    }
    // Another host's view is not waited for.
    assert_eq!(target.handle.call(hiding(&target, GUEST)), Ok(Removed));
    let limit = Duration::from_millis(20);
    let late = target.handle.call(hiding(&target, OWNER).within(limit));
    assert_eq!(late, Err(TargetError::Timeout));
    drop(frozen);
    assert_eq!(target.handle.call(hiding(&target, OWNER)), Ok(Removed));
    // What had begun was done.
    assert!(io.finish(open, &[]).0.status().is_success());
    assert_eq!(
        io.read(HIDDEN, 0, 1),
        Err(Status::INVALID_NAMESPACE.with_dnr())
    );
}
