//! Jobs in a file. A key is a long option of the benchmark, so that whatever the command line checks is checked here; what
//! is wrong is said with line and key.
//!
//! `bench` runs them one after the other. The benchmark runs them at the same time; what is not of one job alone then has to
//! be the same in all of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::compare::Gates;
use crate::errors::in_one_line;
use crate::run::{JobArgs, RunArgs};

/// Runs of a job, unless the profile says otherwise: as many as make each of them a sample.
const LOOPS: u32 = 4;
const LOOPS_MAX: u32 = 1_000;
/// What [`Gates`] are unless the profile says otherwise.
const FAIL_ON: &str = "iops:-3%,p99:+5%";
/// Options about a file, which the next run would replace, or which this one is.
const LEFT_OUT: [&str; 6] = [
    "json",
    "output_format",
    "hdr_log",
    "hdr_text",
    "pcap",
    "profile",
];
/// Options that jobs which run at the same time need not share.
const OF_ONE_JOB: [&str; 13] = [
    "nsid",
    "io_timeout",
    "depth",
    "numjobs",
    "io_size",
    "workload",
    "read_share",
    "mix",
    "random_distribution",
    "rate",
    "arrivals",
    "ios",
    "stride",
];
/// A key that is less like any that is known is not guessed at.
const LIKENESS_MIN: f64 = 0.75;

/// What to run.
#[derive(Debug)]
pub struct Profile {
    /// In the order of the file; there is one at least.
    pub jobs: Vec<ProfileJob>,
}

/// One table of it.
#[derive(Debug)]
pub struct ProfileJob {
    /// The table's name and its options, checked.
    pub job: JobArgs,
    /// How often it runs.
    pub loops: u32,
    /// What fails it.
    pub fail_on: Gates,
}

/// By the option's identifier: arguments as on a command line.
type Options = BTreeMap<String, Vec<OsString>>;

/// What a table says.
#[derive(Clone, Debug, Default)]
struct Settings {
    options: Options,
    loops: Option<u32>,
    fail_on: Option<Gates>,
}

impl Profile {
    /// Reads a profile whose jobs run one after the other.
    ///
    /// # Errors
    ///
    /// One line: which line of the text, which key, what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text, &Options::new(), false)
    }

    /// Reads a profile whose jobs run at the same time. What the command line says holds for all of them, whatever the
    /// profile says.
    ///
    /// # Errors
    ///
    /// As those of [`parse`](Self::parse).
    pub fn parse_together(text: &str, command_line: &ArgMatches) -> Result<Vec<JobArgs>, String> {
        let profile = Self::read(text, &said(command_line), true)?;
        Ok(profile.jobs.into_iter().map(|job| job.job).collect())
    }

    fn read(text: &str, command_line: &Options, together: bool) -> Result<Self, String> {
        let reader = Reader::new(text);
        let document = DeTable::parse(text).map_err(|error| {
            let at = error.span().unwrap_or_default();
            reader.at(&at, &error.message().replace('\n', ", "))
        })?;
        let (mut global, mut tables) = (Settings::default(), Vec::new());
        for (key, value) in document.get_ref() {
            let name: &str = key.get_ref();
            let table = value.get_ref().as_table();
            match (name, table) {
                ("global", Some(table)) => global = reader.settings(table)?,
                ("job", Some(jobs)) => tables.extend(jobs.iter()),
                ("global" | "job", None) => {
                    let message = format!("{name} is a table: allowed are [global] and [job.NAME]");
                    return Err(reader.at(&key.span(), &message));
                }
                _ => {
                    let hint = nearest(name, ["global", "job"].into_iter());
                    let message = format!(
                        "'{name}' is not known{hint}: allowed at the top are [global] and [job.NAME]"
                    );
                    return Err(reader.at(&key.span(), &message));
                }
            }
        }
        tables.sort_by_key(|(key, _)| key.span().start);
        let mut jobs = Vec::new();
        let mut first: Option<(String, Settings)> = None;
        for (key, value) in tables {
            let table = value.get_ref().as_table().ok_or_else(|| {
                let message = format!("job.{0} is a table: allowed is [job.{0}]", key.get_ref());
                reader.at(&key.span(), &message)
            })?;
            let mut settings = global.clone();
            let own = reader.settings(table)?;
            settings.options.extend(own.options);
            settings.options.extend(command_line.clone());
            let name = key.get_ref().to_string();
            match &first {
                Some((before, known)) if together => known
                    .shared_with(&settings)
                    .map_err(|option| {
                        let message = format!(
                            "job {name}: jobs {before} and {name} run at the same time and need the same {option}: allowed is one for all, in [global]; 'pollux-perf bench' runs jobs one after the other"
                        );
                        reader.at(&key.span(), &message)
                    })?,
                _ => first = Some((name.clone(), settings.clone())),
            }
            let args = reader
                .args(&settings)
                .map_err(|error| reader.at(&key.span(), &format!("job {name}: {error}")))?;
            jobs.push(ProfileJob {
                job: JobArgs { name, args },
                loops: own.loops.or(global.loops).unwrap_or(LOOPS),
                fail_on: match own.fail_on.or(global.fail_on.clone()) {
                    Some(gates) => gates,
                    None => FAIL_ON.parse()?,
                },
            });
        }
        if jobs.is_empty() {
            return Err("there is no job: needed is a table such as [job.randread]".to_owned());
        }
        Ok(Self { jobs })
    }
}

impl Settings {
    /// An option that is not of one job alone and not the same.
    fn shared_with(&self, other: &Self) -> Result<(), String> {
        let names = self.options.keys().chain(other.options.keys());
        let mut shared = names.filter(|name| !OF_ONE_JOB.contains(&name.as_str()));
        let differs = shared.find(|name| self.options.get(*name) != other.options.get(*name));
        differs.map_or(Ok(()), |name| Err(name.clone()))
    }
}

/// What was said on a command line, other than the name of the profile.
fn said(command_line: &ArgMatches) -> Options {
    let mut options = Options::new();
    let command = RunArgs::augment_args(Command::new("job"));
    for option in command.get_arguments() {
        let id = option.get_id().as_str();
        if command_line.value_source(id) != Some(ValueSource::CommandLine) || id == "profile" {
            continue;
        }
        let long = option.get_long().unwrap_or_default();
        let arguments = match option.get_action() {
            ArgAction::SetTrue => vec![format!("--{long}").into()],
            _ => command_line
                .get_raw(id)
                .into_iter()
                .flatten()
                .map(|value| {
                    let mut argument = OsString::from(format!("--{long}="));
                    argument.push(value);
                    argument
                })
                .collect(),
        };
        options.insert(id.to_owned(), arguments);
    }
    options
}

/// The text and what its keys may be.
struct Reader<'t> {
    text: &'t str,
    command: Command,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        let mut command = RunArgs::augment_args(Command::new("job").no_binary_name(true));
        command.build();
        Self { text, command }
    }

    fn at(&self, span: &Range<usize>, message: &str) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        format!("line {line}: {message}")
    }

    fn settings(&self, table: &DeTable<'_>) -> Result<Settings, String> {
        let mut settings = Settings::default();
        // In the order of the file, so that the later of two names for one option is the one that is refused.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            self.setting(key.get_ref(), value, &mut settings)
                .map_err(|message| self.at(&key.span(), &message))?;
        }
        Ok(settings)
    }

    fn setting(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        settings: &mut Settings,
    ) -> Result<(), String> {
        let named = |error: String| format!("{key}: {error}");
        match key {
            "loops" => {
                let text = self.scalar(value).map_err(named)?;
                let loops = text.parse().ok().filter(|n| (1..=LOOPS_MAX).contains(n));
                settings.loops = Some(loops.ok_or_else(|| {
                    named(format!(
                        "'{text}' is not possible: allowed are 1 to {LOOPS_MAX}"
                    ))
                })?);
                return Ok(());
            }
            "fail_on" => {
                let text = self.scalar(value).map_err(named)?;
                settings.fail_on = Some(text.parse().map_err(named)?);
                return Ok(());
            }
            _ => {}
        }
        let option = self.option(key)?;
        let arguments = self.arguments(option, value).map_err(named)?;
        // What is wrong with a value alone is said where it stands; what contradicts another, once all of them are known.
        if let Err(error) = self.command.clone().try_get_matches_from(&arguments)
            && matches!(
                error.kind(),
                ErrorKind::InvalidValue | ErrorKind::ValueValidation
            )
        {
            return Err(named(in_one_line(&error.render().to_string())));
        }
        let id = option.get_id().to_string();
        if settings.options.insert(id, arguments).is_some() {
            return Err(named(
                "this table has it already, by another name".to_owned(),
            ));
        }
        Ok(())
    }

    /// The option that a key names, with underscores for dashes.
    fn option(&self, key: &str) -> Result<&Arg, String> {
        let names = |arg: &Arg| -> Vec<String> {
            let aliases = arg.get_all_aliases().unwrap_or_default();
            let names = arg.get_long().into_iter().chain(aliases);
            names.map(|name| name.replace('-', "_")).collect()
        };
        let options = || {
            let all = self.command.get_arguments();
            all.filter(|arg| {
                let id = arg.get_id().as_str();
                !LEFT_OUT.contains(&id) && !["help", "version"].contains(&id)
            })
        };
        let wanted = key.replace('-', "_");
        let found = options().find(|arg| names(arg).contains(&wanted));
        found.ok_or_else(|| {
            let mut known: Vec<String> = options().flat_map(names).collect();
            known.extend(["loops".to_owned(), "fail_on".to_owned()]);
            let hint = nearest(&wanted, known.iter().map(String::as_str));
            format!("key '{key}' is not known{hint}: allowed are loops, fail_on and the long options of pollux-perf")
        })
    }

    /// An option with its value, as on a command line.
    fn arguments(
        &self,
        option: &Arg,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<OsString>, String> {
        let long = option.get_long().unwrap_or_default();
        let is_switch = matches!(option.get_action(), ArgAction::SetTrue);
        match (value.get_ref(), is_switch) {
            (DeValue::Boolean(true), true) => Ok(vec![format!("--{long}").into()]),
            (DeValue::Boolean(false), true) => Ok(Vec::new()),
            (_, true) => Err("it is a switch: allowed are true and false".to_owned()),
            (DeValue::Array(values), false) if matches!(option.get_action(), ArgAction::Append) => {
                let values = values.iter();
                values
                    .map(|value| Ok(format!("--{long}={}", self.scalar(value)?).into()))
                    .collect()
            }
            (DeValue::Array(values), false) if option.get_id() == "nsid" => {
                let listed: Result<Vec<String>, String> =
                    values.iter().map(|value| self.scalar(value)).collect();
                Ok(vec![format!("--{long}={}", listed?.join(",")).into()])
            }
            (_, false) => Ok(vec![format!("--{long}={}", self.scalar(value)?).into()]),
        }
    }

    /// A string, or a number as it is written.
    fn scalar(&self, value: &Spanned<DeValue<'_>>) -> Result<String, String> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(_) | DeValue::Float(_) => {
                let text = self.text.get(value.span()).unwrap_or_default();
                Ok(text.replace('_', ""))
            }
            other => Err(format!(
                "a string or a number is needed, not {}",
                match other {
                    DeValue::Boolean(_) => "true or false",
                    DeValue::Array(_) => "a list",
                    DeValue::Table(_) => "a table",
                    _ => "a date",
                }
            )),
        }
    }

    /// All options of a job, checked together.
    fn args(&self, settings: &Settings) -> Result<RunArgs, String> {
        let line = settings.options.values().flatten();
        let matches = self.command.clone().try_get_matches_from(line);
        let args = matches.and_then(|matches| RunArgs::from_arg_matches(&matches));
        let args = args.map_err(|error| in_one_line(&error.render().to_string()))?;
        args.check()?;
        Ok(args)
    }
}

fn nearest<'k>(key: &str, known: impl Iterator<Item = &'k str>) -> String {
    let scored = known.map(|name| (strsim::jaro_winkler(key, name), name));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    match best {
        Some((likeness, name)) if likeness >= LIKENESS_MIN => format!(", but '{name}' is"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
