//! Discovery services that are followed.

use std::time::Duration;

use pollux_nvme_tcp::auth::KeyNames;
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_reactor::rpc::{Answer, Call, MethodResult, Phase, RpcError};
use serde_json::{Map, Value, json};

use super::fencing::Given;
use super::options::{self, Timeouts};
use super::{Module, State, address, done, error, forward, keys};
use crate::error::HostError;
use crate::options::AttachOptions;
use crate::request::{DiscoveryRequest, HostRequest, Reply};
use crate::status::{DiscoveryStatus, NotAttached};
use crate::transport_id::TransportId;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_nvme_get_discovery_info", Phase::Runtime, info)
        .method_with_address("bdev_nvme_start_discovery", None, Phase::Runtime, start)
        .method("bdev_nvme_stop_discovery", Phase::Runtime, stop)
}

const ETIMEDOUT: i32 = 110;

/// `bdev_nvme_start_discovery`: answers at once, or with `wait_for_attach` when what is listed is attached.
fn start(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let name: String = params.required("name")?;
    address::transport_type(params)?;
    let Some(addr) = address::socket(params)? else {
        return Err(RpcError::invalid_params("'traddr' is missing"));
    };
    let hostnqn = address::nqn(params, "hostnqn")?;
    let timeouts = Timeouts::take(params)?;
    let attach_timeout_ms: u64 = params.optional("attach_timeout_ms")?.unwrap_or(0);
    let wait_for_attach = params.optional("wait_for_attach")?.unwrap_or(false);
    let key_names = KeyNames::take(params)?;
    let psk: Option<String> = params.optional("psk")?;
    // Of what is attached: the service itself has no keys.
    let concatenate: Option<bool> = params.optional("secure_concatenation")?;
    params.finish()?;
    let auth = keys::auth_of(state, key_names.as_ref(), concatenate, psk.as_ref())?;
    // For what the service lists as secure; the service itself is asked without it.
    let tls = psk.as_ref().map(|name| keys::tls(state, name));
    let tls = tls.transpose()?;
    let request = DiscoveryRequest {
        name,
        transport: TransportId {
            addr,
            subnqn: Nqn::discovery(),
            hostnqn,
        },
        options: AttachOptions {
            adopt_policy: true,
            auth,
            key_names,
            tls,
            psk_name: psk,
            ..state.options.attach(timeouts, Given::default())
        },
        // A time limit is for somebody who waits.
        wait_for_attach: wait_for_attach || attach_timeout_ms > 0,
        attach_timeout: (attach_timeout_ms > 0).then(|| Duration::from_millis(attach_timeout_ms)),
    };
    let responder = call.responder()?;
    let reply: Reply<()> = Box::new(move |answer: Result<(), HostError>| {
        responder.answer(match answer {
            Ok(()) => done(()),
            Err(e @ HostError::Discovery { in_time: false, .. }) => {
                Err(RpcError::errno_of(ETIMEDOUT, e))
            }
            Err(e) => Err(error(&e)),
        });
    });
    state.request(HostRequest::StartDiscovery(Box::new(request), reply));
    Ok(Answer::Later)
}

/// `bdev_nvme_stop_discovery`: answers when what it attached is gone.
fn stop(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: String = call.params.required("name")?;
    call.params.finish()?;
    forward(
        state,
        call,
        |reply| HostRequest::StopDiscovery { name, reply },
        done,
    )
}

/// `bdev_nvme_get_discovery_info`
fn info(state: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    forward(state, call, HostRequest::Discoveries, |list| {
        let show = |discovery: &DiscoveryStatus| {
            let referrals: Vec<Value> = discovery
                .referrals
                .iter()
                .map(|t| json!({"trid": address::show(t)}))
                .collect();
            let failing = |list: &[NotAttached]| -> Vec<Value> {
                let show = |n: &NotAttached| {
                    json!({
                        "trid": address::show(&n.transport),
                        "reason": n.reason,
                        "tries": n.tries,
                    })
                };
                list.iter().map(show).collect()
            };
            json!({
                "name": discovery.name,
                "trid": address::show(&discovery.transport),
                "referrals": referrals,
                "pollux": {
                    "not_reached": failing(&discovery.not_reached),
                    "not_attached": failing(&discovery.not_attached),
                },
            })
        };
        Ok(list.iter().map(show).collect())
    })
}

/// The call that starts it again.
pub(super) fn config(discovery: &DiscoveryStatus) -> Value {
    let transport = &discovery.transport;
    let mut params = Map::new();
    params.insert("name".into(), json!(discovery.name));
    if let Value::Object(members) = address::show_plain(transport) {
        params.extend(members);
    }
    if let Some(nqn) = &transport.hostnqn {
        params.insert("hostnqn".into(), json!(nqn.as_str()));
    }
    if let Some(name) = &discovery.options.psk_name {
        params.insert("psk".into(), name.as_str().into());
    }
    if let Some(names) = &discovery.options.key_names {
        names.put(&mut params);
    }
    let auth = discovery.options.auth.as_ref();
    if auth.is_some_and(|auth| auth.concatenate) {
        params.insert("secure_concatenation".into(), true.into());
    }
    options::show_recovery(discovery.options.recovery, &mut params);
    json!({"method": "bdev_nvme_start_discovery", "params": params})
}
