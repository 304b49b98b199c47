//! The options of the benchmark.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use pollux_multipath::{Fencing, FencingMode, Selector, TransportId, TransportIdError};
use pollux_nvme_tcp::auth::HostAuth;
#[cfg(feature = "auth")]
use pollux_nvme_tcp::auth::{KeyFileError, KeyNames, Keys, Policy, Secret};
use pollux_nvme_tcp::spec::nqn::{HostNqn, Nqn};
use pollux_nvme_tcp::target::HostAccess;
#[cfg(feature = "auth")]
use pollux_nvme_tcp::target::HostKeys;
use pollux_nvme_tcp::tls::HostTls;
#[cfg(feature = "tls")]
use pollux_nvme_tcp::tls::{ConfiguredPsk, HostPsk};

use super::choice::Choice;
use super::steady::{Criterion, POINTS_MIN, Steady};
use crate::cores::CoreList;
use crate::embedded::{EmbeddedNamespace, parse_namespace};
use crate::load::{Distribution, Mix, Process, Rate, Workload};
use crate::results::OutputFormat;
use crate::size::{IoSizes, human_bytes};
use crate::values::{BUFFER_BYTES_MAX, DEPTH_MAX, parse_io_timeout, parse_run_time, parse_seconds};

/// Without keep-alive nothing can be fenced.
pub const KATO_IS_NEEDED: &str = "--kato 0 and fencing contradict each other, and --cqt or the controller wants writes fenced: without keep-alive a lost controller is never known to have ended; allowed are --kato above 0, and --fencing off, at the risk that an old write comes back over a newer one";

/// Options of the benchmark, checked.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// A path: 'trtype:TCP adrfam:IPv4 traddr:ADDR trsvcid:PORT subnqn:NQN', where ADDR may be the name of a host;
    /// repeat it for more paths, and for more subsystems
    #[arg(
        short = 'r',
        long = "transport",
        value_name = "TRID",
        value_parser = parse_transport,
        help_heading = "Paths"
    )]
    pub transports: Vec<TransportId>,

    /// How I/O is spread over the paths
    #[arg(long, value_enum, default_value_t = PolicyName::ActivePassive, help_heading = "Paths")]
    pub policy: PolicyName,

    /// Which path is next under active_active [default: round_robin]
    #[arg(long, value_parser = selector(), help_heading = "Paths")]
    pub selector: Option<Selector>,

    /// I/Os on a path before round_robin moves to the next [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Paths")]
    pub min_io: Option<u32>,

    /// Ask for header digests (CRC32C)
    #[arg(long, short_alias = 'H', help_heading = "Paths")]
    pub hdgst: bool,

    /// Ask for data digests (CRC32C)
    #[arg(long, short_alias = 'I', help_heading = "Paths")]
    pub ddgst: bool,

    /// Refuse a controller that does not grant the digests asked for
    #[arg(long, help_heading = "Paths")]
    pub require_digests: bool,

    /// File with the host's key for DH-HMAC-CHAP, if the controllers want it to authenticate, as the embedded target does then;
    /// with --hostnqn, whose key it is
    #[cfg(feature = "auth")]
    #[arg(long, value_name = "FILE", value_parser = parse_key, help_heading = "Paths")]
    pub dhchap_key: Option<Secret>,

    /// File with the controllers' key, with which they have to prove themselves to the host
    #[cfg(feature = "auth")]
    #[arg(
        long,
        value_name = "FILE",
        value_parser = parse_key,
        requires = "dhchap_key",
        help_heading = "Paths"
    )]
    pub dhchap_ctrlr_key: Option<Secret>,

    /// Have the authentication bring a key for TLS, and connect again with it (secure concatenation)
    #[cfg(feature = "auth")]
    #[arg(
        long,
        requires = "dhchap_key",
        group = "secure",
        help_heading = "Paths"
    )]
    pub secure_concatenation: bool,

    /// File with the host's key for TLS, for listeners that are secure, as those of the embedded target are then; with
    /// --hostnqn, whose key it is
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", value_parser = parse_psk, group = "secure", help_heading = "Paths")]
    pub tls_psk: Option<ConfiguredPsk>,

    /// Have the kernel encrypt where it can (kTLS)
    #[cfg(feature = "tls")]
    #[arg(long, requires = "secure", help_heading = "Paths")]
    pub ktls: bool,

    /// Keep SQ flow control: each read has a completion
    #[arg(long, help_heading = "Paths")]
    pub sq_flow_control: bool,

    /// Namespaces to use: a list (1,3), volumes by name, or all; each has jobs of its own [default: the first one]
    #[arg(long, value_name = "LIST", help_heading = "Paths")]
    pub nsid: Option<Choice>,

    /// Queue pairs of each reactor on each path; -q is shared out among them [default: 1]
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1, hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Paths")]
    pub qpairs: u32,

    /// Host NQN to connect with
    #[arg(long, value_name = "NQN", help_heading = "Paths")]
    pub hostnqn: Option<Nqn>,

    /// Deadline in seconds for all paths to be connected
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_connect_timeout, help_heading = "Paths")]
    pub connect_timeout: Duration,

    /// Time in seconds within which an I/O must have ended, retries and waiting for a path included; after it the I/O
    /// fails [default: none: I/O waits until a path comes back]
    #[arg(long, value_name = "SECONDS", value_parser = parse_io_timeout, help_heading = "Paths")]
    pub io_timeout: Option<Duration>,

    /// Keep-alive timeout in milliseconds; 0 switches keep-alive off
    #[arg(long, short_alias = 'k', value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=3_600_000), help_heading = "Paths")]
    pub kato: u32,

    /// Whether writes that were on the way to a lost controller wait until it can no longer execute them
    #[arg(long, value_parser = fencing_mode(), default_value = "auto", help_heading = "Paths")]
    pub fencing: FencingMode,

    /// Command quiesce time in milliseconds, for controllers that report none; --fencing always needs it
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=3_600_000), help_heading = "Paths")]
    pub cqt: Option<u32>,

    /// I/Os that each job keeps in flight
    #[arg(short = 'q', long, alias = "iodepth", value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEPTH_MAX)), help_heading = "Workload")]
    pub depth: u32,

    /// Jobs that are alike, on each reactor and volume
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024), help_heading = "Workload")]
    pub numjobs: u32,

    /// I/O size (4k), or a uniform mix of a list (512,4k,64k) or of the doublings in a range (512-1m), or sizes with
    /// weights (4k:70,64k:30)
    #[arg(
        short = 'o',
        long = "io-size",
        alias = "bs",
        value_name = "SIZE",
        default_value = "4k",
        help_heading = "Workload"
    )]
    pub io_size: IoSizes,

    /// What to do
    #[arg(short = 'w', long, alias = "rw", value_enum, default_value_t = Workload::RandRead, help_heading = "Workload")]
    pub workload: Workload,

    /// Share of reads in percent, for rw and randrw [default: 50]
    #[arg(short = 'M', long, alias = "rwmixread", value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "Workload")]
    pub read_share: Option<u8>,

    /// Seconds to run; fractions are fine
    #[arg(short = 't', long, alias = "runtime", value_name = "SECONDS", default_value = "10", value_parser = parse_run_time, help_heading = "Workload")]
    pub time: Duration,

    /// Operations by weight, such as read:60,write:30,write_zeroes:5,unmap:4,flush:1; also compare. With rw and randrw,
    /// instead of -M
    #[arg(
        long,
        value_name = "OP:WEIGHT,...",
        conflicts_with = "read_share",
        help_heading = "Workload"
    )]
    pub mix: Option<Mix>,

    /// Where random I/Os go: random, zipf:THETA (few places often, scattered), hot:80/20 (80 % of the I/O to the first
    /// 20 % of the volume) [default: random]
    #[arg(
        long,
        short_alias = 'F',
        alias = "random_distribution",
        value_name = "DISTRIBUTION",
        help_heading = "Workload"
    )]
    pub random_distribution: Option<Distribution>,

    /// Open loop: so many I/Os per second are due whatever became of those before, of all jobs that are alike together;
    /// latency counts from when an I/O was due
    #[arg(long, visible_alias = "rate-iops", alias = "rate_iops", value_name = "IOPS", value_parser = clap::value_parser!(u64).range(1..=100_000_000), help_heading = "Workload")]
    pub rate: Option<u64>,

    /// How I/Os that are due are spread over time
    #[arg(
        long,
        value_enum,
        default_value_t,
        requires = "rate",
        help_heading = "Workload"
    )]
    pub arrivals: Process,

    /// Seconds before the time to run that are left out of the results
    #[arg(long, short_alias = 'a', alias = "ramp_time", value_name = "SECONDS", value_parser = parse_ramp_time, help_heading = "Workload")]
    pub ramp_time: Option<Duration>,

    /// End the run, before its time is up, when its rate is steady: iops:5% if no point of the series is further from the
    /// mean, iops_slope:1% if it rises or falls by no more in a second; also bw and bw_slope
    #[arg(
        long,
        aliases = ["steady", "ss"],
        value_name = "CRITERION",
        conflicts_with = "ios",
        help_heading = "Workload"
    )]
    pub steadystate: Option<Criterion>,

    /// Seconds for which the rate has to be steady [default: 5]
    #[arg(long, aliases = ["steadystate_duration", "ss_dur", "ss-dur"], value_name = "SECONDS", value_parser = parse_run_time, requires = "steadystate", help_heading = "Workload")]
    pub steadystate_duration: Option<Duration>,

    /// Each job stops after this many I/Os, if that comes before the time is up
    #[arg(long, short_alias = 'd', value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Workload")]
    pub ios: Option<u64>,

    /// I/Os start at multiples of this many blocks instead of multiples of their size (7: misaligned and overlapping)
    #[arg(long, value_name = "BLOCKS", value_parser = clap::value_parser!(u64).range(1..=1 << 32), help_heading = "Workload")]
    pub stride: Option<u64>,

    /// Seed of offsets, mixes and patterns [default: a new one each time, printed in the report]
    #[arg(long, value_name = "N", help_heading = "Workload")]
    pub seed: Option<u64>,

    /// Jobs in a file, which run at the same time; options given here hold for all of them. 'pollux-perf bench' runs them
    /// one after the other, and its help says how to write one
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub profile: Option<PathBuf>,

    /// Cores of the I/O reactors: a mask (0x3) or a list (0,2-3) [default: the last core there is]
    #[arg(short = 'm', long, value_name = "CORES", help_heading = "Run")]
    pub cores: Option<CoreList>,

    /// Write the results as one JSON object; - is standard output, and the report then goes to standard error
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<PathBuf>,

    /// What goes to standard output; what is for people then goes to standard error
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        help_heading = "Output"
    )]
    pub output_format: OutputFormat,

    /// Seconds between two points of the series in the results, 0.01 to 1
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval, help_heading = "Output")]
    pub interval: Duration,

    /// Write the latencies of each interval as an HdrHistogram log (V2, nanoseconds)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hdr_log: Option<PathBuf>,

    /// Write the percentiles of all latencies as text, as HdrHistogram prints them (.hgrm, microseconds)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hdr_text: Option<PathBuf>,

    /// Write what the connections carry as packets, for wireshark and tshark. The run is slower for it
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub pcap: Option<PathBuf>,

    /// The embedded target's namespace: memory:SIZE or null:SIZE; repeat it for more
    #[arg(long = "namespace", value_name = "KIND:SIZE", default_value = "memory:64m", value_parser = parse_namespace, conflicts_with = "transports", help_heading = "Run")]
    pub namespaces: Vec<EmbeddedNamespace>,

    /// Leave the embedded target's paths alone
    #[arg(long, help_heading = "Run")]
    pub no_failover: bool,
}

/// `--policy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum PolicyName {
    /// One path at a time
    ActivePassive,
    /// All paths of the best class
    ActiveActive,
}

/// What `--selector` takes: any selector there is, by name.
#[expect(clippy::expect_used, reason = "only these names are possible values")]
fn selector() -> impl TypedValueParser<Value = Selector> {
    let named = |selector: Selector| PossibleValue::new(selector.name()).help(selector.about());
    PossibleValuesParser::new(Selector::ALL.map(named)).map(|name| {
        let mut all = Selector::ALL.into_iter();
        let selector = all.find(|selector| selector.name() == name);
        selector.expect("the name of a selector")
    })
}

/// What `--fencing` takes.
#[expect(clippy::expect_used, reason = "only these names are possible values")]
fn fencing_mode() -> impl TypedValueParser<Value = FencingMode> {
    PossibleValuesParser::new(FencingMode::ALL.map(FencingMode::name)).map(|name| {
        let mut all = FencingMode::ALL.into_iter();
        let mode = all.find(|mode| mode.name() == name);
        mode.expect("the name of a mode")
    })
}

impl RunArgs {
    /// With what the host authenticates.
    #[cfg(feature = "auth")]
    pub fn auth(&self) -> Option<HostAuth> {
        let keys = Keys {
            host: self.dhchap_key.clone()?,
            controller: self.dhchap_ctrlr_key.clone(),
        };
        let mut auth = HostAuth::new(keys, Policy::default());
        auth.concatenate = self.secure_concatenation;
        Some(auth)
    }

    /// Without the feature, with nothing.
    #[cfg(not(feature = "auth"))]
    pub fn auth(&self) -> Option<HostAuth> {
        None
    }

    /// With what connections are made secure.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<HostTls> {
        Some(HostTls::new(self.tls_psk.clone()?))
    }

    /// Without the feature, with nothing.
    #[cfg(not(feature = "tls"))]
    pub fn tls(&self) -> Option<HostTls> {
        None
    }

    /// Whether the kernel is to encrypt.
    pub const fn ktls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.ktls;
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// How the embedded target lets the host in that has these keys; `None`: as any other.
    #[cfg(feature = "auth")]
    pub fn access(
        &self,
        host: &Nqn,
        subsystem: &Nqn,
    ) -> anyhow::Result<Option<(HostNqn, HostAccess)>> {
        let host = HostNqn::new(host.as_str())?;
        let keys = self.auth().map(|auth| HostKeys {
            names: KeyNames {
                dhchap_key: "dhchap_key".into(),
                dhchap_ctrlr_key: auth
                    .keys
                    .controller
                    .as_ref()
                    .map(|_| "dhchap_ctrlr_key".into()),
            },
            keys: auth.keys,
        });
        #[cfg(feature = "tls")]
        let psk = match &self.tls_psk {
            Some(psk) => Some(HostPsk::new("tls_psk", psk, &host, subsystem)?),
            None => None,
        };
        #[cfg(not(feature = "tls"))]
        let (psk, _) = (None, subsystem);
        let has_keys = keys.is_some() || psk.is_some();
        let mut access = HostAccess::default();
        access.keys = keys;
        access.psk = psk;
        Ok(has_keys.then_some((host, access)))
    }

    /// Without the feature, as any other.
    #[cfg(not(feature = "auth"))]
    pub fn access(&self, _: &Nqn, _: &Nqn) -> anyhow::Result<Option<(HostNqn, HostAccess)>> {
        Ok(None)
    }

    /// `--fencing` and `--cqt`.
    pub fn fencing(&self) -> Fencing {
        let cqt = self.cqt.map(|ms| Duration::from_millis(ms.into()));
        let mut fencing = Fencing::default();
        fencing.mode = self.fencing;
        fencing.cqt = cqt;
        fencing
    }

    /// Options that are right by themselves but not together.
    pub fn check(&self) -> Result<(), String> {
        let mixed = matches!(self.workload, Workload::Rw | Workload::RandRw);
        if let (Some(share), false) = (self.read_share, mixed) {
            return Err(format!(
                "read share -M {share} has no meaning for this workload: allowed with -w rw and -w randrw"
            ));
        }
        if let (Some(mix), false) = (&self.mix, mixed) {
            return Err(format!(
                "--mix {mix} has no meaning for this workload: allowed with -w rw and -w randrw"
            ));
        }
        if let (Some(distribution), false) = (self.random_distribution, self.workload.random()) {
            return Err(format!(
                "--random-distribution {distribution} has no meaning for this workload: allowed with randread, randwrite, randrw and verify"
            ));
        }
        if let (Some(ramp), Some(ios)) = (self.ramp_time, self.ios) {
            return Err(format!(
                "--ramp-time {} contradicts --ios {ios}, which counts from the start: allowed is one of them",
                ramp.as_secs_f64()
            ));
        }
        if let Some(steady) = self.steady() {
            let window = steady.duration;
            let least = self.interval * POINTS_MIN;
            if window < least || window > self.time {
                return Err(format!(
                    "--steadystate-duration {} is not possible: allowed are {} (four times --interval) to {} seconds (--time)",
                    window.as_secs_f64(),
                    least.as_secs_f64(),
                    self.time.as_secs_f64()
                ));
            }
        }
        if self.fencing == FencingMode::Always && self.cqt.is_none() {
            return Err("--fencing always needs --cqt MS, the command quiesce time".to_owned());
        }
        if self.fencing().check(self.kato).is_err() {
            return Err(KATO_IS_NEEDED.to_owned());
        }
        if self.require_digests && !(self.hdgst || self.ddgst) {
            return Err(
                "--require-digests requires nothing: allowed with --hdgst and --ddgst".to_owned(),
            );
        }
        if self.selector.is_some() && self.policy != PolicyName::ActiveActive {
            return Err("--selector has no meaning with active_passive: allowed with --policy active_active".to_owned());
        }
        let counts_ios = self.policy == PolicyName::ActiveActive
            && self.selector.unwrap_or_default().min_io().is_some();
        if let (Some(min_io), false) = (self.min_io, counts_ios) {
            return Err(format!(
                "--min-io {min_io} has no meaning here: allowed with --policy active_active and --selector round_robin"
            ));
        }
        if self.depth < self.qpairs {
            return Err(format!(
                "-q {} with -P {} leaves queue pairs without I/O: allowed are at least as many I/Os as queue pairs",
                self.depth, self.qpairs
            ));
        }
        if self.transports.is_empty() {
            self.check_embedded()?;
        }
        self.check_buffers(self.cores.as_ref().map_or(1, |cores| cores.cores().len()))
    }

    /// Whether the buffers of so many times the jobs of one reactor and volume fit.
    pub fn check_buffers(&self, times: usize) -> Result<(), String> {
        let jobs = u64::from(self.numjobs).saturating_mul(times as u64);
        let each = u64::from(self.depth) * u64::from(self.io_size.max());
        let buffers = each.saturating_mul(jobs);
        if buffers > BUFFER_BYTES_MAX {
            return Err(format!(
                "-q {} with -o {} needs {} MiB of buffers: allowed are {} MiB",
                self.depth,
                self.io_size,
                buffers >> 20,
                BUFFER_BYTES_MAX >> 20
            ));
        }
        Ok(())
    }

    /// When the run ends before its time, if it may.
    pub fn steady(&self) -> Option<Steady> {
        const DURATION: Duration = Duration::from_secs(5);
        self.steadystate.map(|criterion| Steady {
            criterion,
            duration: self.steadystate_duration.unwrap_or(DURATION),
            window: None,
            attained: None,
        })
    }

    /// It reads and does nothing else.
    pub fn only_reads(&self) -> bool {
        matches!(self.workload, Workload::Read | Workload::RandRead)
    }

    /// How often I/Os are due, in an open loop.
    pub fn rate(&self) -> Option<Rate> {
        let process = self.arrivals;
        self.rate.map(|iops| Rate { iops, process })
    }

    fn check_embedded(&self) -> Result<(), String> {
        let there = self.namespaces.len();
        let mut nsids = self.nsid.iter().flat_map(Choice::nsids);
        if let Some(nsid) = nsids.find(|nsid| *nsid as usize > there) {
            let there = if there == 1 {
                "namespace 1 only".to_owned()
            } else {
                format!("namespaces 1 to {there}, one for each --namespace")
            };
            return Err(format!(
                "--nsid {nsid} is not there: the embedded target has {there}"
            ));
        }
        let smallest = self.namespaces.iter().map(|namespace| namespace.bytes());
        let bytes = smallest.min().unwrap_or(0);
        if u64::from(self.io_size.max()) > bytes {
            return Err(format!(
                "-o {} is larger than the namespace: allowed are sizes up to {}",
                self.io_size,
                human_bytes(bytes)
            ));
        }
        let is_null =
            |namespace: &EmbeddedNamespace| matches!(namespace, EmbeddedNamespace::Null(_));
        if self.workload == Workload::Verify && self.namespaces.iter().any(is_null) {
            return Err(
                "-w verify cannot work on a null namespace: allowed is --namespace memory:SIZE"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(feature = "tls")]
fn parse_psk(path: &str) -> Result<ConfiguredPsk, KeyFileError> {
    ConfiguredPsk::read(path.as_ref())
}

#[cfg(feature = "auth")]
fn parse_key(path: &str) -> Result<Secret, KeyFileError> {
    Secret::read(path.as_ref())
}

fn parse_transport(text: &str) -> Result<TransportId, String> {
    let transport =
        TransportId::look_up(text).map_err(|error: TransportIdError| error.to_string())?;
    if transport.subnqn.is_discovery() {
        return Err(format!(
            "transport ID '{text}' names no subsystem to do I/O on: subnqn:NQN is needed"
        ));
    }
    Ok(transport)
}

fn parse_connect_timeout(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.1, 3_600.0)
}

fn parse_ramp_time(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.01, 86_400.0)
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    parse_seconds(text, 0.01, 1.0)
}
