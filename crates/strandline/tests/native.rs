//! `run --stacks --native`: the functions of C and C++ code in call paths, in their places between
//! the Python functions.

mod common;

use std::path::{Path as File, PathBuf};
use std::process::Command;

use common::*;
use strandline_profile::{Amount, FrameKind, Path, Process, Profile, Weight};

/// Each allocation has a number of bytes of its own, by which it is found.
const LIBRARY: &str = r#"
#include <cstdlib>
#include <csignal>
#include <pthread.h>
#define KEPT __attribute__((noinline, noclone))
/* A function that does something after its call has a frame during it. */
#define AFTER(p) __asm__ volatile("" : : "r"(p) : "memory")
namespace shop {
struct Cart {
    char *goods;
    inline __attribute__((always_inline)) void reserve(size_t n) { goods = new char[n]; }
    inline __attribute__((always_inline)) void fill(size_t n) { reserve(n); AFTER(goods); }
};
KEPT void sell(size_t n) { Cart cart; cart.fill(n); AFTER(&cart); }
}
extern "C" {
KEPT void *leaf(size_t n) { void *p = malloc(n); AFTER(p); return p; }
KEPT void *middle(size_t n) { void *p = leaf(n); AFTER(p); return p; }
KEPT void *outer(size_t n) { void *p = middle(n); AFTER(p); return p; }
KEPT void through(void (*f)()) { f(); AFTER(f); }
KEPT void sells(size_t n) { shop::sell(n); AFTER(n); }
KEPT void *runs_alone(void *n) { void *p = outer((size_t)n); AFTER(p); return 0; }
void in_a_thread(size_t n) {
    pthread_t thread;
    if (!pthread_create(&thread, 0, runs_alone, (void *)n)) pthread_join(thread, 0);
}
static size_t wanted;
KEPT void on_signal(int) { void *p = leaf(wanted); AFTER(p); }
KEPT void interrupted(size_t n) {
    wanted = n;
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    AFTER(n);
}
}
"#;

/// Compiles a library; `id` makes its build id.
fn compile(dir: &File, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (from, to) = (dir.join(format!("{name}.cc")), dir.join(format!("{name}.so")));
    std::fs::write(&from, source).unwrap();
    let mut compiler = Command::new("c++");
    compiler.args(["-shared", "-fPIC", "-O2", "-pthread", "-Wl,--build-id=sha1"]).args(flags);
    let output = compiler.arg(&from).arg("-o").arg(&to).output().expect("a C++ compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    to
}

fn read(path: &File) -> Profile {
    strandline_profile::read(&mut std::fs::File::open(path).unwrap()).unwrap()
}

fn strandline(dir: &Dir) -> Command {
    let mut command = Command::new(STRANDLINE);
    clean(&mut command);
    command.current_dir(dir.path());
    command
}

/// Runs a script in `dir` and returns its profile.
fn record(python: &Python, dir: &Dir, source: &str, options: &[&str]) -> Profile {
    dir.file("program.py", source);
    let mut command = strandline(dir);
    command.args(["run", "--stacks", "--force", "-o", "out.strand"]).args(options);
    command.arg("--python").arg(&python.path).arg("program.py");
    let ran = run(&mut command, "");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    read(&dir.join("out.strand"))
}

/// A frame of a path: its name, and whether it is machine code.
type Named<'a> = (&'a str, bool);

/// The frames of a path, innermost first. Of a qualified name the last part.
fn frames_of<'a>(process: &'a Process, path: &Path) -> Vec<Named<'a>> {
    let mut names = Vec::new();
    let mut node = path.node as usize;
    while node != 0 {
        let frame = process.frames[process.nodes[node].frame as usize];
        let name = process.strings[frame.function as usize].as_str();
        match frame.kind {
            FrameKind::Native => names.push((name, true)),
            FrameKind::Python => names.push((name.rsplit('.').next().unwrap(), false)),
        }
        node = process.nodes[node].parent as usize;
    }
    names
}

/// The frames of the one block of so many bytes, innermost first.
fn block(process: &Process, bytes: u64) -> Vec<Named<'_>> {
    blocks(process, Amount { bytes, blocks: 1 })
}

/// The frames of the one path that allocated just this.
fn blocks(process: &Process, amount: Amount) -> Vec<Named<'_>> {
    let found: Vec<&Path> = process.paths.iter().filter(|p| p.allocated == amount).collect();
    assert_eq!(found.len(), 1, "paths with {amount:?} in {}", process.pid);
    frames_of(process, found[0])
}

/// Those of `names` that are called so, in order; C++ names begin so.
fn only<'a>(frames: &[Named<'a>], names: &[&str]) -> Vec<Named<'a>> {
    let fits = |f: &&Named| names.iter().any(|n| f.0 == *n || f.0.starts_with(&format!("{n}(")));
    frames.iter().filter(fits).copied().collect()
}

fn python_only<'a>(frames: &[Named<'a>]) -> Vec<&'a str> {
    frames.iter().filter(|f| !f.1).map(|f| f.0).collect()
}

fn adds_up(process: &Process) {
    for (weight, total) in
        [(Weight::InUse, process.totals.in_use), (Weight::Peak, process.totals.peak)]
    {
        assert_eq!(process.paths.iter().map(|p| weight.of(p).bytes).sum::<u64>(), total);
    }
}

/// The evaluator's frames are replaced by the Python frames that they run.
fn evaluators(frames: &[Named<'_>]) -> usize {
    let names = ["_PyEval_EvalFrameDefault", "PyEval_EvalFrameEx"];
    frames.iter().filter(|f| f.1 && names.contains(&f.0)).count()
}

const PROGRAM: &str = r#"
import ctypes, os, sys
BACK = ctypes.PYFUNCTYPE(None)
def load(name, kind):
    lib = kind(os.path.join(os.getcwd(), name))
    for function in ("outer", "sells", "in_a_thread", "interrupted"):
        getattr(lib, function).argtypes = [ctypes.c_size_t]
    lib.outer.restype = ctypes.c_void_p
    lib.through.argtypes = [BACK]
    return lib
def inner(lib, n):
    lib.outer(n)
def recursive(depth, lib, n):
    if depth:
        return recursive(depth - 1, lib, n)
    inner(lib, n)
def generate(lib, n):
    yield 1
    inner(lib, n)
    yield 2
class Thing(object):
    def __init__(self, lib, n):
        inner(lib, n)
def program(lib, n):
    inner(lib, n)
    def called_back():
        inner(lib, n + 1)
    called_back = BACK(called_back)
    lib.through(called_back)
    recursive(20, lib, n + 2)
    list(generate(lib, n + 3))
    Thing(lib, n + 4)
    sorted([1], key=lambda item: inner(lib, n + 5))
    lib.sells(n + 6)
    lib.in_a_thread(n + 7)
    lib.interrupted(n + 8)
    try:
        undefined
    except NameError:
        inner(lib, n + 9)
def allocates():
    return bytearray(7340123)
program(load("bare.so", ctypes.PyDLL), 1100000)
program(load("framed.so", ctypes.PyDLL), 1200000)
inner(load("bare.so", ctypes.CDLL), 1300000)
kept = allocates()
sys.stdout.flush()
if os.fork() == 0:
    inner(load("framed.so", ctypes.PyDLL), 1400000)
    os._exit(0)
os.wait()
"#;

#[test]
fn native_frames_stand_between_python_frames() {
    each(|python| {
        let dir = Dir::new();
        compile(dir.path(), "bare", LIBRARY, &["-fomit-frame-pointer", "-g"]);
        compile(dir.path(), "framed", LIBRARY, &["-fno-omit-frame-pointer", "-g"]);
        let profile = record(python, &dir, PROGRAM, &["--native"]);
        assert!(profile.doubts.is_empty(), "{:?}", profile.doubts);
        assert!(profile.meta.native);
        assert_eq!(profile.processes.len(), 2);
        let process = &profile.processes[0];
        profile.processes.iter().for_each(adds_up);

        let c = [("leaf", true), ("middle", true), ("outer", true)];
        let inner = ("inner", false);
        for n in [1100000, 1200000] {
            let at = |more: u64| {
                let frames = block(process, n + more);
                assert_eq!(evaluators(&frames), 0, "{frames:?}");
                frames
            };
            let program = [("program", false), ("<module>", false)];
            let ours = |more: u64, names: &[&str]| {
                let all = ["leaf", "middle", "outer", "inner", "program", "<module>"];
                only(&at(more), &[&all, names].concat())
            };
            let path = |between: &[Named<'static>]| [&c[..], &[inner], between, &program].concat();
            assert_eq!(ours(0, &[]), path(&[]));
            let called_back = path(&[("called_back", false), ("through", true)]);
            assert_eq!(ours(1, &["called_back", "through"]), called_back);
            assert_eq!(ours(2, &["recursive"]), path(&[("recursive", false); 21]));
            assert_eq!(ours(3, &["generate"]), path(&[("generate", false)]));
            // 3.13 has a frame of its own, of the same name, around a specialised `__init__`.
            let mut made = ours(4, &["__init__"]);
            made.dedup();
            assert_eq!(made, path(&[("__init__", false)]));
            assert_eq!(ours(5, &["<lambda>"]), path(&[("<lambda>", false)]));
            assert_eq!(ours(9, &[]), path(&[]));

            // Inlined functions, each by its own name.
            let sold =
                ["shop::Cart::reserve", "shop::Cart::fill", "shop::sell", "sells", "program"];
            let frames = at(6);
            let found: Vec<&str> = only(&frames, &sold).iter().map(|f| f.0).collect();
            let expected = [
                "shop::Cart::reserve(unsigned long)",
                "shop::Cart::fill(unsigned long)",
                "shop::sell(unsigned long)",
                "sells",
                "program",
            ];
            assert_eq!(found, expected, "{frames:?}");

            // A thread without Python.
            let frames = at(7);
            assert_eq!(python_only(&frames), [""; 0], "{frames:?}");
            assert_eq!(&frames[..4], [c[0], c[1], c[2], ("runs_alone", true)]);

            // Through the frame that the kernel makes.
            let interrupted = [("leaf", true), ("on_signal", true), ("interrupted", true)];
            let expected = [&interrupted[..], &program].concat();
            assert_eq!(ours(8, &["on_signal", "interrupted"]), expected);
        }
        // Without the interpreter's lock.
        let expected = [&c[..], &[inner, ("<module>", false)]].concat();
        let frames = block(process, 1300000);
        assert_eq!(only(&frames, &["leaf", "middle", "outer", "inner", "<module>"]), expected);
        assert_eq!(evaluators(&frames), 0);
        // The interpreter's own functions.
        let kept = process.paths.iter().find(|p| p.allocated.bytes >= 7340123);
        let frames = frames_of(process, kept.unwrap());
        let expected = [("PyByteArray_Resize", true), ("allocates", false), ("<module>", false)];
        assert_eq!(only(&frames, &["PyByteArray_Resize", "allocates", "<module>"]), expected);
        // None of strandline's own.
        let own = |name: &&String| name.contains("strandline");
        assert_eq!(process.strings.iter().find(own), None);
        // A forked child.
        let frames = block(&profile.processes[1], 1400000);
        assert_eq!(&frames[..3], &c);
        assert_eq!(python_only(&frames), ["inner", "<module>"]);
        assert_eq!(evaluators(&frames), 0);
    });
}

const ORDINARY: &str = r#"
import json, collections
Point = collections.namedtuple("Point", "x y")
def work(n):
    text = json.dumps([{"a": list(range(i % 7)), "b": str(i)} for i in range(n)], indent=1)
    return [Point(i, text[i:i + 3]) for i in range(n)], sorted(text, key=lambda c: c + "x")[:n]
kept = [work(300) for _ in range(20)]
"#;

/// The Python parts of all paths and their bytes: the same with and without native frames.
#[test]
fn python_frames_are_the_same_with_and_without() {
    each(|python| {
        let dir = Dir::new();
        let sums = |profile: &Profile| {
            let process = &profile.processes[0];
            let mut sums = std::collections::BTreeMap::<String, u64>::new();
            for path in &process.paths {
                let mut names = python_only(&frames_of(process, path));
                names.reverse();
                let text = names.join(";");
                if text.contains("work") {
                    *sums.entry(text).or_default() += path.allocated.bytes;
                }
            }
            sums
        };
        let without = record(python, &dir, ORDINARY, &[]);
        let with = record(python, &dir, ORDINARY, &["--native"]);
        assert!(!without.meta.native && with.meta.native);
        let (without, with) = (sums(&without), sums(&with));
        assert!(without.len() > 3);
        assert_eq!(without.keys().collect::<Vec<_>>(), with.keys().collect::<Vec<_>>());
        for (path, bytes) in &without {
            // Free lists and caches make some bytes a matter of luck.
            let other = with[path];
            assert!(bytes.abs_diff(other) <= bytes / 20 + 4096, "{path}: {bytes}, {other}");
        }
    });
}

const MOVES: &str = r#"
import ctypes, os, _ctypes
def use(name, function, n):
    lib = ctypes.PyDLL(os.path.join(os.getcwd(), name))
    f = getattr(lib, function)
    f.argtypes, f.restype = [ctypes.c_size_t], ctypes.c_void_p
    f(n)
    return lib
for i in range(20):
    _ctypes.dlclose(use("first.so", "one", 1500000 + i)._handle)
    _ctypes.dlclose(use("second.so", "two", 1600000 + i)._handle)
os.mkdir("elsewhere")
os.rename("first.so", "elsewhere/first.so")
"#;

/// Two libraries after each other at the same addresses, one of which is gone when the run ends.
#[test]
fn libraries_come_and_go() {
    let source = |name: &str| {
        let text = "#include <cstdlib>\nextern \"C\" __attribute__((noinline)) void *NAME(size_t n) \
                    { void *p = malloc(n); __asm__ volatile(\"\" : : \"r\"(p) : \"memory\"); return p; }";
        text.replace("NAME", name)
    };
    each(|python| {
        let dir = Dir::new();
        compile(dir.path(), "first", &source("one"), &[]);
        compile(dir.path(), "second", &source("two"), &[]);
        let profile = record(python, &dir, MOVES, &["--native"]);
        let name_of = |profile: &Profile, first: u64| {
            let process = &profile.processes[0];
            let bytes = (0..20).map(|i| first + i).sum();
            let frames = blocks(process, Amount { bytes, blocks: 20 });
            assert_eq!(python_only(&frames), ["use", "<module>"]);
            (frames[0].0.to_owned(), frames[0].1)
        };
        assert_eq!(name_of(&profile, 1500000), (String::new(), true));
        assert_eq!(name_of(&profile, 1600000), ("two".to_owned(), true));
        let [doubt] = &profile.doubts[..] else { panic!("{:?}", profile.doubts) };
        assert!(
            doubt.contains("first.so: not found, and no debug file with its build id"),
            "{doubt}"
        );

        // Another build of the same name tells nothing.
        std::fs::create_dir(dir.join("other")).unwrap();
        compile(&dir.join("other"), "first", &source("three"), &[]);
        let look = |directory: &str| {
            let mut command = strandline(&dir);
            run(command.args(["symbolise", "out.strand", "--dir", directory]), "").ok()
        };
        let ran = look("other");
        assert!(ran.stderr.contains("isn't the file that ran"), "{}", ran.stderr);
        assert_eq!(name_of(&read(&dir.join("out.strand")), 1500000), (String::new(), true));
        // The same one elsewhere does.
        let ran = look("elsewhere");
        assert!(!ran.stderr.contains("isn't the file"), "{}", ran.stderr);
        let named = read(&dir.join("out.strand"));
        assert!(named.doubts.is_empty(), "{:?}", named.doubts);
        assert_eq!(name_of(&named, 1500000), ("one".to_owned(), true));
        assert_eq!(name_of(&named, 1600000), ("two".to_owned(), true));
        named.processes.iter().for_each(adds_up);

        // What reads profiles shows the names.
        let show = |words: &[&str]| run(strandline(&dir).args(words), "").ok().stdout;
        let folded = ["export", "out.strand", "--format", "folded", "--weight", "allocated"];
        let folded = show(&folded);
        let line = folded.lines().find(|line| line.ends_with(" 30000190"));
        assert!(line.is_some_and(|l| l.contains("one (") && l.contains("use (")), "{line:?}");
        let table = show(&["table", "out.strand", "--by", "function", "--weight", "allocated"]);
        assert!(table.contains("one") && table.contains("first.so"), "{table}");
        assert!(show(&["tree", "out.strand", "--weight", "allocated"]).contains("two"));
        assert!(show(&["report", "out.strand"]).contains("use"));
        run(strandline(&dir).args(["flamegraph", "out.strand"]), "").ok();
        assert!(dir.join("out.html").exists());
    });
}
