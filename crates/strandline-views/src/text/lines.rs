//! The ledger of a file as text, in the form of the line tables of `strandline run`.

use std::fmt::Write;

use strandline_report::text::{printable, shown_path, wrapped};

use super::run::{at_the_end, facts};
use super::words::{columns, count, fit};
use super::{Look, FAINT, HEADING};
use crate::lines::{Figures, FileLines, Ledger, LedgerLine};

const GAP: &str = "   ";
const LEAST_SOURCE: usize = 20;
/// Bytes in the unit of all columns.
const MIB: f64 = 1_048_576.0;

/// Renders the ledger.
pub fn render(ledger: &Ledger, look: &Look) -> String {
    let mut out = String::new();
    if let Some(run) = &ledger.run {
        let _ = writeln!(out, "{}\n", wrapped(&facts(run), 0, look.width));
    }
    for file in &ledger.files {
        table(&mut out, look, file, at_the_end(ledger.run.as_ref()));
    }
    let text = "Amounts are MiB. \"With callees\": at the peak, allocated by the line and all that it called. All \
                other columns are what the line itself asked for. Lines without either are left \
                out.";
    let _ = writeln!(out, "{}", wrapped(text, 0, look.width));
    out
}

fn heads(end: &str) -> [String; 7] {
    let end = if end == "at the end" { "At the end" } else { "In use now" };
    ["Line #", "With callees", "At the peak", end, "Allocated", "Blocks", "Temporary"]
        .map(str::to_owned)
}

fn cells(line: Option<&LedgerLine>, own: &Figures) -> [String; 7] {
    let number = match line {
        Some(LedgerLine { line: Some(number), .. }) => number.to_string(),
        Some(_) => "?".to_owned(),
        None => "All".to_owned(),
    };
    let bytes = |bytes: u64| match bytes {
        0 => String::new(),
        bytes => format!("{:.3}", bytes as f64 / MIB),
    };
    [
        number,
        line.map_or_else(String::new, |line| bytes(line.total.at_peak.bytes)),
        bytes(own.at_peak.bytes),
        bytes(own.in_use.bytes),
        bytes(own.allocated.bytes),
        if own.allocated.blocks == 0 { String::new() } else { count(own.allocated.blocks) },
        bytes(own.temporary.bytes),
    ]
}

fn table(out: &mut String, look: &Look, file: &FileLines, end: &str) {
    let heads = heads(end);
    let sources = file.lines.iter().filter_map(|line| line.source.as_deref());
    let indent = |text: &str| text.len() - text.trim_start_matches(' ').len();
    let indent = sources.filter(|text| !text.is_empty()).map(indent).min().unwrap_or(0);
    let source = |line: &'_ LedgerLine| {
        let text = line.source.as_deref().and_then(|text| text.get(indent..));
        text.unwrap_or_default().to_owned()
    };
    let mut rows: Vec<([String; 7], String)> =
        file.lines.iter().map(|line| (cells(Some(line), &line.own), source(line))).collect();
    rows.push((cells(None, &file.own), String::new()));
    let mut widths = heads.each_ref().map(|head| columns(head));
    for (row, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(columns(cell));
        }
    }
    let join = |cells: &[String; 7]| {
        let pad = |(cell, width): (&String, &usize)| format!("{cell:>width$}");
        cells.iter().zip(&widths).map(pad).collect::<Vec<_>>().join(GAP)
    };
    let has_source = file.lines.iter().any(|line| line.source.is_some());
    let head = match has_source {
        true => format!("{}{GAP}Line Contents", join(&heads)),
        false => join(&heads),
    };
    let name = match file.file {
        "" => "unknown".to_owned(),
        name => shown_path(name, look.cwd.as_deref()),
    };
    let _ = writeln!(out, "Filename: {name}");
    if !has_source {
        out.push_str("(The file can't be read from here, so its text is missing.)\n");
    }
    let _ = write!(out, "\n{}\n{}\n", look.paint(HEADING, &head), "=".repeat(columns(&head)));
    for (row, source) in &rows {
        let figures = join(row);
        let room = look.width.saturating_sub(columns(&figures) + GAP.len()).max(LEAST_SOURCE);
        let source = look.paint(FAINT, &fit(&printable(source), room));
        let line = format!("{figures}{GAP}{source}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.push('\n');
}
