//! What a program outside of the workspace does with the packages: a target and a host in one process, a block written by a
//! thread and read back on an event, and news of the path. tools/packaging/outsider.py builds it.
use std::time::Duration;

use pollux_multipath::target::{self, Backend, NamespaceConfig, SubsystemConfig};
use pollux_multipath::{
    AttachOptions, AttachRequest, Group, Host, Idle, Io, Nqn, Op, PathEventKind, Queues,
    TransportId,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut group = Group::new();
    let after = Duration::from_micros(50);
    let reactor = group.add_reactor(None, Idle::Park { after });
    let target = target::install(&mut group, &[reactor]);
    let host = Host::builder().install(&mut group, Queues::new);
    let running = group.start()?;

    let nqn: Nqn = "nqn.2014-08.org.example:disk1".parse()?;
    target.create_subsystem(SubsystemConfig::new(nqn.clone()))?;
    let memory = Backend::Memory { bytes: 1 << 20 };
    target.add_namespace(&nqn, NamespaceConfig::new(memory, 512))?;
    let addr = target.add_listener(&nqn, "127.0.0.1:0".parse()?)?;

    let mut events = host.path_events(16)?;
    let mut request = AttachRequest::new("disk0", TransportId::new(addr, nqn));
    request.options = AttachOptions::default();
    host.attach(request)?;
    let volume = host.volume("disk0n1").info()?;
    let (queue, mut completions) = host.queue(0, 32)?;
    let block = vec![b'*'; volume.block_size() as usize];
    let write = queue.start(volume.id, Io::new(Op::Write, 7, 1, block.clone()));
    write.map_err(|(_, error)| error)?.wait().result?;
    let read = Io::new(Op::Read, 7, 1, vec![0; block.len()]);
    queue.submit(volume.id, read).map_err(|(_, error)| error)?;
    let done = completions.wait(PATIENCE).ok_or("nothing has ended")?;
    done.result?;
    assert_eq!(done.io.buffer, block);
    loop {
        let event = events.wait(PATIENCE).ok_or("nobody tells of the path")?;
        if let PathEventKind::Added(_) = event.kind {
            break;
        }
    }
    host.shut_down()?;
    running.stop();
    running.join();

    // The crates beneath it and beside it are there by their own names as well.
    let now: pollux_reactor::Time = pollux_reactor::Time::ZERO;
    assert_eq!(now, pollux_multipath::Time::ZERO);
    let _: Option<pollux_nvme_tcp::spec::Nqn> = None::<Nqn>;
    assert_eq!(pollux::pollux_version(), pollux::POLLUX_VERSION);
    println!("written, read, told");
    Ok(())
}
