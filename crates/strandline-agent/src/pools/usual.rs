//! Entries of blocks under `--stacks` where all is as usual: the flat table is there, and a block's
//! size class follows from the request. Nearly all pools are touched to their end, and nearly all
//! blocks were seen: these functions are what each allocation and each free costs.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    class_of, entry_at, first_sight, flat_window, reach_of, reaches, slab_of, ALIGNMENT,
    CLASS_SHIFT, FLAT, KNOWN, REACH_MASK, REQUEST, REQUEST_BITS,
};

/// The descriptor of the pool that `p` lies in; 0: in none. Wants the flat table.
#[inline(always)]
fn descriptor_of<const SHIFT: u32>(p: usize) -> u64 {
    let cell = (FLAT.load(Relaxed) as *const AtomicU64).wrapping_add(p >> SHIFT);
    // SAFETY: the table has an entry for every window of user addresses; it is mapped for ever.
    unsafe { (*cell).load(Relaxed) }
}

/// An entry under `--stacks`: the block's birth, its tag, the request.
#[derive(Clone, Copy)]
pub struct Whole(*mut u64);

impl Whole {
    /// Where the block at `p` of a pool with this descriptor has it.
    #[inline(always)]
    fn at<const SHIFT: u32>(descriptor: u64, class: u64, p: usize) -> Whole {
        Whole(entry_at::<true>(descriptor, class, p & ((1 << SHIFT) - 1)) as *mut u64)
    }

    /// From now on the block is remembered.
    #[inline(always)]
    pub fn set(self, tag: u32, n: usize, birth: u32) {
        let value = (birth as u64) << 32 | (tag << REQUEST_BITS | n as u32) as u64;
        // SAFETY: a block's entry in a live slab; slabs are 16-byte aligned.
        unsafe { *self.0 = value };
    }

    /// The block is forgotten.
    #[inline(always)]
    pub fn clear(self) {
        // SAFETY: as in `set`.
        unsafe { *self.0 = 0 };
    }
}

/// The entry for the block at `p`, just handed out by pymalloc for a small request of `n` bytes;
/// `None`: not in an arena. For `--stacks`, with the flat table, where the size class follows from
/// the request. The caller holds the GIL.
#[inline(always)]
pub fn entry_of_new<const SHIFT: u32>(p: usize, n: usize) -> Option<Whole> {
    let class = n.wrapping_sub(1) as u64 / ALIGNMENT as u64;
    let mut d = descriptor_of::<SHIFT>(p);
    if d as u16 != (KNOWN | class << CLASS_SHIFT | REACH_MASK) as u16 {
        let class_bytes = (class as usize + 1) * ALIGNMENT;
        let reach = reach_of::<SHIFT>(p & ((1 << SHIFT) - 1), class_bytes);
        if !reaches(d, class, reach) {
            d = first_sight(flat_window::<SHIFT>(p), class, reach, SHIFT);
        }
    }
    if slab_of(d) == 0 {
        return None;
    }
    Some(Whole::at::<SHIFT>(d, class, p))
}

/// Bytes of a block that serves a small request of `n` bytes.
#[inline(always)]
pub fn class_bytes(n: usize) -> usize {
    (n.wrapping_sub(1) & !(ALIGNMENT - 1)) + ALIGNMENT
}

/// What is remembered of the block at `p`, and where: size class, tag, request, birth.
pub struct Remembered {
    /// Where it stands.
    pub entry: Whole,
    /// Bytes of a block of its size class.
    pub class_bytes: usize,
    /// What it was allocated under.
    pub tag: u32,
    /// Bytes asked for.
    pub size: usize,
    /// When it was allocated.
    pub birth: u32,
}

/// What is remembered of the block at `p`; `None`: nothing. For `--stacks`, with the flat table.
/// The caller holds the GIL.
#[inline(always)]
pub fn entry_of<const SHIFT: u32>(p: usize) -> Option<Remembered> {
    let d = descriptor_of::<SHIFT>(p);
    if slab_of(d) == 0 {
        return None;
    }
    let class = class_of(d);
    let entry = Whole::at::<SHIFT>(d, class, p);
    // SAFETY: a block's entry in a live slab; slabs are 16-byte aligned.
    let value = unsafe { *entry.0 };
    if value as u32 == 0 {
        return None;
    }
    Some(Remembered {
        entry,
        class_bytes: (class as usize + 1) * ALIGNMENT,
        tag: value as u32 >> REQUEST_BITS,
        size: (value as u32 & REQUEST) as usize,
        birth: (value >> 32) as u32,
    })
}
