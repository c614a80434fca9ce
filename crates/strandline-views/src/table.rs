//! One figure by call path, line, function, file, thread or allocator.

use rustc_hash::FxHashMap;
use serde::Serialize;
use strandline_profile::{Amount, Domain, Weight};

use crate::error::ViewError;
use crate::group::{By, Groups};
use crate::merge::{is_thread, Entry, Merged};
use crate::place::{Key, DOMAINS};
use crate::run::{first_run, RunRow};
use crate::sums::{add, largest, own, share, sum, total, with_callees, Children};
use crate::types::TypeSums;

/// What the rows of a table are sorted by, the largest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// Bytes of their own.
    #[default]
    Own,
    /// Bytes with callees.
    Total,
    /// Blocks of their own.
    Blocks,
}

impl Sort {
    /// All of them.
    pub const ALL: [Sort; 3] = [Sort::Own, Sort::Total, Sort::Blocks];

    /// A word for options and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Own => "own",
            Sort::Total => "total",
            Sort::Blocks => "blocks",
        }
    }

    /// What a word stands for.
    pub fn of_name(name: &str) -> Option<Sort> {
        Sort::ALL.into_iter().find(|sort| sort.name() == name)
    }
}

/// A row of a [`Table`].
#[derive(Debug, Clone, Serialize)]
pub struct Row<'m> {
    /// What it stands for.
    #[serde(flatten)]
    pub key: Key<'m>,
    /// Allocated by itself.
    pub own: Amount,
    /// Allocated by itself and all that it calls; none: calls mean nothing to it.
    pub total: Option<Amount>,
    /// Percent that [`Row::own`] is of the whole table.
    pub share: f64,
}

/// One figure of a profile, put together.
#[derive(Debug, Clone, Serialize)]
pub struct Table<'m> {
    /// Name of the format.
    pub schema: &'static str,
    /// How the profile was made.
    pub run: Option<RunRow<'m>>,
    /// The figure.
    pub weight: &'static str,
    /// What the rows stand for.
    pub by: &'static str,
    /// What they are sorted by.
    pub sort: &'static str,
    /// The sum of all rows, those that are not shown included.
    pub total: Amount,
    /// Number of rows with anything, those that are not shown included.
    pub row_count: usize,
    /// The first rows.
    pub rows: Vec<Row<'m>>,
    /// The figure itself, for the text.
    #[serde(skip)]
    pub figure: Weight,
    /// What the rows stand for, for the text.
    #[serde(skip)]
    pub group: By,
}

/// What a table is made of, before rows are chosen.
struct Sums {
    own: Vec<Amount>,
    total: Option<Vec<Amount>>,
}

impl<'m> Table<'m> {
    /// The `top` first rows of a figure. `thread`: of one thread, by name or id, only. Of types
    /// it is what was in use at the end, whatever the figure and the thread; an error if the
    /// profile says nothing of types.
    pub fn new(
        merged: &'m Merged<'m>,
        weight: Weight,
        by: By,
        sort: Sort,
        top: usize,
        thread: Option<&str>,
    ) -> Result<Table<'m>, ViewError> {
        let weight = if by == By::Type { Weight::InUse } else { weight };
        let keep = |e: &Entry| thread.is_none_or(|n| e.thread.is_some_and(|t| is_thread(t, n)));
        let (sums, keys): (Sums, Box<dyn Fn(u32) -> Key<'m> + 'm>) = match by {
            By::Path => {
                let own = own(merged, weight, keep);
                let mut total = total(merged, &own);
                // The root stands for what no code is known for, not for all.
                if let (Some(root), Some(&own)) = (total.first_mut(), own.first()) {
                    *root = own;
                }
                (
                    Sums { own, total: Some(total) },
                    Box::new(|node| Key::Path(merged.call_path(node))),
                )
            }
            By::Line | By::Function | By::File => {
                let groups = Groups::new(merged, by);
                let sums = grouped(merged, &groups, &own(merged, weight, keep));
                (sums, Box::new(move |group| groups.key(merged, group)))
            }
            By::Thread => by_thread(merged, weight, keep),
            By::Type => {
                let types = TypeSums::of(merged)?;
                let key =
                    move |i| Key::Type(types.names.get(i as usize).copied().unwrap_or_default());
                let own = types.sums.into_iter().next().unwrap_or_default();
                (Sums { own, total: None }, Box::new(key))
            }
            By::Domain => {
                let mut own = vec![Amount::default(); DOMAINS.len()];
                for entry in merged.entries().filter(keep) {
                    add(&mut own, entry.path.domain as u32, weight.of(entry.path));
                }
                let key = |i| Key::Domain(DOMAINS.get(i as usize).copied().unwrap_or_default());
                (Sums { own, total: None }, Box::new(key))
            }
        };
        let all = sum(&sums.own);
        let own_of = |i: u32| sums.own.get(i as usize).copied().unwrap_or_default();
        let total_of = |i: u32| sums.total.as_ref().and_then(|t| t.get(i as usize)).copied();
        // A path that only leads to others is no row; a line that only calls others is one.
        let is_row = |&i: &u32| {
            let calls = by != By::Path && total_of(i).unwrap_or_default() != Amount::default();
            own_of(i) != Amount::default() || calls
        };
        let rows: Vec<u32> = (0..sums.own.len() as u32).filter(is_row).collect();
        let row_count = rows.len();
        let key = |i: u32| {
            let (own, total) = (own_of(i), total_of(i).unwrap_or_default());
            match sort {
                Sort::Own => (own.bytes, total.bytes, own.blocks),
                Sort::Total => (total.bytes, own.bytes, own.blocks),
                Sort::Blocks => (own.blocks, own.bytes, total.bytes),
            }
        };
        let rows = largest(rows, top, key).into_iter().map(|i| Row {
            key: keys(i),
            own: own_of(i),
            total: total_of(i),
            share: share(own_of(i).bytes, all.bytes),
        });
        Ok(Table {
            schema: "strandline-table/1",
            run: first_run(merged),
            weight: weight.name(),
            by: by.name(),
            sort: sort.name(),
            total: all,
            row_count,
            rows: rows.collect(),
            figure: weight,
            group: by,
        })
    }
}

fn grouped(merged: &Merged, groups: &Groups, own: &[Amount]) -> Sums {
    let by_node = total(merged, own);
    let children = Children::of(merged);
    let mut totals =
        with_callees(merged, &children, &groups.of_place, groups.len(), &[by_node.as_slice()]);
    let mut sums = Sums { own: own_by_group(merged, groups, own), total: totals.pop() };
    // No code is known there, so nothing is called from it but itself.
    if let (Some(total), Some(&own)) = (&mut sums.total, own.first()) {
        add(total, 0, own);
    }
    sums
}

/// What each group allocated itself.
pub(crate) fn own_by_group(merged: &Merged, groups: &Groups, own: &[Amount]) -> Vec<Amount> {
    let mut sums = vec![Amount::default(); groups.len()];
    for (node, &amount) in own.iter().enumerate() {
        add(&mut sums, groups.of_own(merged, node as u32), amount);
    }
    sums
}

fn by_thread<'m>(
    merged: &'m Merged<'m>,
    weight: Weight,
    keep: impl Fn(&Entry) -> bool,
) -> (Sums, Box<dyn Fn(u32) -> Key<'m> + 'm>) {
    let mut known: FxHashMap<(usize, u32), u32> = FxHashMap::default();
    let mut keys = Vec::new();
    let mut own = Vec::new();
    for entry in merged.entries().filter(keep) {
        let i = *known.entry((entry.part, entry.path.thread)).or_insert_with(|| {
            let pid = merged.parts().get(entry.part).map_or(0, |part| part.process.pid);
            let (name, tid) = entry.thread.map_or(("", 0), |t| (t.name.as_str(), t.tid));
            keys.push(Key::Thread { name, tid, pid });
            own.push(Amount::default());
            (own.len() - 1) as u32
        });
        add(&mut own, i, weight.of(entry.path));
    }
    let key = move |i: u32| keys.get(i as usize).copied().unwrap_or(Key::Domain(Domain::default()));
    (Sums { own, total: None }, Box::new(key))
}
