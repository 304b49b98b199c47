//! `pollux rpc`: calls one method of a running program.

use std::io::{Write, stdin, stdout};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use crate::UsageError;
use crate::manage::ClientArgs;

const EXAMPLES: &str = "\
Examples:
  pollux rpc rpc_get_methods -r /run/pollux.sock
  pollux rpc nvmf_subsystem_add_ns '{\"nqn\": \"nqn.2014-08.org.example:a\", \"namespace\": {\"bdev_name\": \"Malloc0\"}}' -r /run/pollux.sock

Prints the result. Exit code: 0, 1 (the method failed, or nobody answers), 2 (wrong usage).";

/// Call a method of a running program by JSON-RPC.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RpcArgs {
    /// Name of the method.
    pub method: String,

    /// Its parameters, a JSON object; - reads it from standard input.
    #[arg(value_name = "JSON")]
    pub params: Option<String>,

    /// The program.
    #[command(flatten)]
    pub client: ClientArgs,

    /// Seconds to wait for the answer; 0 waits for ever.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// Calls the method and prints its result.
pub fn run(args: &RpcArgs) -> anyhow::Result<()> {
    let params = params(args)?;
    let timeout = (args.timeout > 0).then(|| Duration::from_secs(args.timeout));
    let mut client = args.client.connect(timeout)?;
    let result = client.call(&args.method, params)?;
    // Nobody may be reading; the call has been made all the same.
    let _ = writeln!(stdout(), "{result:#}");
    Ok(())
}

fn params(args: &RpcArgs) -> anyhow::Result<Option<Value>> {
    let text = match args.params.as_deref() {
        None => return Ok(None),
        Some("-") => std::io::read_to_string(stdin()).context("standard input")?,
        Some(text) => text.to_owned(),
    };
    match serde_json::from_str::<Value>(&text) {
        Ok(params) if params.is_object() => Ok(Some(params)),
        Ok(_) => Err(UsageError("parameters: a JSON object is expected".into()).into()),
        Err(error) => Err(UsageError(format!("parameters: {error}")).into()),
    }
}
