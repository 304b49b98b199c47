//! Cross-Controller Reset where a disk does not give up what it has: the answer comes first, its end later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pollux_nvme_tcp::spec::cross_controller_reset::{
    Impacted, LSP_REMOVE_COMPLETED, LogEntry, LogHeader, ResetStatus, ccrf,
};
use pollux_nvme_tcp::spec::log::{AsyncEvent, GetLogPage, lid};
use pollux_nvme_tcp::spec::opcode::{admin, nvm};
use pollux_nvme_tcp::spec::status::Status;
use pollux_nvme_tcp::spec::{SglDescriptor, Sqe};
use pollux_nvme_tcp::target::disk::{Disk, DiskChannel, DiskContext, Done, Io, Opening};
use pollux_nvme_tcp::target::{Backend, DiskRef, TargetRequest};
use pollux_nvme_tcp::testing::{Initiator, Options, TestTarget, pattern, wait_for};
use pollux_reactor::Time;
use zerocopy::FromBytes;

/// Keeps what it is given until it is let go, whoever asks for it back.
#[derive(Debug, Clone, Default)]
struct Stubborn {
    let_go: Arc<AtomicBool>,
}

#[derive(Debug)]
struct StubbornChannel {
    disk: Stubborn,
    kept: Vec<Io>,
}

impl Disk for Stubborn {
    fn name(&self) -> String {
        "stubborn disk".into()
    }

    fn bytes(&self) -> u64 {
        1 << 20
    }

    fn open(&self, _: Opening) -> Box<dyn DiskChannel> {
        Box::new(StubbornChannel {
            disk: self.clone(),
            kept: Vec::new(),
        })
    }
}

impl DiskChannel for StubbornChannel {
    fn submit(&mut self, io: Io, _: &mut DiskContext<'_>) -> Option<Done> {
        self.kept.push(io);
        None
    }

    fn poll(&mut self, done: &mut Vec<Done>, _: &mut DiskContext<'_>) {
        if self.disk.let_go.load(Ordering::Relaxed) {
            done.extend(self.kept.drain(..).map(|io| io.done(Ok(()))));
        }
    }

    /// All the time: nobody says when it is let go.
    fn deadline(&self) -> Option<Time> {
        (!self.kept.is_empty()).then_some(Time::ZERO)
    }
}

fn connect(target: &TestTarget) -> (Initiator, Impacted) {
    let mut admin = Initiator::admin(target.addr, &target.nqn, Options::default());
    let id = admin.identify_controller();
    let impacted = Impacted {
        icid: id.cntlid.get(),
        ciu: id.ciu,
        cirn: id.cirn.get(),
    };
    (admin, impacted)
}

fn reset(admin: &mut Initiator, impacted: Impacted) -> (Status, u32) {
    let (cqe, _) = admin.command(impacted.to_sqe(), &[]);
    (cqe.status(), cqe.dw0())
}

fn log(admin: &mut Initiator, lsp: u8) -> Vec<LogEntry> {
    let get = GetLogPage {
        lsp,
        ..GetLogPage::new(lid::CROSS_CONTROLLER_RESET, 0, 4096)
    };
    let log = admin.log_page(get).unwrap();
    let (header, rest) = LogHeader::ref_from_prefix(&log).unwrap();
    let entries = <[LogEntry]>::ref_from_bytes(&rest[..rest.len() / 8 * 8]).unwrap();
    entries[..header.ne.get().into()].to_vec()
}

#[test]
fn a_reset_that_takes_long_is_told_by_the_log() {
    let disk = Stubborn::default();
    // The disk is served by both reactors.
    let target = TestTarget::start(2, &[Backend::Disk(DiskRef::new(disk.clone()))]);
    let request = TargetRequest::set_quiesce_time(1000);
    target.handle.call(request).unwrap();
    let (mut admin, _) = connect(&target);
    let mut others: Vec<_> = (0..6).map(|_| connect(&target)).collect();
    let mut queues = Vec::new();
    for (other, _) in &others {
        for qid in [1, 2] {
            let options = Options::default();
            let mut io = Initiator::io(target.addr, &target.nqn, other.cntlid, qid, options);
            let mut write = Sqe::for_blocks(nvm::WRITE, 1, 0, 1);
            write.sgl = SglDescriptor::in_capsule(0, 512);
            io.submit(write, &pattern(512, 1));
            queues.push(io);
        }
    }
    wait_for("the writes are with the disk", || {
        target.status().subsystems[0].namespaces[0].in_flight == 12
    });
    let event = admin.submit(Sqe::new(admin::ASYNC_EVENT_REQUEST, 0), &[]);
    // In progress, four at a time.
    for (_, impacted) in &others[..4] {
        assert_eq!(reset(&mut admin, *impacted), (Status::SUCCESS, 0));
    }
    let limit = Status::CROSS_CONTROLLER_RESET_LIMIT_EXCEEDED.with_more();
    assert_eq!(reset(&mut admin, others[4].1), (limit, 0));
    let busy = Status::CROSS_CONTROLLER_RESET_IN_PROGRESS.with_more();
    let first = others[0].1;
    assert_eq!(reset(&mut others[5].0, first), (busy, 0));
    let entries = log(&mut admin, LSP_REMOVE_COMPLETED);
    assert_eq!(entries.len(), 4, "nothing has ended");
    for (entry, (_, impacted)) in entries.iter().zip(&others) {
        assert_eq!((entry.icid.get(), entry.ciu), (impacted.icid, impacted.ciu));
        assert_eq!(entry.ccrs, ResetStatus::IN_PROGRESS);
        assert_eq!(entry.ccrf, ccrf::VALIDATED | ccrf::RESET_INITIATED);
    }
    // It may be read in parts, as any other.
    let part = GetLogPage::new(lid::CROSS_CONTROLLER_RESET, 8, 16);
    let part = admin.log_page(part).unwrap();
    let icid = part[..2].to_vec();
    assert_eq!(icid, others[0].1.icid.to_le_bytes());

    disk.let_go.store(true, Ordering::Relaxed);
    let (cqe, _) = admin.finish(event, &[]);
    let wanted = AsyncEvent::CROSS_CONTROLLER_RESET_COMPLETED.into_bits();
    assert_eq!((cqe.status(), cqe.dw0()), (Status::SUCCESS, wanted));
    wait_for("all have ended", || {
        let entries = log(&mut admin, 0);
        entries
            .iter()
            .all(|entry| entry.ccrs == ResetStatus::SUCCESSFUL)
    });
    assert_eq!(log(&mut admin, LSP_REMOVE_COMPLETED).len(), 4);
    assert_eq!(log(&mut admin, 0), []);
    // Those that are left, at once.
    assert_eq!(reset(&mut admin, others[4].1), (Status::SUCCESS, 1));
}
