//! One I/O reactor's view of a volume: its paths and what waits for them.

use std::collections::VecDeque;
use std::time::Duration;

use pollux_nvme_tcp::host::Request;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::status::Status;
use pollux_reactor::Time;

use crate::channels::VolumeInfo;
use crate::counters::{CounterReset, PathCounters};
use crate::histogram::{HistogramLayout, LatencyHistogram};
use crate::io::{NoPath, Op};
use crate::link::Link;
use crate::messages::{ControllerId, PathState};
use crate::policy::Policy;
use crate::select::{Candidate, Selection};
use crate::status::{PathStatus, ReactorVolumeStatus};

/// Whether a completion carried an ANA status that no ANA log has explained yet (rule B2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pending {
    No,
    /// Control was told; it says which log to wait for.
    Told,
    /// For this read of the log, or a later one. What comes of an earlier read may be older than the status.
    Read(u64),
}

/// A path as its reactor holds it (rule B2.1). Only this reactor writes it.
#[derive(Debug)]
pub(crate) struct Path {
    pub controller: ControllerId,
    pub state: PathState,
    pub pending: Pending,
    pub anatt_expired: bool,
    pub counters: PathCounters,
}

impl Path {
    fn new(controller: ControllerId, state: PathState) -> Self {
        Self {
            controller,
            state,
            pending: Pending::No,
            anatt_expired: false,
            counters: PathCounters::default(),
        }
    }

    /// Rule B2.2.
    #[inline]
    fn is_accessible(&self) -> bool {
        self.state.active && self.pending == Pending::No && self.state.ana.is_accessible()
    }

    /// The log that is waited for has come, if the state is of that one.
    fn settle(&mut self) {
        if matches!(self.pending, Pending::Read(read) if self.state.log_read >= read) {
            self.pending = Pending::No;
        }
    }

    #[inline]
    fn candidate(&self, links: &[Option<Box<Link>>]) -> Candidate {
        let link = link_of(links, self.controller);
        Candidate {
            available: self.is_accessible()
                && link.is_some_and(|l| l.is_connected() && !l.excluded),
            optimized: self.state.ana == AnaState::OPTIMIZED,
            outstanding: link.map_or(0, Link::outstanding),
        }
    }

    /// Why I/O need not wait for this path (rule B7.1); `None` if it may become available.
    fn hopeless(&self, links: &[Option<Box<Link>>]) -> Option<NoPath> {
        let Some(link) = link_of(links, self.controller) else {
            return Some(NoPath::ControllerLost);
        };
        if link.excluded {
            return Some(NoPath::FastIoFail);
        }
        if !link.is_connected() && !link.recovering {
            return Some(NoPath::ControllerLost);
        }
        if !self.state.active {
            return Some(NoPath::NamespaceInactive);
        }
        match self.state.ana {
            AnaState::PERSISTENT_LOSS => Some(NoPath::PersistentLoss),
            AnaState::INACCESSIBLE | AnaState::CHANGE if self.anatt_expired => {
                Some(NoPath::AnattExpired)
            }
            _ => None,
        }
    }
}

#[inline]
fn link_of(links: &[Option<Box<Link>>], id: ControllerId) -> Option<&Link> {
    links.get(usize::from(id.slot))?.as_deref()
}

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
pub(crate) struct Channel {
    pub info: VolumeInfo,
    selection: Selection,
    paths: Vec<Path>,
    /// Counters of paths that were removed.
    removed: PathCounters,
    /// How often I/O came back with which error, also where it was retried.
    errors: Vec<(Status, u64)>,
    /// I/Os without a path or without room in its queue, in submission order.
    pub waiting: VecDeque<Request>,
    /// While I/O waits because no path is available.
    pub stalled: Option<Stalled>,
    /// I/Os submitted and not completed.
    pub outstanding: usize,
    /// How long I/Os took, while that is counted.
    pub histogram: Option<Box<LatencyHistogram>>,
}

impl Channel {
    pub fn new(info: VolumeInfo, policy: Policy) -> Self {
        Self {
            info,
            selection: Selection::new(policy),
            paths: Vec::new(),
            removed: PathCounters::default(),
            errors: Vec::new(),
            waiting: VecDeque::with_capacity(1024),
            stalled: None,
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
        if let Some(histogram) = &mut self.histogram
            && histogram.layout().only.is_none_or(|only| only == op)
        {
            histogram.record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Selects the path of the next I/O (rule B5.1): from the table, every time. `avoid` has a bit for each
    /// path that has just failed it, by place in the table, and is heeded as far as there are others.
    #[inline]
    pub fn pick(&mut self, links: &[Option<Box<Link>>], avoid: u32) -> Option<ControllerId> {
        let paths = &self.paths;
        let pick = self
            .selection
            .pick(paths.len(), |i| allowed(paths, i, links, avoid));
        let index = match pick {
            None if avoid != 0 => self
                .selection
                .pick(paths.len(), |i| candidate(paths, i, links)),
            pick => pick,
        }?;
        self.paths.get(index).map(|p| p.controller)
    }

    /// What to avoid after a path has failed an I/O; `None` if there is no other path for it now.
    pub fn avoid(
        &self,
        links: &[Option<Box<Link>>],
        avoid: u32,
        controller: ControllerId,
    ) -> Option<u32> {
        let failed = self.paths.iter().position(|p| p.controller == controller);
        let avoid = avoid | failed.map_or(0, bit);
        (0..self.paths.len())
            .any(|i| allowed(&self.paths, i, links, avoid).available)
            .then_some(avoid)
    }

    /// Puts an I/O among the waiting ones, at its place in the order of submission.
    pub fn wait(&mut self, request: Request) {
        let place = match self.waiting.back() {
            Some(last) if last.sequence > request.sequence => self
                .waiting
                .partition_point(|r| r.sequence < request.sequence),
            _ => self.waiting.len(),
        };
        self.waiting.insert(place, request);
    }

    /// Whether any path is available.
    pub fn has_path(&self, links: &[Option<Box<Link>>]) -> bool {
        (0..self.paths.len()).any(|i| candidate(&self.paths, i, links).available)
    }

    /// Why an I/O without an available path must not wait; `None` while some path may become available.
    pub fn hopeless(&self, links: &[Option<Box<Link>>]) -> Option<NoPath> {
        let mut worst = NoPath::NoPaths;
        for path in &self.paths {
            worst = worst.max(path.hopeless(links)?);
        }
        Some(worst)
    }

    #[inline]
    pub fn path_mut(&mut self, controller: ControllerId) -> Option<&mut Path> {
        self.paths.iter_mut().find(|p| p.controller == controller)
    }

    pub fn add_path(&mut self, controller: ControllerId, state: PathState) {
        if self.path_mut(controller).is_none() {
            self.paths.push(Path::new(controller, state));
        }
    }

    /// Applies a state unless it is older than what the path has (rule B3.5). Returns whether it was.
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
        if let Some(index) = self.paths.iter().position(|p| p.controller == controller) {
            self.removed.add(&self.paths.remove(index).counters);
            self.selection.path_removed(index);
        }
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

    pub fn set_preferred(&mut self, controller: Option<ControllerId>) {
        let index = controller.and_then(|id| self.paths.iter().position(|p| p.controller == id));
        self.selection.set_preferred(index);
    }

    /// The status of this moment, computed from the table by the code that selects (rule B13.2).
    pub fn status(&self, reactor: usize, links: &[Option<Box<Link>>]) -> ReactorVolumeStatus {
        let view = |i: usize| candidate(&self.paths, i, links);
        let paths = self
            .paths
            .iter()
            .enumerate()
            .map(|(index, path)| PathStatus {
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
                cntlid: 0,
                transport: None,
                anatt_remaining: None,
            })
            .collect();
        ReactorVolumeStatus {
            volume: self.info.id,
            reactor,
            waiting: self.waiting.len(),
            no_path_since: self.stalled.map(|stalled| stalled.since),
            removed: self.removed,
            errors: self.errors.clone(),
            paths,
        }
    }
}

/// The bit of a path in a set of paths to avoid; those behind the 32nd are not avoided.
#[inline]
fn bit(index: usize) -> u32 {
    u32::try_from(index)
        .ok()
        .and_then(|index| 1u32.checked_shl(index))
        .unwrap_or(0)
}

#[inline]
fn allowed(paths: &[Path], index: usize, links: &[Option<Box<Link>>], avoid: u32) -> Candidate {
    let mut candidate = candidate(paths, index, links);
    if avoid != 0 && avoid & bit(index) != 0 {
        candidate.available = false;
    }
    candidate
}

#[inline]
fn candidate(paths: &[Path], index: usize, links: &[Option<Box<Link>>]) -> Candidate {
    paths.get(index).map_or(
        Candidate {
            available: false,
            optimized: false,
            outstanding: 0,
        },
        |path| path.candidate(links),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::VolumeId;

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

    /// A channel with one path of a controller that is being connected.
    fn channel(ana: AnaState) -> (Channel, Vec<Option<Box<Link>>>) {
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
        let mut channel = Channel::new(info, Policy::ActivePassive);
        channel.add_path(ID, state(5, ana));
        (channel, vec![Some(Box::new(Link::new(ID)))])
    }

    /// B3.5: a state with an older epoch, or the same, is dropped.
    #[test]
    fn an_older_epoch_is_dropped() {
        let (mut c, links) = channel(AnaState::OPTIMIZED);
        for epoch in [1, 4, 5] {
            assert!(!c.set_path(ID, state(epoch, AnaState::INACCESSIBLE)));
            assert_eq!(c.status(0, &links).paths[0].ana_state, AnaState::OPTIMIZED);
        }
        assert!(c.set_path(ID, state(6, AnaState::INACCESSIBLE)));
        assert!(!c.set_path(ID, state(5, AnaState::OPTIMIZED)));
        let path = &c.status(0, &links).paths[0];
        assert_eq!((path.ana_state, path.epoch), (AnaState::INACCESSIBLE, 6));
    }

    /// B3.4, B3.5: the wait for the log ends with a state of the read that control names, or of a later one; a newer
    /// epoch with what an older read told does not end it.
    #[test]
    fn only_a_log_read_after_the_ana_status_explains_it() {
        let pending = |c: &Channel, links: &[_]| c.status(0, links).paths[0].log_pending;
        let by_read = |epoch, log_read| PathState {
            log_read,
            ..state(epoch, AnaState::OPTIMIZED)
        };
        let (mut c, links) = channel(AnaState::OPTIMIZED);
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
            let (mut c, links) = channel(AnaState::INACCESSIBLE);
            assert!(c.set_path(ID, state(6, newer)));
            c.anatt_expired(ID, 5);
            assert!(!c.status(0, &links).paths[0].anatt_expired, "{newer}");
        }
    }

    /// B4.2, B4.3: an expiry of the present epoch counts, for as long as the path is inaccessible or in change.
    #[test]
    fn an_expiry_of_the_present_epoch_counts() {
        let (mut c, links) = channel(AnaState::INACCESSIBLE);
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
        let (mut c, links) = channel(AnaState::INACCESSIBLE);
        let predecessor = ControllerId {
            slot: 0,
            generation: 0,
        };
        assert!(!c.set_path(predecessor, state(9, AnaState::OPTIMIZED)));
        c.anatt_expired(predecessor, 5);
        let path = &c.status(0, &links).paths[0];
        assert!(!path.accessible && !path.anatt_expired);
    }

    /// B7.1: each reason not to wait for a path, and that one path that may become available is enough to wait for.
    #[test]
    fn io_waits_while_one_path_may_become_available() {
        let second = ControllerId {
            slot: 1,
            generation: 2,
        };
        type Make = fn(&mut Channel, &mut Vec<Option<Box<Link>>>);
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
            let (mut c, mut links) = channel(AnaState::OPTIMIZED);
            assert_eq!(c.hopeless(&links), None);
            make(&mut c, &mut links);
            assert_eq!(c.hopeless(&links), Some(why));
            links.push(Some(Box::new(Link::new(second))));
            c.add_path(second, state(1, AnaState::INACCESSIBLE));
            assert_eq!(c.hopeless(&links), None, "{why}");
        }
        let (mut c, links) = channel(AnaState::OPTIMIZED);
        let inactive = PathState {
            active: false,
            ..state(6, AnaState::OPTIMIZED)
        };
        c.set_path(ID, inactive);
        assert_eq!(c.hopeless(&links), Some(NoPath::NamespaceInactive));
        assert!(!c.status(0, &links).paths[0].accessible, "B2.2: inactive");
    }
}
