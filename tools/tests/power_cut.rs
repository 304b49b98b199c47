//! What hosts were told is durable is in the file after `pollux target` was killed with SIGKILL.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod process;

use pollux_nvme_tcp::spec::nqn::Nqn;
use pollux_nvme_tcp::spec::nvm::NvmCdw12;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::testing::{Initiator, Options, pattern};

use self::process::{Disk, Target};

const NQN: &str = "nqn.2014-08.org.example:disk1";

#[test]
fn what_was_made_durable_is_there_after_sigkill() {
    let name = format!("pollux-power-cut-{}", std::process::id());
    let disk = Disk(std::env::temp_dir().join(name));
    let namespace = format!("file:{}:8M", disk.0.display());
    let any = "127.0.0.1:0".parse().unwrap();
    for round in 0..4u64 {
        let target = Target::start(&["--nqn", NQN, "--namespace", &namespace], &[any]);
        let nqn: Nqn = NQN.parse().unwrap();
        let admin = Initiator::admin(target.addrs[0], &nqn, Options::default());
        let mut io = Initiator::io(target.addrs[0], &nqn, admin.cntlid, 1, Options::default());
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
