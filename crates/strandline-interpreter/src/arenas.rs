//! Arenas and pools of CPython's small-object allocator, down to the free list of each pool.
//!
//! A pool is checked against itself: blocks on its free list, blocks never handed out and its
//! count of blocks in use must add up to its capacity. One that doesn't is *torn* (it was being
//! changed while it was read) and its blocks are counted as nothing else.
//!
//! Facts: struct pool_header and its lists, Objects/obmalloc.c, the same from 2.7 to 3.15.

use std::borrow::Cow;

use rayon::prelude::*;

use strandline_cpython::Obmalloc;
use strandline_image::Image;

use crate::states::{arena_object, AllocatorState, ArenaObject};
use crate::Doubts;

/// What a pool is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolState {
    /// It has blocks in use.
    Used,
    /// It is on the arena's list of free pools.
    Free,
    /// It was never carved off.
    Uncarved,
    /// What it says of itself doesn't add up.
    Torn,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// What it is used for.
    pub state: PoolState,
    /// Size of its blocks, bytes; 0 if none.
    pub block: u32,
    /// Blocks in use.
    pub live: u32,
    /// Blocks on its free list.
    pub freed: u32,
    /// Blocks never handed out since it was carved or changed its class.
    pub untouched: u32,
    /// A bit for each block that is in use.
    pub bits: Vec<u64>,
}

impl Pool {
    fn empty(state: PoolState) -> Self {
        Pool { state, block: 0, live: 0, freed: 0, untouched: 0, bits: Vec::new() }
    }

    /// Blocks that fit.
    pub fn capacity(&self) -> u32 {
        self.live + self.freed + self.untouched
    }

    /// True if block `index` is in use.
    pub fn is_live(&self, index: u32) -> bool {
        self.bits.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 != 0)
    }
}

/// An arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena<'a> {
    /// Index of the allocator's state it belongs to.
    pub state: usize,
    /// Its first byte.
    pub start: u64,
    /// Its size, bytes.
    pub size: u64,
    /// Address of its first pool.
    pub first_pool: u64,
    /// Its pools, in order.
    pub pools: Vec<Pool>,
    /// Its bytes; pages that weren't resident are zero.
    pub bytes: Cow<'a, [u8]>,
}

impl Arena<'_> {
    /// Address behind its last byte.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }

    /// Address of pool `index`.
    pub fn pool_address(&self, index: usize, o: &Obmalloc) -> u64 {
        self.first_pool + index as u64 * o.pool_size as u64
    }

    /// Blocks in use.
    pub fn live(&self) -> u64 {
        self.pools.iter().map(|p| p.live as u64).sum()
    }
}

/// The bytes from `start`, zero where they weren't resident.
fn bytes_of(image: &Image, start: u64, len: usize) -> Cow<'_, [u8]> {
    if let Some(bytes) = image.slice(start, len) {
        return Cow::Borrowed(bytes);
    }
    let mut all = vec![0; len];
    let end = start + len as u64;
    for (at, bytes) in image.slices(start, end) {
        let offset = (at - start) as usize;
        all[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    Cow::Owned(all)
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Reads a carved pool that isn't free. `None` if it doesn't add up.
fn read_pool(bytes: &[u8], address: u64, index: u64, o: &Obmalloc) -> Option<Pool> {
    let class = half(bytes, o.pool_szidx as usize)?;
    if class >= o.small_request_max as u32 / o.alignment as u32
        || half(bytes, o.pool_arenaindex as usize)? as u64 != index
    {
        return None;
    }
    let block = (class + 1) * o.alignment as u32;
    let header = o.pool_header as u32;
    let capacity = (o.pool_size - header) / block;
    let next = half(bytes, o.pool_nextoffset as usize)?;
    let most = half(bytes, o.pool_maxnextoffset as usize)?;
    if most != o.pool_size - block || next < header || (next - header) % block != 0 {
        return None;
    }
    // `most` is the last offset at which a block fits; blocks lie at header + n * block.
    let handed_out = ((next - header) / block).min(capacity);
    let mut bits = vec![0u64; capacity.div_ceil(64) as usize];
    for i in 0..handed_out {
        bits[i as usize / 64] |= 1 << (i % 64);
    }
    let mut freed = 0;
    let mut at = word(bytes, o.pool_freeblock as usize)?;
    while at != 0 {
        let offset = at.checked_sub(address)?;
        if offset < header as u64 || offset >= o.pool_size as u64 || freed >= handed_out {
            return None;
        }
        let offset = offset as u32 - header;
        let i = offset / block;
        let word_of = bits.get_mut(i as usize / 64)?;
        if offset % block != 0 || *word_of >> (i % 64) & 1 == 0 {
            return None;
        }
        *word_of &= !(1 << (i % 64));
        freed += 1;
        at = word(bytes, (offset + header) as usize)?;
    }
    let live = handed_out - freed;
    let untouched = capacity - handed_out;
    (half(bytes, o.pool_count as usize)? == live).then_some(Pool {
        state: PoolState::Used,
        block,
        live,
        freed,
        untouched,
        bits,
    })
}

/// Indices of the pools on the arena's free list.
fn free_list(bytes: &[u8], a: &ArenaObject, first: u64, o: &Obmalloc, pools: usize) -> Vec<bool> {
    let mut free = vec![false; pools];
    let mut at = a.first_free;
    for _ in 0..pools {
        let Some(offset) = at.checked_sub(first) else { break };
        let index = (offset / o.pool_size as u64) as usize;
        match free.get_mut(index) {
            Some(seen) if offset % o.pool_size as u64 == 0 && !*seen => *seen = true,
            _ => break,
        }
        let next = (at - a.address) as usize + o.pool_nextpool as usize;
        at = word(bytes, next).unwrap_or(0);
    }
    free
}

fn read_arena<'a>(
    image: &'a Image,
    state: (usize, &AllocatorState),
    index: u64,
    a: ArenaObject,
    o: &Obmalloc,
) -> (Arena<'a>, Doubts) {
    let mut doubts = Doubts::default();
    let bytes = bytes_of(image, a.address, state.1.arena_size as usize);
    let size = o.pool_size as u64;
    let first = a.address.next_multiple_of(size);
    let count = ((a.address + state.1.arena_size - first) / size) as usize;
    let free = free_list(&bytes, &a, first, o, count);
    let carved = (a.pool_address.saturating_sub(first) / size) as usize;
    let mut pools = Vec::with_capacity(count);
    for (i, &is_free) in free.iter().enumerate() {
        let address = first + i as u64 * size;
        let at = (address - a.address) as usize;
        pools.push(if i >= carved {
            Pool::empty(PoolState::Uncarved)
        } else if is_free {
            Pool::empty(PoolState::Free)
        } else {
            read_pool(&bytes[at..at + size as usize], address, index, o).unwrap_or_else(|| {
                doubts.add(address, "a pool whose counts don't add up");
                Pool::empty(PoolState::Torn)
            })
        });
    }
    let unused = pools.iter().filter(|p| matches!(p.state, PoolState::Free | PoolState::Uncarved));
    if unused.count() != a.free_pools as usize {
        doubts.add(a.address, "an arena whose free pools don't add up");
    }
    let arena = Arena {
        state: state.0,
        start: a.address,
        size: state.1.arena_size,
        first_pool: first,
        pools,
        bytes,
    };
    (arena, doubts)
}

/// All arenas of `states`, by address. Arenas that overlap an earlier one are doubts.
pub(crate) fn read<'a>(
    image: &'a Image,
    states: &[AllocatorState],
    o: &Obmalloc,
    doubts: &mut Doubts,
) -> Vec<Arena<'a>> {
    let mut entries = Vec::new();
    for (number, state) in states.iter().enumerate() {
        for index in 0..state.length {
            let Some(a) = arena_object(image, state.arenas, index) else { break };
            let pools = state.arena_size / o.pool_size as u64;
            let total = a.total_pools as u64;
            if a.address == 0 {
                continue;
            }
            let inside = a
                .address
                .checked_add(state.arena_size)
                .is_some_and(|end| (a.address..=end).contains(&a.pool_address));
            if !inside || total > pools || total + 1 < pools {
                doubts.add(state.arenas + index * 48, "an arena object that can't be right");
                continue;
            }
            entries.push((number, state, index, a));
        }
    }
    entries.sort_by_key(|e| e.3.address);
    let mut end = 0;
    entries.retain(|(_, state, _, a)| {
        let fits = a.address >= end;
        if fits {
            end = a.address + state.arena_size;
        } else {
            doubts.add(a.address, "an arena that overlaps another");
        }
        fits
    });
    let read: Vec<_> = entries
        .into_par_iter()
        .map(|(number, state, index, a)| read_arena(image, (number, state), index, a, o))
        .collect();
    let mut arenas = Vec::with_capacity(read.len());
    for (arena, more) in read {
        doubts.append(more);
        arenas.push(arena);
    }
    arenas
}
