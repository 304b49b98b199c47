//! What the management methods tell of the reactors: one that works, one that rests, one that ends.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use pollux_reactor::rpc::{CallError, Client, Methods, Server, observe};
use pollux_reactor::{
    Context, Group, Idle, NotAsked, Observers, Progress, Running, Sender, Service, available_cores,
    mailbox,
};
use serde_json::{Value, json};

/// Longer than any test takes when it works.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits where a service must not, and ends its reactor then.
struct Stuck {
    entered: mpsc::Sender<()>,
    leave: mpsc::Receiver<()>,
}

impl Service for Stuck {
    type Message = ();

    fn on_message(&mut self, (): (), cx: &mut Context<'_>) {
        self.entered.send(()).unwrap();
        self.leave.recv_timeout(PATIENCE).unwrap();
        cx.request_stop();
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Progress {
        Progress::Idle
    }
}

/// Two reactors: the server on the first, which parks; on the second, which yields, what can be made to get stuck.
struct Fixture {
    path: PathBuf,
    running: Option<Running>,
    client: Client,
    last: Sender<()>,
    entered: mpsc::Receiver<()>,
    leave: mpsc::Sender<()>,
}

impl Fixture {
    fn new(name: &str) -> Fixture {
        let path = format!("pollux-reactors-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(path);
        let mut group = Group::new();
        let after = Duration::from_micros(50);
        let first = group.add_reactor(available_cores().first().copied(), Idle::Park { after });
        let second = group.add_reactor(None, Idle::Yield);
        let mut methods = Methods::new();
        observe(&mut methods, &mut group);
        let mut server = Server::new(methods);
        server.listen_unix(&path).unwrap();
        server.install(&mut group, first);
        let (last, receiver) = mailbox(4);
        let ((entered, has_entered), (leave, may_leave)) = (mpsc::channel(), mpsc::channel());
        group.add_service(second, receiver, move || Stuck {
            entered,
            leave: may_leave,
        });
        let running = group.start().unwrap();
        let client = Client::connect(&path, Some(PATIENCE)).unwrap();
        Fixture {
            path,
            running: Some(running),
            client,
            last,
            entered: has_entered,
            leave,
        }
    }

    fn call(&mut self, method: &str) -> Value {
        self.client.call(method, None).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join();
        }
        assert!(!self.path.exists());
    }
}

#[test]
fn reactors_tell_where_they_run_and_what_they_do() {
    let mut fixture = Fixture::new("all");
    let shown = fixture.call("framework_get_reactors");
    assert_eq!(shown["tick_rate"], 1_000_000_000);
    assert_eq!(shown["pid"], std::process::id());
    let [first, second] = shown["reactors"].as_array().unwrap().as_slice() else {
        panic!("two reactors: {shown}");
    };
    let core = available_cores()[0];
    assert_eq!(first["lcore"], core);
    assert_eq!(first["in_interrupt"], true);
    assert_eq!(second["in_interrupt"], false);
    assert_ne!(first["tid"], second["tid"]);
    for reactor in [first, second] {
        let thread = &reactor["lw_threads"][0];
        let [busy, idle, elapsed] = [&reactor["busy"], &reactor["idle"], &thread["elapsed"]]
            .map(|value| value.as_u64().unwrap());
        assert_eq!(busy + idle, elapsed);
        assert!(
            reactor["sys"].is_u64() && reactor["irq"].is_u64(),
            "{reactor}"
        );
    }
    let mask = format!("{:x}", 1u128 << core);
    assert_eq!(first["lw_threads"][0]["cpumask"], mask);

    let stats = fixture.call("thread_get_stats");
    let [stat, _] = stats["threads"].as_array().unwrap().as_slice() else {
        panic!("two threads: {stats}");
    };
    assert_eq!(
        (&stat["name"], &stat["id"]),
        (&json!("reactor-0"), &json!(1))
    );
    assert_eq!(stat["active_pollers_count"], 2);
    // The first question itself has made it busy.
    assert!(stat["busy"].as_u64() > first["busy"].as_u64(), "{stat}");

    // It stays where it is, and says so.
    let method = "thread_set_cpumask";
    let stay = json!({"id": 1, "cpumask": format!("0x{mask}")});
    assert_eq!(fixture.client.call(method, Some(stay)).unwrap(), true);
    for (params, number, text) in [
        (
            json!({"id": 1, "cpumask": format!("0x{mask}0")}),
            -95,
            "--cores",
        ),
        (json!({"id": 1, "cpumask": "all"}), -32602, "hexadecimal"),
        (json!({"id": 0, "cpumask": "1"}), -19, "thread 0"),
        (json!({"id": 3, "cpumask": "1"}), -19, "thread 3"),
    ] {
        let Err(CallError::Refused { message, code, .. }) =
            fixture.client.call(method, Some(params))
        else {
            panic!("{text}: not refused");
        };
        assert!(code == number && message.contains(text), "{code} {message}");
    }

    let pollers = fixture.call("thread_get_pollers");
    let names = |thread: usize| -> Vec<&str> {
        let list = pollers["threads"][thread]["active_pollers"].as_array();
        list.unwrap()
            .iter()
            .map(|p| p["name"].as_str().unwrap())
            .collect()
    };
    assert_eq!(names(0), ["Observer", "RpcService"]);
    assert_eq!(names(1), ["Observer", "Stuck"]);
    let stuck = &pollers["threads"][1]["active_pollers"][1];
    assert_eq!(stuck["busy_count"], 0);
    assert!(stuck["run_count"].as_u64() > Some(0));
}

#[test]
fn a_reactor_that_ends_is_left_out_and_holds_up_no_answer() {
    let mut fixture = Fixture::new("ended");
    fixture.last.send(()).unwrap();
    fixture.entered.recv_timeout(PATIENCE).unwrap();
    // The second reactor is asked, and cannot answer; requests of others are served meanwhile.
    fixture.client.send("thread_get_stats", None).unwrap();
    let version = fixture.client.send("spdk_get_version", None).unwrap();
    assert_eq!(fixture.client.answer().unwrap()["id"], version);
    fixture.leave.send(()).unwrap();
    let answer = fixture.client.answer().unwrap();
    assert_eq!(answer["id"], 1);
    assert_eq!(answer["result"]["threads"].as_array().unwrap().len(), 1);
    // Nor is it missed later.
    let shown = fixture.call("framework_get_reactors");
    assert_eq!(shown["reactors"].as_array().unwrap().len(), 1);
}

#[test]
fn who_has_ended_cannot_be_asked() {
    let mut group = Group::new();
    group.add_reactor(None, Idle::Yield);
    let observers = Observers::install(&mut group);
    assert_eq!(observers.len(), 1);
    assert_eq!(observers.ask(1, |_| ()), Err(NotAsked::Ended));
    drop(group);
    assert_eq!(observers.ask(0, |_| ()), Err(NotAsked::Ended));
}
