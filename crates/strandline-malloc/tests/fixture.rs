//! mallocs made by hand: every version, and what becomes of them when words are overwritten.

#[path = "common/glibc.rs"]
mod glibc;

use glibc::{image, main_heap, memory, Version, DATA, HEAP, KEY, MMAPPED, THREAD, VERSIONS};
use proptest::prelude::*;
use strandline_image::Image;
use strandline_malloc::{read, read_with, Doubt, Malloc, State, What};

fn letter(state: State) -> char {
    match state {
        State::InUse => 'u',
        State::Tcache => 't',
        State::Fast => 'f',
        State::SmallBin => 's',
        State::LargeBin => 'l',
        State::Unsorted => '*',
        State::Top => 'T',
        State::Mmapped => 'm',
        State::Fencepost => '|',
    }
}

fn states(malloc: &Malloc, start: u64) -> Vec<(u64, char)> {
    let heap = malloc.heaps.iter().find(|heap| heap.start == start).expect("a heap");
    heap.chunks().map(|chunk| (chunk.size(), letter(chunk.state()))).collect()
}

#[test]
fn every_version_is_read() {
    for v in VERSIONS {
        let malloc = read(&image(&memory(&v)));
        assert_eq!(malloc.doubts, [], "{}: {malloc:?}", v.name);
        assert_eq!(malloc.arenas.len(), 2, "{v:?}");
        assert_eq!(states(&malloc, HEAP), main_heap(&v), "{v:?}");
        let thread = &states(&malloc, THREAD);
        assert_eq!((thread[0], thread[1].1, thread.len()), ((0x40, 'u'), 'T', 2), "{v:?}");
        let mapped: Vec<_> = malloc.mmapped.iter().map(|m| (m.base, m.chunk.start())).collect();
        let second = MMAPPED + 0x3000;
        assert_eq!(mapped, [(MMAPPED, MMAPPED), (second, second + 48)], "{v:?}");
        let params = malloc.thresholds.expect("mp_");
        assert_eq!((params.n_mmaps, params.mmapped_mem, params.sbrk_base), (2, 0x7000, HEAP));
        assert_eq!(malloc.tcaches.len(), usize::from(v.tcache.is_some()), "{v:?}");
        assert_eq!(malloc.tcache_key, (v.key == KEY).then_some(KEY), "{v:?}");
        let totals = malloc.totals();
        assert_eq!((totals.arena, totals.uordblks + totals.fordblks), (0x42000, 0x42000));
        assert_eq!(totals.fsmblks, if v.fast.is_some() { 0x40 } else { 0 });
        assert_eq!(totals.hblkhd, 0x7000);
    }
}

fn set(memory: &mut glibc::Memory, address: u64, value: u64) {
    let part = memory.iter_mut().find(|part| (part.0..part.0 + 0x21000).contains(&address));
    let (start, words) = part.expect("an address of the fixture");
    words[((address - *start) / 8) as usize] = value;
}

#[test]
fn memory_that_looks_mmapped_is_told_by_the_sums_and_by_the_caller() {
    let mut memory = memory(&VERSIONS[1]);
    set(&mut memory, MMAPPED + 0x10008, 0x5000 | 2);
    let malloc = read(&image(&memory));
    assert_eq!((malloc.mmapped.len(), malloc.doubts), (2, vec![]));
    set(&mut memory, MMAPPED + 0x18008, 0x2000 | 2);
    let malloc = read(&image(&memory));
    assert_eq!(malloc.mmapped.len(), 4);
    assert_eq!(malloc.doubts[0].what, What::MmappedDiffer);
    let malloc = read_with(&image(&memory), &[(MMAPPED + 0x10000, MMAPPED + 0x1c000)]);
    assert_eq!((malloc.mmapped.len(), malloc.doubts), (2, vec![]));
}

#[test]
fn behind_a_broken_chunk_the_walk_goes_on() {
    let v: Version = VERSIONS[1];
    let mut memory = memory(&v);
    let list = main_heap(&v);
    let broken = HEAP + list[..5].iter().map(|c| c.0).sum::<u64>();
    set(&mut memory, broken + 8, 0x4141_4141_4141_4141);
    let malloc = read(&image(&memory));
    assert!(malloc.doubts.contains(&Doubt { what: What::ChunkBroken, address: broken }));
    assert_eq!(states(&malloc, HEAP).len(), 5);
    assert_eq!(states(&malloc, broken + 0x20).last().map(|c| c.1), Some('T'));
    assert_eq!(malloc.arenas[0].foreign_bytes, 0x20);
}

#[test]
fn a_locked_arena_is_said() {
    let mut memory = memory(&VERSIONS[1]);
    set(&mut memory, THREAD + 48, 1);
    let malloc = read(&image(&memory));
    assert_eq!(malloc.doubts, [Doubt { what: What::Locked, address: THREAD + 48 }]);
}

#[test]
fn without_glibc_there_is_nothing() {
    let malloc = read(&Image::fixture(vec![(HEAP, vec![0; 0x4000])]));
    assert!(malloc.arenas.is_empty() && malloc.heaps.is_empty() && malloc.doubts.is_empty());
    assert_eq!(malloc.totals(), Malloc::default().totals());
}

/// What must hold of every result.
fn check(malloc: &Malloc) {
    let mut end = 0;
    for heap in &malloc.heaps {
        assert!(end <= heap.start && heap.start < heap.end && heap.arena < malloc.arenas.len());
        end = heap.start + heap.head_bytes;
        for chunk in heap.chunks() {
            assert_eq!(chunk.start(), end);
            assert!(chunk.size() >= 16);
            assert_eq!(malloc.chunk_at(chunk.start()), Some(chunk));
            assert_eq!(malloc.chunk_at(chunk.end() - 1), Some(chunk));
            end = chunk.end();
        }
        assert_eq!(end, heap.end);
    }
    let mut end = 0;
    for m in &malloc.mmapped {
        assert!(end <= m.base && m.base <= m.chunk.start());
        assert_eq!(malloc.chunk_at(m.chunk.user()), Some(m.chunk));
        end = m.chunk.end();
    }
    malloc.totals();
}

/// A word as malloc has them: an address in the fixture, a size with flags, anything.
fn word() -> impl Strategy<Value = u64> {
    let near = (0u64..0x21000).prop_map(|offset| offset & !7);
    prop_oneof![
        (prop::sample::select(vec![DATA, HEAP, THREAD, MMAPPED]), near).prop_map(|(a, b)| a + b),
        (0u64..0x22000).prop_map(|size| size & !8),
        any::<u64>(),
        any::<u64>().prop_map(|word| word | 0xffff_ffff_0000_0000),
        Just(0),
        Just(1),
        Just(17),
    ]
}

/// Where: any word, or one of those that malloc looks at.
fn place() -> impl Strategy<Value = u64> {
    let parts = vec![DATA + 0x800, DATA + 0x1000, HEAP, THREAD, MMAPPED, MMAPPED + 0x3000];
    prop_oneof![
        (prop::sample::select(parts.clone()), 0u64..0x21000 - 0x3000),
        (prop::sample::select(parts), 0u64..0x900),
    ]
    .prop_map(|(part, offset)| part + (offset & !7))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn overwritten_words_never_panic(
        version in prop::sample::select(VERSIONS.to_vec()),
        words in prop::collection::vec((place(), word()), 1..60),
    ) {
        let mut memory = memory(&version);
        for (address, value) in words {
            set(&mut memory, address, value);
        }
        check(&read(&image(&memory)));
    }

    #[test]
    fn torn_pieces_never_panic(cut in 0usize..0x4200, part in 0usize..4) {
        let mut memory = memory(&VERSIONS[1]);
        memory[part].1.truncate(cut.max(1));
        check(&read(&image(&memory)));
    }
}

proptest! {
    // Making the memory takes longer than reading it.
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 64,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_memory_never_panics(parts in prop::collection::vec(
        (prop::sample::select(vec![DATA, HEAP, THREAD, u64::MAX - 0x3fff]),
         prop::collection::vec(word(), 512..1024)), 1..4,
    )) {
        let mut parts = parts;
        parts.sort_by_key(|part| part.0);
        parts.dedup_by_key(|part| part.0);
        check(&read(&image(&parts)));
    }
}
