//! The command line: options with the names that storage people know, and one-line errors.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use pollux_multipath::{Selector, TransportId, TransportIdError};
use pollux_nvme_tcp::spec::nqn::Nqn;

use crate::cores::CoreList;
use crate::disturb::DisturbArgs;
use crate::serve::ServeArgs;
use crate::size::{IoSizes, human_bytes, parse_bytes};
use crate::workload::Workload;

/// An NVMe queue has at most 65,536 entries, of which one stays empty.
const DEPTH_MAX: u32 = 65_535;
/// A depth times a size beyond this is a slip of the finger, not a workload.
const BUFFER_BYTES_MAX: u64 = 4 << 30;
const WEEK_S: f64 = 604_800.0;

const EXAMPLES: &str = "\
Examples:
  pollux-perf
      4 KiB random reads at depth 32 for 10 s on an embedded target, with a
      failover on the way
  pollux-perf -q 128 -o 4k -w randrw -M 70 -t 30 --policy active_active
  pollux-perf -r 'traddr:127.0.0.1 trsvcid:4420 subnqn:nqn.2026-01.io.pollux:demo' \\
              -r 'traddr:127.0.0.1 trsvcid:4421 subnqn:nqn.2026-01.io.pollux:demo' \\
              -w verify -o 512-1m --stride 7 --ios 1000000
  pollux-perf floor -q 32 -o 4k -w read -t 2
      the same bytes over bare TCP: the limit to measure against

Rates, shares and latencies are of I/O that succeeded; failed I/O is shown
apart. What has not ended after the run counts with its age; figures that it
could still move are marked with >=.

The live line goes to standard error, the report to standard output. Ctrl-C ends
a run within two seconds, with its report; a second one ends it at once.

Exit code: 0 all I/O succeeded; 1 an I/O failed or did not end, data was wrong,
no connection; 2 usage; 130 interrupted by Ctrl-C, 143 by SIGTERM.";

/// NVMe/TCP load over one volume with several paths.
///
/// Without an address an embedded target is started in this process: one memory namespace behind two listeners on
/// loopback, one optimized and one non_optimized. Halfway the first path becomes inaccessible and later comes back.
#[derive(Parser, Debug)]
#[command(
    name = "pollux-perf",
    version,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    max_term_width = 110
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Measure the limit: the same bytes per request and response over bare non-blocking TCP, no NVMe at all
    Floor(FloorArgs),
    /// Measure what disturbances cost: ANA changes, lost paths, peers that do not answer, clients that ask for status
    Disturb(DisturbArgs),
    /// Be managed by JSON-RPC, and run the workload on all volumes when perform_tests is called
    Serve(ServeArgs),
}

/// What was asked for.
#[derive(Debug)]
pub enum Invocation {
    /// The benchmark.
    Run(Box<RunArgs>),
    /// Bare TCP.
    Floor(FloorArgs),
    /// I/O under disturbances.
    Disturb(DisturbArgs),
    /// Managed by JSON-RPC.
    Serve(Box<ServeArgs>),
}

/// Options of the benchmark, checked.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// A path: 'trtype:TCP adrfam:IPv4 traddr:ADDR trsvcid:PORT subnqn:NQN', where ADDR may be the name of a host;
    /// repeat it for more paths to one volume
    #[arg(
        short = 'r',
        long = "transport",
        value_name = "TRID",
        value_parser = parse_transport,
        help_heading = "Paths"
    )]
    pub transports: Vec<TransportId>,

    /// How I/O is spread over the paths
    #[arg(long, value_enum, default_value_t = PolicyName::ActivePassive, help_heading = "Paths")]
    pub policy: PolicyName,

    /// Which path is next under active_active [default: round_robin]
    #[arg(long, value_parser = selector(), help_heading = "Paths")]
    pub selector: Option<Selector>,

    /// I/Os on a path before round_robin moves to the next [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Paths")]
    pub min_io: Option<u32>,

    /// Ask for header digests (CRC32C)
    #[arg(long, help_heading = "Paths")]
    pub hdgst: bool,

    /// Ask for data digests (CRC32C)
    #[arg(long, help_heading = "Paths")]
    pub ddgst: bool,

    /// Refuse a controller that does not grant the digests asked for
    #[arg(long, help_heading = "Paths")]
    pub require_digests: bool,

    /// Keep SQ flow control: every read has a completion of its own
    #[arg(long, help_heading = "Paths")]
    pub sq_flow_control: bool,

    /// Namespace to use, if the subsystem has several [default: the first one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=0xffff_fffe), help_heading = "Paths")]
    pub nsid: Option<u32>,

    /// Host NQN to connect with
    #[arg(long, value_name = "NQN", help_heading = "Paths")]
    pub hostnqn: Option<Nqn>,

    /// Deadline in seconds for all paths to be connected
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_connect_timeout, help_heading = "Paths")]
    pub connect_timeout: Duration,

    /// Time in seconds within which an I/O must have ended, retries and waiting for a path included; after it the I/O
    /// fails [default: none: I/O waits until a path comes back]
    #[arg(long, value_name = "SECONDS", value_parser = parse_io_timeout, help_heading = "Paths")]
    pub io_timeout: Option<Duration>,

    /// Keep-alive timeout in milliseconds; 0 switches keep-alive off
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=3_600_000), help_heading = "Paths")]
    pub kato: u32,

    /// I/Os kept in flight on each reactor
    #[arg(short = 'q', long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEPTH_MAX)), help_heading = "Workload")]
    pub depth: u32,

    /// I/O size (4k), or a uniform mix of a list (512,4k,64k) or of the doublings in a range (512-1m)
    #[arg(
        short = 'o',
        long = "io-size",
        value_name = "SIZE",
        default_value = "4k",
        help_heading = "Workload"
    )]
    pub io_size: IoSizes,

    /// What to do
    #[arg(short = 'w', long, value_enum, default_value_t = Workload::RandRead, help_heading = "Workload")]
    pub workload: Workload,

    /// Share of reads in percent, for rw and randrw [default: 50]
    #[arg(short = 'M', long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "Workload")]
    pub read_share: Option<u8>,

    /// Seconds to run; fractions are fine
    #[arg(short = 't', long, value_name = "SECONDS", default_value = "10", value_parser = parse_run_time, help_heading = "Workload")]
    pub time: Duration,

    /// Stop after this many I/Os on each reactor, if that comes before the time is up
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Workload")]
    pub ios: Option<u64>,

    /// I/Os start at multiples of this many blocks instead of multiples of their size (7: misaligned and overlapping)
    #[arg(long, value_name = "BLOCKS", value_parser = clap::value_parser!(u64).range(1..=1 << 32), help_heading = "Workload")]
    pub stride: Option<u64>,

    /// Seed of offsets, mixes and patterns [default: a new one each time, printed in the report]
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub seed: Option<u64>,

    /// Cores of the I/O reactors: a mask (0x3) or a list (0,2-3) [default: the last core there is]
    #[arg(short = 'm', long, value_name = "CORES", help_heading = "Run")]
    pub cores: Option<CoreList>,

    /// Write the results as one JSON object; - is standard output, and the report then goes to standard error
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub json: Option<PathBuf>,

    /// The embedded target's namespace: memory:SIZE or null:SIZE
    #[arg(long, value_name = "KIND:SIZE", default_value = "memory:64m", value_parser = parse_namespace, conflicts_with = "transports", help_heading = "Run")]
    pub namespace: EmbeddedNamespace,

    /// Leave the embedded target's paths alone
    #[arg(long, help_heading = "Run")]
    pub no_failover: bool,
}

/// Options of `floor`, checked.
#[derive(Args, Debug)]
pub struct FloorArgs {
    /// Requests kept in flight
    #[arg(short = 'q', long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEPTH_MAX)))]
    pub depth: u32,

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
}

/// `--policy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum PolicyName {
    /// One path at a time
    ActivePassive,
    /// All paths of the best class
    ActiveActive,
}

/// What `--selector` takes: any selector there is, by name.
#[expect(clippy::expect_used, reason = "only these names are possible values")]
fn selector() -> impl TypedValueParser<Value = Selector> {
    let named = |selector: Selector| PossibleValue::new(selector.name()).help(selector.about());
    PossibleValuesParser::new(Selector::ALL.map(named)).map(|name| {
        let mut all = Selector::ALL.into_iter();
        let selector = all.find(|selector| selector.name() == name);
        selector.expect("the name of a selector")
    })
}

/// `floor -w`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// Small requests, large answers
    Read,
    /// Large requests, small answers
    Write,
}

/// What the embedded target's namespace keeps its data in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddedNamespace {
    /// Memory of this many bytes.
    Memory(u64),
    /// Nothing: writes are dropped, reads are zeroes.
    Null(u64),
}

impl EmbeddedNamespace {
    /// Size in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Memory(bytes) | Self::Null(bytes) => bytes,
        }
    }
}

/// Why there is no [`Invocation`].
#[derive(Debug)]
pub enum Exit {
    /// Help or version was asked for; this is its text.
    Shown(String),
    /// One line that names the value and what is allowed.
    Usage(String),
}

/// Reads and checks the command line; `args` starts with the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, Exit> {
    let cli = Cli::try_parse_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Exit::Shown(error.render().to_string())
        }
        _ => Exit::Usage(in_one_line(&error.render().to_string())),
    })?;
    match cli.command {
        Some(Command::Floor(floor)) => Ok(Invocation::Floor(floor)),
        Some(Command::Disturb(disturb)) => Ok(Invocation::Disturb(disturb)),
        Some(Command::Serve(serve)) => {
            serve.check().map_err(Exit::Usage)?;
            Ok(Invocation::Serve(Box::new(serve)))
        }
        None => {
            cli.run.check().map_err(Exit::Usage)?;
            Ok(Invocation::Run(Box::new(cli.run)))
        }
    }
}

/// clap explains over several lines: the first paragraph says what is wrong, some of the others what was meant.
fn in_one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ").trim().to_owned()
    });
    let mut line = paragraphs.next().unwrap_or_default();
    for tip in paragraphs.filter(|paragraph| paragraph.starts_with("tip: ")) {
        line = format!("{line}; {}", tip.replace(" tip: ", "; tip: "));
    }
    line
}

impl RunArgs {
    /// Options that are right by themselves but not together.
    fn check(&self) -> Result<(), String> {
        let mixed = matches!(self.workload, Workload::Rw | Workload::RandRw);
        if let (Some(share), false) = (self.read_share, mixed) {
            return Err(format!(
                "read share -M {share} has no meaning for this workload: allowed with -w rw and -w randrw"
            ));
        }
        if self.require_digests && !(self.hdgst || self.ddgst) {
            return Err(
                "--require-digests requires nothing: allowed with --hdgst and --ddgst".to_owned(),
            );
        }
        if self.selector.is_some() && self.policy != PolicyName::ActiveActive {
            return Err("--selector has no meaning with active_passive: allowed with --policy active_active".to_owned());
        }
        let counts_ios = self.policy == PolicyName::ActiveActive
            && self.selector.unwrap_or_default().min_io().is_some();
        if let (Some(min_io), false) = (self.min_io, counts_ios) {
            return Err(format!(
                "--min-io {min_io} has no meaning here: allowed with --policy active_active and --selector round_robin"
            ));
        }
        if let (Some(nsid), true) = (self.nsid, self.transports.is_empty())
            && nsid != 1
        {
            return Err(format!(
                "--nsid {nsid} is not there: the embedded target has namespace 1 only"
            ));
        }
        if self.transports.is_empty() {
            self.check_embedded()?;
        }
        let reactors = self
            .cores
            .as_ref()
            .map_or(1, |cores| cores.cores().len() as u64);
        let buffers = u64::from(self.depth) * u64::from(self.io_size.max()) * reactors;
        if buffers > BUFFER_BYTES_MAX {
            return Err(format!(
                "-q {} with -o {} needs {} MiB of buffers: allowed are {} MiB",
                self.depth,
                self.io_size,
                buffers >> 20,
                BUFFER_BYTES_MAX >> 20
            ));
        }
        Ok(())
    }

    fn check_embedded(&self) -> Result<(), String> {
        let bytes = self.namespace.bytes();
        if u64::from(self.io_size.max()) > bytes {
            return Err(format!(
                "-o {} is larger than the namespace: allowed are sizes up to {}",
                self.io_size,
                human_bytes(bytes)
            ));
        }
        if self.workload == Workload::Verify && matches!(self.namespace, EmbeddedNamespace::Null(_))
        {
            return Err(
                "-w verify cannot work on a null namespace: allowed is --namespace memory:SIZE"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn parse_transport(text: &str) -> Result<TransportId, String> {
    let transport =
        TransportId::look_up(text).map_err(|error: TransportIdError| error.to_string())?;
    if transport.subnqn.is_discovery() {
        return Err(format!(
            "transport ID '{text}' names no subsystem to do I/O on: subnqn:NQN is needed"
        ));
    }
    Ok(transport)
}

/// Reads one I/O size in bytes.
pub fn parse_one_size(text: &str) -> Result<u32, String> {
    let sizes: IoSizes = text.parse()?;
    match sizes.bytes() {
        [one] => Ok(*one),
        _ => Err(format!("size '{text}' is a mix: floor takes one size")),
    }
}

fn parse_namespace(text: &str) -> Result<EmbeddedNamespace, String> {
    let bad = || {
        format!(
            "namespace '{text}' cannot be made: allowed are memory:SIZE and null:SIZE, such as memory:64m"
        )
    };
    let (kind, size) = text.split_once(':').ok_or_else(bad)?;
    let bytes = parse_bytes(size)?;
    if bytes == 0 || !bytes.is_multiple_of(512) {
        return Err(format!(
            "namespace size '{size}' is not possible: allowed are multiples of 512"
        ));
    }
    match kind {
        "memory" => Ok(EmbeddedNamespace::Memory(bytes)),
        "null" => Ok(EmbeddedNamespace::Null(bytes)),
        _ => Err(bad()),
    }
}

/// Reads the seconds of a run.
pub fn parse_run_time(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.01, WEEK_S)
}

fn parse_connect_timeout(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.1, 3_600.0)
}

/// Reads the deadline of an I/O.
pub fn parse_io_timeout(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.001, 86_400.0)
}

/// Reads a number of seconds within bounds.
pub fn parse_seconds(text: &str, min: f64, max: f64) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(seconds) if (min..=max).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!(
            "time '{text}' is not possible: allowed are {min} to {max} seconds"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRID: &str =
        "trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:4420 subnqn:nqn.2026-01.io.pollux:a";

    fn args(line: &[&str]) -> Result<Invocation, Exit> {
        parse(
            std::iter::once("pollux-perf")
                .chain(line.iter().copied())
                .map(OsString::from),
        )
    }

    fn run(line: &[&str]) -> RunArgs {
        match args(line) {
            Ok(Invocation::Run(run)) => *run,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn the_command_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_main_job() {
        let run = run(&[]);
        assert_eq!(run.depth, 32);
        assert_eq!(run.io_size.bytes(), [4096]);
        assert_eq!(run.workload, Workload::RandRead);
        assert_eq!(run.time, Duration::from_secs(10));
        assert_eq!(run.connect_timeout, Duration::from_secs(10));
        assert_eq!(run.policy, PolicyName::ActivePassive);
        assert_eq!(run.namespace, EmbeddedNamespace::Memory(64 << 20));
        assert!(run.transports.is_empty() && !run.no_failover && run.seed.is_none());
    }

    #[test]
    fn every_option_is_read() {
        let run = run(&[
            "-r",
            TRID,
            "-r",
            "traddr:127.0.0.1 trsvcid:2 subnqn:nqn.2026-01.io.pollux:a",
            "-q",
            "8",
            "-o",
            "512-1m",
            "-w",
            "randrw",
            "-M",
            "70",
            "-t",
            "1.5",
            "-m",
            "0,2-3",
            "--policy",
            "active_active",
            "--selector",
            "round_robin",
            "--min-io",
            "4",
            "--hdgst",
            "--ddgst",
            "--require-digests",
            "--sq-flow-control",
            "--seed",
            "9",
            "--json",
            "out.json",
            "--stride",
            "7",
            "--ios",
            "1000",
            "--connect-timeout",
            "2",
            "--kato",
            "5000",
            "--hostnqn",
            "nqn.2026-01.io.pollux:host",
            "--no-failover",
        ]);
        assert_eq!(run.transports.len(), 2);
        assert_eq!(
            (run.depth, run.read_share, run.min_io),
            (8, Some(70), Some(4))
        );
        assert_eq!(run.io_size.bytes().len(), 12);
        assert_eq!(run.time, Duration::from_millis(1500));
        assert_eq!(run.cores.unwrap().cores(), [0, 2, 3]);
        assert_eq!(run.selector, Some(Selector::RoundRobin { min_io: 1 }));
        assert!(run.require_digests);
        assert!(run.hdgst && run.ddgst && run.sq_flow_control && run.no_failover);
        assert_eq!(
            (run.seed, run.stride, run.ios),
            (Some(9), Some(7), Some(1000))
        );
        assert_eq!(run.json, Some(PathBuf::from("out.json")));
        assert_eq!(
            (run.connect_timeout, run.kato),
            (Duration::from_secs(2), 5000)
        );
        assert_eq!(run.hostnqn.unwrap().as_str(), "nqn.2026-01.io.pollux:host");
        assert_eq!(run.transports[1].addr.port(), 2);
    }

    #[test]
    fn floor_has_its_own_options() {
        let Ok(Invocation::Floor(floor)) = args(&[
            "floor", "-q", "1", "-o", "8k", "-w", "write", "-t", "1", "-m", "0,1",
        ]) else {
            panic!("floor expected");
        };
        assert_eq!(
            (floor.depth, floor.io_size, floor.workload),
            (1, 8192, Direction::Write)
        );
        assert!(!floor.capsule_resp);
    }

    #[test]
    fn bad_input_is_one_line_with_the_value_and_what_is_allowed() {
        let cases: &[(&[&str], &[&str])] = &[
            (&["-q", "0"], &["'0'", "1..=65535"]),
            (&["-q", "70000"], &["'70000'", "1..=65535"]),
            (&["-q", "many"], &["'many'"]),
            (&["-o", "100"], &["'100'", "multiples of 512"]),
            (&["-o", "4x"], &["'4x'", "k, m, g or t"]),
            (&["-o", "32m"], &["'32m'", "16 MiB"]),
            (&["-w", "scribble"], &["'scribble'", "randread", "verify"]),
            (&["-M", "101", "-w", "rw"], &["'101'", "0..=100"]),
            (&["-M", "50"], &["50", "randrw"]),
            (&["-t", "0"], &["'0'", "0.01 to 604800"]),
            (&["-t", "nan"], &["'nan'"]),
            (&["-t", "-1"], &["'-1'"]),
            (&["-m", "x"], &["'x'", "0,2-3"]),
            (&["-m", "0x0"], &["'0x0'", "at least one"]),
            (
                &["--policy", "both"],
                &["'both'", "active_passive", "active_active"],
            ),
            (&["--selector", "queue_depth"], &["--policy active_active"]),
            (&["--min-io", "0"], &["'0'"]),
            (&["--min-io", "3"], &["3", "round_robin"]),
            (
                &[
                    "--policy",
                    "active_active",
                    "--selector",
                    "queue_depth",
                    "--min-io",
                    "3",
                ],
                &["3", "round_robin"],
            ),
            (&["--stride", "0"], &["'0'"]),
            (&["--ios", "0"], &["'0'"]),
            (&["--connect-timeout", "0"], &["'0'", "0.1 to 3600"]),
            (&["--kato", "-5"], &["'-5'"]),
            (&["--io-timeout", "0"], &["'0'", "0.001 to 86400"]),
            (&["--namespace", "disk:1m"], &["'disk:1m'", "memory:SIZE"]),
            (&["--namespace", "memory:0"], &["'0'", "multiples of 512"]),
            (
                &["--namespace", "memory:64k", "-o", "1m"],
                &["1 MiB", "64 KiB"],
            ),
            (
                &["--namespace", "null:1m", "-w", "verify"],
                &["memory:SIZE"],
            ),
            (
                &["--namespace", "null:1m", "-r", TRID],
                &["--namespace", "--transport"],
            ),
            (&["-q", "65535", "-o", "1m"], &["65535", "4096 MiB"]),
            (&["-r", "traddr:127.0.0.1"], &["subnqn:NQN is needed"]),
            (
                &["-r", "traddr:no/where subnqn:nqn.2026-01.io.pollux:a"],
                &["'no/where'", "IPv4 or IPv6", "name of a host"],
            ),
            (
                &["-r", "traddr:127.0.0.1 subnqn:disk"],
                &["'disk'", "nqn.yyyy-mm"],
            ),
            (&["--hostnqn", "me"], &["'me'", "nqn.yyyy-mm"]),
            (&["--frobnicate"], &["--frobnicate"]),
            (&["--dept", "4"], &["'--dept'", "tip: ", "'--depth'"]),
            (&["-w", "randraed"], &["'randraed'", "tip: ", "'randread'"]),
            (&["flor"], &["'flor'", "tip: ", "'floor'"]),
            (&["--nsid", "0"], &["'0'"]),
            (&["--nsid", "3"], &["3", "namespace 1"]),
            (&["stray"], &["stray"]),
            (
                &["floor", "-w", "randread"],
                &["'randread'", "read", "write"],
            ),
            (&["floor", "-o", "4k,8k"], &["'4k,8k'", "one size"]),
        ];
        for (line, wanted) in cases {
            match args(line) {
                Err(Exit::Usage(message)) => {
                    assert!(!message.contains('\n'), "{line:?}: {message}");
                    for part in *wanted {
                        assert!(
                            message.contains(part),
                            "{line:?}: '{part}' not in '{message}'"
                        );
                    }
                }
                other => panic!("{line:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn help_shows_examples() {
        for line in [&["--help"][..], &["help"]] {
            match args(line) {
                Err(Exit::Shown(text)) => assert!(
                    text.contains("Examples:") && text.contains("floor") && text.contains("130"),
                    "{text}"
                ),
                other => panic!("{other:?}"),
            }
        }
        for command in ["floor", "disturb", "serve"] {
            let shown = |line: &[&str]| match args(line) {
                Err(Exit::Shown(text)) => text,
                other => panic!("{line:?}: {other:?}"),
            };
            assert_eq!(shown(&["help", command]), shown(&[command, "--help"]));
        }
    }
}
