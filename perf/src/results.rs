//! What every measurement ends in: a table for people, an object for programs, and an exit code.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use crate::output::JsonOutput;
use crate::signals::Signals;

/// Something failed: an I/O, a connection, the command itself.
pub const EXIT_FAILURE: u8 = 1;

/// What a measurement has to show.
pub trait Results {
    /// For people.
    fn table(&self) -> String;
    /// For programs: one object.
    fn json(&self) -> Value;
    /// What makes the exit code 1.
    fn failures(&self) -> u64;
    /// A signal ended it before its time.
    fn interrupted(&self) -> bool;
}

/// Runs a measurement and shows what it gives: the table to people, the object to the file.
///
/// # Errors
///
/// The measurement could not be made, or its object could not be written; the table is shown before that.
pub fn measure<R: Results>(
    json: Option<&Path>,
    signals: &Signals,
    run: impl FnOnce() -> anyhow::Result<R>,
) -> anyhow::Result<ExitCode> {
    let json = json.map(JsonOutput::new).transpose()?;
    let report = run()?;
    // A reader that went away does not make the run a failure.
    let _ = match &json {
        Some(json) if json.is_stdout() => write!(std::io::stderr(), "{}", report.table()),
        _ => write!(std::io::stdout(), "{}", report.table()),
    };
    if let Some(json) = json {
        json.write(&report.json())?;
    }
    Ok(if report.failures() > 0 {
        ExitCode::from(EXIT_FAILURE)
    } else if report.interrupted() {
        ExitCode::from(signals.exit_code())
    } else {
        ExitCode::SUCCESS
    })
}
