//! What `strandline explain` predicts of remedies against what they return: of gc.collect() and
//! malloc_trim(0) in the same process, at a line of a founding program; of all others what
//! `strandline remedies` measures of the same program, founding programs and cases.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::standing::*;
use common::*;

/// Put in front of a founding program: at its point it is marked, or it stands until it reads a
/// line, and then tells what gc.collect() and malloc_trim(0) return.
const POINT: &str = "
import ctypes, gc, sys
try:
    import strandline
    point = strandline.mark
except ImportError:
    def rss():
        with open('/proc/self/smaps_rollup') as f:
            return [int(line.split()[1]) * 1024 for line in f if line.startswith('Rss')][0]
    def point():
        rss(), ctypes.CDLL(None).malloc_trim
        sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()
        before = rss(); gc.collect()
        collected = rss(); ctypes.CDLL(None).malloc_trim(0)
        sys.stdout.write('%d %d\\n' % (before - collected, before - rss())); sys.stdout.flush()
try:
    profile
except NameError:
    profile = lambda f: f
";

/// A founding program with a point after `line`.
fn with_point(name: &str, line: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let source = std::fs::read_to_string(path).unwrap();
    assert!(source.contains(line), "{name} has no line {line:?}");
    format!("{POINT}{}", source.replacen(line, &format!("{line}; point()"), 1))
}

fn predicted(explained: &Value, remedy: &str) -> i64 {
    let all = explained["remedies"].as_array().unwrap();
    let found = all.iter().find(|r| r["name"] == remedy).unwrap();
    found["predicted_bytes"].as_i64().unwrap()
}

/// Within 5 % or 0.5 MiB.
fn agrees(predicted: i64, returned: i64, what: &str) {
    agrees_within(512 << 10, predicted, returned, what);
}

fn agrees_within(noise: i64, predicted: i64, returned: i64, what: &str) {
    let most = (returned.abs() / 20).max(noise);
    let off = (predicted - returned).abs();
    assert!(off <= most, "{what} returned {returned} bytes, predicted were {predicted}");
}

/// The explanation at the point, after what it predicts was compared with what came.
fn compare(python: &Python, name: &str, line: &str) -> (Value, Dir) {
    let dir = Dir::new();
    let mut command = Command::new(&python.path);
    command.arg(dir.file("program.py", with_point(name, line)));
    let s = Standing::of(command, Dir::new());
    let explained = s.explained();
    let said = s.finish();
    let returned: Vec<i64> = said[0].split_whitespace().map(|word| word.parse().unwrap()).collect();
    agrees(predicted(&explained, "collect"), returned[0], &format!("{name}: gc.collect()"));
    let both = predicted(&explained, "collect-and-trim");
    agrees(both, returned[1], &format!("{name}: gc.collect() and malloc_trim(0)"));
    (explained, dir)
}

#[test]
fn in_the_same_process() {
    each(|python| {
        compare(python, "list_copy_clear.py", "del x[:]");
        compare(python, "reuse_after_del.py", "del x");
        compare(python, "list_deepcopy_del.py", "del x");
    });
}

#[test]
fn in_the_same_large_process() {
    one_of_each(
        |_| true,
        |python| {
            compare(python, "lists_deepcopy_clear.py", "del x[:]");
        },
    );
}

#[test]
fn in_a_process_of_lists_of_ints() {
    // Half a GiB: two versions stand for the rest.
    let some = |version| [(2, 7), (3, 13)].contains(&version);
    one_of_each(some, |python| {
        compare(python, "ranges_deepcopy_clear.py", "del x[:]");
    });
}

/// A case with a point where it says its truth.
fn case_with_point(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/cases");
    let source = std::fs::read_to_string(root.join(name)).unwrap();
    let says = "    print(json.dumps(dict(case=os.path.basename(__file__), python=";
    assert!(source.contains(says), "{name} says nothing");
    // An import from the future comes first.
    let source = source.replacen(says, &format!("    point()\n{says}"), 1);
    format!("from __future__ import print_function\n{POINT}{source}").replacen(
        "from __future__ import print_function\nimport ctypes, gc, json",
        "import ctypes, gc, json",
        1,
    )
}

/// A program at its point, and what `strandline remedies` measures there.
struct Compared {
    what: String,
    explained: Value,
    report: Value,
}

/// The remedies of which something is predicted.
const NAMES: &str =
    "malloc-trim,trim-threshold,mmap-threshold,arena-max,pythonmalloc-trim,pool-trim";

impl Compared {
    fn of(python: &Python, what: &str, source: &str) -> Compared {
        let dir = Dir::new();
        let program = dir.file("program.py", source);
        // Runs are compared: the same sets and dicts in each.
        let same = ("PYTHONHASHSEED", "0");
        let mut command = Command::new(&python.path);
        command.arg(&program).env(same.0, same.1);
        let explained = Standing::of(command, Dir::new()).explained();
        let out = dir.path().join("measured.json");
        let mut command = Command::new(STRANDLINE);
        command.args(["remedies", "--json", "--only", NAMES, "-o"]).arg(&out).env(same.0, same.1);
        let output = command.arg("--python").arg(&python.path).arg(&program).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let report = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
        let what = format!("{what} on {:?}", python.version);
        Compared { what, explained, report }
    }

    /// What a remedy returned; `None`: it can't be tried on this version.
    fn returned(&self, name: &str) -> Option<i64> {
        let all = self.report["remedies"].as_array().unwrap();
        let r = all.iter().find(|r| r["name"] == name)?;
        assert_eq!(r["error"], Value::Null, "{}: {r:#}", self.what);
        let marked = number(r, "marked_rss_bytes");
        let after = r["after_action_rss_bytes"].as_i64().unwrap_or(marked);
        // An action is measured in its own run, a remedy from the start against the first.
        let is_action = ["malloc-trim", "pool-trim"].contains(&name);
        let before =
            if is_action { marked } else { number(&self.report["as_is"], "marked_rss_bytes") };
        Some(before - after)
    }

    /// That every prediction is right, and every bound holds.
    fn check(&self) {
        self.check_within(512 << 10);
    }

    /// The same of a program that itself differs by `noise` bytes from run to run.
    fn check_within(&self, noise: i64) {
        for name in NAMES.split(',') {
            let Some(returned) = self.returned(name) else { continue };
            let all = self.explained["remedies"].as_array().unwrap();
            let r = all.iter().find(|r| r["name"] == name).unwrap();
            let what = format!("{}: {name}", self.what);
            if let Some(predicted) = r["predicted_bytes"].as_i64() {
                agrees_within(noise, predicted, returned, &what);
            }
            if r["is_estimate"] == true {
                let (least, most) = (number(r, "at_least_bytes"), number(r, "at_most_bytes"));
                let off = (returned.abs() / 20).max(noise);
                let bounds = least - off..=most + off;
                assert!(bounds.contains(&returned), "{what}: {returned}, not {least} to {most}");
            }
        }
    }

    /// That something was predicted of a remedy, and no bound alone.
    fn tells(&self, name: &str) {
        let predicted = predicted(&self.explained, name);
        assert!(predicted.abs() > 1 << 20, "{}: {name}: {predicted}", self.what);
    }
}

#[test]
fn founding_programs_as_measured() {
    let some = [(2, 7), (3, 8), (3, 11), (3, 13)];
    one_of_each(
        |v| some.contains(&v),
        |python| {
            let founding = |name, line| {
                let compared = Compared::of(python, name, &with_point(name, line));
                compared.check();
                compared
            };
            // The dict leaves a large free end; 2.7's arrays of ten ints a hole of small chunks.
            let dict = founding("dict_deepcopy_del.py", "del x");
            dict.tells("malloc-trim");
            dict.tells("trim-threshold");
            if python.version != (2, 7) {
                dict.tells("mmap-threshold");
                dict.tells("pythonmalloc-trim");
            }
            founding("reuse_after_del.py", "del x");
            // How large 2.7's holes are depends on all that happened on the heap before.
            if python.version != (2, 7) {
                founding("list_deepcopy_del.py", "del x");
            }
        },
    );
}

#[test]
fn cases_as_measured() {
    let some = [(2, 7), (3, 8), (3, 11), (3, 13)];
    one_of_each(
        |v| some.contains(&v),
        |python| {
            let case = |name| {
                let compared = Compared::of(python, name, &case_with_point(name));
                compared.check();
                compared
            };
            let pinned = case("03_pymalloc_pinned_arenas.py");
            let blocks = case("05_freed_blocks_below_mmap_threshold.py");
            // Pools of 4 KiB are so small that many are free: only a run can tell.
            if python.version >= (3, 10) {
                pinned.tells("pythonmalloc-trim");
                blocks.tells("pythonmalloc-trim");
            }
        },
    );
}

/// Eight threads at once, of whose blocks few stay.
const THREADS: &str = "
import threading
kept = []
start = threading.Event()
def fill():
    start.wait()
    gone = [bytearray(b'x') * 2000 for _ in range(4000)]
    kept.extend(gone[::100])
threads = [threading.Thread(target=fill) for _ in range(8)]
for t in threads: t.start()
start.set()
for t in threads: t.join()
point()
";

#[test]
fn what_one_arena_would_return_has_bounds() {
    let some = [(2, 7), (3, 11), (3, 13)];
    one_of_each(
        |v| some.contains(&v),
        // Which thread comes to which arena, and when, is another matter each time.
        |python| {
            let program = format!("{POINT}{THREADS}");
            Compared::of(python, "threads", &program).check_within(3 << 20);
        },
    );
}

/// Of a million strings one in a hundred stays where it is, or a copy is made when all are gone.
const MOVED: &str = "
x = ['item-%d' % (i * 7) for i in range(500000)]
if PINNED:
    keep = x[::100]
    del x
else:
    del x
    keep = ['item-%d' % (i * 7) for i in range(0, 500000, 100)]
";

#[test]
fn objects_that_pin_if_they_stood_elsewhere() {
    each(|python| {
        let stand = |pinned: &str| Standing::start(python, &format!("PINNED = {pinned}{MOVED}"));
        let pinned = stand("True");
        let explained = pinned.explained();
        let returned = pinned.rss() as i64 - stand("False").rss() as i64;
        agrees(predicted(&explained, "move-pins"), returned, &format!("{:?}", python.version));
    });
}
