//! The rings as they are.

#[path = "../../src/queue/rings.rs"]
pub(crate) mod rings;

use crate::sync;
