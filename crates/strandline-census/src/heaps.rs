//! glibc's heaps one by one: what is free in each, and what stands at its end, so that the free
//! part below can't be given back by moving the end.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use strandline_interpreter::{Block, NATIVE};
use strandline_malloc::{Heap, State};

use crate::chunks::{Chunks, Python};
use crate::count::{name_of, Counts};
use crate::model::{HeapReport, LargeReport, TypeReport};

/// Heaps that are listed, those with most free bytes.
const MOST: usize = 20;
/// Types named for each.
const HOLDERS: usize = 3;

/// The heaps with most free bytes first; each with what holds it.
///
/// Fact: `free` moves the end of a heap down to the last chunk in use (`systrim` and `heap_trim`,
/// glibc malloc/malloc.c); what lies below goes back by malloc_trim(3) only, page by page.
pub fn report(chunks: &Chunks<'_>, pythons: &[Python<'_>]) -> Vec<HeapReport> {
    let mut all: Vec<HeapReport> =
        chunks.heaps().map(|(heap, cells)| of_heap(heap, cells, pythons)).collect();
    all.sort_by_key(|r| (std::cmp::Reverse(r.free_bytes), r.address));
    all.truncate(MOST);
    all
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
