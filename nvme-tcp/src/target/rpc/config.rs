//! The calls that make the present state again.

use pollux_reactor::rpc::{Answer, Call, MethodResult};
use serde_json::{Map, Value, json};

use super::{State, address, forward_then, listing, settings, subsystems, transport};
use crate::spec::log::AnaState;
use crate::spec::nqn::Nqn;
use crate::target::control::request::TargetRequest;
use crate::target::status::{ListenerStatus, SubsystemStatus, TargetStatus};
use crate::target::subsystem::ana::ANA_GROUP_MAX;

pub(super) fn bdev(state: &mut State, _call: &mut Call<State>) -> MethodResult {
    Ok(Answer::Now(listing::saved(&state.disks)))
}

pub(super) fn nvmf(state: &mut State, call: &mut Call<State>) -> MethodResult {
    forward_then(state, call, TargetRequest::status(), |state, answer| {
        let status = answer?;
        Ok(saved(state, &status).into())
    })
}

fn entry(method: &str, params: Value) -> Value {
    json!({"method": method, "params": params})
}

fn saved(state: &State, status: &TargetStatus) -> Vec<Value> {
    // First, since it holds for all that comes after.
    let settings = settings::saved(state, status).map(|params| entry("nvmf_set_config", params));
    let sockets = status.ktls.then(|| crate::rpc::sockets::saved(true));
    let mut calls: Vec<Value> = sockets.into_iter().chain(settings).collect();
    if let Some(max) = state.max_subsystems {
        let params = json!({"max_subsystems": max});
        calls.push(entry("nvmf_set_max_subsystems", params));
    }
    calls.extend(transport::saved(state));
    let [crdt1, crdt2, crdt3] = state.retry_delays;
    if state.retry_delays != [0; 3] {
        let delays = json!({"crdt1": crdt1, "crdt2": crdt2, "crdt3": crdt3});
        calls.push(entry("nvmf_set_crdt", delays));
    }
    for subsystem in &status.subsystems {
        save_subsystem(state, subsystem, &mut calls);
    }
    for &addr in &state.discovery_listeners {
        let nqn = Nqn::discovery();
        let listener = json!({"nqn": nqn.as_str(), "listen_address": address::show(addr)});
        calls.push(entry("nvmf_subsystem_add_listener", listener));
    }
    for referral in &status.referrals {
        let params =
            json!({"address": address::show(referral.addr), "subnqn": referral.subnqn.as_str()});
        calls.push(entry("nvmf_discovery_add_referral", params));
    }
    calls
}

fn save_subsystem(state: &State, subsystem: &SubsystemStatus, calls: &mut Vec<Value>) {
    let nqn = subsystem.nqn.as_str();
    let (min_cntlid, max_cntlid) = subsystem.cntlid_range;
    calls.push(entry(
        "nvmf_create_subsystem",
        json!({
            "nqn": nqn,
            "allow_any_host": subsystem.allow_any_host,
            "serial_number": subsystem.serial,
            "model_number": subsystem.model,
            "max_namespaces": subsystem.max_namespaces,
            "min_cntlid": min_cntlid,
            "max_cntlid": max_cntlid,
            "ana_reporting": subsystem.ana_reporting,
            "dmrsl": subsystem.dmrsl,
            "wzsl": subsystem.wzsl,
        }),
    ));
    for host in &subsystem.hosts {
        let mut params = json!({"nqn": nqn, "host": host.as_str()});
        subsystems::put_keys(&mut params, subsystem, host);
        calls.push(entry("nvmf_subsystem_add_host", params));
    }
    for namespace in &subsystem.namespaces {
        // The command line makes its namespaces again by itself.
        let Some(bdev) = state.disks.used_by(&subsystem.nqn, namespace.nsid) else {
            continue;
        };
        let mut params = Map::new();
        params.insert("nsid".into(), namespace.nsid.into());
        params.insert("bdev_name".into(), bdev.into());
        params.insert("nguid".into(), subsystems::hex(&namespace.nguid).into());
        if let Some(eui64) = namespace.eui64 {
            params.insert("eui64".into(), subsystems::hex(&eui64).into());
        }
        params.insert("uuid".into(), namespace.uuid.to_string().into());
        params.insert("anagrpid".into(), namespace.ana_group.into());
        if namespace.ana_behind.is_some() {
            params.insert("ana_follows_bdev".into(), true.into());
        }
        if namespace.hosts.is_some() {
            params.insert("no_auto_visible".into(), true.into());
        }
        let params = json!({"nqn": nqn, "namespace": params});
        calls.push(entry("nvmf_subsystem_add_ns", params));
        for host in namespace.hosts.iter().flatten() {
            let params = json!({"nqn": nqn, "nsid": namespace.nsid, "host": host.as_str()});
            calls.push(entry("nvmf_ns_add_host", params));
        }
    }
    for listener in &subsystem.listeners {
        let address = address::show(listener.addr);
        let mut params = json!({"nqn": nqn, "listen_address": address});
        if listener.secure {
            params["secure_channel"] = true.into();
        }
        calls.push(entry("nvmf_subsystem_add_listener", params));
        for (group, state) in states(listener) {
            let mut params = Map::new();
            params.insert("nqn".into(), nqn.into());
            params.insert("listen_address".into(), address.clone());
            let name = state.to_string();
            params.insert("ana_state".into(), name.into());
            if let Some(group) = group {
                params.insert("anagrpid".into(), group.into());
            }
            let method = "nvmf_subsystem_listener_set_ana_state";
            calls.push(entry(method, params.into()));
        }
    }
}

/// The states that a listener's groups were set to and that are not optimized; one for all if they are the same.
fn states(listener: &ListenerStatus) -> Vec<(Option<u32>, AnaState)> {
    let states = &listener.ana_set;
    if let Some(&(_, first)) = states.first()
        && u32::try_from(states.len()) == Ok(ANA_GROUP_MAX)
        && states.iter().all(|&(_, state)| state == first)
    {
        return vec![(None, first)];
    }
    let apart = |&(group, state)| (Some(group), state);
    states.iter().map(apart).collect()
}
