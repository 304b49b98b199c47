//! Handshake, Connect and commands on admin queues.

use std::collections::BTreeSet;

use pollux_nvme_tcp::spec::fabrics::{
    CNTLID_DYNAMIC, ConnectCommand, ConnectData, PropertyGet, cattr, property,
};
use pollux_nvme_tcp::spec::features::{NumberOfQueues, fid};
use pollux_nvme_tcp::spec::identify::{
    IdentifyNamespace, NamespaceList, cns, ctrl, descriptor_type, namespace_id_descriptors,
};
use pollux_nvme_tcp::spec::log::{
    DiscoveryLogEntry, DiscoveryLogHeader, ErrorLogEntry, FirmwareSlotLog, GetLogPage, SmartLog,
    lid,
};
use pollux_nvme_tcp::spec::opcode::admin;
use pollux_nvme_tcp::spec::registers::{Cap, Vs};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Nqn, SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{Backend, Referral, TargetRequest};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, host_nqn, pattern, wait_for};
use zerocopy::{FromBytes, IntoBytes};

fn start() -> TestTarget {
    TestTarget::start(2, &[Backend::Memory { bytes: 1 << 20 }])
}

fn admin(target: &TestTarget) -> Initiator {
    Initiator::admin(target.addr, &target.nqn, Options::default())
}

#[test]
fn registers_say_what_the_controller_is() {
    let target = start();
    let mut host = Initiator::initialized(target.addr, Options::default());
    assert!(host.max_data >= 128 * 1024);
    let options = Options {
        cattr: cattr::DISABLE_SQ_FLOW_CONTROL,
        ..Options::default()
    };
    let cqe = host.connect(0, 32, CNTLID_DYNAMIC, &target.nqn, options);
    assert_eq!((cqe.status(), cqe.dw0()), (Status::SUCCESS, 1));
    assert_eq!(cqe.sqhd.get(), 0xffff);
    let cap = Cap::from_bits(host.property_get(property::CAP, property::SIZE_8));
    assert_eq!(cap.mqes_z(), 1023);
    assert_eq!(cap.css() & Cap::CSS_NVM, Cap::CSS_NVM);
    let version = host.property_get(property::VS, property::SIZE_4);
    assert_eq!(version, u64::from(Vs::V1_4.into_bits()));
    // Not enabled yet.
    assert_eq!(
        host.identify(cns::CONTROLLER, 0).unwrap_err().code(),
        Status::COMMAND_SEQUENCE_ERROR
    );
    assert_eq!(host.property_get(property::CSTS, property::SIZE_4), 0);
    host.property_set(property::CC, 0x0046_0061);
    assert_eq!(host.property_get(property::CSTS, property::SIZE_4), 1);
    assert_eq!(
        host.property_get(property::CC, property::SIZE_4),
        0x0046_0061
    );
    host.property_set(property::CC, 0x0046_4061);
    assert_eq!(host.property_get(property::CSTS, property::SIZE_4), 0b1001);
    host.property_set(property::CC, 0);
    assert_eq!(host.property_get(property::CSTS, property::SIZE_4), 0);
    // Entry sizes that nobody has.
    host.property_set(property::CC, 1);
    assert_eq!(host.property_get(property::CSTS, property::SIZE_4), 0b10);
}

#[test]
fn connect_names_the_bad_field() {
    let target = start();
    let owner = admin(&target);
    let other: Nqn = "nqn.2014-08.org.example:other".parse().unwrap();
    let in_data = 1 << 16;
    let dynamic = CNTLID_DYNAMIC;
    let cases = [
        // qid, entries, cntlid, nqn, expected status, expected result
        (0, 32, dynamic, &other, 0x82, in_data | 256),
        (0, 32, 5, &target.nqn, 0x82, in_data | 16),
        (0, 1, dynamic, &target.nqn, 0x82, 44),
        (0, 2000, dynamic, &target.nqn, 0x82, 44),
        (1, 32, 999, &target.nqn, 0x82, in_data | 16),
        (1000, 32, owner.cntlid, &target.nqn, 0x82, 42),
    ];
    let mut host = Initiator::initialized(target.addr, Options::default());
    for (qid, entries, cntlid, nqn, sc, result) in cases {
        let cqe = host.connect(qid, entries, cntlid, nqn, Options::default());
        assert_eq!(cqe.status(), Status::new(1, sc).with_dnr());
        assert_eq!(cqe.dw0(), result);
    }
    // The connection can still become something.
    let cqe = host.connect(1, 32, owner.cntlid, &target.nqn, Options::default());
    assert_eq!(cqe.status(), Status::SUCCESS);
    let mut twin = Initiator::initialized(target.addr, Options::default());
    let cqe = twin.connect(1, 32, owner.cntlid, &target.nqn, Options::default());
    assert_eq!(cqe.status(), Status::COMMAND_SEQUENCE_ERROR.with_dnr());
    // The queue identifier is free again once its connection is closed.
    drop(host);
    wait_for("the queue's end", || {
        let cqe = twin.connect(1, 32, owner.cntlid, &target.nqn, Options::default());
        cqe.status().is_success()
    });
}

#[test]
fn hosts_that_are_not_allowed_are_refused() {
    let target = start();
    let allow = |allow| {
        let nqn = target.nqn.clone();
        let request = TargetRequest::allow_any_host(nqn, allow);
        target.handle.call(request).unwrap();
    };
    allow(false);
    let mut host = Initiator::initialized(target.addr, Options::default());
    let cqe = host.connect(0, 32, CNTLID_DYNAMIC, &target.nqn, Options::default());
    assert_eq!(cqe.status(), Status::CONNECT_INVALID_HOST.with_dnr());
    let nqn = target.nqn.clone();
    let add = TargetRequest::add_host(nqn.clone(), pollux_nvme_tcp::testing::host_nqn().into());
    target.handle.call(add).unwrap();
    let mut host = admin(&target);
    assert!(host.identify(cns::CONTROLLER, 0).is_ok());
    let remove = TargetRequest::remove_host(nqn, pollux_nvme_tcp::testing::host_nqn().into());
    target.handle.call(remove).unwrap();
    assert!(host.try_receive().is_none());
    assert!(target.status().subsystems[0].controllers.is_empty());
}

/// SPDK's tools send no name at all, and others what is no NQN.
#[test]
fn where_any_host_is_allowed_its_name_may_be_anything() {
    let target = start();
    let connect = |name: &[u8], hostid: u8, qid: u16, cntlid: u16| {
        let mut host = Initiator::initialized(target.addr, Options::default());
        let mut data = ConnectData::new([hostid; 16], cntlid, &target.nqn, &host_nqn());
        data.hostnqn = [0; 256];
        data.hostnqn[..name.len()].copy_from_slice(name);
        let command = ConnectCommand::new(qid, 32, 0, 0);
        let cqe = host.command(command.into(), data.as_bytes()).0;
        (host, cqe)
    };
    let longest = [b'x'; 223];
    let names: [&[u8]; 5] = [
        b"",
        b"iqn.1993-08.org.debian:01:a",
        b"host",
        "zwei W\u{f6}rter".as_bytes(),
        &longest,
    ];
    let mut hosts = Vec::new();
    for name in names {
        let (mut host, cqe) = connect(name, 7, 0, CNTLID_DYNAMIC);
        assert_eq!(cqe.status(), Status::SUCCESS, "{name:?}");
        host.property_set(property::CC, 0x0046_0001);
        let cntlid = u16::try_from(cqe.dw0()).unwrap();
        let (mut io, cqe) = connect(name, 7, 1, cntlid);
        assert_eq!(cqe.status(), Status::SUCCESS, "{name:?}");
        assert!(io.read(1, 0, 1).is_ok());
        hosts.push((host, io, cntlid));
    }
    let status = target.status();
    let shown = status.subsystems[0].controllers.iter();
    let shown: BTreeSet<&[u8]> = shown.map(|c| c.hostnqn.as_str().as_bytes()).collect();
    assert_eq!(shown, BTreeSet::from(names));
    assert_eq!(status.refused_connects, 0);
    // Those without a name are told apart by their host identifiers.
    let nameless = hosts[0].2;
    let (_host, cqe) = connect(b"", 8, 2, nameless);
    assert_eq!(cqe.status(), Status::CONNECT_INVALID_PARAMETERS.with_dnr());
    assert_eq!(target.status().refused_connects, 1);
    // Where hosts are listed, any name but none can be.
    let (nqn, allow) = (target.nqn.clone(), false);
    let request = TargetRequest::allow_any_host(nqn, allow);
    target.handle.call(request).unwrap();
    let request = TargetRequest::add_host(target.nqn.clone(), "host".parse().unwrap());
    target.handle.call(request).unwrap();
    for (name, status) in [
        (names[2], Status::SUCCESS),
        (names[0], Status::CONNECT_INVALID_HOST.with_dnr()),
        (names[3], Status::CONNECT_INVALID_HOST.with_dnr()),
    ] {
        let (_host, cqe) = connect(name, 7, 0, CNTLID_DYNAMIC);
        assert_eq!(cqe.status(), status, "{name:?}");
    }
}

/// SPDK's hosts end their event requests for themselves at a detach, and use the identifiers for its commands.
#[test]
fn a_newer_command_takes_the_identifier_of_an_event_request() {
    let target = start();
    let mut host = admin(&target);
    let send = |host: &mut Initiator, mut sqe: Sqe, cid: u16| {
        sqe.cid = cid.into();
        let mut out = Vec::new();
        host.put_capsule(&mut out, sqe, &[]);
        host.send_raw(&out);
    };
    let request = Sqe::new(admin::ASYNC_EVENT_REQUEST, 0);
    for round in 0..3 {
        for cid in 0..4 {
            send(&mut host, request, cid);
        }
        // The orderly shutdown of a host that has forgotten them.
        for (cid, offset) in [(0, property::CC), (1, property::CSTS), (0, property::VS)] {
            let get = PropertyGet::new(offset, property::SIZE_4);
            send(&mut host, get.into(), cid);
            let (cqe, _) = host.finish(cid, &[]);
            assert_eq!(cqe.status(), Status::SUCCESS, "round {round}");
        }
        let mut identify = Sqe::new(admin::IDENTIFY, 0);
        identify.cdw10 = u32::from(cns::CONTROLLER).into();
        identify.sgl = SglDescriptor::transport(4096);
        send(&mut host, identify, 2);
        let (cqe, data) = host.finish(2, &[]);
        assert_eq!((cqe.status(), data.len()), (Status::SUCCESS, 4096));
    }
    // Number 3 is still outstanding, and was so all the time: one event comes, and it comes there.
    let request = TargetRequest::remove_namespace(target.nqn.clone(), 1);
    target.handle.call(request).unwrap();
    assert_eq!(host.finish(3, &[]).0.status(), Status::SUCCESS);
    // There is room for four again, and no more.
    for cid in 10..15 {
        send(&mut host, Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), cid);
    }
    let (cqe, _) = host.finish(14, &[]);
    assert_eq!(cqe.status().code(), Status::AER_LIMIT_EXCEEDED);
}

#[test]
fn identify_has_every_form_that_hosts_use() {
    let target = start();
    let mut host = admin(&target);
    let id = host.identify_controller();
    assert_eq!(id.cntlid.get(), host.cntlid);
    assert_eq!(id.subnqn().unwrap(), target.nqn);
    assert_eq!(id.cmic, 0b1011);
    assert_eq!((id.anatt, id.anacap), (10, 0x1f));
    assert_eq!((id.anagrpmax.get(), id.nanagrpid.get()), (128, 128));
    assert_eq!(id.in_capsule_data_len(), 8192);
    assert_eq!(id.max_transfer_len(0), Some(1 << 20));
    assert_eq!((id.aerl_z, id.kas.get()), (3, 10));
    assert_eq!(id.oaes.get(), 0x10_0900);
    assert_eq!(id.oncs.get(), ctrl::ONCS_COMPARE | 0xc);

    let data = host.identify(cns::NAMESPACE, 1).unwrap();
    let namespace = IdentifyNamespace::read_from_bytes(&data).unwrap();
    assert_eq!(namespace.nsze.get(), 2048);
    assert_eq!(namespace.nuse.get(), 2048);
    assert_eq!(namespace.block_size(), Some(512));
    assert_eq!(namespace.anagrpid.get(), 1);
    // Absent, but valid.
    assert_eq!(host.identify(cns::NAMESPACE, 9).unwrap(), [0; 4096]);

    for structure in [cns::ACTIVE_NAMESPACE_LIST, cns::ACTIVE_NAMESPACE_LIST_CSI] {
        let data = host.identify(structure, 0).unwrap();
        let list = NamespaceList::read_from_bytes(&data).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [1]);
        assert_eq!(host.identify(structure, 1).unwrap(), [0; 4096]);
    }
    let data = host.identify(cns::NAMESPACE_ID_DESCRIPTORS, 1).unwrap();
    let kinds: Vec<u8> = namespace_id_descriptors(&data).map(|(t, _)| t).collect();
    let expected = [
        descriptor_type::UUID,
        descriptor_type::NGUID,
        descriptor_type::CSI,
    ];
    assert_eq!(kinds, expected);
    for structure in [
        cns::NAMESPACE_CSI,
        cns::CONTROLLER_CSI,
        cns::NAMESPACE_INDEPENDENT,
        cns::COMMAND_SETS,
    ] {
        assert!(host.identify(structure, 1).is_ok(), "{structure:#x}");
    }
    assert_eq!(
        host.identify(0x7f, 1),
        Err(with_more(Status::INVALID_FIELD))
    );
    assert_eq!(
        host.identify(cns::NAMESPACE_ID_DESCRIPTORS, 9),
        Err(with_more(Status::INVALID_NAMESPACE))
    );
}

fn with_more(status: Status) -> Status {
    status.with_dnr().with_more()
}

#[test]
fn log_pages_are_cut_and_padded() {
    let target = start();
    let mut host = admin(&target);
    let mut io = Initiator::io(target.addr, &target.nqn, host.cntlid, 2, Options::default());
    assert_eq!(io.write(1, 0, &pattern(4096, 1)), Status::SUCCESS);
    io.read(1, 0, 8).unwrap();
    io.read(1, 0, 8).unwrap();

    let log = host.log_page(GetLogPage::new(lid::SMART, 0, 512)).unwrap();
    let smart = SmartLog::read_from_bytes(&log).unwrap();
    assert_eq!(smart.host_read_commands.get(), 2);
    assert_eq!(smart.host_write_commands.get(), 1);
    assert_eq!(smart.data_units_read.get(), 1);

    let log = host
        .log_page(GetLogPage::new(lid::FIRMWARE_SLOT, 0, 512))
        .unwrap();
    let firmware = FirmwareSlotLog::read_from_bytes(&log).unwrap();
    assert_eq!(
        (firmware.afi, firmware.frs[0][0].is_ascii_digit()),
        (1, true)
    );

    let log = host
        .log_page(GetLogPage::new(lid::COMMAND_EFFECTS, 0, 4096))
        .unwrap();
    assert_eq!(log[usize::from(admin::IDENTIFY) * 4], 1);
    assert_eq!(log[1024 + 4], 3);

    // The first error is the one that follows.
    assert!(host.identify(0x7f, 1).is_err());
    let log = host
        .log_page(GetLogPage::new(lid::ERROR_INFORMATION, 0, 8192))
        .unwrap();
    let (entry, _) = ErrorLogEntry::read_from_prefix(&log).unwrap();
    assert_eq!((entry.error_count.get(), entry.opc), (1, admin::IDENTIFY));

    let whole = host.log_page(GetLogPage::new(lid::ANA, 0, 8192)).unwrap();
    assert_eq!(whole[8], 1);
    assert_eq!(whole[52..], [0; 8192 - 52]);
    let part = host.log_page(GetLogPage::new(lid::ANA, 16, 36)).unwrap();
    assert_eq!(part, whole[16..52]);
    let groups_only = GetLogPage {
        lsp: 1,
        ..GetLogPage::new(lid::ANA, 16, 36)
    };
    let part = host.log_page(groups_only).unwrap();
    assert_eq!((part[4], part[32]), (0, 0));
    // Far more than the send queue holds.
    let long = host
        .log_page(GetLogPage::new(lid::ANA, 0, 1 << 20))
        .unwrap();
    assert_eq!(long[..52], whole[..52]);
    let behind = host.log_page(GetLogPage::new(lid::ANA, 1 << 20, 4));
    assert_eq!(behind, Err(with_more(Status::INVALID_FIELD)));
    let unknown = host.log_page(GetLogPage::new(0xc0, 0, 4));
    assert_eq!(unknown, Err(with_more(Status::INVALID_LOG_PAGE)));
}

#[test]
fn features_can_be_got_and_set() {
    let target = start();
    let mut host = admin(&target);
    let mut feature = |opcode, id: u8, value: u32| {
        let mut sqe = Sqe::new(opcode, 0);
        sqe.cdw10 = u32::from(id).into();
        sqe.cdw11 = value.into();
        let cqe = host.command(sqe, &[]).0;
        cqe.status()
            .is_success()
            .then_some(cqe.dw0())
            .ok_or(cqe.status())
    };
    let wanted = NumberOfQueues::of(4).into_bits();
    let granted = feature(admin::SET_FEATURES, fid::NUMBER_OF_QUEUES, wanted);
    assert_eq!(granted, Ok(0x007f_007f));
    assert_eq!(
        feature(admin::SET_FEATURES, fid::NUMBER_OF_QUEUES, 0xffff_ffff),
        Err(with_more(Status::INVALID_FIELD))
    );
    assert_eq!(
        feature(admin::SET_FEATURES, fid::ASYNC_EVENT_CONFIG, 0x800),
        Ok(0)
    );
    assert_eq!(
        feature(admin::GET_FEATURES, fid::ASYNC_EVENT_CONFIG, 0),
        Ok(0x800)
    );
    assert_eq!(
        feature(admin::SET_FEATURES, fid::KEEP_ALIVE_TIMER, 15000),
        Ok(0)
    );
    assert_eq!(
        feature(admin::GET_FEATURES, fid::KEEP_ALIVE_TIMER, 0),
        Ok(15000)
    );
    assert_eq!(
        feature(admin::GET_FEATURES, fid::VOLATILE_WRITE_CACHE, 0),
        Ok(1)
    );
    assert_eq!(
        feature(admin::SET_FEATURES, fid::HOST_IDENTIFIER, 1),
        Err(with_more(Status::COMMAND_SEQUENCE_ERROR))
    );
    assert_eq!(
        feature(admin::SET_FEATURES, 0xc1, 1),
        Err(with_more(Status::INVALID_FIELD))
    );
    let mut sqe = Sqe::new(admin::GET_FEATURES, 0);
    sqe.cdw10 = u32::from(fid::HOST_IDENTIFIER).into();
    sqe.cdw11 = 1.into();
    sqe.sgl = SglDescriptor::transport(16);
    assert_eq!(host.command(sqe, &[]).1, [7; 16]);
}

#[test]
fn abort_finds_event_requests_and_nothing_else() {
    let target = start();
    let mut host = admin(&target);
    let _io = Initiator::io(target.addr, &target.nqn, host.cntlid, 2, Options::default());
    let requests: Vec<u16> = (0..4)
        .map(|_| host.submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[]))
        .collect();
    let one_too_many = host.submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    let (cqe, _) = host.finish(one_too_many, &[]);
    assert_eq!(cqe.status(), with_more(Status::AER_LIMIT_EXCEEDED));
    let abort = |sqid: u16, cid: u16| {
        let mut sqe = Sqe::new(admin::ABORT, 0);
        sqe.cdw10 = (u32::from(cid) << 16 | u32::from(sqid)).into();
        sqe
    };
    for (sqid, cid) in [(0, 9999), (2, 1), (7, 1)] {
        assert_eq!(host.command(abort(sqid, cid), &[]).0.dw0(), 1);
    }
    let cid = host.submit(abort(0, requests[2]), &[]);
    let aborted = host.receive().cqe();
    assert_eq!(aborted.cid.get(), requests[2]);
    assert_eq!(aborted.status(), Status::ABORTED_BY_REQUEST);
    assert_eq!(host.finish(cid, &[]).0.dw0(), 0);
}

#[test]
fn a_silent_host_loses_its_controller() {
    let target = start();
    let options = Options {
        kato_ms: 500,
        ..Options::default()
    };
    let mut silent = Initiator::admin(target.addr, &target.nqn, options);
    let mut talking = Initiator::admin(target.addr, &target.nqn, options);
    let mut io = Initiator::io(target.addr, &target.nqn, silent.cntlid, 1, options);
    // Keep-alive commands hold one controller while the other's timer runs out.
    wait_for("the keep-alive timeout", || {
        let (cqe, _) = talking.command(Sqe::new(admin::KEEP_ALIVE, 0), &[]);
        assert_eq!(cqe.status(), Status::SUCCESS);
        target.status().subsystems[0].controllers.len() == 1
    });
    assert!(silent.try_receive().is_none());
    assert!(io.try_receive().is_none());
    let status = target.status();
    assert_eq!(status.subsystems[0].controllers[0].cntlid, talking.cntlid);
    assert_eq!(status.faults.last().unwrap().reason, "keep-alive timeout");
}

#[test]
fn controller_reset_closes_io_queues() {
    let target = start();
    let mut host = admin(&target);
    let mut io = Initiator::io(target.addr, &target.nqn, host.cntlid, 1, Options::default());
    io.read(1, 0, 1).unwrap();
    host.property_set(property::CC, 0);
    assert!(io.try_receive().is_none());
    host.property_set(property::CC, 0x0046_0001);
    let mut io = Initiator::io(target.addr, &target.nqn, host.cntlid, 1, Options::default());
    io.read(1, 0, 1).unwrap();
}

#[test]
fn controller_identifiers_go_round() {
    let target = start();
    let first = admin(&target).cntlid;
    let held = admin(&target);
    let second = held.cntlid;
    let seen: BTreeSet<u16> = (0..3).map(|_| admin(&target).cntlid).collect();
    assert_eq!(seen.len(), 3);
    assert!(!seen.contains(&first) && !seen.contains(&second));
}

#[test]
fn discovery_lists_listeners_and_referrals_and_tells_of_changes() {
    let target = start();
    let discovery = Nqn::discovery();
    let mut host = Initiator::admin(target.addr, &discovery, Options::default());
    assert_eq!(host.identify_controller().cntrltype, 2);
    let read = |host: &mut Initiator| {
        let len = 1024 * 8;
        let log = host
            .log_page(GetLogPage::new(lid::DISCOVERY, 0, len))
            .unwrap();
        let (header, entries) = DiscoveryLogHeader::read_from_prefix(&log).unwrap();
        let count = usize::try_from(header.numrec.get()).unwrap();
        let (entries, _) =
            <[DiscoveryLogEntry]>::ref_from_prefix_with_elems(entries, count).unwrap();
        // nvme-cli connects with TLS unless "secure channel" is not specified (00b).
        assert!(entries.iter().all(|e| e.treq & 0b11 == 0));
        let list: Vec<(String, String, u8)> = entries
            .iter()
            .map(|e| (e.subnqn().unwrap().to_string(), e.trsvcid_text(), e.subtype))
            .collect();
        (header.genctr.get(), list)
    };
    let port = target.addr.port().to_string();
    let (generation, list) = read(&mut host);
    assert_eq!(list, [(target.nqn.to_string(), port.clone(), 2)]);

    let event = host.submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    target
        .handle
        .call(TargetRequest::add_referral(Referral {
            addr: "10.1.2.3:8009".parse().unwrap(),
            subnqn: discovery.clone(),
        }))
        .unwrap();
    let (cqe, _) = host.finish(event, &[]);
    assert_eq!(cqe.dw0(), 0x0070_f002);
    let (newer, list) = read(&mut host);
    assert!(newer > generation);
    assert_eq!(list[1], (discovery.to_string(), "8009".into(), 1));

    let second = target.listen();
    let (_, list) = read(&mut host);
    assert_eq!(list[1].1, second.port().to_string());
    assert_eq!(list.len(), 3);
}
