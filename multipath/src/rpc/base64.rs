//! Base64 with the URL-safe alphabet (RFC 4648, section 5), padded.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Bytes as text.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let index = (word >> shift & 63) as usize;
            text.push(match place <= group.len() {
                true => char::from(ALPHABET[index]),
                false => '=',
            });
        }
    }
    text
}

/// Text as bytes; also takes the other alphabet (section 4). `None`: it is no such text.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    if bare.len() % 4 == 1 || (text.len() != bare.len() && !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(bare.len() / 4 * 3 + 2);
    for group in bare.as_bytes().chunks(4) {
        let mut word: u32 = 0;
        for &c in group {
            word = word << 6 | value(c)?;
        }
        word <<= 6 * (4 - group.len());
        let [_, a, b, c] = word.to_be_bytes();
        bytes.extend_from_slice(&[a, b, c][..group.len() - 1]);
    }
    Some(bytes)
}

fn value(c: u8) -> Option<u32> {
    let c = match c {
        b'+' => b'-',
        b'/' => b'_',
        c => c,
    };
    let index = ALPHABET.iter().position(|&a| a == c)?;
    u32::try_from(index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10, and the letters in which the alphabets differ.
    #[test]
    fn texts_are_those_of_the_rfc() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"fooba", "Zm9vYmE="),
            (b"foobar", "Zm9vYmFy"),
            (b"\xfb\xff\xfe", "-__-"),
        ] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text).as_deref(), Some(bytes));
            assert_eq!(decode(text.trim_end_matches('=')).as_deref(), Some(bytes));
        }
        assert_eq!(decode("+//+").as_deref(), Some(&b"\xfb\xff\xfe"[..]));
        for bad in ["Z", "Zm9vY", "Zm 8", "Zg=", "=", "Z=g="] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
