//! Help that fits a screen: a summary, and the options of the benchmark by topic.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use crate::text::hanging;

/// Options begin their explanation here.
const COLUMN: usize = 30;

const SUMMARY: &str = "\
NVMe/TCP load over one volume with several paths. Without -r an embedded target
is started in this process; halfway its first path goes away and comes back.

Usage: pollux-perf [OPTIONS]
       pollux-perf COMMAND [OPTIONS]

  -r, --transport TRID    a path, 'traddr:ADDR trsvcid:PORT subnqn:NQN'; repeat it
  -w, --workload NAME     randread [default], randwrite, randrw, read, write, rw,
                          verify;  -M PERCENT is the share of reads
  -o, --io-size SIZE      4k [default], 512-1m, 4k:70,64k:30
  -q, --depth N           I/Os in flight of each job [default: 32]
  -t, --time SECONDS      how long [default: 10]; --ramp-time is left out
  -m, --cores CORES       of the I/O reactors: 0x3, or 0,2-3
      --profile FILE      several jobs at once; also --nsid all and --numjobs N
      --rate IOPS         open loop: latency counts from when an I/O was due
      --policy NAME       active_passive [default] or active_active
      --json FILE         the result for programs; --output-format json, fio
";

const MORE: &str = "
Examples:
  pollux-perf -q 128 -w randrw -M 70 -t 2 --policy active_active
  pollux-perf -t 2 --interval 0.1 --json a.json && pollux-perf report a.json

More: pollux-perf --help paths, load, output, run, examples or all
      pollux-perf COMMAND --help
Exit code: 0 all I/O succeeded; 1 an I/O failed or did not end, data was wrong,
no connection; 2 usage; 130 interrupted by Ctrl-C, 143 by SIGTERM.
";

/// What `--help` takes, and the heading of the options.
const TOPICS: [(&str, &str); 4] = [
    ("paths", "Paths"),
    ("load", "Workload"),
    ("output", "Output"),
    ("run", "Run"),
];

/// The text that is asked for by `words`, the command line without the program's name; `None`: that is not for here.
///
/// # Errors
///
/// A topic that there is not.
pub fn asked(command: &Command, words: &[&str], examples: &str) -> Option<Result<String, String>> {
    let ("-h" | "--help" | "help", rest) = (*words.first()?, &words[1..]) else {
        return None;
    };
    match rest {
        [] => Some(Ok(summary(command))),
        [name] if command.find_subcommand(name).is_some() => None,
        ["examples"] => Some(Ok(examples.to_owned() + "\n")),
        ["all"] => {
            let topics = TOPICS.iter().map(|(_, heading)| topic(command, heading));
            Some(Ok(topics.collect::<Vec<_>>().join("\n")))
        }
        [name] => {
            let known = TOPICS.iter().find(|(topic, _)| topic == name);
            Some(match known {
                Some((_, heading)) => Ok(topic(command, heading)),
                None => Err(format!(
                    "there is no help on '{name}': allowed are paths, load, output, run, examples, all, and the commands"
                )),
            })
        }
        _ => None,
    }
}

fn summary(command: &Command) -> String {
    let mut text = format!("{SUMMARY}\nCommands:\n");
    for known in command.get_subcommands() {
        let about = known
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        let about = about.split([':', ',']).next().unwrap_or_default();
        let _ = writeln!(text, "  {:<9} {about}", known.get_name());
    }
    text + MORE
}

/// The options under a heading, each with what it does, its values and its default.
fn topic(command: &Command, heading: &str) -> String {
    let mut text = format!("{heading}:\n");
    let own = command.get_arguments();
    for option in own.filter(|option| option.get_help_heading() == Some(heading)) {
        write_option(&mut text, option);
    }
    text
}

fn write_option(text: &mut String, option: &Arg) {
    let mut name = match option.get_short() {
        Some(short) => format!("  -{short}, "),
        None => "      ".to_owned(),
    };
    let _ = write!(name, "--{}", option.get_long().unwrap_or_default());
    let takes_value = matches!(option.get_action(), ArgAction::Set | ArgAction::Append);
    for value in option
        .get_value_names()
        .into_iter()
        .flatten()
        .filter(|_| takes_value)
    {
        let _ = write!(name, " {value}");
    }
    let mut about = option
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    if takes_value {
        let possible = option.get_possible_values();
        let possible: Vec<&str> = possible.iter().map(|value| value.get_name()).collect();
        if !possible.is_empty() {
            let _ = write!(about, ": {}", possible.join(", "));
        }
        let defaults = option.get_default_values().iter();
        let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
        if !defaults.is_empty() {
            let _ = write!(about, " [default: {}]", defaults.join(","));
        }
    }
    if name.len() + 2 > COLUMN {
        let _ = writeln!(text, "{name}");
        name.clear();
    }
    hanging(text, &format!("{name:<COLUMN$}"), COLUMN, &about);
}
