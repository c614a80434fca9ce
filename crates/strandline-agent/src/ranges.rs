//! Anonymous mappings that the program makes itself: `mmap`, `munmap`, `mremap` (and, by
//! [`crate::brk`], what it takes by moving the program break).
//!
//! A short sorted table under the agent's lock. glibc's own mappings (chunks, thread stacks)
//! don't come through these symbols, and pymalloc's arenas are told apart by a thread flag, so
//! nothing is counted twice. Mappings of files are not the program's own memory and mappings
//! without access are address space only: neither is counted.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::Relaxed;

use libc::{c_int, c_void, off_t};
use strandline_capture::layout::DOMAIN_MMAP;

use crate::counters;
use crate::lock;
use crate::malloc::counting;
use crate::memory::{self, PAGE};
use crate::python;
use crate::real::{self, libc_call};
use crate::region::region;
use crate::sites;
use crate::stacks;
use crate::tls::{tls, IN_ARENA, IN_OBJECT_27};

/// `[start, start + bytes)`, `bytes` as asked for.
#[derive(Clone, Copy)]
#[repr(C)]
struct Range {
    start: usize,
    bytes: usize,
    tag: u32,
    /// When it was mapped (`--stacks`).
    birth: u32,
}

struct Table {
    items: *mut Range,
    len: usize,
    capacity: usize,
}

struct Locked(UnsafeCell<Table>);
// SAFETY: used under the agent's lock only.
unsafe impl Sync for Locked {}
static TABLE: Locked =
    Locked(UnsafeCell::new(Table { items: core::ptr::null_mut(), len: 0, capacity: 0 }));

impl Table {
    fn get(&self, i: usize) -> Range {
        // SAFETY: callers keep `i < len`.
        unsafe { *self.items.add(i) }
    }

    fn first_ending_after(&self, address: usize) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = (low + high) / 2;
            let r = self.get(middle);
            if r.start + r.bytes <= address {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn insert(&mut self, at: usize, range: Range) -> bool {
        if self.len == self.capacity {
            let capacity = (self.capacity * 2).max(64);
            let items = memory::bump(capacity * core::mem::size_of::<Range>()) as *mut Range;
            if items.is_null() {
                return false;
            }
            if self.len > 0 {
                // SAFETY: both tables hold at least `len` items and don't overlap.
                unsafe { core::ptr::copy_nonoverlapping(self.items, items, self.len) };
            }
            self.items = items;
            self.capacity = capacity;
        }
        // SAFETY: `at <= len < capacity`.
        unsafe {
            core::ptr::copy(self.items.add(at), self.items.add(at + 1), self.len - at);
            *self.items.add(at) = range;
        }
        self.len += 1;
        true
    }

    fn remove(&mut self, at: usize) {
        // SAFETY: `at < len`.
        unsafe {
            core::ptr::copy(self.items.add(at + 1), self.items.add(at), self.len - at - 1);
        }
        self.len -= 1;
    }

    fn set(&mut self, at: usize, range: Range) {
        // SAFETY: callers keep `at < len`.
        unsafe { *self.items.add(at) = range };
    }
}

/// A part of a mapping that was counted and is going away.
#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    bytes: usize,
    tag: u32,
    birth: u32,
}

/// At most this many tracked mappings are cut by one call in one go.
const PIECES: usize = 32;

/// Cuts `[start, end)` out of the table; the pieces that were in it. `more` if some are left.
fn cut(start: usize, end: usize, pieces: &mut [Piece; PIECES]) -> (usize, bool) {
    let mut n = 0;
    let Some(_guard) = lock::lock() else { return (0, false) };
    // SAFETY: the lock is held.
    let table = unsafe { &mut *TABLE.0.get() };
    let i = table.first_ending_after(start);
    while i < table.len {
        let r = table.get(i);
        if r.start >= end {
            break;
        }
        if n == PIECES {
            return (n, true);
        }
        let (from, to) = (r.start.max(start), (r.start + r.bytes).min(end));
        pieces[n] = Piece { start: from, bytes: to - from, tag: r.tag, birth: r.birth };
        n += 1;
        let right = Range { start: to, bytes: r.start + r.bytes - to, ..r };
        if from > r.start {
            table.set(i, Range { bytes: from - r.start, ..r });
            if right.bytes > 0 {
                table.insert(i + 1, right);
            }
            // What is left of the cut stays in front: go on behind it.
            return finish_cut(table, i + 1, end, pieces, n);
        }
        if right.bytes > 0 {
            table.set(i, right);
            break;
        }
        table.remove(i);
    }
    (n, false)
}

fn finish_cut(
    table: &mut Table,
    i: usize,
    end: usize,
    pieces: &mut [Piece; PIECES],
    mut n: usize,
) -> (usize, bool) {
    while i < table.len {
        let r = table.get(i);
        if r.start >= end {
            break;
        }
        if n == PIECES {
            return (n, true);
        }
        let to = (r.start + r.bytes).min(end);
        pieces[n] = Piece { start: r.start, bytes: to - r.start, tag: r.tag, birth: r.birth };
        n += 1;
        if r.start + r.bytes > to {
            table.set(i, Range { start: to, bytes: r.start + r.bytes - to, ..r });
            break;
        }
        table.remove(i);
    }
    (n, false)
}

fn put(start: usize, bytes: usize, tag: u32, birth: u32) -> bool {
    let Some(_guard) = lock::lock() else { return false };
    // SAFETY: the lock is held.
    let table = unsafe { &mut *TABLE.0.get() };
    let at = table.first_ending_after(start);
    table.insert(at, Range { start, bytes, tag, birth })
}

/// Counts `[start, start + bytes)`, which the program just asked for.
pub fn count(start: usize, bytes: usize) {
    let tstate = python::held_tstate();
    if stacks::on() {
        return count_path(start, bytes, tstate);
    }
    let tag = if tstate != 0 { sites::current(tstate) } else { sites::current_native() };
    if put(start, bytes, tag, 0) {
        region().head.maps.fetch_add(bytes as i64, Relaxed);
        if tstate != 0 {
            counters::allocated(tag, bytes);
        } else {
            counters::allocated_native(tag, bytes);
        }
    }
}

/// `count` by call path.
fn count_path(start: usize, bytes: usize, tstate: usize) {
    let tag = if tstate != 0 {
        stacks::path::current(tstate, DOMAIN_MMAP)
    } else {
        stacks::path::current_native(DOMAIN_MMAP)
    };
    if !put(start, bytes, tag, stacks::count::birth_now()) {
        return;
    }
    region().head.maps.fetch_add(bytes as i64, Relaxed);
    if tstate != 0 {
        stacks::count::allocated(tag, bytes, start);
    } else {
        stacks::count::allocated_native(tag, bytes, start);
    }
}

fn uncount(p: Piece) {
    region().head.maps.fetch_sub(p.bytes as i64, Relaxed);
    if stacks::on() {
        if python::held_tstate() != 0 {
            stacks::count::freed(p.tag, p.bytes, p.birth, p.start);
        } else {
            stacks::count::freed_native(p.tag, p.bytes, p.birth, p.start);
        }
        return;
    }
    if python::held_tstate() != 0 {
        counters::freed(p.tag, p.bytes);
    } else {
        counters::freed_native(p.tag, p.bytes);
    }
}

/// Cuts `[start, start + bytes)` (whole pages) out; keeps the pieces that one call can put back.
fn take(start: usize, bytes: usize, pieces: &mut [Piece; PIECES]) -> usize {
    let end = start.saturating_add((bytes + PAGE - 1) & !(PAGE - 1));
    loop {
        let (n, more) = cut(start, end, pieces);
        if !more {
            return n;
        }
        for p in pieces.iter().take(n) {
            uncount(*p);
        }
    }
}

/// What was counted in a stretch of memory that is about to be given back.
pub struct Leaving {
    pieces: [Piece; PIECES],
    count: usize,
}

impl Leaving {
    /// Forgets `[start, start + bytes)` before anybody else can be given it.
    pub fn new(start: usize, bytes: usize) -> Leaving {
        let mut pieces = NO_PIECES;
        let count = take(start, bytes, &mut pieces);
        Leaving { pieces, count }
    }

    /// It was given back (`gone`), or it is as it was.
    pub fn end(self, gone: bool) {
        for piece in self.pieces.iter().take(self.count) {
            if gone {
                uncount(*piece);
            } else {
                put(piece.start, piece.bytes, piece.tag, piece.birth);
            }
        }
    }
}

/// Bytes of `[start, end)` that are counted here.
pub fn bytes_within(start: usize, end: usize) -> usize {
    let Some(_guard) = lock::lock() else { return 0 };
    // SAFETY: the lock is held.
    let table = unsafe { &*TABLE.0.get() };
    let ranges = (table.first_ending_after(start)..table.len).map(|i| table.get(i));
    let inside = |r: Range| (r.start + r.bytes).min(end) - r.start.max(start);
    ranges.take_while(|r| r.start < end).map(inside).sum()
}

const NO_PIECES: [Piece; PIECES] = [Piece { start: 0, bytes: 0, tag: 0, birth: 0 }; PIECES];

/// `mmap`.
///
/// # Safety
/// As libc's.
pub unsafe fn mmap(
    address: *mut c_void,
    bytes: usize,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    if real::MMAP.address() == 0 {
        // SAFETY: the same call, straight to the kernel: dlsym is being looked up.
        let p = unsafe {
            libc::syscall(libc::SYS_mmap, address, bytes, protection, flags, fd as isize, offset)
        };
        return p as usize as *mut c_void;
    }
    // SAFETY: libc's mmap.
    let p = unsafe {
        libc_call!(
            real::MMAP,
            fn(
                address => *mut c_void, bytes => usize, protection => c_int, flags => c_int,
                fd => c_int, offset => off_t,
            ) -> *mut c_void
        )
    };
    if p == libc::MAP_FAILED || !counting() {
        return p;
    }
    crate::rss::pages_moved();
    let inside = tls().flags.get();
    if inside & IN_ARENA != 0 {
        return p;
    }
    if flags & libc::MAP_FIXED != 0 {
        let mut pieces = NO_PIECES;
        let n = take(p as usize, bytes, &mut pieces);
        for piece in pieces.iter().take(n) {
            uncount(*piece);
        }
    }
    let anonymous = flags & libc::MAP_ANONYMOUS != 0;
    if anonymous && inside & IN_OBJECT_27 != 0 && crate::python27::is_arena(bytes) {
        crate::pools::arena_added(p as usize, bytes);
        return p;
    }
    if protection != libc::PROT_NONE {
        crate::rss::large_allocated(bytes);
    }
    if anonymous && protection != libc::PROT_NONE {
        count(p as usize, bytes);
    }
    p
}

/// `munmap`.
///
/// # Safety
/// As libc's.
pub unsafe fn munmap(address: *mut c_void, bytes: usize) -> c_int {
    let mut pieces = NO_PIECES;
    let mut n = 0;
    if counting() {
        if bytes >= crate::rss::LARGE {
            crate::rss::before_release();
        }
        crate::rss::pages_moved();
        let inside = tls().flags.get();
        if inside & IN_OBJECT_27 != 0 && crate::python27::is_arena(bytes) {
            crate::pools::arena_removed(address as usize, bytes);
        } else if inside & IN_ARENA == 0 {
            n = take(address as usize, bytes, &mut pieces);
        }
    }
    // SAFETY: libc's munmap.
    let status =
        unsafe { libc_call!(real::MUNMAP, fn(address => *mut c_void, bytes => usize) -> c_int) };
    if counting() && status == 0 {
        crate::rss::large_freed(bytes);
    }
    for piece in pieces.iter().take(n) {
        if status == 0 {
            uncount(*piece);
        } else {
            put(piece.start, piece.bytes, piece.tag, piece.birth);
        }
    }
    status
}

/// `mremap`; `new_address` is what a caller with MREMAP_FIXED passes as the fifth argument.
///
/// # Safety
/// As libc's.
pub unsafe fn mremap(
    old: *mut c_void,
    old_bytes: usize,
    new_bytes: usize,
    flags: c_int,
    new_address: *mut c_void,
) -> *mut c_void {
    let on = counting();
    if on {
        crate::rss::pages_moved();
    }
    let moves =
        |start: *mut c_void, bytes| Leaving::new(start as usize, if on { bytes } else { 0 });
    let from = moves(old, old_bytes);
    // What is there already makes room.
    let fixed = flags & libc::MREMAP_FIXED != 0;
    let there = moves(new_address, if fixed { new_bytes } else { 0 });
    let counted = from.count > 0;
    // SAFETY: libc's mremap.
    let p = unsafe {
        libc_call!(
            real::MREMAP,
            fn(
                old => *mut c_void, old_bytes => usize, new_bytes => usize, flags => c_int,
                new_address => *mut c_void,
            ) -> *mut c_void
        )
    };
    let done = p != libc::MAP_FAILED;
    // With MREMAP_DONTUNMAP the old pages are empty, but still the program's.
    from.end(done && flags & libc::MREMAP_DONTUNMAP == 0);
    there.end(done);
    if on && done {
        crate::rss::large_freed(old_bytes);
        crate::rss::large_allocated(new_bytes);
    }
    if counted && done {
        count(p as usize, new_bytes);
    }
    p
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeMap;

    /// Random maps and unmaps against a map of pages.
    #[test]
    fn cuts_exactly_what_was_put() {
        const BASE: usize = 0x7000_0000_0000;
        let mut truth: BTreeMap<usize, u32> = BTreeMap::new();
        let mut x = 88172645463325252u64;
        let mut random = move |below: usize| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 33) as usize % below
        };
        for round in 0..4000u32 {
            let (first, count) = (random(200), random(24) + 1);
            let (start, bytes) = (BASE + first * PAGE, count * PAGE);
            let mut gone = 0;
            loop {
                let mut pieces = NO_PIECES;
                let (n, more) = cut(start, start + bytes, &mut pieces);
                for p in &pieces[..n] {
                    assert!(p.start >= start && p.start + p.bytes <= start + bytes);
                    for page in (p.start..p.start + p.bytes).step_by(PAGE) {
                        assert_eq!(truth.get(&page), Some(&p.tag));
                    }
                    gone += p.bytes;
                }
                if !more {
                    break;
                }
            }
            let mut expected = 0;
            for page in (start..start + bytes).step_by(PAGE) {
                expected += truth.remove(&page).map_or(0, |_| PAGE);
            }
            assert_eq!(gone, expected);
            if round % 3 != 0 {
                let tag = round + 1;
                assert!(put(start, bytes, tag, 0));
                for page in (start..start + bytes).step_by(PAGE) {
                    truth.insert(page, tag);
                }
            }
        }
        let mut pieces = NO_PIECES;
        let mut left = 0;
        loop {
            let (n, more) = cut(BASE, BASE + 1000 * PAGE, &mut pieces);
            left += pieces[..n].iter().map(|p| p.bytes).sum::<usize>();
            if !more {
                break;
            }
        }
        assert_eq!(left, truth.len() * PAGE);
    }
}
