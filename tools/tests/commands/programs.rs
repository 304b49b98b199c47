//! Running the programs as their users do.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// The subsystem of the target under test.
pub const NQN: &str = "nqn.2014-08.org.example:tools-test";

const POLLUX: &str = env!("CARGO_BIN_EXE_pollux");

/// `pollux target` with two listeners and two namespaces; killed when dropped.
pub struct Target {
    child: Child,
    /// Where it listens: on 127.0.0.1 optimized, on 127.0.0.2 non-optimized.
    pub listeners: [SocketAddr; 2],
}

impl Target {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more options.
    pub fn start_with(more: &[&str]) -> Self {
        Self::start_logging(more, Stdio::inherit())
    }

    /// The same with another place for its log.
    pub fn start_logging(more: &[&str], log: Stdio) -> Self {
        let mut child = Command::new(POLLUX)
            .args(["target", "--nqn", NQN, "--block-size", "4096"])
            .args(["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0"])
            .args(["--ana", "127.0.0.2:0=non_optimized"])
            .args(["--namespace", "memory:1M", "--namespace", "null:2M"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        // From here on a panic ends the child.
        let mut target = Self {
            child,
            listeners: [SocketAddr::from(([0, 0, 0, 0], 0)); 2],
        };
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        for listener in &mut target.listeners {
            *listener = lines
                .find_map(|line| {
                    let rest = line.split_once("listening on ")?.1;
                    rest.split([',', ' ']).next()?.parse().ok()
                })
                .expect("the target tells where it listens");
        }
        target
    }

    /// A target that a configuration sets up, with listeners at these addresses.
    pub fn loaded(options: &[&str], listeners: [SocketAddr; 2]) -> Self {
        let mut command = Command::new(POLLUX);
        let child = command.arg("target").args(options).stdin(Stdio::null());
        Self {
            child: child.spawn().unwrap(),
            listeners,
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `pollux` to its end.
pub fn pollux(args: &[&str]) -> Ran {
    let output = Command::new(POLLUX)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// What was printed, where that is all right.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.stderr, "", "{}", self.stdout);
        self.stdout
    }

    /// The one line of a failure.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{}", self.stderr);
        let line = self.stderr.strip_suffix('\n').expect("a whole line");
        assert!(!line.contains('\n'), "{line}");
        line.strip_prefix("pollux: ").expect("its name").to_owned()
    }
}

/// Runs `pollux` with `--json` against a controller.
#[track_caller]
pub fn read_json(command: &str, addr: SocketAddr, nqn: &str, more: &[&str]) -> serde_json::Value {
    let trid = trid(addr, nqn);
    let mut args = vec![command, "-r", &trid, "--json"];
    args.extend(more);
    serde_json::from_str(&pollux(&args).succeeded()).unwrap()
}

/// A controller in SPDK's notation.
pub fn trid(addr: SocketAddr, nqn: &str) -> String {
    format!(
        "trtype:TCP adrfam:IPv4 traddr:{} trsvcid:{} subnqn:{nqn}",
        addr.ip(),
        addr.port()
    )
}
