//! Listing, resetting, disabling and enabling controllers.

use pollux_reactor::rpc::{Call, MethodResult, Phase, RpcError};
use serde_json::{Map, Value, json};

use super::{ENODEV, Module, State, address, done, forward};
use crate::request::{ControllerChange, HostRequest};
use crate::status::ControllerStatus;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_nvme_disable_controller", Phase::Runtime, disable)
        .method("bdev_nvme_enable_controller", Phase::Runtime, enable)
        .method("bdev_nvme_get_controllers", Phase::Runtime, list)
        .method("bdev_nvme_reset_controller", Phase::Runtime, reset)
}

/// `bdev_nvme_get_controllers`
fn list(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: Option<String> = call.params.optional("name")?;
    call.params.finish()?;
    forward(state, call, HostRequest::Controllers, move |controllers| {
        let names = names(&controllers, name.as_deref());
        if let (Some(name), true) = (&name, names.is_empty()) {
            let what = format!("controller '{name}'");
            return Err(RpcError::errno_of(ENODEV, what));
        }
        let group = |name: &str| {
            let list: Vec<Value> = attached(&controllers)
                .filter(|c| c.name == name)
                .map(show)
                .collect();
            json!({"name": name, "ctrlrs": list})
        };
        Ok(names.into_iter().map(group).collect())
    })
}

/// Controllers whose first connection stands.
fn attached(controllers: &[ControllerStatus]) -> impl Iterator<Item = &ControllerStatus> {
    controllers.iter().filter(|c| c.state != "connecting")
}

/// The names in attach order, each once.
fn names<'a>(controllers: &'a [ControllerStatus], only: Option<&str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for controller in attached(controllers) {
        let name = controller.name.as_str();
        if !names.contains(&name) && only.is_none_or(|only| only == name) {
            names.push(name);
        }
    }
    names
}

fn show(controller: &ControllerStatus) -> Value {
    let transport = &controller.transport;
    // What SPDK calls these.
    let state = match controller.state {
        "reconnecting" => "resetting",
        "stopping" => "deleting",
        state => state,
    };
    let mut members = Map::new();
    members.insert("state".into(), state.into());
    members.insert("trid".into(), address::show(transport));
    if !controller.alternates.is_empty() {
        let list: Value = controller.alternates.iter().map(address::show).collect();
        members.insert("alternate_trids".into(), list);
    }
    members.insert("cntlid".into(), controller.cntlid.into());
    let hostnqn = transport.hostnqn.as_ref().map_or("", |nqn| nqn.as_str());
    let local = controller.options.local;
    members.insert(
        "host".into(),
        json!({
            "nqn": hostnqn,
            "addr": local.map(|a| a.to_string()).unwrap_or_default(),
            "svcid": "",
        }),
    );
    let left_out: Vec<Value> = controller
        .left_out
        .iter()
        .map(|(nsid, why)| json!({"nsid": nsid, "reason": why}))
        .collect();
    let mut more = json!({
        "last_error": controller.last_error,
        "hdgst": controller.digests.map(|d| d.header),
        "ddgst": controller.digests.map(|d| d.data),
        "bad_ana_logs": controller.bad_ana_logs,
        "namespaces_left_out": left_out,
    });
    if let Some(ktls) = controller.ktls {
        more["tls"] = true.into();
        more["ktls"] = ktls.into();
    }
    members.insert("pollux".into(), more);
    members.into()
}

/// `bdev_nvme_reset_controller`: answers when I/O is carried again or the first try has failed.
fn reset(state: &mut State, call: &mut Call<State>) -> MethodResult {
    change(state, call, ControllerChange::Reset)
}

/// `bdev_nvme_disable_controller`
fn disable(state: &mut State, call: &mut Call<State>) -> MethodResult {
    change(state, call, ControllerChange::Disable)
}

/// `bdev_nvme_enable_controller`
fn enable(state: &mut State, call: &mut Call<State>) -> MethodResult {
    change(state, call, ControllerChange::Enable)
}

fn change(state: &mut State, call: &mut Call<State>, change: ControllerChange) -> MethodResult {
    let name: String = call.params.required("name")?;
    let cntlid: Option<u16> = call.params.optional("cntlid")?;
    call.params.finish()?;
    forward(
        state,
        call,
        |reply| HostRequest::Change {
            name,
            cntlid,
            change,
            reply,
        },
        done,
    )
}
