//! Who may have how much of a reactor's staging memory, and who is next.
//!
//! The memory is shared between hosts, and the part of a host between its connections. Nobody may take what would leave
//! too little behind: a host has at most [`HOST_PART`] times what is then free, and each of its connections an equal part
//! of that, with something left for one more. However greedy some are, the next one finds something; and as who is above
//! that bound gets nothing, hosts that all want much come to have about the same, and so do connections of a host. Those
//! that have to wait are asked in turn, the hosts and then the connections of each. And there is as much again for hosts
//! that hold nothing: each goes on with one transfer at a time, whatever some dozens of others hold.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pollux_reactor::Time;

use crate::spec::nqn::HostNqn;
use crate::target::io::TRANSFER_MAX;

/// What a host may have, in multiples of what is then free: alone it gets two thirds of the memory, the next one two
/// thirds of the rest.
const HOST_PART: usize = 2;

/// In how many parts what a host may have is cut for each of its connections that hold or want any; one more is left.
const CLIENT_PARTS: usize = 3;

/// Time after which memory is kept together for a connection that waits and is below its share: many small transfers
/// of others could pass a large one by for ever.
const OVERDUE: Duration = Duration::from_millis(100);

/// Hosts that wait and are looked at without finding one that may go on, and connections of each, whenever memory comes
/// back.
const LOOKS_MAX: usize = 8;

/// What a host calls itself: name and identifier.
pub(in crate::target) type HostName = (HostNqn, [u8; 16]);

#[derive(Debug)]
struct Host {
    name: HostName,
    /// Controllers and connections.
    users: usize,
    clients: usize,
    /// Connections that hold or want any.
    active: usize,
    held: usize,
    /// Connections of the host that wait, in turn.
    waiting: VecDeque<usize>,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// The connection wants nothing.
    Content,
    /// For so many bytes, since then.
    Waiting(usize, Time),
    /// So many bytes are set aside for it; it has been woken to take them.
    Invited(usize),
}

#[derive(Debug)]
struct Client {
    host: usize,
    /// Where it is told that it may go on.
    place: usize,
    stand: Stand,
    /// With what is set aside.
    held: usize,
    /// Buffers that it has; it is forgotten when it is closed and has given all of them back.
    buffers: usize,
    is_open: bool,
}

impl Client {
    fn is_active(&self) -> bool {
        self.held > 0 || self.stand != Stand::Content
    }
}

/// The books of a reactor's staging memory.
#[derive(Debug)]
pub(in crate::target) struct Shares {
    /// Bytes that are shared; there are as many besides for hosts that hold nothing.
    total: usize,
    held: usize,
    names: BTreeMap<HostName, usize>,
    hosts: Vec<Option<Host>>,
    clients: Vec<Option<Client>>,
    /// Hosts with connections that wait, in turn.
    ring: VecDeque<usize>,
    /// A connection that memory is kept together for.
    saving_for: Option<usize>,
    /// Places of those that were invited.
    woken: Vec<usize>,
    longest_wait: Duration,
}

impl Shares {
    /// Books of `total` bytes, which are many times [`TRANSFER_MAX`], and as many for hosts that hold nothing.
    pub(in crate::target) fn new(total: usize) -> Self {
        Self {
            total,
            held: 0,
            names: BTreeMap::new(),
            hosts: Vec::new(),
            clients: Vec::new(),
            ring: VecDeque::new(),
            saving_for: None,
            woken: Vec::new(),
            longest_wait: Duration::ZERO,
        }
    }

    /// Bytes that are given out or set aside.
    pub(in crate::target) fn held(&self) -> usize {
        self.held
    }

    /// The longest that a connection has waited, or waits.
    pub(in crate::target) fn longest_wait(&self, now: Time) -> Duration {
        let waiting = self.clients.iter().flatten().map(|c| match c.stand {
            Stand::Waiting(_, since) => now.saturating_since(since),
            _ => Duration::ZERO,
        });
        waiting.fold(self.longest_wait, Duration::max)
    }

    /// A controller of a host came to be. Returns the host's number.
    pub(in crate::target) fn enter(&mut self, name: HostName) -> usize {
        let host = match self.names.get(&name) {
            Some(&host) => host,
            None => {
                let host = put(
                    &mut self.hosts,
                    Host {
                        name: name.clone(),
                        users: 0,
                        clients: 0,
                        active: 0,
                        held: 0,
                        waiting: VecDeque::new(),
                    },
                );
                self.names.insert(name, host);
                host
            }
        };
        self.host(host).users += 1;
        host
    }

    /// A controller, or one of the connections, is gone.
    pub(in crate::target) fn leave(&mut self, host: usize) {
        let of = self.host(host);
        of.users -= 1;
        if of.users == 0
            && let Some(gone) = self.hosts.get_mut(host).and_then(Option::take)
        {
            self.names.remove(&gone.name);
        }
    }

    /// A connection of a host. It is woken at `place`. Returns its number.
    pub(in crate::target) fn open(&mut self, host: usize, place: usize) -> usize {
        let of = self.host(host);
        of.users += 1;
        of.clients += 1;
        put(
            &mut self.clients,
            Client {
                host,
                place,
                stand: Stand::Content,
                held: 0,
                buffers: 0,
                is_open: true,
            },
        )
    }

    /// The connection has ended; buffers of its may come back later.
    pub(in crate::target) fn close(&mut self, client: usize, now: Time) {
        self.withdraw(client, now);
        self.client(client).is_open = false;
        self.forget(client);
    }

    fn forget(&mut self, client: usize) {
        let of = self.client(client);
        if of.is_open || of.buffers > 0 {
            return;
        }
        let host = of.host;
        if let Some(place) = self.clients.get_mut(client) {
            *place = None;
        }
        self.host(host).clients -= 1;
        self.leave(host);
    }

    /// Asks for `len` bytes. False: they are not to be had now, and the connection is told when they are, unless it
    /// asks for other ones meanwhile.
    #[inline]
    pub(in crate::target) fn request(&mut self, client: usize, len: usize, now: Time) -> bool {
        match self.client(client).stand {
            Stand::Waiting(wanted, _) if wanted == len => return false,
            Stand::Invited(wanted) if wanted == len => {
                return self.accept(client);
            }
            Stand::Content => {}
            _ => self.withdraw(client, now),
        }
        // Who holds nothing need not wait for its turn to be found.
        let (by_host, _) = self.held_by(client);
        if (self.ring.is_empty() || by_host == 0) && self.fits(client, len) {
            self.book(client, len);
            self.client(client).buffers += 1;
            return true;
        }
        let of = self.client(client);
        let is_new = !of.is_active();
        of.stand = Stand::Waiting(len, now);
        let host = of.host;
        let of = self.host(host);
        of.active += usize::from(is_new);
        of.waiting.push_back(client);
        if of.waiting.len() == 1 {
            self.ring.push_back(host);
        }
        self.invite(now);
        if !matches!(self.client(client).stand, Stand::Invited(_)) {
            return false;
        }
        // The connection need not be told.
        let place = self.client(client).place;
        self.woken.retain(|&woken| woken != place);
        self.accept(client)
    }

    /// Gives `len` bytes to a connection whatever it has, for what cannot wait.
    pub(in crate::target) fn overdraw(&mut self, client: usize, len: usize) {
        self.book(client, len);
        self.client(client).buffers += 1;
    }

    fn accept(&mut self, client: usize) -> bool {
        let of = self.client(client);
        of.stand = Stand::Content;
        of.buffers += 1;
        true
    }

    /// Bytes that were granted are given back.
    #[inline]
    pub(in crate::target) fn release(&mut self, client: usize, len: usize, now: Time) {
        self.client(client).buffers -= 1;
        self.unbook(client, len);
        self.forget(client);
        if !self.ring.is_empty() {
            self.invite(now);
        }
    }

    /// The connection does not want for now what it has asked for.
    pub(in crate::target) fn withdraw(&mut self, client: usize, now: Time) {
        let of = self.client(client);
        let host = of.host;
        match std::mem::replace(&mut of.stand, Stand::Content) {
            Stand::Content => return,
            Stand::Invited(len) => self.unbook(client, len),
            Stand::Waiting(..) => {
                let is_content = !of.is_active();
                let of = self.host(host);
                of.active -= usize::from(is_content);
                of.waiting.retain(|&c| c != client);
                if of.waiting.is_empty() {
                    self.ring.retain(|&h| h != host);
                }
            }
        }
        if self.saving_for == Some(client) {
            self.saving_for = None;
        }
        self.invite(now);
    }

    /// The place of a connection that may go on.
    #[inline]
    pub(in crate::target) fn next_woken(&mut self) -> Option<usize> {
        self.woken.pop()
    }

    /// Whether anybody waits.
    #[inline]
    pub(in crate::target) fn is_waited_for(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Whether anybody else waits.
    pub(in crate::target) fn is_contended(&self, client: usize) -> bool {
        let hosts = self
            .ring
            .iter()
            .filter_map(|&h| self.hosts.get(h)?.as_ref());
        let others = hosts.flat_map(|host| &host.waiting);
        // The first two tell: one of them is another.
        others.take(2).any(|&waiting| waiting != client)
    }

    /// Sets aside what can be had for those that wait.
    fn invite(&mut self, now: Time) {
        let mut looks = 0;
        while looks < LOOKS_MAX.min(self.ring.len()) {
            let Some(host) = self.ring.pop_front() else {
                return;
            };
            let waiting = self.host(host).waiting.len();
            let found = (0..waiting.min(LOOKS_MAX)).any(|_| self.invite_next_of(host, now));
            looks = if found { 0 } else { looks + 1 };
            if !self.host(host).waiting.is_empty() {
                self.ring.push_back(host);
            }
        }
    }

    /// Sets aside what the next connection of this host waits for. False if it cannot be had: then that connection
    /// stands behind the others.
    fn invite_next_of(&mut self, host: usize, now: Time) -> bool {
        let Some(client) = self.host(host).waiting.pop_front() else {
            unreachable!("a host in the ring has connections that wait")
        };
        let Stand::Waiting(len, since) = self.client(client).stand else {
            unreachable!("a connection in the list of those that wait does wait")
        };
        let waited = now.saturating_since(since);
        if !self.fits(client, len) {
            if self.saving_for.is_none() && waited >= OVERDUE && self.is_below_share(client, len) {
                self.saving_for = Some(client);
            }
            self.host(host).waiting.push_back(client);
            return false;
        }
        self.longest_wait = self.longest_wait.max(waited);
        if self.saving_for == Some(client) {
            self.saving_for = None;
        }
        self.book(client, len);
        let of = self.client(client);
        of.stand = Stand::Invited(len);
        let place = of.place;
        self.woken.push(place);
        true
    }

    #[inline]
    fn fits(&self, client: usize, len: usize) -> bool {
        let Some(Some(of)) = self.clients.get(client) else {
            unreachable!("a connection that wants memory is known")
        };
        let Some(Some(host)) = self.hosts.get(of.host) else {
            unreachable!("the host of a connection is known")
        };
        let with_it = self.held + len;
        if host.held == 0 && with_it <= 2 * self.total {
            return true;
        }
        let Some(left) = self.total.checked_sub(with_it) else {
            return false;
        };
        match self.saving_for {
            Some(other) if other == client => return true,
            Some(other) if self.holds_more(client, other) => return false,
            _ => {}
        }
        let active = host.active + usize::from(!of.is_active());
        let parts = CLIENT_PARTS * active + 1;
        host.held + len <= HOST_PART * left
            && (of.held + len) * parts <= HOST_PART * left * CLIENT_PARTS
    }

    /// What the host of a connection holds, and the connection itself.
    #[inline]
    fn held_by(&self, client: usize) -> (usize, usize) {
        let of = self.clients.get(client).and_then(Option::as_ref);
        let host = of.and_then(|of| self.hosts.get(of.host)?.as_ref());
        (host.map_or(0, |h| h.held), of.map_or(0, |c| c.held))
    }

    fn holds_more(&self, client: usize, other: usize) -> bool {
        let host_of = |c: usize| self.clients.get(c).and_then(Option::as_ref).map(|c| c.host);
        let (one, two) = (self.held_by(client), self.held_by(other));
        if host_of(client) == host_of(other) {
            one.1 > two.1
        } else {
            one.0 > two.0
        }
    }

    /// The connection holds nothing, or with `len` more bytes it and its host would still have no more than if all had the
    /// same.
    fn is_below_share(&self, client: usize, len: usize) -> bool {
        let least = TRANSFER_MAX as usize;
        let of_host = (self.total / self.names.len().max(1)).max(least);
        let host = self.clients.get(client).and_then(Option::as_ref);
        let host = host.and_then(|c| self.hosts.get(c.host)?.as_ref());
        let of_client = (of_host / host.map_or(1, |h| h.clients.max(1))).max(least);
        let (by_host, by_client) = self.held_by(client);
        by_client == 0 || (by_host + len <= of_host && by_client + len <= of_client)
    }

    #[inline]
    fn book(&mut self, client: usize, len: usize) {
        self.held += len;
        let of = self.client(client);
        let is_new = !of.is_active();
        of.held += len;
        let host = of.host;
        let of = self.host(host);
        of.held += len;
        of.active += usize::from(is_new);
    }

    #[inline]
    fn unbook(&mut self, client: usize, len: usize) {
        self.held -= len;
        let of = self.client(client);
        of.held -= len;
        let is_content = !of.is_active();
        let host = of.host;
        let of = self.host(host);
        of.held -= len;
        of.active -= usize::from(is_content);
    }

    #[inline]
    #[expect(
        clippy::expect_used,
        reason = "a connection is in the books until it is closed and has given everything back"
    )]
    fn client(&mut self, client: usize) -> &mut Client {
        let of = self.clients.get_mut(client).and_then(Option::as_mut);
        of.expect("a connection that is in the books")
    }

    #[inline]
    #[expect(
        clippy::expect_used,
        reason = "a host is in the books as long as it has controllers or connections"
    )]
    fn host(&mut self, host: usize) -> &mut Host {
        let of = self.hosts.get_mut(host).and_then(Option::as_mut);
        of.expect("a host that is in the books")
    }
}

/// Puts a thing into the first empty place.
fn put<T>(places: &mut Vec<Option<T>>, thing: T) -> usize {
    let place = places.iter().position(Option::is_none);
    let place = place.unwrap_or(places.len());
    match places.get_mut(place) {
        Some(empty) => *empty = Some(thing),
        None => places.push(Some(thing)),
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    const TOTAL: usize = 32 * MIB;

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    fn host(shares: &mut Shares, n: u8) -> usize {
        shares.enter((
            HostNqn::new("nqn.2014-08.org.example:host").unwrap(),
            [n; 16],
        ))
    }

    /// Asks for as much as can be had.
    fn fill(shares: &mut Shares, client: usize, len: usize) -> usize {
        (0..)
            .take_while(|_| shares.request(client, len, at(0)))
            .count()
    }

    #[test]
    fn nobody_takes_everything_however_many_are_greedy() {
        let mut shares = Shares::new(TOTAL);
        let mut got = Vec::new();
        for n in 0..6 {
            let host = host(&mut shares, n);
            let mut of_host = 0;
            for place in 0..8 {
                let client = shares.open(host, place);
                of_host += fill(&mut shares, client, 64 * KIB);
            }
            got.push(of_host * 64 * KIB);
        }
        // About two thirds, and two thirds of what that left.
        assert!((20 * MIB..22 * MIB).contains(&got[0]), "{got:?}");
        assert!((6 * MIB..8 * MIB).contains(&got[1]), "{got:?}");
        assert!(got.iter().all(|&got| got > 0), "{got:?}");
        assert!(shares.held() < TOTAL);
    }

    #[test]
    fn a_host_that_holds_nothing_goes_on_beside_many_that_give_nothing_back() {
        let mut shares = Shares::new(TOTAL);
        for n in 0..30 {
            let host = host(&mut shares, n);
            let client = shares.open(host, 0);
            assert!(fill(&mut shares, client, MIB) > 0, "host {n}");
        }
        let last = host(&mut shares, 99);
        let last = shares.open(last, 0);
        for len in [MIB, 64 * KIB, MIB] {
            assert!(shares.request(last, len, at(1)));
            assert!(!shares.request(last, MIB, at(1)));
            shares.withdraw(last, at(1));
            shares.release(last, len, at(2));
        }
        assert!(shares.held() <= 2 * TOTAL);
    }

    #[test]
    fn hosts_that_all_want_much_come_to_have_the_same() {
        let mut shares = Shares::new(TOTAL);
        let len = 256 * KIB;
        let mut clients = Vec::new();
        // The first has come long before the others, with two connections.
        for (n, connections) in [(0, 2), (1, 1), (2, 1)] {
            let host = host(&mut shares, n);
            for _ in 0..connections {
                let client = shares.open(host, clients.len());
                clients.push((client, fill(&mut shares, client, len)));
            }
        }
        for round in 0..2_000 {
            // One transfer of each that has any ends, and who is told goes on.
            for (client, buffers) in &mut clients {
                if *buffers > 0 {
                    *buffers -= 1;
                    shares.release(*client, len, at(round));
                }
            }
            while let Some(place) = shares.next_woken() {
                let (client, buffers) = &mut clients[place];
                while shares.request(*client, len, at(round)) {
                    *buffers += 1;
                }
            }
        }
        let held: Vec<usize> = clients.iter().map(|(_, buffers)| *buffers).collect();
        let hosts = [held[0] + held[1], held[2], held[3]];
        let (most, least) = (hosts.iter().max().unwrap(), hosts.iter().min().unwrap());
        assert!(most * 4 <= least * 5, "{held:?}");
        assert!(held[0].abs_diff(held[1]) <= 3, "{held:?}");
    }

    #[test]
    fn many_small_ones_do_not_pass_a_large_one_for_ever() {
        let mut shares = Shares::new(TOTAL);
        let (small, large) = (16 * KIB, MIB);
        let mut clients = Vec::new();
        let first = host(&mut shares, 0);
        for n in 0..200 {
            let host = host(&mut shares, n);
            let client = shares.open(host, clients.len());
            let buffers = fill(&mut shares, client, small);
            clients.push((client, buffers));
        }
        // Another connection of a host that is busy with small ones itself.
        let last = shares.open(first, 1_000);
        assert!(!shares.request(last, large, at(0)));
        let done = (1..10_000).find(|&round| {
            for (client, buffers) in &mut clients {
                if *buffers > 0 {
                    *buffers -= 1;
                    shares.release(*client, small, at(round));
                }
            }
            let mut got = false;
            while let Some(place) = shares.next_woken() {
                let Some((client, buffers)) = clients.get_mut(place) else {
                    got = shares.request(last, large, at(round));
                    continue;
                };
                while shares.request(*client, small, at(round)) {
                    *buffers += 1;
                }
            }
            got
        });
        assert!(done.is_some());
        assert!(shares.longest_wait(at(0)) >= OVERDUE);
    }

    #[test]
    fn what_is_closed_is_forgotten_when_its_buffers_are_back() {
        let mut shares = Shares::new(TOTAL);
        let host = host(&mut shares, 1);
        let (one, two) = (shares.open(host, 1), shares.open(host, 2));
        let buffers = fill(&mut shares, one, MIB);
        assert_eq!(buffers, 19);
        assert!(shares.is_contended(two) && !shares.is_contended(one));
        shares.leave(host);
        shares.close(two, at(1));
        shares.close(one, at(1));
        assert!(!shares.is_contended(two));
        for _ in 0..buffers {
            shares.release(one, MIB, at(2));
        }
        assert_eq!(shares.held(), 0);
        assert!(shares.names.is_empty());
        assert!(shares.hosts.iter().all(Option::is_none));
        assert!(shares.clients.iter().all(Option::is_none));
        assert_eq!(shares.next_woken(), None);
    }

    #[test]
    fn what_was_set_aside_and_is_not_taken_goes_to_the_next() {
        let mut shares = Shares::new(TOTAL);
        let (a, b) = (host(&mut shares, 1), host(&mut shares, 2));
        let (a, b) = (shares.open(a, 1), shares.open(b, 2));
        let of_a = fill(&mut shares, a, MIB);
        let of_b = fill(&mut shares, b, MIB);
        assert!(of_a > 0 && of_b > 0);
        shares.release(b, MIB, at(1));
        // `b` is below its share.
        assert_eq!(shares.next_woken(), Some(2));
        assert_eq!(shares.next_woken(), None);
        let before = shares.held();
        shares.withdraw(b, at(2));
        assert_eq!(shares.held(), before - MIB);
        // Another length than it has waited for.
        assert!(shares.request(b, 64 * KIB, at(3)));
    }
}
