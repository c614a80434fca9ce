//! Finding `main_arena` without symbols.

use strandline_image::Image;

use crate::layout::{Layout, BINS, BIN_AS_CHUNK, HEAP_INFO_SIZES, LAYOUTS, NEXT};
use crate::memory::is_heap_like;

/// A copy of glibc.
pub(crate) struct Found {
    pub layout: &'static Layout,
    /// Addresses of its arenas, the main one first.
    pub ring: Vec<u64>,
    /// The mapping that `main_arena` is in.
    pub data: (u64, u64),
}

/// Arenas of one copy of glibc that are believed: there are 8 to a core unless asked for more.
const MOST_ARENAS: usize = 1 << 16;
/// Empty lists that are tried in one mapping: a copy of glibc has 127, CPython's obmalloc 64.
const MOST_LISTS: usize = 1 << 14;
/// Mappings above this size are no data of a packed executable's.
const MOST_ANONYMOUS: u64 = 16 << 20;

/// All main arenas.
pub(crate) fn main_arenas(image: &Image) -> Vec<Found> {
    let mut found = Vec::new();
    // Initialised data of a library or an executable; if there is none of glibc's, small
    // anonymous memory, where packers unpack it.
    for anonymous in [false, true] {
        for mapping in image.mappings() {
            let likely = match anonymous {
                false => mapping.write && !mapping.shared && !mapping.is_anonymous(),
                true => is_heap_like(mapping) && mapping.end - mapping.start <= MOST_ANONYMOUS,
            };
            if likely {
                search(image, (mapping.start, mapping.end), &mut found);
            }
        }
        if !found.is_empty() {
            break;
        }
    }
    found
}

fn search(image: &Image, data: (u64, u64), found: &mut Vec<Found>) {
    let mut tries = 0;
    for (start, bytes) in image.pieces() {
        let end = start.saturating_add(bytes.len() as u64).min(data.1);
        let from = start.max(data.0).next_multiple_of(8);
        if from >= end {
            continue;
        }
        let bytes = &bytes[(from - start) as usize..(end - start) as usize];
        let words = || bytes.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap()));
        let mut behind = 0;
        for (number, (word, next)) in words().zip(words().skip(1)).enumerate() {
            let bin = from + number as u64 * 8;
            if word != next || word.wrapping_add(BIN_AS_CHUNK) != bin || bin < behind {
                continue;
            }
            tries += 1;
            if tries > MOST_LISTS {
                return;
            }
            if let Some((layout, ring)) = arena_of(image, bin) {
                behind = ring[0] + layout.size;
                found.push(Found { layout, ring, data });
            }
        }
    }
}

/// The layout and the ring of the main arena that has an empty bin at `bin`.
fn arena_of(image: &Image, bin: u64) -> Option<(&'static Layout, Vec<u64>)> {
    for number in 0..BINS {
        let bins = bin.checked_sub(number * 16)?;
        for layout in &LAYOUTS {
            let Some(arena) = bins.checked_sub(layout.bins) else { continue };
            if let Some(ring) = ring(image, arena, layout) {
                return Some((layout, ring));
            }
        }
    }
    None
}

/// The ring of arenas that `main` is in, if it is one of `layout`.
fn ring(image: &Image, main: u64, layout: &Layout) -> Option<Vec<u64>> {
    let next = |arena: u64| image.word(arena.checked_add(layout.bins + NEXT)?);
    let mut at = next(main)?;
    if at == 0 || at % 8 != 0 || !has_sane_numbers(image, main, layout) {
        return None;
    }
    let mut ring = vec![main];
    while at != main {
        if ring.len() >= MOST_ARENAS || heap_info_size(image, at).is_none() {
            return None;
        }
        ring.push(at);
        at = next(at)?;
    }
    Some(ring)
}

fn has_sane_numbers(image: &Image, arena: u64, layout: &Layout) -> bool {
    let word = |offset| image.word(arena.checked_add(offset)?);
    let (Some(top), Some(system_mem), Some(max_system_mem)) =
        (word(layout.bins - 16), word(layout.system_mem), word(layout.system_mem + 8))
    else {
        return false;
    };
    let attached = layout.attached.map_or(Some(0), word);
    if system_mem > max_system_mem || attached.is_none_or(|threads| threads > 1 << 22) {
        return false;
    }
    // Without memory, the unsorted list stands in for top (`initial_top`).
    let no_top = arena + layout.bins - BIN_AS_CHUNK;
    if system_mem == 0 {
        return top == no_top;
    }
    top % 16 == 0 && image.mapping_at(top).is_some_and(is_heap_like)
}

/// Size of the `heap_info` in front of a thread's arena; `None` if there is none.
pub(crate) fn heap_info_size(image: &Image, arena: u64) -> Option<u64> {
    HEAP_INFO_SIZES.into_iter().find(|size| {
        let Some(heap) = arena.checked_sub(*size) else { return false };
        heap % strandline_image::PAGE == 0
            && image.word(heap) == Some(arena)
            && image.word(heap + 8) == Some(0)
    })
}
