//! What an allocation and a free of pymalloc's cost under `--stacks` where all is as usual: the
//! allocator below is pymalloc itself, the flat table of pools is there, the block is small, the
//! thread known. All else is left to the hooks of [`crate::pymem`], before anything was done.

use core::sync::atomic::Ordering::Relaxed;

use libc::c_void;
use strandline_capture::layout::{size_class, DOMAIN_MEM, TAG_WATCH};

use super::{count, events, path};
use crate::counters::{add_signed, subtract, tag_of};
use crate::lines::monitoring;
use crate::pools::usual;
use crate::pymem::{self, Allocator};
use crate::python::OBJECT;
use crate::region::region;
use crate::tls::{tls, QUIET};

/// malloc of the domain DOMAIN. EVENTS: of `--events`.
///
/// # Safety
/// As `PyMemAllocatorEx.malloc`; `ctx` is the address of a wrapped allocator.
pub unsafe extern "C" fn malloc<
    const SHIFT: u32,
    const KIND: u32,
    const DOMAIN: u32,
    const EVENTS: bool,
>(
    ctx: *mut c_void,
    n: usize,
) -> *mut c_void {
    if !is_usual(n) {
        // SAFETY: as the caller vouches.
        return unsafe { pymem::hook_malloc::<SHIFT, KIND, true, true>(ctx, n) };
    }
    // Before the allocator works, so that the walk from frame to frame and the allocator's own work
    // don't wait for each other.
    let hash = path::hash_now::<KIND>(DOMAIN);
    // SAFETY: as the caller vouches.
    let b: &Allocator = unsafe { pymem::below(ctx) };
    // SAFETY: the wrapped allocator's own function with its own context.
    let p = unsafe { (b.malloc)(b.ctx, n) };
    record::<SHIFT, KIND, DOMAIN, EVENTS>(p, n, hash);
    p
}

/// calloc of the domain DOMAIN.
///
/// # Safety
/// As `PyMemAllocatorEx.calloc`; `ctx` is the address of a wrapped allocator.
pub unsafe extern "C" fn calloc<
    const SHIFT: u32,
    const KIND: u32,
    const DOMAIN: u32,
    const EVENTS: bool,
>(
    ctx: *mut c_void,
    items: usize,
    size: usize,
) -> *mut c_void {
    let n = items.saturating_mul(size);
    if !is_usual(n) {
        // SAFETY: as the caller vouches.
        return unsafe { pymem::hook_calloc::<SHIFT, KIND, true, true>(ctx, items, size) };
    }
    let hash = path::hash_now::<KIND>(DOMAIN);
    // SAFETY: as the caller vouches.
    let b: &Allocator = unsafe { pymem::below(ctx) };
    // SAFETY: as in `malloc`.
    let p = unsafe { (b.calloc)(b.ctx, items, size) };
    record::<SHIFT, KIND, DOMAIN, EVENTS>(p, n, hash);
    p
}

/// True if a request of `n` bytes by this thread now is as the module says.
#[inline(always)]
fn is_usual(n: usize) -> bool {
    pymem::is_small(n) && tls().flags.get() & QUIET == 0 && path::is_known_thread()
}

/// `p` was just handed out for `n` bytes.
#[inline(always)]
fn record<const SHIFT: u32, const KIND: u32, const DOMAIN: u32, const EVENTS: bool>(
    p: *mut c_void,
    n: usize,
    hash: u64,
) {
    let Some(entry) = usual::entry_of_new::<SHIFT>(p as usize, n) else { return };
    let tag = path::with_hash(hash, DOMAIN);
    let birth = count::allocated_in::<true>(tag, n, size_class(n), p as usize);
    entry.set(tag, n, birth);
    add_signed(&region().head.block_bytes, usual::class_bytes(n) as i64);
    if EVENTS {
        events::allocated(tag, n);
    }
    // The data of `sys.monitoring` is asked of this domain (Python/instrumentation.c).
    if KIND != OBJECT && DOMAIN == DOMAIN_MEM && monitoring::may_be_data(n) {
        monitoring::check_data(p as usize);
    }
}

/// free of both domains.
///
/// # Safety
/// As `PyMemAllocatorEx.free`; `ctx` is the address of a wrapped allocator.
pub unsafe extern "C" fn free<const SHIFT: u32, const EVENTS: bool>(
    ctx: *mut c_void,
    p: *mut c_void,
) {
    if let Some(block) = usual::entry_of::<SHIFT>(p as usize) {
        let watched = tag_of(region(), block.tag).flags.load(Relaxed) & TAG_WATCH != 0;
        let saved = count::is_saved_at_rss_peak(block.tag);
        if watched || !saved || tls().context.get() != 0 {
            // SAFETY: as the caller vouches.
            return unsafe { pymem::hook_free::<SHIFT, OBJECT, true, true>(ctx, p) };
        }
        block.entry.clear();
        if EVENTS {
            events::freed(block.tag, block.size, block.birth);
        }
        subtract(&region().head.block_bytes, block.class_bytes as i64);
        count::freed_in::<true>(block.tag, block.size, block.birth, p as usize);
    }
    // SAFETY: as the caller vouches.
    let b: &Allocator = unsafe { pymem::below(ctx) };
    // SAFETY: as in `malloc`.
    unsafe { (b.free)(b.ctx, p) };
}
