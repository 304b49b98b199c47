//! What programs that are managed by JSON-RPC share: the options, and the server that they lead to.

mod client;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;

use anyhow::Context;
use clap::Args;
use pollux_reactor::logging::{self, Level, Logging};
use pollux_reactor::rpc::{Config, ConfigError, FilesUnder, Methods, Server, observe};
use pollux_reactor::{self as reactor, Group};
use signal_hook::iterator::Handle;

pub use self::client::ClientArgs;
use self::client::read_token;
use crate::UsageError;

/// Options of management.
#[derive(Debug, Args)]
#[command(next_help_heading = "Management")]
pub struct ManageArgs {
    /// Unix socket on which JSON-RPC requests are served; its file is for this user only.
    #[arg(short = 'r', long, value_name = "SOCKET")]
    pub rpc_socket: Option<PathBuf>,

    /// Loopback address on which JSON-RPC requests are served over TCP, to clients whose first call is
    /// pollux_authorize {"token": "..."}.
    #[arg(long, value_name = "ADDR:PORT", requires = "rpc_token_file")]
    pub rpc_listen: Option<SocketAddr>,

    /// File of mode 0600 with that token: one line of 16 to 256 characters.
    #[arg(long, value_name = "FILE", requires = "rpc_listen")]
    pub rpc_token_file: Option<PathBuf>,

    /// Folder that files have to be in which methods open: keys, disks. Without it they may be anywhere.
    #[arg(long, value_name = "DIR")]
    pub files_under: Option<PathBuf>,

    /// File of JSON-RPC calls to be made at the start, in SPDK's format.
    #[arg(short, long, visible_alias = "json", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Go on when a call of that file fails.
    #[arg(long, requires = "config")]
    pub ignore_config_errors: bool,

    /// Wait for the call of framework_start_init before the file is read and most methods are allowed.
    #[arg(long, requires = "rpc_socket")]
    pub wait_for_rpc: bool,

    /// How much is said on standard error: ERROR, WARNING, NOTICE, INFO or DEBUG. The last two are of the
    /// parts of the program that log_set_flag names.
    #[arg(long, value_name = "LEVEL", default_value = "NOTICE")]
    pub log_level: Level,
}

/// Writes the last lines of the log when the program ends, in whichever way.
pub struct Log(Logging);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// The outcome of the start: nothing, or why it failed.
pub type StartError = mpsc::Receiver<ConfigError>;

impl ManageArgs {
    /// Whether the program is managed at all.
    pub fn is_used(&self) -> bool {
        self.rpc_socket.is_some() || self.rpc_listen.is_some() || self.config.is_some()
    }

    /// Starts the log of a program whose parts have these flags.
    pub fn start_log(&self, flags: &[&'static str]) -> anyhow::Result<Log> {
        let logging = logging::start(flags).context("log")?;
        logging.set_print_level(self.log_level);
        Ok(Log(logging))
    }

    /// Opens the sockets and reads the configuration, and adds the server to `reactor`. When the
    /// configuration fails, `stop` ends the program's wait for signals and the reason is received.
    pub fn add_server(
        &self,
        mut methods: Methods,
        log: &Log,
        group: &mut Group,
        reactor: usize,
        stop: Handle,
    ) -> anyhow::Result<StartError> {
        let (failed, failure) = mpsc::channel();
        observe(&mut methods, group);
        log.0.register(&mut methods);
        let mut server = Server::new(methods);
        if let Some(folder) = &self.files_under {
            let files = FilesUnder::new(folder);
            let files = files.with_context(|| format!("--files-under {}", folder.display()))?;
            server.confine_files(files);
        }
        if let Some(path) = &self.config {
            let name = path.display();
            let text = std::fs::read_to_string(path).with_context(|| name.to_string())?;
            Config::parse(&text)
                .and_then(|config| server.configure(config, self.ignore_config_errors))
                .with_context(|| name.to_string())?;
        }
        if let Some(path) = &self.rpc_socket {
            server.listen_unix(path)?;
        }
        if let (Some(addr), Some(path)) = (self.rpc_listen, &self.rpc_token_file) {
            server.listen_tcp(addr, read_token(path)?)?;
        }
        if self.wait_for_rpc {
            server.wait_for_start();
        }
        server.when_configured(move |result| {
            if let Err(error) = result {
                // The program waits for signals until it is told to stop, and looks here then.
                let _ = failed.send(error);
                stop.close();
            }
        });
        server.install(group, reactor);
        Ok(failure)
    }
}

/// Why reactors do not start, and whether the command line is to blame.
pub fn start_error(error: reactor::StartError) -> anyhow::Error {
    match error {
        reactor::StartError::NoSuchCore { .. } => UsageError(format!("--cores: {error}")).into(),
        error => anyhow::Error::new(error),
    }
}

/// Turns what the start has left into the program's outcome.
pub fn outcome(failure: Option<StartError>) -> anyhow::Result<()> {
    match failure.and_then(|failure| failure.try_recv().ok()) {
        Some(error) => Err(anyhow::Error::new(error).context("configuration")),
        None => Ok(()),
    }
}
