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

use core::cell::Cell;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout::{
    lifetime_class, size_class, Path, Region, StacksHead, Tag, BIRTH_SHIFT, MOST_RECENT,
};

use super::{events, path_in, path_of, shape, stacks, DISTANCE};
use crate::counters::{add, add_signed, native_ended, tag_of};
use crate::region::region;
use crate::tls::tls;

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
    before_change_at_peak(state, t, p);
    let epoch = h.rss_epoch.load(Relaxed);
    if t.rss_epoch.load(Relaxed) != epoch {
        save_at_rss_peak(epoch, t, p);
    }
}

#[inline(always)]
fn before_change_at_peak(state: u32, t: &Tag, p: &Path) {
    if state & 1 != 0 && t.peak_state.load(Relaxed) != state {
        t.peak_state.store(state, Relaxed);
        save(&p.at_peak, t, p);
    }
}

/// True if a path has saved what it had where RSS was highest, or has no need to.
#[inline(always)]
pub fn is_saved_at_rss_peak(tag: u32) -> bool {
    tag_of(region(), tag).rss_epoch.load(Relaxed) == stacks().head.rss_epoch.load(Relaxed)
}

#[cold]
#[inline(never)]
fn save_at_rss_peak(epoch: u32, t: &Tag, p: &Path) {
    t.rss_epoch.store(epoch, Relaxed);
    save(&p.at_rss_peak, t, p);
}

/// `in_use` is the new sum after an allocation: the watermark of lines and the peak follow it.
/// Neither is above the peak, so that one comparison mostly tells that nothing is to be done.
#[inline(always)]
fn rise(r: &Region, h: &StacksHead, in_use: i64) {
    let watermark = r.head.watermark.load(Relaxed);
    if in_use > watermark {
        let (peak, state) = (h.peak.load(Relaxed), h.peak_state.load(Relaxed));
        BEFORE.clock.store(h.clock.load(Relaxed), Relaxed);
        BEFORE.watermark.store(watermark, Relaxed);
        BEFORE.peak.store(peak, Relaxed);
        BEFORE.state.store(state, Relaxed);
        r.head.watermark.store(in_use, Relaxed);
        if in_use > peak {
            h.peak.store(in_use, Relaxed);
            h.peak_state.store(state.wrapping_add(state & 1), Relaxed);
        }
    }
}

/// What the last [`rise`] found that changed anything.
struct Before {
    /// [`StacksHead::clock`] then.
    clock: AtomicU64,
    watermark: AtomicI64,
    peak: AtomicI64,
    state: AtomicU32,
}

static BEFORE: Before = Before {
    clock: AtomicU64::new(0),
    watermark: AtomicI64::new(0),
    peak: AtomicI64::new(0),
    state: AtomicU32::new(0),
};

/// The last allocation, of `n` bytes, was the profiler's: takes back what it did in [`rise`].
fn fall(r: &Region, h: &StacksHead, n: usize) {
    if BEFORE.clock.load(Relaxed).wrapping_add(n as u64) == h.clock.load(Relaxed) {
        r.head.watermark.store(BEFORE.watermark.load(Relaxed), Relaxed);
        h.peak.store(BEFORE.peak.load(Relaxed), Relaxed);
        h.peak_state.store(BEFORE.state.load(Relaxed), Relaxed);
    }
}

/// `rise` by a thread without the GIL.
fn rise_native(r: &Region, h: &StacksHead, in_use: i64) {
    r.head.watermark.fetch_max(in_use, Relaxed);
    if in_use > h.peak.fetch_max(in_use, Relaxed) {
        let state = h.peak_state.load(Relaxed);
        h.peak_state.store(state.wrapping_add(state & 1), Relaxed);
    }
}

/// The state of the peak for a free.
#[inline(always)]
fn state_below(h: &StacksHead) -> u32 {
    let state = h.peak_state.load(Relaxed);
    if state & 1 == 0 {
        h.peak_state.store(state | 1, Relaxed);
    }
    state | 1
}

/// How many allocations after its own a temporary may be freed at most, unless another number was
/// asked for.
pub const USUAL_DISTANCE: u32 = 1;

/// This thread allocated `p`: one of its last.
#[inline(always)]
fn remember<const USUAL: bool>(p: usize) {
    let t = tls();
    if USUAL || DISTANCE.load(Relaxed) == USUAL_DISTANCE {
        t.recent[1].set(t.recent[0].get());
        t.recent[0].set(p);
        return;
    }
    let at = t.recent_at.get();
    // SAFETY: the index is masked to the table's length, a power of two.
    unsafe { t.recent.get_unchecked((at % MOST_RECENT) as usize) }.set(p);
    t.recent_at.set(at.wrapping_add(1));
}

/// True if this thread made at most so many allocations as are asked for since that of `p`.
#[inline(always)]
fn is_temporary<const USUAL: bool>(p: usize) -> bool {
    let t = tls();
    // Whoever gets the address next is another block: it is forgotten.
    let is_in = |cell: &Cell<usize>| {
        let found = cell.get() == p;
        if found {
            cell.set(0);
        }
        found
    };
    if USUAL || DISTANCE.load(Relaxed) == USUAL_DISTANCE {
        return is_in(&t.recent[0]) || is_in(&t.recent[1]);
    }
    let last = t.recent_at.get().wrapping_sub(1);
    (0..=DISTANCE.load(Relaxed)).any(|back| {
        let at = (last.wrapping_sub(back) % MOST_RECENT) as usize;
        // SAFETY: the index is masked to the table's length, a power of two.
        is_in(unsafe { t.recent.get_unchecked(at) })
    })
}

/// `n` bytes at `p` are allocated under `tag` by a thread that holds the GIL. Returns its birth.
#[inline(always)]
pub fn allocated(tag: u32, n: usize, p: usize) -> u32 {
    let birth = allocated_in::<false>(tag, n, size_class(n), p);
    events::allocated(tag, n);
    birth
}

/// `allocated` for a request of size class `class`, without events. USUAL: the distance of
/// temporaries is [`USUAL_DISTANCE`].
#[inline(always)]
pub fn allocated_in<const USUAL: bool>(tag: u32, n: usize, class: usize, p: usize) -> u32 {
    let (r, s) = (region(), stacks());
    let (h, t, path) = (&s.head, tag_of(r, tag), path_in(s, tag));
    let mine = r.head.in_use.load(Relaxed).wrapping_add(n as i64);
    rise(r, h, mine.wrapping_add(r.head.in_use_native.load(Relaxed)));
    before_change(h, h.peak_state.load(Relaxed), t, path);
    r.head.in_use.store(mine, Relaxed);
    add(&t.allocated, n as u64);
    add(&t.blocks, 1);
    shape::sized(s, t, path, class);
    let birth = now(h);
    add(&h.clock, n as u64);
    remember::<USUAL>(p);
    birth
}

/// `n` bytes at `p` that were allocated under `tag` are given back by a thread with the GIL.
#[inline(always)]
pub fn freed(tag: u32, n: usize, birth: u32, p: usize) {
    events::freed(tag, n, birth);
    freed_in::<false>(tag, n, birth, p);
    let context = tls().context.get() as usize;
    if context != 0 {
        if let Some(c) = region().contexts.get(context) {
            add(&c.freed, n as u64);
        }
    }
}

/// `freed` while no profiled line runs, without events. USUAL: see [`allocated_in`], and the path
/// [`is_saved_at_rss_peak`].
#[inline(always)]
pub fn freed_in<const USUAL: bool>(tag: u32, n: usize, birth: u32, p: usize) {
    let (r, s) = (region(), stacks());
    let (h, t, path) = (&s.head, tag_of(r, tag), path_in(s, tag));
    if USUAL {
        before_change_at_peak(state_below(h), t, path);
    } else {
        before_change(h, state_below(h), t, path);
    }
    add(&t.freed, n as u64);
    add_signed(&r.head.in_use, -(n as i64));
    add(&t.blocks_freed, 1);
    let class = lifetime_class(now(h).wrapping_sub(birth));
    shape::ended(s, t, path, class, is_temporary::<USUAL>(p), n);
}

/// `allocated` by a thread without the GIL.
pub fn allocated_native(tag: u32, n: usize, p: usize) -> u32 {
    if native_ended() {
        return 0;
    }
    let (r, s) = (region(), stacks());
    let (h, t, path) = (&s.head, tag_of(r, tag), path_in(s, tag));
    let mine = r.head.in_use_native.fetch_add(n as i64, Relaxed) + n as i64;
    let sum = mine.wrapping_add(r.head.in_use.load(Relaxed));
    rise_native(r, h, sum);
    before_change(h, h.peak_state.load(Relaxed), t, path);
    t.allocated.fetch_add(n as u64, Relaxed);
    t.blocks.fetch_add(1, Relaxed);
    shape::sized_native(s, t, path, size_class(n));
    let birth = now(h);
    h.clock_native.fetch_add(n as u64, Relaxed);
    remember::<false>(p);
    events::allocated_native(tag, n);
    birth
}

/// `freed` by a thread without the GIL.
pub fn freed_native(tag: u32, n: usize, birth: u32, p: usize) {
    if native_ended() {
        return;
    }
    let (r, s) = (region(), stacks());
    let (h, t, path) = (&s.head, tag_of(r, tag), path_in(s, tag));
    before_change(h, state_below(h), t, path);
    t.freed_native.fetch_add(n as u64, Relaxed);
    r.head.in_use_native.fetch_sub(n as i64, Relaxed);
    events::freed_native(tag, n, birth);
    path.blocks_freed_native.fetch_add(1, Relaxed);
    let class = lifetime_class(now(h).wrapping_sub(birth));
    shape::ended_native(s, t, path, class, is_temporary::<false>(p), n);
    let context = tls().context.get() as usize;
    if context != 0 {
        if let Some(c) = r.contexts.get(context) {
            c.freed_native.fetch_add(n as u64, Relaxed);
        }
    }
}

/// A block of `n` bytes of `tag` that was just counted belongs to `to`, the profiler.
pub fn move_block(tag: u32, to: u32, n: usize) {
    events::disowned(tag, n);
    fall(region(), &stacks().head, n);
    add(&tag_of(region(), tag).blocks, 1u64.wrapping_neg());
    shape::not_sized(stacks(), tag_of(region(), tag), size_class(n));
    add(&tag_of(region(), to).blocks, 1);
}
