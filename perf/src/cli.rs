//! The command line: one subcommand each for what can be measured, and one-line errors.

use std::ffi::OsString;
use std::fs;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::compare::CompareArgs;
use crate::disturb::DisturbArgs;
use crate::errors::in_one_line;
use crate::floor::FloorArgs;
use crate::help;
use crate::merge::MergeArgs;
use crate::plots::ReportArgs;
use crate::profile::Profile;
use crate::run::{JobArgs, RunArgs};
use crate::serve::ServeArgs;

const EXAMPLES: &str = "\
Examples:
  pollux-perf
      4 KiB random reads at depth 32 for 10 s on an embedded target, with a
      failover on the way
  pollux-perf -q 128 -o 4k -w randrw -M 70 -t 30 --policy active_active
  pollux-perf -w verify -o 512-1m --stride 7 --ios 1000000 \\
    -r 'traddr:127.0.0.1 trsvcid:4420 subnqn:nqn.2026-01.io.pollux:demo' \\
    -r 'traddr:127.0.0.1 trsvcid:4421 subnqn:nqn.2026-01.io.pollux:demo'
  pollux-perf --pcap io.pcap -q 1 --ios 100 --no-failover
      what goes over the connections, in a file that a packet analyser reads:
      tshark -r io.pcap -d tcp.port==1-65535,nvme-tcp -Y nvme-tcp
  pollux-perf -w randrw --mix read:70,write:28,flush:2 -o 4k:70,64k:30 -q 128 \\
              --rate 20000 --arrivals poisson --ramp-time 1 --json new.json
      20,000 I/Os a second are due, come what may; their wait is in the latency
  pollux-perf floor -q 32 -o 4k -w read -t 2
      the same bytes over bare TCP: the limit to measure against

Rates, shares and latencies are of I/O that succeeded; failed I/O is shown
apart. What has not ended after the run counts with its age; figures that it
could still move are marked with >=.

The live line goes to standard error, the report to standard output. Ctrl-C ends
a run within two seconds, with its report; a second one ends it at once.";

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
    term_width = 80
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
    /// Tell whether one result is worse than another: by saved results, or live
    Compare(CompareArgs),
    /// Run the jobs of a file, and tell whether they are worse than a saved baseline
    Bench(BenchArgs),
    /// Make one result of those of several processes, machines or turns, without loss
    Merge(MergeArgs),
    /// Draw results as one HTML page, or a plot as SVG
    Report(ReportArgs),
    /// Be managed by JSON-RPC, and run the workload on all volumes when perform_tests is called
    Serve(ServeArgs),
}

/// What was asked for.
#[derive(Debug)]
pub enum Invocation {
    /// The benchmark: jobs that run at the same time, at least one.
    Run(Vec<JobArgs>),
    /// Bare TCP.
    Floor(FloorArgs),
    /// I/O under disturbances.
    Disturb(DisturbArgs),
    /// Two results.
    Compare(CompareArgs),
    /// A suite.
    Bench(BenchArgs),
    /// Results as one.
    Merge(MergeArgs),
    /// Results drawn.
    Report(ReportArgs),
    /// Managed by JSON-RPC.
    Serve(Box<ServeArgs>),
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
    let mut args: Vec<OsString> = args.into_iter().collect();
    let words: Vec<&str> = args.iter().skip(1).filter_map(|arg| arg.to_str()).collect();
    match help::asked(&Cli::command(), &words, EXAMPLES) {
        Some(Ok(text)) => return Err(Exit::Shown(text)),
        Some(Err(unknown)) => return Err(Exit::Usage(unknown)),
        None => {}
    }
    // Help that fits a screen is the short one.
    if let ["help", _] = words[..] {
        args.swap(1, 2);
        args[2] = "-h".into();
    } else if let Some(last) = args.last_mut().filter(|last| *last == "--help") {
        *last = "-h".into();
    }
    let unread = |error: clap::Error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            Exit::Shown(error.render().to_string())
        }
        _ => Exit::Usage(in_one_line(&error.render().to_string())),
    };
    let matches = Cli::command().try_get_matches_from(args).map_err(unread)?;
    let cli = Cli::from_arg_matches(&matches).map_err(unread)?;
    match cli.command {
        Some(Command::Floor(floor)) => Ok(Invocation::Floor(floor)),
        Some(Command::Disturb(disturb)) => Ok(Invocation::Disturb(disturb)),
        Some(Command::Compare(compare)) => Ok(Invocation::Compare(compare)),
        Some(Command::Bench(bench)) => Ok(Invocation::Bench(bench)),
        Some(Command::Merge(merge)) => Ok(Invocation::Merge(merge)),
        Some(Command::Report(report)) => Ok(Invocation::Report(report)),
        Some(Command::Serve(serve)) => {
            serve.check().map_err(Exit::Usage)?;
            Ok(Invocation::Serve(Box::new(serve)))
        }
        None => jobs(cli.run, &matches)
            .map(Invocation::Run)
            .map_err(Exit::Usage),
    }
}

/// The one job of the command line, or those of its profile.
fn jobs(args: RunArgs, matches: &ArgMatches) -> Result<Vec<JobArgs>, String> {
    let Some(path) = &args.profile else {
        args.check()?;
        let name = args.workload.name().to_owned();
        return Ok(vec![JobArgs { name, args }]);
    };
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("--profile '{shown}': {error}"))?;
    Profile::parse_together(&text, matches).map_err(|error| format!("'{shown}': {error}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use pollux_multipath::Selector;

    use super::*;
    use crate::embedded::EmbeddedNamespace;
    use crate::floor::Direction;
    use crate::load::Workload;
    use crate::run::PolicyName;

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
            Ok(Invocation::Run(mut jobs)) => jobs.remove(0).args,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn the_command_is_well_formed() {
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
        assert_eq!(run.namespaces, [EmbeddedNamespace::Memory(64 << 20)]);
        assert_eq!((run.numjobs, run.qpairs), (1, 1));
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
    fn letters_are_those_of_spdk_nvme_perf() {
        let run = run(&[
            "-q", "8", "-o", "4096", "-w", "randrw", "-M", "70", "-t", "2", "-a", "1", "-P", "2",
            "-H", "-I", "-k", "5000", "-F", "1.1",
        ]);
        assert_eq!((run.depth, run.read_share, run.qpairs), (8, Some(70), 2));
        assert_eq!(run.ramp_time, Some(Duration::from_secs(1)));
        assert!(run.hdgst && run.ddgst && run.kato == 5000);
        let zipf = run.random_distribution.expect("a distribution");
        assert_eq!(zipf.to_string(), "zipf:1.1");
        let Ok(Invocation::Run(jobs)) = args(&["-d", "1000"]) else {
            panic!("a run expected");
        };
        assert_eq!(jobs[0].args.ios, Some(1_000));
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
            (&["--rate", "0"], &["'0'"]),
            (&["--arrivals", "poisson"], &["--rate"]),
            (
                &["--rate", "5", "--arrivals", "often"],
                &["'often'", "poisson"],
            ),
            (&["--mix", "read:1"], &["randrw"]),
            (
                &["-w", "randrw", "--mix", "red:1"],
                &["'red'", "write_zeroes"],
            ),
            (&["-w", "rw", "--mix", "read:1", "-M", "5"], &["--mix"]),
            (
                &["-w", "read", "--random-distribution", "zipf:1"],
                &["zipf:1", "randread"],
            ),
            (
                &["--random-distribution", "zipf:x"],
                &["'zipf:x'", "zipf:THETA"],
            ),
            (&["-o", "4k:1,8k"], &["'8k'", "no weight"]),
            (
                &["--ramp-time", "1", "--ios", "5"],
                &["--ramp-time 1", "--ios 5"],
            ),
            (&["--steadystate", "p99:5%"], &["'p99:5%'", "iops_slope"]),
            (
                &["--steady", "iops:5%", "--ss_dur", "3"],
                &["3", "4 (four times", "10 seconds"],
            ),
            (&["--ss_dur", "3"], &["--steadystate"]),
            (&["--steady", "iops:5%", "--ios", "3"], &["--ios"]),
            (&["--interval", "0.001"], &["'0.001'", "0.01 to 1"]),
            (&["--ios", "0"], &["'0'"]),
            (&["--connect-timeout", "0"], &["'0'", "0.1 to 3600"]),
            (&["--kato", "-5"], &["'-5'"]),
            (&["--fencing", "never"], &["'never'", "always"]),
            (&["--fencing", "always"], &["--cqt"]),
            (&["--kato", "0", "--cqt", "9"], &["--kato 0", "fencing"]),
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
            (&["--nsid", "1,x,"], &["''", "all"]),
            (
                &[
                    "--namespace",
                    "null:1m",
                    "--namespace",
                    "null:1m",
                    "--nsid",
                    "3",
                ],
                &["3", "1 to 2"],
            ),
            (&["-q", "2", "-P", "3"], &["-q 2", "-P 3"]),
            (&["--numjobs", "0"], &["'0'", "1..=1024"]),
            (
                &["--numjobs", "1024", "-q", "1024", "-o", "1m"],
                &["1024", "4096 MiB"],
            ),
            (&["--profile", "/nowhere.toml"], &["/nowhere.toml"]),
            (&["compare", "a"], &["NEW"]),
            (
                &["compare", "a", "b", "--fail-on", "p98:+1%"],
                &["'p98'", "p999"],
            ),
            (&["compare", "a", "b", "--max-time", "9"], &["--live"]),
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
                    text.contains("Examples:")
                        && text.contains("floor")
                        && text.contains("130")
                        && text.lines().count() <= 42,
                    "{text}"
                ),
                other => panic!("{other:?}"),
            }
        }
        for topic in ["paths", "load", "output", "run", "examples"] {
            match args(&["--help", topic]) {
                Err(Exit::Shown(text)) => {
                    let lines: Vec<&str> = text.lines().collect();
                    assert!((5..=50).contains(&lines.len()), "{topic}: {}", lines.len());
                    assert!(
                        lines.iter().all(|line| line.chars().count() <= 80),
                        "{text}"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        match args(&["--help", "lode"]) {
            Err(Exit::Usage(text)) => assert!(text.contains("'lode'") && text.contains("load")),
            other => panic!("{other:?}"),
        }
        for command in [
            "floor", "disturb", "compare", "bench", "merge", "report", "serve",
        ] {
            let shown = |line: &[&str]| match args(line) {
                Err(Exit::Shown(text)) => text,
                other => panic!("{line:?}: {other:?}"),
            };
            assert_eq!(shown(&["help", command]), shown(&[command, "--help"]));
            let text = shown(&[command, "--help"]);
            let lines = text.lines().count();
            assert!(lines <= 50, "{command}: {lines} lines");
            assert!(
                text.lines().all(|line| line.chars().count() <= 80),
                "{text}"
            );
        }
    }
}
