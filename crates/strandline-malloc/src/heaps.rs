//! Cutting memory into heaps.

use std::collections::BTreeMap;

use strandline_image::{Image, PAGE};

use crate::find::heap_info_size;
use crate::heap::Heap;
use crate::layout::{Layout, HEAP_ALIGNMENTS};
use crate::memory::{run_at, without, Words};
use crate::model::{Doubt, What};
use crate::walk::{follow, resume, walk, Stop, Walk, FLAGS, PREV_INUSE};

/// Heaps as they are found.
pub(crate) struct Heaps<'a> {
    image: &'a Image,
    words: Words<'a>,
    /// Where heaps can be.
    runs: &'a [(u64, u64)],
    pub list: Vec<Heap>,
    /// Start and end of each.
    taken: BTreeMap<u64, u64>,
    pub doubts: Vec<Doubt>,
}

/// What one arena's heaps add up to, bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Extent {
    pub heaps: u64,
    pub foreign: u64,
}

impl<'a> Heaps<'a> {
    pub(crate) fn new(image: &'a Image, runs: &'a [(u64, u64)]) -> Self {
        let words = Words::new(image);
        let (list, doubts) = (Vec::new(), Vec::new());
        Heaps { image, words, runs, list, taken: BTreeMap::new(), doubts }
    }

    fn doubt(&mut self, what: What, address: u64) {
        self.doubts.push(Doubt { what, address });
    }

    /// Walks from `first` and keeps what is found as a heap from `start` on. Returns its end and
    /// why it ended; `None` if there was no chunk.
    fn walk(
        &mut self,
        arena: usize,
        start: u64,
        first: u64,
        limit: u64,
        top: Option<u64>,
    ) -> Option<(u64, Stop)> {
        let found = walk(&mut self.words, first, limit, top);
        if found.stop == Stop::Broken {
            self.doubt(What::ChunkBroken, found.end);
        }
        self.keep(arena, start, found)
    }

    fn keep(&mut self, arena: usize, start: u64, found: Walk) -> Option<(u64, Stop)> {
        if let Some(address) = found.foot_broken {
            self.doubt(What::FootBroken, address);
        }
        let before = self.taken.range(..found.end).next_back();
        let overlaps = before.is_some_and(|(_, end)| *end > start);
        if found.packed.is_empty() || overlaps {
            return None;
        }
        self.taken.insert(start, found.end);
        self.list.push(Heap::new(arena, start, found.end, found.packed));
        Some((found.end, found.stop))
    }

    /// Heaps from `start` up to and with the top chunk: one, unless somebody else has called sbrk
    /// in between or a chunk is broken.
    fn contiguous(&mut self, arena: usize, start: u64, end: u64, top: u64) -> Extent {
        let mut extent = Extent::default();
        let (mut at, mut first) = (start, start.next_multiple_of(16));
        loop {
            let (reached, stop) =
                self.walk(arena, at, first, end, Some(top)).unwrap_or((at, Stop::Broken));
            extent.heaps += reached - at;
            if stop == Stop::Top {
                return extent;
            }
            let Some(next) = resume(&mut self.words, reached.max(at + 16), end, Some(top)) else {
                self.doubt(What::HeapMissing, reached);
                return extent;
            };
            extent.foreign += next - reached;
            (at, first) = (next, next);
        }
    }

    /// The main arena's heaps while all of its memory is from sbrk: what it has, it has in one
    /// piece that ends with its top.
    pub(crate) fn main(&mut self, arena: usize, top: u64, system_mem: u64) -> Extent {
        let end = self.words.at(top + 8).and_then(|head| top.checked_add(head & !FLAGS));
        let start = end.and_then(|end| end.checked_sub(system_mem));
        match (start, end, run_at(self.runs, top)) {
            (Some(start), Some(end), Some(run)) if start >= run.0 && end <= run.1 => {
                self.contiguous(arena, start, end, top)
            }
            // Torn, or sbrk has left a hole: what is there from the run's beginning on.
            (_, end, Some(run)) => {
                self.doubt(What::SystemMemDiffers, top);
                let end = end.filter(|end| *end <= run.1).unwrap_or(run.1);
                self.contiguous(arena, run.0, end, top)
            }
            _ => {
                self.doubt(What::HeapMissing, top);
                Extent::default()
            }
        }
    }

    /// The main arena's heaps after sbrk has failed once: the first at `base`, all others
    /// anywhere (`sysmalloc_mmap_fallback`), each up to a fencepost or to the top.
    pub(crate) fn main_scattered(
        &mut self,
        arena: usize,
        top: u64,
        system_mem: u64,
        base: Option<u64>,
    ) -> Extent {
        let mut extent = Extent::default();
        let first = base.and_then(|base| Some((base, run_at(self.runs, base)?)));
        if let Some((base, run)) = first {
            let found = self.walk(arena, base, base.next_multiple_of(16), run.1, Some(top));
            extent.heaps += found.map_or(0, |(end, _)| end - base);
        }
        let known = self.taken.iter().map(|(start, end)| (*start, *end)).collect();
        for (from, to) in without(self.runs, known) {
            let mut at = from.next_multiple_of(PAGE);
            while at < to && extent.heaps < system_mem {
                let head = self.words.at(at + 8).unwrap_or(0);
                let mut reached = at;
                if head & FLAGS == PREV_INUSE && follow(&mut self.words, at, to, Some(top)) {
                    let found = walk(&mut self.words, at, to, Some(top));
                    reached = found.end;
                    if found.stop != Stop::Broken && self.keep(arena, at, found).is_some() {
                        extent.heaps += reached - at;
                    }
                }
                at = reached.next_multiple_of(PAGE).max(at + PAGE);
            }
        }
        extent
    }

    /// A thread's arena: its newest heap has the top and leads to the older ones.
    pub(crate) fn thread(
        &mut self,
        arena: usize,
        address: u64,
        top: u64,
        layout: &Layout,
    ) -> Extent {
        let mut extent = Extent::default();
        let Some(info) = heap_info_size(self.image, address) else { return extent };
        let belongs = |heap: u64| self.image.word(heap) == Some(address);
        let newest = HEAP_ALIGNMENTS.iter().map(|align| top & !(align - 1)).find(|h| belongs(*h));
        let Some(mut heap) = newest else {
            self.doubt(What::HeapMissing, top);
            return extent;
        };
        let mut top = Some(top);
        loop {
            let first = if heap + info == address {
                (address + layout.size).next_multiple_of(16)
            } else {
                heap + info
            };
            let size = self.image.word(heap + 16).unwrap_or(0);
            let end = heap.checked_add(size).filter(|end| {
                size > first - heap && run_at(self.runs, heap).is_some_and(|run| *end <= run.1)
            });
            let Some(end) = end else {
                self.doubt(What::HeapMissing, heap);
                return extent;
            };
            let Some((reached, stop)) = self.walk(arena, heap, first, end, top) else {
                self.doubt(What::HeapMissing, heap);
                return extent;
            };
            extent.heaps += reached - heap;
            if stop == Stop::Broken {
                extent.heaps += self.rest(arena, reached, end, top);
            }
            if heap + info == address {
                return extent;
            }
            top = None;
            match self.image.word(heap + 8).filter(|prev| prev % PAGE == 0 && belongs(*prev)) {
                Some(prev) => heap = prev,
                None => {
                    self.doubt(What::HeapMissing, heap);
                    return extent;
                }
            }
        }
    }

    /// What follows a broken chunk in a thread's heap.
    fn rest(&mut self, arena: usize, mut from: u64, end: u64, top: Option<u64>) -> u64 {
        let mut bytes = 0;
        while let Some(next) = resume(&mut self.words, from + 16, end, top) {
            let Some((reached, stop)) = self.walk(arena, next, next, end, top) else { break };
            bytes += reached - next;
            if stop != Stop::Broken {
                break;
            }
            from = reached;
        }
        bytes
    }
}
