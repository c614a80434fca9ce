//! Resident memory, read seldom; and the whole-process ledger.
//!
//! A reading is one open, read and close of /proc/self/statm (about 2 µs): a kept descriptor
//! would be one more that the program can see or close. It is read at a line's end only if an
//! allocator moved pages since the last reading, or if there is memory that the program may be
//! touching for the first time (large fresh blocks, mappings) and enough time went by to do so.
//!
//! How exact the kernel's figure is: it batches page counts per CPU, so that a reading can be
//! off by some pages per thread (proc(5), smaps_rollup is exact and costs milliseconds).

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout::Ledger;

use crate::census;
use crate::clock;
use crate::counters;
use crate::heap;
use crate::memory::{self, PAGE};
use crate::region::{self, region};
use crate::sites;

/// Cycles after which a reading is taken even if no allocator moved pages: 20 µs at 2.5 GHz.
const STALE_CYCLES: u64 = 50_000;

static MOVED: AtomicU32 = AtomicU32::new(1);
static READ_AT: AtomicU32 = AtomicU32::new(0);
static READ_CYCLES: AtomicU64 = AtomicU64::new(0);
static LAST_RSS: AtomicI64 = AtomicI64::new(0);

/// An allocator mapped, unmapped or first touched pages.
#[inline(always)]
pub fn pages_moved() {
    let n = MOVED.load(Relaxed).wrapping_add(1).max(1);
    MOVED.store(n, Relaxed);
    if n % 16 == 0 {
        write_latest();
    }
}

/// Blocks and mappings of at least this many bytes may be handed out untouched.
pub const LARGE: usize = 64 << 10;
/// Bytes in live large blocks and mappings.
static LARGE_LIVE: AtomicI64 = AtomicI64::new(0);
/// At most so many of them were never touched. Only for "is a reading due", never for a figure.
static UNTOUCHED: AtomicI64 = AtomicI64::new(0);

/// A large block or mapping of fresh memory was handed out.
pub fn large_allocated(bytes: usize) {
    LARGE_LIVE.fetch_add(bytes as i64, Relaxed);
    UNTOUCHED.fetch_add(bytes as i64, Relaxed);
    pages_moved();
}

/// A large block or mapping was given back.
pub fn large_freed(bytes: usize) {
    let live = (LARGE_LIVE.fetch_sub(bytes as i64, Relaxed) - bytes as i64).max(0);
    UNTOUCHED.fetch_min(live, Relaxed);
    pages_moved();
}

/// Memory may be given back to the kernel right after this: the last moment for a census of the
/// peak, if one is wanted. Called where the thread may wait.
#[inline(always)]
pub fn before_release() {
    if census::looks_for_peak() {
        look_for_peak();
    }
    if crate::stacks::on() {
        look_by_path();
    }
}

/// Bytes that must have been allocated since the last look for another one to be worth it.
const WORTH_A_LOOK: u64 = 1 << 20;
/// Looking takes at most this part of the time,
const LOOKING: u64 = 100;
/// unless this part of the highest RSS was allocated since the last look.
const MUCH: u64 = 8;
static LOOKED_AT: AtomicU64 = AtomicU64::new(0);
/// Cycles before which looking again costs too much.
static LOOK_NOT_BEFORE: AtomicU64 = AtomicU64::new(0);

#[cold]
#[inline(never)]
fn look_by_path() {
    let clock = crate::stacks::count::bytes_allocated();
    let since = clock.wrapping_sub(LOOKED_AT.load(Relaxed));
    if since < WORTH_A_LOOK {
        return;
    }
    let start = clock::cycles();
    let much = region().head.rss_peak.load(Relaxed) as u64 / MUCH;
    if since < much && start < LOOK_NOT_BEFORE.load(Relaxed) {
        return;
    }
    LOOKED_AT.store(clock, Relaxed);
    if let Some(rss) = kernel_rss() {
        note_peak(rss);
    }
    let end = clock::cycles();
    let cost = end.wrapping_sub(start).min(LEDGER_CYCLES / LOOKING);
    LOOK_NOT_BEFORE.store(end.wrapping_add(cost * LOOKING), Relaxed);
}

#[cold]
#[inline(never)]
fn look_for_peak() {
    if let Some(rss) = kernel_rss() {
        census::maybe_peak(rss, true);
    }
}

/// What the last reading said.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    /// Resident bytes, the profiler's own taken off.
    pub rss: i64,
    /// Stranded bytes.
    pub stranded: i64,
    /// `moved()` when `rss` was read.
    pub at: u32,
}

/// Counts up whenever pages move; never 0.
#[inline(always)]
pub fn moved() -> u32 {
    MOVED.load(Relaxed)
}

/// True while there is large memory that may be touched for the first time.
#[inline(always)]
pub fn untouched_memory() -> bool {
    UNTOUCHED.load(Relaxed) >= LARGE as i64
}

/// Resident bytes of the process as the kernel says; `None` if it doesn't.
pub fn kernel_rss() -> Option<i64> {
    let mut text = [0u8; 128];
    let text = crate::proc::read(c"/proc/self/statm", &mut text);
    let field = text.split(|b| *b == b' ').nth(1)?;
    let pages = field
        .iter()
        .try_fold(0i64, |v, b| b.is_ascii_digit().then(|| v * 10 + (*b - b'0') as i64))?;
    Some(pages * PAGE as i64)
}

/// The profiler's own resident bytes: its tables, the mapped part of the capture, and what it
/// made the interpreter allocate.
pub fn profiler_bytes() -> i64 {
    memory::resident()
        + region::resident()
        + crate::stacks::native::resident()
        + counters::in_use_of(sites::PROFILER) as i64
}

/// Bytes that pymalloc keeps resident and no live block uses.
pub fn stranded_arenas() -> i64 {
    let h = &region().head;
    (h.arena_resident.load(Relaxed) - h.block_bytes.load(Relaxed)).max(0)
}

/// Bytes in use by the program itself.
pub fn program_in_use() -> i64 {
    counters::in_use()
}

/// The last reading, taken anew if it may be out of date.
#[inline]
pub fn reading() -> Reading {
    let moved = MOVED.load(Relaxed);
    if moved != READ_AT.load(Relaxed) || (untouched_memory() && is_stale()) {
        read_again(moved);
    }
    Reading {
        rss: LAST_RSS.load(Relaxed),
        stranded: stranded_arenas() + heap::stranded(),
        at: READ_AT.load(Relaxed),
    }
}

/// Reading the clock costs more than the rest of a line event: only where it matters.
#[inline(never)]
fn is_stale() -> bool {
    clock::cycles().wrapping_sub(READ_CYCLES.load(Relaxed)) > STALE_CYCLES
}

#[cold]
#[inline(never)]
fn read_again(moved: u32) {
    if let Some(rss) = kernel_rss() {
        let before = LAST_RSS.swap(rss - profiler_bytes(), Relaxed);
        let grown = (LAST_RSS.load(Relaxed) - before).max(0);
        UNTOUCHED.fetch_sub(grown.min(UNTOUCHED.load(Relaxed)), Relaxed);
        note_peak(rss);
    }
    write_latest();
    READ_AT.store(moved, Relaxed);
    READ_CYCLES.store(clock::cycles(), Relaxed);
}

/// RSS was read: whether it was never higher.
fn note_peak(rss: i64) {
    let peak = &region().head.rss_peak;
    if rss > peak.load(Relaxed) {
        peak.store(rss, Relaxed);
    }
    crate::stacks::rss_read(rss);
}

/// Cycles between two ledgers of a running process: 10 ms at 2.5 GHz.
const LEDGER_CYCLES: u64 = 25_000_000;
static LEDGER_AT: AtomicU64 = AtomicU64::new(0);

/// Writes the ledger that a killed process leaves behind, if the last one is old. Called where
/// memory grows.
#[cold]
pub fn write_latest() {
    let now = clock::cycles();
    if now.wrapping_sub(LEDGER_AT.load(Relaxed)) > LEDGER_CYCLES {
        LEDGER_AT.store(now, Relaxed);
        write_ledger(&region().head.latest);
    }
}

/// Writes the whole-process ledger as of now.
pub fn write_ledger(to: &Ledger) {
    let Some(rss) = kernel_rss() else { return };
    note_peak(rss);
    to.rss.store(rss, Relaxed);
    to.profiler.store(profiler_bytes(), Relaxed);
    to.in_use.store(program_in_use(), Relaxed);
    to.stranded_arenas.store(stranded_arenas(), Relaxed);
    to.stranded_heap.store(heap::stranded(), Relaxed);
    to.when.store(clock::wall(), Relaxed);
    if census::looks_for_peak() {
        census::maybe_peak(rss, false);
    }
}
