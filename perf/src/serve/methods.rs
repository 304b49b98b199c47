//! The method `perform_tests`.

use std::sync::mpsc;
use std::time::Duration;

use clap::ValueEnum;
use pollux_reactor::rpc::{
    Answer, Call, FromParam, MethodResult, Methods, Params, Phase, RpcError,
};
use serde_json::Value;

use super::Command;
use super::args::parse_size;
use super::orders::Orders;
use crate::load::Workload;
use crate::size::IoSizes;

/// A week.
const TIME_MAX_SEC: u64 = 604_800;

struct State {
    orders: Orders,
    commands: mpsc::Sender<Command>,
}

/// Adds the method; what it is asked for goes to `commands`.
pub(super) fn register(methods: &mut Methods, orders: Orders, commands: mpsc::Sender<Command>) {
    methods.module(State { orders, commands }).method(
        "perform_tests",
        Phase::Runtime,
        perform_tests,
    );
}

/// Runs the workload on all volumes; answered at its end. One that comes while another runs is run after it.
fn perform_tests(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let orders = orders(&state.orders, &mut call.params)?;
    let responder = call.responder()?;
    // Refused only when the program ends; the responder then answers by itself.
    let _ = state.commands.send(Command::Run(orders, responder));
    Ok(Answer::Later)
}

fn orders(defaults: &Orders, params: &mut Params) -> Result<Orders, RpcError> {
    let mut orders = defaults.clone();
    if let Some(depth) = params.optional::<u32>("queue_depth")? {
        if !(1..=65_535).contains(&depth) {
            return Err(params.invalid("queue_depth", "1 to 65535"));
        }
        orders.depth = depth;
    }
    if let Some(seconds) = params.optional::<u64>("time_in_sec")? {
        if !(1..=TIME_MAX_SEC).contains(&seconds) {
            return Err(params.invalid("time_in_sec", format!("1 to {TIME_MAX_SEC}")));
        }
        orders.time = Duration::from_secs(seconds);
    }
    if let Some(name) = params.optional::<String>("workload_type")? {
        orders.workload = Workload::from_str(&name, false)
            .map_err(|_| params.invalid("workload_type", format!("'{name}'")))?;
    }
    if let Some(Size(size)) = params.optional("io_size")? {
        orders.io_size = size;
    }
    if let Some(share) = params.optional::<u8>("rw_percentage")? {
        if share > 100 {
            return Err(params.invalid("rw_percentage", "0 to 100"));
        }
        orders.read_share = Some(share);
    }
    params.finish()?;
    orders.check().map_err(RpcError::invalid_params)?;
    Ok(orders)
}

/// A size as a number or as text.
struct Size(IoSizes);

impl FromParam for Size {
    fn from_param(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => parse_size(&text),
            Value::Number(number) => parse_size(&number.to_string()),
            _ => Err("a size in bytes is expected".to_owned()),
        }
        .map(Size)
    }
}
