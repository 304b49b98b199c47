//! A controller that does as it is told, over TCP: the other side of a host.

use std::io::ErrorKind;
use std::net::TcpListener;

use zerocopy::FromBytes;

use super::wire::{Checked, Wire, pdu};
use crate::pdu::TxFraming;
use crate::spec::pdu::{C2hData, CapsuleCmd, CapsuleResp, Icreq, Icresp, PduType, flags};
use crate::spec::{Cqe, Sqe};

/// MAXR2T that the host states: four, minus one.
pub const MAXR2T_Z: u32 = 3;

/// The controller's side of one connection.
#[derive(Debug)]
pub struct Peer {
    /// What goes over it.
    pub wire: Wire,
    /// How PDUs are built: as agreed by ICReq and ICResp.
    pub framing: TxFraming,
}

impl Peer {
    /// Takes the next connection. The listener does not block.
    pub fn accept(listener: &TcpListener) -> Checked<Self> {
        for _ in 0..10_000_000 {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(|e| e.to_string())?;
                    return Ok(Self {
                        wire: Wire::new(stream)?,
                        framing: TxFraming::default(),
                    });
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => return Err(format!("accept: {e}")),
            }
        }
        Err("the host does not connect".into())
    }

    /// Takes ICReq and Connect, and accepts both. `dgst` as in ICResp.
    pub fn accept_queue(&mut self, dgst: u8) -> Checked<()> {
        self.accept_icreq(dgst)?;
        let connect = self.command()?;
        self.complete(connect.cid.get(), Cqe::default())
    }

    /// Takes ICReq and answers it.
    pub fn accept_icreq(&mut self, dgst: u8) -> Checked<()> {
        self.icreq()?;
        let response = pdu(TxFraming::default(), &Icresp::new(0, dgst, 8192), &[]);
        self.wire.send(&response)?;
        self.framing.hdgst = dgst & 1 != 0;
        self.framing.ddgst = dgst & 2 != 0;
        Ok(())
    }

    /// Takes ICReq.
    pub fn icreq(&mut self) -> Checked<()> {
        let bytes = self.wire.expect(PduType::ICREQ)?;
        let (request, _) = Icreq::ref_from_prefix(&bytes).map_err(|e| e.to_string())?;
        match (bytes.len(), request.pfv.get(), request.maxr2t_z.get()) {
            (128, 0, MAXR2T_Z) => Ok(()),
            other => Err(format!("ICReq {other:?}")),
        }
    }

    /// The next command.
    pub fn command(&mut self) -> Checked<Sqe> {
        let bytes = self.wire.expect(PduType::CAPSULE_CMD)?;
        let (capsule, _) = CapsuleCmd::read_from_prefix(&bytes).map_err(|e| e.to_string())?;
        Ok(capsule.sqe)
    }

    /// Completes a command; its CID is put into `cqe`.
    pub fn complete(&mut self, cid: u16, cqe: Cqe) -> Checked<()> {
        let cqe = Cqe {
            cid: cid.into(),
            ..cqe
        };
        let response = pdu(self.framing, &CapsuleResp::new(cqe), &[]);
        self.wire.send(&response)
    }

    /// Sends all data of a read.
    pub fn data(&mut self, cid: u16, data: &[u8]) -> Checked<()> {
        let len = u32::try_from(data.len()).unwrap_or(0);
        let header = C2hData::new(cid, 0, len, flags::LAST_PDU);
        let bytes = pdu(self.framing, &header, data);
        self.wire.send(&bytes)
    }
}
