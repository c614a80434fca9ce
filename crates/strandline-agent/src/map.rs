//! A small hash map from `u64` to `u32` in the agent's own memory.
//!
//! Open addressing, linear probing, grown by doubling; used under the agent's lock only. Keys
//! are exact, never hashes of something longer. Key 0 is not allowed.

use core::cell::Cell;
use core::ptr::null_mut;

use crate::memory;

#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    key: u64,
    value: u32,
    /// The map's generation when it was used last.
    used: u32,
}

/// The map.
pub struct Map {
    entries: Cell<*mut Entry>,
    mask: Cell<usize>,
    filled: Cell<usize>,
    /// Counts up when all keys are forgotten: entries of an earlier one are free.
    generation: Cell<u32>,
}

// SAFETY: every use is under the agent's lock (see the module text).
unsafe impl Sync for Map {}

const FIRST: usize = 256;

fn spread(key: u64) -> usize {
    // The high bits depend on all bits of the key.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 38) as usize
}

impl Default for Map {
    fn default() -> Self {
        Self::new()
    }
}

impl Map {
    /// An empty map; takes memory at the first insertion.
    pub const fn new() -> Self {
        Map {
            entries: Cell::new(null_mut()),
            mask: Cell::new(0),
            filled: Cell::new(0),
            generation: Cell::new(1),
        }
    }

    fn slot(&self, key: u64) -> Option<*mut Entry> {
        let entries = self.entries.get();
        if entries.is_null() {
            return None;
        }
        let (mask, generation) = (self.mask.get(), self.generation.get());
        let mut i = spread(key) & mask;
        loop {
            // SAFETY: `i` is masked to the table's length, and the table is never unmapped.
            let e = unsafe { entries.add(i) };
            // SAFETY: as above.
            let (used, k) = unsafe { ((*e).used, (*e).key) };
            if used != generation || k == key {
                return Some(e);
            }
            i = (i + 1) & mask;
        }
    }

    /// The value stored under `key`.
    pub fn get(&self, key: u64) -> Option<u32> {
        let e = self.slot(key)?;
        // SAFETY: `slot` returns a pointer into the live table.
        let e = unsafe { *e };
        // A removed key stays as a tombstone of value 0.
        (e.used == self.generation.get() && e.value != 0).then_some(e.value)
    }

    /// Stores `value` (not 0) under `key`; false if there is no memory.
    pub fn insert(&self, key: u64, value: u32) -> bool {
        let full = self.filled.get() * 4 >= (self.mask.get() + 1) * 3;
        if (full || self.entries.get().is_null()) && !self.grow() {
            return false;
        }
        let Some(e) = self.slot(key) else { return false };
        // SAFETY: `slot` returns a pointer into the live table.
        unsafe {
            let used = self.generation.get();
            if (*e).used != used {
                self.filled.set(self.filled.get() + 1);
            }
            *e = Entry { key, value, used };
        }
        true
    }

    /// Forgets all keys. The table isn't touched, unless that has happened 2^32 times.
    pub fn clear(&self) {
        let next = self.generation.get().wrapping_add(1);
        let entries = self.entries.get();
        if next == 0 && !entries.is_null() {
            // SAFETY: the table has `mask + 1` entries, for which zeros mean "never used".
            unsafe { entries.write_bytes(0, self.mask.get() + 1) };
        }
        self.generation.set(next.max(1));
        self.filled.set(0);
    }

    /// Forgets `key`.
    pub fn remove(&self, key: u64) {
        if let Some(e) = self.slot(key) {
            // SAFETY: `slot` returns a pointer into the live table; a free entry's value is nobody's.
            unsafe { (*e).value = 0 };
        }
    }

    fn grow(&self) -> bool {
        let old = self.entries.get();
        let old_len = if old.is_null() { 0 } else { self.mask.get() + 1 };
        let lives = |e: &Entry| e.used == self.generation.get() && e.value != 0;
        let mut live = 0;
        for i in 0..old_len {
            // SAFETY: `i` is below the table's length.
            if lives(unsafe { &*old.add(i) }) {
                live += 1;
            }
        }
        let mut len = FIRST;
        while len < live * 2 + 2 {
            len *= 2;
        }
        if len <= old_len && live * 2 > old_len {
            len = old_len * 2;
        }
        let fresh = memory::bump(len * core::mem::size_of::<Entry>()) as *mut Entry;
        if fresh.is_null() {
            return false;
        }
        self.entries.set(fresh);
        self.mask.set(len - 1);
        self.filled.set(0);
        for i in 0..old_len {
            // SAFETY: `i` is below the old table's length; the old table stays mapped.
            let e = unsafe { *old.add(i) };
            if lives(&e) {
                if let Some(at) = self.slot(e.key) {
                    // SAFETY: `slot` returns a pointer into the new table.
                    unsafe { *at = e };
                    self.filled.set(self.filled.get() + 1);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn behaves_like_std() {
        let _guard = crate::lock::lock();
        let map = Map::new();
        let mut truth = HashMap::new();
        let mut x = 88172645463325252u64;
        for _ in 0..50_000 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let key = x % 5000 + 1;
            if x % 3 == 0 {
                map.remove(key);
                truth.remove(&key);
            } else {
                assert!(map.insert(key, (x >> 40) as u32 | 1));
                truth.insert(key, (x >> 40) as u32 | 1);
            }
        }
        for key in 1..=5000 {
            assert_eq!(map.get(key), truth.get(&key).copied());
        }
        map.clear();
        assert!((1..=5000).all(|key| map.get(key).is_none()));
        assert!(map.insert(7, 9));
        assert_eq!(map.get(7), Some(9));
        // What was forgotten leaves no trace, however often, and however the map grows then.
        for round in 1..300u64 {
            map.clear();
            assert_eq!(map.get(round), None);
            map.remove(round);
            for key in 1..=round * 9 {
                assert!(map.insert(key, round as u32));
            }
            assert!((1..=round * 9).all(|key| map.get(key) == Some(round as u32)));
            assert_eq!(map.get(round * 9 + 1), None);
        }
    }
}
