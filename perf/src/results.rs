//! What every measurement ends in: a table for people, an object for programs, and an exit code.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::Value;

use crate::errors::Usage;
use crate::fio::fio;
use crate::output::Output;
use crate::signals::Signals;

/// Something failed: an I/O, a connection, the command itself.
pub const EXIT_FAILURE: u8 = 1;

/// What a measurement has to show.
pub trait Results {
    /// For people.
    fn table(&self) -> String;
    /// The latencies of each interval, for HDR tools.
    fn hdr_log(&self) -> String {
        String::new()
    }
    /// The percentiles of all latencies, as text that HDR tools plot.
    fn hdr_text(&self) -> String {
        String::new()
    }
    /// For programs: one object.
    fn json(&self) -> Value;
    /// What makes the exit code 1.
    fn failures(&self) -> u64;
    /// A signal ended it before its time.
    fn interrupted(&self) -> bool;
}

/// `--output-format`: what goes to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    #[default]
    Table,
    /// One object, as --json writes it
    Json,
    /// One object as fio writes it (json+)
    Fio,
}

/// Where the results go beside the terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    /// The object.
    pub json: Option<&'a Path>,
    /// The log of histograms.
    pub hdr_log: Option<&'a Path>,
    /// Percentiles as text.
    pub hdr_text: Option<&'a Path>,
    /// What goes to standard output.
    pub format: OutputFormat,
}

impl<'a> Files<'a> {
    /// The object alone.
    pub fn json(path: &'a Option<PathBuf>) -> Self {
        let json = path.as_deref();
        Self {
            json,
            ..Self::default()
        }
    }
}

/// Runs a measurement and shows what it gives: the table to people, the object to the file.
///
/// # Errors
///
/// The measurement could not be made, or its object could not be written; the table is shown before that.
pub fn measure<R: Results>(
    files: Files<'_>,
    signals: &Signals,
    run: impl FnOnce() -> anyhow::Result<R>,
) -> anyhow::Result<ExitCode> {
    let json = files
        .json
        .map(|path| Output::new("--json", path))
        .transpose()?;
    let to_programs = files.format != OutputFormat::Table;
    if to_programs && json.as_ref().is_some_and(Output::is_stdout) {
        return Err(Usage(
            "--json - and --output-format both want standard output: allowed is one of them"
                .to_owned(),
        )
        .into());
    }
    let log = files
        .hdr_log
        .map(|path| Output::new("--hdr-log", path))
        .transpose()?;
    let text = files
        .hdr_text
        .map(|path| Output::new("--hdr-text", path))
        .transpose()?;
    let report = run()?;
    // A reader that went away does not make the run a failure.
    let _ = match &json {
        Some(json) if json.is_stdout() => write!(std::io::stderr(), "{}", report.table()),
        _ if to_programs => write!(std::io::stderr(), "{}", report.table()),
        _ => write!(std::io::stdout(), "{}", report.table()),
    };
    // A file that cannot be written does not keep the other from being.
    let logged = log.map_or(Ok(()), |log| log.write_text(&report.hdr_log()));
    let texted = text.map_or(Ok(()), |text| text.write_text(&report.hdr_text()));
    let shown = match files.format {
        OutputFormat::Table => Ok(()),
        OutputFormat::Json => Output::Stdout.write(&report.json()),
        OutputFormat::Fio => Output::Stdout.write(&fio(&report.json())),
    };
    json.map_or(Ok(()), |json| json.write(&report.json()))?;
    shown?;
    logged?;
    texted?;
    Ok(if report.failures() > 0 {
        ExitCode::from(EXIT_FAILURE)
    } else if report.interrupted() {
        ExitCode::from(signals.exit_code())
    } else {
        ExitCode::SUCCESS
    })
}
