//! A target with two listeners and a managed host, and a client of the host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pollux_multipath::{Application, Host, PollGroup, rpc};
use pollux_nvme_tcp::spec::Nqn;
use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::target::{self, Backend, NamespaceConfig, SubsystemConfig};
use pollux_nvme_tcp::testing::{ManagementClient, TestTarget, manage};
pub use pollux_nvme_tcp::testing::{NQN, nqn};
use pollux_reactor::rpc::{Config, Methods};
use pollux_reactor::{Context, Group, Idle, Progress};
use serde_json::{Value, json};

/// Does no I/O.
struct Onlooker;

impl Application for Onlooker {
    type Message = ();
    fn on_message(&mut self, (): (), _: &mut PollGroup, _: &mut Context<'_>) {}
    fn poll(&mut self, _: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

pub struct World {
    pub target: TestTarget,
    pub listeners: Vec<SocketAddr>,
    socket: PathBuf,
    client: ManagementClient,
}

impl World {
    pub fn new() -> World {
        let mut group = Group::new();
        let idle = Idle::Park {
            after: Duration::from_micros(50),
        };
        let first = group.add_reactor(None, idle);
        let second = group.add_reactor(None, idle);
        let handle = target::install(&mut group, &[first]);
        let io = [first, second];
        let host = Host::builder()
            .control(second)
            .io(&io)
            .install(&mut group, |_| Onlooker);
        let mut methods = Methods::new();
        rpc::register(&mut methods, host);
        // Not where control is, so that answers really travel.
        let socket = manage(&mut group, first, methods, Config::default());
        let memory = Backend::Memory { bytes: 1 << 20 };
        let target = TestTarget::serve(handle, group.start().unwrap(), &[memory]);
        World {
            client: ManagementClient::connect(&socket),
            listeners: vec![target.addr, target.listen()],
            target,
            socket,
        }
    }

    /// Makes another subsystem of the target, of one namespace, for hosts that are listed alone.
    pub fn other_subsystem(&self, subnqn: &str) -> Nqn {
        let subnqn = Nqn::new(subnqn).unwrap();
        let mut config = SubsystemConfig::new(subnqn.clone());
        config.allow_any_host = false;
        self.target.handle.create_subsystem(config).unwrap();
        let memory = NamespaceConfig::new(Backend::Memory { bytes: 1 << 20 }, 512);
        self.target.handle.add_namespace(&subnqn, memory).unwrap();
        subnqn
    }

    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.client.call(method, params)
    }

    /// Two calls at the same time, by two clients.
    pub fn both(&mut self, first: (&str, Value), second: (&str, Value)) -> [Value; 2] {
        let mut other = ManagementClient::connect(&self.socket);
        std::thread::scope(|scope| {
            let first = scope.spawn(move || other.call(first.0, first.1));
            let second = self.client.call(second.0, second.1);
            [first.join().unwrap(), second]
        })
    }

    /// The code and the text of an error.
    pub fn fail(&mut self, method: &str, params: Value) -> (i64, String) {
        self.client.error(method, params)
    }

    /// Parameters of an attach, with others over them.
    pub fn params(&self, path: usize, more: Value) -> Value {
        let addr = self.listeners[path];
        let mut params = json!({
            "name": "Nvme0",
            "trtype": "TCP",
            "adrfam": "ipv4",
            "traddr": addr.ip().to_string(),
            "trsvcid": addr.port().to_string(),
            "subnqn": NQN,
        });
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    }

    pub fn attach(&mut self, path: usize, more: Value) -> Value {
        let params = self.params(path, more);
        self.call("bdev_nvme_attach_controller", params)
    }

    pub fn attach_code(&mut self, path: usize, more: Value) -> i64 {
        let params = self.params(path, more);
        self.fail("bdev_nvme_attach_controller", params).0
    }

    pub fn cntlids(&mut self) -> Vec<u64> {
        let list = self.call("bdev_nvme_get_controllers", json!({"name": "Nvme0"}));
        let list = list[0]["ctrlrs"].as_array().unwrap().clone();
        list.iter().map(|c| c["cntlid"].as_u64().unwrap()).collect()
    }

    pub fn states(&mut self) -> Vec<String> {
        let list = self.call("bdev_nvme_get_controllers", json!({}));
        let list = list[0]["ctrlrs"].as_array().unwrap().clone();
        list.iter()
            .map(|c| c["state"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Sets the state that a listener reports for all groups.
    pub fn set_ana(&self, path: usize, state: AnaState) {
        self.target.set_ana(self.listeners[path], state);
    }

    /// The listener of each reactor's paths, in attach order, and whether they are current, connected, accessible.
    fn views(&mut self) -> Vec<Vec<(usize, [bool; 3])>> {
        let answer = self.call("bdev_nvme_get_io_paths", json!({"name": "Nvme0n1"}));
        let groups = answer["poll_groups"].as_array().unwrap().clone();
        let view = |path: &Value| {
            assert_eq!(path["bdev_name"], "Nvme0n1");
            let port = path["transport"]["trsvcid"].as_str().unwrap();
            let mut listeners = self.listeners.iter();
            let index = listeners.position(|l| l.port().to_string() == port);
            let flags = ["current", "connected", "accessible"];
            (
                index.unwrap(),
                flags.map(|flag| path[flag].as_bool().unwrap()),
            )
        };
        let paths = |group: &Value| {
            let paths = group["io_paths"].as_array().unwrap();
            paths.iter().map(view).collect()
        };
        groups.iter().map(paths).collect()
    }

    /// (listener, current) of each path, on each reactor; all are connected and accessible.
    pub fn paths(&mut self) -> Vec<Vec<(usize, bool)>> {
        let view = |(index, [current, connected, accessible]): (usize, [bool; 3])| {
            assert!(connected && accessible);
            (index, current)
        };
        let views = self.views().into_iter();
        views
            .map(|paths| paths.into_iter().map(view).collect())
            .collect()
    }

    /// Waits until both reactors report these paths: current, connected, accessible.
    pub fn await_paths(&mut self, wanted: &[[bool; 3]]) {
        let mut seen = Vec::new();
        // Some 20 s; what is awaited comes with the first few of them.
        for _ in 0..200_000 {
            seen = self.views();
            let like = |paths: &Vec<(usize, [bool; 3])>| {
                paths.iter().map(|p| p.1).eq(wanted.iter().copied())
            };
            if seen.len() == 2 && seen.iter().all(like) {
                return;
            }
        }
        panic!("{seen:?} instead of {wanted:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.target.stop();
        assert!(
            std::thread::panicking() || !self.socket.exists(),
            "the socket is removed at the end"
        );
    }
}
