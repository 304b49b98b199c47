//! `framework_get_reactors`, `thread_get_stats` and `thread_get_pollers`: how the reactors of the program are. With
//! `thread_set_cpumask` one can be asked to be where it is; it stays where it was started.
//!
//! Each reactor is asked by message and the answer is sent when the last one has answered; one that has ended is
//! left out. What SPDK's clients call a thread is a reactor here, since a reactor has one, and a poller is a
//! service, which every turn polls once. Times are in nanoseconds, so `tick_rate` is 10^9.
//!
//! There is no `thread_get_io_channels`: nothing here is counted in references to I/O channels, and which paths
//! each reactor has is told by `bdev_nvme_get_io_paths`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::error::RpcError;
use super::methods::{Answer, Call, MethodResult, Methods, Phase, Responder};
use crate::executor::Executor;
use crate::gather::Gather;
use crate::observer::{NotAsked, Observers};
use crate::status::{ReactorStatus, ServiceStatus};
use crate::time::nanos;

const TICKS_PER_SEC: u64 = 1_000_000_000;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;

/// What the methods keep.
struct State {
    observers: Observers,
    /// Made with the first question, which brings the way back to this state.
    gather: Option<Gather<State>>,
    /// Callers whose question is open.
    callers: BTreeMap<u64, Responder>,
    last_id: u64,
}

/// Seats an observer on each reactor that `executor` has so far, and adds the methods that ask them.
pub fn observe(methods: &mut Methods, executor: &mut impl Executor) {
    let state = State {
        observers: Observers::install(executor),
        gather: None,
        callers: BTreeMap::new(),
        last_id: 0,
    };
    methods
        .module(state)
        .method("framework_get_reactors", Phase::Any, get_reactors)
        .method("thread_get_pollers", Phase::Any, get_pollers)
        .method("thread_get_stats", Phase::Any, get_stats)
        .method("thread_set_cpumask", Phase::Any, set_cpumask);
}

/// A reactor has its core for as long as it runs, so that what it owns stays in that core's caches: a mask that asks for
/// something else is refused.
fn set_cpumask(state: &mut State, call: &mut Call<State>) -> MethodResult {
    let thread: u32 = call.params.required("id")?;
    let mask: String = call.params.required("cpumask")?;
    call.params.finish()?;
    let Some(wanted) = hexadecimal(&mask) else {
        let text = format!("'{}', a hexadecimal mask such as 0x3", mask.escape_debug());
        return Err(call.params.invalid("cpumask", text));
    };
    let unknown = || RpcError::errno_of(ENODEV, format!("thread {thread}"));
    let reactor = thread.checked_sub(1).ok_or_else(unknown)? as usize;
    if reactor >= state.observers.len() {
        return Err(unknown());
    }
    let responder = call.responder()?;
    let asked = state.observers.ask(reactor, move |status| {
        let present = cpumask(&status);
        responder.answer(match present == wanted {
            true => Ok(true.into()),
            false => Err(RpcError::errno_of(
                EOPNOTSUPP,
                format!("reactor {reactor} stays where it was started, which is mask {present}; --cores says where"),
            )),
        });
    });
    // One that was not taken was dropped with its responder, which has answered by itself.
    let _ = asked;
    Ok(Answer::Later)
}

/// A mask as [`cpumask`] writes it.
fn hexadecimal(mask: &str) -> Option<String> {
    let digits = mask.strip_prefix("0x").unwrap_or(mask);
    let digits = digits.trim_start_matches('0').to_ascii_lowercase();
    let is_mask = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_mask.then_some(digits)
}

fn get_reactors(state: &mut State, call: &mut Call<State>) -> MethodResult {
    ask(state, call, |reactors| {
        // The same moment for all; a program that may not read it has no such figures.
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let list: Value = reactors.iter().map(|r| show_reactor(r, &stat)).collect();
        json!({"tick_rate": TICKS_PER_SEC, "pid": std::process::id(), "reactors": list})
    })
}

fn get_stats(state: &mut State, call: &mut Call<State>) -> MethodResult {
    ask(state, call, |reactors| {
        let list: Value = reactors.iter().map(show_thread).collect();
        json!({"tick_rate": TICKS_PER_SEC, "threads": list})
    })
}

fn get_pollers(state: &mut State, call: &mut Call<State>) -> MethodResult {
    ask(state, call, |reactors| {
        let list: Value = reactors.iter().map(show_pollers).collect();
        json!({"tick_rate": TICKS_PER_SEC, "threads": list})
    })
}

/// Asks every reactor; `show` makes the result of their answers.
fn ask(
    state: &mut State,
    call: &mut Call<State>,
    show: fn(&[ReactorStatus]) -> Value,
) -> MethodResult {
    call.params.finish()?;
    state.last_id += 1;
    let id = state.last_id;
    state.callers.insert(id, call.responder()?);
    let mail = call.mail.clone();
    let gather = state
        .gather
        .get_or_insert_with(|| Gather::new(move || mail.run(State::answer)));
    let parts = gather.ask(state.observers.len(), move |state: &mut State, answers| {
        if let Some(caller) = state.callers.remove(&id) {
            caller.answer(Ok(show(&answers)));
        }
    });
    for (reactor, part) in parts.into_iter().enumerate() {
        let asked = state.observers.ask(reactor, |status| part.answer(status));
        // One that has ended has dropped its part, and is left out.
        if asked == Err(NotAsked::Busy)
            && let Some(caller) = state.callers.remove(&id)
        {
            caller.answer(Err(RpcError::errno_of(EBUSY, format!("reactor {reactor}"))));
            break;
        }
    }
    Ok(Answer::Later)
}

impl State {
    /// Answers the questions to which all reactors have answered.
    fn answer(&mut self) {
        while let Some(answered) = self.gather.as_mut().and_then(Gather::next_answered) {
            answered(self);
        }
    }
}

fn show_reactor(status: &ReactorStatus, stat: &str) -> Value {
    let counters = status.counters;
    let thread = status.thread.as_ref();
    let core = thread.and_then(|thread| thread.core);
    let mut shown = json!({
        "lcore": core,
        "tid": thread.map(|thread| thread.id),
        "busy": counters.busy_ns,
        "idle": idle(status),
        "in_interrupt": thread.is_some_and(|thread| thread.parks),
    });
    let times = core.and_then(|core| core_times(stat, core));
    if let (Some([usr, sys, irq]), Some(members)) = (times, shown.as_object_mut()) {
        members.insert("irq".into(), irq.into());
        members.insert("sys".into(), sys.into());
        members.insert("usr".into(), usr.into());
    }
    shown["lw_threads"] = json!([{
        "name": name(status),
        "id": id(status),
        "cpumask": cpumask(status),
        "elapsed": nanos(status.up),
    }]);
    shown["pollux"] = json!({
        "reactor": status.reactor,
        "turns": counters.turns,
        "busy_turns": counters.busy_turns,
        "messages": counters.messages,
        "timers": counters.timers,
        "socket_calls": counters.socket_calls,
    });
    shown
}

fn show_thread(status: &ReactorStatus) -> Value {
    json!({
        "name": name(status),
        "id": id(status),
        "cpumask": cpumask(status),
        "busy": status.counters.busy_ns,
        "idle": idle(status),
        "in_interrupt": status.thread.as_ref().is_some_and(|thread| thread.parks),
        "active_pollers_count": status.services.len(),
        "timed_pollers_count": 0,
        "paused_pollers_count": 0,
    })
}

fn show_pollers(status: &ReactorStatus) -> Value {
    let show = |(index, service): (usize, &ServiceStatus)| {
        json!({
            "name": service.name,
            "id": index + 1,
            "state": "waiting",
            "run_count": status.counters.turns,
            "busy_count": service.busy_turns,
        })
    };
    let services: Value = status.services.iter().enumerate().map(show).collect();
    json!({
        "name": name(status),
        "id": id(status),
        "active_pollers": services,
        "timed_pollers": [],
        "paused_pollers": [],
    })
}

/// The name of the reactor's thread in the system.
fn name(status: &ReactorStatus) -> String {
    format!("reactor-{}", status.reactor)
}

/// Counts from 1, as clients expect it.
fn id(status: &ReactorStatus) -> usize {
    status.reactor + 1
}

fn idle(status: &ReactorStatus) -> u64 {
    nanos(status.up).saturating_sub(status.counters.busy_ns)
}

/// The cores that the thread may run on as a hexadecimal mask.
fn cpumask(status: &ReactorStatus) -> String {
    let cores = status.thread.as_ref().map(|thread| thread.cores.as_slice());
    let cores = cores.unwrap_or_default();
    let digits = cores.iter().max().map_or(1, |core| core / 4 + 1);
    let digit = |place: usize| {
        let bits = cores.iter().filter(|&core| core / 4 == place);
        bits.fold(0u32, |digit, core| digit | 1 << (core % 4))
    };
    (0..digits)
        .rev()
        .filter_map(|place| char::from_digit(digit(place), 16))
        .collect()
}

/// User, system and interrupt time of a core in the text of `/proc/stat`, in that file's unit (proc(5)).
fn core_times(stat: &str, core: usize) -> Option<[u64; 3]> {
    let name = format!("cpu{core}");
    let mut words = stat
        .lines()
        .map(str::split_ascii_whitespace)
        .find_map(|mut words| (words.next() == Some(&name)).then_some(words))?;
    // user, nice, system, idle, iowait, irq, softirq
    let times: Vec<u64> = words
        .by_ref()
        .take(7)
        .map_while(|w| w.parse().ok())
        .collect();
    match times.as_slice() {
        [user, _, system, _, _, irq, _] => Some([*user, *system, *irq]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::counters::Counters;
    use crate::status::ThreadStatus;

    fn on(cores: &[usize]) -> ReactorStatus {
        ReactorStatus {
            reactor: 0,
            thread: Some(ThreadStatus {
                id: 7,
                cores: cores.to_vec(),
                core: cores.first().copied(),
                parks: false,
            }),
            up: Duration::from_nanos(100),
            counters: Counters {
                busy_ns: 30,
                ..Counters::default()
            },
            services: Vec::new(),
        }
    }

    #[test]
    fn masks_are_hexadecimal_and_as_long_as_needed() {
        for (cores, mask) in [
            (&[0][..], "1"),
            (&[5], "20"),
            (&[0, 1, 2, 3], "f"),
            (&[1, 70], "400000000000000002"),
            (&[], "0"),
        ] {
            assert_eq!(cpumask(&on(cores)), mask);
        }
    }

    #[test]
    fn masks_are_read_as_they_are_written() {
        for (text, mask) in [
            ("0x1", Some("1")),
            ("0X3", None),
            ("00F0", Some("f0")),
            ("0x400000000000000002", Some("400000000000000002")),
            ("0", None),
            ("", None),
            ("[1]", None),
        ] {
            assert_eq!(hexadecimal(text).as_deref(), mask, "{text}");
        }
    }

    #[test]
    fn times_of_a_core_are_those_of_its_line() {
        let stat =
            "cpu  9 9 9 9 9 9 9\ncpu1 1 2 3 4 5 6 7 8 9 0\ncpu10 10 2 30 4 5 60 7\ncpu2 1 2\n";
        assert_eq!(core_times(stat, 1), Some([1, 3, 6]));
        assert_eq!(core_times(stat, 10), Some([10, 30, 60]));
        assert_eq!(core_times(stat, 2), None);
        assert_eq!(core_times(stat, 0), None);
    }

    #[test]
    fn what_is_not_busy_is_idle() {
        let shown = show_reactor(&on(&[3]), "");
        assert_eq!((&shown["busy"], &shown["idle"]), (&json!(30), &json!(70)));
        assert_eq!((&shown["lcore"], &shown["tid"]), (&json!(3), &json!(7)));
        assert_eq!(shown.get("irq"), None);
    }
}
