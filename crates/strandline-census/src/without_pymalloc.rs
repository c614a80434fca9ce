//! What a process would hold less if malloc had the small objects as well, and were trimmed:
//! `PYTHONMALLOC=malloc` and `malloc_trim(0)`, an estimate with its bounds.
//!
//! Facts: a request of malloc takes 8 bytes more, rounded up to 16, and 32 at least
//! (`request2size`, glibc malloc/malloc.c); one of pymalloc is rounded up to its alignment
//! (`ALIGNMENT`, CPython Objects/obmalloc.c).

use strandline_image::{Image, PAGE};
use strandline_interpreter::{Block, TypeInfo};

use crate::chunks::Python;

/// Bytes of RSS that would come back; negative: that it would cost.
#[derive(Clone, Copy, Default)]
pub struct Estimate {
    /// If the objects stood where they stand.
    pub bytes: i64,
    /// The least: if nothing came back, for some object stood on each page.
    pub least: i64,
    /// The most: if they stood side by side.
    pub most: i64,
}

/// The chunk that malloc makes of a request, bytes.
fn chunk(request: u64) -> u64 {
    (request + 8).next_multiple_of(16).max(32)
}

/// What malloc needs more than the block of `size` bytes: the least and the most. `request`: what
/// was asked for, if that is known; `alignment`: pymalloc's.
fn more(size: u64, request: Option<u64>, alignment: u64) -> (i64, i64) {
    let of = |request: u64| chunk(request) as i64 - size as i64;
    match request {
        Some(request) => (of(request), of(request)),
        None => (of(size.saturating_sub(alignment) + 1), of(size)),
    }
}

/// The bytes of an object that its type says it has, in a block of `bytes`.
fn request(block: Block, bytes: &[u8], infos: &[TypeInfo], base: u32) -> Option<u64> {
    let (Block::Object(id) | Block::Dead(id)) = block else { return None };
    let info = infos.get(id.checked_sub(base)? as usize)?;
    info.has_extent().then(|| info.extent(bytes) as u64)
}

/// Works it out; `trimmed`: what malloc_trim(0) returns as it is.
pub fn estimate(image: &Image, pythons: &[Python<'_>], trimmed: u64) -> Estimate {
    let mut e = Estimate { bytes: trimmed as i64, least: 0, most: trimmed as i64 };
    for p in pythons {
        let infos = p.types.list();
        let alignment = p.interpreter.layout.obmalloc.alignment as u64;
        for (number, arena) in p.blocks.arenas().iter().enumerate() {
            let resident = image.resident_bytes(arena.start, arena.end());
            let (mut pages, mut blocks, mut last) = (0, 0, 0);
            for (at, block, bytes) in p.blocks.of_arena(number) {
                let size = at.size as u64;
                let request = request(block, bytes, &infos, p.types.base());
                let (least, most) = more(size, request, alignment);
                blocks += image.resident_bytes(at.start, at.start + size);
                let first = (at.start / PAGE * PAGE).max(last);
                last = (at.start + size).next_multiple_of(PAGE).max(last);
                pages += image.resident_bytes(first, last);
                e.bytes -= (least + most) / 2;
                e.least -= most;
                e.most -= least;
            }
            e.bytes += resident.saturating_sub(pages) as i64;
            e.most += resident.saturating_sub(blocks) as i64;
        }
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_malloc_needs_more() {
        // An int of 28 bytes, a float of 24, the smallest block, a large one.
        assert_eq!(more(32, Some(28), 16), (16, 16));
        assert_eq!(more(32, Some(24), 16), (0, 0));
        assert_eq!(more(16, Some(16), 16), (16, 16));
        assert_eq!(more(512, Some(500), 16), (0, 0));
        // Not known: one of two.
        assert_eq!(more(64, None, 16), (0, 16));
        assert_eq!(more(64, None, 8), (16, 16));
        assert_eq!(more(72, None, 8), (8, 8));
        assert_eq!(more(16, None, 16), (16, 16));
    }
}
