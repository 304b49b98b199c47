//! Ethernet frames around TCP segments.

use std::net::{IpAddr, SocketAddr};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

const TCP_HEADER: usize = 20;
const PROTOCOL_TCP: u8 = 6;
/// Large enough that no analyser takes a full window for a reason to wait.
const WINDOW: u16 = 0xffff;

/// A TCP segment without options.
pub(super) struct Tcp<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) payload: &'a [u8],
}

impl Tcp<'_> {
    /// The whole frame, with right lengths and checksums.
    pub(super) fn frame(&self) -> Vec<u8> {
        let tcp = self.segment();
        let mut frame = Vec::with_capacity(54 + tcp.len());
        frame.extend_from_slice(&mac(self.to));
        frame.extend_from_slice(&mac(self.from));
        match addresses(self.from, self.to) {
            Addresses::V4(from, to) => {
                frame.extend_from_slice(&[0x08, 0x00]);
                let start = frame.len();
                frame.extend_from_slice(&[0x45, 0]);
                frame.extend_from_slice(&length(20 + tcp.len()).to_be_bytes());
                // No identification: it is never fragmented. 64 hops.
                frame.extend_from_slice(&[0, 0, 0x40, 0, 64, PROTOCOL_TCP, 0, 0]);
                frame.extend_from_slice(&from);
                frame.extend_from_slice(&to);
                let sum = fold(sum(&frame[start..]));
                frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
            }
            Addresses::V6(from, to) => {
                frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend_from_slice(&length(tcp.len()).to_be_bytes());
                frame.extend_from_slice(&[PROTOCOL_TCP, 64]);
                frame.extend_from_slice(&from);
                frame.extend_from_slice(&to);
            }
        }
        frame.extend_from_slice(&tcp);
        frame
    }

    fn segment(&self) -> Vec<u8> {
        let mut tcp = Vec::with_capacity(TCP_HEADER + self.payload.len());
        tcp.extend_from_slice(&self.from.port().to_be_bytes());
        tcp.extend_from_slice(&self.to.port().to_be_bytes());
        tcp.extend_from_slice(&self.seq.to_be_bytes());
        tcp.extend_from_slice(&self.ack.to_be_bytes());
        tcp.extend_from_slice(&[5 << 4, self.flags]);
        tcp.extend_from_slice(&WINDOW.to_be_bytes());
        tcp.extend_from_slice(&[0; 4]);
        tcp.extend_from_slice(self.payload);
        let pseudo_header = match addresses(self.from, self.to) {
            Addresses::V4(from, to) => sum(&from) + sum(&to),
            Addresses::V6(from, to) => sum(&from) + sum(&to),
        };
        let rest = u64::from(PROTOCOL_TCP) + u64::from(length(tcp.len()));
        let checksum = fold(pseudo_header + rest + sum(&tcp));
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        tcp
    }
}

enum Addresses {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

fn addresses(from: SocketAddr, to: SocketAddr) -> Addresses {
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Addresses::V4(from.octets(), to.octets()),
        (from, to) => Addresses::V6(wide(from), wide(to)),
    }
}

/// A locally administered address, one for each socket address, so that both ends of loopback differ.
fn mac(addr: SocketAddr) -> [u8; 6] {
    let [high, low] = addr.port().to_be_bytes();
    [0x02, 0, 0, 0, high, low]
}

#[expect(
    clippy::expect_used,
    reason = "segments are cut to a length that fits; another one is our own mistake"
)]
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("a packet is no longer than 64 KiB")
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words
        .map(|word| match *word {
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            [high] => u64::from(high) << 8,
            _ => 0,
        })
        .sum()
}

/// The complement of the sum in 16 bits, as IP and TCP want it.
fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "16 bits are left")]
    let sum = sum as u16;
    !sum
}
