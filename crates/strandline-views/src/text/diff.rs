//! A difference as text.

use std::fmt::Write;

use anstyle::Style;
use strandline_report::text::{command_line, wrapped};

use super::grid::Grid;
use super::names::{callers, key};
use super::run::facts;
use super::table::sentence;
use super::words::{count, counted, mib, signed_count, signed_mib};
use super::{Look, HEADING, LESS, MORE};
use crate::diff::{Change, Diff, Status};
use crate::group::By;
use crate::place::Key;

/// Renders a difference.
pub fn render(diff: &Diff, look: &Look) -> String {
    let mut out = String::new();
    for (name, run) in ["Before", "After"].into_iter().zip(&diff.runs) {
        let text = format!("{name}: {}. {}", command_line(run.command), facts(run));
        let _ = writeln!(out, "{}", wrapped(&text, 0, look.width));
    }
    let by_type = diff.group == By::Type;
    let title = format!(
        "{}: {} → {}, {} and {} {}",
        sentence(diff.figure.title()),
        mib(diff.before.bytes),
        mib(diff.after.bytes),
        signed_mib(diff.change_bytes),
        signed_count(diff.change_blocks),
        if by_type { "objects" } else { "blocks" }
    );
    let _ = write!(out, "\n{}\n", look.paint(HEADING, &title));
    let c = diff.counts;
    let [new, gone, grew, shrank, same] =
        [c.new, c.gone, c.grew, c.shrank, c.unchanged].map(|n| count(n as u64));
    let text = format!(
        "{}: {grew} grew, {shrank} shrank, {new} new, {gone} gone, {same} as large as before.",
        sentence(diff.group.title())
    );
    let _ = writeln!(out, "{}", wrapped(&text, 0, look.width));
    if diff.rows.is_empty() {
        out.push_str("There is no difference to show.\n");
        return out;
    }
    out.push('\n');
    let blocks = if by_type { "Objects" } else { "Blocks" };
    let heads = ["Change", "Before", "After", blocks, "", ""];
    let mut widths = Grid::new(look, 2, &heads);
    for row in &diff.rows {
        widths.row(figures(row), String::new(), String::new());
    }
    let room = widths.room_below();
    let mut grid = Grid::new(look, 2, &heads);
    for row in &diff.rows {
        let below = match row.key {
            Key::Path(path) => callers(look, path.outwards(), room),
            _ => String::new(),
        };
        grid.with_calls(figures(row), style(row), key(look, &row.key), below);
    }
    out.push_str(&grid.render());
    let all = c.new + c.gone + c.grew + c.shrank;
    if all > diff.rows.len() {
        let left = (all - diff.rows.len()) as u64;
        let left = counted(left, "smaller difference", "smaller differences");
        let _ = writeln!(out, "\nLeft out: {left} (--top 0 shows all).");
    }
    if matches!(diff.group, By::Path | By::Line) && c.new > 0 && c.gone > 0 {
        let text = "If the source was edited in between, lines have moved and are new and gone at \
                    the same time: --by function isn't misled by that.";
        let _ = write!(out, "\n{}\n", wrapped(text, 0, look.width));
    }
    out
}

fn figures(row: &Change) -> Vec<String> {
    let word = match row.status {
        Status::New => "new",
        Status::Gone => "gone",
        Status::Grew | Status::Shrank | Status::Same => "",
    };
    vec![
        signed_mib(row.change_bytes),
        mib(row.before.bytes),
        mib(row.after.bytes),
        signed_count(row.change_blocks),
        word.to_owned(),
    ]
}

fn style(row: &Change) -> Style {
    match row.change_bytes {
        0 => Style::new(),
        n if n > 0 => MORE,
        _ => LESS,
    }
}
