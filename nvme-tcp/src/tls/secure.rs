//! Keys where they are used: by a host to connect, by a target for the hosts of its subsystems.

use std::fmt;
use std::sync::{Arc, OnceLock};

use pollux_reactor::{Net, Stream};

use super::Manner;
use super::engine::Side;
use super::psk::{ConfiguredPsk, IdentityVersion, PskError, TlsPsk};
use super::stream::TlsStream;
use crate::spec::nqn::{DISCOVERY_NQN, HostNqn, Nqn};

/// With what a host makes its connections secure.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostTls {
    /// Its key.
    pub psk: HostKey,
    /// Another thread may do what takes long; in a simulation there is none.
    pub threads: bool,
    /// The version of the identity that is offered first, before the other one. There are peers that look no further than the
    /// first one that they do not know: to such a one a [`Controller`](crate::host::Controller) connects once more, the other
    /// way round.
    pub first: IdentityVersion,
}

/// The key of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostKey {
    /// One that it was given.
    Configured(ConfiguredPsk),
    /// One that has come out of an authentication with this controller.
    Generated(TlsPsk),
}

impl From<TlsPsk> for HostKey {
    fn from(key: TlsPsk) -> Self {
        Self::Generated(key)
    }
}

impl From<ConfiguredPsk> for HostKey {
    fn from(psk: ConfiguredPsk) -> Self {
        Self::Configured(psk)
    }
}

impl HostTls {
    /// With this key, which other threads make handshakes with; the identity that everybody knows is offered first.
    pub fn new(psk: impl Into<HostKey>) -> Self {
        Self {
            psk: psk.into(),
            threads: true,
            first: IdentityVersion::V0,
        }
    }

    /// What is offered, in that order: both versions of identities, where the names allow both.
    fn keys(&self, hostnqn: &Nqn, subnqn: &Nqn) -> Vec<TlsPsk> {
        match &self.psk {
            HostKey::Configured(psk) => {
                let derive = |version| psk.tls_psk(version, hostnqn.as_str(), subnqn.as_str());
                let versions = [self.first, self.first.other()];
                versions.into_iter().flat_map(derive).collect()
            }
            HostKey::Generated(key) => [key.clone()].into(),
        }
    }

    /// The same with the other identity first, if there is another one.
    pub(crate) fn turned(&self, hostnqn: &Nqn, subnqn: &Nqn) -> Option<Self> {
        let turned = Self {
            first: self.first.other(),
            ..self.clone()
        };
        (turned.keys(hostnqn, subnqn).len() > 1).then_some(turned)
    }

    /// Puts TLS around a connection that was begun, of this host to this subsystem; with `ktls` the kernel encrypts where it can.
    pub(crate) fn wrap(
        &self,
        net: &mut Net,
        stream: Stream,
        [hostnqn, subnqn]: [&Nqn; 2],
        ktls: bool,
    ) -> (Stream, Option<Session>) {
        let keys = vec![self.keys(hostnqn, subnqn).into()];
        let manner = Manner {
            threads: self.threads,
            optional: false,
            ktls,
        };
        let (stream, session) = TlsStream::wrap(net, stream, Side::Host, keys, manner);
        (stream, Some(session))
    }
}

/// The key of a host at a subsystem of a target: the host connects by TLS with it, and not otherwise. Nothing of the key is kept
/// but what is derived from it for these two, and for the host and discovery.
#[derive(Clone, PartialEq, Eq)]
pub struct HostPsk {
    name: String,
    keys: Arc<[TlsPsk]>,
    /// With these the host may look at what is to be discovered at the subsystem's secure listeners.
    discovery: Arc<[TlsPsk]>,
}

impl HostPsk {
    /// The key `psk` of a host at a subsystem; `name` is what status and saved configurations have of it.
    ///
    /// # Errors
    /// The names are too long for the identity that every peer knows.
    pub fn new(
        name: &str,
        psk: &ConfiguredPsk,
        host: &HostNqn,
        subsystem: &Nqn,
    ) -> Result<Self, PskError> {
        let derive = |version| psk.tls_psk(version, host.as_str(), subsystem.as_str());
        let keys: Result<Vec<TlsPsk>, PskError> =
            IdentityVersion::ALL.into_iter().map(derive).collect();
        let for_discovery = |version| psk.tls_psk(version, host.as_str(), DISCOVERY_NQN);
        // A name that is too long for one version has the other.
        let discovery = IdentityVersion::ALL.into_iter().flat_map(for_discovery);
        Ok(Self {
            name: name.into(),
            keys: keys?.into(),
            discovery: discovery.collect(),
        })
    }

    /// The key that has come out of an authentication. It has no name: nobody saves it.
    pub(crate) fn generated(key: TlsPsk) -> Self {
        Self {
            name: String::new(),
            keys: [key].into(),
            discovery: [].into(),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for HostPsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostPsk").field(&self.name).finish()
    }
}

/// How one connection is secure, once its stream has told it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session(Arc<OnceLock<Secured>>);

/// How a connection is secure.
#[derive(Debug)]
pub(super) struct Secured {
    /// The identity that its handshake has used.
    pub(super) identity: String,
    /// The kernel encrypts.
    pub(super) ktls: bool,
}

impl Session {
    /// Puts TLS around a connection that was accepted; any of these keys will do.
    pub(crate) fn accept<'a>(
        net: &mut Net,
        stream: Stream,
        keys: impl Iterator<Item = &'a HostPsk>,
        manner: Manner,
    ) -> (Stream, Option<Self>) {
        let keys = keys.flat_map(|psk| [psk.keys.clone(), psk.discovery.clone()]);
        let keys = keys.collect();
        let (stream, session) = TlsStream::wrap(net, stream, Side::Target, keys, manner);
        (stream, Some(session))
    }

    /// Whether the connection is secure.
    pub(crate) fn is_open(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether the kernel encrypts it.
    pub(crate) fn is_ktls(&self) -> bool {
        self.0.get().is_some_and(|secured| secured.ktls)
    }

    pub(super) fn set(&self, secured: Secured) {
        let is_first = self.0.set(secured).is_ok();
        debug_assert!(is_first, "a connection has one handshake");
    }

    /// Whether the handshake used this key, for its subsystem.
    pub(crate) fn used(&self, psk: &HostPsk) -> bool {
        self.is_of(&psk.keys)
    }

    /// Whether the handshake used this key, for discovery.
    pub(crate) fn used_for_discovery(&self, psk: &HostPsk) -> bool {
        self.is_of(&psk.discovery)
    }

    fn is_of(&self, keys: &[TlsPsk]) -> bool {
        let is_it = |secured: &Secured| keys.iter().any(|key| key.identity == secured.identity);
        self.0.get().is_some_and(is_it)
    }
}
