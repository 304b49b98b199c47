//! `pollux rpc`: calls one method of a running program.

use std::io::{Read, Write, stdin, stdout};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::UsageError;

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

    /// Unix socket of the program, or its loopback address and port.
    #[arg(short = 'r', long = "rpc-socket", value_name = "SOCKET")]
    pub socket: PathBuf,

    /// Seconds to wait for the answer; 0 waits for ever.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// A connection of either kind.
trait Channel: Read + Write {
    fn end_requests(&self) -> std::io::Result<()>;
}

impl Channel for UnixStream {
    fn end_requests(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Channel for TcpStream {
    fn end_requests(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Calls the method and prints its result.
pub fn run(args: &RpcArgs) -> anyhow::Result<()> {
    let mut request = json!({"jsonrpc": "2.0", "id": 1, "method": args.method});
    if let Some(params) = params(args)? {
        request["params"] = params;
    }
    let mut channel = connect(args).with_context(|| args.socket.display().to_string())?;
    channel.write_all(request.to_string().as_bytes())?;
    channel.end_requests()?;
    let mut answer = Vec::new();
    channel.read_to_end(&mut answer).context("no answer")?;
    let answer: Value = serde_json::from_slice(&answer).context("the answer is no JSON")?;
    if let Some(error) = answer.get("error") {
        bail!(
            "{}: {} (code {})",
            args.method,
            error["message"].as_str().unwrap_or("no text"),
            error["code"]
        );
    }
    let result = answer.get("result").unwrap_or(&Value::Null);
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

fn connect(args: &RpcArgs) -> anyhow::Result<Box<dyn Channel>> {
    let timeout = (args.timeout > 0).then(|| Duration::from_secs(args.timeout));
    let addr = args
        .socket
        .to_str()
        .and_then(|s| s.parse::<SocketAddr>().ok());
    if let Some(addr) = addr {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(timeout)?;
        return Ok(Box::new(stream));
    }
    let stream = UnixStream::connect(&args.socket)?;
    stream.set_read_timeout(timeout)?;
    Ok(Box::new(stream))
}
