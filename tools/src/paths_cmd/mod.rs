//! `pollux paths`: the volumes of a running host and their paths.

mod rate;
mod show;
mod snapshot;
mod watch;

use std::io::{Write, stdout};
use std::time::Duration;

use anyhow::bail;
use clap::Args;

use self::snapshot::Snapshot;
use crate::UsageError;
use crate::manage::ClientArgs;
use pollux_reactor::rpc::{CallError, Client};

/// The longest that one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const INTERVAL_MIN: f64 = 0.05;
const INTERVAL_MAX: f64 = 86_400.0;

const EXAMPLES: &str = "\
Examples:
  pollux paths -r /run/pollux-host.sock
  pollux paths -r /run/pollux-host.sock --watch disk1n1
  pollux paths -r /run/pollux-host.sock --watch 0.5 --json | jq '.[].paths[].rate'

ID is the controller's (CNTLID). CONN (connected), ACC (accessible) and CUR (current: the
next I/O could go there) are as the I/O reactors see them: yes, no, or on which of them. OUT
is what is outstanding on the path's connections, from all volumes that share them. READS,
WRITES and ERR (errors) count since the path was added; with --watch, ERR counts since the
last look.

With --watch it goes on until Ctrl-C, redraws in place on a terminal, says so when the
host goes away, and goes on when the host is back.

Exit code: 0, 1 (nobody answers, or no such volume), 2 (wrong usage).";

/// Print the volumes of a running host with their paths.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PathsArgs {
    /// Only this volume.
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// The host.
    #[command(flatten)]
    client: ClientArgs,

    /// Look again every so many seconds, and show rates [default: 1].
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
    watch: Option<String>,

    /// Print JSON; with --watch one line for each look.
    #[arg(long)]
    json: bool,
}

/// What the options come to.
#[derive(Debug, PartialEq)]
struct Look<'a> {
    name: Option<&'a str>,
    interval: Option<Duration>,
}

impl PathsArgs {
    /// What follows `--watch` is its seconds if it is a number, else the name of the volume.
    fn look(&self) -> Result<Look<'_>, UsageError> {
        let name = self.name.as_deref();
        let Some(word) = self.watch.as_deref() else {
            let interval = None;
            return Ok(Look { name, interval });
        };
        let (seconds, name) = match (word.parse::<f64>(), name) {
            (Ok(seconds), name) => (seconds, name),
            (Err(_), None) => (1.0, Some(word)),
            (Err(_), Some(_)) => {
                return Err(UsageError(format!(
                    "--watch: '{word}' is no number of seconds"
                )));
            }
        };
        if !(INTERVAL_MIN..=INTERVAL_MAX).contains(&seconds) {
            return Err(UsageError(format!(
                "--watch: {INTERVAL_MIN} to {INTERVAL_MAX} seconds, not {word}"
            )));
        }
        let interval = Some(Duration::from_secs_f64(seconds));
        Ok(Look { name, interval })
    }
}

/// Prints once, or until it is told to stop.
pub fn run(args: &PathsArgs) -> anyhow::Result<()> {
    let look = args.look()?;
    let mut client = args.client.connect(Some(ANSWER_MAX))?;
    let snapshot = match Snapshot::take(&mut client, look.name) {
        Err(CallError::Refused { .. }) if is_target(&mut client) => bail!(
            "{0}: this is a target; the paths to it are seen by its hosts. What it knows of them: pollux rpc \
             nvmf_subsystem_get_controllers '{{\"nqn\": \"NQN\"}}' -r {0}",
            args.client.socket.display()
        ),
        snapshot => snapshot?,
    };
    if let Some(interval) = look.interval {
        let watch = watch::Watch {
            access: &args.client,
            name: look.name,
            interval,
            json: args.json,
        };
        return watch.run(client, snapshot);
    }
    let shown = match args.json {
        true => format!("{:#}\n", show::document(&snapshot, None)),
        false => show::text(&snapshot, None),
    };
    // Nobody may be reading.
    let _ = stdout().write_all(shown.as_bytes());
    Ok(())
}

/// Whoever answers has subsystems instead of controllers.
fn is_target(client: &mut Client) -> bool {
    let methods = client.call("rpc_get_methods", None);
    let names = methods.ok().and_then(|methods| methods.as_array().cloned());
    names.is_some_and(|names| names.iter().any(|name| name == "nvmf_get_subsystems"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: PathsArgs,
    }

    fn look(words: &[&str]) -> Result<(Option<String>, Option<u128>), String> {
        let words = [&["paths", "-r", "s"], words].concat();
        let cli = Cli::try_parse_from(words).map_err(|e| e.to_string())?;
        let look = cli.args.look().map_err(|e| e.to_string())?;
        let interval = look.interval.map(|i| i.as_millis());
        Ok((look.name.map(str::to_owned), interval))
    }

    #[test]
    fn the_word_after_watch_is_a_time_or_a_name() {
        let name = || Some("disk1n1".to_owned());
        for (words, expected) in [
            (&[][..], (None, None)),
            (&["disk1n1"], (name(), None)),
            (&["--watch"], (None, Some(1000))),
            (&["--watch", "0.5"], (None, Some(500))),
            (&["--watch", "disk1n1"], (name(), Some(1000))),
            (&["--watch", "2", "disk1n1"], (name(), Some(2000))),
            (&["disk1n1", "--watch"], (name(), Some(1000))),
            (&["disk1n1", "-w", "3", "--json"], (name(), Some(3000))),
        ] {
            assert_eq!(look(words), Ok(expected), "{words:?}");
        }
        for words in [
            &["disk1n1", "--watch", "soon"][..],
            &["--watch", "0"],
            &["--watch", "1e9"],
            &["--watch", "NaN"],
        ] {
            assert!(look(words).is_err(), "{words:?}");
        }
    }
}
