//! What may be run, and that the program can't tell: the same arguments, environment, input,
//! output and end as without strandline.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::*;

/// Prints all that a program can see of how it was started.
const SELF: &str = r#"
import json, os, sys
def text(value):
    return value.decode("latin-1") if isinstance(value, bytes) else value
maps = open("/proc/self/environ", "rb").read().decode("latin-1").split("\0")
print(json.dumps({
    "argv": [text(a) for a in sys.argv],
    "name": __name__,
    "file": text(globals().get("__file__")),
    "package": globals().get("__package__"),
    "main": sys.modules["__main__"].__dict__ is globals(),
    "path0": text(sys.path[0]),
    "flags": str(sys.flags),
    "executable": text(sys.executable),
    "prefix": text(sys.prefix),
    "cwd": os.getcwd(),
    "environ": dict(os.environ),
    "stdin": sys.stdin.read(),
    "tty": [os.isatty(fd) for fd in (0, 1, 2)],
    "fds": sorted(set(os.listdir("/proc/self/fd"))),
    "preload": [m for m in maps if m.startswith(("LD_PRELOAD", "STRANDLINE"))] and "seen",
    "trace": [str(sys.gettrace()), str(sys.getprofile())],
    # strandline registers an exit handler: the one module that it may have imported.
    "modules": sorted(set(sys.modules) - {"atexit"}),
    "ppid": os.getppid() > 1,
}, sort_keys=True))
"#;

/// The program says the same, but for what `/proc/self/environ` keeps: what exec was given.
fn same(python: &Python, job: &Job) -> Report {
    let (ran, report) = job.profiled();
    let plain = job.plain();
    let (mut ours, mut theirs) = (ran.json(), plain.json());
    for side in [&mut ours, &mut theirs] {
        side["preload"] = Value::Null;
    }
    let (a, b) = (ours.as_object().unwrap(), theirs.as_object().unwrap());
    for (key, value) in b {
        assert_eq!(&a[key], value, "{key}, {python}");
    }
    assert_eq!((ran.code, ran.signal, &ran.stderr), (plain.code, plain.signal, &plain.stderr));
    assert!(report.main()["can"]["lines"] == true, "{:#}", report.main());
    report
}

#[test]
fn scripts() {
    each(|python| {
        let words = ["prog.py", "--json", "-o", "x", "", "-m", "--", "a b", "\u{e9}"];
        let job = Job::new(python).file("prog.py", SELF).program(words).stdin("one\ntwo\n");
        same(python, &job);
        let job = Job::new(python).file("sub/prog.py", SELF).program(["sub/../sub/prog.py"]);
        same(python, &job);
        // A folder and an archive with a main program.
        same(python, &Job::new(python).file("d/__main__.py", SELF).program(["d", "-c"]));
    });
}

#[test]
fn modules() {
    each(|python| {
        let job = Job::new(python).file("pkg/__init__.py", "").file("pkg/mod.py", SELF);
        same(python, &job.program(["-m", "pkg.mod", "-m", "--help"]));
        let job = Job::new(python).file("pkg/__init__.py", "").file("pkg/__main__.py", SELF);
        same(python, &job.program(["-m", "pkg", "x"]));
    });
}

#[test]
fn code() {
    each(|python| {
        same(python, &Job::new(python).program(["-c", SELF, "-c", "a"]).stdin("in"));
    });
}

/// A script on standard input.
#[test]
fn standard_input() {
    each(|python| {
        let script = "import sys\nsys.stdout.write('[]\\n' if sys.argv == ['-', 'x'] else 'no')\n";
        let job = Job::new(python).program(["-", "x"]).stdin(script);
        assert_eq!(job.profiled().0, job.plain());
        assert_eq!(job.plain().stdout, "[]\n");
    });
}

#[test]
fn commands_with_an_interpreter_of_their_own() {
    each(|python| {
        let path = python.path.to_str().unwrap();
        for options in [&["-s"][..], &["-E", "-B"], &["-O"], &["-X", "dev"], &["-W", "error"]] {
            if options == ["-X", "dev"] && python.version < (3, 7) {
                continue;
            }
            let mut job = Job::new(python).file("prog.py", SELF).program(["--", path]);
            let mut plain = Command::new(path);
            clean(&mut plain);
            plain.current_dir(job.dir.path()).args(options).args(["prog.py", "-o"]);
            for option in options {
                job = job.program([*option]);
            }
            let job = job.program(["prog.py", "-o"]).stdin("in");
            let ours = job.profiled().0;
            let mut theirs = run(&mut plain, "in");
            let (mut a, mut b) = (ours.json(), theirs.json());
            for side in [&mut a, &mut b] {
                side["preload"] = Value::Null;
            }
            assert_eq!(a, b, "{options:?}");
            theirs.stdout.clone_from(&ours.stdout);
            assert_eq!(ours, theirs);
        }
    });
}

/// A name on `PATH`, a script that starts with `#!`, one that runs an interpreter by the shell
/// (as pyenv's do), and a virtual environment.
#[test]
fn shims() {
    each(|python| {
        let path = python.path.to_str().unwrap();
        let source =
            "#!SHIM\n@profile\ndef f(n):\n    return b'x' * n  # made\nf(100000)\nprint('[]')\n";
        let job = Job::new(python)
            .file("bin/odd", format!("#!/bin/sh\nset -e\nexec \"{path}\" \"$@\"\n"))
            .file("tool", source.replace("SHIM", path));
        for file in ["bin/odd", "tool"] {
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(job.dir.join(file), mode).unwrap();
        }
        let bin = format!("{}:/usr/bin:/bin", job.dir.join("bin").display());
        let exact = 100_000 + python.bytes_header as i64;
        let job = job.env("PATH", &bin).program(["--", "odd", "tool"]);
        let (_, report) = job.report();
        assert_eq!(report.at("made", "allocated_bytes"), exact);
        let job = Job::new(python).file("tool", source.replace("SHIM", path));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(job.dir.join("tool"), mode).unwrap();
        let (_, report) = job.program(["--", "./tool"]).report();
        assert_eq!(report.at("made", "allocated_bytes"), exact);
    });
}

#[test]
fn other_allocators() {
    let source = r#"
@profile
def function(n):
    a = b"x" * n                  # made
    b = b"x" * (n // 1000)        # small
    del a                         # gone
function(100000)
"#;
    for kind in ["malloc", "pymalloc", "debug", "malloc_debug", "pymalloc_debug"] {
        each_of(
            |version| version >= (3, 6),
            |python| {
                let (_, report) = Job::script(python, source).env("PYTHONMALLOC", kind).report();
                assert_eq!(report.names(), ["function"], "{kind}: {:#}", report.main());
                let exact = 100_000 + python.bytes_header as i64;
                // The debug allocators ask for more themselves: frames of 24 or 32 bytes, two
                // where one debug allocator asks another.
                let extra = if kind.contains("debug") { 64 } else { 0 };
                let (allocated, freed) = report.moved("made");
                assert!((exact..=exact + extra).contains(&allocated), "{kind}: {allocated}");
                assert_eq!(freed, 0, "{kind}");
                assert_eq!(report.moved("gone"), (0, allocated), "{kind}");
            },
        );
    }
}

#[test]
fn a_preload_of_the_users_own_stays() {
    each(|python| {
        let code = "import os; print('[\"%s\"]' % os.environ.get('LD_PRELOAD'))";
        let job = Job::new(python).env("LD_PRELOAD", "libm.so.6").program(["-c", code]);
        let (ran, _) = job.report();
        assert_eq!(ran.json()[0], "libm.so.6");
        let job = Job::new(python).program(["-c", code]);
        assert_eq!(job.report().0.json()[0], "None");
    });
}

#[test]
fn children_get_a_clean_environment() {
    let source = r#"
import os, subprocess, sys
sys.stdout.write(subprocess.check_output(["env"]).decode())
sys.stdout.flush()
os.system("env")
"#;
    each(|python| {
        let job = Job::script(python, source).option("--no-follow");
        let keep = |ran: Ran| {
            let mut lines: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(keep(job.report().0), keep(job.plain().ok()));
    });
}

#[test]
fn exit_codes() {
    let ends = [
        ("pass", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('x')", 1),
        ("import sys; sys.exit(256 + 7)", 7),
        ("import os; os._exit(4)", 4),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", 130),
        ("this is no Python", 1),
        ("import sys; sys.exit(125)", 125),
    ];
    each(|python| {
        for (code, end) in ends {
            let job = Job::new(python).program(["-c", code]);
            let (ran, report) = job.profiled();
            let plain = job.plain();
            assert_eq!(ran, plain, "{code}");
            // An interrupt that nobody catches: a code before 3.8, a signal since.
            if end != 130 {
                assert_eq!(ran.code, Some(end), "{code}");
            }
            assert_eq!(report.0["exit"]["code"].as_i64(), plain.code.map(i64::from), "{code}");
            assert_eq!(report.0["exit"]["signal"].as_i64(), plain.signal.map(i64::from));
        }
    });
}

#[test]
fn deaths_by_signal() {
    each(|python| {
        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV, libc::SIGABRT, libc::SIGPIPE] {
            let code = format!(
                "import os, signal; signal.signal({signal}, signal.SIG_DFL) \
                 if {signal} != 9 else 0\n\
                 try: profile\nexcept NameError: profile = lambda f: f\n\
                 @profile\ndef f(n):\n    a = b'x' * n  # made\n    os.kill(os.getpid(), {signal})\n\
                 f(100000)"
            );
            let job = Job::new(python).program(["-c", &code]);
            let (ran, report) = job.profiled();
            assert_eq!(ran, job.plain(), "signal {signal}");
            assert_eq!(ran.signal, Some(signal));
            assert_eq!(report.0["exit"]["signal"], signal);
            assert_eq!(report.main()["state"], "killed");
            let exact = 100_000 + python.bytes_header as i64;
            assert_eq!(report.at("made", "allocated_bytes"), exact);
            assert_eq!(report.at("made", "in_use_bytes"), exact, "alive at its death");
        }
    });
}

#[test]
fn output_is_the_same() {
    let source = r#"
import sys
sys.stdout.write("out\n" * 1000)
sys.stderr.write("err\n")
sys.stdout.flush()
import atexit
atexit.register(lambda: sys.stdout.write("at exit\n"))
import warnings, gc
warnings.warn("careful")
class Late(object):
    def __del__(self):
        sys.stdout.write("late\n")
late = Late()
late.self = late
"#;
    each(|python| {
        let job = Job::script(python, source);
        assert_eq!(job.profiled().0, job.plain());
    });
}
