//! What was read last for a loop's frame: a chain stays the same as long as every word that it was
//! read from does.
//!
//! The words are looked at again in the order in which they were read. An address among them comes
//! from words in front of it, and as long as these are the same it is that of a live object. What
//! is never written again in a live object (types, code, texts) is not among the words.

use core::cell::{Cell, UnsafeCell};

use super::Inner;
use crate::python::word;

/// Words of a chain, at most: some 10 to 20 for each task. Longer ones are read anew every time.
const MOST: usize = 480;
/// Words back that are looked at before one is noted.
const AGAIN: usize = 32;
/// One for each loop that runs, unless two fall on the same.
const MEMOS: usize = 16;

/// A chain's hash and what it was read from.
pub struct Memo {
    /// The frame of `Handle._run`; 0: nothing is remembered.
    frame: Cell<usize>,
    inner: Cell<Inner>,
    hash: Cell<u64>,
    count: Cell<usize>,
    /// Addresses and what stood there.
    words: [Cell<(usize, usize)>; MOST],
}

struct All(UnsafeCell<[Memo; MEMOS]>);
// SAFETY: used by threads that hold the GIL only.
unsafe impl Sync for All {}
static ALL: All = All(UnsafeCell::new(
    [const {
        Memo {
            frame: Cell::new(0),
            inner: Cell::new(Inner::NONE),
            hash: Cell::new(0),
            count: Cell::new(0),
            words: [const { Cell::new((0, 0)) }; MOST],
        }
    }; MEMOS],
));

/// The memo for a frame of `Handle._run`. The caller holds the GIL.
#[inline]
pub fn of(frame: usize) -> &'static Memo {
    let at = (frame.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) & (MEMOS - 1);
    // SAFETY: see `All`; below the table's length.
    unsafe { (*ALL.0.get()).get_unchecked(at) }
}

impl Memo {
    /// The hash, if all is as it was. `frame` is alive.
    #[inline]
    pub fn recall(&self, frame: usize, inner: Inner) -> Option<u64> {
        if self.frame.get() != frame || self.inner.get() != inner {
            return None;
        }
        let words = self.words.get(..self.count.get())?;
        // SAFETY: see this module's head: each address is alive if those before it are the same.
        let same = words.iter().map(Cell::get).all(|(at, was)| unsafe { word(at) } == was);
        same.then(|| self.hash.get())
    }

    /// Starts to remember anew.
    pub fn begin(&self) {
        self.frame.set(0);
        self.count.set(0);
    }

    /// The word at `at` was read.
    pub fn note(&self, at: usize, was: usize) {
        let count = self.count.get();
        // The same ones are asked again and again within a few questions.
        let lately = self.words.get(count.saturating_sub(AGAIN)..count).unwrap_or(&[]);
        if lately.iter().any(|cell| cell.get().0 == at) {
            return;
        }
        if let Some(cell) = self.words.get(count) {
            cell.set((at, was));
        }
        self.count.set(count + 1);
    }

    /// All was read.
    pub fn end(&self, frame: usize, inner: Inner, hash: u64) {
        if self.count.get() <= MOST {
            self.inner.set(inner);
            self.hash.set(hash);
            self.frame.set(frame);
        }
    }
}
