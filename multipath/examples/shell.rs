//! Runs single I/Os by hand. Each argument is a path; each line of standard input a command, answered by one
//! line: `volumes`, `flush VOLUME`, or `read|write|compare|write-zeroes|deallocate VOLUME LBA BLOCKS`.
//!
//! Of options, `--kato MS` sets the keep-alive timeout, and `--cqt MS` has writes fenced for a controller that takes so long
//! to end what it has begun.
//!
//! `write` and `compare` use bytes that count from 1 to 255 over and over. `read` answers in hexadecimal.
//! `cargo run --example shell 'traddr:127.0.0.1 trsvcid:4420 subnqn:NQN'`, then `write disk1n1 0 8`.
use std::error::Error;
use std::fmt::Write as _;
use std::io::BufRead;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use pollux_multipath::{
    Application, AttachRequest, Completion, Context, Fencing, FencingMode, Group, Host, Idle, Io,
    Op, PollGroup, Progress,
};

/// A command, as it was typed.
struct Line(String);

/// Runs on the I/O reactor, beside the queue pairs. One command at a time.
struct Shell {
    answers: Sender<String>,
}

impl Shell {
    /// Carries a command out, as far as it can be without waiting. `None`: an I/O is under way.
    fn run(line: &str, group: &mut PollGroup) -> Result<Option<String>, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (op, volume, lba, blocks) = match *words.as_slice() {
            ["volumes"] => return Ok(Some(list(group))),
            ["flush", volume] => (Op::Flush, volume, "0", "0"),
            ["read", volume, lba, blocks] => (Op::Read, volume, lba, blocks),
            ["write", volume, lba, blocks] => (Op::Write, volume, lba, blocks),
            ["compare", volume, lba, blocks] => (Op::Compare, volume, lba, blocks),
            ["write-zeroes", volume, lba, blocks] => (Op::WriteZeroes, volume, lba, blocks),
            ["deallocate", volume, lba, blocks] => (Op::Deallocate, volume, lba, blocks),
            _ => return Err(format!("no such command: {line}")),
        };
        let lba = lba.parse().map_err(|e| format!("LBA '{lba}': {e}"))?;
        let blocks: u32 = blocks
            .parse()
            .map_err(|e| format!("blocks '{blocks}': {e}"))?;
        let volume = group
            .volumes()
            .find(|info| info.name == volume)
            .ok_or_else(|| format!("no volume '{volume}'"))?;
        let id = volume.id;
        let buffer: Vec<u8> = match op {
            Op::Read => vec![0; blocks as usize * volume.block_size() as usize],
            Op::Write | Op::Compare => (1..=255)
                .cycle()
                .take(blocks as usize * volume.block_size() as usize)
                .collect(),
            _ => Vec::new(),
        };
        match group.submit(id, Io::new(op, lba, blocks, buffer)) {
            Ok(()) => Ok(None),
            Err((_, error)) => Err(error.to_string()),
        }
    }
}

/// Name and bytes of every volume.
fn list(group: &PollGroup) -> String {
    let mut text = "ok".to_owned();
    for volume in group.volumes() {
        let bytes = volume.blocks * u64::from(volume.block_size());
        // Writing to a string does not fail.
        let _ = write!(text, " {}={bytes}", volume.name);
    }
    text
}

fn ended(done: Completion) -> String {
    match (done.result, done.io.op) {
        (Err(error), _) => format!("failed: {error}"),
        (Ok(()), Op::Read) => {
            done.io
                .buffer
                .into_vec()
                .iter()
                .fold("ok ".to_owned(), |mut text, byte| {
                    let _ = write!(text, "{byte:02x}");
                    text
                })
        }
        (Ok(()), _) => "ok".to_owned(),
    }
}

impl Application for Shell {
    type Message = Line;

    fn on_message(&mut self, line: Line, group: &mut PollGroup, _: &mut Context<'_>) {
        let answer = match Self::run(&line.0, group) {
            Ok(None) => return,
            Ok(Some(answer)) => answer,
            Err(error) => format!("failed: {error}"),
        };
        let _ = self.answers.send(answer);
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        let Some(done) = group.next_completion() else {
            return Progress::Idle;
        };
        // Whoever typed the command may be gone.
        let _ = self.answers.send(ended(done));
        Progress::Busy
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut group = Group::new();
    let after = Duration::from_micros(100);
    group.add_reactor(None, Idle::Park { after });
    let (answers, answer) = channel();
    let app = move |_| Shell {
        answers: answers.clone(),
    };
    let host = Host::builder().install(&mut group, app);
    let running = group.start()?;
    // Short, so that one who sits and thinks sees whether keep-alive does its work.
    let mut keep_alive_ms = 2000;
    let mut fencing = Fencing::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} what?"));
        match argument.as_str() {
            "--kato" => keep_alive_ms = value()?.parse()?,
            "--cqt" => {
                fencing.mode = FencingMode::Always;
                fencing.cqt = Some(Duration::from_millis(value()?.parse()?));
            }
            path => {
                let mut request = AttachRequest::new("disk", path.parse()?);
                request.options.keep_alive_ms = keep_alive_ms;
                request.options.fencing = fencing;
                host.attach(request)?;
            }
        }
    }
    println!("ok");
    for line in std::io::stdin().lock().lines() {
        host.tell(0, Line(line?))
            .map_err(|_| "the host has stopped")?;
        println!("{}", answer.recv()?);
    }
    host.shut_down()?;
    running.stop();
    Ok(())
}
