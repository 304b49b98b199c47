//! What an I/O reactor does: its poll group of volumes and links, and the application that submits to them.
//!
//! An I/O comes in by [`PollGroup::submit`], is given to a path that the volume selects, travels through that path's
//! queue pair as an [`InFlight`](in_flight::InFlight), and what comes of it is decided in `poll_group::retry`.
//! Control speaks to the poll group by messages (`to_io`, `poll_group::from_control`), and is answered by messages; nothing
//! here waits for it.

mod fence;
mod in_flight;
mod link;
mod path;
mod poll_group;
mod select;
mod service;
mod silence;
mod to_io;
mod volume;

pub use self::poll_group::{Aborting, PollGroup};
pub use self::service::Application;
pub(crate) use self::service::IoService;
pub use self::to_io::IoMessage;
pub(crate) use self::to_io::{Call, ToIo};
