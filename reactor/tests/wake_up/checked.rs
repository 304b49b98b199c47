//! The channel as it is.

#[path = "../../src/mailbox/channel.rs"]
pub(crate) mod channel;

use crate::{ring, sync};
