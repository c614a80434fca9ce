//! Any `.strand` file: opening it, replaying its events, taking a part of it and writing it again
//! must return, and must not panic.
//!
//! The fuzzer chooses the blocks; what it can't guess (compression, check sums) is put around them
//! here. If its first bit is set it chooses all bytes behind the version itself.
#![no_main]

use std::fs::File;
use std::io::{Seek, Write};

use libfuzzer_sys::fuzz_target;
use strandline_profile::events::{put_block, BlockHead, Interval, Recorded, Tags, HEAD_BYTES};
use strandline_profile::{write, write_again, Builder, Path, Profile, MAGIC, VERSION};

const EVENTS: u32 = 4;

/// A profile of one process with a few paths, for events to belong to.
fn usual(bytes: &mut Vec<u8>) {
    let mut builder = Builder::new();
    let node = builder.python_path([("<module>", "app.py", 1), ("f", "app.py", 2)]);
    builder.process().paths = vec![Path { node, ..Path::default() }; 3];
    let mut profile = Profile::default();
    profile.processes = vec![builder.finish()];
    profile.meta.finished = true;
    let tags = Tags { region: 0, paths: vec![0, 1, 2, u32::MAX, 9], ..Tags::default() };
    write_again(&profile, &[tags], bytes).unwrap();
}

/// A block of any other kind.
fn put(kind: u32, raw: &[u8], bytes: &mut Vec<u8>) {
    let packed = zstd::bulk::compress(raw, 1).unwrap();
    let words = [kind, packed.len() as u32, raw.len() as u32];
    let mut sum = crc32fast::Hasher::new();
    for word in words {
        sum.update(&word.to_le_bytes());
        bytes.extend(word.to_le_bytes());
    }
    sum.update(&packed);
    bytes.extend(sum.finalize().to_le_bytes());
    bytes.extend(packed);
}

/// A file of the blocks that the fuzzer chose: kind, length (2 bytes), bytes.
fn file(data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    let Some((how, mut rest)) = data.split_first() else { return bytes };
    if how & 1 != 0 {
        bytes.extend(rest);
        return bytes;
    }
    if how & 2 != 0 {
        usual(&mut bytes);
    }
    while let [kind, low, high, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (raw, behind) = more.split_at(length);
        rest = behind;
        let kind = u32::from(kind % 7);
        match raw.split_first_chunk::<HEAD_BYTES>() {
            Some((head, raw)) if kind == EVENTS => {
                let packed = zstd::bulk::compress(raw, 1).unwrap();
                let block = (BlockHead::from_bytes(head), packed, raw.len());
                put_block(&block, &mut bytes).unwrap();
            }
            _ => put(kind, raw, &mut bytes),
        }
    }
    if how & 4 != 0 {
        usual(&mut bytes);
    }
    bytes
}

/// Without a name, and without a disk where there is one in memory.
fn unnamed(bytes: &[u8]) -> File {
    let place = std::path::Path::new("/dev/shm");
    let made = if place.is_dir() { tempfile::tempfile_in(place) } else { tempfile::tempfile() };
    let mut file = made.unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fuzz_target!(|data: &[u8]| {
    let bytes = file(data);
    let read = strandline_profile::read(&mut bytes.as_slice());
    let Ok(recorded) = Recorded::open(unnamed(&bytes)) else { return };
    let profile = &recorded.profile;
    assert!(read.is_ok_and(|read| &read == profile) || !profile.doubts.is_empty());
    let _ = recorded.replay(Interval::ALL);
    let part = recorded.part(Interval::seconds(Some(0.002), Some(0.01)));
    let mut again = Vec::new();
    recorded.write(&part, &mut again).unwrap();
    write(&part, &mut again).unwrap();
    Recorded::open(unnamed(&again)).unwrap();
});
