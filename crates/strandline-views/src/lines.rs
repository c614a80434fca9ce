//! The ledger of a source file: what each of its lines allocated.

use rustc_hash::FxHashMap;
use serde::Serialize;
use strandline_profile::{Amount, Weight};
use strandline_report::{Source, Sources};

use crate::error::{named, ViewError};
use crate::group::{By, Groups};
use crate::merge::Merged;
use crate::run::{first_run, RunRow};
use crate::sums::{largest, own, total, with_callees, Children};
use crate::table::own_by_group;

/// Every figure of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// In use when most was in use.
    pub at_peak: Amount,
    /// In use at the end.
    pub in_use: Amount,
    /// All that was allocated.
    pub allocated: Amount,
    /// Allocated and freed again at once.
    pub temporary: Amount,
}

/// The figures, in the order of [`Figures`].
const WEIGHTS: [Weight; 4] = [Weight::Peak, Weight::InUse, Weight::Allocated, Weight::Temporary];

/// A line with allocations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerLine {
    /// Its number; none: unknown.
    pub line: Option<u32>,
    /// Allocated by the line itself.
    pub own: Figures,
    /// Allocated by the line and all that it calls.
    pub total: Figures,
    /// Its text, if the file can be read.
    pub source: Option<String>,
}

/// A file with allocations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileLines<'p> {
    /// As the program names it.
    pub file: &'p str,
    /// The sum of its lines' own figures.
    pub own: Figures,
    /// The lines, in order.
    pub lines: Vec<LedgerLine>,
}

/// The ledger of the files that were asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Ledger<'p> {
    /// Name of the format.
    pub schema: &'static str,
    /// How the profile was made.
    pub run: Option<RunRow<'p>>,
    /// The files whose name ends as was asked for, by name.
    pub files: Vec<FileLines<'p>>,
}

impl<'m> Ledger<'m> {
    /// The ledger of every file whose name is `wanted`, or ends in it.
    pub fn new(
        merged: &'m Merged<'m>,
        wanted: &str,
        sources: &dyn Sources,
    ) -> Result<Ledger<'m>, ViewError> {
        let groups = Groups::new(merged, By::Line);
        let (own, total) = figures(merged, &groups);
        let mut files: FxHashMap<&'m str, Vec<u32>> = FxHashMap::default();
        for group in 0..groups.len() as u32 {
            if figure(&total, group) != Figures::default() {
                files.entry(groups.place(merged, group).file).or_default().push(group);
            }
        }
        let mut names: Vec<&'m str> = files.keys().copied().collect();
        names.sort_unstable();
        let fits: Vec<&str> = names.iter().copied().filter(|file| ends_in(file, wanted)).collect();
        if fits.is_empty() {
            return Err(no_file(merged, wanted));
        }
        let file = |name: &'m str| {
            let text = sources.bytes(name).map(|bytes| Source::from_bytes(&bytes));
            let mut lines: Vec<LedgerLine> = files
                .get(name)
                .into_iter()
                .flatten()
                .map(|&group| {
                    let line = groups.place(merged, group).line;
                    let source = text.as_ref().and_then(|t| t.line(line)).map(str::to_owned);
                    LedgerLine {
                        line: Some(line).filter(|&l| l != 0),
                        own: figure(&own, group),
                        total: figure(&total, group),
                        source,
                    }
                })
                .collect();
            lines.sort_by_key(|line| line.line);
            let own = lines.iter().fold(Figures::default(), |sum, line| plus(sum, line.own));
            FileLines { file: name, own, lines }
        };
        let files = fits.into_iter().map(file).collect();
        Ok(Ledger { schema: "strandline-lines/1", run: first_run(merged), files })
    }
}

type Columns = Vec<Vec<Amount>>;

/// Own figures and those with callees, one table by group for each of [`WEIGHTS`].
fn figures(merged: &Merged, groups: &Groups) -> (Columns, Columns) {
    let by_node = WEIGHTS.map(|weight| own(merged, weight, |_| true));
    let own = by_node.iter().map(|own| own_by_group(merged, groups, own)).collect();
    let totals = by_node.map(|own| total(merged, &own));
    let children = Children::of(merged);
    let tables = totals.each_ref().map(Vec::as_slice);
    let total = with_callees(merged, &children, &groups.of_place, groups.len(), &tables);
    (own, total)
}

fn figure(columns: &Columns, group: u32) -> Figures {
    let of = |i: usize| {
        columns.get(i).and_then(|column| column.get(group as usize)).copied().unwrap_or_default()
    };
    Figures { at_peak: of(0), in_use: of(1), allocated: of(2), temporary: of(3) }
}

fn plus(a: Figures, b: Figures) -> Figures {
    Figures {
        at_peak: a.at_peak.plus(b.at_peak),
        in_use: a.in_use.plus(b.in_use),
        allocated: a.allocated.plus(b.allocated),
        temporary: a.temporary.plus(b.temporary),
    }
}

/// The whole name, or the last parts of the path.
fn ends_in(file: &str, wanted: &str) -> bool {
    let wanted = wanted.strip_prefix("./").unwrap_or(wanted);
    let Some(before) = file.strip_suffix(wanted) else { return false };
    !wanted.is_empty() && (before.is_empty() || before.ends_with('/') || wanted.starts_with('/'))
}

fn no_file(merged: &Merged, wanted: &str) -> ViewError {
    let groups = Groups::new(merged, By::File);
    let sums = own_by_group(merged, &groups, &own(merged, Weight::Allocated, |_| true));
    let bytes = |group: u32| sums.get(group as usize).map_or(0, |amount| amount.bytes);
    let files = largest(1..groups.len() as u32, 5, bytes).into_iter();
    let names = files.map(|group| groups.place(merged, group).file.to_owned());
    ViewError::NoFile {
        name: wanted.to_owned(),
        known: named(names.filter(|name| !name.is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_last_parts() {
        assert!(ends_in("/srv/app/cache.py", "app/cache.py"));
        assert!(ends_in("/srv/app/cache.py", "./cache.py"));
        assert!(ends_in("/srv/app/cache.py", "/srv/app/cache.py"));
        assert!(ends_in("/srv/app/cache.py", "/cache.py"));
        assert!(ends_in("<string>", "<string>"));
        assert!(!ends_in("/srv/app/cache.py", "ache.py"));
        assert!(!ends_in("/srv/app/cache.py", ""));
    }
}
