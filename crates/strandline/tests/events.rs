//! `run --stacks --events`: every allocation and free by itself. What they add up to is what was
//! counted, whatever ends the program.

mod common;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path as File, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::recorded::{self, ends_without_room};
use common::*;
use strandline_profile::events::{Interval, Recorded, Replayed};
use strandline_profile::{Amount, Weight};

fn command(python: &Python, dir: &Dir, source: &str) -> (Command, PathBuf) {
    recorded::command(python, dir, source, &["--events"])
}

fn open(path: &File) -> Recorded {
    Recorded::open(std::fs::File::open(path).unwrap()).unwrap()
}

/// Runs a program; the exit code, and what its events say.
fn replay(python: &Python, source: &str) -> (Option<i32>, Recorded, Vec<Replayed>) {
    let dir = Dir::new();
    let (mut command, path) = command(python, &dir, source);
    let ran = run(&mut command, "");
    let recorded = open(&path);
    let replayed = recorded.replay(Interval::ALL);
    (ran.code, recorded, replayed)
}

/// The events of all processes say what was counted.
fn agree(replayed: &[Replayed], processes: usize) {
    assert_eq!(replayed.len(), processes);
    for one in replayed {
        assert_eq!(one.missing, None);
        assert_eq!(one.agrees, Some(true), "process {}: {} events", one.pid, one.events);
        assert!(one.events > 1000 && one.peak > 100_000);
    }
}

/// Small and large blocks, that live long and short, grow, move; a moment with most of it.
const MIXED: &str = r#"
import sys
def churn(n):
    kept, lists = [], []
    for i in range(n):
        x = (i * 1103515245 + 12345) & 0x7fffffff
        kept.append(bytearray(x % 3000))
        lists.append([x, str(x), {i: x}])
        if i % 7 == 0:
            del kept[: len(kept) // 2]
        if i % 100 == 0:
            kept.append(bytearray(200000 + x % 100000))
    return lists
a = churn(20000)
del a
b = churn(5000)
"#;

#[test]
fn events_add_up_to_what_was_counted() {
    each(|python| {
        let (code, recorded, replayed) = replay(python, MIXED);
        assert_eq!(code, Some(0));
        agree(&replayed, 1);
        assert!(replayed[0].events > 200_000, "{}", replayed[0].events);
        let totals = recorded.profile.processes[0].totals;
        assert_eq!((replayed[0].peak, replayed[0].in_use), (totals.peak, totals.in_use));
    });
}

/// From 3.12 on the interpreter makes an `int` of each line number above 256 for us. It is not the
/// program's, and a peak that it alone would make is none: eight bytes below the highest point it
/// takes the sum above it at each line.
#[test]
fn profiled_lines_leave_the_peak_as_it_was() {
    let body = "
@profile
def work():
    for i in range(1000):
        x = bytes(300000)
        x = None
        x = bytes(300000 - 8)
        y = i
        x = None
work()
kept = [str(i) for i in range(2000)]
";
    let source = "\n".repeat(300) + body;
    each(|python| {
        let (code, recorded, replayed) = replay(python, &source);
        assert_eq!(code, Some(0));
        agree(&replayed, 1);
        let totals = recorded.profile.processes[0].totals;
        assert_eq!((replayed[0].peak, replayed[0].in_use), (totals.peak, totals.in_use));
    });
}

#[test]
fn forked_children_have_events_of_their_own() {
    let source = format!(
        "import os\nheld = [bytearray(50000) for _ in range(20)]\npid = os.fork()\n{MIXED}\n\
         del held[10:]\nif pid: os.waitpid(pid, 0)\nelse: os._exit(0)\n"
    );
    each(|python| {
        let (code, _, replayed) = replay(python, &source);
        assert_eq!(code, Some(0));
        agree(&replayed, 2);
    });
}

const THREADS: &str = r#"
import threading
def work(n):
    kept = []
    for i in range(n):
        kept.append({i: str(i)})
        if len(kept) > 100:
            del kept[:50]
threads = [threading.Thread(target=work, args=(20000,)) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
"#;

#[test]
fn threads_take_turns_in_the_order_of_the_interpreter() {
    each(|python| {
        let (code, _, replayed) = replay(python, THREADS);
        assert_eq!(code, Some(0));
        // The threads' own start and end are without the interpreter's lock: what they do in the
        // very nanoseconds of a peak may be on either side of it. All sums are exact.
        let one = &replayed[0];
        assert_eq!(one.missing, None);
        assert!(one.events > 200_000);
    });
}

#[test]
fn os_exit_and_sigkill_lose_nothing() {
    let exit = format!("{MIXED}\nimport os\nos._exit(3)\n");
    let kill = format!("{MIXED}\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n");
    each(|python| {
        let (code, _, replayed) = replay(python, &exit);
        assert_eq!(code, Some(3));
        agree(&replayed, 1);
        let dir = Dir::new();
        let (mut command, path) = command(python, &dir, &kill);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        agree(&open(&path).replay(Interval::ALL), 1);
    });
}

/// Waits until a condition holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn without_strandline_the_program_goes_on_and_what_was_told_stays() {
    // More events than find room, from when strandline is gone.
    let source = format!(
        "import time, os\n{MIXED}\nopen('ready', 'w').close()\n\
         while not os.path.exists('go'): time.sleep(0.01)\n{MIXED}\n{MIXED}\n\
         open('done', 'w').close()\n"
    );
    each_of(
        |version| version >= (3, 11),
        |python| {
            let dir = Dir::new();
            let (mut command, path) = command(python, &dir, &source);
            command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            until("the program is ready", || dir.join("ready").exists());
            until("events are in the file", || {
                let replayed = open(&path).replay(Interval::ALL);
                replayed.first().is_some_and(|one| one.events > 100_000)
            });
            child.kill().unwrap();
            child.wait().unwrap();
            std::fs::write(dir.join("go"), "").unwrap();
            until("the program is done", || dir.join("done").exists());
            let recorded = open(&path);
            assert!(!recorded.profile.meta.finished);
            let replayed = recorded.replay(Interval::ALL);
            assert!(replayed[0].events > 100_000);
            assert_eq!(replayed[0].agrees, None);
        },
    );
}

/// No room for the file any more: the program and its exit code stay, and so do the events that were
/// written.
#[test]
fn a_full_disk_ends_events_and_nothing_else() {
    let source = format!(
        "import sys\n{MIXED}\nsys.stdout.write('started'); sys.stdout.flush()\n\
         sys.stdin.readline()\n{MIXED}\n{MIXED}\nsys.stdout.write(' and done')\n"
    );
    each_of(
        |version| version >= (3, 11),
        |python| {
            let dir = Dir::new();
            let (mut command, path) = command(python, &dir, &source);
            let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let child = streams.stderr(Stdio::piped()).spawn().unwrap();
            until("events and a profile are in the file", || {
                path.exists() && open(&path).replay(Interval::ALL).iter().any(|p| p.events > 1000)
            });
            ends_without_room(child, 125);
            let recorded = open(&path);
            assert!(!recorded.profile.meta.finished && recorded.profile.doubts.is_empty());
            let replayed = recorded.replay(Interval::ALL);
            assert!(replayed[0].events > 1000 && replayed[0].agrees.is_none());
        },
    );
}

/// The place of a byte in the first block of events.
fn in_events(file: &[u8]) -> usize {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let mut at = 12;
    while word(at) != 4 {
        at += 16 + word(at + 4) as usize;
    }
    at + 16 + word(at + 4) as usize / 2
}

/// A block of events that was torn off, or that a bit of was flipped, is left out and said.
#[test]
fn a_damaged_file_is_shown_as_far_as_it_goes() {
    each_of(
        |version| version == (3, 11),
        |python| {
            let dir = Dir::new();
            let (mut command, path) = command(python, &dir, MIXED);
            run(&mut command, "").ok();
            let bytes = std::fs::read(&path).unwrap();
            let stats = |bytes: &[u8]| {
                std::fs::write(dir.join("cut.strand"), bytes).unwrap();
                let mut command = Command::new(env!("CARGO_BIN_EXE_strandline"));
                command.args(["stats", "--replay", "cut.strand"]).current_dir(dir.path());
                run(&mut command, "")
            };
            assert!(stats(&bytes).ok().stdout.contains("as counted without events"));
            let cut = stats(&bytes[..bytes.len() - 10]);
            assert!(cut.ok().stderr.contains("cut off"));
            let mut damaged = bytes.clone();
            damaged[in_events(&bytes)] ^= 4;
            let damaged = stats(&damaged).ok();
            assert!(damaged.stdout.contains("events are missing"), "{damaged:?}");
            let nothing = stats(&bytes[..20]);
            assert!(nothing.code == Some(125) && nothing.stderr.lines().count() == 1);
        },
    );
}

#[test]
fn a_part_of_a_run_has_what_was_allocated_in_it() {
    let source = r#"
import time
def old(): return [bytearray(1000) for _ in range(500)]
def new(): return [bytearray(2000) for _ in range(300)]
a = old()
time.sleep(1.5)
start = time.time()
b = new()
c = new()
del a, c
time.sleep(1.5)
d = old()
print(start)
"#;
    each_of(
        |version| version >= (3, 9),
        |python| {
            let dir = Dir::new();
            let (mut command, path) = command(python, &dir, source);
            let ran = run(&mut command, "");
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            let recorded = open(&path);
            let start: f64 = ran.stdout.trim().parse().unwrap();
            let began = start - recorded.profile.meta.started as f64 / 1e9;
            let part = recorded.part(Interval::seconds(Some(began - 0.7), Some(began + 0.7)));
            let p = &part.processes[0];
            let by = |function: &str, weight: Weight| {
                let paths = p.paths.iter().filter(|path| {
                    let mut node = path.node as usize;
                    let mut found = false;
                    while node != 0 {
                        let frame = p.frames[p.nodes[node].frame as usize];
                        found |= p.strings[frame.function as usize] == function;
                        node = p.nodes[node].parent as usize;
                    }
                    found
                });
                paths.map(|path| weight.of(path)).fold(Amount::default(), Amount::plus).bytes
            };
            assert_eq!(by("old", Weight::Allocated), 0);
            assert!((1_200_000..1_400_000).contains(&by("new", Weight::Allocated)));
            assert!((600_000..700_000).contains(&by("new", Weight::InUse)));
            assert!(by("new", Weight::Peak) >= 1_200_000);
            let whole = recorded.part(Interval::ALL);
            assert_eq!(whole.processes[0].totals, recorded.profile.processes[0].totals);
        },
    );
}
