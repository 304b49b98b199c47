//! Framing, of one PDU after the other. The first byte says who receives and what was agreed.

use pollux_nvme_tcp::pdu::{Before, Receiver, RxFraming};

const MAX_PLEN: u32 = 1 << 16;

pub fn run(bytes: &[u8]) {
    let Some((&how, mut rest)) = bytes.split_first() else {
        return;
    };
    let bit = |at: u8| how >> at & 1 == 1;
    let framing = RxFraming {
        receiver: if bit(0) {
            Receiver::Host
        } else {
            Receiver::Controller
        },
        hdgst: bit(1),
        ddgst: bit(2),
        initialized: bit(3),
        pda: how >> 4 & 7,
        max_plen: MAX_PLEN,
    };
    let mut before = Before::default();
    loop {
        let framed = framing.frame(rest);
        // What the PDU before was like changes nothing.
        assert_eq!(framing.frame_after(&mut before, rest), framed);
        let Ok(Some(frame)) = framed else {
            return;
        };
        let ddgst = usize::from(frame.ddgst) * 4;
        assert!(frame.header_len >= 8 && frame.header_len <= rest.len());
        assert!(frame.header_len <= frame.total_len);
        if frame.data_len > 0 {
            assert!(frame.data_offset >= frame.header_len);
            assert_eq!(frame.data_offset + frame.data_len + ddgst, frame.total_len);
        }
        // What is told of the first bytes of a PDU is what is told of more of them, or nothing yet.
        for len in 0..frame.header_len + 4 {
            let head = rest.get(..len).unwrap_or(rest);
            if let Some(early) = framing.frame(head).unwrap() {
                assert_eq!(early, frame);
            }
        }
        let Some(next) = rest.get(frame.total_len..) else {
            return;
        };
        rest = next;
    }
}
