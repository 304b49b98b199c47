//! Requests to a running target.

use pollux_nvme_tcp::spec::Nqn;
use pollux_nvme_tcp::spec::fabrics::CNTLID_DYNAMIC;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::{
    Backend, NamespaceConfig, SubsystemConfig, TargetError, TargetRequest,
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
    ];
    for ((request, error), text) in cases {
        assert!(error.to_string().contains(text), "{request}: {error}");
    }
    assert_eq!(target.status().subsystems, before);
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
