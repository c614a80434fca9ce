//! The profiler's own objects: a small heap apart from the program's.
//!
//! What the front makes the interpreter allocate (functions, events, bound methods of traced
//! calls) must not change the history of the program's heap: where glibc puts the next block, and
//! so what it can give back later, depends on every block before. While a thread works for the
//! profiler its allocations are served from here; a free or realloc recognises them by address.
//! So are the few allocations that `dlsym` makes while libc's own functions are looked up.

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::c_void;

use crate::lock;
use crate::memory::{self, PAGE};

const BYTES: usize = 32 << 20;
/// Requests from this size on are the program's even while a thread works for the profiler: a
/// table of its own that happens to grow now (the dict of interned strings).
pub const LARGEST: usize = 90 << 10;
/// Bytes in front of each block: its size.
const HEADER: usize = 16;
/// Up to this many bytes there is a class of blocks every 16 bytes, above it four per doubling.
const SMALL: usize = 1024;
const SMALL_CLASSES: usize = SMALL / 16 + 1;
const CLASSES: usize = SMALL_CLASSES + 4 * 15;

#[repr(C, align(4096))]
struct Heap(UnsafeCell<[u8; BYTES]>);
// SAFETY: handed out in disjoint pieces under the agent's lock.
unsafe impl Sync for Heap {}
static HEAP: Heap = Heap(UnsafeCell::new([0; BYTES]));
static USED: AtomicUsize = AtomicUsize::new(0);
static FREE: [AtomicUsize; CLASSES] = [const { AtomicUsize::new(0) }; CLASSES];

fn start() -> usize {
    HEAP.0.get() as usize
}

/// The class for a request of `n` bytes, and the size of its blocks.
fn class(n: usize) -> (usize, usize) {
    let rounded = (n.max(1).saturating_add(15)) & !15;
    if rounded <= SMALL {
        return (rounded / 16, rounded);
    }
    let octave = (rounded - 1).ilog2() as usize; // 2^octave < rounded <= 2^(octave + 1)
    let step = 1usize << (octave - 2);
    let quarters = (rounded - (1 << octave)).div_ceil(step);
    (SMALL_CLASSES + (octave - 10) * 4 + quarters - 1, (1 << octave) + quarters * step)
}

/// True if `p` was handed out by this heap.
#[inline(always)]
pub fn owns(p: usize) -> bool {
    p.wrapping_sub(start()) < BYTES
}

/// A zeroed block of `n` bytes, 16-byte aligned; null if the heap is used up.
pub fn alloc(n: usize) -> *mut c_void {
    if n >= BYTES {
        return null_mut();
    }
    let (class, rounded) = class(n);
    let Some(_guard) = lock::lock() else { return null_mut() };
    if let Some(list) = FREE.get(class) {
        let block = list.load(Relaxed);
        if block != 0 {
            // SAFETY: a free block of this class: its first word links to the next.
            unsafe {
                list.store(*(block as *const usize), Relaxed);
                core::ptr::write_bytes(block as *mut u8, 0, rounded);
            }
            return block as *mut c_void;
        }
    }
    let at = USED.load(Relaxed);
    let Some(end) = at.checked_add(HEADER + rounded).filter(|end| *end <= BYTES) else {
        return null_mut();
    };
    USED.store(end, Relaxed);
    memory::add_resident((end.div_ceil(PAGE) - at.div_ceil(PAGE)) * PAGE);
    let block = start() + at + HEADER;
    // SAFETY: within the heap, and nobody else's: the lock is held.
    unsafe { *((block - HEADER) as *mut usize) = rounded };
    block as *mut c_void
}

/// Size of a block of this heap, bytes.
pub fn size(p: usize) -> usize {
    // SAFETY: the word in front of a block of this heap.
    unsafe { *((p - HEADER) as *const usize) }
}

/// Moves a block to a size of `n` bytes, within this heap; null, and the block stays, if it is
/// used up.
pub fn realloc(p: *mut c_void, n: usize) -> *mut c_void {
    let fresh = alloc(n);
    if !fresh.is_null() {
        // SAFETY: both blocks are live and at least as long as what is copied.
        unsafe {
            let room = size(p as usize).min(n);
            core::ptr::copy_nonoverlapping(p as *const u8, fresh as *mut u8, room);
        }
        free(p as usize);
    }
    fresh
}

/// Takes a block back.
pub fn free(p: usize) {
    let Some(list) = FREE.get(class(size(p)).0) else { return };
    let Some(_guard) = lock::lock() else { return };
    // SAFETY: the block is its owner's no longer; at least 16 bytes.
    unsafe { *(p as *mut usize) = list.load(Relaxed) };
    list.store(p, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_disjoint_zeroed_and_used_again() {
        let a = alloc(100) as usize;
        let b = alloc(100) as usize;
        assert!(owns(a) && owns(b) && a % 16 == 0 && b.abs_diff(a) >= 112);
        assert_eq!(size(a), 112);
        // SAFETY: `a` is a block of at least 100 bytes.
        unsafe { core::ptr::write_bytes(a as *mut u8, 0xff, 100) };
        free(a);
        let c = alloc(99) as usize;
        assert_eq!(c, a);
        // SAFETY: as above.
        assert!((0..99).all(|i| unsafe { *((c + i) as *const u8) } == 0));
        assert!(alloc(BYTES).is_null());
        let mut before = (0, 0);
        for n in 1..200_000 {
            let (class, bytes) = class(n);
            assert!(class < CLASSES && bytes >= n && bytes % 16 == 0);
            assert!(class == before.0 && bytes == before.1 || class == before.0 + 1);
            assert_eq!(super::class(bytes), (class, bytes));
            before = (class, bytes);
        }
    }
}
