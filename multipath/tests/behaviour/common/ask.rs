//! What tests ask of the host, the target and the tap beyond the daily things.

use std::sync::mpsc;
use std::time::Duration;

use pollux_multipath::{
    AttachRequest, Attached, ControllerChange, ControllerStatus, HostError, HostRequest,
    PathStatus, Policy,
};
use pollux_nvme_tcp::target::{Backend, NamespaceConfig, TargetRequest};
use pollux_nvme_tcp::testing::{Seen, Tap, Verdict};

use super::{BLOCK_SIZE, World, addr, nqn, transport};

impl World {
    /// Adds a namespace.
    pub fn add_namespace(&mut self, nsid: u32, blocks: u64) {
        self.target(TargetRequest::add_namespace(
            nqn(),
            Some(nsid),
            NamespaceConfig::new(
                Backend::Memory {
                    bytes: blocks * u64::from(BLOCK_SIZE),
                },
                BLOCK_SIZE,
            ),
        ));
    }

    pub fn remove_namespace(&mut self, nsid: u32) {
        self.target(TargetRequest::remove_namespace(nqn(), nsid));
    }

    pub fn resize_namespace(&mut self, nsid: u32, blocks: u64) {
        self.target(TargetRequest::resize_namespace(
            nqn(),
            nsid,
            blocks * u64::from(BLOCK_SIZE),
        ));
    }

    /// Decides what becomes of each command from now on.
    pub fn on_command(&self, decide: impl FnMut(&Seen) -> Verdict + 'static) {
        self.tap.borrow_mut().on_command = Some(Box::new(decide));
    }

    /// Changes data on its way to the host from now on.
    pub fn on_data(&self, change: impl FnMut(&Seen, &mut [u8]) + 'static) {
        self.tap.borrow_mut().on_data = Some(Box::new(change));
    }

    /// Lets the tap see that it was told something.
    pub fn wake_tap(&self) {
        assert!(self.wire.as_ref().is_some_and(|wire| wire.send(()).is_ok()));
    }

    /// Asks for an attach without waiting for its end.
    pub fn start_attach(
        &mut self,
        request: AttachRequest,
    ) -> mpsc::Receiver<Result<Attached, HostError>> {
        let (sender, receiver) = mpsc::channel();
        self.request(HostRequest::Attach(
            Box::new(request),
            Box::new(move |answer| sender.send(answer).unwrap()),
        ));
        receiver
    }

    /// Asks for a detach without waiting for its end.
    pub fn start_detach(
        &mut self,
        name: &str,
        path: Option<u16>,
    ) -> mpsc::Receiver<Result<(), HostError>> {
        let (sender, receiver) = mpsc::channel();
        self.request(HostRequest::Detach {
            name: name.into(),
            transport: path.map(transport),
            reply: Box::new(move |answer| sender.send(answer).unwrap()),
        });
        receiver
    }

    /// Asks for a change without waiting for its end.
    pub fn start_change(
        &mut self,
        cntlid: Option<u16>,
        change: ControllerChange,
    ) -> mpsc::Receiver<Result<(), HostError>> {
        let (sender, receiver) = mpsc::channel();
        self.request(HostRequest::Change {
            name: "Nvme0".into(),
            cntlid,
            change,
            reply: Box::new(move |answer| sender.send(answer).unwrap()),
        });
        receiver
    }

    /// Sets the policy of the first volume.
    pub fn set_policy(&mut self, policy: Policy) {
        let (sender, receiver) = mpsc::channel();
        self.request(HostRequest::SetPolicy {
            volume: "Nvme0n1".into(),
            policy,
            reply: Box::new(move |answer| sender.send(answer).unwrap()),
        });
        self.wait(receiver).unwrap();
    }

    /// Makes a path the preferred one of the first volume.
    pub fn prefer(&mut self, path: u16) {
        let cntlid = self.controller(path).cntlid;
        let (sender, receiver) = mpsc::channel();
        self.request(HostRequest::SetPreferredPath {
            volume: "Nvme0n1".into(),
            cntlid,
            reply: Box::new(move |answer| sender.send(answer).unwrap()),
        });
        self.wait(receiver).unwrap();
    }

    /// The controller that a path leads to.
    pub fn controller(&mut self, path: u16) -> ControllerStatus {
        let list = self.controllers();
        let found = list.into_iter().find(|c| c.transport.addr == addr(path));
        found.expect("a controller at the address")
    }

    /// Lets go what the tap holds.
    pub fn release(&self) {
        self.tap.borrow_mut().hold = false;
        self.wake_tap();
    }

    /// Runs until a condition holds, for at most a minute of virtual time.
    pub fn run_until(&mut self, what: &str, mut condition: impl FnMut(&Tap) -> bool) {
        let tap = self.tap.clone();
        let held = self
            .sim
            .run_until(Duration::from_secs(60), || condition(&tap.borrow()));
        assert!(held, "in a minute of virtual time: {what}");
    }

    /// What a reactor says of a path of the first volume.
    pub fn path(&mut self, reactor: usize, path: u16) -> PathStatus {
        let status = self.status();
        let mut reactors = status[0].reactors.iter();
        let view = reactors.find(|r| r.reactor == reactor).expect("its answer");
        let mut found = view.paths.iter().filter(|p| p.transport.addr == addr(path));
        found.next().expect("such a path").clone()
    }
}
