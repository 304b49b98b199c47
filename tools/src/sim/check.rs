//! What a host says about its paths, judged: each answer by itself (rules B2, B5, B13.2), and against the one before it.

use std::collections::BTreeMap;

use pollux_multipath::{
    ControllerId, PathEvent, PathEventKind, PathStatus, ReactorVolumeStatus, VolumeId, VolumeStatus,
};
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_reactor::Time;

use super::ANATT;
use super::book::Book;

/// One path of a volume on a reactor.
type Key = (VolumeId, usize, ControllerId);

/// The epochs of paths that are not accessible, and the I/Os outstanding there.
type Closed = (Vec<u64>, usize);

/// Commands of a queue pair's own.
const PROBES: usize = 1;

/// What was said last.
#[derive(Debug, Default)]
pub struct Said {
    epochs: BTreeMap<Key, u64>,
    /// Per reactor and controller: the epochs of all its paths if none of them was accessible by its ANA state, and the
    /// I/Os outstanding.
    closed: BTreeMap<(usize, ControllerId), Closed>,
    /// When ANATT was to run out, and when that was said.
    anatt: BTreeMap<(VolumeId, ControllerId), (Time, Time)>,
}

/// Where control stands with a path, as far as the events tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    Unknown,
    Accessible,
    /// In inaccessible or change, since then.
    Transient(Time),
}

/// Where the events leave a path, the expiry of its ANATT that was not to be, and when it was last connected or the like.
fn stay(events: &[PathEvent], controller: ControllerId) -> (Stay, Option<String>, Option<Time>) {
    let (mut stay, mut wrong, mut begun) = (Stay::Unknown, None, None);
    for event in events.iter().filter(|e| e.controller == controller) {
        stay = match &event.kind {
            PathEventKind::Ana { from, to, .. } => match (from.is_transient(), to.is_transient()) {
                (false, true) => Stay::Transient(event.at),
                (true, true) => stay,
                (_, false) => Stay::Accessible,
            },
            PathEventKind::AnattExpired => {
                let at = event.at;
                match stay {
                    Stay::Accessible => wrong = Some(format!("at {at:?}, accessible or lost")),
                    Stay::Transient(since) if at < since + ANATT => {
                        wrong = Some(format!("at {at:?}, {:?} after {since:?}", at - since));
                    }
                    _ => {}
                }
                stay
            }
            PathEventKind::Added(_)
            | PathEventKind::Removed
            | PathEventKind::Lost(_)
            | PathEventKind::Closed(_)
            | PathEventKind::Reconnected => Stay::Unknown,
            _ => stay,
        };
        if !matches!(stay, Stay::Transient(_)) {
            begun = Some(event.at);
        }
    }
    (stay, wrong, begun)
}

const SELECTED: &str = "status says what the next submission would do (B13.2)";

impl Said {
    /// Judges an answer.
    pub fn judge(&mut self, volumes: &[VolumeStatus], book: &mut Book) {
        for volume in volumes {
            for reactor in &volume.reactors {
                self.judge_reactor(reactor, book);
            }
            self.judge_anatt(volume, book);
        }
        self.judge_submissions(volumes, book);
    }

    fn judge_reactor(&mut self, reactor: &ReactorVolumeStatus, book: &mut Book) {
        for path in &reactor.paths {
            let is_accessible = path.ana_state.is_accessible() && !path.log_pending;
            if path.current && !(path.connected && path.accessible) {
                book.violate(SELECTED, format!("current, but not available: {path:?}"));
            }
            if path.accessible && !is_accessible {
                let what = format!("accessible in spite of its ANA state: {path:?}");
                book.violate("accessible follows the ANA state (B2.2)", what);
            }
            let key = (reactor.volume, reactor.reactor, path.controller);
            let before = self.epochs.insert(key, path.epoch);
            if before.is_some_and(|before| before > path.epoch) {
                let what = format!("epoch {before:?} before, now {path:?}");
                book.violate("epochs never go back (B3.5)", what);
            }
        }
        let is_lost = |path: &PathStatus| {
            let has_expired = path.ana_state.is_transient() && path.anatt_expired;
            path.connected && (has_expired || path.ana_state == AnaState::PERSISTENT_LOSS)
        };
        let waiting = reactor.waiting;
        if waiting > 0 && !reactor.paths.is_empty() && reactor.paths.iter().all(is_lost) {
            let what = format!("{waiting} I/Os wait: {:?}", reactor.paths);
            book.violate("I/O fails with its last hope (B7.3)", what);
        }
        let available = || reactor.paths.iter().filter(|p| p.connected && p.accessible);
        let current = || reactor.paths.iter().filter(|p| p.current);
        let is_optimized = |path: &&PathStatus| path.ana_state == AnaState::OPTIMIZED;
        if available().any(|p| is_optimized(&p)) && !current().all(|p| is_optimized(&p)) {
            let what = format!("not the best class is current: {:?}", reactor.paths);
            book.violate(SELECTED, what);
        }
    }

    /// ANATT runs from the first report of a stay in inaccessible or change, and no further report starts it anew (B4.1).
    fn judge_anatt(&mut self, volume: &VolumeStatus, book: &mut Book) {
        const RULE: &str = "ANATT runs once for each stay (B4.1)";
        let Some(reactor) = volume.reactors.first() else {
            return;
        };
        let covered_from = volume.events.first().map_or(Time::MAX, |event| event.at);
        for path in &reactor.paths {
            let controller = path.controller;
            let (stay, wrong, begun) = stay(&volume.events, controller);
            if let Some(wrong) = wrong {
                book.violate(RULE, format!("it has run out {wrong}: {path:?}"));
            }
            let key = (volume.volume, controller);
            let Some(left) = path.anatt_remaining.filter(|left| !left.is_zero()) else {
                self.anatt.remove(&key);
                continue;
            };
            let ends = volume.at + left;
            if stay == Stay::Accessible {
                book.violate(
                    RULE,
                    format!("it runs, and the path is accessible or lost: {path:?}"),
                );
            }
            if let Stay::Transient(since) = stay
                && ends > since + ANATT
            {
                book.violate(
                    RULE,
                    format!("it ends at {ends:?} for a stay since {since:?}: {path:?}"),
                );
            }
            let before = self.anatt.insert(key, (ends, volume.at));
            if let Some((before, said)) = before
                && ends > before
                && covered_from < said
                && begun.is_none_or(|begun| begun < said)
            {
                let what = format!("it was to end at {before:?}, and now at {ends:?}: {path:?}");
                book.violate(RULE, what);
            }
        }
    }

    /// On a controller all of whose paths were inaccessible before, and have been ever since, nothing may be submitted.
    fn judge_submissions(&mut self, volumes: &[VolumeStatus], book: &mut Book) {
        let mut closed: BTreeMap<(usize, ControllerId), Option<Closed>> = BTreeMap::new();
        for volume in volumes {
            for reactor in &volume.reactors {
                for path in &reactor.paths {
                    let entry = closed
                        .entry((reactor.reactor, path.controller))
                        .or_insert_with(|| Some((Vec::new(), path.outstanding)));
                    // What is not connected may have its Connect outstanding.
                    if path.ana_state.is_accessible() || !path.connected {
                        *entry = None;
                    } else if let Some((epochs, _)) = entry {
                        epochs.push(path.epoch);
                    }
                }
            }
        }
        let closed: BTreeMap<_, _> = closed
            .into_iter()
            .filter_map(|(key, entry)| Some((key, entry?)))
            .collect();
        for (key, (epochs, outstanding)) in &closed {
            if let Some((before, fewer)) = self.closed.get(key)
                && before == epochs
                // One may be the probe of a queue pair that has said nothing for long (B9.4).
                && fewer + PROBES < *outstanding
            {
                let what = format!(
                    "{outstanding} I/Os on {key:?}, {fewer} before, and inaccessible all the time"
                );
                book.violate(
                    "no submission on a path that is known as inaccessible",
                    what,
                );
            }
        }
        self.closed = closed;
    }
}
