//! What a command line has set up, as if it had been set up by methods.

use pollux_reactor::rpc::Methods;
use serde_json::Map;

use super::disks::{Kind, NamedDisk, User};
use super::{State, register_state};
use crate::auth::Keyring;
use crate::rate_limit::RateLimits;
use crate::spec::nqn::Nqn;
use crate::target::config::NamespaceConfig;
use crate::target::control::handle::TargetHandle;
use crate::target::disk::{Backend, FileEngine};
use crate::target::error::TargetError;
use crate::target::subsystem::Namespace;

/// Like [`register`](super::register), for a target that is about to be given a subsystem `nqn` with these namespaces,
/// the first with NSID 1. Each gets a disk with a name (`Namespace1` and so on), and the TCP transport is there, so
/// that all of it can be listed, changed and saved. `nvmf_create_transport` may give that transport other parameters
/// once. The keys of `keyring` are there as if `keyring_file_add_key` had added them. Returned are the namespaces to be added, in
/// the same order.
///
/// # Errors
/// What `TargetRequest::add_namespace` says against such a namespace.
pub fn register_with(
    methods: &mut Methods,
    target: TargetHandle,
    nqn: &Nqn,
    namespaces: &[NamespaceConfig],
    keyring: Keyring,
) -> Result<Vec<NamespaceConfig>, TargetError> {
    let mut state = State::new(target, keyring);
    let mut given = Map::new();
    given.insert("trtype".into(), "TCP".into());
    state.transport = Some(given);
    state.transport_is_default = true;
    let mut made = Vec::new();
    for (nsid, config) in (1..).zip(namespaces) {
        // Checks and opens as for a namespace without a named disk, so that its UUID is the same one too.
        let opened = Namespace::open(nqn, nsid, config)?;
        let disk = opened.disk.clone();
        let kind = match &config.backend {
            Backend::Memory { .. } => Kind::Malloc,
            Backend::Null { .. } => Kind::Null,
            Backend::File {
                path,
                shared,
                engine: FileEngine::Uring,
                ..
            } => Kind::Uring {
                path: path.clone(),
                shared: *shared,
            },
            Backend::File { path, shared, .. } => Kind::Aio {
                path: path.clone(),
                shared: *shared,
            },
            Backend::Disk(_) => {
                made.push(config.clone());
                continue;
            }
        };
        let name = format!("Namespace{nsid}");
        state.disks.notify("bdev_register", &name);
        state.disks.list.push(NamedDisk {
            user: Some(User {
                disk: name.clone(),
                nqn: nqn.clone(),
                nsid: Some(nsid),
            }),
            name,
            kind,
            disk: disk.clone(),
            block_size: config.block_size,
            uuid: opened.uuid,
            over: None,
            limits: RateLimits::default(),
        });
        made.push(NamespaceConfig {
            backend: Backend::Disk(disk),
            uuid: Some(opened.uuid),
            ..config.clone()
        });
    }
    register_state(methods, state);
    Ok(made)
}
