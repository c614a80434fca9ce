//! glibc's heaps one by one: what is free in each, and what stands at its end, so that the free
//! part below can't be given back by moving the end.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use strandline_image::Image;
use strandline_interpreter::{Block, NATIVE};
use strandline_malloc::{Heap, Malloc, State};

use crate::chunks::{Chunks, Python};
use crate::count::{name_of, Counts};
use crate::model::{HeapReport, LargeReport, TaggedChunks, TypeReport};
use crate::tags::Tags;

/// Heaps that are listed, those with most free bytes.
const MOST: usize = 20;
/// Types named for each.
const HOLDERS: usize = 3;
/// A hole of this size is worth to know what lies above it, bytes.
const LARGE_HOLE: u64 = 64 << 10;
/// Runs of chunks that are kept for each heap.
const RUNS: usize = 4096;

/// The heaps with most free bytes first; each with what holds it.
///
/// Fact: `free` moves the end of a heap down to the last chunk in use (`systrim` and `heap_trim`,
/// glibc malloc/malloc.c); what lies below goes back by malloc_trim(3) only, page by page.
pub fn report(
    image: &Image,
    malloc: &Malloc,
    chunks: &Chunks<'_>,
    pythons: &[Python<'_>],
) -> Vec<HeapReport> {
    let is_main = |heap: &Heap| malloc.arenas.get(heap.arena).is_some_and(|arena| arena.main);
    let mut all: Vec<(HeapReport, &Heap)> = chunks
        .heaps()
        .map(|(heap, cells)| {
            let is_threads = !is_main(heap);
            (HeapReport { is_threads, ..of_heap(heap, cells, pythons) }, heap)
        })
        .collect();
    all.sort_by_key(|(r, _)| (std::cmp::Reverse(r.free_bytes), r.address));
    all.truncate(MOST);
    let tags = Tags::find(image);
    let all = all.into_iter().map(|(r, heap)| {
        let tagged = tags.as_ref().map_or_else(Vec::new, |tags| above_holes(image, heap, tags));
        HeapReport { tagged, ..r }
    });
    all.collect()
}

/// The chunks in use above the lowest large hole, from the heap's end down.
fn above_holes(image: &Image, heap: &Heap, tags: &Tags<'_>) -> Vec<TaggedChunks> {
    let mut runs: Vec<TaggedChunks> = Vec::new();
    // Up to the run with a large hole that is the lowest.
    let mut worth = 0;
    for chunk in heap.chunks().rev() {
        match chunk.state() {
            State::InUse => {
                let tag = tags.of_chunk(chunk.user(), chunk.size());
                if runs.last().is_none_or(|run| run.tag != tag) {
                    if runs.len() == RUNS {
                        break;
                    }
                    runs.push(TaggedChunks { tag, ..TaggedChunks::default() });
                }
                if let Some(run) = runs.last_mut() {
                    (run.blocks, run.bytes) = (run.blocks + 1, run.bytes + chunk.size());
                }
            }
            state if state.is_hole() => {
                // Above all that is in use it is no hole.
                let Some(run) = runs.last_mut() else { continue };
                let bytes = image.resident_bytes(chunk.start(), chunk.end());
                run.below_bytes += bytes;
                run.largest_bytes = run.largest_bytes.max(bytes);
                if bytes >= LARGE_HOLE {
                    worth = runs.len();
                }
            }
            _ => {}
        }
    }
    runs.truncate(worth);
    runs
}

fn of_heap(heap: &Heap, cells: &[AtomicU32], pythons: &[Python<'_>]) -> HeapReport {
    let (address, bytes) = (heap.start, heap.end - heap.start);
    let mut r = HeapReport { address, bytes, ..HeapReport::default() };
    let mut holders = Counts::default();
    let mut by_c = TypeReport::default();
    let mut last = None;
    for (chunk, cell) in heap.chunks().zip(cells) {
        let bytes = chunk.size();
        match chunk.state() {
            State::InUse | State::Mmapped => {
                r.in_use_bytes += bytes;
                let id = match Block::unpack(cell.load(Relaxed)) {
                    Block::Object(id) | Block::Owned(id) if id != NATIVE => Some(id),
                    _ => None,
                };
                // What lies below all holes keeps nothing from going back.
                if r.free_bytes > 0 {
                    match id {
                        Some(id) => holders.object(id, bytes),
                        None => (by_c.count, by_c.bytes) = (by_c.count + 1, by_c.bytes + bytes),
                    }
                }
                last = Some((chunk.user(), bytes, id));
            }
            State::Top => r.top_bytes += bytes,
            State::Fencepost => {}
            _ => r.free_bytes += bytes,
        }
    }
    r.last = last.map(|(address, bytes, id)| LargeReport {
        address,
        type_name: id.and_then(|id| name_of(pythons, id)).unwrap_or_default(),
        bytes,
        path: None,
    });
    r.holders = holders.report(pythons);
    if by_c.count > 0 {
        r.holders.push(by_c);
    }
    r.holders.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    r.holders.truncate(HOLDERS);
    r
}
