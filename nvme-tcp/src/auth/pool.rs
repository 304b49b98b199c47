//! The threads that do what no reactor does in its turn: arithmetic of milliseconds.
//!
//! There are two for the process, started when there is something to do. A [`Computation`] is asked now and then whether it is
//! done; of one that nobody asks for any more nothing is begun.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_queue::SegQueue;
use pollux_reactor::leave_core;

use super::dh::{Job, Powers};

/// How long after it began, and after each time it was not done, a computation is to be looked at.
pub const LOOK_AGAIN: Duration = Duration::from_micros(500);

const THREADS: usize = 2;

/// Where the result of one job is put.
type Place = Arc<SegQueue<Powers>>;

struct Task {
    job: Job,
    place: Place,
}

/// The ways to the threads, and whose turn it is.
struct Pool {
    ways: Vec<Sender<Task>>,
    next: AtomicUsize,
}

static POOL: OnceLock<Pool> = OnceLock::new();

/// A job that is on its way.
#[derive(Debug)]
pub struct Computation {
    place: Place,
}

impl Computation {
    /// Has a job done: by a thread, or at once where there are to be none.
    pub fn start(job: Job, threads: bool) -> Self {
        let place = Place::default();
        let task = Task {
            job,
            place: Arc::clone(&place),
        };
        let left = match threads {
            true => POOL.get_or_init(Pool::start).submit(task),
            false => Some(task),
        };
        if let Some(task) = left {
            place.push(task.job.run());
        }
        Self { place }
    }

    /// The result, once, when it is there.
    pub fn take(&mut self) -> Option<Powers> {
        self.place.pop()
    }
}

impl Pool {
    fn start() -> Self {
        let start = |_| {
            let (way, tasks) = channel();
            let started = thread::Builder::new()
                .name("pollux-crypto".into())
                .spawn(move || work(&tasks));
            match started {
                Ok(_) => Some(way),
                Err(error) => {
                    log::warn!(
                        "no thread for authentication ({error}): it may keep others waiting"
                    );
                    None
                }
            }
        };
        Self {
            ways: (0..THREADS).filter_map(start).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Gives a task to a thread; gives it back if there is none.
    fn submit(&self, task: Task) -> Option<Task> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        match self.ways.get(next % self.ways.len().max(1)) {
            Some(way) => way.send(task).err().map(|error| error.0),
            None => Some(task),
        }
    }
}

fn work(tasks: &Receiver<Task>) {
    leave_core();
    while let Ok(Task { job, place }) = tasks.recv() {
        // Whoever wanted it may have gone meanwhile: a flood of handshakes that end early costs nothing here.
        if Arc::strong_count(&place) > 1 {
            place.push(job.run());
        }
    }
}
