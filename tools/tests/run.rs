//! `pollux run` as a process: disks and volumes in one list, and a gateway that is there again when its configuration is
//! loaded.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pollux_nvme_tcp::spec::log::AnaState;
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::target::Backend;
use pollux_nvme_tcp::testing::{
    Initiator, ManagementClient, Options, TestTarget, nqn, pattern, socket, wait_for,
};
use serde_json::{Value, json};

const GATEWAY: &str = "nqn.2014-08.org.example:gateway";

/// `pollux run`, killed when dropped.
struct Process {
    child: Child,
    client: ManagementClient,
    socket: PathBuf,
}

impl Process {
    fn start(config: Option<&Path>) -> Self {
        let socket = socket();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
        command.arg("run").arg("-r").arg(&socket);
        if let Some(config) = config {
            command.arg("-c").arg(config);
        }
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut client = ManagementClient::connect(&socket);
        client.call("framework_wait_init", json!({}));
        Self {
            child,
            client,
            socket,
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.client.call(method, params)
    }

    fn names(&mut self) -> Vec<String> {
        let bdevs = self.call("bdev_get_bdevs", json!({}));
        let names = bdevs.as_array().unwrap().iter();
        let mut names: Vec<_> = names
            .map(|bdev| bdev["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Waits until the gateway's namespace, in group 7, follows a volume in this ANA state.
    fn await_behind(&mut self, state: &str) {
        wait_for(state, || {
            let subsystem = self.call("nvmf_get_subsystems", json!({"nqn": GATEWAY}));
            let namespace = &subsystem[0]["namespaces"][0];
            assert_eq!(namespace["ana_follows_bdev"], true);
            let listeners = self.call("nvmf_subsystem_get_listeners", json!({"nqn": GATEWAY}));
            let reported = &listeners[0]["ana_states"][0];
            assert_eq!(reported["ana_group"], 7);
            namespace["pollux"]["ana_state_behind"] == state && reported["ana_state"] == state
        });
    }

    /// Controller and I/O queue of a host in front.
    fn connect(&mut self) -> (Initiator, Initiator) {
        let listeners = self.call("nvmf_subsystem_get_listeners", json!({"nqn": GATEWAY}));
        let port = listeners[0]["address"]["trsvcid"].as_str().unwrap();
        let addr: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        let (options, nqn) = (Options::default(), GATEWAY.parse::<Nqn>().unwrap());
        let mut admin = Initiator::admin(addr, &nqn, options);
        let cntlid = admin.identify_controller().cntlid.get();
        let io = Initiator::io(addr, &nqn, cntlid, 1, options);
        (admin, io)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn attach(path: SocketAddr) -> Value {
    json!({
        "name": "Nvme0", "trtype": "tcp", "adrfam": "ipv4", "traddr": "127.0.0.1",
        "trsvcid": path.port().to_string(), "subnqn": nqn().as_str(), "multipath": "multipath",
    })
}

/// Has one path after the other go and come back under I/O.
fn fail_over(behind: &TestTarget, paths: [SocketAddr; 2], io: &mut Initiator) {
    for (seed, path) in [paths[0], paths[1], paths[0]].into_iter().enumerate() {
        behind.set_ana(path, AnaState::INACCESSIBLE);
        let data = pattern(8192, seed as u64);
        for lba in [0, 100, 2000] {
            assert_eq!(io.write(1, lba, &data), Status::SUCCESS);
            assert!(io.read(1, lba, 16).unwrap() == data);
        }
        behind.set_ana(path, AnaState::OPTIMIZED);
    }
}

#[test]
fn a_gateway_that_follows_its_volume_does_so_when_it_comes_back() {
    let behind = TestTarget::start(1, &[Backend::Memory { bytes: 2 << 20 }]);
    let mut one = Process::start(None);
    one.call("bdev_nvme_attach_controller", attach(behind.addr));
    let malloc = json!({"name": "Malloc0", "num_blocks": 2048, "block_size": 512});
    one.call("bdev_malloc_create", malloc);
    one.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    let subsystem = json!({"nqn": GATEWAY, "allow_any_host": true, "ana_reporting": true});
    one.call("nvmf_create_subsystem", subsystem);
    let ns = |bdev: &str, group: u32| {
        json!({"nqn": GATEWAY, "namespace": {"bdev_name": bdev,
        "anagrpid": group, "ana_follows_bdev": true}})
    };
    // Memory is reached by no paths.
    let (code, message) = one.client.error("nvmf_subsystem_add_ns", ns("Malloc0", 1));
    assert_eq!(code, -22);
    assert!(message.contains("no ANA state"), "{message}");
    assert_eq!(one.call("nvmf_subsystem_add_ns", ns("Nvme0n1", 7)), 1);
    let plain = json!({"nqn": GATEWAY, "namespace": {"bdev_name": "Malloc0", "anagrpid": 7}});
    let (code, message) = one.client.error("nvmf_subsystem_add_ns", plain);
    assert_eq!(code, -32602);
    assert!(message.contains("a group for itself"), "{message}");
    let listener = json!({"nqn": GATEWAY, "listen_address":
        {"trtype": "tcp", "adrfam": "ipv4", "traddr": "127.0.0.1", "trsvcid": "0"}});
    one.call("nvmf_subsystem_add_listener", listener);
    behind.set_ana(behind.addr, AnaState::INACCESSIBLE);
    one.await_behind("inaccessible");

    // What was not set by anybody is not saved either.
    let config = one.client.config();
    assert!(!config.to_string().contains("set_ana_state"), "{config}");
    let file = std::env::temp_dir().join(format!("pollux-follow-{}.json", std::process::id()));
    std::fs::write(&file, config.to_string()).unwrap();
    drop(one);
    let mut two = Process::start(Some(&file));
    std::fs::remove_file(&file).unwrap();
    two.await_behind("inaccessible");
    let (_admin, mut io) = two.connect();
    let refused = io.write(1, 0, &pattern(512, 1));
    assert_eq!(refused.code(), Status::ASYMMETRIC_ACCESS_INACCESSIBLE);
    behind.set_ana(behind.addr, AnaState::OPTIMIZED);
    two.await_behind("optimized");
    assert_eq!(io.write(1, 0, &pattern(512, 1)), Status::SUCCESS);
}

#[test]
fn a_gateway_comes_back_from_its_configuration() {
    let behind = TestTarget::start(1, &[Backend::Memory { bytes: 2 << 20 }]);
    let paths = [behind.addr, behind.listen()];
    let mut one = Process::start(None);
    for path in paths {
        one.call("bdev_nvme_attach_controller", attach(path));
    }
    let malloc = json!({"name": "Malloc0", "num_blocks": 2048, "block_size": 512});
    one.call("bdev_malloc_create", malloc);
    assert_eq!(one.names(), ["Malloc0", "Nvme0n1"]);
    // So are their counters.
    let iostat = one.call("bdev_get_iostat", json!({}));
    assert_eq!(iostat["bdevs"].as_array().map(Vec::len), Some(2));
    // What one half does not know the other one may, and what neither knows is an error.
    for name in ["Malloc0", "Nvme0n1"] {
        let found = one.call("bdev_get_bdevs", json!({"name": name}));
        assert_eq!(found.as_array().map(Vec::len), Some(1));
    }
    let (code, _) = one
        .client
        .error("bdev_get_bdevs", json!({"name": "Nvme1n1"}));
    assert_eq!(code, -19);

    one.call("nvmf_create_transport", json!({"trtype": "tcp"}));
    let subsystem = json!({"nqn": GATEWAY, "allow_any_host": true});
    one.call("nvmf_create_subsystem", subsystem);
    let ns = |bdev: &str| json!({"nqn": GATEWAY, "namespace": {"bdev_name": bdev}});
    let (code, _) = one.client.error("nvmf_subsystem_add_ns", ns("Nvme1n1"));
    assert_eq!(code, -19);
    assert_eq!(one.call("nvmf_subsystem_add_ns", ns("Nvme0n1")), 1);
    assert_eq!(one.call("nvmf_subsystem_add_ns", ns("Malloc0")), 2);
    // One namespace at a time has it, and it is listed once all the same.
    let (code, _) = one.client.error("nvmf_subsystem_add_ns", ns("Nvme0n1"));
    assert_eq!(code, -1);
    assert_eq!(one.names(), ["Malloc0", "Nvme0n1"]);
    let iostat = one.call("bdev_get_iostat", json!({}));
    assert_eq!(iostat["bdevs"].as_array().map(Vec::len), Some(2));
    let listener = json!({"nqn": GATEWAY, "listen_address":
        {"trtype": "tcp", "adrfam": "ipv4", "traddr": "127.0.0.1", "trsvcid": "0"}});
    one.call("nvmf_subsystem_add_listener", listener);

    let (_admin, mut io) = one.connect();
    // Whose latencies are counted is found in either half.
    for name in ["Malloc0", "Nvme0n1"] {
        one.call(
            "bdev_enable_histogram",
            json!({"name": name, "enable": true}),
        );
    }
    assert_eq!(io.write(2, 0, &pattern(512, 7)), Status::SUCCESS);
    assert_eq!(io.write(1, 0, &pattern(512, 7)), Status::SUCCESS);
    for name in ["Malloc0", "Nvme0n1"] {
        let within = json!({"name": name, "borders": [60_000_000]});
        let counted = one.call("bdev_get_histogram_borders", within);
        assert_eq!(counted, json!({"borders_count": [1, 1]}), "{name}");
        one.call("bdev_get_histogram", json!({"name": name}));
    }
    let none = json!({"name": "none", "enable": true});
    assert_eq!(one.client.error("bdev_enable_histogram", none).0, -19);
    fail_over(&behind, paths, &mut io);
    let data = pattern(4096, 99);
    assert_eq!(io.write(1, 64, &data), Status::SUCCESS);

    // Another process takes its place.
    let config = std::env::temp_dir().join(format!("pollux-run-{}.json", std::process::id()));
    std::fs::write(&config, one.client.config().to_string()).unwrap();
    drop((one, io));
    let mut two = Process::start(Some(&config));
    std::fs::remove_file(&config).unwrap();
    assert_eq!(two.names(), ["Malloc0", "Nvme0n1"]);
    let (_admin, mut io) = two.connect();
    assert!(io.read(1, 64, 8).unwrap() == data);
    wait_for("both paths", || {
        let paths = two.call("bdev_nvme_get_io_paths", json!({}));
        let paths = paths["poll_groups"][0]["io_paths"].as_array().unwrap();
        paths.len() == 2 && paths.iter().all(|path| path["connected"] == true)
    });
    fail_over(&behind, paths, &mut io);

    // The volume is free for another namespace once this one has gone.
    two.call(
        "nvmf_subsystem_remove_ns",
        json!({"nqn": GATEWAY, "nsid": 1}),
    );
    assert_eq!(two.call("nvmf_subsystem_add_ns", ns("Nvme0n1")), 1);
    assert!(io.read(1, 64, 8).is_ok());
}
