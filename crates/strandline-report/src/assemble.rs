//! Joins a capture with source lines and with what only the caller knows.

use std::collections::HashMap;
use std::rc::Rc;

use strandline_capture::layout;
use strandline_capture::read::{self, Capture, Process, Refusal, SiteTotal, State};

use crate::block;
use crate::model::{
    Abilities, Exit, FunctionTable, LedgerRow, Line, ProcessRow, ProcessState, Program, Run,
    SiteRow, SCHEMA,
};
use crate::source::{Source, Sources};

/// What the capture doesn't know.
pub struct Setting<'a> {
    /// Version of strandline.
    pub version: &'a str,
    /// The command that was run.
    pub command: Vec<String>,
    /// How it ended.
    pub exit: Exit,
    /// Process id of the program that was started.
    pub main_pid: u32,
    /// The code given with `-c`, if it was run so: the source of the file `<string>`.
    pub code: Option<&'a str>,
    /// Number of top source lines.
    pub top: usize,
    /// Whether a process that did not say that it ended is still there.
    pub alive: &'a dyn Fn(u32) -> bool,
}

/// Small objects and malloc: both are needed for bytes in use to be exact.
const BYTES: u32 = layout::CAN_BLOCKS | layout::CAN_MALLOC;

impl Run {
    /// Joins everything that is known of a run.
    pub fn assemble(capture: &Capture, setting: &Setting<'_>, sources: &dyn Sources) -> Run {
        let mut texts = Texts { sources, code: setting.code, known: HashMap::new() };
        let main = main_process(&capture.processes, setting.main_pid);
        let processes: Vec<ProcessRow> =
            capture.processes.iter().map(|p| process(p, capture, setting, &mut texts)).collect();
        let mut functions = Vec::new();
        // The main process first: its tables are what the user came for.
        let mut order: Vec<usize> = (0..capture.processes.len()).collect();
        order.sort_by_key(|i| Some(*i) != main);
        for i in order {
            let Some(p) = capture.processes.get(i) else { continue };
            let mut shown: Vec<&read::Function> =
                p.functions.iter().filter(|f| is_shown(p, f)).collect();
            shown.sort_by(|a, b| (&a.file, a.first_line).cmp(&(&b.file, b.first_line)));
            functions.extend(shown.into_iter().map(|f| function(p, i, f, &mut texts)));
        }
        let program = main.and_then(|i| {
            let row = processes.get(i)?;
            let (moment, ledger) = match (row.exit, row.latest, row.start) {
                (Some(exit), _, _) => ("exit", exit),
                (None, Some(latest), _) => ("latest", latest),
                (None, None, Some(start)) => ("start", start),
                (None, None, None) => return None,
            };
            let (peak_in_use_bytes, allocated_bytes) = (row.peak_in_use_bytes, row.allocated_bytes);
            Some(Program { process: i, moment, peak_in_use_bytes, allocated_bytes, ledger })
        });
        Run {
            schema: SCHEMA,
            strandline: setting.version.to_owned(),
            command: setting.command.clone(),
            function_patterns: capture.patterns.clone(),
            exit: setting.exit,
            main,
            program,
            processes,
            functions,
            censuses: Vec::new(),
            unrecorded_processes: capture.unrecorded,
            doubts: capture.doubts.clone(),
        }
    }
}

/// The Python that runs as the process that was started, the last if it replaced itself; or
/// else (a shell script in front of it) the first that was seen.
fn main_process(processes: &[Process], pid: u32) -> Option<usize> {
    let last = processes.iter().rposition(|p| p.pid == pid && p.forked_from.is_none());
    last.or(if processes.is_empty() { None } else { Some(0) })
}

/// A forked child knows its parent's functions: only those that ran in it are its own.
fn is_shown(p: &Process, f: &read::Function) -> bool {
    p.forked_from.is_none() || f.calls != 0 || f.lines.iter().any(ran)
}

fn ran(l: &read::Line) -> bool {
    l.occurrences != 0 || l.readings != 0 || l.allocated != 0 || l.freed != 0
}

fn process(
    p: &Process,
    capture: &Capture,
    setting: &Setting<'_>,
    texts: &mut Texts<'_>,
) -> ProcessRow {
    let of_parent = |region: u32| capture.processes.iter().position(|q| q.region == region);
    let by_pid = || capture.processes.iter().position(|q| q.pid == p.parent_pid);
    let exact = p.can(BYTES);
    let ledger = |l: &read::Ledger| ledger(p, l);
    let sites = exact && p.can(layout::CAN_SITES);
    ProcessRow {
        pid: p.pid,
        parent_pid: p.parent_pid,
        forked: p.forked_from.is_some(),
        parent_process: p.forked_from.and_then(of_parent).or_else(by_pid),
        command: p.command.clone(),
        executable: p.executable.to_string(),
        python: p.python.map(|(major, minor)| format!("{major}.{minor}")),
        python_text: p.version_text.to_string(),
        state: match p.state {
            State::Exited => ProcessState::Exited,
            State::Replaced => ProcessState::Replaced,
            State::Running if (setting.alive)(p.pid) => ProcessState::Running,
            State::Running => ProcessState::Killed,
        },
        can: Abilities {
            blocks: p.can(layout::CAN_BLOCKS),
            malloc: p.can(layout::CAN_MALLOC),
            sites: p.can(layout::CAN_SITES),
            lines: p.can(layout::CAN_LINES),
            profile_builtin: p.can(layout::CAN_FRONT),
        },
        refusal: p.refusal.map(|r| match r {
            Refusal::FreeThreaded => "free-threaded",
            Refusal::UnknownVersion => "unknown-version",
            Refusal::NotCPython => "not-cpython",
        }),
        started_unix_ns: p.started,
        in_use_bytes: exact.then_some(p.in_use),
        peak_in_use_bytes: exact.then_some(p.peak_in_use.max(0)),
        allocated_bytes: exact.then_some(p.allocated),
        kernel_rss_peak_bytes: (p.rss_peak > 0).then_some(p.rss_peak),
        unattributed_allocations: p.overflowed,
        start: p.start.as_ref().map(ledger),
        latest: p.latest.as_ref().map(ledger),
        exit: p.exit.as_ref().map(ledger),
        sites: sites.then_some(p.sites.len()),
        top_in_use: sites.then(|| top(p, setting.top, |s| s.in_use, texts)),
        top_allocated: sites.then(|| top(p, setting.top, |s| s.allocated, texts)),
    }
}

fn ledger(p: &Process, l: &read::Ledger) -> LedgerRow {
    let rss = l.kernel_rss.saturating_sub(l.profiler);
    let exact = p.can(BYTES);
    let whole = !p.can(layout::CAME_LATE);
    let stranded = (exact && whole).then_some(l.stranded_arenas.saturating_add(l.stranded_heap));
    let rest = stranded.map(|s| rss.saturating_sub(l.in_use).saturating_sub(s));
    LedgerRow {
        rss_bytes: rss,
        kernel_rss_bytes: l.kernel_rss,
        profiler_bytes: l.profiler,
        in_use_bytes: exact.then_some(l.in_use),
        stranded_arenas_bytes: (p.can(layout::CAN_BLOCKS) && whole).then_some(l.stranded_arenas),
        stranded_heap_bytes: (p.can(layout::CAN_MALLOC) && whole).then_some(l.stranded_heap),
        stranded_bytes: stranded,
        rest_bytes: rest,
        unix_ns: l.when,
    }
}

/// The `count` source lines with the largest amount.
fn top(
    p: &Process,
    count: usize,
    amount: impl Fn(&SiteTotal) -> u64,
    texts: &mut Texts<'_>,
) -> Vec<SiteRow> {
    let mut sites: Vec<&SiteTotal> = p.sites.iter().filter(|s| amount(s) != 0).collect();
    // Equal amounts in the order of the source, so that two runs give the same report.
    sites.sort_by(|a, b| {
        amount(b).cmp(&amount(a)).then_with(|| (&a.file, a.line).cmp(&(&b.file, b.line)))
    });
    sites.truncate(count);
    let row = |s: &SiteTotal| {
        let known = !s.file.is_empty();
        // The same file may be known under its absolute name from a profiled function.
        let function = p.functions.iter().find(|f| f.file == s.file);
        let source = texts.get(&s.file, function.map_or("", |f| &f.path));
        SiteRow {
            file: known.then(|| s.file.to_string()),
            line: (known && s.line != 0).then_some(s.line),
            function: known.then(|| s.function.to_string()),
            in_use_bytes: s.in_use,
            allocated_bytes: s.allocated,
            freed_bytes: s.freed,
            source: source.and_then(|t| t.line(s.line).map(str::trim).map(str::to_owned)),
        }
    };
    sites.into_iter().map(row).collect()
}

fn function(p: &Process, index: usize, f: &read::Function, texts: &mut Texts<'_>) -> FunctionTable {
    let source = texts.of_function(f);
    let measured = |l: &read::Line| line(p, l);
    let mut lines: Vec<Line> = f.lines.iter().map(measured).collect();
    if let Some(source) = source {
        let block = source.from(f.first_line);
        let lambda = f.name.ends_with("<lambda>");
        let with_code = f.last_line.saturating_sub(f.first_line).saturating_add(1) as usize;
        let length = block::length(block, lambda).max(with_code).min(block.len());
        let mut by_number: HashMap<u32, Line> = lines.drain(..).map(|l| (l.line, l)).collect();
        for (i, text) in block.iter().take(length).enumerate() {
            let number = f.first_line.saturating_add(i as u32);
            let mut l =
                by_number.remove(&number).unwrap_or(Line { line: number, ..Line::default() });
            l.source = Some(text.clone());
            lines.push(l);
        }
        // Lines that the file no longer has, if it was changed meanwhile.
        lines.extend(by_number.into_values());
        lines.sort_by_key(|l| l.line);
    } else {
        lines.retain(|l| l.occurrences.is_some());
    }
    FunctionTable {
        file: f.file.to_string(),
        path: (!f.path.is_empty()).then(|| f.path.to_string()),
        name: f.name.to_string(),
        first_line: f.first_line,
        process: index,
        calls: f.calls,
        lines,
    }
}

fn line(p: &Process, l: &read::Line) -> Line {
    if !ran(l) {
        return Line { line: l.line, ..Line::default() };
    }
    let read = l.readings != 0;
    let exact = p.can(BYTES);
    let lines = exact && p.can(layout::CAN_SITES);
    // What was allocated before the agent came isn't known.
    let whole = exact && read && !p.can(layout::CAME_LATE);
    let rest = l.rss.saturating_sub(l.in_use_at_rss).saturating_sub(l.stranded_at_rss);
    Line {
        line: l.line,
        rss_bytes: read.then_some(l.rss),
        rss_increment_bytes: read.then_some(l.rss_increment),
        peak_bytes: lines.then_some(l.peak),
        allocated_bytes: lines.then_some(l.allocated),
        freed_bytes: lines.then_some(l.freed),
        in_use_bytes: lines.then_some(l.in_use),
        stranded_increment_bytes: whole.then_some(l.stranded_increment),
        stranded_bytes: whole.then_some(l.stranded_at_rss),
        total_in_use_bytes: whole.then_some(l.in_use_at_rss),
        rest_bytes: whole.then_some(rest),
        occurrences: Some(l.occurrences),
        source: None,
        account: None,
    }
}

/// Source texts, each file read once.
struct Texts<'a> {
    sources: &'a dyn Sources,
    code: Option<&'a str>,
    known: HashMap<String, Option<Rc<Source>>>,
}

impl Texts<'_> {
    /// The file of a code object; `path` is its absolute name where that is known.
    fn get(&mut self, file: &str, path: &str) -> Option<Rc<Source>> {
        let name = if path.is_empty() { file } else { path };
        // "<string>", "<frozen abc>": a file of that name, if there is one, is another thing.
        if name.is_empty() || (name.starts_with('<') && name.ends_with('>')) {
            return None;
        }
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let found = self.sources.bytes(name).map(|b| Rc::new(Source::from_bytes(&b)));
        self.known.insert(name.to_owned(), found.clone());
        found
    }

    fn of_function(&mut self, f: &read::Function) -> Option<Rc<Source>> {
        let has_first = |s: &Rc<Source>| s.line(f.first_line).is_some();
        if let Some(s) = self.get(&f.file, &f.path).filter(has_first) {
            return Some(s);
        }
        if !f.source.is_empty() {
            return Some(Rc::new(Source::from_text(&f.source, f.source_first_line)));
        }
        if &*f.file != "<string>" {
            return None;
        }
        let source = Source::from_bytes(self.code?.as_bytes());
        // What `exec` runs is called "<string>" too: take the code only where the function
        // stands in it.
        let short = f.name.rsplit('.').next().unwrap_or(&f.name);
        let wanted = if short == "<lambda>" { "lambda".into() } else { format!("def {short}") };
        let block = source.from(f.first_line);
        let head = block.iter().take(block::length(block, false));
        let stands = head.into_iter().any(|l| l.contains(&wanted));
        stands.then(|| Rc::new(source))
    }
}
