//! Reading all of it.

use strandline_image::Image;

use crate::find::{main_arenas, Found};
use crate::heaps::{Extent, Heaps};
use crate::layout::{Layout, BIN_AS_CHUNK, FLAGS, NONCONTIGUOUS};
use crate::lists::Book;
use crate::memory::{run_at, runs, without, Words};
use crate::model::{Arena, Doubt, Malloc, What};
use crate::params::{self, Thresholds};
use crate::walk::{self, FLAGS as CHUNK_FLAGS, PREV_INUSE};
use crate::{mmapped, others};

/// Reads malloc's heaps. Without glibc's malloc in the image, the result has no arenas.
pub fn read(image: &Image) -> Malloc {
    read_with(image, &[])
}

/// As [`read`], with memory (first address, address after the last) that is known to be something
/// else than malloc's: a chunk with its own mapping is only told by its form.
pub fn read_with(image: &Image, exclude: &[(u64, u64)]) -> Malloc {
    let mut malloc = Malloc { others: others::find(image), ..Malloc::default() };
    let copies = main_arenas(image);
    let runs = runs(image);
    let mut heaps = Heaps::new(image, &runs);
    let mut known = Vec::new();
    for copy in &copies {
        read_copy(image, &runs, copy, &mut heaps, &mut malloc, &mut known);
    }
    malloc.doubts.append(&mut heaps.doubts);
    malloc.heaps = heaps.list;
    malloc.heaps.sort_by_key(|heap| heap.start);
    mark(image, &copies, &mut malloc);
    // Of several copies of glibc, the one that has the most memory is the program's.
    malloc.thresholds =
        known.iter().copied().max_by_key(|(system_mem, _)| *system_mem).map(|k| k.1);
    let known: Vec<Thresholds> = known.into_iter().map(|k| k.1).collect();
    if let Some(copy) = copies.first() {
        let taken = malloc.heaps.iter().map(|heap| (heap.start, heap.end));
        let free = without(&runs, taken.chain(exclude.iter().copied()).collect());
        malloc.mmapped = mmapped::find(image, &free, copy.layout);
        if known.len() == copies.len()
            && !mmapped::settle(image, &mut malloc.mmapped, &known, copy.layout)
        {
            malloc.doubts.push(Doubt { what: What::MmappedDiffer, address: known[0].address });
        }
    }
    malloc
}

/// Heaps, arenas and parameters of one copy of glibc.
fn read_copy(
    image: &Image,
    runs: &[(u64, u64)],
    copy: &Found,
    heaps: &mut Heaps,
    malloc: &mut Malloc,
    known: &mut Vec<(u64, Thresholds)>,
) {
    for (number, &address) in copy.ring.iter().enumerate() {
        let main = number == 0;
        let (mut arena, noncontiguous) = arena(image, address, main, copy.layout);
        let index = malloc.arenas.len();
        let extent = match arena.top {
            None => Extent::default(),
            Some(top) if !main => heaps.thread(index, address, top, copy.layout),
            Some(top) => {
                let end = image.word(top + 8).and_then(|h| top.checked_add(h & !CHUNK_FLAGS));
                let start = end.and_then(|end| end.checked_sub(arena.system_mem));
                let is_base = |address: u64| match noncontiguous {
                    false => Some(address) == start,
                    true => starts_chunks(image, runs, address),
                };
                let params = params::find(image, copy, &is_base);
                known.extend(params.map(|params| (arena.system_mem, params)));
                let base = params.map(|params| params.sbrk_base);
                match noncontiguous {
                    false => heaps.main(index, top, arena.system_mem),
                    true => heaps.main_scattered(index, top, arena.system_mem, base),
                }
            }
        };
        arena.foreign_bytes = extent.foreign;
        if extent.heaps + extent.foreign != arena.system_mem {
            heaps.doubts.push(Doubt { what: What::SystemMemDiffers, address });
        }
        if image.half(address) != Some(0) {
            heaps.doubts.push(Doubt { what: What::Locked, address });
        }
        malloc.arenas.push(arena);
    }
}

/// The arena at `address`, and whether its memory is not from sbrk alone.
fn arena(image: &Image, address: u64, main: bool, layout: &Layout) -> (Arena, bool) {
    let word = |offset| image.word(address.checked_add(offset)?);
    let no_top = address.checked_add(layout.bins - BIN_AS_CHUNK);
    let arena = Arena {
        address,
        main,
        versions: layout.versions,
        system_mem: word(layout.system_mem).unwrap_or(0),
        max_system_mem: word(layout.system_mem + 8).unwrap_or(0),
        foreign_bytes: 0,
        attached_threads: layout.attached.and_then(word),
        top: word(layout.bins - 16).filter(|top| Some(*top) != no_top && top % 16 == 0),
    };
    let flags = image.half(address.saturating_add(FLAGS)).unwrap_or(0);
    (arena, flags & NONCONTIGUOUS != 0)
}

/// True if a heap can begin at `address`.
fn starts_chunks(image: &Image, runs: &[(u64, u64)], address: u64) -> bool {
    let Some(run) = run_at(runs, address) else { return false };
    let first = address.next_multiple_of(16);
    let head = image.word(first + 8).unwrap_or(0);
    head & CHUNK_FLAGS == PREV_INUSE && walk::follow(&mut Words::new(image), first, run.1, None)
}

/// What only lists can tell.
fn mark(image: &Image, copies: &[Found], malloc: &mut Malloc) {
    let mut book = Book { image, heaps: &mut malloc.heaps, doubts: &mut malloc.doubts };
    for copy in copies {
        for &address in &copy.ring {
            book.unsorted(address, copy.layout);
            book.fast(address, copy.layout);
        }
    }
    let tcaches = book.tcaches();
    (malloc.tcaches, malloc.tcache_key) = (tcaches.structs, tcaches.key);
}
