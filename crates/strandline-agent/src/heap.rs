//! How much of glibc's heaps was ever touched: the part of stranded memory that is malloc's.
//!
//! Stranded in a heap = bytes from its start to the highest chunk that was ever handed out (and
//! is still below the heap's end), less the chunks that are live. Holes that `malloc_trim` gave
//! back to the kernel aren't resident; after the first trim residency is asked of the kernel
//! (mincore(2)) instead.
//!
//! Facts: the main heap is the brk area up to `sbrk(0)`; other heaps are aligned to 64 MiB and
//! begin with heap_info, whose `size` is at 16 (glibc malloc/arena.c, 2.17 to 2.43).

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::chunks::{MAIN_HEAP, THREAD_ARENA};
use crate::memory::PAGE;
use crate::region::region;

const HEAP_MAX: usize = 64 << 20;
const HEAPS: usize = 256;
const HEAP_SIZE_OFFSET: usize = 16;

static MAIN_START: AtomicUsize = AtomicUsize::new(0);
static MAIN_TOUCHED: AtomicUsize = AtomicUsize::new(0);
static TRIMMED: AtomicBool = AtomicBool::new(false);
static SHARED: AtomicBool = AtomicBool::new(false);

struct Heap {
    base: AtomicUsize,
    touched: AtomicUsize,
}
static THREAD_HEAPS: [Heap; HEAPS] =
    [const { Heap { base: AtomicUsize::new(0), touched: AtomicUsize::new(0) } }; HEAPS];

static ANY_THREAD_HEAP: AtomicBool = AtomicBool::new(false);

fn raise(cell: &AtomicUsize, value: usize) {
    if value > cell.load(Relaxed) {
        cell.store(value, Relaxed);
    }
}

/// Notes where the brk area begins. Called once from the constructor.
pub fn start() {
    MAIN_START.store(brk_start(), Relaxed);
}

/// The program break, without growing it.
fn brk_end() -> usize {
    // SAFETY: sbrk(0) only reads libc's variable (it asks the kernel once).
    unsafe { libc::sbrk(0) as usize }
}

/// Start of the brk area: the first line of /proc/self/maps named `[heap]` would say; before the
/// first malloc it equals the break itself, and ld.so has not used it (it maps its own memory).
fn brk_start() -> usize {
    brk_end() & !(PAGE - 1)
}

/// A chunk at `start` of `bytes` was handed out: glibc wrote the header behind it.
#[inline(always)]
pub fn chunk_used(start: usize, bytes: usize, kind: usize) {
    let end = start + bytes + 16;
    if kind == MAIN_HEAP {
        let before = MAIN_TOUCHED.load(Relaxed);
        if end > before {
            MAIN_TOUCHED.store(end, Relaxed);
            if end / PAGE != before / PAGE {
                crate::rss::pages_moved();
            }
            let base = MAIN_START.load(Relaxed);
            if base == 0 || start < base {
                MAIN_START.store(start & !(PAGE - 1), Relaxed);
            }
        }
    } else if kind == THREAD_ARENA {
        let base = start & !(HEAP_MAX - 1);
        let first = (base / HEAP_MAX).wrapping_mul(0x9e37_79b1) >> 16;
        for i in 0..HEAPS {
            let heap = &THREAD_HEAPS[(first + i) % HEAPS];
            let known = heap.base.load(Relaxed);
            if known == base {
                if end / PAGE > heap.touched.load(Relaxed) / PAGE {
                    crate::rss::pages_moved();
                }
                raise(&heap.touched, end);
                return;
            }
            if known == 0 && heap.base.compare_exchange(0, base, Relaxed, Relaxed).is_ok() {
                ANY_THREAD_HEAP.store(true, Relaxed);
                raise(&heap.touched, end);
                return;
            }
        }
    }
}

/// The program moves the break by itself: glibc's heap goes on behind what it took.
pub fn break_moved() {
    SHARED.store(true, Relaxed);
}

/// malloc_trim ran.
pub fn trimmed() {
    TRIMMED.store(true, Relaxed);
}

/// Resident bytes of `[start, end)`: all of it, or what mincore says after a trim.
fn resident(start: usize, end: usize) -> usize {
    let end = (end + PAGE - 1) & !(PAGE - 1);
    if end > start && !TRIMMED.load(Relaxed) {
        return end - start;
    }
    resident_pages(start, end)
}

/// Bytes of the pages in `[start, end)` that mincore says are resident. `start` is a page's.
pub fn resident_pages(start: usize, end: usize) -> usize {
    let mut bytes = 0;
    let mut at = start;
    let mut vec = [0u8; 1024];
    while at < end {
        let len = (end - at).min(vec.len() * PAGE);
        // SAFETY: mincore(2) writes one byte per page of the range, which fits `vec`.
        let status = unsafe { libc::syscall(libc::SYS_mincore, at, len, vec.as_mut_ptr()) };
        let pages = len / PAGE;
        if status == 0 {
            bytes += vec.iter().take(pages).filter(|b| **b & 1 != 0).count() * PAGE;
        }
        at += len;
    }
    bytes
}

/// True if the page that `address` lies in is mapped.
pub fn mapped(address: usize) -> bool {
    let page = address & !(PAGE - 1);
    let mut one = [0u8; 1];
    // SAFETY: mincore(2) writes one byte, and fails with ENOMEM for an unmapped range.
    unsafe { libc::syscall(libc::SYS_mincore, page, PAGE, one.as_mut_ptr()) == 0 }
}

/// Bytes that glibc's heaps keep resident and that no live chunk uses.
pub fn stranded() -> i64 {
    let h = &region().head;
    let chunks = |kind: usize| {
        h.chunks[kind].load(Relaxed).wrapping_add(h.chunks_native[kind].load(Relaxed))
    };
    let end = brk_end();
    if MAIN_TOUCHED.load(Relaxed) > end {
        // The top was given back.
        MAIN_TOUCHED.store(end, Relaxed);
    }
    let (start, touched) = (MAIN_START.load(Relaxed), MAIN_TOUCHED.load(Relaxed));
    let main = resident(start, touched);
    let others = if SHARED.load(Relaxed) { crate::ranges::bytes_within(start, touched) } else { 0 };
    let main = (main as i64 - others as i64 - chunks(MAIN_HEAP)).max(0);
    let mut threads = 0usize;
    let heaps: &[Heap] = if ANY_THREAD_HEAP.load(Relaxed) { &THREAD_HEAPS } else { &[] };
    for heap in heaps {
        let base = heap.base.load(Relaxed);
        if base == 0 || !mapped(base) {
            continue;
        }
        // SAFETY: the heap's first page is mapped; heap_info is at its start. A thread that
        // unmaps it at this very moment is the one case that this check can't see; glibc unmaps
        // a heap only when it isn't its arena's first.
        let size = unsafe { *((base + HEAP_SIZE_OFFSET) as *const usize) };
        if size > HEAP_MAX {
            continue;
        }
        let end = heap.touched.load(Relaxed).min(base + size);
        heap.touched.store(end, Relaxed);
        threads += resident(base, end);
    }
    main + (threads as i64 - chunks(THREAD_ARENA)).max(0)
}
