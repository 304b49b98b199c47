//! How much memory the machine has to give.

use std::fs::read_to_string;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Checks that there are `bytes` to be had: memory that is promised and not there is found out when it is written, and
/// ends the process.
///
/// # Errors
/// Names what was asked for and what there is.
pub(super) fn check_memory(bytes: u64) -> io::Result<()> {
    match available() {
        Some(available) if bytes > available => Err(io::Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "{bytes} bytes of memory were asked for, {available} can be had on this machine"
            ),
        )),
        _ => Ok(()),
    }
}

/// Bytes that this process can have; `None` if the system does not tell.
fn available() -> Option<u64> {
    let machine = of_machine(&read_to_string("/proc/meminfo").ok()?)?;
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = of_groups(&groups, |path| read_to_string(path).ok());
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// What the system estimates can be had without, and by, swapping.
fn of_machine(meminfo: &str) -> Option<u64> {
    let field = |name: &str| {
        let mut lines = meminfo.lines();
        let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(field("MemAvailable")? + field("SwapFree").unwrap_or(0))
}

/// What the control groups of this process, version 1 or 2, and those above them leave it.
fn of_groups(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let number = |dir: &Path, file: &str| read(&dir.join(file))?.trim().parse::<u64>().ok();
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (root, limit, usage) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max", "memory.current"),
            c if c.split(',').any(|c| c == "memory") => (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        for dir in path.ancestors() {
            let dir = Path::new(root).join(dir);
            if let (Some(limit), Some(usage)) = (number(&dir, limit), number(&dir, usage)) {
                let left = limit.saturating_sub(usage);
                least = Some(least.map_or(left, |least: u64| least.min(left)));
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_and_every_group_set_a_limit() {
        let meminfo = "MemTotal: 10 kB\nMemAvailable:    8 kB\nSwapTotal: 4 kB\nSwapFree:  1 kB\n";
        assert_eq!(of_machine(meminfo), Some(9 * 1024));
        assert_eq!(of_machine("MemTotal: 10 kB\n"), None);
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/memory.current", "5\n"),
            ("/sys/fs/cgroup/a/memory.max", "100\n"),
            ("/sys/fs/cgroup/a/memory.current", "30\n"),
            ("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "50\n"),
            ("/sys/fs/cgroup/memory/c/memory.usage_in_bytes", "60\n"),
        ];
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(of_groups("0::/a/b\n", read), Some(70));
        assert_eq!(of_groups("4:cpu,memory:/c\n0::/a/b\n", read), Some(0));
        assert_eq!(of_groups("4:cpu:/c\nnonsense\n", read), None);
    }

    #[test]
    fn the_system_tells() {
        assert!(available().unwrap() > 0);
        check_memory(4096).unwrap();
    }
}
