//! The options of `disturb`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cores::CoreList;
use crate::values::parse_seconds;

const EXAMPLES: &str = "\
Examples:
  pollux-perf disturb
      everything, with the defaults: some four minutes
  pollux-perf disturb black-hole --seconds 60 --json black-hole.json
  pollux-perf disturb ana listener --changes 20000 --removals 500
  pollux-perf disturb attach --attach-timeout 5 --rounds 3

Slices of time without and with the disturbance take turns; ratios are medians
over neighbours.

Exit code: 0 nothing was wrong, however slow it was; 1 an I/O error, wrong or
lost data, a status that contradicts itself, a path or an attach that does not
do what it must; 2 usage; 130 interrupted by Ctrl-C, 143 by SIGTERM.";

/// Measure what disturbances cost I/O, on an embedded target with two paths
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DisturbArgs {
    /// What to measure; without any, all
    #[arg(value_enum, value_name = "SCENARIO")]
    pub scenarios: Vec<Scenario>,

    /// Cores, a mask (0x3) or a list (0,2-3): the first for the target, the last for I/O [default: all there are]
    #[arg(short = 'm', long, value_name = "CORES")]
    pub cores: Option<CoreList>,

    /// I/Os kept in flight on each I/O reactor
    #[arg(short = 'q', long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1023))]
    pub depth: u32,

    /// ana: ANA changes under each policy, 1 ms apart
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub changes: u32,

    /// listener: removals under each policy
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub removals: u32,

    /// reaction: ANA changes, one at a time
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub reactions: u32,

    /// black-hole, status: seconds with the disturbance; as many go without it
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_total)]
    pub seconds: Duration,

    /// black-hole, status: seconds of one slice
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_slice)]
    pub slice: Duration,

    /// attach: attaches to each peer that does not answer
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,

    /// attach: seconds after which an attach must have failed
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_slice)]
    pub attach_timeout: Duration,

    /// Write the results as one JSON object; - is standard output, and the table then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Thousands of ANA changes under verified I/O while status is asked for all the time
    Ana,
    /// The optimized path's listener removed and added, while status is asked for all the time
    Listener,
    /// Time from an ANA change to the last reactor's path table, and from there to resumed I/O
    Reaction,
    /// I/O on one path while the other one's peer is silent, lost, and retried
    BlackHole,
    /// I/O while attaches to peers that do not answer run into their deadline on the same reactor
    Attach,
    /// I/O while a client asks for status 100 times a second
    Status,
}

impl Scenario {
    /// All, in the order in which they run.
    pub const ALL: [Scenario; 6] = [
        Scenario::Ana,
        Scenario::Listener,
        Scenario::Reaction,
        Scenario::BlackHole,
        Scenario::Attach,
        Scenario::Status,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Ana => "ana",
            Scenario::Listener => "listener",
            Scenario::Reaction => "reaction",
            Scenario::BlackHole => "black-hole",
            Scenario::Attach => "attach",
            Scenario::Status => "status",
        }
    }
}

impl DisturbArgs {
    /// The scenarios to run, each once.
    pub fn wanted(&self) -> Vec<Scenario> {
        let wanted = |s: &Scenario| self.scenarios.is_empty() || self.scenarios.contains(s);
        Scenario::ALL.into_iter().filter(wanted).collect()
    }

    /// Pairs of slices, and the length of one.
    pub fn slices(&self) -> (usize, Duration) {
        let slice = self.slice.min(self.seconds);
        let pairs = self.seconds.as_nanos().div_ceil(slice.as_nanos().max(1));
        (usize::try_from(pairs).unwrap_or(usize::MAX), slice)
    }
}

fn parse_total(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.1, 86_400.0)
}

fn parse_slice(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.1, 600.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DisturbArgs,
    }

    fn parse(line: &[&str]) -> DisturbArgs {
        let words = ["disturb"].iter().chain(line);
        Line::try_parse_from(words).unwrap().args
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for scenario in Scenario::ALL {
            assert_eq!(parse(&[scenario.name()]).wanted(), [scenario]);
        }
        assert_eq!(parse(&[]).wanted(), Scenario::ALL);
        let twice = parse(&["status", "ana", "status"]);
        assert_eq!(twice.wanted(), [Scenario::Ana, Scenario::Status]);
    }

    #[test]
    fn slices_cover_the_time() {
        let slices = |line: &[&str]| parse(line).slices();
        assert_eq!(slices(&[]), (6, Duration::from_secs(5)));
        assert_eq!(slices(&["--seconds", "11"]).0, 3);
        assert_eq!(
            slices(&["--seconds", "2", "--slice", "5"]),
            (1, Duration::from_secs(2))
        );
    }
}
