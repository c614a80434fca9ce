//! Figures of a profile as a whole.

use serde::Serialize;
use strandline_profile::{Amount, Domain, Path, Weight};

use crate::histogram::{Lifetimes, Sizes};
use crate::lines::Figures;
use crate::merge::Merged;
use crate::place::{domain_name, CallPath, DOMAINS};
use crate::run::{first_run, ProcessRow, RunRow};
use crate::sums::{largest, own, share};

/// What one allocator was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct DomainRow {
    /// `object`, `mem`, `raw`, `malloc` or `mmap`.
    pub domain: &'static str,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// The allocator, for the text.
    #[serde(skip)]
    pub is: Domain,
}

/// A call path that allocated much.
#[derive(Debug, Clone, Serialize)]
pub struct LargePath<'m> {
    /// Its places.
    pub path: CallPath<'m>,
    /// All that was allocated there.
    pub allocated: Amount,
}

/// Figures of a profile as a whole.
#[derive(Debug, Clone, Serialize)]
pub struct Stats<'m> {
    /// Name of the format.
    pub schema: &'static str,
    /// How the profile was made.
    pub run: Option<RunRow<'m>>,
    /// The processes that are summed up.
    pub processes: Vec<ProcessRow<'m>>,
    /// The sum of all call paths.
    pub total: Figures,
    /// Percent of all allocations, by number, that were temporary.
    pub temporary_share: f64,
    /// Number of call paths that allocated.
    pub path_count: usize,
    /// Number of places in code (lines of functions) on them.
    pub place_count: usize,
    /// Number of threads that allocated.
    pub thread_count: usize,
    /// Places on the longest call path.
    pub deepest: usize,
    /// By allocator.
    pub domains: Vec<DomainRow>,
    /// Allocations by size.
    pub sizes: Sizes,
    /// Freed blocks by lifetime.
    pub lifetimes: Lifetimes,
    /// The call paths that allocated most bytes.
    pub most_bytes: Vec<LargePath<'m>>,
    /// The call paths that allocated most blocks.
    pub most_blocks: Vec<LargePath<'m>>,
}

impl<'m> Stats<'m> {
    /// With the `top` largest call paths.
    pub fn new(merged: &'m Merged<'m>, top: usize) -> Stats<'m> {
        let allocated = own(merged, Weight::Allocated, |_| true);
        let at = |node: u32| allocated.get(node as usize).copied().unwrap_or_default();
        let used = || (0..allocated.len() as u32).filter(|&node| at(node) != Amount::default());
        let row = |node| LargePath { path: merged.call_path(node), allocated: at(node) };
        let by_bytes = largest(used(), top, |node| (at(node).bytes, at(node).blocks));
        let by_blocks = largest(used(), top, |node| (at(node).blocks, at(node).bytes));
        let domains = domains(merged);
        let total = domains.iter().fold(Figures::default(), |sum, row| Figures {
            at_peak: sum.at_peak.plus(row.figures.at_peak),
            in_use: sum.in_use.plus(row.figures.in_use),
            allocated: sum.allocated.plus(row.figures.allocated),
            temporary: sum.temporary.plus(row.figures.temporary),
        });
        Stats {
            schema: "strandline-stats/1",
            run: first_run(merged),
            processes: ProcessRow::all(merged, 0),
            total,
            temporary_share: share(total.temporary.blocks, total.allocated.blocks),
            path_count: used().count(),
            place_count: merged.places().len() - 1,
            thread_count: thread_count(merged),
            deepest: deepest(merged),
            domains,
            sizes: Sizes::of(merged),
            lifetimes: Lifetimes::of(merged),
            most_bytes: by_bytes.into_iter().map(row).collect(),
            most_blocks: by_blocks.into_iter().map(row).collect(),
        }
    }
}

fn domains(merged: &Merged) -> Vec<DomainRow> {
    let mut rows: Vec<DomainRow> = DOMAINS
        .into_iter()
        .map(|is| DomainRow { domain: domain_name(is), figures: Figures::default(), is })
        .collect();
    for entry in merged.entries() {
        if let Some(row) = rows.get_mut(entry.path.domain as usize) {
            count(&mut row.figures, entry.path);
        }
    }
    rows.retain(|row| row.figures != Figures::default());
    rows
}

fn count(sum: &mut Figures, path: &Path) {
    sum.at_peak = sum.at_peak.plus(path.at_peak);
    sum.in_use = sum.in_use.plus(path.in_use());
    sum.allocated = sum.allocated.plus(path.allocated);
    sum.temporary = sum.temporary.plus(path.temporary);
}

fn thread_count(merged: &Merged) -> usize {
    let threads: rustc_hash::FxHashSet<(usize, u32)> =
        merged.entries().map(|entry| (entry.part, entry.path.thread)).collect();
    threads.len()
}

fn deepest(merged: &Merged) -> usize {
    let mut depth = vec![0u32; merged.node_count()];
    let mut most = 0;
    for node in 1..depth.len() {
        let parent = merged.parent(node as u32) as usize;
        let of_node = depth.get(parent).map_or(1, |d| d + 1);
        most = most.max(of_node);
        if let Some(slot) = depth.get_mut(node) {
            *slot = of_node;
        }
    }
    most as usize
}
