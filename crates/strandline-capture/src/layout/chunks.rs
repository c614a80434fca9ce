//! Where a process that records call paths keeps the tags of malloc's chunks, for readers of its memory.

/// Where the address of the tables for the chunk of malloc at `chunk` is (`--stacks`): one word a
/// GiB of address space in the table at `roots`. `chunk` is the address that malloc handed out.
pub const fn chunk_gib(roots: u64, chunk: u64) -> u64 {
    roots + (chunk >> 30) * 8
}

/// Chunks of less than this, heads included, have their tag in a small leaf, bytes.
pub const CHUNK_LARGE: u64 = 512;
/// Chunks from this size on have theirs in the tables themselves, bytes.
pub const CHUNK_HUGE: u64 = 128 << 10;
/// Offsets in the tables for a GiB: addresses of leaves for small chunks, of leaves for large ones,
/// entries of huge ones.
pub const CHUNK_TABLES: [u64; 3] = [128 + (8 << 18), 128 + (8 << 18) + (8 << 15), CHUNK_HUGE_TABLE];
const CHUNK_HUGE_TABLE: u64 = 128 + (8 << 18) + (8 << 15) + (8 << 13);

/// Where the tag of a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkEntry {
    /// In a leaf, whose address is at `word`: at `offset` a `u32`, with the tag from bit 10 on.
    Small {
        /// Address of the leaf's address.
        word: u64,
        /// Bytes from the leaf's start.
        offset: u64,
    },
    /// The same, with a `u32` that is the tag.
    Large {
        /// Address of the leaf's address.
        word: u64,
        /// Bytes from the leaf's start.
        offset: u64,
    },
    /// At this address, a `u32`.
    Huge(u64),
}

/// Where the tag of the chunk at `chunk` is, `bytes` long with its head, given the address of its
/// GiB's tables.
pub const fn chunk_entry(gib: u64, chunk: u64, bytes: u64) -> ChunkEntry {
    let [small, large, huge] = CHUNK_TABLES;
    if bytes < CHUNK_LARGE {
        let word = gib + small + ((chunk >> 15) & 0x7fff) * 8;
        ChunkEntry::Small { word, offset: ((chunk >> 5) & 0x3ff) * 4 }
    } else if bytes < CHUNK_HUGE {
        let word = gib + large + ((chunk >> 17) & 0x1fff) * 8;
        ChunkEntry::Large { word, offset: ((chunk >> 9) & 0xff) * 16 + 8 }
    } else {
        ChunkEntry::Huge(gib + huge + ((chunk >> 17) & 0x1fff) * 16 + 8)
    }
}
