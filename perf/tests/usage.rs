//! What a wrong command line gets: one line that names the value and what is allowed, and exit code 2.

#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pollux-perf"))
        .args(args)
        .output()
        .expect("the program starts")
}

#[test]
fn usage_errors_are_one_line_and_exit_code_2() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["-q", "0"], &["'0'", "1..=65535"]),
        (&["-o", "4097"], &["'4097'", "multiples of 512"]),
        (&["-w", "nothing"], &["'nothing'", "randread"]),
        (&["-t", "-3"], &["'-3'"]),
        (&["-m", "4000"], &["core 4000", "may use"]),
        (&["-m", "0x"], &["'0x'", "0x3"]),
        (
            &["--json", "/nowhere/at/all.json", "-t", "1"],
            &["/nowhere/at/all.json"],
        ),
        (&["floor", "-m", "4000"], &["core 4000", "may use"]),
        (&["floor", "-m", "0-2"], &["0, 1, 2"]),
        (&["floor", "-P", "4", "-q", "3"], &["-q 3", "-P 4"]),
        (
            &["floor", "--json", "/nowhere/at/all.json", "-t", "1"],
            &["/nowhere/at/all.json"],
        ),
        (&["disturb", "-m", "4000"], &["core 4000", "may use"]),
        (&["disturb", "nothing"], &["'nothing'", "black-hole"]),
        (&["disturb", "-q", "1024"], &["1024", "1..=1023"]),
        (
            &["disturb", "status", "--json", "/nowhere/at/all.json"],
            &["/nowhere/at/all.json"],
        ),
        (&["unknown"], &["unknown"]),
    ];
    for (args, wanted) in cases {
        let output = run(args);
        let message = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
        assert!(message.starts_with("pollux-perf: "), "{args:?}: {message}");
        for part in *wanted {
            assert!(
                message.contains(part),
                "{args:?}: '{part}' is not in {message}"
            );
        }
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_no_error() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(
        String::from_utf8(help.stdout)
            .expect("UTF-8")
            .contains("Examples:")
    );
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert!(
        String::from_utf8(version.stdout)
            .expect("UTF-8")
            .starts_with("pollux-perf ")
    );
}
