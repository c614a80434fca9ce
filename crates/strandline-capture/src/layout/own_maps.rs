//! What a reader of the process's memory finds the agent's own memory by, and a block's tag in it.

use core::sync::atomic::AtomicU64;

/// First two words of [`OwnMaps`], by which a reader of the process's memory finds it.
pub const OWN_MAPS_MAGIC: [u64; 2] =
    [u64::from_le_bytes(*b"strand\xf0\x9f"), u64::from_le_bytes(*b"own maps")];
/// Capacity of [`OwnMaps::maps`].
pub const MAX_OWN_MAPS: usize = 253;
/// A part of the file name under which a process has the agent's library mapped.
pub const AGENT_NAME: &str = "memfd:strandline-agent";
/// The same of the capture.
pub const CAPTURE_NAME: &str = "memfd:strandline-capture";

/// Where the tag of the block at `block` is (`--stacks`): its pool's word in the table of pools at
/// `pools`. Pools have `1 << shift` bytes.
pub const fn pool_word(pools: u64, block: u64, shift: u32) -> u64 {
    pools + (block >> shift) * 8
}

/// Where the entry of the block at `block` is, a `u32` with the tag from bit 10 on, given its
/// pool's word; `None`: the pool has none. `size` is that of a block.
pub const fn pool_entry(word: u64, block: u64, shift: u32, size: u64) -> Option<u64> {
    let slab = word >> POOL_SLAB_SHIFT;
    let offset = block & ((1 << shift) - 1);
    if slab == 0 || size == 0 || offset < POOL_HEADER {
        return None;
    }
    Some(slab + (offset - POOL_HEADER) / size * 8)
}

/// Where in a pool's word the address of its entries begins; they are there for blocks of one size.
pub const POOL_SLAB_SHIFT: u32 = 16;
/// Bytes in front of a pool's first block (pool_header, Objects/obmalloc.c).
pub const POOL_HEADER: u64 = 48;

/// The agent's own anonymous memory, in its library's data: for a census, which finds it there.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct OwnMaps {
    /// [`OWN_MAPS_MAGIC`].
    pub magic: [u64; 2],
    /// Entries used; may pass [`MAX_OWN_MAPS`], the rest isn't listed.
    pub count: AtomicU64,
    /// `--stacks`: address of the table of pools, by which a block's tag is found
    /// ([`pool_entry`]); 0: there is none.
    pub pools: AtomicU64,
    /// `--stacks`: address of the table by which the tag of a chunk of malloc is found
    /// ([`chunk_gib`]); 0: there is none.
    pub chunks: AtomicU64,
    /// Padding.
    pub reserved: u64,
    /// Address of the first byte, address after the last.
    pub maps: [[AtomicU64; 2]; MAX_OWN_MAPS],
}
