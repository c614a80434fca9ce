//! Events packed, unpacked and replayed; and whatever a damaged file may hold.

use std::fs::File;
use std::io::{Seek, Write};

use proptest::prelude::*;
use strandline_profile::events::*;
use strandline_profile::*;

/// What a block held, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Mark(u32),
    Births(u32),
    Event(u64, u32),
}

#[derive(Default)]
struct List(Vec<Told>);

impl Handler for List {
    fn mark(&mut self, slice: u32) {
        self.0.push(Told::Mark(slice));
    }

    fn births(&mut self, slice: u32) {
        self.0.push(Told::Births(slice));
    }

    fn event(&mut self, word: u64, birth: u32) {
        self.0.push(Told::Event(word, birth));
    }
}

fn unpack((head, packed, raw_len): &(BlockHead, Vec<u8>, usize)) -> Vec<Told> {
    let raw = zstd::bulk::decompress(packed, *raw_len).unwrap();
    assert_eq!(raw.len(), *raw_len);
    let mut list = List::default();
    decode(&BlockHead::from_bytes(&head.to_bytes()), &raw, &mut list).unwrap();
    list.0
}

/// Few tags and sizes come again and again, some are rare.
fn events() -> impl Strategy<Value = Vec<(u64, u32, bool)>> {
    let tag = prop_oneof![4 => 0..4u32, 1 => 0..1u32 << 20];
    let size = prop_oneof![4 => 0..3u64, 1 => 0..1u64 << 42];
    let birth = prop_oneof![3 => 5..9u32, 1 => any::<u32>()];
    let one = (0..3u64, tag, size, birth, prop::bool::weighted(0.1));
    let one = one.prop_map(|(kind, tag, size, birth, mark)| {
        (word(kind, tag, size), if kind == FREED_OLD { birth } else { 0 }, mark)
    });
    prop::collection::vec(one, 1..600)
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(events in events(), cut in any::<prop::sample::Index>()) {
        let mut encoder = Encoder::new(3);
        let cut = cut.index(events.len());
        let (mut slice, mut wanted, mut blocks) = (0, vec![], vec![]);
        for (i, &(word, birth, mark)) in events.iter().enumerate() {
            if i == cut && i > 0 {
                blocks.push(encoder.finish(1).unwrap());
            }
            if mark {
                slice += 1 + i as u32 % 3;
                encoder.mark(slice);
                encoder.births(slice);
            }
            encoder.extend([(word, birth)]);
            wanted.push((slice, Told::Event(word, birth)));
        }
        blocks.push(encoder.finish(1).unwrap());
        let (mut slice, mut births, mut found) = (0, 0, vec![]);
        for block in &blocks {
            prop_assert_eq!(block.0.first, found.len() as u64);
            for told in unpack(block) {
                match told {
                    Told::Mark(to) => slice = to,
                    Told::Births(to) => births = to,
                    event => {
                        prop_assert_eq!(slice, births);
                        found.push((slice, event));
                    }
                }
            }
        }
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn any_bytes_come_to_an_end(
        count in prop_oneof![0..1000u32, any::<u32>()],
        lengths in prop::collection::vec(0..40u8, 5),
        raw in prop::collection::vec(any::<u8>(), 0..300),
        slice in any::<u32>(),
    ) {
        let head = BlockHead { count, slice, births: slice, ..BlockHead::default() };
        let mut list = List::default();
        let _ = decode(&head, &raw, &mut list);
        let mut list = List::default();
        let _ = decode(&head, &[lengths, raw].concat(), &mut list);
        let events = list.0.iter().filter(|told| matches!(told, Told::Event(..))).count();
        prop_assert!(events <= MOST_EVENTS as usize && events <= count as usize);
    }

    #[test]
    fn flipped_bits_are_seen(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..4),
    ) {
        let mut bytes = sample();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        is_sane(&bytes);
    }
}

const PATHS: usize = 7;
const REGION: u32 = 2;

/// A file with events in some blocks, a profile from the middle of the run and one from its end,
/// which says what the events add up to.
fn sample() -> Vec<u8> {
    let mut builder = Builder::new();
    let nodes: Vec<u32> = (0..PATHS as u32)
        .map(|line| builder.python_path([("<module>", "app.py", 1), ("f", "app.py", 2 + line)]))
        .collect();
    let process = builder.process();
    process.pid = 42;
    process.paths = nodes.iter().map(|&node| Path { node, ..Path::default() }).collect();
    let mut profile = Profile::default();
    let mut bytes = Vec::new();
    write(&profile, &mut bytes).unwrap();
    profile.processes = vec![builder.finish()];
    let map: Vec<u32> = [u32::MAX; 4].into_iter().chain(0..PATHS as u32).collect();
    let mut tags = vec![Tags {
        region: REGION,
        paths: map,
        told: strandline_profile::events::Told::default(),
    }];
    let mut encoder = Encoder::new(REGION);
    let (mut random, mut alive, mut births) = (1u64, Vec::new(), 0);
    let mut live = [Amount::default(); PATHS];
    for at in 0..20_000u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        if at % 500 == 0 {
            births = at / 500 + 1;
            encoder.mark(births);
            encoder.births(births);
        }
        let paths = &mut profile.processes[0].paths;
        let grows = if at < 12_000 { 10 } else { 6 };
        if random >> 60 < grows || alive.is_empty() {
            let (path, bytes) = ((random >> 40) as usize % PATHS, random >> 33 & 0x3f);
            let amount = Amount { bytes, blocks: 1 };
            encoder.extend([(word(ALLOCATED, path as u32 + 4, bytes), 0)]);
            alive.push((path, bytes, births));
            paths[path].allocated = paths[path].allocated.plus(amount);
            profile.processes[0].threads[0].allocations += 1;
            live[path] = live[path].plus(amount);
        } else {
            let (path, bytes, born) = alive.swap_remove(random as usize % alive.len());
            let kind = if born == births { FREED } else { FREED_OLD };
            let birth = if born == births { 0 } else { born };
            encoder.extend([(word(kind, path as u32 + 4, bytes), birth)]);
            let amount = Amount { bytes, blocks: 1 };
            paths[path].freed = paths[path].freed.plus(amount);
            live[path] = live[path].minus(amount);
        }
        let in_use = live.iter().map(|live| live.bytes).sum();
        let process = &mut profile.processes[0];
        process.totals.in_use = in_use;
        if in_use > process.totals.peak {
            process.totals.peak = in_use;
            for (path, live) in process.paths.iter_mut().zip(live) {
                path.at_peak = live;
            }
        }
        if at % 3000 == 2999 {
            put_block(&encoder.finish(0).unwrap(), &mut bytes).unwrap();
        }
        if at == 10_000 {
            write_again(&profile, &tags, &mut bytes).unwrap();
        }
    }
    put_block(&encoder.finish(0).unwrap(), &mut bytes).unwrap();
    profile.meta.finished = true;
    tags[0].told.count = 20_000;
    write_again(&profile, &tags, &mut bytes).unwrap();
    bytes
}

fn open(bytes: &[u8]) -> Result<Recorded, FileError> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    Recorded::open(file)
}

/// An error; or a profile that says that it isn't all, or that the run isn't over; or all of it.
fn is_sane(bytes: &[u8]) {
    let Ok(recorded) = open(bytes) else { return };
    for replayed in recorded.replay(Interval::ALL) {
        let marked = replayed.missing.is_some()
            || !recorded.profile.doubts.is_empty()
            || !recorded.profile.meta.finished;
        assert!(marked || replayed.agrees == Some(true), "{replayed:?}");
    }
    let _ = recorded.part(Interval::seconds(Some(0.004), Some(0.02)));
}

#[test]
fn events_say_what_was_counted() {
    let bytes = sample();
    let recorded = open(&bytes).unwrap();
    assert!(recorded.has_events() && recorded.profile.doubts.is_empty());
    let replayed = recorded.replay(Interval::ALL).remove(0);
    assert_eq!((replayed.events, replayed.missing.as_ref()), (20_000, None));
    assert_eq!(replayed.agrees, Some(true));
    assert_eq!(read(&mut bytes.as_slice()).unwrap(), recorded.profile);
    // The whole as a part: all but what only counters have.
    assert_eq!(recorded.part(Interval::ALL), recorded.profile);
    // Two parts that touch have all that was allocated.
    let sum = |from, to| {
        let part = recorded.part(Interval::seconds(from, to));
        part.processes[0].paths.iter().map(|path| path.allocated.blocks).sum::<u64>()
    };
    let whole = sum(None, None);
    assert!(replayed.peak > 10_000 && replayed.in_use < replayed.peak);
    let halves = [sum(None, Some(0.0195)), sum(Some(0.0195), None)];
    assert!(halves.iter().all(|&half| half > 1000));
    assert_eq!(halves[0] + halves[1], whole);
}

#[test]
fn written_anew_it_has_the_same_events() {
    let recorded = open(&sample()).unwrap();
    let mut profile = recorded.profile.clone();
    profile.doubts.push("a name".to_owned());
    let mut bytes = Vec::new();
    recorded.write(&profile, &mut bytes).unwrap();
    let again = open(&bytes).unwrap();
    assert_eq!(again.profile, profile);
    assert_eq!(again.replay(Interval::ALL), recorded.replay(Interval::ALL));
}

#[test]
fn every_truncation_is_an_error_or_shorter_and_marked() {
    let bytes = sample();
    // All lengths around the ends of blocks would take minutes; a step that meets all remainders.
    for len in (0..bytes.len()).step_by((bytes.len() / 1500) | 1) {
        is_sane(&bytes[..len]);
    }
    for len in bytes.len() - 200..bytes.len() {
        is_sane(&bytes[..len]);
    }
}

/// A block that is left out, as a whole, is missed.
#[test]
fn a_damaged_block_is_left_out_and_said() {
    let bytes = sample();
    let starts = |kind: u32| {
        let kind = kind.to_le_bytes();
        (12..bytes.len() - 44).find(|&at| {
            bytes[at..at + 4] == kind && bytes[at + 16..at + 20] == REGION.to_le_bytes()
        })
    };
    let first = starts(4).unwrap();
    let mut damaged = bytes.clone();
    damaged[first + 100] ^= 1;
    let recorded = open(&damaged).unwrap();
    let replayed = recorded.replay(Interval::ALL).remove(0);
    assert!(replayed.missing.is_some() && replayed.agrees.is_none());
    assert!((10_000..20_000).contains(&replayed.events));
}

#[test]
fn births_that_repeat_take_no_room() {
    let old = word(FREED_OLD, 5, 64);
    // Runs of all lengths, in one of them the end of a block.
    let birth = |at: u32| if at < 50 { at % 2 } else { at / 3000 + at / 7777 % 2 * 1000 };
    let events: Vec<_> = (0..40_000).map(|at| (old, birth(at))).collect();
    let (first, second) = events.split_at(20_500);
    let (mut at_once, mut one_by_one) = (Encoder::new(1), Encoder::new(1));
    for part in [first, second] {
        at_once.extend(part.iter().copied());
        part.iter().for_each(|&event| one_by_one.extend([event]));
        let block = at_once.finish(0).unwrap();
        assert_eq!(block, one_by_one.finish(0).unwrap());
        assert!(block.2 < 200, "{}", block.2);
        let wanted: Vec<_> = part.iter().map(|&(word, birth)| Told::Event(word, birth)).collect();
        assert_eq!(unpack(&block)[2..], wanted);
    }
}

/// What is freed has the size of something that was allocated lately: only the first of both is told.
#[test]
fn sizes_that_cannot_be_foretold_are_told_once() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        1024 + (state >> 33) % 8192
    };
    // One at a time, and two that lie one in the other.
    let one = |size| vec![word(ALLOCATED, 7, size), word(FREED, 7, size)];
    let two = |a, b| [word(ALLOCATED, 7, a), one(b)[0], one(b)[1], word(FREED, 7, a)].to_vec();
    let ones: Vec<_> = (0..10_000).flat_map(|_| one(random())).collect();
    let twos: Vec<_> = (0..5_000).flat_map(|_| two(random(), random())).collect();
    for words in [ones, twos] {
        let mut encoder = Encoder::new(1);
        encoder.extend(words.iter().map(|&word| (word, 0)));
        let block = encoder.finish(0).unwrap();
        // For a block of memory: a run of one byte and a miss of one byte, twice, and two of size.
        assert!(block.2 < 10_000 * 6 + 100, "{}", block.2);
        let wanted: Vec<_> = words.iter().map(|&word| Told::Event(word, 0)).collect();
        assert_eq!(unpack(&block)[2..], wanted);
    }
}
