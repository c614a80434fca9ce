//! `run --stacks`: every allocation under its whole call path, the exact peak, what a killed
//! program leaves behind.

mod common;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::recorded::*;
use common::*;
use strandline_profile::{Amount, Domain, Path, State, Weight};

const PATHS: &str = r#"
import sys, threading
kept = []
def block(n):
    return bytearray(n)
def inner():
    kept.append(block(100000))
def outer():
    inner()
    for _ in range(3):
        block(200000)
def generate():
    kept.append(block(300000))
    yield
    kept.append(block(300000))
def drive():
    for _ in generate(): pass
def deep(n):
    if n:
        return deep(n - 1)
    kept.append(block(400000))
def traced():
    sys.setprofile(lambda *a: None)
    kept.append(block(500000))
    sys.setprofile(None)
def work():
    inner()
def unwatched():
    exec("def gone():\n    kept.append(block(600000))\ngone()", globals())
outer()
drive()
deep(20)
deep(0)
traced()
unwatched()
unwatched()
thread = threading.Thread(target=work, name="worker")
thread.start()
thread.join()
del kept[0]
"#;

#[test]
fn every_allocation_has_its_whole_path() {
    each(|python| {
        let recorded = record(python, PATHS);
        let p = &recorded.profile.processes[0];
        adds_up(p);
        let one = |n: u64| Amount { bytes: n + 1, blocks: 1 };
        let times = |n: u64, k: u64| Amount { bytes: k * (n + 1), blocks: k };
        // bytearray asks for one byte more than it holds, and for a header that is small; a call
        // may make a frame object.
        let is = |functions: &[&str], weight, wanted: Amount| {
            let Amount { bytes, .. } = under(p, functions, weight);
            let room = wanted.bytes..=wanted.bytes + 1000 * wanted.blocks;
            assert!(room.contains(&bytes), "{functions:?}: {bytes}, not {wanted:?}");
        };
        is(&["block", "inner", "outer", "<module>"], Weight::Allocated, one(100_000));
        assert!(under(p, &["block", "inner", "outer"], Weight::InUse).bytes < 1000);
        is(&["block", "outer", "<module>"], Weight::Allocated, times(200_000, 3));
        assert!(under(p, &["block", "outer"], Weight::InUse).bytes < 1000);
        is(&["block", "generate", "drive", "<module>"], Weight::InUse, times(300_000, 2));
        is(&["block", "deep", "<module>"], Weight::InUse, one(400_000));
        let mut deep = vec!["block"];
        deep.extend(["deep"; 21]);
        deep.push("<module>");
        is(&deep, Weight::InUse, one(400_000));
        is(&["block", "traced", "<module>"], Weight::InUse, one(500_000));
        is(&["block", "gone", "<module>", "unwatched"], Weight::InUse, times(600_000, 2));
        let threads = |path: &&Path| p.threads[path.thread as usize].name == "worker";
        let of_worker: Vec<_> = p.paths.iter().filter(threads).collect();
        let found = of_worker.iter().filter(|path| path.in_use().bytes > 100_000);
        let found: Vec<_> = found.map(|path| names(p, path)).collect();
        assert_eq!(found.len(), 1, "{:?}", p.threads);
        let calls: Vec<_> = found[0].iter().take(3).map(|n| n.0).collect();
        assert_eq!(calls, ["block", "inner", "work"]);
        assert!(found[0].last().unwrap().0.ends_with("_bootstrap"));
        let threads: Vec<_> = p.threads.iter().skip(1).map(|t| t.name.as_str()).collect();
        assert_eq!(threads, ["MainThread", "worker"]);
    });
}

/// Functions that look alike, made, called and dropped one after the other: their code objects stand
/// at the same few addresses.
const GONE: &str = r#"
kept, places = [], set()
def block(n):
    return bytearray(n)
def call(f):
    f()
def one(i):
    names = {'block': block, 'kept': kept}
    exec("def gone_%03d():\n%s    kept.append(block(100000))\n" % (i, "    pass\n" * (i % 3)), names)
    f = names['gone_%03d' % i]
    places.add(id(f.__code__))
    call(f)
    names.clear()
def deep(n, i):
    if n:
        return deep(n - 1, i)
    one(i)
for i in range(150):
    deep(i % 7, i)
print(len(places))
"#;

#[test]
fn code_at_an_address_where_other_code_was() {
    each(|python| {
        let recorded = record(python, GONE);
        let places: usize = recorded.ran.stdout.trim().parse().unwrap();
        assert!(places < 100, "{places} addresses: nothing was tried");
        let p = &recorded.profile.processes[0];
        adds_up(p);
        let all: Vec<_> = p.paths.iter().map(|path| (names(p, path), path)).collect();
        for i in 0..150 {
            let name = format!("gone_{i:03}");
            let mut wanted = vec!["block", &name, "call", "one"];
            wanted.extend(vec!["deep"; i % 7 + 1]);
            wanted.push("<module>");
            let of = all.iter().filter(|(names, _)| names.iter().any(|n| n.0 == name));
            let mut bytes = 0;
            for (names, path) in of.filter(|(_, path)| path.allocated.bytes > 50_000) {
                assert_eq!(names.iter().map(|n| n.0).collect::<Vec<_>>(), wanted);
                assert_eq!(names[1].1, i as u32 % 3 + 2, "its line");
                assert_eq!(path.in_use(), path.allocated);
                bytes += path.allocated.bytes;
            }
            assert!((100_001..101_000).contains(&bytes), "{name}: {bytes}");
        }
    });
}

#[test]
fn ten_thousand_frames() {
    let source = r#"
import sys, threading
sys.setrecursionlimit(30000)
threading.stack_size(512 << 20)
kept = []
def deep(n):
    if n:
        return deep(n - 1)
    kept.append(bytearray(100000))
def main():
    deep(9999)
thread = threading.Thread(target=main)
thread.start()
thread.join()
assert len(kept) == 1
"#;
    each(|python| {
        let recorded = record(python, source);
        let p = &recorded.profile.processes[0];
        let large = p.paths.iter().filter(|path| path.in_use().bytes >= 100_000);
        let deepest: Vec<_> = large.map(|path| names(p, path)).collect();
        let depth = |names: &Vec<(&str, u32)>| names.iter().take_while(|n| n.0 == "deep").count();
        let found = deepest.iter().find(|names| depth(names) == 10_000);
        assert_eq!(found.map(|names| names[10_000].0), Some("main"));
    });
}

#[test]
fn coroutines() {
    let source = r#"
import asyncio
kept = []
async def leaf(n):
    await asyncio.sleep(0)
    kept.append(bytearray(n))
async def middle(n):
    await leaf(n)
async def main():
    await asyncio.gather(middle(100000), middle(200000))
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"#;
    each_of(
        |version| version >= (3, 6),
        |python| {
            let recorded = record(python, source);
            let p = &recorded.profile.processes[0];
            let found = under(p, &["leaf", "middle"], Weight::InUse).bytes;
            assert!((300_002..303_000).contains(&found), "{found}");
        },
    );
}

const FAMILY: &str = r#"
import ctypes
libc = ctypes.CDLL(None)
pointer = ctypes.c_void_p
def function(name, result, *arguments):
    f = getattr(libc, name)
    f.restype, f.argtypes = result, arguments
    return f
size = ctypes.c_size_t
malloc, free = function("malloc", pointer, size), function("free", None, pointer)
calloc, realloc = function("calloc", pointer, size, size), function("realloc", pointer, pointer, size)
memalign, valloc = function("memalign", pointer, size, size), function("valloc", pointer, size)
aligned = function("aligned_alloc", pointer, size, size)
pvalloc = function("pvalloc", pointer, size)
posix = function("posix_memalign", ctypes.c_int, ctypes.POINTER(pointer), size, size)
def do_malloc():
    return malloc(70000)
def do_calloc():
    return calloc(7, 10000)
def do_realloc():
    return realloc(do_malloc(), 70001)
def do_memalign():
    return memalign(64, 70000)
def do_aligned():
    return aligned(64, 70016)
def do_valloc():
    return valloc(70000)
def do_pvalloc():
    return pvalloc(70000)
def do_posix():
    p = pointer()
    posix(ctypes.byref(p), 64, 70000)
    return p.value
for f in [do_malloc, do_calloc, do_realloc, do_memalign, do_aligned, do_valloc, do_pvalloc, do_posix]:
    for _ in range(3):
        p = f()
    free(p)
free(None)
"#;

#[test]
fn the_malloc_family_is_paired() {
    each(|python| {
        let recorded = record(python, FAMILY);
        let p = &recorded.profile.processes[0];
        adds_up(p);
        for function in [
            "do_malloc",
            "do_calloc",
            "do_realloc",
            "do_memalign",
            "do_aligned",
            "do_valloc",
            "do_pvalloc",
            "do_posix",
        ] {
            // do_realloc's own blocks come from do_malloc.
            let made = if function == "do_malloc" { 6 } else { 3 };
            let freed = if function == "do_malloc" { 4 } else { 1 };
            assert_eq!(requests(p, function, Domain::Malloc, 70_000), made, "{function}");
            let names = |path: &&Path| {
                path.domain == Domain::Malloc
                    && names(p, path).first().is_some_and(|n| n.0 == function)
            };
            let in_use: u64 = p.paths.iter().filter(names).map(|path| path.in_use().bytes).sum();
            let left = made - freed;
            let room = left * 70_000..left * 70_016 + 2000;
            assert!(room.contains(&in_use), "{function}: {in_use}");
        }
    });
}

const PEAKS: &str = r#"
def first():
    return bytearray(3000000)
def second():
    return bytearray(2000000)
def third():
    return bytearray(4000000)
a = first()
b = second()
del a
c = third()          # the peak: second and third
del b
b = second()         # as high again: the first one counts
del b, c
d = first()
"#;

#[test]
fn the_peak_is_exact() {
    each(|python| {
        let recorded = record(python, PEAKS);
        let p = &recorded.profile.processes[0];
        adds_up(p);
        let at = |function: &str| under(p, &[function], Weight::Peak).bytes;
        assert!(at("first") < 1000, "{}", at("first"));
        assert!((2_000_001..2_001_000).contains(&at("second")));
        assert!((4_000_001..4_001_000).contains(&at("third")));
        let rss = |function: &str| under(p, &[function], Weight::RssPeak).bytes;
        assert!(rss("third") > 4_000_000 && rss("first") < 1000, "at the highest RSS");
        assert!(under(p, &["first"], Weight::InUse).bytes > 3_000_000);
    });
}

#[test]
fn temporaries_and_how_far_they_may_be() {
    let source = r#"
import ctypes
libc = ctypes.PyDLL(None)
pointer, size = ctypes.c_void_p, ctypes.c_size_t
libc.malloc.restype, libc.malloc.argtypes = pointer, [size]
libc.free.argtypes = [pointer]
def grows():
    old = None
    for i in range(100):
        new = libc.malloc(100000 + i)
        libc.free(old)
        old = new
    libc.free(old)
grows()
"#;
    each(|python| {
        let temporary = |options: &[&str]| {
            let recorded = record_with(python, source, options);
            let p = &recorded.profile.processes[0];
            adds_up(p);
            under(p, &["grows"], Weight::Temporary).bytes / 100_000
        };
        // Between a block's birth and its end ctypes makes a few objects of its own.
        assert!(temporary(&["--temporary", "0"]) < 5);
        assert!(temporary(&["--temporary", "15"]) >= 90);
    });
}

#[test]
fn children_have_parts_of_their_own() {
    let source = r#"
import os
def mine(n):
    return bytearray(n)
def parent():
    return mine(1000000)
def child(n):
    return mine(n)
kept = parent()
for n in (2000000, 3000000):
    pid = os.fork()
    if pid == 0:
        b = child(n)
        os._exit(0)
    os.waitpid(pid, 0)
"#;
    each(|python| {
        let recorded = record(python, source);
        let all = &recorded.profile.processes;
        assert_eq!(all.len(), 3);
        for (process, own) in all.iter().zip([0, 2_000_000, 3_000_000]) {
            assert_eq!(sum(process, Weight::InUse).bytes, process.totals.in_use);
            let kept = under(process, &["mine", "parent"], Weight::InUse);
            assert!(kept.bytes > 1_000_000 && kept.bytes < 1_001_000);
            let child = under(process, &["mine", "child"], Weight::InUse).bytes;
            assert!((own..own + 1000).contains(&child), "{child}");
            assert_eq!(process.forked, own != 0);
            assert_eq!(process.state, State::Exited);
        }
    });
}

/// Whatever ends the program, what it had is in the profile.
#[test]
fn a_killed_program_leaves_a_profile() {
    let ways = [
        ("os._exit(3)", Some(3), None),
        ("os.kill(os.getpid(), signal.SIGKILL)", None, Some(libc::SIGKILL)),
        ("ctypes.string_at(0)", None, Some(libc::SIGSEGV)),
        ("raise SystemExit(4)", Some(4), None),
    ];
    each(|python| {
        for (way, code, signal) in ways {
            let source = format!(
                "import os, signal, ctypes, resource\n\
                 resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n\
                 def leak():\n    return bytearray(5000000)\n\
                 a = leak()\n{way}\n"
            );
            let dir = Dir::new();
            let (mut command, path) = command(python, &dir, &source, &[]);
            let status = command.stderr(Stdio::null()).status().unwrap();
            assert_eq!((status.code(), status.signal()), (code, signal), "{way}");
            let profile = read(&path);
            let p = &profile.processes[0];
            assert!(profile.meta.finished);
            assert_eq!((profile.meta.exit_code, profile.meta.signal), (code, signal));
            assert!(under(p, &["leak"], Weight::InUse).bytes > 5_000_000, "{way}");
            assert_eq!(sum(p, Weight::InUse).bytes, p.totals.in_use, "{way}");
        }
    });
}

/// The profile can be read while the program runs, and stays when strandline itself is killed.
#[test]
fn a_running_program_has_a_profile() {
    let python = pythons().last().unwrap();
    let source =
        "import time\ndef leak():\n    return bytearray(5000000)\na = leak()\ntime.sleep(600)\n";
    let dir = Dir::new();
    let (mut command, path) = command(python, &dir, source, &[]);
    let mut child =
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    let profile = loop {
        assert!(start.elapsed() < Duration::from_secs(300), "no profile with a timeline");
        std::thread::sleep(Duration::from_millis(100));
        // Each is put in the place of the one before as a whole.
        let profile = path.exists().then(|| read(&path));
        if let Some(profile) = profile.filter(|p| p.processes[0].timeline.points.len() > 2) {
            break profile;
        }
    };
    assert!(!profile.meta.finished);
    let p = &profile.processes[0];
    assert!(under(p, &["leak"], Weight::InUse).bytes > 5_000_000);
    assert!(p.timeline.points.iter().any(|point| point.in_use > 5_000_000 && point.rss > 0));
    // SAFETY: kills the process group that was made above.
    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
    child.wait().unwrap();
    assert_eq!(read(&path).processes[0].pid, p.pid);
}

#[test]
fn nothing_is_overwritten() {
    let python = pythons().last().unwrap();
    let dir = Dir::new();
    let (mut command, path) = command(python, &dir, "print('ran')", &[]);
    std::fs::write(&path, "mine").unwrap();
    let ran = run(&mut command, "");
    assert_eq!(ran.code, Some(125));
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("--force"), "{}", ran.stderr);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let (mut again, _) = self::command(python, &dir, "print('ran')", &["--force"]);
    let ran = run(&mut again, "").ok();
    assert!(ran.stderr.contains("strandline report"), "{}", ran.stderr);
    assert!(read(&path).meta.finished);
}

/// `--stacks` names its file by itself, and two runs with one process id get two files.
#[test]
fn the_usual_name() {
    let python = pythons().last().unwrap();
    let dir = Dir::new();
    let script = dir.file("some app.py", "pass");
    let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
    clean(&mut command);
    command.args(["run", "--stacks", "--python"]).arg(&python.path).arg(script);
    run(command.current_dir(dir.path()), "").ok();
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "some app.py")
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].starts_with("strandline-some_app.") && names[0].ends_with(".strand"));
}

const PINS: &str = r#"
import os, sys, time
kept = []
def pin(i):
    return "pin %d" % i
def fill():
    gone = []
    for i in range(600000):
        gone.append("gone %d" % i)
        if i % 9000 == 0:
            kept.append(pin(i))
fill()
print(os.getpid())
sys.stdout.flush()
time.sleep(60)
"#;

/// Of a process that records call paths `explain` says which line asked for what keeps arenas; of
/// a profile it says what became of the memory.
#[test]
fn explained_by_line() {
    let few = |version| [(3, 8), (3, 11), (3, 13)].contains(&version);
    each_of(few, |python| {
        let dir = Dir::new();
        let (mut command, path) = command(python, &dir, PINS, &[]);
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let explain = |target: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
            command.args(["explain", "--json", target]);
            let said: serde_json::Value =
                serde_json::from_str(&run(&mut command, "").ok().stdout).unwrap();
            said
        };
        let said = explain(line.trim());
        let first = &said["pins_by_line"][0];
        let place = first["place"].as_str().unwrap_or_default();
        assert!(place.starts_with("pin (") && place.ends_with("program.py:5)"), "{said:#}");
        assert!(first["callers"][0].as_str().unwrap().starts_with("fill ("), "{first}");
        assert!(number(first, "held_bytes") > 8_000_000, "{first}");
        assert!((60..80).contains(&number(first, "blocks")), "{first}");
        assert!(first["text"].as_str().unwrap().contains("% of"), "{first}");
        // SAFETY: kills the program that was started above.
        unsafe { libc::kill(line.trim().parse().unwrap(), libc::SIGTERM) };
        child.wait().unwrap();
        let said = explain(path.to_str().unwrap());
        assert_eq!(said["verdict"], "allocator_retention", "{said:#}");
        assert_eq!(said["reason"], "free_blocks");
    });
}
