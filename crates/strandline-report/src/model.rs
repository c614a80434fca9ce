//! The report as data: what the JSON is. Field by field it is described in `docs/json.md`.

use serde::Serialize;

/// Name and version of the JSON's schema. The number changes when a field changes its meaning or
/// goes away, not when one is added.
pub const SCHEMA: &str = "strandline-run/1";

/// A whole run. Amounts are bytes; `None` is what can't be known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Version of strandline.
    pub strandline: String,
    /// The command that was run.
    pub command: Vec<String>,
    /// `--function` patterns.
    pub function_patterns: Vec<String>,
    /// How it ended.
    pub exit: Exit,
    /// Index of the main process in `processes`; `None`: no Python was seen.
    pub main: Option<usize>,
    /// The main process as a whole.
    pub program: Option<Program>,
    /// Every Python of the run, in the order in which they started.
    pub processes: Vec<ProcessRow>,
    /// Every profiled function, for each process in which it ran.
    pub functions: Vec<FunctionTable>,
    /// Censuses of the main process that were asked for.
    pub censuses: Vec<Moment>,
    /// Number of processes that found no room in the capture.
    pub unrecorded_processes: u32,
    /// What could not be understood, one sentence each.
    pub doubts: Vec<String>,
}

/// A census at a moment of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moment {
    /// `exit`, or `peak`: where RSS was highest.
    pub moment: &'static str,
    /// The census; `None` if none could be taken.
    pub census: Option<strandline_census::Census>,
    /// Why not.
    pub error: Option<String>,
}

/// One run of a line, with `--explain`: where what it freed is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LineLook {
    /// The process.
    #[serde(skip)]
    pub pid: u32,
    /// File of the function.
    #[serde(skip)]
    pub file: String,
    /// Its first line.
    #[serde(skip)]
    pub first_line: u32,
    /// The line.
    #[serde(skip)]
    pub line: u32,
    /// The account.
    #[serde(flatten)]
    pub account: strandline_explain::Account,
    /// What other lines moved since the census that this is compared with, at least: the account
    /// has their part as well.
    pub missed_bytes: u64,
    /// Other lines of the function with memory that is in use when the line has ended.
    pub alive: Vec<Alive>,
    /// What waits for the collector then, bytes; `None`: it isn't known.
    pub garbage_bytes: Option<u64>,
    /// The objects that hold most then.
    pub holders: Vec<strandline_census::HolderReport>,
}

/// A line with memory that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Alive {
    /// The line.
    pub line: u32,
    /// What of its memory is in use.
    pub in_use_bytes: u64,
}

impl Run {
    /// Puts accounts to their lines: of several runs of a line that which stranded most.
    pub fn add_accounts(&mut self, looks: Vec<LineLook>) {
        for look in looks {
            let of_process = |f: &&mut FunctionTable| {
                self.processes.get(f.process).is_some_and(|p| p.pid == look.pid)
                    && f.file == look.file
                    && f.first_line == look.first_line
            };
            let Some(function) = self.functions.iter_mut().find(of_process) else { continue };
            let Some(line) = function.lines.iter_mut().find(|l| l.line == look.line) else {
                continue;
            };
            let stranded = |l: &LineLook| l.account.stranded_bytes;
            if line.account.as_ref().is_none_or(|known| stranded(known) < stranded(&look)) {
                line.account = Some(look);
            }
        }
    }
}

/// How a program ended: one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Exit code.
    pub code: Option<i32>,
    /// Number of the signal that killed it.
    pub signal: Option<i32>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    /// In an orderly way; its exit ledger is final.
    Exited,
    /// By replacing itself with another program.
    Replaced,
    /// Not yet, when the report was made.
    Running,
    /// Without a chance to say so: by a signal, as a rule.
    Killed,
}

/// What could be measured in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Abilities {
    /// Python's small objects were seen.
    pub blocks: bool,
    /// malloc and its family were seen.
    pub malloc: bool,
    /// Bytes could be given to source lines.
    pub sites: bool,
    /// Lines of profiled functions were seen.
    pub lines: bool,
    /// `profile` was a builtin.
    pub profile_builtin: bool,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct ProcessRow {
    pub pid: u32,
    pub parent_pid: u32,
    pub forked: bool,
    pub parent_process: Option<usize>,
    pub command: Vec<String>,
    pub executable: String,
    pub python: Option<String>,
    pub python_text: String,
    pub state: ProcessState,
    pub can: Abilities,
    pub refusal: Option<&'static str>,
    pub started_unix_ns: u64,
    pub in_use_bytes: Option<i64>,
    pub peak_in_use_bytes: Option<i64>,
    pub allocated_bytes: Option<u64>,
    pub kernel_rss_peak_bytes: Option<i64>,
    pub unattributed_allocations: u32,
    pub start: Option<LedgerRow>,
    pub latest: Option<LedgerRow>,
    pub exit: Option<LedgerRow>,
    pub sites: Option<usize>,
    pub top_in_use: Option<Vec<SiteRow>>,
    pub top_allocated: Option<Vec<SiteRow>>,
}

/// Whole-process amounts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct LedgerRow {
    pub rss_bytes: i64,
    pub kernel_rss_bytes: i64,
    pub profiler_bytes: i64,
    pub in_use_bytes: Option<i64>,
    pub stranded_arenas_bytes: Option<i64>,
    pub stranded_heap_bytes: Option<i64>,
    pub stranded_bytes: Option<i64>,
    pub rest_bytes: Option<i64>,
    pub unix_ns: u64,
}

/// The main process in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Index in `processes`.
    pub process: usize,
    /// Which ledger `ledger` is: `exit`, or `latest` if the process was killed.
    pub moment: &'static str,
    /// Highest bytes in use.
    pub peak_in_use_bytes: Option<i64>,
    /// Bytes asked for during the whole run.
    pub allocated_bytes: Option<u64>,
    /// The last ledger that was taken.
    #[serde(flatten)]
    pub ledger: LedgerRow,
}

/// A source line's share of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct SiteRow {
    pub file: Option<String>,
    pub line: Option<u32>,
    pub function: Option<String>,
    pub in_use_bytes: u64,
    pub allocated_bytes: u64,
    pub freed_bytes: u64,
    pub source: Option<String>,
}

/// A profiled function in one process.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct FunctionTable {
    pub file: String,
    pub path: Option<String>,
    pub name: String,
    pub first_line: u32,
    pub process: usize,
    pub calls: u64,
    pub lines: Vec<Line>,
}

/// A source line of a profiled function. All amounts are `None` if it never ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Line {
    pub line: u32,
    pub rss_bytes: Option<i64>,
    pub rss_increment_bytes: Option<i64>,
    pub peak_bytes: Option<u64>,
    pub allocated_bytes: Option<u64>,
    pub freed_bytes: Option<u64>,
    pub in_use_bytes: Option<u64>,
    pub stranded_increment_bytes: Option<i64>,
    pub stranded_bytes: Option<i64>,
    pub total_in_use_bytes: Option<i64>,
    pub rest_bytes: Option<i64>,
    pub occurrences: Option<u64>,
    pub source: Option<String>,
    /// With `--explain`, for lines that moved much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<LineLook>,
}

impl Run {
    /// The report as JSON, indented, with a newline at its end.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}
