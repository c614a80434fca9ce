//! Ordinary programs that don't leak, while they run: `strandline explain` never says that they do.
//! And programs that leak, so that this is not true of everything.

mod common;

use std::io::{BufRead, BufReader};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use common::*;

/// Standard library only, and the first version of 3 that has what they want (0: 2.7 as well).
const LOADS: [(&str, u32); 28] = [
    ("bounded_collections", 0),
    ("compiler", 0),
    ("csv_table", 0),
    ("decimals", 0),
    ("differences", 0),
    ("echo", 7),
    ("futures", 5),
    ("graph", 0),
    ("http_loopback", 0),
    ("iterators", 0),
    ("json_document", 0),
    ("json_replaced", 0),
    ("log_buffer", 0),
    ("lru_cache", 2),
    ("matrix", 0),
    ("memo", 0),
    ("patterns", 0),
    ("plugins", 0),
    ("priority_queue", 0),
    ("round_trips", 0),
    ("sessions", 0),
    ("sqlite_disk", 0),
    ("sqlite_memory", 0),
    ("standard_tests", 0),
    ("strings", 0),
    ("weak_values", 0),
    ("worker_threads", 0),
    ("xml_parse", 0),
];
/// What goes wrong most easily, looked at with every interpreter; the others with [`FEW`].
const ON_ALL: [&str; 3] = ["csv_table", "memo", "sessions"];
/// All loads run on the first of these, some on the others: looking takes time.
const FEW: [(u32, u32); 3] = [(3, 11), (2, 7), (3, 13)];
/// Every so many loads one is run on the others of [`FEW`].
const SOME: usize = 4;

const SEVERAL: [&str; 4] = ["--every", "300ms", "--times", "3"];

/// A program that is in the middle of what it does.
struct Load {
    child: Child,
    /// False: it said that it can't run here.
    runs: bool,
    _dir: Dir,
}

impl Load {
    fn start(python: &PathBuf, name: &str) -> Load {
        let dir = Dir::new();
        let path = [env!("CARGO_MANIFEST_DIR"), "tests/ordinary"].iter().collect::<PathBuf>();
        let mut command = Command::new(python);
        clean(&mut command);
        command.arg(path.join(format!("{name}.py"))).current_dir(dir.path());
        command.env("LOAD_DIR", dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut said).unwrap();
        }
        let said = said.trim();
        if let Some(why) = said.strip_prefix("without: ") {
            eprintln!("{name} with {}: {why}", python.display());
        } else {
            assert_eq!(said, "warm", "{name} with {}", python.display());
        }
        Load { child, runs: said == "warm", _dir: dir }
    }

    fn explain(&self, options: &[&str]) -> Value {
        let mut command = Command::new(STRANDLINE);
        command.args(["explain", "--json"]).args(options).arg(self.child.id().to_string());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn never_a_leak(python: &PathBuf, name: &str) {
    let load = Load::start(python, name);
    if !load.runs {
        return;
    }
    for options in [&[][..], &SEVERAL] {
        let said = load.explain(options);
        let verdict = said["verdict"].as_str().unwrap_or_default();
        // The collector is on in all of them, so garbage is nothing to worry about either.
        let is_wrong = matches!(verdict, "referenced" | "garbage");
        assert!(!is_wrong, "{name} {options:?}: {verdict}: {} {:#}", said["text"], said["holders"]);
    }
}

/// Runs the jobs, two at a time, and fails with all failures.
fn by_two(jobs: Vec<(PathBuf, &'static str)>, check: fn(&PathBuf, &str)) {
    let left = Mutex::new(jobs.into_iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| loop {
                let job = left.lock().unwrap().next();
                let Some((python, name)) = job else { break };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&python, name))) {
                    let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                    failures.lock().unwrap().push(format!("--- {}\n{text}", python.display()));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} load(s):\n{}", failures.len(), failures.join("\n"));
}

/// The interpreter that runs all loads: the first of [`FEW`], or whatever is there.
fn main_version() -> (u32, u32) {
    let has = |version: &&(u32, u32)| pythons().iter().any(|p| p.version == **version);
    FEW.iter().find(has).copied().unwrap_or(pythons()[0].version)
}

#[test]
fn ordinary_programs_do_not_leak() {
    let mut jobs = Vec::new();
    // One of each series.
    for python in pythons().chunk_by(|a, b| a.version == b.version).map(|all| &all[0]) {
        for (i, (name, since)) in LOADS.into_iter().enumerate() {
            let fits = since == 0 || python.version >= (3, since);
            let picked = python.version == main_version()
                || ON_ALL.contains(&name)
                || FEW.contains(&python.version) && i % SOME == 0;
            if fits && picked {
                jobs.push((python.path.clone(), name));
            }
        }
    }
    by_two(jobs, never_a_leak);
}

/// `STRANDLINE_TEST_PANDAS`: an interpreter that has pandas, and Flask.
#[test]
fn programs_with_libraries_do_not_leak() {
    let Some(python) = std::env::var_os("STRANDLINE_TEST_PANDAS").map(PathBuf::from) else {
        eprintln!("no interpreter with pandas and flask is named in STRANDLINE_TEST_PANDAS");
        return;
    };
    by_two(vec![(python.clone(), "pandas_frames"), (python, "flask_app")], never_a_leak);
}

fn leaks(python: &PathBuf, name: &str, holder: &str, options: &[&[&str]]) {
    for options in options {
        let load = Load::start(python, name);
        let said = load.explain(options);
        assert_eq!(said["verdict"], "referenced", "{name} {options:?}: {}", said["text"]);
        assert_eq!(said["reason"], "leak");
        let text = said["text"].as_str().unwrap_or_default();
        assert!(text.contains(holder), "{name} {options:?}: {text}");
    }
}

#[test]
fn programs_that_leak_do() {
    let few = |version| FEW.contains(&version) || version == main_version();
    one_of_each(few, |python| {
        let both = [&[][..], &SEVERAL];
        leaks(&python.path, "leaks/handler", "__main__.ANSWERS", &both);
        leaks(&python.path, "leaks/attribute", "__main__.MONITOR", &both);
        leaks(&python.path, "leaks/near_miss", "__main__.MONITOR", &[&[]]);
        if python.version >= (3, 2) {
            leaks(&python.path, "leaks/endless_lru", "__main__.page", &[&SEVERAL]);
        }
    });
}
