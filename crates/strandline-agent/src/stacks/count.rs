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
    lifetime_class, size_class, Path, StacksHead, Tag, BIRTH_SHIFT, MOST_RECENT,
};

use super::{events, path_in, path_of, stacks, DISTANCE};
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

/// Blocks of `tag` that are in use, without what was inherited.
fn own_blocks(t: &Tag, p: &Path) -> u64 {
    let freed = t.blocks_freed.load(Relaxed).wrapping_add(p.blocks_freed_native.load(Relaxed));
    t.blocks.load(Relaxed).wrapping_sub(freed)
}

/// Blocks of `tag` that are in use.
pub fn blocks_of(tag: u32) -> u64 {
    let p = path_of(tag);
    p.inherited_blocks.load(Relaxed).wrapping_add(own_blocks(tag_of(region(), tag), p))
}

#[inline(always)]
fn save(into: &[AtomicU64; 2], t: &Tag, p: &Path) {
    let freed = t.freed.load(Relaxed).wrapping_add(t.freed_native.load(Relaxed));
    into[0].store(t.allocated.load(Relaxed).wrapping_sub(freed), Relaxed);
    into[1].store(own_blocks(t, p), Relaxed);
}

/// The path is about to change: saves what it has where that is wanted.
#[inline(always)]
fn before_change(h: &StacksHead, state: u32, t: &Tag, p: &Path) {
    if state & 1 != 0 && t.peak_state.load(Relaxed) != state {
        t.peak_state.store(state, Relaxed);
        save(&p.at_peak, t, p);
    }
    let epoch = h.rss_epoch.load(Relaxed);
    if t.rss_epoch.load(Relaxed) != epoch {
        save_at_rss_peak(epoch, t, p);
    }
}

#[cold]
#[inline(never)]
fn save_at_rss_peak(epoch: u32, t: &Tag, p: &Path) {
    t.rss_epoch.store(epoch, Relaxed);
    save(&p.at_rss_peak, t, p);
}

/// `in_use` is the new sum after an allocation: the state of the peak for it. Which way it goes
/// changes too often to be guessed by the processor: no branches.
#[inline(always)]
fn state_at(h: &StacksHead, in_use: i64) -> u32 {
    let (state, peak) = (h.peak_state.load(Relaxed), h.peak.load(Relaxed));
    let higher = in_use > peak;
    h.peak.store(if higher { in_use } else { peak }, Relaxed);
    let state = state.wrapping_add(higher as u32 & state & 1);
    h.peak_state.store(state, Relaxed);
    state
}

/// The state of the peak for a free.
#[inline(always)]
fn state_below(h: &StacksHead) -> u32 {
    let state = h.peak_state.load(Relaxed) | 1;
    h.peak_state.store(state, Relaxed);
    state
}

/// This thread allocated `p`: one of its last.
#[inline(always)]
fn remember(p: usize) {
    let t = tls();
    let at = t.recent_at.get();
    // SAFETY: the index is masked to the table's length, a power of two.
    unsafe { t.recent.get_unchecked((at % MOST_RECENT) as usize) }.set(p);
    t.recent_at.set(at.wrapping_add(1));
}

/// 1 if this thread made at most so many allocations as are asked for since that of `p`, else 0.
/// Without branches, as above, where it is asked for the usual distance.
#[inline(always)]
fn is_temporary(p: usize) -> u64 {
    let t = tls();
    let last = t.recent_at.get().wrapping_sub(1);
    let distance = DISTANCE.load(Relaxed);
    let is_at = |back: u32| {
        let at = (last.wrapping_sub(back) % MOST_RECENT) as usize;
        // SAFETY: the index is masked to the table's length, a power of two.
        let cell = unsafe { t.recent.get_unchecked(at) };
        let found = cell.get() == p;
        // Whoever gets the address next is another block.
        cell.set(if found { 0 } else { cell.get() });
        found as u64
    };
    if distance == 1 {
        return is_at(0) | is_at(1);
    }
    (0..=distance).fold(0, |found, back| found | is_at(back))
}

/// `n` bytes at `p` are allocated under `tag` by a thread that holds the GIL. Returns its birth.
#[inline(always)]
pub fn allocated(tag: u32, n: usize, p: usize) -> u32 {
    let (r, s) = (region(), stacks());
    let (h, t, path) = (&s.head, tag_of(r, tag), path_in(s, tag));
    let mine = r.head.in_use.load(Relaxed).wrapping_add(n as i64);
    let sum = mine.wrapping_add(r.head.in_use_native.load(Relaxed));
    before_change(h, state_at(h, sum), t, path);
    r.head.in_use.store(mine, Relaxed);
    r.head.watermark.store(sum.max(r.head.watermark.load(Relaxed)), Relaxed);
    add(&t.allocated, n as u64);
    add(&t.blocks, 1);
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
    let (r, s) = (region(), stacks());
    let (h, t, path) = (&s.head, tag_of(r, tag), path_in(s, tag));
    before_change(h, state_below(h), t, path);
    add(&t.freed, n as u64);
    add_signed(&r.head.in_use, -(n as i64));
    events::freed(tag, n, birth);
    add(&t.blocks_freed, 1);
    count(path.lifetimes.get(lifetime_class(now(h).wrapping_sub(birth))));
    let temporary = is_temporary(p);
    add(&path.temporary[0], n as u64 * temporary);
    add(&path.temporary[1], temporary);
    let context = tls().context.get() as usize;
    if context != 0 {
        if let Some(c) = r.contexts.get(context) {
            add(&c.freed, n as u64);
        }
    }
}

/// `allocated` by a thread without the GIL.
pub fn allocated_native(tag: u32, n: usize, p: usize) -> u32 {
    let (r, s) = (region(), stacks());
    let (h, t, path) = (&s.head, tag_of(r, tag), path_in(s, tag));
    let mine = r.head.in_use_native.fetch_add(n as i64, Relaxed) + n as i64;
    let sum = mine.wrapping_add(r.head.in_use.load(Relaxed));
    before_change(h, state_at(h, sum), t, path);
    r.head.watermark.fetch_max(sum, Relaxed);
    t.allocated.fetch_add(n as u64, Relaxed);
    t.blocks.fetch_add(1, Relaxed);
    count_native(path.sizes.get(size_class(n)));
    let birth = now(h);
    h.clock_native.fetch_add(n as u64, Relaxed);
    remember(p);
    events::allocated_native(tag, n);
    birth
}

/// `freed` by a thread without the GIL.
pub fn freed_native(tag: u32, n: usize, birth: u32, p: usize) {
    let (r, s) = (region(), stacks());
    let (h, t, path) = (&s.head, tag_of(r, tag), path_in(s, tag));
    before_change(h, state_below(h), t, path);
    t.freed_native.fetch_add(n as u64, Relaxed);
    r.head.in_use_native.fetch_sub(n as i64, Relaxed);
    events::freed_native(tag, n, birth);
    path.blocks_freed_native.fetch_add(1, Relaxed);
    count_native(path.lifetimes.get(lifetime_class(now(h).wrapping_sub(birth))));
    if is_temporary(p) != 0 {
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
    add(&tag_of(region(), tag).blocks, 1u64.wrapping_neg());
    if let Some(class) = path_of(tag).sizes.get(size_class(n)) {
        class.store(class.load(Relaxed).saturating_sub(1), Relaxed);
    }
    add(&tag_of(region(), to).blocks, 1);
}
