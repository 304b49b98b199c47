//! Calls that the standard library does not offer: which cores a thread may run on, which one it is on, and signals.
#![expect(unsafe_code, reason = "the one module that calls libc")]

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The cores that the calling thread may run on, in ascending order.
pub(crate) fn affinity() -> io::Result<Vec<usize>> {
    // SAFETY: `cpu_set_t` is an array of integers, for which all zeroes is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: 0 is the calling thread; `set` is valid for writes of the size that is passed.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let bits = size_of_val(&set) * 8;
    // SAFETY: `core` is below the number of bits of the set.
    Ok((0..bits)
        .filter(|&core| unsafe { libc::CPU_ISSET(core, &set) })
        .collect())
}

static CORES: OnceLock<libc::cpu_set_t> = OnceLock::new();

/// Notes where the calling thread may run, the first time: called before there are reactors, which are pinned.
pub(crate) fn note_cores() {
    if CORES.get().is_none()
        && let Some(set) = cores_of(0)
    {
        // Whoever was first is right.
        let _ = CORES.set(set);
    }
}

/// Where a thread may run; 0 is the calling one.
fn cores_of(thread: libc::pid_t) -> Option<libc::cpu_set_t> {
    // SAFETY: `cpu_set_t` is an array of integers, for which all zeroes is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writes of the size that is passed.
    let done = unsafe { libc::sched_getaffinity(thread, size_of_val(&set), &raw mut set) };
    (done == 0).then_some(set)
}

/// Lets the calling thread run wherever [`note_cores`] was called. Where it never was, the cores of the main thread are
/// taken.
pub(crate) fn leave_core() {
    let main_thread = libc::pid_t::try_from(std::process::id());
    let set = CORES.get().copied();
    let set = set.or_else(|| main_thread.ok().and_then(cores_of));
    if let Some(set) = set {
        // SAFETY: 0 is the calling thread; `set` is valid for reads of the size that is passed.
        unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    }
}

/// Cores that reactors were pinned to, one a bit; not more than a `cpu_set_t` has.
static PINNED: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

/// Notes that reactors are pinned to these cores.
pub(crate) fn note_pinned(cores: impl Iterator<Item = usize>) {
    for core in cores {
        if let Some(word) = PINNED.get(core / 64) {
            word.fetch_or(1 << (core % 64), Ordering::Relaxed);
        }
    }
}

fn is_pinned(core: usize) -> bool {
    let word = PINNED.get(core / 64);
    word.is_some_and(|word| word.load(Ordering::Relaxed) >> (core % 64) & 1 == 1)
}

/// How much less than others a thread gets that stands back: about a tenth of a core that somebody else wants all of.
const STAND_BACK_NICE: libc::c_int = 10;

/// Has the calling thread run where no reactor is pinned, as long as there is such a core, and behind others where it shares
/// one.
pub(crate) fn stand_back() {
    leave_core();
    if let Ok(cores) = affinity() {
        // SAFETY: `cpu_set_t` is an array of integers, for which all zeroes is a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        let free = cores.iter().filter(|&&core| !is_pinned(core));
        // SAFETY: `core` is one that the kernel has told, so it is below the number of bits of the set.
        free.for_each(|&core| unsafe { libc::CPU_SET(core, &mut set) });
        // The kernel refuses a set without a core that can be had, and leaves it as it was.
        // SAFETY: 0 is the calling thread; `set` is valid for reads of the size that is passed.
        unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    }
    let none = libc::sched_param { sched_priority: 0 };
    // Either may be refused, which leaves the thread like others.
    // SAFETY: 0 is the calling thread; `none` is valid for reads.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none) };
    // SAFETY: the call takes integers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, STAND_BACK_NICE) };
}

/// The core on which the calling thread runs at this moment; `None` if the system does not tell.
pub(crate) fn current_core() -> Option<usize> {
    // SAFETY: the call has no arguments and no effects.
    let core = unsafe { libc::sched_getcpu() };
    usize::try_from(core).ok()
}

/// The number of the calling thread in the system.
pub(crate) fn thread_id() -> u64 {
    // SAFETY: the call has no arguments and no effects.
    let id = unsafe { libc::gettid() };
    u64::try_from(id).unwrap_or_default()
}

/// Signals that management may send to its own process, by name.
#[cfg(feature = "rpc")]
pub(crate) const SIGNALS: [(&str, i32); 6] = [
    ("SIGINT", libc::SIGINT),
    ("SIGTERM", libc::SIGTERM),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGHUP", libc::SIGHUP),
    ("SIGKILL", libc::SIGKILL),
    ("SIGUSR1", libc::SIGUSR1),
];

/// Sends a signal to this process.
#[cfg(feature = "rpc")]
pub(crate) fn signal_self(signal: i32) -> io::Result<()> {
    // SAFETY: both calls take and return integers; what the signal does is what its sender asks for.
    let result = unsafe { libc::kill(libc::getpid(), signal) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes as many descriptors as this process may have: the soft limit, which is often 1024, becomes the hard one.
pub(crate) fn raise_descriptor_limit() {
    if let Some(mut limit) = descriptor_limit() {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is valid for reads. A failure leaves the limit as it was.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

/// How many descriptors this process may have; all that a number can hold if the system does not tell.
pub(crate) fn descriptors_max() -> usize {
    let limit = descriptor_limit().map(|limit| limit.rlim_cur);
    limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

fn descriptor_limit() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writes.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (result == 0).then_some(limit)
}

/// Lets writes beyond a limit fail instead of ending the process: those to a file that has reached the size that the process
/// may write (SIGXFSZ), and those to a peer that is gone (SIGPIPE). Who has set these signals up otherwise keeps that.
pub(crate) fn survive_limits() {
    for signal in [libc::SIGXFSZ, libc::SIGPIPE] {
        // SAFETY: SIG_IGN is a disposition for either signal, and runs no code of ours.
        let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
        if before != libc::SIG_DFL && before != libc::SIG_IGN && before != libc::SIG_ERR {
            // SAFETY: this is the handler that was there before.
            unsafe { libc::signal(signal, before) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_limit_is_raised_to_what_is_allowed() {
        raise_descriptor_limit();
        let limit = descriptor_limit().unwrap();
        assert_eq!(limit.rlim_cur, limit.rlim_max);
        assert!(descriptors_max() > 0);
    }

    #[test]
    fn a_thread_runs_on_a_core_that_it_may_run_on() {
        let cores = affinity().unwrap();
        assert!(cores.is_sorted() && !cores.is_empty());
        assert!(cores.contains(&current_core().unwrap()), "{cores:?}");
    }

    #[test]
    fn a_helper_runs_where_the_process_may() {
        note_cores();
        let ran = std::thread::spawn(|| {
            leave_core();
            std::thread::available_parallelism().unwrap().get()
        });
        let cores = CORES.get().unwrap();
        // SAFETY: `cores` is a set that the kernel has filled in.
        let count = unsafe { libc::CPU_COUNT(cores) };
        assert!(ran.join().unwrap() <= usize::try_from(count).unwrap());
    }

    #[test]
    fn who_stands_back_is_where_no_reactor_is_pinned() {
        let cores = affinity().unwrap();
        let here = |pinned: &[usize]| {
            for word in &PINNED {
                word.store(0, Ordering::Relaxed);
            }
            note_pinned(pinned.iter().copied());
            let stood_back = || {
                stand_back();
                // SAFETY: both take integers; 0 is the calling thread.
                let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
                // SAFETY: as above.
                let policy = unsafe { libc::sched_getscheduler(0) };
                (affinity().unwrap(), nice, policy)
            };
            let (cores, nice, policy) = std::thread::spawn(stood_back).join().unwrap();
            assert!(nice >= STAND_BACK_NICE && policy == libc::SCHED_BATCH);
            cores
        };
        assert_eq!(here(&[]), cores);
        let (first, others) = cores.split_first().unwrap();
        match others {
            [] => assert_eq!(here(&[*first]), cores),
            others => assert_eq!(here(&[*first]), others),
        }
        // Where there is no other core it has to share one.
        assert_eq!(here(&cores), cores);
    }
}
