//! How commands reach a program that is managed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use pollux_reactor::rpc::{Client, Token};

/// Where a running program is managed.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Unix socket of the program, or its loopback address and port.
    #[arg(short = 'r', long = "rpc-socket", value_name = "SOCKET")]
    pub socket: PathBuf,

    /// File with the token of a program that is managed over TCP.
    #[arg(long, value_name = "FILE")]
    pub rpc_token_file: Option<PathBuf>,
}

impl ClientArgs {
    /// Connects, and shows the token if there is one. Answers may take so long.
    pub fn connect(&self, timeout: Option<Duration>) -> anyhow::Result<Client> {
        let socket = self.socket.display().to_string();
        let token = self.rpc_token_file.as_ref();
        let token = token.map(|path| read_token(path)).transpose()?;
        let mut client = Client::connect(&self.socket, timeout).context(socket)?;
        if let Some(token) = token {
            client.authorize(&token)?;
        }
        Ok(client)
    }
}

/// Reads a file with a token.
pub fn read_token(path: &std::path::Path) -> anyhow::Result<Token> {
    Token::read(path).with_context(|| format!("token file {}", path.display()))
}
