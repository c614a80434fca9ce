//! Written and read again; and whatever a damaged file may hold.

use proptest::prelude::*;
use strandline_profile::*;

fn sample() -> Profile {
    let mut builder = Builder::new();
    let inner = builder.python_path([("<module>", "app.py", 3), ("load", "app.py", 7)]);
    let other = builder.python_path([("<module>", "app.py", 4)]);
    let process = builder.process();
    process.pid = 42;
    process.python = (3, 13, 0);
    process.threads.push(Thread { name: "MainThread".into(), tid: 42, allocations: 9 });
    for (node, domain, bytes) in [(inner, Domain::Object, 5000), (other, Domain::Malloc, 77)] {
        process.paths.push(Path {
            node,
            thread: 1,
            domain,
            allocated: Amount { bytes, blocks: 3 },
            freed: Amount { bytes: bytes / 2, blocks: 1 },
            at_peak: Amount { bytes, blocks: 3 },
            sizes: vec![0, 3],
            lifetimes: vec![1],
            ..Path::default()
        });
    }
    process.totals = Totals { in_use: 2539, peak: 5077, ..Totals::default() };
    process.timeline.points.push(Point {
        time: 5,
        in_use: 10,
        top: vec![(1, 7)],
        ..Point::default()
    });
    let mut profile = Profile::default();
    profile.meta.command = vec!["python".into(), "app.py".into()];
    profile.processes = vec![builder.finish()];
    let in_use = Amount { bytes: 64, blocks: 2 };
    profile.types = vec![Types { pid: 42, rows: vec![TypeRow { name: "dict".into(), in_use }] }];
    profile
}

fn bytes(profile: &Profile) -> Vec<u8> {
    let mut out = Vec::new();
    write(profile, &mut out).unwrap();
    out
}

#[test]
fn what_is_written_is_read() {
    let profile = sample();
    let file = bytes(&profile);
    assert!(is_profile(&file));
    assert_eq!(read(&mut file.as_slice()).unwrap(), profile);
}

#[test]
fn another_file_or_version_is_said_so() {
    assert!(matches!(read(&mut &b"#!/bin/sh\n"[..]), Err(FileError::NotAProfile)));
    assert!(matches!(read(&mut &b""[..]), Err(FileError::NotAProfile)));
    let mut file = bytes(&sample());
    file[8] = 77;
    assert!(matches!(read(&mut file.as_slice()), Err(FileError::Version(77))));
}

#[test]
fn what_refers_to_nothing_is_left_out_with_a_doubt() {
    let mut profile = sample();
    profile.processes[0].paths[0].node = 1 << 20;
    profile.processes[0].nodes[1].parent = 9;
    profile.processes[0].timeline.points[0].top.push((99, 1));
    let read = read(&mut bytes(&profile).as_slice()).unwrap();
    assert_eq!(read.doubts.len(), 1);
    assert_eq!(read.processes[0].paths[0].node, 0);
    assert_eq!(read.processes[0].nodes[1].parent, 0);
    assert_eq!(read.processes[0].timeline.points[0].top, [(1, 7)]);
}

/// A shorter profile that says so, or an error.
fn is_sane(file: &[u8], whole: &Profile) {
    if let Ok(read) = read(&mut &file[..]) {
        if &read != whole {
            assert!(!read.doubts.is_empty());
        }
        for process in &read.processes {
            for path in &process.paths {
                let mut node = path.node as usize;
                while node != 0 {
                    let frame = process.frames[process.nodes[node].frame as usize];
                    let _ = &process.strings[frame.function as usize];
                    let parent = process.nodes[node].parent as usize;
                    assert!(parent < node);
                    node = parent;
                }
            }
        }
    }
}

#[test]
fn every_truncation_is_an_error_or_shorter_and_marked() {
    let profile = sample();
    let file = bytes(&profile);
    for len in 0..file.len() {
        is_sane(&file[..len], &profile);
    }
}

proptest! {
    #[test]
    fn flipped_bits_are_seen(flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..4)) {
        let profile = sample();
        let mut file = bytes(&profile);
        for (at, bit) in flips {
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
        }
        is_sane(&file, &profile);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut file = MAGIC.to_vec();
        file.extend(VERSION.to_le_bytes());
        file.extend(tail);
        is_sane(&file, &Profile::default());
    }
}
