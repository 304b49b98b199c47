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
fn a_tls_key_is_made_checked_and_derived() {
    for (args, length, suite, hash) in [
        (
            &["gen", "--tls"][..],
            "32",
            "TLS_AES_128_GCM_SHA256",
            "sha256",
        ),
        (
            &["gen", "--tls", "--length", "48"][..],
            "48",
            "TLS_AES_256_GCM_SHA384",
            "sha384",
        ),
        (
            &["gen", "--tls", "--hmac", "sha384"][..],
            "48",
            "TLS_AES_256_GCM_SHA384",
            "sha384",
        ),
    ] {
        let (code, made, error) = key(args, "");
        assert!(code == 0 && made.starts_with("NVMeTLSkey-1:0"), "{error}");
        let line = format!(
            "a TLS key of {length} bytes for {suite}, transformed by {hash} with the NQN of its host\n"
        );
        assert_eq!(key(&["check", "-"], &made), (0, line, String::new()));
    }
    // A key and an identity of libnvme's tests.
    let text = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
    let names = [
        "--nqn",
        "nqn.2014-08.org.example:h",
        "--subsystem",
        "nqn.2014-08.org.example:s",
    ];
    let derive = |text: &str, version: &str| {
        let args = [&["derive", "-", "--identity", version], &names[..]].concat();
        key(&args, text)
    };
    let (code, of_0, _) = derive(text, "0");
    assert_eq!(code, 0);
    let (identity, psk) = of_0.trim_end().split_once('\n').unwrap();
    assert_eq!(identity, format!("NVMe0R01 {} {}", names[1], names[3]));
    assert!(psk.len() == 64 && psk.bytes().all(|b| b.is_ascii_hexdigit()));
    let (_, retained, _) = key(&["derive", "-", "--nqn", names[1]], text);
    assert!(retained.starts_with("NVMeTLSkey-1:00:"), "{retained}");
    assert_eq!(derive(&retained, "0").1, of_0);
    assert_ne!(derive(text, "1").1, of_0);
    assert_eq!(derive(KEY, "0").0, 1);
}

#[test]
fn what_is_no_key_is_one_line_that_shows_nothing_of_it() {
    for (input, words) in [
        (KEY.replace("ia6z", "ia6y"), "CRC-32 is wrong"),
        (KEY.replace(":01:", ":07:"), "unknown hash function"),
        ("NVMeTLSkey-1:01:ia6zGodO:".into(), "6 in all"),
        ("NVMeTLSkey-1:01:secret".into(), "a TLS key has the form"),
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
    let (code, _, error) = key(&["gen", "--tls", "--length", "64"], "");
    assert!(code == 2 && error.contains("32 or 48"), "{error}");
}
