//! The options of `merge`.

use std::path::PathBuf;

use clap::Args;

use crate::results::OutputFormat;

const EXAMPLES: &str = "\
Examples:
  pollux-perf -t 1 --json a.json
  pollux-perf -t 1 --json b.json
  pollux-perf merge a.json b.json
  pollux-perf merge a.json --output-format fio > fio.json
  pollux-perf merge a.json b.json --json both.json --hdr-log both.hlog

Results that ran at the same time add up; those that ran one after the other
lengthen the time. Histograms are added, so that a percentile is that of all
I/Os. Clocks of machines should agree to less than an interval of the series.

Exit code: 0 all I/O in them succeeded; 1 some did not, or a file cannot be
read; 2 usage, or different workloads without --force.";

/// Make one result of those of several processes, machines or turns, without loss
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct MergeArgs {
    /// Results that --json has written
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Merge results of different workloads too
    #[arg(long)]
    pub force: bool,

    /// Write the merged result as one JSON object; - is standard output, and the table then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// What goes to standard output; what is for people then goes to standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output_format: OutputFormat,

    /// Write the latencies of each interval as an HdrHistogram log (V2, nanoseconds)
    #[arg(long, value_name = "FILE")]
    pub hdr_log: Option<PathBuf>,

    /// Write the percentiles of all latencies as text, as HdrHistogram prints them (.hgrm, microseconds)
    #[arg(long, value_name = "FILE")]
    pub hdr_text: Option<PathBuf>,
}
