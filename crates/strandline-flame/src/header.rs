//! What the page says beside the figures, as JSON. It stands packed in the page, so nothing of
//! it can be read as markup.

use serde::Serialize;

/// The start of the page's data.
#[derive(Debug, Serialize)]
pub struct Header {
    /// Version of the data, as the script expects it.
    pub version: u32,
    /// Two profiles are compared.
    pub diff: bool,
    pub title: String,
    /// Name of the weight shown first.
    pub weight: &'static str,
    /// Names and titles of all weights, in the order of the columns.
    pub weights: Vec<(&'static str, &'static str)>,
    /// One for a profile; before and after for a difference.
    pub runs: Vec<Run>,
    pub processes: Vec<Process>,
    pub threads: Vec<Thread>,
    /// Name, number of values and bytes of each column.
    pub columns: Vec<(String, usize, usize)>,
}

#[derive(Debug, Serialize)]
pub struct Run {
    pub strandline: String,
    pub command: String,
    /// Milliseconds since the epoch.
    pub started: u64,
    pub finished: bool,
    pub native: bool,
    pub temporary_distance: u32,
    pub doubts: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Process {
    /// 0 in a difference: the two runs have different ones.
    pub pid: u32,
    pub command: String,
    /// Empty: not a Python that is understood.
    pub python: String,
    /// Ended or replaced itself: what is in use after its last point is nothing.
    pub ended: bool,
    /// Microseconds since the first process's start.
    pub started: u64,
    /// Points of its timeline.
    pub points: usize,
}

#[derive(Debug, Serialize)]
pub struct Thread {
    /// Index into the processes.
    pub process: u32,
    pub name: String,
    /// 0: unknown.
    pub tid: u32,
    /// It stands for all that the timeline doesn't tell apart.
    pub others: bool,
}
