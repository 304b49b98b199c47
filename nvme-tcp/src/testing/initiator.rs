//! An initiator that does as it is told, and waits for what comes.

use std::net::{SocketAddr, TcpStream};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Bytes, DEADLINE};
use crate::pdu::{DataDigest, Frame, Receiver, RxFraming, TxFraming};
use crate::spec::fabrics::{
    CNTLID_DYNAMIC, ConnectCommand, ConnectData, PropertyGet, PropertySet, property,
};
use crate::spec::identify::{IdentifyCdw10, IdentifyController, cns};
use crate::spec::log::GetLogPage;
use crate::spec::opcode::{admin, nvm};
use crate::spec::pdu::{
    C2hData, CapsuleCmd, CapsuleResp, H2cData, Icreq, Icresp, PduType, R2t, TermReq,
};
use crate::spec::status::Status;
use crate::spec::{Cqe, Nqn, SglDescriptor, Sqe};

/// CC with the entry sizes of I/O queues, enabled.
const CC_ENABLED: u32 = 0x0046_0001;

/// Most bytes in one H2CData PDU, if the target takes as many.
const PIECE_MAX: usize = 100_000;

/// How to connect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Header digests are asked for.
    pub hdgst: bool,
    /// Data digests are asked for.
    pub ddgst: bool,
    /// HPDA: the alignment of data in C2HData PDUs, in dwords minus one.
    pub hpda: u8,
    /// CATTR of Connect (NVMe Base 2.1, 6.3).
    pub cattr: u8,
    /// KATO of Connect in milliseconds.
    pub kato_ms: u32,
}

/// One connection.
#[derive(Debug)]
pub struct Initiator<B = TcpStream> {
    /// What carries its bytes.
    pub stream: B,
    /// How PDUs are built: as agreed by ICReq and ICResp.
    pub tx: TxFraming,
    /// How received bytes are read, likewise.
    pub rx: RxFraming,
    /// The next command identifier is one more.
    pub last_cid: u16,
    /// MAXH2CDATA, once initialized.
    pub max_data: usize,
    /// CNTLID, once connected.
    pub cntlid: u16,
    /// What the host calls itself.
    pub hostnqn: Nqn,
    /// What has come and was not taken yet.
    pub(super) received: Vec<u8>,
}

/// A received PDU: where its parts are, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdu {
    /// Where its parts are.
    pub frame: Frame,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Pdu {
    /// Its data, without digest.
    pub fn data(&self) -> &[u8] {
        let data = self.bytes.get(self.frame.data_offset..);
        data.unwrap().get(..self.frame.data_len).unwrap()
    }

    /// The completion in a CapsuleResp.
    pub fn cqe(&self) -> Cqe {
        assert_eq!(self.frame.pdu_type, PduType::CAPSULE_RESP);
        CapsuleResp::read_from_prefix(&self.bytes).unwrap().0.cqe
    }

    /// What an R2T asks for.
    pub fn r2t(&self) -> R2t {
        assert_eq!(self.frame.pdu_type, PduType::R2T);
        R2t::read_from_prefix(&self.bytes).unwrap().0
    }

    /// FES and FEI of a C2HTermReq.
    pub fn term_req(&self) -> (u16, u32) {
        assert_eq!(self.frame.pdu_type, PduType::C2H_TERM_REQ);
        let (term, _) = TermReq::read_from_prefix(&self.bytes).unwrap();
        (term.fes.get(), term.fei.get())
    }
}

/// What an initiator calls itself unless told otherwise.
pub fn host_nqn() -> Nqn {
    "nqn.2014-08.org.example:host".parse().unwrap()
}

impl Initiator<TcpStream> {
    /// TCP only.
    pub fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// TCP, ICReq and ICResp.
    pub fn initialized(addr: SocketAddr, options: Options) -> Self {
        let mut this = Self::open(addr);
        this.initialize(options);
        this
    }

    /// An admin queue of 32 entries, its controller enabled.
    pub fn admin(addr: SocketAddr, subnqn: &Nqn, options: Options) -> Self {
        let mut this = Self::initialized(addr, options);
        this.enable(subnqn, options);
        this
    }

    /// An I/O queue of 128 entries of a controller that is enabled.
    pub fn io(addr: SocketAddr, subnqn: &Nqn, cntlid: u16, qid: u16, options: Options) -> Self {
        let mut this = Self::initialized(addr, options);
        this.join(subnqn, cntlid, qid, 128, options);
        this
    }
}

impl<B: Bytes> Initiator<B> {
    /// A connection that carries bytes, of which none were sent.
    pub fn over(stream: B) -> Self {
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
            last_cid: 100,
            max_data: 0,
            cntlid: 0,
            hostnqn: host_nqn(),
            received: Vec::new(),
        }
    }

    /// ICReq and ICResp.
    pub fn initialize(&mut self, options: Options) {
        let dgst = u8::from(options.hdgst) | u8::from(options.ddgst) << 1;
        let mut out = Vec::new();
        self.tx
            .put_header(&mut out, &Icreq::new(options.hpda, dgst, 0), 0);
        self.send_raw(&out);
        let response = self.receive();
        assert_eq!(response.frame.pdu_type, PduType::ICRESP);
        let (response, _) = Icresp::read_from_prefix(&response.bytes).unwrap();
        assert_eq!(response.dgst, dgst);
        self.max_data = response.maxh2cdata.get() as usize;
        self.tx = TxFraming {
            hdgst: options.hdgst,
            ddgst: options.ddgst,
            pda: response.cpda_z,
        };
        self.rx.hdgst = options.hdgst;
        self.rx.ddgst = options.ddgst;
        self.rx.pda = options.hpda;
        self.rx.initialized = true;
    }

    /// Connects an admin queue of 32 entries and enables its controller.
    pub fn enable(&mut self, subnqn: &Nqn, options: Options) {
        let cqe = self.connect(0, 32, CNTLID_DYNAMIC, subnqn, options);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        self.cntlid = u16::try_from(cqe.dw0()).unwrap();
        self.property_set(property::CC, CC_ENABLED);
        assert_eq!(self.property_get(property::CSTS, property::SIZE_4), 1);
    }

    /// Connects an I/O queue of a controller that is enabled.
    pub fn join(&mut self, subnqn: &Nqn, cntlid: u16, qid: u16, entries: u32, options: Options) {
        let cqe = self.connect(qid, entries, cntlid, subnqn, options);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        self.cntlid = cntlid;
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
        let data = ConnectData::new([7; 16], cntlid, subnqn, &self.hostnqn);
        self.command(command.into(), data.as_bytes()).0
    }

    /// A command identifier that is not in use.
    pub fn new_cid(&mut self) -> u16 {
        self.last_cid = self.last_cid.wrapping_add(1);
        self.last_cid
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.send(bytes);
    }

    /// Appends a PDU, with its digests, to `out`.
    pub fn put<H: IntoBytes + Immutable>(&self, out: &mut Vec<u8>, header: &H, data: &[u8]) {
        let layout = self.tx.put_header(out, header, data.len());
        out.extend_from_slice(data);
        if layout.ddgst {
            let mut digest = DataDigest::new();
            digest.update(data);
            out.extend_from_slice(&digest.finish());
        }
    }

    /// Appends a command capsule to `out`.
    pub fn put_capsule(&self, out: &mut Vec<u8>, sqe: Sqe, data: &[u8]) {
        self.put(out, &CapsuleCmd::new(sqe), data);
    }

    /// Sends a command capsule; returns its command identifier.
    pub fn submit(&mut self, sqe: Sqe, data: &[u8]) -> u16 {
        let cid = self.new_cid();
        self.submit_as(cid, sqe, data)
    }

    /// As [`submit`](Self::submit), with this command identifier.
    pub fn submit_as(&mut self, cid: u16, mut sqe: Sqe, data: &[u8]) -> u16 {
        sqe.cid = cid.into();
        let mut out = Vec::new();
        self.put_capsule(&mut out, sqe, data);
        self.send_raw(&out);
        cid
    }

    /// Sends one H2CData PDU.
    pub fn send_data(&mut self, cid: u16, ttag: u16, offset: usize, data: &[u8], last: bool) {
        let mut out = Vec::new();
        let offset = u32::try_from(offset).unwrap();
        let len = u32::try_from(data.len()).unwrap();
        let header = H2cData::new(cid, ttag, offset, len, last);
        self.put(&mut out, &header, data);
        self.send_raw(&out);
    }

    /// Sends the part of `data` that an R2T asks for, in pieces as large as the target takes them. Returns the command
    /// identifier that it is for.
    pub fn answer_r2t(&mut self, pdu: &Pdu, data: &[u8]) -> u16 {
        let r2t = pdu.r2t();
        let (cid, ttag) = (r2t.cccid.get(), r2t.ttag.get());
        let (from, len) = (r2t.r2to.get() as usize, r2t.r2tl.get() as usize);
        let wanted = data.get(from..from + len).expect("R2T beyond the data");
        let most = self.max_data.min(PIECE_MAX);
        for (i, piece) in wanted.chunks(most).enumerate() {
            let last = i * most + piece.len() == len;
            self.send_data(cid, ttag, from + i * most, piece, last);
        }
        cid
    }

    /// The next PDU, if all of it has been received already.
    pub fn take_received(&mut self) -> Option<Pdu> {
        let frame = self.rx.frame(&self.received).unwrap()?;
        if self.received.len() < frame.total_len {
            return None;
        }
        let bytes: Vec<u8> = self.received.drain(..frame.total_len).collect();
        let pdu = Pdu { frame, bytes };
        if frame.ddgst {
            let mut digest = DataDigest::new();
            digest.update(pdu.data());
            let came = pdu.bytes.get(frame.data_offset + frame.data_len..);
            assert_eq!(came, Some(&digest.finish()[..]), "the data digest is wrong");
        }
        Some(pdu)
    }

    /// The next PDU, if the connection does not end before.
    pub fn try_receive(&mut self) -> Option<Pdu> {
        loop {
            if let Some(pdu) = self.take_received() {
                return Some(pdu);
            }
            if !self.stream.receive(&mut self.received) {
                return None;
            }
        }
    }

    /// The next PDU.
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
                PduType::R2T => assert_eq!(self.answer_r2t(&pdu, data), cid),
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

    /// Reads a property of this size (one of [`property::SIZE_4`] and [`property::SIZE_8`]).
    pub fn property_get(&mut self, offset: u32, size: u8) -> u64 {
        let (cqe, _) = self.command(PropertyGet::new(offset, size).into(), &[]);
        assert!(cqe.status().is_success(), "{}", cqe.status());
        cqe.result.get()
    }

    /// Sets a property of four bytes.
    pub fn property_set(&mut self, offset: u32, value: u32) {
        let (cqe, _) = self.command(PropertySet::new(offset, value).into(), &[]);
        assert!(cqe.status().is_success(), "{}", cqe.status());
    }

    /// The 4 KiB that Identify gives for this CNS.
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

    /// Identify Controller.
    pub fn identify_controller(&mut self) -> IdentifyController {
        let data = self.identify(cns::CONTROLLER, 0).unwrap();
        FromBytes::read_from_bytes(&data).unwrap()
    }

    /// A log page, or the part of it that is asked for.
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

    /// Reads so many blocks of 512 bytes.
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

    /// Any command with a range of blocks of 512 bytes and data from the host.
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
