//! Disks that others have the names of, such as the volumes of a host in the same process.

use pollux_reactor::rpc::{Mail, Methods, Responder, RpcError};
use uuid::Uuid;

use super::disks::{ENODEV, Kind, NamedDisk, default_uuid};
use super::{State, register_state};
use crate::auth::Keyring;
use crate::rate_limit::RateLimits;
use crate::target::control::handle::TargetHandle;
use crate::target::disk::DiskRef;

/// A disk that somebody else has made.
#[derive(Debug)]
#[non_exhaustive]
pub struct ForeignDisk {
    /// The disk.
    pub disk: DiskRef,
    /// Bytes of a logical block: a power of two from 512 to 65,536.
    pub block_size: u32,
    /// The identity of its blocks, for a namespace that is given none. `None`: one that follows from its name.
    pub uuid: Option<Uuid>,
}

impl ForeignDisk {
    /// A disk with blocks of so many bytes.
    pub fn new(disk: DiskRef, block_size: u32) -> Self {
        Self {
            disk,
            block_size,
            uuid: None,
        }
    }
}

/// Looks for a disk and tells what it has found, now or later, from whatever thread.
pub type FindDisk = Box<dyn Fn(WantedDisk<'_>, Box<dyn FnOnce(Option<ForeignDisk>) + Send>) + Send>;

/// A disk that is looked for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WantedDisk<'a> {
    /// Its name.
    pub name: &'a str,
    /// It is to have an ANA state ([`Disk::ana_state`](crate::target::Disk::ana_state)), which its namespace follows. One
    /// that can have none is found without.
    pub with_ana: bool,
}

/// As [`register`](super::register), beside whoever has disks as well: `nvmf_subsystem_add_ns` finds them by `find` where
/// there is none of that name here. They are not listed by `bdev_get_bdevs` here, and whoever has them has the calls that
/// make them again.
pub fn register_beside(methods: &mut Methods, target: TargetHandle, find: FindDisk) {
    let mut state = State::new(target, Keyring::default());
    state.foreign = Some(find);
    register_state(methods, state);
}

impl State {
    /// Whether a disk of this name has to be looked for elsewhere.
    pub(super) fn is_foreign(&mut self, name: &str) -> bool {
        self.foreign.is_some() && self.disks.find(name).is_err()
    }

    /// Looks for it; `found` goes on when it is among the disks here, or is told that there is none.
    pub(super) fn find_foreign(
        &self,
        (name, with_ana): (String, bool),
        (responder, mail): (Responder, Mail<State>),
        found: impl FnOnce(&mut State, Responder, Result<(), RpcError>) + Send + 'static,
    ) {
        let Some(find) = &self.foreign else {
            return;
        };
        let key = name.clone();
        let wanted = WantedDisk {
            name: &key,
            with_ana,
        };
        find(
            wanted,
            Box::new(move |disk| {
                mail.run(move |state| {
                    let result = match disk {
                        None => Err(RpcError::errno(ENODEV)),
                        Some(disk) => {
                            state.adopt(name, disk);
                            Ok(())
                        }
                    };
                    found(state, responder, result);
                });
            }),
        );
    }

    /// Takes it among the disks here for as long as a namespace is made of it.
    fn adopt(&mut self, name: String, found: ForeignDisk) {
        // Two calls may have looked for it at once.
        if self.disks.find(&name).is_err() {
            let kind = Kind::Foreign;
            let uuid = found.uuid.unwrap_or_else(|| default_uuid(&kind, &name));
            self.disks.list.push(NamedDisk {
                name,
                kind,
                disk: found.disk,
                block_size: found.block_size,
                uuid,
                user: None,
                over: None,
                limits: RateLimits::default(),
            });
        }
    }
}
