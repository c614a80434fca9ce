//! `run --stacks` from outside: small programs for which any right profiler says the same numbers.

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::recorded::*;
use common::*;
use strandline_profile::{Amount, Domain, Process, Weight};

/// `valloc(n)` asks malloc for exactly n bytes, and nothing else does under its callers' names.
const PRELUDE: &str = r#"
import ctypes, os, sys, threading
libc = ctypes.CDLL(None)
size, pointer = ctypes.c_size_t, ctypes.c_void_p
valloc, free = libc.valloc, libc.free
valloc.restype, valloc.argtypes = pointer, [size]
free.restype, free.argtypes = None, [pointer]
"#;

fn ran(python: &Python, body: &str) -> Recorded {
    let recorded = record(python, &format!("{PRELUDE}{body}"));
    adds_up(&recorded.profile.processes[0]);
    recorded
}

fn blocks(n: u64, bytes: u64) -> Amount {
    Amount { bytes: n * bytes, blocks: n }
}

/// What malloc was asked for by calls that end in these functions.
fn native(p: &Process, functions: &[&str], weight: Weight) -> Amount {
    let fits = |path: &&strandline_profile::Path| {
        let names = names(p, path);
        let right = names.len() >= functions.len()
            && names.iter().zip(functions).all(|(name, function)| name.0 == *function);
        right && path.domain == Domain::Malloc
    };
    p.paths.iter().filter(fits).map(|path| weight.of(path)).fold(Amount::default(), Amount::plus)
}

/// Twenty records, 55 MiB in all; at the peak 10, 8, 6, 4, 2 and 1 MiB are there.
#[test]
fn sizes_that_spike() {
    let body = "
for n in range(1, 11):
    exec('def take_%d(): return valloc(%d << 20)' % (n, n))
def spikes():
    kept = [take_1(), take_2()]
    for spike, stays in ((take_3, take_4), (take_5, take_6), (take_7, take_8), (take_9, take_10)):
        free(spike())
        kept.append(stays())
    for p in kept:
        free(p)
spikes()
";
    each(|python| {
        let recorded = ran(python, body);
        let p = &recorded.profile.processes[0];
        let mut all = Amount::default();
        for n in 1..=10u64 {
            let of = |weight| native(p, &[&format!("take_{n}"), "spikes"], weight);
            all = all.plus(of(Weight::Allocated));
            let peak = if [1, 2, 4, 6, 8, 10].contains(&n) { 1 } else { 0 };
            assert_eq!(of(Weight::Peak), blocks(peak, n << 20), "{n} MiB");
            assert_eq!(of(Weight::InUse), Amount::default(), "{n} MiB");
        }
        assert_eq!(all, Amount { bytes: 55 << 20, blocks: 10 });
    });
}

#[test]
fn leaks() {
    let body = "
def two():
    return valloc(3000), valloc(3000)
def ten():
    for _ in range(10):
        valloc(1024)
def middle():
    first, leaked, last = valloc(1024), valloc(2048), valloc(4096)
    free(first); free(last)
two(); ten(); middle()
";
    each(|python| {
        let recorded = ran(python, body);
        let p = &recorded.profile.processes[0];
        let left = |function| native(p, &[function, "<module>"], Weight::InUse);
        assert_eq!(left("two"), blocks(2, 3000));
        assert_eq!(left("ten"), blocks(10, 1024));
        assert_eq!(left("middle"), blocks(1, 2048));
        let sites = |function: &str| {
            let paths = p
                .paths
                .iter()
                .filter(|path| path.domain == Domain::Malloc && path.in_use().bytes > 2000);
            paths.filter(|path| names(p, path).first().is_some_and(|n| n.0 == function)).count()
        };
        assert_eq!((sites("two"), sites("ten")), (1, 1), "one line, one path");
    });
}

/// A block that is older than the agent is freed under its eyes.
#[test]
fn blocks_from_before() {
    let source = "#include <stdlib.h>\n#include <stdio.h>\nstatic void *old[100];\n\
        __attribute__((constructor)) static void start(void) {\n\
            for (int i = 0; i < 100; i++) old[i] = malloc(100 * (i + 1));\n}\n\
        void give_back(void) { for (int i = 0; i < 100; i += 2) free(old[i]); }\n\
        void move(void) { for (int i = 1; i < 100; i += 2) old[i] = realloc(old[i], 777); }\n";
    let program = "import ctypes\nlibrary = ctypes.CDLL('./old.so')\n\
                   def move():\n    library.move()\nlibrary.give_back()\nmove()\nprint('fine')\n";
    each(|python| {
        let dir = Dir::new();
        let old = library(&dir, "old", source, &[]);
        let (mut command, path) = command(python, &dir, program, &[]);
        let ran = run(command.env("LD_PRELOAD", old), "").ok();
        assert_eq!(ran.stdout, "fine\n");
        let profile = read(&path);
        let p = &profile.processes[0];
        adds_up(p);
        assert_eq!(native(p, &["move"], Weight::InUse), blocks(50, 777));
    });
}

#[test]
fn threads_and_their_names() {
    let body = "
def work():
    valloc(4096)
def many():
    posix = libc.posix_memalign
    posix.argtypes = [ctypes.POINTER(pointer), size, size]
    blocks = []
    for _ in range(100):
        p = pointer()
        aligned(posix, p)
        blocks.append(p)
    for p in blocks:
        free(p)
def aligned(posix, p):
    posix(ctypes.byref(p), 64, 1000)
def named():
    valloc(5000)
def together(target, n):
    threads = [threading.Thread(target=target) for _ in range(n)]
    for t in threads: t.start()
    for t in threads: t.join()
together(work, 2)
together(many, 100)
def rename():
    for name in (b'first', b'second', b'third', b'fourth'):
        libc.prctl(15, name, 0, 0, 0)
        named()
together(rename, 1)
";
    each(|python| {
        let recorded = ran(python, body);
        let p = &recorded.profile.processes[0];
        let of = |function: &str| -> Vec<(u32, &str, Amount)> {
            let paths = p.paths.iter().filter(|path| {
                path.domain == Domain::Malloc
                    && names(p, path).first().is_some_and(|n| n.0 == function)
            });
            let thread = |path: &strandline_profile::Path| &p.threads[path.thread as usize];
            paths.map(|path| (thread(path).tid, &*thread(path).name, path.allocated)).collect()
        };
        let work = of("work");
        assert_eq!(work.len(), 2, "{work:?}");
        assert!(work[0].0 != work[1].0 && work.iter().all(|w| w.2 == blocks(1, 4096)), "{work:?}");
        let (made, freed) = asked(p, "aligned", Domain::Malloc);
        assert_eq!((made, freed), (blocks(10_000, 1000), blocks(10_000, 1000)));
        let mut named: Vec<_> = of("named").iter().map(|n| (n.1, n.2)).collect();
        named.sort_by_key(|n| n.0.to_owned());
        let one = blocks(1, 5000);
        assert_eq!(named, [("first", one), ("fourth", one), ("second", one), ("third", one)]);
    });
}

/// Four threads move 1.6 million blocks of one heap that all share: every pair is matched.
#[test]
fn realloc_under_contention() {
    let source = "#include <malloc.h>\n#include <stdlib.h>\n\
        void one_arena(void) { mallopt(M_ARENA_MAX, 1); }\n\
        void churn(int n) {\n    void *blocks[50] = {0};\n\
            for (int i = 0; i < n; i++) blocks[i % 50] = realloc(blocks[i % 50], 200 + i % 701);\n\
            for (int i = 0; i < 50; i++) free(blocks[i]);\n}\n";
    let program = "import ctypes, threading\nlibrary = ctypes.CDLL('./churn.so')\n\
        library.one_arena()\ndef move():\n    library.churn(400000)\n\
        threads = [threading.Thread(target=move) for _ in range(4)]\n\
        for t in threads: t.start()\nfor t in threads: t.join()\n";
    each(|python| {
        let dir = Dir::new();
        library(&dir, "churn", source, &[]);
        let (mut command, path) = command(python, &dir, program, &[]);
        run(&mut command, "").ok();
        let profile = read(&path);
        let p = &profile.processes[0];
        assert_eq!(sum(p, Weight::InUse).bytes, p.totals.in_use);
        let (made, freed) = asked(p, "move", Domain::Malloc);
        assert_eq!(made.blocks, 1_600_000);
        assert_eq!(freed, made);
    });
}

#[test]
fn forks() {
    let body = "
def take(n):
    for _ in range(n):
        valloc(5000)
def mine():
    free(valloc(5000))
mine()
for n in (1, 10, 100):
    pid = os.fork()
    if pid == 0:
        take(n)
        take(5000)
        os._exit(0)
    os.waitpid(pid, 0)
";
    each(|python| {
        let recorded = ran(python, body);
        let all = &recorded.profile.processes;
        let taken: Vec<u64> =
            all.iter().map(|p| requests(p, "take", Domain::Malloc, 5000)).collect();
        assert_eq!(taken, [0, 5001, 5010, 5100]);
        assert_eq!(taken.iter().sum::<u64>(), 15_111);
        let (made, freed) = asked(&all[0], "mine", Domain::Malloc);
        assert_eq!((made, freed), (blocks(1, 5000), blocks(1, 5000)));
    });
}

/// Function, file and line of every frame.
#[test]
fn whole_call_chains() {
    let body = "
def one():
    return valloc(70000)
def two():
    return one()
def three():
    return two()
def again(n):
    if n == 0:
        return three()
    return list(map(call, [n]))
def call(n):
    return again(n - 1)
three()
a = valloc(80000)
b = valloc(80000)
again(4)
";
    let base = PRELUDE.lines().count() as u32;
    each(|python| {
        let recorded = ran(python, body);
        let p = &recorded.profile.processes[0];
        let chain = |path: &strandline_profile::Path| {
            let mut chain = Vec::new();
            let mut node = p.nodes[path.node as usize];
            while node.frame != 0 {
                let frame = p.frames[node.frame as usize];
                let text = |i: u32| p.strings[i as usize].as_str();
                assert!(text(frame.file).ends_with("program.py"), "{}", text(frame.file));
                chain.push((text(frame.function), frame.line - base));
                node = p.nodes[node.parent as usize];
            }
            chain
        };
        let of = |bytes| {
            let paths = p.paths.iter().filter(|path| path.domain == Domain::Malloc);
            let paths = paths.filter(|path| path.allocated == blocks(1, bytes));
            let mut chains: Vec<_> = paths.map(chain).collect();
            chains.sort_by_key(|chain| chain.len());
            chains
        };
        let top = [("one", 3), ("two", 5), ("three", 7)];
        let short = [&top[..], &[("<module>", 14)]].concat();
        let mut long = [&top[..], &[("again", 10)]].concat();
        for _ in 0..4 {
            long.extend([("call", 13), ("again", 11)]);
        }
        long.push(("<module>", 17));
        assert_eq!(of(70_000), [short, long]);
        let mut lines: Vec<_> = of(80_000).iter().map(|chain| chain[0]).collect();
        lines.sort();
        assert_eq!(lines, [("<module>", 15), ("<module>", 16)]);
    });
}

/// The interpreter is shut down by the program itself, under our feet.
#[test]
fn finalized_by_the_program() {
    let source = "#include <stdlib.h>\nint Py_FinalizeEx(void) __attribute__((weak));\n\
        void Py_Finalize(void);\n\
        void end(void) { if (Py_FinalizeEx) Py_FinalizeEx(); else Py_Finalize(); exit(5); }\n";
    let body = "
def leak():
    return valloc(70000)
leak()
sys.stdout.write('out'); sys.stdout.flush()
ctypes.PyDLL('./end.so').end()
";
    each(|python| {
        let dir = Dir::new();
        library(&dir, "end", source, &[]);
        let (mut command, path) = command(python, &dir, &format!("{PRELUDE}{body}"), &[]);
        let ran = run(&mut command, "");
        assert_eq!((ran.code, &*ran.stdout), (Some(5), "out"), "{}", ran.stderr);
        let profile = read(&path);
        let p = &profile.processes[0];
        assert_eq!(native(p, &["leak"], Weight::InUse), blocks(1, 70_000));
        assert_eq!(sum(p, Weight::InUse).bytes, p.totals.in_use);
    });
}

/// Each of Python's allocators, called by a library.
#[test]
fn pythons_own_allocators() {
    let body = "
api = ctypes.pythonapi
def test(name):
    def f(kind, *types):
        f = getattr(api, name + kind)
        f.restype, f.argtypes = pointer, types
        return f
    malloc, calloc, realloc, release = f('Malloc', size), f('Calloc', size, size), f('Realloc', pointer, size), f('Free', pointer)
    release.restype = None
    exec('''
def malloc_%s(): return malloc(70000)
def calloc_%s(): return calloc(7, 10000)
def realloc_%s(p): return realloc(p, 70000)
release(malloc_%s())
release(calloc_%s())
malloc_%s()
release(realloc_%s(calloc_%s()))
''' % ((name,) * 8), dict(globals(), **locals()))
for name in ('PyMem_Raw', 'PyMem_', 'PyObject_'):
    test(name)
";
    each_of(
        |version| version >= (3, 6),
        |python| {
            let recorded = ran(python, body);
            let p = &recorded.profile.processes[0];
            // 3.6 sets that table anew when it starts.
            let raw = if python.version == (3, 6) { Domain::Malloc } else { Domain::Raw };
            let domains =
                [("PyMem_Raw", raw), ("PyMem_", Domain::Mem), ("PyObject_", Domain::Object)];
            for (name, domain) in domains {
                let of = |kind: &str| {
                    let (made, freed) = asked(p, &format!("{kind}_{name}"), domain);
                    // Besides, calls make small objects.
                    (made.bytes / 70_000, freed.bytes / 70_000)
                };
                assert_eq!(of("malloc"), (2, 1), "{name}");
                assert_eq!(of("calloc"), (2, 2), "{name}");
                assert_eq!(of("realloc"), (1, 1), "{name}");
            }
        },
    );
}

const VECTOR: &str = "#include <vector>\n\
    extern \"C\" unsigned long grow(unsigned long bytes) {\n\
    std::vector<int> v;\n\
    for (unsigned long i = 0; i < bytes / sizeof(int); i++) v.push_back(i);\n\
    return v.size(); }\n";

/// A vector that grows to 2 KiB has ten blocks, each but the last freed right after the next one
/// came.
#[test]
fn a_vector_that_grows() {
    each(|python| {
        let dir = Dir::new();
        let (source, made) = (dir.file("vector.cpp", VECTOR), dir.join("vector.so"));
        let mut compiler = Command::new("c++");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&made).arg(source);
        assert!(compiler.status().unwrap().success(), "{compiler:?}");
        let program = "import ctypes\nlibrary = ctypes.CDLL('./vector.so')\n\
                       def grow():\n    return library.grow(2048)\nassert grow() == 512\n";
        for (distance, wanted) in [("1", 10), ("0", 1)] {
            let options = ["--temporary", distance, "--force"];
            let (mut command, path) = command(python, &dir, program, &options);
            run(&mut command, "").ok();
            let profile = read(&path);
            let p = &profile.processes[0];
            assert_eq!(native(p, &["grow"], Weight::Allocated).blocks, 10);
            let found = native(p, &["grow"], Weight::Temporary).blocks;
            assert_eq!(found, wanted, "distance {distance}");
        }
    });
}

/// No room for the profile any more: the program and its exit code stay, and so does the last whole
/// profile.
#[test]
fn a_full_disk() {
    let body = "
def early():
    return valloc(70000)
def late():
    return valloc(80000)
early()
sys.stdout.write('started'); sys.stdout.flush()
sys.stdin.readline()
late()
sys.stdout.write(' and done')
";
    each(|python| {
        for code in [3, 0] {
            let dir = Dir::new();
            let source = format!("{PRELUDE}{body}sys.exit({code})\n");
            let (mut command, path) = command(python, &dir, &source, &[]);
            let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let child = streams.stderr(Stdio::piped()).spawn().unwrap();
            let start = Instant::now();
            while !path.exists() {
                assert!(start.elapsed() < Duration::from_secs(60), "no profile of what runs");
                std::thread::sleep(Duration::from_millis(20));
            }
            ends_without_room(child, if code == 0 { 125 } else { code });
            let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
            assert_eq!(left.len(), 2, "{left:?}");
            let profile = read(&path);
            assert!(!profile.meta.finished);
            let p = &profile.processes[0];
            assert_eq!(native(p, &["early"], Weight::InUse), blocks(1, 70_000));
            assert_eq!(native(p, &["late"], Weight::InUse), Amount::default());
        }
    });
}
