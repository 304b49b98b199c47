//! Links that rest: what a turn costs goes by the connections that have something to do, not by those that there are.

use pollux_reactor::Time;

use super::PollGroup;
use crate::io::link::LINK_TOKENS;

impl PollGroup {
    /// Has the link that the token is of looked at from the next receive on; false if it is of none.
    pub(crate) fn wake(&mut self, token: u64) -> bool {
        #[expect(clippy::expect_used, reason = "tokens of links are made of slots")]
        let slot = token
            .checked_sub(LINK_TOKENS)
            .map(|slot| usize::try_from(slot).expect("a slot"));
        if let Some(slot) = slot {
            self.poll_link(slot);
        }
        slot.is_some()
    }

    /// Has a link looked at in every turn until it rests. It may have gone.
    fn poll_link(&mut self, slot: usize) {
        if let Some(Some(link)) = self.links.get_mut(slot)
            && !std::mem::replace(&mut link.is_polled, true)
        {
            self.woken.push(slot);
        }
    }

    /// The same for all links: something has happened that may be of any of them.
    pub(super) fn poll_links(&mut self) {
        self.links_due = Time::ZERO;
        for slot in 0..self.links.len() {
            self.poll_link(slot);
        }
    }

    #[inline]
    pub(super) fn take_woken(&mut self) {
        if !self.woken.is_empty() {
            self.polled.append(&mut self.woken);
            self.polled.sort_unstable();
            // A controller may have taken the place of another one since.
            self.polled.dedup();
        }
    }

    /// Looks after every link whose time has come (rules B9.1, B9.2, B9.4).
    #[cold]
    pub(super) fn do_what_is_due(&mut self) {
        let (now, mut next) = (self.now, Time::MAX);
        for slot in 0..self.links.len() {
            let Some(Some(link)) = self.links.get(slot) else {
                continue;
            };
            if now >= link.due_at {
                let id = link.id;
                self.poll_link(slot);
                self.age_commands(id);
            }
            if let Some(Some(link)) = self.links.get(slot) {
                next = next.min(link.due_at);
            }
        }
        self.links_due = next;
    }

    /// The reactor is about to sleep: what is polled in every turn is not polled any more until there is an edge.
    pub(crate) fn before_sleep(&mut self) {
        for &slot in &self.polled {
            if let Some(Some(link)) = self.links.get_mut(slot) {
                link.want_edges();
            }
        }
    }

    /// Leaves out of the next turns what has nothing to do.
    #[inline]
    pub(super) fn let_rest(&mut self) {
        let links = &mut self.links;
        self.polled.retain(|&slot| {
            let Some(Some(link)) = links.get_mut(slot) else {
                return false;
            };
            link.is_polled = !link.rests();
            link.is_polled
        });
    }
}

#[cfg(test)]
mod tests {
    use pollux_reactor::{Progress, mailbox};

    use super::*;
    use crate::ids::ControllerId;
    use crate::io::link::Link;

    #[test]
    fn a_link_without_anything_to_do_rests_until_it_is_woken() {
        let (control, _receiver) = mailbox(1);
        let mut group = PollGroup::new(0, control);
        for slot in 0..3 {
            let generation = 1;
            let id = ControllerId { slot, generation };
            group.links.push(Some(Box::new(Link::new(id))));
        }
        group.poll_links();
        assert_eq!(group.receive(), Progress::Idle);
        assert_eq!(group.polled, [0, 1, 2]);
        assert_eq!(group.links_due, Time::MAX);
        group.transmit();
        assert!(group.polled.is_empty(), "no connection has anything to do");
        assert!(group.wake(LINK_TOKENS + 2) && group.wake(LINK_TOKENS + 1));
        assert!(group.wake(LINK_TOKENS + 2), "an edge that came again");
        assert!(group.wake(LINK_TOKENS + 9), "a link that has gone");
        assert!(!group.wake(2), "a stream of the application's");
        assert_eq!(group.receive(), Progress::Idle);
        assert_eq!(group.polled, [1, 2]);
    }
}
