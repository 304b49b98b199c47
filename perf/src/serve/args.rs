//! The options of `serve`, with the letters that `bdevperf` has for them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pollux_reactor::logging::Level;

use super::orders::Orders;
use crate::cores::CoreList;
use crate::load::Workload;
use crate::size::IoSizes;
use crate::values::{parse_io_timeout, parse_one_size, parse_run_time};

const EXAMPLES: &str = "\
Example:
  pollux-perf serve -z -q 128 -o 4096 -w verify -t 10 -r /tmp/perf.sock
  pollux rpc bdev_nvme_attach_controller '{\"name\": \"disk\", ...}' -r /tmp/perf.sock
  pollux rpc perform_tests -r /tmp/perf.sock

Without -f the first I/O that fails ends the run: perform_tests is answered with
an error, and the program ends by itself.

Exit code: 0 after SIGTERM; 1 an I/O failed (without -f), data was wrong, or it
could not start; 2 usage.";

/// Options of `serve`, checked.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// Wait for perform_tests; without it, run at once and exit
    #[arg(short = 'z')]
    pub wait: bool,

    /// I/Os kept in flight by each job (there is one for each volume and reactor)
    #[arg(short = 'q', long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub depth: u32,

    /// I/O size
    #[arg(
        short = 'o',
        long = "io-size",
        value_name = "SIZE",
        default_value = "4k",
        value_parser = parse_size
    )]
    pub io_size: IoSizes,

    /// What to do
    #[arg(short = 'w', long, value_enum, default_value_t = Workload::Verify)]
    pub workload: Workload,

    /// Share of reads in percent, for rw and randrw [default: 50]
    #[arg(short = 'M', long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_share: Option<u8>,

    /// Seconds to run
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "10", value_parser = parse_run_time)]
    pub time: Duration,

    /// Time in seconds within which an I/O must have ended, retries and waiting for a path included; after it the I/O
    /// fails [default: none]
    #[arg(long, value_name = "SECONDS", value_parser = parse_io_timeout)]
    pub io_timeout: Option<Duration>,

    /// Go on after an I/O has failed
    #[arg(short = 'f')]
    pub keep_going: bool,

    /// Cores, one reactor each: a mask (0x3) or a list (0,2-3). Without it one reactor runs wherever the system puts it
    #[arg(short = 'm', long, value_name = "CORES")]
    pub cores: Option<CoreList>,

    /// File of JSON-RPC calls to be made at the start, in SPDK's format
    #[arg(short = 'c', long, visible_alias = "json", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Wait for the call of framework_start_init before the file is read and most methods are allowed
    #[arg(long, requires = "socket")]
    pub wait_for_rpc: bool,

    /// Unix socket on which JSON-RPC requests are served; its file is for this user only
    #[arg(
        short = 'r',
        long = "rpc-socket",
        value_name = "SOCKET",
        required_unless_present = "config"
    )]
    pub socket: Option<PathBuf>,

    /// Folder that files which methods open have to be in. Default: any
    #[arg(long, value_name = "DIR")]
    pub files_under: Option<PathBuf>,

    /// How much is said on standard error: ERROR, WARNING, NOTICE, INFO or DEBUG; the last two of the parts of the
    /// program that log_set_flag names
    #[arg(long, value_name = "LEVEL", default_value = "NOTICE")]
    pub log_level: Level,
}

impl ServeArgs {
    /// What is run unless a request says otherwise.
    pub fn orders(&self) -> Orders {
        Orders {
            depth: self.depth,
            io_size: self.io_size.clone(),
            workload: self.workload,
            read_share: self.read_share,
            time: self.time,
        }
    }

    /// Options that are right by themselves but not together.
    pub fn check(&self) -> Result<(), String> {
        if self.wait && self.socket.is_none() {
            return Err("-z waits for a request that cannot come: -r SOCKET is needed".to_owned());
        }
        self.orders().check()
    }
}

/// One size.
pub(super) fn parse_size(text: &str) -> Result<IoSizes, String> {
    parse_one_size(text)?;
    text.parse()
}
