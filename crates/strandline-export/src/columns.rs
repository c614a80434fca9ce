//! The columns of the tables, the same for Parquet and CSV.

use std::borrow::Cow;

use crate::names;
use crate::stack_id::{self, StackId};
use crate::view::{Row, View};

/// A process's rows, with what is worked out once for all of them.
pub struct Part<'a> {
    /// The rows.
    pub view: View<'a>,
    ids: Vec<StackId>,
}

impl<'a> Part<'a> {
    /// Of a process.
    pub fn of(view: View<'a>) -> Part<'a> {
        let ids = stack_id::ids(&view.tree);
        Part { view, ids }
    }
}

/// Text of a row.
type Text = for<'p> fn(&'p Part<'p>, &Row) -> Cow<'p, str>;

/// What a column holds.
pub enum Column {
    /// A number.
    Number(fn(&Part<'_>, &Row) -> u64),
    /// A text.
    Text(Text),
    /// The whole stack, outermost first.
    Stack,
}

/// All columns with their names, in order.
pub const COLUMNS: [(&str, Column); 22] = [
    ("pid", Column::Number(|part, _| part.view.process.pid.into())),
    ("started_unix_ns", Column::Number(|part, _| part.view.process.started)),
    ("thread", Column::Text(|part, row| part.view.thread_name(row))),
    ("tid", Column::Number(|part, row| part.view.thread(row).map_or(0, |t| t.tid.into()))),
    ("domain", Column::Text(|_, row| names::domain(row.domain).into())),
    ("stack_id", Column::Text(id)),
    ("function", Column::Text(function)),
    ("file", Column::Text(|part, row| part.view.leaf(row).map_or("", |p| p.file).into())),
    ("line", Column::Number(|part, row| part.view.leaf(row).map_or(0, |p| p.line.into()))),
    ("stack", Column::Stack),
    ("allocated_bytes", Column::Number(|_, row| row.allocated.bytes)),
    ("allocated_blocks", Column::Number(|_, row| row.allocated.blocks)),
    ("freed_bytes", Column::Number(|_, row| row.freed.bytes)),
    ("freed_blocks", Column::Number(|_, row| row.freed.blocks)),
    ("in_use_bytes", Column::Number(|_, row| row.in_use.bytes)),
    ("in_use_blocks", Column::Number(|_, row| row.in_use.blocks)),
    ("at_peak_bytes", Column::Number(|_, row| row.at_peak.bytes)),
    ("at_peak_blocks", Column::Number(|_, row| row.at_peak.blocks)),
    ("at_rss_peak_bytes", Column::Number(|_, row| row.at_rss_peak.bytes)),
    ("at_rss_peak_blocks", Column::Number(|_, row| row.at_rss_peak.blocks)),
    ("temporary_bytes", Column::Number(|_, row| row.temporary.bytes)),
    ("temporary_blocks", Column::Number(|_, row| row.temporary.blocks)),
];

fn id<'p>(part: &'p Part<'p>, row: &Row) -> Cow<'p, str> {
    part.ids.get(row.node as usize).map(stack_id::hex).unwrap_or_default().into()
}

fn function<'p>(part: &'p Part<'p>, row: &Row) -> Cow<'p, str> {
    part.view.leaf(row).map_or("", |p| &*p.function).into()
}
