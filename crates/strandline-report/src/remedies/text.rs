//! The report as text, at most 100 columns wide: one table, how to get what helped, what was not
//! tried.

use super::{Measured, Point, Remedies, Remedy, Row, Verdict};
use crate::text::{printable, shorten};

/// Columns of the text.
const WIDTH: usize = 100;
const HEADS: [&str; 8] = ["peak", "±", "at end", "±", "returned", "time", "±", ""];

/// Renders the report.
pub fn render(r: &Remedies) -> String {
    let mut out = String::new();
    let python = r.python.as_deref().map_or(String::new(), |v| format!("Python {v}, "));
    let runs = match r.repeat {
        1 => "one run each".to_owned(),
        n => format!("medians of {n} runs each"),
    };
    let words = r.command_line.split_whitespace().collect::<Vec<_>>().join(" ");
    let tail = format!("  ({python}{runs})");
    let title = "What gives memory back: ";
    let room = WIDTH.saturating_sub(title.len() + tail.len() + 1);
    out.push_str(&format!("{title}{}{tail}\n", shorten(&printable(&words), room)));
    let times = |n: u64| if n == 1 { String::new() } else { format!(" (the last of {n})") };
    out.push_str(&match r.point {
        Point::Mark => format!("Marked point: strandline.mark(){}\n", times(r.point_count)),
        Point::Return => {
            format!(
                "Marked point: the return of the function under @profile{}\n",
                times(r.point_count)
            )
        }
        Point::End => {
            "Nothing is marked (strandline.mark(), @profile): actions come at the end\n".to_owned()
        }
    });
    out.push('\n');
    table(&mut out, r);
    lines(&mut out, r);
    not_tried(&mut out, r);
    for note in notes(r) {
        out.push('\n');
        wrapped(&mut out, &note, "", "  ");
    }
    out
}

/// Bytes as MiB with one digit.
fn mib(bytes: i64) -> String {
    let text = format!("{:.1}", bytes as f64 / (1024.0 * 1024.0));
    if text == "-0.0" {
        "0.0".to_owned()
    } else {
        text
    }
}

fn amount(bytes: Option<i64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), mib)
}

/// With a sign, unless it is nothing.
fn signed(bytes: Option<i64>) -> String {
    match bytes.map(mib) {
        None => "-".to_owned(),
        Some(text) if text.starts_with('-') || text == "0.0" => text,
        Some(text) => format!("+{text}"),
    }
}

fn seconds(ns: u64) -> String {
    format!("{:.2}", ns as f64 / 1e9)
}

fn percent(part: i64, of: u64) -> String {
    let text = format!("{:+.0} %", part as f64 * 100.0 / of.max(1) as f64);
    if text == "-0 %" {
        "+0 %".to_owned()
    } else {
        text
    }
}

fn cells(name: &str, m: &Measured, row: Option<&Row>, as_is: &Measured) -> [String; 9] {
    let d = row.map(|r| r.difference);
    let blank_or = |text: Option<String>| text.unwrap_or_default();
    [
        name.to_owned(),
        amount(m.peak_rss_bytes),
        blank_or(d.map(|d| signed(d.peak_rss_bytes))),
        amount(m.end_rss_bytes),
        blank_or(d.map(|d| signed(d.end_rss_bytes))),
        amount(m.returned_bytes),
        seconds(m.run_ns),
        blank_or(d.map(|d| percent(d.run_ns, as_is.run_ns))),
        blank_or(row.map(verdict)),
    ]
}

fn verdict(row: &Row) -> String {
    match row.verdict {
        Verdict::Better => "better".to_owned(),
        Verdict::NoEffect => "no effect".to_owned(),
        Verdict::Failed => "failed".to_owned(),
        Verdict::Worse => {
            let more = row.difference.end_rss_bytes.unwrap_or(0) as f64 / (1024.0 * 1024.0);
            match more {
                more if more < 9.95 => format!("worse: +{more:.1} MiB"),
                more => format!("worse: +{more:.0} MiB"),
            }
        }
    }
}

fn table(out: &mut String, r: &Remedies) {
    let heads = [&[""], &HEADS[..]].concat();
    let measured = r.remedies.iter().filter(|row| row.verdict != Verdict::Failed);
    let mut rows = vec![cells("as it is", &r.as_is, None, &r.as_is)];
    rows.extend(measured.map(|row| cells(row.remedy.name, &row.measured, Some(row), &r.as_is)));
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
        cells.chain(heads.get(i).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut push = |cells: &[&str]| {
        let mut line = String::new();
        for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            // A difference belongs to the figure in front of it.
            let gap = if matches!(i, 0 | 2 | 4 | 7) { 1 } else { 2 };
            let gap = if i == 0 { 0 } else { gap };
            match i {
                0 | 8 => line.push_str(&format!("{:gap$}{cell:<width$}", "")),
                _ => line.push_str(&format!("{:gap$}{cell:>width$}", "")),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    };
    push(&heads);
    for row in &rows {
        push(&row.iter().map(|cell| &**cell).collect::<Vec<_>>());
    }
    out.push_str("RSS in MiB, time in seconds, ±: against the program as it is\n");
    for row in r.remedies.iter().filter(|row| row.verdict == Verdict::Failed) {
        let error = printable(row.error.as_deref().unwrap_or("it ended another way"));
        out.push_str(&shorten(&format!("{}: failed: {error}", row.remedy.name), WIDTH - 1));
        out.push('\n');
    }
}

/// So many of the best are shown with everything, the others with one line.
const IN_FULL: usize = 3;

/// For each remedy that helped, how to get it.
fn lines(out: &mut String, r: &Remedies) {
    let helped: Vec<&Remedy> =
        r.remedies.iter().filter(|w| w.verdict == Verdict::Better).map(|w| &w.remedy).collect();
    if helped.is_empty() {
        let none = if r.remedies.is_empty() { "Nothing could be tried" } else { "Nothing helped" };
        out.push_str(&format!("\n{none}.\n"));
        return;
    }
    out.push_str("\nHow to get what helped, in a shell, a Dockerfile (ENV) or Python:\n");
    let command = shown_command(&r.command_line);
    for (i, remedy) in helped.iter().enumerate() {
        let name = format!("{}:", remedy.name);
        let mut lines: Vec<Vec<&str>> = Vec::new();
        if remedy.code.as_ref() != Some(&remedy.line) {
            lines.push(match remedy.line.strip_suffix(&r.command_line) {
                Some(variables) => variables.split_whitespace().chain([&*command]).collect(),
                None => vec![&remedy.line],
            });
        }
        if let Some(docker) = remedy.dockerfile.as_ref().filter(|_| i < IN_FULL) {
            lines.extend(docker.lines().map(|line| line.split_whitespace().collect()));
        }
        lines.extend(remedy.code.as_deref().map(|code| vec![code]));
        for (n, words) in lines.iter().enumerate() {
            broken(out, if n == 0 { &name } else { "" }, words);
        }
    }
    if helped.len() > IN_FULL {
        out.push_str("The lines for a Dockerfile that are not shown are in --json.\n");
    }
}

/// The command on one line: what doesn't fit, and what follows a line break in it, is cut off.
fn shown_command(command: &str) -> String {
    let one_line = command.split(|c: char| c.is_control()).next().unwrap_or("");
    let cut = if one_line.len() < command.len() { "…" } else { "" };
    shorten(&format!("{one_line}{cut}"), WIDTH - CONTINUED.len() - 2)
}

/// Indentation of what continues a line.
const CONTINUED: &str = "        ";

/// A line of a shell or Dockerfile, broken between words where it is too long.
fn broken(out: &mut String, name: &str, words: &[&str]) {
    let mut line = if name.is_empty() { "   ".to_owned() } else { format!("  {name}") };
    for (i, word) in words.iter().enumerate() {
        // Two more for the backslash, unless it is the last one.
        let end = if i + 1 == words.len() { 0 } else { 2 };
        if line.chars().count() + 1 + word.chars().count() + end > WIDTH {
            // After the name alone there is nothing to continue.
            out.push_str(&line);
            out.push_str(if i == 0 { "\n" } else { " \\\n" });
            line = CONTINUED.to_owned();
        } else {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

fn not_tried(out: &mut String, r: &Remedies) {
    if r.not_tried.is_empty() {
        return;
    }
    out.push_str("\nNot tried:\n");
    let mut reasons: Vec<&str> = Vec::new();
    for n in &r.not_tried {
        if !reasons.contains(&&*n.reason) {
            reasons.push(&n.reason);
        }
    }
    for reason in reasons {
        let same = r.not_tried.iter().filter(|n| n.reason == reason).map(|n| n.name);
        let names = same.collect::<Vec<_>>().join(", ");
        wrapped(out, &format!("{names}: {}", printable(reason)), "  ", "    ");
    }
}

fn notes(r: &Remedies) -> Vec<String> {
    let mut notes = Vec::new();
    let differing = r.remedies.iter().filter(|w| w.output_differs == Some(true));
    let names: Vec<&str> = differing.map(|w| w.remedy.name).collect();
    if !names.is_empty() {
        notes.push(format!(
            "Output differs from that of the first run under {} (times, process ids and figures in it do that).",
            if names.len() == r.remedies.len() && names.len() > 1 {
                "every remedy".to_owned()
            } else {
                names.join(", ")
            }
        ));
    }
    notes.extend(r.notes.iter().map(|note| printable(note)));
    notes
}

/// Appends `text` in lines that fit.
fn wrapped(out: &mut String, text: &str, first: &str, rest: &str) {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = rest.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(&line);
    out.push('\n');
}
