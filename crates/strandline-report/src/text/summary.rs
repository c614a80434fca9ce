//! The summary: what each process held, in words, and which source lines asked for it.

use std::path::Path;

use super::{command_line, mib, mib_or_dash, printable, process_title, shorten, shown_path};
use crate::model::{LedgerRow, ProcessRow, ProcessState, Run, SiteRow};

/// Longest source text beside a top line, characters.
const SOURCE_WIDTH: usize = 70;

/// Appends the summary of every process, the main one first, and what the reader should know of
/// how far it can be trusted.
pub(super) fn render(out: &mut String, run: &Run, cwd: Option<&Path>) {
    if let Some(signal) = run.exit.signal {
        out.push_str(&format!(
            "The program was killed by signal {signal}{}.\n\n",
            signal_name(signal)
        ));
    }
    if run.processes.is_empty() {
        out.push_str(&format!(
            "Nothing was measured: no Python was seen in `{}`.\n\
             A Python is seen if it is an ordinary, dynamically linked program that was started\n\
             with its environment; a statically linked or set-user-id one can't be seen.\n",
            command_line(&run.command)
        ));
    }
    let mut order: Vec<usize> = (0..run.processes.len()).collect();
    order.sort_by_key(|i| Some(*i) != run.main);
    for i in order {
        let Some(p) = run.processes.get(i) else { continue };
        if p.python.is_some() || p.refusal.is_some() {
            process(out, run, p, Some(i) == run.main, cwd);
        }
    }
    if run.unrecorded_processes != 0 {
        out.push_str(&format!(
            "{} more processes were not recorded: a run has room for a limited number.\n",
            run.unrecorded_processes
        ));
    }
    for doubt in &run.doubts {
        out.push_str(&format!("Doubt: {}.\n", printable(doubt)));
    }
}

/// ` (SIGKILL: …)`: what people call a signal; empty for those that they rarely see.
pub fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL: sent by someone, or by the kernel for lack of memory)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

fn process(out: &mut String, run: &Run, p: &ProcessRow, main: bool, cwd: Option<&Path>) {
    if main {
        let python = p.python.as_deref().map_or(String::new(), |v| format!(", Python {v}"));
        let command = command_line(&p.command);
        out.push_str(&format!("Whole program: {command}  (process {}{python})\n\n", p.pid));
    } else {
        out.push_str(&format!("{}\n\n", process_title(run, p)));
    }
    refusal(out, p);
    // A process that was killed never took its exit ledger.
    let (ledger, when) = match (&p.exit, &p.latest, &p.start) {
        (Some(l), _, _) if p.state == ProcessState::Replaced => (l, "when it was replaced"),
        (Some(l), _, _) => (l, "at exit"),
        (None, Some(l), _) if p.state == ProcessState::Running => (l, "now"),
        (None, Some(l), _) => (l, "when it was last seen"),
        (None, None, Some(l)) => (l, "at its start, the only time that it was seen"),
        (None, None, None) => {
            out.push_str("  Nothing was measured: it ended before its Python was up.\n\n");
            return;
        }
    };
    if main && p.state == ProcessState::Killed {
        out.push_str("  It ended without saying so; this is how it was last seen.\n\n");
    }
    amounts(out, p, ledger, when);
    limits(out, p);
    let count = p.sites.unwrap_or(0);
    if let Some(rows) = p.top_in_use.as_ref().filter(|r| !r.is_empty()) {
        let total = p.in_use_bytes.unwrap_or(0);
        out.push_str(&format!(
            "  Still in use {when}, by the source line that asked for it{}\n",
            { more(rows.len(), count) }
        ));
        top(out, rows, |s| s.in_use_bytes, total, cwd);
    }
    if let Some(rows) = p.top_allocated.as_ref().filter(|r| !r.is_empty()) {
        let total = p.allocated_bytes.unwrap_or(0).min(i64::MAX as u64) as i64;
        let title = "  Asked for during the whole run, by source line";
        out.push_str(&format!("{title}{}\n", more(rows.len(), count)));
        top(out, rows, |s| s.allocated_bytes, total, cwd);
    }
}

fn more(shown: usize, all: usize) -> String {
    if all > shown {
        format!(" (the top {shown} of {all})")
    } else {
        String::new()
    }
}

fn amounts(out: &mut String, p: &ProcessRow, l: &LedgerRow, when: &str) {
    let kept = match (l.stranded_arenas_bytes, l.stranded_heap_bytes) {
        (Some(python), Some(c)) => {
            format!(": {} kept by Python, {} by the C library", mib(python.into()), mib(c.into()))
        }
        _ => String::new(),
    };
    let rss = mib(l.rss_bytes.into());
    let own = mib(l.profiler_bytes.into());
    if l.in_use_bytes.is_none() {
        // Nothing to split it into.
        out.push_str(&format!(
            "  RSS {when}: {rss}, what the system counts (strandline's own {own} left out)\n\n"
        ));
        return;
    }
    let peak = mib_or_dash(p.peak_in_use_bytes);
    let rows = [
        (
            "In use",
            mib_or_dash(l.in_use_bytes),
            "asked for by the program and not given back".into(),
        ),
        (
            "Stranded",
            mib_or_dash(l.stranded_bytes),
            format!("given back by the program, but not to the system{kept}"),
        ),
        (
            "Rest",
            mib_or_dash(l.rest_bytes),
            "the interpreter and its libraries, stacks, the allocators' bookkeeping".into(),
        ),
        (
            "RSS",
            rss,
            format!("all three: what the system counts (strandline's own {own} left out)"),
        ),
    ];
    let width = rows.iter().map(|r| r.1.len()).chain([peak.len()]).max().unwrap_or(0);
    out.push_str(&format!("  Peak       {peak:>width$}   the most that was in use at one time\n"));
    out.push_str(&format!(
        "  {}{}:\n",
        when.get(..1).unwrap_or("").to_uppercase(),
        when.get(1..).unwrap_or("")
    ));
    for (what, amount, text) in rows {
        out.push_str(&format!("  {what:<8}   {amount:>width$}   {text}\n"));
    }
    out.push('\n');
}

/// Why a process shows less than others.
fn refusal(out: &mut String, p: &ProcessRow) {
    let version = p.python.as_deref().unwrap_or("of an unknown version");
    let text = match p.refusal {
        Some("free-threaded") => format!(
            "This is a free-threaded build of Python {version}. Strandline can't look into it yet:\n  \
             there are no line tables and no bytes in use, only what the system counts. Use the\n  \
             ordinary build of the same version for the whole report.\n\n"
        ),
        Some("not-cpython") => "This Python isn't CPython (PyPy, for example). Strandline only knows \
             CPython's memory:\n  there are no line tables and no bytes in use, only what the \
             system counts.\n\n"
            .to_owned(),
        Some(_) => format!(
            "This strandline doesn't know Python {version}: there are no line tables, and bytes can't \
             be given\n  to source lines. A newer strandline may know it.\n\n"
        ),
        None => return,
    };
    out.push_str(&format!("  {text}"));
}

/// What is missing in a process that was not refused.
fn limits(out: &mut String, p: &ProcessRow) {
    if p.refusal.is_some() {
        return;
    }
    let mut notes: Vec<String> = Vec::new();
    if !p.can.blocks || !p.can.malloc {
        notes.push(
            "This interpreter doesn't let its allocations be seen from outside: amounts that \
             can't be exact are shown as a dash."
                .into(),
        );
    } else if !p.can.sites {
        notes.push(
            "This interpreter's frames are not understood: bytes can't be given to source lines."
                .into(),
        );
    }
    if !p.can.lines {
        notes.push("Lines could not be followed in this process: there are no tables.".into());
    }
    if p.unattributed_allocations != 0 {
        notes.push(format!(
            "{} allocations are counted in the sums but belong to no line: the tables were full.",
            p.unattributed_allocations
        ));
    }
    for note in &notes {
        out.push_str(&format!("  {note}\n"));
    }
    if !notes.is_empty() {
        out.push('\n');
    }
}

fn top(
    out: &mut String,
    rows: &[SiteRow],
    amount: impl Fn(&SiteRow) -> u64,
    total: i64,
    cwd: Option<&Path>,
) {
    let places: Vec<String> = rows.iter().map(|r| place(r, cwd)).collect();
    let amounts: Vec<String> = rows.iter().map(|r| mib(amount(r).into())).collect();
    let place_width = places.iter().map(|p| p.chars().count()).max().unwrap_or(0);
    let amount_width = amounts.iter().map(String::len).max().unwrap_or(0);
    for ((row, place), text) in rows.iter().zip(&places).zip(&amounts) {
        let share = if total > 0 { amount(row) as f64 * 100.0 / total as f64 } else { 0.0 };
        let source = row.source.as_deref().unwrap_or("");
        let source = shorten(&printable(source), SOURCE_WIDTH);
        let line = format!(
            "    {text:>amount_width$}   {share:>5.1} %   {place:<place_width$}   {source}"
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push('\n');
}

fn place(row: &SiteRow, cwd: Option<&Path>) -> String {
    match (&row.file, row.line) {
        (Some(file), Some(line)) => format!("{}:{line}", shown_path(file, cwd)),
        (Some(file), None) => shown_path(file, cwd),
        (None, _) => "outside Python code (before start-up, C threads)".to_owned(),
    }
}
