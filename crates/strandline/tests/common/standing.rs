//! Programs that stand still while they are looked at, and what holds for every census of one.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;

/// A program that has said that it is ready and then stands still.
pub struct Standing {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    /// What it wrote to stdout before.
    pub said: Vec<String>,
    pub dir: Dir,
    /// The process to look at: the child, or one that it started.
    pid: u32,
}

/// A program that runs `code`, says `ready` and sleeps.
pub fn program(code: &str) -> String {
    let front = "import sys, time, gc\n\
                 def say(*words):\n\
                 \x20   sys.stdout.write(' '.join(str(w) for w in words) + '\\n')\n\
                 \x20   sys.stdout.flush()\n";
    // The last act: nothing is allocated between what `last` does and the sleep.
    let end = "\nsleep, forever, last, done = time.sleep, 600, globals().get('last'), None\n\
               say('ready')\n\
               if last: done = last()\n\
               sleep(forever)\n";
    format!("{front}{code}{end}")
}

impl Standing {
    /// Starts `code`, which ends with a call of `wait()`: that says that all is ready and sleeps
    /// in a single call into C which allocates nothing.
    pub fn start(python: &Python, code: &str) -> Self {
        let dir = Dir::new();
        let path = dir.file("program.py", program(code));
        let mut command = Command::new(&python.path);
        command.arg(&path);
        Standing::of(command, dir)
    }

    /// Starts `command`, which writes `ready`, or a JSON object, to stdout when it stands.
    pub fn of(mut command: Command, dir: Dir) -> Self {
        let errors = std::fs::File::create(dir.path().join("stderr")).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.env_remove("PYTHONMALLOC").spawn().unwrap();
        let mut said = Vec::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in stdout.by_ref() {
            let line = line.unwrap();
            if line == "ready" {
                break;
            }
            said.push(line);
            if said.last().is_some_and(|line| line.starts_with('{')) {
                break;
            }
        }
        let pid = child.id();
        let standing = Standing { child, stdout, said, dir, pid };
        standing.until_it_sleeps();
        standing
    }

    /// Looks at another process than the child: one that this started.
    pub fn look_at(mut self, pid: u32) -> Self {
        self.pid = pid;
        self.until_it_sleeps();
        self
    }

    /// Waits until the main thread sleeps in `time.sleep` or its like.
    pub fn until_it_sleeps(&self) {
        let stat = format!("/proc/{}/stat", self.pid());
        let mut quiet = 0;
        let mut before = String::new();
        for _ in 0..2000 {
            let now = std::fs::read_to_string(&stat).unwrap_or_default();
            quiet = if now == before && now.contains(") S ") { quiet + 1 } else { 0 };
            if quiet > 20 {
                return;
            }
            before = now;
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("the program doesn't come to rest: {}", self.errors());
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> u64 {
        let line = self.said.iter().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {:?}", self.said)).trim().parse().unwrap()
    }

    /// Writes a line to a program that waits for one; until it says `ready` again.
    pub fn goes_on(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        stdin.flush().unwrap();
        for line in self.stdout.by_ref() {
            if line.unwrap() == "ready" {
                break;
            }
        }
        self.until_it_sleeps();
    }

    /// Lets a program that waits for its stdin go on to its end: what it says then.
    pub fn finish(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        self.stdout.by_ref().map(|line| line.unwrap()).collect()
    }

    /// The census as JSON.
    pub fn census(&self) -> Value {
        self.look("census")
    }

    /// Why its memory stays, as JSON.
    pub fn explained(&self) -> Value {
        let e = self.look("explain");
        let causes = e["causes"].as_array().unwrap();
        let sum: u64 =
            causes.iter().filter(|c| c["overlaps"] == false).map(|c| u(c, "bytes")).sum();
        assert_eq!(sum, u(&e, "rss_bytes"), "causes add up");
        e
    }

    fn look(&self, verb: &str) -> Value {
        let output = Command::new(STRANDLINE)
            .args([verb, "--json", &self.pid().to_string()])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn rss(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn u(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {value}"))
}

pub fn class(census: &Value, name: &str) -> u64 {
    let classes = census["classes"].as_array().unwrap();
    classes.iter().find(|c| c["name"] == name).map_or(0, |c| u(c, "bytes"))
}

/// Objects of a type.
pub fn count(census: &Value, name: &str) -> u64 {
    let types = census["types"].as_array().unwrap();
    types.iter().find(|t| t["name"] == name).map_or(0, |t| u(t, "count"))
}

/// What holds for every census of a program that stands still. `unnamed`: the largest share of
/// RSS that may be without a name.
pub fn check(s: &Standing, census: &Value, unnamed: f64) {
    let rss = u(census, "rss_bytes");
    let classes = census["classes"].as_array().unwrap();
    assert_eq!(classes.iter().map(|c| u(c, "bytes")).sum::<u64>(), rss, "classes add up");
    assert_eq!(rss, u(census, "kernel_rss_bytes"), "what smaps said at the same moment");
    assert_eq!(rss, s.rss(), "the census leaves the process as large as it was");
    assert_eq!(census["doubts"], serde_json::json!([]));
    assert_eq!(class(census, "python_torn_pools"), 0);
    assert_eq!(class(census, "unnamed"), u(census, "unnamed_bytes"));
    let share = u(census, "unnamed_bytes") as f64 / rss as f64;
    assert!(share <= unnamed, "{:.4} % without a name", share * 100.0);
    let unknown = class(census, "python_unknown_blocks") as f64 / rss as f64;
    assert!(unknown <= 0.01, "{:.4} % in blocks whose holder is unknown", unknown * 100.0);
}
