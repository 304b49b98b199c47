//! What hosts were told is durable is in the file after `pollux target` was killed with SIGKILL.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::spec::nvm::NvmCdw12;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::testing::{Initiator, Options, pattern};

const NQN: &str = "nqn.2014-08.org.example:disk1";

/// `pollux target`, killed with SIGKILL when dropped.
struct Target(Child, SocketAddr);

impl Target {
    fn start(namespace: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pollux"));
        command.args(["target", "--nqn", NQN, "--idle", "park"]);
        command.args(["--namespace", namespace, "--listen", "127.0.0.1:0"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let rest = line.strip_prefix("listening on ").unwrap();
        let addr = rest.split_once(',').unwrap().0.parse().unwrap();
        Self(child, addr)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Removes the file when dropped.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        // Left behind only if the target never made it.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn what_was_made_durable_is_there_after_sigkill() {
    let name = format!("pollux-power-cut-{}", std::process::id());
    let disk = Disk(std::env::temp_dir().join(name));
    let namespace = format!("file:{}:8M", disk.0.display());
    for round in 0..4u64 {
        let target = Target::start(&namespace);
        let nqn: Nqn = NQN.parse().unwrap();
        let admin = Initiator::admin(target.1, &nqn, Options::default());
        let mut io = Initiator::io(target.1, &nqn, admin.cntlid, 1, Options::default());
        let data = |place: u64| pattern(4096, round << 8 | place);
        for place in 0..64 {
            assert!(io.write(1, place * 8, &data(place)).is_success());
        }
        let (cqe, _) = io.command(Sqe::new(nvm::FLUSH, 1), &[]);
        assert!(cqe.status().is_success());
        for place in 64..128 {
            let mut sqe = Sqe::for_blocks(nvm::WRITE, 1, place * 8, 8);
            let cdw12 = NvmCdw12::from_bits(sqe.cdw12.get());
            sqe.cdw12 = cdw12.with_fua(true).into_bits().into();
            sqe.sgl = SglDescriptor::in_capsule(0, 4096);
            assert!(io.command(sqe, &data(place)).0.status().is_success());
        }
        // Some more, which are under way.
        for place in 128..160 {
            let mut sqe = Sqe::for_blocks(nvm::WRITE, 1, place * 8, 8);
            sqe.sgl = SglDescriptor::in_capsule(0, 4096);
            io.submit(sqe, &data(place));
        }
        drop(target);
        let found = std::fs::read(&disk.0).unwrap();
        assert_eq!(found.len(), 8 << 20);
        for place in 0..128u64 {
            let at = usize::try_from(place).unwrap() * 4096;
            assert!(
                found[at..at + 4096] == data(place)[..],
                "round {round}, place {place}"
            );
        }
    }
}
