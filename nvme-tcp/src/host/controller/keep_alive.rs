//! Keep Alive (NVMe Base 2.1, 3.9; rules B9.2 and B9.5).

use std::time::Duration;

use pollux_reactor::Time;

/// Signs of life that are asked of a controller.
#[derive(Debug)]
pub(super) struct KeepAlive {
    /// KATO; zero: nothing is sent.
    timeout: Duration,
    /// When the next is sent, while none is outstanding.
    next: Option<Time>,
    sent: Option<Time>,
    /// The controller knows the command. Where it does not, its status register is read instead.
    supported: bool,
}

/// What is to be done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Send the command.
    Send,
    /// Read the status register: the controller knows no Keep Alive.
    ReadStatus,
    /// The last was not answered in time.
    Missed,
}

impl KeepAlive {
    /// With a keep-alive timeout in milliseconds.
    pub fn new(kato_ms: u32) -> Self {
        Self {
            timeout: Duration::from_millis(kato_ms.into()),
            next: None,
            sent: None,
            supported: true,
        }
    }

    /// The admin queue is connected.
    pub fn start(&mut self, now: Time) {
        if !self.timeout.is_zero() {
            self.next = Some(now + self.timeout / 2);
        }
    }

    /// Another command was answered, and counts.
    pub fn put_off(&mut self, now: Time) {
        if self.next.is_some() {
            self.next = Some(now + self.timeout / 2);
        }
    }

    /// The controller does not know the command. True if that is news.
    pub fn is_unsupported(&mut self, now: Time) -> bool {
        self.answered(now);
        std::mem::take(&mut self.supported)
    }

    pub fn deadline(&self) -> Option<Time> {
        match self.sent {
            Some(sent) => Some(sent + self.timeout),
            None => self.next,
        }
    }

    pub fn due(&mut self, now: Time) -> Due {
        if self.deadline().is_none_or(|at| now < at) {
            Due::Nothing
        } else if self.sent.is_some() {
            Due::Missed
        } else if self.supported {
            Due::Send
        } else {
            self.put_off(now);
            Due::ReadStatus
        }
    }

    pub fn sent(&mut self, now: Time) {
        self.sent = Some(now);
    }

    /// Keep Alive was answered.
    pub fn answered(&mut self, now: Time) {
        self.sent = None;
        self.start(now);
    }

    /// Keep Alive was answered with a status that may pass: the controller lives but has not counted it.
    pub fn answered_in_vain(&mut self, now: Time) {
        self.sent = None;
        self.next = Some(now + self.timeout / 8);
    }
}
