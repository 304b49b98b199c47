//! What stands in for TLS where the feature `tls` is off: nobody can have it, so nothing of this can ever be.

use pollux_reactor::{Net, Stream};

use super::Manner;
use crate::spec::nqn::Nqn;

/// With what a host makes its connections secure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostTls {}

/// The key of a host at a subsystem of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPsk {}

/// What has become of the handshake of one connection of a target.
#[derive(Clone, Debug)]
pub(crate) enum Session {}

impl HostTls {
    /// Never.
    pub(crate) fn turned(&self, _: &Nqn, _: &Nqn) -> Option<Self> {
        match *self {}
    }

    /// Never.
    pub(crate) fn wrap(
        &self,
        _: &mut Net,
        _: Stream,
        _: [&Nqn; 2],
        _: bool,
    ) -> (Stream, Option<Session>) {
        match *self {}
    }
}

impl HostPsk {
    /// Never: nobody may ask for one.
    #[cfg(feature = "auth")]
    pub(crate) fn generated(_: super::TlsPsk) -> Self {
        unreachable!("no authentication makes a key for TLS where there is none")
    }

    /// Never.
    pub fn name(&self) -> &str {
        match *self {}
    }
}

impl Session {
    /// Nothing: no listener is secure.
    pub(crate) fn accept<'a>(
        _: &mut Net,
        stream: Stream,
        _: impl Iterator<Item = &'a HostPsk>,
        _: Manner,
    ) -> (Stream, Option<Self>) {
        (stream, None)
    }

    /// Never.
    pub(crate) fn is_open(&self) -> bool {
        match *self {}
    }

    /// Never.
    pub(crate) fn is_ktls(&self) -> bool {
        match *self {}
    }

    /// Never.
    pub(crate) fn used(&self, _: &HostPsk) -> bool {
        match *self {}
    }

    /// Never.
    pub(crate) fn used_for_discovery(&self, _: &HostPsk) -> bool {
        match *self {}
    }
}
