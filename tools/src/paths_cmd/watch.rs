//! Looking again and again.

use std::io::{self, IsTerminal, Write, stdout};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::rate::Before;
use super::snapshot::Snapshot;
use super::{ANSWER_MAX, show};
use crate::manage::ClientArgs;
use pollux_reactor::rpc::{CallError, Client};

/// The cursor out of sight, lines cut instead of wrapped, an empty screen.
const BEGIN: &str = "\x1b[?25l\x1b[?7l\x1b[2J";
const END: &str = "\x1b[?7h\x1b[?25h";
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\r\n";
const CLEAR_REST: &str = "\x1b[J";

/// What to look at, and how.
pub struct Watch<'a> {
    pub access: &'a ClientArgs,
    pub name: Option<&'a str>,
    pub interval: Duration,
    pub json: bool,
}

enum Event {
    /// A look, and when it was.
    Seen(Result<Snapshot, String>, Instant),
    /// Ctrl-C or SIGTERM.
    Stop,
}

impl Watch<'_> {
    /// Goes on from a first snapshot until it is told to stop or nobody reads any more.
    pub fn run(&self, client: Client, first: Snapshot) -> anyhow::Result<()> {
        let (events, inbox) = mpsc::channel();
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let stop = events.clone();
        thread::spawn(move || {
            if signals.forever().next().is_some() {
                // The main thread has ended by itself.
                let _ = stop.send(Event::Stop);
            }
        });
        // Looks are made elsewhere, so that one that takes long does not hold up the end.
        let (look, looks) = mpsc::channel();
        let looker = Looker {
            access: self.access.clone(),
            name: self.name.map(str::to_owned),
            client: Some(client),
        };
        thread::spawn(move || looker.run(&looks, &events));
        let mut screen = Screen::new(stdout().is_terminal() && !self.json);
        let outcome = self.follow(first, &mut screen, &inbox, &look);
        screen.end();
        match outcome {
            // Nobody reads any more: whoever did has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    fn follow(
        &self,
        first: Snapshot,
        screen: &mut Screen,
        inbox: &mpsc::Receiver<Event>,
        look: &mpsc::Sender<()>,
    ) -> io::Result<()> {
        // The last snapshot that there was, and when.
        let mut last = Some((first, now()));
        let mut is_waiting = false;
        // The first one has no rates yet; it is shown so that there is something to see at once.
        if let Some((first, _)) = &last
            && !self.json
        {
            screen.draw(&self.framed(&show::text(first, None)))?;
        }
        loop {
            match inbox.recv_timeout(self.interval) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if look.send(()).is_err() {
                return Ok(());
            }
            match inbox.recv() {
                Ok(Event::Seen(Ok(snapshot), at)) => {
                    if std::mem::take(&mut is_waiting) {
                        screen.tell("there it is again")?;
                    }
                    let before = last.take().map(|(snapshot, then)| Before {
                        snapshot,
                        ago: at.saturating_duration_since(then),
                    });
                    let text = match self.json {
                        true => format!("{}\n", show::document(&snapshot, before.as_ref())),
                        false => self.framed(&show::text(&snapshot, before.as_ref())),
                    };
                    screen.draw(&text)?;
                    last = Some((snapshot, at));
                }
                Ok(Event::Seen(Err(why), _)) => {
                    last = None;
                    if !std::mem::replace(&mut is_waiting, true) {
                        screen.tell(&format!("{why}; waiting"))?;
                    }
                }
                Ok(Event::Stop) | Err(_) => return Ok(()),
            }
        }
    }

    /// With a first line that says what this is, and one that is empty, so that blocks can be told apart.
    fn framed(&self, text: &str) -> String {
        let (socket, seconds) = (self.access.socket.display(), self.interval.as_secs_f64());
        format!("{socket} every {seconds} s\n\n{text}\n")
    }
}

/// Looks when told to.
struct Looker {
    access: ClientArgs,
    name: Option<String>,
    client: Option<Client>,
}

impl Looker {
    fn run(mut self, looks: &mpsc::Receiver<()>, events: &mpsc::Sender<Event>) {
        while looks.recv().is_ok() {
            let seen = self.look();
            if events.send(Event::Seen(seen, now())).is_err() {
                return;
            }
        }
    }

    fn look(&mut self) -> Result<Snapshot, String> {
        if self.client.is_none() {
            let client = self.access.connect(Some(ANSWER_MAX));
            let client = client.map_err(|e| format!("the host is gone: {e:#}"))?;
            self.client = Some(client);
        }
        let Some(client) = &mut self.client else {
            return Err("not connected".to_owned());
        };
        let seen = Snapshot::take(client, self.name.as_deref());
        match seen {
            Ok(snapshot) => Ok(snapshot),
            Err(error @ CallError::Refused { .. }) => Err(error.to_string()),
            Err(error) => {
                self.client = None;
                Err(format!("the host is gone: {error}"))
            }
        }
    }
}

/// Standard output: a terminal that is redrawn in place, or one block after the other.
struct Screen {
    in_place: bool,
}

impl Screen {
    fn new(in_place: bool) -> Screen {
        if in_place {
            // An error comes again with the first block.
            let _ = stdout().write_all(BEGIN.as_bytes());
        }
        Screen { in_place }
    }

    fn draw(&mut self, text: &str) -> io::Result<()> {
        let mut out = stdout().lock();
        if self.in_place {
            let lines: Vec<&str> = text.lines().collect();
            let frame = lines.join(CLEAR_LINE);
            write!(out, "{HOME}{frame}{CLEAR_LINE}{CLEAR_REST}")?;
        } else {
            out.write_all(text.as_bytes())?;
        }
        out.flush()
    }

    /// Says something that is no block.
    fn tell(&mut self, text: &str) -> io::Result<()> {
        if self.in_place {
            return self.draw(&format!("{text}\n"));
        }
        writeln!(io::stderr(), "pollux paths: {text}")
    }

    fn end(&mut self) {
        if self.in_place {
            // There is nobody left to see it.
            let _ = stdout().write_all(END.as_bytes());
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this program has no reactor whose clock it could read"
)]
fn now() -> Instant {
    Instant::now()
}
