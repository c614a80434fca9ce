//! The report as text: a table for each profiled function, then a summary for each process.

mod account;
mod summary;
mod table;

use std::path::Path;

pub use summary::signal_name;

use crate::model::{Moment, ProcessRow, ProcessState, Run};

/// Renders the report. `cwd`: paths beneath it are shown relative to it.
pub fn render(run: &Run, cwd: Option<&Path>) -> String {
    let mut out = tables(run, cwd);
    summary::render(&mut out, run, cwd);
    for moment in &run.censuses {
        census_at(&mut out, run, moment);
    }
    out
}

/// Renders the tables of profiled functions alone.
pub fn tables(run: &Run, cwd: Option<&Path>) -> String {
    let mut out = String::new();
    let several = run.functions.iter().filter(|f| f.calls != 0).count() > 1;
    let mut of_process = run.main;
    for f in run.functions.iter().filter(|f| is_table(f)) {
        if Some(f.process) != of_process {
            of_process = Some(f.process);
            if let Some(p) = run.processes.get(f.process) {
                out.push_str(&format!("{}\n\n", process_title(run, p)));
            }
        }
        table::render(&mut out, f, several, cwd);
        account::render(&mut out, f);
    }
    let idle: Vec<&str> = run.functions.iter().filter(|f| !is_table(f)).map(|f| &*f.name).collect();
    if !idle.is_empty() {
        let names = printable(&idle.join(", "));
        out.push_str(&format!("Decorated, but never called: {names}\n\n"));
    }
    if run.functions.is_empty() && !run.function_patterns.is_empty() && run.main.is_some() {
        let patterns = printable(&run.function_patterns.join(", "));
        out.push_str(&format!("No function that ran matches --function {patterns}\n\n"));
    }
    out
}

fn census_at(out: &mut String, run: &Run, moment: &Moment) {
    let peak = run.main.and_then(|i| run.processes.get(i)?.kernel_rss_peak_bytes);
    let when = match (moment.moment, peak) {
        ("peak", Some(peak)) => {
            format!("where its memory was highest (peak of RSS {})", mib(peak.into()))
        }
        ("peak", None) => "where its memory was highest".to_owned(),
        _ => "at its exit".to_owned(),
    };
    if !out.ends_with("\n\n") {
        out.push('\n');
    }
    out.push_str(&format!("The program {when}\n\n"));
    match (&moment.census, &moment.error) {
        (Some(census), _) => out.push_str(&crate::census::render(census, &Default::default())),
        (None, Some(error)) => out.push_str(&format!("No census: {}\n", printable(error))),
        (None, None) => {}
    }
}

fn is_table(f: &crate::FunctionTable) -> bool {
    f.calls != 0 || f.lines.iter().any(|l| l.occurrences.is_some())
}

/// "Process 12 (forked from 11): python app.py"
fn process_title(run: &Run, p: &ProcessRow) -> String {
    let origin = match p.parent_process.and_then(|i| run.processes.get(i)) {
        Some(parent) if p.forked => format!(", forked from {}", parent.pid),
        Some(parent) => format!(", started by {}", parent.pid),
        None => String::new(),
    };
    let state = match p.state {
        ProcessState::Exited => "",
        ProcessState::Replaced => ", replaced itself with another program",
        ProcessState::Running => ", still running",
        ProcessState::Killed => ", ended without saying so (killed, as a rule)",
    };
    format!("Process {}{origin}{state}: {}", p.pid, command_line(&p.command))
}

/// Longest command line that is shown, characters.
const COMMAND_WIDTH: usize = 120;

/// A command as one line of readable length.
pub fn command_line(command: &[String]) -> String {
    // Code given with -c is indented; that says nothing on one line.
    let words = command.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    shorten(&printable(&words), COMMAND_WIDTH)
}

/// The first `width` characters, and a sign that there are more.
pub fn shorten(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// Text from outside as one line that can't move the terminal's cursor.
pub fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(|c| if c == '\n' || c == '\r' { ' ' } else { safe(c) }).collect()
}

/// A path relative to `cwd` if it lies beneath it.
pub fn shown_path(file: &str, cwd: Option<&Path>) -> String {
    let beneath = cwd.and_then(|cwd| Path::new(file).strip_prefix(cwd).ok());
    let relative = beneath.and_then(Path::to_str).filter(|p| !p.is_empty());
    printable(relative.unwrap_or(file))
}

/// `46.375 MiB`. No "-0.000".
pub fn mib(bytes: i128) -> String {
    let text = format!("{:.3}", bytes as f64 / (1024.0 * 1024.0));
    let text = if text == "-0.000" { "0.000".to_owned() } else { text };
    format!("{text} MiB")
}

/// As `mib`; `-` for what can't be known.
fn mib_or_dash<T: Into<i128>>(bytes: Option<T>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |b| mib(b.into()))
}

/// `text` in lines of at most `width` columns, all but the first indented by `indent`, the first
/// as if it stood behind so many.
pub fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let mut out = " ".repeat(indent);
    let mut column = indent;
    for (i, word) in text.split_whitespace().enumerate() {
        let len = word.chars().count();
        if i > 0 && column + 1 + len > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += len;
    }
    out
}
