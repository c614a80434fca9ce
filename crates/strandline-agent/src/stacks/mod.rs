//! `--stacks`: every allocation is counted under its whole call path.
//!
//! A block's tag (see [`crate::sites`]) then stands for a call path, a thread and an allocator
//! domain. No profile function, no shadow stack: at every allocation the interpreter's own chain
//! of frames is folded into a hash ([`path`]), and only a hash that is new has its frames looked
//! at. [`count`] keeps the exact peak by path without events, and how long blocks live.
//!
//! The hooks exist twice, with and without; a run without `--stacks` never comes here.

pub mod awaiting;
pub mod count;
pub mod events;
pub mod hooks;
mod merge;
pub mod native;
pub mod path;
mod shape;
pub mod threads;

use core::mem::size_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

use strandline_capture::layout::{self, Histogram, Node, Path, Stacks, StacksHead, Thread};

use crate::counters;
use crate::memory::PAGE;
use crate::region::region;

static PLACE: AtomicPtr<Stacks> = AtomicPtr::new(null_mut());
/// See [`layout::Header::temporary_distance`].
static DISTANCE: AtomicU32 = AtomicU32::new(count::USUAL_DISTANCE);

/// True if call paths are recorded in this process.
pub fn on() -> bool {
    !PLACE.load(Relaxed).is_null()
}

/// The process's call paths. Only for what runs when they are [`on`].
#[inline(always)]
pub fn stacks() -> &'static Stacks {
    // SAFETY: callers run only once `start` has set the address of a mapping that stays; all
    // fields are atomics, for which every bit pattern is valid.
    unsafe { &*PLACE.load(Relaxed) }
}

/// Where they are recorded; null if they aren't.
pub fn place() -> *mut Stacks {
    PLACE.load(Relaxed)
}

/// From now on paths are recorded at `place`, fresh zero pages. Called before any hook is
/// installed, and after a fork.
pub fn start(place: *mut Stacks, distance: u32) {
    PLACE.store(place, Relaxed);
    DISTANCE.store(distance.min(layout::MOST_RECENT - 1), Relaxed);
    let h = &stacks().head;
    h.nodes.store(1, Relaxed);
    h.threads.store(1, Relaxed);
    h.histograms.store(1, Relaxed);
    h.rss_epoch.store(1, Relaxed);
}

/// True if temporaries are those that are freed at the usual distance.
pub fn is_usual_distance() -> bool {
    DISTANCE.load(Relaxed) == count::USUAL_DISTANCE
}

/// Resident bytes of this part of the capture.
pub fn resident() -> i64 {
    if !on() {
        return 0;
    }
    let h = &stacks().head;
    let pages = |count: u32, size: usize| ((count as usize * size + PAGE - 1) & !(PAGE - 1)) as i64;
    pages(1, size_of::<StacksHead>())
        + pages(h.threads.load(Relaxed), size_of::<Thread>())
        + pages(h.nodes.load(Relaxed), size_of::<Node>())
        + pages(region().head.tags.load(Relaxed), size_of::<Path>())
        + pages(h.histograms.load(Relaxed), size_of::<Histogram>())
        + events::resident()
}

/// The record that belongs to `tag`.
#[inline(always)]
pub fn path_of(tag: u32) -> &'static Path {
    path_in(stacks(), tag)
}

/// `path_of`, where the table is at hand.
#[inline(always)]
fn path_in(s: &Stacks, tag: u32) -> &Path {
    // SAFETY: the index is masked to the table's length (a power of two).
    unsafe { s.paths.get_unchecked(tag as usize & (layout::MAX_TAGS - 1)) }
}

/// RSS, the profiler's own part included, was read. If it was never higher, paths remember what
/// they have now.
pub fn rss_read(rss: i64) {
    if on() {
        let h = &stacks().head;
        if rss > h.rss_peak.load(Relaxed) {
            h.rss_peak.store(rss, Relaxed);
            h.rss_epoch.fetch_add(1, Relaxed);
        }
    }
}

/// After a fork, in the child, once its amounts are right again.
pub fn after_fork() {
    stacks().head.peak.store(counters::in_use(), Relaxed);
    threads::after_fork();
}

/// After a fork, in the child, whose tables follow the parent's: `old` is the parent's part. The
/// child starts from what was in use.
pub fn inherit(old: &Stacks, blocks_of: &dyn Fn(u32) -> u64) {
    let new = stacks();
    for (from, to) in [(&old.head.nodes, &new.head.nodes), (&old.head.threads, &new.head.threads)] {
        to.store(from.load(Relaxed), Relaxed);
    }
    for (from, to) in
        [(&old.head.clock, &new.head.clock), (&old.head.clock_native, &new.head.clock_native)]
    {
        to.store(from.load(Relaxed), Relaxed);
    }
    for i in 0..new.head.nodes.load(Relaxed) as usize {
        if let (Some(f), Some(t)) = (old.nodes.get(i), new.nodes.get(i)) {
            t.parent.store(f.parent.load(Relaxed), Relaxed);
            t.site.store(f.site.load(Relaxed), Relaxed);
        }
    }
    for i in 0..new.head.threads.load(Relaxed) as usize {
        if let (Some(f), Some(t)) = (old.threads.get(i), new.threads.get(i)) {
            t.tid.store(f.tid.load(Relaxed), Relaxed);
            t.name.offset.store(f.name.offset.load(Relaxed), Relaxed);
            t.name.len.store(f.name.len.load(Relaxed), Relaxed);
        }
    }
    for tag in 0..region().head.tags.load(Relaxed) {
        let Some(f) = old.paths.get(tag as usize) else { break };
        let t = path_of(tag);
        t.node.store(f.node.load(Relaxed), Relaxed);
        t.thread_and_domain.store(f.thread_and_domain.load(Relaxed), Relaxed);
        t.inherited_blocks.store(blocks_of(tag), Relaxed);
    }
}
