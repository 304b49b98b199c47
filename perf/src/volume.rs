//! A volume of a host: attached, found, and ended with its host.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use pollux_multipath::{AttachRequest, Attached, ControllerId, Host, HostRequest, VolumeId};
use pollux_reactor::Running;

use crate::errors::Interrupted;
use crate::load::JobMessage;

/// The longest that a peer may take to be told good-bye.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);

/// The same after a signal.
const SHUTDOWN_AFTER_SIGNAL: Duration = Duration::from_millis(500);

/// The longest that a signal waits to be noticed.
const NOTICE: Duration = Duration::from_millis(50);

/// A volume under test.
#[derive(Debug)]
pub struct Volume {
    /// Its name: that of its controllers, `n`, and its namespace identifier.
    pub name: String,
    /// Its identity in messages.
    pub id: VolumeId,
    /// Its namespace identifier.
    pub nsid: u32,
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

/// The volumes of the group of controllers of this name, by NSID.
pub fn volumes(host: &Host<JobMessage>, name: &str) -> anyhow::Result<Vec<Volume>> {
    let controllers = host.controllers()?;
    let mut found = Vec::new();
    for status in host.volumes()? {
        if status.name != format!("{name}n{}", status.nsid) {
            continue;
        }
        let first = status.reactors.first();
        let mut volume = Volume {
            name: status.name,
            id: status.volume,
            nsid: status.nsid,
            blocks: status.blocks,
            block_size: status.block_size,
            paths: Vec::new(),
            addresses: Vec::new(),
        };
        for path in first.map_or(&[][..], |reactor| &reactor.paths) {
            let controller = controllers
                .iter()
                .find(|controller| controller.controller == path.controller)
                .context("a path without a controller")?;
            let address = controller.transport.addr;
            volume.paths.push((path.controller, address.to_string()));
            volume.addresses.push(address);
        }
        found.push(volume);
    }
    found.sort_by_key(|volume| volume.nsid);
    Ok(found)
}

impl Volume {
    /// It must have so many paths.
    pub fn check_paths(&self, wanted: usize) -> anyhow::Result<()> {
        let paths = self.paths.len();
        if paths != wanted {
            bail!(
                "the volume {} has {paths} of {wanted} paths: namespaces that differ between the addresses do not make one volume",
                self.name
            );
        }
        Ok(())
    }
}
