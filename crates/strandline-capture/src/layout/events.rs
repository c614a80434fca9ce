//! The way of every single allocation and free to the strandline process (`--events`): rings in
//! which the agent writes and from which strandline takes, in room of their own behind a process's
//! call paths.
//!
//! Threads that hold the GIL are serial and share [`Events::ring`]. Other threads share
//! [`Events::native`], where each takes a slot of its own by one atomic addition and says how much
//! of the first ring was written then, so that both can be put in order.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Words of [`Events::ring`], a power of two.
pub const RING: usize = 1 << 17;
/// Slots of [`Events::native`], a power of two.
pub const NATIVE_RING: usize = 1 << 13;

/// [`EventsHead::state`]: the process writes events.
pub const EVENTS_ON: u32 = 1;
/// [`EventsHead::state`]: the process came to its end, and writes none any more.
pub const EVENTS_OVER: u32 = 2;
/// [`EventsHead::state`]: strandline was gone, or stood still for too long: events are missing from
/// here on.
pub const EVENTS_LOST: u32 = 3;

/// Low bits of a word: what happened.
pub const EVENT_KIND: u64 = 3;
/// A block was allocated: tag (20 bits), size (42 bits).
pub const EVENT_ALLOCATED: u64 = 0;
/// A block of less than [`EVENT_SMALL`] bytes was freed: tag (20 bits), size (10 bits), birth
/// (32 bits, in units of `1 << BIRTH_SHIFT` bytes).
pub const EVENT_FREED_SMALL: u64 = 1;
/// Another block was freed: tag (20 bits), size (42 bits). The next word is its birth.
pub const EVENT_FREED: u64 = 2;
/// The block of this tag and size that was allocated last is the profiler's.
pub const EVENT_DISOWNED: u64 = 3;
/// Blocks smaller than this have a shorter [`EVENT_FREED_SMALL`].
pub const EVENT_SMALL: usize = 1 << 10;
/// Largest size that is told; larger ones count as this.
pub const EVENT_MOST: usize = (1 << 42) - 1;

/// The word for something that happened to `n` bytes of `tag`.
#[inline(always)]
pub const fn event(kind: u64, tag: u32, n: usize) -> u64 {
    let n = if n < EVENT_MOST { n } else { EVENT_MOST };
    kind | (tag as u64 & 0xf_ffff) << 2 | (n as u64) << 22
}

/// The word for a freed block of less than [`EVENT_SMALL`] bytes.
#[inline(always)]
pub const fn event_freed_small(tag: u32, n: usize, birth: u32) -> u64 {
    EVENT_FREED_SMALL | (tag as u64 & 0xf_ffff) << 2 | (n as u64) << 22 | (birth as u64) << 32
}

/// A counter on a cache line of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Line(pub AtomicU64);

/// State of a process's events. All counts only grow; a ring's index is the count modulo its size.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct EventsHead {
    /// `EVENTS_*`; 0: no process writes here.
    pub state: AtomicU32,
    /// 1: strandline wants no more of them.
    pub enough: AtomicU32,
    /// Bytes that the process had allocated when its events began.
    pub clock: AtomicU64,
    /// Words of the ring that were written.
    pub written: Line,
    /// Slots of the native ring that were given to threads.
    pub native_given: Line,
    /// Words that strandline took.
    pub taken: Line,
    /// Slots that strandline took.
    pub native_taken: Line,
    /// Counts up whenever strandline has looked.
    pub beat: Line,
}

/// What happened in a thread without the GIL.
#[repr(C, align(32))]
#[derive(Debug)]
pub struct NativeEvent {
    /// The slot's number plus one, once the rest is written.
    pub ready: AtomicU64,
    /// [`EventsHead::written`] then.
    pub after: AtomicU64,
    /// As in the ring, but never [`EVENT_FREED_SMALL`].
    pub word: AtomicU64,
    /// [`EVENT_FREED`]: the birth.
    pub birth: AtomicU64,
}

/// See the module.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Events {
    /// State.
    pub head: EventsHead,
    /// What threads with the GIL do.
    pub ring: [AtomicU64; RING],
    /// What other threads do.
    pub native: [NativeEvent; NATIVE_RING],
}

const _: () = assert!(core::mem::size_of::<Events>() <= super::EVENTS_ROOM);
const _: () = assert!(RING.is_power_of_two() && NATIVE_RING.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_what_they_say() {
        let word = event(EVENT_FREED, 0xf_ffff, EVENT_MOST);
        assert_eq!(word & EVENT_KIND, EVENT_FREED);
        assert_eq!((word >> 2) as u32 & 0xf_ffff, 0xf_ffff);
        assert_eq!((word >> 22) as usize, EVENT_MOST);
        assert_eq!(event(EVENT_ALLOCATED, 1, usize::MAX) >> 22, EVENT_MOST as u64);
        let word = event_freed_small(5, 1023, u32::MAX);
        assert_eq!((word & EVENT_KIND, (word >> 2) & 0xf_ffff), (EVENT_FREED_SMALL, 5));
        assert_eq!(((word >> 22) & 0x3ff, word >> 32), (1023, u64::from(u32::MAX)));
    }
}
