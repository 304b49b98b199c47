//! What an I/O reactor does: its poll group of volumes and links, and the application that submits to them.
//!
//! An I/O comes in by [`PollGroup::submit`], is given to a path that the volume selects, travels through that path's
//! queue pair as an [`InFlight`](in_flight::InFlight), and what comes of it is decided in `retry`. Control speaks
//! to the poll group by messages (`from_control`), and is answered by messages; nothing here waits for it.

mod from_control;
mod in_flight;
mod link;
mod overdue;
mod path;
mod poll_group;
mod retry;
mod select;
mod service;
mod silence;
mod volume;

pub use self::overdue::Aborting;
pub use self::poll_group::PollGroup;
pub use self::service::Application;
pub(crate) use self::service::IoService;
