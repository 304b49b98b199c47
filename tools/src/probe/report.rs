//! What is printed: text for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::Context;
use serde_json::Value;

/// Width of the labels in front of values.
const LABEL_WIDTH: usize = 24;

/// Text for people: headings with labelled values below.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// A line of its own.
    pub fn line(&mut self, line: &str) {
        self.0 += line;
        self.0.push('\n');
    }

    /// A labelled value.
    pub fn row(&mut self, label: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {label:LABEL_WIDTH$} {value}");
    }
}

/// Prints the one or the other.
///
/// # Errors
/// Standard output cannot be written to; a reader that has read enough is no error.
pub fn print(json: bool, document: &Value, text: &Text) -> anyhow::Result<()> {
    let out = if json {
        format!("{document:#}\n")
    } else {
        text.0.clone()
    };
    match io::stdout().write_all(out.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output")
        }
        _ => Ok(()),
    }
}

/// The value in hexadecimal and the names of its bits that are set.
pub fn flags_text(value: impl Into<u64>, names: &[(u64, &str)]) -> String {
    let value = value.into();
    let set: Vec<_> = names
        .iter()
        .filter(|(bit, _)| value & bit != 0)
        .map(|&(_, name)| name)
        .collect();
    match set.is_empty() {
        true => format!("{value:#x}"),
        false => format!("{value:#x}: {}", set.join(", ")),
    }
}

/// Bytes, and from 1 KiB on the same in a larger unit.
pub fn bytes_text(bytes: u128) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(power) = bytes.checked_ilog2().map(|log| log / 10).filter(|&p| p > 0) else {
        return format!("{bytes} bytes");
    };
    let index = usize::try_from(power).map_or(UNITS.len(), |p| p.min(UNITS.len()));
    let unit = UNITS.get(index - 1).copied().unwrap_or_default();
    // Hundredths, rounded down: integers, so that no size looks larger than it is.
    let scale = 1u128 << (10 * index);
    let hundredths = bytes % scale * 100 / scale;
    format!("{bytes} bytes ({}.{hundredths:02} {unit})", bytes / scale)
}

/// Bytes as hexadecimal digits.
pub fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact_and_readable() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1024 bytes (1.00 KiB)"),
            (1 << 20, "1048576 bytes (1.00 MiB)"),
            ((3 << 30) / 2, "1610612736 bytes (1.50 GiB)"),
            ((1 << 40) - 1, "1099511627775 bytes (1023.99 GiB)"),
            (1 << 72, "4722366482869645213696 bytes (4096.00 EiB)"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn bits_are_named() {
        let names = [(1, "one"), (4, "three")];
        assert_eq!(flags_text(5u8, &names), "0x5: one, three");
        assert_eq!(flags_text(8u8, &names), "0x8");
        assert_eq!(hex_text(&[0, 0xab]), "00ab");
    }
}
