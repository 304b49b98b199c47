//! The lines of the log that were written on this thread, which a simulation runs on as a whole.

use std::cell::RefCell;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{}: {}", record.level(), record.args());
        LINES.with(|lines| lines.borrow_mut().push(line));
    }

    fn flush(&self) {}
}

/// Keeps the lines from now on, those of debugging left out.
pub fn keep() {
    // Another test of this process may have done it before.
    let _ = log::set_logger(&Keep);
    log::set_max_level(log::LevelFilter::Info);
    LINES.with(|lines| lines.borrow_mut().clear());
}

/// The lines since, those that contain `what`.
pub fn with(what: &str) -> Vec<String> {
    LINES.with(|lines| {
        let lines = lines.borrow();
        let found = lines.iter().filter(|line| line.contains(what));
        found.cloned().collect()
    })
}
