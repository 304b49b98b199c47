//! Numbers and paragraphs for people, no wider than a terminal.

use std::fmt::Write as _;

/// What is reported is not wider than this.
pub const COLUMNS: usize = 80;

/// Writes text, broken between words so that it fits a terminal; lines after the first are indented by four.
pub fn paragraph(out: &mut String, indent: &str, text: &str) {
    hanging(out, indent, 4, text);
}

/// The same with another indentation of the lines after the first.
pub fn hanging(out: &mut String, indent: &str, hang: usize, text: &str) {
    let mut line = indent.to_owned();
    let mut words = 0;
    for word in text.split(' ') {
        if words > 0 && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(hang);
            words = 0;
        }
        if words > 0 {
            line.push(' ');
        }
        line.push_str(word);
        words += 1;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate or a mean: not negative, far below 2^64, and `as` saturates"
)]
pub fn rounded(value: f64) -> u64 {
    value.round() as u64
}

/// Bytes in MiB.
pub fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// `1,234,567`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `850 ns`, `12.3 us`, `4.56 ms`, `1.23 s`
pub fn duration(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{}.{} us", nanos / 1_000, nanos / 100 % 10),
        1_000_000..1_000_000_000 => format!("{}.{:02} ms", nanos / 1_000_000, nanos / 10_000 % 100),
        _ => format!(
            "{}.{:02} s",
            nanos / 1_000_000_000,
            nanos / 10_000_000 % 100
        ),
    }
}

/// `850 ns`, `12 us`, `4.5 ms`, `1.23 s`: no more than seven characters below a hundred seconds.
pub fn short_duration(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{} us", nanos / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", nanos / 1_000_000),
        _ => duration(nanos),
    }
}

/// `4.567 ms`
pub fn millis(nanos: u64) -> String {
    format!("{}.{:03} ms", nanos / 1_000_000, nanos / 1_000 % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(duration(999), "999 ns");
        assert_eq!(duration(1_999), "1.9 us");
        assert_eq!(duration(4_567_000), "4.56 ms");
        assert_eq!(duration(61_230_000_000), "61.23 s");
    }
}
