//! `pollux target`: a target as a process of its own.

use std::io::{Write, stdout};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};

use anyhow::Context;
use pollux_nvme_tcp::spec::HostNqn;
use pollux_nvme_tcp::target::{
    self, HostAccess, LOG_FLAG, NamespaceConfig, SubsystemConfig, TargetError, TargetHandle,
    TargetRequest,
    rpc::{register, register_with},
};
use pollux_reactor::Group;
use pollux_reactor::rpc::{self, Methods};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::UsageError;
use crate::manage;
use crate::target_args::TargetArgs;

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
    let access = args.hosts.read(&args.nqn)?;
    let log = args.manage.start_log(&[LOG_FLAG, rpc::LOG_FLAG])?;
    // Before anything is ready, so that no signal is lost.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signal handlers")?;

    let mut group = Group::new();
    let reactors = args.reactors.add_to(&mut group);
    let handle = target::install(&mut group, &reactors);
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
                let (target, keyring) = (handle.clone(), access.keyring);
                namespaces = register_with(&mut methods, target, &args.nqn, &namespaces, keyring)
                    .map_err(refused)?;
            }
            let stop = signals.handle();
            Some(args.manage.add_server(methods, &log, &mut group, 0, stop)?)
        }
        false => None,
    };
    // Asked before anything runs: the calls of a configuration file come after and find it.
    let asked = ask(&handle, args, access.hosts, namespaces);
    let running = group.start().map_err(manage::start_error)?;

    configured(&handle, args, &asked)?;
    signals.forever().next();
    running.stop();
    running.join();
    manage::outcome(failure)
}

/// Answers to what the options ask for: the address of a listener, or nothing.
type Answers = Receiver<Result<Option<SocketAddr>, TargetError>>;

/// Asks for what the options say, up to the listeners. The answers come in this order once the target runs.
fn ask(
    handle: &TargetHandle,
    args: &TargetArgs,
    hosts: Vec<(HostNqn, HostAccess)>,
    namespaces: Vec<NamespaceConfig>,
) -> Answers {
    let (sender, answers) = mpsc::channel();
    let nqn = || args.nqn.clone();
    // Nobody takes an answer if an earlier one was an error.
    let told = || {
        let sender = sender.clone();
        move |answer| drop(sender.send(answer))
    };
    if let Some(ms) = args.cqt {
        let (told, request) = (told(), TargetRequest::set_quiesce_time(ms));
        handle.request(request, move |answer| told(answer.map(|()| None)));
    }
    if args.hosts.ktls() {
        let (told, request) = (told(), TargetRequest::set_ktls(true));
        handle.request(request, move |answer| told(answer.map(|()| None)));
    }
    if !args.is_empty() {
        let (told, mut config) = (told(), SubsystemConfig::new(nqn()));
        config.min_cntlid = args.min_cntlid;
        config.allow_any_host = hosts.is_empty();
        let request = TargetRequest::create_subsystem(config);
        handle.request(request, move |answer| told(answer.map(|()| None)));
    }
    for (host, access) in hosts {
        let (told, request) = (told(), TargetRequest::add_host_with(nqn(), host, access));
        handle.request(request, move |answer| told(answer.map(|()| None)));
    }
    for namespace in namespaces {
        let (told, request) = (told(), TargetRequest::add_namespace(nqn(), None, namespace));
        handle.request(request, move |answer| told(answer.map(|_| None)));
    }
    for &addr in &args.listen {
        let (told, request) = (
            told(),
            match args.hosts.is_secure() {
                true => TargetRequest::add_secure_listener(nqn(), addr),
                false => TargetRequest::add_listener(nqn(), addr),
            },
        );
        handle.request(request, move |answer| told(answer.map(Some)));
    }
    answers
}

/// Waits for what was asked for, sets the ANA states, and tells where the target listens.
fn configured(handle: &TargetHandle, args: &TargetArgs, answers: &Answers) -> anyhow::Result<()> {
    let mut listeners = args.listen.iter();
    // The channel ends with the last answer, or with the target.
    for answer in answers {
        let Some(actual) = answer.map_err(refused)? else {
            continue;
        };
        let asked = listeners.next();
        let state = args
            .ana
            .iter()
            .rev()
            .find(|wanted| Some(&wanted.addr) == asked);
        if let Some(wanted) = state {
            handle
                .set_ana_state(&args.nqn, actual, wanted.state)
                .map_err(refused)?;
        }
        // Nobody may be reading; that is no reason to stop.
        let secure = if args.hosts.is_secure() { ", TLS" } else { "" };
        let _ = writeln!(
            stdout(),
            "listening on {actual}, subsystem {}{secure}",
            args.nqn
        );
    }
    Ok(())
}

/// What was asked for wrongly is told apart from what cannot be had.
fn refused(error: TargetError) -> anyhow::Error {
    match error {
        TargetError::InvalidValue(_)
        | TargetError::ListenerExists(_)
        | TargetError::HostExists(_) => UsageError(error.to_string()).into(),
        error => error.into(),
    }
}
