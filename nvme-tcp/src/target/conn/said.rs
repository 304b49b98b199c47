//! What the log says about peers: each thing once in a while, however often a peer does it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use pollux_reactor::Time;

use crate::target::LOG_FLAG;

/// How long a line is not said again of the same address.
const QUIET: Duration = Duration::from_secs(10);

/// Lines that are remembered, and so that are said in [`QUIET`] at most.
const LINES_MAX: usize = 64;

/// One line that was said.
#[derive(Debug)]
struct Line {
    at: Time,
    of: IpAddr,
    what: String,
    /// Times that it was not said since.
    withheld: u64,
}

/// The lines that were said lately, the oldest first.
///
/// A host that is refused tries again every second or so, and one that is hostile as often as it can: neither may fill
/// the log, or keep out of it what others are told about.
#[derive(Debug, Default)]
pub(in crate::target) struct Said {
    lines: VecDeque<Line>,
    /// Lines about other things that found no room.
    dropped: u64,
}

impl Said {
    /// Says `what` about `peer`, unless it was said of its address just now.
    pub(in crate::target) fn say(&mut self, peer: SocketAddr, what: &str, now: Time) {
        if let Some(line) = self.line(peer, what, now) {
            log::warn!(target: LOG_FLAG, "{line}");
        }
    }

    /// The line to be written, if it is to be.
    fn line(&mut self, peer: SocketAddr, what: &str, now: Time) -> Option<String> {
        let of = peer.ip();
        let known = self
            .lines
            .iter()
            .position(|line| line.of == of && line.what == what);
        let mut withheld = 0;
        if let Some(at) = known {
            let line = self.lines.get_mut(at)?;
            if now.saturating_since(line.at) < QUIET {
                line.withheld += 1;
                return None;
            }
            withheld = self.lines.remove(at)?.withheld;
        } else if self.lines.len() >= LINES_MAX {
            let oldest = self.lines.front()?;
            if now.saturating_since(oldest.at) < QUIET {
                self.dropped += 1;
                return None;
            }
            self.lines.pop_front();
        }
        self.lines.push_back(Line {
            at: now,
            of,
            what: what.to_owned(),
            withheld: 0,
        });
        let mut text = format!("{peer}: {what}");
        if withheld > 0 {
            text.push_str(&format!(" ({withheld} more times since it was last said)"));
        }
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            text.push_str(&format!(
                " ({dropped} lines about other things were left out)"
            ));
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_thing_is_said_once_in_a_while_and_counted() {
        let mut said = Said::default();
        assert_eq!(said.line(peer(1), "a", at(0)).unwrap(), "192.0.2.1:1: a");
        for port in 2..12 {
            assert_eq!(said.line(peer(port), "a", at(9)), None);
        }
        // Other things, and other peers, are not held back by it.
        assert!(said.line(peer(1), "b", at(9)).is_some());
        let other = SocketAddr::from(([192, 0, 2, 2], 1));
        assert!(said.line(other, "a", at(9)).is_some());
        let again = said.line(peer(20), "a", at(10)).unwrap();
        assert!(again.contains("(10 more times"), "{again}");
        assert!(said.line(peer(21), "a", at(19)).is_none());
    }

    #[test]
    fn the_lines_are_bounded_whatever_a_peer_makes_up() {
        let mut said = Said::default();
        let texts: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let lines = texts.iter().filter_map(|t| said.line(peer(1), t, at(1)));
        assert_eq!(lines.count(), LINES_MAX);
        assert_eq!(said.lines.len(), LINES_MAX);
        let later = said.line(peer(1), "later", at(11)).unwrap();
        assert!(later.contains("(936 lines"), "{later}");
        assert_eq!(said.lines.len(), LINES_MAX);
    }
}
