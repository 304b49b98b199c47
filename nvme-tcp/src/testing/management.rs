//! Management in tests: serving methods at a socket of one's own, and calls that must succeed or must fail.

use std::borrow::Borrow;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use pollux_reactor::rpc::{CallError, Client, Config, Methods, Server};
use pollux_reactor::{Executor, Group, Idle, Running};
use serde_json::{Value, json};

use super::target::stop;
use super::{DEADLINE, NQN};
use crate::target::{self, rpc};

/// A path where a socket may be made, which no other test has.
pub fn socket() -> PathBuf {
    static SOCKETS: AtomicUsize = AtomicUsize::new(0);
    let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("pollux-{}-{number}", std::process::id()))
}

/// Serves methods on a reactor, at a socket of their own. Returns where.
pub fn manage(
    executor: &mut impl Executor,
    reactor: usize,
    methods: Methods,
    config: Config,
) -> PathBuf {
    let path = socket();
    let mut server = Server::new(methods);
    server.listen_unix(&path).unwrap();
    server.configure(config, false).unwrap();
    server.install(executor, reactor);
    path
}

/// A client whose calls end as the test expects.
#[derive(Debug)]
pub struct ManagementClient(Client);

impl ManagementClient {
    /// Connects to a Unix socket, as soon as somebody listens there.
    pub fn connect(socket: &Path) -> Self {
        let mut client = None;
        super::wait_for("a program that listens", || {
            client = Client::connect(socket, Some(DEADLINE)).ok();
            client.is_some()
        });
        Self(client.unwrap())
    }

    /// The result of a call that must succeed.
    pub fn call(&mut self, method: &str, params: impl Borrow<Value>) -> Value {
        let params = params.borrow();
        let answer = self.0.call(method, Some(params.clone()));
        answer.unwrap_or_else(|error| panic!("{method} {params}: {error}"))
    }

    /// Code and message of a call that must fail.
    pub fn error(&mut self, method: &str, params: impl Borrow<Value>) -> (i64, String) {
        let params = params.borrow();
        match self.0.call(method, Some(params.clone())) {
            Err(CallError::Refused { code, message, .. }) => (code, message),
            other => panic!("{method} {params}: {other:?}"),
        }
    }

    /// Makes a call without waiting for its answer.
    pub fn send(&mut self, method: &str, params: impl Borrow<Value>) {
        let params = params.borrow().clone();
        self.0.send(method, Some(params)).unwrap();
    }

    /// The next answer to what was sent, whether it is a result or an error.
    pub fn answer(&mut self) -> Value {
        self.0.answer().unwrap()
    }

    /// The configuration, as `-c FILE` takes it.
    pub fn config(&mut self) -> Value {
        let subsystems = self.call("framework_get_subsystems", json!({}));
        let of = |entry: &Value| {
            let name = &entry["subsystem"];
            let config = self.call("framework_get_config", json!({"name": name}));
            json!({"subsystem": name, "config": config})
        };
        let list: Vec<_> = subsystems.as_array().unwrap().iter().map(of).collect();
        json!({"subsystems": list})
    }
}

/// A running target on two reactors that has nothing yet, and a client of its management, which a third reactor serves, so
/// that answers travel and wake nobody else.
#[derive(Debug)]
pub struct ManagedTarget {
    running: Running,
    /// The client.
    pub client: ManagementClient,
}

impl ManagedTarget {
    /// Starts it with a configuration; its reactors do this when they have nothing to do.
    pub fn start(idle: Idle, config: Config) -> Self {
        let mut group = Group::new();
        let [one, two, third] = [0; 3].map(|_| group.add_reactor(None, idle));
        let handle = target::install(&mut group, &[one, two]);
        let mut methods = Methods::new();
        rpc::register(&mut methods, handle);
        let socket = manage(&mut group, third, methods, config);
        let running = group.start().unwrap();
        let client = ManagementClient::connect(&socket);
        Self { running, client }
    }

    /// The result of a call that must succeed.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.client.call(method, params)
    }

    /// Code and message of a call that must fail.
    pub fn error(&mut self, method: &str, params: Value) -> (i64, String) {
        self.client.error(method, params)
    }

    /// Adds a disk as a namespace of [`NQN`]; its identifier.
    pub fn add_ns(&mut self, bdev: &str) -> Value {
        let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": bdev}});
        self.call("nvmf_subsystem_add_ns", namespace)
    }

    /// Adds a listener of [`NQN`] at a free port.
    pub fn listen(&mut self) -> SocketAddr {
        let free = json!({"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": "0"});
        let params = json!({"nqn": NQN, "listen_address": free});
        self.call("nvmf_subsystem_add_listener", params);
        let listeners = self.call("nvmf_subsystem_get_listeners", json!({"nqn": NQN}));
        let last = listeners.as_array().and_then(|list| list.last());
        let port = last.and_then(|listener| listener["address"]["trsvcid"].as_str());
        let port = port.expect("the new listener").parse().unwrap();
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}

impl Drop for ManagedTarget {
    fn drop(&mut self) {
        stop(&mut self.running);
    }
}
