//! Writes a block of a volume and reads it back. Each argument is a path to it:
//! `cargo run --example two_paths 'traddr:127.0.0.1 trsvcid:4420 subnqn:NQN' 'traddr:… subnqn:NQN'`
use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};

use pollux_multipath::{
    Application, AttachRequest, Context, Group, Host, Idle, Io, Op, PollGroup, Progress,
};

/// Runs on the I/O reactor, beside the queue pairs.
struct WriteThenRead(Sender<Result<String, String>>);

impl Application for WriteThenRead {
    type Message = ();

    fn on_message(&mut self, (): (), group: &mut PollGroup, _: &mut Context<'_>) {
        let Some(volume) = group.volumes().next().cloned() else {
            let _ = self
                .0
                .send(Err("the subsystem has no namespace".to_owned()));
            return;
        };
        let buffer = vec![b'*'; volume.block_size() as usize];
        if let Err((_, error)) = group.submit(volume.id, Io::new(Op::Write, 7, 1, buffer)) {
            let _ = self.0.send(Err(error.to_string()));
        }
    }

    fn poll(&mut self, group: &mut PollGroup, _: &mut Context<'_>) -> Progress {
        let Some(done) = group.next_completion() else {
            return Progress::Idle;
        };
        let (op, buffer) = (done.io.op, done.io.buffer);
        let outcome = match (done.result, op) {
            (Err(error), _) => Err(error.to_string()),
            (Ok(()), Op::Write) => {
                match group.submit(done.volume, Io::new(Op::Read, 7, 1, buffer)) {
                    Ok(()) => return Progress::Busy,
                    Err((_, error)) => Err(error.to_string()),
                }
            }
            (Ok(()), _) => Ok(format!("read {:?}", &buffer.into_vec()[..4])),
        };
        let _ = self.0.send(outcome);
        Progress::Busy
    }
}

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!(
            "usage: two_paths 'traddr:127.0.0.1 trsvcid:4420 subnqn:NQN' ['traddr:... subnqn:NQN']"
        );
        return ExitCode::from(2);
    }
    match run(&paths) {
        Ok(text) => println!("{text}"),
        Err(error) => {
            eprintln!("two_paths: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(paths: &[String]) -> Result<String, Box<dyn Error>> {
    let mut group = Group::new();
    group.add_reactor(None, Idle::Yield);
    let (sender, result) = channel();
    let app = move |_| WriteThenRead(sender.clone());
    let host = Host::builder().install(&mut group, app);
    let running = group.start()?;
    let outcome: Result<String, Box<dyn Error>> = (|| {
        for path in paths {
            host.attach(AttachRequest::new("disk", path.parse()?))?;
        }
        host.tell(0, ()).map_err(|()| "the host has stopped")?;
        Ok(result.recv()??)
    })();
    let end = host.shut_down();
    running.stop();
    // What went wrong first is what is to be known.
    let text = outcome?;
    end?;
    Ok(text)
}
