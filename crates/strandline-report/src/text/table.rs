//! The table of one function, in the form that memory_profiler made popular.

use std::path::Path;

use super::{mib_or_dash, printable, shown_path};
use crate::model::{FunctionTable, Line};

const HEADS: [&str; 9] = [
    "Line #",
    "Mem usage",
    "Increment",
    "Peak",
    "Allocated",
    "Freed",
    "Still in use",
    "Stranded",
    "Occurrences",
];
const GAP: &str = "   ";

/// Appends the table. `named`: with the function's name.
pub(super) fn render(out: &mut String, f: &FunctionTable, named: bool, cwd: Option<&Path>) {
    let rows: Vec<[String; HEADS.len()]> = f.lines.iter().map(cells).collect();
    let mut widths = HEADS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let join = |cells: &[String]| -> String {
        let pad = |(cell, width): (&String, &usize)| format!("{cell:>width$}");
        cells.iter().zip(&widths).map(pad).collect::<Vec<_>>().join(GAP)
    };
    let file = f.path.as_deref().unwrap_or(&f.file);
    out.push_str(&format!("Filename: {}\n", shown_path(file, cwd)));
    if named {
        out.push_str(&format!("Function: {}\n", printable(&f.name)));
    }
    let header = format!("{}{GAP}Line Contents", join(&HEADS.map(str::to_owned)));
    out.push_str(&format!("\n{header}\n{}\n", "=".repeat(header.len())));
    let mut notes = 0;
    for (l, row) in f.lines.iter().zip(&rows) {
        let source = printable(l.source.as_deref().unwrap_or(""));
        let note = match super::account::is_shown(l) {
            true => {
                notes += 1;
                format!("  [{notes}]")
            }
            false => String::new(),
        };
        let text = format!("{}{GAP}{source}{note}", join(row));
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out.push_str("\n\n");
}

fn cells(l: &Line) -> [String; HEADS.len()] {
    let number = l.line.to_string();
    let Some(occurrences) = l.occurrences else {
        let mut blank: [String; HEADS.len()] = Default::default();
        blank[0] = number;
        return blank;
    };
    [
        number,
        mib_or_dash(l.rss_bytes),
        mib_or_dash(l.rss_increment_bytes),
        mib_or_dash(l.peak_bytes),
        mib_or_dash(l.allocated_bytes),
        mib_or_dash(l.freed_bytes),
        mib_or_dash(l.in_use_bytes),
        mib_or_dash(l.stranded_increment_bytes),
        occurrences.to_string(),
    ]
}
