//! A volume on one I/O reactor: its paths and what waits for them.

use std::collections::VecDeque;
use std::time::Duration;

use pollux_nvme_tcp::rate_limit::Throttle;
use pollux_nvme_tcp::spec::Nqn;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::Time;

use super::fence::Fence;
use super::in_flight::IoRequest;
use super::link::Link;
use super::path::{Path, Pending, link_of};
use super::select::{Candidate, PathSet, Selection};
use crate::command::Op;
use crate::counters::{CounterReset, IoCounters};
use crate::error::NoPath;
use crate::ids::{ControllerId, VolumeInfo};
use crate::path_state::PathState;
use crate::policy::Policy;
use crate::status::{PathView, ReactorVolumeStatus};
use pollux_nvme_tcp::histogram::{HistogramLayout, LatencyHistogram};

/// How long I/O of a volume waits for a path before control is told, which says so in the log.
pub(crate) const STALL_TOLD_AFTER: Duration = Duration::from_secs(1);

/// I/O waits, and no path is available.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stalled {
    pub since: Time,
    /// Control was told.
    pub told: bool,
}

/// A volume on one reactor.
#[derive(Debug)]
pub(crate) struct Volume {
    pub info: VolumeInfo,
    selection: Selection,
    paths: Vec<Path>,
    /// The name that a path was given last.
    last_name: PathSet,
    /// Counters of paths that were removed.
    removed: IoCounters,
    /// How often I/O came back with which error, also where it was retried.
    errors: Vec<(Status, u64)>,
    /// I/Os without a path or without room in its queue, in submission order.
    pub waiting: VecDeque<IoRequest>,
    /// While the volume has a limit, or something still waits for one that it had.
    pub throttle: Option<Box<Throttle<IoRequest>>>,
    /// What a lost controller may still execute, and what stays behind it (rule B14).
    pub fence: Fence,
    /// While I/O waits because no path is available.
    pub stalled: Option<Stalled>,
    /// The ANA state that control was told last, while it is followed: then I/O does not wait for a path.
    pub ana_told: Option<AnaState>,
    /// I/Os submitted and not completed.
    pub outstanding: usize,
    /// How long I/Os took, while that is counted.
    pub histogram: Option<Box<LatencyHistogram>>,
}

impl Volume {
    pub fn new(info: VolumeInfo, policy: Policy) -> Self {
        Self {
            info,
            selection: Selection::new(policy),
            paths: Vec::new(),
            last_name: PathSet::EMPTY,
            removed: IoCounters::default(),
            errors: Vec::new(),
            waiting: VecDeque::with_capacity(1024),
            throttle: None,
            fence: Fence::default(),
            stalled: None,
            ana_told: None,
            outstanding: 0,
            histogram: None,
        }
    }

    /// Begins or ends to count latencies.
    pub fn set_histogram(&mut self, layout: Option<HistogramLayout>) {
        self.histogram = layout.map(|layout| Box::new(LatencyHistogram::new(layout)));
    }

    #[inline]
    pub fn record_latency(&mut self, op: Op, latency: Duration) {
        if let Some(histogram) = &mut self.histogram {
            histogram.record(op.opcode(), latency);
        }
    }

    /// Selects the path of the next I/O (rule B5.1): from the table, every time. Returns the place of its link among
    /// `links`. The paths to avoid have just failed it, and are avoided as far as there are others.
    #[inline]
    pub fn pick(&mut self, links: &[Option<Box<Link>>], avoid: PathSet) -> Option<usize> {
        let paths = &self.paths;
        let pick = self
            .selection
            .pick(paths.len(), |i| allowed(&paths[i], links, avoid));
        let path = match pick {
            None if !avoid.is_empty() => self
                .selection
                .pick(paths.len(), |i| paths[i].candidate(links)),
            pick => pick,
        }?;
        Some(usize::from(paths[path].controller.slot))
    }

    /// What to avoid after a path has failed an I/O; `None` if there is no other path for it now. The path may
    /// have been removed since the I/O was sent.
    pub fn avoid(
        &self,
        links: &[Option<Box<Link>>],
        avoid: PathSet,
        controller: ControllerId,
    ) -> Option<PathSet> {
        let failed = self.paths.iter().find(|p| p.controller == controller);
        let avoid = avoid.and(failed.map_or(PathSet::EMPTY, |path| path.name));
        self.paths
            .iter()
            .any(|path| allowed(path, links, avoid).available)
            .then_some(avoid)
    }

    /// Puts an I/O among the waiting ones, at its place in the order of submission.
    pub fn wait(&mut self, request: IoRequest) {
        let sequence = request.user.sequence;
        let place = match self.waiting.back() {
            Some(last) if last.user.sequence > sequence => {
                self.waiting.partition_point(|r| r.user.sequence < sequence)
            }
            _ => self.waiting.len(),
        };
        self.waiting.insert(place, request);
    }

    /// Whether any path is available.
    pub fn has_path(&self, links: &[Option<Box<Link>>]) -> bool {
        self.paths
            .iter()
            .any(|path| path.candidate(links).available)
    }

    /// Why an I/O without an available path must not wait; `None` while some path may become available.
    pub fn hopeless(&self, links: &[Option<Box<Link>>]) -> Option<NoPath> {
        let mut worst = NoPath::NoPaths;
        for path in &self.paths {
            worst = worst.max(path.hopeless(links)?);
        }
        Some(worst)
    }

    /// Why an I/O without an available path ends, and does not wait; `None` if it waits.
    #[cold]
    pub fn gives_up(&self, links: &[Option<Box<Link>>]) -> Option<NoPath> {
        let not_awaited = self.ana_told.map(|_| NoPath::NotAwaited);
        self.hopeless(links).or(not_awaited)
    }

    /// The ANA state of the volume as a whole: that of the best path that is available. Without any, it says what may be
    /// hoped for: that a change behind ends, that a path comes back, or nothing.
    pub fn ana_state(&self, links: &[Option<Box<Link>>]) -> AnaState {
        let candidates = || self.paths.iter().map(|path| path.candidate(links));
        if candidates().any(|path| path.available && path.optimized) {
            return AnaState::OPTIMIZED;
        }
        if candidates().any(|path| path.available) {
            return AnaState::NON_OPTIMIZED;
        }
        let is_changing = |path: &Path| {
            let link = link_of(links, path.controller);
            path.state.ana == AnaState::CHANGE
                && path.hopeless(links).is_none()
                && link.is_some_and(Link::is_connected)
        };
        if self.paths.iter().any(is_changing) {
            return AnaState::CHANGE;
        }
        match self.hopeless(links) {
            Some(NoPath::PersistentLoss) => AnaState::PERSISTENT_LOSS,
            _ => AnaState::INACCESSIBLE,
        }
    }

    #[inline]
    pub fn path_mut(&mut self, controller: ControllerId) -> Option<&mut Path> {
        self.paths.iter_mut().find(|p| p.controller == controller)
    }

    /// The subsystem of its controllers, as far as one has begun to connect here.
    pub fn subsystem(&self, links: &[Option<Box<Link>>]) -> Option<Nqn> {
        let mut links = self.paths.iter().map(|p| link_of(links, p.controller));
        links.find_map(|link| link?.subnqn.clone())
    }

    pub fn add_path(&mut self, controller: ControllerId, state: PathState) {
        let is_new = self.path_mut(controller).is_none();
        assert!(is_new, "a path of {controller:?} was added twice");
        let taken = |taken: PathSet, path: &Path| taken.and(path.name);
        let taken = self.paths.iter().fold(PathSet::EMPTY, taken);
        let name = PathSet::name(self.last_name, taken);
        self.last_name = name;
        // Attach order is what selection goes by (rule B5.2), whichever connection is there first.
        let place = self.paths.partition_point(|p| p.controller < controller);
        self.paths.insert(place, Path::new(controller, name, state));
        self.selection.path_added(place);
    }

    /// Applies a state unless it is older than what the path has, or of a path that has gone (rule B3.5). Returns whether it
    /// was.
    pub fn set_path(&mut self, controller: ControllerId, state: PathState) -> bool {
        let Some(path) = self.path_mut(controller) else {
            return false;
        };
        if state.epoch <= path.state.epoch {
            return false;
        }
        // Repeated reports of inaccessible or change neither restart ANATT nor take its expiry back.
        if !(state.ana.is_transient() && path.state.ana.is_transient()) {
            path.anatt_expired = false;
        }
        path.state = state;
        path.settle();
        true
    }

    /// Which read of the ANA log explains the ANA status that was seen on a path.
    pub fn await_log(&mut self, controller: ControllerId, read: u64) {
        if let Some(path) = self.path_mut(controller)
            && path.pending == Pending::Told
        {
            path.pending = Pending::Read(read);
            path.settle();
        }
    }

    /// The controller's connection is gone: what a new one reads decides afresh, as it does at control.
    pub fn disconnected(&mut self, controller: ControllerId) {
        if let Some(path) = self.path_mut(controller) {
            path.pending = Pending::No;
            path.anatt_expired = false;
        }
    }

    /// ANATT ran out for the state of `epoch`; void if a newer state was applied (rule B4.2).
    pub fn anatt_expired(&mut self, controller: ControllerId, epoch: u64) {
        if let Some(path) = self.path_mut(controller)
            && path.state.epoch == epoch
        {
            path.anatt_expired = true;
        }
    }

    pub fn remove_path(&mut self, controller: ControllerId) {
        let Some(index) = self.paths.iter().position(|p| p.controller == controller) else {
            unreachable!("a path of {controller:?} that is not here was removed");
        };
        self.removed.add(&self.paths.remove(index).counters);
        self.selection.path_removed(index);
    }

    pub fn reset_counters(&mut self, what: CounterReset) {
        let paths = self.paths.iter_mut().map(|path| &mut path.counters);
        for counters in paths.chain([&mut self.removed]) {
            counters.reset(what);
        }
        if what != CounterReset::Extremes {
            self.errors.clear();
        }
    }

    /// Counts an error; `status` is reduced to SCT and SC.
    pub fn count_error(&mut self, status: Status) {
        let status = status.code();
        match self.errors.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => self.errors.push((status, 1)),
        }
    }

    pub fn set_policy(&mut self, policy: Policy) {
        self.selection.set_policy(policy);
    }

    pub fn set_failback(&mut self, failback: bool) {
        self.selection.set_failback(failback);
    }

    pub fn set_preferred(&mut self, controller: ControllerId) {
        let index = self.paths.iter().position(|p| p.controller == controller);
        assert!(index.is_some(), "no path of {controller:?} to prefer");
        self.selection.set_preferred(index);
    }

    /// The status of this moment, computed from the table by the code that selects (rule B13.2).
    pub fn status(
        &self,
        reactor: usize,
        now: Time,
        links: &[Option<Box<Link>>],
    ) -> ReactorVolumeStatus<PathView> {
        let view = |i: usize| self.paths[i].candidate(links);
        let paths = self
            .paths
            .iter()
            .enumerate()
            .map(|(index, path)| PathView {
                controller: path.controller,
                current: self.selection.is_current(index, self.paths.len(), view),
                connected: link_of(links, path.controller).is_some_and(Link::is_connected),
                accessible: path.is_accessible(),
                ana_state: path.state.ana,
                ana_group: path.state.group,
                epoch: path.state.epoch,
                log_pending: path.pending != Pending::No,
                anatt_expired: path.anatt_expired,
                outstanding: view(index).outstanding,
                longest_silence: link_of(links, path.controller)
                    .map_or(Duration::ZERO, Link::longest_silence),
                counters: path.counters,
            })
            .collect();
        ReactorVolumeStatus {
            volume: self.info.id,
            reactor,
            waiting: self.waiting.len()
                + self.fence.requests().count()
                + self.throttle.as_ref().map_or(0, |t| t.waiting()),
            fenced: self.fence.status(now),
            no_path_since: self.stalled.map(|stalled| stalled.since),
            removed: self.removed,
            errors: self.errors.clone(),
            paths,
        }
    }
}

#[inline]
fn allowed(path: &Path, links: &[Option<Box<Link>>], avoid: PathSet) -> Candidate {
    let mut candidate = path.candidate(links);
    candidate.available &= !avoid.has(path.name);
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::VolumeId;
    use pollux_nvme_tcp::spec::log::AnaState;

    const ID: ControllerId = ControllerId {
        slot: 0,
        generation: 1,
    };

    fn state(epoch: u64, ana: AnaState) -> PathState {
        PathState {
            log_read: 1,
            epoch,
            ana,
            group: 1,
            active: true,
        }
    }

    /// A volume with one path of a controller that is being connected.
    fn volume(ana: AnaState) -> (Volume, Vec<Option<Box<Link>>>) {
        let info = VolumeInfo {
            id: VolumeId {
                slot: 0,
                generation: 1,
            },
            name: "Nvme0n1".into(),
            nsid: 1,
            blocks: 8,
            block_shift: 9,
        };
        let mut volume = Volume::new(info, Policy::ActivePassive);
        volume.add_path(ID, state(5, ana));
        (volume, vec![Some(Box::new(Link::new(ID)))])
    }

    /// B3.5: a state with an older epoch, or the same, is dropped.
    #[test]
    fn an_older_epoch_is_dropped() {
        let (mut c, links) = volume(AnaState::OPTIMIZED);
        for epoch in [1, 4, 5] {
            assert!(!c.set_path(ID, state(epoch, AnaState::INACCESSIBLE)));
            assert_eq!(
                c.status(0, Time::ZERO, &links).paths[0].ana_state,
                AnaState::OPTIMIZED
            );
        }
        assert!(c.set_path(ID, state(6, AnaState::INACCESSIBLE)));
        assert!(!c.set_path(ID, state(5, AnaState::OPTIMIZED)));
        let path = &c.status(0, Time::ZERO, &links).paths[0];
        assert_eq!((path.ana_state, path.epoch), (AnaState::INACCESSIBLE, 6));
    }

    /// B3.4, B3.5: the wait for the log ends with a state of the read that control names, or of a later one; a newer
    /// epoch with what an older read told does not end it.
    #[test]
    fn only_a_log_read_after_the_ana_status_explains_it() {
        let pending = |c: &Volume, links: &[_]| c.status(0, Time::ZERO, links).paths[0].log_pending;
        let by_read = |epoch, log_read| PathState {
            log_read,
            ..state(epoch, AnaState::OPTIMIZED)
        };
        let (mut c, links) = volume(AnaState::OPTIMIZED);
        c.path_mut(ID).unwrap().pending = Pending::Told;
        assert!(!c.set_path(ID, by_read(5, 9)), "an older epoch");
        assert!(c.set_path(ID, by_read(6, 1)));
        assert!(pending(&c, &links), "control has not said what to wait for");
        c.await_log(ID, 3);
        assert!(c.set_path(ID, by_read(7, 2)));
        assert!(pending(&c, &links), "begun before the status was seen");
        assert!(c.set_path(ID, by_read(8, 3)));
        assert!(!pending(&c, &links));
        c.await_log(ID, 4);
        assert!(!pending(&c, &links), "nothing was asked");
        // The log may come before the word which one it has to be.
        c.path_mut(ID).unwrap().pending = Pending::Told;
        assert!(c.set_path(ID, by_read(9, 4)));
        c.await_log(ID, 4);
        assert!(!pending(&c, &links));
        // A new connection begins anew.
        c.path_mut(ID).unwrap().pending = Pending::Read(9);
        c.disconnected(ID);
        assert!(!pending(&c, &links));
    }

    /// B4.2: an expiry that a newer state has overtaken is void, whatever that state is.
    #[test]
    fn an_expiry_of_an_older_epoch_is_void() {
        for newer in [
            AnaState::OPTIMIZED,
            AnaState::NON_OPTIMIZED,
            AnaState::INACCESSIBLE,
            AnaState::CHANGE,
            AnaState::PERSISTENT_LOSS,
        ] {
            let (mut c, links) = volume(AnaState::INACCESSIBLE);
            assert!(c.set_path(ID, state(6, newer)));
            c.anatt_expired(ID, 5);
            assert!(
                !c.status(0, Time::ZERO, &links).paths[0].anatt_expired,
                "{newer}"
            );
        }
    }

    /// B4.2, B4.3: an expiry of the present epoch counts, for as long as the path is inaccessible or in change.
    #[test]
    fn an_expiry_of_the_present_epoch_counts() {
        let (mut c, links) = volume(AnaState::INACCESSIBLE);
        assert_eq!(c.hopeless(&links), None);
        c.anatt_expired(ID, 5);
        assert_eq!(c.hopeless(&links), Some(NoPath::AnattExpired));
        assert!(c.set_path(ID, state(6, AnaState::CHANGE)));
        assert_eq!(c.hopeless(&links), Some(NoPath::AnattExpired));
        assert!(c.set_path(ID, state(7, AnaState::OPTIMIZED)));
        assert_eq!(c.hopeless(&links), None);
    }

    /// B3.5: what is meant for a path that was made again does not reach its successor.
    #[test]
    fn a_message_for_another_controller_of_the_same_place_is_dropped() {
        let (mut c, links) = volume(AnaState::INACCESSIBLE);
        let predecessor = ControllerId {
            slot: 0,
            generation: 0,
        };
        assert!(!c.set_path(predecessor, state(9, AnaState::OPTIMIZED)));
        c.anatt_expired(predecessor, 5);
        let path = &c.status(0, Time::ZERO, &links).paths[0];
        assert!(!path.accessible && !path.anatt_expired);
    }

    /// B7.1: each reason not to wait for a path, and that one path that may become available is enough to wait for.
    #[test]
    fn io_waits_while_one_path_may_become_available() {
        let second = ControllerId {
            slot: 1,
            generation: 2,
        };
        type Make = fn(&mut Volume, &mut Vec<Option<Box<Link>>>);
        let rows: [(NoPath, Make); 6] = [
            (NoPath::NoPaths, |c, _| c.remove_path(ID)),
            (NoPath::ControllerLost, |_, links| links[0] = None),
            (NoPath::ControllerLost, |_, links| {
                links[0].as_mut().unwrap().recovering = false;
            }),
            (NoPath::FastIoFail, |_, links| {
                links[0].as_mut().unwrap().excluded = true;
            }),
            (NoPath::PersistentLoss, |c, _| {
                c.set_path(ID, state(6, AnaState::PERSISTENT_LOSS));
            }),
            (NoPath::AnattExpired, |c, _| {
                c.set_path(ID, state(6, AnaState::CHANGE));
                c.anatt_expired(ID, 6);
            }),
        ];
        for (why, make) in rows {
            let (mut c, mut links) = volume(AnaState::OPTIMIZED);
            assert_eq!(c.hopeless(&links), None);
            make(&mut c, &mut links);
            assert_eq!(c.hopeless(&links), Some(why));
            links.push(Some(Box::new(Link::new(second))));
            c.add_path(second, state(1, AnaState::INACCESSIBLE));
            assert_eq!(c.hopeless(&links), None, "{why}");
        }
        let (mut c, links) = volume(AnaState::OPTIMIZED);
        let inactive = PathState {
            active: false,
            ..state(6, AnaState::OPTIMIZED)
        };
        c.set_path(ID, inactive);
        assert_eq!(c.hopeless(&links), Some(NoPath::NamespaceInactive));
        assert!(
            !c.status(0, Time::ZERO, &links).paths[0].accessible,
            "B2.2: inactive"
        );
    }

    /// What is avoided is a path, wherever it stands in the table by now.
    #[test]
    fn a_path_is_avoided_wherever_it_stands_in_the_table() {
        let (mut v, mut links) = volume(AnaState::OPTIMIZED);
        let id = |slot| ControllerId {
            slot,
            generation: 1,
        };
        for slot in 1..3 {
            links.push(Some(Box::new(Link::new(id(slot)))));
            v.add_path(id(slot), state(1, AnaState::OPTIMIZED));
        }
        let failed = v.paths[1].name;
        v.remove_path(ID);
        assert_eq!(v.paths[0].controller, id(1));
        assert!(failed.has(v.paths[0].name) && !failed.has(v.paths[1].name));
        // Its successor at the same place is another path.
        v.remove_path(id(1));
        v.add_path(id(1), state(2, AnaState::OPTIMIZED));
        assert!(v.paths.iter().all(|path| !failed.has(path.name)));
    }
    /// B5.2: paths stand in attach order, whichever controller was connected first and whatever place it has.
    #[test]
    fn paths_stand_in_attach_order() {
        let (mut v, mut links) = volume(AnaState::OPTIMIZED);
        let id = |slot, generation| ControllerId { slot, generation };
        for controller in [id(1, 4), id(3, 2), id(2, 3)] {
            links.resize_with(4, || None);
            links[usize::from(controller.slot)] = Some(Box::new(Link::new(controller)));
            v.add_path(controller, state(1, AnaState::OPTIMIZED));
        }
        let order: Vec<_> = v.paths.iter().map(|p| p.controller.generation).collect();
        assert_eq!(order, [1, 2, 3, 4]);
    }
}
