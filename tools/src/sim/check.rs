//! What a host says about its paths, judged: each answer by itself (rules B2, B5, B13.2), and against the one before it.

use std::collections::BTreeMap;

use pollux_multipath::{ControllerId, PathStatus, ReactorVolumeStatus, VolumeId, VolumeStatus};
use pollux_nvme_tcp::spec::log::AnaState;

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
}

const SELECTED: &str = "status says what the next submission would do (B13.2)";

impl Said {
    /// Judges an answer.
    pub fn judge(&mut self, volumes: &[VolumeStatus], book: &mut Book) {
        for volume in volumes {
            for reactor in &volume.reactors {
                self.judge_reactor(reactor, book);
            }
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
        let available = || reactor.paths.iter().filter(|p| p.connected && p.accessible);
        let current = || reactor.paths.iter().filter(|p| p.current);
        let is_optimized = |path: &&PathStatus| path.ana_state == AnaState::OPTIMIZED;
        if available().any(|p| is_optimized(&p)) && !current().all(|p| is_optimized(&p)) {
            let what = format!("not the best class is current: {:?}", reactor.paths);
            book.violate(SELECTED, what);
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
