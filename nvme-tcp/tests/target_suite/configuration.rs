//! Requests to a running target.

use pollux_nvme_tcp::spec::Nqn;
use pollux_nvme_tcp::spec::fabrics::CNTLID_DYNAMIC;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::{
    Backend, FileEngine, NamespaceConfig, SubsystemConfig, TargetError, TargetRequest,
};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget};

/// What a request that is refused is called, and why it is.
fn refused<A: Send + 'static>(
    target: &TestTarget,
    request: TargetRequest<A>,
) -> (String, TargetError) {
    let name = format!("{request:?}");
    let answer = target.handle.call(request);
    (name, answer.err().expect("a request that is refused"))
}

#[test]
fn requests_that_make_no_sense_are_refused_and_change_nothing() {
    let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
    let nqn = || target.nqn.clone();
    let unknown: Nqn = "nqn.2014-08.org.example:unknown".parse().unwrap();
    let before = target.status().subsystems;
    let add = |nsid, backend, block_size| {
        TargetRequest::add_namespace(nqn(), nsid, NamespaceConfig::new(backend, block_size))
    };
    let create = |change: &dyn Fn(&mut SubsystemConfig)| {
        let mut config = SubsystemConfig::new(unknown.clone());
        change(&mut config);
        TargetRequest::create_subsystem(config)
    };
    let null = Backend::Null { bytes: 4096 };
    let missing = Backend::File {
        path: "/nonexistent/pollux".into(),
        bytes: None,
        shared: false,
        engine: FileEngine::Auto,
    };
    let cases = [
        (
            refused(
                &target,
                TargetRequest::create_subsystem(SubsystemConfig::new(nqn())),
            ),
            "exists already",
        ),
        (
            refused(
                &target,
                create(&|c| c.serial = "123456789012345678901".into()),
            ),
            "Invalid parameters",
        ),
        (
            refused(&target, create(&|c| c.model = "m\u{7f}".into())),
            "Invalid parameters",
        ),
        (
            refused(&target, create(&|c| c.min_cntlid = 0)),
            "Invalid cntlid range",
        ),
        (
            refused(&target, create(&|c| c.max_cntlid = 0xfff0)),
            "Invalid cntlid range",
        ),
        (
            refused(&target, create(&|c| (c.min_cntlid, c.max_cntlid) = (5, 4))),
            "Invalid cntlid range",
        ),
        (
            refused(&target, create(&|c| c.max_namespaces = 0)),
            "max_namespaces",
        ),
        (
            refused(&target, TargetRequest::delete_subsystem(unknown.clone())),
            "no subsystem",
        ),
        (
            refused(&target, TargetRequest::delete_subsystem(Nqn::discovery())),
            "discovery",
        ),
        (
            refused(&target, add(Some(1), null.clone(), 512)),
            "exists already",
        ),
        (
            refused(&target, add(Some(33), null.clone(), 512)),
            "1 to 32",
        ),
        (
            refused(&target, add(None, null.clone(), 500)),
            "block size 500",
        ),
        (
            refused(&target, add(None, null, 65536)),
            "multiple of the block size",
        ),
        (
            refused(&target, add(None, Backend::Null { bytes: 0 }, 512)),
            "multiple of the block size",
        ),
        (
            refused(&target, add(None, Backend::Memory { bytes: 1 << 62 }, 512)),
            "bytes of memory",
        ),
        (
            refused(&target, add(None, missing, 512)),
            "/nonexistent/pollux",
        ),
        (
            refused(&target, TargetRequest::remove_namespace(nqn(), 2)),
            "no namespace 2",
        ),
        (
            refused(&target, TargetRequest::resize_namespace(nqn(), 1, 1000)),
            "multiple of the block size",
        ),
        (
            refused(
                &target,
                TargetRequest::set_namespace_ana_group(nqn(), 1, 129),
            ),
            "1 to 128",
        ),
        (
            refused(&target, TargetRequest::add_listener(nqn(), target.addr)),
            "exists already",
        ),
        (
            refused(
                &target,
                TargetRequest::remove_listener(nqn(), "127.0.0.1:1".parse().unwrap()),
            ),
            "no listener",
        ),
        (
            refused(
                &target,
                TargetRequest::remove_host(nqn(), unknown.clone().into()),
            ),
            "not on the list",
        ),
        (
            // An MDTS of 0 would be no limit.
            refused(&target, TargetRequest::set_max_io_size(4096)),
            "8192 to 1048576",
        ),
        (
            refused(&target, TargetRequest::set_max_io_size(12_288)),
            "a power of two",
        ),
        (
            refused(&target, TargetRequest::set_max_io_size(2 << 20)),
            "8192 to 1048576",
        ),
    ];
    for ((request, error), text) in cases {
        assert!(error.to_string().contains(text), "{request}: {error}");
    }
    assert_eq!(target.status().subsystems, before);
}

/// Commands are checked against the MDTS that their host was told, whatever is configured, added and changed later.
#[test]
fn a_controller_keeps_the_mdts_that_it_has_told() {
    let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
    let connect = || {
        let mut admin = Initiator::admin(target.addr, &target.nqn, Options::default());
        let mdts = admin.identify_controller().max_transfer_len(0);
        let io = Initiator::io(
            target.addr,
            &target.nqn,
            admin.cntlid,
            1,
            Options::default(),
        );
        (admin, io, mdts)
    };
    let set = |bytes| {
        let request = TargetRequest::set_max_io_size(bytes);
        target.handle.call(request).unwrap();
    };
    let (mut admin, mut large, mdts) = connect();
    assert_eq!(mdts, Some(1 << 20));
    set(8192);
    let (mut small_admin, mut small, mdts) = connect();
    assert_eq!(mdts, Some(8192));
    let nqn = || target.nqn.clone();
    let changes: [(&str, &dyn Fn()); 4] = [
        ("nothing", &|| {}),
        ("a namespace is added", &|| {
            let config = NamespaceConfig::new(Backend::Memory { bytes: 1 << 20 }, 512);
            let add = TargetRequest::add_namespace(nqn(), Some(2), config);
            target.handle.call(add).unwrap();
        }),
        ("a namespace is resized", &|| {
            let resize = TargetRequest::resize_namespace(nqn(), 1, 2 << 20);
            target.handle.call(resize).unwrap();
        }),
        ("another MDTS is set", &|| {
            set(65_536);
            let regroup = TargetRequest::set_namespace_ana_group(nqn(), 1, 3);
            target.handle.call(regroup).unwrap();
        }),
    ];
    for (what, change) in changes {
        change();
        let namespaces = target.status().subsystems[0].namespaces.len();
        for nsid in (1..).take(namespaces) {
            let data = vec![7; 32_768];
            assert_eq!(large.write(nsid, 0, &data), Status::SUCCESS, "{what}");
            assert_eq!(small.write(nsid, 0, &data[..8192]), Status::SUCCESS);
            assert_eq!(large.read(nsid, 0, 64).unwrap(), data[..], "{what}");
            let refused = small.read(nsid, 0, 64).unwrap_err();
            assert_eq!(refused.code(), Status::INVALID_FIELD, "{what}");
        }
        for (admin, mdts) in [(&mut admin, 1 << 20), (&mut small_admin, 8192)] {
            assert_eq!(admin.identify_controller().max_transfer_len(0), Some(mdts));
        }
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let target = TestTarget::start(1, &[]);
    let error = target
        .handle
        .call(TargetRequest::add_listener(target.nqn.clone(), addr))
        .unwrap_err();
    assert!(matches!(&error, TargetError::Io { .. }), "{error}");
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[test]
fn subsystems_share_a_port_until_the_last_has_left_it() {
    let target = TestTarget::start(2, &[Backend::Null { bytes: 1 << 20 }]);
    let other: Nqn = "nqn.2014-08.org.example:other".parse().unwrap();
    target
        .handle
        .call(TargetRequest::create_subsystem(SubsystemConfig::new(
            other.clone(),
        )))
        .unwrap();
    target
        .handle
        .call(TargetRequest::add_listener(other.clone(), target.addr))
        .unwrap();
    let mut first = Initiator::admin(target.addr, &target.nqn, Options::default());
    let mut io = Initiator::io(
        target.addr,
        &target.nqn,
        first.cntlid,
        2,
        Options::default(),
    );
    let mut second = Initiator::admin(target.addr, &other, Options::default());
    target
        .handle
        .call(TargetRequest::remove_listener(
            target.nqn.clone(),
            target.addr,
        ))
        .unwrap();
    // The answer means that they are gone.
    assert!(first.try_receive().is_none());
    assert!(io.try_receive().is_none());
    assert_eq!(second.identify_controller().subnqn().unwrap(), other);
    let mut host = Initiator::initialized(target.addr, Options::default());
    let cqe = host.connect(0, 32, CNTLID_DYNAMIC, &target.nqn, Options::default());
    assert_eq!(cqe.status().code(), Status::CONNECT_INVALID_PARAMETERS);

    target
        .handle
        .call(TargetRequest::delete_subsystem(other.clone()))
        .unwrap();
    assert!(second.try_receive().is_none());
    assert!(std::net::TcpStream::connect(target.addr).is_err());
    let left = target.handle.call(TargetRequest::subsystems()).unwrap();
    assert_eq!(left.len(), 1);
}

#[test]
fn a_stopped_target_answers_nothing_for_ever() {
    let mut target = TestTarget::start(1, &[]);
    target.stop();
    let answer = target.handle.call(TargetRequest::subsystems());
    assert!(
        matches!(answer, Err(TargetError::Stopped | TargetError::Busy)),
        "{answer:?}"
    );
}
