//! Memory that one thread writes once, before any other may read it.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that is set once.
pub(crate) struct Once<T> {
    set: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written once, by the one thread that is in `refresh` (which lets one in
// at a time), and read only after `set` was seen.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T: Copy> Once<T> {
    pub(crate) const fn new() -> Self {
        Once { set: AtomicBool::new(false), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// The value, if it was set.
    pub(crate) fn get(&self) -> Option<&T> {
        if !self.set.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: `set` was stored after the value, which nobody changes any more.
        Some(unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// Sets the value, unless it is set. Only one thread at a time may call this.
    pub(crate) fn set(&self, value: T) {
        if !self.set.load(Ordering::Relaxed) {
            // SAFETY: nobody reads before `set` is stored, and nobody else writes.
            unsafe { (*self.value.get()).write(value) };
            self.set.store(true, Ordering::Release);
        }
    }
}

/// Bytes that are written once, front to back.
pub(crate) struct Bytes<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: every byte is written once, by the one thread that is in `refresh`, before it hands
// out a reference to it.
unsafe impl<const N: usize> Sync for Bytes<N> {}

impl<const N: usize> Bytes<N> {
    pub(crate) const fn new() -> Self {
        Bytes(UnsafeCell::new([0; N]))
    }

    /// Copies `bytes` to `start`, which nobody has written to before; `None` if they don't fit.
    pub(crate) fn write(&'static self, start: usize, bytes: &[u8]) -> Option<&'static [u8]> {
        let end = start.checked_add(bytes.len())?;
        if end > N {
            return None;
        }
        // SAFETY: the range lies in the array; nobody has a reference to it yet, and nobody
        // writes to it after.
        unsafe {
            let at = self.0.get().cast::<u8>().add(start);
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
            Some(core::slice::from_raw_parts(at, bytes.len()))
        }
    }
}
