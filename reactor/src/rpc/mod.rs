//! Management by JSON-RPC 2.0, as a poll-mode [`Service`](crate::Service).
//!
//! A [`Server`] listens on a Unix socket, on TCP at loopback, or on both. Requests need no framing: each is complete when
//! its JSON value is complete; they may follow each other at once, be split at any byte, and come in batches. No request
//! holds up another one: a method that cannot answer at once keeps its [`Responder`] and answers later, from any thread,
//! and answers go out in the order in which they come in.
//!
//! What can be called stands in [`Methods`]: modules, each with a state that only the server's reactor touches, and
//! functions on that state. A closure that runs on another reactor gets back to the state by [`Mail`].
//! [`observe`] adds those that tell how the reactors are, and [`logging`](crate::logging) those that say how much is
//! logged.
//!
//! ```
//! use pollux_reactor::rpc::{Answer, Call, Methods, MethodResult, Phase, Server};
//!
//! struct Counter(u64);
//!
//! fn add(counter: &mut Counter, call: &mut Call<Counter>) -> MethodResult {
//!     let n: u64 = call.params.required("n")?;
//!     call.params.finish()?;
//!     counter.0 += n;
//!     Ok(Answer::Now(counter.0.into()))
//! }
//!
//! let mut methods = Methods::new();
//! methods.module(Counter(0)).method("counter_add", Phase::Runtime, add);
//! let path = std::env::temp_dir().join(format!("pollux-doc-{}.sock", std::process::id()));
//! let mut server = Server::new(methods);
//! server.listen_unix(&path)?;
//! let mut group = pollux_reactor::Group::new();
//! let reactor = group.add_reactor(None, pollux_reactor::Idle::Yield);
//! server.install(&mut group, reactor);
//! let running = group.start()?;
//!
//! let mut client = pollux_reactor::rpc::Client::connect(&path, None)?;
//! let params = serde_json::json!({"n": 5});
//! assert_eq!(client.call("counter_add", Some(params))?, 5);
//! running.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//!
//! * 64 clients; for one more the longest idle is closed.
//! * A request of at most 1 MiB, nested at most 127 deep; 256 requests in a batch. After bytes that are no JSON, or too
//!   many, there is no telling where the next request begins: the error is sent and the connection closed.
//! * A client over TCP calls `pollux_authorize` with the token first; anything else is refused, and the connection ends.
//! * A client that does not read its answers is not read from once 1 MiB of them, or 64 requests, are outstanding.

mod client;
mod config;
mod connection;
mod endpoint;
mod error;
mod files;
mod join;
mod methods;
mod names;
mod params;
mod reactors;
mod request;
mod scan;
mod server;
mod token;

/// The flag of management in the log.
pub const LOG_FLAG: &str = "rpc";

pub use client::{CallError, Client};
pub use config::{Config, ConfigError};
pub use endpoint::EndpointError;
pub use error::RpcError;
pub use files::FilesUnder;
pub use methods::{
    Answer, Call, Handler, Mail, MethodResult, Methods, ModuleMethods, Phase, Responder,
};
pub use params::{FromParam, Params};
pub use reactors::observe;
pub use server::Server;
pub use token::{Token, TokenError};
