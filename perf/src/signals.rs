//! Signals that end a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The first Ctrl-C or SIGTERM ends the run with its report; a second one ends the process.
pub struct Signals {
    /// Set by the first signal.
    pub stop: Arc<AtomicBool>,
    latest: Arc<AtomicUsize>,
}

impl Signals {
    /// Listens to both signals.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn listen() -> std::io::Result<Self> {
        let (stop, latest) = (Arc::new(AtomicBool::new(false)), Arc::default());
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let (status, number) = (128 + signal, signal.unsigned_abs() as usize);
            signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&stop))?;
            signal_hook::flag::register_usize(signal, Arc::clone(&latest), number)?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Self { stop, latest })
    }

    /// The exit code of a process that the latest signal has ended: 130 for Ctrl-C, 143 for SIGTERM.
    #[expect(clippy::expect_used, reason = "two signals, both constants")]
    pub fn exit_code(&self) -> u8 {
        u8::try_from(128 + self.latest.load(Ordering::Relaxed))
            .expect("SIGINT and SIGTERM, the only signals listened to, are below 128")
    }
}
