//! What was found.

use crate::chunk::{Chunk, State};
use crate::heap::Heap;
use crate::others::OtherAllocator;
use crate::params::Thresholds;

/// malloc as it was found in an image.
#[derive(Debug, Default)]
pub struct Malloc {
    /// glibc's arenas: a main one, then those of threads, in the order of their ring. Empty if
    /// there is no glibc, or nobody has called its malloc.
    pub arenas: Vec<Arena>,
    /// Their heaps, by address, without overlap.
    pub heaps: Vec<Heap>,
    /// Chunks with a mapping of their own, by address, without overlap.
    pub mmapped: Vec<Mmapped>,
    /// malloc's parameters as they were; `None` if they weren't found with certainty.
    pub thresholds: Option<Thresholds>,
    /// Where the threads' caches (`tcache_perthread_struct`) are that held at least one chunk.
    pub tcaches: Vec<u64>,
    /// The second word of every chunk in a tcache (2.34 and later).
    pub tcache_key: Option<u64>,
    /// Allocators that aren't glibc's.
    pub others: Vec<OtherAllocator>,
    /// What didn't fit. Empty for a process that stood while no thread was inside malloc.
    pub doubts: Vec<Doubt>,
}

/// An arena of glibc's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena {
    /// Address of its `malloc_state`.
    pub address: u64,
    /// It is a main arena, the one that grows by sbrk. Each copy of glibc has one.
    pub main: bool,
    /// glibc versions that have this layout.
    pub versions: &'static str,
    /// Bytes that it says it has from the system.
    pub system_mem: u64,
    /// The most that it ever had, bytes.
    pub max_system_mem: u64,
    /// Bytes between its heaps that are not its own but that it counts: the program (or someone
    /// else) has called sbrk. Where a chunk is broken, also what couldn't be read behind it.
    pub foreign_bytes: u64,
    /// Number of threads that use it; `None` before 2.23.
    pub attached_threads: Option<u64>,
    /// Address of its top chunk; `None` if it has none yet.
    pub top: Option<u64>,
}

/// A chunk with a mapping of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mmapped {
    /// First address of the mapping: in front of the chunk if that had to be aligned.
    pub base: u64,
    /// The chunk; it ends with the mapping.
    pub chunk: Chunk,
}

impl Mmapped {
    /// Bytes of the mapping.
    pub fn bytes(&self) -> u64 {
        self.chunk.end() - self.base
    }
}

/// Something that didn't fit: the image was torn, a thread was inside malloc, the program has
/// overwritten malloc's words, or this crate doesn't know enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Doubt {
    /// What it is.
    pub what: What,
    /// Where.
    pub address: u64,
}

/// See [`Doubt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum What {
    /// The arena is locked: a thread is inside malloc, its lists may be half-changed.
    Locked,
    /// No heap was found for the arena, or for a part of it.
    HeapMissing,
    /// No chunk can be here, and the heap's chunks end: those behind are found again elsewhere.
    ChunkBroken,
    /// The size behind a free chunk isn't its size.
    FootBroken,
    /// A list leads here, where no chunk is that could be in it.
    ListBroken,
    /// The arena's heaps don't add up to what it says it has.
    SystemMemDiffers,
    /// The chunks with their own mapping don't add up to what malloc says there are.
    MmappedDiffer,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            What::Locked => "arena is locked",
            What::HeapMissing => "heap not found",
            What::ChunkBroken => "no chunk can be here",
            What::FootBroken => "foot of a free chunk differs from its head",
            What::ListBroken => "list leads to no chunk of its kind",
            What::SystemMemDiffers => "heaps don't add up to system_mem",
            What::MmappedDiffer => "mmapped chunks don't add up to mmapped_mem",
        })
    }
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}: {}", self.address, self.what)
    }
}

/// Chunks and their bytes, heads included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of chunks.
    pub chunks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Sums over all chunks, and the numbers of `mallinfo2` (mallinfo(3)) made from them, bytes
/// unless named otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    by_state: [Sum; State::ALL.len()],
    /// heap_info, malloc_state and alignment in front of the heaps' chunks.
    pub heads: u64,
    /// Memory between heaps that an arena counts but doesn't own.
    pub foreign: u64,
    /// Heaps, heads and foreign memory: mallinfo's `arena`.
    pub arena: u64,
    /// All of `arena` that isn't `fordblks`: in use, in tcaches, fenceposts, `heads`, `foreign`.
    pub uordblks: u64,
    /// Free: top, bins, unsorted and fast. Chunks in tcaches are not among them.
    pub fordblks: u64,
    /// Free, in fast bins.
    pub fsmblks: u64,
    /// Number of chunks with their own mapping.
    pub hblks: u64,
    /// Bytes of these mappings. From 2.43 on, malloc's own number grows by 16 too much each time
    /// that such a chunk is resized by mremap (`mremap_chunk` takes the size without the 16 bytes
    /// in front off again).
    pub hblkhd: u64,
}

impl Totals {
    /// Chunks in `state`. Those with their own mapping are all [`State::Mmapped`], even if one is
    /// in a tcache (since 2.42, and only if `glibc.malloc.tcache_max` was raised).
    pub fn of(&self, state: State) -> Sum {
        self.by_state[state as usize]
    }

    fn add(&mut self, chunk: Chunk) {
        let sum = &mut self.by_state[chunk.state() as usize];
        sum.chunks += 1;
        sum.bytes += chunk.size();
    }
}

impl Malloc {
    /// The chunk that `address` lies in, its head included.
    #[inline]
    pub fn chunk_at(&self, address: u64) -> Option<Chunk> {
        if let Some(heap) = self.heap_at(address) {
            return heap.get(heap.find(address)?);
        }
        let after = self.mmapped.partition_point(|m| m.chunk.start() <= address);
        let chunk = self.mmapped.get(after.checked_sub(1)?)?.chunk;
        (address < chunk.end()).then_some(chunk)
    }

    /// The heap that `address` lies in.
    #[inline]
    pub fn heap_at(&self, address: u64) -> Option<&Heap> {
        let after = self.heaps.partition_point(|heap| heap.start <= address);
        let heap = self.heaps.get(after.checked_sub(1)?)?;
        (address < heap.end).then_some(heap)
    }

    /// All chunks: those in heaps by address, then those with their own mapping by address.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        let mmapped = self.mmapped.iter().map(|m| m.chunk);
        self.heaps.iter().flat_map(Heap::chunks).chain(mmapped)
    }

    /// Sums over everything.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for heap in &self.heaps {
            heap.chunks().for_each(|chunk| totals.add(chunk));
            totals.heads += heap.head_bytes;
            totals.arena += heap.end - heap.start;
        }
        totals.foreign = self.arenas.iter().map(|arena| arena.foreign_bytes).sum();
        totals.arena += totals.foreign;
        totals.fsmblks = totals.of(State::Fast).bytes;
        totals.fordblks = [State::Top, State::SmallBin, State::LargeBin, State::Unsorted]
            .map(|state| totals.of(state).bytes)
            .iter()
            .sum::<u64>()
            + totals.fsmblks;
        let used = [State::InUse, State::Tcache, State::Fencepost];
        let used: u64 = used.map(|state| totals.of(state).bytes).iter().sum();
        totals.uordblks = used + totals.heads + totals.foreign;
        totals.hblks = self.mmapped.len() as u64;
        for mmapped in &self.mmapped {
            totals.add(mmapped.chunk);
            totals.hblkhd += mmapped.bytes();
        }
        totals
    }
}
