//! Parameters of methods about in-band authentication: names of keys, and what may be agreed on.

use pollux_reactor::rpc::{Params, RpcError};
use serde_json::{Map, Value};

#[cfg(feature = "auth")]
use crate::auth::{DhGroup, Hash};
use crate::auth::{KeyNames, Policy};

/// Names of hash functions.
const DIGESTS: [&str; 3] = ["sha256", "sha384", "sha512"];
/// Names of groups.
const DHGROUPS: [&str; 6] = [
    "null",
    "ffdhe2048",
    "ffdhe3072",
    "ffdhe4096",
    "ffdhe6144",
    "ffdhe8192",
];

impl KeyNames {
    /// Takes `dhchap_key` and `dhchap_ctrlr_key` of a method's parameters.
    ///
    /// # Errors
    /// What is said against them.
    pub fn take(params: &mut Params) -> Result<Option<Self>, RpcError> {
        let dhchap_key: Option<String> = params.optional("dhchap_key")?;
        let dhchap_ctrlr_key: Option<String> = params.optional("dhchap_ctrlr_key")?;
        match dhchap_key {
            Some(dhchap_key) => Ok(Some(Self {
                dhchap_key,
                dhchap_ctrlr_key,
            })),
            None if dhchap_ctrlr_key.is_some() => Err(RpcError::invalid_params(
                "'dhchap_ctrlr_key' needs a 'dhchap_key': a controller proves itself to a host that did",
            )),
            None => Ok(None),
        }
    }

    /// Puts them into the parameters of a method.
    pub fn put(&self, params: &mut Map<String, Value>) {
        params.insert("dhchap_key".into(), self.dhchap_key.as_str().into());
        if let Some(name) = &self.dhchap_ctrlr_key {
            params.insert("dhchap_ctrlr_key".into(), name.as_str().into());
        }
    }
}

/// `dhchap_digests` and `dhchap_dhgroups` of methods, as far as they were set. The strongest of them comes first, in whatever
/// order they are named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyNames {
    digests: Option<Vec<String>>,
    dhgroups: Option<Vec<String>>,
}

impl PolicyNames {
    /// Takes them of a method's parameters.
    ///
    /// # Errors
    /// A name that is not known, or none at all.
    pub fn take(params: &mut Params) -> Result<Self, RpcError> {
        Ok(Self {
            digests: names(params, "dhchap_digests", &DIGESTS)?,
            dhgroups: names(params, "dhchap_dhgroups", &DHGROUPS)?,
        })
    }

    /// Whether nothing was set.
    pub fn is_empty(&self) -> bool {
        self.digests.is_none() && self.dhgroups.is_none()
    }

    /// These, and what they leave open from `others`.
    #[must_use]
    pub fn or(self, others: &Self) -> Self {
        Self {
            digests: self.digests.or_else(|| others.digests.clone()),
            dhgroups: self.dhgroups.or_else(|| others.dhgroups.clone()),
        }
    }

    /// What may be agreed on; all that is not restricted.
    #[cfg(feature = "auth")]
    pub fn policy(&self) -> Policy {
        let allows = |names: &Option<Vec<String>>, name: &str| {
            names
                .as_ref()
                .is_none_or(|names| names.iter().any(|n| n == name))
        };
        let mut policy = Policy::default();
        let hash = |hash: &Hash| allows(&self.digests, hash.name());
        policy.hashes.retain(hash);
        let group = |group: &DhGroup| allows(&self.dhgroups, group.name());
        policy.groups.retain(group);
        policy
    }

    /// Nothing can be agreed on.
    #[cfg(not(feature = "auth"))]
    pub fn policy(&self) -> Policy {
        Policy::default()
    }

    /// Puts them into the parameters of a method.
    pub fn put(&self, params: &mut Map<String, Value>) {
        for (name, names) in [
            ("dhchap_digests", &self.digests),
            ("dhchap_dhgroups", &self.dhgroups),
        ] {
            if let Some(names) = names {
                params.insert(name.into(), names.clone().into());
            }
        }
    }
}

fn names(
    params: &mut Params,
    member: &str,
    known: &[&str],
) -> Result<Option<Vec<String>>, RpcError> {
    let Some(names) = params.optional::<Vec<String>>(member)? else {
        return Ok(None);
    };
    if names.is_empty() {
        return Err(params.invalid(
            member,
            format!("none: one of {} is needed", known.join(", ")),
        ));
    }
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => {
            let name = name.escape_debug();
            Err(params.invalid(member, format!("'{name}': one of {}", known.join(", "))))
        }
        None => Ok(Some(names)),
    }
}
