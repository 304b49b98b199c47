//! What can be called, and how an answer comes back.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, mpsc};

use serde_json::Value;

use super::error::RpcError;
use super::files::FilesUnder;
use super::names::Place;
use super::params::Params;
use crate::mailbox::Sender;

/// When a method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Before `framework_start_init` only.
    Startup,
    /// After it only; a server that does not wait for it starts there.
    Runtime,
    /// Always.
    Any,
}

/// How a method has gone so far.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// It is done; this is its result.
    Now(Value),
    /// Its [`Responder`] was taken out of the call, and will answer.
    Later,
}

/// What a method returns.
pub type MethodResult = Result<Answer, RpcError>;

/// A method on the state of its module.
pub type Handler<S> = fn(&mut S, &mut Call<S>) -> MethodResult;

/// One call of a method.
#[derive(Debug)]
pub struct Call<S> {
    /// Its parameters.
    pub params: Params,
    /// The way back to the module's state.
    pub mail: Mail<S>,
    responder: Option<Responder>,
}

impl<S> Call<S> {
    /// Takes the responder, to answer later; the method then returns [`Answer::Later`].
    ///
    /// # Errors
    ///
    /// It was taken before.
    pub fn responder(&mut self) -> Result<Responder, RpcError> {
        self.responder
            .take()
            .ok_or_else(|| RpcError::internal("answered twice"))
    }
}

/// What happens to a server outside of its sockets.
pub(super) enum Event {
    Answer {
        request: u64,
        result: Result<Value, RpcError>,
    },
    Run {
        module: usize,
        job: Job,
    },
}

type Job = Box<dyn FnOnce(&mut dyn Any) + Send>;

/// A message to a server: there is something to look at. Made by responders and by mail only.
#[derive(Debug)]
pub(super) struct RpcMessage(pub(super) ());

/// The way into a server from any thread. Events are not lost however many there are; the message only says that there
/// are some, so a full mailbox, which holds such messages already, is no loss.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) bell: Sender<RpcMessage>,
}

impl Post {
    pub(super) fn send(&self, event: Event) {
        // Refused only by a server that has ended, and then nobody waits. A mailbox that is full has rung already.
        if self.events.send(event).is_ok() {
            let _ = self.bell.send(RpcMessage(()));
        }
    }
}

/// Answers one request, now or later, from any thread. One that is dropped answers that the request was cancelled.
#[derive(Debug)]
pub struct Responder {
    request: u64,
    post: Option<Post>,
}

impl Responder {
    pub(super) fn new(request: u64, post: Post) -> Responder {
        Responder {
            request,
            post: Some(post),
        }
    }

    /// Answers.
    pub fn answer(mut self, result: Result<Value, RpcError>) {
        self.send(result);
    }

    /// Another responder answers the request.
    fn hand_on(mut self) {
        self.post = None;
    }

    fn send(&mut self, result: Result<Value, RpcError>) {
        if let Some(post) = self.post.take() {
            post.send(Event::Answer {
                request: self.request,
                result,
            });
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.send(Err(RpcError::internal("the request was cancelled")));
    }
}

/// Runs closures on a module's state, on the server's reactor, from any thread.
pub struct Mail<S> {
    module: usize,
    post: Post,
    state: PhantomData<fn(&mut S)>,
}

impl<S: 'static> Mail<S> {
    /// Runs `job` soon, after those that were sent before from the same thread. It must not block.
    pub fn run(&self, job: impl FnOnce(&mut S) + Send + 'static) {
        self.post.send(Event::Run {
            module: self.module,
            job: Box::new(|state| job(state_of(state))),
        });
    }
}

impl<S> Clone for Mail<S> {
    fn clone(&self) -> Mail<S> {
        Mail {
            module: self.module,
            post: self.post.clone(),
            state: PhantomData,
        }
    }
}

impl<S> fmt::Debug for Mail<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mail")
            .field("module", &self.module)
            .finish_non_exhaustive()
    }
}

/// A module's state as what it was added as.
#[expect(
    clippy::expect_used,
    reason = "a module's number is given out with its state's type"
)]
fn state_of<S: 'static>(state: &mut dyn Any) -> &mut S {
    state.downcast_mut().expect("the state of another module")
}

type Function = Arc<dyn Fn(&mut dyn Any, Params, u64, &Post) + Send + Sync>;

struct Method {
    module: usize,
    phase: Phase,
    function: Function,
    /// Where an address is expected and the name of a host may stand.
    address: Option<Place>,
}

/// The methods of a server, by module.
#[derive(Default)]
pub struct Methods {
    states: Vec<Box<dyn Any + Send>>,
    /// Of each name the methods of the modules that have it: one, unless they are joined.
    methods: BTreeMap<&'static str, Vec<Method>>,
    is_joined: bool,
    /// Subsystems in the order in which their configuration is to be loaded, with the method that gives it.
    subsystems: Vec<(&'static str, Method)>,
    files: Option<FilesUnder>,
}

impl Methods {
    /// No methods but those that every server has.
    pub fn new() -> Methods {
        Methods::default()
    }

    /// The same, for modules that have methods of the same names, such as those of a host and of a target: a call goes to
    /// all that have the method, and their answers are joined. Lists and objects become one; what one module does not know
    /// (ENODEV) another one may; any other error of one is the answer. So are the subsystems of the configuration.
    pub fn joined() -> Methods {
        Methods {
            is_joined: true,
            ..Methods::default()
        }
    }

    /// Leaves a method that several modules have to the last of them that was added.
    pub fn leave_to_last(&mut self, name: &str) {
        if let Some(methods) = self.methods.get_mut(name) {
            methods.drain(..methods.len() - 1);
        }
    }

    fn add(&mut self, name: &'static str, method: Method) {
        let methods = self.methods.entry(name).or_default();
        let is_other = |m: &Method| m.module != method.module;
        match self.is_joined {
            true => methods.retain(is_other),
            false => methods.clear(),
        }
        methods.push(method);
    }

    /// Adds a module with `state`; its methods are added to what is returned.
    pub fn module<S: Send + 'static>(&mut self, state: S) -> ModuleMethods<'_, S> {
        self.states.push(Box::new(state));
        ModuleMethods {
            module: self.states.len() - 1,
            methods: self,
            state: PhantomData,
        }
    }

    /// Whether there is a method of this name, other than those that every server has.
    pub fn contains(&self, name: &str) -> bool {
        self.methods.contains_key(name)
    }

    /// The name that a misspelt one is probably meant to be.
    pub(super) fn nearest(&self, name: &str) -> Option<&'static str> {
        let likeness = self
            .methods
            .keys()
            .map(|&known| (strsim::damerau_levenshtein(known, name), known));
        let (distance, nearest) = likeness.min()?;
        (distance <= name.len() / 5).then_some(nearest)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&'static str, Phase)> {
        self.methods
            .iter()
            .filter_map(|(&name, m)| Some((name, m.first()?.phase)))
    }

    pub(super) fn subsystems(&self) -> impl Iterator<Item = &'static str> {
        let all = self.subsystems.iter().enumerate();
        let first = all
            .filter(|(n, (name, _))| self.subsystems[..*n].iter().all(|(other, _)| other != name));
        first.map(|(_, &(name, _))| name)
    }

    pub(super) fn phase(&self, name: &str) -> Option<Phase> {
        self.methods.get(name)?.first().map(|m| m.phase)
    }

    /// Methods open no files but these.
    pub(super) fn confine_files(&mut self, files: FilesUnder) {
        self.files = Some(files);
    }

    /// How many modules have a method of this name.
    pub(super) fn having(&self, name: &str) -> usize {
        self.methods.get(name).map_or(0, Vec::len)
    }

    /// How many modules have part of the configuration of a subsystem.
    pub(super) fn configuring(&self, name: &str) -> usize {
        self.subsystems.iter().filter(|(n, _)| *n == name).count()
    }

    /// Calls a method of the nth module that has one of that name.
    pub(super) fn call(
        &mut self,
        (name, nth): (&str, usize),
        mut params: Params,
        request: u64,
        post: &Post,
    ) {
        params.confine_files(self.files.clone());
        let method = self.methods.get(name).and_then(|methods| methods.get(nth));
        if let Some(method) = method {
            method.call(&mut self.states, params, request, post);
        }
    }

    /// Asks the nth module that has part of it for the configuration of a subsystem.
    pub(super) fn configuration(&mut self, (name, nth): (&str, usize), request: u64, post: &Post) {
        let mut subsystems = self.subsystems.iter().filter(|(n, _)| *n == name);
        if let Some((_, method)) = subsystems.nth(nth) {
            method.call(&mut self.states, Params::default(), request, post);
        }
    }

    pub(super) fn run(&mut self, module: usize, job: Job) {
        job(&mut *self.states[module]);
    }
}

impl Method {
    fn call(&self, states: &mut [Box<dyn Any + Send>], params: Params, request: u64, post: &Post) {
        let named = self.address.as_ref();
        let named = named.and_then(|place| Some((place, place.name(&params)?)));
        let Some((place, name)) = named else {
            return (self.function)(&mut *states[self.module], params, request, post);
        };
        let (module, function) = (self.module, Arc::clone(&self.function));
        let (back, responder) = (post.clone(), Responder::new(request, post.clone()));
        place.resolve(name, params, move |resolved| match resolved {
            Ok(params) => {
                let post = back.clone();
                let job: Job = Box::new(move |state| {
                    responder.hand_on();
                    function(state, params, request, &post);
                });
                back.send(Event::Run { module, job });
            }
            Err(error) => responder.answer(Err(error)),
        });
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.methods.keys()).finish()
    }
}

/// Adds methods to a module.
#[derive(Debug)]
pub struct ModuleMethods<'a, S> {
    methods: &'a mut Methods,
    module: usize,
    state: PhantomData<fn(&mut S)>,
}

impl<S: Send + 'static> ModuleMethods<'_, S> {
    /// Adds a method. A later one of the same name takes its place, unless it is of another module and the methods are
    /// [joined](Methods::joined).
    pub fn method(self, name: &'static str, phase: Phase, handler: Handler<S>) -> Self {
        let method = self.bind(phase, handler);
        self.methods.add(name, method);
        self
    }

    /// Adds a method that takes an address: `traddr`, beside `adrfam`, in its parameters or in the object `object` of them.
    /// The name of a host may stand there; the method sees the address that it has, once it was looked up.
    pub fn method_with_address(
        self,
        name: &'static str,
        object: Option<&'static str>,
        phase: Phase,
        handler: Handler<S>,
    ) -> Self {
        let mut method = self.bind(phase, handler);
        method.address = Some(Place::new(object));
        self.methods.add(name, method);
        self
    }

    /// Adds a subsystem for `framework_get_config`: the handler gives the list of calls that make the present state
    /// again, each an object with `method` and `params`. Subsystems are loaded in the order in which they were added.
    pub fn subsystem(self, name: &'static str, handler: Handler<S>) -> Self {
        let method = self.bind(Phase::Any, handler);
        self.methods.subsystems.push((name, method));
        self
    }

    fn bind(&self, phase: Phase, handler: Handler<S>) -> Method {
        let module = self.module;
        let function: Function = Arc::new(move |state, params, request, post| {
            let mut call = Call {
                params,
                mail: Mail {
                    module,
                    post: post.clone(),
                    state: PhantomData,
                },
                responder: Some(Responder::new(request, post.clone())),
            };
            let result = match handler(state_of(state), &mut call) {
                Ok(Answer::Later) => return,
                Ok(Answer::Now(value)) => Ok(value),
                Err(error) => Err(error),
            };
            // A method that fails after it took the responder has dropped that, which has answered by itself.
            match call.responder {
                Some(responder) => responder.answer(result),
                None => assert!(result.is_err(), "a method has answered twice"),
            }
        });
        Method {
            module,
            phase,
            function,
            address: None,
        }
    }
}
