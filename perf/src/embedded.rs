//! The target in this process, for a run without addresses: namespaces behind two listeners on loopback, and the
//! failover that happens to the first path.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use pollux_multipath::TransportId;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::nqn::{HostNqn, Nqn};
use pollux_nvme_tcp::target::{
    self, Backend, HostAccess, NamespaceConfig, SubsystemConfig, TargetHandle, TargetRequest,
};
use pollux_reactor::Group;

use crate::size::parse_bytes;

const SUBSYSTEM_NQN: &str = "nqn.2026-01.io.pollux:embedded";
/// The smallest block, so that every I/O size and every stride can be tried.
const BLOCK_SIZE: u32 = 512;
/// ANA states of the listeners at the start.
const STATES: [AnaState; 2] = [AnaState::OPTIMIZED, AnaState::NON_OPTIMIZED];

/// What the embedded target's namespace keeps its data in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddedNamespace {
    /// Memory of this many bytes.
    Memory(u64),
    /// Nothing: writes are dropped, reads are zeroes.
    Null(u64),
}

impl EmbeddedNamespace {
    /// Size in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Memory(bytes) | Self::Null(bytes) => bytes,
        }
    }
}

impl std::fmt::Display for EmbeddedNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory(bytes) => write!(f, "memory:{bytes}"),
            Self::Null(bytes) => write!(f, "null:{bytes}"),
        }
    }
}

/// Reads `memory:SIZE` or `null:SIZE`.
pub fn parse_namespace(text: &str) -> Result<EmbeddedNamespace, String> {
    let bad = || {
        format!(
            "namespace '{text}' cannot be made: allowed are memory:SIZE and null:SIZE, such as memory:64m"
        )
    };
    let (kind, size) = text.split_once(':').ok_or_else(bad)?;
    let bytes = parse_bytes(size)?;
    if bytes == 0 || !bytes.is_multiple_of(512) {
        return Err(format!(
            "namespace size '{size}' is not possible: allowed are multiples of 512"
        ));
    }
    match kind {
        "memory" => Ok(EmbeddedNamespace::Memory(bytes)),
        "null" => Ok(EmbeddedNamespace::Null(bytes)),
        _ => Err(bad()),
    }
}

/// A running target with its listeners.
pub struct Embedded {
    handle: TargetHandle,
    nqn: Nqn,
    listeners: Vec<SocketAddr>,
}

impl Embedded {
    /// Seats a target on `reactor` of a group that is not started yet.
    pub fn seat(group: &mut Group, reactor: usize) -> TargetHandle {
        target::install(group, &[reactor])
    }

    /// Name of its subsystem.
    pub fn nqn() -> anyhow::Result<Nqn> {
        Nqn::new(SUBSYSTEM_NQN).context("the embedded target's name")
    }

    /// Sets up subsystem, namespaces and listeners of a target that runs. With a host, nobody else may connect; if that has a
    /// key for TLS, the listeners are secure; with `ktls` the kernel encrypts where it can.
    pub fn configure(
        handle: TargetHandle,
        namespaces: &[EmbeddedNamespace],
        host: Option<(HostNqn, HostAccess)>,
        ktls: bool,
    ) -> anyhow::Result<Self> {
        let nqn = Self::nqn()?;
        handle
            .call(TargetRequest::set_ktls(ktls))
            .context("setting kTLS")?;
        let secure = matches!(&host, Some((_, access)) if access.psk.is_some());
        let mut config = SubsystemConfig::new(nqn.clone());
        config.allow_any_host = host.is_none();
        handle
            .create_subsystem(config)
            .context("creating the embedded subsystem")?;
        if let Some((host, access)) = host {
            handle
                .call(TargetRequest::add_host_with(nqn.clone(), host, access))
                .context("allowing the host")?;
        }
        for &namespace in namespaces {
            let backend = match namespace {
                EmbeddedNamespace::Memory(bytes) => Backend::Memory { bytes },
                EmbeddedNamespace::Null(bytes) => Backend::Null { bytes },
            };
            handle
                .add_namespace(&nqn, NamespaceConfig::new(backend, BLOCK_SIZE))
                .with_context(|| format!("adding the embedded namespace {namespace}"))?;
        }
        let mut listeners = Vec::new();
        for state in STATES {
            let any = (Ipv4Addr::LOCALHOST, 0).into();
            let request = match secure {
                true => TargetRequest::add_secure_listener(nqn.clone(), any),
                false => TargetRequest::add_listener(nqn.clone(), any),
            };
            let addr = handle.call(request).context("listening on loopback")?;
            handle
                .set_ana_state(&nqn, addr, state)
                .context("setting an ANA state")?;
            listeners.push(addr);
        }
        Ok(Self {
            handle,
            nqn,
            listeners,
        })
    }

    /// Where to connect, the optimized path first.
    pub fn transports(&self) -> Vec<TransportId> {
        let transport = |&addr: &SocketAddr| TransportId::new(addr, self.nqn.clone());
        self.listeners.iter().map(transport).collect()
    }

    /// Sets the ANA state of one listener, counted from 0; back when every reactor of the target uses it.
    pub fn set(&self, listener: usize, state: AnaState) -> anyhow::Result<()> {
        let request = self.change(listener, state)?;
        self.handle.call(request).context("changing an ANA state")?;
        Ok(())
    }

    /// The request that sets the ANA state of one listener.
    pub fn change(&self, listener: usize, state: AnaState) -> anyhow::Result<TargetRequest> {
        Ok(TargetRequest::set_ana_state(
            self.nqn.clone(),
            self.listener(listener)?,
            None,
            state,
        ))
    }

    /// Removes one listener and all connections that came through it.
    pub fn remove_listener(&self, listener: usize) -> anyhow::Result<()> {
        let request = TargetRequest::remove_listener(self.nqn.clone(), self.listener(listener)?);
        self.handle.call(request).context("removing a listener")?;
        Ok(())
    }

    /// Adds a listener that was removed, at its address of before. Its ANA state is optimized.
    pub fn add_listener(&self, listener: usize) -> anyhow::Result<()> {
        let request = TargetRequest::add_listener(self.nqn.clone(), self.listener(listener)?);
        self.handle
            .call(request)
            .context("adding a listener again")?;
        Ok(())
    }

    /// Where one listener is.
    pub fn listener(&self, listener: usize) -> anyhow::Result<SocketAddr> {
        self.listeners
            .get(listener)
            .copied()
            .context("the embedded target has no such listener")
    }
}

/// What happens to the first path, and when.
#[derive(Debug)]
pub struct Failover {
    steps: Vec<(Duration, AnaState)>,
}

impl Failover {
    /// At half of the run the path becomes inaccessible, at three quarters optimized again.
    pub fn during(time: Duration) -> Self {
        Self {
            // The next one is at the end.
            steps: vec![
                (time * 3 / 4, AnaState::OPTIMIZED),
                (time / 2, AnaState::INACCESSIBLE),
            ],
        }
    }

    /// Nothing happens.
    pub fn none() -> Self {
        Self { steps: Vec::new() }
    }

    /// When the next step is due, since the start of the run.
    pub fn next_at(&self) -> Option<Duration> {
        self.steps.last().map(|&(at, _)| at)
    }

    /// Takes the next step if it is due.
    pub fn take_due(&mut self, elapsed: Duration) -> Option<AnaState> {
        self.steps
            .pop_if(|(at, _)| *at <= elapsed)
            .map(|(_, state)| state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failover_goes_away_and_comes_back() {
        let seconds = Duration::from_secs;
        let mut failover = Failover::during(seconds(8));
        assert_eq!(failover.next_at(), Some(seconds(4)));
        assert_eq!(failover.take_due(Duration::from_millis(3_999)), None);
        assert_eq!(failover.take_due(seconds(4)), Some(AnaState::INACCESSIBLE));
        assert_eq!(failover.take_due(seconds(4)), None);
        assert_eq!(failover.next_at(), Some(seconds(6)));
        assert_eq!(failover.take_due(seconds(9)), Some(AnaState::OPTIMIZED));
        assert_eq!(
            (failover.next_at(), failover.take_due(seconds(9))),
            (None, None)
        );
        assert_eq!(Failover::none().next_at(), None);
    }
}
