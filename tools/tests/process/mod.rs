//! `pollux target` as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// `pollux target`, killed with SIGKILL when dropped.
pub struct Target {
    pub child: Child,
    /// Where it listens.
    pub addrs: Vec<SocketAddr>,
}

impl Target {
    /// Starts it with these options, and with a listener at each of `listen`, of which port 0 is any; back when it
    /// listens there.
    pub fn start(options: &[&str], listen: &[SocketAddr]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
        command.args(["target", "--idle", "park"]).args(options);
        for addr in listen {
            command.args(["--listen", &addr.to_string()]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addrs = lines.take(listen.len()).map(|line| {
            let line = line.unwrap();
            let rest = line.strip_prefix("listening on ").unwrap();
            rest.split_once(',').unwrap().0.parse().unwrap()
        });
        let addrs = addrs.collect();
        Self { child, addrs }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Removes the file when dropped.
pub struct Disk(pub PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        // Left behind only if the target never made it.
        let _ = std::fs::remove_file(&self.0);
    }
}
