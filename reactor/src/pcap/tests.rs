//! Files are parsed back: headers, continuity, bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64 as Serial;

use super::*;

fn scratch() -> PathBuf {
    static NEXT: Serial = Serial::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("pollux-pcap-{}-{n}", std::process::id()))
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn ne32(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn ones_sum(bytes: &[u8]) -> u32 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[derive(Debug, PartialEq)]
struct Packet {
    ports: (u16, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    payload: Vec<u8>,
}

/// The packets of a file; every length and checksum is looked at.
fn parse(file: &[u8]) -> Vec<Packet> {
    assert_eq!(ne32(file, 0), 0xa1b2_3c4d);
    assert_eq!(ne32(file, 20), 1);
    let snaplen = ne32(file, 16);
    let mut packets = Vec::new();
    let mut at = 24;
    let mut last_time = (0, 0);
    while at < file.len() {
        let time = (ne32(file, at), ne32(file, at + 4));
        assert!(time >= last_time && time.1 < 1_000_000_000, "{time:?}");
        last_time = time;
        let len = ne32(file, at + 8);
        assert!(len == ne32(file, at + 12) && len <= snaplen);
        let frame = &file[at + 16..at + 16 + len as usize];
        at += 16 + len as usize;
        let (tcp, pseudo) = match be16(frame, 12) {
            0x0800 => {
                let ip = &frame[14..];
                assert_eq!((ip[0], ip[9]), (0x45, 6));
                assert_eq!(usize::from(be16(ip, 2)), ip.len());
                assert_eq!(ones_sum(&ip[..20]), 0xffff, "IP checksum");
                (&ip[20..], ones_sum(&ip[12..20]))
            }
            0x86dd => {
                let ip = &frame[14..];
                assert_eq!((ip[0] >> 4, ip[6]), (6, 6));
                assert_eq!(usize::from(be16(ip, 4)), ip.len() - 40);
                (&ip[40..], ones_sum(&ip[8..40]))
            }
            other => panic!("ethertype {other:#x}"),
        };
        let sum = pseudo + 6 + u32::try_from(tcp.len()).unwrap() + ones_sum(tcp);
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "TCP checksum");
        packets.push(Packet {
            ports: (be16(tcp, 0), be16(tcp, 2)),
            seq: be32(tcp, 4),
            ack: be32(tcp, 8),
            flags: tcp[13],
            payload: tcp[20..].to_vec(),
        });
    }
    packets
}

/// The bytes of each direction, after checking that each packet goes on where the one before has ended.
fn streams(packets: &[Packet]) -> BTreeMap<(u16, u16), Vec<u8>> {
    let mut next: BTreeMap<(u16, u16), u32> = BTreeMap::new();
    let mut bytes: BTreeMap<(u16, u16), Vec<u8>> = BTreeMap::new();
    for packet in packets {
        let reverse = (packet.ports.1, packet.ports.0);
        let consumed = u32::from(packet.flags & 0x03 != 0);
        if packet.flags & 0x02 != 0 {
            assert!(!next.contains_key(&packet.ports), "a second SYN");
        } else {
            assert_eq!(next.get(&packet.ports), Some(&packet.seq), "{packet:?}");
        }
        if packet.flags & 0x10 != 0 && packet.flags & 0x01 == 0 {
            assert_eq!(next.get(&reverse), Some(&packet.ack), "{packet:?}");
        }
        let len = u32::try_from(packet.payload.len()).unwrap();
        next.insert(
            packet.ports,
            packet.seq.wrapping_add(len).wrapping_add(consumed),
        );
        let stream = bytes.entry(packet.ports).or_default();
        stream.extend_from_slice(&packet.payload);
    }
    bytes
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

struct Feed<'a> {
    capture: &'a Capture,
    flow: u64,
    sent: u64,
    received: u64,
}

impl Feed<'_> {
    fn open(&self, opened: Opened, local: SocketAddr, peer: SocketAddr) -> Arc<AtomicBool> {
        let skip = Arc::new(AtomicBool::new(false));
        self.tell(What::Open {
            opened,
            local,
            peer,
            skip: Arc::clone(&skip),
        });
        skip
    }

    fn tell(&self, what: What) {
        let event = Event {
            flow: self.flow,
            at: Time::read_clock(),
            what,
        };
        self.capture.shared.events.send(event).unwrap();
    }

    fn put(&mut self, is_sent: bool, bytes: &[u8]) {
        let (offset, acknowledged) = match is_sent {
            true => (self.sent, self.received),
            false => (self.received, self.sent),
        };
        self.tell(What::Segment(Segment {
            is_sent,
            offset,
            acknowledged,
            content: Content::Bytes(bytes.to_vec()),
        }));
        match is_sent {
            true => self.sent += bytes.len() as u64,
            false => self.received += bytes.len() as u64,
        }
    }
}

#[test]
fn both_ends_of_one_connection_are_written_once() {
    for [one, two] in [
        ["127.0.0.1:1000", "127.0.0.1:4420"],
        ["[::1]:1000", "[::1]:4420"],
    ] {
        let path = scratch();
        let capture = Capture::create(&path).unwrap();
        let mut host = Feed {
            capture: &capture,
            flow: 0,
            sent: 0,
            received: 0,
        };
        let mut target = Feed { flow: 1, ..host };
        host.open(Opened::Connected, addr(one), addr(two));
        let skip = target.open(Opened::Accepted, addr(two), addr(one));
        let question = vec![7; SEGMENT];
        host.put(true, &question);
        target.put(false, &question);
        target.put(true, b"odd");
        host.put(false, b"odd");
        host.tell(What::Gone);
        target.tell(What::Gone);
        // The accepting end of a connection that is over comes late.
        let mut late = Feed { flow: 2, ..target };
        let late_skip = late.open(Opened::Accepted, addr(two), addr(one));
        late.put(false, &question);
        let captured = capture.finish();
        assert!(skip.load(Ordering::Relaxed) && late_skip.load(Ordering::Relaxed));
        let packets = parse(&std::fs::read(&path).unwrap());
        assert_eq!(packets.len(), 5);
        assert_eq!((captured.packets, captured.left_out), (5, 0));
        assert!(captured.error.is_none());
        let streams = streams(&packets);
        assert_eq!(streams[&(1000, 4420)], question);
        assert_eq!(streams[&(4420, 1000)], b"odd");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_written_is_said_and_counted() {
    let capture = Capture::create("/dev/full".as_ref());
    // The header does not fit either, which is said at once.
    assert_eq!(capture.unwrap_err().kind(), io::ErrorKind::StorageFull);
}

#[test]
fn sequence_numbers_wrap_around() {
    assert_eq!(writer::place(u32::MAX, 2), 1);
    assert_eq!(writer::place(5, 1 << 32 | 7), 12);
}
