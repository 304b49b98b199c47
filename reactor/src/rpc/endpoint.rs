//! Where a server listens. Sockets are opened before the reactors start, so that errors come at once.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Another program answers there.
    #[error("{0}: somebody listens there already")]
    InUse(PathBuf),
    /// There is a file that is no socket.
    #[error("{0}: is there already and no socket")]
    NoSocket(PathBuf),
    /// Management is for programs on this machine only.
    #[error("{0}: only a loopback address is allowed")]
    NotLoopback(SocketAddr),
    /// What the system says.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// A Unix socket's place in the file system. Dropping it removes the file, unless another one took its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            // Whoever removed it in between has done what was to be done.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Listens on a Unix socket that only its owner may use. A file that an ended program left behind is replaced.
pub(super) fn unix(path: &Path) -> Result<(UnixListener, SocketFile), EndpointError> {
    let fail = |error| EndpointError::Io(path.display().to_string(), error);
    let address = SockAddr::unix(path).map_err(fail)?;
    let socket = match bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
                return Err(EndpointError::NoSocket(path.into()));
            }
            if is_answered(&address).map_err(fail)? {
                return Err(EndpointError::InUse(path.into()));
            }
            fs::remove_file(path).map_err(fail)?;
            bind(&address).map_err(fail)?
        }
        result => result.map_err(fail)?,
    };
    let file = SocketFile {
        path: path.into(),
        identity: identity(path),
    };
    socket.listen(BACKLOG).map_err(fail)?;
    Ok((OwnedFd::from(socket).into(), file))
}

fn bind(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux gives the file the mode that the socket has, so that there is no moment at which others may connect.
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(address)?;
    Ok(socket)
}

/// Whether somebody listens there.
fn is_answered(address: &SockAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Ok(()) => Ok(true),
        // Its backlog is full.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        // It went away meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Listens on TCP; port 0 takes a free one.
pub(super) fn tcp(addr: SocketAddr) -> Result<std::net::TcpListener, EndpointError> {
    if !addr.ip().is_loopback() {
        return Err(EndpointError::NotLoopback(addr));
    }
    std::net::TcpListener::bind(addr).map_err(|e| EndpointError::Io(addr.to_string(), e))
}
