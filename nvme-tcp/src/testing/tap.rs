//! A place on the wire between a host and a target: sees every command, and can answer it, hold it back, lose it,
//! or change the data that comes back.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use pollux_reactor::{Context, Listener, Progress, Service, Stream, Time};

use crate::pdu::TxFraming;
use crate::spec::Cqe;
use crate::spec::opcode::{FABRICS, admin, nvm};
use crate::spec::pdu::{C2hData, CapsuleResp, PduType, flags};
use crate::spec::status::Status;

/// A command on its way to the target.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When.
    pub at: Time,
    /// The path, by its place among those of the [`TapService`].
    pub path: u16,
    /// Queue identifier; 0 is the admin queue.
    pub qid: u16,
    /// The submission queue entry.
    pub sqe: Vec<u8>,
}

impl Seen {
    fn dword(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.sqe[at..at + 4].try_into().unwrap())
    }

    /// Its opcode.
    pub fn opcode(&self) -> u8 {
        self.sqe[0]
    }

    /// Its command identifier.
    pub fn cid(&self) -> u16 {
        u16::from_le_bytes([self.sqe[2], self.sqe[3]])
    }

    /// The namespace that it is for.
    pub fn nsid(&self) -> u32 {
        self.dword(4)
    }

    /// Its first block.
    pub fn lba(&self) -> u64 {
        u64::from(self.dword(40)) | u64::from(self.dword(44)) << 32
    }

    fn is_admin(&self, opcode: u8) -> bool {
        self.qid == 0 && self.opcode() == opcode
    }

    /// A read or write of blocks.
    pub fn is_io(&self) -> bool {
        self.qid != 0 && [nvm::READ, nvm::WRITE].contains(&self.opcode())
    }

    /// A write of blocks.
    pub fn is_write(&self) -> bool {
        self.qid != 0 && self.opcode() == nvm::WRITE
    }

    /// A read of blocks.
    pub fn is_read(&self) -> bool {
        self.qid != 0 && self.opcode() == nvm::READ
    }

    /// Fabrics Connect.
    pub fn is_connect(&self) -> bool {
        self.opcode() == FABRICS && self.sqe[4] == 1
    }

    /// Asynchronous Event Request.
    pub fn is_event_request(&self) -> bool {
        self.is_admin(admin::ASYNC_EVENT_REQUEST)
    }

    /// Property Get of the controller's status.
    pub fn is_csts(&self) -> bool {
        self.opcode() == FABRICS && self.sqe[4] == 4 && self.dword(44) == 0x1c
    }

    /// Abort.
    pub fn is_abort(&self) -> bool {
        self.is_admin(admin::ABORT)
    }

    /// The queue and the command identifier that an Abort names.
    pub fn aborts(&self) -> (u16, u16) {
        let word = self.dword(40);
        ((word & 0xffff) as u16, (word >> 16) as u16)
    }

    /// Keep Alive.
    pub fn is_keep_alive(&self) -> bool {
        self.is_admin(admin::KEEP_ALIVE)
    }

    /// Get Log Page ANA.
    pub fn is_ana_log(&self) -> bool {
        self.is_admin(admin::GET_LOG_PAGE) && self.sqe[40] == 0x0c
    }

    /// Identify of this structure (CNS).
    pub fn is_identify(&self, cns: u8) -> bool {
        self.is_admin(admin::IDENTIFY) && self.sqe[40] == cns
    }
}

/// What becomes of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on to the target.
    Pass,
    /// The host gets this status, the target nothing.
    Answer(Status),
    /// The host gets this data and success, the target nothing.
    Data(Vec<u8>),
    /// Stays here until [`Tap::hold`] is false.
    Hold,
    /// Stays here for ever.
    Lose,
    /// Goes on to the target, but its completion does not come back.
    Mute,
}

type OnCommand = Box<dyn FnMut(&Seen) -> Verdict>;
type OnData = Box<dyn FnMut(&Seen, &mut [u8])>;

/// What a test sees and decides.
#[derive(Default)]
pub struct Tap {
    /// Asked for each command.
    pub on_command: Option<OnCommand>,
    /// Sees, and may change, data on its way to the host.
    pub on_data: Option<OnData>,
    /// While true, what was held stays.
    pub hold: bool,
    /// What a host has sent is not lost with its connection: the target's end stays, and gets what was held whenever
    /// [`hold`](Self::hold) ends.
    pub late: bool,
    /// All commands, in order.
    pub seen: Vec<Seen>,
    /// Connections that were made, by path.
    pub accepted: Vec<(u16, Time)>,
    /// Connections that are open now, of hosts and to the target.
    pub open: usize,
    /// The header of the next PDU from the target that belongs to an I/O queue gets a wrong bit.
    pub spoil_header: bool,
    /// Commands that were lost, by path, queue and command identifier, to end with a status now.
    pub complete: Vec<(u16, u16, u16, Status)>,
    /// What the next Property Get of CSTS tells, by path.
    pub csts: Option<(u16, u32)>,
    /// Results of events to complete lost event requests with, by path.
    pub events: VecDeque<(u16, u32)>,
}

impl Tap {
    /// How many commands of a kind were seen.
    pub fn count(&self, wanted: impl Fn(&Seen) -> bool) -> usize {
        self.seen.iter().filter(|s| wanted(s)).count()
    }
}

struct Passage {
    path: u16,
    qid: u16,
    host: Stream,
    target: Stream,
    from_host: Vec<u8>,
    from_target: Vec<u8>,
    to_host: Vec<u8>,
    to_target: Vec<u8>,
    commands: BTreeMap<u16, Seen>,
    held: Vec<Vec<u8>>,
    muted: Vec<u16>,
    /// Event requests that were lost here.
    event_requests: VecDeque<u16>,
    /// One side has ended; what it sent still goes to the other.
    ended: bool,
}

/// The service of a tap: for each path it listens at one address for what the target listens on at another.
pub struct TapService {
    tap: Rc<RefCell<Tap>>,
    paths: Vec<(SocketAddr, SocketAddr)>,
    listeners: Vec<(u16, SocketAddr, Listener)>,
    passages: Vec<Passage>,
}

impl TapService {
    /// For these paths: where hosts connect to, and where the target is.
    pub fn new(paths: Vec<(SocketAddr, SocketAddr)>, tap: Rc<RefCell<Tap>>) -> Self {
        Self {
            tap,
            paths,
            listeners: Vec::new(),
            passages: Vec::new(),
        }
    }
}

impl Service for TapService {
    type Message = ();

    fn on_start(&mut self, cx: &mut Context<'_>) {
        for (path, (front, behind)) in (0..).zip(self.paths.drain(..)) {
            let listener = cx.net().listen(front).unwrap();
            self.listeners.push((path, behind, listener));
        }
    }

    fn on_message(&mut self, (): (), _: &mut Context<'_>) {}

    fn poll(&mut self, cx: &mut Context<'_>) -> Progress {
        let mut progress = Progress::Idle;
        for (path, behind, listener) in &mut self.listeners {
            while let Ok(Some((host, _))) = listener.accept(cx.net()) {
                let target = cx.net().connect(*behind, None).unwrap();
                self.passages.push(Passage::new(*path, host, target));
                self.tap.borrow_mut().accepted.push((*path, cx.now()));
                progress = Progress::Busy;
            }
        }
        let now = cx.now();
        let mut tap = self.tap.borrow_mut();
        for passage in &mut self.passages {
            progress = progress.or(passage.poll(&mut tap, now));
        }
        self.passages.retain(|p| tap.late || !p.is_over());
        tap.open = self.passages.len();
        progress
    }
}

impl Passage {
    fn new(path: u16, host: Stream, target: Stream) -> Self {
        Self {
            path,
            qid: 0,
            host,
            target,
            from_host: Vec::new(),
            from_target: Vec::new(),
            to_host: Vec::new(),
            to_target: Vec::new(),
            commands: BTreeMap::new(),
            held: Vec::new(),
            muted: Vec::new(),
            event_requests: VecDeque::new(),
            ended: false,
        }
    }

    fn is_over(&self) -> bool {
        self.ended && self.to_host.is_empty() && self.to_target.is_empty()
    }

    fn poll(&mut self, tap: &mut Tap, now: Time) -> Progress {
        let mut progress = Progress::Idle;
        for (stream, bytes) in [
            (&mut self.host, &mut self.from_host),
            (&mut self.target, &mut self.from_target),
        ] {
            match read_all(stream, bytes) {
                Ok(0) => {}
                Ok(_) => progress = Progress::Busy,
                Err(_) => self.ended = true,
            }
        }
        while let Some(pdu) = next_pdu(&mut self.from_host) {
            self.on_host_pdu(pdu, tap, now);
        }
        while let Some(pdu) = next_pdu(&mut self.from_target) {
            self.on_target_pdu(pdu, tap);
        }
        if !tap.hold {
            self.to_target.extend(self.held.drain(..).flatten());
        }
        let own =
            |&mut (path, qid, ..): &mut (u16, u16, _, _)| path == self.path && qid == self.qid;
        let ended: Vec<_> = tap.complete.extract_if(.., own).collect();
        for (_, _, cid, status) in ended {
            self.answer(cid, 0, status);
            progress = Progress::Busy;
        }
        while let Some(&(path, result)) = tap.events.front()
            && path == self.path
            && let Some(cid) = self.event_requests.pop_front()
        {
            tap.events.pop_front();
            self.answer(cid, result, Status::SUCCESS);
        }
        for (stream, bytes) in [
            (&mut self.host, &mut self.to_host),
            (&mut self.target, &mut self.to_target),
        ] {
            if write_all(stream, bytes).is_err() {
                // There is nobody to hear the rest.
                bytes.clear();
                self.ended = true;
            }
        }
        progress
    }

    fn on_host_pdu(&mut self, pdu: Vec<u8>, tap: &mut Tap, now: Time) {
        if PduType(pdu[0]) != PduType::CAPSULE_CMD {
            return self.to_target.extend(pdu);
        }
        let mut seen = Seen {
            at: now,
            path: self.path,
            qid: self.qid,
            sqe: pdu[8..72].to_vec(),
        };
        if seen.is_connect() {
            seen.qid = u16::from_le_bytes([seen.sqe[42], seen.sqe[43]]);
            self.qid = seen.qid;
        }
        tap.seen.push(seen.clone());
        if seen.is_csts()
            && let Some((_, csts)) = tap.csts.take_if(|(path, _)| *path == self.path)
        {
            return self.answer(seen.cid(), csts, Status::SUCCESS);
        }
        let verdict = tap
            .on_command
            .as_mut()
            .map_or(Verdict::Pass, |decide| decide(&seen));
        let cid = seen.cid();
        match verdict {
            Verdict::Pass => {
                self.commands.insert(cid, seen);
                self.to_target.extend(pdu);
            }
            Verdict::Mute => {
                self.muted.push(cid);
                self.to_target.extend(pdu);
            }
            Verdict::Hold => {
                self.commands.insert(cid, seen);
                self.held.push(pdu);
            }
            Verdict::Answer(status) => self.answer(cid, 0, status),
            Verdict::Data(data) => {
                let len = u32::try_from(data.len()).unwrap();
                let header = C2hData::new(cid, 0, len, flags::LAST_PDU);
                TxFraming::default().put_header(&mut self.to_host, &header, data.len());
                self.to_host.extend(data);
                self.answer(cid, 0, Status::SUCCESS);
            }
            Verdict::Lose if seen.is_event_request() => self.event_requests.push_back(cid),
            Verdict::Lose => {}
        }
    }

    fn on_target_pdu(&mut self, mut pdu: Vec<u8>, tap: &mut Tap) {
        if PduType(pdu[0]) == PduType::C2H_DATA
            && let Some(on_data) = &mut tap.on_data
        {
            let cid = u16::from_le_bytes([pdu[8], pdu[9]]);
            let from = usize::from(pdu[3]);
            let len = u32::from_le_bytes(pdu[16..20].try_into().unwrap()) as usize;
            if let Some(seen) = self.commands.get(&cid) {
                on_data(seen, &mut pdu[from..from + len]);
            }
        }
        if PduType(pdu[0]) == PduType::CAPSULE_RESP {
            let cid = u16::from_le_bytes([pdu[20], pdu[21]]);
            if let Some(index) = self.muted.iter().position(|&muted| muted == cid) {
                self.muted.swap_remove(index);
                return;
            }
        }
        if self.qid != 0 && std::mem::take(&mut tap.spoil_header) {
            // In a reserved byte: nothing but the digest tells.
            pdu[12] ^= 1;
        }
        self.to_host.extend(pdu);
    }

    fn answer(&mut self, cid: u16, result: u32, status: Status) {
        let mut cqe = Cqe::new(cid, status);
        cqe.result = u64::from(result).into();
        TxFraming::default().put_header(&mut self.to_host, &CapsuleResp::new(cqe), 0);
    }
}

fn next_pdu(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = u32::from_le_bytes(bytes.get(4..8)?.try_into().unwrap()) as usize;
    (bytes.len() >= len).then(|| bytes.drain(..len).collect())
}

/// Reads what has arrived; the end of the stream is an error.
fn read_all(stream: &mut Stream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = [0; 16 * 1024];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                into.extend_from_slice(&buffer[..n]);
                total += n;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(total),
            Err(e) => return Err(e),
        }
    }
}

fn write_all(stream: &mut Stream, bytes: &mut Vec<u8>) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write_vectored(&[io::IoSlice::new(bytes)]) {
            Ok(n) => drop(bytes.drain(..n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
