//! Censuses of a program that strandline runs: by its own call, at its exit and at its peak.

mod common;

use common::*;

/// What holds for every census.
fn check(census: &Value) {
    let rss = number(census, "rss_bytes");
    let classes = census["classes"].as_array().unwrap();
    assert_eq!(classes.iter().map(|c| number(c, "bytes")).sum::<i64>(), rss);
    assert_eq!(rss, number(census, "kernel_rss_bytes"), "what smaps said at the same moment");
    assert_eq!(census["doubts"], serde_json::json!([]));
    let unnamed = number(census, "unnamed_bytes");
    assert!(unnamed * 1000 <= rss, "{unnamed} of {rss} without a name");
    let own = classes.iter().find(|c| c["name"] == "profiler").unwrap();
    assert!((256 << 10..16 << 20).contains(&number(own, "bytes")), "{own}");
}

/// Objects of a type: number and bytes.
fn of_type(census: &Value, name: &str) -> (i64, i64) {
    let types = census["types"].as_array().unwrap();
    let found = types.iter().find(|t| t["name"] == name);
    found.map_or((0, 0), |t| (number(t, "count"), number(t, "bytes")))
}

fn moment<'a>(report: &'a Report, name: &str) -> &'a Value {
    let all = report.0["censuses"].as_array().unwrap();
    let found = all.iter().find(|m| m["moment"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {} moments", all.len()))
}

/// What a program can do with the module; says the sums of what it got.
const CALLS: &str = r#"
import json, os, sys, threading
import strandline

class Thing(object):
    def __init__(self):
        self.name = 1.5

things = [Thing() for _ in range(12345)]
got = strandline.census()
json.dump(got, open("got.json", "w"))
del things
strandline.census("file.json")
try:
    strandline.census("file.json")
except OSError as e:
    print("exists: %s" % (e.errno == 17))
try:
    strandline.census("no/such/directory/file.json")
except (IOError, OSError) as e:
    print("no directory: %s" % (e.errno == 2))

# A child of the program is asked for its own memory, not its parent's.
pid = os.fork()
if pid == 0:
    mine = strandline.census()["pid"]
    os._exit(0 if mine == os.getpid() else 1)
print("child: %s" % os.waitpid(pid, 0)[1])

# Several threads at once: one after the other.
counts = []
def look():
    counts.append(strandline.census()["rss_bytes"] > 0)
threads = [threading.Thread(target=look) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print("threads: %s" % counts)
sys.stdout.flush()
print("builtin: %s" % ("strandline" in sys.modules))
"#;

#[test]
fn a_program_asks_for_its_own_census() {
    each(|python| {
        let job = Job::script(python, CALLS);
        let (ran, _) = job.report();
        let said = "exists: True\nno directory: True\nchild: 0\n\
                    threads: [True, True, True, True]\nbuiltin: True\n";
        assert_eq!(ran.stdout, said);
        let read = |name: &str| -> Value {
            serde_json::from_str(&std::fs::read_to_string(job.dir.join(name)).unwrap()).unwrap()
        };
        let (first, second) = (read("got.json"), read("file.json"));
        check(&first);
        check(&second);
        assert_eq!(first["schema"], "strandline-census/1");
        assert_eq!(of_type(&first, "__main__.Thing").0, 12345);
        assert_eq!(of_type(&second, "__main__.Thing").0, 0);
    });
}

#[test]
fn a_module_of_that_name_comes_first() {
    each(|python| {
        let job = Job::script(python, "import strandline\nprint(strandline.WHAT)\n")
            .file("strandline.py", "WHAT = 'mine'\n");
        assert_eq!(job.report().0.stdout, "mine\n");
        // A package of that name.
        let job = Job::script(python, "import strandline.part\nprint(strandline.part.WHAT)\n");
        std::fs::create_dir(job.dir.join("strandline")).unwrap();
        job.dir.file("strandline/__init__.py", "");
        job.dir.file("strandline/part.py", "WHAT = 'mine too'\n");
        assert_eq!(job.report().0.stdout, "mine too\n");
    });
}

#[test]
fn a_program_that_does_not_import_it_has_no_such_module() {
    each(|python| {
        let source = "import sys\nprint('strandline' in sys.modules)\n";
        assert_eq!(Job::script(python, source).report().0.stdout, "False\n");
    });
}

/// 60 MB at the peak, of which 20 MB remain.
const RISES: &str = r#"
keep = [i + 0.5 for i in range(300000)]
high = [bytearray(1000) for _ in range(50000)]
last = keep[-1], len(high)
del high
"#;

#[test]
fn at_exit_and_at_the_peak() {
    each(|python| {
        let job = Job::script(python, RISES).option("--census-at-exit").option("--census-at-peak");
        let (_, report) = job.report();
        let (exit, peak) = (moment(&report, "exit"), moment(&report, "peak"));
        check(&exit["census"]);
        check(&peak["census"]);
        assert!(of_type(&peak["census"], "bytearray").1 > 50_000_000, "{peak}");
        assert!(of_type(&peak["census"], "float").0 >= 300_000);
        assert!(of_type(&exit["census"], "bytearray").1 < 1_000_000);
        assert!(of_type(&exit["census"], "float").0 >= 300_000);
        // The kernel counts its peak in batches, and a peak is looked for in steps of 1/32.
        let highest = number(report.main(), "kernel_rss_peak_bytes");
        let seen = number(&peak["census"], "rss_bytes");
        assert!((seen - highest).abs() * 100 <= highest * 4, "{seen}, not {highest}");
    });
}

#[test]
fn other_ways_to_end() {
    each(|python| {
        // The exit code is the program's, and os._exit is an exit as well.
        let ways = [
            "import sys; sys.exit(3)",
            "import os; os._exit(3)",
            "import ctypes; ctypes.CDLL(None).exit(3)",
        ];
        for way in ways {
            let job = Job::script(python, way).option("--census-at-exit");
            let (ran, report) = job.profiled();
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), ""), "{way}");
            check(&moment(&report, "exit")["census"]);
        }
        // Who is killed has no exit.
        let job =
            Job::script(python, "import os; os.kill(os.getpid(), 9)").option("--census-at-exit");
        let (ran, report) = job.profiled();
        assert_eq!(ran.signal, Some(9));
        let exit = moment(&report, "exit");
        assert!(exit["census"].is_null(), "{exit}");
        assert!(exit["error"].as_str().unwrap().contains("was killed"), "{exit}");
    });
}

#[test]
fn a_child_that_exits_is_not_the_program() {
    each(|python| {
        let source = "import os, sys\n\
                      if os.fork() == 0:\n    sys.exit(0)\n\
                      os.wait()\n\
                      mark = [object() for _ in range(7654)]\n";
        let job = Job::script(python, source).option("--census-at-exit");
        let (_, report) = job.report();
        let exit = &moment(&report, "exit")["census"];
        assert!(of_type(exit, "object").0 >= 7654);
        assert_eq!(exit["pid"], report.main()["pid"]);
    });
}

#[test]
fn the_text_has_the_moments() {
    each(|python| {
        let job = Job::script(python, RISES);
        let mut command = std::process::Command::new(STRANDLINE);
        clean(&mut command);
        command.current_dir(job.dir.path()).args(["run", "--census-at-exit", "--census-at-peak"]);
        let ran = run(command.arg("--python").arg(&python.path).arg("prog.py"), "").ok();
        let find = |what: &str| ran.stderr.find(what).unwrap_or_else(|| panic!("no {what}"));
        let summary = find("Whole program: ");
        let peak = find("\nThe program where its memory was highest (peak of RSS ");
        let exit = find("\nThe program at its exit\n");
        assert!(summary < peak && peak < exit, "{}", ran.stderr);
        assert_eq!(ran.stderr.matches("resident memory (RSS)").count(), 2);
        assert!(ran.stderr.contains("strandline's own, not there without it"));
    });
}
