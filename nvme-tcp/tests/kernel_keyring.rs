//! Keys in the kernel's keyring, by the methods that name them. Where a process may not have one the test says so, and passes.

use linux_keyutils::{Key, KeyPermissions, KeyRing, KeyRingIdentifier};
use pollux_nvme_tcp::auth::Secret;
use pollux_nvme_tcp::testing::{ManagedTarget, NQN, wait_for};
use pollux_reactor::Idle;
use pollux_reactor::rpc::Config;
use serde_json::{Value, json};

const HOST: &str = "nqn.2014-08.org.example:host";
/// ENOKEY.
const NO_KEY: i64 = -126;

/// A key that goes with the test.
struct KernelKey {
    key: Key,
    name: String,
}

impl KernelKey {
    /// `None` where there is no keyring.
    fn new(name: &str, text: &[u8]) -> Option<Self> {
        let name = format!(":pollux-{name}-{}", std::process::id());
        let session = KeyRing::from_special_id(KeyRingIdentifier::Session, false);
        match session.and_then(|ring| ring.add_key(&name, text)) {
            Ok(key) => Some(Self { key, name }),
            Err(error) => {
                println!("skipped: no keyring: {error:?}");
                None
            }
        }
    }
}

impl Drop for KernelKey {
    fn drop(&mut self) {
        let _ = self.key.invalidate();
    }
}

fn with_key(name: &str) -> Value {
    json!({"nqn": NQN, "host": HOST, "dhchap_key": name})
}

fn start(config: Config) -> ManagedTarget {
    ManagedTarget::start(Idle::Yield, config)
}

#[test]
fn a_key_of_the_kernel_is_used_once_that_is_asked_for() {
    let secret = Secret::new(&[1; 32], None).unwrap().to_text();
    let Some(key) = KernelKey::new("right", secret.as_bytes()) else {
        return;
    };
    let mut t = start(Config::default());
    t.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    t.call("nvmf_create_subsystem", json!({"nqn": NQN}));
    assert_eq!(
        t.error("nvmf_subsystem_add_host", with_key(&key.name)).0,
        NO_KEY
    );
    t.call("keyring_linux_set_options", json!({"enable": true}));
    t.call("nvmf_subsystem_add_host", with_key(&key.name));
    let shown = t.call("nvmf_get_subsystems", json!({"nqn": NQN}));
    assert_eq!(shown[0]["hosts"][0]["dhchap_key"], key.name.as_str());

    let saved = t.client.config();
    // AQEB is how a key of ones begins in base64.
    assert!(!saved.to_string().contains("AQEB"), "{saved}");
    drop(t);
    let mut again = start(Config::parse(&saved.to_string()).unwrap());
    assert_eq!(
        again.call("nvmf_get_subsystems", json!({"nqn": NQN})),
        shown
    );

    again.call("keyring_linux_set_options", json!({"enable": false}));
    let set = "nvmf_subsystem_set_keys";
    assert_eq!(again.error(set, with_key(&key.name)).0, NO_KEY);
}

#[test]
fn what_is_no_key_of_the_kernel_is_told_and_not_shown() {
    let Some(other) = KernelKey::new("other", b"no secret but AQEB") else {
        return;
    };
    let long = KernelKey::new("long", &[b'x'; 300]).unwrap();
    let noise = KernelKey::new("noise", &[0xff; 32]).unwrap();
    let open = KernelKey::new("open", b"for everybody").unwrap();
    open.key
        .set_perms(KeyPermissions::from_u32(0x3f3f_0002))
        .unwrap();
    let mut t = start(Config::default());
    t.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    t.call("nvmf_create_subsystem", json!({"nqn": NQN}));
    t.call("keyring_linux_set_options", json!({"enable": true}));
    for (name, code, words) in [
        (":pollux-absent", NO_KEY, "no such key of type 'user'"),
        (&other.name, -32602, "a key has the form"),
        (&long.name, -1, "300 bytes: no key is longer than 256"),
        (&noise.name, -1, "not text"),
        (&open.name, -1, "must not be accessible to group and others"),
        (&other.name[1..], NO_KEY, "key"),
    ] {
        let (found, text) = t.error("nvmf_subsystem_add_host", with_key(name));
        assert_eq!(found, code, "{name}: {text}");
        assert!(text.contains(words) && !text.contains("AQEB"), "{text}");
    }
}

/// The kernel ends a key when its time is over: whoever was given it keeps it, and nobody else can have it.
#[test]
fn a_key_of_the_kernel_whose_time_is_over_is_none() {
    let secret = Secret::generate(32, None).unwrap().to_text();
    let Some(key) = KernelKey::new("expires", secret.as_bytes()) else {
        return;
    };
    let mut t = start(Config::default());
    t.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    t.call("nvmf_create_subsystem", json!({"nqn": NQN}));
    t.call("keyring_linux_set_options", json!({"enable": true}));
    t.call("nvmf_subsystem_add_host", with_key(&key.name));
    key.key.set_timeout(1).unwrap();
    let mut answer = Value::Null;
    wait_for("the key to expire", || {
        t.client
            .send("nvmf_subsystem_set_keys", with_key(&key.name));
        answer = t.client.answer();
        answer.get("error").is_some()
    });
    assert_eq!(answer["error"]["code"], NO_KEY, "{answer}");
    let shown = t.call("nvmf_get_subsystems", json!({"nqn": NQN}));
    assert_eq!(shown[0]["hosts"][0]["dhchap_key"], key.name.as_str());
}
