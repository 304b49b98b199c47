//! `pollux target` as a process: what it prints, and its exit codes.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

fn pollux(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
    command.args(args).stdin(Stdio::null());
    command
}

fn finish(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = pollux(args).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

/// Ends a child that a failed test leaves behind.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It has ended already if the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_tells_where_it_listens_and_ends_at_a_signal() {
    for signal in ["-TERM", "-INT"] {
        let child = pollux(&[
            "target",
            "--listen",
            "127.0.0.1:0",
            "--listen",
            "127.0.0.1:0",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
        let mut child = Guard(child);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let line = lines.next().unwrap().unwrap();
            let rest = line.strip_prefix("listening on ").unwrap();
            let addr: SocketAddr = rest.split_once(',').unwrap().0.parse().unwrap();
            TcpStream::connect(addr).unwrap();
        }
        let id = child.0.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(child.0.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn bad_usage_is_one_line_and_exit_code_2() {
    for (args, text) in [
        (&["--listen", "localhost"][..], "'localhost'"),
        (&["--namespace", "memory:1000"], "1000"),
        (&["--namespace", "tape:1G"], "'tape:1G'"),
        (&["--cores", "4000"], "core 4000"),
        (&["--cores", "one"], "'one'"),
        (&["--nqn", "disk"], "'disk'"),
        (&["--block-size", "520"], "'520'"),
        (&["--ana", "127.0.0.1:9=optimized"], "127.0.0.1:9"),
        (&["--idle", "sleep"], "'sleep'"),
    ] {
        let (code, error) = finish(&[&["target", "--listen", "127.0.0.1:0"], args].concat());
        assert_eq!(code, Some(2), "{args:?}: {error}");
        assert!(error.contains(text), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    }
}

#[test]
fn a_file_is_served_once_and_again_at_once_after_its_target_was_killed() {
    let path = std::env::temp_dir().join(format!("pollux-served-once-{}", std::process::id()));
    let namespace = format!("file:{}:1M", path.display());
    let start = |more: &[&str]| {
        let args = [
            "target",
            "--listen",
            "127.0.0.1:0",
            "--namespace",
            &namespace,
        ];
        let child = pollux(&[&args, more].concat());
        let child = { child }.stdout(Stdio::piped()).spawn().unwrap();
        let mut child = Guard(child);
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with("listening on "), "{line}");
        child
    };
    for _ in 0..3 {
        let mut first = start(&[]);
        for more in [&[][..], &["--shared"]] {
            let args = [
                &[
                    "target",
                    "--listen",
                    "127.0.0.1:0",
                    "--namespace",
                    &namespace,
                ],
                more,
            ];
            let (code, error) = finish(&args.concat());
            assert_eq!(code, Some(1), "{error}");
            let holder = format!("in use by pollux (pid {})", first.0.id());
            assert!(error.contains(&holder), "{error}");
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        // SIGKILL.
        first.0.kill().unwrap();
        first.0.wait().unwrap();
    }
    let _two = [start(&["--shared"]), start(&["--shared"])];
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_cannot_be_had_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for (args, text) in [
        (["--listen", &addr], addr.as_str()),
        (
            ["--namespace", "file:/nonexistent/disk"],
            "/nonexistent/disk",
        ),
        (["--namespace", "memory:100T"], "109951162777600 bytes"),
    ] {
        let (code, error) = finish(&["target", args[0], args[1]]);
        assert_eq!(code, Some(1), "{args:?}: {error}");
        assert!(error.contains(text), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    }
}
