//! Namespaces of subsystems.

use pollux_reactor::rpc::{Answer, Call, Mail, MethodResult, Params, Phase, Responder, RpcError};
use uuid::Uuid;

use super::disks::{EINVAL, NamedDisk};
use super::hosts::host;
use super::{Module, State, done, forward, forward_removal, send_then, subsystem, take_limit};
use crate::spec::nqn::{HostNqn, Nqn};
use crate::target::config::NamespaceConfig;
use crate::target::control::request::TargetRequest;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("nvmf_ns_add_host", Phase::Runtime, add_host)
        .method("nvmf_ns_remove_host", Phase::Runtime, remove_host)
        .method("nvmf_subsystem_add_ns", Phase::Runtime, add)
        .method("nvmf_subsystem_remove_ns", Phase::Runtime, remove)
        .method(
            "nvmf_subsystem_set_ns_ana_group",
            Phase::Runtime,
            set_ana_group,
        )
}

fn add(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let nqn = subsystem(params)?;
    let Some(mut namespace) = params.object("namespace")? else {
        return Err(params.invalid("namespace", "is missing"));
    };
    let name: String = namespace.required("bdev_name")?;
    // 0 asks for the lowest that is free.
    let nsid = namespace.optional::<u32>("nsid")?.filter(|&n| n != 0);
    let nguid = take_identifier(&mut namespace, "nguid")?;
    let eui64 = take_identifier(&mut namespace, "eui64")?;
    let uuid = take_uuid(&mut namespace)?;
    let ana_group = namespace.optional("anagrpid")?;
    let auto_visible = !namespace.optional("no_auto_visible")?.unwrap_or(false);
    let with_ana = namespace.optional("ana_follows_bdev")?.unwrap_or(false);
    namespace.off(&["hide_metadata"])?;
    namespace.finish()?;
    params.finish()?;

    let wanted = Wanted {
        nqn,
        nsid,
        name,
        with_ana,
        of_disk: move |disk: &NamedDisk| NamespaceConfig {
            uuid: Some(uuid.unwrap_or(disk.uuid)),
            nguid,
            eui64,
            ana_group,
            auto_visible,
            ..NamespaceConfig::new(disk.backend(), disk.block_size)
        },
    };
    let way = (call.responder()?, call.mail.clone());
    if !state.is_foreign(&wanted.name) {
        add_wanted(state, way, wanted);
        return Ok(Answer::Later);
    }
    let mail = call.mail.clone();
    let name = (wanted.name.clone(), with_ana);
    state.find_foreign(name, way, move |state, responder, found| match found {
        Ok(()) => add_wanted(state, (responder, mail), wanted),
        Err(error) => responder.answer(Err(error)),
    });
    Ok(Answer::Later)
}

/// A namespace that is to be made of the disk of this name.
struct Wanted<F> {
    nqn: Nqn,
    nsid: Option<u32>,
    name: String,
    /// Its ANA group is to follow the ANA state of the disk.
    with_ana: bool,
    of_disk: F,
}

/// Makes it.
fn add_wanted(
    state: &mut State,
    (responder, mail): (Responder, Mail<State>),
    wanted: Wanted<impl FnOnce(&NamedDisk) -> NamespaceConfig>,
) {
    let name = wanted.name;
    let config = match state.disks.claim(&name, &wanted.nqn) {
        Ok(disk) if wanted.with_ana && disk.disk.ana_state().is_none() => {
            state.disks.release(|user| user.disk == name);
            let text = format!("ana_follows_bdev: bdev '{name}' has no paths, and so no ANA state");
            return responder.answer(Err(RpcError::errno_of(EINVAL, text)));
        }
        Ok(disk) => (wanted.of_disk)(disk),
        Err(error) => return responder.answer(Err(error)),
    };
    let request = TargetRequest::add_namespace(wanted.nqn, wanted.nsid, config);
    send_then(
        state,
        (responder, mail),
        request,
        move |state, answer| match answer {
            Ok(nsid) => {
                state.disks.confirm(&name, nsid);
                Ok(nsid.into())
            }
            Err(error) => {
                state.disks.release(|user| user.disk == name);
                Err(error)
            }
        },
    );
}

pub(super) fn take_uuid(params: &mut Params) -> Result<Option<Uuid>, RpcError> {
    let Some(text) = params.optional::<String>("uuid")? else {
        return Ok(None);
    };
    match Uuid::parse_str(&text) {
        Ok(uuid) => Ok(Some(uuid)),
        Err(error) => Err(params.invalid("uuid", format!("'{text}': {error}"))),
    }
}

/// Takes an identifier of `N` bytes in hexadecimal digits, which hyphens may divide.
fn take_identifier<const N: usize>(
    params: &mut Params,
    name: &str,
) -> Result<Option<[u8; N]>, RpcError> {
    let Some(text) = params.optional::<String>(name)? else {
        return Ok(None);
    };
    let digits: Vec<u8> = text
        .chars()
        .filter(|&c| c != '-')
        .map_while(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let strays = text.chars().any(|c| c != '-' && !c.is_ascii_hexdigit());
    let mut id = [0; N];
    let (pairs, _) = digits.as_chunks::<2>();
    for (byte, [high, low]) in id.iter_mut().zip(pairs) {
        *byte = high << 4 | low;
    }
    if strays || digits.len() != 2 * N {
        let text = format!("'{text}', {} hexadecimal digits expected", 2 * N);
        return Err(params.invalid(name, text));
    }
    // In Identify data zero says that there is none.
    if id == [0; N] {
        return Err(params.invalid(name, format!("'{text}', zero is no identifier")));
    }
    Ok(Some(id))
}

fn remove(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let nqn = subsystem(&mut call.params)?;
    let nsid: u32 = call.params.required("nsid")?;
    let limit = take_limit(&mut call.params)?;
    call.params.finish()?;
    // Not whatever has the identifier by then.
    let disk = state.disks.used_by(&nqn, nsid).map(str::to_owned);
    let request = TargetRequest::remove_namespace(nqn, nsid);
    forward_removal(state, call, (request, limit), move |state, answer| {
        answer?;
        state
            .disks
            .release(|user| Some(&user.disk) == disk.as_ref());
        Ok(true.into())
    })
}

/// `nvmf_ns_add_host`: the host sees the namespace from now on.
fn add_host(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let (nqn, nsid, host) = take_visibility(&mut call.params)?;
    let request = TargetRequest::show_namespace(nqn, nsid, host);
    forward(state, call, request, done)
}

/// `nvmf_ns_remove_host`: the namespace is gone for the host; answered when nothing of the host's is in flight for it.
fn remove_host(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let (nqn, nsid, host) = take_visibility(&mut call.params)?;
    let request = TargetRequest::hide_namespace(nqn, nsid, host);
    forward(state, call, request, done)
}

fn take_visibility(params: &mut Params) -> Result<(Nqn, u32, HostNqn), RpcError> {
    let nqn = subsystem(params)?;
    let nsid = params.required("nsid")?;
    let host = host(params)?;
    params.finish()?;
    Ok((nqn, nsid, host))
}

fn set_ana_group(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let nqn = subsystem(&mut call.params)?;
    let nsid = call.params.required("nsid")?;
    let group = call.params.required("anagrpid")?;
    call.params.finish()?;
    let request = TargetRequest::set_namespace_ana_group(nqn, nsid, group);
    forward(state, call, request, done)
}
