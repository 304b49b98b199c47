//! The limit to measure against: the bytes of NVMe/TCP over bare TCP, and nothing else.
//!
//! Two pinned threads, connections on loopback, non-blocking sockets. Each side takes all that has arrived with one
//! `recv`, counts whole messages, and answers them all with one `send`. No byte is looked at, no buffer is managed, no
//! command is looked up: what is left is the price of moving the bytes.
//!
//! What one `recv` takes and one `send` gives at most decides how many system calls a message costs and whether its
//! bytes are still in the cache: small buffers are better for large messages, large ones for many small messages, and
//! where they meet is the machine's. So the run tries several sizes first and takes the fastest.

mod args;
mod exchange;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

pub use self::args::{Direction, FloorArgs};
use self::exchange::Exchange;
use self::wire::{Idle, Wire};
use crate::cores::Placement;
use crate::errors::Usage;
use crate::machine::{self, Machine};
use crate::report::{PathReport, Report};
use crate::size::human_bytes;
use crate::stats::{PathIos, RunStats};

/// Runs the floor and reports it. `stop` ends it early.
pub fn run(args: &FloorArgs, stop: &AtomicBool) -> anyhow::Result<Report> {
    let available = pollux_reactor::available_cores();
    let placement = Placement::pair(args.cores.as_ref(), &available).map_err(Usage)?;
    if args.depth < args.qpairs {
        return Err(Usage(format!(
            "-q {} with -P {} leaves connections without requests: allowed are at least as many requests as connections",
            args.depth, args.qpairs
        ))
        .into());
    }
    let exchange = Exchange::new(args.workload, args.io_size as usize, args.capsule_resp);
    let idle = if placement.shared {
        Idle::Yield
    } else {
        Idle::Spin
    };

    let wire = Wire {
        exchange,
        depth: args.depth as usize,
        connections: args.qpairs as usize,
        server_core: placement.target,
        client_core: placement.host[0],
        idle,
        stop,
    };
    let buffer = wire.fastest_buffer()?;
    let (outcome, address) = wire.run(buffer, args.time)?;

    let mut stats = RunStats::new();
    let mut part = outcome.stats;
    let bytes = u64::from(args.io_size);
    part.bytes = part.reads * bytes;
    if args.workload == Direction::Write {
        part.writes = std::mem::take(&mut part.reads);
    }
    stats.merge(&part);
    let machine = Machine::read(available);
    let mut doubts = machine.doubts();
    if placement.shared {
        doubts.push("client and server share a core".to_owned());
    } else {
        doubts.extend(machine::interrupted(outcome.preemptions, args.time));
    }
    let direction = match args.workload {
        Direction::Read => "read",
        Direction::Write => "write",
    };
    Ok(Report {
        title: format!(
            "floor: {direction} {}, depth {}, {}{} B requests, {} B answers, bare TCP, {} buffers",
            human_bytes(bytes),
            args.depth,
            if args.qpairs > 1 {
                format!("{} connections, ", args.qpairs)
            } else {
                String::new()
            },
            exchange.request,
            exchange.response,
            human_bytes(buffer as u64)
        ),
        kind: "floor",
        options: json!({
            "workload": direction,
            "depth": args.depth,
            "qpairs": args.qpairs,
            "io_size": args.io_size,
            "request_bytes": exchange.request,
            "response_bytes": exchange.response,
            "buffer_bytes": buffer,
        }),
        jobs: Vec::new(),
        submitted: stats.total.ios(),
        completed: stats.total.ios(),
        paths: vec![PathReport {
            traddr: address.ip().to_string(),
            trsvcid: address.port().to_string(),
            ios: PathIos {
                ios: stats.total.ios(),
                errors: 0,
            },
            ana_state: "none".to_owned(),
        }],
        stats,
        start_ns: 0,
        end_ns: outcome.end_ns,
        verified: None,
        interrupted: stop.load(Ordering::Relaxed),
        waited: Duration::ZERO,
        socket_calls: None,
        host_cores: placement.host,
        target_core: Some(placement.target),
        machine,
        host_busy: Vec::new(),
        doubts,
        series: Vec::new(),
        open_loop: None,
        ramp: None,
        steady: None,
        began: outcome.began,
        target: serde_json::Value::Null,
    })
}
