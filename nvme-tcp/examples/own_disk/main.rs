//! A target with a disk of one's own as its namespace: `cargo run -p pollux-nvme-tcp --example own_disk 127.0.0.1:4420`

mod disk;
#[cfg(test)]
mod tests;

use pollux_nvme_tcp::spec::Nqn;
use pollux_nvme_tcp::target::{self, Backend, DiskRef, NamespaceConfig, SubsystemConfig};
use pollux_reactor::{Group, Idle};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args()
        .nth(1)
        .ok_or("an address is missing")?
        .parse()?;
    let mut group = Group::new();
    let reactor = group.add_reactor(None, Idle::Yield);
    let handle = target::install(&mut group, &[reactor]);
    let running = group.start()?;
    let nqn: Nqn = "nqn.2014-08.org.example:map".parse()?;
    handle.create_subsystem(SubsystemConfig::new(nqn.clone()))?;
    let disk = DiskRef::new(disk::MapDisk::start());
    let namespace = NamespaceConfig::new(Backend::Disk(disk), 512);
    handle.add_namespace(&nqn, namespace)?;
    handle.add_listener(&nqn, addr)?;
    running.join();
    Ok(())
}
