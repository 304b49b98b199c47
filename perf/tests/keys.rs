//! Runs with keys: the embedded target asks for them, too.

#![cfg(feature = "tls")]
#![expect(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pollux_nvme_tcp::auth::{Hash, KeyText, Secret};
use pollux_nvme_tcp::tls::ConfiguredPsk;

const BINARY: &str = env!("CARGO_BIN_EXE_pollux-perf");
/// What the embedded target is called.
const SUBSYSTEM: &str = "nqn.2026-01.io.pollux:embedded";

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("pollux-perf-keys-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a new folder");
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn key(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        let key = KeyText::new(text.to_owned());
        key.write_new(Path::new(&path)).expect("a new file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left over is in the temporary directory anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Exit code and standard error.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(BINARY).args(args).output();
    let output = output.expect("the program starts");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Whether `bytes` have a Connect that can be read by everybody.
fn has_connect(bytes: &[u8]) -> bool {
    let mut field = SUBSYSTEM.as_bytes().to_vec();
    field.resize(SUBSYSTEM.len() + 16, 0);
    bytes.windows(field.len()).any(|part| part == field)
}

#[test]
fn data_is_verified_with_keys() {
    let folder = Folder::new("verify");
    let psk = ConfiguredPsk::generate(32, Some(Hash::Sha256)).expect("random bytes");
    let psk = folder.key("psk", &psk.to_text());
    let [host, controller] = ["host", "controller"].map(|name| {
        let secret = Secret::generate(32, Some(Hash::Sha256)).expect("random bytes");
        folder.key(name, &secret.to_text())
    });
    let load = [
        "-w",
        "verify",
        "-o",
        "512-64k",
        "-q",
        "8",
        "-t",
        "1",
        "--no-failover",
    ];
    for (keys, is_open) in [
        (&[][..], true),
        (&["--tls-psk", &psk], false),
        (&["--dhchap-key", &host, "--tls-psk", &psk], false),
        (
            &["--dhchap-key", &host, "--dhchap-ctrlr-key", &controller],
            true,
        ),
    ] {
        let pcap = folder.path("pcap");
        let (code, text) = run(&[&load[..], keys, &["--pcap", &pcap]].concat());
        assert_eq!(code, Some(0), "{keys:?} {text}");
        let packets = fs::read(&pcap).expect("it was captured");
        assert_eq!(has_connect(&packets), is_open, "{keys:?}");
    }
    // The connection that brings the key is open, and the queues are not.
    let keys = ["--dhchap-key", &host, "--secure-concatenation"];
    let (code, text) = run(&[&load[..], &keys].concat());
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn what_is_wrong_with_keys_is_one_line() {
    let folder = Folder::new("wrong");
    let text = Secret::generate(32, None).expect("random bytes").to_text();
    let key = folder.key("key", &text);
    let open = folder.key("open", &text);
    fs::set_permissions(&open, Permissions::from_mode(0o640)).expect("an own file");
    let base64 = text.split(':').nth(2).expect("the third field");
    for (args, words) in [
        (&["--dhchap-key", &open][..], "mode 0640"),
        (&["--tls-psk", &open], "mode 0640"),
        (&["--tls-psk", &key], "a TLS key has the form"),
        (&["--dhchap-key", "/nonexistent/key"], "No such file"),
        (&["--dhchap-ctrlr-key", &key], "--dhchap-key"),
        (&["--secure-concatenation"], "--dhchap-key"),
    ] {
        let (code, error) = run(args);
        assert_eq!(code, Some(2), "{args:?} {error}");
        assert!(error.contains(words), "{args:?} {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains(base64), "{error}");
    }
}
