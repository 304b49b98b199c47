//! Requests to a running target.

use pollux_nvme_tcp::spec::Nqn;
use pollux_nvme_tcp::spec::fabrics::CNTLID_DYNAMIC;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::{
    Backend, NamespaceConfig, SubsystemConfig, TargetError, TargetReply, TargetRequest,
};

use crate::initiator::{Initiator, Options, TestTarget};

#[test]
fn requests_that_make_no_sense_are_refused_and_change_nothing() {
    let target = TestTarget::start(1, &[Backend::Memory { bytes: 1 << 20 }]);
    let nqn = || target.nqn.clone();
    let unknown: Nqn = "nqn.2014-08.org.example:unknown".parse().unwrap();
    let before = target.status().subsystems;
    let add = |nsid, backend, block_size| TargetRequest::AddNamespace {
        nqn: nqn(),
        nsid,
        namespace: NamespaceConfig::new(backend, block_size),
    };
    let create = |change: &dyn Fn(&mut SubsystemConfig)| {
        let mut config = SubsystemConfig::new(unknown.clone());
        change(&mut config);
        TargetRequest::CreateSubsystem(config)
    };
    let null = Backend::Null { bytes: 4096 };
    let missing = Backend::File {
        path: "/nonexistent/pollux".into(),
        bytes: None,
        shared: false,
    };
    let cases = [
        (
            TargetRequest::CreateSubsystem(SubsystemConfig::new(nqn())),
            "exists already",
        ),
        (
            create(&|c| c.serial = "123456789012345678901".into()),
            "Invalid parameters",
        ),
        (
            create(&|c| c.model = "m\u{7f}".into()),
            "Invalid parameters",
        ),
        (create(&|c| c.min_cntlid = 0), "Invalid cntlid range"),
        (create(&|c| c.max_cntlid = 0xfff0), "Invalid cntlid range"),
        (
            create(&|c| (c.min_cntlid, c.max_cntlid) = (5, 4)),
            "Invalid cntlid range",
        ),
        (create(&|c| c.max_namespaces = 0), "max_namespaces"),
        (
            TargetRequest::DeleteSubsystem {
                nqn: unknown.clone(),
            },
            "no subsystem",
        ),
        (
            TargetRequest::DeleteSubsystem {
                nqn: Nqn::discovery(),
            },
            "discovery",
        ),
        (add(Some(1), null.clone(), 512), "exists already"),
        (add(Some(33), null.clone(), 512), "1 to 32"),
        (add(None, null.clone(), 500), "block size 500"),
        (add(None, null, 65536), "multiple of the block size"),
        (
            add(None, Backend::Null { bytes: 0 }, 512),
            "multiple of the block size",
        ),
        (
            add(None, Backend::Memory { bytes: 1 << 62 }, 512),
            "bytes of memory",
        ),
        (add(None, missing, 512), "/nonexistent/pollux"),
        (
            TargetRequest::RemoveNamespace {
                nqn: nqn(),
                nsid: 2,
            },
            "no namespace 2",
        ),
        (
            TargetRequest::ResizeNamespace {
                nqn: nqn(),
                nsid: 1,
                bytes: 1000,
            },
            "multiple of the block size",
        ),
        (
            TargetRequest::SetNamespaceAnaGroup {
                nqn: nqn(),
                nsid: 1,
                group: 129,
            },
            "1 to 128",
        ),
        (
            TargetRequest::AddListener {
                nqn: nqn(),
                addr: target.addr,
            },
            "exists already",
        ),
        (
            TargetRequest::RemoveListener {
                nqn: nqn(),
                addr: "127.0.0.1:1".parse().unwrap(),
            },
            "no listener",
        ),
        (
            TargetRequest::RemoveHost {
                nqn: nqn(),
                host: unknown.clone().into(),
            },
            "not on the list",
        ),
    ];
    for (request, text) in cases {
        let error = target.handle.call(request.clone()).unwrap_err();
        assert!(error.to_string().contains(text), "{request:?}: {error}");
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
        .call(TargetRequest::AddListener {
            nqn: target.nqn.clone(),
            addr,
        })
        .unwrap_err();
    assert!(matches!(&error, TargetError::Io { .. }), "{error}");
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

#[test]
fn subsystems_share_a_port_until_the_last_has_left_it() {
    let target = TestTarget::start(2, &[Backend::Null { bytes: 1 << 20 }]);
    let other: Nqn = "nqn.2014-08.org.example:other".parse().unwrap();
    let call = |request| target.handle.call(request).unwrap();
    call(TargetRequest::CreateSubsystem(SubsystemConfig::new(
        other.clone(),
    )));
    call(TargetRequest::AddListener {
        nqn: other.clone(),
        addr: target.addr,
    });
    let mut first = Initiator::admin(target.addr, &target.nqn, Options::default());
    let mut io = Initiator::io(
        target.addr,
        &target.nqn,
        first.cntlid,
        2,
        Options::default(),
    );
    let mut second = Initiator::admin(target.addr, &other, Options::default());
    call(TargetRequest::RemoveListener {
        nqn: target.nqn.clone(),
        addr: target.addr,
    });
    // The answer means that they are gone.
    assert!(first.try_receive().is_none());
    assert!(io.try_receive().is_none());
    assert_eq!(second.identify_controller().subnqn().unwrap(), other);
    let mut host = Initiator::initialized(target.addr, Options::default());
    let cqe = host.connect(0, 32, CNTLID_DYNAMIC, &target.nqn, Options::default());
    assert_eq!(cqe.status().code(), Status::CONNECT_INVALID_PARAMETERS);

    call(TargetRequest::DeleteSubsystem { nqn: other.clone() });
    assert!(second.try_receive().is_none());
    assert!(std::net::TcpStream::connect(target.addr).is_err());
    let reply = call(TargetRequest::Subsystems);
    let TargetReply::Subsystems(left) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(left.len(), 1);
}

#[test]
fn a_stopped_target_answers_nothing_for_ever() {
    let target = TestTarget::start(1, &[]);
    let TestTarget {
        handle, running, ..
    } = target;
    running.stop();
    running.join();
    let answer = handle.call(TargetRequest::Subsystems);
    assert!(
        matches!(answer, Err(TargetError::Stopped | TargetError::Busy)),
        "{answer:?}"
    );
}
