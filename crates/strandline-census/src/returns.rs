//! What would come back to the system, and by what: worked out on the image, page by page, as the
//! allocators themselves would do it. Nothing is done in the process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use strandline_image::{Image, PAGE};
use strandline_interpreter::{Arena, At, Block, Mark, PoolState};
use strandline_malloc::{Chunk, Heap, Malloc, State, Thresholds};

use crate::chunks::{Chunks, Python};
use crate::holes::large_parts;
use crate::int_blocks::IntBlock;
use crate::model::Returns;
use crate::without_pymalloc::estimate;

/// `sizeof(struct malloc_chunk)` (glibc malloc/malloc.c): what malloc_trim keeps of a hole.
const CHUNK_HEAD: u64 = 48;
/// `MINSIZE`: the least that stays of a heap's end.
const LEAST_TOP: u64 = 32;
/// `DEFAULT_TOP_PAD`, `DEFAULT_TRIM_THRESHOLD` and `DEFAULT_MMAP_THRESHOLD` (malloc/malloc.c).
const DEFAULT: u64 = 128 << 10;
/// The threshold that is advised.
const LOW_THRESHOLD: u64 = 64 << 10;
/// Large holes that a heap has at most if they were large chunks, about.
const MANY_HOLES: usize = 64;
/// Pools of this size and larger have pages that a free one doesn't need, bytes.
const LARGE_POOL: u64 = 16 << 10;

/// What is taken as freed, besides what is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Also {
    Nothing,
    /// What a full collection frees: garbage, and what is on free lists.
    Garbage,
}

/// Works it out.
pub struct Prospect<'a> {
    /// The memory.
    pub image: &'a Image,
    /// The interpreters.
    pub pythons: &'a [Python<'a>],
    /// malloc.
    pub malloc: &'a Malloc,
    /// Its chunks.
    pub chunks: &'a Chunks<'a>,
    /// 2.7's blocks of ints and floats, by address.
    pub int_blocks: &'a HashMap<u64, IntBlock>,
}

/// Free memory of a heap after neighbours were put together.
struct Holes {
    /// Address and end.
    holes: Vec<(u64, u64)>,
    /// Where the free end begins, if the heap has one.
    top: Option<u64>,
}

impl Prospect<'_> {
    /// All figures. `is_known`: it was looked for garbage.
    pub fn run(&self, is_known: bool) -> Returns {
        let garbage = || self.arenas(Also::Garbage) + self.mmapped();
        let malloc_trim_bytes = self.trim(Also::Nothing);
        let without = estimate(self.image, self.pythons, malloc_trim_bytes);
        Returns {
            malloc_trim_bytes,
            pool_trim_bytes: self.pool_trim(),
            collect_bytes: is_known.then(|| garbage() + self.heap_ends(Also::Garbage)),
            collect_and_trim_bytes: is_known.then(|| garbage() + self.trim(Also::Garbage)),
            low_threshold_bytes: self.low_threshold(DEFAULT),
            heap_ends_bytes: self.low_threshold(u64::MAX),
            low_mmap_threshold_bytes: self.low_threshold(LOW_THRESHOLD),
            without_pymalloc_bytes: without.bytes,
            without_pymalloc_least_bytes: without.least,
            without_pymalloc_most_bytes: without.most,
        }
    }

    fn thresholds(&self) -> (u64, u64) {
        let of = |t: &Thresholds| (t.trim_threshold, t.top_pad);
        self.malloc.thresholds.as_ref().map_or((DEFAULT, DEFAULT), of)
    }

    /// Whether the chunk is free, or would be.
    fn is_free(&self, chunk: Chunk, cell: &AtomicU32, also: Also) -> bool {
        match chunk.state() {
            state if state.is_hole() => true,
            State::InUse | State::Mmapped if also == Also::Garbage => {
                if let Some(block) = self.int_blocks.get(&chunk.user()) {
                    return block.live == 0;
                }
                match Block::unpack(cell.load(Relaxed)) {
                    Block::Object(_) | Block::Owned(_) => !Mark::Reached.is_set(cell),
                    Block::Dead(_) => true,
                    Block::Raw | Block::Free => false,
                }
            }
            _ => false,
        }
    }

    fn holes(&self, heap: &Heap, cells: &[AtomicU32], also: Also) -> Holes {
        let mut found = Holes { holes: Vec::new(), top: None };
        let mut open: Option<u64> = None;
        for (chunk, cell) in heap.chunks().zip(cells) {
            if chunk.state() == State::Top {
                found.top = Some(open.take().unwrap_or(chunk.start()));
            } else if self.is_free(chunk, cell, also) {
                open.get_or_insert(chunk.start());
            } else if let Some(start) = open.take() {
                found.holes.push((start, chunk.start()));
            }
        }
        found.holes.extend(open.map(|start| (start, heap.end)));
        found
    }

    fn is_main(&self, heap: &Heap) -> bool {
        self.malloc.arenas.get(heap.arena).is_some_and(|arena| arena.main)
    }

    /// What `systrim` and `heap_trim` cut off a heap's end that begins at `top`.
    fn cut(&self, heap: &Heap, top: u64, pad: u64) -> u64 {
        let area = (heap.end - top).saturating_sub(LEAST_TOP + 1);
        let extra = area.saturating_sub(pad) / PAGE * PAGE;
        self.image.resident_bytes(heap.end - extra, heap.end)
    }

    /// Whole pages of a hole, which go back while it stays.
    fn pages(&self, (from, to): (u64, u64)) -> u64 {
        let first = (from + CHUNK_HEAD).next_multiple_of(PAGE);
        let bytes = to.saturating_sub(first) / PAGE * PAGE;
        self.image.resident_bytes(first, first + bytes)
    }

    /// malloc_trim(0): the pages in holes of all heaps, and the end of the main one.
    ///
    /// Fact: `mtrim` and `__malloc_trim` (malloc/malloc.c, 2.8 and later).
    fn trim(&self, also: Also) -> u64 {
        let of_heap = |(heap, cells): (&Heap, &[AtomicU32])| {
            let found = self.holes(heap, cells, also);
            let holes: u64 = found.holes.iter().map(|&hole| self.pages(hole)).sum();
            let top = found.top.filter(|_| self.is_main(heap));
            holes + top.map_or(0, |top| self.cut(heap, top, 0))
        };
        self.chunks.heaps().map(of_heap).sum()
    }

    /// What `free` cuts off the heaps' ends by itself when they are above the threshold.
    fn heap_ends(&self, also: Also) -> u64 {
        let (threshold, pad) = self.thresholds();
        let of_heap = |(heap, cells): (&Heap, &[AtomicU32])| {
            let top = self.holes(heap, cells, also).top;
            let top = top.filter(|&top| heap.end - top >= threshold);
            top.map_or(0, |top| self.cut(heap, top, pad))
        };
        self.chunks.heaps().map(of_heap).sum()
    }

    /// Pages of a hole that large chunks may have left.
    fn of_large_chunks(&self, (from, to): (u64, u64), large: u64) -> u64 {
        let parts = large_parts(from, to, large, |address| self.image.word(address));
        parts.into_iter().map(|part| self.pages(part)).sum()
    }

    /// With fixed thresholds from the start: the ends would have gone back, and so would holes
    /// that chunks of `least` bytes or more left, which would have got mappings of their own, if
    /// freed ones hadn't raised the threshold. A heap with many large holes has small chunks in
    /// them that were put together.
    fn low_threshold(&self, least: u64) -> u64 {
        let pad = self.thresholds().1;
        let raised = self.malloc.thresholds.as_ref().is_some_and(|t| t.mmap_threshold > DEFAULT);
        let of_heap = |(heap, cells): (&Heap, &[AtomicU32])| {
            let found = self.holes(heap, cells, Also::Nothing);
            let top = found.top.filter(|&top| heap.end - top >= LOW_THRESHOLD);
            let large = found.holes.iter().filter(|(from, to)| raised && to - from >= least);
            let large: Vec<&(u64, u64)> = large.collect();
            let large = match large.len() > MANY_HOLES {
                true => 0,
                false => large.iter().map(|&&hole| self.of_large_chunks(hole, least)).sum(),
            };
            large + top.map_or(0, |top| self.cut(heap, top, pad))
        };
        self.chunks.heaps().map(of_heap).sum()
    }

    /// Chunks with mappings of their own that a collection would free.
    fn mmapped(&self) -> u64 {
        let all = self.malloc.mmapped.iter().zip(self.chunks.mmapped());
        let freed = all.filter(|(m, cell)| self.is_free(m.chunk, cell, Also::Garbage));
        freed.map(|(m, _)| self.image.resident_bytes(m.base, m.chunk.end())).sum()
    }

    /// Arenas in which nothing would be left.
    fn arenas(&self, also: Also) -> u64 {
        let mut bytes = 0;
        for p in self.pythons {
            let stays = |at: At, block: Block| match block {
                Block::Dead(_) => also == Also::Nothing,
                _ => p.blocks.cell(at).is_some_and(|cell| Mark::Reached.is_set(cell)),
            };
            for (number, arena) in p.blocks.arenas().iter().enumerate() {
                if arena.live() > 0 && !p.blocks.of_arena(number).any(|(at, b, _)| stays(at, b)) {
                    bytes += self.image.resident_bytes(arena.start, arena.end());
                }
            }
        }
        bytes
    }

    /// Free pools, also those of an arena that is kept empty: all but the page with the head.
    fn pool_trim(&self) -> u64 {
        let of_arena = |p: &Python<'_>, arena: &Arena<'_>| {
            let o = &p.interpreter.layout.obmalloc;
            let size = o.pool_size as u64;
            if size < LARGE_POOL {
                return 0;
            }
            let of_pool = |(number, pool): (usize, &strandline_interpreter::Pool)| {
                let start = arena.pool_address(number, o);
                match pool.state {
                    PoolState::Free => self.image.resident_bytes(start + PAGE, start + size),
                    PoolState::Uncarved => self.image.resident_bytes(start, start + size),
                    PoolState::Used | PoolState::Torn => 0,
                }
            };
            arena.pools.iter().enumerate().map(of_pool).sum()
        };
        let of = |p: &Python<'_>| p.blocks.arenas().iter().map(|a| of_arena(p, a)).sum::<u64>();
        self.pythons.iter().map(of).sum()
    }
}
