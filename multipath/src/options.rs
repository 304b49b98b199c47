//! How a controller is attached, and what happens when it is lost.

use std::net::IpAddr;
use std::time::Duration;

use pollux_nvme_tcp::auth::HostAuth;
use pollux_nvme_tcp::auth::KeyNames;
use pollux_nvme_tcp::host::{CommandTimeout, Controller, Digests};
use pollux_nvme_tcp::tls::HostTls;

use crate::error::HostError;
use crate::policy::Policy;

/// How a lost controller is dealt with (rule B8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Time between tries to reconnect; the first try is at once.
    pub reconnect_delay: Duration,
    /// Time after which the controller is deleted; `None`: never.
    pub controller_loss_timeout: Option<Duration>,
    /// Time after which I/O no longer waits for it; `None`: not before the controller is deleted.
    pub fast_io_fail_timeout: Option<Duration>,
}

impl Default for Recovery {
    /// A try every second, for ever.
    fn default() -> Self {
        Self {
            reconnect_delay: Duration::from_secs(1),
            controller_loss_timeout: None,
            fast_io_fail_timeout: None,
        }
    }
}

impl Recovery {
    /// Whether I/O waits for a lost controller for a limited time.
    pub(crate) fn is_limited(&self) -> bool {
        self.controller_loss_timeout.is_some() || self.fast_io_fail_timeout.is_some()
    }

    /// Checks the combination.
    ///
    /// # Errors
    /// Says which two values do not go together (rule B8.3).
    pub fn check(&self) -> Result<(), HostError> {
        let loss = self.controller_loss_timeout;
        let fail = |text| Err(HostError::Invalid(text));
        if self.reconnect_delay.is_zero() {
            if loss != Some(Duration::ZERO) {
                return fail("a reconnect delay of 0 needs a controller loss timeout of 0");
            }
            if self.fast_io_fail_timeout.is_some() {
                return fail("a reconnect delay of 0 allows no fast I/O fail timeout");
            }
            return Ok(());
        }
        if loss.is_some_and(|loss| loss < self.reconnect_delay) {
            return fail("the controller loss timeout must be -1 or at least the reconnect delay");
        }
        if let Some(fast) = self.fast_io_fail_timeout {
            if fast < self.reconnect_delay {
                return fail("the fast I/O fail timeout must be at least the reconnect delay");
            }
            if loss.is_some_and(|loss| fast >= loss) {
                return fail("the fast I/O fail timeout must be below the controller loss timeout");
            }
        }
        Ok(())
    }
}

/// What a further controller under a name in use is for (rule B1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// A further path of the volumes.
    #[default]
    Multipath,
    /// An address to turn to when the connected one fails (rule B12).
    Failover,
    /// Nothing: the name must be new.
    Disable,
}

/// Whether writes that a lost controller may still execute wait until it no longer can (rule B14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Fencing {
    /// When they do.
    pub mode: FencingMode,
    /// How long the controller may take for what it has begun when it notices the loss (CQT), where it does not say
    /// so itself; the larger one counts.
    pub cqt: Option<Duration>,
}

/// When writes in doubt are fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FencingMode {
    /// Where the controller reports a CQT above 0 (Identify Controller bytes 387:386) or supports Cross-Controller Reset
    /// (CCRL, byte 1807), or a CQT is set.
    #[default]
    Auto,
    /// With every controller; a CQT must be set.
    Always,
    /// Never: a write is sent again at once, at the risk that its first copy comes back over newer data.
    Off,
}

impl FencingMode {
    /// Every mode there is. Whoever takes one by name takes it from here.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Always, Self::Off];

    /// Its name in options and calls.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Off => "off",
        }
    }
}

const FENCING_NEEDS_KATO: &str = "fencing needs a keep-alive timeout above 0: without one a lost controller is never known to have ended; \
     set one (keep_alive_timeout_ms), or turn fencing off (fencing: off), at the risk that an old write comes back over a newer one";

/// What a controller says of itself that counts for fencing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reported {
    /// Any command counts as a sign of life (CTRATT.TBKAS).
    pub traffic_based: bool,
    /// Command Quiesce Time in ms.
    pub cqt_ms: u16,
    /// Granularity of the keep-alive timeout, in 100 ms: the controller rounds up to it (KAS).
    pub kas: u16,
    /// It supports Cross-Controller Reset.
    pub resets_others: bool,
}

impl Reported {
    /// What this controller says. One that does not say has nothing that outlasts it.
    pub fn by<U>(controller: &Controller<U>) -> Reported {
        Reported {
            traffic_based: controller.counts_traffic(),
            cqt_ms: controller.identify().map_or(0, |id| id.cqt.get()),
            kas: controller.identify().map_or(0, |id| id.kas.get()),
            resets_others: controller.resets_others(),
        }
    }
}

impl Fencing {
    /// Checks the combination with a keep-alive timeout.
    ///
    /// # Errors
    /// Says what does not go together.
    pub fn check(&self, keep_alive_ms: u32) -> Result<(), HostError> {
        if self.mode == FencingMode::Always && self.cqt.is_none() {
            return Err(HostError::Invalid(
                "fencing 'always' needs the command quiesce time (cqt_ms)",
            ));
        }
        self.time(keep_alive_ms, Reported::default()).map(|_| ())
    }

    /// How long a write is fenced after the loss of a controller that says this of itself: 2 x KATO, 3 x with traffic-based
    /// keep-alive, + CQT. `None`: not at all.
    ///
    /// # Errors
    /// Says why it can't be.
    pub(crate) fn time(
        &self,
        keep_alive_ms: u32,
        reported: Reported,
    ) -> Result<Option<Duration>, HostError> {
        let cqt = self.cqt.unwrap_or_default();
        let cqt = cqt.max(Duration::from_millis(reported.cqt_ms.into()));
        let on = match self.mode {
            FencingMode::Auto => !cqt.is_zero() || reported.resets_others,
            FencingMode::Always => true,
            FencingMode::Off => false,
        };
        if !on {
            return Ok(None);
        }
        if keep_alive_ms == 0 {
            return Err(HostError::Invalid(FENCING_NEEDS_KATO));
        }
        let times = if reported.traffic_based { 3 } else { 2 };
        let unit = (u64::from(reported.kas) * 100).max(1);
        let kato = Duration::from_millis(u64::from(keep_alive_ms).next_multiple_of(unit));
        Ok(Some(kato * times + cqt))
    }
}

/// How to connect to a controller. More is added as more can be said: begin with the default.
///
/// ```no_run
/// # use std::time::Duration;
/// # use pollux_multipath::{AttachRequest, Host, Policy, Selector};
/// # fn example(host: &Host) -> Result<(), Box<dyn std::error::Error>> {
/// let path = "traddr:127.0.0.1 trsvcid:4420 subnqn:nqn.2014-08.org.example:disk1";
/// let mut request = AttachRequest::new("disk0", path.parse()?);
/// request.options.policy = Policy::ActiveActive(Selector::QueueDepth);
/// request.options.recovery.fast_io_fail_timeout = Some(Duration::from_secs(30));
/// host.attach(request)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttachOptions {
    /// What to do if the name is in use.
    pub mode: Mode,
    /// Digests to ask for.
    pub digests: Digests,
    /// Refuse a controller that does not grant them.
    pub require_digests: bool,
    /// Keep SQ flow control; without it, controllers may leave out the completion of reads that succeed.
    pub sq_flow_control: bool,
    /// Keep-alive timeout in ms; 0 turns keep-alive off.
    pub keep_alive_ms: u32,
    /// Entries of each I/O queue; 2 to 1024.
    pub queue_size: u16,
    /// I/O queue pairs that the controller is asked for at most; `None`: as many as are needed, one for each I/O reactor
    /// ([`Host::io_reactors`](crate::Host::io_reactors)). A limit below that refuses the attach: a reactor without a queue
    /// pair would have no path.
    pub max_io_queues: Option<u32>,
    /// Time until the whole attach must be done.
    pub connect_timeout: Duration,
    /// Time until TCP must be connected, if that is to be less; of the I/O queue pairs as well.
    pub tcp_connect_timeout: Option<Duration>,
    /// Time within which an I/O command must be answered; `None`: no limit (rule B9.1).
    pub io_timeout: Option<CommandTimeout>,
    /// The same of admin commands. There is no aborting them: that is a reset.
    pub admin_timeout: Option<CommandTimeout>,
    /// Time after which an I/O queue pair that says nothing, although commands are outstanding, is probed; if
    /// the probe is not answered for half as long either, the controller is reset (rule B9.4). `None`: never.
    pub silence_timeout: Option<Duration>,
    /// Whether writes that a lost controller may still execute wait (rule B14).
    pub fencing: Fencing,
    /// What to do when the controller is lost.
    pub recovery: Recovery,
    /// Policy of the volumes; must be the same for all controllers of a name.
    pub policy: Policy,
    /// Under a name in use, take the policy from there instead of comparing.
    pub adopt_policy: bool,
    /// Local address to connect from, if it matters.
    pub local: Option<IpAddr>,
    /// With what to authenticate (DH-HMAC-CHAP), on every queue.
    pub auth: Option<HostAuth>,
    /// With what to make every connection secure; without it, none is.
    pub tls: Option<HostTls>,
    /// Have the kernel encrypt the connections that are secure, where it can (kTLS).
    pub ktls: bool,
    /// What that key is called, if it has a name.
    pub psk_name: Option<String>,
    /// How often all queues authenticate again; `None`: only when asked to.
    pub authentication_interval: Option<Duration>,
    /// What those keys are called, if they have names: all that a saved configuration has of them.
    pub key_names: Option<KeyNames>,
}

impl Default for AttachOptions {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            digests: Digests::default(),
            require_digests: false,
            sq_flow_control: false,
            keep_alive_ms: 10_000,
            queue_size: 128,
            max_io_queues: None,
            connect_timeout: Duration::from_secs(10),
            tcp_connect_timeout: None,
            io_timeout: None,
            admin_timeout: None,
            silence_timeout: Some(Duration::from_secs(5)),
            fencing: Fencing::default(),
            recovery: Recovery::default(),
            policy: Policy::default(),
            adopt_policy: false,
            local: None,
            auth: None,
            tls: None,
            ktls: false,
            psk_name: None,
            authentication_interval: None,
            key_names: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B14.3, B14.4: when writes are fenced, and for how long.
    #[test]
    fn the_fence_time_is_that_of_the_specification() {
        let ms = Duration::from_millis;
        let time = |mode, cqt: Option<u64>, kato, traffic, reported| {
            let cqt = cqt.map(ms);
            let reported = Reported {
                traffic_based: traffic,
                cqt_ms: reported,
                ..Reported::default()
            };
            Fencing { mode, cqt }.time(kato, reported)
        };
        use FencingMode::{Always, Auto, Off};
        assert_eq!(time(Auto, None, 4000, false, 0), Ok(None));
        assert_eq!(time(Auto, None, 0, false, 0), Ok(None));
        assert_eq!(time(Auto, None, 4000, false, 30), Ok(Some(ms(8030))));
        assert_eq!(time(Auto, None, 4000, true, 30), Ok(Some(ms(12_030))));
        assert_eq!(time(Auto, Some(50), 4000, false, 0), Ok(Some(ms(8050))));
        assert_eq!(time(Auto, Some(50), 4000, false, 70), Ok(Some(ms(8070))));
        assert_eq!(time(Always, Some(0), 1000, false, 0), Ok(Some(ms(2000))));
        assert_eq!(time(Off, Some(50), 4000, false, 70), Ok(None));
        // What supports Cross-Controller Reset is fenced as well, and a controller that counts in seconds rounds up.
        let reported = Reported {
            kas: 10,
            resets_others: true,
            ..Reported::default()
        };
        let auto = Fencing::default();
        assert_eq!(auto.time(4000, reported), Ok(Some(ms(8000))));
        assert_eq!(auto.time(1100, reported), Ok(Some(ms(4000))));
        assert!(auto.time(0, reported).is_err());
        for mode in [Auto, Always] {
            let text = time(mode, Some(50), 0, false, 0).unwrap_err().to_string();
            assert!(text.contains("keep-alive timeout"), "{text}");
        }
        let unset = Fencing {
            mode: Always,
            cqt: None,
        };
        let text = unset.check(4000).unwrap_err().to_string();
        assert!(text.contains("cqt_ms"), "{text}");
    }

    /// B8.3
    #[test]
    fn invalid_combinations_of_timeouts_are_refused() {
        let s = Duration::from_secs;
        let check = |delay, loss: Option<u64>, fast: Option<u64>| {
            Recovery {
                reconnect_delay: s(delay),
                controller_loss_timeout: loss.map(s),
                fast_io_fail_timeout: fast.map(s),
            }
            .check()
            .is_ok()
        };
        assert!(check(0, Some(0), None));
        assert!(!check(0, Some(5), None));
        assert!(!check(0, None, None));
        assert!(!check(0, Some(0), Some(1)));
        assert!(check(2, None, None));
        assert!(check(2, Some(2), None));
        assert!(!check(2, Some(1), None));
        assert!(!check(2, Some(0), None));
        assert!(check(2, None, Some(2)));
        assert!(!check(2, None, Some(1)));
        assert!(check(2, Some(5), Some(4)));
        assert!(!check(2, Some(5), Some(5)));
    }
}
