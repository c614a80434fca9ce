//! The summary of a profile: what a person looks at first.

use rustc_hash::FxHashMap;
use serde::Serialize;
use strandline_profile::{Amount, Weight};
use strandline_report::{Source, Sources};

use crate::group::{By, Groups};
use crate::histogram::{Lifetimes, Sizes};
use crate::merge::Merged;
use crate::place::{CallPath, Place};
use crate::run::{first_run, ProcessRow, RunRow};
use crate::sums::{add, largest, own, share, sum, total, with_callees, Children};
use crate::table::own_by_group;

/// The figures of the sections, in their order.
const WEIGHTS: [Weight; 3] = [Weight::Peak, Weight::InUse, Weight::Temporary];

/// A call path of a section.
#[derive(Debug, Clone, Serialize)]
pub struct PathRow<'m> {
    /// Its places.
    pub path: CallPath<'m>,
    /// Allocated at its innermost place.
    pub own: Amount,
    /// Percent of the section.
    pub share: f64,
}

/// A line of a section.
#[derive(Debug, Clone, Serialize)]
pub struct LineRow<'m> {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place<'m>,
    /// Allocated by the line itself.
    pub own: Amount,
    /// Allocated by the line and all that it calls.
    pub total: Amount,
    /// Percent that its own bytes are of the section.
    pub share: f64,
    /// Its text, if the file can be read.
    pub source: Option<String>,
}

/// One figure of the profile: the places with most of it.
#[derive(Debug, Clone, Serialize)]
pub struct Section<'m> {
    /// All of it.
    pub total: Amount,
    /// Number of call paths with any.
    pub path_count: usize,
    /// Number of lines with any of their own.
    pub line_count: usize,
    /// The call paths with most.
    pub paths: Vec<PathRow<'m>>,
    /// The lines with most of their own.
    pub lines: Vec<LineRow<'m>>,
}

/// A thread of one of the processes.
#[derive(Debug, Clone, Serialize)]
pub struct ThreadRow<'m> {
    /// Its name; none: unknown.
    pub thread: Option<&'m str>,
    /// Kernel's thread id; none: unknown.
    pub tid: Option<u32>,
    /// Its process.
    pub pid: u32,
    /// What it allocated.
    pub allocated: Amount,
    /// Of it, what was in use when most was in use.
    pub at_peak: Amount,
    /// Of it, what is in use at the end.
    pub in_use: Amount,
}

/// The summary.
#[derive(Debug, Clone, Serialize)]
pub struct Report<'m> {
    /// Name of the format.
    pub schema: &'static str,
    /// How the profile was made.
    pub run: Option<RunRow<'m>>,
    /// The processes that are summed up.
    pub processes: Vec<ProcessRow<'m>>,
    /// What was in use when most was in use.
    pub at_peak: Section<'m>,
    /// What is in use at the end.
    pub in_use: Section<'m>,
    /// What was freed again at once.
    pub temporary: Section<'m>,
    /// All allocations.
    pub allocated: Amount,
    /// The threads that allocated most.
    pub threads: Vec<ThreadRow<'m>>,
    /// Number of threads that allocated.
    pub thread_count: usize,
    /// Allocations by size.
    pub sizes: Sizes,
    /// Freed blocks by lifetime.
    pub lifetimes: Lifetimes,
}

impl<'m> Report<'m> {
    /// With the `top` largest of each.
    pub fn new(merged: &'m Merged<'m>, top: usize, sources: &dyn Sources) -> Report<'m> {
        let groups = Groups::new(merged, By::Line);
        let mut files = Files { sources, known: FxHashMap::default() };
        let own = WEIGHTS.map(|weight| own(merged, weight, |_| true));
        let totals = own.each_ref().map(|own| total(merged, own));
        // One walk for all figures: it is what takes longest.
        let tables = totals.each_ref().map(Vec::as_slice);
        let children = Children::of(merged);
        let by_line = with_callees(merged, &children, &groups.of_place, groups.len(), &tables);
        let mut by_line = by_line.into_iter();
        let [at_peak, in_use, temporary] = own.map(|own| {
            let total = by_line.next().unwrap_or_default();
            section(merged, &groups, own, total, top, &mut files)
        });
        let (thread_count, threads) = threads(merged, top);
        Report {
            schema: "strandline-report/1",
            run: first_run(merged),
            processes: ProcessRow::all(merged, 0),
            at_peak,
            in_use,
            temporary,
            allocated: allocated(merged),
            threads,
            thread_count,
            sizes: Sizes::of(merged),
            lifetimes: Lifetimes::of(merged),
        }
    }
}

/// `own`: by node. `by_line`: with callees, by line.
fn section<'m>(
    merged: &'m Merged<'m>,
    groups: &Groups,
    own: Vec<Amount>,
    mut by_line: Vec<Amount>,
    top: usize,
    files: &mut Files,
) -> Section<'m> {
    let all = sum(&own);
    add(&mut by_line, 0, own.first().copied().unwrap_or_default());
    let own_by_line = own_by_group(merged, groups, &own);
    let at = |table: &[Amount], i: u32| table.get(i as usize).copied().unwrap_or_default();
    let some = |table: &[Amount]| -> Vec<u32> {
        (0..table.len() as u32).filter(|&i| at(table, i) != Amount::default()).collect()
    };
    let key = |amount: Amount| (amount.bytes, amount.blocks);
    let (nodes, lines) = (some(&own), some(&own_by_line));
    Section {
        total: all,
        path_count: nodes.len(),
        line_count: lines.len(),
        paths: largest(nodes, top, |node| key(at(&own, node)))
            .into_iter()
            .map(|node| PathRow {
                path: merged.call_path(node),
                own: at(&own, node),
                share: share(at(&own, node).bytes, all.bytes),
            })
            .collect(),
        lines: largest(lines, top, |line| key(at(&own_by_line, line)))
            .into_iter()
            .map(|line| {
                let (place, own) = (groups.place(merged, line), at(&own_by_line, line));
                LineRow {
                    place,
                    own,
                    total: at(&by_line, line),
                    share: share(own.bytes, all.bytes),
                    source: files.line(place.file, place.line),
                }
            })
            .collect(),
    }
}

fn allocated(merged: &Merged) -> Amount {
    merged.entries().fold(Amount::default(), |sum, entry| sum.plus(entry.path.allocated))
}

/// Number of threads that allocated, and the largest of them.
fn threads<'m>(merged: &'m Merged<'m>, top: usize) -> (usize, Vec<ThreadRow<'m>>) {
    let mut known: FxHashMap<(usize, u32), usize> = FxHashMap::default();
    let mut rows: Vec<ThreadRow<'m>> = Vec::new();
    for entry in merged.entries() {
        let i = *known.entry((entry.part, entry.path.thread)).or_insert_with(|| {
            let (name, tid) = entry.thread.map_or(("", 0), |t| (t.name.as_str(), t.tid));
            rows.push(ThreadRow {
                thread: crate::place::known(name),
                tid: Some(tid).filter(|&tid| tid != 0),
                pid: merged.parts().get(entry.part).map_or(0, |part| part.process.pid),
                allocated: Amount::default(),
                at_peak: Amount::default(),
                in_use: Amount::default(),
            });
            rows.len() - 1
        });
        if let Some(row) = rows.get_mut(i) {
            row.allocated = row.allocated.plus(entry.path.allocated);
            row.at_peak = row.at_peak.plus(entry.path.at_peak);
            row.in_use = row.in_use.plus(entry.path.in_use());
        }
    }
    let count = rows.len();
    rows.sort_by_key(|row| std::cmp::Reverse((row.allocated.bytes, row.allocated.blocks)));
    rows.truncate(top);
    (count, rows)
}

/// Source files, each read once.
struct Files<'s> {
    sources: &'s dyn Sources,
    known: FxHashMap<String, Option<Source>>,
}

impl Files<'_> {
    /// Text of a line without what surrounds it.
    fn line(&mut self, file: &str, line: u32) -> Option<String> {
        if line == 0 {
            return None;
        }
        if !self.known.contains_key(file) {
            let source = self.sources.bytes(file).map(|bytes| Source::from_bytes(&bytes));
            self.known.insert(file.to_owned(), source);
        }
        let text = self.known.get(file)?.as_ref()?.line(line)?;
        Some(text.trim().to_owned())
    }
}
