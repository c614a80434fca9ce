//! What is shown (`--function`, `--all`, `@profile` on whatever there is), and that the program's
//! own tracers, monitoring tools and memory tools see what they see without strandline.

mod common;

use common::*;

const PACKAGE: [(&str, &str); 3] = [
    ("pkg/__init__.py", ""),
    (
        "pkg/mod.py",
        r#"
class Shape(object):
    def area(self, n):
        return b"x" * n           # area

    @staticmethod
    def static(n):
        return b"x" * n           # static

    @classmethod
    def make(cls, n):
        return b"x" * n           # make

    @property
    def size(self):
        return b"x" * 100000      # size

    class Inner(object):
        def deep(self, n):
            return b"x" * n       # deep

def area(n):
    return b"x" * n               # plain

def generate(n):
    yield b"x" * n                # generated
"#,
    ),
    (
        "main.py",
        r#"
import sys, json, textwrap
from pkg import mod

def here(n):
    return b"x" * n               # here

s = mod.Shape()
N = 100000
s.area(N), s.static(N), s.make(N), s.size, s.Inner().deep(N)
mod.area(N), list(mod.generate(N)), here(N)
textwrap.dedent("  a")
json.dumps({})
"#,
    ),
];

fn package(python: &Python, options: &[&str]) -> Report {
    let mut job = Job::new(python);
    for (name, text) in PACKAGE {
        job = job.file(name, text);
    }
    for option in options {
        job = job.option(option);
    }
    job.program(["main.py"]).report().1
}

#[test]
fn functions_by_pattern() {
    let cases: [(&[&str], &[&str]); 8] = [
        (&["pkg.mod:Shape.area"], &["Shape.area"]),
        (
            &["pkg.mod:Shape.*"],
            &["Shape.Inner.deep", "Shape.area", "Shape.make", "Shape.size", "Shape.static"],
        ),
        (&["*:*area"], &["Shape.area", "area"]),
        (&["pkg.*:?rea"], &["area"]),
        (&["area"], &["area"]),
        (&["__main__:here", "pkg.mod:gen*"], &["generate", "here"]),
        (&["nowhere:*"], &[]),
        (&["*.deep"], &["Shape.Inner.deep"]),
    ];
    each(|python| {
        for (patterns, names) in cases {
            let options: Vec<&str> = patterns.iter().flat_map(|p| ["--function", p]).collect();
            let report = package(python, &options);
            assert_eq!(report.names(), names, "{patterns:?}");
            let exact = 100_000 + python.bytes_header as i64;
            for tag in ["area", "static", "make", "size", "deep", "plain", "generated", "here"] {
                let name = match tag {
                    "plain" => "area".to_owned(),
                    "generated" => "generate".to_owned(),
                    "here" => tag.to_owned(),
                    "deep" => "Shape.Inner.deep".to_owned(),
                    _ => format!("Shape.{tag}"),
                };
                if names.contains(&name.as_str()) {
                    assert_eq!(report.at(tag, "allocated_bytes"), exact, "{patterns:?} {tag}");
                }
            }
        }
    });
}

#[test]
fn all_functions_of_the_users_files() {
    each(|python| {
        let report = package(python, &["--all"]);
        let mut names = report.names();
        // Bodies of modules and classes may be shown or not; they are no functions.
        names.retain(|n| !n.starts_with('<') && !["Shape", "Shape.Inner", "Inner"].contains(&&**n));
        let expected = [
            "Shape.Inner.deep",
            "Shape.area",
            "Shape.make",
            "Shape.size",
            "Shape.static",
            "area",
            "generate",
            "here",
        ];
        assert_eq!(names, expected);
        for function in report.functions() {
            let file = function["path"].as_str().or(function["file"].as_str()).unwrap();
            assert!(file.ends_with("main.py") || file.ends_with("pkg/mod.py"), "{file}");
        }
    });
}

/// The decorator gives back what it was given.
#[test]
fn profile_is_transparent() {
    let source = r#"
import inspect, sys

def f(a, b=2):
    "Says what it does."
    return a + b

assert profile(f) is f and f(1) == 3 and f.__doc__
assert profile(profile(f)) is f

class C(object):
    @profile
    @staticmethod
    def s():
        return 1

    @profile
    @property
    def p(self):
        return 2

    @profile
    @classmethod
    def c(cls):
        return cls

    @profile
    def m(self):
        return self

@profile
class D(C):
    def d(self):
        return 4

c = C()
assert (C.s(), c.s(), c.p, c.m() is c, C.c() is C) == (1, 1, 2, True, True)
assert D().d() == 4 and isinstance(D, type)
assert isinstance(C.__dict__["s"], staticmethod)
assert isinstance(C.__dict__["p"], property)
assert profile(len) is len
assert profile(sys.stdout.write) is not None
@profile()
def g(): return 5
assert g() == 5
import functools
h = profile(functools.partial(f, 1))
assert h(5) == 6
assert "profile" not in globals()
"#;
    each(|python| {
        let (_, report) = Job::script(python, source).report();
        let names = report.names();
        for name in ["f", "g"] {
            assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
        }
    });
}

/// Runs `source` with and without strandline: stdout, stderr and end have to be the same. The
/// function under `@profile` has to be measured all the same.
fn same_events(first: (u32, u32), source: &str, check: impl Fn(&Python, &Report)) {
    let guard = "try:\n    profile\nexcept NameError:\n    profile = lambda f: f\n";
    let source = format!("{guard}{source}");
    each_of(
        |version| version >= first,
        |python| {
            let job = Job::script(python, &source);
            let (ran, report) = job.profiled();
            let plain = job.plain().ok();
            assert_eq!(ran, plain);
            assert!(!plain.stdout.is_empty());
            check(python, &report);
        },
    );
}

const WORK: &str = r#"
@profile
def work(n):
    a = b"x" * n                  # made
    for i in (1, 2):
        b = helper(a)
    try:
        raise KeyError(1)
    except KeyError:
        pass
    return list(gen(3))           # out

def helper(a):
    return len(a)

def gen(n):
    for i in range(n):
        yield i
"#;

fn measured(python: &Python, report: &Report) {
    let exact = 100_000 + python.bytes_header as i64;
    assert_eq!(report.at("made", "allocated_bytes"), exact);
    assert_eq!(report.at("made", "occurrences"), 1);
}

#[test]
fn the_programs_own_settrace() {
    let rest = r#"
import sys
events = []
def tracer(frame, event, arg):
    if frame.f_code.co_filename == __file__:
        events.append((frame.f_code.co_name, event, frame.f_lineno - first))
    return tracer
first = work.__code__.co_firstlineno
work(10)
sys.settrace(tracer)
assert sys.gettrace() is tracer
work(100000 - 10)
sys.settrace(None)
assert sys.gettrace() is None
work(10)
for e in events:
    print(e)
"#;
    let source = format!("{WORK}{rest}");
    same_events((2, 7), &source, |python, report| {
        let exact = 100_010 + 3 * python.bytes_header as i64;
        assert_eq!(report.at("made", "occurrences"), 3);
        // What the tracer itself notes happens in its own time, but within the line.
        let allocated = report.at("made", "allocated_bytes");
        assert!((exact..exact + 4000).contains(&allocated), "{allocated}, {exact}");
    });
}

#[test]
fn a_debugger_that_sets_f_trace_and_a_profile_function() {
    let rest = r#"
import sys, threading, time
log = []
def local(frame, event, arg):
    log.append((event, frame.f_code.co_name))
    return local if len(log) % 5 else None
def tracer(frame, event, arg):
    return local if frame.f_code.co_name in ("work", "gen") else None
def profiler(frame, event, arg):
    if event in ("call", "return") and frame.f_code.co_filename == __file__:
        log.append((event, "profiler", frame.f_code.co_name))
threading.settrace(tracer)
threading.setprofile(profiler)
t = threading.Thread(target=work, args=(100000,))
t.start()
t.join()
# join returns while the thread still leaves threading's own functions.
time.sleep(0.2)
threading.settrace(None)
threading.setprofile(None)
for entry in log:
    print(entry)
"#;
    let source = format!("{WORK}{rest}");
    same_events((2, 7), &source, |_, report| {
        assert_eq!(report.at("made", "occurrences"), 1);
    });
}

#[test]
fn the_programs_own_monitoring_tools() {
    let rest = r#"
import sys
m = sys.monitoring
E = m.events
log = []
def event(name):
    def callback(code, *rest):
        if code.co_filename == __file__:
            log.append((name, code.co_name, [r for r in rest if isinstance(r, int)]))
            if name == "line" and code.co_name == "helper":
                return m.DISABLE
    return callback
for tool, name in ((m.DEBUGGER_ID, "debugger"), (m.COVERAGE_ID, "coverage"), (3, "mine")):
    m.use_tool_id(tool, name)
    assert m.get_tool(tool) == name
    m.register_callback(tool, E.LINE, event("line"))
    m.register_callback(tool, E.PY_START, event("start"))
    m.register_callback(tool, E.PY_YIELD, event("yield"))
    m.register_callback(tool, E.RAISE, event("raise"))
    m.set_events(tool, E.LINE | E.PY_START | E.PY_YIELD | E.RAISE)
work(100000)
m.restart_events()
for tool in (m.DEBUGGER_ID, m.COVERAGE_ID, 3):
    m.set_events(tool, 0)
    m.free_tool_id(tool)
for entry in log:
    print(entry)
"#;
    let source = format!("{WORK}{rest}");
    same_events((3, 12), &source, |_, report| {
        assert_eq!(report.at("made", "occurrences"), 1);
    });
}

#[test]
fn tracemalloc() {
    let rest = r#"
import tracemalloc
tracemalloc.start()
work(1000)
kept = work.__code__ and b"y" * len(__file__)
block = bytearray(100000)
snapshot = tracemalloc.take_snapshot()
own = [s for s in snapshot.statistics("lineno") if s.traceback[0].filename == __file__]
print(sorted((s.traceback[0].lineno, s.size > 90000) for s in own if s.size > 5000))
work(100000 - 1000)
print(tracemalloc.is_tracing(), tracemalloc.get_traced_memory()[0] > 100000)
tracemalloc.stop()
"#;
    let source = format!("{WORK}{rest}");
    same_events((3, 6), &source, |python, report| {
        // tracemalloc's own traces come from malloc, and are the line's as well.
        let exact = 100_000 + 2 * python.bytes_header as i64;
        let allocated = report.at("made", "allocated_bytes");
        assert!((exact..exact + 4000).contains(&allocated), "{allocated}, {exact}");
    });
}

#[test]
fn faulthandler_and_warnings() {
    let rest = r#"
import faulthandler, sys, warnings
dump = open("dump", "w+")
faulthandler.enable(dump)
def deeper():
    faulthandler.dump_traceback(dump)
deeper()
dump.seek(0)
# The first line has the thread's number.
print(dump.read().splitlines()[1:])
faulthandler.disable()
work(100000)
import cProfile, pstats, io
p = cProfile.Profile()
p.runcall(work, 10)
print(sorted((k[2], v[0], v[1]) for k, v in pstats.Stats(p).stats.items() if k[0] == __file__))
"#;
    let source = format!("{WORK}{rest}");
    same_events((3, 6), &source, |_, report| {
        assert_eq!(report.at("made", "occurrences"), 2);
    });
}

#[test]
fn garbage_collection_sees_the_same_objects() {
    let rest = r#"
import gc, sys, weakref
work(100000)
gc.collect()
class C(object):
    pass
c = C()
c.self = c
ref = weakref.ref(c)
del c
print(gc.collect() > 0, ref() is None, gc.garbage)
print(gc.get_threshold(), gc.isenabled(), sys.getrecursionlimit())
def depth(n):
    try:
        return depth(n + 1)
    except RuntimeError:
        return n
print(depth(0))
"#;
    let source = format!("{WORK}{rest}");
    same_events((2, 7), &source, measured);
}
