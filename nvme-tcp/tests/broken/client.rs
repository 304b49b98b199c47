//! A host that does as it is told: the peer of a target under test.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pollux_nvme_tcp::pdu::TxFraming;
use pollux_nvme_tcp::spec::fabrics::{
    CNTLID_DYNAMIC, ConnectCommand, ConnectData, PropertySet, property,
};
use pollux_nvme_tcp::spec::opcode::nvm;
use pollux_nvme_tcp::spec::pdu::{C2hData, CapsuleCmd, CapsuleResp, H2cData, Icreq, PduType, R2t};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Cqe, Nqn, SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{
    self, Backend, NamespaceConfig, SubsystemConfig, TargetHandle, TargetRequest, TargetStatus,
};
use pollux_reactor::{Group, Idle, Running};
use zerocopy::{FromBytes, IntoBytes};

use crate::broken::{Checked, Received, Wire, describe, noise, pdu};

/// CC with the entry sizes of I/O queues, enabled.
const CC_ENABLED: u32 = 0x0046_0001;

/// A running target: one subsystem for all hosts, one for none.
pub struct TestTarget {
    pub running: Running,
    pub handle: TargetHandle,
    pub addr: SocketAddr,
    pub nqn: Nqn,
    /// A subsystem that no host may use.
    pub closed_nqn: Nqn,
}

impl TestTarget {
    /// Starts it on two reactors, with a namespace of 1 MiB in memory, on a free port.
    pub fn start() -> Self {
        let mut group = Group::new();
        let after = Duration::from_micros(50);
        let reactors = [0; 2].map(|_| group.add_reactor(None, Idle::Park { after }));
        let handle = target::install(&mut group, &reactors);
        let running = group.start().unwrap();
        let mut this = Self {
            running,
            handle,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            nqn: "nqn.2014-08.org.example:open".parse().unwrap(),
            closed_nqn: "nqn.2014-08.org.example:closed".parse().unwrap(),
        };
        for (nqn, allow_any_host) in [(&this.nqn, true), (&this.closed_nqn, false)] {
            this.call(TargetRequest::create_subsystem(SubsystemConfig {
                allow_any_host,
                ..SubsystemConfig::new(nqn.clone())
            }));
        }
        this.call(TargetRequest::add_namespace(
            this.nqn.clone(),
            Some(1),
            NamespaceConfig::new(Backend::Memory { bytes: 1 << 20 }, 512),
        ));
        for nqn in [this.nqn.clone(), this.closed_nqn.clone()] {
            let addr = this.addr;
            this.addr = this.call(TargetRequest::add_listener(nqn, addr));
        }
        this
    }

    fn call<A: Send + 'static>(&self, request: TargetRequest<A>) -> A {
        self.handle.call(request).unwrap()
    }

    pub fn status(&self) -> TargetStatus {
        self.call(TargetRequest::status())
    }

    /// Stops it; a panic on one of its reactors goes on here.
    pub fn stop(self) {
        self.running.stop();
        self.running.join();
    }
}

pub fn host_nqn() -> Nqn {
    "nqn.2014-08.org.example:host".parse().unwrap()
}

/// The data of a Connect that is in order.
pub fn connect_data(cntlid: u16, subnqn: &Nqn) -> ConnectData {
    ConnectData::new([7; 16], cntlid, subnqn, &host_nqn())
}

/// One connection.
pub struct Client {
    pub wire: Wire,
    pub framing: TxFraming,
    last_cid: u16,
}

impl Client {
    /// TCP only.
    pub fn open(addr: SocketAddr) -> Checked<Self> {
        let stream = TcpStream::connect(addr).map_err(|e| format!("connect: {e}"))?;
        Ok(Self {
            wire: Wire::new(stream)?,
            framing: TxFraming::default(),
            last_cid: 0x100,
        })
    }

    /// ICReq and ICResp. `dgst` as in ICReq.
    pub fn initialize(&mut self, dgst: u8) -> Checked<()> {
        let request = pdu(TxFraming::default(), &Icreq::new(0, dgst, 0), &[]);
        self.wire.send(&request)?;
        self.wire.expect(PduType::ICRESP)?;
        self.framing.hdgst = dgst & 1 != 0;
        self.framing.ddgst = dgst & 2 != 0;
        Ok(())
    }

    pub fn new_cid(&mut self) -> u16 {
        self.last_cid += 1;
        self.last_cid
    }

    /// Connects a queue. Returns the CNTLID.
    pub fn connect(&mut self, qid: u16, entries: u32, cntlid: u16, subnqn: &Nqn) -> Checked<u16> {
        let command = ConnectCommand::new(qid, entries, 0, 0);
        let data = connect_data(cntlid, subnqn);
        let (cqe, _) = self.command(command.into(), data.as_bytes())?;
        succeeded(&cqe)?;
        Ok(u16::try_from(cqe.dw0() & 0xffff).unwrap_or(0))
    }

    /// An admin queue of a controller that is enabled, and its CNTLID.
    pub fn admin(addr: SocketAddr, nqn: &Nqn, dgst: u8) -> Checked<(Self, u16)> {
        let mut this = Self::open(addr)?;
        this.initialize(dgst)?;
        let cntlid = this.connect(0, 32, CNTLID_DYNAMIC, nqn)?;
        let enable = PropertySet::new(property::CC, CC_ENABLED);
        succeeded(&this.command(enable.into(), &[])?.0)?;
        Ok((this, cntlid))
    }

    /// Sends a command and its data, in the capsule or as it is asked for, and waits for its end. Returns
    /// the completion and the data that came.
    pub fn command(&mut self, mut sqe: Sqe, data: &[u8]) -> Checked<(Cqe, Vec<u8>)> {
        let cid = self.new_cid();
        sqe.cid = cid.into();
        let in_capsule = sqe.sgl.kind == SglDescriptor::IN_CAPSULE;
        let carried = if in_capsule { data } else { &[] };
        let capsule = pdu(self.framing, &CapsuleCmd::new(sqe), carried);
        self.wire.send(&capsule)?;
        let mut came = Vec::new();
        loop {
            let received = self.wire.next()?;
            match (received.pdu_type(), &received) {
                (Some(PduType::CAPSULE_RESP), Received::Pdu(bytes)) => {
                    let cqe = completion(bytes)?;
                    if cqe.cid.get() != cid {
                        return Err(format!("completion of {:#x}, not {cid:#x}", cqe.cid));
                    }
                    return Ok((cqe, came));
                }
                (Some(PduType::C2H_DATA), Received::Pdu(bytes)) => {
                    let (header, _) = C2hData::ref_from_prefix(bytes).map_err(|e| e.to_string())?;
                    let from = usize::from(header.ch.pdo);
                    let to = from + header.datal.get() as usize;
                    came.extend_from_slice(bytes.get(from..to).ok_or("C2HData is short")?);
                }
                (Some(PduType::R2T), Received::Pdu(bytes)) => {
                    let (r2t, _) = R2t::ref_from_prefix(bytes).map_err(|e| e.to_string())?;
                    let (from, len) = (r2t.r2to.get(), r2t.r2tl.get());
                    let wanted = data.get(from as usize..(from + len) as usize);
                    let header = H2cData::new(cid, r2t.ttag.get(), from, len, true);
                    let answer = pdu(self.framing, &header, wanted.ok_or("R2T beyond the data")?);
                    self.wire.send(&answer)?;
                }
                _ => return Err(format!("{} for {sqe:02x?}", describe(&received))),
            }
        }
    }

    /// Sends a write whose data is to be asked for; takes the R2T. Returns CID and TTAG.
    pub fn begin_write(&mut self, len: u32) -> Checked<(u16, u16)> {
        let cid = self.new_cid();
        let sqe = write_by_r2t(cid, len);
        let capsule = pdu(self.framing, &CapsuleCmd::new(sqe), &[]);
        self.wire.send(&capsule)?;
        let bytes = self.wire.expect(PduType::R2T)?;
        let (r2t, _) = R2t::ref_from_prefix(&bytes).map_err(|e| e.to_string())?;
        if (r2t.cccid.get(), r2t.r2to.get(), r2t.r2tl.get()) != (cid, 0, len) {
            return Err(format!("{r2t:02x?}"));
        }
        Ok((cid, r2t.ttag.get()))
    }
}

/// The completion in a CapsuleResp.
pub fn completion(bytes: &[u8]) -> Checked<Cqe> {
    let (response, _) = CapsuleResp::ref_from_prefix(bytes).map_err(|e| e.to_string())?;
    Ok(response.cqe)
}

pub fn succeeded(cqe: &Cqe) -> Checked<()> {
    match cqe.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("{status}, dword 0 {:#x}", cqe.dw0())),
    }
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
    pub admin: Client,
    pub io: Client,
    pub cntlid: u16,
    round: u64,
}

impl Healthy {
    pub fn connect(target: &TestTarget) -> Checked<Self> {
        let (admin, cntlid) = Client::admin(target.addr, &target.nqn, 0)?;
        let mut io = Client::open(target.addr)?;
        io.initialize(0)?;
        io.connect(1, 32, cntlid, &target.nqn)?;
        Ok(Self {
            admin,
            io,
            cntlid,
            round: 0,
        })
    }

    /// Writes at the end of the namespace, in-capsule and by R2T, and reads it back. The tests write at
    /// its start only.
    pub fn check(&mut self) -> Checked<()> {
        self.round += 1;
        for (len, lba) in [(4096u32, 2000u64), (16384, 2016)] {
            let data = noise(len as usize, self.round);
            let mut write = Sqe::for_blocks(nvm::WRITE, 1, lba, len / 512);
            write.sgl = match len {
                4096 => SglDescriptor::in_capsule(0, len),
                _ => SglDescriptor::transport(len),
            };
            succeeded(&self.io.command(write, &data)?.0)?;
            let mut read = Sqe::for_blocks(nvm::READ, 1, lba, len / 512);
            read.sgl = SglDescriptor::transport(len);
            let (cqe, came) = self.io.command(read, &[])?;
            succeeded(&cqe)?;
            if came != data {
                return Err(format!(
                    "{len} bytes at block {lba} are not what was written"
                ));
            }
        }
        Ok(())
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
