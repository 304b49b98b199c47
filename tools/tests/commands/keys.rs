//! Keys on command lines: files, which the programs read, and of which they say nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::programs::{NQN, Target, pollux, trid};

const HOST: &str = "nqn.2014-08.org.example:host";
const OTHER: &str = "nqn.2014-08.org.example:other";

/// Keys and files in a folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("pollux-command-keys-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// A new key in a file of its own.
    fn key(&self, name: &str, kind: &[&str]) -> String {
        let path = self.path(name);
        pollux(&[&["key", "gen", "-o", &path], kind].concat()).succeeded();
        path
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left over is in the temporary directory anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asks the first listener as this host: what `command` prints, or the line of its failure.
fn ask(target: &Target, command: &str, host: &str, more: &[&str]) -> Result<Value, String> {
    let nqn = match command {
        "discover" => "nqn.2014-08.org.nvmexpress.discovery",
        _ => NQN,
    };
    let trid = trid(target.listeners[0], nqn);
    let ran = pollux(&[&[command, "-r", &trid, "--hostnqn", host, "--json"], more].concat());
    match ran.code {
        Some(0) => Ok(serde_json::from_str(&ran.succeeded()).unwrap()),
        _ => Err(ran.failed(1)),
    }
}

#[test]
fn a_target_lets_in_the_hosts_that_it_was_told() {
    let target = Target::start_with(&["--allow-host", HOST, "--allow-host", OTHER]);
    for host in [HOST, OTHER] {
        ask(&target, "identify", host, &[]).unwrap();
    }
    let error = ask(&target, "identify", "nqn.2014-08.org.example:third", &[]).unwrap_err();
    assert!(error.contains("Connect"), "{error}");
}

#[test]
fn hosts_authenticate_with_the_target_s_key() {
    let folder = Folder::new("dhchap");
    let (host, controller) = (folder.key("host", &[]), folder.key("controller", &[]));
    let wrong = folder.key("wrong", &["--hmac", "sha256"]);
    let target = Target::start_with(
        &[
            &["--allow-host", HOST, "--dhchap-key", &host][..],
            &["--dhchap-ctrlr-key", &controller, "--ktls"],
        ]
        .concat(),
    );
    let key = ["--dhchap-key", &host];
    let both = [&key[..], &["--dhchap-ctrlr-key", &controller]].concat();
    let concatenated = [&both[..], &["--secure-concatenation"]].concat();
    let ktls = [&concatenated[..], &["--ktls"]].concat();
    for keys in [&key[..], &both, &concatenated, &ktls] {
        for command in ["identify", "ana"] {
            ask(&target, command, HOST, keys).unwrap();
        }
    }
    for (host, keys, words) in [
        (HOST, vec![], "no key was given"),
        (HOST, vec!["--dhchap-key", &wrong], "authentication failed"),
        (
            HOST,
            [&key[..], &["--dhchap-ctrlr-key", &wrong]].concat(),
            "does not prove",
        ),
        (OTHER, key.to_vec(), "Connect"),
    ] {
        let error = ask(&target, "identify", host, &keys).unwrap_err();
        assert!(error.contains(words), "{keys:?} {error}");
    }
    // Discovery authenticates nobody: a key that is not asked for is no hindrance.
    ask(&target, "discover", HOST, &key).unwrap();
}

#[test]
fn a_target_with_a_key_for_tls_speaks_nothing_else() {
    let folder = Folder::new("tls");
    for length in ["32", "48"] {
        let kind = ["--tls", "--length", length];
        let right = folder.key(&format!("right{length}"), &kind);
        let wrong = folder.key(&format!("wrong{length}"), &kind);
        let allow = ["--allow-host", HOST, "--allow-host", OTHER];
        let target = Target::start_with(&[&allow[..], &["--tls-psk", &right]].concat());
        let right = ["--tls-psk", &right];
        // Each host has what is derived from the key with its own name.
        for host in [HOST, OTHER] {
            ask(&target, "identify", host, &right).unwrap();
        }
        let log = ask(&target, "discover", HOST, &right).unwrap();
        let records = log["records"].as_array().unwrap();
        let secure = records.iter().filter(|r| r["subnqn"] == NQN);
        let secure: Vec<_> = secure.map(|r| (&r["treq"], &r["sectype"])).collect();
        assert_eq!(secure.len(), 2, "{log}");
        for (treq, sectype) in secure {
            assert!(treq.as_str().unwrap().starts_with("required"), "{log}");
            assert_eq!(sectype, "tls13");
        }
        for command in ["identify", "discover"] {
            for (host, keys, words) in [
                (HOST, vec!["--tls-psk", &wrong], "TLS: the peer refuses"),
                (
                    "nqn.2014-08.org.example:third",
                    right.to_vec(),
                    "TLS: the peer refuses",
                ),
                (HOST, vec![], "closed by the peer"),
            ] {
                let error = ask(&target, command, host, &keys).unwrap_err();
                assert!(error.contains(words), "{keys:?} {error}");
            }
        }
    }
}

/// The kernel encrypts where it can; where it cannot, that is said once, and the answer is the same.
#[test]
fn the_kernel_is_asked_to_encrypt() {
    let folder = Folder::new("ktls");
    let key = folder.key("key", &["--tls"]);
    let socket = folder.path("target.sock");
    let log = folder.path("target.log");
    let options = ["--allow-host", HOST, "--tls-psk", &key, "--ktls"];
    let target = Target::start_logging(
        &[&options[..], &["-r", &socket]].concat(),
        fs::File::create(&log).unwrap().into(),
    );
    let rpc = |method: &str, params: Value| -> Value {
        let text = pollux(&["rpc", method, &params.to_string(), "-r", &socket]).succeeded();
        serde_json::from_str(&text).unwrap()
    };
    let set = |wanted: bool| json!({"impl_name": "ssl", "enable_ktls": wanted});
    let shown = || rpc("sock_impl_get_options", json!({"impl_name": "ssl"}))["enable_ktls"].clone();
    let saved = || rpc("framework_get_config", json!({"name": "nvmf"}))[0].clone();
    assert_eq!(shown(), true);
    let call = json!({"method": "sock_impl_set_options", "params": set(true)});
    assert_eq!(saved(), call);
    for _ in 0..2 {
        ask(&target, "identify", HOST, &["--tls-psk", &key, "--ktls"]).unwrap();
    }
    let ulps = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap();
    let has_tls = ulps.split_whitespace().any(|ulp| ulp == "tls");
    let told = "kTLS: the kernel has no module 'tls': connections are encrypted in user space";
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches(told).count(), usize::from(!has_tls), "{log}");
    assert_eq!(rpc("sock_impl_set_options", set(false)), true);
    assert_eq!(shown(), false);
    assert_ne!(saved(), call);
    let trid = trid(target.listeners[0], NQN);
    let ran = pollux(&["identify", "-r", &trid, "--ktls"]);
    assert!(
        ran.code == Some(2) && ran.stderr.contains("--tls-psk"),
        "{ran:?}"
    );
}

/// What the options have set up is saved with the names of keys and of their files, and loaded by another target.
#[test]
fn what_is_saved_of_keys_are_names() {
    let folder = Folder::new("saved");
    let (dhchap, psk) = (folder.key("dhchap", &[]), folder.key("psk", &["--tls"]));
    let socket = folder.path("first.sock");
    let options = [
        "--allow-host",
        HOST,
        "--dhchap-key",
        &dhchap,
        "--tls-psk",
        &psk,
    ];
    let target = Target::start_with(&[&options[..], &["-r", &socket]].concat());
    let keys = ["--dhchap-key", &dhchap, "--tls-psk", &psk];
    ask(&target, "identify", HOST, &keys).unwrap();
    let mut subsystems = Vec::new();
    for name in ["keyring", "bdev", "nvmf"] {
        let params = json!({"name": name}).to_string();
        let calls = pollux(&["rpc", "framework_get_config", &params, "-r", &socket]).succeeded();
        let calls: Value = serde_json::from_str(&calls).unwrap();
        subsystems.push(json!({"subsystem": name, "config": calls}));
    }
    let config = json!({"subsystems": subsystems}).to_string();
    for (name, path) in [("dhchap_key", &dhchap), ("tls_psk", &psk)] {
        let text = fs::read_to_string(path).unwrap();
        let secret = text.split(':').nth(2).unwrap();
        assert!(
            config.contains(name) && config.contains(path.as_str()),
            "{config}"
        );
        assert!(!config.contains(secret), "{config}");
    }
    let listeners = target.listeners;
    drop(target);
    let file = folder.file("config.json", &config, 0o600);
    let again = folder.path("second.sock");
    let second = Target::loaded(&["-c", &file, "-r", &again], listeners);
    while pollux(&["rpc", "spdk_get_version", "-r", &again]).code != Some(0) {}
    ask(&second, "identify", HOST, &keys).unwrap();
}

/// Of every option that names the file of a key.
#[test]
fn files_that_are_no_keys_are_told_in_a_line_that_shows_nothing_of_them() {
    let folder = Folder::new("bad");
    let target = |option| {
        [
            "target",
            "--listen",
            "127.0.0.1:0",
            "--allow-host",
            HOST,
            option,
        ]
    };
    let dhchap = folder.key("dhchap", &[]);
    let psk = folder.key("psk", &["--tls"]);
    let read = |path: &str| fs::read_to_string(path).unwrap();
    let identify = ["identify", "-a", "127.0.0.1", "-n", NQN];
    for (good, prefix, options) in [
        (
            &dhchap,
            "DHHC-1",
            &["--dhchap-key", "--dhchap-ctrlr-key"][..],
        ),
        (&psk, "NVMeTLSkey-1", &["--tls-psk"]),
    ] {
        let text = read(good);
        let base64 = text.split(':').nth(2).unwrap();
        let (first, rest) = base64.split_at(4);
        let changed = if first == "AAAA" { "BBBB" } else { "AAAA" };
        let long = folder.file("long", "", 0o600);
        let gigabyte = fs::OpenOptions::new().write(true).open(&long).unwrap();
        gigabyte.set_len(1 << 30).unwrap();
        let bad = |name: &str, text: String| folder.file(name, &text, 0o600);
        let cases = [
            (folder.file("open", &text, 0o644), "mode 0644"),
            (folder.path("missing"), "No such file"),
            (folder.0.to_str().unwrap().to_owned(), "not a regular file"),
            (long.clone(), "1073741824 bytes"),
            (bad("crc", text.replace(first, changed)), "CRC-32 is wrong"),
            (bad("length", text.replace(rest, &rest[..8])), "bytes"),
            (bad("prefix", text.replace(prefix, "Key-1")), "has the form"),
            (
                bad("hash", text.replace(":01:", ":09:").replace(":00:", ":09:")),
                "hash function",
            ),
            (bad("empty", String::new()), "has the form"),
        ];
        for (path, words) in &cases {
            for &option in options {
                let other: &[&str] = match option {
                    "--dhchap-ctrlr-key" => &["--dhchap-key", &dhchap],
                    _ => &[],
                };
                let lines = [
                    [&target(option)[..], &[path.as_str()], other].concat(),
                    [&identify[..], &[option, path.as_str()], other].concat(),
                ];
                for line in lines {
                    let error = pollux(&line).failed(2);
                    assert!(error.contains(words), "{line:?} {error}");
                    assert!(
                        error.contains(path.as_str()) && error.contains(option),
                        "{error}"
                    );
                    assert!(!error.contains(&rest[..8]), "{error}");
                }
            }
        }
    }
}

#[test]
fn options_that_contradict_each_other() {
    let folder = Folder::new("contradict");
    let (key, psk) = (folder.key("key", &[]), folder.key("psk", &["--tls"]));
    let long = format!("nqn.2014-08.org.example:{}", "h".repeat(199));
    let target = ["target", "--listen", "127.0.0.1:0"];
    let identify = ["identify", "-a", "127.0.0.1", "-n", NQN];
    for (line, words) in [
        (&["--dhchap-key", &key][..], "--allow-host"),
        (&["--tls-psk", &psk], "--allow-host"),
        (
            &["--allow-host", HOST, "--dhchap-ctrlr-key", &key],
            "--dhchap-key",
        ),
        (&["--allow-host", ""], "has a name"),
        (&["--allow-host", "a\nb"], "control characters"),
        (&["--allow-host", HOST, "--allow-host", HOST], HOST),
        (
            &["--allow-host", HOST, "--dhchap-key", &psk],
            "has the form",
        ),
        (&["--allow-host", HOST, "--tls-psk", &key], "has the form"),
        (&["--allow-host", &long, "--tls-psk", &psk], "--tls-psk for"),
    ] {
        let error = pollux(&[&target, line].concat()).failed(2);
        assert!(error.contains(words), "{line:?} {error}");
    }
    for (line, words) in [
        (&["--dhchap-ctrlr-key", &key][..], "--dhchap-key"),
        (&["--secure-concatenation"], "--dhchap-key"),
        (
            &[
                "--dhchap-key",
                &key,
                "--secure-concatenation",
                "--tls-psk",
                &psk,
            ],
            "cannot be used with",
        ),
    ] {
        let error = pollux(&[&identify, line].concat()).failed(2);
        assert!(error.contains(words), "{line:?} {error}");
    }
}
