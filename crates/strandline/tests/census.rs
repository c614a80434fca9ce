//! `strandline census` of live processes against what the kernel, Python's allocator, the
//! collector and the C library say of the same moment.

mod common;

use std::process::Command;

use common::standing::*;
use common::*;

/// A million numbers and what is left of them.
const NUMBERS: &str = "
import copy
x = list(range(1000000))
y = copy.deepcopy(x)
del x
";

#[test]
fn every_byte_has_a_class() {
    each(|python| {
        let s = Standing::start(python, NUMBERS);
        let census = s.census();
        check(&s, &census, 0.001);
        let version = census["interpreters"][0]["version"].as_str().unwrap();
        assert!(version.starts_with(&format!("{}.{}.", python.version.0, python.version.1)));
        assert_eq!(census["interpreters"].as_array().unwrap().len(), 1);
        assert!(count(&census, "int") >= 1_000_000, "{}", count(&census, "int"));
    });
}

#[test]
fn blocks_are_those_of_debugmallocstats() {
    each_of(
        |version| version >= (3, 6),
        |python| {
            let code = format!("{NUMBERS}\ndel y[::3]\nlast = sys._debugmallocstats\n");
            let s = Standing::start(python, &code);
            let census = s.census();
            check(&s, &census, 0.001);
            let mut wanted = Vec::new();
            let mut arenas = None;
            for line in s.errors().lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                if let ["#", "arenas", "allocated", "current", "=", n] = words[..] {
                    arenas = n.replace(',', "").parse::<usize>().ok();
                }
                let numbers: Vec<u64> = words.iter().map_while(|w| w.parse().ok()).collect();
                if let ([_, size, pools, used, free], 5) = (&numbers[..], words.len()) {
                    wanted.push((*size, *pools, *used, *free));
                }
            }
            assert!(wanted.len() > 20, "{}", s.errors());
            let found: Vec<_> = census["size_classes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| (u(c, "block_bytes"), u(c, "pools"), u(c, "in_use"), u(c, "free")))
                .collect();
            assert_eq!(found, wanted, "(block size, pools, in use, free)");
            assert_eq!(Some(census["arenas"].as_array().unwrap().len()), arenas);
        },
    );
}

/// Populations of a known size.
const POPULATIONS: &str = "
N = 50000
class Plain(object):
    def __init__(self, i):
        self.i = i
class Slotted(object):
    __slots__ = ('i',)
    def __init__(self, i):
        self.i = i
class Text(str): pass
def count(kind):
    return sum(1 for o in gc.get_objects() if type(o) is kind)
keep = [
    [Plain(i) for i in range(N)],
    [Slotted(i) for i in range(N)],
    [{'a': i} for i in range(N)],
    [(i, i) for i in range(N)],
    [float(i) + 0.5 for i in range(N)],
    [{i} for i in range(N)],
    [Text(i) for i in range(N)],
    [bytearray(b'x' * 600) for i in range(1000)],
]
gc.collect()
gc.disable()
";

#[test]
fn objects_are_counted_by_type() {
    each(|python| {
        let s = Standing::start(python, POPULATIONS);
        let census = s.census();
        check(&s, &census, 0.001);
        for name in ["__main__.Plain", "__main__.Slotted", "__main__.Text"] {
            assert_eq!(count(&census, name), 50_000, "{name}");
        }
        for name in ["dict", "tuple", "float", "set"] {
            let n = count(&census, name);
            assert!((50_000..60_000 + 50_000).contains(&n), "{n} of {name}");
        }
        assert_eq!(count(&census, "bytearray"), 1000);
        let types = census["types"].as_array().unwrap();
        let arrays = types.iter().find(|t| t["name"] == "bytearray").unwrap();
        assert!(u(arrays, "buffer_bytes") >= 600_000, "{arrays}");
    });
}

#[test]
fn objects_of_the_collector_are_all_found() {
    each(|python| {
        // What is told is counted before it is told; the list of all objects, its iterator and
        // the frames of the counting are gone by then.
        let code = format!(
            "{POPULATIONS}
names = ('list', 'dict', 'set', 'tuple', 'Plain', 'Slotted', 'function', 'module', 'type')
def tell():
    counts = dict.fromkeys(names, 0)
    for o in gc.get_objects():
        name = type(o).__name__
        if name in counts:
            counts[name] += 1
    return counts
counts = tell()
for name in sorted(counts):
    say(name, counts[name])
"
        );
        let s = Standing::start(python, &code);
        let census = s.census();
        check(&s, &census, 0.001);
        for (name, shown) in
            [("set", "set"), ("Plain", "__main__.Plain"), ("Slotted", "__main__.Slotted")]
        {
            assert_eq!(count(&census, shown), s.number(name), "{name}");
        }
        for name in ["list", "function", "module"] {
            // Made or dropped between the counting and the sleep: a handful.
            let difference = count(&census, name).abs_diff(s.number(name));
            assert!(difference <= 3, "{name}: {difference} more or less");
        }
    });
}

/// `mallinfo2` as the last act.
const MALLINFO: &str = "
import ctypes
class Info(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in
        'arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost'.split()]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(n * 37 % 5000 + 600) for n in range(5000)]
for b in blocks[::2]:
    libc.free(b)
large = [libc.malloc(300000) for _ in range(5)]
libc.mallinfo2()
m = libc.mallinfo2()
for name in ('arena', 'hblks', 'hblkhd', 'uordblks', 'fordblks'):
    say(name, getattr(m, name))
";

#[test]
fn malloc_is_what_mallinfo_says() {
    each(|python| {
        let s = Standing::start(python, MALLINFO);
        let census = s.census();
        check(&s, &census, 0.001);
        let m = &census["malloc"];
        assert_eq!(u(m, "heap_bytes"), s.number("arena"));
        assert_eq!(u(m, "mmapped_chunks"), s.number("hblks"));
        assert_eq!(u(m, "mmapped_bytes"), s.number("hblkhd"));
        // Telling the numbers takes a few small buffers of its own.
        let used = u(m, "in_use_bytes").abs_diff(s.number("uordblks"));
        assert!(used <= 4096, "in use: {used} more or less");
        assert_eq!(u(m, "in_use_bytes") + u(m, "free_bytes"), s.number("arena"));
    });
}

#[test]
fn what_did_not_come_back_is_named() {
    each(|python| {
        // Every thousandth object stays: arenas can't go back.
        let code = "keep = [str(i) * 4 for i in range(1000000)][::1000]\n";
        let s = Standing::start(python, code);
        let census = s.census();
        check(&s, &census, 0.001);
        let kept = class(&census, "python_free_blocks") + class(&census, "python_free_pools");
        assert!(kept > 20 << 20, "{kept} bytes in free blocks and pools");
        let pins = census["pins"].as_array().unwrap();
        assert_eq!(pins[0]["type_name"], "str", "{pins:?}");
    });
}

#[test]
fn what_keeps_a_heap_is_named() {
    each(|python| {
        // Chunks of the heap, every one of them below the threshold for a mapping of its own.
        let code = "
holes = [bytearray(20000) for _ in range(2000)]
keep = bytearray(30000)
del holes
";
        let s = Standing::start(python, code);
        let census = s.census();
        check(&s, &census, 0.001);
        let heap = &census["heaps"][0];
        let parts = ["in_use_bytes", "free_bytes", "top_bytes"].map(|part| u(heap, part));
        assert!(parts[1] > 30 << 20, "{heap}");
        assert!(u(heap, "bytes").abs_diff(parts.iter().sum()) < 4096, "{heap}");
        // It stands above the holes; little that the interpreter asks for comes after it.
        let last = &heap["last"];
        assert!(u(last, "address") > u(heap, "address") + (30 << 20), "{heap}");
        let malloc = &census["malloc"];
        let heaps = census["heaps"].as_array().unwrap();
        assert_eq!(heaps.iter().map(|h| u(h, "bytes")).sum::<u64>(), u(malloc, "heap_bytes"));
    });
}

#[test]
fn a_threaded_program_is_named() {
    each(|python| {
        let code = "
import threading
def work():
    blocks = [bytearray(5000) for _ in range(100)]
    lock.acquire()
lock = threading.Lock()
lock.acquire()
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads:
    t.daemon = True
    t.start()
time.sleep(0.3)
";
        let s = Standing::start(python, code);
        let census = s.census();
        check(&s, &census, 0.005);
        assert!(class(&census, "stacks") > 0);
    });
}

#[test]
fn two_censuses_show_what_grew() {
    let python = &pythons()[pythons().len() - 1];
    let dir = Dir::new();
    let (a, b) = (dir.path().join("a.json"), dir.path().join("b.json"));
    for (path, n) in [(&a, 1000), (&b, 30_000)] {
        let s = Standing::start(python, &format!("keep = [{{i}} for i in range({n})]\n"));
        std::fs::write(path, s.census().to_string()).unwrap();
    }
    let output =
        Command::new(STRANDLINE).arg("census").arg(&a).arg("--diff").arg(&b).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let row = text.lines().find(|l| l.starts_with("set ")).unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains("+29000"), "{text}");
}

#[test]
fn two_looks_at_the_same_memory_are_equal() {
    each(|python| {
        let code = "
import threading, json, decimal, collections
class Thing(object):
    pass
keep = [Thing() for _ in range(20000)]
for number, thing in enumerate(keep):
    thing.text, thing.shared = str(number), keep[number // 2]
more = collections.deque({number: [number]} for number in range(20000))
";
        let s = Standing::start(python, code);
        let looks = [s.census(), s.census(), s.census()];
        for part in ["types", "free_lists", "classes", "arenas", "heaps", "pins", "largest"] {
            for look in &looks[1..] {
                let (a, b) = (looks[0][part].as_array().unwrap(), look[part].as_array().unwrap());
                assert_eq!(a.len(), b.len(), "{part}");
                a.iter().zip(b).for_each(|(a, b)| assert_eq!(a, b, "{part}"));
            }
        }
    });
}

#[test]
fn bad_targets_are_named() {
    let dir = Dir::new();
    let odd = dir.path().join("odd.json");
    std::fs::write(&odd, "{}").unwrap();
    let missing = dir.path().join("missing");
    for (words, said) in [
        (vec!["999999999"], "999999999"),
        (vec!["0"], "0"),
        (vec![missing.to_str().unwrap()], "missing"),
        (vec![odd.to_str().unwrap()], "odd.json"),
        (vec!["--core", missing.to_str().unwrap()], "missing"),
        (vec!["--core", odd.to_str().unwrap()], "odd.json"),
    ] {
        let output = Command::new(STRANDLINE).arg("census").args(&words).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{words:?}: {errors}");
        assert!(errors.contains(said), "{words:?}: {errors}");
        assert!(output.stdout.is_empty());
    }
}

/// Builds and drops objects on four threads as fast as it can.
const CHURN: &str = "
import threading
def churn():
    while True:
        keep = [({'a': i}, [i] * 3, str(i)) for i in range(5000)]
        del keep
        blocks = [bytearray(n * 100) for n in range(200)]
for _ in range(4):
    t = threading.Thread(target=churn)
    t.daemon = True
    t.start()
time.sleep(0.2)
";

#[test]
fn a_program_that_never_rests_is_read_as_it_stood() {
    each(|python| {
        let dir = Dir::new();
        let path = dir.path().join("churn.py");
        std::fs::write(&path, format!("import time\n{CHURN}\ntime.sleep(600)\n")).unwrap();
        let mut child = Command::new(&python.path).arg(&path).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        let pid = child.id().to_string();
        // Twenty looks at each, two hundred at the newest.
        let looks = if python.version == (3, 13) { 200 } else { 20 };
        for i in 0..looks {
            // Every fourth time without a stop: torn, perhaps, but never wrong in the sum.
            let pause = i % 4 != 3;
            let more: &[&str] = if pause { &[] } else { &["--no-pause"] };
            let output = Command::new(STRANDLINE)
                .args(["census", "--json", "--paths", "0", &pid])
                .args(more)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            let census: Value = serde_json::from_slice(&output.stdout).unwrap();
            let rss = u(&census, "rss_bytes");
            let classes = census["classes"].as_array().unwrap();
            assert_eq!(classes.iter().map(|c| u(c, "bytes")).sum::<u64>(), rss);
            if pause {
                assert_eq!(rss, u(&census, "kernel_rss_bytes"));
                // A thread may stand in the middle of taking a block: one pool at a time.
                let torn = class(&census, "python_torn_pools");
                assert!(torn <= 1 << 14, "{torn} bytes in torn pools");
                let share = u(&census, "unnamed_bytes") as f64 / rss as f64;
                assert!(share <= 0.01, "{:.4} % without a name", share * 100.0);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_core_file_says_the_same() {
    // gcore comes with gdb; without it there is no core file to compare.
    let gcore = Command::new("gcore").arg("--version").output();
    assert!(gcore.is_ok() || std::env::var_os("CI").is_none(), "gcore is missing: install gdb");
    if gcore.is_err() {
        eprintln!("gcore is missing: core files are NOT compared; install gdb");
        return;
    }
    each(|python| {
        let s = Standing::start(python, POPULATIONS);
        let census = s.census();
        let name = s.dir.path().join("core");
        let output =
            Command::new("gcore").arg("-o").arg(&name).arg(s.pid().to_string()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let core = s.dir.path().join(format!("core.{}", s.pid()));
        let output =
            Command::new(STRANDLINE).args(["census", "--json", "--core"]).arg(&core).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        let dumped: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(dumped["size_classes"], census["size_classes"]);
        assert_eq!(dumped["kernel_rss_bytes"], Value::Null);
        for name in ["__main__.Plain", "__main__.Slotted", "dict", "float", "set", "str"] {
            assert_eq!(count(&dumped, name), count(&census, name), "{name}");
        }
        for name in ["python_objects", "python_large_objects", "malloc_bins"] {
            assert_eq!(class(&dumped, name), class(&census, name), "{name}");
        }
        assert_eq!(dumped["doubts"], serde_json::json!([]));
    });
}

/// The path to the largest object of about this size.
fn path(census: &Value, bytes: u64) -> String {
    let largest = census["largest"].as_array().unwrap();
    let it = largest.iter().find(|l| u(l, "bytes").abs_diff(bytes) < 1 << 16);
    it.and_then(|l| l["path"].as_str()).unwrap_or("nobody").to_owned()
}

#[test]
fn who_refers_is_said_in_pythons_words() {
    each(|python| {
        let code = "
class Record(object):
    def __init__(self):
        self.first = 1
        self.blob = bytearray(3000000)
class Slots(object):
    __slots__ = ('one', 'two')
class Derived(Slots):
    __slots__ = ('three',)
class Old: pass
CACHE = {'records': [Record()], 7: (1, 2, [b'x' * 5000000])}
slots = Derived()
slots.two = [bytearray(4000000)]
slots.three = bytearray(4500000)
old = Old()
old.x = bytearray(2000000)
asked = Record()
asked.__dict__
asked.blob = bytearray(2500000)
";
        let s = Standing::start(python, code);
        let census = s.census();
        let path = |bytes| path(&census, bytes);
        let record = r#"__main__.CACHE["records"][0] → __main__.Record.blob → bytearray"#;
        assert_eq!(path(3_000_000), record);
        let text = if python.version.0 == 2 { "str" } else { "bytes" };
        assert_eq!(path(5_000_000), format!("__main__.CACHE[7][2][0] → {text}"));
        assert_eq!(path(4_000_000), "__main__.slots → __main__.Derived.two[0] → bytearray");
        assert_eq!(path(4_500_000), "__main__.slots → __main__.Derived.three → bytearray");
        let old = if python.version.0 == 2 { "instance" } else { "__main__.Old" };
        assert_eq!(path(2_000_000), format!("__main__.old → {old}.x → bytearray"));
        assert_eq!(path(2_500_000), "__main__.asked → __main__.Record.blob → bytearray");
    });
}

#[test]
fn locals_of_functions_are_named() {
    each(|python| {
        let code = "
import threading
class Box(object):
    def __init__(self):
        self.rows = None
def waits():
    held = [bytearray(3000000)]
    yield 1
    yield len(held)
def view(arg):
    rows = [bytearray(5000000)]
    box = Box()
    box.rows = {'k': bytearray(4000000)}
    def inner():
        return rows
    g = waits()
    next(g)
    for x in [bytearray(6000000)]:
        del x
        work(arg)
def work(arg):
    say('ready')
    sleep(600)
def other():
    mine = (bytearray(7000000),)
    started.set()
    sleep(600)
sleep = time.sleep
started = threading.Event()
t = threading.Thread(target=other)
t.daemon = True
t.start()
started.wait()
view(bytearray(8000000))
";
        let s = Standing::start(python, code);
        let census = s.census();
        let file = s.dir.path().join("program.py");
        // Four lines stand in front.
        let at = |name: &str, line: u32| format!("{name}() at {}:{}", file.display(), line + 4);
        let path = |bytes| path(&census, bytes);
        let expect = |bytes: u64, start: String, end: &str| {
            let path = path(bytes);
            assert!(path.starts_with(&start) && path.ends_with(end), "{path}\nnot {start} {end}");
        };
        let mine = format!("{}, local mine[0] → bytearray", at("other", 27));
        assert_eq!(path(7_000_000), mine);
        let rows = format!("{}, local box → __main__.Box.rows[\"k\"] → bytearray", at("view", 20));
        assert_eq!(path(4_000_000), rows);
        expect(5_000_000, format!("{}, local rows → cell", at("view", 20)), "[0] → bytearray");
        // On the value stack of the loop.
        expect(6_000_000, at("view", 20), "[0] → bytearray");
        // The generator stands at its first yield, and so does what it holds.
        let held = format!("{}, local held[0] → bytearray", at("waits", 8));
        assert!(path(3_000_000).ends_with(&held), "{}", path(3_000_000));
        // Who calls holds it, and who was called.
        assert!(path(8_000_000).contains(&format!("{}:", file.display())), "{}", path(8_000_000));
    });
}

#[test]
fn sub_interpreters_have_arenas_of_their_own() {
    each_of(
        |version| version == (3, 12) || version == (3, 13),
        |python| {
            let code = "
import threading
try:
    import _interpreters as interpreters
    run = interpreters.exec
except ImportError:
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string
def work():
    i = interpreters.create()
    run(i, 'keep = [str(n) * 3 for n in range(50000)]; import time; time.sleep(600)')
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(2)
";
            let s = Standing::start(python, code);
            let census = s.census();
            check(&s, &census, 0.005);
            assert_eq!(census["interpreters"][0]["allocators"], 3);
            let n = count(&census, "str");
            assert!(n > 100_000, "{n} str");
        },
    );
}
