//! `pollux key`, as a process.
#![cfg(feature = "auth")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The example key of the specification.
const KEY: &str = "DHHC-1:01:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";

/// Runs it with `input`; returns exit code, standard output and standard error.
fn key(args: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pollux"))
        .arg("key")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever reads no input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let out = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        out.status.code().unwrap(),
        text(out.stdout),
        text(out.stderr),
    )
}

#[test]
fn a_key_that_was_made_is_a_key_and_nobody_else_can_read_it() {
    let folder = std::env::temp_dir().join(format!("pollux-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path: PathBuf = folder.join("host.key");
    let file = path.to_str().unwrap();
    let made = key(&["gen", "--hmac", "sha384", "-o", file], "");
    assert_eq!(made, (0, String::new(), String::new()));
    let line = "a DH-HMAC-CHAP key of 48 bytes, transformed by sha384 with the NQN of its owner\n";
    assert_eq!(key(&["check", file], ""), (0, line.into(), String::new()));
    let (code, _, error) = key(&["gen", "-o", file], "");
    assert!(code == 1 && error.contains("File exists"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_derived_key_is_the_transformed_one() {
    let nqn = "nqn.2014-08.org.example:host";
    let (code, derived, _) = key(&["derive", "-", "--nqn", nqn], KEY);
    assert!(code == 0 && derived.starts_with("DHHC-1:00:"), "{derived}");
    let again = key(
        &["derive", "-", "--nqn", "nqn.2014-08.org.example:other"],
        &derived,
    );
    assert_eq!(again, (0, derived, String::new()));
}

#[test]
fn what_is_no_key_is_one_line_that_shows_nothing_of_it() {
    for (input, words) in [
        (KEY.replace("ia6z", "ia6y"), "CRC-32 is wrong"),
        (KEY.replace(":01:", ":07:"), "unknown hash function"),
        ("secret".into(), "a key has the form"),
        ("x".repeat(1 << 20), "a key has the form"),
    ] {
        let (code, out, error) = key(&["check", "-"], &input);
        assert!(
            code == 1 && out.is_empty() && error.contains(words),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
        assert!(
            !error.contains("ia6") && !error.contains("secret"),
            "{error}"
        );
    }
    let (code, _, error) = key(&["check", "/dev/null"], "");
    assert!(
        code == 1 && error.contains("/dev/null: not a regular file"),
        "{error}"
    );
    assert_eq!(key(&["gen", "--length", "33"], "").0, 2);
}
