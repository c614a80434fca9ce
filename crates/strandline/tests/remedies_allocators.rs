//! `strandline remedies` with mimalloc, Python's own and an installed one; and what it says on a
//! terminal while it runs.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use common::*;

/// Leaves a file for each allocator that it runs with.
const WHICH: &str = "
import os
if 'libmimalloc' in open('/proc/self/maps').read():
    open('preloaded', 'w').close()
try:
    try:
        from _testinternalcapi import pymem_getallocatorsname
    except ImportError:
        from _testcapi import pymem_getallocatorsname
    open('python-' + (pymem_getallocatorsname() or 'unknown'), 'w').close()
except ImportError:
    pass
x = [bytearray(b'x') * 1000 for _ in range(20000)]
";

fn command(job: &Job, options: &[&str]) -> Command {
    let mut command = job.ready(Path::new(STRANDLINE));
    command.arg("remedies").args(options).arg("--python").arg(&job.python.path).arg("prog.py");
    command
}

/// The remedies that were tried, and the reasons why others weren't.
fn tried(python: &Python, names: &str) -> (Job, Vec<Value>, String) {
    let job = Job::script(python, WHICH);
    let options = ["--json", "-o", "report.json", "--only", names];
    run(&mut command(&job, &options), "").ok();
    let text = std::fs::read_to_string(job.dir.join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    let reasons = report["not_tried"].as_array().unwrap().iter();
    let reasons: Vec<_> = reasons.map(|r| r["reason"].as_str().unwrap()).collect();
    let reasons = reasons.join("\n");
    (job, report["remedies"].as_array().unwrap().clone(), reasons)
}

#[test]
fn the_mimalloc_that_python_carries() {
    let some = |version| [(2, 7), (3, 11), (3, 13)].contains(&version);
    one_of_each(some, |python| {
        let (job, remedies, reasons) = tried(python, "mimalloc-python");
        let is_there = job.dir.join("python-mimalloc").exists();
        match python.version {
            (3, 13) => {
                assert_eq!((remedies.len(), reasons.as_str()), (1, ""));
                assert_eq!(remedies[0]["error"], Value::Null, "{:#}", remedies[0]);
                assert_eq!(
                    remedies[0]["line"].as_str().unwrap().split(' ').next(),
                    Some("PYTHONMALLOC=mimalloc")
                );
                assert!(is_there, "mimalloc was not in force");
                // The program as it is ran with its own.
                assert!(job.dir.join("python-pymalloc").exists());
            }
            (3, _) => {
                assert!(reasons.contains("PYTHONMALLOC=mimalloc needs Python 3.13"), "{reasons}")
            }
            _ => assert!(reasons.contains("PYTHONMALLOC needs Python 3.6"), "{reasons}"),
        }
        assert_eq!(is_there, python.version == (3, 13));
    });
}

#[test]
fn a_mimalloc_that_is_installed() {
    let some = |version| [(2, 7), (3, 11), (3, 13)].contains(&version);
    one_of_each(some, |python| {
        let (job, remedies, reasons) = tried(python, "mimalloc");
        let is_there = job.dir.join("preloaded").exists();
        if remedies.is_empty() {
            assert!(reasons.contains("no libmimalloc.so is installed"), "{reasons}");
            assert!(!is_there);
            return;
        }
        assert_eq!((remedies[0]["error"].clone(), reasons.as_str()), (Value::Null, ""));
        let line = remedies[0]["line"].as_str().unwrap();
        let path = line.strip_prefix("LD_PRELOAD=").and_then(|rest| rest.split(' ').next());
        let path = path.unwrap_or_else(|| panic!("{line}"));
        assert!(path.contains("libmimalloc") && Path::new(path).exists(), "{line}");
        assert!(is_there, "{line} was not in force");
    });
}

/// Both ends of a new terminal: ours and the program's.
fn terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: openpty(3) writes two descriptors; name, settings and size may be null.
    let done = unsafe { libc::openpty(&mut ours, &mut theirs, none, none.cast(), none.cast()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both are open, and nobody else's.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

#[test]
fn progress_on_a_terminal_only() {
    let some = |version| version == (3, 11);
    one_of_each(some, |python| {
        // Long enough that something is said.
        let job = Job::script(python, "import time\ntime.sleep(2.5)\n");
        let options = ["--only", "collect", "-o", "report"];
        let (mut ours, theirs) = terminal();
        let mut command_line = command(&job, &options);
        command_line.stdin(Stdio::null()).stdout(Stdio::null()).stderr(theirs);
        let mut child = command_line.spawn().unwrap();
        // The command holds the program's end; when it is dropped the last reader gets EIO.
        drop(command_line);
        let mut said = Vec::new();
        let mut some = [0; 4096];
        while let Ok(n @ 1..) = ours.read(&mut some) {
            said.extend_from_slice(&some[..n]);
        }
        assert!(child.wait().unwrap().success());
        let said = String::from_utf8_lossy(&said).into_owned();
        // The first run writes to the terminal itself: nothing is put in between.
        assert!(said.starts_with("\rrun 2 of 2: collect: "), "{said:?}");
        assert!(said.ends_with("\r\x1b[K"), "it stays on the screen: {said:?}");
        // Not a terminal: nothing at all.
        std::fs::remove_file(job.dir.join("report")).unwrap();
        let ran = run(&mut command(&job, &options), "").ok();
        assert_eq!(ran.stderr, "");
    });
}
