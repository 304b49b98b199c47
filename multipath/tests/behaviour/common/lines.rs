//! The lines of the log that were written on this thread, which a simulation runs on as a whole.

use std::cell::RefCell;

thread_local! {
    /// `None`: nobody has asked for them.
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.with(|lines| {
            if let Some(lines) = &mut *lines.borrow_mut() {
                lines.push(format!("{}: {}", record.level(), record.args()));
            }
        });
    }

    fn flush(&self) {}
}

/// Keeps the lines from now on, those of debugging left out.
pub fn keep() {
    // Another test of this process may have done it before.
    let _ = log::set_logger(&Keep);
    log::set_max_level(log::LevelFilter::Info);
    LINES.set(Some(Vec::new()));
}

/// The lines since, those that contain `what`.
pub fn with(what: &str) -> Vec<String> {
    LINES.with(|lines| {
        let lines = lines.borrow();
        let found = lines.iter().flatten().filter(|line| line.contains(what));
        found.cloned().collect()
    })
}
