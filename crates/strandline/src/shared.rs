//! The two files that strandline shares with the target: the capture, and the agent's library.
//!
//! Both have no name: memfds, or files that were never linked into a directory. The target opens
//! them through /proc/PID/fd of this process, which only the same user may. Nobody can put
//! another file in their place, and nothing is left behind, whatever kills us.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem::offset_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use strandline_capture::layout;

use crate::error::Error;

/// The agent's library, built by `build.rs`.
pub static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libstrandline_preload.so"));

/// The name by which another process of the same user can open `file` while we live.
pub fn name_for_others(file: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())
}

/// A file that holds the agent's library.
pub fn agent() -> Result<File, Error> {
    let what = "agent";
    let file = shared_file(c"strandline-agent", what, true)?;
    fill(file, what, AGENT)
}

/// A file that holds `text`, for the program to read.
pub fn answer(text: &[u8]) -> Result<File, Error> {
    let what = "census";
    let file = shared_file(c"strandline-census", what, false)?;
    fill(file, what, text)
}

/// `file` with `bytes` in it, whatever limit there is on the size of the program's files.
fn fill(mut file: File, what: &'static str, bytes: &[u8]) -> Result<File, Error> {
    // Passing the limit raises a signal, which kills by default.
    let _ignored = crate::signals::Ignored::new(libc::SIGXFSZ);
    let _raised = Raised::new();
    file.write_all(bytes).map_err(|source| Error::SharedWrite { what, source })?;
    Ok(file)
}

/// A capture that no process has used yet. `patterns`: one a line.
pub fn capture(options: u32, patterns: &str, temporary: u32) -> Result<File, Error> {
    let what = "capture";
    let file = shared_file(c"strandline-capture", what, false)?;
    let room = set_length(&file, options).map_err(Error::CaptureSize)?;
    let put = |at: usize, bytes: &[u8]| {
        file.write_all_at(bytes, at as u64).map_err(|source| Error::SharedWrite { what, source })
    };
    use layout::Header as H;
    let patterns = patterns.as_bytes();
    put(offset_of!(H, version), &layout::VERSION.to_le_bytes())?;
    put(offset_of!(H, options), &options.to_le_bytes())?;
    put(offset_of!(H, patterns_len), &(patterns.len() as u32).to_le_bytes())?;
    put(offset_of!(H, owner_pid), &std::process::id().to_le_bytes())?;
    put(offset_of!(H, room), &room.to_le_bytes())?;
    put(offset_of!(H, temporary_distance), &temporary.to_le_bytes())?;
    put(offset_of!(H, patterns), patterns)?;
    put(offset_of!(H, magic), &layout::MAGIC.to_le_bytes())?;
    Ok(file)
}

/// Makes the capture as long as it may be; returns the number of regions that it has room for.
fn set_length(file: &File, options: u32) -> io::Result<u32> {
    // Passing a limit on file sizes raises a signal, which kills by default.
    let _ignored = crate::signals::Ignored::new(libc::SIGXFSZ);
    let _raised = Raised::new();
    let mut regions = layout::MAX_REGIONS;
    loop {
        let bytes = layout::HEADER_BYTES + layout::stride(options) * regions;
        match file.set_len(bytes as u64) {
            Ok(()) => return Ok(regions as u32),
            Err(_) if regions > 1 => regions /= 2,
            Err(e) => return Err(e),
        }
    }
}

/// The limit on file sizes, raised as far as this process may until this is dropped: the target
/// inherits the limit that it would have without us. What we share with it has no place on a disk,
/// and the capture is sparse, so that its length is no measure of what it takes.
struct Raised(Option<libc::rlimit>);

impl Raised {
    fn new() -> Raised {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: getrlimit(2) fills the struct in, setrlimit(2) only reads one.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_FSIZE, &mut before) != 0 {
                return Raised(None);
            }
            let raised = libc::rlimit { rlim_cur: before.rlim_max, ..before };
            let done = libc::setrlimit(libc::RLIMIT_FSIZE, &raised) == 0;
            Raised(done.then_some(before))
        }
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // SAFETY: puts back what getrlimit(2) gave.
            unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, before) };
        }
    }
}

/// `memfd_create`'s flag for a file that may be executed (Linux 6.3).
const MFD_EXEC: libc::c_uint = 0x10;

/// A memfd, or else a file that is in no directory. `library`: it will be mapped executable.
fn shared_file(name: &CStr, what: &'static str, library: bool) -> Result<File, Error> {
    let memfd = match memfd(name, library) {
        Ok(file) => return Ok(file),
        Err(e) => e,
    };
    let named = ["XDG_RUNTIME_DIR", "TMPDIR"].into_iter().filter_map(std::env::var_os);
    let directories = named.filter(|d| !d.is_empty()).map(PathBuf::from);
    let mut last = None;
    for directory in directories.chain(["/tmp".into(), "/var/tmp".into(), "/dev/shm".into()]) {
        match anonymous_file(&directory) {
            Ok(file) if library && forbids_execution(&file) => {
                let e = io::Error::from_raw_os_error(libc::EACCES);
                last.get_or_insert((directory, e));
            }
            Ok(file) => return Ok(file),
            Err(e) => {
                last.get_or_insert((directory, e));
            }
        }
    }
    let (directory, file) =
        last.unwrap_or((PathBuf::from("/tmp"), io::Error::from_raw_os_error(libc::ENOENT)));
    Err(Error::Shared { what, memfd, directory, file })
}

fn memfd(name: &CStr, library: bool) -> io::Result<File> {
    let exec = if library { MFD_EXEC } else { 0 };
    match memfd_create(name, libc::MFD_CLOEXEC | exec) {
        // A kernel that doesn't know the flag makes executable ones anyway.
        Err(e) if library && e.raw_os_error() == Some(libc::EINVAL) => {
            memfd_create(name, libc::MFD_CLOEXEC)
        }
        result => result,
    }
}

fn memfd_create(name: &CStr, flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: memfd_create(2) with a C string; a descriptor that it returns is ours alone.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), flags);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(File::from(OwnedFd::from_raw_fd(fd)))
    }
}

/// A private file in `directory` that has no name there.
pub fn anonymous_file(directory: &Path) -> io::Result<File> {
    let options = || {
        let mut o = OpenOptions::new();
        o.read(true).write(true).mode(0o600);
        o
    };
    match options().custom_flags(libc::O_TMPFILE).open(directory) {
        Ok(file) => return Ok(file),
        // Old filesystems don't have O_TMPFILE; anything else would fail again.
        Err(e) if !matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            return Err(e)
        }
        Err(_) => {}
    }
    let mut random = [0u8; 16];
    std::io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut random)?;
    let unique: String = random.iter().map(|b| format!("{b:02x}")).collect();
    let path = directory.join(format!(".strandline-{unique}"));
    let file = options().create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// True if the file's filesystem is mounted so that nothing on it can be executed.
fn forbids_execution(file: &File) -> bool {
    // SAFETY: an all-zero statvfs is a valid value; fstatvfs(3) fills it in.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        libc::fstatvfs(file.as_raw_fd(), &mut stat) == 0 && stat.f_flag & libc::ST_NOEXEC != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use strandline_capture::read;

    #[test]
    fn a_new_capture_is_a_capture() {
        let file = capture(layout::OPTION_FOLLOW, "a.*\nb:c", 0).unwrap();
        let c = read::read(&file).unwrap();
        assert_eq!(c.options, layout::OPTION_FOLLOW);
        assert_eq!(c.patterns, ["a.*", "b:c"]);
        assert_eq!(c.owner_pid, std::process::id());
        assert!(c.processes.is_empty() && c.doubts.is_empty());
        assert_eq!(file.metadata().unwrap().len(), layout::FILE_BYTES as u64);
    }

    #[test]
    fn other_processes_can_open_the_agent() {
        let file = agent().unwrap();
        let bytes = std::fs::read(name_for_others(&file)).unwrap();
        assert!(bytes == AGENT);
    }

    #[test]
    fn anonymous_files_leave_nothing_behind() {
        let dir = std::env::temp_dir().join(format!("strandline-test-anon-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let file = anonymous_file(&dir).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!((meta.nlink(), meta.mode() & 0o777), (0, 0o600));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        std::fs::remove_dir(&dir).unwrap();
        assert!(anonymous_file(&dir).is_err());
    }
}
