//! The calls that make the present state again.

use pollux_reactor::rpc::{Answer, Call, Mail, MethodResult, Responder};
use serde_json::{Map, Value, json};

use super::{State, discovery, error, fencing, options, policy};
use crate::options::{AttachOptions, Fencing, Mode};
use crate::request::HostRequest;
use crate::status::{ControllerStatus, DiscoveryStatus, VolumeStatus};
use crate::transport_id::TransportId;

/// The subsystem `bdev`: options, discoveries, controllers, and policies that were changed since.
pub(super) fn bdev(state: &mut State, call: &mut Call<State>) -> MethodResult {
    call.params.finish()?;
    let responder = call.responder()?;
    let mail = call.mail.clone();
    state.request(HostRequest::Discoveries(Box::new(move |answer| {
        let then = mail.clone();
        mail.run(move |state| match answer {
            Err(e) => responder.answer(Err(error(&e))),
            Ok(discoveries) => with_discoveries(state, discoveries, then, responder),
        });
    })));
    Ok(Answer::Later)
}

fn with_discoveries(
    state: &State,
    discoveries: Vec<DiscoveryStatus>,
    mail: Mail<State>,
    responder: Responder,
) {
    state.request(HostRequest::Controllers(Box::new(move |answer| {
        mail.run(move |state| match answer {
            Err(e) => responder.answer(Err(error(&e))),
            Ok(controllers) => with_controllers(state, &discoveries, controllers, responder),
        });
    })));
}

fn with_controllers(
    state: &State,
    discoveries: &[DiscoveryStatus],
    controllers: Vec<ControllerStatus>,
    responder: Responder,
) {
    let mut calls: Vec<Value> = state.options.config().into_iter().collect();
    let discovered = discoveries.iter();
    let mut attached: Vec<(Option<bool>, Value)> = discovered
        .map(|d| (ktls(&d.options), discovery::config(d)))
        .collect();
    // What a discovery has found it finds again.
    let is_found = |c: &&ControllerStatus| {
        let mut found = discoveries.iter().flat_map(|d| &d.attached);
        found.any(|(name, transport)| *name == c.name && transport.addr == c.transport.addr)
    };
    let own = controllers.iter().filter(|c| !is_found(c));
    let fencing = state.options.fencing();
    attached.extend(own.flat_map(|controller| {
        let calls = attach_calls(controller, fencing).into_iter();
        calls.map(|call| (ktls(&controller.options), call))
    }));
    calls.extend(with_ktls(attached, state.options.ktls));
    state.request(HostRequest::Volumes(Box::new(move |answer| {
        responder.answer(match answer {
            Err(e) => Err(error(&e)),
            Ok(volumes) => {
                calls.extend(volumes.iter().filter_map(|v| policy_call(v, &controllers)));
                calls.extend(volumes.iter().filter_map(|v| v.limits.call(&v.name)));
                Ok(calls.into())
            }
        });
    })));
}

/// Whether the kernel is to encrypt what was attached with these, if it is secure.
fn ktls(options: &AttachOptions) -> Option<bool> {
    let auth = options.auth.as_ref();
    let is_secure = options.tls.is_some() || auth.is_some_and(|auth| auth.concatenate);
    is_secure.then_some(options.ktls)
}

/// The calls, each with `enable_ktls` set as it was for it, and in the end as it is now.
fn with_ktls(calls: Vec<(Option<bool>, Value)>, now: bool) -> Vec<Value> {
    let mut set = false;
    let mut all = Vec::new();
    let mut switch = |all: &mut Vec<Value>, wanted: bool| {
        if set != wanted {
            set = wanted;
            all.push(pollux_nvme_tcp::rpc::sockets::saved(wanted));
        }
    };
    for (wanted, call) in calls {
        if let Some(wanted) = wanted {
            switch(&mut all, wanted);
        }
        all.push(call);
    }
    switch(&mut all, now);
    all
}

/// One call for each address; none for a controller that is not attached yet.
/// What is as the `defaults` have it is left out.
fn attach_calls(controller: &ControllerStatus, defaults: Fencing) -> Vec<Value> {
    if controller.state == "connecting" {
        return Vec::new();
    }
    let alternates = &controller.alternates;
    let mode = match controller.options.mode {
        _ if !alternates.is_empty() => "failover",
        Mode::Failover => "failover",
        Mode::Multipath => "multipath",
        Mode::Disable => "disable",
    };
    let all = std::iter::once(&controller.transport).chain(alternates);
    all.map(|transport| attach_call(controller, transport, mode, defaults))
        .collect()
}

fn attach_call(
    controller: &ControllerStatus,
    transport: &TransportId,
    mode: &str,
    defaults: Fencing,
) -> Value {
    let options = &controller.options;
    let addr = transport.addr;
    let mut params = Map::new();
    let mut put = |name: &str, value: Value| {
        params.insert(name.into(), value);
    };
    put("name", json!(controller.name));
    put("trtype", json!("TCP"));
    put(
        "adrfam",
        json!(if addr.is_ipv6() { "IPv6" } else { "IPv4" }),
    );
    put("traddr", json!(addr.ip().to_string()));
    put("trsvcid", json!(addr.port().to_string()));
    put("subnqn", json!(transport.subnqn.as_str()));
    if let Some(nqn) = &transport.hostnqn {
        put("hostnqn", json!(nqn.as_str()));
    }
    if let Some(name) = &options.psk_name {
        params.insert("psk".into(), name.as_str().into());
    }
    if options.auth.as_ref().is_some_and(|auth| auth.concatenate) {
        params.insert("secure_concatenation".into(), true.into());
    }
    if let Some(names) = &options.key_names {
        names.put(&mut params);
    }
    let mut put = |name: &str, value: Value| {
        params.insert(name.into(), value);
    };
    if let Some(interval) = options.authentication_interval {
        put("dhchap_interval_sec", json!(interval.as_secs()));
    }
    if let Some(local) = options.local {
        put("hostaddr", json!(local.to_string()));
    }
    put("hdgst", json!(options.digests.header));
    put("ddgst", json!(options.digests.data));
    if options.require_digests {
        put("require_digests", json!(true));
    }
    if let Some(max) = options.max_io_queues {
        put("num_io_queues", json!(max));
    }
    let silence = options.silence_timeout;
    if silence != AttachOptions::default().silence_timeout {
        let ms = silence.map_or(0, |limit| limit.as_millis());
        put(
            "silence_timeout_ms",
            json!(u64::try_from(ms).unwrap_or(u64::MAX)),
        );
    }
    if options.fencing != defaults {
        fencing::show(options.fencing, &mut params);
    }
    let mut put = |name: &str, value: Value| {
        params.insert(name.into(), value);
    };
    put("multipath", json!(mode));
    put("multipath_opts", policy::show(options.policy));
    options::show_recovery(options.recovery, &mut params);
    json!({"method": "bdev_nvme_attach_controller", "params": params})
}

/// `None` if the volume still has the policy that it was attached with.
fn policy_call(volume: &VolumeStatus, controllers: &[ControllerStatus]) -> Option<Value> {
    let first = volume.reactors.first()?.paths.first()?.controller;
    let attached = controllers.iter().find(|c| c.controller == first)?;
    if attached.options.policy == volume.policy {
        return None;
    }
    let mut params = Map::new();
    params.insert("name".into(), json!(volume.name));
    if let Value::Object(members) = policy::show(volume.policy) {
        for (name, value) in members {
            let name = if name == "min_io" {
                "rr_min_io".into()
            } else {
                name
            };
            params.insert(name, value);
        }
    }
    Some(json!({"method": "bdev_nvme_set_multipath_policy", "params": params}))
}
