//! Writes a block of a volume and reads it back. Each argument is a path to it:
//! `cargo run --example two_paths 'traddr:127.0.0.1 trsvcid:4420 subnqn:NQN' 'traddr:… subnqn:NQN'`
use std::error::Error;
use std::sync::mpsc::{Sender, channel};

use pollux_multipath::{Application, AttachRequest, Channels, Host, Io, Op};
use pollux_nvme_tcp::host::HostIdentity;
use pollux_reactor::{Context, Group, Idle, Progress};

/// Runs on the I/O reactor, beside the queue pairs.
struct WriteThenRead(Sender<String>);

impl Application for WriteThenRead {
    type Message = ();

    fn on_message(&mut self, (): (), channels: &mut Channels, _: &mut Context<'_>) {
        let volume = channels.volumes().next().cloned();
        if let Some(volume) = volume {
            let buffer = vec![b'*'; volume.block_size() as usize];
            let _ = channels.submit(volume.id, Io::new(Op::Write, 7, 1, buffer));
        }
    }

    fn poll(&mut self, channels: &mut Channels, _: &mut Context<'_>) -> Progress {
        let Some(done) = channels.next_completion() else {
            return Progress::Idle;
        };
        let (op, buffer) = (done.io.op, done.io.buffer);
        let _ = match (done.result, op) {
            (Err(error), _) => self.0.send(error.to_string()).is_ok(),
            (Ok(()), Op::Write) => channels
                .submit(done.volume, Io::new(Op::Read, 7, 1, buffer))
                .is_ok(),
            (Ok(()), _) => self.0.send(format!("read {:?}", &buffer[..4])).is_ok(),
        };
        Progress::Busy
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Yield);
    let (sender, result) = channel();
    let app = move |_| WriteThenRead(sender.clone());
    let host = Host::install(&mut group, HostIdentity::random(), reactor, &[reactor], app);
    let running = group.start()?;
    for path in std::env::args().skip(1) {
        host.attach(AttachRequest::new("disk", path.parse()?))?;
    }
    host.tell(0, ());
    println!("{}", result.recv()?);
    host.shut_down()?;
    running.stop();
    Ok(())
}
