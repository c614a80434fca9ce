//! What `strandline explain` predicts of remedies against what they return: of gc.collect() and
//! malloc_trim(0) in the same process, at a line of a founding program; of a remedy from the start
//! and of malloc_trim alone, what `strandline remedies` measures of the same program.

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
    let most = (returned.abs() / 20).max(512 << 10);
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

#[test]
fn as_measured_by_runs_of_their_own() {
    let some = [(2, 7), (3, 11)];
    one_of_each(
        |v| some.contains(&v),
        |python| {
            // The dict leaves a large free end; 2.7's arrays of ten ints a hole of small chunks.
            for name in ["dict_deepcopy_del.py", "reuse_after_del.py"] {
                as_measured(python, name);
            }
        },
    );
}

fn as_measured(python: &Python, name: &str) {
    let (explained, dir) = compare(python, name, "del x");
    let out = dir.path().join("measured.json");
    let mut command = Command::new(STRANDLINE);
    command.args(["remedies", "--json", "--only", "malloc-trim,trim-threshold", "-o"]).arg(&out);
    command.arg("--python").arg(&python.path).arg(dir.path().join("program.py"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    let of = |name: &str| {
        let all = report["remedies"].as_array().unwrap();
        all.iter().find(|r| r["name"] == name).unwrap().clone()
    };
    let trim = of("malloc-trim");
    let returned = number(&trim, "marked_rss_bytes") - number(&trim, "after_action_rss_bytes");
    agrees(predicted(&explained, "malloc-trim"), returned, &format!("{name}: malloc-trim"));
    let marked = |value: &Value| number(value, "marked_rss_bytes");
    let returned = marked(&report["as_is"]) - marked(&of("trim-threshold"));
    agrees(predicted(&explained, "trim-threshold"), returned, &format!("{name}: trim-threshold"));
}
