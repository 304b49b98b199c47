//! Attaching and detaching controllers.

use std::time::Duration;

use pollux_nvme_tcp::auth::KeyNames;
use pollux_nvme_tcp::host::{CommandTimeout, Digests, TimeoutAction};
use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_reactor::rpc::{Call, MethodResult, Params, Phase, RpcError};

use super::options::Timeouts;
use super::{Module, State, address, done, fencing, forward, keys, policy};
use crate::options::{AttachOptions, Mode};
use crate::request::{AttachRequest, HostRequest};
use crate::transport_id::TransportId;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method_with_address("bdev_nvme_attach_controller", None, Phase::Runtime, attach)
        .method_with_address("bdev_nvme_detach_controller", None, Phase::Runtime, detach)
}

/// `bdev_nvme_attach_controller`: answers with the names of the volumes once their path is usable.
fn attach(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let request = request(state, &mut call.params)?;
    forward(
        state,
        call,
        |reply| HostRequest::Attach(Box::new(request), reply),
        |attached| Ok(attached.volumes.into_iter().map(|v| v.name).collect()),
    )
}

fn request(state: &State, params: &mut Params) -> Result<AttachRequest, RpcError> {
    let name: String = params.required("name")?;
    address::transport_type(params)?;
    let Some(addr) = address::socket(params)? else {
        return Err(RpcError::invalid_params("'traddr' is missing"));
    };
    let subnqn = address::nqn(params, "subnqn")?;
    let hostnqn = address::nqn(params, "hostnqn")?;
    let local = address::ip(params, "hostaddr")?;
    let mode = params.one_of(
        "multipath",
        &[
            ("multipath", Mode::Multipath),
            ("failover", Mode::Failover),
            ("disable", Mode::Disable),
        ],
    )?;
    let policy = policy::take_opts(params)?;
    let timeouts = Timeouts::take(params)?;
    let fencing = fencing::Given::take(params)?;
    let digests = Digests {
        header: params.optional("hdgst")?.unwrap_or(false),
        data: params.optional("ddgst")?.unwrap_or(false),
    };
    let require_digests = params.optional("require_digests")?.unwrap_or(false);
    if require_digests && digests == Digests::default() {
        return Err(RpcError::invalid_params(
            "'require_digests' without 'hdgst' or 'ddgst' requires nothing",
        ));
    }
    let timeout_us = params.optional("fabrics_connect_timeout_us")?;
    let silence_ms: Option<u64> = params.optional("silence_timeout_ms")?;
    let io_timeout_us: Option<u64> = params.optional("timeout_us")?;
    let psk: Option<String> = params.optional("psk")?;
    let key_names = KeyNames::take(params)?;
    let concatenate: Option<bool> = params.optional("secure_concatenation")?;
    let interval_sec: Option<u32> = params.optional("dhchap_interval_sec")?;
    params.unused::<String>(&["priority", "hostsvcid"])?;
    let max_io_queues: Option<u32> = params.optional("num_io_queues")?;
    params.unused::<u32>(&["max_bdevs"])?;
    params.unused::<bool>(&["allow_unrecognized_csi", "disable_sq_flow_control"])?;
    params.off(&["prchk_reftag", "prchk_guard"])?;
    params.finish()?;
    let Some(subnqn) = subnqn.filter(|nqn| !nqn.is_discovery()) else {
        return Err(RpcError::invalid_params(
            "'subnqn' of an NVM subsystem is needed",
        ));
    };
    let auth = keys::auth_of(state, key_names.as_ref(), concatenate, psk.as_ref())?;
    let tls = psk
        .as_ref()
        .map(|name| keys::tls(state, name))
        .transpose()?;
    let defaults = state.options.attach(timeouts, fencing);
    let options = AttachOptions {
        mode: mode.unwrap_or_default(),
        digests,
        require_digests,
        silence_timeout: match silence_ms {
            Some(ms) => (ms > 0).then(|| Duration::from_millis(ms)),
            None => defaults.silence_timeout,
        },
        io_timeout: match io_timeout_us {
            Some(us) => (us > 0).then(|| CommandTimeout {
                after: Duration::from_micros(us),
                action: TimeoutAction::Abort,
            }),
            None => defaults.io_timeout,
        },
        max_io_queues,
        connect_timeout: match timeout_us {
            Some(us) if us > 0 => Duration::from_micros(us),
            _ => defaults.connect_timeout,
        },
        policy: policy.unwrap_or(defaults.policy),
        adopt_policy: policy.is_none(),
        local,
        auth,
        authentication_interval: interval_sec
            .filter(|&sec| sec > 0)
            .map(|sec| Duration::from_secs(sec.into())),
        key_names,
        tls,
        psk_name: psk,
        ..defaults
    };
    Ok(AttachRequest {
        name,
        transport: TransportId {
            addr,
            subnqn,
            hostnqn,
        },
        options,
    })
}

/// `bdev_nvme_detach_controller`: one address of a name or all; answers when it is gone.
fn detach(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let name: String = params.required("name")?;
    address::transport_type(params)?;
    let addr = address::socket(params)?;
    let subnqn = address::nqn(params, "subnqn")?;
    params.unused::<String>(&["hostaddr", "hostsvcid"])?;
    params.finish()?;
    // Names are of one subsystem: the address says it all.
    let subnqn = subnqn.unwrap_or_else(Nqn::discovery);
    let transport = addr.map(|addr| TransportId::new(addr, subnqn));
    forward(
        state,
        call,
        |reply| HostRequest::Detach {
            name,
            transport,
            reply,
        },
        done,
    )
}
