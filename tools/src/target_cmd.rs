//! `pollux target`: a target as a process of its own.

use std::io::{Write, stdout};

use anyhow::Context;
use pollux_nvme_tcp::target::{
    LOG_FLAG, NamespaceConfig, SubsystemConfig, TargetError, TargetHandle, TargetReply,
    TargetRequest,
    rpc::{register, register_with},
    target,
};
use pollux_reactor::rpc::{self, Methods};
use pollux_reactor::{Group, StartError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::UsageError;
use crate::manage;
use crate::target_args::{IdlePolicy, TargetArgs};

/// Runs a target until SIGINT or SIGTERM.
pub fn run(mut args: TargetArgs) -> anyhow::Result<()> {
    args.complete();
    let args = &args;
    for wanted in &args.ana {
        if !args.listen.contains(&wanted.addr) {
            return Err(UsageError(format!(
                "--ana {}: no --listen has this address",
                wanted.addr
            ))
            .into());
        }
    }
    let log = args.manage.start_log(&[LOG_FLAG, rpc::LOG_FLAG])?;
    // Before anything is ready, so that no signal is lost.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signal handlers")?;

    let cores: Vec<Option<usize>> = match &args.cores {
        Some(cores) => cores.0.iter().copied().map(Some).collect(),
        None => vec![None],
    };
    let idle = IdlePolicy::choose(args.idle, args.cores.is_some());
    let (handle, parts) = target(cores.len());
    let mut group = Group::new();
    for (core, part) in cores.into_iter().zip(parts) {
        let reactor = group.add_reactor(core, idle);
        group.add_service(reactor, part.receiver, move || part.service);
    }
    let namespaces = args.namespace.iter();
    let mut namespaces: Vec<_> = namespaces
        .map(|backend| NamespaceConfig::new(backend.clone(), args.block_size))
        .collect();
    let failure = match args.manage.is_used() {
        true => {
            let mut methods = Methods::new();
            if args.is_empty() {
                register(&mut methods, handle.clone());
            } else {
                namespaces = register_with(&mut methods, handle.clone(), &args.nqn, &namespaces)
                    .map_err(refused)?;
            }
            let stop = signals.handle();
            Some(args.manage.add_server(methods, &log, &mut group, 0, stop)?)
        }
        false => None,
    };
    let running = group.start().map_err(|error| match error {
        StartError::NoSuchCore { .. } => UsageError(format!("--cores: {error}")).into(),
        error => anyhow::Error::new(error),
    })?;

    if !args.is_empty() {
        configure(&handle, args, namespaces)?;
    }
    signals.forever().next();
    running.stop();
    running.join();
    manage::outcome(failure)
}

/// Sets up what the options say, and tells where the target listens.
fn configure(
    handle: &TargetHandle,
    args: &TargetArgs,
    namespaces: Vec<NamespaceConfig>,
) -> anyhow::Result<()> {
    let nqn = || args.nqn.clone();
    call(
        handle,
        TargetRequest::CreateSubsystem(SubsystemConfig::new(nqn())),
    )?;
    for namespace in namespaces {
        let request = TargetRequest::AddNamespace {
            nqn: nqn(),
            nsid: None,
            namespace,
        };
        call(handle, request)?;
    }
    for &addr in &args.listen {
        let request = TargetRequest::AddListener { nqn: nqn(), addr };
        let TargetReply::Listener { addr: actual } = call(handle, request)? else {
            continue;
        };
        let state = args.ana.iter().rev().find(|wanted| wanted.addr == addr);
        if let Some(wanted) = state {
            let request = TargetRequest::SetAnaState {
                nqn: nqn(),
                addr: actual,
                group: None,
                state: wanted.state,
            };
            call(handle, request)?;
        }
        // Nobody may be reading; that is no reason to stop.
        let _ = writeln!(stdout(), "listening on {actual}, subsystem {}", args.nqn);
    }
    Ok(())
}

fn call(handle: &TargetHandle, request: TargetRequest) -> anyhow::Result<TargetReply> {
    handle.call(request).map_err(refused)
}

/// What was asked for wrongly is told apart from what cannot be had.
fn refused(error: TargetError) -> anyhow::Error {
    match error {
        TargetError::InvalidValue(_) | TargetError::ListenerExists(_) => {
            UsageError(error.to_string()).into()
        }
        error => error.into(),
    }
}
