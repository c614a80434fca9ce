//! The report of hand-made captures, against golden files. `STRANDLINE_BLESS=1 cargo test` writes
//! them anew: look at the difference before it is kept.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use strandline_capture::layout::*;
use strandline_capture::read::{
    Capture, Function, Ledger, Line, Process, Refusal, SiteTotal, State,
};
use strandline_census::{Census, ClassReport};
use strandline_report::{text, Exit, Moment, Run, Setting, Sources};

struct Given(HashMap<&'static str, &'static str>);

impl Sources for Given {
    fn bytes(&self, file: &str) -> Option<Vec<u8>> {
        self.0.get(file).map(|t| t.as_bytes().to_vec())
    }
}

const APP: &str = "\
import copy


@profile
def main():
    x = list(range(1000000))
    # a copy
    y = copy.deepcopy(
        x,
    )
    if not y:
        return None
    del x
    return y


main()
";

const NAMES: &str = "\
@profile
def größe(naïve):
    return '日本語' * naïve\n";

const MIB: i64 = 1 << 20;
const CAN_ALL: u32 = CAN_BLOCKS | CAN_MALLOC | CAN_LINES | CAN_SITES | CAN_FRONT;

fn sources() -> Given {
    Given(HashMap::from([("/home/u/app.py", APP), ("/home/u/names.py", NAMES)]))
}

fn ledger(rss: i64, in_use: i64, arenas: i64, heap: i64) -> Ledger {
    Ledger {
        kernel_rss: rss + 3 * MIB,
        profiler: 3 * MIB,
        in_use,
        stranded_arenas: arenas,
        stranded_heap: heap,
        when: 1_700_000_000_000_000_000,
    }
}

fn line(line: u32, rss: f64, increment: f64, allocated: u64, freed: u64) -> Line {
    let mib = |n: f64| (n * MIB as f64) as i64;
    Line {
        line,
        occurrences: 1,
        readings: 1,
        rss: mib(rss),
        rss_increment: mib(increment),
        in_use_at_rss: mib(rss / 2.0),
        stranded_at_rss: mib(1.25),
        stranded_increment: mib(0.125),
        peak: allocated,
        allocated,
        freed,
        slots: Vec::new(),
        in_use: allocated.saturating_sub(freed),
    }
}

fn function(file: &str, name: &str, first: u32, last: u32, lines: Vec<Line>) -> Function {
    Function {
        file: file.into(),
        path: "".into(),
        name: name.into(),
        first_line: first,
        last_line: last,
        calls: 1,
        source: "".into(),
        source_first_line: 1,
        lines,
    }
}

fn site(file: &str, line: u32, in_use: u64, allocated: u64) -> SiteTotal {
    SiteTotal {
        file: file.into(),
        line,
        function: "f".into(),
        allocated,
        freed: allocated - in_use,
        in_use,
    }
}

fn process(region: u32, pid: u32) -> Process {
    Process {
        region,
        state: State::Exited,
        pid,
        parent_pid: 99,
        python: Some((3, 11)),
        abilities: CAN_ALL,
        refusal: None,
        forked_from: None,
        overflowed: 0,
        command: vec!["python3".into(), "app.py".into()],
        executable: "/usr/bin/python3".into(),
        version_text: "3.11.7 (main)".into(),
        in_use: 20 * MIB,
        peak_in_use: 90 * MIB,
        rss_peak: 100 * MIB,
        unseen_frees: 0,
        started: 1_700_000_000_000_000_000,
        start: Some(ledger(10 * MIB, 4 * MIB, MIB, 0)),
        latest: None,
        exit: Some(ledger(50 * MIB, 20 * MIB, 2 * MIB, 5 * MIB)),
        allocated: 200 << 20,
        sites: vec![
            site("/home/u/app.py", 6, 12 << 20, 40 << 20),
            site("", 0, 1 << 20, 1 << 20),
            site("/usr/lib/python3.11/copy.py", 136, 7 << 20, 150 << 20),
            site("<frozen importlib._bootstrap>", 241, 0, 3 << 20),
        ],
        functions: vec![],
    }
}

fn capture(processes: Vec<Process>) -> Capture {
    Capture {
        options: OPTION_FOLLOW,
        owner_pid: 99,
        patterns: vec![],
        processes,
        unrecorded: 0,
        doubts: vec![],
    }
}

fn main_function() -> Function {
    function(
        "/home/u/app.py",
        "main",
        4,
        14,
        vec![
            Line { line: 4, rss: 14 * MIB, rss_increment: 14 * MIB, ..line(4, 14.0, 14.0, 0, 0) },
            line(6, 52.25, 38.25, 40_000_000, 64),
            line(8, 60.0, 7.75, 8_000_000, 128),
            line(11, 60.0, -0.0001, 0, 0),
            line(13, 52.375, -7.633, 0, 8_000_000),
            line(14, 52.375, 0.0, 0, 0),
        ],
    )
}

fn run(c: &Capture, exit: Exit, code: Option<&str>) -> Run {
    let alive = |pid: u32| pid == 303;
    let setting = Setting {
        version: "0.1.0",
        command: vec!["python3".into(), "app.py".into()],
        exit,
        main_pid: 100,
        code,
        top: 3,
        alive: &alive,
    };
    Run::assemble(c, &setting, &sources())
}

fn ok() -> Exit {
    Exit { code: Some(0), signal: None }
}

fn check(name: &str, got: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect();
    if std::env::var_os("STRANDLINE_BLESS").is_some() {
        std::fs::write(&path, got).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(got == want, "{name} differs; got:\n{got}");
}

fn check_text(name: &str, run: &Run) {
    check(name, &text::render(run, Some(Path::new("/home/u"))));
}

#[test]
fn one_function() {
    let mut p = process(0, 100);
    p.functions.push(main_function());
    let r = run(&capture(vec![p]), ok(), None);
    check_text("one_function.txt", &r);
    check("one_function.json", &r.to_json().unwrap());
}

#[test]
fn moments_of_a_run() {
    let mut r = run(&capture(vec![process(0, 100)]), ok(), None);
    let class = |name: &str, text: &str, bytes| ClassReport {
        name: name.to_owned(),
        bytes,
        text: text.to_owned(),
    };
    let census = Census {
        pid: Some(100),
        command_line: vec!["python3".to_owned(), "app.py".to_owned()],
        paused_ns: Some(9_000_000),
        rss_bytes: 60 << 20,
        kernel_rss_bytes: Some(60 << 20),
        classes: vec![
            class("python_objects", "live Python objects", 50 << 20),
            class("profiler", "strandline's own, not there without it", 10 << 20),
        ],
        ..Census::default()
    };
    let error = "the program didn't come to it: it was killed".to_owned();
    r.censuses = vec![
        Moment { moment: "peak", census: Some(census), error: None },
        Moment { moment: "exit", census: None, error: Some(error) },
    ];
    check_text("moments.txt", &r);
}

#[test]
fn rss_is_the_sum_of_its_parts_on_every_row() {
    let mut p = process(0, 100);
    p.functions.push(main_function());
    let r = run(&capture(vec![p]), ok(), None);
    for l in r.functions[0].lines.iter().filter(|l| l.occurrences.is_some()) {
        let parts = [l.total_in_use_bytes, l.stranded_bytes, l.rest_bytes];
        assert_eq!(l.rss_bytes, Some(parts.iter().flatten().sum()));
    }
    let l = r.program.unwrap().ledger;
    let sum = [l.in_use_bytes, l.stranded_bytes, l.rest_bytes].iter().flatten().sum::<i64>();
    assert_eq!(l.rss_bytes, sum);
}

#[test]
fn no_decorated_function() {
    let mut c = capture(vec![process(0, 100)]);
    check_text("no_function.txt", &run(&c, ok(), None));
    c.patterns = vec!["pkg.mod:f*".into()];
    check_text("no_match.txt", &run(&c, ok(), None));
}

#[test]
fn unknown_values_are_dashes() {
    let mut p = process(0, 100);
    p.python = Some((2, 7));
    p.abilities = CAN_MALLOC | CAN_LINES | CAN_FRONT | CAN_SITES;
    let mut f = main_function();
    f.lines[2].readings = 0;
    p.functions.push(f);
    check_text("dashes.txt", &run(&capture(vec![p]), ok(), None));
}

#[test]
fn killed_process() {
    let mut p = process(0, 100);
    p.state = State::Running;
    p.latest = p.exit.take();
    p.functions.push(main_function());
    let mut c = capture(vec![p]);
    c.doubts.push("process 100: an index of a site is outside its table".into());
    c.unrecorded = 2;
    check_text("killed.txt", &run(&c, Exit { code: None, signal: Some(9) }, None));
}

#[test]
fn several_processes() {
    let mut parent = process(1, 100);
    parent.functions.push(main_function());
    // The fork of a process that isn't the main one, and one that is still there.
    let mut child = process(2, 202);
    child.forked_from = Some(1);
    child.state = State::Running;
    child.latest = Some(ledger(30 * MIB, 10 * MIB, 0, 0));
    child.exit = None;
    let mut work = function("/home/u/app.py", "work", 4, 6, vec![line(6, 30.0, 1.0, 5, 5)]);
    work.calls = 2;
    child.functions = vec![Function { calls: 0, lines: vec![], ..main_function() }, work];
    let mut still = process(3, 303);
    still.parent_pid = 100;
    still.state = State::Running;
    still.latest = Some(ledger(30 * MIB, 10 * MIB, 0, 0));
    still.exit = None;
    still.overflowed = 12;
    let mut early = process(4, 404);
    early.state = State::Running;
    (early.start, early.exit) = (None, None);
    // Not a Python: nothing to say about it.
    let mut other = process(0, 50);
    other.python = None;
    let r = run(&capture(vec![other, parent, child, still, early]), ok(), None);
    assert_eq!(r.main, Some(1));
    assert_eq!(r.functions.len(), 2);
    check_text("processes.txt", &r);
}

#[test]
fn refused_interpreters() {
    let refused = |region, pid, why, version| {
        let mut p = process(region, pid);
        p.refusal = Some(why);
        p.python = version;
        p.abilities = CAN_MALLOC;
        p
    };
    let processes = vec![
        refused(0, 100, Refusal::FreeThreaded, Some((3, 14))),
        refused(1, 101, Refusal::UnknownVersion, Some((3, 99))),
        refused(2, 102, Refusal::NotCPython, None),
    ];
    check_text("refused.txt", &run(&capture(processes), ok(), None));
}

#[test]
fn nothing_was_seen() {
    check_text("nothing.txt", &run(&capture(vec![]), ok(), None));
}

#[test]
fn unicode_and_wide_numbers() {
    let mut p = process(0, 100);
    p.command = vec!["python3".into(), "größe.py\x1b[31m".into(), "a\nb".into()];
    let mut wide = line(3, 1_234_567.5, -1_234_567.5, 1 << 42, 7);
    wide.occurrences = 123_456_789_012_345;
    let mut f = function("names.py", "größe", 1, 3, vec![wide]);
    f.path = "/home/u/names.py".into();
    p.functions = vec![f, Function { calls: 0, ..function("x.py", "unused", 1, 1, vec![]) }];
    p.functions.push(function("/elsewhere/gone.py", "K.gone", 7, 9, vec![line(8, 1.0, 1.0, 1, 1)]));
    check_text("unicode.txt", &run(&capture(vec![p]), ok(), None));
}

#[test]
fn code_from_the_command_line_is_a_source() {
    let mut p = process(0, 100);
    p.functions = vec![
        function("<string>", "f", 1, 2, vec![line(2, 1.0, 1.0, 1, 1)]),
        function("<string>", "made.by.exec", 1, 2, vec![line(2, 1.0, 1.0, 1, 1)]),
    ];
    let mut stored = function("<zip>/m.py", "g", 11, 12, vec![line(12, 1.0, 1.0, 1, 1)]);
    stored.source = "def g():\n    return 1\n".into();
    stored.source_first_line = 11;
    p.functions.push(stored);
    let code = "@profile\ndef f():\n    return 1\nf()";
    let r = run(&capture(vec![p]), ok(), Some(code));
    let sources = |i: usize| {
        r.functions[i]
            .lines
            .iter()
            .map(|l| l.source.clone().unwrap_or_default())
            .collect::<Vec<_>>()
    };
    assert_eq!(sources(0), ["@profile", "def f():", "    return 1"]);
    assert_eq!(sources(1), [""]);
    assert_eq!(sources(2), ["def g():", "    return 1"]);
}
