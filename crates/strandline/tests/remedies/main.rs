//! `strandline remedies`: what it finds out by itself about programs whose remedies are known,
//! and that the program is the same under it.

#[path = "../common/mod.rs"]
mod common;
mod pool_trim;

use std::path::Path;
use std::process::{Command, Stdio};

use common::*;

const MIB: i64 = 1 << 20;

/// A program under remedies.
struct Tried(Job);

impl Tried {
    fn script(python: &Python, source: &str) -> Tried {
        Tried(Job::script(python, source))
    }

    /// One of the files below `examples`.
    fn example(python: &Python, name: &str) -> Tried {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        Tried::script(python, &std::fs::read_to_string(path).unwrap())
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = self.0.ready(Path::new(STRANDLINE));
        command.arg("remedies").args(options).arg("--python").arg(&self.0.python.path);
        command.arg("prog.py");
        command
    }

    /// With the remedies of that name, and more options.
    fn only(&self, names: &str, options: &[&str]) -> (Ran, Found) {
        let out = self.0.dir.join("report.json");
        let out = out.to_str().unwrap();
        let options = [&["--json", "-o", out, "--only", names], options].concat();
        let ran = run(&mut self.command(&options), "");
        let text = std::fs::read_to_string(out).unwrap_or_else(|e| panic!("{e}\n{ran:#?}"));
        std::fs::remove_file(out).unwrap();
        let found = Found(serde_json::from_str(&text).unwrap());
        found.check();
        (ran, found)
    }
}

/// The report.
struct Found(Value);

impl Found {
    fn remedies(&self) -> &[Value] {
        self.0["remedies"].as_array().unwrap()
    }

    fn of(&self, name: &str) -> &Value {
        let found = self.remedies().iter().find(|r| r["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {:#}", self.0))
    }

    /// RSS at the end less than as it is, MiB.
    fn saved(&self, name: &str) -> f64 {
        -number(&self.of(name)["difference"], "end_rss_bytes") as f64 / MIB as f64
    }

    fn verdict(&self, name: &str) -> &str {
        self.of(name)["verdict"].as_str().unwrap()
    }

    /// What holds for every report.
    fn check(&self) {
        assert_eq!(self.0["schema"], "strandline-remedies/1");
        let noise = number(&self.0, "noise_bytes");
        let as_is = &self.0["as_is"];
        let mut last = i64::MIN;
        for r in self.remedies() {
            if r["verdict"] == "failed" {
                last = i64::MAX;
                continue;
            }
            let end = number(r, "end_rss_bytes");
            assert!(end >= last, "not in order: {:#}", self.0);
            last = end;
            let d = &r["difference"];
            let difference = end - number(as_is, "end_rss_bytes");
            assert_eq!(number(d, "end_rss_bytes"), difference);
            assert_eq!(
                number(d, "peak_rss_bytes"),
                number(r, "peak_rss_bytes") - number(as_is, "peak_rss_bytes")
            );
            let verdict = match difference {
                d if d < -noise => "better",
                d if d > noise => "worse",
                _ => "no effect",
            };
            assert_eq!(r["verdict"], verdict, "{r:#}");
            assert!(number(r, "peak_rss_bytes") >= end, "{r:#}");
        }
        for m in self.remedies().iter().chain([as_is]) {
            if let Some(marked) = m["marked_rss_bytes"].as_i64() {
                assert_eq!(number(m, "returned_bytes"), marked - number(m, "end_rss_bytes"));
            }
        }
    }
}

fn slow(version: (u32, u32)) -> bool {
    [(2, 7), (3, 8), (3, 11), (3, 13)].contains(&version)
}

fn near(what: &str, found: f64, expected: f64, off: f64) {
    assert!((found - expected).abs() <= off, "{what}: {found:.2} MiB, not {expected} ± {off}");
}

/// Founding table 4, marked where its figures were measured by hand.
const TABLE_4: &str = r#"
import copy, strandline

def function():
    x = dict((e, e) for e in range(1000000))
    y = copy.deepcopy(x)
    del x
    strandline.mark()
    return y

y = function()
"#;

/// Freed dict tables lie in the top of glibc's heap, below its trim threshold.
#[test]
fn low_thresholds_and_trim_return_freed_tables() {
    each_of(slow, |python| {
        let names = "collect,malloc-trim,collect-and-trim,trim-threshold,tunables,arena-max";
        let (ran, found) = Tried::script(python, TABLE_4).only(names, &[]);
        assert_eq!((ran.ok().stderr.as_str(), &found.0["point"]), ("", &Value::from("mark")));
        for name in ["collect", "arena-max"] {
            assert_eq!(found.verdict(name), "no effect", "{name}");
        }
        // 2.7 has most of it in the free list of ints and in holes below the top.
        let (low, trim) = if python.version == (2, 7) { (11.4, 34.9) } else { (39.7, 39.9) };
        near("trim-threshold", found.saved("trim-threshold"), low, 2.5);
        near("tunables", found.saved("tunables"), low, 2.5);
        near("collect-and-trim", found.saved("collect-and-trim"), trim, 2.5);
        if python.version != (2, 7) {
            near("malloc-trim", found.saved("malloc-trim"), trim, 2.5);
            let trimmed = found.of("malloc-trim");
            let action =
                number(trimmed, "marked_rss_bytes") - number(trimmed, "after_action_rss_bytes");
            near("the action", action as f64 / MIB as f64, trim, 2.5);
        }
    });
}

#[test]
fn pinned_arenas_need_another_allocator_and_trim() {
    let fits = |version| slow(version) && version != (2, 7);
    each_of(fits, |python| {
        let all = "collect,malloc-trim,collect-and-trim,trim-threshold,mmap-threshold,arena-max,\
                   tunables,pythonmalloc,pythonmalloc-trim";
        let case = Tried::example(python, "cases/03_pymalloc_pinned_arenas.py");
        let (ran, found) = case.only(all, &[]);
        ran.ok();
        assert_eq!(found.0["point"], "end");
        let better: Vec<_> = found
            .remedies()
            .iter()
            .filter(|r| r["verdict"] == "better")
            .map(|r| &r["name"])
            .collect();
        assert_eq!(better, ["pythonmalloc-trim"]);
        near("pythonmalloc-trim", found.saved("pythonmalloc-trim"), 21.5, 3.0);
        assert_eq!(found.verdict("pythonmalloc"), "worse");
        assert!(found.saved("pythonmalloc") < -80.0);
    });
}

#[test]
fn blocks_below_a_pinned_top_come_back_by_trim_alone() {
    each_of(slow, |python| {
        let case = Tried::example(python, "cases/05_freed_blocks_below_mmap_threshold.py");
        let (ran, found) = case.only("malloc-trim,arena-max", &[]);
        ran.ok();
        near("malloc-trim", found.saved("malloc-trim"), 190.9, 1.5);
        assert_eq!(found.verdict("arena-max"), "no effect");
        let trimmed = found.of("malloc-trim");
        assert_eq!(trimmed["after_action_rss_bytes"], trimmed["end_rss_bytes"]);
        assert!(number(trimmed, "returned_bytes") > 150 * MIB);
    });
}

#[test]
fn the_int_free_list_of_2_7_needs_both() {
    let fits = |version| version == (2, 7);
    each_of(fits, |python| {
        let case = Tried::example(python, "cases/06_int_free_list_27.py");
        let (ran, found) = case.only("collect,malloc-trim,collect-and-trim,pythonmalloc", &[]);
        ran.ok();
        near("collect-and-trim", found.saved("collect-and-trim"), 117.2, 1.5);
        for name in ["collect", "malloc-trim"] {
            assert_eq!(found.verdict(name), "no effect", "{name}");
        }
        let not_tried = &found.0["not_tried"][0];
        assert_eq!(not_tried["name"], "pythonmalloc");
        assert!(not_tried["reason"].as_str().unwrap().contains("3.6 or later"));
    });
}

#[test]
fn cycles_come_back_by_collecting() {
    each_of(slow, |python| {
        let case = Tried::example(python, "cases/02_cycle_gc_disabled.py");
        let (ran, found) = case.only("collect,malloc-trim", &[]);
        ran.ok();
        assert!(found.saved("collect") > 40.0, "{}", found.saved("collect"));
        assert!(found.saved("malloc-trim") < 4.0, "{}", found.saved("malloc-trim"));
    });
}

/// Says its resident bytes, and the processor time that it took.
const SAYS: &str = r#"
import sys
x = dict((i, [i]) for i in range(200000))
y = [str(i) for i in range(300000)]
z = [bytearray(600) for _ in range(50000)]
del x
def rss():
    with open("/proc/self/smaps_rollup") as f:
        return [int(l.split()[1]) * 1024 for l in f if l.startswith("Rss:")][0]
rss()
sys.stdout.write("[%d]\n" % rss())
"#;

/// The program as it is has the memory that it has without strandline.
#[test]
fn as_is_is_as_it_is() {
    each(|python| {
        let tried = Tried::script(python, SAYS);
        let rss = tried.0.plain().ok().json()[0].as_f64().unwrap();
        let (ran, found) = tried.only("arena-max", &[]);
        ran.ok();
        let off = (number(&found.0["as_is"], "end_rss_bytes") as f64 - rss) / MIB as f64;
        assert!(off.abs() <= 0.3, "{off} MiB off");
    });
}

/// Every kind of thing that can be decorated does what it does.
const DECORATED: &str = r#"
import sys

@profile
def outer(n):
    """Says so."""
    return inner(n) + [outer.__name__, outer.__doc__]

@profile
def inner(n, more=2):
    return [n + more]

class Thing(object):
    @profile
    def method(self, a): return a + 1
    @classmethod
    @profile
    def of_class(cls): return cls.__name__
    @profile
    @staticmethod
    def static(): return 3
    @profile
    @property
    def value(self): return 4

@profile
def generator():
    yield 5

@profile
def fails():
    raise KeyError("six")

t = Thing()
said = [outer(1), t.method(1), Thing.of_class(), t.static(), t.value, list(generator())]
try:
    fails()
except KeyError as e:
    said.append(str(e))
print(said)
"#;

#[test]
fn decorated_functions_mark_their_return() {
    each(|python| {
        let tried = Tried::script(python, DECORATED);
        let plain = Job::script(python, &format!("def profile(f): return f\n{DECORATED}"));
        let (ran, found) = tried.only("collect,subprocess", &[]);
        assert_eq!(ran.ok().stdout, plain.plain().ok().stdout);
        assert_eq!(found.0["point"], "return");
        // outer, method, of_class, static, value, fails; inner is not the outermost.
        assert_eq!(number(&found.0, "point_count"), 6);
        for name in ["collect", "subprocess"] {
            let r = found.of(name);
            assert_eq!(r["error"], Value::Null, "{r:#}");
            assert_eq!(r["output_differs"], false, "{name}");
        }
    });
}

#[test]
fn a_function_apart_leaves_nothing() {
    let source = "@profile\n\
                  def work():\n    \
                      keep = [bytearray(1000) for _ in range(30000)]\n    \
                      return len(keep)\n\
                  print(work())\n";
    each(|python| {
        let (ran, found) = Tried::script(python, source).only("subprocess", &[]);
        assert_eq!(ran.ok().stdout, "30000\n");
        let r = found.of("subprocess");
        assert_eq!((&r["verdict"], &r["output_differs"]), (&"better".into(), &false.into()));
        assert!(found.saved("subprocess") > 25.0, "{r:#}");
        // The child's memory is not hidden.
        assert!(number(r, "peak_rss_bytes") > number(r, "end_rss_bytes") + 25 * MIB, "{r:#}");
    });
}

/// 20 MiB that only trimming brings back.
const FREED: &str = "x = [bytearray(b'x') * 10000 for _ in range(2000)]\n\
                     pins = x[-20:]\n\
                     del x\n";

#[test]
fn ways_to_end() {
    let ways = [
        ("sys.exit(3)", 3),
        ("os._exit(3)", 3),
        ("raise SystemExit(3)", 3),
        ("pid = os.fork()\nif pid == 0: sys.exit(9)\nos.waitpid(pid, 0)", 0),
        (
            "if os.getenv('AGAIN'): sys.exit(4)\nos.environ['AGAIN'] = '1'\n\
          os.execv(sys.executable, [sys.executable, 'prog.py'])",
            4,
        ),
        ("import threading; t = threading.Thread(target=lambda: None); t.start(); t.join()", 0),
    ];
    each(|python| {
        for (way, code) in ways {
            let source = format!("import os, sys\n{FREED}{way}\n");
            let (ran, found) = Tried::script(python, &source).only("malloc-trim,collect", &[]);
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""), "{way}");
            near(way, found.saved("malloc-trim"), 19.0, 1.0);
            assert_eq!(found.verdict("collect"), "no effect", "{way}");
            assert_eq!(found.0["notes"], serde_json::json!([]), "{way}");
        }
    });
}

#[test]
fn what_cannot_be_measured_is_one_line() {
    each_of(slow, |python| {
        let tried = Tried::script(python, "import os; os.kill(os.getpid(), 9)");
        let ran = run(&mut tried.command(&[]), "");
        assert_eq!(ran.signal, Some(9));
        assert!(ran.stderr.contains("was killed or replaced before its end"), "{ran:#?}");
        assert_eq!(ran.stderr.lines().count(), 1);
    });
    let mut command = Command::new(STRANDLINE);
    let ran = run(command.args(["remedies", "--", "true"]), "");
    assert_eq!(ran.code, Some(125));
    assert!(ran.stderr.contains("no Python was seen"), "{ran:#?}");
}

#[test]
fn an_unknown_name_lists_the_known_ones() {
    let mut command = Command::new(STRANDLINE);
    let ran = run(command.args(["remedies", "--only", "collect,gc", "x.py"]), "");
    assert_eq!(ran.code, Some(2));
    for word in ["'gc'", "malloc-trim", "jemalloc-decay0-pythonmalloc", "subprocess"] {
        assert!(ran.stderr.contains(word), "{ran:#?}");
    }
}

#[test]
fn failures_and_differing_output_are_shown() {
    let source = "import os, sys\n\
                  print('always')\n\
                  if 'MALLOC_ARENA_MAX' in os.environ:\n    \
                      sys.stderr.write('no such arena\\n'); sys.exit(5)\n\
                  if 'MALLOC_TRIM_THRESHOLD_' in os.environ: print('more')\n";
    each(|python| {
        let tried = Tried::script(python, source);
        let names = "collect,trim-threshold,arena-max";
        let (ran, found) = tried.only(names, &[]);
        let ran = ran.ok();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("always\n", ""));
        let failed = found.of("arena-max");
        assert_eq!((&failed["verdict"], &failed["exit"]["code"]), (&"failed".into(), &5.into()));
        assert_eq!(failed["error"], "exit code 5: no such arena");
        assert_eq!(found.of("collect")["output_differs"], false);
        assert_eq!(found.of("trim-threshold")["output_differs"], true);
        let text = run(&mut tried.command(&["--only", names]), "").ok();
        assert!(
            text.stderr.contains("arena-max: failed: exit code 5: no such arena\n"),
            "{text:#?}"
        );
        assert!(
            text.stderr.contains("Output differs from that of the first run under"),
            "{text:#?}"
        );
    });
}

#[test]
fn every_run_reads_the_same() {
    let source = "import sys\nprint(sys.stdin.readline() + sys.stdin.read())\n";
    let said = "two\nthree\n\n";
    each_of(slow, |python| {
        let tried = Tried::script(python, source);
        // A file, read from where it stands.
        let path = tried.0.dir.file("input", "one\ntwo\nthree\n");
        let input = std::fs::File::open(path).unwrap();
        std::io::Seek::seek(&mut &input, std::io::SeekFrom::Start(4)).unwrap();
        let out = tried.0.dir.join("report");
        let options = ["--json", "-o", out.to_str().unwrap(), "--only", "collect", "--repeat", "2"];
        let mut command = tried.command(&options);
        let ran = command.stdin(input).stdout(Stdio::piped()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout), said);
        let read =
            || -> Value { serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap() };
        assert_eq!(read()["remedies"][0]["output_differs"], false);
        assert_eq!(read()["notes"], serde_json::json!([]));
        std::fs::remove_file(&out).unwrap();
        // A pipe.
        let ran = run(&mut tried.command(&options), "two\nthree\n").ok();
        assert_eq!(ran.stdout, said);
        assert_eq!(read()["remedies"][0]["output_differs"], false);
        assert!(read()["notes"][0].as_str().unwrap().contains("only once"));
    });
}

#[test]
fn nothing_is_left_behind() {
    each_of(slow, |python| {
        let tried = Tried::script(python, FREED);
        let temporary = tried.0.dir.join("temporary");
        std::fs::create_dir(&temporary).unwrap();
        let mut command = tried.command(&["--only", "malloc-trim,tunables", "-o", "report"]);
        run(command.env("TMPDIR", &temporary), "input").ok();
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
        let entries = std::fs::read_dir(tried.0.dir.path()).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["prog.py", "report", "temporary"]);
        let text = std::fs::read_to_string(tried.0.dir.join("report")).unwrap();
        assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
        assert!(text.contains("\nNothing is marked"), "{text}");
        assert!(text.contains("malloc-trim: import ctypes; ctypes.CDLL(None).malloc_trim(0)"));
    });
}

/// An allocator that is installed is in force, and what needs glibc's isn't tried where the
/// program has another.
#[test]
fn other_allocators() {
    each_of(slow, |python| {
        let tried = Tried::script(python, FREED);
        let (ran, found) = tried.only("jemalloc-decay0,malloc-trim", &[]);
        ran.ok();
        if !found.0["not_tried"].as_array().unwrap().is_empty() {
            let reason = found.0["not_tried"][0]["reason"].as_str().unwrap();
            assert!(reason.contains("apt install libjemalloc2"), "{reason}");
            return;
        }
        assert!(found.saved("jemalloc-decay0") > 12.0, "{:#}", found.0);
        let line = found.of("jemalloc-decay0")["line"].as_str().unwrap();
        let library = line.strip_prefix("LD_PRELOAD=").unwrap().split(' ').next().unwrap();
        let out = tried.0.dir.join("other.json");
        let options = ["--json", "-o", out.to_str().unwrap(), "--only", "malloc-trim"];
        let ran = run(tried.command(&options).env("LD_PRELOAD", library), "").ok();
        assert_eq!(ran.stderr, "");
        let other: Value = serde_json::from_str(&std::fs::read_to_string(out).unwrap()).unwrap();
        let reason = other["not_tried"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("another one"), "{reason}");
    });
}

#[test]
fn a_mark_does_nothing_under_run() {
    each(|python| {
        let job = Job::script(python, "import strandline\nprint(strandline.mark())\n");
        assert_eq!(job.report().0.stdout, "None\n");
    });
}
