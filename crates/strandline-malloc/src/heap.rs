//! A heap: consecutive chunks, 8 bytes each here.

use crate::chunk::{Chunk, State};

/// Consecutive memory of an arena, all of it chunks but for its head.
#[derive(Clone)]
pub struct Heap {
    /// Which of [`Malloc::arenas`](crate::Malloc::arenas) it belongs to.
    pub arena: usize,
    /// First address.
    pub start: u64,
    /// Address after the last byte that malloc has taken into use.
    pub end: u64,
    /// Bytes in front of the first chunk: heap_info, malloc_state, alignment.
    pub head_bytes: u64,
    /// Per chunk, by address: start, and its state in the low 4 bits.
    packed: Vec<u64>,
    /// Per block of `1 << shift` bytes from the first chunk: how many chunks start before it.
    index: Vec<usize>,
    shift: u32,
}

impl Heap {
    /// `packed` (see the field) ends at `end`, ascends, and isn't empty.
    pub(crate) fn new(arena: usize, start: u64, end: u64, mut packed: Vec<u64>) -> Self {
        packed.shrink_to_fit();
        let first = packed.first().map_or(end, |word| word & !15);
        let span = end.saturating_sub(first);
        // A block has 8 chunks or more on average: the index is small beside the chunks.
        let blocks = packed.len() as u64 / 8 + 1;
        let shift = (span / blocks).max(1).ilog2() + 1;
        let mut index = Vec::with_capacity((span >> shift) as usize + 1);
        for (number, word) in packed.iter().enumerate() {
            let block = ((word & !15) - first) >> shift;
            while index.len() as u64 <= block {
                index.push(number);
            }
        }
        Heap { arena, start, end, head_bytes: first - start, packed, index, shift }
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.packed.len()
    }

    /// True if it has no chunk.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// The `number`th chunk by address.
    #[inline]
    pub fn get(&self, number: usize) -> Option<Chunk> {
        let word = *self.packed.get(number)?;
        let end = self.packed.get(number + 1).map_or(self.end, |next| next & !15);
        let start = word & !15;
        Some(Chunk::new(start, end - start, State::unpack(word)))
    }

    /// All chunks by address: without gaps from `start + head_bytes` to `end`.
    pub fn chunks(&self) -> impl DoubleEndedIterator<Item = Chunk> + ExactSizeIterator + '_ {
        (0..self.packed.len()).map(|number| {
            let word = self.packed[number];
            let end = self.packed.get(number + 1).map_or(self.end, |next| next & !15);
            Chunk::new(word & !15, end - (word & !15), State::unpack(word))
        })
    }

    /// Number of the chunk that `address` lies in.
    #[inline]
    pub fn find(&self, address: u64) -> Option<usize> {
        let first = self.packed.first()? & !15;
        if address < first || address >= self.end {
            return None;
        }
        let block = ((address - first) >> self.shift) as usize;
        // Chunks that start in a later block can't hold it; the last one that starts in an
        // earlier block may.
        let from = self.index.get(block).copied().unwrap_or(self.packed.len()).saturating_sub(1);
        let to = self.index.get(block + 1).copied().unwrap_or(self.packed.len());
        let within = self.packed.get(from..to)?;
        let after = within.partition_point(|word| word & !15 <= address);
        (from + after).checked_sub(1)
    }

    /// Number of the chunk that starts at `address`.
    #[inline]
    pub(crate) fn starting_at(&self, address: u64) -> Option<usize> {
        let number = self.find(address)?;
        (self.packed[number] & !15 == address).then_some(number)
    }

    pub(crate) fn set(&mut self, number: usize, state: State) {
        if let Some(word) = self.packed.get_mut(number) {
            *word = *word & !15 | state as u64;
        }
    }
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:#x}..{:#x} of arena {}, {} chunks",
            self.start,
            self.end,
            self.arena,
            self.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(starts: &[u64], end: u64) {
        let packed = starts.iter().map(|s| s | State::InUse as u64).collect();
        let heap = Heap::new(0, starts[0] - 0x10, end, packed);
        assert_eq!(heap.find(starts[0] - 1), None);
        assert_eq!(heap.find(end), None);
        for (number, chunk) in heap.chunks().enumerate() {
            assert_eq!(heap.get(number), Some(chunk));
            for at in [chunk.start(), chunk.start() + chunk.size() / 2, chunk.end() - 1] {
                assert_eq!(heap.find(at), Some(number), "{at:#x}");
            }
            assert_eq!(heap.starting_at(chunk.start()), Some(number));
            assert_eq!(heap.starting_at(chunk.start() + 8), None);
        }
        assert_eq!(heap.chunks().map(|c| c.size()).sum::<u64>(), end - starts[0]);
    }

    #[test]
    fn every_byte_finds_its_chunk() {
        check(&[0x1000], 0x1020);
        check(&[0x1000, 0x1020], 0x1000_0000_0000);
        check(&(0..1000).map(|n| 0x1000 + n * 32).collect::<Vec<_>>(), 0x1000 + 32_000);
        let mut starts: Vec<u64> = (0..5000).map(|n| 0x5000 + n * n * 16).collect();
        starts.dedup();
        check(&starts, 0x5000 + 5000 * 5000 * 16);
        let tail: Vec<u64> = (0..99).map(|n| 0x7000_0000_0000 + n * 32).collect();
        check(&[&[0x1000][..], &tail].concat(), 0x7000_0000_2000);
    }
}
