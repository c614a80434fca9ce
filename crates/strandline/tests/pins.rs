//! `strandline explain PID` of a program that runs under `strandline run --stacks`: which lines asked
//! for what keeps malloc's heaps long.

mod common;

use std::process::Command;

use common::standing::*;
use common::*;

/// Buffers below the mmap threshold that go, and above them some that stay.
const HEAPS: &str = "
import os, sys, time, threading
gone, kept = [], []
def stays():
    return bytearray(60001)
def fill():
    for i in range(400):
        gone.append(bytearray(60000))
    for i in range(5):
        kept.append(stays())
    del gone[:]
fill()
t = threading.Thread(target=fill)
t.start(); t.join()
sys.stdout.write('pid %d\\nready\\n' % os.getpid())
sys.stdout.flush()
time.sleep(600)
";

#[test]
fn what_keeps_a_heap_is_named_by_line() {
    each(|python| {
        let dir = Dir::new();
        let program = dir.file("program.py", HEAPS);
        let mut command = Command::new(STRANDLINE);
        clean(&mut command);
        command.args(["run", "--stacks", "-o"]).arg(dir.join("out.strand"));
        command.arg("--python").arg(&python.path).arg(program);
        let s = Standing::of(command, dir);
        let pid = s.number("pid");
        let s = s.look_at(pid as u32);
        let explained = s.explained();
        // SAFETY: kill(2) on the program that was started above and stands.
        unsafe { libc::kill(pid as i32, libc::SIGTERM) };
        let lines = explained["pins_by_line"].as_array().unwrap_or_else(|| panic!("{explained:#}"));
        let of = |what: &str| {
            let found = lines.iter().find(|l| l["what"] == what);
            found.unwrap_or_else(|| panic!("no {what} in {lines:#?}"))
        };
        // 400 buffers. Where a block of another line stands among them (a frame, an array that grew),
        // the heap's end would go back no further than to that.
        let freed = 400 * 60_000;
        for what in ["heap", "thread_heap", "hole"] {
            let line = of(what);
            let place = line["place"].as_str().unwrap();
            assert!(place.starts_with("stays (") && place.ends_with("program.py:5)"), "{line:#}");
            assert!(line["callers"][0].as_str().unwrap().starts_with("fill ("), "{line:#}");
            let held = number(line, "held_bytes");
            assert!((freed / 2..freed * 22 / 10).contains(&held), "{line:#}");
            assert!((1..=10).contains(&number(line, "blocks")), "{line:#}");
        }
    });
}
