//! Disks that lie on other disks and make their I/O late (`bdev_delay_*`) or let it fail (`bdev_error_*`).
//!
//! What is changed here is in effect at once: the reactors share the disks' settings.

use std::sync::Arc;

use pollux_reactor::rpc::{Answer, Call, MethodResult, Phase, RpcError};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{EBUSY, EINVAL, ENODEV, Kind, NamedDisk, uuid_of};
use crate::spec::status::Status;
use crate::target::control::request::TargetRequest;
use crate::target::disk::{
    Corruption, DiskRef, Faults, Injection, IoKind, Latencies, Latency, Stacked,
};
use crate::target::error::TargetError;
use crate::target::rpc::namespaces::take_uuid;
use crate::target::rpc::{Module, State, disks, done, error};

/// The methods of this room.
pub(in crate::target::rpc) fn methods(module: Module<'_>) -> Module<'_> {
    module
        .method("bdev_delay_create", Phase::Runtime, delay_create)
        .method("bdev_delay_delete", Phase::Runtime, delay_delete)
        .method(
            "bdev_delay_update_latency",
            Phase::Runtime,
            delay_update_latency,
        )
        .method("bdev_error_create", Phase::Runtime, error_create)
        .method("bdev_error_delete", Phase::Runtime, error_delete)
        .method("bdev_error_inject_error", Phase::Runtime, error_inject)
        .method(
            "bdev_error_resume_pending",
            Phase::Runtime,
            error_resume_pending,
        )
}

/// The names that latencies have in `bdev_delay_update_latency`.
const LATENCIES: [(&str, Latency); 4] = [
    ("avg_read", Latency::AverageRead),
    ("p99_read", Latency::P99Read),
    ("avg_write", Latency::AverageWrite),
    ("p99_write", Latency::P99Write),
];

/// Makes a disk on `base`, which nobody uses.
fn add(
    state: &mut State,
    (base, name, uuid): (String, String, Option<Uuid>),
    make: impl FnOnce(String, DiskRef) -> (Kind, DiskRef),
) -> Result<(), RpcError> {
    let disks = &mut state.disks;
    let found = disks.find_free(&base)?;
    if found.limits.is_limited() {
        let text = format!("bdev '{base}' has a rate limit, which is for what lies on top");
        return Err(RpcError::errno_of(EBUSY, text));
    }
    let (disk, block_size, base_uuid) = (found.disk.clone(), found.block_size, found.uuid);
    disks.check_new(&name)?;
    disks.find(&base)?.over = Some(name.clone());
    let (kind, disk) = make(base, disk);
    // As lasting as that of the base, and another one.
    let uuid = uuid.unwrap_or_else(|| {
        let bytes = kind.product().bytes().chain(name.bytes());
        uuid_of(bytes.chain(base_uuid.into_bytes()))
    });
    disks.add(name, kind, disk, block_size, Some(uuid))?;
    Ok(())
}

fn delay_create(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let base: String = params.required("base_bdev_name")?;
    let name: String = params.required("name")?;
    let average_read: u64 = params.required("avg_read_latency")?;
    let p99_read: u64 = params.required("p99_read_latency")?;
    let average_write: u64 = params.required("avg_write_latency")?;
    let p99_write: u64 = params.required("p99_write_latency")?;
    let uuid = take_uuid(params)?;
    params.finish()?;
    if p99_read < average_read || p99_write < average_write {
        let text = "a p99 latency is less than the average latency";
        return Err(RpcError::errno_of(EINVAL, text));
    }
    let latencies = Latencies::new(average_read, p99_read, average_write, p99_write);
    let latencies = Arc::new(latencies);
    let shown = name.clone();
    add(state, (base, name.clone(), uuid), |base, disk| {
        let disk = DiskRef::new(Stacked::new(shown, disk, Arc::clone(&latencies)));
        (Kind::Delay { base, latencies }, disk)
    })?;
    Ok(Answer::Now(name.into()))
}

fn delay_delete(state: &mut State, call: &mut Call<State>) -> MethodResult {
    disks::delete(state, call, |kind| matches!(kind, Kind::Delay { .. }))
}

/// Any latency is allowed here: whoever raises both raises one of them first.
fn delay_update_latency(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let name: String = params.required("delay_bdev_name")?;
    let latency = params.one_of("latency_type", &LATENCIES)?;
    let latency = latency.ok_or_else(|| params.invalid("latency_type", "is missing"))?;
    let micros: u64 = params.required("latency_us")?;
    params.finish()?;
    let disk = disks::of_kind(state, &name, |kind| matches!(kind, Kind::Delay { .. }))?;
    if let Kind::Delay { latencies, .. } = &disk.kind {
        latencies.set(latency, micros);
    }
    Ok(Answer::Now(true.into()))
}

fn error_create(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let params = &mut call.params;
    let base: String = params.required("base_name")?;
    let uuid = take_uuid(params)?;
    params.finish()?;
    let name = format!("EE_{base}");
    let shown = name.clone();
    add(state, (base, name, uuid), |base, disk| {
        let faults = Arc::new(Faults::default());
        let disk = DiskRef::new(Stacked::new(shown, disk, Arc::clone(&faults)));
        (Kind::Error { base, faults }, disk)
    })?;
    Ok(Answer::Now(true.into()))
}

fn error_delete(state: &mut State, call: &mut Call<State>) -> MethodResult {
    disks::delete(state, call, |kind| matches!(kind, Kind::Error { .. }))
}

fn faults_of(state: &mut State, name: &str) -> Result<Arc<Faults>, RpcError> {
    let disk = disks::of_kind(state, name, |kind| matches!(kind, Kind::Error { .. }))?;
    match &disk.kind {
        Kind::Error { faults, .. } => Ok(Arc::clone(faults)),
        _ => Err(RpcError::errno(ENODEV)),
    }
}

/// What `error_type` can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ErrorType {
    Failure,
    Pending,
    CorruptData,
    NoMemory,
    NvmeFailure,
}

fn error_inject(state: &mut State, call: &mut Call<State>) -> MethodResult {
    const KINDS: [(&str, Option<&[IoKind]>); 6] = [
        ("clear", None),
        ("read", Some(&[IoKind::Read])),
        ("write", Some(&[IoKind::Write])),
        ("unmap", Some(&[IoKind::Unmap])),
        ("flush", Some(&[IoKind::Flush])),
        ("all", Some(&IoKind::ALL)),
    ];
    const TYPES: [(&str, ErrorType); 5] = [
        ("failure", ErrorType::Failure),
        ("pending", ErrorType::Pending),
        ("corrupt_data", ErrorType::CorruptData),
        ("nomem", ErrorType::NoMemory),
        ("nvme_failure", ErrorType::NvmeFailure),
    ];
    let params = &mut call.params;
    let name: String = params.required("name")?;
    let kinds = params.one_of("io_type", &KINDS)?;
    let kinds = kinds.ok_or_else(|| params.invalid("io_type", "is missing"))?;
    let error_type = params.one_of("error_type", &TYPES)?;
    let error_type = error_type.ok_or_else(|| params.invalid("error_type", "is missing"))?;
    // SPDK's notes call them error_sct and error_sc, its methods and its client as here.
    let mut status_code = |name: &str, also: &str| -> Result<u32, RpcError> {
        let (code, other) = (params.optional(name)?, params.optional(also)?);
        Ok(code.or(other).unwrap_or(0))
    };
    let sct = status_code("nvme_sct", "error_sct")?;
    let sc = status_code("nvme_sc", "error_sc")?;
    let num: u32 = params.optional("num")?.unwrap_or(1);
    let queue_depth: u64 = params.optional("queue_depth")?.unwrap_or(0);
    let offset: u64 = params.optional("corrupt_offset")?.unwrap_or(0);
    let value: u8 = params.optional("corrupt_value")?.unwrap_or(0);
    params.finish()?;

    let refuse = |text: &str| Err(RpcError::errno_of(EINVAL, text));
    if (error_type == ErrorType::NvmeFailure) != (sct != 0 || sc != 0) {
        return refuse("nvme_sct or nvme_sc is for nvme_failure, which needs one of them");
    }
    let injection = match error_type {
        ErrorType::Failure => Injection::Fail(Status::INTERNAL_ERROR),
        ErrorType::Pending => Injection::Pend,
        ErrorType::NoMemory => Injection::NoMemory,
        ErrorType::CorruptData if value == 0 => return refuse("corrupt_value 0 changes nothing"),
        ErrorType::CorruptData => Injection::Corrupt(Corruption { offset, value }),
        ErrorType::NvmeFailure => match (u8::try_from(sct), u8::try_from(sc)) {
            (Ok(sct @ 0..=7), Ok(sc)) => Injection::Fail(Status::new(sct, sc)),
            _ => return refuse("nvme_sct is at most 7 and nvme_sc at most 255"),
        },
    };
    let faults = faults_of(state, &name)?;
    match kinds {
        None => faults.clear(),
        Some(kinds) => {
            for &kind in kinds {
                faults.inject(kind, injection, num, queue_depth);
            }
        }
    }
    Ok(Answer::Now(true.into()))
}

fn error_resume_pending(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let name: String = call.params.required("name")?;
    call.params.finish()?;
    let faults = faults_of(state, &name)?;
    let responder = call.responder()?;
    let reply = move |answer: Result<_, _>| responder.answer(answer.map_err(error).and_then(done));
    let_go_on(state, &faults, reply);
    Ok(Answer::Later)
}

/// Lets go on what an error disk holds, and wakes the reactors that it is open on.
pub(in crate::target::rpc) fn let_go_on(
    state: &State,
    faults: &Faults,
    reply: impl FnOnce(Result<(), TargetError>) + Send + 'static,
) {
    faults.resume();
    state.target.request(TargetRequest::sync(), reply);
}

/// What `driver_specific` says of a delay; latencies in microseconds.
pub(in crate::target::rpc) fn show_delay(name: &str, base: &str, latencies: &Latencies) -> Value {
    let mut shown = Map::new();
    shown.insert("name".into(), name.into());
    shown.insert("base_bdev_name".into(), base.into());
    for (name, latency) in LATENCIES {
        let value = latencies.latency(latency);
        shown.insert(format!("{name}_latency"), value.into());
    }
    json!({"delay": shown})
}

/// The calls that make a delay again.
pub(in crate::target::rpc) fn saved_delay(
    disk: &NamedDisk,
    base: &str,
    latencies: &Latencies,
) -> Vec<Value> {
    let mut params = Map::new();
    params.insert("base_bdev_name".into(), base.into());
    params.insert("name".into(), disk.name.as_str().into());
    params.insert("uuid".into(), disk.uuid.to_string().into());
    let mut updates = Vec::new();
    let mut average = 0;
    for (name, latency) in LATENCIES {
        let micros = latencies.latency(latency);
        // A P99 latency below the average is possible, but not at the start.
        let is_p99 = matches!(latency, Latency::P99Read | Latency::P99Write);
        let first = if is_p99 { micros.max(average) } else { micros };
        if first != micros {
            let update =
                json!({"delay_bdev_name": disk.name, "latency_type": name, "latency_us": micros});
            updates.push(json!({"method": "bdev_delay_update_latency", "params": update}));
        }
        average = micros;
        params.insert(format!("{name}_latency"), first.into());
    }
    let create = json!({"method": "bdev_delay_create", "params": params});
    std::iter::once(create).chain(updates).collect()
}

/// The call that makes an error disk again.
pub(in crate::target::rpc) fn saved_error(disk: &NamedDisk, base: &str) -> Value {
    let params = json!({"base_name": base, "uuid": disk.uuid.to_string()});
    json!({"method": "bdev_error_create", "params": params})
}
