//! Finds the end of a JSON value in bytes that arrive piece by piece.

/// Deepest nesting: what the parser takes, and what fits the bits of `kinds`.
const DEPTH_MAX: u32 = 127;

/// What is known about the value after the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// It goes on.
    Partial,
    /// It ends before this offset.
    Complete(usize),
    /// It is no object or array of JSON, whatever follows.
    Bad(&'static str),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Structure,
    String,
    Escape,
}

/// Looks at each byte of a value once. It only has to find the end: whether all in between is right is the parser's
/// business. But what can never become right is reported at once, since its end may never come.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Bytes of the value that were looked at.
    seen: usize,
    depth: u32,
    /// One bit per open bracket, the innermost lowest: 1 for an object.
    kinds: u128,
    place: Place,
}

impl Scanner {
    /// No byte of the value was seen yet.
    pub(super) fn is_new(&self) -> bool {
        self.seen == 0
    }

    /// `value`: the value so far, from its first byte on, which is no white space.
    pub(super) fn advance(&mut self, value: &[u8]) -> Scan {
        while let Some(&byte) = value.get(self.seen) {
            self.seen += 1;
            match (self.place, byte) {
                (Place::String, b'"') => self.place = Place::Structure,
                (Place::String, b'\\') => self.place = Place::Escape,
                (Place::String | Place::Escape, 0..0x20) => {
                    return Scan::Bad("a control character in a string");
                }
                (Place::String, _) => {}
                (Place::Escape, _) => self.place = Place::String,
                (Place::Structure, b'{' | b'[') => {
                    if self.depth == DEPTH_MAX {
                        return Scan::Bad("nested too deep");
                    }
                    self.depth += 1;
                    self.kinds = self.kinds << 1 | u128::from(byte == b'{');
                }
                (Place::Structure, _) if self.depth == 0 => {
                    return Scan::Bad("a request is an object or an array of objects");
                }
                (Place::Structure, b'}' | b']') => {
                    if (self.kinds & 1 == 1) != (byte == b'}') {
                        return Scan::Bad("a bracket closes that was not opened");
                    }
                    self.depth -= 1;
                    self.kinds >>= 1;
                    if self.depth == 0 {
                        return Scan::Complete(self.seen);
                    }
                }
                (Place::Structure, b'"') => self.place = Place::String,
                (Place::Structure, b' ' | b'\t' | b'\r' | b'\n')
                | (Place::Structure, b',' | b':' | b'+' | b'-' | b'.')
                | (Place::Structure, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => {}
                (Place::Structure, _) => return Scan::Bad("a character outside of strings"),
            }
        }
        Scan::Partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Scan {
        Scanner::default().advance(text.as_bytes())
    }

    #[test]
    fn a_value_ends_where_its_outermost_bracket_closes() {
        for text in [
            "{}",
            "[]",
            r#"{"a":"}","b":[{},"\"]"],"c":"\\"}"#,
            "{ \"a\" :\n 1.5e+3 }",
        ] {
            let longer = format!("{text}{{}}");
            assert_eq!(whole(&longer), Scan::Complete(text.len()), "{text}");
            // The same when it comes byte by byte.
            let mut scanner = Scanner::default();
            for end in 0..text.len() {
                assert_eq!(scanner.advance(&text.as_bytes()[..end]), Scan::Partial);
            }
            let end = scanner.advance(text.as_bytes());
            assert_eq!(end, Scan::Complete(text.len()), "{text}");
        }
    }

    #[test]
    fn what_can_never_end_well_is_bad_at_once() {
        for text in [
            "x",
            "1",
            "\"a\"",
            "}",
            "{]",
            "[}",
            "{\"a\n",
            "{\"\\\n",
            "{'",
            "GET / HTTP",
            "{\u{e9}",
        ] {
            assert!(matches!(whole(text), Scan::Bad(_)), "{text}");
        }
        assert_eq!(whole(&"[".repeat(127)), Scan::Partial);
        assert!(matches!(whole(&"[".repeat(128)), Scan::Bad(_)));
        let nested = "[".repeat(127) + &"]".repeat(127);
        assert_eq!(whole(&nested), Scan::Complete(254));
    }
}
