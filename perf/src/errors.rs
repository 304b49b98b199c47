//! Ends of a command that are no failure of what was measured: they have exit codes of their own.

/// An option that is wrong on this machine or with this volume: exit code 2, not 1.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A signal came before there was anything to report.
#[derive(Debug)]
pub struct Interrupted(pub &'static str);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// clap explains over several lines: the first paragraph says what is wrong, some of the others what was meant.
pub fn in_one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
        lines.join(" ").trim().to_owned()
    });
    let mut line = paragraphs.next().unwrap_or_default();
    for tip in paragraphs.filter(|paragraph| paragraph.starts_with("tip: ")) {
        line = format!("{line}; {}", tip.replace(" tip: ", "; tip: "));
    }
    line
}
