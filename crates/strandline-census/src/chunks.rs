//! What is in every chunk of malloc that is in use.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rayon::prelude::*;

use strandline_image::Image;
use strandline_interpreter::{Block, Blocks, Cache, Interpreter, Types};
use strandline_malloc::{Chunk, Heap, Malloc};

/// An interpreter with all that was read of it.
pub struct Python<'a> {
    /// The interpreter.
    pub interpreter: Interpreter,
    /// Types that were met.
    pub types: Types,
    /// Its arenas.
    pub blocks: Blocks<'a>,
}

/// Bytes of a chunk that are enough to see an object's header.
const HEAD: u64 = 96;

/// The chunks and what they hold.
pub struct Chunks<'a> {
    malloc: &'a Malloc,
    heaps: Vec<Vec<AtomicU32>>,
    mmapped: Vec<AtomicU32>,
}

fn kind(image: &Image, pythons: &[Python<'_>], caches: &mut [Cache], chunk: Chunk) -> AtomicU32 {
    if !chunk.state().is_used() {
        return AtomicU32::new(Block::Free.pack());
    }
    let head = image.slice(chunk.user(), chunk.usable().min(HEAD) as usize);
    let object = head.and_then(|head| {
        pythons
            .iter()
            .zip(caches)
            .find_map(|(p, cache)| p.blocks.object_in(image, &p.types, cache, head, chunk.usable()))
    });
    AtomicU32::new(object.unwrap_or(Block::Raw).pack())
}

impl<'a> Chunks<'a> {
    /// Finds the objects in `malloc`'s chunks.
    pub fn read(image: &Image, malloc: &'a Malloc, pythons: &[Python<'_>]) -> Self {
        let caches = || pythons.iter().map(|_| Cache::default()).collect::<Vec<_>>();
        let heaps = malloc
            .heaps
            .par_iter()
            .map(|heap| {
                (0..heap.len())
                    .into_par_iter()
                    .with_min_len(4096)
                    .map_init(caches, |caches, number| match heap.get(number) {
                        Some(chunk) => kind(image, pythons, caches, chunk),
                        None => AtomicU32::new(Block::Free.pack()),
                    })
                    .collect()
            })
            .collect();
        let mut own = caches();
        let mmapped =
            malloc.mmapped.iter().map(|m| kind(image, pythons, &mut own, m.chunk)).collect();
        Chunks { malloc, heaps, mmapped }
    }

    /// The chunk that `address` lies in and what it holds.
    #[inline]
    pub fn at(&self, address: u64) -> Option<(Chunk, &AtomicU32)> {
        let after = self.malloc.heaps.partition_point(|heap| heap.start <= address);
        if let Some(i) = after.checked_sub(1) {
            let heap = &self.malloc.heaps[i];
            if address < heap.end {
                let number = heap.find(address)?;
                return Some((heap.get(number)?, self.heaps.get(i)?.get(number)?));
            }
        }
        let after = self.malloc.mmapped.partition_point(|m| m.chunk.start() <= address);
        let i = after.checked_sub(1)?;
        let chunk = self.malloc.mmapped.get(i)?.chunk;
        (address < chunk.end()).then_some((chunk, self.mmapped.get(i)?))
    }

    /// All chunks with what they hold.
    pub fn all(&self) -> impl Iterator<Item = (Chunk, &AtomicU32)> {
        let heaps = self.malloc.heaps.iter().zip(&self.heaps);
        let of_heaps = heaps.flat_map(|(heap, kinds)| heap.chunks().zip(kinds));
        of_heaps.chain(self.malloc.mmapped.iter().map(|m| m.chunk).zip(&self.mmapped))
    }

    /// The heaps, each with what its chunks hold.
    pub fn heaps(&self) -> impl Iterator<Item = (&Heap, &[AtomicU32])> {
        self.malloc.heaps.iter().zip(self.heaps.iter().map(Vec::as_slice))
    }

    /// What the chunks with mappings of their own hold, in malloc's order.
    pub fn mmapped(&self) -> &[AtomicU32] {
        &self.mmapped
    }

    /// Chunks that hold an object, or what an object holds.
    pub fn used(&self) -> impl Iterator<Item = (Chunk, Block)> + '_ {
        self.all().map(|(chunk, cell)| (chunk, Block::unpack(cell.load(Relaxed))))
    }
}
