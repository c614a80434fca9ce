//! Programs of several processes: each Python among them is followed and reported by itself, and
//! what was measured survives any end.

mod common;

use common::*;

/// A function that makes `count` blocks of a hundred thousand bytes, and keeps them.
const WORK: &str = r#"
import os, sys, time
N = 100000
kept = []
try:
    profile
except NameError:
    profile = lambda f: f

@profile
def work(count):
    for _ in [None] * count:
        kept.append(b"x" * N)     # made
    return count
"#;

/// Allocated by the line `# made` in each process that ran it, sorted, in blocks.
fn made(python: &Python, report: &Report) -> Vec<i64> {
    let block = 100_000 + python.bytes_header as i64;
    let mut found = Vec::new();
    for function in report.functions() {
        assert_eq!(function["name"], "work");
        for line in function["lines"].as_array().unwrap() {
            let is_it = line["source"].as_str().is_some_and(|s| s.ends_with("# made"));
            if is_it && !line["occurrences"].is_null() {
                let allocated = number(line, "allocated_bytes");
                // The list of what is kept is a little more.
                assert!(allocated % block < 2000, "{allocated}");
                found.push(allocated / block);
            }
        }
    }
    found.sort_unstable();
    found
}

fn job(python: &Python, rest: &str) -> Job {
    Job::script(python, &format!("{WORK}{rest}"))
}

/// The blocks by process, and the report.
fn of(python: &Python, rest: &str) -> (Vec<i64>, Report) {
    let (_, report) = job(python, rest).report();
    (made(python, &report), report)
}

fn states(report: &Report) -> Vec<&str> {
    report.processes().iter().map(|p| p["state"].as_str().unwrap()).collect()
}

#[test]
fn fork() {
    let rest = r#"
work(2)
pid = os.fork()
if pid == 0:
    work(5)
    sys.exit(0)
os.waitpid(pid, 0)
work(1)
"#;
    each(|python| {
        let (blocks, report) = of(python, rest);
        assert_eq!(blocks, [3, 5]);
        assert_eq!(report.processes().len(), 2);
        let child = &report.processes()[1];
        assert_eq!((&child["forked"], &child["parent_process"]), (&true.into(), &0.into()));
        assert_eq!(child["parent_pid"], report.processes()[0]["pid"]);
        // What was the parent's at the fork is the child's to hold as well.
        let held = number(&child["exit"], "in_use_bytes");
        assert!(held >= 7 * 100_000, "{child:#}");
        assert_eq!(states(&report), ["exited", "exited"]);
    });
}

#[test]
fn children_and_grandchildren_that_fork_while_a_line_runs() {
    let rest = r#"
def children():
    for count in (1, 2, 3):
        pid = os.fork()
        if pid == 0:
            work(count)
            inner = os.fork()
            if inner == 0:
                work(10 * count)
                os._exit(0)
            os.waitpid(inner, 0)
            os._exit(0)
        os.waitpid(pid, 0)
children()
"#;
    each(|python| {
        let (mut blocks, report) = of(python, rest);
        blocks.retain(|b| *b > 0);
        assert_eq!(blocks, [1, 2, 3, 10, 20, 30]);
        assert_eq!(report.processes().len(), 7);
    });
}

#[test]
fn multiprocessing() {
    for method in ["fork", "spawn", "forkserver"] {
        let rest = format!(
            r#"
if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context("{method}")
    pool = context.Pool(2)
    assert sum(pool.map(work, [1, 2, 3, 4], 1)) == 10
    pool.close()
    pool.join()
"#
        );
        each_of(
            |version| version >= (3, 6),
            |python| {
                let (blocks, _) = of(python, &rest);
                assert_eq!(blocks.iter().sum::<i64>(), 10, "{method}: {blocks:?}");
            },
        );
    }
}

#[test]
fn multiprocessing_on_2_7() {
    let rest = r#"
if __name__ == "__main__":
    import multiprocessing
    pool = multiprocessing.Pool(2)
    assert sum(pool.map(work, [1, 2, 3, 4], 1)) == 10
    pool.close()
    pool.join()
"#;
    each_of(
        |version| version == (2, 7),
        |python| {
            let (blocks, _) = of(python, rest);
            assert_eq!(blocks.iter().sum::<i64>(), 10, "{blocks:?}");
        },
    );
}

const STARTS: [(&str, &str); 6] = [
    ("subprocess.call", "import subprocess; subprocess.call([sys.executable, __file__, 'c'])"),
    (
        "cleared environment",
        "import subprocess; subprocess.call([sys.executable, __file__, 'c'], env={})",
    ),
    ("os.system", "os.system('\"%s\" prog.py c' % sys.executable)"),
    ("a shell in between", "os.system('sh -c \"\\\"%s\\\" prog.py c; true\"' % sys.executable)"),
    ("os.popen", "os.popen('\"%s\" prog.py c' % sys.executable).read()"),
    ("os.spawnv", "os.spawnv(os.P_WAIT, sys.executable, [sys.executable, 'prog.py', 'c'])"),
];

fn starts(start: &str) -> String {
    format!("if sys.argv[1:]:\n    work(5)\nelse:\n    work(2)\n    {start}\n    work(1)\n")
}

#[test]
fn children_that_are_started() {
    each(|python| {
        for (name, start) in STARTS {
            let (blocks, report) = of(python, &starts(start));
            assert_eq!(blocks, [3, 5], "{name}");
            // Where a child is forked before it replaces itself, the fork was a Python, too.
            let all = report.processes();
            let children: Vec<_> = all[1..].iter().filter(|p| p["state"] != "replaced").collect();
            assert_eq!(children.len(), 1, "{name}: {:#}", report.0["processes"]);
            let child = children[0];
            assert_eq!(child["forked"], false, "{name}");
            assert_eq!(child["state"], "exited", "{name}");
            let command = child["command"].as_array().unwrap();
            assert_eq!(command.last().unwrap(), "c", "{name}");
        }
    });
}

#[test]
fn children_are_not_followed_if_not_wanted() {
    each(|python| {
        for (name, start) in STARTS {
            let (_, report) = job(python, &starts(start)).option("--no-follow").report();
            assert_eq!(made(python, &report), [3], "{name}");
            assert_eq!(report.processes().len(), 1, "{name}");
        }
        let rest = "pid = os.fork()\nwork(2)\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\n";
        let (_, report) = job(python, rest).option("--no-follow").report();
        assert_eq!(made(python, &report), [2]);
    });
}

#[test]
fn exec_replaces() {
    let rest = r#"
if sys.argv[1:]:
    work(5)
    sys.exit(7)
work(2)
os.execv(sys.executable, [sys.executable, "prog.py", "again"])
"#;
    each(|python| {
        let (ran, report) = job(python, rest).profiled();
        assert_eq!(ran.code, Some(7));
        assert_eq!(made(python, &report), [2, 5]);
        assert_eq!(states(&report), ["replaced", "exited"]);
        let all = report.processes();
        assert_eq!(all[0]["pid"], all[1]["pid"]);
    });
}

/// A program that fails to replace itself goes on.
#[test]
fn exec_that_fails() {
    let rest =
        "work(2)\ntry:\n    os.execv('/nonexistent/x', ['x'])\nexcept OSError:\n    work(3)\n";
    each(|python| {
        let (blocks, report) = of(python, rest);
        assert_eq!(blocks, [5]);
        assert_eq!(states(&report), ["exited"]);
    });
}

#[test]
fn a_child_that_is_killed_keeps_its_figures() {
    let rest = r#"
pid = os.fork()
if pid == 0:
    work(5)
    os.kill(os.getpid(), 9)
assert os.waitpid(pid, 0)[1] == 9
work(1)
"#;
    each(|python| {
        let (blocks, report) = of(python, rest);
        assert_eq!(blocks, [1, 5]);
        assert_eq!(states(&report), ["exited", "killed"]);
        let child = &report.processes()[1];
        assert!(child["exit"].is_null());
        assert!(number(child, "in_use_bytes") >= 500_000);
    });
}

/// The main process ends without clean-up, before its child does.
#[test]
fn os_exit_in_the_parent() {
    let rest = r#"
ready, go = os.pipe()
pid = os.fork()
if pid == 0:
    work(5)
    os.write(go, b"x")
    time.sleep(600)
os.read(ready, 1)
work(2)
os.kill(pid, 9)
os.waitpid(pid, 0)
os._exit(3)
"#;
    each(|python| {
        let (ran, report) = job(python, rest).profiled();
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), ""));
        assert_eq!(made(python, &report), [2, 5]);
    });
}

/// A daemon outlives the run: it is reported as it is then, and goes on.
#[test]
fn a_child_that_lives_on() {
    let rest = r#"
ready, go = os.pipe()
pid = os.fork()
if pid == 0:
    for fd in (0, 1, 2):
        os.close(fd)
    work(5)
    os.write(go, b"x")
    time.sleep(5)
    work(1)
    open("alive", "w").close()
    os._exit(0)
os.read(ready, 1)
"#;
    each_of(
        |version| version == pythons()[0].version || version == (3, 11),
        |python| {
            let job = job(python, rest);
            let (_, report) = job.report();
            assert_eq!(made(python, &report), [5]);
            assert_eq!(states(&report), ["exited", "running"]);
            let start = std::time::Instant::now();
            while !job.dir.join("alive").exists() {
                assert!(start.elapsed().as_secs() < 30, "the child did not survive");
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        },
    );
}

/// Children that are no Pythons are left alone.
#[test]
fn other_children() {
    let rest = "os.system('true; ls > /dev/null')\nwork(1)\n";
    each(|python| {
        let (blocks, report) = of(python, rest);
        assert_eq!(blocks, [1]);
        assert_eq!(report.processes().len(), 1, "{:#}", report.0["processes"]);
    });
}
