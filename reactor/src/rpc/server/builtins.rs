//! The methods that every server has, and the start that some of them are about: the calls of the configuration.

use serde_json::{Map, Value, json};

use super::clients::AUTHORIZE;
use super::{Origin, RpcService, Stage};
use crate::rpc::LOG_FLAG;
use crate::rpc::config::{ConfigCall, ConfigError};
use crate::rpc::error::RpcError;
use crate::rpc::methods::Phase;
use crate::rpc::params::Params;
use crate::sys;

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

impl RpcService {
    /// The methods that every server has; `None`: it is none of them.
    pub(super) fn call_builtin(
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
    pub(super) fn next_config_call(&mut self) {
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

    pub(super) fn on_config_answer(&mut self, call: &ConfigCall, result: Result<Value, RpcError>) {
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
