//! Giving memory back: `strandline.trim()` in the program, and `strandline remedies PID` from
//! outside.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use common::*;

/// The heap of examples/lists_deepcopy_clear.py, and what the kernel says by the page.
const HEAP: &str = r#"
import copy, json, time
import strandline

def rss():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024

x = [[] for _ in range(1000000)]
y = copy.deepcopy(x)
del x[:]
"#;

#[test]
fn trim_says_what_each_layer_gave() {
    each(|python| {
        let end = r#"
before = rss()
given = strandline.trim()
after = rss()
print(json.dumps({"before": before, "after": after, "given": given, "count": len(y)}))
"#;
        let job = Job::script(python, &format!("{HEAP}{end}"));
        let said = job.report().0.json();
        let given = |name| number(&said["given"], name);
        let layers = given("collect") + given("malloc_trim") + given("pool_trim");
        assert_eq!(given("rss_before") - given("rss_after"), layers, "{said}");
        for (ours, kernels) in [("rss_before", "before"), ("rss_after", "after")] {
            let apart = (given(ours) - number(&said, kernels)).abs();
            // To find the allocator's state the interpreter's data is read once.
            assert!(apart <= 1 << 20, "{ours}: {apart} bytes from smaps_rollup: {said}");
        }
        assert!(given("malloc_trim") > 10 << 20, "{said}");
        if has_pool_trim(python.version) {
            assert!(given("pool_trim") > 15 << 20, "{said}");
        } else {
            assert_eq!(given("pool_trim"), 0, "{said}");
        }
        assert_eq!(number(&said, "count"), 1_000_000);
    });
}

#[test]
fn pages_that_are_used_again_count_again() {
    each_of(has_pool_trim, |python| {
        let end = r#"
strandline.trim()
z = [[] for _ in range(200000)]
c = strandline.census()
print(json.dumps({"arenas": c["classes"], "doubts": c["doubts"]}))
"#;
        let job = Job::script(python, &format!("{HEAP}{end}")).option("--census-at-exit");
        let (ran, report) = job.report();
        assert_eq!(ran.json()["doubts"], serde_json::json!([]));
        // Pools with the same class as before, and with others: what the hooks counted page by
        // page is what the census finds.
        let census = &report.0["censuses"][0]["census"];
        let class = |name: &str| {
            let all = census["classes"].as_array().unwrap();
            all.iter().find(|c| c["name"] == name).map_or(0, |c| number(c, "bytes"))
        };
        let exit = &report.main()["exit"];
        let stranded = number(exit, "stranded_bytes");
        let found = number(census, "stranded_bytes");
        let free = class("python_free_pools");
        assert!((stranded - found).abs() <= 1 << 20, "{stranded}, not {found} ({free} in pools)");
    });
}

#[test]
fn nothing_to_win_costs_nothing() {
    each(|python| {
        let end = r#"
strandline.trim()
times = []
for _ in range(200):
    start = time.time()
    given = strandline.trim()
    times.append(time.time() - start)
print(json.dumps({"given": given, "us": int(sorted(times)[100] * 1e6)}))
"#;
        let said = Job::script(python, &format!("{HEAP}{end}")).report().0.json();
        for layer in ["collect", "malloc_trim", "pool_trim"] {
            assert_eq!(number(&said["given"], layer), 0, "{said}");
        }
        // Far below what looking at a million lists takes.
        assert!(number(&said, "us") < 2000, "{said}");
    });
}

#[test]
fn trim_collects_where_the_collector_is_off() {
    each(|python| {
        let source = r#"
import gc, json
import strandline
gc.disable()
class Node(object):
    pass
nodes = []
for _ in range(100000):
    n = Node()
    n.me = n
    nodes.append(n)
del nodes, n
given = strandline.trim()
print(json.dumps(given))
left = sum(1 for o in gc.get_objects() if isinstance(o, Node))
print(json.dumps({"given": given, "left": left, "enabled": gc.isenabled()}))
"#;
        let said = Job::script(python, source).report().0.json();
        assert_eq!((number(&said, "left"), &said["enabled"]), (0, &Value::Bool(false)));
        let given = &said["given"];
        let less = number(given, "rss_before") - number(given, "rss_after");
        assert!(less > 4 << 20, "{said}");
    });
}

/// Blocks of every size class over trims: 16,000 of each in each of 20 rounds.
const STRESS: &str = include_str!("stress/pool_trim.py");

#[test]
fn ten_million_blocks_between_trims_keep_their_content() {
    each_of(has_pool_trim, |python| {
        let (ran, _) = Job::script(python, STRESS).program(["20"]).profiled();
        let ran = ran.ok();
        let said = ran.json();
        assert_eq!(said[0], 10_240_000);
        assert!(said[1].as_i64().unwrap() > 50 << 20, "{said}");
        assert_eq!(said[2], serde_json::json!([]));
        assert!(said[3].as_array().unwrap().iter().all(|bytes| bytes == 0), "{said}");
        // Every byte of the arenas is in one row of the statistics.
        let stat = |name: &str| {
            let line = ran.stderr.lines().find(|l| l.starts_with(name));
            let line = line.unwrap_or_else(|| panic!("no {name} in {}", ran.stderr));
            let digits = |word: &str| word.replace(',', "").parse::<i64>().ok();
            line.split_whitespace().filter_map(digits).next_back().unwrap()
        };
        assert_eq!(stat("Total"), stat("# arenas allocated current") << 20, "{}", ran.stderr);
    });
}

/// A program under `strandline run` that has said `ready`.
struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The program's process.
    pid: u32,
    /// Where its report goes.
    _dir: Dir,
}

impl Running {
    fn start(python: &Python, source: &str) -> Running {
        let dir = Dir::new();
        let front = "import os, sys, time\n\
                     def say(text):\n    sys.stdout.write('%s\\n' % (text,))\n    sys.stdout.flush()\n";
        let path = dir.file("program.py", format!("{front}{source}"));
        let mut command = Command::new(STRANDLINE);
        clean(&mut command);
        command.arg("run").arg("-o").arg(dir.join("report")).arg("--python").arg(&python.path);
        command.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut running =
            Running { child, input, output: BufReader::new(output), pid: 0, _dir: dir };
        running.pid = running.line().parse().unwrap();
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn write(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    /// `strandline remedies PID` with one more word.
    fn remedy(&self, what: &str) -> Value {
        let ran = remedies(&[&self.pid.to_string(), what, "--json"]).ok();
        assert_eq!(ran.stderr, "");
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(value["schema"], "strandline-remedy/1");
        assert_eq!(value["pid"], self.pid);
        let (before, after) =
            (number(&value, "rss_before_bytes"), number(&value, "rss_after_bytes"));
        assert_eq!(number(&value, "returned_bytes"), before - after);
        for (rss, of) in [(before, "before_bytes"), (after, "after_bytes")] {
            let classes = value["classes"].as_array().unwrap();
            assert_eq!(classes.iter().map(|c| number(c, of)).sum::<i64>(), rss);
        }
        value
    }

    /// Waits for the end, which has to be a good one.
    fn end(mut self) {
        drop(self.input);
        assert!(self.child.wait().unwrap().success());
    }
}

fn remedies(words: &[&str]) -> Ran {
    let mut command = Command::new(STRANDLINE);
    clean(&mut command);
    run(command.arg("remedies").args(words), "")
}

#[test]
fn a_program_that_waits_for_input() {
    each(|python| {
        let source = "import copy, gc\n\
                      x = [[] for _ in range(1000000)]\n\
                      y = copy.deepcopy(x)\n\
                      del x[:]\n\
                      class Node(object): pass\n\
                      gc.disable()\n\
                      for i in range(50000):\n    n = Node()\n    n.me = n\n\
                      say(os.getpid())\n\
                      line = sys.stdin.readline()\n\
                      say('%s %d' % (line.strip(), len(y)))\n\
                      say(sum(1 for o in gc.get_objects() if isinstance(o, Node)))\n";
        let mut program = Running::start(python, source);
        let pools = program.remedy("--pool-trim");
        if has_pool_trim(python.version) {
            assert!(number(&pools, "returned_bytes") > 15 << 20, "{pools}");
        }
        assert_eq!(pools["remedy"], "pool-trim");
        let collected = program.remedy("--collect");
        assert_eq!(collected["remedy"], "collect");
        let trimmed = program.remedy("--trim");
        assert_eq!(trimmed["remedy"], "malloc-trim");
        assert!(number(&trimmed, "returned_bytes") > 5 << 20, "{trimmed}");
        program.write("hello\n");
        assert_eq!(program.line(), "hello 1000000");
        assert_eq!(program.line(), "1", "of the cycles the last one has a name");
        program.end();
    });
}

/// Ends with EINTR when a tracer looks, if only for a census; Python goes on waiting since 3.5.
const EPOLLS: [&str; 2] = ["epoll with a time limit", "epoll"];

/// What a program does for `T` seconds, and what it says then.
const RESTS: [(&str, &str, &str); 9] = [
    ("time.sleep", "time.sleep(T)", ""),
    (
        "select with threads",
        "import select, threading\n\
         stop = []\n\
         def work():\n    while not stop: sum(range(100))\n\
         threads = [threading.Thread(target=work) for _ in range(2)]\n\
         for t in threads: t.start()\n\
         start = time.time()\n\
         answer = select.select([], [], [], T)\n\
         took = time.time() - start\n\
         stop.append(1)",
        "([], [], [])",
    ),
    (
        "poll",
        "import select\np = select.poll()\np.register(0, select.POLLIN)\nanswer = p.poll(T * 1000)",
        "[]",
    ),
    (
        "Thread.join",
        "import threading\nt = threading.Thread(target=time.sleep, args=(T,))\nt.start()\nt.join()",
        "",
    ),
    (
        EPOLLS[0],
        "import select\ne = select.epoll()\ne.register(0, select.EPOLLIN)\nanswer = e.poll(T)",
        "[]",
    ),
    (
        EPOLLS[1],
        "import select, threading\n\
         r, w = os.pipe()\n\
         e = select.epoll()\n\
         e.register(r, select.EPOLLIN)\n\
         threading.Timer(T, os.write, (w, b'x')).start()\n\
         answer = len(e.poll())",
        "1",
    ),
    (
        "accept",
        "import socket, threading\n\
         s = socket.socket()\n\
         s.bind(('127.0.0.1', 0))\n\
         s.listen(1)\n\
         threading.Timer(T, socket.create_connection, (s.getsockname(),)).start()\n\
         answer = s.accept()[1][0]",
        "127.0.0.1",
    ),
    (
        "recv",
        "import socket, threading\n\
         ours, theirs = socket.socketpair()\n\
         threading.Timer(T, theirs.sendall, (b'hello',)).start()\n\
         answer = ours.recv(100).decode()",
        "hello",
    ),
    (
        "a busy loop",
        "start, n = time.time(), 0\nwhile time.time() - start < T: n += 1\nn = n > 0",
        "",
    ),
];

#[test]
fn programs_at_rest_and_at_work() {
    /// `T`. Strandline has to come in time to all that rest at once.
    const SECONDS: f64 = 6.0;
    const AT_ONCE: usize = 3;
    at_once(
        |_| true,
        |python| {
            let one = |(name, code, answer): (&str, &str, &str)| {
                let source = format!(
                    "T = {SECONDS:.0}\ntook = None\nanswer = ''\nsay(os.getpid())\nstart = time.time()\n\
                     {code}\n\
                     took = took or time.time() - start\nsay(took)\nsay(answer)\n"
                );
                let mut program = Running::start(python, &source);
                let value = program.remedy("--collect");
                assert_eq!(value["remedy"], "collect", "{name}");
                let took: f64 = program.line().parse().unwrap();
                assert!((SECONDS - 0.01..60.0).contains(&took), "{name} took {took}");
                assert_eq!(program.line(), answer, "{name}");
                program.end();
            };
            let rests: Vec<_> = RESTS
                .iter()
                .filter(|rest| python.version >= (3, 5) || !EPOLLS.contains(&rest.0))
                .collect();
            for some in rests.chunks(AT_ONCE) {
                std::thread::scope(|s| some.iter().for_each(|rest| drop(s.spawn(|| one(**rest)))));
            }
        },
    );
}

#[test]
fn a_signal_that_comes_later_is_seen() {
    // Since 3.5 a call goes on after the handler (PEP 475).
    at_once(
        |version| version >= (3, 5),
        |python| {
            let source = "import signal\n\
                      signal.signal(signal.SIGUSR1, lambda *a: say('signal'))\n\
                      say(os.getpid())\n\
                      start = time.time()\n\
                      time.sleep(6)\n\
                      say(time.time() - start)\n";
            let mut program = Running::start(python, source);
            let start = Instant::now();
            program.remedy("--trim");
            // SAFETY: kill(2) has no preconditions.
            unsafe { libc::kill(program.pid as i32, libc::SIGUSR1) };
            assert_eq!(program.line(), "signal");
            assert!(start.elapsed().as_secs_f64() < 5.9, "the signal had to wait");
            let took: f64 = program.line().parse().unwrap();
            assert!((5.99..60.0).contains(&took), "{took}");
            program.end();
        },
    );
}

/// Signals are held back while a thread works for strandline. One that comes in then, with a
/// handler, ends the call that the thread was in, for Python to run the handler.
#[test]
fn a_signal_that_comes_meanwhile_is_seen() {
    let waits = ["time.sleep(60)", "select.select([0], [], [], 60)"];
    // Before 3.4 (PEP 442) a finalizer keeps a cycle from being collected.
    each_of(
        |version| version >= (3, 4),
        |python| {
            for wait in waits {
                let source = format!(
                    "import gc, select, signal\n\
                     class Seen(Exception): pass\n\
                     def handler(*a): raise Seen\n\
                     signal.signal(signal.SIGUSR1, handler)\n\
                     class Slow(object):\n\
                     \x20   def __del__(self):\n\
                     \x20       say('collecting')\n\
                     \x20       time.sleep(1)\n\
                     \x20       say('collected')\n\
                     gc.disable()\n\
                     n = Slow()\n\
                     n.me = n\n\
                     del n\n\
                     say(os.getpid())\n\
                     try:\n\
                     \x20   {wait}\n\
                     \x20   say('missed')\n\
                     except Seen:\n\
                     \x20   say('signal')\n\
                     sys.stdin.readline()\n"
                );
                let mut program = Running::start(python, &source);
                let pid = program.pid;
                let asking =
                    std::thread::spawn(move || remedies(&[&pid.to_string(), "--collect"]).ok());
                assert_eq!(program.line(), "collecting", "{wait}");
                // SAFETY: kill(2) has no preconditions.
                unsafe { libc::kill(pid as i32, libc::SIGUSR1) };
                assert_eq!(program.line(), "collected", "{wait}");
                assert_eq!(program.line(), "signal", "{wait}");
                asking.join().unwrap();
                program.end();
            }
        },
    );
}

#[test]
fn a_program_that_holds_the_gil_is_left_alone() {
    // It takes ten seconds: one interpreter is enough.
    let newest = pythons().last().map(|p| p.version);
    each_of(
        |version| Some(version) == newest,
        |python| {
            let source = "import ctypes\n\
                          say(os.getpid())\n\
                          start = time.time()\n\
                          ctypes.PyDLL(None).sleep(13)\n\
                          say(time.time() - start)\n";
            let mut program = Running::start(python, source);
            let ran = remedies(&[&program.pid.to_string(), "--collect"]);
            let text = "did not come to a safe point";
            assert!(ran.code == Some(125) && ran.stderr.contains(text), "{ran:?}");
            assert!(program.line().parse::<f64>().unwrap() > 12.9);
            program.end();
        },
    );
}

#[test]
fn children_have_their_own_memory() {
    each(|python| {
        let source = "pid = os.fork()\n\
                      if pid == 0:\n\
                      \x20   say(os.getpid())\n\
                      \x20   say(sys.stdin.readline().strip())\n\
                      \x20   os._exit(0)\n\
                      say(os.waitpid(pid, 0)[1])\n";
        let mut program = Running::start(python, source);
        program.remedy("--trim");
        program.write("to the child\n");
        assert_eq!(program.line(), "to the child");
        assert_eq!(program.line(), "0");
        program.end();
    });
}

#[test]
fn other_processes_are_named() {
    let alone = Command::new("sleep").arg("60").spawn();
    let mut alone = alone.unwrap();
    let ran = remedies(&[&alone.id().to_string(), "--trim"]);
    let text = format!("strandline: process {} doesn't run under strandline: start the program with `strandline run`", alone.id());
    assert!(ran.code == Some(125) && ran.stderr.starts_with(&text), "{ran:?}");
    alone.kill().unwrap();
    alone.wait().unwrap();
    let ran = remedies(&[&alone.id().to_string(), "--collect"]);
    assert!(ran.code == Some(125) && ran.stderr.contains("there is no such process"), "{ran:?}");
    let ran = remedies(&["4294967295", "--collect"]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
}
