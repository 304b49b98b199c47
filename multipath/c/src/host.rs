//! A host with one reactor, and what is attached to it.

use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pollux_multipath::{
    AttachRequest, Group, Host, Idle, QueueMessage, Queues, Running, TransportId,
};

use crate::failure::{Failure, guard};
use crate::handles::Handles;

/// A host: a thread of its own that has the connections and carries I/O. 0 is none.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct pollux_host(pub u64);

/// The most queue pairs that a path may have.
const QUEUE_PAIRS_MAX: u32 = 64;

pub(crate) struct Started {
    pub host: Host<QueueMessage>,
    /// Disks that were opened.
    opened: AtomicUsize,
    /// Dropped, it stops the reactor and waits for its end.
    _running: Running,
}

pub(crate) static HOSTS: Handles<Started> = Handles::new(0x7048, "host");

impl Started {
    fn new(host: Host<QueueMessage>, running: Running) -> Self {
        Self {
            host,
            opened: AtomicUsize::new(0),
            _running: running,
        }
    }

    /// The I/O reactor that the next disk goes to: they take turns.
    pub fn next_reactor(&self) -> usize {
        self.opened.fetch_add(1, Ordering::Relaxed) % self.host.io_reactors()
    }
}

/// A host that a Rust program has set up, with [`Queues`] on its I/O reactors, for C code of the same process, whose disks take
/// turns with them. [`pollux_host_stop`] ends it; `None` if there are 65,536 already.
pub fn host_for_c(host: Host<QueueMessage>, running: Running) -> Option<pollux_host> {
    HOSTS.add(Started::new(host, running)).ok().map(pollux_host)
}

/// Reads a text of the caller's.
///
/// # Safety
/// `text` is null or ends with a zero.
#[expect(unsafe_code, reason = "a text of C's")]
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::invalid(format!("{what} is null")));
    }
    // SAFETY: by this function's contract it ends with a zero, and it is not null. Held by `tests/misuse.rs`.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str();
    text.map_err(|_| Failure::invalid(format!("{what} is not UTF-8")))
}

/// Puts what a function gives where the caller wants it.
///
/// # Safety
/// `out` is null or valid for a write.
#[expect(unsafe_code, reason = "a place of C's")]
pub(crate) unsafe fn put<T>(out: *mut T, value: T) -> Result<(), Failure> {
    if out.is_null() {
        return Err(Failure::invalid("the place for the result is null"));
    }
    // SAFETY: by this function's contract, as it is not null. Held by `tests/misuse.rs`.
    unsafe { out.write(value) };
    Ok(())
}

/// Starts a host. Its thread is pinned to `core`, or to none if that is -1. Without work it spins for `spin_us` microseconds
/// and then sleeps; if that is -1 it never sleeps.
///
/// Each path has so many `queue_pairs`, that is TCP connections for I/O, with which disks take turns as they are opened: the
/// first one has the first, and so on. More than 1 may help where the target has more cores, or one connection is not as fast
/// as the network. Each selects paths by itself.
///
/// `-EINVAL`: there is no such core, `queue_pairs` is 0 or more than 64, or `host` is null; `-EAGAIN`: the system gives no
/// thread.
///
/// # Safety
/// `host` is null or valid for a write.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pollux_host_start(
    core: c_int,
    spin_us: i64,
    queue_pairs: u32,
    host: *mut pollux_host,
) -> c_int {
    guard(|| {
        // SAFETY: as this function's. A null is told before a thread is started for it.
        unsafe { put(host, pollux_host(0)) }?;
        let core = match core {
            -1 => None,
            core => Some(usize::try_from(core).map_err(|_| Failure::invalid("no such core"))?),
        };
        if !(1..=QUEUE_PAIRS_MAX).contains(&queue_pairs) {
            let allowed = format!("queue_pairs: 1 to {QUEUE_PAIRS_MAX} are allowed");
            return Err(Failure::invalid(allowed));
        }
        let idle = match u64::try_from(spin_us) {
            Err(_) => Idle::Spin,
            Ok(micros) => Idle::Park {
                after: Duration::from_micros(micros),
            },
        };
        let mut group = Group::new();
        group.add_reactor(core, idle);
        let installed = Host::builder()
            .queue_pairs(queue_pairs as usize)
            .install(&mut group, Queues::new);
        let running = group.start().map_err(|error| match core {
            Some(_) => Failure::invalid(error.to_string()),
            None => Failure::new(libc::EAGAIN, error.to_string()),
        })?;
        let handle = HOSTS.add(Started::new(installed, running))?;
        // SAFETY: as this function's.
        unsafe { put(host, pollux_host(handle)) }?;
        Ok(0)
    })
}

/// Connects a path, `transport` being such as "traddr:192.0.2.1 trsvcid:4420 subnqn:NQN", and waits until it is usable. Its
/// namespaces are volumes called by `name`, "n", and the namespace's number: "disk0n1". A further path under the same name
/// joins them.
///
/// `-ECONNREFUSED`, `-ETIMEDOUT`: it cannot be connected; `-EEXIST`: it is there already; `-EINVAL`; `-ESHUTDOWN`.
///
/// # Safety
/// Both texts are null or end with a zero.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pollux_host_attach(
    host: pollux_host,
    name: *const c_char,
    transport: *const c_char,
) -> c_int {
    guard(|| {
        let started = HOSTS.get(host.0)?;
        // SAFETY: as this function's.
        let (name, transport) = unsafe { (text(name, "name")?, text(transport, "transport")?) };
        let transport: TransportId = transport
            .parse()
            .map_err(|error| Failure::invalid(format!("transport '{transport}': {error}")))?;
        started.host.attach(AttachRequest::new(name, transport))?;
        Ok(0)
    })
}

/// Detaches all paths of a name, and waits until they are gone. I/O that is under way on their volumes ends with `-ENODEV`.
///
/// `-ENOENT`: there are none; `-ESHUTDOWN`.
///
/// # Safety
/// `name` is null or ends with a zero.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pollux_host_detach(host: pollux_host, name: *const c_char) -> c_int {
    guard(|| {
        let started = HOSTS.get(host.0)?;
        // SAFETY: as this function's.
        let name = unsafe { text(name, "name") }?;
        started.host.detach(name, None)?;
        Ok(0)
    })
}

/// Ends a host in good order, for which it takes no longer than `timeout_ms`, and its thread. Its disks stay open, but for
/// I/O: what was under way ends with an error, and what is submitted then is refused with `-ESHUTDOWN`.
#[expect(unsafe_code, reason = "a function for C")]
#[unsafe(no_mangle)]
pub extern "C" fn pollux_host_stop(host: pollux_host, timeout_ms: u32) -> c_int {
    guard(|| {
        let started = HOSTS.remove(host.0)?;
        let time = Duration::from_millis(timeout_ms.into());
        started.host.shut_down_within(time);
        // Another thread may be at attaching something: the thread ends with whoever is last.
        drop(started);
        Ok(0)
    })
}
