//! How a profile was made, and its processes as a whole.

use serde::Serialize;
use strandline_profile::{Process, Profile, State};

use crate::merge::Merged;

/// How a profile was made.
#[derive(Debug, Clone, Serialize)]
pub struct RunRow<'p> {
    /// Version of the strandline that made it.
    pub strandline: &'p str,
    /// The command that was run.
    pub command: &'p [String],
    /// Start of the run, nanoseconds since the epoch.
    pub started_unix_ns: u64,
    /// When the profile was written, nanoseconds since the epoch.
    pub written_unix_ns: u64,
    /// The run was over then.
    pub finished: bool,
    /// Exit code of the main process.
    pub exit_code: Option<i32>,
    /// Signal that ended the main process.
    pub signal: Option<i32>,
    /// A block is temporary if its thread made at most so many allocations while it lived.
    pub temporary_distance: u32,
    /// Frames of C, C++ and Rust code were recorded as well.
    pub native: bool,
    /// Call paths go on through the asyncio tasks that await the one that runs.
    pub async_stacks: bool,
    /// What is missing or could not be understood.
    pub doubts: &'p [String],
    /// Number of processes of the run.
    pub process_count: usize,
}

impl<'p> RunRow<'p> {
    /// Of a profile.
    pub fn of(profile: &'p Profile) -> RunRow<'p> {
        let meta = &profile.meta;
        RunRow {
            strandline: &meta.strandline,
            command: &meta.command,
            started_unix_ns: meta.started,
            written_unix_ns: meta.written,
            finished: meta.finished,
            exit_code: meta.exit_code,
            signal: meta.signal,
            temporary_distance: meta.temporary_distance,
            native: meta.native,
            async_stacks: meta.async_stacks,
            doubts: &profile.doubts,
            process_count: profile.processes.len(),
        }
    }
}

/// The whole-process figures of a process.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessRow<'p> {
    /// Process id.
    pub pid: u32,
    /// Its parent's.
    pub parent_pid: u32,
    /// Made by fork; what it had in use then is inherited.
    pub forked: bool,
    /// Command line.
    pub command: &'p [String],
    /// Version of Python: `3.13.1`; none: not a Python that is understood.
    pub python: Option<String>,
    /// `running`, `exited` or `replaced`.
    pub state: &'static str,
    /// When it started, nanoseconds since the epoch.
    pub started_unix_ns: u64,
    /// Most that ever was in use.
    pub peak_bytes: u64,
    /// In use at the end.
    pub in_use_bytes: u64,
    /// Kept by CPython's small-object allocator and in no live block.
    pub stranded_arenas_bytes: u64,
    /// Kept by the C library's malloc and in no live block.
    pub stranded_heap_bytes: u64,
    /// Resident memory at the end, strandline's own part taken off.
    pub rss_bytes: Option<u64>,
    /// Highest resident memory that was seen, strandline's own part taken off.
    pub rss_peak_bytes: Option<u64>,
    /// Allocations that found no room in a table: they belong to no call path.
    pub overflowed: u64,
}

impl<'p> ProcessRow<'p> {
    fn of(process: &'p Process) -> ProcessRow<'p> {
        let totals = &process.totals;
        let seen = |bytes: u64| Some(bytes).filter(|&b| b != 0);
        ProcessRow {
            pid: process.pid,
            parent_pid: process.parent_pid,
            forked: process.forked,
            command: &process.command,
            python: match process.python {
                (0, 0, 0) => None,
                (major, minor, micro) => Some(format!("{major}.{minor}.{micro}")),
            },
            state: match process.state {
                State::Running => "running",
                State::Exited => "exited",
                State::Replaced => "replaced",
            },
            started_unix_ns: process.started,
            peak_bytes: totals.peak,
            in_use_bytes: totals.in_use,
            stranded_arenas_bytes: totals.stranded_arenas,
            stranded_heap_bytes: totals.stranded_heap,
            rss_bytes: seen(totals.rss),
            rss_peak_bytes: seen(totals.rss_peak),
            overflowed: totals.overflowed,
        }
    }

    /// Of those processes of one profile that were chosen.
    pub(crate) fn all(merged: &Merged<'p>, side: usize) -> Vec<ProcessRow<'p>> {
        let parts = merged.parts().iter().filter(|part| part.side == side);
        parts.map(|part| ProcessRow::of(part.process)).collect()
    }
}

/// The first profile's run: that of all views but a difference.
pub(crate) fn first_run<'p>(merged: &Merged<'p>) -> Option<RunRow<'p>> {
    merged.profiles().first().map(|profile| RunRow::of(profile))
}
