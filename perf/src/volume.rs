//! A volume of a host: attached, found, and ended with its host.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use pollux_multipath::{AttachRequest, Attached, ControllerId, Host, HostRequest, VolumeId};
use pollux_reactor::Running;

use crate::errors::{Interrupted, Usage};
use crate::load::JobMessage;

/// The longest that a peer may take to be told good-bye.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

/// The same after a signal.
const SHUTDOWN_AFTER_SIGNAL: Duration = Duration::from_millis(500);

/// The longest that a signal waits to be noticed.
const NOTICE: Duration = Duration::from_millis(50);

/// The volume under test.
pub struct Volume {
    /// Its identity in messages.
    pub id: VolumeId,
    /// Its namespace identifier.
    pub nsid: u32,
    /// The other namespaces that could have been taken.
    pub others: Vec<u32>,
    /// Size in blocks.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Its paths in attach order, with their addresses in words.
    pub paths: Vec<(ControllerId, String)>,
    /// The addresses, in the same order.
    pub addresses: Vec<SocketAddr>,
}

/// Ends all connections and threads of a host in order; after a signal with less patience.
pub fn end(host: &Host<JobMessage>, running: Running, stop: &AtomicBool) {
    host.shut_down_within(match stop.load(Ordering::Relaxed) {
        true => SHUTDOWN_AFTER_SIGNAL,
        false => SHUTDOWN_MAX,
    });
    running.stop();
    running.join();
}

/// Attaches a controller; a signal ends the waiting, and the attach with its host.
pub fn attach_or_stop(
    host: &Host<JobMessage>,
    request: AttachRequest,
    stop: &AtomicBool,
) -> anyhow::Result<Attached> {
    let (sender, answer) = mpsc::sync_channel(1);
    let reply = Box::new(move |result| {
        // Whoever was interrupted no longer listens.
        let _ = sender.send(result);
    });
    if host
        .request(HostRequest::Attach(Box::new(request), reply))
        .is_err()
    {
        bail!("the host has stopped");
    }
    loop {
        match answer.recv_timeout(NOTICE) {
            Ok(result) => return Ok(result?),
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => {
                return Err(Interrupted("before all paths were connected").into());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the host has stopped"),
        }
    }
}

/// The volume of namespace `nsid`, or the first one of a host; it must have `paths_wanted` paths.
pub fn volume(
    host: &Host<JobMessage>,
    paths_wanted: usize,
    nsid: Option<u32>,
) -> anyhow::Result<Volume> {
    let mut volumes = host.volumes()?;
    volumes.sort_by_key(|volume| volume.nsid);
    let controllers = host.controllers()?;
    let nsids: Vec<u32> = volumes.iter().map(|volume| volume.nsid).collect();
    let volume = match nsid {
        None => volumes.first().context("no namespace was found")?,
        Some(nsid) => volumes
            .iter()
            .find(|volume| volume.nsid == nsid)
            .ok_or_else(|| {
                let there: Vec<String> = nsids.iter().map(u32::to_string).collect();
                Usage(format!(
                    "--nsid {nsid} is not there: allowed are {}",
                    there.join(", ")
                ))
            })?,
    };
    let ids = volume
        .reactors
        .first()
        .map(|reactor| reactor.paths.as_slice());
    let mut paths = Vec::new();
    let mut addresses = Vec::new();
    for path in ids.unwrap_or_default() {
        let controller = controllers
            .iter()
            .find(|controller| controller.controller == path.controller)
            .context("a path without a controller")?;
        paths.push((path.controller, controller.transport.addr.to_string()));
        addresses.push(controller.transport.addr);
    }
    if paths.len() != paths_wanted {
        bail!(
            "the volume {} has {} of {} paths: namespaces that differ between the addresses do not make one volume",
            volume.name,
            paths.len(),
            paths_wanted
        );
    }
    Ok(Volume {
        id: volume.volume,
        nsid: volume.nsid,
        others: nsids
            .into_iter()
            .filter(|&nsid| nsid != volume.nsid)
            .collect(),
        blocks: volume.blocks,
        block_size: volume.block_size,
        paths,
        addresses,
    })
}
