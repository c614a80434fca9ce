//! Counting by call path: blocks, sizes, lifetimes, temporaries, and what is in use at the peak.
//!
//! The peak is exact and needs no events. While more is in use than ever before nothing is
//! saved: at that moment every path has what its counters say. The first free after it ends the
//! moment; from then on a path that is about to change for the first time saves what it has. As
//! soon as more is in use than at the old peak, what was saved is void.
//!
//! Under the GIL changes are serial and this is exact; threads without the GIL count on paths of
//! their own, atomically, so that sums stay exact, and what they do within the same nanoseconds
//! as a peak may be on either side of it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout::{
    lifetime_class, size_class, Path, StacksHead, BIRTH_SHIFT, MOST_RECENT,
};

use super::{events, path_of, stacks, DISTANCE};
use crate::counters::{add, add_signed, tag_of};
use crate::region::region;
use crate::tls::tls;

/// One more, unless it is the largest number already.
#[inline(always)]
fn count(class: Option<&AtomicU32>) {
    if let Some(class) = class {
        let n = class.load(Relaxed);
        class.store(n + (n != u32::MAX) as u32, Relaxed);
    }
}

/// `count` for threads without the GIL.
fn count_native(class: Option<&AtomicU32>) {
    if let Some(class) = class {
        if class.load(Relaxed) != u32::MAX {
            class.fetch_add(1, Relaxed);
        }
    }
}

/// Bytes allocated in this process so far, in units in which births are remembered.
#[inline(always)]
fn now(h: &StacksHead) -> u32 {
    (h.clock.load(Relaxed).wrapping_add(h.clock_native.load(Relaxed)) >> BIRTH_SHIFT) as u32
}

/// Bytes allocated in this process so far.
pub fn bytes_allocated() -> u64 {
    let h = &stacks().head;
    h.clock.load(Relaxed).wrapping_add(h.clock_native.load(Relaxed))
}

/// The birth of what is allocated now.
pub fn birth_now() -> u32 {
    now(&stacks().head)
}

fn blocks_in_use(p: &Path) -> u64 {
    let freed = p.blocks_freed.load(Relaxed).wrapping_add(p.blocks_freed_native.load(Relaxed));
    p.inherited_blocks.load(Relaxed).wrapping_add(p.blocks.load(Relaxed)).wrapping_sub(freed)
}

/// Blocks of `tag` that are in use.
pub fn blocks_of(tag: u32) -> u64 {
    blocks_in_use(path_of(tag))
}

fn save(into: &[AtomicU64; 2], tag: u32, p: &Path) {
    into[0].store(crate::counters::in_use_of(tag), Relaxed);
    into[1].store(blocks_in_use(p), Relaxed);
}

/// The path is about to change: saves what it has where that is wanted.
#[inline(always)]
fn before_change(h: &StacksHead, state: u32, tag: u32, p: &Path) {
    if state & 1 != 0 && p.peak_state.load(Relaxed) != state {
        p.peak_state.store(state, Relaxed);
        save(&p.at_peak, tag, p);
    }
    let epoch = h.rss_epoch.load(Relaxed);
    if p.rss_epoch.load(Relaxed) != epoch {
        p.rss_epoch.store(epoch, Relaxed);
        save(&p.at_rss_peak, tag, p);
    }
}

/// `in_use` is the new sum after an allocation: the state of the peak for it.
#[inline(always)]
fn state_at(h: &StacksHead, in_use: i64) -> u32 {
    let state = h.peak_state.load(Relaxed);
    if in_use <= h.peak.load(Relaxed) {
        return state;
    }
    h.peak.store(in_use, Relaxed);
    if state & 1 == 0 {
        return state;
    }
    h.peak_state.store(state.wrapping_add(1), Relaxed);
    state.wrapping_add(1)
}

/// The state of the peak for a free.
#[inline(always)]
fn state_below(h: &StacksHead) -> u32 {
    let state = h.peak_state.load(Relaxed);
    if state & 1 == 0 {
        h.peak_state.store(state.wrapping_add(1), Relaxed);
    }
    state | 1
}

/// This thread allocated `p`: one of its last.
#[inline(always)]
fn remember(p: usize) {
    let t = tls();
    let at = t.recent_at.get();
    if let Some(cell) = t.recent.get((at % MOST_RECENT) as usize) {
        cell.set(p);
    }
    t.recent_at.set(at.wrapping_add(1));
}

/// True if this thread made at most so many allocations as are asked for since that of `p`.
#[inline(always)]
fn is_temporary(p: usize) -> bool {
    let t = tls();
    let last = t.recent_at.get().wrapping_sub(1);
    for back in 0..=DISTANCE.load(Relaxed) {
        if let Some(cell) = t.recent.get((last.wrapping_sub(back) % MOST_RECENT) as usize) {
            if cell.get() == p {
                // Whoever gets the address next is another block.
                cell.set(0);
                return true;
            }
        }
    }
    false
}

/// `n` bytes at `p` were allocated under `tag` by a thread that holds the GIL. Returns its birth.
#[inline(always)]
pub fn allocated(tag: u32, n: usize, p: usize) -> u32 {
    let (r, h, path) = (region(), &stacks().head, path_of(tag));
    let mine = r.head.in_use.load(Relaxed).wrapping_add(n as i64);
    let sum = mine.wrapping_add(r.head.in_use_native.load(Relaxed));
    before_change(h, state_at(h, sum), tag, path);
    r.head.in_use.store(mine, Relaxed);
    if sum > r.head.watermark.load(Relaxed) {
        r.head.watermark.store(sum, Relaxed);
    }
    add(&tag_of(r, tag).allocated, n as u64);
    add(&path.blocks, 1);
    count(path.sizes.get(size_class(n)));
    let birth = now(h);
    add(&h.clock, n as u64);
    remember(p);
    events::allocated(tag, n);
    birth
}

/// `n` bytes at `p` that were allocated under `tag` are given back by a thread with the GIL.
#[inline(always)]
pub fn freed(tag: u32, n: usize, birth: u32, p: usize) {
    let (r, h, path) = (region(), &stacks().head, path_of(tag));
    before_change(h, state_below(h), tag, path);
    add(&tag_of(r, tag).freed, n as u64);
    add_signed(&r.head.in_use, -(n as i64));
    events::freed(tag, n, birth);
    add(&path.blocks_freed, 1);
    count(path.lifetimes.get(lifetime_class(now(h).wrapping_sub(birth))));
    if is_temporary(p) {
        add(&path.temporary[0], n as u64);
        add(&path.temporary[1], 1);
    }
    let context = tls().context.get() as usize;
    if context != 0 {
        if let Some(c) = r.contexts.get(context) {
            add(&c.freed, n as u64);
        }
    }
}

/// `allocated` by a thread without the GIL.
pub fn allocated_native(tag: u32, n: usize, p: usize) -> u32 {
    let (r, h, path) = (region(), &stacks().head, path_of(tag));
    let mine = r.head.in_use_native.fetch_add(n as i64, Relaxed) + n as i64;
    let sum = mine.wrapping_add(r.head.in_use.load(Relaxed));
    before_change(h, state_at(h, sum), tag, path);
    r.head.watermark.fetch_max(sum, Relaxed);
    tag_of(r, tag).allocated.fetch_add(n as u64, Relaxed);
    path.blocks.fetch_add(1, Relaxed);
    count_native(path.sizes.get(size_class(n)));
    let birth = now(h);
    h.clock_native.fetch_add(n as u64, Relaxed);
    remember(p);
    events::allocated_native(tag, n);
    birth
}

/// `freed` by a thread without the GIL.
pub fn freed_native(tag: u32, n: usize, birth: u32, p: usize) {
    let (r, h, path) = (region(), &stacks().head, path_of(tag));
    before_change(h, state_below(h), tag, path);
    tag_of(r, tag).freed_native.fetch_add(n as u64, Relaxed);
    r.head.in_use_native.fetch_sub(n as i64, Relaxed);
    events::freed_native(tag, n, birth);
    path.blocks_freed_native.fetch_add(1, Relaxed);
    count_native(path.lifetimes.get(lifetime_class(now(h).wrapping_sub(birth))));
    if is_temporary(p) {
        path.temporary[0].fetch_add(n as u64, Relaxed);
        path.temporary[1].fetch_add(1, Relaxed);
    }
    let context = tls().context.get() as usize;
    if context != 0 {
        if let Some(c) = r.contexts.get(context) {
            c.freed_native.fetch_add(n as u64, Relaxed);
        }
    }
}

/// A block of `n` bytes of `tag` that was just counted belongs to `to`, the profiler.
pub fn move_block(tag: u32, to: u32, n: usize) {
    let h = &stacks().head;
    events::disowned(tag, n);
    if h.peak_state.load(Relaxed) & 1 == 0 {
        // It was the highest point so far because of these bytes.
        add_signed(&h.peak, -(n as i64));
    }
    let (from, to) = (path_of(tag), path_of(to));
    add(&from.blocks, 1u64.wrapping_neg());
    add(&to.blocks, 1);
}
