//! How keys are written down, for authentication and for TLS alike: `PREFIX:HH:BASE64:`, where HH names a hash function and
//! BASE64 holds the key and its CRC-32 (NVMe Base 2.1, 8.3.5.5.7; TCP Transport 1.1, 3.6.1.5).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

/// Length of the CRC-32 behind a key.
pub(crate) const CRC_LEN: usize = 4;
/// Longer than any key that is written down; what is longer is not looked at.
const TEXT_MAX: usize = 256;

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Not of that form at all.
    Form,
    /// The third field is not base64.
    Base64,
    /// So many bytes, which is none of the lengths that are allowed.
    Length(usize),
    /// Damaged.
    Crc,
}

/// The number of the hash function and the key of a text that begins with this prefix, and one of `lengths` long.
pub(crate) fn decode(
    prefix: &str,
    text: &str,
    lengths: &[usize],
) -> Result<(u8, Zeroizing<Vec<u8>>), Flaw> {
    if text.len() > TEXT_MAX {
        return Err(Flaw::Form);
    }
    let rest = text.trim().strip_prefix(prefix).ok_or(Flaw::Form)?;
    let rest = rest.strip_prefix(':').ok_or(Flaw::Form)?;
    let (hash, rest) = rest.split_once(':').ok_or(Flaw::Form)?;
    let encoded = rest.strip_suffix(':').ok_or(Flaw::Form)?;
    if hash.len() != 2 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Flaw::Form);
    }
    let hash = u8::from_str_radix(hash, 16).map_err(|_| Flaw::Form)?;
    let bytes = BASE64.decode(encoded).map_err(|_| Flaw::Base64)?;
    let bytes = Zeroizing::new(bytes);
    let length = Flaw::Length(bytes.len());
    let (key, crc) = bytes.split_last_chunk::<CRC_LEN>().ok_or(length)?;
    if !lengths.contains(&key.len()) {
        return Err(length);
    }
    if crc32(key).to_le_bytes() != *crc {
        return Err(Flaw::Crc);
    }
    Ok((hash, Zeroizing::new(key.to_vec())))
}

/// The text of a key. It is the key: for files with mode 0600, not for logs.
pub(crate) fn encode(prefix: &str, hash: u8, key: &[u8]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(key.len() + CRC_LEN));
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&crc32(key).to_le_bytes());
    let encoded = Zeroizing::new(BASE64.encode(&*bytes));
    Zeroizing::new(format!("{prefix}:{hash:02}:{}:", encoded.as_str()))
}

/// CRC-32 as of ISO-HDLC, Ethernet and zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            // The same work for every bit: the crc is of a secret.
            crc >> 1 ^ 0xEDB8_8320 & (crc & 1).wrapping_neg()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
