//! Limits of volumes: control owns their budgets, and grants the I/O reactors slices of them.

use pollux_nvme_tcp::rate_limit::{Ask, Budget, RateChange};
use pollux_reactor::Time;

use super::Control;
use crate::ids::VolumeId;
use crate::io::{Call, ToIo};
use crate::request::Reply;

impl Control {
    /// Changes limits of a volume; answered when every I/O reactor keeps to them.
    pub(super) fn set_rate_limits(&mut self, name: &str, change: RateChange, reply: Reply<()>) {
        let id = match self.shared.volumes.id_of(name) {
            Ok(id) => id,
            Err(error) => return reply(Err(error)),
        };
        let number = self.shared.next_epoch();
        let volume = self.shared.volumes.of_path(id);
        let limits = change.apply(volume.limits);
        volume.limits = limits;
        let budget = || (number, Budget::new(limits));
        volume.budget = limits.is_limited().then(budget);
        self.ask(
            move |group| group.set_rate_limits(id, number, limits),
            |_, _| reply(Ok(())),
        );
    }

    /// A reactor asks for a slice of the limit of this number; the volume may have another one by now, or have gone.
    pub(super) fn ask_slice(&mut self, reactor: usize, id: VolumeId, (number, ask): (u64, Ask)) {
        let now = self.shared.now;
        let volume = self.shared.volumes.get_mut(id);
        if let Some((current, budget)) = volume.and_then(|volume| volume.budget.as_mut())
            && *current == number
        {
            budget.ask(reactor, ask, now);
            self.grant_slices();
        }
    }

    /// Grants what has become due.
    pub(super) fn grant_slices(&mut self) {
        let now = self.shared.now;
        for volume in self.shared.volumes.iter_mut() {
            let id = volume.info.id;
            let Some((number, budget)) = &mut volume.budget else {
                continue;
            };
            let number = *number;
            while let Some(granted) = budget.grant(now) {
                let slice = granted.slice;
                let call = Call::new(move |group| group.granted(id, number, slice));
                self.shared.reactors.post(granted.reactor, ToIo::Call(call));
            }
        }
    }

    /// When something becomes due that is waited for.
    pub(super) fn slices_deadline(&self) -> Option<Time> {
        let budgets = self.shared.volumes.iter().filter_map(|v| v.budget.as_ref());
        budgets.filter_map(|(_, budget)| budget.deadline()).min()
    }
}
