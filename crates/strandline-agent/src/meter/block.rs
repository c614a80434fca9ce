//! Memory of meters: blocks whose sizes are powers of two, which are used again. Under the GIL.

use core::cell::Cell;

use crate::memory;

/// The smallest block: 2^12 bytes.
const SMALLEST: u32 = 12;
/// The largest: 2^28 bytes.
const LARGEST: u32 = 28;
const SIZES: usize = (LARGEST - SMALLEST + 1) as usize;

struct Free([Cell<usize>; SIZES]);
// SAFETY: used under the GIL only.
unsafe impl Sync for Free {}
/// Blocks by size that nobody uses; the first word of each is the next one's address.
static FREE: Free = Free([const { Cell::new(0) }; SIZES]);

/// A block, aligned to a page.
#[derive(Clone, Copy)]
pub struct Block {
    /// Where it is.
    pub start: *mut u8,
    /// Its size.
    pub bytes: usize,
}

fn size_index(bytes: usize) -> Option<usize> {
    let bits = usize::BITS - bytes.saturating_sub(1).leading_zeros();
    (bits <= LARGEST).then_some(bits.max(SMALLEST) as usize - SMALLEST as usize)
}

/// A block of at least so many bytes, all zero and resident; none if the kernel refuses.
pub fn take(bytes: usize) -> Option<Block> {
    let index = size_index(bytes)?;
    let bytes = 1usize << (index as u32 + SMALLEST);
    let free = FREE.0.get(index)?;
    let start = match free.get() {
        0 => memory::map(bytes),
        block => {
            // SAFETY: a block that was given back, of which the first word is the next.
            free.set(unsafe { *(block as *const usize) });
            block as *mut u8
        }
    };
    if start.is_null() {
        return None;
    }
    // Its pages must not come in the middle of what is measured.
    // SAFETY: a block of this size that nobody else uses.
    unsafe { start.write_bytes(0, bytes) };
    Some(Block { start, bytes })
}

/// Gives a block back.
///
/// # Safety
/// It came from [`take`], and nobody uses it any more.
pub unsafe fn give(block: Block) {
    let Some(free) = size_index(block.bytes).and_then(|i| FREE.0.get(i)) else { return };
    // SAFETY: the caller's promise.
    unsafe { *(block.start as *mut usize) = free.get() };
    free.set(block.start as usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_and_used_again() {
        assert_eq!(size_index(1), Some(0));
        assert_eq!(size_index(4096), Some(0));
        assert_eq!(size_index(4097), Some(1));
        assert_eq!(size_index(1 << 28), Some(SIZES - 1));
        assert_eq!(size_index((1 << 28) + 1), None);
        assert!(take(usize::MAX).is_none());
        let Some(first) = take(5000) else { return assert!(size_index(5000).is_none()) };
        assert_eq!(first.bytes, 8192);
        // SAFETY: the block is this test's, and isn't used after.
        unsafe {
            first.start.add(8191).write(7);
            give(first);
        }
        let again = take(8192);
        assert!(again.is_some_and(|b| b.start == first.start));
        // SAFETY: as above.
        assert_eq!(unsafe { first.start.add(8191).read() }, 0);
    }
}
