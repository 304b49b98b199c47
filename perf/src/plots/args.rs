//! The options of `report`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  pollux-perf -t 2 --interval 0.1 --json a.json
  pollux-perf -t 2 --interval 0.1 -q 8 --json b.json
  pollux-perf report a.json -o report.html
  pollux-perf report a.json b.json --label before --label after
  pollux-perf report a.json --svg percentiles -o percentiles.svg

The page is one file: it opens from disk, needs neither network nor script, is
light or dark as the reader's system is, and can be printed.

Exit code: 0 written; 1 a file cannot be read or written; 2 usage.";

/// Draw results as one HTML page: percentiles, IOPS and p99 over time with path events, paths, what differs
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// Results that --json has written; several are laid over each other
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// The file to write; - is standard output [default: report.html, or PLOT.svg]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Write this plot alone, as SVG
    #[arg(long, value_name = "PLOT", value_enum)]
    pub svg: Option<Plot>,

    /// What a result is called in the page, in the order of the files [default: the names of the files]
    #[arg(long, value_name = "LABEL")]
    pub label: Vec<String>,
}

/// A plot of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Plot {
    /// Latency by percentile, on a logarithmic scale
    Percentiles,
    /// The same of each of several jobs
    Jobs,
    /// IOPS over time
    Iops,
    /// The 99th percentile over time
    P99,
    /// Each path's share over time
    Paths,
}

impl Plot {
    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Percentiles => "percentiles",
            Self::Jobs => "jobs",
            Self::Iops => "iops",
            Self::P99 => "p99",
            Self::Paths => "paths",
        }
    }
}
