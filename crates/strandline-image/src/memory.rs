//! How much memory the copy may take, and where else it can be.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Part of the free memory that is left alone: one in this many.
const RESERVE: u64 = 10;

/// Bytes that may be used: what the machine and the control group of this process have left, less
/// a tenth (proc_meminfo(5); memory.max and memory.current of cgroup v2).
pub fn available() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    let machine = kib.map_or(u64::MAX, |kib| kib * 1024);
    let free = machine.min(group().unwrap_or(u64::MAX));
    free - free / RESERVE
}

fn group() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|l| l.strip_prefix("0::"))?.trim_matches('/').to_owned();
    let mut left: Option<u64> = None;
    // Each group on the way up may have a limit.
    let mut at = Some(path.as_str());
    while let Some(group) = at {
        let read = |name: &str| {
            let text = std::fs::read_to_string(format!("/sys/fs/cgroup/{group}/{name}")).ok()?;
            text.trim().parse::<u64>().ok()
        };
        if let (Some(most), Some(now)) = (read("memory.max"), read("memory.current")) {
            let here = most.saturating_sub(now);
            left = Some(left.map_or(here, |l| l.min(here)));
        }
        at = (!group.is_empty()).then(|| group.rsplit_once('/').map_or("", |(up, _)| up));
    }
    left
}

/// A file without a name for `bytes`, on a disk that has room for them: in `TMPDIR`, `/var/tmp` or
/// `/tmp`, unless these are memory themselves.
pub fn file_for(bytes: u64) -> Option<File> {
    let named = std::env::var_os("TMPDIR").map(PathBuf::from);
    let all = named.into_iter().chain([PathBuf::from("/var/tmp"), PathBuf::from("/tmp")]);
    all.filter(|folder| has_room(folder, bytes)).find_map(|folder| {
        // Only its owner may read what was a process's memory.
        let flags = libc::O_TMPFILE | libc::O_CLOEXEC;
        OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(flags).open(folder).ok()
    })
}

fn has_room(folder: &Path, bytes: u64) -> bool {
    let Ok(name) = CString::new(folder.as_os_str().as_bytes()) else { return false };
    // SAFETY: an all-zero statfs is a valid value, which statfs(2) fills in.
    let (status, disk) = unsafe {
        let mut disk: libc::statfs = std::mem::zeroed();
        (libc::statfs(name.as_ptr(), &mut disk), disk)
    };
    let free = disk.f_bavail.saturating_mul(disk.f_bsize as u64);
    status == 0 && disk.f_type != libc::TMPFS_MAGIC && free > bytes
}
