//! Blocks of CPython's small-object allocator (pymalloc): which tag and size each has.
//!
//! A pool holds blocks of one size class, so its blocks need no address: a *slab* of one `u32`
//! per block, in the order of the blocks, says for each the tag (20 bits) and the request (10
//! bits). That is 1/8 of the memory of a pool of 32-byte blocks, 1/16 for 64 bytes. Three bytes
//! would do, but cost two cache lines or a failed store forwarding per block. The descriptor of
//! a pool is one word: slab address, size class, and how far the pool was touched.
//! Under `--stacks` an entry has a second `u32`, the block's birth.
//!
//! What nearly every allocation and free under `--stacks` needs is in [`usual`].
//!
//! Everything here runs under the GIL of the interpreter that owns the arena.
//! Facts: pool_header layout (szidx at 36, 48 bytes; obmalloc.c, the same from 2.7 to 3.15),
//! 16-byte alignment, 512 bytes at most.

mod arenas;
mod slabs;
pub mod usual;

pub use arenas::{any_arena, arena_added, arena_removed, given_back, is_arena};

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use strandline_capture::layout;

use crate::counters;
use crate::lock;
use crate::memory::{self, PAGE};
use crate::region::region;
use crate::shadow::{gib, gib_or_new};
use crate::stacks;
use slabs::{drop_entries, take_slab};

/// Size of pymalloc's pool header, bytes.
pub const POOL_HEADER: usize = 48;
const SZIDX_OFFSET: usize = 36;
const ALIGNMENT: usize = 16;
const CLASSES: usize = 32;
/// Largest request that pymalloc serves (SMALL_REQUEST_THRESHOLD, obmalloc.c), bytes.
pub const LARGEST: usize = CLASSES * ALIGNMENT;

/// Set in the descriptor of every pool of a known arena.
const KNOWN: u64 = 1 << 15;
const CLASS_SHIFT: u32 = 8;
const CLASS_MASK: u64 = 63;
/// How far the pool was ever touched, in 256ths of it.
const REACH_MASK: u64 = 0xff;
/// Class and reach together: `class << 8 | reach`.
const CLASS_AND_REACH: u64 = CLASS_MASK << CLASS_SHIFT | REACH_MASK;
const SLAB_SHIFT: u32 = layout::POOL_SLAB_SHIFT;
/// A class index that no pool has.
const NO_CLASS: u64 = CLASS_MASK;

/// The address of a pool's entries, 0: it has none.
#[inline(always)]
fn slab_of(descriptor: u64) -> u64 {
    descriptor >> SLAB_SHIFT
}

#[inline(always)]
fn class_of(descriptor: u64) -> u64 {
    descriptor >> CLASS_SHIFT & CLASS_MASK
}

/// log2 of the pool size up to 3.9 (obmalloc.c).
pub const SHIFT_4K: u32 = 12;
/// log2 of the pool size since 3.10 (obmalloc.c, pycore_obmalloc.h).
pub const SHIFT_16K: u32 = 14;

/// log2 of this interpreter's pool size.
static POOL_SHIFT: AtomicU32 = AtomicU32::new(SHIFT_4K);

/// ceil(2^32 / block size): offset -> block number without a division.
static RECIPROCAL: [u32; CLASSES] = {
    let mut table = [0u32; CLASSES];
    let mut i = 0;
    while i < CLASSES {
        table[i] = (1u64 << 32).div_ceil(((i + 1) * ALIGNMENT) as u64) as u32;
        i += 1;
    }
    table
};

/// Sets the pool size, bytes (a power of two, at most four pages).
pub fn set_pool_size(bytes: usize) {
    POOL_SHIFT.store(bytes.trailing_zeros(), Relaxed);
}

/// Frees may go around the hooks (2.7): an entry can be left over from a block that is gone.
static LEAKY: AtomicBool = AtomicBool::new(false);

/// From now on entries of gone blocks are looked for.
pub fn set_leaky() {
    LEAKY.store(true, Relaxed);
}

/// True if this interpreter's pools are of 16 KiB.
pub fn is_16k() -> bool {
    POOL_SHIFT.load(Relaxed) == SHIFT_16K
}

/// Start of the flat descriptor table, 0 if the address space for it can't be had.
static FLAT: AtomicUsize = AtomicUsize::new(0);
/// Bits of a user address.
const ADDRESS_BITS: u32 = 47;

/// Reserves the flat table: one descriptor per pool-sized window of all user addresses. It is
/// address space only (64 GiB for 16 KiB pools); under `ulimit -v` or strict overcommit the
/// two-level table of [`crate::shadow`] serves instead.
pub fn reserve() {
    let bytes = 8usize << (ADDRESS_BITS - POOL_SHIFT.load(Relaxed));
    let p = memory::map(bytes);
    if !p.is_null() {
        // SAFETY: advice on our own fresh mapping.
        unsafe { libc::syscall(libc::SYS_madvise, p, bytes, libc::MADV_DONTDUMP) };
        FLAT.store(p as usize, Relaxed);
        if stacks::on() {
            memory::publish_pools(p as usize);
            crate::shadow::publish();
        }
    }
}

/// True if hooks may use the flat table.
pub fn is_flat() -> bool {
    FLAT.load(Relaxed) != 0
}

/// Pages of the flat table that hold anything, by hash: to count them once.
static FLAT_PAGES: crate::map::Map = crate::map::Map::new();

#[inline(always)]
fn flat_window<const SHIFT: u32>(p: usize) -> &'static AtomicU64 {
    // SAFETY: the table has an entry for every window of user addresses; it is mapped for ever.
    unsafe { &*((FLAT.load(Relaxed) as *const AtomicU64).add(p >> SHIFT)) }
}

/// The descriptor of the pool-sized window that `p` lies in.
#[inline(always)]
fn window<const SHIFT: u32, const FAST: bool>(p: usize) -> Option<&'static AtomicU64> {
    if FAST || FLAT.load(Relaxed) != 0 {
        return Some(flat_window::<SHIFT>(p));
    }
    let index = (p & ((1 << 30) - 1)) >> SHIFT;
    gib(p)?.pools.get(index)
}

/// `window`, where neither is known at compile time.
fn window_of(p: usize) -> Option<&'static AtomicU64> {
    if is_16k() {
        window::<SHIFT_16K, false>(p)
    } else {
        window::<SHIFT_4K, false>(p)
    }
}

/// Stores a descriptor and counts its page of the table when it is the first.
fn set_window(p: usize, cell: &AtomicU64, value: u64) {
    if FLAT.load(Relaxed) == 0 {
        if let Some(g) = gib_or_new(p) {
            g.set(cell, value);
        }
        return;
    }
    let page = cell as *const AtomicU64 as u64 / PAGE as u64;
    if let Some(_guard) = lock::lock() {
        if FLAT_PAGES.get(page).is_none() && FLAT_PAGES.insert(page, 1) {
            memory::add_resident(PAGE);
        }
    }
    cell.store(value, Relaxed);
}

/// True if `address` lies in a pool of a known arena.
pub fn in_arena(address: usize) -> bool {
    window_of(address).is_some_and(|w| w.load(Relaxed) != 0)
}

/// Bytes of an entry.
#[inline(always)]
const fn entry_bytes(stacks: bool) -> usize {
    4 << stacks as usize
}

/// A block's place in the tables.
struct Place {
    entry: Entry,
    class_bytes: usize,
}

type Entry = *mut u32;

#[inline(always)]
fn read(e: Entry) -> u32 {
    // SAFETY: a block's entry in a live slab.
    unsafe { *e }
}

#[inline(always)]
fn write(e: Entry, value: u32) {
    // SAFETY: a block's entry in a live slab.
    unsafe { *e = value }
}

/// Bits of an entry that hold the request.
const REQUEST_BITS: u32 = 10;
const REQUEST: u32 = (1 << REQUEST_BITS) - 1;

/// When the block was allocated: what stands behind its entry (`--stacks`).
#[inline(always)]
fn birth(e: Entry) -> Entry {
    e.wrapping_add(1)
}

#[inline(always)]
fn entry_at<const STACKS: bool>(descriptor: u64, class: u64, offset: usize) -> Entry {
    // SAFETY: masked to the table's length.
    let reciprocal = unsafe { *RECIPROCAL.get_unchecked(class as usize & (CLASSES - 1)) };
    let block = (offset.wrapping_sub(POOL_HEADER) as u64 * reciprocal as u64) >> 32;
    (slab_of(descriptor) + block * entry_bytes(STACKS) as u64) as Entry
}

/// How far a pool is touched by a block at `offset` in it.
#[inline(always)]
fn reach_of<const SHIFT: u32>(offset: usize, class_bytes: usize) -> u64 {
    // pymalloc links the next block, so the memory behind a block's end is touched with it.
    ((offset + class_bytes) >> (SHIFT - 8)).min(REACH_MASK as usize) as u64
}

/// True if a pool with this descriptor is of `class` and was touched as far as `reach`.
#[inline(always)]
fn reaches(d: u64, class: u64, reach: u64) -> bool {
    // Of the same class and reaching at least as far: the difference is what is missing to it.
    (d & CLASS_AND_REACH).wrapping_sub(class << CLASS_SHIFT | reach) <= REACH_MASK - reach
}

/// Where the block at `p`, just handed out by pymalloc for a request of `n` bytes, is
/// remembered; `None`: not in an arena. FAST: the size class follows from the request, as
/// everywhere but under the debug allocator and after a realloc, which may leave a block in
/// place.
#[inline(always)]
fn place_of_new<const SHIFT: u32, const FAST: bool, const STACKS: bool>(
    p: usize,
    n: usize,
) -> Option<Place> {
    let cell = window::<SHIFT, FAST>(p)?;
    let mut d = cell.load(Relaxed);
    let class = if FAST {
        n.wrapping_sub(1) as u64 / ALIGNMENT as u64
    } else {
        if d == 0 {
            return None;
        }
        let pool = p & !((1usize << SHIFT) - 1);
        // SAFETY: `p` lies in an arena's pool that pymalloc has initialised (it handed out a
        // block of it), so its header is mapped.
        unsafe { *((pool + SZIDX_OFFSET) as *const u32) as u64 }
    };
    let offset = p & ((1 << SHIFT) - 1);
    let class_bytes = (class as usize + 1) * ALIGNMENT;
    let reach = reach_of::<SHIFT>(offset, class_bytes);
    if !reaches(d, class, reach) {
        d = first_sight(cell, class, reach, SHIFT);
        if slab_of(d) == 0 {
            return None;
        }
    }
    Some(Place { entry: entry_at::<STACKS>(d, class, offset), class_bytes })
}

/// Records a block handed out by pymalloc, of pools of 2^SHIFT bytes; false if `p` isn't in an
/// arena (then it came from malloc, which sees it itself). `n` is the request, bytes. The caller
/// holds the GIL.
#[inline(always)]
pub fn allocated<const SHIFT: u32, const FAST: bool, const STACKS: bool>(
    p: usize,
    n: usize,
    tag: impl FnOnce() -> u32,
) -> bool {
    let Some(place) = place_of_new::<SHIFT, FAST, STACKS>(p, n) else { return false };
    if SHIFT == SHIFT_4K && LEAKY.load(Relaxed) {
        let stale = read(place.entry);
        if stale != 0 {
            forget(stale, place.class_bytes);
        }
    }
    let tag = tag();
    write(place.entry, tag << REQUEST_BITS | n as u32);
    counters::add_signed(&region().head.block_bytes, place.class_bytes as i64);
    if STACKS {
        write(birth(place.entry), stacks::count::allocated(tag, n, p));
    } else {
        counters::allocated(tag, n);
    }
    true
}

/// The free of this block wasn't seen (2.7: a module that calls around the hooks).
#[cold]
fn forget(entry: u32, class_bytes: usize) {
    let t = Taken { entry: core::ptr::null_mut(), value: entry, class_bytes };
    if stacks::on() {
        // When it was freed isn't known: as if right now.
        t.count_path(0);
    } else {
        t.count();
    }
}

/// A block as it was remembered: for a realloc that fails, which puts it back.
#[derive(Clone, Copy)]
pub struct Taken {
    entry: Entry,
    value: u32,
    class_bytes: usize,
}

impl Taken {
    /// The tag the block was allocated under.
    #[inline(always)]
    pub fn tag(&self) -> u32 {
        self.value >> REQUEST_BITS
    }

    /// Bytes asked for.
    pub fn size(&self) -> usize {
        (self.value & REQUEST) as usize
    }

    /// Puts the block back: it was not freed after all.
    pub fn restore(self) {
        write(self.entry, self.value);
    }

    /// Counts the block at `p` as freed, under its call path. The caller holds the GIL.
    #[inline(always)]
    pub fn count_path(self, p: usize) {
        counters::add_signed(&region().head.block_bytes, -(self.class_bytes as i64));
        let birth = if self.entry.is_null() { 0 } else { read(birth(self.entry)) };
        stacks::count::freed(self.tag(), self.size(), birth, p);
    }

    /// Counts the block as freed. The caller holds the GIL.
    #[inline(always)]
    pub fn count(self) {
        counters::add_signed(&region().head.block_bytes, -(self.class_bytes as i64));
        // A block under WATCH_ONLY has a request of 0: it was never counted.
        counters::freed(self.tag(), self.size());
    }
}

/// Forgets the block at `p`; `None` if it isn't a remembered block of an arena.
#[inline(always)]
pub fn take<const SHIFT: u32, const FAST: bool, const STACKS: bool>(p: usize) -> Option<Taken> {
    let d = window::<SHIFT, FAST>(p)?.load(Relaxed);
    if slab_of(d) == 0 {
        return None;
    }
    let class = class_of(d);
    let entry = entry_at::<STACKS>(d, class, p & ((1 << SHIFT) - 1));
    let value = read(entry);
    if value == 0 {
        return None;
    }
    write(entry, 0);
    Some(Taken { entry, value, class_bytes: (class as usize + 1) * ALIGNMENT })
}

/// Changes the entry of the live block at `p`, as its place and its value.
fn change(p: usize, with: impl FnOnce(&Place, u32)) -> bool {
    let place = match (POOL_SHIFT.load(Relaxed), stacks::on()) {
        (SHIFT_16K, false) => place_of_new::<SHIFT_16K, false, false>(p, 0),
        (SHIFT_16K, true) => place_of_new::<SHIFT_16K, false, true>(p, 0),
        (_, false) => place_of_new::<SHIFT_4K, false, false>(p, 0),
        (_, true) => place_of_new::<SHIFT_4K, false, true>(p, 0),
    };
    let Some(place) = place else { return false };
    let value = read(place.entry);
    with(&place, value);
    true
}

/// The block at `p` was allocated on the profiler's account, not the program's: counts it there.
pub fn disown(p: usize) {
    change(p, |place, value| {
        let tag = value >> REQUEST_BITS;
        if value != 0 && tag != crate::sites::PROFILER {
            let n = value & REQUEST;
            counters::move_to_profiler(tag, n as usize);
            write(place.entry, crate::sites::PROFILER << REQUEST_BITS | n);
        }
    });
}

/// Changes the tag of the live block at `p` with `new_tag`; a block that was never seen gets
/// `WATCH_ONLY`. False if `p` isn't in an arena.
pub fn retag(p: usize, new_tag: impl FnOnce(u32) -> u32) -> bool {
    change(p, |place, value| {
        if value == 0 {
            write(place.entry, crate::sites::WATCH_ONLY << REQUEST_BITS);
            counters::add_signed(&region().head.block_bytes, place.class_bytes as i64);
        } else {
            let tag = new_tag(value >> REQUEST_BITS);
            write(place.entry, tag << REQUEST_BITS | (value & REQUEST));
        }
    })
}

/// Pages of a pool that a reach stands for.
fn pages_of(reach: u64, shift: u32) -> i64 {
    if reach == 0 {
        0
    } else {
        (reach << (shift - 8) >> 12) as i64 + 1
    }
}

/// A pool is used with a class for the first time, or touched further than before. Returns the
/// new descriptor; its slab is 0 if `p` isn't in an arena, or there is no memory.
#[cold]
#[inline(never)]
fn first_sight(cell: &AtomicU64, class: u64, reach: u64, shift: u32) -> u64 {
    let mut d = cell.load(Relaxed);
    if d == 0 || class as usize >= CLASSES {
        return 0;
    }
    let before = d & REACH_MASK;
    // To the end of the page: it is resident as a whole.
    let page_end = reach << (shift - 8) | (PAGE as u64 - 1);
    let reach = (page_end >> (shift - 8)).min(255).max(before);
    let fresh = pages_of(reach, shift) - pages_of(before, shift);
    if fresh > 0 {
        counters::add_signed(&region().head.arena_resident, fresh * PAGE as i64);
        crate::rss::pages_moved();
    }
    d = (d & !REACH_MASK) | reach;
    if class_of(d) != class {
        let old = slab_of(d) as *mut u8;
        let old_class = class_of(d);
        if !old.is_null() {
            drop_entries(old, old_class, shift);
        }
        let slab = take_slab(class, shift);
        d = KNOWN | (d & REACH_MASK) | class << CLASS_SHIFT | (slab as u64) << SLAB_SHIFT;
    }
    // `arena_added` counted the table's page.
    cell.store(d, Relaxed);
    d
}

#[cfg(test)]
mod tests {
    use super::slabs::{blocks_in, slab_bytes};
    use super::*;

    #[test]
    fn every_block_of_every_class_has_its_own_entry() {
        for shift in [SHIFT_4K, SHIFT_16K] {
            for class in 0..CLASSES as u64 {
                let size = (class as usize + 1) * ALIGNMENT;
                let blocks = blocks_in(class, shift);
                assert!(blocks * entry_bytes(false) <= slab_bytes(class, shift));
                for block in 0..blocks {
                    for inside in [0, size - 1] {
                        let offset = POOL_HEADER + block * size + inside;
                        let entry = entry_at::<false>(0x1000 << SLAB_SHIFT, class, offset) as usize;
                        assert_eq!(entry, 0x1000 + block * 4);
                        let entry = entry_at::<true>(0x1000 << SLAB_SHIFT, class, offset) as usize;
                        assert_eq!(entry, 0x1000 + block * 8);
                        // What readers of this memory are told.
                        let at = (7 << shift) + offset as u64;
                        let told = layout::pool_entry(0x1000 << SLAB_SHIFT, at, shift, size as u64);
                        assert_eq!(told, Some(entry as u64));
                    }
                }
            }
        }
    }

    #[test]
    fn reach_counts_whole_pages() {
        for (shift, pages) in [(SHIFT_4K, 1), (SHIFT_16K, 4)] {
            assert_eq!(pages_of(0, shift), 0);
            assert_eq!(pages_of(1, shift), 1);
            assert_eq!(pages_of(255, shift), pages);
        }
    }
}
