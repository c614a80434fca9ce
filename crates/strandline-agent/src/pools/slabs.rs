//! Slabs: the entries of a pool's blocks. A pool that gets another size class gives its slab back.

use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use super::{entry_bytes, forget, read, write, Entry, ALIGNMENT, CLASSES, POOL_HEADER};
use crate::lock;
use crate::memory;
use crate::stacks;

/// Free slabs by class, linked through their first word.
static FREE_SLABS: [AtomicPtr<u8>; CLASSES] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; CLASSES];

pub fn blocks_in(class: u64, shift: u32) -> usize {
    ((1usize << shift) - POOL_HEADER) / ((class as usize + 1) * ALIGNMENT)
}

/// Bytes of a slab.
pub fn slab_bytes(class: u64, shift: u32) -> usize {
    (blocks_in(class, shift) * entry_bytes(stacks::on()) + 15) & !15
}

pub fn take_slab(class: u64, shift: u32) -> *mut u8 {
    let Some(guard) = lock::lock() else { return core::ptr::null_mut() };
    let list = &FREE_SLABS[class as usize & (CLASSES - 1)];
    let head = list.load(Relaxed);
    if head.is_null() {
        return memory::bump(slab_bytes(class, shift));
    }
    // SAFETY: slabs on the list are at least 16 bytes, their first word links to the next; they
    // are zero otherwise.
    unsafe {
        list.store(*(head as *mut *mut u8), Relaxed);
        *(head as *mut *mut u8) = core::ptr::null_mut();
    }
    drop(guard);
    head
}

/// Gives a slab back. Blocks it still remembers were freed without our seeing it.
pub fn drop_entries(slab: *mut u8, class: u64, shift: u32) {
    if class as usize >= CLASSES {
        return;
    }
    for block in 0..blocks_in(class, shift) {
        // SAFETY: `block` is below the number of entries of a slab of this class.
        let entry = unsafe { slab.add(block * entry_bytes(stacks::on())) } as Entry;
        let value = read(entry);
        if value != 0 {
            write(entry, 0);
            forget(value, (class as usize + 1) * ALIGNMENT);
        }
    }
    if stacks::on() {
        // The list's link and the next user want zeros.
        // SAFETY: the whole of a slab of this class.
        unsafe { slab.write_bytes(0, slab_bytes(class, shift)) };
    }
    let Some(_guard) = lock::lock() else { return };
    let list = &FREE_SLABS[class as usize & (CLASSES - 1)];
    // SAFETY: the slab has at least 16 bytes and no reader left: its pool has another class now.
    unsafe { *(slab as *mut *mut u8) = list.load(Relaxed) };
    list.store(slab, Relaxed);
}
