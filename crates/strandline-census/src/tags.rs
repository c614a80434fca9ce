//! Of a process under `strandline run --stacks`: by which tag of its capture a block was allocated,
//! read from the agent's own tables in the process's memory.

use std::collections::BTreeMap;

use strandline_capture::layout::{chunk_entry, chunk_gib, pool_entry, pool_word, ChunkEntry};
use strandline_image::Image;

use crate::chunks::Python;
use crate::profiler;

/// Where the tags are.
pub struct Tags<'a> {
    image: &'a Image,
    pools: u64,
    chunks: u64,
}

impl<'a> Tags<'a> {
    /// The agent's tables in `image`, if there are any.
    pub fn find(image: &'a Image) -> Option<Tags<'a>> {
        let (pools, chunks) = profiler::tables(image)?;
        Some(Tags { image, pools, chunks })
    }

    /// The tag of the chunk whose address for its user is `user`, `bytes` long; 0: none.
    pub fn of_chunk(&self, user: u64, bytes: u64) -> u32 {
        let gib = self.image.word(chunk_gib(self.chunks, user)).filter(|&gib| gib != 0);
        let leaf = |word, offset| {
            let leaf = self.image.word(word).filter(|&leaf| leaf != 0)?;
            self.image.half(leaf + offset)
        };
        let tag = gib.and_then(|gib| match chunk_entry(gib, user, bytes) {
            ChunkEntry::Small { word, offset } => leaf(word, offset).map(|value| value >> 10),
            ChunkEntry::Large { word, offset } => leaf(word, offset),
            ChunkEntry::Huge(at) => self.image.half(at),
        });
        tag.unwrap_or(0)
    }

    /// The tag of the block of `size` bytes at `block` in a pool of `1 << shift` bytes; 0: none.
    fn of_block(&self, block: u64, shift: u32, size: u64) -> u32 {
        let word = self.image.word(pool_word(self.pools, block, shift));
        let entry = word.and_then(|word| pool_entry(word, block, shift, size));
        let value = entry.and_then(|entry| self.image.word(entry));
        value.map_or(0, |value| value as u32 >> 10)
    }

    /// Tag, number of blocks and bytes of all that is live in an arena, most blocks first.
    pub fn of_arena(&self, python: &Python<'_>, arena: usize) -> Vec<(u32, u64, u64)> {
        let shift = python.interpreter.layout.obmalloc.pool_size.trailing_zeros();
        let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for (at, _, bytes) in python.blocks.of_arena(arena) {
            let size = bytes.len() as u64;
            let sum = sums.entry(self.of_block(at.start, shift, size)).or_default();
            *sum = (sum.0 + 1, sum.1 + size);
        }
        let mut all: Vec<_> = sums.into_iter().map(|(tag, (n, bytes))| (tag, n, bytes)).collect();
        all.sort_by_key(|&(tag, n, _)| (std::cmp::Reverse(n), tag));
        all
    }
}
