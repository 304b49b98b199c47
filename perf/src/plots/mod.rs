//! `pollux-perf report`: results drawn, as one page or as single plots.

mod args;
mod chart;
mod figures;
mod page;
mod run;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::args::Plot;
pub use self::args::ReportArgs;
use self::figures::{Figure, figures};
use self::page::page;
use self::run::Run;
use crate::errors::Usage;
use crate::output::Output;
use crate::saved::Saved;

/// Colours and lines of the plots, light and dark; also inside of a plot that stands alone.
const STYLE: &str = include_str!("style.css");

/// Draws the results.
///
/// # Errors
///
/// A file that cannot be read or written, a plot that has nothing to show.
pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let path = args.output.clone().unwrap_or_else(|| match args.svg {
        Some(plot) => PathBuf::from(format!("{}.svg", plot.name())),
        None => PathBuf::from("report.html"),
    });
    let output = Output::new("--output", &path)?;
    if args.label.len() > args.files.len() {
        return Err(Usage(format!(
            "--label is there {} times: allowed is one for each of {} files",
            args.label.len(),
            args.files.len()
        ))
        .into());
    }
    let mut runs = Vec::new();
    for (index, file) in args.files.iter().enumerate() {
        let label = args.label.get(index).cloned();
        let label = label.unwrap_or_else(|| name(file, &args.files));
        runs.push(Run::new(label, Saved::read(file)?)?);
    }
    let drawn = figures(&runs);
    let text = match args.svg {
        None => page(&runs, drawn, STYLE),
        Some(plot) => {
            let chosen = drawn.into_iter().find(|figure| figure.plot == plot);
            let Some(Figure { title, chart, .. }) = chosen else {
                let name = plot.name();
                let why = match plot {
                    Plot::Jobs => "have one job each",
                    _ => "have no series, as those of floor",
                };
                return Err(Usage(format!(
                    "--svg {name} has nothing to show: the results {why}"
                ))
                .into());
            };
            chart.svg(plot.name(), &title, Some(STYLE))
        }
    };
    output.write_text(&text)?;
    if !output.is_stdout() {
        // A reader that went away does not matter: the file is written.
        let _ = writeln!(std::io::stdout(), "{} is written", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The file's name without its ending, where no other has it.
fn name(file: &Path, all: &[PathBuf]) -> String {
    let stem = |path: &Path| {
        path.file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
    };
    let same = all.iter().filter(|other| stem(other) == stem(file)).count();
    match stem(file) {
        Some(stem) if same == 1 => stem,
        _ => file.display().to_string(),
    }
}

#[cfg(test)]
mod tests;
