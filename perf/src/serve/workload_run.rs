//! One run of the workload: jobs started on every volume and reactor, watched, ended, counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::orders::Orders;
use super::results::{self, JobResult, RunStatus};
use super::{Bench, NOTICE};
use crate::clock::now;
use crate::ending::Ending;
use crate::load::{Collected, JobMessage, News, Start};
use crate::load::{Work, plans, random_seed};
use crate::stats::JobStats;

/// The longest that a job may take to hand out its counters.
const COLLECT_MAX: Duration = Duration::from_secs(5);
/// All buffers together.
const BUFFER_BYTES_MAX: u64 = 4 << 30;

/// Why there are no results.
pub(super) enum Failure {
    /// Nothing was run.
    Usage(String),
    /// An I/O has failed, data was wrong, or a job did not answer.
    Run(String),
}

/// A job that was started.
struct Started {
    reactor: usize,
    job: usize,
    result: JobResult,
}

/// How a run came to its end.
enum End {
    /// The time was up, or no job had anything left to do.
    Done,
    /// By a signal.
    Signal,
    /// By a job that failed.
    Failed,
}

impl Bench {
    /// Runs the workload on all volumes and reactors until its time is up or `stop`.
    pub(super) fn run(&mut self, orders: &Orders, stop: &AtomicBool) -> Result<Value, Failure> {
        let (sender, news) = mpsc::channel();
        let starts = self.starts(orders, &sender)?;
        drop(sender);
        let mut started = Vec::new();
        for (reactor, start, result) in starts {
            let job = start.plan.job;
            self.tell(reactor, JobMessage::Start(Box::new(start)))?;
            started.push(Started {
                reactor,
                job,
                result,
            });
        }
        let end = self.watch(orders, &news, started.len(), stop);
        let result = self.collect(&mut started, &news);
        self.tell_all(|| JobMessage::Forget)?;
        result?;
        let status = match end {
            End::Done | End::Failed => RunStatus::Finished,
            End::Signal => RunStatus::Terminated,
        };
        let list: Vec<JobResult> = started.into_iter().map(|s| s.result).collect();
        let failure = |job: &JobResult| job.failure(self.keep_going, status);
        if let Some(error) = list.iter().find_map(failure) {
            return Err(Failure::Run(error));
        }
        Ok(results::show(&list, status, orders, &self.core_masks))
    }

    /// The jobs: one for each volume on each reactor.
    fn starts(
        &mut self,
        orders: &Orders,
        news: &mpsc::Sender<News>,
    ) -> Result<Vec<(usize, Start, JobResult)>, Failure> {
        let volumes = match self.host.volumes() {
            Ok(volumes) => volumes,
            Err(error) => return Err(Failure::Run(error.to_string())),
        };
        if volumes.is_empty() {
            return Err(Failure::Usage("there is no volume to run on".to_owned()));
        }
        let reactors = self.core_masks.len();
        let jobs = (volumes.len() * reactors) as u64;
        if u64::from(orders.depth) * u64::from(orders.io_size.max()) * jobs > BUFFER_BYTES_MAX {
            return Err(Failure::Usage(format!(
                "depth {} with I/O size {} on {jobs} jobs needs more than 4 GiB of buffers",
                orders.depth, orders.io_size
            )));
        }
        let work = Work {
            read_share: orders.read_share,
            ..Work::new(orders.workload, &orders.io_size, orders.depth)
        };
        let seed = random_seed();
        let mut starts = Vec::new();
        for volume in &volumes {
            let plans = plans(&work, volume.blocks, volume.block_size, reactors, seed)
                .map_err(|usage| Failure::Usage(usage.to_string()))?;
            for (reactor, mut plan) in plans.into_iter().enumerate() {
                plan.job = self.jobs;
                self.jobs += 1;
                let mask = self.core_masks[reactor];
                let region = plan.shape.region.clone();
                let start = Start {
                    plan,
                    volume: volume.volume,
                    paths: Vec::new(),
                    io_timeout: self.io_timeout,
                    stop_on_error: !self.keep_going,
                    news: news.clone(),
                };
                starts.push((reactor, start, JobResult::new(&volume.name, mask, region)));
            }
        }
        Ok(starts)
    }

    /// Until the time is up and what was in flight is back.
    fn watch(
        &self,
        orders: &Orders,
        news: &mpsc::Receiver<News>,
        jobs: usize,
        stop: &AtomicBool,
    ) -> End {
        let deadline = now() + orders.time;
        let mut drained = 0;
        let mut end = End::Done;
        while drained < jobs {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                break;
            }
            if stop.load(Ordering::Relaxed) {
                end = End::Signal;
                break;
            }
            match news.recv_timeout(left.min(NOTICE)) {
                Ok(News::Drained { .. }) => drained += 1,
                Ok(News::Failed) => {
                    end = End::Failed;
                    break;
                }
                Ok(News::Collected(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Refused only by reactors that have ended, which collect() finds out.
        let _ = self.tell_all(|| JobMessage::Stop);
        let mut ending = Ending::new(stop);
        while drained < jobs {
            let left = ending.left();
            if left.is_zero() {
                break;
            }
            match news.recv_timeout(left.min(NOTICE)) {
                Ok(News::Drained { .. }) => drained += 1,
                Ok(News::Failed) => end = End::Failed,
                Ok(News::Collected(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // What has not ended by now is counted as such.
        let _ = self.tell_all(|| JobMessage::Close);
        end
    }

    /// Takes the counters of all jobs.
    fn collect(&self, started: &mut [Started], news: &mpsc::Receiver<News>) -> Result<(), Failure> {
        for Started { reactor, job, .. } in started.iter() {
            let empty = Box::new(JobStats::new());
            self.tell(*reactor, JobMessage::Collect { job: *job, empty })?;
        }
        let deadline = now() + COLLECT_MAX;
        let mut missing = started.len();
        while missing > 0 {
            match next(news, deadline) {
                Some(News::Collected(collected)) => {
                    let Collected { job, .. } = *collected;
                    if let Some(started) = started.iter_mut().find(|s| s.job == job) {
                        started.result.take(*collected);
                        missing -= 1;
                    }
                }
                Some(News::Drained { .. } | News::Failed) => {}
                None => return Err(Failure::Run("a job does not answer".to_owned())),
            }
        }
        Ok(())
    }

    fn tell(&self, reactor: usize, message: JobMessage) -> Result<(), Failure> {
        if self.host.tell(reactor, message).is_ok() {
            return Ok(());
        }
        Err(Failure::Run(format!(
            "I/O reactor {reactor} takes no messages any more"
        )))
    }

    fn tell_all(&self, message: impl Fn() -> JobMessage) -> Result<(), Failure> {
        (0..self.core_masks.len()).try_for_each(|reactor| self.tell(reactor, message()))
    }
}

fn next(news: &mpsc::Receiver<News>, deadline: Instant) -> Option<News> {
    news.recv_timeout(deadline.saturating_duration_since(now()))
        .ok()
}
