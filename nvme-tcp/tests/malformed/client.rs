//! The target under test, and hosts that are connected to it.

use pollux_nvme_tcp::spec::fabrics::ConnectData;
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Cqe, Nqn, SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{Backend, SubsystemConfig};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, host_nqn, pattern};

/// A subsystem that no host may use.
pub fn closed_nqn() -> Nqn {
    "nqn.2014-08.org.example:closed".parse().unwrap()
}

/// A target on two reactors with a namespace of 1 MiB in memory, and at the same address a subsystem that is closed.
pub fn start() -> TestTarget {
    let target = TestTarget::start(2, &[Backend::Memory { bytes: 1 << 20 }]);
    let mut closed = SubsystemConfig::new(closed_nqn());
    closed.allow_any_host = false;
    target.handle.create_subsystem(closed).unwrap();
    let listener = target.handle.add_listener(&closed_nqn(), target.addr);
    listener.unwrap();
    target
}

/// The data of a Connect that is in order.
pub fn connect_data(cntlid: u16, subnqn: &Nqn) -> ConnectData {
    ConnectData::new([7; 16], cntlid, subnqn, &host_nqn())
}

/// The options of a connection with these bits of DGST.
pub fn digests(dgst: u8) -> Options {
    Options {
        hdgst: dgst & 1 != 0,
        ddgst: dgst & 2 != 0,
        ..Options::default()
    }
}

/// Sends a write whose data is to be asked for; takes the R2T. Returns CID and TTAG.
pub fn begin_write(client: &mut Initiator, len: u32) -> (u16, u16) {
    let cid = client.submit(write_by_r2t(0, len), &[]);
    let r2t = client.receive().r2t();
    let asked = (r2t.cccid.get(), r2t.r2to.get(), r2t.r2tl.get());
    assert_eq!(asked, (cid, 0, len));
    (cid, r2t.ttag.get())
}

pub fn succeeded(cqe: &Cqe) {
    let status = cqe.status();
    assert!(status.is_success(), "{status}, dword 0 {:#x}", cqe.dw0());
}

/// A write of `len` bytes to block 0 of namespace 1, whose data moves by R2T.
pub fn write_by_r2t(cid: u16, len: u32) -> Sqe {
    let mut sqe = Sqe::for_blocks(nvm::WRITE, 1, 0, len / 512);
    sqe.cid = cid.into();
    sqe.sgl = SglDescriptor::transport(len);
    sqe
}

/// A connection that stays in order, and does I/O next to those that do not.
pub struct Healthy {
    pub admin: Initiator,
    pub io: Initiator,
    pub cntlid: u16,
    round: u64,
}

impl Healthy {
    pub fn connect(target: &TestTarget) -> Self {
        let admin = Initiator::admin(target.addr, &target.nqn, Options::default());
        let cntlid = admin.cntlid;
        let mut io = Initiator::initialized(target.addr, Options::default());
        io.join(&target.nqn, cntlid, 1, 32, Options::default());
        Self {
            admin,
            io,
            cntlid,
            round: 0,
        }
    }

    /// Writes at the end of the namespace, in-capsule and by R2T, and reads it back. The tests write at
    /// its start only.
    pub fn check(&mut self) {
        self.round += 1;
        for (len, lba) in [(4096, 2000), (16384, 2016)] {
            let data = pattern(len, self.round);
            let status = self.io.write(1, lba, &data);
            assert!(status.is_success(), "{status}");
            let blocks = u32::try_from(len / 512).unwrap();
            let came = self.io.read(1, lba, blocks).unwrap();
            assert!(came == data, "block {lba} is not what was written");
        }
    }
}

/// The status of Connect Invalid Parameters and dword 0 that names a field.
pub fn invalid_parameter(in_data: bool, offset: usize) -> (Status, u32) {
    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
    (
        Status::CONNECT_INVALID_PARAMETERS,
        offset | u32::from(in_data) << 16,
    )
}
