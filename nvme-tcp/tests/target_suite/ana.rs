//! ANA states, namespaces that come and go, and the events that tell of both.

use pollux_nvme_tcp::spec::identify::{IdentifyNamespace, NamespaceList, cns};
use pollux_nvme_tcp::spec::log::{AnaGroupDescriptor, AnaLogHeader, AnaState, GetLogPage, lid};
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::pdu::{PduType, R2t};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{Backend, NamespaceConfig, TargetRequest};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, pattern};
use zerocopy::FromBytes;

/// Change count and (group, state, NSIDs).
pub type AnaLog = (u64, Vec<(u32, AnaState, Vec<u32>)>);

pub fn ana_log(host: &mut Initiator) -> AnaLog {
    let log = host.log_page(GetLogPage::new(lid::ANA, 0, 4096)).unwrap();
    let (header, mut rest) = AnaLogHeader::ref_from_prefix(&log).unwrap();
    let mut groups = Vec::new();
    for _ in 0..header.ngrps.get() {
        let (group, tail) = AnaGroupDescriptor::ref_from_prefix(rest).unwrap();
        let (nsids, tail) = tail.split_at(group.nnv.get() as usize * 4);
        let nsids = nsids.as_chunks::<4>().0.iter();
        let nsids = nsids.map(|b| u32::from_le_bytes(*b)).collect();
        groups.push((group.agid.get(), group.state(), nsids));
        rest = tail;
    }
    (header.chgcnt.get(), groups)
}

pub fn set(target: &TestTarget, addr: std::net::SocketAddr, group: Option<u32>, state: AnaState) {
    target
        .handle
        .call(TargetRequest::set_ana_state(
            target.nqn.clone(),
            addr,
            group,
            state,
        ))
        .unwrap();
}

/// nvme-cli reads the log in parts of 4 KiB, as far as NANAGRPID and MNAN make it reach.
#[test]
fn the_log_can_be_read_in_parts_up_to_its_greatest_length() {
    let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
    let mut host = Initiator::admin(target.addr, &target.nqn, Options::default());
    let id = host.identify_controller();
    let len = 16 + 32 * u64::from(id.nanagrpid.get()) + 4 * u64::from(id.mnan.get());
    let mut part = |offset| host.log_page(GetLogPage::new(lid::ANA, offset, 64));
    assert_ne!(part(0).unwrap(), [0; 64]);
    for offset in [4096, len - 64, len] {
        assert_eq!(part(offset).unwrap(), [0; 64], "offset {offset}");
    }
    assert_eq!(part(len + 4).unwrap_err().code(), Status::INVALID_FIELD);
}

#[test]
fn a_state_holds_for_its_listener_and_group_only() {
    let mib = 1 << 20;
    let target = TestTarget::start(
        2,
        &[
            Backend::Memory { bytes: mib },
            Backend::Memory { bytes: mib },
        ],
    );
    let second = target.listen();
    let mut hosts: Vec<(Initiator, Initiator)> = [target.addr, second]
        .into_iter()
        .map(|addr| {
            let admin = Initiator::admin(addr, &target.nqn, Options::default());
            let io = Initiator::io(addr, &target.nqn, admin.cntlid, 2, Options::default());
            (admin, io)
        })
        .collect();
    let cases = [
        (AnaState::NON_OPTIMIZED, None),
        (
            AnaState::INACCESSIBLE,
            Some(Status::ASYMMETRIC_ACCESS_INACCESSIBLE),
        ),
        (
            AnaState::PERSISTENT_LOSS,
            Some(Status::ASYMMETRIC_ACCESS_PERSISTENT_LOSS),
        ),
        (AnaState::CHANGE, Some(Status::ASYMMETRIC_ACCESS_TRANSITION)),
        (AnaState::OPTIMIZED, None),
    ];
    let (mut count, groups) = ana_log(&mut hosts[0].0);
    assert_eq!(
        groups,
        [
            (1, AnaState::OPTIMIZED, vec![1]),
            (2, AnaState::OPTIMIZED, vec![2])
        ]
    );
    for (state, refusal) in cases {
        let event = hosts[0]
            .0
            .submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
        set(&target, target.addr, Some(2), state);
        // In effect as soon as the request is answered.
        let expected = refusal.map_or(Ok(()), Err);
        assert_eq!(hosts[0].1.read(2, 0, 1).map(drop), expected);
        let written = hosts[0].1.write(2, 0, &[1; 512]);
        assert_eq!(written, refusal.unwrap_or(Status::SUCCESS));
        assert!(hosts[0].1.read(1, 0, 1).is_ok());
        assert!(hosts[1].1.read(2, 0, 1).is_ok());

        let (cqe, _) = hosts[0].0.finish(event, &[]);
        assert_eq!(cqe.dw0(), 0x000c_0302);
        let (new_count, groups) = ana_log(&mut hosts[0].0);
        assert!(new_count > count);
        count = new_count;
        assert_eq!(groups[1], (2, state, vec![2]));
        assert_eq!(groups[0].1, AnaState::OPTIMIZED);
        assert_eq!(ana_log(&mut hosts[1].0).1[1].1, AnaState::OPTIMIZED);

        let data = hosts[0].0.identify(cns::NAMESPACE, 2).unwrap();
        let namespace = IdentifyNamespace::read_from_bytes(&data).unwrap();
        let lost = matches!(state, AnaState::INACCESSIBLE | AnaState::PERSISTENT_LOSS);
        assert_eq!(namespace.nuse.get(), if lost { 0 } else { 2048 });
        assert_eq!(namespace.nsze.get(), 2048);
    }
}

#[test]
fn a_write_whose_data_comes_after_the_change_is_refused() {
    let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
    let admin = Initiator::admin(target.addr, &target.nqn, Options::default());
    let mut io = Initiator::io(
        target.addr,
        &target.nqn,
        admin.cntlid,
        1,
        Options::default(),
    );
    let mut sqe = Sqe::for_blocks(nvm::WRITE, 1, 0, 32);
    sqe.sgl = SglDescriptor::transport(16384);
    let cid = io.submit(sqe, &[]);
    let pdu = io.receive();
    assert_eq!(pdu.frame.pdu_type, PduType::R2T);
    let (r2t, _) = R2t::read_from_prefix(&pdu.bytes).unwrap();
    set(&target, target.addr, None, AnaState::INACCESSIBLE);
    io.send_data(cid, r2t.ttag.get(), 0, &pattern(16384, 1), true);
    assert_eq!(
        io.finish(cid, &[]).0.status(),
        Status::ASYMMETRIC_ACCESS_INACCESSIBLE
    );
    set(&target, target.addr, None, AnaState::OPTIMIZED);
    assert!(io.read(1, 0, 32).unwrap() == vec![0; 16384]);
}

#[test]
fn namespaces_come_grow_move_and_go() {
    let target = TestTarget::start(2, &[Backend::Memory { bytes: 1 << 20 }]);
    let mut host = Initiator::admin(target.addr, &target.nqn, Options::default());
    let mut io = Initiator::io(target.addr, &target.nqn, host.cntlid, 2, Options::default());
    let nqn = || target.nqn.clone();
    let changed = |host: &mut Initiator, event: u16| {
        let (cqe, _) = host.finish(event, &[]);
        assert_eq!(cqe.dw0(), 0x0004_0002);
        let log = host
            .log_page(GetLogPage::new(lid::CHANGED_NAMESPACE_LIST, 0, 4096))
            .unwrap();
        let list = NamespaceList::read_from_bytes(&log).unwrap();
        list.iter().collect::<Vec<u32>>()
    };
    let request = |host: &mut Initiator| host.submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);

    let event = request(&mut host);
    assert_eq!(
        io.read(7, 0, 1).unwrap_err().code(),
        Status::INVALID_NAMESPACE
    );
    target
        .handle
        .call(TargetRequest::add_namespace(
            nqn(),
            Some(7),
            NamespaceConfig::new(Backend::Memory { bytes: 4096 }, 512),
        ))
        .unwrap();
    assert_eq!(changed(&mut host, event), [7]);
    let data = pattern(4096, 4);
    assert_eq!(io.write(7, 0, &data), Status::SUCCESS);

    let event = request(&mut host);
    assert_eq!(
        io.read(7, 8, 1).unwrap_err().code(),
        Status::LBA_OUT_OF_RANGE
    );
    let bytes = 64 << 20;
    target
        .handle
        .call(TargetRequest::resize_namespace(nqn(), 7, bytes))
        .unwrap();
    assert_eq!(changed(&mut host, event), [7]);
    assert_eq!(io.read(7, 0, 8).unwrap(), data);
    assert_eq!(io.read(7, bytes / 512 - 1, 1).unwrap(), [0; 512]);

    set(&target, target.addr, Some(9), AnaState::NON_OPTIMIZED);
    target
        .handle
        .call(TargetRequest::set_namespace_ana_group(nqn(), 7, 9))
        .unwrap();
    assert_eq!(
        ana_log(&mut host).1[1],
        (9, AnaState::NON_OPTIMIZED, vec![7])
    );

    // What happened meanwhile is one event; reading its log makes way for the next.
    let event = request(&mut host);
    assert_eq!(changed(&mut host, event), [7]);
    let event = request(&mut host);
    target
        .handle
        .call(TargetRequest::remove_namespace(nqn(), 7))
        .unwrap();
    assert_eq!(changed(&mut host, event), [7]);
    assert_eq!(
        io.read(7, 0, 1).unwrap_err().code(),
        Status::INVALID_NAMESPACE
    );
    assert!(io.read(1, 0, 1).is_ok());
}
