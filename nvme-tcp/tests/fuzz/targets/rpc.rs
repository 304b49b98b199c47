//! A client of the management server that sends anything. What it gets back are answers, and whoever comes next is served.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use pollux_reactor::rpc::{Answer, Call, MethodResult, Methods, Phase, Server};
use pollux_reactor::{Group, Idle};
use serde_json::{Deserializer, Value};

struct Nothing;

/// Takes parameters of every kind.
fn try_all(_: &mut Nothing, call: &mut Call<Nothing>) -> MethodResult {
    let number: u64 = call.params.required("number")?;
    let small: Option<u16> = call.params.optional("small")?;
    let name: Option<String> = call.params.optional("name")?;
    let flag: Option<bool> = call.params.optional("flag")?;
    let inner = call.params.object("inner")?;
    let way = call.params.one_of("way", &[("here", 1), ("there", 2)])?;
    call.params.finish()?;
    let has_inner = inner.is_some();
    Ok(Answer::Now(serde_json::json!([
        number, small, name, flag, has_inner, way
    ])))
}

/// The server, which is there until the process ends.
fn server() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let name = format!("pollux-fuzz-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut methods = Methods::new();
        methods
            .module(Nothing)
            .method("try_all", Phase::Runtime, try_all);
        let mut server = Server::new(methods);
        server.listen_unix(&path).unwrap();
        let mut group = Group::new();
        let after = Duration::from_micros(50);
        let reactor = group.add_reactor(None, Idle::Park { after });
        server.install(&mut group, reactor);
        std::mem::forget(group.start().unwrap());
        path
    })
}

pub fn run(bytes: &[u8]) {
    let mut stream = UnixStream::connect(server()).unwrap();
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    // The server may have seen enough before all is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answers) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        return;
    }
    for value in Deserializer::from_slice(&answers).into_iter::<Value>() {
        let value = value.unwrap();
        let answers = value
            .as_array()
            .map_or(std::slice::from_ref(&value), Vec::as_slice);
        for answer in answers {
            assert_eq!(answer["jsonrpc"], "2.0", "{value}");
            let is_error = answer.get("error").is_some();
            assert_ne!(answer.get("result").is_some(), is_error, "{value}");
        }
    }
}
