//! The controllers of all groups, by their identity.

use super::member::Member;
use crate::ids::ControllerId;

/// All members in the order in which they were attached.
#[derive(Default)]
pub(super) struct Members {
    list: Vec<Member>,
    /// One was lent to be changed since [`take_touched`](Self::take_touched), or has come.
    touched: bool,
}

impl Members {
    pub fn get(&self, id: ControllerId) -> Option<&Member> {
        self.list.iter().find(|m| m.id == id)
    }

    pub fn get_mut(&mut self, id: ControllerId) -> Option<&mut Member> {
        self.touched = true;
        self.list.iter_mut().find(|m| m.id == id)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Member> {
        self.list.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.touched = true;
        self.list.iter_mut()
    }

    /// The members of one name.
    pub fn group(&self, name: &str) -> impl Iterator<Item = &Member> + Clone {
        self.list.iter().filter(move |m| m.group == name)
    }

    /// The first member of a name.
    pub fn first(&self, name: &str) -> Option<&Member> {
        self.list.iter().find(|m| m.group == name)
    }

    /// The first that is so.
    pub fn find(&self, is_so: impl Fn(&Member) -> bool) -> Option<ControllerId> {
        self.list.iter().find(|m| is_so(m)).map(|m| m.id)
    }

    /// All that are so.
    pub fn ids(&self, is_so: impl Fn(&Member) -> bool) -> Vec<ControllerId> {
        let chosen = self.list.iter().filter(|m| is_so(m));
        chosen.map(|m| m.id).collect()
    }

    /// The nth in order, while the list may change.
    pub fn nth(&self, n: usize) -> Option<ControllerId> {
        self.list.get(n).map(|m| m.id)
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether anything may have been asked of a controller since this was asked last.
    #[inline]
    pub fn take_touched(&mut self) -> bool {
        std::mem::take(&mut self.touched)
    }

    pub fn push(&mut self, member: Member) {
        self.touched = true;
        self.list.push(member);
    }

    pub fn remove(&mut self, id: ControllerId) {
        self.list.retain(|m| m.id != id);
    }
}
