//! The options of `bench`.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  pollux-perf bench --profile bench.toml --save base.json
  pollux-perf bench --profile bench.toml --baseline base.json

A profile has a table for each job; [global] holds for all of them:

  [global]
  runtime = 2
  loops = 4                      # runs of each job; the jobs take turns
  fail_on = \"iops:-3%,p99:+5%\"

  [job.randread]
  rw = \"randread\"
  bs = \"4k\"
  iodepth = 32

Keys are the long options of pollux-perf, and fio's names: bs, iodepth, rw,
rwmixread, runtime, ramp_time, rate_iops, random_distribution. A list repeats an
option (transport = [\"traddr:...\", \"traddr:...\"]); true sets a switch. nsid = [1, 3]
or \"all\" are the volumes of a job. pollux-perf --profile FILE runs the jobs at the
same time, without loops and fail_on.

A gate (fail_on) is failed when the whole confidence interval is beyond it, and
passed when none of it is. With four runs of each job or more on both sides each
run is a sample; with fewer, the parts of their series are.

Exit code: 0 all I/O succeeded and every gate is passed; 1 an I/O failed, or a
gate is; 2 usage; 3 cannot tell; 130 interrupted by Ctrl-C, 143 by SIGTERM.";

/// Run the jobs of a file, and tell whether they are worse than a saved baseline
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// The jobs, their gates and how often they run, as TOML
    #[arg(long, value_name = "FILE")]
    pub profile: PathBuf,

    /// What --save has written earlier: each job is compared with the one of its name
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,

    /// Write what was measured, as a baseline for later. The file of --baseline is replaced only if every gate is passed
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,

    /// Write the verdicts as one JSON object; - is standard output, and the tables then go to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Compare jobs whose workload is not that of the baseline too
    #[arg(long)]
    pub force: bool,
}
