//! Why there is no image.

use std::io;
use std::path::PathBuf;

/// Why a process or core file can't be read, and what can be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such process.
    #[error("process {0}: there is no such process; check the number with ps")]
    Missing(i32),
    /// It ended, or its number went to another process, while it was read.
    #[error("process {0}: it ended while it was read; nothing is reported of it")]
    Vanished(i32),
    /// It has no memory: a kernel thread, or a process that ended and waits for its parent.
    #[error("process {0}: it has no memory of its own: a kernel thread, or one that has ended")]
    NoMemory(i32),
    /// The kernel doesn't allow it.
    #[error("process {pid}: the kernel doesn't allow to read it: {why}")]
    Denied {
        /// The process.
        pid: i32,
        /// What is missing.
        why: String,
    },
    /// A debugger or the like is at work on it.
    #[error("process {pid}: process {tracer} traces it already (a debugger?); end that, or use --no-pause")]
    Traced {
        /// The process.
        pid: i32,
        /// Who traces it.
        tracer: i32,
    },
    /// The copy fits neither into the memory that is free nor on a disk for temporary files.
    #[error("process {pid}: its {needed} bytes don't fit into the {available} bytes of memory that are free, nor into TMPDIR or /var/tmp; name a folder with room on a disk in TMPDIR, or write a core file (gcore) and read that")]
    TooLarge {
        /// The process.
        pid: i32,
        /// Bytes to be copied.
        needed: u64,
        /// Bytes that may be used.
        available: u64,
    },
    /// Something in `/proc` can't be read.
    #[error("{}: can't be read: {}; is /proc mounted, and the process still there?", .0.display(), .1)]
    Proc(PathBuf, io::Error),
    /// It can't be stopped.
    #[error("process {0}: it can't be stopped: {1}; try --no-pause")]
    Stop(i32, io::Error),
    /// The core file can't be opened.
    #[error("{}: can't be read: {}; check its name and permissions", .0.display(), .1)]
    Core(PathBuf, io::Error),
    /// It is no core file that can be understood.
    #[error("{}: {}; give a core file of a 64-bit x86 Linux process (gcore makes one)", .0.display(), .1)]
    NotACore(PathBuf, &'static str),
}
