//! The target's management methods, from the socket to the target and back.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod disks;
mod saved;
mod settings;
mod subsystems;

use pollux_nvme_tcp::testing::{ManagedTarget, NQN};
use pollux_reactor::Idle;
use pollux_reactor::rpc::Config;
use serde_json::{Value, json};

const HOST: &str = "nqn.2014-08.org.example:host";

fn start() -> ManagedTarget {
    configured(Config::default())
}

fn configured(config: Config) -> ManagedTarget {
    ManagedTarget::start(Idle::Yield, config)
}

/// A transport, a subsystem and a disk of 1 MiB.
fn prepare(t: &mut ManagedTarget) {
    t.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    t.call(
        "nvmf_create_subsystem",
        json!({"nqn": NQN, "allow_any_host": true, "ana_reporting": true, "max_namespaces": 4}),
    );
    let disk = json!({"name": "Malloc0", "num_blocks": 2048, "block_size": 512});
    assert_eq!(t.call("bdev_malloc_create", disk), "Malloc0");
}

/// Adds a listener at a free port; its address as the management writes it.
fn listen(t: &mut ManagedTarget) -> Value {
    t.listen();
    let listeners = t.call("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
    listeners.as_array().unwrap().last().unwrap()["address"].clone()
}
