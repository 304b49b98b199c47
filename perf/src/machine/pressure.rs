//! What takes processor time from a run without a trace in it: limits of control groups, hypervisors, heat.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// The kernel counts time of processors in hundredths of a second, whatever its own ticks are.
const TICKS_PER_S: u64 = 100;
/// Share of the time of a run; less is what any guest sees.
const STOLEN_MAX: f64 = 0.01;

/// Counters at one moment, of some cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Periods in which this process, or a group that it is in, had used up its share of processor time.
    throttled: u64,
    /// Hundredths of a second that the hypervisor gave to others while there was something to do.
    stolen: u64,
    /// Times that a core was slowed down because it was hot.
    hot: u64,
    cores: u64,
}

impl Pressure {
    /// Reads the counters; what is not there is 0.
    pub fn read(cores: &[usize]) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let hot = cores.iter().map(|core| {
            let folder = format!("/sys/devices/system/cpu/cpu{core}/thermal_throttle");
            let counts = ["core_throttle_count", "package_throttle_count"];
            let counts = counts.map(|name| text(&format!("{folder}/{name}")));
            counts
                .iter()
                .filter_map(|count| count.trim().parse::<u64>().ok())
                .sum::<u64>()
        });
        Self {
            throttled: throttled(Path::new("/sys/fs/cgroup"), &text("/proc/self/cgroup")),
            stolen: stolen(&text("/proc/stat"), cores),
            hot: hot.sum(),
            cores: cores.len() as u64,
        }
    }

    /// What has happened since an earlier moment, in words.
    pub fn doubts_since(&self, earlier: &Self, run: Duration) -> Vec<String> {
        let mut doubts = Vec::new();
        let throttled = self.throttled.saturating_sub(earlier.throttled);
        if throttled > 0 {
            doubts.push(format!(
                "the control group of this process had used up its processor time {throttled} times: pauses are its limit's (cpu.max)"
            ));
        }
        let stolen = self.stolen.saturating_sub(earlier.stolen) as f64 / TICKS_PER_S as f64;
        let share = stolen / (run.as_secs_f64() * self.cores as f64).max(1e-9);
        if share > STOLEN_MAX {
            doubts.push(format!(
                "the hypervisor gave {:.0} % of the cores' time to others: this machine is shared",
                share * 100.0
            ));
        }
        if self.hot > earlier.hot {
            doubts.push(format!(
                "the cores were slowed down {} times because they were hot",
                self.hot - earlier.hot
            ));
        }
        doubts
    }
}

/// `nr_throttled` of a control group and of all that it is in. `groups` is `/proc/self/cgroup`.
fn throttled(root: &Path, groups: &str) -> u64 {
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return 0;
    };
    let folder = root.join(own);
    let folders = folder.ancestors().take_while(|path| path.starts_with(root));
    folders
        .filter_map(|folder| fs::read_to_string(folder.join("cpu.stat")).ok())
        .filter_map(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("nr_throttled "))?;
            line.trim().parse::<u64>().ok()
        })
        .sum()
}

/// The eighth number of the lines of `/proc/stat` that are of the cores.
fn stolen(stat: &str, cores: &[usize]) -> u64 {
    let of_core = |line: &str| {
        let mut words = line.split_whitespace();
        let core = words.next()?.strip_prefix("cpu")?.parse().ok()?;
        let stolen = words.nth(7)?.parse::<u64>().ok()?;
        cores.contains(&core).then_some(stolen)
    };
    stat.lines().filter_map(of_core).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_others_had_is_counted() {
        let stat = "cpu  1 1 1 1 1 1 1 99 0 0\ncpu0 1 1 1 1 1 1 1 20 0 0\ncpu1 1 1 1 1 1 1 1 30 0 0\ncpu10 1 1 1 1 1 1 1 9 0 0\nintr 5\n";
        assert_eq!(stolen(stat, &[1, 10]), 39);
        assert_eq!(stolen("", &[0]), 0);
    }

    #[test]
    fn limits_of_all_groups_around_are_counted() {
        let root = std::env::temp_dir().join(format!("pollux-groups-{}", std::process::id()));
        let inner = root.join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(
            root.join("a/cpu.stat"),
            "usage_usec 9\nnr_periods 5\nnr_throttled 3\n",
        )
        .unwrap();
        fs::write(inner.join("cpu.stat"), "nr_throttled 4\n").unwrap();
        assert_eq!(throttled(&root, "1:name=x:/y\n0::/a/b\n"), 7);
        assert_eq!(throttled(&root, "0::/a\n"), 3);
        assert_eq!(throttled(&root, ""), 0);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_happened_meanwhile_is_said() {
        let earlier = Pressure {
            throttled: 1,
            stolen: 100,
            hot: 2,
            cores: 2,
        };
        let run = Duration::from_secs(10);
        assert_eq!(earlier.doubts_since(&earlier, run), Vec::<String>::new());
        let later = Pressure {
            throttled: 5,
            stolen: 300,
            hot: 3,
            cores: 2,
        };
        let doubts = later.doubts_since(&earlier, run);
        for (doubt, part) in doubts.iter().zip(["4 times", "10 %", "1 times"]) {
            assert!(doubt.contains(part), "{doubt}");
        }
        assert_eq!(doubts.len(), 3);
        let little = Pressure {
            stolen: 110,
            ..earlier
        };
        assert_eq!(little.doubts_since(&earlier, run), Vec::<String>::new());
    }
}
