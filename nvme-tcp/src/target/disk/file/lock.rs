//! Who may use a file: one disk, unless all that use it say that they share it.

use std::fs::{File, TryLockError, read_to_string};
use std::io::{self, ErrorKind};
use std::os::linux::fs::MetadataExt;
use std::path::Path;

/// Locks a file for as long as it is open; the system drops the lock with the process, however that ends. It excludes the
/// other disks of this process as well, and other machines where the file system passes locks on (NFS does).
///
/// # Errors
/// Somebody else has locked it; the error names him where the system tells.
pub(super) fn lock(file: &File, path: &Path, shared: bool) -> io::Result<()> {
    let locked = match shared {
        true => file.try_lock_shared(),
        false => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let holder = holder(file).unwrap_or_else(|| "another process".into());
            let text = format!("{} is in use by {holder}", path.display());
            Err(io::Error::new(ErrorKind::ResourceBusy, text))
        }
        // File systems without locks.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Who has locked a file.
fn holder(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.st_ino();
    let locks = read_to_string("/proc/locks").ok()?;
    let pid = pid_of_lock(&locks, inode)?;
    if pid == std::process::id() {
        return Some(format!("another disk of this process (pid {pid})"));
    }
    let name = read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim() {
        "" => Some(format!("pid {pid}")),
        name => Some(format!("{name} (pid {pid})")),
    }
}

/// The process that has a lock on the file with this inode number, in the words of /proc/locks. The device there is not
/// always the one that the file's metadata has, so that it is left out; two files of one number make it unknown.
fn pid_of_lock(locks: &str, inode: u64) -> Option<u32> {
    let mut pids = locks.lines().filter_map(|line| {
        // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"
        let mut words = line.split_whitespace().skip(1);
        let (kind, _, _) = (words.next()?, words.next()?, words.next()?);
        let pid = words.next()?.parse().ok()?;
        let found = words.next()?.rsplit(':').next()?.parse::<u64>().ok()?;
        (kind == "FLOCK" && found == inode).then_some(pid)
    });
    let pid = pids.next()?;
    pids.all(|other| other == pid).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_the_locks() {
        let locks = "1: POSIX  ADVISORY  READ 900 08:02:77 128 128\n\
                     2: FLOCK  ADVISORY  WRITE 1234 fe:00:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 55 fe:00:77 0 EOF\n\
                     3: OFDLCK ADVISORY  READ -1 fe:00:78 0 EOF\n";
        assert_eq!(pid_of_lock(locks, 77), Some(1234));
        assert_eq!(pid_of_lock(locks, 78), None);
        let twice =
            "1: FLOCK ADVISORY WRITE 1 a:0:7 0 EOF\n2: FLOCK ADVISORY WRITE 2 b:0:7 0 EOF\n";
        assert_eq!(pid_of_lock(twice, 7), None);
    }
}
