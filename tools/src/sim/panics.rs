//! A panic in a run is a rule that was broken, not the end of the program: what it said is kept for the report.

use std::cell::RefCell;
use std::panic;

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what panics say, instead of printing it.
pub fn keep() {
    panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        LAST.with(|last| *last.borrow_mut() = text.replace('\n', " "));
    }));
}

/// What the last panic of this thread said.
pub fn last() -> String {
    LAST.with(|last| last.borrow().clone())
}
