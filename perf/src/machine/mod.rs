//! Facts about the machine that a number means nothing without.

mod neighbour;
mod pressure;

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

pub use self::neighbour::shares_cores;
pub use self::pressure::Pressure;

/// Where a result was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Model name as the processor gives it.
    pub cpu: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Cores this process may use.
    pub cores: Vec<usize>,
    /// What the kernel reads the time from.
    pub clocksource: String,
    /// Its name on the network.
    pub hostname: String,
    /// How the kernel chooses the clock rate of the first core; `unknown` where nothing is said, as in most guests.
    pub governor: String,
    /// How TCP decides how much may be on the way.
    pub tcp_congestion_control: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// Reads the facts; what cannot be read is `unknown`.
    pub fn read(cores: Vec<usize>) -> Self {
        Self {
            cpu: fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| cpu_model(&text))
                .unwrap_or_else(unknown),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            cores,
            hostname: first_line("/proc/sys/kernel/hostname"),
            tcp_congestion_control: first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
            governor: first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_bytes: fs::read_to_string("/proc/meminfo")
                .ok()
                .and_then(|text| memory_bytes(&text))
                .unwrap_or(0),
            clocksource: first_line(
                "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            ),
        }
    }

    /// As the JSON objects of all reports have it.
    pub fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "kernel": self.kernel,
            "clocksource": self.clocksource,
            "cores": self.cores,
            "hostname": self.hostname,
            "governor": self.governor,
            "tcp_congestion_control": self.tcp_congestion_control,
            "memory_bytes": self.memory_bytes,
        })
    }

    /// What makes a number from this machine doubtful, for the reader of the report.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if !matches!(
            self.clocksource.as_str(),
            "tsc" | "arch_sys_counter" | "unknown"
        ) {
            doubts.push(format!(
                "the kernel's clock source is {}, which is slow to read: latencies include it",
                self.clocksource
            ));
        }
        if !matches!(self.governor.as_str(), "performance" | "unknown") {
            doubts.push(format!(
                "the governor is {}: the clock rate of the cores follows the load",
                self.governor
            ));
        }
        doubts
    }
}

/// The main thread and the kernel alone interrupt some 20 times a second; a busy neighbour does so 100 times and more.
const PREEMPTIONS_PER_S_MAX: u64 = 50;

/// How often the kernel took the core from a thread of this process that wanted to go on, other than the main one.
pub fn preemptions() -> u64 {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let main = std::process::id().to_string();
    tasks
        .flatten()
        .filter(|task| task.file_name().to_str() != Some(&main))
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .filter_map(|status| involuntary_switches(&status))
        .sum()
}

fn involuntary_switches(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

/// Says so if other programs took the cores often.
pub fn interrupted(preemptions: u64, run: Duration) -> Option<String> {
    let seconds = run.as_secs().max(1);
    (preemptions > PREEMPTIONS_PER_S_MAX * seconds).then(|| {
        format!(
            "other programs took the cores {preemptions} times: pauses of milliseconds and high percentiles are theirs"
        )
    })
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_name_is_found() {
        let text = "processor\t: 0\nmodel name\t: Example CPU @ 3 GHz\nflags\t: a b\n";
        assert_eq!(cpu_model(text).as_deref(), Some("Example CPU @ 3 GHz"));
        assert_eq!(cpu_model("processor: 0\n"), None);
    }

    #[test]
    fn a_slow_clock_is_a_doubt() {
        let mut machine = Machine {
            clocksource: "tsc".to_owned(),
            governor: "performance".to_owned(),
            ..Machine::default()
        };
        assert!(machine.doubts().is_empty());
        machine.clocksource = "hpet".to_owned();
        assert!(machine.doubts()[0].contains("hpet"));
        machine.governor = "powersave".to_owned();
        assert!(machine.doubts()[1].contains("powersave"));
        assert_eq!(
            memory_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16_384)
        );
    }

    #[test]
    fn interruptions_are_counted_and_said() {
        let status =
            "Name:\treactor-0\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t41\n";
        assert_eq!(involuntary_switches(status), Some(41));
        assert_eq!(involuntary_switches("Name:\tx\n"), None);
        assert_eq!(interrupted(500, Duration::from_secs(10)), None);
        let text = interrupted(501, Duration::from_secs(10)).unwrap();
        assert!(text.contains("501 times"), "{text}");
    }
}
