//! Against what glibc says of itself, with a C program: equal, not close.
//!
//! `STRANDLINE_TEST_LIBCS=DIR:DIR` runs it with other versions, too: folders with a `libc.so.6`
//! and its loader (`ld-linux-x86-64.so.2`).

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{sparse, Waiting};
use strandline_malloc::{read, Malloc, State};

const MODES: [&str; 7] = ["", "mixed", "heaps", "foreign", "scattered", "remap", "plain"];

const TUNABLES: [&str; 6] = [
    "glibc.malloc.arena_max=1",
    "glibc.malloc.hugetlb=1",
    "glibc.malloc.mmap_threshold=5000",
    "glibc.malloc.tcache_max=4194304:glibc.malloc.mmap_threshold=2000",
    "glibc.malloc.tcache_count=100:glibc.malloc.trim_threshold=0",
    "glibc.malloc.mxfast=0:glibc.malloc.perturb=7",
];

/// Compiles the program; `None` if that can't be done here.
fn program(name: &str, flags: &[&str]) -> Option<PathBuf> {
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mixture.c");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-pthread", "-o"]).arg(&to).arg(from).args(flags);
    let made = cc.status().is_ok_and(|status| status.success());
    assert!(made || std::env::var_os("CI").is_none(), "{name} can't be compiled: no cc?");
    if !made {
        eprintln!("not run: no cc, or no mallinfo2, for {name}");
    }
    made.then_some(to)
}

/// Runs `command` and compares.
fn check(command: &mut Command, mode: &str) -> Malloc {
    let waiting = Waiting::start(command.arg(mode));
    let image = waiting.image();
    let malloc = read(&image);
    let words = waiting.words();
    let totals = malloc.totals();
    assert_eq!(read(&sparse(&image)).totals(), totals, "{command:?} without zero pages");
    assert_eq!(malloc.doubts, [], "{command:?}");
    // From 2.43 on, each of four mremaps has counted 16 bytes too much, see `Totals::hblkhd`.
    let drift = if mode == "remap" && malloc.arenas[0].versions == "2.43" { 64 } else { 0 };
    let found = [
        totals.arena,
        totals.hblks,
        totals.hblkhd + drift,
        totals.fsmblks,
        totals.uordblks,
        totals.fordblks,
    ];
    let truth = [words[0], words[3], words[4], words[6], words[7], words[8]];
    assert_eq!(found, truth, "{command:?}: arena, hblks, hblkhd, fsmblks, uordblks, fordblks");
    // ordblks is the number of tops and chunks in bins, smblks of those in fast bins.
    let bins = [State::Top, State::SmallBin, State::LargeBin, State::Unsorted];
    let chunks: u64 = bins.map(|state| totals.of(state).chunks).iter().sum();
    assert_eq!([chunks, totals.of(State::Fast).chunks], [words[1], words[2]], "{command:?}");
    for told in words[10..].chunks_exact(3) {
        let chunk = malloc.chunk_at(told[0]).expect("known pointer is in a chunk");
        let wanted = match told[2] as u8 {
            b't' => State::Tcache,
            b'm' => State::Mmapped,
            // Another thread that shares the arena may have it by now.
            b'f' => continue,
            _ => State::InUse,
        };
        assert_eq!(chunk.state(), wanted, "{chunk:?} {command:?}");
        assert_eq!((chunk.user(), chunk.usable()), (told[0], told[1]), "{chunk:?}");
        for at in [chunk.start(), told[0] + told[1] / 2, chunk.end() - 1] {
            assert_eq!(malloc.chunk_at(at), Some(chunk));
        }
    }
    // The lists were followed; the key, which every chunk in them has, must say the same.
    for chunk in malloc.chunks().filter(|chunk| chunk.size() >= 32) {
        let used = matches!(chunk.state(), State::InUse | State::Tcache);
        let key = used && malloc.tcache_key == image.word(chunk.user() + 8);
        assert_eq!(key, chunk.state() == State::Tcache, "{chunk:?} {command:?}");
    }
    let params = malloc.thresholds.expect("mp_ is found");
    assert_eq!((params.n_mmaps, params.mmapped_mem), (words[3], words[4]));
    malloc
}

#[test]
fn all_numbers_equal_mallinfo2() {
    let Some(program) = program("mixture", &[]) else { return };
    for mode in MODES {
        let malloc = check(&mut Command::new(&program), mode);
        if mode == "mixed" {
            assert!(malloc.arenas.len() > 4);
            assert!(malloc.tcaches.len() > 4);
        }
        if mode == "heaps" {
            assert!(malloc.heaps.len() > malloc.arenas.len());
            assert!(!malloc.thresholds.unwrap().dynamic);
        }
        assert_eq!(mode == "foreign", malloc.arenas[0].foreign_bytes > 0);
    }
}

#[test]
fn numbers_equal_in_a_static_program() {
    let Some(program) = program("mixture-static", &["-static"]) else { return };
    for mode in MODES {
        check(&mut Command::new(&program), mode);
    }
}

#[test]
fn numbers_equal_with_other_glibcs() {
    let Ok(libcs) = std::env::var("STRANDLINE_TEST_LIBCS") else { return };
    let Some(program) = program("mixture-others", &[]) else { return };
    for dir in std::env::split_paths(&libcs) {
        for mode in MODES {
            let mut command = Command::new(dir.join("ld-linux-x86-64.so.2"));
            command.arg("--library-path").arg(&dir).arg(&program);
            check(&mut command, mode);
        }
        for tunables in TUNABLES {
            let mut command = Command::new(dir.join("ld-linux-x86-64.so.2"));
            command.env("GLIBC_TUNABLES", tunables);
            command.arg("--library-path").arg(&dir).arg(&program);
            check(&mut command, "mixed");
        }
    }
}

#[test]
fn numbers_equal_under_tunables() {
    let Some(program) = program("mixture-tunables", &[]) else { return };
    for tunables in TUNABLES {
        check(Command::new(&program).env("GLIBC_TUNABLES", tunables), "mixed");
    }
}
