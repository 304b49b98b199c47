//! The scan of a controller's active namespaces: the list, and then each one's data and descriptors.

use std::collections::{BTreeMap, VecDeque};

use super::{Answer, Next, Step};
use crate::host::controller::event::ControllerError;
use crate::host::controller::known::Known;
use crate::host::namespaces::Namespace;

/// Namespaces in one Active Namespace ID list.
const LIST_LEN: usize = 1024;

/// Most active namespaces of one controller; without a limit a peer could fill the memory with them.
pub(super) const NAMESPACES_MAX: usize = 65_536;

/// A scan of the active namespaces under way.
#[derive(Debug, Default)]
pub(in crate::host::controller) struct Scan {
    /// Where the next part of the list begins.
    after: u32,
    waiting: VecDeque<u32>,
    current: Option<Namespace>,
    found: BTreeMap<u32, Namespace>,
    left_out: BTreeMap<u32, &'static str>,
}

impl Scan {
    /// Where the next part of the list begins.
    pub fn after(&self) -> u32 {
        self.after
    }

    /// The namespace whose data is read next.
    #[expect(clippy::expect_used, reason = "a scan goes on while some wait")]
    pub fn next_nsid(&self) -> u32 {
        *self
            .waiting
            .front()
            .expect("no namespace is left to be read")
    }

    /// The namespace whose descriptors are read next.
    #[expect(clippy::expect_used, reason = "they are read behind its data")]
    pub fn current_nsid(&self) -> u32 {
        self.current.expect("descriptors of no namespace").nsid
    }

    /// What is to be read of the present namespace cannot be told for now: what is known of it stays.
    pub fn given_up(mut self, known: &mut Known) -> Next {
        let nsid = match self.current.take() {
            Some(namespace) => namespace.nsid,
            None => self.pop_next(),
        };
        self.keep(nsid, known)
    }

    #[expect(clippy::expect_used, reason = "a scan goes on while some wait")]
    fn pop_next(&mut self) -> u32 {
        let next = self.waiting.pop_front();
        next.expect("no namespace is left to be read")
    }

    pub fn on_list(mut self, known: &mut Known, data: &[u8]) -> Result<Next, ControllerError> {
        let (ids, _) = data.as_chunks::<4>();
        let mut count = 0;
        for nsid in ids.iter().map(|id| u32::from_le_bytes(*id)).take(LIST_LEN) {
            if nsid == 0 {
                break;
            }
            if nsid <= self.after {
                return Err(ControllerError::BadData(
                    "Active Namespace ID list is not in rising order",
                ));
            }
            self.after = nsid;
            self.waiting.push_back(nsid);
            count += 1;
        }
        if self.waiting.len() > NAMESPACES_MAX {
            return Err(ControllerError::BadData(
                "more than 65536 active namespaces",
            ));
        }
        if count == LIST_LEN {
            return Ok(Next::Step(Step::ActiveList(self)));
        }
        Ok(self.next(known))
    }

    pub fn on_namespace(mut self, known: &mut Known, answer: &Answer<'_>) -> Next {
        let nsid = self.pop_next();
        let parsed = if answer.status.is_success() {
            Namespace::parse(nsid, answer.data)
        } else {
            Err("Identify Namespace was refused")
        };
        match parsed {
            Ok(namespace) => {
                self.current = Some(namespace);
                Next::Step(Step::Descriptors(self))
            }
            Err(why) => {
                self.left_out.insert(nsid, why);
                self.next(known)
            }
        }
    }

    pub fn on_descriptors(mut self, known: &mut Known, answer: &Answer<'_>) -> Next {
        #[expect(clippy::expect_used, reason = "they are read behind its data")]
        let mut namespace = self.current.take().expect("descriptors of no namespace");
        if answer.status.is_success() {
            namespace.add_descriptors(answer.data);
        }
        if namespace.ids.csi == 0 {
            self.found.insert(namespace.nsid, namespace);
        } else {
            let why = "not of the NVM command set";
            self.left_out.insert(namespace.nsid, why);
        }
        self.next(known)
    }

    /// Leaves a namespace as it is known, since nothing new is.
    fn keep(mut self, nsid: u32, known: &mut Known) -> Next {
        match known.namespaces.get(&nsid) {
            Some(known) => {
                self.found.insert(nsid, *known);
            }
            None => {
                let why = "Identify Namespace ends with a transient status; asked again";
                self.left_out.insert(nsid, why);
            }
        }
        self.next(known)
    }

    fn next(self, known: &mut Known) -> Next {
        if !self.waiting.is_empty() {
            return Next::Step(Step::Namespace(self));
        }
        known.namespaces = self.found;
        known.left_out = self.left_out;
        match known.is_up {
            true => Next::Namespaces,
            false if known.reports_ana() => Next::Step(Step::ana(known)),
            false => Next::Ready,
        }
    }
}
