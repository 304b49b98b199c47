//! Connections of hosts, whatever they carry: the stream with its buffers and framing, the buffers that connections with
//! nothing to do leave to others, how a connection is seen off, and what the log says about peers.

pub(in crate::target) mod buffers;
pub(in crate::target) mod connection;
pub(in crate::target) mod linger;
pub(in crate::target) mod said;

use pollux_reactor::Context;

use self::buffers::Buffers;
use self::linger::Lingering;

/// What those that serve connections may use during one call.
pub(in crate::target) struct Turn<'t, 'c> {
    pub(in crate::target) lingering: &'t mut Lingering,
    pub(in crate::target) buffers: &'t mut Buffers,
    pub(in crate::target) cx: &'t mut Context<'c>,
}
