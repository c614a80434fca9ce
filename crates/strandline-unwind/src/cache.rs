//! Squeezed rows by address: a direct-mapped table that any thread reads and writes without a
//! lock.
//!
//! A slot is two words, `mixed key ^ row` and `row`: a slot of which one word is another
//! writer's gives a key that nobody has. The key holds the epoch of the module table, so what
//! was learned before a library was unloaded is not found any more.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::bare::PAGE;
use crate::compact::Compact;

/// Slots, as a power of two: 256 KiB, of which touched pages are resident. A Python program has
/// some thousand return addresses in native code.
const BITS: u32 = 14;

struct Slot {
    check: AtomicU64,
    row: AtomicU64,
}

static SLOTS: [Slot; 1 << BITS] =
    [const { Slot { check: AtomicU64::new(0), row: AtomicU64::new(0) } }; 1 << BITS];

static EPOCH: AtomicU32 = AtomicU32::new(0);

/// Pages of the table that were written to, a bit each.
static TOUCHED: AtomicU64 = AtomicU64::new(0);
const _: () = assert!(size_of::<[Slot; 1 << BITS]>() == PAGE * 64);

/// Resident bytes of the table.
pub(crate) fn resident() -> usize {
    TOUCHED.load(Relaxed).count_ones() as usize * PAGE
}

/// Rises when a library was unloaded: an address may mean something else from then on.
#[inline(always)]
pub fn epoch() -> u32 {
    EPOCH.load(Relaxed)
}

/// Makes all that is known be forgotten.
pub(crate) fn next_epoch() {
    let epoch = EPOCH.fetch_add(1, Relaxed).wrapping_add(1);
    // A key has 16 bits for the epoch.
    if epoch & 0xffff == 0 {
        for slot in &SLOTS {
            slot.check.store(0, Relaxed);
            slot.row.store(0, Relaxed);
        }
    }
}

/// An address in an epoch, mixed: distinct for distinct ones.
#[derive(Clone, Copy)]
pub(crate) struct Key(u64);

impl Key {
    /// `exact`: the address is that of the next instruction, not one inside a call before it.
    #[inline(always)]
    pub(crate) fn new(address: usize, exact: bool, epoch: u32) -> Key {
        let plain = address as u64 ^ u64::from(exact) << 47 ^ u64::from(epoch) << 48;
        // Odd, so that no two keys become one.
        Key(plain.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[inline(always)]
    fn slot(self) -> Option<&'static Slot> {
        SLOTS.get((self.0 >> (64 - BITS)) as usize)
    }

    /// Which of the table's 64 pages its slot is on.
    fn page(self) -> u64 {
        self.0 >> (64 - 6)
    }
}

/// The row stored under `key`; [`Compact::NONE`] if there is none.
#[inline(always)]
pub(crate) fn get(key: Key) -> Compact {
    let Some(slot) = key.slot() else { return Compact::NONE };
    let row = slot.row.load(Relaxed);
    if slot.check.load(Relaxed) == key.0 ^ row {
        Compact(row)
    } else {
        Compact::NONE
    }
}

/// Stores a row.
pub(crate) fn put(key: Key, row: Compact) {
    if let Some(slot) = key.slot() {
        slot.check.store(key.0 ^ row.0, Relaxed);
        slot.row.store(row.0, Relaxed);
        TOUCHED.fetch_or(1 << key.page(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_and_forgets_with_the_epoch() {
        let key = Key::new(0x7f00_1234_5678, false, 5);
        assert_eq!(get(key), Compact::NONE);
        put(key, Compact(77));
        assert_eq!(get(key), Compact(77));
        assert_eq!(get(Key::new(0x7f00_1234_5678, true, 5)), Compact::NONE);
        assert_eq!(get(Key::new(0x7f00_1234_5678, false, 6)), Compact::NONE);
    }

    #[test]
    fn threads_never_see_another_address_row() {
        // Every row tells its address; more addresses than slots, so that slots change hands.
        let row = |address: usize| Compact((address as u64).wrapping_mul(0x1234_5677) | 1);
        std::thread::scope(|scope| {
            for seed in 1..=4usize {
                scope.spawn(move || {
                    let mut x = seed.wrapping_mul(0x9e37_79b9);
                    for _ in 0..400_000 {
                        x ^= x << 13;
                        x ^= x >> 7;
                        x ^= x << 17;
                        let address = 0x5500_0000_0000 + (x & 0x3ffff);
                        let key = Key::new(address, false, 9);
                        let found = get(key);
                        assert!(found == Compact::NONE || found == row(address));
                        put(key, row(address));
                    }
                });
            }
        });
    }
}
