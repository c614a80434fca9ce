//! pymalloc's arenas and pools, and mimalloc's pages.

/// pymalloc (Objects/obmalloc.c; from 3.12
/// Include/internal/pycore_obmalloc.h).
///
/// A pool starts at a multiple of `pool_size`. Its block size in bytes is
/// `(szidx + 1) * alignment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obmalloc {
    /// `ARENA_SIZE`.
    pub arena_size: u32,
    /// `POOL_SIZE`.
    pub pool_size: u32,
    /// `ALIGNMENT`. 16 on every version measured; early micro versions of 2.7,
    /// 3.6 and 3.7 (before bpo-27987) had 8.
    pub alignment: u16,
    /// `SMALL_REQUEST_THRESHOLD`: larger requests go to the raw allocator.
    pub small_request_max: u16,
    /// `sizeof(struct pool_header)`: the first block of a pool starts here.
    pub pool_header: u16,
    /// `ref.count` in `struct pool_header`: `unsigned int`, blocks in use.
    pub pool_count: u16,
    /// `freeblock` in `struct pool_header`: pointer.
    pub pool_freeblock: u16,
    /// `nextpool` in `struct pool_header`: pointer.
    pub pool_nextpool: u16,
    /// `prevpool` in `struct pool_header`: pointer.
    pub pool_prevpool: u16,
    /// `arenaindex` in `struct pool_header`: `unsigned int`.
    pub pool_arenaindex: u16,
    /// `szidx` in `struct pool_header`: `unsigned int`, the size class.
    pub pool_szidx: u16,
    /// `nextoffset` in `struct pool_header`: `unsigned int`.
    pub pool_nextoffset: u16,
    /// `maxnextoffset` in `struct pool_header`: `unsigned int`.
    pub pool_maxnextoffset: u16,
    /// `DUMMY_SIZE_IDX`: the size class of a pool whose content is nothing yet. A pool that is
    /// taken into use with another class than it has is initialised anew
    /// (`allocate_from_new_pool`, in 2.7 `PyObject_Malloc`; Objects/obmalloc.c).
    pub fresh_szidx: u32,
    /// The pages of a free pool behind its first may be given back: pools have more than one
    /// page, and that nothing but `allocate_from_new_pool` reads a free pool's blocks was looked
    /// up in the sources of this version (3.10 to 3.13).
    pub free_pools_can_shrink: bool,
    /// `struct arena_object`.
    pub arena: ArenaObject,
}

/// `struct arena_object` (Objects/obmalloc.c, from 3.12
/// Include/internal/pycore_obmalloc.h): the same from 2.7 to 3.15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaObject {
    /// `sizeof(struct arena_object)`.
    pub size: u16,
    /// `address`: pointer, 0 if no arena is attached.
    pub address: u16,
    /// `pool_address`: pointer to the next pool to be carved off.
    pub pool_address: u16,
    /// `nfreepools`: `unsigned int`, pools not yet carved off included.
    pub free_pools: u16,
    /// `ntotalpools`: `unsigned int`.
    pub total_pools: u16,
    /// `freepools`: pointer to the first of the list of free pools.
    pub first_free: u16,
    /// `INITIAL_ARENA_OBJECTS`: first length of the array `arenas`; it doubles.
    pub first_length: u16,
}

/// mimalloc, which has the objects of free-threaded builds. A segment starts at a multiple of
/// `segment`; it is divided into slices, of which the first hold the segment's own data. A page is
/// one or more slices with blocks of one size; its `mi_page_t` is the entry of its first slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mimalloc {
    /// `MI_SEGMENT_SIZE`.
    pub segment: u32,
    /// `MI_SEGMENT_SLICE_SIZE`.
    pub slice: u32,
    /// `cookie` in `mi_segment_t`: its address, xor a number that is the same in all of a process.
    pub cookie: u16,
    /// `segment_slices`: `size_t`, slices of the whole segment; more than usual for a huge block.
    pub segment_slices: u16,
    /// `segment_info_slices`: `size_t`, slices in front of the first page.
    pub info_slices: u16,
    /// `slice_entries`: `size_t`, entries in `slices`.
    pub slice_entries: u16,
    /// `slices`: the entries start here. `slice_count`, a `uint32_t`, is first in each.
    pub slices: u16,
    /// `sizeof(mi_page_t)`.
    pub entry: u16,
    /// The byte with `tag` in `mi_page_t`: which heap it is of (`_mi_mem_heap` and so on,
    /// Include/internal/pycore_mimalloc.h).
    pub tag: u16,
    /// First bit of it.
    pub tag_shift: u8,
    /// Its bits, shifted down.
    pub tag_mask: u8,
    /// `capacity`: `uint16_t`, blocks.
    pub capacity: u16,
    /// `free`: pointer to the first free block, each with a pointer to the next.
    pub free: u16,
    /// `xblock_size`: `uint32_t`, 0 for slices that no page has.
    pub block_size: u16,
    /// `local_free`: the same as `free`.
    pub local_free: u16,
    /// `xthread_free`: the same, with two low bits of its own.
    pub thread_free: u16,
}
