//! The threads that do what no reactor does in its turn: arithmetic of milliseconds, and handshakes of TLS.
//!
//! There are two for the process, started when there is something to do, and they stand back behind everything else. A [`Computation`] is asked now and then whether it is
//! done; of one that nobody asks for any more nothing is begun.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_queue::SegQueue;
use pollux_reactor::stand_back;

use super::dh::{Job, Powers};

/// How long after it began, and after each time it was not done, a computation is to be looked at.
pub const LOOK_AGAIN: Duration = Duration::from_micros(500);

const THREADS: usize = 2;

/// Where the result of one job is put.
type Place<T> = Arc<SegQueue<T>>;

/// A job, which puts its result where it belongs.
type Task = Box<dyn FnOnce() + Send>;

/// The ways to the threads, and whose turn it is.
struct Pool {
    ways: Vec<Sender<Task>>,
    next: AtomicUsize,
}

static POOL: OnceLock<Pool> = OnceLock::new();

/// A job that is on its way.
#[derive(Debug)]
pub struct Computation<T = Powers> {
    place: Place<T>,
}

impl Computation {
    /// Has arithmetic done: by a thread, or at once where there are to be none.
    pub fn start(job: Job, threads: bool) -> Self {
        Self::of(move || job.run(), || {}, threads)
    }
}

impl<T: Send + 'static> Computation<T> {
    /// Has a job done: by a thread, which calls `done` then, or at once where there are to be none.
    pub(crate) fn of(
        job: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce() + Send + 'static,
        threads: bool,
    ) -> Self {
        let place = Place::default();
        if !threads {
            place.push(job());
            return Self { place };
        }
        let result = Arc::clone(&place);
        let task = move || {
            // Whoever wanted it may have gone meanwhile: a flood of handshakes that end early costs nothing here.
            if Arc::strong_count(&result) > 1 {
                result.push(job());
                done();
            }
        };
        if let Some(task) = POOL.get_or_init(Pool::start).submit(Box::new(task)) {
            task();
        }
        Self { place }
    }
}

impl<T> Computation<T> {
    /// The result, once, when it is there.
    pub fn take(&mut self) -> Option<T> {
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
                    log::warn!("no thread for cryptography ({error}): it may keep others waiting");
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
    stand_back();
    while let Ok(task) = tasks.recv() {
        task();
    }
}
