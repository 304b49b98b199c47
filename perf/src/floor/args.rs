//! The options of `floor`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cores::CoreList;
use crate::results::OutputFormat;
use crate::values::{DEPTH_MAX, parse_one_size, parse_run_time};

const EXAMPLES: &str = "\
Examples:
  pollux-perf floor -q 32 -o 4k -w read -t 2
  pollux-perf floor -q 16 -o 128k -w write -t 2 --json floor.json
  pollux-perf floor -P 2 -q 32 -t 2            # beside a volume of two paths

Exit code: 0 measured; 1 it could not be, or a file cannot be written; 2 usage;
130 interrupted by Ctrl-C, 143 by SIGTERM.";

/// Options of `floor`, checked.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct FloorArgs {
    /// Requests kept in flight, over all connections
    #[arg(short = 'q', long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEPTH_MAX)))]
    pub depth: u32,

    /// Connections, each with its share of the requests
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub qpairs: u32,

    /// Payload bytes of a request
    #[arg(short = 'o', long = "io-size", value_name = "SIZE", default_value = "4k", value_parser = parse_one_size)]
    pub io_size: u32,

    /// Direction of the payload
    #[arg(short = 'w', long, value_enum, default_value_t = Direction::Read)]
    pub workload: Direction,

    /// Seconds to run; fractions are fine
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "10", value_parser = parse_run_time)]
    pub time: Duration,

    /// The server's core and the client's: a mask (0x3) or a list (0,1); one core is shared [default: first and last]
    #[arg(short = 'm', long, value_name = "CORES")]
    pub cores: Option<CoreList>,

    /// Reads are answered with data and a response capsule, as by a target that does not use the SUCCESS flag
    #[arg(long)]
    pub capsule_resp: bool,

    /// Write the results as one JSON object; - is standard output, and the report then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// What goes to standard output; what is for people then goes to standard error
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output_format: OutputFormat,
}

/// `floor -w`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// Small requests, large answers
    Read,
    /// Large requests, small answers
    Write,
}
