//! Adding to the counters: what happens at every allocation and every free.
//!
//! Two flavours. Threads that hold the GIL of the main interpreter are serial, so they add with
//! plain loads and stores; other threads use atomic additions on counters of their own. A sum
//! of both is the truth.

use core::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64,
    Ordering::{self, Relaxed},
};

use strandline_capture::layout::{Region, Tag, TAG_WATCH};

use crate::region::region;
use crate::sites::PROFILER;
use crate::tls::tls;

/// A plain addition on a counter that only GIL holders write.
#[inline(always)]
pub fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// A plain signed addition, likewise.
#[inline(always)]
pub fn add_signed(counter: &AtomicI64, n: i64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// A plain subtraction, likewise.
#[inline(always)]
pub fn subtract(counter: &AtomicI64, n: i64) {
    counter.store(counter.load(Relaxed).wrapping_sub(n), Relaxed);
}

/// The tag's record. Tags are at most 20 bits wide and the table has 2^20 entries.
#[inline(always)]
pub fn tag_of(r: &Region, tag: u32) -> &Tag {
    // SAFETY: the index is masked to the table's length (a power of two).
    unsafe { r.tags.get_unchecked(tag as usize & (strandline_capture::layout::MAX_TAGS - 1)) }
}

/// `n` bytes were allocated under `tag` by a thread that holds the GIL.
#[inline(always)]
pub fn allocated(tag: u32, n: usize) {
    let r = region();
    let t = tag_of(r, tag);
    add(&t.allocated, n as u64);
    let mine = r.head.in_use.load(Relaxed).wrapping_add(n as i64);
    r.head.in_use.store(mine, Relaxed);
    let now = mine.wrapping_add(r.head.in_use_native.load(Relaxed));
    if now > r.head.watermark.load(Relaxed) {
        r.head.watermark.store(now, Relaxed);
    }
}

/// `n` bytes that were allocated under `tag` are given back by a thread that holds the GIL.
#[inline(always)]
pub fn freed(tag: u32, n: usize) {
    let r = region();
    let t = tag_of(r, tag);
    add(&t.freed, n as u64);
    add_signed(&r.head.in_use, -(n as i64));
    let context = tls().context.get() as usize;
    if context != 0 {
        if let Some(c) = r.contexts.get(context) {
            add(&c.freed, n as u64);
        }
    }
}

/// `n` bytes that were just counted under `tag` by a thread that holds the GIL belong to the
/// profiler: the one case in which counters are taken back.
pub fn move_to_profiler(tag: u32, n: usize) {
    let r = region();
    if crate::stacks::on() {
        crate::stacks::count::move_block(tag, PROFILER, n);
    } else if r.head.watermark.load(Relaxed) == in_use() {
        // It was the highest point so far because of these bytes.
        add_signed(&r.head.watermark, -(n as i64));
    }
    add(&tag_of(r, tag).allocated, (n as u64).wrapping_neg());
    add(&tag_of(r, PROFILER).allocated, n as u64);
    add_signed(&r.head.in_use, -(n as i64));
}

/// `freed` was called for `n` bytes of the profiler's own: the program's counters take no part.
#[cold]
pub fn not_the_programs(n: usize) {
    let r = region();
    add_signed(&r.head.in_use, n as i64);
    if let Some(c) = r.contexts.get(tls().context.get() as usize) {
        add(&c.freed, (n as u64).wrapping_neg());
    }
}

/// The process ends: see [`native_ends`].
static ENDED: AtomicBool = AtomicBool::new(false);

/// True once nothing is counted any more of threads without the GIL.
#[inline(always)]
pub fn native_ended() -> bool {
    ENDED.load(Relaxed)
}

/// From now on nothing is counted of threads without the GIL: the counters are about to stand still,
/// and not all at the same moment. What such a thread has begun to count it mostly ends meanwhile.
pub fn native_ends() {
    ENDED.store(true, Relaxed);
    let pause = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
    // SAFETY: nanosleep(2) reads one timespec.
    unsafe { libc::syscall(libc::SYS_nanosleep, &pause, 0usize) };
}

/// After a fork, in the child: it counts, whatever its parent was about.
pub fn after_fork() {
    ENDED.store(false, Relaxed);
}

/// `n` bytes were allocated under `tag` by a thread without the GIL.
#[inline]
pub fn allocated_native(tag: u32, n: usize) {
    if native_ended() {
        return;
    }
    let r = region();
    let t = tag_of(r, tag);
    t.allocated.fetch_add(n as u64, Relaxed);
    let mine = r.head.in_use_native.fetch_add(n as i64, Relaxed) + n as i64;
    let now = mine.wrapping_add(r.head.in_use.load(Relaxed));
    if now > r.head.watermark.load(Relaxed) {
        r.head.watermark.fetch_max(now, Relaxed);
    }
}

/// `n` bytes that were allocated under `tag` are given back by a thread without the GIL.
#[inline]
pub fn freed_native(tag: u32, n: usize) {
    if native_ended() {
        return;
    }
    let r = region();
    let t = tag_of(r, tag);
    t.freed_native.fetch_add(n as u64, Relaxed);
    r.head.in_use_native.fetch_sub(n as i64, Relaxed);
    let context = tls().context.get() as usize;
    if context != 0 {
        if let Some(c) = r.contexts.get(context) {
            c.freed_native.fetch_add(n as u64, Relaxed);
        }
    }
}

/// True if the block's end is awaited (see `sites::watched_block_freed`).
#[inline(always)]
pub fn is_watched(tag: u32) -> bool {
    tag_of(region(), tag).flags.load(Relaxed) & TAG_WATCH != 0
}

/// Bytes in use now.
#[inline]
pub fn in_use() -> i64 {
    let h = &region().head;
    h.in_use.load(Relaxed).wrapping_add(h.in_use_native.load(Relaxed))
}

/// Bytes in use per tag: allocated minus freed, plus what came from before a fork.
pub fn in_use_of(tag: u32) -> u64 {
    let r = region();
    let t = tag_of(r, tag);
    let inherited = r.inherited.get(tag as usize).map_or(0, |i| i.load(Relaxed));
    let freed = t.freed.load(Relaxed).wrapping_add(t.freed_native.load(Ordering::Relaxed));
    inherited.wrapping_add(t.allocated.load(Relaxed)).wrapping_sub(freed)
}
