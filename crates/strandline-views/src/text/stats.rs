//! Statistics as text.

use std::fmt::Write;

use anstyle::Style;
use strandline_report::text::wrapped;

use super::grid::Grid;
use super::names::{call, callers, domain, OUTSIDE};
use super::run::{at_the_end, chosen, header};
use super::words::{count, counted, limit, mib, percent};
use super::{Look, HEADING};
use crate::lines::Figures;
use crate::stats::{LargePath, Stats};
use crate::sums::share;

/// Columns of the longest bar.
const BAR: usize = 30;

/// Renders statistics.
pub fn render(stats: &Stats, look: &Look) -> String {
    let mut out = String::new();
    if let Some(run) = &stats.run {
        out.push_str(&header(look, run));
    }
    if let Some(text) = chosen(stats.run.as_ref(), &stats.processes) {
        let _ = writeln!(out, "{text}");
    }
    let end = at_the_end(stats.run.as_ref());
    totals(&mut out, look, stats, end);
    domains(&mut out, look, stats);
    sizes(&mut out, look, stats);
    lifetimes(&mut out, look, stats);
    paths(&mut out, look, "Call paths that allocated most bytes", &stats.most_bytes);
    paths(&mut out, look, "Call paths that allocated most blocks", &stats.most_blocks);
    out
}

fn heading(out: &mut String, look: &Look, title: &str) {
    let _ = write!(out, "\n{}\n", look.paint(HEADING, title));
}

fn totals(out: &mut String, look: &Look, stats: &Stats, end: &str) {
    heading(out, look, "In all");
    let Figures { at_peak, in_use, allocated, temporary } = stats.total;
    let in_use_at = format!("in use {end}");
    let rows = [
        (allocated, "allocated".to_owned()),
        (temporary, format!("temporary: {} of all allocations", percent(stats.temporary_share))),
        (at_peak, "in use at the peak".to_owned()),
        (in_use, in_use_at),
    ];
    let mut grid = Grid::new(look, 2, &["Bytes", "Blocks", ""]);
    for (amount, text) in rows {
        grid.row(vec![mib(amount.bytes), count(amount.blocks)], text, String::new());
    }
    out.push_str(&grid.render());
    let text = format!(
        "{} call paths over {} lines of functions, at most {} calls deep; {}, {}",
        count(stats.path_count as u64),
        count(stats.place_count as u64),
        count(stats.deepest as u64),
        counted(stats.processes.len() as u64, "process", "processes"),
        counted(stats.thread_count as u64, "thread", "threads"),
    );
    let _ = writeln!(out, "{}", wrapped(&text, 2, look.width));
}

fn domains(out: &mut String, look: &Look, stats: &Stats) {
    if stats.domains.is_empty() {
        return;
    }
    heading(out, look, "By allocator");
    let mut grid = Grid::new(look, 2, &["Allocated", "Blocks", "At the peak", "At the end", "For"]);
    for row in &stats.domains {
        let Figures { at_peak, in_use, allocated, .. } = row.figures;
        let figures = vec![
            mib(allocated.bytes),
            count(allocated.blocks),
            mib(at_peak.bytes),
            mib(in_use.bytes),
        ];
        grid.row(figures, domain(row.is).to_owned(), String::new());
    }
    out.push_str(&grid.render());
}

fn sizes(out: &mut String, look: &Look, stats: &Stats) {
    if stats.sizes.0.is_empty() {
        return;
    }
    heading(out, look, "Allocations by size");
    let mut before = 0;
    let rows: Vec<(String, u64)> = stats
        .sizes
        .0
        .iter()
        .map(|class| {
            let text = match class.up_to_bytes {
                Some(bytes) => format!("up to {}", limit(bytes)),
                None => format!("more than {}", limit(before)),
            };
            before = class.up_to_bytes.unwrap_or(before);
            (text, class.blocks)
        })
        .collect();
    bars(out, look, &rows);
}

fn lifetimes(out: &mut String, look: &Look, stats: &Stats) {
    if stats.lifetimes.0.is_empty() {
        return;
    }
    heading(out, look, "Freed blocks by lifetime: how much was allocated while they lived");
    let mut before = 0;
    let rows: Vec<(String, u64)> = stats
        .lifetimes
        .0
        .iter()
        .map(|class| {
            let text = match class.below_bytes {
                Some(bytes) => format!("less than {}", limit(bytes)),
                None => format!("{} or more", limit(before)),
            };
            before = class.below_bytes.unwrap_or(before);
            (text, class.blocks)
        })
        .collect();
    bars(out, look, &rows);
}

fn bars(out: &mut String, look: &Look, rows: &[(String, u64)]) {
    let most = rows.iter().map(|row| row.1).max().unwrap_or(0);
    let all: u64 = rows.iter().map(|row| row.1).fold(0, u64::saturating_add);
    let mut grid = Grid::new(look, 2, &[]);
    for (text, blocks) in rows {
        let length = (share(*blocks, most) / 100.0 * BAR as f64).ceil() as usize;
        let figures = vec![text.clone(), count(*blocks), percent(share(*blocks, all))];
        grid.row(figures, "█".repeat(length), String::new());
    }
    out.push_str(&grid.render());
}

fn paths(out: &mut String, look: &Look, title: &str, rows: &[LargePath]) {
    if rows.is_empty() {
        return;
    }
    heading(out, look, title);
    let figures = |row: &LargePath| vec![mib(row.allocated.bytes), count(row.allocated.blocks)];
    let heads = ["Bytes", "Blocks", ""];
    let mut widths = Grid::new(look, 2, &heads);
    for row in rows {
        widths.row(figures(row), String::new(), String::new());
    }
    let room = widths.room_below();
    let mut grid = Grid::new(look, 2, &heads);
    for row in rows {
        let name = row.path.outwards().next();
        let name = name.map_or_else(|| OUTSIDE.to_owned(), |place| call(look, &place));
        let below = callers(look, row.path.outwards(), room);
        grid.with_calls(figures(row), Style::new(), name, below);
    }
    out.push_str(&grid.render());
}
