//! A blocking initiator for tests: one connection, one command at a time unless told otherwise.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pollux_nvme_tcp::pdu::{DataDigest, Frame, Receiver, RxFraming, TxFraming};
use pollux_nvme_tcp::spec::fabrics::{
    CNTLID_DYNAMIC, ConnectCommand, ConnectData, PropertyGet, PropertySet, property,
};
use pollux_nvme_tcp::spec::identify::{IdentifyCdw10, cns};
use pollux_nvme_tcp::spec::log::GetLogPage;
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::pdu::{
    C2hData, CapsuleCmd, CapsuleResp, H2cData, Icreq, Icresp, PduType, R2t, TermReq,
};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{Cqe, Nqn, SglDescriptor, Sqe};
use pollux_nvme_tcp::target::{self, Backend, NamespaceConfig, SubsystemConfig, TargetHandle};
use pollux_reactor::{Group, Idle, Running};
use zerocopy::{FromBytes, IntoBytes};

/// Long enough for any machine; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running target with one subsystem.
pub struct TestTarget {
    pub handle: TargetHandle,
    pub nqn: Nqn,
    pub addr: SocketAddr,
    /// Dropping it stops the reactors.
    pub running: Running,
}

impl TestTarget {
    /// A target on this many reactors with these namespaces of 512-byte blocks, on one loopback port.
    pub fn start(reactors: usize, backends: &[Backend]) -> Self {
        let mut group = Group::new();
        let reactors: Vec<_> = (0..reactors)
            .map(|_| group.add_reactor(None, Idle::Yield))
            .collect();
        let handle = target::install(&mut group, &reactors);
        Self::serve(handle, group.start().unwrap(), backends)
    }

    /// Configures a target whose reactors run.
    pub fn serve(handle: TargetHandle, running: Running, backends: &[Backend]) -> Self {
        let nqn: Nqn = "nqn.2014-08.org.example:test".parse().unwrap();
        handle
            .create_subsystem(SubsystemConfig::new(nqn.clone()))
            .unwrap();
        for backend in backends {
            let namespace = NamespaceConfig::new(backend.clone(), 512);
            handle.add_namespace(&nqn, namespace).unwrap();
        }
        let mut target = Self {
            handle,
            nqn,
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            running,
        };
        target.addr = target.listen();
        target
    }

    /// Adds a listener on a free port.
    pub fn listen(&self) -> SocketAddr {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        self.handle.add_listener(&self.nqn, any_port).unwrap()
    }

    pub fn status(&self) -> pollux_nvme_tcp::target::TargetStatus {
        self.handle.status().unwrap()
    }
}

/// How to connect.
#[derive(Clone, Copy, Default)]
pub struct Options {
    pub hdgst: bool,
    pub ddgst: bool,
    pub hpda: u8,
    pub cattr: u8,
    pub kato_ms: u32,
}

/// One connection.
pub struct Initiator {
    pub stream: TcpStream,
    pub tx: TxFraming,
    pub rx: RxFraming,
    received: Vec<u8>,
    next_cid: u16,
    /// MAXH2CDATA.
    pub max_data: usize,
    pub cntlid: u16,
}

/// A received PDU: where its parts are, and its bytes.
pub struct Pdu {
    pub frame: Frame,
    pub bytes: Vec<u8>,
}

impl Pdu {
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.frame.data_offset..][..self.frame.data_len]
    }

    pub fn cqe(&self) -> Cqe {
        assert_eq!(self.frame.pdu_type, PduType::CAPSULE_RESP);
        CapsuleResp::read_from_prefix(&self.bytes).unwrap().0.cqe
    }

    /// FES and FEI.
    pub fn term_req(&self) -> (u16, u32) {
        assert_eq!(self.frame.pdu_type, PduType::C2H_TERM_REQ);
        let (term, _) = TermReq::read_from_prefix(&self.bytes).unwrap();
        (term.fes.get(), term.fei.get())
    }
}

pub fn host_nqn() -> Nqn {
    "nqn.2014-08.org.example:host".parse().unwrap()
}

impl Initiator {
    /// TCP only.
    pub fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            tx: TxFraming::default(),
            rx: RxFraming {
                receiver: Receiver::Host,
                hdgst: false,
                ddgst: false,
                pda: 0,
                max_plen: 4 << 20,
                initialized: false,
            },
            received: Vec::new(),
            next_cid: 100,
            max_data: 0,
            cntlid: 0,
        }
    }

    /// TCP, ICReq and ICResp.
    pub fn initialized(addr: SocketAddr, options: Options) -> Self {
        let mut this = Self::open(addr);
        let dgst = u8::from(options.hdgst) | u8::from(options.ddgst) << 1;
        let mut out = Vec::new();
        this.tx
            .put_header(&mut out, &Icreq::new(options.hpda, dgst, 0), 0);
        this.stream.write_all(&out).unwrap();
        let response = this.receive();
        assert_eq!(response.frame.pdu_type, PduType::ICRESP);
        let (response, _) = Icresp::read_from_prefix(&response.bytes).unwrap();
        assert_eq!(response.dgst, dgst);
        this.max_data = response.maxh2cdata.get() as usize;
        this.tx = TxFraming {
            hdgst: options.hdgst,
            ddgst: options.ddgst,
            pda: response.cpda_z,
        };
        this.rx.hdgst = options.hdgst;
        this.rx.ddgst = options.ddgst;
        this.rx.pda = options.hpda;
        this.rx.initialized = true;
        this
    }

    /// An admin queue of 32 entries, enabled.
    pub fn admin(addr: SocketAddr, subnqn: &Nqn, options: Options) -> Self {
        let mut this = Self::initialized(addr, options);
        let cqe = this.connect(0, 32, CNTLID_DYNAMIC, subnqn, options);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        this.cntlid = u16::try_from(cqe.dw0()).unwrap();
        this.property_set(property::CC, 0x0046_0001);
        assert_eq!(this.property_get(property::CSTS, property::SIZE_4), 1);
        this
    }

    /// An I/O queue of a controller that is enabled.
    pub fn io(addr: SocketAddr, subnqn: &Nqn, cntlid: u16, qid: u16, options: Options) -> Self {
        let mut this = Self::initialized(addr, options);
        let cqe = this.connect(qid, 128, cntlid, subnqn, options);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        this.cntlid = cntlid;
        this
    }

    /// Sends Connect.
    pub fn connect(
        &mut self,
        qid: u16,
        entries: u32,
        cntlid: u16,
        subnqn: &Nqn,
        options: Options,
    ) -> Cqe {
        let command = ConnectCommand::new(qid, entries, options.cattr, options.kato_ms);
        let data = ConnectData::new([7; 16], cntlid, subnqn, &host_nqn());
        self.command(command.into(), data.as_bytes()).0
    }

    pub fn new_cid(&mut self) -> u16 {
        self.next_cid = self.next_cid.wrapping_add(1);
        self.next_cid
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Appends a command capsule to `out`.
    pub fn put_capsule(&self, out: &mut Vec<u8>, sqe: Sqe, data: &[u8]) {
        let layout = self.tx.put_header(out, &CapsuleCmd::new(sqe), data.len());
        out.extend_from_slice(data);
        if layout.ddgst {
            let mut digest = DataDigest::new();
            digest.update(data);
            out.extend_from_slice(&digest.finish());
        }
    }

    /// Sends a command capsule; returns its command identifier.
    pub fn submit(&mut self, mut sqe: Sqe, data: &[u8]) -> u16 {
        let cid = self.new_cid();
        sqe.cid = cid.into();
        let mut out = Vec::new();
        self.put_capsule(&mut out, sqe, data);
        self.send_raw(&out);
        cid
    }

    /// Sends one H2CData PDU.
    pub fn send_data(&mut self, cid: u16, ttag: u16, offset: usize, data: &[u8], last: bool) {
        let mut out = Vec::new();
        let header = H2cData::new(
            cid,
            ttag,
            u32::try_from(offset).unwrap(),
            u32::try_from(data.len()).unwrap(),
            last,
        );
        let layout = self.tx.put_header(&mut out, &header, data.len());
        out.extend_from_slice(data);
        if layout.ddgst {
            let mut digest = DataDigest::new();
            digest.update(data);
            out.extend_from_slice(&digest.finish());
        }
        self.send_raw(&out);
    }

    /// The next PDU, if the connection does not end before.
    pub fn try_receive(&mut self) -> Option<Pdu> {
        loop {
            if let Some(frame) = self.rx.frame(&self.received).unwrap()
                && self.received.len() >= frame.total_len
            {
                let bytes: Vec<u8> = self.received.drain(..frame.total_len).collect();
                let pdu = Pdu { frame, bytes };
                if frame.ddgst {
                    let mut digest = DataDigest::new();
                    digest.update(pdu.data());
                    let end = frame.data_offset + frame.data_len;
                    assert_eq!(pdu.bytes[end..], digest.finish());
                }
                return Some(pdu);
            }
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => panic!("{e}"),
            }
        }
    }

    pub fn receive(&mut self) -> Pdu {
        self.try_receive().expect("the connection was closed")
    }

    /// Waits for the end of a command, sending `data` as it is asked for. Returns the completion and the
    /// data that came.
    pub fn finish(&mut self, cid: u16, data: &[u8]) -> (Cqe, Vec<u8>) {
        let mut incoming = Vec::new();
        loop {
            let pdu = self.receive();
            match pdu.frame.pdu_type {
                PduType::R2T => {
                    let (r2t, _) = R2t::read_from_prefix(&pdu.bytes).unwrap();
                    assert_eq!(r2t.cccid.get(), cid);
                    let (from, len) = (r2t.r2to.get() as usize, r2t.r2tl.get() as usize);
                    let wanted = &data[from..from + len];
                    let pieces = wanted.chunks(self.max_data.min(100_000)).enumerate();
                    for (i, piece) in pieces {
                        let offset = i * self.max_data.min(100_000);
                        let last = offset + piece.len() == len;
                        self.send_data(cid, r2t.ttag.get(), from + offset, piece, last);
                    }
                }
                PduType::C2H_DATA => {
                    let (header, _) = C2hData::read_from_prefix(&pdu.bytes).unwrap();
                    assert_eq!(header.cccid.get(), cid);
                    assert_eq!(header.datao.get() as usize, incoming.len());
                    incoming.extend_from_slice(pdu.data());
                    if pdu.frame.is_success() {
                        return (Cqe::new(cid, Status::SUCCESS), incoming);
                    }
                }
                PduType::CAPSULE_RESP => {
                    let cqe = pdu.cqe();
                    assert_eq!(cqe.cid.get(), cid);
                    return (cqe, incoming);
                }
                other => panic!("unexpected {other}"),
            }
        }
    }

    /// Sends a command with its SGL as it is and waits for its end. In-capsule data is sent along.
    pub fn command(&mut self, sqe: Sqe, data: &[u8]) -> (Cqe, Vec<u8>) {
        let in_capsule = sqe.sgl.kind == SglDescriptor::IN_CAPSULE;
        let cid = self.submit(sqe, if in_capsule { data } else { &[] });
        self.finish(cid, data)
    }

    pub fn property_get(&mut self, offset: u32, size: u8) -> u64 {
        let (cqe, _) = self.command(PropertyGet::new(offset, size).into(), &[]);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        cqe.result.get()
    }

    pub fn property_set(&mut self, offset: u32, value: u32) {
        let (cqe, _) = self.command(PropertySet::new(offset, value).into(), &[]);
        assert!(cqe.status().is_success(), "{}", cqe.status());
    }

    pub fn identify(&mut self, structure: u8, nsid: u32) -> Result<Vec<u8>, Status> {
        let mut sqe = Sqe::new(admin::IDENTIFY, nsid);
        sqe.cdw10 = IdentifyCdw10::new().with_cns(structure).into_bits().into();
        sqe.sgl = SglDescriptor::transport(4096);
        let (cqe, data) = self.command(sqe, &[]);
        if cqe.status().is_success() {
            assert_eq!(data.len(), 4096);
            Ok(data)
        } else {
            Err(cqe.status())
        }
    }

    pub fn identify_controller(&mut self) -> pollux_nvme_tcp::spec::identify::IdentifyController {
        let data = self.identify(cns::CONTROLLER, 0).unwrap();
        FromBytes::read_from_bytes(&data).unwrap()
    }

    pub fn log_page(&mut self, get: GetLogPage) -> Result<Vec<u8>, Status> {
        let mut sqe = get.to_sqe(0xffff_ffff);
        let len = u32::try_from(get.len).unwrap();
        sqe.sgl = SglDescriptor::transport(len);
        let (cqe, data) = self.command(sqe, &[]);
        if cqe.status().is_success() {
            assert_eq!(data.len(), len as usize);
            Ok(data)
        } else {
            Err(cqe.status())
        }
    }

    pub fn read(&mut self, nsid: u32, lba: u64, blocks: u32) -> Result<Vec<u8>, Status> {
        let mut sqe = Sqe::for_blocks(nvm::READ, nsid, lba, blocks);
        sqe.sgl = SglDescriptor::transport(blocks * 512);
        let (cqe, data) = self.command(sqe, &[]);
        if cqe.status().is_success() {
            Ok(data)
        } else {
            Err(cqe.status())
        }
    }

    /// Any command with a range of blocks and data from the host.
    pub fn send_blocks(
        &mut self,
        opcode: u8,
        nsid: u32,
        lba: u64,
        data: &[u8],
        in_capsule: bool,
    ) -> Status {
        let len = u32::try_from(data.len()).unwrap();
        let mut sqe = Sqe::for_blocks(opcode, nsid, lba, len / 512);
        sqe.sgl = if in_capsule {
            SglDescriptor::in_capsule(0, len)
        } else {
            SglDescriptor::transport(len)
        };
        self.command(sqe, data).0.status()
    }

    /// Writes, in-capsule if it is at most 8 KiB.
    pub fn write(&mut self, nsid: u32, lba: u64, data: &[u8]) -> Status {
        self.send_blocks(nvm::WRITE, nsid, lba, data, data.len() <= 8192)
    }

    /// Reads to the end of the connection, which must come with a TermReq. Returns FES and FEI.
    pub fn expect_term_req(&mut self) -> (u16, u32) {
        loop {
            let pdu = self.receive();
            if pdu.frame.pdu_type == PduType::C2H_TERM_REQ {
                return pdu.term_req();
            }
        }
    }
}

/// Bytes that differ from place to place.
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Waits for a condition; panics if it never holds.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..3_000_000 {
        if condition() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{what} did not come");
}
