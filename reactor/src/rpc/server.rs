//! The service: clients, requests that are not answered yet, and the methods.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::LOG_FLAG;
use super::config::{Config, ConfigCall, ConfigError, is_known_to_spdk};
use super::connection::{Connection, Filled, Next};
use super::endpoint::{self, EndpointError, SocketFile};
use super::error::RpcError;
use super::files::FilesUnder;
use super::join::Join;
use super::methods::{Event, Methods, Phase, Post, RpcMessage};
use super::params::Params;
use super::request::{self, Entry, Request, Requests};
use super::token::Token;
use crate::context::Context;
use crate::executor::Executor;
use crate::mailbox::{Receiver, mailbox};
use crate::net::{Listener, ListeningSocket};
use crate::service::{Progress, Service};
use crate::sys;
use crate::time::Time;

/// Clients at a time.
const CLIENTS_MAX: usize = 64;

/// Clients accepted per turn and socket.
const ACCEPTS_MAX: usize = 4;

/// How long nobody is accepted after the system could not.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// How long the log says nothing more of clients that are closed to make room.
const EVICTION_QUIET: Duration = Duration::from_secs(10);

/// Reads per client and turn, each of up to [`READ_LEN`] bytes.
const READS_MAX: usize = 4;
const READ_LEN: usize = 64 * 1024;

/// Answers and jobs taken per turn.
const EVENTS_MAX: usize = 64;

/// Messages that only say that there are events; the events themselves wait elsewhere, without limit.
const MAILBOX_CAPACITY: usize = 256;

/// The method by which a client shows the token.
const AUTHORIZE: &str = "pollux_authorize";

type Configured = Box<dyn FnOnce(Result<(), ConfigError>) + Send>;

/// A server that is being set up.
#[derive(Debug)]
pub struct Server {
    service: RpcService,
    receiver: Receiver<RpcMessage>,
}

impl Server {
    /// A server with `methods`, beside those that every server has: `rpc_get_methods`, `framework_start_init`,
    /// `framework_wait_init`, `framework_get_subsystems`, `framework_get_config`, `spdk_get_version` and
    /// `spdk_kill_instance`. It listens nowhere yet.
    pub fn new(methods: Methods) -> Server {
        let (bell, receiver) = mailbox(MAILBOX_CAPACITY);
        let (events, inbox) = mpsc::channel();
        Server {
            service: RpcService {
                methods,
                post: Post { events, bell },
                inbox,
                rung: true,
                sockets: Vec::new(),
                files: Vec::new(),
                listeners: Vec::new(),
                clients: BTreeMap::new(),
                pending: BTreeMap::new(),
                joins: BTreeMap::new(),
                batches: BTreeMap::new(),
                last_id: 0,
                accept_again: None,
                quiet_until: Time::ZERO,
                stage: Stage::Configuring,
                waits_for_start: false,
                config: VecDeque::new(),
                ignores_config_errors: false,
                configured: None,
                starting: None,
                waiting: Vec::new(),
                buffer: vec![0; READ_LEN].into(),
            },
            receiver,
        }
    }

    /// Listens on a Unix socket of mode 0600. A file that an ended program left there is replaced; the file is removed
    /// when the service ends.
    ///
    /// # Errors
    ///
    /// Somebody listens there, there is a file that is no socket, or what the system says.
    pub fn listen_unix(&mut self, path: &Path) -> Result<(), EndpointError> {
        let (listener, file) = endpoint::unix(path)?;
        let socket = ListeningSocket::Unix(listener);
        self.service.sockets.push((socket, None));
        self.service.files.push(file);
        Ok(())
    }

    /// Listens on TCP at a loopback address; port 0 takes a free one. Returns the address. Every user of this machine can
    /// connect there: clients show the token by a call of `pollux_authorize` before any other.
    ///
    /// # Errors
    ///
    /// It is no loopback address, or what the system says.
    pub fn listen_tcp(
        &mut self,
        addr: SocketAddr,
        token: Token,
    ) -> Result<SocketAddr, EndpointError> {
        let listener = endpoint::tcp(addr)?;
        let addr = listener
            .local_addr()
            .map_err(|e| EndpointError::Io(addr.to_string(), e))?;
        let socket = ListeningSocket::Tcp(listener);
        self.service.sockets.push((socket, Some(token.into())));
        Ok(addr)
    }

    /// Methods open no file from now on that is not in this folder, also for the calls of a configuration.
    pub fn confine_files(&mut self, files: FilesUnder) {
        self.service.methods.confine_files(files);
    }

    /// Stays in [`Phase::Startup`] until `framework_start_init` is called.
    pub fn wait_for_start(&mut self) {
        self.service.waits_for_start = true;
    }

    /// Makes the calls of `config` at the start (after `framework_start_init`, if that is waited for), one after the
    /// other; clients are served when they are done. The first that fails ends it, unless `ignore_errors`: then each is
    /// a line in the log. Calls of SPDK's programs that tune what is not here are left out, with one line that lists them.
    ///
    /// # Errors
    ///
    /// It has a method that there is not, and errors are not ignored.
    pub fn configure(&mut self, config: Config, ignore_errors: bool) -> Result<(), ConfigError> {
        let (mut known, mut left_out) = (VecDeque::new(), Vec::new());
        for call in config.calls {
            if self.service.methods.contains(&call.method) {
                known.push_back(call);
            } else if call.is_without_meaning() {
                if !left_out.contains(&call.method) {
                    left_out.push(call.method);
                }
            } else {
                let hint = match self.service.methods.nearest(&call.method) {
                    Some(name) => format!(", is '{name}' meant?"),
                    None => String::new(),
                };
                let error = format!("{}: unknown method '{}'{hint}", call.place, call.method);
                if !ignore_errors {
                    return Err(ConfigError(error));
                }
                log::warn!(target: LOG_FLAG, "configuration, {error}");
            }
        }
        let is_known = |name: &str| {
            is_known_to_spdk(name) || self.service.methods.subsystems().any(|s| s == name)
        };
        for name in config.empty.iter().filter(|name| !is_known(name)) {
            log::warn!(target: LOG_FLAG, "configuration: there is no subsystem '{name}'; it has no calls, and is left out");
        }
        if !left_out.is_empty() {
            let left_out = left_out.join(", ");
            log::warn!(target: LOG_FLAG, "configuration: without effect here, left out: {left_out}");
        }
        self.service.config = known;
        self.service.ignores_config_errors = ignore_errors;
        Ok(())
    }

    /// Calls `told` on the server's reactor once the configuration is done: at once without one. After an error the server
    /// serves nobody, and what was configured so far stands; the program is expected to end.
    pub fn when_configured(&mut self, told: impl FnOnce(Result<(), ConfigError>) + Send + 'static) {
        self.service.configured = Some(Box::new(told));
    }

    /// Has it serve from `reactor`, with all that was registered, from the start.
    pub fn install(self, executor: &mut impl Executor, reactor: usize) {
        executor.add_service(reactor, self.receiver, move || self.service);
    }
}

/// Whom an answer is for.
#[derive(Debug)]
enum Origin {
    Client {
        client: u64,
        /// As it was written; `None`: no answer is wanted.
        id: Option<Box<str>>,
        batch: Option<u64>,
    },
    Config(Box<ConfigCall>),
    /// The answer of one of several modules to this request.
    Part {
        of: u64,
        nth: usize,
    },
}

/// A batch that is not answered yet.
#[derive(Debug)]
struct Batch {
    missing: usize,
    answers: Vec<String>,
}

/// How far the start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits for `framework_start_init`.
    Startup,
    /// The configuration's calls are being made.
    Configuring,
    /// One of them has failed.
    Failed,
    Runtime,
}

/// Serves clients; see [`Server`].
pub(super) struct RpcService {
    methods: Methods,
    post: Post,
    inbox: mpsc::Receiver<Event>,
    /// There may be events in the inbox.
    rung: bool,
    /// Sockets that the reactor does not watch yet.
    sockets: Vec<(ListeningSocket, Option<Arc<Token>>)>,
    /// Kept for their drop.
    files: Vec<SocketFile>,
    /// With the token that is to be shown by those who come there.
    listeners: Vec<(Listener, Option<Arc<Token>>)>,
    clients: BTreeMap<u64, Connection>,
    pending: BTreeMap<u64, Origin>,
    /// Requests that several modules answer together.
    joins: BTreeMap<u64, Join>,
    batches: BTreeMap<u64, Batch>,
    last_id: u64,
    /// Nobody is accepted before.
    accept_again: Option<Time>,
    /// Closed clients are not a line in the log before.
    quiet_until: Time,
    stage: Stage,
    waits_for_start: bool,
    config: VecDeque<ConfigCall>,
    ignores_config_errors: bool,
    configured: Option<Configured>,
    /// The call of `framework_start_init` that is not answered yet.
    starting: Option<u64>,
    /// Calls of `framework_wait_init` that are not answered yet.
    waiting: Vec<u64>,
    buffer: Box<[u8]>,
}

impl RpcService {
    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn accept(&mut self, cx: &mut Context<'_>) -> Progress {
        // Whoever comes while the configuration is made waits until it stands.
        if matches!(self.stage, Stage::Configuring | Stage::Failed) && !self.waits_for_start {
            return Progress::Idle;
        }
        if self.accept_again.is_some_and(|again| cx.now() < again) {
            return Progress::Idle;
        }
        self.accept_again = None;
        let mut progress = Progress::Idle;
        let mut streams = Vec::new();
        for (listener, token) in &mut self.listeners {
            for _ in 0..ACCEPTS_MAX {
                match listener.accept_stream(cx.net()) {
                    Ok(Some(stream)) => streams.push((stream, token.clone())),
                    Ok(None) => break,
                    // A client that is gone already, or no descriptors: to ask again at once would cost every turn.
                    Err(_) => {
                        self.accept_again = Some(cx.now() + ACCEPT_BACKOFF);
                        break;
                    }
                }
                progress = Progress::Busy;
            }
        }
        for (stream, token) in streams {
            let mut connection = Connection::new(stream, token);
            connection.last = cx.now();
            if self.clients.len() >= CLIENTS_MAX {
                self.end_idlest(cx.now());
            }
            let id = self.new_id();
            self.clients.insert(id, connection);
        }
        progress
    }

    /// Ends one client to make room for another, so that those who hold connections lock nobody out: first one that has
    /// never asked for anything, then one that waits for nothing, then any; of these the one that was silent longest.
    /// What was asked for goes on; the answer finds nobody.
    fn end_idlest(&mut self, now: Time) {
        let idlest = self.clients.iter().min_by_key(|(_, client)| {
            let busy = client.outstanding > 0 || client.has_unsent();
            (busy, client.has_asked, client.last)
        });
        if let Some((&id, _)) = idlest {
            self.clients.remove(&id);
            if now >= self.quiet_until {
                self.quiet_until = now + EVICTION_QUIET;
                log::warn!(target: LOG_FLAG, "more than {CLIENTS_MAX} management clients: the longest idle are closed");
            }
        }
    }

    /// Reads a client's requests and starts them.
    fn serve(&mut self, id: u64, now: Time) {
        let mut reads = 0;
        while let Some(client) = self.clients.get_mut(&id) {
            client.is_due = false;
            if client.is_full() || client.is_closing() {
                return;
            }
            match client.next() {
                Next::Value(value) => {
                    client.outstanding += 1;
                    client.has_asked = true;
                    client.last = now;
                    self.start(id, &value);
                    continue;
                }
                Next::Fault(error) => {
                    client.push(&answer_text("null", &Err(error)));
                    return;
                }
                Next::Nothing => {}
            }
            if reads == READS_MAX {
                client.is_due = true;
                return;
            }
            reads += 1;
            match client.fill(&mut self.buffer) {
                Ok(Filled::Some) => {}
                Ok(Filled::Nothing) => return,
                Ok(Filled::End) => {
                    if let Some(error) = client.on_end() {
                        client.push(&answer_text("null", &Err(error)));
                    }
                    return;
                }
                Err(_) => {
                    // What it has asked for goes on; the answers find nobody.
                    self.clients.remove(&id);
                    return;
                }
            }
        }
    }

    /// Starts all requests of one value.
    fn start(&mut self, client: u64, value: &[u8]) {
        match request::read(value) {
            Err(error) => {
                let text = answer_text("null", &Err(error));
                self.post_answer(client, Some(text));
                if let Some(connection) = self.clients.get_mut(&client) {
                    connection.stop_reading();
                }
            }
            Ok(Requests::One(entry)) => self.start_one(client, entry, None),
            Ok(Requests::Batch(entries)) => {
                let key = self.new_id();
                let batch = Batch {
                    missing: entries.len(),
                    answers: Vec::new(),
                };
                self.batches.insert(key, batch);
                for entry in entries {
                    self.start_one(client, entry, Some(key));
                }
            }
        }
    }

    fn start_one(&mut self, client: u64, entry: Entry, batch: Option<u64>) {
        let key = self.new_id();
        let (id, run) = match entry {
            Ok(Request { id, method, params }) => (id, Ok((method, params))),
            Err((id, error)) => (Some(id), Err(error)),
        };
        self.pending
            .insert(key, Origin::Client { client, id, batch });
        let result = match run {
            Ok((method, params)) => params.and_then(|params| match method.as_str() {
                AUTHORIZE => self.authorize(client, params),
                _ => {
                    self.check_authorized(client)?;
                    self.call(&method, params, key)
                }
            }),
            Err(error) => Err(error),
        };
        match result {
            Ok(None) => {}
            Ok(Some(value)) => self.answer(key, Ok(value)),
            Err(error) => self.answer(key, Err(error)),
        }
    }

    /// `pollux_authorize`: the client shows its token. Where none is needed any will do, so that scripts need not ask.
    fn authorize(&mut self, client: u64, mut params: Params) -> Result<Option<Value>, RpcError> {
        let shown = params.required::<String>("token");
        let shown = shown.and_then(|shown| params.finish().map(|()| shown));
        if let (Ok(shown), Some(connection)) = (&shown, self.clients.get_mut(&client)) {
            connection.token.take_if(|token| token.is(shown));
        }
        self.check_authorized(client)?;
        shown.map(|_| Some(Value::Bool(true)))
    }

    /// Ends a client that has not shown its token: one that guesses has to come again for each guess.
    fn check_authorized(&mut self, client: u64) -> Result<(), RpcError> {
        match self.clients.get_mut(&client) {
            Some(connection) if connection.token.is_some() => {
                connection.stop_reading();
                Err(RpcError::new(
                    -1,
                    "not authorized: the first call must be pollux_authorize with the token of this program (--rpc-token-file)",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Calls a method. `None`: it answers by an event.
    fn call(
        &mut self,
        method: &str,
        mut params: Params,
        key: u64,
    ) -> Result<Option<Value>, RpcError> {
        log::trace!(target: LOG_FLAG, "request {key}: {method}");
        if let Some(result) = self.call_builtin(method, &mut params, key) {
            return result;
        }
        let running = self.stage == Stage::Runtime;
        match self.methods.phase(method) {
            None => return Err(RpcError::method_not_found()),
            Some(Phase::Startup) if running => {
                return Err(RpcError::new(
                    -1,
                    format!("{method} may only be called before framework_start_init"),
                ));
            }
            Some(Phase::Runtime) if !running => {
                return Err(RpcError::new(
                    -1,
                    format!("{method} may only be called after framework_start_init"),
                ));
            }
            Some(_) => {}
        }
        self.call_all(method, &params, key);
        Ok(None)
    }

    /// Calls the method of every module that has it; the answer comes by an event.
    fn call_all(&mut self, method: &str, params: &Params, key: u64) {
        self.rung = true;
        let modules = self.methods.having(method);
        for (nth, key) in self.parts(modules, key) {
            let params = params.clone();
            self.methods.call((method, nth), params, key, &self.post);
        }
    }

    /// The request under which each of several modules is asked, of which the answers are that of `key`.
    fn parts(&mut self, modules: usize, key: u64) -> Vec<(usize, u64)> {
        if modules == 1 {
            return vec![(0, key)];
        }
        self.joins.insert(key, Join::new(modules));
        let parts = (0..modules).map(|nth| {
            let part = self.new_id();
            self.pending.insert(part, Origin::Part { of: key, nth });
            (nth, part)
        });
        parts.collect()
    }

    /// The methods that every server has; `None`: it is none of them.
    fn call_builtin(
        &mut self,
        method: &str,
        params: &mut Params,
        key: u64,
    ) -> Option<Result<Option<Value>, RpcError>> {
        Some(match method {
            "rpc_get_methods" => self.get_methods(params).map(Some),
            "framework_start_init" => params.finish().and_then(|()| self.start_init(key)),
            "framework_wait_init" => params.finish().map(|()| {
                if self.stage == Stage::Runtime {
                    return Some(Value::Bool(true));
                }
                self.waiting.push(key);
                None
            }),
            "framework_get_subsystems" => params.finish().map(|()| {
                let list = self.methods.subsystems();
                let list = list.map(|name| json!({"subsystem": name, "depends_on": []}));
                Some(list.collect())
            }),
            "framework_get_config" => self.get_config(params, key),
            "spdk_get_version" => params.finish().map(|()| Some(version())),
            "spdk_kill_instance" => kill(params).map(Some),
            _ => return None,
        })
    }

    fn get_methods(&self, params: &mut Params) -> Result<Value, RpcError> {
        let current = params.optional("current")?.unwrap_or(false);
        // There are no aliases.
        params.unused::<bool>(&["include_aliases"])?;
        params.finish()?;
        let running = self.stage == Stage::Runtime;
        let callable = |phase: &Phase| match phase {
            Phase::Any => true,
            Phase::Startup => !running,
            Phase::Runtime => running,
        };
        let mut names: Vec<&str> = BUILTINS
            .iter()
            .copied()
            .chain(self.methods.names())
            .filter(|(_, phase)| !current || callable(phase))
            .map(|(name, _)| name)
            .collect();
        names.sort_unstable();
        Ok(names.into())
    }

    fn get_config(&mut self, params: &mut Params, key: u64) -> Result<Option<Value>, RpcError> {
        let name: String = params.required("name")?;
        params.unused::<bool>(&["with_batches"])?;
        params.finish()?;
        let modules = self.methods.configuring(&name);
        if modules == 0 {
            return Err(RpcError::invalid_params(format!(
                "subsystem '{name}' not found"
            )));
        }
        self.rung = true;
        for (nth, key) in self.parts(modules, key) {
            self.methods.configuration((&name, nth), key, &self.post);
        }
        Ok(None)
    }

    fn start_init(&mut self, key: u64) -> Result<Option<Value>, RpcError> {
        if self.stage != Stage::Startup {
            return Err(RpcError::new(
                -1,
                "framework_start_init was called already, or nothing waits for it",
            ));
        }
        self.starting = Some(key);
        self.stage = Stage::Configuring;
        self.next_config_call();
        Ok(None)
    }

    /// Makes the next call of the configuration, or goes over to normal work.
    fn next_config_call(&mut self) {
        let Some(call) = self.config.pop_front() else {
            return self.finish_start(Ok(()));
        };
        let key = self.new_id();
        let params = Params::new(call.params.clone());
        let method = call.method.clone();
        self.pending.insert(key, Origin::Config(Box::new(call)));
        // Its name was looked up when the configuration was given.
        assert!(
            self.methods.contains(&method),
            "there is no method '{method}' any more"
        );
        self.call_all(&method, &params, key);
    }

    fn finish_start(&mut self, result: Result<(), ConfigError>) {
        self.stage = match &result {
            Ok(()) => Stage::Runtime,
            Err(_) => Stage::Failed,
        };
        let answer = match &result {
            Ok(()) => Ok(Value::Bool(true)),
            Err(error) => Err(RpcError::internal(error.to_string())),
        };
        let waiting = std::mem::take(&mut self.waiting);
        for key in self.starting.take().into_iter().chain(waiting) {
            self.answer(key, answer.clone());
        }
        if let Some(told) = self.configured.take() {
            told(result);
        }
    }

    /// A request has its answer.
    fn answer(&mut self, key: u64, result: Result<Value, RpcError>) {
        if let Err(error) = &result {
            log::debug!(target: LOG_FLAG, "request {key}: {error}");
        }
        let (client, id, batch) = match self.pending.remove(&key) {
            None => unreachable!("request {key} is answered twice"),
            Some(Origin::Config(call)) => return self.on_config_answer(&call, result),
            Some(Origin::Part { of, nth }) => return self.answer_part(of, nth, result),
            Some(Origin::Client { client, id, batch }) => (client, id, batch),
        };
        let text = id.map(|id| answer_text(&id, &result));
        let text = match batch {
            None => text,
            Some(batch) => {
                let Some(all) = self.batches.get_mut(&batch) else {
                    unreachable!("request {key} is of a batch that is answered");
                };
                all.answers.extend(text);
                all.missing -= 1;
                if all.missing > 0 {
                    return;
                }
                let answers = std::mem::take(&mut all.answers);
                self.batches.remove(&batch);
                (!answers.is_empty()).then(|| format!("[{}]", answers.join(",")))
            }
        };
        self.post_answer(client, text);
    }

    /// One of several modules has answered.
    fn answer_part(&mut self, key: u64, nth: usize, result: Result<Value, RpcError>) {
        let Some(join) = self.joins.get_mut(&key) else {
            unreachable!("request {key} is answered by more modules than were asked");
        };
        if let Some(answer) = join.put(nth, result) {
            self.joins.remove(&key);
            self.answer(key, answer);
        }
    }

    /// The client may have gone meanwhile: then nobody reads the answer.
    fn post_answer(&mut self, client: u64, text: Option<String>) {
        if let Some(connection) = self.clients.get_mut(&client) {
            if let Some(text) = text {
                connection.push(&text);
            }
            let was_full = connection.is_full();
            connection.outstanding -= 1;
            if was_full && !connection.is_full() {
                connection.is_due = true;
            }
        }
    }

    fn on_config_answer(&mut self, call: &ConfigCall, result: Result<Value, RpcError>) {
        match result {
            Err(error) if !self.ignores_config_errors => {
                self.config.clear();
                self.finish_start(Err(ConfigError(format!("{}: {error}", call.place))));
            }
            Err(error) => {
                log::warn!(target: LOG_FLAG, "configuration, {}: {error}", call.place);
                self.next_config_call();
            }
            Ok(_) => self.next_config_call(),
        }
    }

    /// Takes answers and jobs.
    fn take_events(&mut self) -> Progress {
        if !std::mem::take(&mut self.rung) {
            return Progress::Idle;
        }
        for _ in 0..EVENTS_MAX {
            match self.inbox.try_recv() {
                Ok(Event::Answer { request, result }) => self.answer(request, result),
                Ok(Event::Run { module, job }) => self.methods.run(module, job),
                Err(_) => return Progress::Busy,
            }
        }
        self.rung = true;
        Progress::Busy
    }

    fn flush(&mut self) {
        self.clients.retain(|_, client| {
            let was_full = client.is_full();
            let alive = client.flush().is_ok();
            if was_full && !client.is_full() {
                client.is_due = true;
            }
            alive && !client.is_finished()
        });
    }
}

impl Service for RpcService {
    type Message = RpcMessage;

    fn on_start(&mut self, cx: &mut Context<'_>) {
        for (socket, token) in self.sockets.drain(..) {
            match cx.net().take_listener(socket) {
                Ok(listener) => self.listeners.push((listener, token)),
                Err(error) => {
                    // No descriptor is left for the reactor's own event queue: nothing will work.
                    let error = ConfigError(format!("management socket: {error}"));
                    if let Some(told) = self.configured.take() {
                        told(Err(error));
                    }
                }
            }
        }
        if self.waits_for_start {
            self.stage = Stage::Startup;
        } else {
            self.next_config_call();
        }
    }

    fn on_message(&mut self, RpcMessage(()): RpcMessage, _cx: &mut Context<'_>) {
        self.rung = true;
    }

    fn deadline(&self) -> Option<Time> {
        self.accept_again
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = self.accept(cx);
        let mut due = Vec::new();
        for (&id, client) in &mut self.clients {
            if client.take_ready() | client.is_due {
                due.push(id);
            }
        }
        let is_any_due = !due.is_empty();
        for id in due {
            self.serve(id, cx.now());
            progress = Progress::Busy;
        }
        progress = progress.or(self.take_events());
        if is_any_due || progress == Progress::Busy {
            self.flush();
        }
        progress
    }

    fn on_stop(&mut self, _cx: &mut Context<'_>) {
        self.listeners.clear();
        self.files.clear();
        // What has been answered is still sent, as far as the clients take it.
        while let Ok(event) = self.inbox.try_recv() {
            if let Event::Answer { request, result } = event {
                self.answer(request, result);
            }
        }
        self.flush();
    }
}

impl std::fmt::Debug for RpcService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcService")
            .field("stage", &self.stage)
            .field("clients", &self.clients.len())
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

const BUILTINS: [(&str, Phase); 8] = [
    ("framework_get_config", Phase::Any),
    ("framework_get_subsystems", Phase::Any),
    ("framework_start_init", Phase::Startup),
    ("framework_wait_init", Phase::Any),
    (AUTHORIZE, Phase::Any),
    ("rpc_get_methods", Phase::Any),
    ("spdk_get_version", Phase::Any),
    ("spdk_kill_instance", Phase::Any),
];

/// The text of an answer; `id` is JSON already.
fn answer_text(id: &str, result: &Result<Value, RpcError>) -> String {
    match result {
        Ok(value) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{value}}}"#),
        Err(error) => {
            let error = error.to_value();
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
        }
    }
}

fn version() -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let parts = ["major", "minor", "patch"].into_iter();
    let parts = parts.zip(version.split('.').map(str::parse::<u32>));
    let mut fields = Map::new();
    for (name, part) in parts {
        #[expect(clippy::expect_used, reason = "the package's version is ours")]
        let part = part.expect("a version is made of numbers");
        fields.insert(name.into(), part.into());
    }
    fields.insert("suffix".into(), "".into());
    json!({"version": format!("Pollux v{version}"), "fields": fields})
}

fn kill(params: &mut Params) -> Result<Value, RpcError> {
    let signal = params.one_of("sig_name", &sys::SIGNALS)?;
    params.finish()?;
    let signal = signal.ok_or_else(|| RpcError::invalid_params("'sig_name' is missing"))?;
    match sys::signal_self(signal) {
        Ok(()) => Ok(Value::Bool(true)),
        Err(error) => Err(RpcError::internal(error.to_string())),
    }
}
