//! A process's call paths (`--stacks`): beside its region, in room of its own.

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use super::{Text, MAX_TAGS, STACKS_ROOM};

/// Capacity of [`Stacks::nodes`].
pub const MAX_NODES: usize = 1 << 21;
/// Capacity of [`Stacks::threads`].
pub const MAX_THREADS: usize = 1 << 10;
/// Classes of request sizes: see [`size_class`].
pub const SIZE_CLASSES: usize = 20;
/// Classes of lifetimes: see [`lifetime_class`].
pub const LIFETIME_CLASSES: usize = 16;
/// Units of [`StacksHead::clock`] in which a block's birth is remembered.
pub const BIRTH_SHIFT: u32 = 10;
/// How many of its last allocations a thread remembers at most.
pub const MOST_RECENT: u32 = 16;

/// [`Path::thread_and_domain`]: `PyObject_Malloc`.
pub const DOMAIN_OBJECT: u32 = 0;
/// [`Path::thread_and_domain`]: `PyMem_Malloc`.
pub const DOMAIN_MEM: u32 = 1;
/// [`Path::thread_and_domain`]: `PyMem_RawMalloc`.
pub const DOMAIN_RAW: u32 = 2;
/// [`Path::thread_and_domain`]: `malloc` and its family, called by anybody else.
pub const DOMAIN_MALLOC: u32 = 3;
/// [`Path::thread_and_domain`]: `mmap`.
pub const DOMAIN_MMAP: u32 = 4;

/// Number of bits of `x`, 0 for 0.
#[inline(always)]
const fn bits(x: u64) -> usize {
    // One instruction where the processor counts zeros from the top only for what isn't 0.
    ((x << 1) | 1).ilog2() as usize
}

/// Class of a request of `n` bytes: class `i` holds up to `16 << i` bytes, the last all above.
#[inline(always)]
pub const fn size_class(n: usize) -> usize {
    let class = bits((n.saturating_sub(1) >> 4) as u64);
    if class < SIZE_CLASSES {
        class
    } else {
        SIZE_CLASSES - 1
    }
}

/// Class of a lifetime in units of 1 KiB allocated meanwhile: class `i` is below `4^i` units, the
/// last holds all above.
#[inline(always)]
pub const fn lifetime_class(units: u32) -> usize {
    let class = (bits(units as u64) + 1) >> 1;
    if class < LIFETIME_CLASSES {
        class
    } else {
        LIFETIME_CLASSES - 1
    }
}

/// [`super::Tag::shape`], lowest byte: the size class that all blocks have, plus one; 0: none yet.
pub const SHAPE_SIZE: u32 = 0xff;
/// [`super::Tag::shape`], second byte: the lifetime class that all blocks had, plus one, and the
/// highest bit: they were temporary. 0: none was freed yet.
pub const SHAPE_END: u32 = 0xff << 8;
/// [`super::Tag::shape`], lowest byte: blocks differ, and are counted in the [`Histogram`] whose index
/// stands in the other three.
pub const SHAPE_MIXED: u32 = 0xff;
/// Where that index begins.
pub const SHAPE_SHIFT: u32 = 8;
/// In [`SHAPE_END`]: temporary.
pub const SHAPE_TEMPORARY: u32 = 1 << 15;

/// [`SHAPE_SIZE`] of blocks of size class `class`.
#[inline(always)]
pub const fn shape_of_size(class: usize) -> u32 {
    class as u32 + 1
}

/// [`SHAPE_END`] of blocks whose lifetime is of class `class`.
#[inline(always)]
pub const fn shape_of_end(class: usize, temporary: bool) -> u32 {
    (class as u32 + 1) << 8 | (temporary as u32) << 15
}

/// The size class that a shape, not a mixed one, says; `None`: none yet.
pub const fn size_in_shape(shape: u32) -> Option<usize> {
    ((shape & SHAPE_SIZE) as usize).checked_sub(1)
}

/// The lifetime class, likewise.
pub const fn end_in_shape(shape: u32) -> Option<usize> {
    ((shape >> 8 & 0x7f) as usize).checked_sub(1)
}

/// One call path on one thread in one domain: what belongs to the [`super::Tag`] of the same
/// index, which counts its bytes and blocks. Nearly all paths come a few times only, and their
/// blocks are alike.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Path {
    /// Index into [`Stacks::nodes`]: the innermost frame; 0: no code was known to run.
    pub node: AtomicU32,
    /// Index into [`Stacks::threads`], and `DOMAIN_*` from bit 16 on.
    pub thread_and_domain: AtomicU32,
    /// Number of blocks given back by threads without the GIL.
    pub blocks_freed_native: AtomicU64,
    /// In use at the peak, if it has changed since, without what was inherited: bytes, blocks.
    pub at_peak: [AtomicU64; 2],
    /// In use where RSS was highest, likewise.
    pub at_rss_peak: [AtomicU64; 2],
    /// Number of blocks in use when the process was forked.
    pub inherited_blocks: AtomicU64,
}

/// Blocks of a path that aren't all alike.
///
/// Its first cache line is for lifetimes, the second for temporaries and for sizes up to 32 KiB.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Histogram {
    /// Number of blocks given back by [`lifetime_class`]; stay at the largest number. That of the
    /// class in `shape` means nothing: it is what the others leave of all.
    pub lifetimes: [AtomicU32; LIFETIME_CLASSES],
    /// Temporary: bytes, blocks.
    pub temporary: [AtomicU64; 2],
    /// Number of allocations by [`size_class`], likewise.
    pub sizes: [AtomicU32; SIZE_CLASSES],
    /// [`super::Tag::shape`] before blocks differed; what it had none of is the lowest class.
    pub shape: AtomicU32,
}

/// A line that was called from its parent's line.
#[repr(C)]
#[derive(Debug)]
pub struct Node {
    /// Index into [`Stacks::nodes`]; 0: called by nobody. Less than the node's own index.
    pub parent: AtomicU32,
    /// Index into [`super::Region::sites`].
    pub site: AtomicU32,
}

/// A thread.
#[repr(C)]
#[derive(Debug)]
pub struct Thread {
    /// Name; empty: unknown.
    pub name: Text,
    /// Kernel's thread id.
    pub tid: AtomicU32,
    /// Padding.
    pub reserved: AtomicU32,
}

/// Counters of a process's call paths.
#[repr(C)]
#[derive(Debug)]
pub struct StacksHead {
    /// Even: the process has as much in use as never before; paths say what they have now. Odd:
    /// that moment is over; a tag whose `peak_state` is equal has saved what it had then,
    /// any other hasn't changed since.
    pub peak_state: AtomicU32,
    /// Counts up at each highest RSS; the same for a tag's `rss_epoch`.
    pub rss_epoch: AtomicU32,
    /// Entries used.
    pub nodes: AtomicU32,
    /// Entries used.
    pub threads: AtomicU32,
    /// Most bytes in use so far.
    pub peak: AtomicI64,
    /// Highest RSS seen so far, the profiler's own part included.
    pub rss_peak: AtomicI64,
    /// Bytes allocated so far by threads that held the GIL.
    pub clock: AtomicU64,
    /// Bytes allocated so far by other threads.
    pub clock_native: AtomicU64,
    /// Entries used.
    pub histograms: AtomicU32,
}

/// See the module.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Stacks {
    /// Counters and table sizes.
    pub head: StacksHead,
    /// Threads; entry 0 stands for all that found no room.
    pub threads: [Thread; MAX_THREADS],
    /// Call paths as a tree.
    pub nodes: [Node; MAX_NODES],
    /// What each tag counts.
    pub paths: [Path; MAX_TAGS],
    /// Of paths whose blocks differ; entry 0 is nobody's.
    pub histograms: [Histogram; MAX_TAGS],
}

const _: () = assert!(core::mem::size_of::<Path>() == 64);
const _: () = assert!(core::mem::size_of::<Histogram>() == 192);
const _: () = assert!(core::mem::size_of::<Stacks>() <= STACKS_ROOM);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_sizes() {
        for (n, class) in [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (512, 5)] {
            assert_eq!(size_class(n), class, "{n}");
        }
        assert_eq!(size_class(16 << 18), 18);
        assert_eq!(size_class((16 << 18) + 1), 19);
        assert_eq!(size_class(usize::MAX), 19);
    }

    #[test]
    fn classes_of_lifetimes() {
        for (units, class) in [(0, 0), (1, 1), (3, 1), (4, 2), (15, 2), (16, 3), (u32::MAX, 15)] {
            assert_eq!(lifetime_class(units), class, "{units}");
        }
    }
}
