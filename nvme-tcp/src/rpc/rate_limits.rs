//! `bdev_set_qos_limit`: its parameters, and how limits are shown and saved.

use pollux_reactor::rpc::{Params, RpcError};
use serde_json::{Map, Value, json};

use crate::rate_limit::{IOS_MAX, MEGABYTES_MAX, RateChange, RateLimits, Resource};

const EINVAL: i32 = 22;

impl Resource {
    /// The parameter of `bdev_set_qos_limit`, and the largest value.
    fn parameter(self) -> (&'static str, u64) {
        match self {
            Self::Ios => ("rw_ios_per_sec", IOS_MAX),
            Self::Bytes => ("rw_mbytes_per_sec", MEGABYTES_MAX),
            Self::BytesRead => ("r_mbytes_per_sec", MEGABYTES_MAX),
            Self::BytesWritten => ("w_mbytes_per_sec", MEGABYTES_MAX),
        }
    }
}

impl RateLimits {
    /// The members by which SPDK's clients know them; `all`: also those that limit nothing.
    pub fn show(self, all: bool) -> Map<String, Value> {
        let limits = Resource::ALL.into_iter().zip(self.0);
        let shown = limits.filter(|(_, value)| all || *value > 0);
        let shown = shown.map(|(resource, value)| (resource.parameter().0.into(), value.into()));
        shown.collect()
    }

    /// The call that limits the disk or volume of this name so; none if there is no limit.
    pub fn call(self, name: &str) -> Option<Value> {
        let mut params = self.show(false);
        if params.is_empty() {
            return None;
        }
        params.insert("name".into(), name.into());
        Some(json!({"method": "bdev_set_qos_limit", "params": params}))
    }
}

impl RateChange {
    /// Takes the limits out of the parameters of the method, and those are all that there are then.
    ///
    /// # Errors
    /// One is no number from 0 up to what can be counted, another parameter is unknown, or no limit is given.
    pub fn take(params: &mut Params) -> Result<Self, RpcError> {
        let mut change = [None; 4];
        for (resource, value) in Resource::ALL.into_iter().zip(&mut change) {
            let (name, max) = resource.parameter();
            *value = params.optional::<u64>(name)?;
            if let Some(value) = *value
                && value > max
            {
                return Err(params.invalid(name, format!("{value}, at most {max} is allowed")));
            }
        }
        params.finish()?;
        if change == [None; 4] {
            return Err(RpcError::errno_of(EINVAL, "No rate limits specified"));
        }
        Ok(Self(change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(value: Value) -> Result<RateChange, RpcError> {
        let Value::Object(members) = value else {
            unreachable!("an object")
        };
        RateChange::take(&mut Params::new(members))
    }

    #[test]
    fn limits_that_are_not_given_stay() {
        let first = change(json!({"rw_ios_per_sec": 100, "w_mbytes_per_sec": 7})).unwrap();
        let limits = first.apply(RateLimits::default());
        let second = change(json!({"rw_ios_per_sec": 0, "r_mbytes_per_sec": 9})).unwrap();
        let limits = second.apply(limits);
        assert_eq!(
            Value::from(limits.show(false)),
            json!({"r_mbytes_per_sec": 9, "w_mbytes_per_sec": 7})
        );
        assert_eq!(limits, RateLimits::default().with_megabytes(0, 9, 7));
        assert_eq!(RateLimits::default().show(true).len(), 4);
    }

    #[test]
    fn what_cannot_be_a_limit_is_refused() {
        for (params, code, word) in [
            (json!({}), -22, "No rate limits specified"),
            (json!({"rw_ios_per_sec": -1}), -32602, "rw_ios_per_sec"),
            (json!({"rw_ios_per_sec": "1"}), -32602, "rw_ios_per_sec"),
            (json!({"rw_ios_per_sec": 1.5}), -32602, "rw_ios_per_sec"),
            (
                json!({"rw_ios_per_sec": 1_000_000_001u64}),
                -32602,
                "at most 1000000000",
            ),
            (
                json!({"w_mbytes_per_sec": u64::MAX}),
                -32602,
                "at most 16777216",
            ),
            (json!({"rw_ios_per_sec": 1, "x": 1}), -32602, "'x'"),
        ] {
            let error = change(params.clone()).unwrap_err();
            assert_eq!(error.code, code, "{params}: {error}");
            assert!(error.to_string().contains(word), "{params}: {error}");
        }
    }
}
