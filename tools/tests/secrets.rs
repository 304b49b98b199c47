//! Where keys are seen, and where not: known ones are looked for in the log, in all that is told and saved, and in the memory of
//! a target and of a host, before and after they were removed.
#![cfg(feature = "tls")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pollux_nvme_tcp::auth::{Hash, KeyText, Secret};
use pollux_nvme_tcp::tls::{ConfiguredPsk, IdentityVersion};
use serde_json::{Value, json};

const NQN: &str = "nqn.2014-08.org.example:secrets";
const HOST: &str = "nqn.2014-08.org.example:host";
const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        let path = std::env::temp_dir().join(format!("pollux-secrets-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Dir(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left over is in the temporary directory anyway.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that is managed at a socket, whose log goes into a file.
struct Managed {
    child: Child,
    socket: String,
    log: String,
}

impl Managed {
    fn start(dir: &Dir, kind: &str) -> Managed {
        let (socket, log) = (
            dir.file(&format!("{kind}.sock")),
            dir.file(&format!("{kind}.log")),
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
        let command = command.args([kind, "-r", &socket, "--log-level", "DEBUG"]);
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        let managed = Managed { child, socket, log };
        while managed.run("rpc_get_methods", &json!({})).is_err() {}
        managed.call("log_set_flag", json!({"flag": "all"}));
        managed
    }

    fn run(&self, method: &str, params: &Value) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
        let command = command.args(["rpc", method, &params.to_string(), "-r", &self.socket]);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        match output.status.success() {
            true => Ok(text(output.stdout)),
            false => Err(text(output.stderr)),
        }
    }

    fn call(&self, method: &str, params: Value) -> Value {
        let answer = self.run(method, &params);
        serde_json::from_str(&answer.unwrap_or_else(|e| panic!("{method}: {e}"))).unwrap()
    }

    /// What it says: its log, and the answers of all methods that only tell something.
    fn said(&self) -> String {
        let mut said = fs::read_to_string(&self.log).unwrap();
        let methods = self.call("rpc_get_methods", json!({}));
        let methods = methods.as_array().unwrap().iter();
        let telling = methods.map(|name| name.as_str().unwrap());
        for method in telling.filter(|name| name.contains("_get_")) {
            for params in [json!({}), json!({"nqn": NQN})] {
                said += &self.run(method, &params).unwrap_or_else(|error| error);
            }
        }
        for name in ["keyring", "bdev", "nvmf"] {
            let saved = self.run("framework_get_config", &json!({"name": name}));
            said += &saved.unwrap_or_else(|error| error);
        }
        said
    }

    /// How often each of these is in its memory.
    fn count<'a>(&self, secrets: &'a Secrets) -> BTreeMap<&'a str, usize> {
        let folder = Path::new("/proc").join(self.child.id().to_string());
        let maps = fs::read_to_string(folder.join("maps")).unwrap();
        let memory = File::open(folder.join("mem")).unwrap();
        let mut first = [false; 256];
        for (_, bytes) in &secrets.0 {
            first[usize::from(bytes[0])] = true;
        }
        let mut found = BTreeMap::new();
        for region in maps.lines().filter(|line| line.contains(" rw")) {
            let (start, end) = region.split_once(' ').unwrap().0.split_once('-').unwrap();
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            // A region may be gone by now, or be none of memory.
            if memory.read_exact_at(&mut bytes, start).is_err() {
                continue;
            }
            let starts = bytes
                .iter()
                .enumerate()
                .filter(|(_, b)| first[usize::from(**b)]);
            for at in starts.map(|(at, _)| at) {
                let begins = |(_, secret): &&(String, Vec<u8>)| bytes[at..].starts_with(secret);
                for (name, _) in secrets.0.iter().filter(begins) {
                    *found.entry(name.as_str()).or_insert(0) += 1;
                }
            }
        }
        found
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is looked for, with names.
#[derive(Default)]
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        assert!(bytes.len() >= 16);
        self.0.push((name.to_owned(), bytes.to_vec()));
    }

    /// A key as it is written down: its base64, its bytes, and the latter in hexadecimal digits.
    fn add_text(&mut self, name: &str, text: &str) {
        let base64 = text.split(':').nth(2).unwrap();
        // Its checksum is no secret.
        let bytes = BASE64.decode(base64).unwrap();
        let bytes = &bytes[..bytes.len() - 4];
        self.add(&format!("{name} as text"), &base64.as_bytes()[..40]);
        self.add(&format!("{name} as bytes"), bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.add(&format!("{name} in digits"), hex.as_bytes());
    }

    fn in_text(&self, text: &str) -> Vec<&str> {
        let found = |(_, secret): &&(String, Vec<u8>)| {
            str::from_utf8(secret).is_ok_and(|secret| text.contains(secret))
        };
        let names = self.0.iter().filter(found);
        names.map(|(name, _)| name.as_str()).collect()
    }
}

#[test]
fn keys_are_in_no_log_nor_answer_and_not_in_memory_when_they_were_removed() {
    let dir = Dir::new();
    let mut secrets = Secrets::default();
    let mut keys = Vec::new();
    for (name, transform) in [("host", None), ("controller", Some(Hash::Sha384))] {
        let secret = Secret::generate(48, transform).unwrap();
        let text = secret.to_text();
        secrets.add_text(name, &text);
        if transform.is_some() {
            secrets.add_text(
                "transformed",
                &secret.transformed(NQN).to_secret().to_text(),
            );
        }
        keys.push((name, text));
    }
    let psk = ConfiguredPsk::generate(48, Some(Hash::Sha384)).unwrap();
    secrets.add_text("psk", &psk.to_text());
    secrets.add_text("retained", &psk.retained(HOST).to_text());
    for version in IdentityVersion::ALL {
        for subsystem in [NQN, DISCOVERY] {
            let derived = psk.tls_psk(version, HOST, subsystem).unwrap();
            secrets.add(&format!("TLS {version:?} {subsystem}"), derived.key());
        }
    }
    keys.push(("psk", psk.to_text()));

    let (target, host) = (Managed::start(&dir, "target"), Managed::start(&dir, "host"));
    for (name, text) in &keys {
        let path = dir.file(name);
        let text = KeyText::new(text.to_string());
        text.write_new(Path::new(&path)).unwrap();
        for program in [&target, &host] {
            program.call("keyring_file_add_key", json!({"name": name, "path": path}));
        }
    }
    target.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    let disk = json!({"name": "Null0", "num_blocks": 2048, "block_size": 512});
    target.call("bdev_null_create", disk);
    target.call("nvmf_create_subsystem", json!({"nqn": NQN}));
    let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": "Null0"}});
    target.call("nvmf_subsystem_add_ns", namespace);
    // One host has all the keys, and one, for the listener without TLS, those for authentication.
    let plain = format!("{HOST}-plain");
    let dhchap = json!({"dhchap_key": "host", "dhchap_ctrlr_key": "controller"});
    for (host, psk) in [(HOST, Some("psk")), (&plain, None)] {
        let mut params = dhchap.clone();
        params["nqn"] = NQN.into();
        params["host"] = host.into();
        if let Some(psk) = psk {
            params["psk"] = psk.into();
        }
        target.call("nvmf_subsystem_add_host", params);
    }
    for secure in [true, false] {
        let any = json!({"trtype": "tcp", "traddr": "127.0.0.1", "trsvcid": "0"});
        let listener = json!({"nqn": NQN, "listen_address": any, "secure_channel": secure});
        target.call("nvmf_subsystem_add_listener", listener);
    }
    let listeners = target.call("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
    for (name, at, hostnqn, more) in [
        ("Secure", 0, HOST, json!({"psk": "psk"})),
        (
            "Concatenated",
            1,
            plain.as_str(),
            json!({"secure_concatenation": true}),
        ),
    ] {
        let mut params = listeners[at]["address"].clone();
        for more in [
            &dhchap,
            &more,
            &json!({"name": name, "subnqn": NQN, "hostnqn": hostnqn}),
        ] {
            for (name, value) in more.as_object().unwrap() {
                params[name] = value.clone();
            }
        }
        host.call("bdev_nvme_attach_controller", params);
    }

    // While they are in use they are where they are used, so the search finds what is there. A target keeps what it derives.
    let derived = format!("TLS V0 {NQN}");
    for (program, used) in [(&target, derived.as_str()), (&host, "psk as bytes")] {
        let found = program.count(&secrets);
        for name in ["host as text", "host as bytes", "psk as text", used] {
            assert!(found.contains_key(name), "{name}: {found:?}");
        }
        assert_eq!(secrets.in_text(&program.said()), [""; 0]);
    }
    let saved = target.call("framework_get_config", json!({"name": "keyring"}));
    assert!(saved.to_string().contains(&dir.file("psk")), "{saved}");

    for name in ["Secure", "Concatenated"] {
        host.call("bdev_nvme_detach_controller", json!({"name": name}));
    }
    for host in [HOST, &plain] {
        target.call(
            "nvmf_subsystem_remove_host",
            json!({"nqn": NQN, "host": host}),
        );
    }
    for (name, _) in &keys {
        for program in [&target, &host] {
            program.call("keyring_file_remove_key", json!({"name": name}));
        }
    }
    for program in [&target, &host] {
        assert_eq!(secrets.in_text(&program.said()), [""; 0]);
        let found = program.count(&secrets);
        assert_eq!(found, BTreeMap::new(), "{}", program.socket);
    }
}
