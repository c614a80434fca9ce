//! Inside real interpreters: the witness is called from Python code of many kinds, and by a
//! timer from anywhere, and compares with libgcc's unwinder.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

fn interpreters() -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from("/usr/bin/python3")];
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    if let Ok(versions) = std::fs::read_dir(home.join(".pyenv/versions")) {
        all.extend(versions.flatten().map(|v| v.path().join("bin/python")));
    }
    all.retain(|p| p.exists());
    all.sort();
    all
}

/// Builds the witness, as `cargo test --test cpython` doesn't.
fn witness() -> PathBuf {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let status = Command::new(env!("CARGO"))
        .args(["build", "-q", "-p", "strandline-unwind", "--example", "witness"])
        .args(["--profile", profile])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.expect("cargo").success());
    let exe = std::env::current_exe().expect("a path");
    exe.ancestors().nth(2).expect("target's directory").join("examples/libwitness.so")
}

/// Runs the work; the figures it prints: version, chains by calls, chains, frames, wrong, lost.
fn run(python: &Path, witness: &Path, without: bool, extra: &[PathBuf]) -> (String, [u64; 5]) {
    let output = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native/work.py"))
        .arg(witness)
        .arg(if without { "1" } else { "0" })
        .args(extra)
        // Loaded at the start, so that its thread-local data is there with each thread: made at
        // first use it would take malloc's lock, in a signal handler that may have come in malloc.
        .env("LD_PRELOAD", witness)
        .output()
        .expect("an interpreter");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{errors}", python.display());
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |i: usize| words[i].parse().expect("a number");
    println!("{} {text}{errors}", python.display());
    (words[0].to_string(), [number(1), number(3), number(5), number(7), number(9)])
}

#[test]
fn every_interpreter() {
    let dir = common::directory("cpython");
    let extra: Vec<PathBuf> = ["-O0", "-O2"]
        .iter()
        .map(|flag| {
            let library = dir.join(format!("libother{flag}.so"));
            common::compile("cc", &[flag], &["other.c"], &library, &[]);
            library
        })
        .collect();
    let witness = witness();
    for python in interpreters() {
        for without in [false, true] {
            let (version, [called, chains, frames, wrong, lost]) =
                run(&python, &witness, without, &extra);
            assert!(called >= 400 && frames > called * 5, "{version}");
            assert_eq!((wrong, lost), (0, 0), "{version}: of {chains}");
        }
    }
}
