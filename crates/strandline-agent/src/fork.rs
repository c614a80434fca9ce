//! Fork: the child goes on in a region of its own.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout as capture;

use crate::environment::capture_path;
use crate::region::{self, claimed, region};
use crate::{counters, rss, stacks};

/// What was in use per tag at the moment of a fork: bytes, blocks (`--stacks`).
struct Snapshot(UnsafeCell<(*mut [u64; 2], usize, usize)>);
// SAFETY: used between the fork handlers only, under the agent's lock.
unsafe impl Sync for Snapshot {}
static SNAPSHOT: Snapshot = Snapshot(UnsafeCell::new((core::ptr::null_mut(), 0, 0)));
static IN_USE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

struct Held(UnsafeCell<Option<crate::lock::Guard>>);
// SAFETY: taken before and dropped after a fork, by the forking thread.
unsafe impl Sync for Held {}
static HELD: Held = Held(UnsafeCell::new(None));

/// Fork handler: what is in use, per tag, at the moment of the fork.
pub unsafe extern "C" fn before_fork() {
    if !claimed() {
        return;
    }
    let guard = crate::lock::lock();
    let tags = region().head.tags.load(Relaxed) as usize;
    // SAFETY: the lock is held until after the fork (or this is a signal handler inside the
    // agent, where nobody else runs).
    unsafe {
        let s = &mut *SNAPSHOT.0.get();
        if s.1 < tags {
            let room = tags * 2;
            s.0 = crate::memory::bump(room * 16) as *mut [u64; 2];
            s.1 = if s.0.is_null() { 0 } else { room };
        }
        s.2 = tags.min(s.1);
        for tag in 0..s.2 {
            let blocks = if stacks::on() { stacks::count::blocks_of(tag as u32) } else { 0 };
            *s.0.add(tag) = [counters::in_use_of(tag as u32), blocks];
        }
        *HELD.0.get() = guard;
    }
    let h = &region().head;
    IN_USE[0].store(h.in_use.load(Relaxed) as u64, Relaxed);
    IN_USE[1].store(h.in_use_native.load(Relaxed) as u64, Relaxed);
}

/// Fork handler, in the parent.
pub unsafe extern "C" fn after_fork_parent() {
    // SAFETY: see `Held`.
    unsafe { *HELD.0.get() = None };
}

/// Whole-process amounts that go on in the child from where they were.
fn amounts(h: &capture::RegionHead) -> [&AtomicI64; 11] {
    [
        &h.block_bytes,
        &h.arena_resident,
        &h.chunks[0],
        &h.chunks[1],
        &h.chunks[2],
        &h.chunks_native[0],
        &h.chunks_native[1],
        &h.chunks_native[2],
        &h.arena_mapped,
        &h.arenas,
        &h.maps,
    ]
}

/// Fork handler, in the child: claims a region and starts from what was in use.
pub unsafe extern "C" fn after_fork_child() {
    if !claimed() {
        return;
    }
    let h = &region().head;
    if crate::attach::is() {
        // The counters are private memory, which the child has a copy of.
        // SAFETY: see `Held`; getpid(2) cannot fail.
        unsafe {
            h.pid.store(libc::getpid() as u32, Relaxed);
            *HELD.0.get() = None;
        }
        crate::lines::after_fork();
        return;
    }
    let kept = amounts(h).map(|c| c.load(Relaxed));
    // SAFETY: see `Snapshot`; the child has one thread.
    let snapshot = unsafe { &*SNAPSHOT.0.get() };
    let stored = |tag: u32| {
        if (tag as usize) < snapshot.2 {
            // SAFETY: below the number of tags that were stored.
            unsafe { *snapshot.0.add(tag as usize) }
        } else {
            [0; 2]
        }
    };
    let follow = region::options() & capture::OPTION_FOLLOW != 0;
    region::move_to_child(capture_path(), follow, &|tag| stored(tag)[0], &|tag| stored(tag)[1]);
    let h = &region().head;
    for (field, value) in amounts(h).into_iter().zip(kept) {
        field.store(value, Relaxed);
    }
    h.in_use.store(IN_USE[0].load(Relaxed) as i64, Relaxed);
    h.in_use_native.store(IN_USE[1].load(Relaxed) as i64, Relaxed);
    h.watermark.store(counters::in_use(), Relaxed);
    counters::after_fork();
    stacks::native::after_fork();
    if stacks::on() {
        stacks::after_fork();
    }
    // SAFETY: see `Held`.
    unsafe { *HELD.0.get() = None };
    crate::lines::after_fork();
    crate::control::publish();
    rss::pages_moved();
    rss::write_ledger(&h.start);
}

/// True in the child of a vfork, which shares our memory: the region is its parent's.
pub fn in_vfork_child() -> bool {
    // SAFETY: getpid(2) cannot fail.
    region().head.pid.load(Relaxed) != unsafe { libc::getpid() } as u32
}
