//! pymalloc's arenas come and go: which windows of the address space are pools, and how much of
//! them is resident.

use core::sync::atomic::Ordering::Relaxed;

use super::slabs::drop_entries;
use super::{
    class_of, pages_of, set_window, slab_of, window_of, CLASS_SHIFT, FLAT, KNOWN, NO_CLASS,
    POOL_SHIFT, REACH_MASK,
};
use crate::counters;
use crate::lock;
use crate::memory::PAGE;
use crate::region::region;
use crate::shadow::gib_or_new;

/// pymalloc mapped an arena of `bytes` at `base`: all whole pools in it are known from now on.
pub fn arena_added(base: usize, bytes: usize) {
    let shift = POOL_SHIFT.load(Relaxed);
    let pool = 1usize << shift;
    let mut at = (base + pool - 1) & !(pool - 1);
    while at + pool <= base + bytes {
        if FLAT.load(Relaxed) == 0 {
            gib_or_new(at);
        }
        if let Some(cell) = window_of(at) {
            set_window(at, cell, KNOWN | NO_CLASS << CLASS_SHIFT);
        }
        at += pool;
    }
    let h = &region().head;
    counters::add_signed(&h.arena_mapped, bytes as i64);
    counters::add_signed(&h.arenas, 1);
    add_arena(base, bytes);
    crate::rss::write_latest();
}

/// pymalloc is about to unmap an arena.
pub fn arena_removed(base: usize, bytes: usize) {
    if !remove_arena(base) {
        return;
    }
    let shift = POOL_SHIFT.load(Relaxed);
    let pool = 1usize << shift;
    let h = &region().head;
    let mut at = (base + pool - 1) & !(pool - 1);
    while at + pool <= base + bytes {
        if let Some(cell) = window_of(at) {
            let d = cell.load(Relaxed);
            let pages = pages_of(d & REACH_MASK, shift);
            counters::add_signed(&h.arena_resident, -pages * PAGE as i64);
            if slab_of(d) != 0 {
                drop_entries(slab_of(d) as *mut u8, class_of(d), shift);
            }
            cell.store(0, Relaxed);
        }
        at += pool;
    }
    counters::add_signed(&h.arena_mapped, -(bytes as i64));
    counters::add_signed(&h.arenas, -1);
}

/// True if pymalloc has any arena.
pub fn any_arena() -> bool {
    region().head.arenas.load(Relaxed) > 0
}

/// True if pymalloc has an arena of `bytes` at `base` that we saw mapped.
pub fn is_arena(base: usize, bytes: usize) -> bool {
    let Some(_guard) = lock::lock() else { return false };
    ARENAS.get(base as u64 >> 12) == Some((bytes >> 12) as u32)
}

/// All pages but the first of the free pool at `pool` were given back to the kernel: what is
/// touched there again counts again. The caller holds the GIL.
pub fn given_back(pool: usize) {
    let Some(cell) = window_of(pool) else { return };
    let d = cell.load(Relaxed);
    let shift = POOL_SHIFT.load(Relaxed);
    let reach = d & REACH_MASK;
    let kept = reach.min((PAGE as u64 - 1) >> (shift - 8));
    let pages = pages_of(reach, shift) - pages_of(kept, shift);
    counters::add_signed(&region().head.arena_resident, -pages * PAGE as i64);
    cell.store((d & !REACH_MASK) | kept, Relaxed);
}

/// Live arenas' base addresses, for membership only: a bit per arena-sized window would do, but
/// 2.7's arenas are told from other mappings by this alone.
static ARENAS: crate::map::Map = crate::map::Map::new();

fn add_arena(base: usize, bytes: usize) {
    let Some(_guard) = lock::lock() else { return };
    ARENAS.insert(base as u64 >> 12, (bytes >> 12) as u32);
}

fn remove_arena(base: usize) -> bool {
    let Some(_guard) = lock::lock() else { return false };
    let known = ARENAS.get(base as u64 >> 12).is_some();
    if known {
        ARENAS.remove(base as u64 >> 12);
    }
    known
}
