//! By address: the sparse tables that remember what every block was allocated for.
//!
//! One root entry a GiB of address space; below it, tables that are resident only where they
//! are used. [`crate::pools`] and [`crate::chunks`] say what the entries mean.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout::CHUNK_TABLES;

use crate::chunks::LargeEntry;
use crate::memory::{self, PAGE};

const ROOTS: usize = 1 << 17;
/// Pages of a [`Gib`], for its bitmap of touched pages.
const GIB_PAGES: usize = core::mem::size_of::<Gib>().div_ceil(PAGE);

static ROOT: [AtomicPtr<Gib>; ROOTS] = [const { AtomicPtr::new(null_mut()) }; ROOTS];

/// Tables for one GiB of addresses.
#[repr(C)]
pub struct Gib {
    /// Which pages of this structure hold anything.
    touched: [AtomicU64; 16],
    /// One descriptor per pool-sized window (see [`crate::pools`]); 4 KiB pools use all of
    /// them, 16 KiB pools the first quarter.
    pub pools: [AtomicU64; 1 << 18],
    /// One leaf per 32 KiB: chunks below 512 bytes (see [`crate::chunks`]).
    pub small: [AtomicU64; 1 << 15],
    /// One leaf per 128 KiB: larger chunks.
    pub large: [AtomicU64; 1 << 13],
    /// One entry per 128 KiB: chunks that are no smaller than that.
    pub huge: [LargeEntry; 1 << 13],
}

const _: () = assert!(GIB_PAGES <= 16 * 64);
// Readers of this process's memory go by these.
const _: () = assert!(
    core::mem::offset_of!(Gib, small) as u64 == CHUNK_TABLES[0]
        && core::mem::offset_of!(Gib, large) as u64 == CHUNK_TABLES[1]
        && core::mem::offset_of!(Gib, huge) as u64 == CHUNK_TABLES[2]
);

/// Tells readers of this process's memory where the tables are.
pub fn publish() {
    memory::publish_chunks(ROOT.as_ptr() as usize);
}

/// The tables for `address`, if any were made.
#[inline(always)]
pub fn gib(address: usize) -> Option<&'static Gib> {
    // SAFETY: masked to the table's length; user addresses have 47 bits.
    let p = unsafe { ROOT.get_unchecked((address >> 30) & (ROOTS - 1)) }.load(Relaxed);
    // SAFETY: root entries are null or mapped for ever; all fields are atomics.
    (!p.is_null()).then(|| unsafe { &*p })
}

/// The tables for `address`, made if they don't exist; `None` if there is no memory.
pub fn gib_or_new(address: usize) -> Option<&'static Gib> {
    if let Some(g) = gib(address) {
        return Some(g);
    }
    let fresh = memory::map(core::mem::size_of::<Gib>()) as *mut Gib;
    if fresh.is_null() {
        return None;
    }
    let entry = ROOT.get(address >> 30)?;
    if entry.compare_exchange(null_mut(), fresh, Relaxed, Relaxed).is_err() {
        // Another thread was faster.
        // SAFETY: unmaps what was just mapped here and nobody else has seen.
        unsafe { libc::syscall(libc::SYS_munmap, fresh, core::mem::size_of::<Gib>()) };
    } else {
        memory::add_resident(2 * PAGE); // the bitmap's page and the root entry's
    }
    gib(address)
}

impl Gib {
    /// Stores into one of this structure's own tables and counts the page if it is new.
    pub fn set(&self, cell: &AtomicU64, value: u64) {
        self.note_touched(cell);
        cell.store(value, Relaxed);
    }

    /// Counts the page of `part`, something in this structure, if it is new.
    pub fn note_touched<T>(&self, part: &T) {
        let page = (part as *const T as usize - self as *const Gib as usize) / PAGE;
        if let Some(word) = self.touched.get(page / 64) {
            let bit = 1u64 << (page % 64);
            if word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0 {
                memory::add_resident(PAGE);
            }
        }
    }
}
