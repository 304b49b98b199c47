//! Multipath policies as parameters and in answers.

use pollux_reactor::rpc::{Params, RpcError};
use serde_json::{Value, json};

use crate::policy::{Policy, Selector};

const POLICIES: [(&str, bool); 2] = [("active_passive", false), ("active_active", true)];

/// Takes `policy`, which must be there, `selector` and `rr_min_io`.
pub(super) fn take_required(params: &mut Params) -> Result<Policy, RpcError> {
    let active_active = params.one_of("policy", &POLICIES)?;
    let active_active =
        active_active.ok_or_else(|| RpcError::invalid_params("'policy' is missing"))?;
    take(active_active, params, "rr_min_io")
}

/// -32603 if they do not go together.
fn take(active_active: bool, params: &mut Params, min_io_name: &str) -> Result<Policy, RpcError> {
    let selector = params.one_of("selector", &Selector::ALL.map(|s| (s.name(), s)))?;
    let min_io: Option<u32> = params.optional(min_io_name)?;
    let clash = |what: String| Err(RpcError::internal(what));
    if !active_active {
        if selector.is_some() {
            return clash("'selector' has no meaning for active_passive".into());
        }
        if min_io.is_some() {
            return clash(format!("'{min_io_name}' has no meaning for active_passive"));
        }
        return Ok(Policy::ActivePassive);
    }
    let selector = selector.unwrap_or_default();
    let Some(min_io) = min_io else {
        return Ok(Policy::ActiveActive(selector));
    };
    match selector.with_min_io(min_io) {
        None => {
            let name = selector.name();
            clash(format!("'{min_io_name}' has no meaning for {name}"))
        }
        Some(_) if min_io == 0 => Err(params.invalid(min_io_name, "at least 1")),
        Some(selector) => Ok(Policy::ActiveActive(selector)),
    }
}

/// Takes the object `multipath_opts`; without a policy in it that is `active_passive`.
pub(super) fn take_opts(params: &mut Params) -> Result<Option<Policy>, RpcError> {
    let Some(mut opts) = params.object("multipath_opts")? else {
        return Ok(None);
    };
    let active_active = opts.one_of("policy", &POLICIES)?.unwrap_or(false);
    let policy = take(active_active, &mut opts, "min_io")?;
    opts.finish()?;
    Ok(Some(policy))
}

/// What [`take_opts`] takes.
pub(super) fn show(policy: Policy) -> Value {
    let mut shown = json!({"policy": policy.name()});
    let (selector, min_io) = parts(policy);
    if let Some(selector) = selector {
        shown["selector"] = selector.into();
    }
    if let Some(min_io) = min_io {
        shown["min_io"] = min_io.into();
    }
    shown
}

/// Selector and `rr_min_io` as SPDK shows them beside the policy: `null` where they have no meaning.
pub(super) fn parts(policy: Policy) -> (Option<&'static str>, Option<u32>) {
    match policy {
        Policy::ActivePassive => (None, None),
        Policy::ActiveActive(selector) => (Some(selector.name()), selector.min_io()),
    }
}
