//! The bytes of a request and of its answer.

use super::Direction;

/// A command capsule: common header and submission queue entry (NVMe/TCP 1.1, 3.6.2.6).
const CAPSULE_CMD_BYTES: usize = 72;

/// A response capsule: common header and completion queue entry (NVMe/TCP 1.1, 3.6.2.7).
const CAPSULE_RESP_BYTES: usize = 24;

/// The header of a C2HData PDU (NVMe/TCP 1.1, 3.6.2.11).
const C2H_DATA_BYTES: usize = 24;

/// Most data of a write that goes with its command; more is asked for by an R2T (NVMe/TCP 1.1, 3.3.2).
const IN_CAPSULE_MAX: usize = 8192;

/// The header of an R2T PDU (NVMe/TCP 1.1, 3.6.2.10).
const R2T_BYTES: usize = 24;

/// The header of an H2CData PDU (NVMe/TCP 1.1, 3.6.2.9).
const H2C_DATA_BYTES: usize = 24;

/// Bytes of a request and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    pub request: usize,
    pub response: usize,
}

impl Exchange {
    /// What NVMe/TCP would send.
    pub fn new(direction: Direction, payload: usize, capsule_resp: bool) -> Self {
        match direction {
            Direction::Read => Self {
                request: CAPSULE_CMD_BYTES,
                response: C2H_DATA_BYTES
                    + payload
                    + if capsule_resp { CAPSULE_RESP_BYTES } else { 0 },
            },
            Direction::Write if payload <= IN_CAPSULE_MAX => Self {
                request: CAPSULE_CMD_BYTES + payload,
                response: CAPSULE_RESP_BYTES,
            },
            // The bytes of both round trips in one: a floor does not wait for the R2T.
            Direction::Write => Self {
                request: CAPSULE_CMD_BYTES + H2C_DATA_BYTES + payload,
                response: R2T_BYTES + CAPSULE_RESP_BYTES,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_nvme_tcp() {
        let exchange = |direction, capsule_resp| Exchange::new(direction, 4096, capsule_resp);
        assert_eq!(
            exchange(Direction::Read, false),
            Exchange {
                request: 72,
                response: 4120
            }
        );
        assert_eq!(
            exchange(Direction::Read, true),
            Exchange {
                request: 72,
                response: 4144
            }
        );
        assert_eq!(
            exchange(Direction::Write, false),
            Exchange {
                request: 4168,
                response: 24
            }
        );
        assert_eq!(
            Exchange::new(Direction::Write, 131_072, false),
            Exchange {
                request: 131_168,
                response: 48
            }
        );
    }
}
