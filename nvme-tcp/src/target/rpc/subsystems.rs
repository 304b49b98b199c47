//! Subsystems and discovery.

use pollux_reactor::rpc::{Call, MethodResult, Params, Phase, RpcError};
use serde_json::{Map, Value, json};

use super::{
    Module, State, address, done, forward, forward_removal, forward_then, subsystem, take_limit,
    target_name,
};
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::config::{Referral, SubsystemConfig};
use crate::target::control::request::TargetRequest;
use crate::target::status::SubsystemStatus;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("nvmf_create_subsystem", Phase::Runtime, create)
        .method("nvmf_delete_subsystem", Phase::Runtime, delete)
        .method("nvmf_discovery_add_referral", Phase::Runtime, add_referral)
        .method("nvmf_discovery_get_referrals", Phase::Runtime, referrals)
        .method(
            "nvmf_discovery_remove_referral",
            Phase::Runtime,
            remove_referral,
        )
        .method("nvmf_get_subsystems", Phase::Runtime, list)
}

fn create(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let mut config = SubsystemConfig::new(subsystem(params)?);
    config.ana_reporting = params.optional("ana_reporting")?.unwrap_or(false);
    config.allow_any_host = params.optional("allow_any_host")?.unwrap_or(false);
    config.serial = params
        .optional("serial_number")?
        .unwrap_or_else(|| "00000000000000000000".into());
    if let Some(model) = params.optional("model_number")? {
        config.model = model;
    }
    // 0 asks for the default.
    if let Some(max) = params.optional("max_namespaces")?.filter(|&max| max != 0) {
        config.max_namespaces = max;
    }
    if let Some(min) = params.optional("min_cntlid")? {
        config.min_cntlid = min;
    }
    if let Some(max) = params.optional("max_cntlid")? {
        config.max_cntlid = max;
    }
    config.dmrsl = params.optional("dmrsl")?.unwrap_or(0);
    config.wzsl = params.optional("wzsl")?.unwrap_or(0);
    params.off(&["passthrough", "enable_nssr"])?;
    params.finish()?;
    forward(state, call, TargetRequest::create_subsystem(config), done)
}

fn delete(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let nqn = subsystem(&mut call.params)?;
    let limit = take_limit(&mut call.params)?;
    call.params.finish()?;
    // Not those of another subsystem that has the name by then.
    let disks = state.disks.list.iter();
    let disks = disks.filter(|disk| disk.user.as_ref().is_some_and(|user| user.nqn == nqn));
    let disks: Vec<String> = disks.map(|disk| disk.name.clone()).collect();
    let request = TargetRequest::delete_subsystem(nqn);
    forward_removal(state, call, (request, limit), move |state, answer| {
        answer?;
        state.disks.release(|user| disks.contains(&user.disk));
        Ok(true.into())
    })
}

fn list(state: &mut State, call: &mut Call<State>) -> MethodResult {
    target_name(&mut call.params)?;
    let wanted = match call.params.optional::<String>("nqn")? {
        Some(text) => Some(
            Nqn::new(&text).map_err(|e| call.params.invalid("nqn", format!("'{text}': {e}")))?,
        ),
        None => None,
    };
    call.params.finish()?;
    forward_then(
        state,
        call,
        TargetRequest::subsystems(),
        move |state, answer| {
            let subsystems = answer?;
            let discovery = (Nqn::discovery(), show_discovery(state));
            let all = subsystems.iter().map(|s| (s.nqn.clone(), show(state, s)));
            let list: Vec<Value> = std::iter::once(discovery)
                .chain(all)
                .filter(|(nqn, _)| wanted.as_ref().is_none_or(|wanted| wanted == nqn))
                .map(|(_, shown)| shown)
                .collect();
            match wanted {
                Some(nqn) if list.is_empty() => {
                    Err(RpcError::errno_of(19, format!("subsystem '{nqn}'")))
                }
                _ => Ok(list.into()),
            }
        },
    )
}

fn show_discovery(state: &State) -> Value {
    let listeners = state.discovery_listeners.iter();
    json!({
        "nqn": Nqn::discovery().as_str(),
        "subtype": "Discovery",
        "listen_addresses": listeners.map(|&a| address::show(a)).collect::<Value>(),
        "allow_any_host": true,
        "hosts": [],
    })
}

/// Adds the names of a host's keys.
pub(super) fn put_keys(params: &mut Value, subsystem: &SubsystemStatus, host: &HostNqn) {
    if let Some(names) = subsystem.host_keys.get(host) {
        params["dhchap_key"] = names.dhchap_key.as_str().into();
        if let Some(name) = &names.dhchap_ctrlr_key {
            params["dhchap_ctrlr_key"] = name.as_str().into();
        }
    }
    if let Some(name) = subsystem.host_psks.get(host) {
        params["psk"] = name.as_str().into();
    }
}

fn show(state: &State, subsystem: &SubsystemStatus) -> Value {
    let listeners = subsystem.listeners.iter();
    let hosts = subsystem.hosts.iter();
    let namespaces = subsystem.namespaces.iter().map(|n| {
        let bdev = state.disks.used_by(&subsystem.nqn, n.nsid);
        let mut shown = Map::new();
        shown.insert("nsid".into(), n.nsid.into());
        let mut own = Map::new();
        if let Some(failure) = &n.failure {
            own.insert("failure".into(), failure.as_str().into());
        }
        if let Some(behind) = n.ana_behind {
            own.insert("ana_state_behind".into(), behind.to_string().into());
        }
        if !own.is_empty() {
            shown.insert("pollux".into(), own.into());
        }
        shown.insert("bdev_name".into(), bdev.into());
        shown.insert("name".into(), bdev.into());
        shown.insert("nguid".into(), hex(&n.nguid).into());
        if let Some(eui64) = n.eui64 {
            shown.insert("eui64".into(), hex(&eui64).into());
        }
        shown.insert("uuid".into(), n.uuid.to_string().into());
        shown.insert("anagrpid".into(), n.ana_group.into());
        if n.ana_behind.is_some() {
            shown.insert("ana_follows_bdev".into(), true.into());
        }
        if let Some(hosts) = &n.hosts {
            shown.insert("no_auto_visible".into(), true.into());
            let hosts = hosts.iter().map(|host| json!({"nqn": host.as_str()}));
            shown.insert("hosts".into(), hosts.collect());
        }
        Value::Object(shown)
    });
    let (min_cntlid, max_cntlid) = subsystem.cntlid_range;
    json!({
        "nqn": subsystem.nqn.as_str(),
        "subtype": "NVMe",
        "listen_addresses": listeners.map(|l| address::show(l.addr)).collect::<Value>(),
        "allow_any_host": subsystem.allow_any_host,
        "hosts": hosts.map(|host| {
            let mut shown = json!({"nqn": host.as_str()});
            put_keys(&mut shown, subsystem, host);
            shown
        }).collect::<Value>(),
        "serial_number": subsystem.serial,
        "model_number": subsystem.model,
        "max_namespaces": subsystem.max_namespaces,
        "min_cntlid": min_cntlid,
        "max_cntlid": max_cntlid,
        "ana_reporting": subsystem.ana_reporting,
        "namespaces": namespaces.collect::<Value>(),
    })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

fn referral(params: &mut Params) -> Result<Referral, RpcError> {
    target_name(params)?;
    let addr = address::take(params, "address")?;
    let subnqn = match params.optional::<String>("subnqn")? {
        Some(text) => {
            Nqn::new(&text).map_err(|e| params.invalid("subnqn", format!("'{text}': {e}")))?
        }
        None => Nqn::discovery(),
    };
    Ok(Referral { addr, subnqn })
}

fn add_referral(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let referral = referral(&mut call.params)?;
    call.params.off(&["secure_channel"])?;
    call.params.finish()?;
    forward(state, call, TargetRequest::add_referral(referral), done)
}

fn remove_referral(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let referral = referral(&mut call.params)?;
    call.params.finish()?;
    forward(state, call, TargetRequest::remove_referral(referral), done)
}

fn referrals(state: &mut State, call: &mut Call<State>) -> MethodResult {
    target_name(&mut call.params)?;
    call.params.finish()?;
    forward(state, call, TargetRequest::referrals(), |reply| {
        let list = reply;
        let shown = list.iter().map(|r| {
            json!({
                "address": address::show(r.addr),
                "secure_channel": false,
                "subnqn": r.subnqn.as_str(),
                "subtype": if r.subnqn.is_discovery() { "discovery" } else { "nvme" },
            })
        });
        Ok(shown.collect())
    })
}
