//! `bdev_nvme_set_options`: defaults of controllers that are attached later. `bdev_nvme_set_hotplug` is about PCIe, which is
//! not there: it can be off.

use std::time::Duration;

use pollux_nvme_tcp::host::{CommandTimeout, TimeoutAction};
use pollux_nvme_tcp::rpc::dhchap::PolicyNames;
use pollux_reactor::rpc::{Answer, Call, MethodResult, Params, Phase, RpcError};
use serde_json::{Map, Value, json};

use super::{EINVAL, EOPNOTSUPP, Module, State, error, fencing, policy};
use crate::error::HostError;
use crate::options::{AttachOptions, Fencing, Recovery};
use crate::policy::Policy;
use crate::request::{HostRequest, Reply};
use crate::status::ControllerStatus;

/// The methods of this room.
pub(super) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_nvme_set_hotplug", Phase::Any, set_hotplug)
        .method("bdev_nvme_set_options", Phase::Any, set)
}

fn set_hotplug(_: &mut State, call: &mut Call<State>) -> MethodResult {
    let enable: bool = call.params.required("enable")?;
    call.params.unused::<u64>(&["period_us"])?;
    call.params.finish()?;
    if enable {
        let text = "there are no PCIe drives here that come and go; bdev_nvme_start_discovery follows what comes and goes over TCP";
        return Err(RpcError::errno_of(EOPNOTSUPP, text));
    }
    Ok(Answer::Now(true.into()))
}

/// What was set; `None`: never.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub policy: Option<Policy>,
    pub timeouts: Timeouts,
    pub keep_alive_ms: Option<u32>,
    tcp_connect_timeout_ms: Option<u32>,
    limits: Limits,
    fencing: fencing::Given,
    retry_count: Option<i32>,
    disable_auto_failback: Option<bool>,
    /// What may be agreed on when a controller authenticates.
    pub auth: PolicyNames,
    /// The kernel is to encrypt secure connections of controllers that are attached from now on.
    pub ktls: bool,
}

/// How long commands may take, in the units of the interface.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    timeout_us: Option<u64>,
    timeout_admin_us: Option<u64>,
    action: Option<TimeoutAction>,
}

const ACTIONS: [(&str, TimeoutAction); 3] = [
    ("none", TimeoutAction::None),
    ("reset", TimeoutAction::Reset),
    ("abort", TimeoutAction::Abort),
];

impl Limits {
    fn take(params: &mut Params) -> Result<Limits, RpcError> {
        Ok(Limits {
            timeout_us: params.optional("timeout_us")?,
            timeout_admin_us: params.optional("timeout_admin_us")?,
            action: params.one_of("action_on_timeout", &ACTIONS)?,
        })
    }

    /// These, and what they leave open from `others`.
    fn or(self, others: Limits) -> Limits {
        Limits {
            timeout_us: self.timeout_us.or(others.timeout_us),
            timeout_admin_us: self.timeout_admin_us.or(others.timeout_admin_us),
            action: self.action.or(others.action),
        }
    }

    /// As SPDK has it, admin commands have a limit only where I/O commands have one.
    fn check(self) -> Result<(), RpcError> {
        if self.timeout_us.unwrap_or(0) == 0 && self.timeout_admin_us.unwrap_or(0) > 0 {
            let text = "'timeout_admin_us' needs a 'timeout_us' above 0";
            return Err(RpcError::errno_of(EINVAL, text));
        }
        Ok(())
    }

    fn limit(self, us: Option<u64>) -> Option<CommandTimeout> {
        us.filter(|&us| us > 0).map(|us| CommandTimeout {
            after: Duration::from_micros(us),
            action: self.action.unwrap_or_default(),
        })
    }

    fn io(self) -> Option<CommandTimeout> {
        self.limit(self.timeout_us)
    }

    /// Where none is set for admin commands, that of I/O commands holds.
    fn admin(self) -> Option<CommandTimeout> {
        let own = self.timeout_admin_us.filter(|&us| us > 0);
        self.limit(own.or(self.timeout_us))
    }

    fn show(self, members: &mut Map<String, Value>) {
        put(members, "timeout_us", self.timeout_us);
        put(members, "timeout_admin_us", self.timeout_admin_us);
        let name = |action| ACTIONS.iter().find(|(_, a)| *a == action).map(|(n, _)| *n);
        put(members, "action_on_timeout", self.action.and_then(name));
    }
}

/// Recovery in the units of the interface.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timeouts {
    pub ctrlr_loss_sec: Option<i32>,
    pub reconnect_delay_sec: Option<u32>,
    pub fast_io_fail_sec: Option<u32>,
}

impl Timeouts {
    pub fn take(params: &mut Params) -> Result<Timeouts, RpcError> {
        let ctrlr_loss_sec = params.optional("ctrlr_loss_timeout_sec")?;
        if ctrlr_loss_sec.is_some_and(|sec: i32| sec < -1) {
            return Err(params.invalid("ctrlr_loss_timeout_sec", "at least -1"));
        }
        Ok(Timeouts {
            ctrlr_loss_sec,
            reconnect_delay_sec: params.optional("reconnect_delay_sec")?,
            fast_io_fail_sec: params.optional("fast_io_fail_timeout_sec")?,
        })
    }

    /// These, and what they leave open from `others`.
    pub fn or(self, others: Timeouts) -> Timeouts {
        Timeouts {
            ctrlr_loss_sec: self.ctrlr_loss_sec.or(others.ctrlr_loss_sec),
            reconnect_delay_sec: self.reconnect_delay_sec.or(others.reconnect_delay_sec),
            fast_io_fail_sec: self.fast_io_fail_sec.or(others.fast_io_fail_sec),
        }
    }

    /// What is open is 0, as SPDK has it: no second try, nothing waits.
    pub fn recovery(self) -> Recovery {
        let sec = |sec: u32| Duration::from_secs(sec.into());
        Recovery {
            reconnect_delay: sec(self.reconnect_delay_sec.unwrap_or(0)),
            // -1 is for ever.
            controller_loss_timeout: u32::try_from(self.ctrlr_loss_sec.unwrap_or(0))
                .ok()
                .map(sec),
            fast_io_fail_timeout: self.fast_io_fail_sec.filter(|&n| n > 0).map(sec),
        }
    }

    fn show(self, members: &mut Map<String, Value>) {
        put(members, "ctrlr_loss_timeout_sec", self.ctrlr_loss_sec);
        put(members, "reconnect_delay_sec", self.reconnect_delay_sec);
        put(members, "fast_io_fail_timeout_sec", self.fast_io_fail_sec);
    }
}

fn put(members: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        members.insert(name.into(), value.into());
    }
}

/// The members of `recovery`, as attach takes them.
pub(super) fn show_recovery(recovery: Recovery, members: &mut Map<String, Value>) {
    let loss = recovery.controller_loss_timeout;
    let fast = recovery.fast_io_fail_timeout.unwrap_or_default();
    let loss = loss.map_or(json!(-1), |loss| json!(loss.as_secs()));
    members.insert("ctrlr_loss_timeout_sec".into(), loss);
    let delay = recovery.reconnect_delay.as_secs();
    members.insert("reconnect_delay_sec".into(), json!(delay));
    members.insert("fast_io_fail_timeout_sec".into(), json!(fast.as_secs()));
}

impl Options {
    fn take(params: &mut Params) -> Result<Options, RpcError> {
        let retry_count = params.optional("bdev_retry_count")?;
        if retry_count.is_some_and(|n: i32| n < -1) {
            return Err(params.invalid("bdev_retry_count", "at least -1"));
        }
        let options = Options {
            policy: policy::take_opts(params)?,
            timeouts: Timeouts::take(params)?,
            keep_alive_ms: params.optional("keep_alive_timeout_ms")?,
            tcp_connect_timeout_ms: params.optional("tcp_connect_timeout_ms")?,
            limits: Limits::take(params)?,
            fencing: fencing::Given::take(params)?,
            retry_count,
            disable_auto_failback: params.optional("disable_auto_failback")?,
            auth: PolicyNames::take(params)?,
            ktls: false,
        };
        params.unused::<u8>(&["transport_ack_timeout", "transport_tos"])?;
        params.unused::<u16>(&["rdma_cm_event_timeout_ms"])?;
        params.unused::<u32>(&[
            "arbitration_burst",
            "low_priority_weight",
            "medium_priority_weight",
            "high_priority_weight",
            "io_queue_requests",
            "transport_retry_count",
            "rdma_srq_size",
            "rdma_max_cq_size",
        ])?;
        params.unused::<u64>(&["nvme_adminq_poll_period_us", "nvme_ioq_poll_period_us"])?;
        params.unused::<bool>(&[
            "delay_cmd_submit",
            "generate_uuids",
            "nvme_error_stat",
            "io_path_stat",
            "allow_accel_sequence",
            "rdma_umr_per_io",
            "enable_flush",
        ])?;
        params.finish()?;
        options.timeouts.recovery().check().map_err(|e| error(&e))?;
        Ok(options)
    }

    /// These, and what they leave open from `others`.
    fn or(self, others: &Options) -> Options {
        Options {
            policy: self.policy.or(others.policy),
            timeouts: self.timeouts.or(others.timeouts),
            keep_alive_ms: self.keep_alive_ms.or(others.keep_alive_ms),
            tcp_connect_timeout_ms: self
                .tcp_connect_timeout_ms
                .or(others.tcp_connect_timeout_ms),
            limits: self.limits.or(others.limits),
            fencing: self.fencing.or(others.fencing),
            retry_count: self.retry_count.or(others.retry_count),
            disable_auto_failback: self.disable_auto_failback.or(others.disable_auto_failback),
            auth: self.auth.or(&others.auth),
            ktls: self.ktls || others.ktls,
        }
    }

    /// What a controller is attached with that has no fencing of its own.
    pub fn fencing(&self) -> Fencing {
        self.fencing.fencing()
    }

    fn check_fencing(&self) -> Result<(), RpcError> {
        let options = self.attach(Timeouts::default(), fencing::Given::default());
        let checked = options.fencing.check(options.keep_alive_ms);
        checked.map_err(|e| error(&e))
    }

    /// What a controller is attached with that has nothing of its own but these `timeouts`.
    pub fn attach(&self, timeouts: Timeouts, fencing: fencing::Given) -> AttachOptions {
        let defaults = AttachOptions::default();
        let tcp_timeout_ms = self.tcp_connect_timeout_ms.filter(|&ms| ms > 0);
        AttachOptions {
            keep_alive_ms: self.keep_alive_ms.unwrap_or(defaults.keep_alive_ms),
            tcp_connect_timeout: tcp_timeout_ms.map(|ms| Duration::from_millis(ms.into())),
            io_timeout: self.limits.io(),
            admin_timeout: self.limits.admin(),
            fencing: fencing.or(self.fencing).fencing(),
            recovery: timeouts.or(self.timeouts).recovery(),
            policy: self.policy.unwrap_or_default(),
            ktls: self.ktls,
            ..defaults
        }
    }

    /// The call that sets these; `None` if nothing was set.
    pub fn config(&self) -> Option<Value> {
        let mut params = Map::new();
        put(&mut params, "bdev_retry_count", self.retry_count);
        put(&mut params, "keep_alive_timeout_ms", self.keep_alive_ms);
        put(
            &mut params,
            "tcp_connect_timeout_ms",
            self.tcp_connect_timeout_ms,
        );
        self.limits.show(&mut params);
        self.fencing.show(&mut params);
        self.timeouts.show(&mut params);
        put(
            &mut params,
            "disable_auto_failback",
            self.disable_auto_failback,
        );
        self.auth.put(&mut params);
        put(&mut params, "multipath_opts", self.policy.map(policy::show));
        (!params.is_empty()).then(|| json!({"method": "bdev_nvme_set_options", "params": params}))
    }
}

/// `bdev_nvme_set_options`: refused while there is a controller. What is not given keeps its value.
fn set(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let options = Options::take(&mut call.params)?;
    options.limits.or(state.options.limits).check()?;
    options.clone().or(&state.options).check_fencing()?;
    let responder = call.responder()?;
    let mail = call.mail.clone();
    let reply: Reply<Vec<ControllerStatus>> =
        Box::new(move |answer: Result<Vec<ControllerStatus>, HostError>| {
            mail.run(move |state| {
                responder.answer(match answer {
                    Err(e) => Err(error(&e)),
                    Ok(controllers) if !controllers.is_empty() => Err(RpcError::new(
                        -1,
                        "RPC not permitted with nvme controllers already attached",
                    )),
                    Ok(_) => apply(state, options).map(Value::Bool),
                });
            });
        });
    state.request(HostRequest::Controllers(reply));
    Ok(Answer::Later)
}

/// Takes options over.
fn apply(state: &mut State, options: Options) -> Result<bool, RpcError> {
    let limit = options.retry_count.map(|count| u32::try_from(count).ok());
    let failback = options.disable_auto_failback.map(|disabled| !disabled);
    let requests = [
        limit.map(HostRequest::SetRetryLimit),
        failback.map(HostRequest::SetFailback),
    ];
    for request in requests.into_iter().flatten() {
        (state.host)(request)
            .map_err(|_| RpcError::internal("the host has stopped, or has too much to do"))?;
    }
    state.options = options.or(&state.options);
    Ok(true)
}
