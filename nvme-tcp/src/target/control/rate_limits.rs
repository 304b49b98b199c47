//! Limits of disks: home owns their budgets, and grants reactors slices of them.

use pollux_reactor::Time;

use crate::rate_limit::{Ask, Budget, RateLimits};
use crate::target::control::{Home, HomeTurn};
use crate::target::disk::{DiskRef, WeakDisk};
use crate::target::io::message::IoMessage;

/// A disk with a limit.
#[derive(Debug)]
pub(in crate::target) struct Limited {
    disk: WeakDisk,
    /// Names the limit for as long as it is this one. Reactors may still ask for slices of one before.
    id: u64,
    budget: Budget,
}

impl Home {
    /// The limits of a disk are these from now on.
    pub(super) fn set_rate_limits(
        &mut self,
        disk: &DiskRef,
        limits: RateLimits,
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let is_other = |limited: &Limited| limited.disk.get().is_some_and(|other| other != *disk);
        self.limited.retain(is_other);
        let id = self.new_id();
        if limits.is_limited() {
            self.limited.push(Limited {
                disk: disk.downgrade(),
                id,
                budget: Budget::new(limits),
            });
        }
        for reactor in 0..turn.links.reactors() {
            let disk = disk.clone();
            let message = IoMessage::SetRateLimits { disk, id, limits };
            turn.links.send_io(reactor, message);
        }
    }

    /// A reactor asks for a slice.
    pub(super) fn ask_slice(
        &mut self,
        reactor: usize,
        (id, ask): (u64, Ask),
        turn: &mut HomeTurn<'_, '_>,
    ) {
        let limited = self.limited.iter_mut().find(|limited| limited.id == id);
        if let Some(limited) = limited {
            limited.budget.ask(reactor, ask, turn.cx.now());
            limited.grant(turn);
        }
    }

    /// Grants what has become due.
    pub(super) fn grant_slices(&mut self, turn: &mut HomeTurn<'_, '_>) {
        for limited in &mut self.limited {
            limited.grant(turn);
        }
    }

    /// When something becomes due that is waited for.
    pub(super) fn slices_deadline(&self) -> Option<Time> {
        let budgets = self.limited.iter().map(|limited| &limited.budget);
        budgets.filter_map(Budget::deadline).min()
    }
}

impl Limited {
    fn grant(&mut self, turn: &mut HomeTurn<'_, '_>) {
        while let Some(granted) = self.budget.grant(turn.cx.now()) {
            let (id, slice) = (self.id, granted.slice);
            let message = IoMessage::Grant { id, slice };
            turn.links.send_io(granted.reactor, message);
        }
    }
}
