//! malloc and its family: what runs in place of libc's functions.
//!
//! Each forwards to libc and counts. A realloc forgets the old chunk *before* libc can hand its
//! address to another thread, and puts it back if libc fails.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use libc::{c_int, c_void};
use strandline_capture::layout::DOMAIN_MALLOC;

use crate::chunks::{self, Taken};
use crate::counters;
use crate::own;
use crate::python;
use crate::real::{self, libc_call};
use crate::region::region;
use crate::rss;
use crate::sites;
use crate::stacks;
use crate::tls::{tls, QUIET};

/// Hooks only forward.
const FORWARD: u8 = 0;
/// Hooks forward, and tell when Python runs.
const WATCH: u8 = 1;
/// Hooks count.
const COUNT: u8 = 2;
/// Hooks count by call path.
const STACKS: u8 = 3;
static MODE: AtomicU8 = AtomicU8::new(FORWARD);

/// Starts counting.
pub fn start() {
    MODE.store(if stacks::on() { STACKS } else { COUNT }, Relaxed);
}

/// Starts looking whether Python runs, for as long as `bare::watch` wants to know.
pub fn start_watching() {
    MODE.store(WATCH, Relaxed);
}

#[cold]
#[inline(never)]
fn watch() {
    if MODE.load(Relaxed) == WATCH && !crate::bare::watch() {
        MODE.store(FORWARD, Relaxed);
    }
}

/// True if this allocation is the profiler's own: the thread works for it, or `dlsym` is looking
/// libc's function up.
#[inline(always)]
fn own_turn(real: &real::Real, n: usize) -> bool {
    (tls().flags.get() & QUIET != 0 && n < own::LARGEST) || real.address() == 0
}

/// True if hooks count.
#[inline(always)]
pub fn counting() -> bool {
    MODE.load(Relaxed) >= COUNT
}

/// Counts the chunk at `p`, `n` bytes asked for.
#[inline(always)]
fn count(p: *mut c_void, n: usize) {
    match MODE.load(Relaxed) {
        COUNT => count_site(p, n),
        FORWARD => {}
        _ => count_else(p, n),
    }
}

#[inline(never)]
fn count_else(p: *mut c_void, n: usize) {
    match MODE.load(Relaxed) {
        WATCH => watch(),
        STACKS if !p.is_null() => count_path(p as usize, n),
        _ => {}
    }
}

/// `count` by call path.
#[inline(always)]
fn count_path(p: usize, n: usize) {
    let header = chunks::header(p);
    let h = &region().head;
    let domain = match tls().domain.get() {
        0 => DOMAIN_MALLOC,
        passed_on => passed_on - 1,
    };
    let tstate = python::held_tstate();
    if tstate != 0 {
        let tag = stacks::path::current(tstate, domain);
        if chunks::remember::<true>(p, header, n, tag, stacks::count::birth_now()) {
            counters::add_signed(&h.chunks[header.kind], header.bytes as i64);
            stacks::count::allocated(tag, n, p);
        }
    } else {
        crate::setup::maybe_python_runs();
        let tag = stacks::path::current_native(domain);
        if chunks::remember::<true>(p, header, n, tag, stacks::count::birth_now()) {
            h.chunks_native[header.kind].fetch_add(header.bytes as i64, Relaxed);
            stacks::count::allocated_native(tag, n, p);
        }
    }
    counted(p, header);
}

#[inline(always)]
fn count_site(p: *mut c_void, n: usize) {
    if p.is_null() {
        return;
    }
    let p = p as usize;
    let header = chunks::header(p);
    let h = &region().head;
    let tstate = python::held_tstate();
    if tstate != 0 {
        let tag = sites::current(tstate);
        if chunks::remember::<false>(p, header, n, tag, 0) {
            counters::add_signed(&h.chunks[header.kind], header.bytes as i64);
            counters::allocated(tag, n);
        }
    } else {
        crate::setup::maybe_python_runs();
        let tag = sites::current_native();
        if chunks::remember::<false>(p, header, n, tag, 0) {
            h.chunks_native[header.kind].fetch_add(header.bytes as i64, Relaxed);
            counters::allocated_native(tag, n);
        }
    }
    counted(p, header);
}

/// What follows when the chunk at `p` was counted.
#[inline(always)]
fn counted(p: usize, header: chunks::Header) {
    if header.bytes >= rss::LARGE {
        rss::large_allocated(header.bytes);
    }
    if header.kind != chunks::OWN_MAPPING {
        crate::heap::chunk_used(p - 16, header.bytes, header.kind);
    }
}

/// Forgets the live chunk at `p`, before anybody else can be given its address.
#[inline(always)]
fn take(p: usize) -> Option<Taken> {
    match MODE.load(Relaxed) {
        COUNT => chunks::take::<false>(p),
        STACKS => chunks::take::<true>(p),
        _ => None,
    }
}

/// Counts the remembered chunk at `p` as freed.
#[inline(always)]
fn uncount(t: Taken, p: usize) {
    let h = &region().head;
    // From this size on a free may give memory back to the kernel: an own mapping, or the top of
    // a heap (FASTBIN_CONSOLIDATION_THRESHOLD, glibc malloc/malloc.c).
    if t.header.bytes >= rss::LARGE {
        rss::before_release();
        rss::large_freed(t.header.bytes);
    }
    let by_path = MODE.load(Relaxed) == STACKS;
    if python::held_tstate() != 0 {
        counters::add_signed(&h.chunks[t.header.kind], -(t.header.bytes as i64));
        if by_path {
            stacks::count::freed(t.tag, t.size, t.birth, p);
        } else {
            counters::freed(t.tag, t.size);
        }
    } else {
        h.chunks_native[t.header.kind].fetch_sub(t.header.bytes as i64, Relaxed);
        if by_path {
            stacks::count::freed_native(t.tag, t.size, t.birth, p);
        } else {
            counters::freed_native(t.tag, t.size);
        }
    }
}

/// The chunk at `p` is about to be given back.
#[inline(always)]
fn forget(p: usize) {
    if let Some(t) = take(p) {
        uncount(t, p);
        if counters::is_watched(t.tag) {
            sites::watched_block_freed(p);
        }
    }
}

/// `malloc`.
///
/// # Safety
/// As libc's.
#[inline(always)]
pub unsafe fn malloc(n: usize) -> *mut c_void {
    if own_turn(&real::MALLOC, n) {
        let p = own::alloc(n);
        if !p.is_null() {
            return p;
        }
    }
    // SAFETY: libc's malloc.
    let p = unsafe { libc_call!(real::MALLOC, fn(n => usize) -> *mut c_void) };
    count(p, n);
    p
}

/// `calloc`.
///
/// # Safety
/// As libc's.
#[inline(always)]
pub unsafe fn calloc(items: usize, size: usize) -> *mut c_void {
    if own_turn(&real::CALLOC, items.saturating_mul(size)) {
        let p = own::alloc(items.saturating_mul(size));
        if !p.is_null() {
            return p;
        }
    }
    // SAFETY: libc's calloc.
    let p = unsafe { libc_call!(real::CALLOC, fn(items => usize, size => usize) -> *mut c_void) };
    count(p, items.wrapping_mul(size));
    p
}

/// `free`.
///
/// # Safety
/// As libc's.
#[inline(always)]
pub unsafe fn free(p: *mut c_void) {
    if p.is_null() {
        return;
    }
    if own::owns(p as usize) {
        own::free(p as usize);
        return;
    }
    forget(p as usize);
    // SAFETY: libc's free.
    unsafe { libc_call!(real::FREE, fn(p => *mut c_void)) };
}

/// `free_sized` (C23): the size is what the caller says, and not needed.
///
/// # Safety
/// As libc's.
pub unsafe fn free_sized(p: *mut c_void, _: usize) {
    // SAFETY: what may be given to free_sized may be given to free.
    unsafe { free(p) }
}

/// `free_aligned_sized` (C23), likewise.
///
/// # Safety
/// As libc's.
pub unsafe fn free_aligned_sized(p: *mut c_void, _: usize, _: usize) {
    // SAFETY: as above.
    unsafe { free(p) }
}

/// `realloc`.
///
/// # Safety
/// As libc's.
pub unsafe fn realloc(p: *mut c_void, n: usize) -> *mut c_void {
    if p.is_null() {
        // SAFETY: the same contract.
        return unsafe { malloc(n) };
    }
    if own::owns(p as usize) {
        // SAFETY: both blocks are live and at least as long as what is copied.
        return unsafe {
            let fresh = malloc(n);
            if !fresh.is_null() {
                let room = own::size(p as usize).min(n);
                core::ptr::copy_nonoverlapping(p as *const u8, fresh as *mut u8, room);
                own::free(p as usize);
            }
            fresh
        };
    }
    let taken = take(p as usize);
    let _moving = stacks::awaiting::on().then(|| stacks::awaiting::Moving::new(p as usize));
    // SAFETY: libc's realloc.
    let fresh =
        unsafe { libc_call!(real::REALLOC, fn(p => *mut c_void, n => usize) -> *mut c_void) };
    if let Some(t) = taken {
        if fresh.is_null() && n != 0 {
            // Where its birth is remembered nothing was changed.
            chunks::remember::<false>(p as usize, t.header, t.size, t.tag, 0);
            return fresh;
        }
        uncount(t, p as usize);
        if counters::is_watched(t.tag) {
            sites::watched_block_freed(p as usize);
        }
    }
    count(fresh, n);
    fresh
}

/// `reallocarray`.
///
/// # Safety
/// As libc's.
pub unsafe fn reallocarray(p: *mut c_void, items: usize, size: usize) -> *mut c_void {
    match items.checked_mul(size) {
        // SAFETY: the same contract.
        Some(n) => unsafe { realloc(p, n) },
        None => {
            // SAFETY: errno of this thread.
            unsafe { *libc::__errno_location() = libc::ENOMEM };
            core::ptr::null_mut()
        }
    }
}

/// `memalign`.
///
/// # Safety
/// As libc's.
pub unsafe fn memalign(align: usize, n: usize) -> *mut c_void {
    // SAFETY: libc's memalign.
    let p = unsafe { libc_call!(real::MEMALIGN, fn(align => usize, n => usize) -> *mut c_void) };
    count(p, n);
    p
}

/// `aligned_alloc`.
///
/// # Safety
/// As libc's.
pub unsafe fn aligned_alloc(align: usize, n: usize) -> *mut c_void {
    // SAFETY: libc's aligned_alloc.
    let p =
        unsafe { libc_call!(real::ALIGNED_ALLOC, fn(align => usize, n => usize) -> *mut c_void) };
    count(p, n);
    p
}

/// `posix_memalign`.
///
/// # Safety
/// As libc's.
pub unsafe fn posix_memalign(out: *mut *mut c_void, align: usize, n: usize) -> c_int {
    // SAFETY: libc's posix_memalign; `out` is read after it succeeded.
    unsafe {
        let status = libc_call!(
            real::POSIX_MEMALIGN,
            fn(out => *mut *mut c_void, align => usize, n => usize) -> c_int
        );
        if status == 0 {
            count(*out, n);
        }
        status
    }
}

/// `valloc`.
///
/// # Safety
/// As libc's.
pub unsafe fn valloc(n: usize) -> *mut c_void {
    // SAFETY: libc's valloc.
    let p = unsafe { libc_call!(real::VALLOC, fn(n => usize) -> *mut c_void) };
    count(p, n);
    p
}

/// `pvalloc`.
///
/// # Safety
/// As libc's.
pub unsafe fn pvalloc(n: usize) -> *mut c_void {
    // SAFETY: libc's pvalloc.
    let p = unsafe { libc_call!(real::PVALLOC, fn(n => usize) -> *mut c_void) };
    count(p, n);
    p
}

/// `malloc_trim`: forwards, and remembers that glibc's heap now has holes.
///
/// # Safety
/// As libc's.
pub unsafe fn malloc_trim(pad: usize) -> c_int {
    // SAFETY: libc's malloc_trim.
    let status = unsafe { libc_call!(real::MALLOC_TRIM, fn(pad => usize) -> c_int) };
    crate::heap::trimmed();
    status
}
