//! What one region's tables add up to: source lines, profiled functions, ledgers.

use std::collections::HashMap;
use std::sync::Arc;

use super::tables::{RawLedger, Slot, Tables};
use super::Doubts;
use crate::layout;

/// Arguments of a command line that are kept.
pub const MAX_COMMAND_ARGUMENTS: usize = 1024;

/// How a process stood when the capture was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs, or died without a chance to say so.
    Running,
    /// It ended through `exit`; its exit ledger is final.
    Exited,
    /// It replaced itself through `exec`.
    Replaced,
}

/// Why an interpreter is not looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A free-threaded build.
    FreeThreaded,
    /// A CPython that the agent has no layout for.
    UnknownVersion,
    /// A Python that isn't CPython.
    NotCPython,
}

/// Whole-process amounts at one moment, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Resident memory as the kernel says, the profiler's own part included.
    pub kernel_rss: i64,
    /// The profiler's own resident memory.
    pub profiler: i64,
    /// Asked for and not given back.
    pub in_use: i64,
    /// Resident, kept by pymalloc, not in a live block.
    pub stranded_arenas: i64,
    /// Resident, kept by glibc malloc, not in a live chunk.
    pub stranded_heap: i64,
    /// Nanoseconds since the epoch.
    pub when: u64,
}

/// What was allocated at one source line, in whatever function, under whatever caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteTotal {
    /// `co_filename`; empty: no Python code was running.
    pub file: Arc<str>,
    /// Line number, from 1; 0 if unknown.
    pub line: u32,
    /// Name of one of the line's code objects.
    pub function: Arc<str>,
    /// Bytes asked for by this process.
    pub allocated: u64,
    /// Bytes of these given back, by this process.
    pub freed: u64,
    /// Bytes alive, those from before a fork included.
    pub in_use: u64,
}

/// One line of a profiled function. Amounts are bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Line number.
    pub line: u32,
    /// How often the line ran.
    pub occurrences: u64,
    /// Number of RSS readings; 0: the amounts that rest on them mean nothing.
    pub readings: u64,
    /// Highest RSS seen after the line, the profiler's own part taken off.
    pub rss: i64,
    /// Sum of the RSS changes over the line.
    pub rss_increment: i64,
    /// In use in the whole process when `rss` was read.
    pub in_use_at_rss: i64,
    /// Stranded in the whole process when `rss` was read.
    pub stranded_at_rss: i64,
    /// Sum of the changes of stranded bytes over the line.
    pub stranded_increment: i64,
    /// Highest in-use memory above that at the line's start.
    pub peak: u64,
    /// Asked for while the line ran, callees included.
    pub allocated: u64,
    /// Given back while the line ran, callees included.
    pub freed: u64,
    /// Asked for while the line ran, and alive.
    pub in_use: u64,
    /// Its entries in [`crate::layout::Region::slots`].
    pub slots: Vec<u32>,
}

/// A profiled function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// `co_filename`.
    pub file: Arc<str>,
    /// Absolute file name if `file` is relative, else empty.
    pub path: Arc<str>,
    /// Qualified name where it is known.
    pub name: Arc<str>,
    /// `co_firstlineno`.
    pub first_line: u32,
    /// Last line that has code, nested functions included.
    pub last_line: u32,
    /// Calls that were traced.
    pub calls: u64,
    /// Source text if no file has it, else empty.
    pub source: Arc<str>,
    /// Line number of the first line of `source`.
    pub source_first_line: u32,
    /// Lines that are known, by number.
    pub lines: Vec<Line>,
}

/// What one process says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Index of its region.
    pub region: u32,
    /// How it stood.
    pub state: State,
    /// Process id, as the process itself sees it.
    pub pid: u32,
    /// Its parent's process id.
    pub parent_pid: u32,
    /// Python's major and minor version; `None`: not a Python.
    pub python: Option<(u8, u8)>,
    /// `CAN_*` bits of [`layout`].
    pub abilities: u32,
    /// Why it was not looked into, if so.
    pub refusal: Option<Refusal>,
    /// Region of the process that it was forked from.
    pub forked_from: Option<u32>,
    /// Allocations that could not be attributed because a table was full.
    pub overflowed: u32,
    /// Command line.
    pub command: Vec<String>,
    /// The main program's path.
    pub executable: Arc<str>,
    /// `Py_GetVersion()`.
    pub version_text: Arc<str>,
    /// Bytes in use when the counters were last written, the profiler's own taken off.
    pub in_use: i64,
    /// Highest bytes in use, likewise.
    pub peak_in_use: i64,
    /// Highest RSS that was read, the profiler's own part included, bytes.
    pub rss_peak: i64,
    /// Bytes that were freed but never seen allocated.
    pub unseen_frees: u64,
    /// Wall-clock start, nanoseconds since the epoch.
    pub started: u64,
    /// When the interpreter started running code.
    pub start: Option<Ledger>,
    /// Last taken while running.
    pub latest: Option<Ledger>,
    /// When the interpreter began to shut down.
    pub exit: Option<Ledger>,
    /// Bytes allocated by the whole process.
    pub allocated: u64,
    /// Source lines that ever allocated, or hold something from before a fork.
    pub sites: Vec<SiteTotal>,
    /// Profiled functions.
    pub functions: Vec<Function>,
}

impl Process {
    /// True if all bits of `wanted` (`CAN_*`) are there.
    pub fn can(&self, wanted: u32) -> bool {
        self.abilities & wanted == wanted
    }

    /// Adds up one region's tables.
    pub fn from_tables(t: &Tables, region: u32, doubts: &mut Doubts) -> Process {
        let h = &t.head;
        let (start, latest, exit) = (ledger(&h.start), ledger(&h.latest), ledger(&h.exit));
        let now = h.in_use.saturating_add(h.in_use_native);
        // The watermark is folded into the peak only now and then.
        let peak = h.peak.max(h.watermark);
        let seen = [start, latest, exit].iter().flatten().map(|l| l.in_use).max().unwrap_or(0);
        let (functions, slots) = functions_of(t, doubts);
        Process {
            region,
            state: match h.state {
                layout::STATE_EXITED => State::Exited,
                layout::STATE_REPLACED => State::Replaced,
                layout::STATE_RUNNING => State::Running,
                _ => {
                    doubts.note("the state is not a known one");
                    State::Running
                }
            },
            pid: h.pid,
            parent_pid: h.parent_pid,
            python: version(h.python),
            abilities: h.abilities,
            refusal: match h.refusal {
                layout::REFUSED_NOT => None,
                layout::REFUSED_FREE_THREADED => Some(Refusal::FreeThreaded),
                layout::REFUSED_NOT_CPYTHON => Some(Refusal::NotCPython),
                _ => Some(Refusal::UnknownVersion),
            },
            forked_from: (h.forked != 0).then(|| h.parent_region.checked_sub(1)).flatten(),
            overflowed: h.overflowed,
            command: arguments(&h.command),
            executable: h.executable.clone(),
            version_text: h.version_text.clone(),
            in_use: now,
            peak_in_use: peak.max(now).max(seen),
            rss_peak: h.rss_peak,
            unseen_frees: h.unseen_frees,
            started: h.started,
            start,
            latest,
            exit,
            allocated: unsigned(own_tags(t).map(|(_, t)| t.allocated as i128).sum()),
            sites: sites_of(t),
            functions: with_amounts(t, functions, &slots),
        }
    }
}

/// Major and minor version of 0xMMmm or 0xMMmmuu.
fn version(number: u32) -> Option<(u8, u8)> {
    let short = if number > 0xffff { number >> 8 } else { number };
    (number != 0).then_some(((short >> 8) as u8, short as u8))
}

fn ledger(raw: &RawLedger) -> Option<Ledger> {
    (raw.when != 0).then_some(Ledger {
        kernel_rss: raw.rss,
        profiler: raw.profiler,
        in_use: raw.in_use,
        stranded_arenas: raw.stranded_arenas,
        stranded_heap: raw.stranded_heap,
        when: raw.when,
    })
}

fn arguments(command: &[u8]) -> Vec<String> {
    let text = command.strip_suffix(&[0]).unwrap_or(command);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|b| *b == 0)
        .take(MAX_COMMAND_ARGUMENTS)
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect()
}

/// Sums are kept wide: a million counters of 64 bits can't pass 128.
fn unsigned(n: i128) -> u64 {
    n.clamp(0, u64::MAX as i128) as u64
}

fn total_freed(t: &super::Tag) -> i128 {
    t.freed as i128 + t.freed_native as i128
}

/// The tags that count the program's own doings, not the profiler's.
fn own_tags(t: &Tables) -> impl Iterator<Item = (usize, &super::Tag)> {
    let own = |i: &usize| *i != 0 && *i != layout::TAG_INDEX_PROFILER as usize;
    t.tags.iter().enumerate().filter(move |(i, _)| own(i))
}

#[derive(Default, Clone, Copy)]
struct Sums {
    allocated: i128,
    freed: i128,
    in_use: i128,
}

fn sites_of(t: &Tables) -> Vec<SiteTotal> {
    let nowhere: Arc<str> = "".into();
    let mut index: HashMap<(&str, u32), usize> = HashMap::new();
    let mut found: Vec<(SiteTotal, Sums)> = Vec::new();
    for (_, tag) in own_tags(t) {
        let site = t.sites.get(tag.site as usize).filter(|_| tag.site != 0);
        let code = site.and_then(|s| t.codes.get(s.code as usize).filter(|_| s.code != 0));
        let (file, line, function) = match (site, code) {
            (Some(s), Some(c)) => (&c.file, s.line, &c.name),
            _ => (&nowhere, 0, &nowhere),
        };
        let sums = Sums {
            allocated: tag.allocated as i128,
            freed: total_freed(tag),
            in_use: tag.inherited as i128 + tag.allocated as i128 - total_freed(tag),
        };
        if sums.allocated == 0 && sums.freed == 0 && sums.in_use == 0 {
            continue;
        }
        let at = *index.entry((file, line)).or_insert_with(|| {
            let (file, function) = (file.clone(), function.clone());
            let (allocated, freed, in_use) = (0, 0, 0);
            let total = SiteTotal { file, line, function, allocated, freed, in_use };
            found.push((total, Sums::default()));
            found.len() - 1
        });
        if let Some((_, all)) = found.get_mut(at) {
            all.allocated += sums.allocated;
            all.freed += sums.freed;
            all.in_use += sums.in_use;
        }
    }
    let finish = |(mut total, sums): (SiteTotal, Sums)| {
        total.allocated = unsigned(sums.allocated);
        total.freed = unsigned(sums.freed);
        total.in_use = unsigned(sums.in_use);
        total
    };
    found.into_iter().map(finish).collect()
}

/// Which line of which function a slot stands for: indices into functions and their lines.
type SlotPlaces = Vec<Option<(usize, usize)>>;

/// Functions with the same code identity are one; slots of the same line are one.
fn functions_of(t: &Tables, doubts: &mut Doubts) -> (Vec<Function>, SlotPlaces) {
    let mut by_identity: HashMap<(&str, u32, &str), usize> = HashMap::new();
    let mut merged: Vec<Option<usize>> = vec![None; t.functions.len()];
    let mut out: Vec<Function> = Vec::new();
    for (i, f) in t.functions.iter().enumerate().skip(1) {
        let Some(code) = t.codes.get(f.code as usize).filter(|_| f.code != 0) else {
            doubts.note("a function has no code object");
            continue;
        };
        let key = (&*code.file, code.first_line, &*code.name);
        let at = *by_identity.entry(key).or_insert_with(|| {
            out.push(Function {
                file: code.file.clone(),
                path: f.path.clone(),
                name: if f.name.is_empty() { code.name.clone() } else { f.name.clone() },
                first_line: code.first_line,
                last_line: 0,
                calls: 0,
                source: f.source.clone(),
                source_first_line: f.source_first_line,
                lines: Vec::new(),
            });
            out.len() - 1
        });
        if let Some(o) = out.get_mut(at) {
            o.last_line = o.last_line.max(f.last_line);
            o.calls = o.calls.saturating_add(f.calls);
        }
        if let Some(m) = merged.get_mut(i) {
            *m = Some(at);
        }
    }
    let mut by_line: HashMap<(usize, u32), usize> = HashMap::new();
    let mut places: SlotPlaces = vec![None; t.slots.len()];
    for (i, slot) in t.slots.iter().enumerate().skip(1) {
        let function = merged.get(slot.function as usize).copied().flatten();
        let Some((at, f)) = function.and_then(|at| out.get_mut(at).map(|f| (at, f))) else {
            doubts.note("a line belongs to no function");
            continue;
        };
        let line = *by_line.entry((at, slot.line)).or_insert_with(|| {
            f.lines.push(Line { line: slot.line, ..Line::default() });
            f.lines.len() - 1
        });
        if let Some(l) = f.lines.get_mut(line) {
            add_slot(l, slot);
            l.slots.push(i as u32);
        }
        if let Some(place) = places.get_mut(i) {
            *place = Some((at, line));
        }
    }
    (out, places)
}

fn add_slot(line: &mut Line, slot: &Slot) {
    line.occurrences = line.occurrences.saturating_add(slot.occurrences);
    // The highest reading counts, with what was in use and stranded at that moment.
    if slot.readings != 0 && (line.readings == 0 || slot.rss > line.rss) {
        line.rss = slot.rss;
        line.in_use_at_rss = slot.in_use_at_rss;
        line.stranded_at_rss = slot.stranded_at_rss;
    }
    line.readings = line.readings.saturating_add(slot.readings);
    line.rss_increment = line.rss_increment.saturating_add(slot.rss_increment);
    line.stranded_increment = line.stranded_increment.saturating_add(slot.stranded_increment);
    line.peak = line.peak.max(slot.peak);
}

/// Adds what was allocated and freed under each line.
///
/// A line is charged with every set of lines that contains it. Sets form a tree, so that is
/// the sum over the subtrees below the outermost sets that have the line on top.
fn with_amounts(t: &Tables, mut functions: Vec<Function>, slots: &SlotPlaces) -> Vec<Function> {
    let n = t.contexts.len();
    let mut sums = vec![Sums::default(); n];
    for (_, tag) in own_tags(t) {
        if let Some(s) = sums.get_mut(tag.context as usize) {
            s.allocated += tag.allocated as i128;
            s.in_use += tag.inherited as i128 + tag.allocated as i128 - total_freed(tag);
        }
    }
    for (s, c) in sums.iter_mut().zip(&t.contexts) {
        s.freed += c.freed as i128 + c.freed_native as i128;
    }
    // A parent comes before its children (`tables` made sure): one pass from the end adds up
    // the subtrees, and builds the lists of children in order.
    let mut first_child = vec![0usize; n];
    let mut next = vec![0usize; n];
    for (i, c) in t.contexts.iter().enumerate().skip(1).rev() {
        let Some(own) = sums.get(i).copied() else { continue };
        let parent = c.parent as usize;
        if let Some(p) = sums.get_mut(parent) {
            p.allocated += own.allocated;
            p.in_use += own.in_use;
            p.freed += own.freed;
        }
        if let (Some(first), Some(mine)) = (first_child.get_mut(parent), next.get_mut(i)) {
            *mine = std::mem::replace(first, i);
        }
    }
    // Depth first, so that a line met below itself isn't charged twice.
    let mut active: HashMap<(usize, usize), u32> = HashMap::new();
    let mut totals: HashMap<(usize, usize), Sums> = HashMap::new();
    let mut todo = vec![(first_child.first().copied().unwrap_or(0), false)];
    while let Some((i, leaving)) = todo.pop() {
        let (Some(c), true) = (t.contexts.get(i), i != 0) else { continue };
        let place = slots.get(c.slot as usize).copied().flatten();
        if leaving {
            if let Some(depth) = place.and_then(|p| active.get_mut(&p)) {
                *depth = depth.saturating_sub(1);
            }
            continue;
        }
        if let (Some(p), Some(own)) = (place, sums.get(i)) {
            let depth = active.entry(p).or_insert(0);
            if *depth == 0 {
                let total = totals.entry(p).or_default();
                total.allocated += own.allocated;
                total.in_use += own.in_use;
                total.freed += own.freed;
            }
            *depth += 1;
        }
        todo.push((next.get(i).copied().unwrap_or(0), false));
        todo.push((i, true));
        todo.push((first_child.get(i).copied().unwrap_or(0), false));
    }
    for ((f, l), total) in totals {
        if let Some(line) = functions.get_mut(f).and_then(|f| f.lines.get_mut(l)) {
            line.allocated = unsigned(total.allocated);
            line.freed = unsigned(total.freed);
            line.in_use = unsigned(total.in_use);
        }
    }
    for f in &mut functions {
        f.lines.sort_by_key(|l| l.line);
    }
    functions
}
