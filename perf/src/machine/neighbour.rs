//! Whether a target on this machine runs on the cores of the host that measures it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::cores::join;

/// The cores among `cores` to which a thread of a process that listens at one of the addresses is pinned, in words. Only
/// what this user may see is seen.
pub fn shares_cores(addresses: &[SocketAddr], cores: &[usize]) -> Option<String> {
    let own = std::process::id().to_string();
    let local = addresses
        .iter()
        .filter(|address| address.ip().is_loopback());
    let ports: Vec<u16> = local.map(SocketAddr::port).collect();
    if ports.is_empty() {
        return None;
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let tables = tables.into_iter().flatten();
    let sockets: Vec<String> = tables
        .flat_map(|table| listening(&table, &ports))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let (name, path) = (process.file_name(), process.path());
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        if pid == own || !holds(&path, &sockets) {
            continue;
        }
        let mut shared: Vec<usize> = pinned(&path).filter(|core| cores.contains(core)).collect();
        shared.sort_unstable();
        shared.dedup();
        if !shared.is_empty() {
            return Some(format!(
                "the target, process {pid}, has a thread pinned to core {} of this host: they take turns",
                join(&shared)
            ));
        }
    }
    None
}

/// The sockets of a table that listen at one of the ports.
fn listening(table: &str, ports: &[u16]) -> Vec<u64> {
    let socket = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let port = words.get(1)?.rsplit_once(':')?.1;
        let port = u16::from_str_radix(port, 16).ok()?;
        let listens = *words.get(3)? == "0A" && ports.contains(&port);
        let inode = words.get(9)?.parse().ok()?;
        listens.then_some(inode)
    };
    table.lines().skip(1).filter_map(socket).collect()
}

fn holds(process: &Path, sockets: &[String]) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
    let mut links = descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    links.any(|link| sockets.iter().any(|socket| link == Path::new(socket)))
}

/// The cores of threads that may run on one core only.
fn pinned(process: &Path) -> impl Iterator<Item = usize> {
    let threads = fs::read_dir(process.join("task")).into_iter().flatten();
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
        .filter_map(|status| only_core(&status))
}

fn only_core(status: &str) -> Option<usize> {
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1144 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0\n   1: 0100007F:1144 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 778 1 0\n   2: 0100007F:1145 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 779 1 0\n";
        assert_eq!(listening(table, &[4420]), [777]);
        assert_eq!(listening(table, &[1]), Vec::<u64>::new());
    }

    #[test]
    fn a_thread_with_one_core_is_pinned() {
        assert_eq!(only_core("Name:\tx\nCpus_allowed_list:\t3\n"), Some(3));
        assert_eq!(only_core("Cpus_allowed_list:\t0-3\n"), None);
        assert_eq!(only_core(""), None);
    }

    #[test]
    fn this_process_and_others_elsewhere_are_not_meant() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cores: Vec<usize> = (0..1024).collect();
        assert_eq!(shares_cores(&[address], &cores), None);
        assert_eq!(
            shares_cores(&["192.0.2.1:4420".parse().unwrap()], &cores),
            None
        );
    }
}
