//! The jobs of a run: of each that was asked for, as many as there are volumes, queue pairs and `--numjobs`.

use super::RunArgs;
use crate::errors::Usage;
use crate::load::{Arrivals, Plan, Work, Workload, plans};
use crate::volume::Volume;

/// A job that was asked for.
#[derive(Clone, Debug)]
pub struct JobArgs {
    /// What it is called in the report.
    pub name: String,
    /// Its options; those that are not of one job alone are the same in all of a run.
    pub args: RunArgs,
}

/// Where one of the jobs that run belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The job that was asked for.
    pub asked: usize,
    /// Number of the volume.
    pub volume: usize,
    /// Number of the poll group that it runs beside.
    pub poll_group: usize,
}

/// The seat and the plan of each job that runs, by its number. `places` has the volumes of each job that was asked for.
///
/// # Errors
///
/// A workload that does not fit its volume, or that another would disturb.
pub fn seated(
    jobs: &[JobArgs],
    places: &[Vec<usize>],
    volumes: &[Volume],
    poll_groups: usize,
    seed: u64,
) -> Result<Vec<(Seat, Plan)>, Usage> {
    check_verify(jobs, places, volumes)?;
    let mut seated = Vec::new();
    for (asked, (job, places)) in jobs.iter().zip(places).enumerate() {
        let args = &job.args;
        let times = places.len() * poll_groups / args.qpairs as usize;
        args.check_buffers(times).map_err(Usage)?;
        let on_each = poll_groups * args.numjobs as usize;
        let all = on_each * places.len();
        for (index, &volume) in places.iter().enumerate() {
            let Volume {
                blocks, block_size, ..
            } = volumes[volume];
            let plans = plans(&work(args), blocks, block_size, on_each, seed)?;
            for (place, mut plan) in plans.into_iter().enumerate() {
                let poll_group = place % poll_groups;
                plan.job = seated.len();
                plan.seed = seed.wrapping_add(plan.job as u64);
                plan.depth = share(args.depth as usize, args.qpairs as usize, poll_group);
                plan.arrivals = args
                    .rate()
                    .map(|rate| Arrivals::new(rate, index * on_each + place, all, plan.seed));
                let seat = Seat {
                    asked,
                    volume,
                    poll_group,
                };
                seated.push((seat, plan));
            }
        }
    }
    Ok(seated)
}

fn work(args: &RunArgs) -> Work<'_> {
    Work {
        workload: args.workload,
        read_share: args.read_share,
        io_size: &args.io_size,
        stride: args.stride,
        depth: args.depth,
        ios: args.ios,
        mix: args.mix.clone(),
        distribution: args.random_distribution.unwrap_or_default(),
    }
}

/// What one of `parts` gets of a depth; poll groups of one core follow each other.
fn share(depth: usize, parts: usize, poll_group: usize) -> usize {
    depth / parts + usize::from(poll_group % parts < depth % parts)
}

/// Nobody else writes to blocks that a job verifies.
fn check_verify(jobs: &[JobArgs], places: &[Vec<usize>], volumes: &[Volume]) -> Result<(), Usage> {
    for (place, verifying) in jobs.iter().enumerate() {
        if verifying.args.workload != Workload::Verify {
            continue;
        }
        for (other, writing) in jobs.iter().enumerate() {
            let shared = places[place].iter().find(|v| places[other].contains(v));
            if let Some(&volume) = shared
                && other != place
                && !writing.args.only_reads()
            {
                return Err(Usage(format!(
                    "job {} verifies volume {}, and job {} writes to it: allowed are namespaces of their own (nsid)",
                    verifying.name, volumes[volume].name, writing.name
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_is_shared_out_in_full() {
        for (depth, parts) in [(32, 1), (32, 4), (7, 3), (5, 5)] {
            let each = (parts..2 * parts).map(|group| share(depth, parts, group));
            assert_eq!(each.clone().sum::<usize>(), depth);
            assert!(each.clone().max().unwrap() - each.min().unwrap() <= 1);
        }
    }
}
