//! The census of CPython without the GIL, whose objects are in mimalloc.
//!
//! `STRANDLINE_TEST_FREE_THREADED`: such an interpreter, 3.13 (`./configure --disable-gil`).

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::standing::*;
use common::*;

/// The interpreter to look at, if there is one.
fn interpreter() -> Option<PathBuf> {
    let Some(path) = std::env::var_os("STRANDLINE_TEST_FREE_THREADED") else {
        eprintln!(
            "STRANDLINE_TEST_FREE_THREADED isn't set: builds without the GIL are NOT looked at"
        );
        return None;
    };
    let path = PathBuf::from(path);
    let code = "import sysconfig; assert sysconfig.get_config_var('Py_GIL_DISABLED')";
    let status = Command::new(&path).args(["-c", code]).status();
    assert!(status.is_ok_and(|s| s.success()), "{} is no free-threaded CPython", path.display());
    Some(path)
}

fn stand(path: &PathBuf, code: &str) -> (Standing, Value) {
    let dir = Dir::new();
    let mut command = Command::new(path);
    command.arg(dir.file("program.py", program(code)));
    let s = Standing::of(command, dir);
    let census = s.census();
    check(&s, &census, 0.001);
    (s, census)
}

#[test]
fn objects_are_counted_by_type() {
    let Some(python) = interpreter() else { return };
    let code = "
class Plain(object):
    def __init__(self):
        self.a = 1
class Slotted(object):
    __slots__ = ('one',)
plain = [Plain() for _ in range(100000)]
slotted = [Slotted() for _ in range(100000)]
floats = [i + 0.5 for i in range(300000)]
ints = [i + (1 << 40) for i in range(1000000)]
dicts = [{'k': None} for i in range(30000)]
data = [bytes(3000) for _ in range(1000)]
";
    let (_, census) = stand(&python, code);
    assert_eq!(count(&census, "__main__.Plain"), 100_000);
    assert_eq!(count(&census, "__main__.Slotted"), 100_000);
    for (name, n) in [("float", 300_000), ("int", 1_000_000), ("dict", 30_000), ("bytes", 1000)] {
        let found = count(&census, name);
        assert!((n..n + 3000).contains(&found), "{found} of {name}, not {n}");
    }
    let version = census["interpreters"][0]["version"].as_str().unwrap();
    assert!(version.contains("free-threading"), "{version}");
}

#[test]
fn objects_of_the_collector_are_all_found() {
    let Some(python) = interpreter() else { return };
    let code = "
names = ('dict', 'list', 'function', 'type', 'module', 'set', 'property')
gc.collect()
def tell():
    counts = {}
    for o in gc.get_objects():
        name = type(o).__name__
        counts[name] = counts.get(name, 0) + 1
    return [(name, counts.get(name, 0)) for name in names]
for name, n in tell():
    say(name, n)
";
    let (s, census) = stand(&python, code);
    for name in ["dict", "list", "function", "type", "module", "set", "property"] {
        // The collector leaves out what can't be part of a cycle, and sees what tells.
        let (found, said) = (count(&census, name), s.number(name));
        assert!(found + 4 >= said, "{found} of {name}, not {said}");
        if name == "function" || name == "property" || name == "module" {
            assert!(found.abs_diff(said) <= 4, "{found} of {name}, not {said}");
        }
    }
}

#[test]
fn what_was_freed_is_free() {
    let Some(python) = interpreter() else { return };
    let code = "keep = [str(i) * 4 for i in range(500000)][::1000]\n";
    let (_, census) = stand(&python, code);
    let free = class(&census, "python_free_blocks") + class(&census, "python_free_pools");
    assert!(free > 30 << 20, "{free} bytes free");
    assert!(!census["arenas"].as_array().unwrap().is_empty());
}

#[test]
fn threads_have_heaps_of_their_own() {
    let Some(python) = interpreter() else { return };
    let code = "
import threading
class Mine(object):
    __slots__ = ('x',)
kept = []
def work():
    mine = [Mine() for _ in range(20000)]
    gone = [[] for _ in range(20000)]
    kept.append(mine)
    del gone
    started.release()
    wait.acquire()
started, wait = threading.Semaphore(0), threading.Lock()
wait.acquire()
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
for _ in range(4):
    started.acquire()
time.sleep(0.3)
";
    let (_, census) = stand(&python, code);
    assert_eq!(count(&census, "__main__.Mine"), 80_000);
}
