//! The options of `compare`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::gate::Gates;
use crate::values::parse_seconds;

const EXAMPLES: &str = "\
Examples:
  pollux-perf -t 20 --interval 0.5 --no-failover --json base.json
  pollux-perf -t 20 --interval 0.5 --no-failover --json new.json
  pollux-perf compare base.json new.json
  pollux-perf compare a1.json,a2.json,a3.json,a4.json \\
                      b1.json,b2.json,b3.json,b4.json
  pollux-perf compare --live 'pollux-perf -t 0.3 --no-failover' \\
                             'pollux-perf -t 0.3 --no-failover --ddgst' \\
                      --fail-on p99:+5%,iops:-3% --max-time 120

Live, both commands run in turns, and which of a pair is first is drawn, until
each gate is decided or the time is up. A gate is failed when the whole
confidence interval is beyond it, and passed when none of it is. All gates and
looks together call equals worse once in 20 comparisons at most.

Exit code: 0 every gate is passed; 1 one is failed, or a command or a file is;
2 usage; 3 cannot tell; 130 interrupted by Ctrl-C, 143 by SIGTERM.";

/// Tell whether one result is worse than another: by saved results, or live
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CompareArgs {
    /// Saved results, separated by commas; with --live a command, which gets --json FILE added
    #[arg(value_name = "BASE")]
    pub base: String,

    /// What is compared with them
    #[arg(value_name = "NEW")]
    pub new: String,

    /// BASE and NEW are commands to be run in turns
    #[arg(long)]
    pub live: bool,

    /// What fails: metric, direction, and how much in percent or in its unit: p99:+5%, p50:+20us, iops:-3%. Metrics are
    /// iops, bandwidth, mean, p50, p90, p99, p999, p9999, max
    #[arg(
        long,
        value_name = "GATES",
        default_value = "iops:-3%,p99:+5%",
        allow_hyphen_values = true
    )]
    pub fail_on: Gates,

    /// Seconds that live runs may take at most
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_max_time, requires = "live")]
    pub max_time: Duration,

    /// Seed of the order of live runs [default: a new one each time, printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Compare results of different workloads too
    #[arg(long)]
    pub force: bool,

    /// Write the verdict as one JSON object; - is standard output, and the table then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write the verdict as a Markdown table
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

fn parse_max_time(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 1.0, 86_400.0)
}
