//! How busy a stream is: one that is asked in every turn does without edges.

use super::Stream;

/// Times that a stream had something when it was asked, before it does without edges. To be told of bytes that are asked
/// for in every turn anyway costs each side 0.3 us, 4 % of a 4 KiB read at depth 1; to begin and to end it are two calls.
const HOT: u32 = 1000;

/// How often a stream had something since it last wanted edges. Whoever asks it in every turn notes what it finds here, and
/// has it cool when it does so no more, and before its reactor sleeps
/// ([`Service::before_sleep`](crate::Service::before_sleep)).
#[derive(Debug, Default)]
pub struct Heat(u32);

impl Heat {
    /// The stream had something. Once it is hot it is [muted](Stream::mute).
    #[inline]
    pub fn found(&mut self, stream: &mut Stream) {
        self.0 = self.0.saturating_add(1);
        if self.0 >= HOT {
            stream.mute();
        }
    }

    /// The stream is to tell of edges again.
    #[inline]
    pub fn cool(&mut self, stream: &mut Stream) {
        if self.0 >= HOT {
            stream.unmute();
        }
        self.0 = 0;
    }
}
