//! The transport. There is one, TCP. Of its settings two have an effect, on controllers that come to be from then on:
//! `max_io_size` is the MDTS that they report, and refuse larger commands by (8 KiB is the least, as with SPDK's target, since
//! MDTS cannot say 4 KiB), and `masked_oncs` names optional commands that they do without. The others (those of `NUMBERS`,
//! `c2h_success`, `WITHOUT_MEANING` and `OF_RDMA`) are taken without effect; those of `NUMBERS` and `c2h_success` are
//! given back as they were.

use pollux_reactor::rpc::{Answer, Call, MethodResult, Params, Phase, RpcError};
use serde_json::{Map, Value, json};

use super::{Module, State, address, done, forward, forward_then, target_name};
use crate::spec::identify::ctrl;
use crate::target::control::request::TargetRequest;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("nvmf_create_transport", Phase::Runtime, create)
        .method("nvmf_get_transports", Phase::Runtime, list)
        .method("nvmf_set_crdt", Phase::Any, set_crdt)
}

/// Settings with the value that is shown if none was given.
const NUMBERS: [(&str, u32); 17] = [
    ("max_queue_depth", 128),
    ("max_io_qpairs_per_ctrlr", 127),
    ("in_capsule_data_size", 8192),
    ("max_io_size", 1 << 20),
    ("io_unit_size", 1 << 17),
    ("max_aq_depth", 128),
    ("num_shared_buffers", 511),
    ("buf_cache_size", 32),
    ("iobuf_small_cache_size", 0),
    ("iobuf_large_cache_size", 0),
    ("sock_priority", 0),
    ("acceptor_backlog", 1024),
    ("abort_timeout_sec", 1),
    ("control_msg_num", 32),
    ("acceptor_poll_rate", 10_000),
    ("ack_timeout", 0),
    ("min_kato", 0),
];

/// Switches for features that are not there.
const OFF: [&str; 2] = ["zcopy", "dif_insert_or_strip"];

/// Switches that TCP does not have, or that turn off what is never on: scripts that are written for several
/// transports give them in either position.
const WITHOUT_MEANING: [&str; 6] = [
    "no_srq",
    "no_wr_batching",
    "disable_mappable_bar0",
    "disable_adaptive_irq",
    "disable_shadow_doorbells",
    "disable_command_passthru",
];

/// Numbers that only RDMA has.
const OF_RDMA: [&str; 3] = ["num_cqe", "max_srq_depth", "data_wr_pool_size"];

/// Optional commands that can be done without, by the names that SPDK's clients know. Those without a bit are never there.
const ONCS: [(&str, u16); 5] = [
    ("nvmcmps", ctrl::ONCS_COMPARE),
    ("nvmdsmsv", ctrl::ONCS_DATASET_MANAGEMENT),
    ("nvmwzsv", ctrl::ONCS_WRITE_ZEROES),
    ("reservs", ctrl::ONCS_RESERVATIONS),
    ("nvmcpys", ctrl::ONCS_COPY),
];

/// Takes a list of names, each of which stands for a bit.
fn take_bits(
    params: &mut Params,
    name: &str,
    bits: &[(&str, u16)],
) -> Result<Option<u16>, RpcError> {
    let Some(names) = params.optional::<Vec<String>>(name)? else {
        return Ok(None);
    };
    let mut mask = 0;
    for given in names {
        let Some((_, bit)) = bits.iter().find(|(known, _)| *known == given) else {
            let known: Vec<_> = bits.iter().map(|(known, _)| *known).collect();
            let text = format!("'{given}', any of {}", known.join(", "));
            return Err(params.invalid(name, text));
        };
        mask |= bit;
    }
    Ok(Some(mask))
}

fn create(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    target_name(params)?;
    address::transport_type(params)?;
    let mut given = Map::new();
    given.insert("trtype".into(), "TCP".into());
    for (name, _) in NUMBERS {
        if let Some(value) = params.optional::<u32>(name)? {
            given.insert(name.into(), value.into());
        }
    }
    let max_io_size = given.get("max_io_size").and_then(Value::as_u64);
    let max_io_size = max_io_size.and_then(|bytes| u32::try_from(bytes).ok());
    if let Some(value) = params.optional::<bool>("c2h_success")? {
        given.insert("c2h_success".into(), value.into());
    }
    let masked_oncs = take_bits(params, "masked_oncs", &ONCS)?;
    if let Some(mask) = masked_oncs {
        let names = ONCS.iter().filter(|(_, bit)| mask & bit != 0);
        given.insert("masked_oncs".into(), names.map(|(name, _)| *name).collect());
    }
    // Fused commands are never there.
    take_bits(params, "masked_fuses", &[("fcws", 0)])?;
    params.off(&OFF)?;
    params.unused::<bool>(&WITHOUT_MEANING)?;
    params.unused::<u32>(&OF_RDMA)?;
    params.finish()?;
    if state.transport.is_some() && !state.transport_is_default {
        return Err(RpcError::internal("Transport type 'TCP' already exists"));
    }
    let masked = TargetRequest::set_masked_oncs(masked_oncs.unwrap_or(0));
    let request = max_io_size.map_or_else(TargetRequest::sync, TargetRequest::set_max_io_size);
    forward_then(state, call, request, move |state, answer| {
        answer?;
        // It cannot be refused, and is taken in before whatever is asked for next.
        state.target.request(masked, |_| {});
        state.transport = Some(given);
        state.transport_is_default = false;
        Ok(true.into())
    })
}

fn list(state: &mut State, call: &mut Call<State>) -> MethodResult {
    target_name(&mut call.params)?;
    let wanted: Option<String> = call.params.optional("trtype")?;
    call.params.finish()?;
    if let Some(name) = wanted
        && (state.transport.is_none() || !name.eq_ignore_ascii_case("tcp"))
    {
        return Err(RpcError::errno_of(19, format!("transport '{name}'")));
    }
    let list: Vec<Value> = state.transport.iter().map(show).collect();
    Ok(Answer::Now(list.into()))
}

fn show(given: &Map<String, Value>) -> Value {
    let mut all = Map::new();
    all.insert("trtype".into(), "TCP".into());
    for (name, default) in NUMBERS {
        all.insert(name.into(), default.into());
    }
    all.insert("c2h_success".into(), true.into());
    all.insert("dif_insert_or_strip".into(), false.into());
    all.insert("zcopy".into(), false.into());
    all.extend(given.clone());
    all.into()
}

fn set_crdt(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let mut crdt = [0; 3];
    for (value, name) in crdt.iter_mut().zip(["crdt1", "crdt2", "crdt3"]) {
        *value = call.params.optional(name)?.unwrap_or(0);
    }
    call.params.finish()?;
    state.retry_delays = crdt;
    forward(state, call, TargetRequest::set_retry_delays(crdt), done)
}

/// Refuses a listener while there is no transport.
pub(super) fn required(state: &State) -> Result<(), RpcError> {
    match state.transport {
        Some(_) => Ok(()),
        None => Err(RpcError::invalid_params(
            "there is no TCP transport, nvmf_create_transport comes first",
        )),
    }
}

/// The call that makes the transport again.
pub(super) fn saved(state: &State) -> Option<Value> {
    let params: &Map<String, Value> = state.transport.as_ref()?;
    Some(json!({"method": "nvmf_create_transport", "params": params}))
}

/// The transports of one reactor's statistics.
pub(super) fn in_stats(state: &State) -> Value {
    let list = state.transport.iter();
    list.map(|_| json!({"trtype": "TCP"})).collect()
}
