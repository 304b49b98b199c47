//! Requests: how they are started, of which modules they are asked, and where their answers go.

use serde_json::Value;

use super::clients::AUTHORIZE;
use super::{Batch, Origin, RpcService, Stage};
use crate::rpc::LOG_FLAG;
use crate::rpc::error::RpcError;
use crate::rpc::join::Join;
use crate::rpc::methods::Phase;
use crate::rpc::params::Params;
use crate::rpc::request::{self, Entry, Request, Requests};

impl RpcService {
    /// Starts all requests of one value.
    pub(super) fn start(&mut self, client: u64, value: &[u8]) {
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
    pub(super) fn call_all(&mut self, method: &str, params: &Params, key: u64) {
        self.rung = true;
        let modules = self.methods.having(method);
        for (nth, key) in self.parts(modules, key) {
            let params = params.clone();
            self.methods.call((method, nth), params, key, &self.post);
        }
    }

    /// The request under which each of several modules is asked, of which the answers are that of `key`.
    pub(super) fn parts(&mut self, modules: usize, key: u64) -> Vec<(usize, u64)> {
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

    /// A request has its answer.
    pub(super) fn answer(&mut self, key: u64, result: Result<Value, RpcError>) {
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
}

/// The text of an answer; `id` is JSON already.
pub(super) fn answer_text(id: &str, result: &Result<Value, RpcError>) -> String {
    match result {
        Ok(value) => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{value}}}"#),
        Err(error) => {
            let error = error.to_value();
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
        }
    }
}
