//! Settings of target and subsystems, and what SPDK's products call that has little to choose here.

use pollux_nvme_tcp::spec::identify::{IdentifyNvmController, cns, ctrl};
use pollux_nvme_tcp::spec::nvm::{DatasetRange, dsm};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::testing::{Initiator, NQN, Options, nqn};
use serde_json::{Value, json};
use zerocopy::{FromBytes, IntoBytes};

use crate::{prepare, start};

/// Optional commands and their sizes can be limited; hosts are told so, and what they send all the same is refused.
#[test]
fn commands_are_kept_to_the_limits_that_were_set() {
    let mut t = start();
    let masked = |names: Value| json!({"trtype": "tcp", "masked_oncs": names});
    let wrong = masked(json!(["nvmcmps", "nvmverify"]));
    let (code, text) = t.error("nvmf_create_transport", wrong);
    assert!(code == -32602 && text.contains("nvmwzsv"), "{code} {text}");
    t.call(
        "nvmf_create_transport",
        masked(json!(["nvmcmps", "reservs"])),
    );
    let subsystem = json!({"nqn": NQN, "allow_any_host": true, "dmrsl": 8, "wzsl": 1});
    t.call("nvmf_create_subsystem", subsystem);
    let disk = json!({"name": "Malloc0", "num_blocks": 2048, "block_size": 512});
    t.call("bdev_malloc_create", disk);
    t.add_ns("Malloc0");
    let (addr, nqn) = (t.listen(), nqn());
    let mut admin = Initiator::admin(addr, &nqn, Options::default());
    let oncs = ctrl::ONCS_WRITE_ZEROES | ctrl::ONCS_DATASET_MANAGEMENT;
    assert_eq!(admin.identify_controller().oncs.get(), oncs);
    let limits = admin.identify(cns::CONTROLLER_CSI, 0).unwrap();
    let limits = IdentifyNvmController::read_from_bytes(&limits).unwrap();
    assert_eq!((limits.wzsl, limits.dmrsl.get()), (1, 8));
    assert_eq!(limits.dmsl.get(), u64::from(limits.dmrl) * 8);

    let mut io = Initiator::io(addr, &nqn, admin.cntlid, 1, Options::default());
    let compared = io.send_blocks(nvm::COMPARE, 1, 0, &[0; 512], true);
    assert_eq!(compared, Status::INVALID_OPCODE.with_dnr());
    assert_eq!(io.write(1, 0, &[0; 512]), Status::SUCCESS);
    for (blocks, status) in [
        (16, Status::SUCCESS),
        (17, Status::INVALID_FIELD.with_dnr()),
    ] {
        let zero = Sqe::for_blocks(nvm::WRITE_ZEROES, 1, 0, blocks);
        assert_eq!(io.command(zero, &[]).0.status(), status);
        let range = DatasetRange {
            cattr: 0.into(),
            nlb: (blocks - 8).into(),
            slba: 0.into(),
        };
        let mut sqe = Sqe::new(nvm::DATASET_MANAGEMENT, 1);
        sqe.cdw11 = dsm::DEALLOCATE.into();
        sqe.sgl = SglDescriptor::in_capsule(0, 16);
        let status = match status.is_success() {
            true => status,
            false => Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_dnr(),
        };
        assert_eq!(io.command(sqe, range.as_bytes()).0.status(), status);
    }
    // Both come again with the configuration.
    let saved = t.client.config().to_string();
    assert!(
        saved.contains(r#""masked_oncs":["nvmcmps","reservs"]"#),
        "{saved}"
    );
    assert!(
        saved.contains(r#""dmrsl":8"#) && saved.contains(r#""wzsl":1"#),
        "{saved}"
    );
}

/// What products that use SPDK call before all else does what it says here, or is said to have no meaning.
#[test]
fn what_products_set_is_kept_or_without_effect() {
    let mut t = start();
    let max = |max: u32| json!({"max_subsystems": max});
    t.call("nvmf_set_max_subsystems", max(1));
    prepare(&mut t);
    let second = json!({"nqn": format!("{NQN}2")});
    let (code, text) = t.error("nvmf_create_subsystem", second.clone());
    assert!(code == -28 && text.contains("may be 1"), "{code} {text}");
    assert_eq!(t.error("nvmf_set_max_subsystems", max(0)).0, -32602);
    let saved = t.client.config().to_string();
    assert!(
        saved.contains(r#""params":{"max_subsystems":1}"#),
        "{saved}"
    );
    t.call("nvmf_set_max_subsystems", max(2));
    t.call("nvmf_create_subsystem", second);
    assert_eq!(t.error("nvmf_set_max_subsystems", max(1)).0, -32602);

    let pools = json!({"small_pool_count": 8192, "large_bufsize": 135_168, "enable_numa": false});
    assert_eq!(t.call("iobuf_set_options", pools), true);
    let unknown = json!({"medium_pool_count": 1});
    assert_eq!(t.error("iobuf_set_options", unknown).0, -32602);

    // The status of an error that is made up, by either of its names.
    t.call("bdev_error_create", json!({"base_name": "Malloc0"}));
    assert_eq!(t.add_ns("EE_Malloc0"), 1);
    let (addr, nqn) = (t.listen(), nqn());
    let admin = Initiator::admin(addr, &nqn, Options::default());
    let mut io = Initiator::io(addr, &nqn, admin.cntlid, 1, Options::default());
    for names in [["nvme_sct", "nvme_sc"], ["error_sct", "error_sc"]] {
        let mut inject = json!({"name": "EE_Malloc0", "io_type": "write",
            "error_type": "nvme_failure"});
        inject[names[0]] = 2.into();
        inject[names[1]] = 0x81.into();
        t.call("bdev_error_inject_error", inject);
        assert_eq!(io.write(1, 0, &[1; 512]), Status::new(2, 0x81));
        assert_eq!(io.write(1, 0, &[1; 512]), Status::SUCCESS);
    }
}

/// There is little to choose about sockets; what is not there is refused, not taken.
#[test]
fn what_can_be_said_of_sockets() {
    let mut t = start();
    let default = t.call("sock_get_default_impl", json!({}));
    assert_eq!(default["impl_name"], "posix");
    for (name, version) in [("posix", 0), ("ssl", 13)] {
        let options = t.call("sock_impl_get_options", json!({"impl_name": name}));
        assert_eq!(options["tls_version"], version);
        let mut same = options.clone();
        same["impl_name"] = name.into();
        assert_eq!(t.call("sock_impl_set_options", same), true);
    }
    t.call("sock_set_default_impl", json!({"impl_name": "posix"}));
    for (method, params, code, words) in [
        (
            "sock_set_default_impl",
            json!({"impl_name": "ssl"}),
            -22,
            "secure_channel",
        ),
        (
            "sock_impl_get_options",
            json!({"impl_name": "uring"}),
            -22,
            "uring",
        ),
        (
            "sock_impl_set_options",
            json!({"impl_name": "ssl", "tls_version": 12}),
            -32602,
            "13",
        ),
        (
            "sock_impl_set_options",
            json!({"impl_name": "ssl", "speed": 1}),
            -32602,
            "speed",
        ),
    ] {
        let (found, text) = t.error(method, params);
        assert!(
            found == code && text.contains(words),
            "{method}: {found} {text}"
        );
    }
}
