//! What the end-to-end tests share: the interpreters, running programs with and without
//! strandline, and reading its report.
//!
//! `STRANDLINE_TEST_PYTHONS`: colon-separated executables to use. Without it: those of pyenv and
//! `/usr/bin/python3`. With `CI` set, every supported series has to be there; none at all is
//! always a failure.

// Every test file uses its own part of this.
#![allow(dead_code)]

pub mod recorded;
pub mod standing;

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use serde_json::Value;

/// The series that have to be there in CI.
pub const SERIES: [(u32, u32); 9] =
    [(2, 7), (3, 6), (3, 7), (3, 8), (3, 9), (3, 10), (3, 11), (3, 12), (3, 13)];

/// The binary under test.
pub const STRANDLINE: &str = env!("CARGO_BIN_EXE_strandline");

/// No program of these tests takes nearly as long, on the slowest interpreter.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// An interpreter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Python {
    /// `(3, 11)`.
    pub version: (u32, u32),
    pub path: PathBuf,
    /// Size of an object's header as `sys.getsizeof(b"")` sees it: 37 on 2.7, 33 since.
    pub bytes_header: u64,
}

impl fmt::Display for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} ({})", self.version.0, self.version.1, self.path.display())
    }
}

fn paths() -> Vec<PathBuf> {
    if let Some(list) = std::env::var_os("STRANDLINE_TEST_PYTHONS") {
        return std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let mut found = Vec::new();
    if let Some(home) = std::env::var_os("HOME") {
        let versions = PathBuf::from(home).join(".pyenv/versions");
        for entry in std::fs::read_dir(versions).into_iter().flatten().flatten() {
            found.push(entry.path().join("bin/python"));
        }
    }
    found.push(PathBuf::from("/usr/bin/python3"));
    found.retain(|path| path.exists());
    found
}

/// The interpreter at `path`.
pub fn interpreter(path: &Path) -> Python {
    let code = "import sys; print('%d %d %d' % (sys.version_info[0], sys.version_info[1], \
                sys.getsizeof(b'')))";
    let mut command = Command::new(path);
    clean(&mut command);
    let output = command.args(["-c", code]).output();
    let output = output.unwrap_or_else(|e| panic!("{} can't be started: {e}", path.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<u32> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    match numbers[..] {
        [major, minor, header] => Python {
            version: (major, minor),
            path: path.to_owned(),
            bytes_header: u64::from(header),
        },
        _ => panic!("{} is no Python: {output:?}", path.display()),
    }
}

/// Every interpreter to test with, the oldest first.
pub fn pythons() -> &'static [Python] {
    static FOUND: OnceLock<Vec<Python>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found: Vec<Python> = paths().iter().map(|path| interpreter(path)).collect();
        found.sort();
        assert!(
            !found.is_empty(),
            "no Python interpreter found; name some in STRANDLINE_TEST_PYTHONS"
        );
        if std::env::var_os("CI").is_some() {
            let missing: Vec<String> = SERIES
                .iter()
                .filter(|series| !found.iter().any(|p| p.version == **series))
                .map(|series| format!("{}.{}", series.0, series.1))
                .collect();
            assert!(missing.is_empty(), "no interpreter of the series {}", missing.join(", "));
        }
        found
    })
}

/// Runs `check` with every interpreter and fails with the failures of all of them.
pub fn each(check: impl Fn(&Python)) {
    each_of(|_| true, check);
}

/// As `each`, with those interpreters whose version `fits`: for what the others don't have.
pub fn each_of(fits: impl Fn((u32, u32)) -> bool, check: impl Fn(&Python)) {
    report(pythons().iter().filter(|p| fits(p.version)).filter_map(|p| failure(p, &check)));
}

/// As `each_of`, with one interpreter of each series: for what takes long and has nothing to do
/// with how it was built.
pub fn one_of_each(fits: impl Fn((u32, u32)) -> bool, check: impl Fn(&Python)) {
    let of_series = pythons().chunk_by(|a, b| a.version == b.version).map(|all| &all[0]);
    report(of_series.filter(|p| fits(p.version)).filter_map(|p| failure(p, &check)));
}

/// As `each_of`, several at a time: for programs that wait more than they work.
pub fn at_once(fits: impl Fn((u32, u32)) -> bool, check: impl Fn(&Python) + Sync) {
    const AT_ONCE: usize = 5;
    let all: Vec<&Python> = pythons().iter().filter(|p| fits(p.version)).collect();
    let mut failures = Vec::new();
    for some in all.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let check = &check;
            let running: Vec<_> =
                some.iter().map(|python| scope.spawn(move || failure(python, check))).collect();
            failures.extend(running.into_iter().filter_map(|thread| thread.join().unwrap()));
        });
    }
    report(failures.into_iter());
}

/// What a check of an interpreter failed with.
fn failure(python: &Python, check: impl Fn(&Python)) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| check(python))).err()?;
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
        .unwrap_or_default();
    Some(format!("--- {python}\n{text}"))
}

fn report(failures: impl Iterator<Item = String>) {
    let failures: Vec<String> = failures.collect();
    assert!(failures.is_empty(), "{} interpreter(s):\n{}", failures.len(), failures.join("\n"));
}

/// Versions whose free pools can be given back.
pub fn has_pool_trim(version: (u32, u32)) -> bool {
    ((3, 10)..=(3, 13)).contains(&version)
}

/// A directory that goes away with the value.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, with the folders on its way.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Takes away what could change how Python or its allocators behave.
pub fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().into_owned();
        let prefixes = ["PYTHON", "STRANDLINE_", "LD_", "MALLOC_", "GLIBC_"];
        if prefixes.iter().any(|p| text.starts_with(p)) || text == "VIRTUAL_ENV" {
            command.env_remove(name);
        }
    }
    command.env("PYTHONHASHSEED", "0").env("PYTHONDONTWRITEBYTECODE", "1");
}

/// How a program ended and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The last line of stdout as JSON: how the programs hand over what they know.
    pub fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}) in {self:#?}"))
    }

    pub fn ok(self) -> Ran {
        assert!(self.code == Some(0), "{self:#?}");
        self
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Runs a command to its end, within reason.
pub fn run(command: &mut Command, stdin: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    if let Some(mut input) = child.stdin.take() {
        // The program may end without reading it.
        let _ = input.write_all(stdin.as_bytes());
    }
    let out = child.stdout.take().map(read_all);
    let err = child.stderr.take().map(read_all);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > TIME_LIMIT {
            let _ = child.kill();
            panic!("{command:?} did not end within {TIME_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.map(|r| r.join().unwrap()).unwrap_or_default()
    };
    Ran { code: status.code(), signal: status.signal(), stdout: text(out), stderr: text(err) }
}

/// A run to be made, with strandline or without.
pub struct Job {
    pub python: Python,
    pub dir: Dir,
    options: Vec<OsString>,
    program: Vec<OsString>,
    env: Vec<(String, String)>,
    stdin: String,
}

impl Job {
    /// Nothing to run yet.
    pub fn new(python: &Python) -> Job {
        let python = python.clone();
        let (options, program, env) = (vec![], vec![], vec![]);
        Job { python, dir: Dir::new(), options, program, env, stdin: String::new() }
    }

    /// Runs `source` as the script `prog.py`.
    pub fn script(python: &Python, source: &str) -> Job {
        let job = Job::new(python);
        job.dir.file("prog.py", source);
        job.program(["prog.py"])
    }

    /// An option of strandline.
    pub fn option(mut self, option: &str) -> Job {
        self.options.push(option.into());
        self
    }

    /// Words of the program.
    pub fn program<const N: usize>(mut self, words: [&str; N]) -> Job {
        self.program.extend(words.iter().map(OsString::from));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Job {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn stdin(mut self, text: &str) -> Job {
        self.stdin = text.to_owned();
        self
    }

    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Job {
        self.dir.file(name, text);
        self
    }

    /// A command in the program's directory and environment.
    pub fn ready(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        clean(&mut command);
        command.current_dir(self.dir.path());
        command.envs(self.env.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Without strandline.
    pub fn plain(&self) -> Ran {
        run(self.ready(&self.python.path).args(&self.program), &self.stdin)
    }

    /// With strandline and its JSON.
    pub fn profiled(&self) -> (Ran, Report) {
        let out = self.dir.join("report.json");
        let _ = std::fs::remove_file(&out);
        let mut command = self.ready(Path::new(STRANDLINE));
        command.args(["run", "--json", "-o"]).arg(&out).args(&self.options);
        // `-- COMMAND` names its own interpreter.
        if self.program.first().is_none_or(|word| word != "--") {
            command.arg("--python").arg(&self.python.path);
        }
        let ran = run(command.args(&self.program), &self.stdin);
        let text = std::fs::read_to_string(&out).unwrap_or_else(|e| panic!("{e}\n{ran:#?}"));
        let value: Value = serde_json::from_str(&text).unwrap();
        let report = Report(value);
        report.check();
        (ran, report)
    }

    /// With strandline; the program has to end well and say nothing on stderr.
    pub fn report(&self) -> (Ran, Report) {
        let (ran, report) = self.profiled();
        assert_eq!(ran.stderr, "", "{ran:#?}");
        (ran.ok(), report)
    }
}

/// A report.
#[derive(Debug, Clone)]
pub struct Report(pub Value);

/// A number of the report; what isn't known fails the test.
pub fn number(value: &Value, name: &str) -> i64 {
    value[name].as_i64().unwrap_or_else(|| panic!("{name} is no number in {value}"))
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("{name} is no array in {value:#}"))
}

impl Report {
    pub fn functions(&self) -> &[Value] {
        array(&self.0, "functions")
    }

    pub fn processes(&self) -> &[Value] {
        array(&self.0, "processes")
    }

    /// The process that strandline started.
    pub fn main(&self) -> &Value {
        let index = number(&self.0, "main") as usize;
        &self.processes()[index]
    }

    /// The one table of the function `name`.
    pub fn function(&self, name: &str) -> &Value {
        let found: Vec<&Value> = self.functions().iter().filter(|f| f["name"] == name).collect();
        match found[..] {
            [one] => one,
            _ => panic!("{} tables of {name}: only {:?}", found.len(), self.names()),
        }
    }

    /// Names of all tables, sorted.
    pub fn names(&self) -> Vec<String> {
        let name = |f: &Value| f["name"].as_str().unwrap_or("?").to_owned();
        let mut names: Vec<String> = self.functions().iter().map(name).collect();
        names.sort();
        names
    }

    /// The one line that ends with the comment `# tag`, of whatever function.
    pub fn tagged(&self, tag: &str) -> &Value {
        let end = format!("# {tag}");
        let mut found = Vec::new();
        for function in self.functions() {
            found.extend(
                array(function, "lines")
                    .iter()
                    .filter(|l| l["source"].as_str().is_some_and(|s| s.ends_with(&end))),
            );
        }
        match found[..] {
            [one] => one,
            _ => panic!("{} lines with {end} in {:#}", found.len(), self.0["functions"]),
        }
    }

    /// A number of the line with a tag.
    pub fn at(&self, tag: &str, name: &str) -> i64 {
        number(self.tagged(tag), name)
    }

    /// Allocated and freed bytes of the line with a tag.
    pub fn moved(&self, tag: &str) -> (i64, i64) {
        (self.at(tag, "allocated_bytes"), self.at(tag, "freed_bytes"))
    }

    /// What holds for every report: nothing odd, and the sums add up.
    fn check(&self) {
        assert_eq!(self.0["schema"], "strandline-run/1");
        assert_eq!(self.0["doubts"], Value::Array(vec![]));
        for process in self.processes() {
            for moment in ["start", "latest", "exit"] {
                let l = &process[moment];
                if l["rss_bytes"].is_null() || l["in_use_bytes"].is_null() {
                    continue;
                }
                let n = |name| number(l, name);
                let sum = n("in_use_bytes") + n("stranded_bytes") + n("rest_bytes");
                assert_eq!(n("rss_bytes"), sum, "{moment}: {l:#}");
                assert_eq!(n("rss_bytes"), n("kernel_rss_bytes") - n("profiler_bytes"), "{l:#}");
            }
        }
        for function in self.functions() {
            let process = &self.processes()[number(function, "process") as usize];
            for l in array(function, "lines") {
                if l["occurrences"].is_null() || l["rest_bytes"].is_null() {
                    continue;
                }
                let n = |name| number(l, name);
                let sum = n("total_in_use_bytes") + n("stranded_bytes") + n("rest_bytes");
                assert_eq!(n("rss_bytes"), sum, "{l:#}");
                // A forked process also holds what its parent's lines had asked for.
                if process["forked"] == false {
                    assert!(n("in_use_bytes") <= n("allocated_bytes"), "{l}");
                }
            }
        }
    }
}
