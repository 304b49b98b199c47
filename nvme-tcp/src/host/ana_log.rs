//! The ANA log page, checked whole before any of it is believed (rule B3.3).

use zerocopy::FromBytes;

use crate::spec::log::{AnaGroupDescriptor, AnaLogHeader, AnaState};

/// One ANA group as the log describes it (NVMe Base 2.1, 5.1.12.1.13).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnaGroup {
    /// ANA group identifier, not 0.
    pub id: u32,
    /// Change count of the group.
    pub change_count: u64,
    /// State of the group on this controller.
    pub state: AnaState,
    /// Namespaces of the group that are attached to this controller.
    pub nsids: Vec<u32>,
}

/// A whole ANA log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AnaLog {
    /// Change count of the log.
    pub change_count: u64,
    /// The groups, in the order of the log.
    pub groups: Vec<AnaGroup>,
}

impl AnaLog {
    /// Reads a log from the bytes that Get Log Page returned; they may be longer than the log.
    ///
    /// # Errors
    /// What is wrong with it: truncated, a group or namespace that stands twice, group 0, NSID 0, or an
    /// ANA state that the specification does not know.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let (header, mut rest) =
            AnaLogHeader::ref_from_prefix(bytes).map_err(|_| "ANA log: no room for its header")?;
        let mut log = Self {
            change_count: header.chgcnt.get(),
            groups: Vec::new(),
        };
        let mut nsids_seen = std::collections::BTreeSet::new();
        for _ in 0..header.ngrps.get() {
            let (descriptor, list, after) = split_group(rest)?;
            let id = descriptor.agid.get();
            if id == 0 || log.groups.iter().any(|g| g.id == id) {
                return Err("ANA log: a group identifier is 0 or stands twice");
            }
            let state = descriptor.state();
            if !state.is_accessible() && state.refusal().is_none() {
                return Err("ANA log: unknown ANA state");
            }
            let nsids: Vec<u32> = list
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| u32::from_le_bytes(*b))
                .collect();
            if nsids.iter().any(|&n| n == 0 || !nsids_seen.insert(n)) {
                return Err("ANA log: a namespace is 0 or stands twice");
            }
            log.groups.push(AnaGroup {
                id,
                change_count: descriptor.chgcnt.get(),
                state,
                nsids,
            });
            rest = after;
        }
        Ok(log)
    }

    /// Whether these bytes from the beginning of a log hold all of it, be it right or wrong.
    pub(super) fn is_whole(bytes: &[u8]) -> bool {
        let Ok((header, mut rest)) = AnaLogHeader::ref_from_prefix(bytes) else {
            return false;
        };
        for _ in 0..header.ngrps.get() {
            let Ok((.., after)) = split_group(rest) else {
                return false;
            };
            rest = after;
        }
        true
    }

    /// Group and state of a namespace.
    pub fn of_namespace(&self, nsid: u32) -> Option<(u32, AnaState)> {
        self.groups
            .iter()
            .find(|g| g.nsids.contains(&nsid))
            .map(|g| (g.id, g.state))
    }

    /// State of a group.
    pub fn of_group(&self, id: u32) -> Option<AnaState> {
        self.groups.iter().find(|g| g.id == id).map(|g| g.state)
    }
}

/// A group's descriptor, its list of namespaces, and what follows them.
fn split_group(bytes: &[u8]) -> Result<(&AnaGroupDescriptor, &[u8], &[u8]), &'static str> {
    let (descriptor, after) = AnaGroupDescriptor::ref_from_prefix(bytes)
        .map_err(|_| "ANA log: a group descriptor is cut off")?;
    let (list, after) = usize::try_from(descriptor.nnv.get())
        .ok()
        .and_then(|count| after.split_at_checked(count.checked_mul(4)?))
        .ok_or("ANA log: a list of namespaces is cut off")?;
    Ok((descriptor, list, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(groups: &[(u32, u8, &[u32])]) -> Vec<u8> {
        let mut out = 7u64.to_le_bytes().to_vec();
        out.extend(u16::try_from(groups.len()).unwrap().to_le_bytes());
        out.extend([0; 6]);
        for (id, state, nsids) in groups {
            out.extend(id.to_le_bytes());
            out.extend(u32::try_from(nsids.len()).unwrap().to_le_bytes());
            out.extend(3u64.to_le_bytes());
            out.push(*state);
            out.extend([0; 15]);
            for nsid in *nsids {
                out.extend(nsid.to_le_bytes());
            }
        }
        out
    }

    /// B3.3
    #[test]
    fn a_good_log_is_read_and_padding_is_ignored() {
        let mut bytes = log(&[(1, 1, &[1, 3]), (2, 3, &[]), (9, 0xf, &[2])]);
        bytes.extend([0; 100]);
        let parsed = AnaLog::parse(&bytes).unwrap();
        assert_eq!(parsed.change_count, 7);
        assert_eq!(parsed.groups.len(), 3);
        assert_eq!(parsed.of_namespace(3), Some((1, AnaState::OPTIMIZED)));
        assert_eq!(parsed.of_namespace(2), Some((9, AnaState::CHANGE)));
        assert_eq!(parsed.of_namespace(4), None);
        assert_eq!(parsed.of_group(2), Some(AnaState::INACCESSIBLE));
    }

    /// B3.3
    #[test]
    fn a_bad_log_is_refused_whole() {
        let good = log(&[(1, 1, &[1, 2]), (2, 2, &[3])]);
        for cut in 0..good.len() {
            assert!(AnaLog::parse(&good[..cut]).is_err(), "cut at {cut}");
        }
        for bad in [
            log(&[(0, 1, &[1])]),
            log(&[(1, 1, &[1]), (1, 2, &[2])]),
            log(&[(1, 0, &[1])]),
            log(&[(1, 7, &[1])]),
            log(&[(1, 1, &[0])]),
            log(&[(1, 1, &[5, 5])]),
            log(&[(1, 1, &[5]), (2, 1, &[5])]),
        ] {
            assert!(AnaLog::parse(&bad).is_err(), "{bad:02x?}");
        }
        let mut huge = log(&[(1, 1, &[1])]);
        huge[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(AnaLog::parse(&huge).is_err());
    }
}
