//! The call tree as text.

use std::fmt::Write;

use strandline_report::text::wrapped;

use super::names::{inwards, outwards, OUTSIDE};
use super::run::facts;
use super::table::sentence;
use super::words::{columns, counted, mib, percent};
use super::{Look, FAINT, HEADING};
use crate::tree::{CallTree, TreeRow};

/// Least columns for the calls of a row, however deep it is.
const LEAST: usize = 30;
/// Levels that are shown by moving to the right; deeper ones stand no further.
const INDENTED: u32 = 40;

/// Renders a tree.
pub fn render(tree: &CallTree, look: &Look) -> String {
    let mut out = String::new();
    if let Some(run) = &tree.run {
        let _ = writeln!(out, "{}\n", wrapped(&facts(run), 0, look.width));
    }
    let title = match tree.inverted {
        false => "each call above what it calls",
        true => "each call above its callers",
    };
    let of = tree.thread.as_ref().map_or_else(String::new, |name| {
        format!(", thread {}", strandline_report::text::printable(name))
    });
    let title = format!("{}{of}: {title}", sentence(tree.figure.title()));
    let _ = writeln!(out, "{}\n", look.paint(HEADING, &title));
    let figures = |row: &TreeRow| [mib(row.total.bytes), percent(row.share), own(tree, row)];
    let heads = match tree.inverted {
        false => ["With callees", "Share", "Itself"],
        true => ["Bytes", "Share", ""],
    };
    let mut widths = heads.map(str::len);
    for row in &tree.rows {
        for (width, cell) in widths.iter_mut().zip(figures(row)) {
            *width = (*width).max(columns(&cell));
        }
    }
    let join = |cells: [String; 3]| -> String {
        let pad = |(cell, width): (&String, &usize)| match width {
            0 => String::new(),
            _ => format!("{cell:>width$}   "),
        };
        cells.iter().zip(&widths).map(pad).collect()
    };
    let head = join(heads.map(str::to_owned));
    let _ = writeln!(out, "{}", look.paint(HEADING, head.trim_end()));
    let is_last = last_ones(&tree.rows);
    // Whether a line goes on at each level left of the row.
    let mut open: Vec<bool> = Vec::new();
    for (row, last) in tree.rows.iter().zip(is_last) {
        open.truncate(row.depth.saturating_sub(1) as usize);
        let lines = indent(look, row, &open, last);
        open.push(!last);
        if row.depth == 0 {
            open.clear();
        }
        let start = format!("{}{}", join(figures(row)), look.paint(FAINT, &lines));
        let used = columns(&head) + columns(&lines);
        let room = look.width.saturating_sub(used).max(LEAST);
        let _ = writeln!(out, "{start}{}", text(look, tree, row, room).trim_end());
    }
    out
}

fn own(tree: &CallTree, row: &TreeRow) -> String {
    match row.own.bytes == 0 || tree.inverted {
        true => String::new(),
        false => mib(row.own.bytes),
    }
}

fn text(look: &Look, tree: &CallTree, row: &TreeRow, room: usize) -> String {
    if let Some(omitted) = row.omitted {
        let (one, several) = match tree.inverted {
            false => ("more call", "more calls"),
            true => ("more caller", "more callers"),
        };
        return look.paint(FAINT, &format!("({})", counted(omitted as u64, one, several)));
    }
    match row.calls.is_empty() {
        true if row.depth == 0 => "all".to_owned(),
        true => OUTSIDE.to_owned(),
        false if tree.inverted => outwards(look, row.calls.iter().copied(), room),
        false => inwards(look, row.calls.iter().copied(), room),
    }
}

fn indent(look: &Look, row: &TreeRow, open: &[bool], last: bool) -> String {
    if row.depth == 0 {
        return String::new();
    }
    let level = |go_on: &bool| match (look.boxes, go_on) {
        (true, true) => "│ ",
        _ => "  ",
    };
    let mut out: String = open.iter().take(INDENTED as usize).map(level).collect();
    out.push_str(match (look.boxes, last) {
        (false, _) => "  ",
        (true, false) => "├ ",
        (true, true) => "└ ",
    });
    if row.depth > INDENTED {
        out.push_str(&format!("[{}] ", row.depth));
    }
    out
}

/// Whether each row is the last one below its parent.
fn last_ones(rows: &[TreeRow]) -> Vec<bool> {
    let mut last_below = vec![None; rows.len()];
    for (i, row) in rows.iter().enumerate() {
        if let Some(slot) = row.parent.and_then(|parent| last_below.get_mut(parent)) {
            *slot = Some(i);
        }
    }
    let is_last = |(i, row): (usize, &TreeRow)| {
        row.parent.and_then(|parent| last_below.get(parent)).is_none_or(|last| *last == Some(i))
    };
    rows.iter().enumerate().map(is_last).collect()
}
