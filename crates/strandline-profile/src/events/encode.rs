//! Packing events.

use rustc_hash::FxHashMap;

use super::code::*;
use super::decode::BlockHead;
use super::{FREED_OLD, KIND, MOST_EVENTS};

/// zstd's level: the streams are short already.
const LEVEL: i32 = 1;

/// Packs the events of one process, block by block.
pub struct Encoder {
    predictor: Predictor,
    known: FxHashMap<u64, u32>,
    streams: [Vec<u8>; STREAMS],
    /// Right predictions since the last wrong one.
    run: u64,
    fresh: u64,
    head: BlockHead,
    /// Events before the last mark of this block.
    marked: u32,
    /// Slices of the last marks.
    slice: u32,
    births: u32,
}

impl Encoder {
    /// For the process whose region of the capture has this index.
    pub fn new(region: u32) -> Encoder {
        Encoder {
            predictor: Predictor::new(),
            known: FxHashMap::default(),
            streams: Default::default(),
            run: 0,
            fresh: 0,
            head: BlockHead { region, ..BlockHead::default() },
            marked: 0,
            slice: 0,
            births: 0,
        }
    }

    /// Events of the block that is being filled.
    pub fn count(&self) -> u32 {
        self.head.count
    }

    /// True if the block has to be finished before more is added.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.head.count >= MOST_EVENTS
    }

    /// From here on it is slice `slice`, which isn't before the last one.
    pub fn mark(&mut self, slice: u32) {
        if self.head.count == 0 {
            self.head.slice = slice;
        } else {
            self.put_mark(slice.wrapping_sub(self.slice), MARK_TIME);
        }
        self.slice = slice;
    }

    /// From here on what is allocated is born in `slice`, which isn't before the last one.
    pub fn births(&mut self, slice: u32) {
        if self.head.count == 0 {
            self.head.births = slice;
        } else {
            self.put_mark(slice.wrapping_sub(self.births), MARK_BIRTHS);
        }
        self.births = slice;
    }

    fn put_mark(&mut self, slices: u32, kind: u64) {
        let marks = &mut self.streams[MARKS];
        put(marks, u64::from(self.head.count - self.marked));
        put(marks, u64::from(slices) << 1 | kind);
        self.marked = self.head.count;
    }

    /// Adds an event; `birth`: the slice of old memory.
    #[inline(always)]
    pub fn push(&mut self, word: u64, birth: u32) {
        self.head.count += 1;
        let predicted = self.predictor.long();
        if *predicted == word {
            self.run += 1;
        } else {
            *predicted = word;
            self.miss(word);
        }
        if word & KIND == FREED_OLD {
            let last = self.predictor.birth(word);
            let difference = i64::from(birth) - i64::from(*last);
            *last = birth;
            put(&mut self.streams[BIRTHS], fold(difference));
        }
        self.predictor.happened(word);
    }

    #[inline(never)]
    fn miss(&mut self, word: u64) {
        put(&mut self.streams[RUNS], self.run);
        self.run = 0;
        let second = self.predictor.short();
        if *second == word {
            self.streams[MISSES].push(SECOND as u8);
            return;
        }
        *second = word;
        let next = self.known.len() as u32;
        match self.known.entry(word) {
            std::collections::hash_map::Entry::Occupied(known) => {
                put(&mut self.streams[MISSES], u64::from(*known.get()) + KNOWN);
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(next);
                self.streams[MISSES].push(NEW as u8);
                let tag = u64::from(super::tag(word));
                put(&mut self.streams[FRESH], super::size(word) << 2 | word & KIND);
                put(&mut self.streams[FRESH], fold(tag as i64 - self.fresh as i64));
                self.fresh = tag;
            }
        }
    }

    /// Finishes the block: its head and its packed streams, and the length that these have
    /// unpacked. What is pushed then begins another one. Births are told apart in steps of
    /// `1 << step` slices.
    pub fn finish(&mut self, step: u32) -> std::io::Result<(BlockHead, Vec<u8>, usize)> {
        put(&mut self.streams[RUNS], self.run);
        let length = self.streams.iter().map(Vec::len).sum::<usize>();
        let mut raw = Vec::with_capacity(length + 5 * STREAMS);
        for stream in &self.streams {
            put(&mut raw, stream.len() as u64);
        }
        for stream in &mut self.streams {
            raw.append(stream);
        }
        let packed = zstd::bulk::compress(&raw, LEVEL);
        let head = BlockHead { step, ..self.head };
        self.head = BlockHead {
            region: head.region,
            first: head.first + u64::from(head.count),
            slice: self.slice,
            births: self.births,
            ..BlockHead::default()
        };
        self.predictor.clear();
        self.known.clear();
        (self.run, self.fresh, self.marked) = (0, 0, 0);
        Ok((head, packed?, raw.len()))
    }
}
