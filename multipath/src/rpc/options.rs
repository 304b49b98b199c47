//! `bdev_nvme_set_options`: defaults of controllers that are attached later.

use std::time::Duration;

use pollux_reactor::rpc::{Answer, Call, Outcome, Params, RpcError};
use serde_json::{Map, Value, json};

use super::{State, error, policy};
use crate::policy::Policy;
use crate::request::{HostError, HostRequest, Recovery, Reply};
use crate::status::ControllerStatus;

/// What was set; `None`: never.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    pub policy: Option<Policy>,
    pub timeouts: Timeouts,
    pub keep_alive_ms: Option<u32>,
    retry_count: Option<i32>,
    disable_auto_failback: Option<bool>,
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
            retry_count,
            disable_auto_failback: params.optional("disable_auto_failback")?,
        };
        for name in ["timeout_us", "timeout_admin_us"] {
            if params.optional::<u64>(name)?.is_some_and(|n| n > 0) {
                return Err(params.invalid(name, "command timeouts are not supported"));
            }
        }
        params.one_of(
            "action_on_timeout",
            &[("none", ()), ("reset", ()), ("abort", ())],
        )?;
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
            "tcp_connect_timeout_ms",
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
        params.unused::<Vec<String>>(&["dhchap_digests", "dhchap_dhgroups"])?;
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
            retry_count: self.retry_count.or(others.retry_count),
            disable_auto_failback: self.disable_auto_failback.or(others.disable_auto_failback),
        }
    }

    /// The call that sets these; `None` if nothing was set.
    pub fn config(&self) -> Option<Value> {
        let mut params = Map::new();
        put(&mut params, "bdev_retry_count", self.retry_count);
        put(&mut params, "keep_alive_timeout_ms", self.keep_alive_ms);
        self.timeouts.show(&mut params);
        put(
            &mut params,
            "disable_auto_failback",
            self.disable_auto_failback,
        );
        put(&mut params, "multipath_opts", self.policy.map(policy::show));
        (!params.is_empty()).then(|| json!({"method": "bdev_nvme_set_options", "params": params}))
    }
}

/// `bdev_nvme_set_options`: refused while there is a controller. What is not given keeps its value.
pub(super) fn set(state: &mut State, call: &mut Call<State>) -> Outcome {
    let options = Options::take(&mut call.params)?;
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
                    Ok(_) => {
                        apply(state, options);
                        Ok(Value::Bool(true))
                    }
                });
            });
        });
    // A host that has stopped drops the reply, and with it the responder, which answers by itself.
    let _ = (state.host)(HostRequest::Controllers(reply));
    Ok(Answer::Later)
}

fn apply(state: &mut State, options: Options) {
    if let Some(count) = options.retry_count {
        let limit = u32::try_from(count).ok();
        let _ = (state.host)(HostRequest::SetRetryLimit(limit));
    }
    if let Some(disabled) = options.disable_auto_failback {
        let _ = (state.host)(HostRequest::SetFailback(!disabled));
    }
    state.options = options.or(&state.options);
}
