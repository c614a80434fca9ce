//! Packs the events of one process into blocks.

use std::collections::VecDeque;
use std::time::Instant;

use strandline_capture::layout::{
    self, EVENT_ALLOCATED, EVENT_DISOWNED, EVENT_FREED, EVENT_FREED_SMALL, EVENT_KIND,
};
use strandline_profile::events::{self, Encoder, ALLOCATED, FREED, FREED_OLD, KIND, MOST_EVENTS};

use super::batch::Batch;
use super::slices::Slices;
use crate::error::reason;

/// Events that are held back: the profiler may say that one of them is its own.
const HELD: usize = 16;
/// A block with more events than this may have no room for another batch and what is held back.
const FULL: u32 = MOST_EVENTS - (Batch::MOST + 2 * HELD) as u32;

pub struct Sink {
    slices: Slices,
    encoder: Encoder,
    held: VecDeque<Held>,
    /// When the first event of the block came.
    began: Option<Instant>,
    /// The slice of the last event.
    marked: u32,
    /// Whole blocks, as they stand in the file.
    blocks: Vec<u8>,
    count: u64,
    failed: Option<String>,
}

/// An event as it was told, and the slice in which it came.
struct Held {
    told: u64,
    birth: u64,
    slice: u32,
}

impl Sink {
    /// For the process whose region of the capture has this index.
    pub fn new(region: u32) -> Sink {
        Sink {
            slices: Slices::new(0),
            encoder: Encoder::new(region),
            held: VecDeque::with_capacity(HELD + 1),
            began: None,
            marked: 0,
            blocks: Vec::new(),
            count: 0,
            failed: None,
        }
    }

    /// The process had allocated `clock` bytes before the first event.
    pub fn since(&mut self, clock: u64) {
        self.slices = Slices::new(clock);
    }

    /// When the first event came that isn't in a whole block.
    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Events in whole blocks.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Why a block could not be made.
    pub fn failed(&mut self) -> Option<String> {
        self.failed.take()
    }

    /// The blocks that are whole, as they stand in the file.
    pub fn blocks(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.blocks)
    }

    /// Takes what was told in slice `slice`.
    pub fn take(&mut self, batch: &Batch, slice: u32) {
        if self.encoder.count() > FULL {
            self.finish_block();
        }
        let mut words = batch.words();
        if !batch.disowned() {
            self.pass_on(&mut words, slice);
        }
        while let Some((told, birth)) = split_off(&mut words) {
            self.hold(Held { told, birth, slice });
        }
        self.has_begun();
    }

    /// Passes on all events but the last ones, if these are more than have to be held back.
    fn pass_on(&mut self, words: &mut &[u64], slice: u32) {
        // An event is two words at most.
        const LAST: usize = 2 * HELD;
        if words.len() <= LAST {
            return;
        }
        self.release();
        self.now(slice);
        loop {
            let mut events = Events {
                words,
                last: LAST,
                until_allocated: self.slices.awaits(),
                allocated: 0,
                slices: &mut self.slices,
            };
            self.encoder.extend(&mut events);
            let allocated = events.allocated;
            *words = events.words;
            self.slices.allocated(allocated);
            if words.len() <= LAST {
                return;
            }
            // Births may begin with this one.
            let Some((told, birth)) = split_off(words) else { return };
            self.push(Held { told, birth, slice });
        }
    }

    /// Holds an event back, and passes on the one before the last [`HELD`].
    fn hold(&mut self, event: Held) {
        if event.told & EVENT_KIND == EVENT_DISOWNED {
            return self.disown(event.told);
        }
        self.held.push_back(event);
        if self.held.len() > HELD {
            let first = self.held.pop_front();
            first.into_iter().for_each(|first| self.push(first));
        }
    }

    /// A block that was allocated just now is the profiler's own.
    fn disown(&mut self, told: u64) {
        let allocated = told & !EVENT_KIND | EVENT_ALLOCATED;
        let own = layout::event(EVENT_ALLOCATED, layout::TAG_INDEX_PROFILER, (told >> 22) as usize);
        if let Some(held) = self.held.iter_mut().rev().find(|held| held.told == allocated) {
            held.told = own;
        }
    }

    /// Passes on what is held back.
    pub fn release(&mut self) {
        while let Some(first) = self.held.pop_front() {
            self.push(first);
        }
        self.has_begun();
    }

    /// Passes on one event.
    fn push(&mut self, Held { told, birth, slice }: Held) {
        self.now(slice);
        if told & EVENT_KIND == EVENT_ALLOCATED {
            if let Some(slice) = self.slices.begin() {
                self.encoder.births(slice);
            }
        }
        let mut events = Events {
            words: &[told, birth],
            last: 0,
            until_allocated: false,
            allocated: 0,
            slices: &mut self.slices,
        };
        self.encoder.extend(events.next());
        let allocated = events.allocated;
        self.slices.allocated(allocated);
    }

    /// The next event happened in slice `slice`.
    fn now(&mut self, slice: u32) {
        if slice != self.marked {
            self.marked = slice;
            self.slices.now(slice);
            self.encoder.mark(slice);
        }
    }

    fn has_begun(&mut self) {
        if self.began.is_none() && self.encoder.count() > 0 {
            self.began = Some(Instant::now());
        }
    }

    /// Makes a block of what was passed on.
    pub fn finish_block(&mut self) {
        self.began = None;
        if self.encoder.count() == 0 {
            return;
        }
        self.count += u64::from(self.encoder.count());
        let block = self.encoder.finish(self.slices.step());
        let done = block.map_err(|e| reason(&e)).and_then(|block| {
            events::put_block(&block, &mut self.blocks).map_err(|e| e.to_string())
        });
        if let Err(e) = done {
            self.failed.get_or_insert(e);
        }
    }
}

/// Takes an event off the front: its word and, of an `EVENT_FREED`, its birth.
#[inline(always)]
fn split_off(words: &mut &[u64]) -> Option<(u64, u64)> {
    let (&told, rest) = words.split_first()?;
    *words = rest;
    if told & EVENT_KIND != EVENT_FREED {
        return Some((told, 0));
    }
    let (&birth, rest) = words.split_first()?;
    *words = rest;
    Some((told, birth))
}

/// The events up to the last words, as the file has them.
struct Events<'a, 'b> {
    words: &'a [u64],
    /// Words that are left.
    last: usize,
    /// The first allocation and what follows is left, too.
    until_allocated: bool,
    /// Bytes allocated so far.
    allocated: u64,
    slices: &'b mut Slices,
}

impl Iterator for Events<'_, '_> {
    type Item = (u64, u32);

    #[inline(always)]
    fn next(&mut self) -> Option<(u64, u32)> {
        if self.words.len() <= self.last {
            return None;
        }
        let (&told, mut rest) = self.words.split_first()?;
        let (freed, birth) = match told & EVENT_KIND {
            EVENT_ALLOCATED => {
                if self.until_allocated {
                    return None;
                }
                self.words = rest;
                self.allocated += events::size(told);
                return Some((told, 0));
            }
            EVENT_FREED_SMALL => (told & 0xffff_ffff, (told >> 32) as u32),
            _ => {
                let birth;
                (birth, rest) = rest.split_first()?;
                (told - EVENT_FREED + FREED, *birth as u32)
            }
        };
        self.words = rest;
        match self.slices.of_birth(birth) {
            None => Some((freed, 0)),
            Some(slice) => Some((freed - FREED + FREED_OLD, slice)),
        }
    }
}

// An event's word is nearly what was told.
const _: () = assert!(ALLOCATED == EVENT_ALLOCATED && FREED == EVENT_FREED_SMALL);
const _: () = assert!(KIND == EVENT_KIND && layout::EVENT_SMALL == 1 << (32 - 22));

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks of events that come in these slices, `cut` in a batch.
    fn packed(events: &[(u64, u64, u32)], mut cut: impl FnMut() -> usize) -> Vec<u8> {
        let mut sink = Sink::new(3);
        sink.since(5000);
        for look in events.chunk_by(|a, b| a.2 == b.2) {
            let mut rest = look;
            while let [(_, _, slice), ..] = rest {
                let events;
                (events, rest) = rest.split_at(cut().clamp(1, rest.len()));
                let mut batch = Batch::new();
                events.iter().for_each(|&(told, birth, _)| batch.push(told, birth));
                sink.take(&batch, *slice);
            }
        }
        sink.release();
        sink.finish_block();
        assert_eq!((sink.failed(), sink.began()), (None, None));
        assert!(sink.count() > 0);
        sink.blocks()
    }

    fn random(state: &mut u64) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 33) as usize
    }

    /// Blocks of all sizes, some of them old when they are freed; now and then only frees in a slice.
    fn sample() -> Vec<(u64, u64, u32)> {
        let (mut state, mut clock, mut alive, mut events) = (7, 5000u64, Vec::new(), Vec::new());
        for i in 0..60_000 {
            let slice = 1 + i / 900 + i / 7000;
            let only_frees = i / 900 % 5 == 4;
            if alive.is_empty() || !only_frees && random(&mut state) % 8 < 5 {
                let size = [16, 16, 64, 500, 1023, 1024, 40_000][random(&mut state) % 7];
                let tag = random(&mut state) as u32 % 5;
                alive.push((tag, size, clock >> layout::BIRTH_SHIFT));
                events.push((layout::event(EVENT_ALLOCATED, tag, size), 0, slice));
                clock += size as u64;
            } else {
                let (tag, size, birth) = alive.swap_remove(random(&mut state) % alive.len());
                if size < layout::EVENT_SMALL {
                    events.push((layout::event_freed_small(tag, size, birth as u32), 0, slice));
                } else {
                    events.push((layout::event(EVENT_FREED, tag, size), birth, slice));
                }
            }
        }
        events
    }

    #[test]
    fn it_is_the_same_however_it_is_cut() {
        let events = sample();
        let one_by_one = packed(&events, || 1);
        let mut state = 3;
        assert!(one_by_one == packed(&events, || 600));
        assert!(one_by_one == packed(&events, || random(&mut state) % 100));
        assert!(one_by_one != packed(&events[1..], || 1));
    }

    #[test]
    fn a_disowned_block_is_the_profilers_across_batches_and_slices() {
        let allocated = layout::event(EVENT_ALLOCATED, 77, 32);
        let own = layout::event(EVENT_ALLOCATED, layout::TAG_INDEX_PROFILER, 32);
        let mut state = 5;
        for back in 1..=HELD + 1 {
            let mut events = sample();
            // Before the end of a slice, at a batch's end, in its middle.
            let places = [890, 1800, 5000 + back, 59_990];
            let mut wanted = events.clone();
            for at in places {
                let slice = events[at - back].2;
                events.insert(at - back, (allocated, 0, slice));
                wanted.insert(at - back, (if back > HELD { allocated } else { own }, 0, slice));
            }
            let mut told = events.clone();
            for at in places.into_iter().rev() {
                told.insert(at, (layout::event(EVENT_DISOWNED, 77, 32), 0, events[at].2));
            }
            let wanted = packed(&wanted, || 600);
            assert!(wanted == packed(&told, || 1), "{back}");
            assert!(wanted == packed(&told, || 600), "{back}");
            assert!(wanted == packed(&told, || random(&mut state) % 100), "{back}");
        }
    }

    #[test]
    fn blocks_are_finished_before_they_are_too_large() {
        let told = layout::event(EVENT_ALLOCATED, 7, 100);
        let events = vec![(told, 0, 1); 2 * MOST_EVENTS as usize + 5];
        let blocks = packed(&events, || Batch::MOST - 1);
        let lengths: Vec<u32> = blocks_of(&blocks).collect();
        assert!(lengths.len() == 3 && lengths.iter().all(|&events| events <= MOST_EVENTS));
        assert_eq!(lengths.iter().sum::<u32>() as usize, events.len());
    }

    /// The events of each block: its head's second word, behind four of the file's.
    fn blocks_of(mut bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
        std::iter::from_fn(move || {
            let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(4 * at..)?.first_chunk()?));
            let (length, events) = (word(1)?, word(5)?);
            bytes = bytes.get(16 + length as usize..)?;
            Some(events)
        })
    }
}
