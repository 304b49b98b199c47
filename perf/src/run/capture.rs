//! `--pcap`: the file of packets, and what is said of it at the end.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use pollux_reactor::Group;
use pollux_reactor::pcap::{Capture, Captured};

/// A file of packets that is being written.
pub struct PacketFile {
    capture: Capture,
}

impl PacketFile {
    /// Creates the file, before anything is connected.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let capture = Capture::create(path)
            .with_context(|| format!("--pcap {}: writing it", path.display()))?;
        Ok(Self { capture })
    }

    /// Has all streams of a group written to it.
    pub fn capture(&self, group: &mut Group) {
        group.wrap_streams(self.capture.wrapper());
    }

    /// Completes the file after the reactors have ended, and says on standard error what is in it and what is not.
    pub fn finish(self) {
        let captured = self.capture.finish();
        // A terminal that went away does not make the run a failure.
        let _ = writeln!(std::io::stderr(), "{}", said(&captured));
    }
}

fn said(captured: &Captured) -> String {
    let mut said = format!("--pcap: {} packets", captured.packets);
    if captured.left_out > 0 {
        said += &format!("\n{} packets are not in it", captured.left_out);
        if captured.error.is_none() {
            said += ": they came faster than they could be written";
        }
    }
    if let Some(error) = &captured.error {
        said += &format!("\nit could not be written to its end: {error}");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_file_is_said() {
        let captured = |left_out, error| {
            let mut captured = Captured::default();
            captured.packets = 7;
            captured.left_out = left_out;
            captured.error = error;
            captured
        };
        assert_eq!(said(&captured(0, None)), "--pcap: 7 packets");
        let slow = said(&captured(2, None));
        assert!(
            slow.ends_with("2 packets are not in it: they came faster than they could be written")
        );
        let full = said(&captured(2, Some(std::io::ErrorKind::StorageFull.into())));
        assert!(
            full.contains("2 packets are not in it\nit could not be written"),
            "{full}"
        );
    }
}
