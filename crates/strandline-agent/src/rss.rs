//! Resident memory, read seldom; and the whole-process ledger.
//!
//! A reading is one open, read and close of /proc/self/statm (about 2 µs): a kept descriptor
//! would be one more that the program can see or close. It is read at a line's end only if an
//! allocator moved pages since the last reading, or if enough time went by for the program to
//! have touched some on its own.
//!
//! How exact the kernel's figure is: it batches page counts per CPU, so that a reading can be
//! off by some pages per thread (proc(5), smaps_rollup is exact and costs milliseconds).

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout::Ledger;

use crate::clock;
use crate::counters;
use crate::heap;
use crate::memory::{self, PAGE};
use crate::region::{self, region};
use crate::sites;

/// Cycles after which a reading is taken even if no allocator moved pages: 20 µs at 2.5 GHz.
const STALE_CYCLES: u64 = 50_000;

static MOVED: AtomicU32 = AtomicU32::new(0);
static READ_AT: AtomicU32 = AtomicU32::new(u32::MAX);
static READ_CYCLES: AtomicU64 = AtomicU64::new(0);
static LAST_RSS: AtomicI64 = AtomicI64::new(0);
static LAST_STRANDED: AtomicI64 = AtomicI64::new(0);

/// An allocator mapped, unmapped or first touched pages.
#[inline(always)]
pub fn pages_moved() {
    MOVED.store(MOVED.load(Relaxed).wrapping_add(1), Relaxed);
}

/// What the last reading said.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    /// Resident bytes, the profiler's own taken off.
    pub rss: i64,
    /// Stranded bytes.
    pub stranded: i64,
}

/// Resident bytes of the process as the kernel says; `None` if it doesn't.
fn kernel_rss() -> Option<i64> {
    let mut text = [0u8; 128];
    // SAFETY: plain open(2), read(2) into a buffer of the given size, close(2).
    let n = unsafe {
        let fd = libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            c"/proc/self/statm".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        );
        if fd < 0 {
            return None;
        }
        let n = libc::syscall(libc::SYS_read, fd, text.as_mut_ptr(), text.len());
        libc::syscall(libc::SYS_close, fd);
        n
    };
    let text = text.get(..usize::try_from(n).ok()?)?;
    let field = text.split(|b| *b == b' ').nth(1)?;
    let pages = field
        .iter()
        .try_fold(0i64, |v, b| b.is_ascii_digit().then(|| v * 10 + (*b - b'0') as i64))?;
    Some(pages * PAGE as i64)
}

/// The profiler's own resident bytes: its tables, the mapped part of the capture, and what it
/// made the interpreter allocate.
pub fn profiler_bytes() -> i64 {
    memory::resident() + region::resident() + counters::in_use_of(sites::PROFILER) as i64
}

/// Bytes that pymalloc keeps resident and no live block uses.
pub fn stranded_arenas() -> i64 {
    let h = &region().head;
    (h.arena_resident.load(Relaxed) - h.block_bytes.load(Relaxed)).max(0)
}

/// Bytes in use by the program itself.
pub fn program_in_use() -> i64 {
    counters::in_use() - counters::in_use_of(sites::PROFILER) as i64
}

/// The last reading, taken anew if it may be out of date.
#[inline]
pub fn reading() -> Reading {
    let moved = MOVED.load(Relaxed);
    let now = clock::cycles();
    if moved != READ_AT.load(Relaxed) || now.wrapping_sub(READ_CYCLES.load(Relaxed)) > STALE_CYCLES
    {
        read_again(moved);
    }
    Reading { rss: LAST_RSS.load(Relaxed), stranded: LAST_STRANDED.load(Relaxed) }
}

#[cold]
#[inline(never)]
fn read_again(moved: u32) {
    if let Some(rss) = kernel_rss() {
        LAST_RSS.store(rss - profiler_bytes(), Relaxed);
        let peak = &region().head.rss_peak;
        if rss > peak.load(Relaxed) {
            peak.store(rss, Relaxed);
        }
    }
    LAST_STRANDED.store(stranded_arenas() + heap::stranded(), Relaxed);
    write_latest();
    READ_AT.store(moved, Relaxed);
    READ_CYCLES.store(clock::cycles(), Relaxed);
}

/// Cycles between two ledgers of a running process: 10 ms at 2.5 GHz.
const LEDGER_CYCLES: u64 = 25_000_000;
static LEDGER_AT: AtomicU64 = AtomicU64::new(0);

/// Writes the ledger that a killed process leaves behind, if the last one is old. Called where
/// memory grows.
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
    let peak = &region().head.rss_peak;
    if rss > peak.load(Relaxed) {
        peak.store(rss, Relaxed);
    }
    to.rss.store(rss, Relaxed);
    to.profiler.store(profiler_bytes(), Relaxed);
    to.in_use.store(program_in_use(), Relaxed);
    to.stranded_arenas.store(stranded_arenas(), Relaxed);
    to.stranded_heap.store(heap::stranded(), Relaxed);
    to.when.store(clock::wall(), Relaxed);
}
