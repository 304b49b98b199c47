//! The service: clients, requests that are not answered yet, and the methods.

mod builtins;
mod clients;
mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};

use self::clients::READ_LEN;
use super::LOG_FLAG;
use super::config::{Config, ConfigCall, ConfigError, is_known_to_spdk};
use super::connection::Connection;
use super::endpoint::{self, EndpointError, SocketFile};
use super::files::FilesUnder;
use super::join::Join;
use super::methods::{Event, Methods, Post, RpcMessage};
use super::token::Token;
use crate::context::Context;
use crate::executor::Executor;
use crate::mailbox::{Receiver, mailbox};
use crate::net::{Listener, ListeningSocket};
use crate::service::{Progress, Service};
use crate::time::Time;

/// Answers and jobs taken per turn.
const EVENTS_MAX: usize = 64;

/// Messages that only say that there are events; the events themselves wait elsewhere, without limit.
const MAILBOX_CAPACITY: usize = 256;

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

    /// Stays in [`Phase::Startup`](super::Phase::Startup) until `framework_start_init` is called.
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
