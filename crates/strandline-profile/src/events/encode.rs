//! Packing events.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::code::*;
use super::decode::BlockHead;
use super::{FREED_OLD, KIND, MOST_EVENTS};

/// zstd's level: the streams are short already.
const LEVEL: i32 = 1;

/// Packs the events of one process, block by block.
pub struct Encoder {
    predictor: Predictor,
    context: Context,
    /// Kinds and tags of the block, each with its number.
    known: FxHashMap<u64, u64>,
    streams: [Vec<u8>; STREAMS],
    /// Right predictions since the last wrong one.
    run: u64,
    /// Right births since the last wrong one.
    same: u64,
    /// The last new tag.
    fresh: u32,
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
            context: Context::default(),
            known: FxHashMap::default(),
            streams: Default::default(),
            run: 0,
            same: 0,
            fresh: 0,
            head: BlockHead { region, ..BlockHead::default() },
            marked: 0,
            slice: 0,
            births: 0,
        }
    }

    /// Events of the block that is being filled: it has to be finished before they are more than
    /// [`MOST_EVENTS`].
    pub fn count(&self) -> u32 {
        self.head.count
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

    /// Adds events: words, and the slices in which old memory was allocated (0 with all others).
    #[inline(always)]
    pub fn extend(&mut self, events: impl IntoIterator<Item = (u64, u32)>) {
        // What changes with every event is in registers meanwhile.
        let (mut context, mut run, mut same) = (self.context, self.run, self.same);
        let mut count = self.head.count;
        for (word, birth) in events {
            count += 1;
            let predicted = self.predictor.long(context);
            if *predicted == word {
                run += 1;
            } else {
                *predicted = word;
                self.miss(word, context, run);
                run = 0;
            }
            context = context.after(word);
            if word & KIND == FREED_OLD {
                let last = self.predictor.birth(context);
                if *last == birth {
                    same += 1;
                } else {
                    let difference = i64::from(birth) - i64::from(*last);
                    *last = birth;
                    self.birth(difference, same);
                    same = 0;
                }
            }
        }
        debug_assert!(count <= MOST_EVENTS);
        self.head.count = count;
        (self.context, self.run, self.same) = (context, run, same);
    }

    /// A birth was another than the last one like it, after `same` that were not.
    #[inline(never)]
    fn birth(&mut self, difference: i64, same: u64) {
        self.same_births(same);
        put(&mut self.streams[BIRTHS], fold(difference));
    }

    fn same_births(&mut self, same: u64) {
        if same > 0 {
            put(&mut self.streams[BIRTHS], SAME);
            put(&mut self.streams[BIRTHS], same - 1);
        }
    }

    /// The first prediction was wrong, after `run` right ones.
    #[inline(never)]
    fn miss(&mut self, word: u64, context: Context, run: u64) {
        put(&mut self.streams[RUNS], run);
        let second = self.predictor.short(context);
        if *second == word {
            self.streams[MISSES].push(SECOND as u8);
            return;
        }
        let expected = what(*second);
        *second = word;
        let (tag, size) = (super::tag(word), super::size(word));
        let which = among(self.predictor.sizes(tag), size);
        let misses = &mut self.streams[MISSES];
        let next = self.known.len() as u64;
        if what(word) == expected {
            misses.push((SIZED + which) as u8);
        } else {
            match self.known.entry(what(word)) {
                Entry::Occupied(known) => put(misses, KNOWN + WAYS * known.get() + which),
                Entry::Vacant(place) => {
                    place.insert(next);
                    misses.push((NEW + which) as u8);
                    let distance = i64::from(tag) - i64::from(self.fresh);
                    put(&mut self.streams[FRESH], fold(distance) << 2 | word & KIND);
                    self.fresh = tag;
                }
            }
        }
        if which == OTHER {
            put(&mut self.streams[FRESH], size);
        }
    }

    /// Finishes the block: its head and its packed streams, and the length that these have
    /// unpacked. What is pushed then begins another one. Births are told apart in steps of
    /// `1 << step` slices.
    pub fn finish(&mut self, step: u32) -> std::io::Result<(BlockHead, Vec<u8>, usize)> {
        put(&mut self.streams[RUNS], self.run);
        self.same_births(self.same);
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
        self.context = Context::default();
        (self.run, self.same, self.fresh, self.marked) = (0, 0, 0, 0);
        Ok((head, packed?, raw.len()))
    }
}
