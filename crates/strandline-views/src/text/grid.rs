//! Columns of text that line up.

use anstyle::Style;

use super::names::OUT;
use super::words::{columns, fit, fit_name};
use super::{Look, FAINT, HEADING};

const GAP: &str = "   ";
/// Least columns for the name of a row, however narrow the terminal is.
const LEAST_NAME: usize = 16;
/// Least columns for a source text, else it is left out.
const LEAST_NOTE: usize = 12;

/// Rows of figures, aligned to the right, then a name, then perhaps a note (source text).
pub(super) struct Grid<'l> {
    look: &'l Look,
    indent: usize,
    heads: Vec<String>,
    rows: Vec<GridRow>,
}

struct GridRow {
    figures: Vec<String>,
    style: Style,
    name: String,
    note: String,
    /// Text below the name: calls, which may take more than one line.
    below: String,
}

impl<'l> Grid<'l> {
    /// `heads`: those of the figures, then that of the name; empty: no line of heads.
    pub fn new(look: &'l Look, indent: usize, heads: &[&str]) -> Grid<'l> {
        let heads = heads.iter().map(|&head| head.to_owned()).collect();
        Grid { look, indent, heads, rows: Vec::new() }
    }

    pub fn row(&mut self, figures: Vec<String>, name: String, note: String) {
        let (style, below) = (Style::new(), String::new());
        self.rows.push(GridRow { figures, style, name, note, below });
    }

    /// A row with its figures in a style and text below the name.
    pub fn with_calls(&mut self, figures: Vec<String>, style: Style, name: String, below: String) {
        self.rows.push(GridRow { figures, style, name, note: String::new(), below });
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, each with its end.
    pub fn render(&self) -> String {
        let widths = self.widths();
        let start = self.indent + widths.iter().map(|w| w + columns(GAP)).sum::<usize>();
        let room = self.look.width.saturating_sub(start).max(LEAST_NAME);
        let longest = self
            .rows
            .iter()
            .filter(|row| !row.note.is_empty())
            .map(|row| columns(&row.name))
            .max()
            .unwrap_or(0);
        // A note gets what the name leaves; a long name leaves it a third.
        let name_width = longest.min(room.saturating_sub(room / 3)).max(LEAST_NAME).min(room);
        let note_width = room.saturating_sub(name_width + columns(GAP));
        let mut out = String::new();
        if !self.heads.is_empty() {
            let (name, figures) = self.heads.split_last().map_or(("", &[][..]), |(n, f)| (n, f));
            let line = format!("{}{name}", self.figures(figures, &widths));
            out.push_str(&" ".repeat(self.indent));
            out.push_str(&self.look.paint(HEADING, line.trim_end()));
            out.push('\n');
        }
        for row in &self.rows {
            let figures = self.figures(&row.figures, &widths);
            let mut line = " ".repeat(self.indent);
            line.push_str(&self.look.paint(row.style, &figures));
            if row.note.is_empty() || note_width < LEAST_NOTE {
                line.push_str(&fit_name(&row.name, room));
            } else {
                let name = fit_name(&row.name, name_width);
                line.push_str(&name);
                line.push_str(&" ".repeat(name_width.saturating_sub(columns(&name))));
                line.push_str(GAP);
                line.push_str(&self.look.paint(FAINT, &fit(&row.note, note_width)));
            }
            out.push_str(line.trim_end());
            out.push('\n');
            for line in wrapped(&row.below, room) {
                let line = self.look.paint(FAINT, &line);
                out.push_str(&format!("{}{line}\n", " ".repeat(start)));
            }
        }
        out
    }

    /// Columns that the text below a name has, with such figures.
    pub fn room_below(&self) -> usize {
        let start = self.indent + self.widths().iter().map(|w| w + columns(GAP)).sum::<usize>();
        self.look.width.saturating_sub(start).max(LEAST_NAME)
    }

    fn figures(&self, cells: &[String], widths: &[usize]) -> String {
        let pad = |(cell, width): (&String, &usize)| {
            format!("{}{cell}{GAP}", " ".repeat(width.saturating_sub(columns(cell))))
        };
        cells.iter().zip(widths).map(pad).collect()
    }

    fn widths(&self) -> Vec<usize> {
        let heads = self.heads.split_last().map_or(&[][..], |(_, figures)| figures);
        let count = self.rows.iter().map(|row| row.figures.len()).max().unwrap_or(heads.len());
        let width = |i: usize| {
            let cells = self.rows.iter().filter_map(|row| row.figures.get(i));
            cells.chain(heads.get(i)).map(|cell| columns(cell)).max().unwrap_or(0)
        };
        (0..count).map(width).collect()
    }
}

/// Calls in lines of `width` columns, none of which is cut in two.
fn wrapped(calls: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (i, call) in calls.split(OUT).filter(|call| !call.is_empty()).enumerate() {
        let call = if i == 0 { call.to_owned() } else { format!("{} {call}", OUT.trim()) };
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(&call) <= width => {
                line.push(' ');
                line.push_str(&call);
            }
            _ => lines.push(fit_name(&call, width)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_wrapped_between_calls() {
        let calls = "called by f (a.py:1) ← g (b.py:2) ← 3 more";
        assert_eq!(wrapped(calls, 60), [calls]);
        assert_eq!(wrapped(calls, 36), ["called by f (a.py:1) ← g (b.py:2)", "← 3 more"]);
        assert!(wrapped("", 36).is_empty());
    }
}
