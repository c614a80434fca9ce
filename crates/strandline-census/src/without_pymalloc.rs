//! What a process would hold less if malloc had the small objects as well, and were trimmed:
//! `PYTHONMALLOC=malloc` and `malloc_trim(0)`, an estimate with its bounds.
//!
//! Facts: a request of malloc takes 8 bytes more, rounded up to 16, and 32 at least
//! (`request2size`, glibc malloc/malloc.c); one of pymalloc is rounded up to its alignment
//! (`ALIGNMENT`, CPython Objects/obmalloc.c).

use strandline_image::{Image, PAGE};
use strandline_interpreter::{Block, TypeInfo};

use crate::chunks::Python;

/// What `malloc_trim` leaves of a free chunk for its head, bytes: `sizeof (struct malloc_chunk)`
/// (`mtrim`, glibc malloc/malloc.c).
const HEAD: u64 = 48;
/// Chunks stand at multiples of so many bytes (`MALLOC_ALIGNMENT`).
const CHUNK_ALIGNMENT: u64 = 16;

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

/// What is resident of a heap in which the blocks of all arenas stand in their order, bytes.
#[derive(Default)]
struct Heap {
    bytes: u64,
    /// Where the last block ends, if it stood in this arena.
    end: u64,
    /// Bytes of a pool's header.
    header: u64,
}

impl Heap {
    /// From here on blocks are of the arena that starts at `start`, after one that ends at `end`.
    fn goes_on(&mut self, start: u64, end: Option<u64>) {
        let left = end.map_or(0, |end| end.saturating_sub(self.end));
        self.end = start.saturating_sub(left);
    }

    /// Puts a block of `size` bytes there, of which malloc makes `chunk`. Of what is free in front of
    /// it malloc gives back what is expected of a range that begins anywhere in a page, for a chunk
    /// doesn't end where a page does.
    fn put(&mut self, start: u64, size: u64, chunk: u64) {
        let all = PAGE - CHUNK_ALIGNMENT + HEAD;
        let gap = start.saturating_sub(self.end);
        // Between full pools are a header and what is too small for a block.
        let gap = if gap < size + self.header && gap % size.max(1) != 0 { 0 } else { gap };
        self.bytes += gap.min(all) + chunk;
        self.end = start + size;
    }
}

/// Works it out; `trimmed`: what malloc_trim(0) returns as it is.
pub fn estimate(image: &Image, pythons: &[Python<'_>], trimmed: u64) -> Estimate {
    let mut e = Estimate { bytes: trimmed as i64, least: 0, most: trimmed as i64 };
    for p in pythons {
        let infos = p.types.list();
        let header = p.interpreter.layout.obmalloc.pool_header as u64;
        let alignment = p.interpreter.layout.obmalloc.alignment as u64;
        let mut heap = Heap { header, ..Heap::default() };
        let mut last = None;
        for (number, arena) in p.blocks.arenas().iter().enumerate() {
            let resident = image.resident_bytes(arena.start, arena.end());
            let mut blocks = 0;
            heap.goes_on(arena.start, last.replace(arena.end()));
            for (at, block, bytes) in p.blocks.of_arena(number) {
                let size = at.size as u64;
                let request = request(block, bytes, &infos, p.types.base());
                let (least, most) = more(size, request, alignment);
                blocks += image.resident_bytes(at.start, at.start + size);
                heap.put(at.start, size, size.saturating_add_signed((least + most) / 2));
                e.least -= most;
                e.most -= least;
            }
            e.bytes += resident as i64;
            e.most += resident.saturating_sub(blocks) as i64;
        }
        e.bytes -= heap.bytes as i64;
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_alone_keeps_its_page_and_the_head_of_what_is_free() {
        let of = |blocks: &[(u64, u64, u64)]| {
            let mut heap = Heap { header: 48, ..Heap::default() };
            heap.goes_on(0x1000, None);
            blocks.iter().for_each(|&(start, size, chunk)| heap.put(start, size, chunk));
            heap
        };
        let bytes = |blocks: &[(u64, u64, u64)]| of(blocks).bytes;
        let all = PAGE - 16 + 48;
        assert_eq!(bytes(&[]), 0);
        assert_eq!(bytes(&[(0x1030, 64, 80)]), 80);
        // Between full pools is nothing that malloc would have.
        assert_eq!(bytes(&[(0x1fa0, 64, 80), (0x2030, 64, 80)]), 0xfa0 + 160);
        // What is free between two of them stays, until it is more than a page.
        assert_eq!(bytes(&[(0x1030, 64, 80), (0x10b0, 64, 80)]), 224);
        assert_eq!(bytes(&[(0x1030, 64, 80), (0x9000, 64, 80)]), all + 160);
        // What is free at the end of an arena goes on in the next one.
        let mut heap = of(&[(0x1030, 64, 80)]);
        heap.goes_on(0x8000, Some(0x10c0));
        heap.put(0x8030, 64, 80);
        assert_eq!(heap.bytes, 160 + 0x80);
    }

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
