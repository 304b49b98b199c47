//! The log of a program: lines on standard error, which `log_*` methods turn on and off.
//!
//! Libraries say what they have to say by the macros of the [`log`] crate, with the flag of their part of the program
//! as target. Only control paths do, never the path of an I/O. Levels are SPDK's; the crate's are taken for
//! these:
//!
//! | macro | level | shown |
//! |---|---|---|
//! | `error!` | ERROR | always |
//! | `warn!` | WARNING | unless the level is lower |
//! | `info!` | NOTICE | unless the level is lower: this is the level at the start |
//! | `debug!` | INFO | at this level, if the flag is set |
//! | `trace!` | DEBUG | at this level, if the flag is set |
//!
//! A reactor never waits for the log: lines go to a thread of their own that writes them. What a peer can cause is
//! bounded: of each flag a few lines a second are written, and how many were not is told with the next one.

#[cfg(feature = "rpc")]
mod methods;

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::panic;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};

/// Lines of one flag per second.
const LINES_PER_SECOND: u32 = 50;
/// Lines that may wait to be written.
const BACKLOG: usize = 1024;
/// The longest that the end of a program waits for its last lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something is not as it should be.
    Warning,
    /// Something that an operator wants to know.
    Notice,
    /// What goes on.
    Info,
    /// For who looks for a fault.
    Debug,
}

impl Level {
    /// All with their names.
    pub const NAMES: [(&str, Level); 5] = [
        ("ERROR", Level::Error),
        ("WARNING", Level::Warning),
        ("NOTICE", Level::Notice),
        ("INFO", Level::Info),
        ("DEBUG", Level::Debug),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let named = Level::NAMES.iter().find(|(_, level)| *level == self);
        named.map_or("", |(name, _)| name)
    }

    fn from_index(index: usize) -> Level {
        let named = Level::NAMES.get(index);
        named.map_or(Level::Debug, |(_, level)| *level)
    }

    fn of(record: log::Level) -> Level {
        match record {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warning,
            log::Level::Info => Level::Notice,
            log::Level::Debug => Level::Info,
            log::Level::Trace => Level::Debug,
        }
    }

    fn filter(self) -> LevelFilter {
        match self {
            Level::Error => LevelFilter::Error,
            Level::Warning => LevelFilter::Warn,
            Level::Notice => LevelFilter::Info,
            Level::Info => LevelFilter::Debug,
            Level::Debug => LevelFilter::Trace,
        }
    }
}

/// There is no level of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one of ERROR, WARNING, NOTICE, INFO and DEBUG is expected")]
pub struct UnknownLevel;

impl FromStr for Level {
    type Err = UnknownLevel;

    /// Takes a name in any letter case.
    fn from_str(text: &str) -> Result<Level, UnknownLevel> {
        let mut names = Level::NAMES.iter();
        let named = names.find(|(name, _)| name.eq_ignore_ascii_case(text));
        named.map(|&(_, level)| level).ok_or(UnknownLevel)
    }
}

/// The log of this program.
#[derive(Clone, Copy, Debug)]
pub struct Logging(&'static Logger);

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log, with the flags that the parts of this program have; a later call changes nothing.
///
/// # Errors
///
/// The thread that writes could not be started.
pub fn start(flags: &[&'static str]) -> io::Result<Logging> {
    let (lines, backlog) = mpsc::sync_channel(BACKLOG);
    let logger = LOGGER.get_or_init(|| Logger::new(flags, lines));
    // Refused if it is there already, or if the program has another one, which then has the say.
    if log::set_logger(logger).is_ok() {
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&backlog))?;
        logger.limit();
        trace_panics();
    }
    Ok(Logging(logger))
}

/// Has a panic said with its backtrace, whatever the environment says: it is a fault of this program's, and may not
/// come again.
fn trace_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        usual(info);
        if std::env::var_os("RUST_BACKTRACE").is_none() {
            // Where standard error is gone, nobody can be told.
            let _ = writeln!(io::stderr(), "{}", Backtrace::force_capture());
        }
    }));
}

impl Logging {
    /// Says no more than this on standard error.
    pub fn set_print_level(self, level: Level) {
        self.0.print_level.store(level as usize, Ordering::Relaxed);
        self.0.limit();
    }

    /// Waits until what was said so far is written, but not for long.
    pub fn flush(self) {
        self.0.flush();
    }
}

/// What goes to the thread that writes.
enum Line {
    Text(String),
    /// All lines before it are written.
    Flushed(mpsc::Sender<()>),
}

fn write_all(backlog: &Receiver<Line>) {
    for line in backlog {
        match line {
            // There is nowhere to tell that nobody reads standard error.
            Line::Text(text) => drop(io::stderr().write_all(text.as_bytes())),
            Line::Flushed(done) => drop(done.send(())),
        }
    }
}

/// A part of the program whose INFO and DEBUG can be turned on.
#[derive(Debug)]
struct Flag {
    name: &'static str,
    is_set: AtomicBool,
    budget: Budget,
}

/// How many lines were written in the present second. Threads that count at the same moment may let a line more pass.
#[derive(Debug, Default)]
struct Budget {
    second: AtomicU64,
    used: AtomicU32,
    left_out: AtomicU64,
}

impl Budget {
    /// `None`: not this one. Otherwise how many were left out since the last one.
    fn spend(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.used.store(0, Ordering::Relaxed);
        }
        if self.used.fetch_add(1, Ordering::Relaxed) < LINES_PER_SECOND {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[derive(Debug)]
struct Logger {
    flags: Vec<Flag>,
    /// For what has none of the flags as its target.
    others: Budget,
    /// Index of the level up to which anything is said at all.
    level: AtomicUsize,
    /// Index of the level up to which it is printed; what is said goes nowhere else.
    print_level: AtomicUsize,
    timestamps: AtomicBool,
    lines: SyncSender<Line>,
}

impl Logger {
    fn new(flags: &[&'static str], lines: SyncSender<Line>) -> Logger {
        let flag = |&name: &&'static str| Flag {
            name,
            is_set: AtomicBool::new(false),
            budget: Budget::default(),
        };
        Logger {
            flags: flags.iter().map(flag).collect(),
            others: Budget::default(),
            level: AtomicUsize::new(Level::Debug as usize),
            print_level: AtomicUsize::new(Level::Notice as usize),
            timestamps: AtomicBool::new(true),
            lines,
        }
    }

    fn flag(&self, name: &str) -> Option<&Flag> {
        self.flags.iter().find(|flag| flag.name == name)
    }

    /// The level up to which there is something to do.
    fn effective(&self) -> Level {
        let level = self.level.load(Ordering::Relaxed);
        Level::from_index(level.min(self.print_level.load(Ordering::Relaxed)))
    }

    /// Spares those who have nothing to say the way to this logger.
    fn limit(&self) {
        log::set_max_level(self.effective().filter());
    }

    fn line(&self, record: &Record<'_>, now: Duration, left_out: u64) -> String {
        let mut line = String::new();
        if self.timestamps.load(Ordering::Relaxed) {
            line.push_str(&date(now));
            line.push(' ');
        }
        line.push_str(Level::of(record.level()).name());
        line.push(' ');
        line.push_str(record.target());
        line.push_str(": ");
        // Some of the words come from peers.
        for c in record.args().to_string().chars() {
            match c.is_control() {
                true => line.extend(c.escape_default()),
                false => line.push(c),
            }
        }
        if left_out > 0 {
            line.push_str(&format!(
                " ({left_out} lines before this one were left out)"
            ));
        }
        line.push('\n');
        line
    }

    fn log_at(&self, record: &Record<'_>, now: Duration) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let budget = self.flag(record.target()).map(|flag| &flag.budget);
        let budget = budget.unwrap_or(&self.others);
        let Some(left_out) = budget.spend(now.as_secs()) else {
            return;
        };
        let line = Line::Text(self.line(record, now, left_out));
        if let Err(TrySendError::Full(_)) = self.lines.try_send(line) {
            budget.left_out.fetch_add(left_out + 1, Ordering::Relaxed);
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = Level::of(metadata.level());
        level <= self.effective()
            && (level <= Level::Notice
                || self
                    .flag(metadata.target())
                    .is_some_and(|flag| flag.is_set.load(Ordering::Relaxed)))
    }

    fn log(&self, record: &Record<'_>) {
        self.log_at(record, wall_clock());
    }

    fn flush(&self) {
        let (done, flushed) = mpsc::channel();
        if self.lines.try_send(Line::Flushed(done)).is_ok() {
            // A writer that takes longer, or has ended, is not waited for.
            let _ = flushed.recv_timeout(FLUSH_MAX);
        }
    }
}

/// Time since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "people want to know when it was; nothing is decided by it"
)]
fn wall_clock() -> Duration {
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// In UTC, as RFC 3339 has it.
fn date(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Eras of 400 years, and years that begin with March, so that the day that may be missing is the last one.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = match month {
        0..10 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        era * 400 + year + next,
        second / 3600,
        second / 60 % 60,
        second % 60,
        since_1970.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_millis(1_709_210_096_007);

    fn logger(backlog: usize) -> (Logger, Receiver<Line>) {
        let (sender, receiver) = mpsc::sync_channel(backlog);
        (Logger::new(&["nvmf", "rpc"], sender), receiver)
    }

    fn say(logger: &Logger, level: log::Level, target: &str, text: &str, now: Duration) {
        let mut record = Record::builder();
        record.level(level).target(target);
        logger.log_at(&record.args(format_args!("{text}")).build(), now);
    }

    fn said(lines: &Receiver<Line>) -> Vec<String> {
        let text = |line| match line {
            Line::Text(text) => Some(text),
            Line::Flushed(_) => None,
        };
        lines.try_iter().filter_map(text).collect()
    }

    #[test]
    fn levels_have_names() {
        for (name, level) in Level::NAMES {
            assert_eq!(level.name(), name);
            assert_eq!(name.to_lowercase().parse(), Ok(level));
            assert!(UnknownLevel.to_string().contains(name));
        }
        assert_eq!("LOUD".parse::<Level>(), Err(UnknownLevel));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date_of) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(date(Duration::from_secs(seconds)), date_of);
        }
    }

    #[test]
    fn a_line_has_time_level_flag_and_no_control_characters() {
        let (logger, lines) = logger(8);
        say(&logger, log::Level::Warn, "nvmf", "a\nb\u{1b}", NOW);
        logger.timestamps.store(false, Ordering::Relaxed);
        say(&logger, log::Level::Info, "other", "c", NOW);
        let said = said(&lines);
        let first = "2024-02-29T12:34:56.007Z WARNING nvmf: a\\nb\\u{1b}\n";
        assert_eq!(said, [first, "NOTICE other: c\n"]);
    }

    #[test]
    fn levels_and_flags_decide() {
        let (logger, lines) = logger(8);
        let all = |logger: &Logger| {
            for level in log::Level::iter() {
                say(logger, level, "rpc", "x", NOW);
            }
            said(&lines).len()
        };
        assert_eq!(all(&logger), 3, "up to NOTICE at the start");
        logger.print_level.store(4, Ordering::Relaxed);
        assert_eq!(all(&logger), 3, "INFO and DEBUG need the flag");
        logger.flags[1].is_set.store(true, Ordering::Relaxed);
        assert_eq!(all(&logger), 5);
        logger.level.store(0, Ordering::Relaxed);
        assert_eq!(all(&logger), 1, "both levels count");
    }

    #[test]
    fn a_flood_is_cut_and_counted_and_does_not_touch_other_flags() {
        let (logger, lines) = logger(BACKLOG);
        let limit = LINES_PER_SECOND as usize;
        for _ in 0..limit + 7 {
            say(&logger, log::Level::Warn, "nvmf", "x", NOW);
        }
        say(&logger, log::Level::Warn, "rpc", "y", NOW);
        assert_eq!(said(&lines).len(), limit + 1);
        say(
            &logger,
            log::Level::Warn,
            "nvmf",
            "z",
            NOW + Duration::from_secs(1),
        );
        assert!(said(&lines)[0].ends_with("z (7 lines before this one were left out)\n"));
    }

    #[test]
    fn who_speaks_never_waits_for_who_writes() {
        let (logger, lines) = logger(1);
        for text in ["a", "b", "c"] {
            say(&logger, log::Level::Warn, "nvmf", text, NOW);
        }
        assert_eq!(said(&lines).len(), 1);
        say(&logger, log::Level::Warn, "nvmf", "d", NOW);
        assert!(said(&lines)[0].contains("(2 lines"));
    }
}
