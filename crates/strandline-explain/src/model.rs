//! What an explanation says.

use serde::Serialize;
use strandline_census::{HolderReport, Pin};

use crate::pin_paths::PinPath;

/// Name of the JSON's format.
pub const SCHEMA: &str = "strandline-explain/1";

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Objects are still referenced, more and more of them: a leak, or a cache without a bound.
    Referenced,
    /// Nothing can reach the objects, and the collector hasn't run.
    Garbage,
    /// It was freed, and an allocator keeps it.
    AllocatorRetention,
    /// C code holds it.
    Native,
    /// Mapped files or shared memory.
    NotPython,
    /// Nothing is wrong: it came back, or is used again and again.
    Healthy,
    /// It can't be told from what was seen.
    Unknown,
}

/// How much a verdict may be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sure {
    /// Counted, nothing assumed.
    Measured,
    /// Signs point to it.
    Likely,
    /// As good as any other.
    Open,
}

/// A reason why memory is resident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Stable name.
    pub name: &'static str,
    /// Resident bytes.
    pub bytes: u64,
    /// For people: one or two sentences.
    pub text: String,
    /// Whether somebody uses it, an allocator keeps it freed, or it is neither Python's nor C
    /// code's: `in_use`, `garbage`, `freed`, `mapped`, `unnamed`.
    pub kind: &'static str,
    /// The bytes are counted by another cause as well: they aren't part of the sum.
    pub overlaps: bool,
}

/// What would give memory back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// Its name, that of `strandline remedies --only`.
    pub name: &'static str,
    /// Resident bytes that would come back; negative: that it would cost; `None`: only a run can
    /// tell.
    pub predicted_bytes: Option<i64>,
    /// Of an estimate, and where nothing can be predicted: the least that it could be, if there is
    /// a bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least_bytes: Option<i64>,
    /// The most that it could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most_bytes: Option<i64>,
    /// Worked out from what is free now, as the allocator would do it; or an estimate.
    pub is_estimate: bool,
    /// For people: what it does, and how.
    pub text: String,
}

/// What keeps an arena or a heap.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PinReport {
    /// `arena` of small objects, or `heap` of malloc.
    pub what: &'static str,
    /// Its address.
    pub address: u64,
    /// Resident bytes that would come back without it.
    pub held_bytes: u64,
    /// Type of the objects; empty: C code's memory.
    pub type_name: String,
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Who refers to one of them.
    pub path: Option<String>,
}

impl PinReport {
    pub(crate) fn of_arena(pin: &Pin) -> Self {
        PinReport {
            what: "arena",
            address: pin.arena,
            held_bytes: pin.held_bytes,
            type_name: pin.type_name.clone(),
            count: pin.count,
            bytes: pin.bytes,
            path: pin.path.clone(),
        }
    }
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Process, as the reader sees it; `None` for a core file.
    pub pid: Option<i32>,
    /// Its command line.
    pub command_line: Vec<String>,
    /// `sys.version` of each CPython in it.
    pub interpreters: Vec<String>,
    /// Looks that it rests on.
    pub looks: usize,
    /// Time that the process stood for all of them, nanoseconds; `None`: it never did.
    pub paused_ns: Option<u64>,
    /// RSS at the last look.
    pub rss_bytes: u64,
    /// RSS at each look.
    pub rss_looks_bytes: Vec<u64>,
    /// The most that was ever resident.
    pub peak_rss_bytes: Option<u64>,
    /// The verdict.
    pub verdict: Verdict,
    /// Name of the cause that it is about; `plateau`, `returned`, `in_use` where there is none.
    pub reason: &'static str,
    /// How sure it is.
    pub sure: Sure,
    /// The verdict in a few sentences.
    pub text: String,
    /// What it rests on, one sentence each.
    pub rests_on: Vec<String>,
    /// Why the resident bytes are: those that don't overlap add up to `rss_bytes`.
    pub causes: Vec<Cause>,
    /// What keeps memory from going back.
    pub pins: Vec<PinReport>,
    /// Which lines asked for what keeps arenas, if the process records call paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins_by_line: Vec<PinPath>,
    /// The objects that hold most of what is live.
    pub holders: Vec<HolderReport>,
    /// What would bring it back, most bytes first.
    pub remedies: Vec<Remedy>,
    /// What was read and can't be right.
    pub doubts: Vec<String>,
}
