//! What every format is made of: a process's call paths with their figures, each once.

use std::borrow::Cow;

use strandline_profile::{Amount, Domain, Path, Process, Thread, Weight};

use crate::names;
use crate::tree::{Place, Tree};

/// What one call path allocated, on one thread in one domain.
#[derive(Debug, Clone, Copy, Default)]
pub struct Row {
    /// Index into [`Tree::nodes`], never the root.
    pub node: u32,
    /// Index into [`Process::threads`].
    pub thread: u32,
    /// The allocator that was asked.
    pub domain: Domain,
    /// The figures, see [`Path`].
    pub allocated: Amount,
    /// See [`Path::freed`].
    pub freed: Amount,
    /// See [`Path::in_use`].
    pub in_use: Amount,
    /// See [`Path::at_peak`].
    pub at_peak: Amount,
    /// See [`Path::at_rss_peak`].
    pub at_rss_peak: Amount,
    /// See [`Path::temporary`].
    pub temporary: Amount,
}

impl Row {
    fn of(path: &Path, tree: &Tree<'_>) -> Row {
        Row {
            node: tree.node(path.node),
            thread: path.thread,
            domain: path.domain,
            allocated: path.allocated,
            freed: path.freed,
            in_use: path.in_use(),
            at_peak: path.at_peak,
            at_rss_peak: path.at_rss_peak,
            temporary: path.temporary,
        }
    }

    fn key(&self) -> (u32, u32, Domain) {
        (self.node, self.thread, self.domain)
    }

    fn add(&mut self, other: &Row) {
        self.allocated = self.allocated.plus(other.allocated);
        self.freed = self.freed.plus(other.freed);
        self.in_use = self.in_use.plus(other.in_use);
        self.at_peak = self.at_peak.plus(other.at_peak);
        self.at_rss_peak = self.at_rss_peak.plus(other.at_rss_peak);
        self.temporary = self.temporary.plus(other.temporary);
    }

    /// A figure.
    pub fn amount(&self, weight: Weight) -> Amount {
        match weight {
            Weight::Peak => self.at_peak,
            Weight::RssPeak => self.at_rss_peak,
            Weight::InUse => self.in_use,
            Weight::Allocated => self.allocated,
            Weight::Temporary => self.temporary,
        }
    }
}

/// A process's call paths.
#[derive(Debug)]
pub struct View<'a> {
    /// The process.
    pub process: &'a Process,
    /// Its call paths' texts.
    pub tree: Tree<'a>,
    /// Its call paths, depth first.
    pub rows: Vec<Row>,
}

impl<'a> View<'a> {
    /// Of a process.
    pub fn of(process: &'a Process) -> View<'a> {
        let tree = Tree::of(process);
        let mut rows: Vec<Row> = process.paths.iter().map(|p| Row::of(p, &tree)).collect();
        rows.sort_by_key(Row::key);
        rows.dedup_by(|next, kept| {
            let same = next.key() == kept.key();
            if same {
                kept.add(next);
            }
            same
        });
        View { process, tree, rows }
    }

    /// The innermost place of a row.
    pub fn leaf(&self, row: &Row) -> Option<&Place<'a>> {
        self.tree.places.get(self.tree.place(row.node) as usize)
    }

    /// A row's thread.
    pub fn thread(&self, row: &Row) -> Option<&'a Thread> {
        self.process.threads.get(row.thread as usize)
    }

    /// The name of a row's thread.
    pub fn thread_name(&self, row: &Row) -> Cow<'a, str> {
        self.thread(row).map_or(Cow::Borrowed(names::UNKNOWN), names::thread)
    }

    /// Bytes by call path, threads and domains added up; only what isn't 0.
    pub fn by_node(&self, weight: Weight) -> impl Iterator<Item = (u32, u64)> + '_ {
        let same = |a: &Row, b: &Row| a.node == b.node;
        self.rows.chunk_by(same).filter_map(move |rows| {
            let bytes =
                rows.iter().fold(0, |sum: u64, row| sum.saturating_add(row.amount(weight).bytes));
            rows.first().filter(|_| bytes > 0).map(|row| (row.node, bytes))
        })
    }
}

#[cfg(test)]
mod tests {
    use strandline_profile::Builder;

    use super::*;

    #[test]
    fn equal_paths_are_added_up() {
        let mut b = Builder::new();
        let node = b.python_path([("f", "a.py", 1)]);
        let amount = |bytes| Amount { bytes, blocks: 1 };
        let path = |thread, bytes| Path {
            node,
            thread,
            allocated: amount(bytes),
            freed: amount(bytes / 2),
            ..Path::default()
        };
        b.process().paths = vec![path(0, 10), path(1, 4), path(0, 30)];
        let process = b.finish();
        let view = View::of(&process);
        assert_eq!(view.rows.len(), 2);
        assert_eq!(view.rows[0].allocated, Amount { bytes: 40, blocks: 2 });
        assert_eq!(view.rows[0].in_use, Amount { bytes: 20, blocks: 0 });
        let by_node: Vec<_> = view.by_node(Weight::Allocated).collect();
        assert_eq!(by_node, [(view.tree.node(node), 44)]);
        assert_eq!(view.by_node(Weight::Peak).count(), 0);
    }
}
