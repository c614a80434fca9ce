//! The summary as text.

use std::fmt::Write;

use anstyle::Style;
use strandline_report::text::{command_line, wrapped};

use super::grid::Grid;
use super::names::{callers, is_library, line, thread, OUTSIDE};
use super::run::{at_the_end, header};
use super::words::{columns, count, counted, limit, mib, percent};
use super::{Look, HEADING};
use crate::histogram::{LifetimeClass, Lifetimes, SizeClass, Sizes};
use crate::place::Place;
use crate::report::{PathRow, Report, Section};
use crate::run::ProcessRow;
use crate::sums::share;

/// Renders the summary.
pub fn render(report: &Report, look: &Look) -> String {
    let mut out = String::new();
    if let Some(run) = &report.run {
        out.push_str(&header(look, run));
    }
    for process in &report.processes {
        out.push_str(&figures(look, process));
    }
    if report.allocated.blocks == 0 && report.in_use.total.blocks == 0 {
        let text = "No allocation was recorded: there are no call paths to show. Was the program \
                    a Python that strandline can look into?";
        let _ = write!(out, "\n{}\n", wrapped(text, 0, look.width));
        return out;
    }
    several(&mut out, look, report);
    let when = at_the_end(report.run.as_ref());
    section(&mut out, look, "In use at the peak", &report.at_peak, "");
    let still = "Not all of it is a leak: imported modules, caches and what the program still \
                 needed are in use as well. Look for what should have been gone.";
    section(&mut out, look, &format!("In use {when}"), &report.in_use, still);
    temporary(&mut out, look, report);
    threads(&mut out, look, report);
    out.push_str(&shape(look, &report.sizes, &report.lifetimes));
    hints(&mut out, look, report);
    out
}

/// A process's own figures.
fn figures(look: &Look, p: &ProcessRow) -> String {
    let python = match &p.python {
        Some(version) => format!("Python {version}"),
        None => "no Python that strandline knows".to_owned(),
    };
    let origin = if p.forked { format!(", forked from {}", p.parent_pid) } else { String::new() };
    let command = match p.command {
        [] => String::new(),
        command => format!(": {}", command_line(command)),
    };
    let title = format!("Process {} ({python}{origin}){command}", p.pid);
    let title = super::words::fit(&title, look.width);
    let mut out = format!("\n{}\n\n", look.paint(HEADING, &title));
    let when = match p.state {
        "running" => "When it was last seen:",
        "replaced" => "When it replaced itself by another program:",
        _ => "At its end:",
    };
    let stranded = p.stranded_arenas_bytes.saturating_add(p.stranded_heap_bytes);
    let kept = format!(
        "given back by the program, but not to the system: {} kept by Python, {} by the C library",
        mib(p.stranded_arenas_bytes),
        mib(p.stranded_heap_bytes)
    );
    let seen = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), mib);
    let rows = [
        ("Peak", mib(p.peak_bytes), "the most that was in use at one time"),
        (
            "Highest RSS",
            seen(p.rss_peak_bytes),
            "the most that was resident: what the system counts",
        ),
        ("", String::new(), when),
        ("In use", mib(p.in_use_bytes), "asked for by the program and not given back"),
        ("Stranded", mib(stranded), &kept),
        ("RSS", seen(p.rss_bytes), "resident memory (strandline's own part left out)"),
    ];
    let width = rows.iter().map(|row| row.1.len()).max().unwrap_or(0);
    for (what, amount, text) in rows {
        if what.is_empty() {
            let _ = writeln!(out, "  {text}");
            continue;
        }
        let head = format!("  {what:<11}   {amount:>width$}   ");
        let text = wrapped(text, head.len(), look.width.max(head.len() + 30));
        let _ = writeln!(out, "{head}{}", text.trim_start());
    }
    if p.overflowed != 0 {
        let text = format!(
            "{} found no room in a table: no call path is known for them.",
            counted(p.overflowed, "allocation", "allocations")
        );
        let _ = writeln!(out, "{}", wrapped(&text, 2, look.width));
    }
    out
}

fn several(out: &mut String, look: &Look, report: &Report) {
    if report.processes.len() < 2 {
        return;
    }
    let mut text = format!(
        "From here on the {} processes are added up, each at its own peak (--process PID shows \
         one).",
        report.processes.len()
    );
    if report.processes.iter().any(|p| p.forked) {
        text.push_str(" What a forked process got from its parent counts in both.");
    }
    let _ = write!(out, "\n{}\n", wrapped(&text, 0, look.width));
}

fn section(out: &mut String, look: &Look, title: &str, section: &Section, remark: &str) {
    let all = section.total;
    let blocks = counted(all.blocks, "block", "blocks");
    let head = look.paint(HEADING, &format!("{title}: {} in {blocks}", mib(all.bytes)));
    let _ = write!(out, "\n{head}\n");
    if !remark.is_empty() && all.blocks != 0 {
        let _ = writeln!(out, "{}", wrapped(remark, 0, look.width));
    }
    paths(out, look, section);
    lines(out, look, section);
}

fn more(shown: usize, all: usize) -> String {
    match all > shown {
        true => format!(" (the top {shown} of {})", count(all as u64)),
        false => String::new(),
    }
}

fn paths(out: &mut String, look: &Look, section: &Section) {
    if section.paths.is_empty() {
        return;
    }
    let title = format!("  By call path{}", more(section.paths.len(), section.path_count));
    let _ = write!(out, "\n{title}\n");
    let figures = |row: &PathRow| vec![mib(row.own.bytes), percent(row.share)];
    let widest = section.paths.iter().map(|row| figures(row).join("   ").len()).max();
    let room = look.width.saturating_sub(widest.unwrap_or(0) + 10);
    let mut grid = Grid::new(look, 4, &[]);
    for row in &section.paths {
        let mut places = row.path.outwards();
        let name =
            places.next().map_or_else(|| OUTSIDE.to_owned(), |p| super::names::call(look, &p));
        let below = callers(look, row.path.outwards(), room);
        grid.with_calls(figures(row), Style::new(), name, below);
    }
    out.push_str(&grid.render());
}

fn lines(out: &mut String, look: &Look, section: &Section) {
    if section.lines.is_empty() {
        return;
    }
    let title = format!("  By line{}", more(section.lines.len(), section.line_count));
    let _ = write!(out, "\n{title}\n");
    let mut grid = Grid::new(look, 4, &["Itself", "Share", "With callees", ""]);
    for row in &section.lines {
        let figures = vec![mib(row.own.bytes), percent(row.share), mib(row.total.bytes)];
        let source = strandline_report::text::printable(row.source.as_deref().unwrap_or(""));
        grid.row(figures, line(look, &row.place), source);
    }
    out.push_str(&grid.render());
}

fn temporary(out: &mut String, look: &Look, report: &Report) {
    let (some, all) = (report.temporary.total, report.allocated);
    let distance = report.run.as_ref().map_or(0, |run| run.temporary_distance);
    let title = look.paint(
        HEADING,
        &format!(
            "Temporary: {} in {} of {} blocks",
            mib(some.bytes),
            count(some.blocks),
            count(all.blocks)
        ),
    );
    let _ = write!(out, "\n{title}\n");
    let text = format!(
        "{} of all allocations ({} of all bytes) were freed again before their thread had made \
         {} more. They cost time, not memory.",
        percent(share(some.blocks, all.blocks)),
        percent(share(some.bytes, all.bytes)),
        count(u64::from(distance) + 1),
    );
    let _ = writeln!(out, "{}", wrapped(&text, 0, look.width));
    lines(out, look, &report.temporary);
}

fn threads(out: &mut String, look: &Look, report: &Report) {
    let title = format!("Threads{}", more(report.threads.len(), report.thread_count));
    let _ = write!(out, "\n{}\n", look.paint(HEADING, &title));
    let mut grid = Grid::new(look, 4, &["Allocated", "At the peak", "At the end", ""]);
    for row in &report.threads {
        let figures = [row.allocated, row.at_peak, row.in_use].map(|a| mib(a.bytes)).to_vec();
        grid.row(figures, thread(row.thread, row.tid, row.pid), String::new());
    }
    if !grid.is_empty() {
        out.push_str(&grid.render());
    }
}

/// The histograms in a sentence each.
fn shape(look: &Look, sizes: &Sizes, lifetimes: &Lifetimes) -> String {
    let mut out = String::new();
    let mut sentence = |title: &str, text: String| {
        let text = wrapped(&text, 0, look.width);
        let _ = write!(out, "\n{}\n{text}\n", look.paint(HEADING, title));
    };
    if let (Some(half), Some(most)) = (sizes.quantile(50), sizes.quantile(99)) {
        let words = |class: SizeClass| match class.up_to_bytes {
            Some(bytes) => format!("at most {}", limit(bytes)),
            None => "more than 4 MiB".to_owned(),
        };
        let text = match half == most {
            true => format!("99 of 100 allocations asked for {}.", words(most)),
            false => format!(
                "Half of all allocations asked for {}, 99 of 100 for {}.",
                words(half),
                words(most)
            ),
        };
        sentence("Sizes", text);
    }
    if let (Some(half), Some(most)) = (lifetimes.quantile(50), lifetimes.quantile(99)) {
        let words = |class: LifetimeClass| match class.below_bytes {
            Some(bytes) => format!("less than {} were allocated", limit(bytes)),
            None => "more than 256 GiB were allocated".to_owned(),
        };
        let text = match half == most {
            true => format!("99 of 100 freed blocks lived while {}.", words(most)),
            false => format!(
                "Half of the blocks that were freed lived while {}, 99 of 100 while {}.",
                words(half),
                words(most)
            ),
        };
        sentence("Lifetimes", text);
    }
    out
}

/// The program's own line on the largest call path that has one, the nearest to what allocates.
fn own_file<'m>(report: &Report<'m>) -> Option<&'m str> {
    let is_own = |place: &Place| {
        let has_file = place.line != 0 && !place.native && !place.file.starts_with('<');
        has_file && !is_library(place.file)
    };
    let mut paths = report.at_peak.paths.iter();
    paths.find_map(|row| row.path.outwards().find(is_own)).map(|place| place.file)
}

fn hints(out: &mut String, look: &Look, report: &Report) {
    let file = quoted(&look.file);
    let _ = write!(out, "\n{}\n", look.paint(HEADING, "What next"));
    let mut rows = vec![
        (format!("strandline tree {file}"), "who called whom, from the outside in"),
        (format!("strandline tree {file} --weight in-use --inverted"), "who holds what is left"),
        (format!("strandline table {file} --sort total"), "lines with all that they call"),
        (format!("strandline stats {file}"), "sizes and lifetimes"),
    ];
    if let Some(own) = own_file(report) {
        let name = strandline_report::text::shown_path(own, look.cwd.as_deref());
        let command = format!("strandline report {file} --lines {}", quoted(&name));
        rows.insert(0, (command, "that file, line by line"));
    }
    let width = rows.iter().map(|row| columns(&row.0)).max().unwrap_or(0);
    let longest = rows.iter().map(|row| columns(row.1)).max().unwrap_or(0);
    for (command, text) in rows {
        match width + longest + 5 <= look.width {
            true => {
                let space = " ".repeat(width - columns(&command));
                let _ = writeln!(out, "  {command}{space}   {text}");
            }
            // A command that is cut off is none.
            false => {
                let _ = writeln!(out, "  {text}:\n    {command}");
            }
        }
    }
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
