//! `pollux`: programs for who runs Pollux.

mod ana_cmd;
mod discover_cmd;
mod host_cmd;
mod identify_cmd;
#[cfg(feature = "auth")]
mod key_cmd;
mod manage;
mod paths_cmd;
mod probe;
mod reactor_args;
mod rpc_cmd;
mod run_cmd;
mod sim;
mod target_args;
mod target_cmd;
mod target_hosts;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// NVMe/TCP targets and hosts in user space.
#[derive(Parser)]
#[command(name = "pollux", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Target(Box<target_args::TargetArgs>),
    Host(Box<host_cmd::HostArgs>),
    Run(Box<run_cmd::RunArgs>),
    Rpc(rpc_cmd::RpcArgs),
    Paths(paths_cmd::PathsArgs),
    Identify(Box<identify_cmd::IdentifyArgs>),
    Discover(Box<discover_cmd::DiscoverArgs>),
    Ana(Box<ana_cmd::AnaArgs>),
    #[cfg(feature = "auth")]
    #[command(subcommand)]
    Key(key_cmd::KeyCommand),
    Sim(sim::SimArgs),
}

/// What was asked for makes no sense: exit code 2. Every other error is exit code 1.
#[derive(Debug)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // `pollux` alone asks for nothing: the help tells what there is.
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            eprint!("{error}");
            return ExitCode::from(2);
        }
        Err(error) if error.use_stderr() => {
            eprintln!("pollux: {}", one_line(&error.to_string()));
            return ExitCode::from(2);
        }
        Err(help_or_version) => {
            print!("{help_or_version}");
            return ExitCode::SUCCESS;
        }
    };
    let result = match cli.command {
        Command::Target(args) => target_cmd::run(*args),
        Command::Host(args) => host_cmd::run(&args),
        Command::Run(args) => run_cmd::run(&args),
        Command::Rpc(args) => rpc_cmd::run(&args),
        Command::Paths(args) => paths_cmd::run(&args),
        Command::Identify(args) => identify_cmd::run(&args),
        Command::Discover(args) => discover_cmd::run(&args),
        Command::Ana(args) => ana_cmd::run(&args),
        #[cfg(feature = "auth")]
        Command::Key(command) => key_cmd::run(&command),
        Command::Sim(args) => sim::run_command(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pollux: {error:#}");
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// The message of a clap error without its hints.
fn one_line(message: &str) -> String {
    let lines = message
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn errors_are_one_line() {
        for (args, parts) in [
            (
                &["pollux", "target", "--listen", "x"][..],
                "'x' for '--listen",
            ),
            (&["pollux", "target", "--nonsense"][..], "--nonsense"),
        ] {
            let error = Cli::try_parse_from(args).err().map(|e| e.to_string());
            let line = one_line(&error.unwrap_or_default());
            assert!(line.contains(parts), "{line}");
            assert!(!line.contains('\n') && !line.contains("--help"), "{line}");
        }
    }
}
