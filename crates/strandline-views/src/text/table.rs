//! A table as text.

use std::fmt::Write;

use anstyle::Style;
use strandline_report::text::wrapped;

use super::grid::Grid;
use super::names::{callers, key};
use super::run::facts;
use super::words::{count, counted, mib, percent};
use super::{Look, HEADING};
use crate::group::By;
use crate::place::Key;
use crate::table::{Row, Table};

/// Renders a table.
pub fn render(table: &Table, look: &Look) -> String {
    let mut out = String::new();
    if let Some(run) = &table.run {
        let _ = writeln!(out, "{}\n", wrapped(&facts(run), 0, look.width));
    }
    let all = table.total;
    let title = format!(
        "{}: {} in {}",
        sentence(table.figure.title()),
        mib(all.bytes),
        match table.group {
            By::Type => counted(all.blocks, "object", "objects"),
            _ => counted(all.blocks, "block", "blocks"),
        }
    );
    let _ = writeln!(out, "{}", look.paint(HEADING, &title));
    if table.rows.is_empty() {
        out.push_str("There is nothing to show.\n");
        return out;
    }
    let shown = table.rows.len();
    let with_callees = table.rows.iter().any(|row| row.total.is_some());
    let which = match table.row_count > shown {
        true => format!(
            "The top {shown} of {} {} (--top 0 shows all), by ",
            count(table.row_count as u64),
            table.group.title()
        ),
        false => format!("All {} {}, by ", count(shown as u64), table.group.title()),
    };
    let sorted = match table.sort {
        "blocks" if table.group == By::Type => "objects",
        _ if table.group == By::Type => "bytes",
        "total" if with_callees => "bytes with callees",
        "blocks" => "blocks",
        _ => "bytes of their own",
    };
    let _ = writeln!(out, "{which}{sorted}\n");
    let heads: &[&str] = match with_callees {
        true => &["Itself", "Share", "With callees", "Blocks", ""],
        false if table.group == By::Type => &["In use", "Share", "Objects", ""],
        false => &["Itself", "Share", "Blocks", ""],
    };
    let figures = |row: &Row| {
        let total = row.total.filter(|_| with_callees).map(|total| mib(total.bytes));
        let blocks = [count(row.own.blocks)];
        [mib(row.own.bytes), percent(row.share)].into_iter().chain(total).chain(blocks).collect()
    };
    let mut widths = Grid::new(look, 2, heads);
    for row in &table.rows {
        widths.row(figures(row), String::new(), String::new());
    }
    let room = widths.room_below();
    let mut grid = Grid::new(look, 2, heads);
    for row in &table.rows {
        let below = match row.key {
            Key::Path(path) => callers(look, path.outwards(), room),
            _ => String::new(),
        };
        grid.with_calls(figures(row), Style::new(), key(look, &row.key), below);
    }
    out.push_str(&grid.render());
    out
}

/// With a capital letter.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}
