//! Small reads, received into the buffers that wait for them.
//!
//! Controllers mostly answer in the order in which they were asked. So a receive of a deep queue has, for one read after the
//! other, a place for the header that is expected next and then the buffer of its read: what comes as expected is not copied
//! a second time. From the first PDU on that is another one, all goes through the receive buffer, as it would have without
//! this; and so do the next receives, more of them with each time that happens.
//!
//! Until a read has succeeded its buffer may thus hold bytes of other reads.

use std::io::{self, IoSliceMut};

use zerocopy::FromBytes;

use super::receive::Receiving;
use super::{QueueError, QueuePair, State};
use crate::host::buffer::Buffer;
use crate::host::request::Completed;
use crate::pdu::Frame;
use crate::spec::pdu::{C2hData, PduType};

/// Commands outstanding from which on copies cost more than the lists of pieces that the system has to go through. Fewer
/// leave the receive buffer in the cache.
const DEEP: usize = 64;

/// Most reads of one receive.
const READS_MAX: usize = 64;

/// Fewest reads of one receive, if there are so many.
const READS_MIN: usize = 4;

/// Receives that do without after a PDU that was not expected: at first, and at most.
const PAUSE_MIN: u32 = 4;
const PAUSE_MAX: u32 = 4096;

/// Bytes of the header of a C2HData PDU (NVMe/TCP 1.1, 3.6.2.11).
const HEADER: usize = size_of::<C2hData>();

/// A read whose buffer takes part in a receive.
#[derive(Debug)]
pub(super) struct Offer {
    /// Its slot.
    pub index: u16,
    pub cid: u16,
    /// Taken out of the slot for the time of the receive. A `Vec`: an owner is asked for its bytes when they have come.
    pub buffer: Buffer,
    /// The part of the buffer that is read.
    pub from: usize,
    pub len: usize,
}

/// What a queue pair expects.
#[derive(Debug)]
pub(super) struct Expected {
    /// Receives that will do without.
    pause: u32,
    next_pause: u32,
    /// Reads that the last receive brought.
    came: usize,
    headers: Box<[[u8; HEADER]; READS_MAX]>,
    offers: Vec<Offer>,
}

impl Expected {
    pub fn new() -> Self {
        Self {
            pause: 0,
            next_pause: PAUSE_MIN,
            came: READS_MAX,
            headers: Box::new([[0; HEADER]; READS_MAX]),
            offers: Vec::with_capacity(READS_MAX),
        }
    }

    fn missed(&mut self) {
        self.pause = self.next_pause;
        self.next_pause = (2 * self.next_pause).min(PAUSE_MAX);
    }
}

impl<T> QueuePair<T> {
    /// Whether the next receive should go straight into buffers: some are taken for it then.
    #[inline]
    pub(super) fn expects(&mut self) -> bool {
        if self.table.outstanding() < DEEP || self.state != State::Ready {
            return false;
        }
        if self.expected.pause > 0 {
            self.expected.pause -= 1;
            return false;
        }
        let plain = self.session.is_none() && !self.framing.hdgst && !self.framing.ddgst;
        if !plain || !self.rx.data().is_empty() {
            return false;
        }
        let being_filled = match self.receiving {
            Receiving::Header => None,
            Receiving::Data(incoming) if self.table.slot(incoming.slot).is_vec() => {
                Some(incoming.slot)
            }
            Receiving::Data(_) | Receiving::Digest(_) => return false,
        };
        let expected = &mut self.expected;
        let count = (2 * expected.came).clamp(READS_MIN, READS_MAX);
        let room = self.rx.capacity();
        self.table
            .offer(&mut expected.offers, count, room, being_filled);
        !expected.offers.is_empty()
    }

    /// One receive into the rest of the buffer that is being filled, if there is one, and into those that
    /// [`expects`](Self::expects) has taken. What is not as expected is in the receive buffer then.
    ///
    /// # Errors
    /// Outside why the connection has ended, inside why nothing was received.
    pub(super) fn receive_expected(
        &mut self,
        sink: &mut impl FnMut(Completed<T>),
    ) -> Result<io::Result<()>, QueueError> {
        let expected = &mut self.expected;
        let mut rest = match self.receiving {
            Receiving::Data(incoming) => Some(incoming),
            _ => None,
        };
        let received = {
            let mut slices: [IoSliceMut<'_>; 1 + 2 * READS_MAX] =
                std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let mut used = 0;
            let mut put = |bytes| {
                if let Some(slice) = slices.get_mut(used) {
                    *slice = IoSliceMut::new(bytes);
                    used += 1;
                }
            };
            if let Some(incoming) = &rest {
                let left = incoming.end - incoming.at;
                let slot = self.table.slot(incoming.slot);
                put(slot.destination(incoming.at, left).unwrap_or_default());
            }
            for (offer, header) in expected.offers.iter_mut().zip(&mut *expected.headers) {
                put(header);
                let bytes = offer.buffer.range_mut(offer.from, offer.len);
                put(bytes.unwrap_or_default());
            }
            let slices = slices.get_mut(..used).unwrap_or_default();
            self.stream.read_vectored(slices)
        };
        for offer in &mut expected.offers {
            self.table
                .give_back(offer.index, std::mem::take(&mut offer.buffer));
        }
        let mut left = match received {
            Ok(0) => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(incoming) = &mut rest {
            let more = left.min(incoming.end - incoming.at);
            incoming.at += more;
            left -= more;
            self.receiving = Receiving::Data(*incoming);
            if incoming.at < incoming.end {
                return Ok(Ok(()));
            }
            self.end_of_data(*incoming, sink)?;
        }
        let mut came = 0;
        while left > 0 {
            let Some(frame) = self.as_expected(came, left) else {
                if left >= HEADER {
                    self.expected.missed();
                }
                self.spill(came, left);
                return Ok(Ok(()));
            };
            left -= HEADER;
            let mut incoming = self.on_c2h_data(&frame, self.expected.offers[came].cid, 0)?;
            let more = left.min(frame.data_len);
            incoming.at += more;
            left -= more;
            came += 1;
            if incoming.at < incoming.end {
                self.receiving = Receiving::Data(incoming);
            } else {
                self.end_of_data(incoming, sink)?;
            }
        }
        self.expected.came = came;
        self.expected.next_pause = PAUSE_MIN;
        Ok(Ok(()))
    }

    /// The PDU whose header has come to this place, of which `left` bytes and those behind have arrived: if it is the one
    /// that was expected there, with all data of its read.
    #[inline]
    fn as_expected(&mut self, place: usize, left: usize) -> Option<Frame> {
        let header = self.expected.headers.get(place)?;
        let offer = self.expected.offers.get(place)?;
        if left < HEADER {
            return None;
        }
        let frame = self.framing.frame_after(&mut self.before, header).ok()??;
        let pdu = C2hData::ref_from_bytes(header).ok()?;
        let fits = frame.pdu_type == PduType::C2H_DATA
            && frame.data_offset == HEADER
            && frame.data_len == offer.len
            && pdu.cccid.get() == offer.cid
            && pdu.datao.get() == 0;
        fits.then_some(frame)
    }

    /// Puts `left` bytes, from this place on, into the receive buffer, which is empty and has room for all.
    #[cold]
    fn spill(&mut self, place: usize, mut left: usize) {
        let places = self.expected.offers.iter().zip(&*self.expected.headers);
        for (offer, header) in places.skip(place) {
            let of_header = left.min(HEADER);
            self.rx.put(&header[..of_header]);
            left -= of_header;
            let of_data = left.min(offer.len);
            self.rx.put(self.table.slot(offer.index).source(0, of_data));
            left -= of_data;
        }
        assert_eq!(left, 0, "more was received than there was room for");
    }
}
