//! Fencing as parameters and in answers (rule B14).

use std::time::Duration;

use pollux_reactor::rpc::{Params, RpcError};
use serde_json::{Map, Value, json};

use crate::options::{Fencing, FencingMode};
use crate::status::FenceStatus;

/// `fencing` and `cqt_ms`, as far as they were given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given {
    mode: Option<FencingMode>,
    cqt_ms: Option<u32>,
}

impl Given {
    pub fn take(params: &mut Params) -> Result<Given, RpcError> {
        Ok(Given {
            mode: params.one_of("fencing", &FencingMode::ALL.map(|m| (m.name(), m)))?,
            cqt_ms: params.optional("cqt_ms")?,
        })
    }

    /// These, and what they leave open from `others`.
    pub fn or(self, others: Given) -> Given {
        Given {
            mode: self.mode.or(others.mode),
            cqt_ms: self.cqt_ms.or(others.cqt_ms),
        }
    }

    pub fn fencing(self) -> Fencing {
        Fencing {
            mode: self.mode.unwrap_or_default(),
            cqt: self.cqt_ms.map(|ms| Duration::from_millis(ms.into())),
        }
    }

    pub fn show(self, members: &mut Map<String, Value>) {
        if let Some(mode) = self.mode {
            members.insert("fencing".into(), json!(mode.name()));
        }
        if let Some(ms) = self.cqt_ms {
            members.insert("cqt_ms".into(), json!(ms));
        }
    }
}

/// The members that make the same again.
pub(super) fn show(fencing: Fencing, members: &mut Map<String, Value>) {
    let ms = fencing.cqt.map(|cqt| cqt.as_millis());
    let given = Given {
        mode: Some(fencing.mode),
        cqt_ms: ms.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)),
    };
    given.show(members);
}

pub(super) fn show_status(fence: FenceStatus) -> Value {
    json!({
        "writes": fence.writes,
        "behind": fence.behind,
        "remaining_ms": u64::try_from(fence.remaining.as_millis()).unwrap_or(u64::MAX),
    })
}
