//! Management over real sockets: framing, errors, many clients, start and end.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use pollux_reactor::rpc::{
    Answer, Call, Config, EndpointError, MethodResult, Methods, Phase, Responder, RpcError, Server,
    Token,
};
use pollux_reactor::{Group, Idle, Running};
use serde_json::{Value, json};

/// Longer than any test takes when it works.
const PATIENCE: Duration = Duration::from_secs(20);

/// The state of the module under test.
#[derive(Default)]
struct Store {
    kept: Vec<Responder>,
    log: Vec<String>,
}

fn echo(_: &mut Store, call: &mut Call<Store>) -> MethodResult {
    let text: String = call.params.required("text")?;
    call.params.finish()?;
    Ok(Answer::Now(text.into()))
}

/// Answers when `release` is called.
fn hold(store: &mut Store, call: &mut Call<Store>) -> MethodResult {
    call.params.finish()?;
    store.kept.push(call.responder()?);
    Ok(Answer::Later)
}

fn release(store: &mut Store, call: &mut Call<Store>) -> MethodResult {
    call.params.finish()?;
    let released = store.kept.len();
    for responder in store.kept.drain(..).rev() {
        responder.answer(Ok("released".into()));
    }
    Ok(Answer::Now(released.into()))
}

/// Answers from another thread, by way of the module's state.
fn elsewhere(_: &mut Store, call: &mut Call<Store>) -> MethodResult {
    call.params.finish()?;
    let (responder, mail) = (call.responder()?, call.mail.clone());
    std::thread::spawn(move || {
        mail.run(move |store| {
            store.log.push("elsewhere".into());
            responder.answer(Ok(store.log.len().into()));
        });
    });
    Ok(Answer::Later)
}

fn forget(_: &mut Store, call: &mut Call<Store>) -> MethodResult {
    drop(call.responder()?);
    Ok(Answer::Later)
}

fn big(_: &mut Store, call: &mut Call<Store>) -> MethodResult {
    let len: u32 = call.params.required("len")?;
    call.params.finish()?;
    Ok(Answer::Now(
        "x".repeat(usize::try_from(len).unwrap()).into(),
    ))
}

fn note(store: &mut Store, call: &mut Call<Store>) -> MethodResult {
    let text: String = call.params.required("text")?;
    call.params.finish()?;
    if text == "bad" {
        return Err(RpcError::errno(22));
    }
    store.log.push(text);
    Ok(Answer::Now(true.into()))
}

fn notes(store: &mut Store, call: &mut Call<Store>) -> MethodResult {
    call.params.finish()?;
    Ok(Answer::Now(store.log.clone().into()))
}

fn methods() -> Methods {
    let mut methods = Methods::new();
    methods
        .module(Store::default())
        .method("echo", Phase::Runtime, echo)
        .method("hold", Phase::Runtime, hold)
        .method("release", Phase::Runtime, release)
        .method("elsewhere", Phase::Runtime, elsewhere)
        .method("forget", Phase::Runtime, forget)
        .method("big", Phase::Runtime, big)
        .method("note", Phase::Any, note)
        .method("set_early", Phase::Startup, note)
        .method("notes", Phase::Any, notes)
        .subsystem("store", notes);
    methods
}

fn socket_path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pollux-rpc-{}-{name}", std::process::id()))
}

struct Fixture {
    path: PathBuf,
    running: Option<Running>,
}

impl Fixture {
    fn new(name: &str) -> Fixture {
        Fixture::with(name, |_| {})
    }

    fn with(name: &str, set_up: impl FnOnce(&mut Server)) -> Fixture {
        let path = socket_path(name);
        let mut server = Server::new(methods());
        server.listen_unix(&path).unwrap();
        set_up(&mut server);
        Fixture {
            path,
            running: Some(start(server)),
        }
    }

    fn client(&self) -> Client {
        Client::new(UnixStream::connect(&self.path).unwrap())
    }
}

fn start(server: Server) -> Running {
    let mut group = Group::new();
    let idle = Idle::Park {
        after: Duration::from_micros(50),
    };
    let reactor = group.add_reactor(None, idle);
    server.install(&mut group, reactor);
    group.start().unwrap()
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join();
            assert!(!self.path.exists(), "the socket is removed at the end");
        }
    }
}

struct Client {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Client {
    fn new(stream: UnixStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client {
            reader: BufReader::new(stream.try_clone().unwrap()),
            writer: stream,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.send(request.to_string().as_bytes());
        self.answer()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
    }

    /// The code of the error that a text is answered with.
    fn error(&mut self, text: &str) -> (i64, Value) {
        self.send(text.as_bytes());
        let answer = self.answer();
        assert_eq!(answer["jsonrpc"], "2.0");
        assert!(answer["error"]["message"].is_string(), "{answer}");
        (
            answer["error"]["code"].as_i64().unwrap(),
            answer["id"].clone(),
        )
    }

    fn assert_closed(&mut self) {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "{rest:?}"),
            // Bytes that were not read any more make it a reset.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

fn echo_request(id: &Value, text: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "echo", "params": {"text": text}})
}

#[test]
fn a_request_may_be_split_at_any_byte() {
    let fixture = Fixture::new("split");
    let mut client = fixture.client();
    let text = serde_json::to_string_pretty(&echo_request(&json!("é"), "a\"}]{\\ \u{1f600}"))
        .unwrap()
        .into_bytes();
    for cut in 0..=text.len() {
        let (first, second) = text.split_at(cut);
        client.send(first);
        // The answer to another client shows that the server has looked at the first part.
        let other = fixture.client().call("echo", json!({"text": "x"}));
        assert_eq!(other["result"], "x");
        client.send(second);
        let answer = client.answer();
        assert_eq!(answer["result"], "a\"}]{\\ \u{1f600}");
        assert_eq!(answer["id"], "é");
    }
}

#[test]
fn requests_may_follow_each_other_at_once() {
    let fixture = Fixture::new("pipelined");
    let mut client = fixture.client();
    let mut text = String::from("\n \t");
    for id in 0..200 {
        let gap = ["", "\n", "  "][id % 3];
        text += &format!("{}{gap}", echo_request(&json!(id), "x"));
    }
    client.send(text.as_bytes());
    for id in 0..200 {
        assert_eq!(client.answer()["id"], id);
    }
}

#[test]
fn a_batch_is_answered_as_one() {
    let fixture = Fixture::new("batch");
    let mut client = fixture.client();
    let answer = client.ask(&json!([
        echo_request(&json!(1), "a"),
        {"jsonrpc": "2.0", "method": "note", "params": {"text": "no answer wanted"}},
        7,
        {"jsonrpc": "2.0", "id": 2, "method": "elsewhere"},
        {"jsonrpc": "2.0", "id": 3, "method": "none"},
    ]));
    let mut list = answer.as_array().unwrap().clone();
    list.sort_by_key(|a| a["id"].as_i64());
    assert_eq!(list.len(), 4);
    assert_eq!(
        (&list[0]["id"], &list[0]["error"]["code"]),
        (&Value::Null, &json!(-32600))
    );
    assert_eq!(
        (&list[1]["id"], &list[1]["result"]),
        (&json!(1), &json!("a"))
    );
    assert_eq!((&list[2]["id"], &list[2]["result"]), (&json!(2), &json!(2)));
    assert_eq!(
        (&list[3]["id"], &list[3]["error"]["code"]),
        (&json!(3), &json!(-32601))
    );

    assert_eq!(client.error("[]"), (-32600, Value::Null));
    // Nothing but notifications: no answer at all.
    client.send(br#"[{"jsonrpc":"2.0","method":"note","params":{"text":"n"}}]"#);
    let log = client.call("notes", json!({}));
    assert_eq!(log["result"], json!(["no answer wanted", "elsewhere", "n"]));
}

#[test]
fn faults_have_their_codes() {
    let fixture = Fixture::new("faults");
    let mut client = fixture.client();
    for (text, code, id) in [
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"none"}"#,
            -32601,
            json!(1),
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"echo"}"#,
            -32602,
            json!(2),
        ),
        (
            r#"{"jsonrpc":"2.0","id":3,"method":"echo","params":{"text":1}}"#,
            -32602,
            json!(3),
        ),
        (
            r#"{"jsonrpc":"2.0","id":4,"method":"echo","params":["x"]}"#,
            -32602,
            json!(4),
        ),
        (
            r#"{"jsonrpc":"2.0","id":5,"method":"echo","params":3}"#,
            -32600,
            json!(5),
        ),
        (r#"{"jsonrpc":"2.0","id":6}"#, -32600, json!(6)),
        (r#"{"id":7,"method":"echo"}"#, -32600, json!(7)),
        (
            r#"{"jsonrpc":"2.0","id":8,"method":"forget"}"#,
            -32603,
            json!(8),
        ),
        (
            r#"{"jsonrpc":"2.0","id":9,"method":"note","params":{"text":"bad"}}"#,
            -22,
            json!(9),
        ),
        (
            r#"{"jsonrpc":"2.0","id":10,"method":"set_early","params":{"text":"x"}}"#,
            -1,
            json!(10),
        ),
        ("{}", -32600, Value::Null),
    ] {
        assert_eq!(client.error(text), (code, id), "{text}");
    }
    let unknown = client.call("echo", json!({"text": "x", "txet": 1}));
    assert_eq!(unknown["error"]["code"], -32602);
    assert!(
        unknown["error"]["message"]
            .as_str()
            .unwrap()
            .contains("'txet'")
    );
    assert_eq!(
        client.call("echo", json!({"text": "still there"}))["result"],
        "still there"
    );
}

#[test]
fn after_what_is_no_json_the_connection_ends() {
    let fixture = Fixture::new("no-json");
    for text in [
        "hello\n",
        "{\"jsonrpc\": }",
        "{]",
        "{\"jsonrpc\": \"2.0\", \"method\": \"foobar, \"params\": \"bar\", \"baz]",
    ] {
        let mut client = fixture.client();
        client.send(echo_request(&json!(1), "before").to_string().as_bytes());
        assert_eq!(client.answer()["result"], "before");
        assert_eq!(client.error(text), (-32700, Value::Null), "{text}");
        client.assert_closed();
    }
    let mut client = fixture.client();
    client.send(b"{\"jsonrpc\": \"2.0\"");
    client.writer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.answer()["error"]["code"], -32700);
    client.assert_closed();
}

#[test]
fn a_request_that_is_too_long_ends_the_connection() {
    let fixture = Fixture::new("too-long");
    let mut client = fixture.client();
    let fits = "y".repeat((1 << 20) - 100);
    let answer = client.call("echo", json!({"text": fits}));
    assert_eq!(answer["result"].as_str().map(str::len), Some(fits.len()));

    let mut writer = client.writer.try_clone().unwrap();
    let endless = std::thread::spawn(move || {
        let _ = writer.write_all(b"{\"a\":\"");
        while writer.write_all(&[b'y'; 65536]).is_ok() {}
    });
    assert_eq!(client.answer()["error"]["code"], -32600);
    client.assert_closed();
    drop(client);
    endless.join().unwrap();
}

#[test]
fn a_notification_gets_no_answer() {
    let fixture = Fixture::new("notification");
    let mut client = fixture.client();
    for text in [
        r#"{"jsonrpc":"2.0","method":"note","params":{"text":"one"}}"#,
        r#"{"jsonrpc":"2.0","method":"none"}"#,
        r#"{"jsonrpc":"2.0","method":"note","params":{"text":"bad"}}"#,
    ] {
        client.send(text.as_bytes());
    }
    assert_eq!(client.call("notes", json!({}))["result"], json!(["one"]));
}

#[test]
fn a_long_request_holds_up_nobody() {
    let fixture = Fixture::new("long");
    let (mut first, mut second) = (fixture.client(), fixture.client());
    for id in 1..=2 {
        first.send(
            json!({"jsonrpc": "2.0", "id": id, "method": "hold"})
                .to_string()
                .as_bytes(),
        );
    }
    // Neither another request of the same client nor another client waits for it.
    let third = first.ask(&echo_request(&json!(3), "c"));
    assert_eq!(third["id"], 3);
    assert_eq!(second.call("release", json!({}))["result"], 2);
    // Answers come in the order of their completion.
    assert_eq!(first.answer()["id"], 2);
    assert_eq!(first.answer()["id"], 1);
}

#[test]
fn a_client_that_does_not_read_stops_only_itself() {
    let fixture = Fixture::new("slow");
    let mut slow = fixture.client();
    let asked = 40;
    for id in 0..asked {
        let request =
            json!({"jsonrpc": "2.0", "id": id, "method": "big", "params": {"len": 1_000_000}});
        slow.send(request.to_string().as_bytes());
    }
    let mut other = fixture.client();
    for n in 0..100 {
        let text = n.to_string();
        assert_eq!(other.call("echo", json!({"text": text}))["result"], text);
    }
    for id in 0..asked {
        let answer = slow.answer();
        assert_eq!(answer["id"], id);
        assert_eq!(answer["result"].as_str().map(str::len), Some(1_000_000));
    }
}

#[test]
fn many_clients_are_served_and_idle_ones_lock_nobody_out() {
    let fixture = Fixture::new("many");
    let mut clients: Vec<_> = (0..64).map(|_| fixture.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(
            echo_request(&json!(n), &n.to_string())
                .to_string()
                .as_bytes(),
        );
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let answer = client.answer();
        assert_eq!(
            (&answer["id"], &answer["result"]),
            (&json!(n), &json!(n.to_string()))
        );
    }
    // One waits for an answer, all others are idle; those who come have their place.
    clients[0].send(br#"{"jsonrpc":"2.0","id":5,"method":"hold"}"#);
    while clients[0].call("echo", json!({"text": "z"}))["result"] != "z" {}
    let mut latecomers: Vec<_> = (0..80).map(|_| fixture.client()).collect();
    let mut last = latecomers.pop().unwrap();
    assert_eq!(last.call("release", json!({}))["result"], 1);
    assert_eq!(clients[0].answer()["result"], "released");
    // The first client that had never asked for anything had to go.
    latecomers[0].assert_closed();
    let mut next = fixture.client();
    assert_eq!(next.call("echo", json!({"text": "x"}))["result"], "x");
}

#[test]
fn a_client_that_sends_no_more_still_gets_its_answers() {
    let fixture = Fixture::new("half-closed");
    let mut client = fixture.client();
    client.send(br#"{"jsonrpc":"2.0","id":5,"method":"hold"}"#);
    client.writer.shutdown(Shutdown::Write).unwrap();
    let mut other = fixture.client();
    while other.call("release", json!({}))["result"] == 0 {}
    assert_eq!(client.answer()["result"], "released");
    client.assert_closed();
}

#[test]
fn the_socket_is_for_its_owner_and_a_stale_one_is_replaced() {
    let path = socket_path("stale");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let fixture = Fixture::new("stale");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fixture.client().call("echo", json!({"text": "x"}))["result"],
        "x"
    );

    let second = Server::new(methods()).listen_unix(&path);
    assert!(matches!(second, Err(EndpointError::InUse(_))), "{second:?}");
    assert_eq!(
        fixture.client().call("echo", json!({"text": "y"}))["result"],
        "y"
    );

    let file = socket_path("file");
    std::fs::write(&file, "keep me").unwrap();
    let refused = Server::new(methods()).listen_unix(&file);
    assert!(
        matches!(refused, Err(EndpointError::NoSocket(_))),
        "{refused:?}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "keep me");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn tcp_is_served_on_loopback_only() {
    let mut server = Server::new(methods());
    let token = || Token::new("0123456789abcdef").unwrap();
    let refused = server.listen_tcp("0.0.0.0:0".parse().unwrap(), token());
    assert!(matches!(refused, Err(EndpointError::NotLoopback(_))));
    let addr = server.listen_tcp("127.0.0.1:0".parse().unwrap(), token());
    let addr = addr.unwrap();
    let running = start(server);
    // All that comes back until the connection ends, if it does.
    let exchange = |requests: &[Value], ends: bool| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let text: Vec<String> = requests.iter().map(Value::to_string).collect();
        stream.write_all(text.join("\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let (mut answers, mut line) = (Vec::new(), String::new());
        while (ends || answers.len() < requests.len()) && reader.read_line(&mut line).unwrap() > 0 {
            answers.push(serde_json::from_str::<Value>(&line).unwrap());
            line.clear();
        }
        answers
    };
    let authorize =
        |params| json!({"jsonrpc": "2.0", "id": 7, "method": "pollux_authorize", "params": params});
    let shown = authorize(json!({"token": "0123456789abcdef"}));
    let echo = echo_request(&json!(1), "tcp");
    let answers = exchange(&[shown.clone(), echo.clone()], false);
    assert_eq!(
        (&answers[0]["result"], &answers[1]["result"]),
        (&json!(true), &json!("tcp"))
    );
    // One batch, in order.
    let answers = exchange(&[json!([shown, echo])], false);
    assert_eq!(answers[0].as_array().unwrap().len(), 2);
    // Whatever else comes first is refused, and so is all that follows; what is there to be called is not told either.
    let wrong = authorize(json!({"token": "0123456789abcdeF"}));
    let unknown = json!({"jsonrpc": "2.0", "id": 1, "method": "nothing"});
    let methods = json!({"jsonrpc": "2.0", "id": 1, "method": "rpc_get_methods"});
    for first in [
        echo.clone(),
        unknown,
        methods,
        wrong,
        authorize(json!({})),
        authorize(json!({"token": 1})),
    ] {
        let answers = exchange(&[first, shown.clone(), echo.clone()], true);
        assert_eq!(answers.len(), 1, "the connection ends: {answers:?}");
        assert_eq!(answers[0]["error"]["code"], -1);
        let message = answers[0]["error"]["message"].to_string();
        assert!(message.contains("not authorized"), "{message}");
        assert!(!message.contains("0123"), "{message}");
    }
    let mut client =
        pollux_reactor::rpc::Client::connect(addr.to_string().as_ref(), Some(PATIENCE)).unwrap();
    client.authorize(&token()).unwrap();
    assert_eq!(
        client.call("echo", Some(json!({"text": "x"}))).unwrap(),
        "x"
    );
    running.stop();
    running.join();
}

#[test]
fn every_server_tells_what_it_can_do() {
    let fixture = Fixture::with("builtins", Server::wait_for_start);
    let mut client = fixture.client();
    let has =
        |answer: &Value, name: &str| answer["result"].as_array().unwrap().contains(&json!(name));
    let all = client.call("rpc_get_methods", json!({}));
    for name in [
        "rpc_get_methods",
        "framework_start_init",
        "echo",
        "set_early",
        "note",
    ] {
        assert!(has(&all, name), "{name}");
    }
    let current = client.call(
        "rpc_get_methods",
        json!({"current": true, "include_aliases": false}),
    );
    assert!(has(&current, "set_early") && has(&current, "note") && !has(&current, "echo"));

    // Before the start: some methods not yet.
    assert_eq!(
        client.call("echo", json!({"text": "x"}))["error"]["code"],
        -1
    );
    assert_eq!(
        client.call("set_early", json!({"text": "early"}))["result"],
        true
    );
    let mut waiting = fixture.client();
    waiting.send(br#"{"jsonrpc":"2.0","id":1,"method":"framework_wait_init"}"#);
    assert_eq!(
        client.call("framework_start_init", json!({}))["result"],
        true
    );
    assert_eq!(waiting.answer()["result"], true);
    assert_eq!(
        client.call("framework_start_init", json!({}))["error"]["code"],
        -1
    );
    assert_eq!(
        client.call("set_early", json!({"text": "late"}))["error"]["code"],
        -1
    );
    let current = client.call("rpc_get_methods", json!({"current": true}));
    assert!(!has(&current, "set_early") && has(&current, "echo"));

    let subsystems = client.call("framework_get_subsystems", json!({}));
    assert_eq!(subsystems["result"][0]["subsystem"], "store");
    let config = client.call("framework_get_config", json!({"name": "store"}));
    assert_eq!(config["result"], json!(["early"]));
    let unknown = client.call("framework_get_config", json!({"name": "none"}));
    assert_eq!(unknown["error"]["code"], -32602);
    assert!(client.call("spdk_get_version", json!({}))["result"]["version"].is_string());
    let signal = client.call("spdk_kill_instance", json!({"sig_name": "SIGNONE"}));
    assert_eq!(signal["error"]["code"], -32602);
}

fn config(calls: &[(&str, &str)]) -> Config {
    let calls: Vec<_> = calls
        .iter()
        .map(|(method, text)| json!({"method": method, "params": {"text": text}}))
        .collect();
    let file = json!({"subsystems": [{"subsystem": "store", "config": calls}]});
    Config::parse(&file.to_string()).unwrap()
}

#[test]
fn a_configuration_is_made_before_anybody_is_served() {
    let (told, outcome) = mpsc::channel();
    let fixture = Fixture::with("config", |server| {
        let calls = config(&[("set_early", "a"), ("note", "b"), ("elsewhere", "")]);
        // The third fails for its unknown parameter, which was asked to be ignored.
        server.configure(calls, true).unwrap();
        server.when_configured(move |result| told.send(result).unwrap());
    });
    outcome.recv_timeout(PATIENCE).unwrap().unwrap();
    let log = fixture.client().call("notes", json!({}));
    assert_eq!(log["result"], json!(["a", "b"]));
}

#[test]
fn a_configuration_that_fails_says_where() {
    let mut server = Server::new(methods());
    let error = server.configure(config(&[("note", "a"), ("none", "b")]), false);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("line 1:") && error.ends_with("entry 2 (none): unknown method 'none'"),
        "{error}"
    );
    let error = server.configure(config(&[("set_eraly", "a")]), false);
    let error = error.unwrap_err().to_string();
    assert!(
        error.ends_with("unknown method 'set_eraly', is 'set_early' meant?"),
        "{error}"
    );
    // Errors that are to be ignored include that one, and what tunes nothing here is none.
    let calls = config(&[("none", "b"), ("iobuf_set_options", "")]);
    server.configure(calls.clone(), true).unwrap();
    assert!(server.configure(calls, false).is_err());
    let calls = config(&[("iobuf_set_options", "")]);
    server.configure(calls, false).unwrap();

    let (told, outcome) = mpsc::channel();
    let fixture = Fixture::with("config-bad", |server| {
        let calls = config(&[("note", "a"), ("note", "bad"), ("note", "c")]);
        server.configure(calls, false).unwrap();
        server.when_configured(move |result| told.send(result).unwrap());
    });
    let error = outcome
        .recv_timeout(PATIENCE)
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("entry 2 (note)") && error.contains("-22"),
        "{error}"
    );
    drop(fixture);
}
