//! Against what glibc says of itself inside of real interpreters: equal, not close.

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use common::Waiting;
use strandline_malloc::read;

/// Those of pyenv, and what PATH has.
fn interpreters() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    for version in std::fs::read_dir(home.join(".pyenv/versions")).into_iter().flatten().flatten() {
        found.insert(version.path().join("bin/python"));
    }
    for dir in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        // A shim would start another process.
        found.insert(dir.join("python3"));
    }
    found.retain(|path| path.is_file() && !path.to_string_lossy().contains("shims"));
    found
}

#[test]
fn all_numbers_equal_mallinfo2() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mixture.py");
    for python in interpreters() {
        let has = Command::new(&python)
            .args(["-c", "import ctypes; ctypes.CDLL(None).mallinfo2"])
            .stderr(std::process::Stdio::null())
            .status();
        if !has.is_ok_and(|status| status.success()) {
            eprintln!("not run: {} has no mallinfo2", python.display());
            continue;
        }
        let waiting = Waiting::start(Command::new(&python).arg(script));
        let started = std::time::Instant::now();
        let image = waiting.image();
        let copied = started.elapsed();
        let malloc = read(&image);
        let read = started.elapsed() - copied;
        let words = waiting.words();
        let totals = malloc.totals();
        let found = [
            totals.arena,
            totals.hblks,
            totals.hblkhd,
            totals.fsmblks,
            totals.uordblks,
            totals.fordblks,
        ];
        let truth = [words[0], words[3], words[4], words[6], words[7], words[8]];
        eprintln!("{}: {found:?}, copied in {copied:?}, read in {read:?}", python.display());
        assert_eq!(malloc.doubts, [], "{}", python.display());
        assert_eq!(found, truth, "{}", python.display());
        assert!(malloc.thresholds.is_some(), "{}", python.display());
    }
}

/// Captures are torn while the program runs; what is found must still be in order.
#[test]
fn a_running_program_is_no_danger() {
    let program = "import os, random, struct
os.write(1, struct.pack('<Q', 0))
kept = [None] * 1000
while True:
    kept[random.randrange(1000)] = bytearray(random.randrange(3000))
    kept[random.randrange(1000)] = list(range(random.randrange(30000)))
";
    let Some(python) = interpreters().pop_last() else { return };
    let waiting = Waiting::start(Command::new(python).args(["-c", program]));
    for _ in 0..20 {
        let malloc = read(&waiting.image());
        let bytes: u64 = malloc.heaps.iter().map(|heap| heap.end - heap.start).sum();
        assert_eq!(bytes + malloc.totals().foreign, malloc.totals().arena);
        assert!(malloc.doubts.len() < 1000, "{}", malloc.doubts.len());
    }
}
