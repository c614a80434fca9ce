//! `--events`: every allocation and free, told to the strandline process one by one.
//!
//! A thread that holds the GIL writes a word into a ring that strandline empties; others write
//! into a second ring (see [`strandline_capture::layout::Events`]). If a ring is full the thread
//! waits until there is room. Should strandline be gone, or stand still for long, the events end:
//! the program goes on without them.

use core::ptr::null_mut;
use core::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use strandline_capture::layout::{
    self, event, event_freed_small, Events, EVENTS_LOST, EVENTS_ON, EVENTS_OVER, EVENT_ALLOCATED,
    EVENT_DISOWNED, EVENT_FREED, EVENT_SMALL, NATIVE_RING, RING,
};

use crate::environment::capture_path;
use crate::memory::PAGE;

static PLACE: AtomicPtr<Events> = AtomicPtr::new(null_mut());
/// Words that were written. Written by threads that hold the GIL.
static AT: AtomicU64 = AtomicU64::new(0);
/// Words that may be written before strandline has to be looked after.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// One wait for room, nanoseconds.
const PAUSE: i64 = 200_000;
/// So many waits without a sign of strandline before it is looked whether it is still there.
const PATIENCE: u32 = 5_000;
/// So many such looks at one that is there but stands still before events end.
const LOOKS: u32 = 10;

#[inline(always)]
fn on() -> Option<&'static Events> {
    let place = PLACE.load(Relaxed);
    // SAFETY: null, or a mapping that stays for the life of the process; all fields are atomics.
    unsafe { place.as_ref() }
}

/// From now on events are told at `place`, fresh zero pages; not at all if it is null. `clock`:
/// bytes allocated in this process until now. Called before any hook is installed, and after a
/// fork.
pub fn start(place: *mut u8, clock: u64) {
    AT.store(0, Relaxed);
    LIMIT.store(RING as u64, Relaxed);
    PLACE.store(place as *mut Events, Relaxed);
    if let Some(e) = on() {
        e.head.clock.store(clock, Relaxed);
        e.head.state.store(EVENTS_ON, Release);
    }
}

/// True if events are told.
pub fn are_on() -> bool {
    on().is_some()
}

/// From now on nothing is told. Returns where it was, `None` if it wasn't.
pub fn stop() -> Option<*mut u8> {
    let place = PLACE.swap(null_mut(), Relaxed);
    (!place.is_null()).then_some(place as *mut u8)
}

/// The process is about to exit: what comes later isn't the program's.
pub fn end() {
    let place = stop();
    if let Some(e) = place {
        // SAFETY: as in `on`.
        unsafe { &*(e as *const Events) }.head.state.store(EVENTS_OVER, Release);
    }
}

/// Resident bytes of the rings.
pub fn resident() -> i64 {
    on().map_or(0, |e| {
        let words = (AT.load(Relaxed) as usize).min(RING) * 8;
        let native = (e.head.native_given.0.load(Relaxed) as usize).min(NATIVE_RING) * 32;
        let pages = words.div_ceil(PAGE) + native.div_ceil(PAGE) + 1;
        (pages * PAGE) as i64
    })
}

/// Stores words at the end of the ring and makes them visible together. Under the GIL.
#[inline(always)]
fn push<const N: usize>(e: &Events, words: [u64; N]) {
    let at = AT.load(Relaxed);
    if at + N as u64 > LIMIT.load(Relaxed) && !make_room(e, at + N as u64) {
        return;
    }
    for (i, word) in words.into_iter().enumerate() {
        // SAFETY: the index is masked to the ring's length (a power of two).
        let cell = unsafe { e.ring.get_unchecked((at as usize + i) & (RING - 1)) };
        cell.store(word, Relaxed);
    }
    AT.store(at + N as u64, Relaxed);
    e.head.written.0.store(at + N as u64, Release);
}

/// Waits until `until` words have room; false if events have ended.
#[cold]
#[inline(never)]
fn make_room(e: &Events, until: u64) -> bool {
    let has_room = || {
        let limit = e.head.taken.0.load(Acquire) + RING as u64;
        LIMIT.store(limit, Relaxed);
        until <= limit
    };
    wait(e, &has_room)
}

/// Waits for strandline until `done`; false if events have ended. `errno` stays what it was.
fn wait(e: &Events, done: &dyn Fn() -> bool) -> bool {
    // SAFETY: errno of this thread.
    let errno = unsafe { *libc::__errno_location() };
    let told = wait_for(e, done);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    told
}

fn wait_for(e: &Events, done: &dyn Fn() -> bool) -> bool {
    let (mut beat, mut since, mut looks) = (e.head.beat.0.load(Relaxed), 0, 0);
    loop {
        if e.head.enough.load(Relaxed) != 0 || e.head.state.load(Relaxed) != EVENTS_ON {
            stop();
            return false;
        }
        if done() {
            return true;
        }
        let pause = libc::timespec { tv_sec: 0, tv_nsec: PAUSE };
        // SAFETY: nanosleep(2) reads one timespec. The system call itself: no point at which the
        // thread could be cancelled.
        unsafe { libc::syscall(libc::SYS_nanosleep, &pause, 0usize) };
        let now = e.head.beat.0.load(Relaxed);
        since = if now == beat { since + 1 } else { 0 };
        if now != beat {
            (beat, looks) = (now, 0);
        }
        if since >= PATIENCE {
            (since, looks) = (0, looks + 1);
            if looks >= LOOKS || !strandline_lives() {
                e.head.state.store(EVENTS_LOST, Release);
            }
        }
    }
}

/// True if the capture's name still leads to a file: it does for as long as strandline holds it.
fn strandline_lives() -> bool {
    // SAFETY: faccessat(2) with a C string.
    unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, capture_path(), libc::F_OK) == 0 }
}

/// `n` bytes were allocated under `tag` by a thread that holds the GIL.
#[inline(always)]
pub fn allocated(tag: u32, n: usize) {
    if let Some(e) = on() {
        push(e, [event(EVENT_ALLOCATED, tag, n)]);
    }
}

/// `n` bytes of `tag` that were allocated at `birth` were freed by a thread that holds the GIL.
#[inline(always)]
pub fn freed(tag: u32, n: usize, birth: u32) {
    if let Some(e) = on() {
        if n < EVENT_SMALL {
            push(e, [event_freed_small(tag, n, birth)]);
        } else {
            push(e, [event(EVENT_FREED, tag, n), u64::from(birth)]);
        }
    }
}

/// The block of `n` bytes of `tag` that was just told belongs to the profiler. Under the GIL.
pub fn disowned(tag: u32, n: usize) {
    if let Some(e) = on() {
        push(e, [event(EVENT_DISOWNED, tag, n)]);
    }
}

/// `allocated` by a thread without the GIL.
#[inline]
pub fn allocated_native(tag: u32, n: usize) {
    if let Some(e) = on() {
        push_native(e, event(EVENT_ALLOCATED, tag, n), 0);
    }
}

/// `freed` by a thread without the GIL.
#[inline]
pub fn freed_native(tag: u32, n: usize, birth: u32) {
    if let Some(e) = on() {
        push_native(e, event(EVENT_FREED, tag, n), u64::from(birth));
    }
}

fn push_native(e: &Events, word: u64, birth: u64) {
    let h = &e.head;
    let number = h.native_given.0.fetch_add(1, Relaxed);
    let has_room = || number < h.native_taken.0.load(Acquire) + NATIVE_RING as u64;
    if !has_room() && !wait(e, &has_room) {
        return;
    }
    let Some(slot) = e.native.get(number as usize & (layout::NATIVE_RING - 1)) else { return };
    slot.after.store(h.written.0.load(Acquire), Relaxed);
    slot.word.store(word, Relaxed);
    slot.birth.store(birth, Relaxed);
    slot.ready.store(number + 1, Release);
}
