//! Non-blocking Unix stream sockets, for management.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::unix::net::UnixListener as StdListener;

use mio::Interest;
use mio::net::{UnixListener as MioListener, UnixStream as MioStream};

use super::count_call;
use super::ready::Ready;
use super::tcp::{STREAM_EVENTS, TcpNet};

/// One connection. It stays on the reactor that accepted it.
#[derive(Debug)]
pub(super) struct UnixLink {
    io: MioStream,
    ready: Ready,
}

impl UnixLink {
    pub(super) fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.io.read_vectored(bufs)
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.io.read(buf)
    }

    pub(super) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.io.write_vectored(bufs)
    }

    pub(super) fn take_ready(&mut self) -> bool {
        self.ready.take()
    }

    pub(super) fn take_room(&mut self) -> bool {
        self.ready.take_room()
    }
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct UnixListener {
    io: MioListener,
    ready: Ready,
}

#[cfg_attr(
    not(feature = "rpc"),
    expect(dead_code, reason = "only management listens at Unix sockets")
)]
impl UnixListener {
    pub(super) fn watch(net: &mut TcpNet, listener: StdListener) -> io::Result<UnixListener> {
        listener.set_nonblocking(true)?;
        let mut io = MioListener::from_std(listener);
        let ready = net.watch(&mut io, Interest::READABLE)?;
        Ok(UnixListener { io, ready })
    }

    pub(super) fn accept(&mut self, net: &mut TcpNet) -> io::Result<Option<UnixLink>> {
        if !self.ready.get() {
            return Ok(None);
        }
        count_call();
        match self.io.accept() {
            Ok((mut io, _)) => {
                let ready = net.watch(&mut io, STREAM_EVENTS)?;
                Ok(Some(UnixLink { io, ready }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready.reset();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
