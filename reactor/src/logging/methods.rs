//! `log_set_level`, `log_set_flag` and their like.

use std::sync::atomic::Ordering;

use serde_json::{Map, Value};

use super::{Flag, Level, Logger, Logging};
use crate::rpc::{Answer, Call, MethodResult, Methods, Phase, RpcError};

/// What stands for every flag.
const ALL: &str = "all";

type State = &'static Logger;

impl Logging {
    /// Adds the methods.
    pub fn register(self, methods: &mut Methods) {
        methods
            .module(self.0)
            .method("log_clear_flag", Phase::Any, clear_flag)
            .method("log_enable_timestamps", Phase::Any, enable_timestamps)
            .method("log_get_flags", Phase::Any, get_flags)
            .method("log_get_level", Phase::Any, get_level)
            .method("log_get_print_level", Phase::Any, get_print_level)
            .method("log_set_flag", Phase::Any, set_flag)
            .method("log_set_level", Phase::Any, set_level)
            .method("log_set_print_level", Phase::Any, set_print_level);
    }
}

fn done() -> MethodResult {
    Ok(Answer::Now(Value::Bool(true)))
}

fn level(call: &mut Call<State>) -> Result<Level, RpcError> {
    let level = call.params.one_of("level", &Level::NAMES)?;
    call.params.finish()?;
    level.ok_or_else(|| RpcError::invalid_params("'level' is missing"))
}

fn set_level(logger: &mut State, call: &mut Call<State>) -> MethodResult {
    let level = level(call)?;
    logger.level.store(level as usize, Ordering::Relaxed);
    logger.limit();
    done()
}

fn set_print_level(logger: &mut State, call: &mut Call<State>) -> MethodResult {
    Logging(logger).set_print_level(level(call)?);
    done()
}

fn get_level(logger: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    let level = Level::from_index(logger.level.load(Ordering::Relaxed));
    Ok(Answer::Now(level.name().into()))
}

fn get_print_level(logger: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    let level = Level::from_index(logger.print_level.load(Ordering::Relaxed));
    Ok(Answer::Now(level.name().into()))
}

fn set_flag(logger: &mut State, call: &mut Call<State>) -> MethodResult {
    change_flag(logger, call, true)
}

fn clear_flag(logger: &mut State, call: &mut Call<State>) -> MethodResult {
    change_flag(logger, call, false)
}

fn change_flag(logger: &Logger, call: &mut Call<State>, is_set: bool) -> MethodResult {
    let name: String = call.params.required("flag")?;
    call.params.finish()?;
    if name != ALL && logger.flag(&name).is_none() {
        let names: Vec<&str> = logger.flags.iter().map(|flag| flag.name).collect();
        let expected = format!("'{name}', {ALL} or one of {}", names.join(", "));
        return Err(call.params.invalid("flag", expected));
    }
    let chosen = |flag: &&Flag| name == ALL || flag.name == name;
    for flag in logger.flags.iter().filter(chosen) {
        flag.is_set.store(is_set, Ordering::Relaxed);
    }
    done()
}

fn get_flags(logger: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    let flags: Map<String, Value> = logger
        .flags
        .iter()
        .map(|flag| {
            (
                flag.name.to_owned(),
                flag.is_set.load(Ordering::Relaxed).into(),
            )
        })
        .collect();
    Ok(Answer::Now(flags.into()))
}

fn enable_timestamps(logger: &mut State, call: &mut Call<State>) -> MethodResult {
    let enabled = call.params.required("enabled")?;
    call.params.finish()?;
    logger.timestamps.store(enabled, Ordering::Relaxed);
    done()
}
