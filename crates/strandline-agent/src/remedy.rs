//! Giving memory back: the collector, malloc_trim, the pool trim. By `strandline.trim()`
//! ([`crate::module`]) or by `strandline remedies PID` ([`crate::control`]).

use core::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use libc::c_char;
use strandline_capture::layout as capture;

use crate::region::region;
use crate::symbols::{self, call, Object};
use crate::tls::Quiet;
use crate::{bare, clock, heap, pool_trim, proc, rss};

/// A change of this many bytes makes it worth to look again.
const CHANGE: i64 = 64 << 10;
/// After a collection none is made for as many times as long as it took, unless memory changed:
/// calling in a loop costs one 20th of the time at most.
const PAUSES: u64 = 20;

/// The last collection, in a bare run all that was done: when it ended and how long it took, in
/// cycles; bytes in use after it.
static COLLECTED: AtomicU64 = AtomicU64::new(0);
static TOOK: AtomicU64 = AtomicU64::new(0);
static IN_USE: AtomicI64 = AtomicI64::new(i64::MIN / 2);
/// After the last malloc_trim: bytes that malloc kept, and bytes in use.
static KEPT: AtomicI64 = AtomicI64::new(0);
static IN_USE_TRIMMED: AtomicI64 = AtomicI64::new(0);

/// Which remedies may give something back, a bit each (`1 << REMEDY_*`). Costs some µs. The caller
/// holds the GIL.
pub fn promising() -> u32 {
    let bit = |on: bool, remedy: u32| if on { 1 << remedy } else { 0 };
    let rested = clock::cycles().wrapping_sub(COLLECTED.load(Relaxed))
        > TOOK.load(Relaxed).saturating_mul(PAUSES);
    if bare::is() {
        // Nothing is counted that could tell what is to be won.
        let other = region().head.bare.flags.load(Relaxed) & capture::BARE_OTHER_MALLOC != 0;
        return bit(rested, capture::REMEDY_COLLECT)
            | bit(rested && !other, capture::REMEDY_MALLOC_TRIM)
            | bit(rested, capture::REMEDY_POOL_TRIM);
    }
    let in_use = rss::program_in_use();
    let changed = |since: &AtomicI64| (in_use - since.load(Relaxed)).abs() >= CHANGE;
    let kept = heap::stranded();
    let more = (kept - KEPT.load(Relaxed)).abs() >= CHANGE;
    bit(rested || changed(&IN_USE), capture::REMEDY_COLLECT)
        | bit(kept >= CHANGE && (more || changed(&IN_USE_TRIMMED)), capture::REMEDY_MALLOC_TRIM)
        | bit(pool_trim::pending(), capture::REMEDY_POOL_TRIM)
}

/// Applies a remedy (`REMEDY_*`).
///
/// # Safety
/// The GIL is held, at a place where Python code may run.
pub unsafe fn apply(remedy: u32) {
    let before = clock::cycles();
    match remedy {
        capture::REMEDY_COLLECT => {
            TOOK.store(0, Relaxed);
            // SAFETY: the caller's promise.
            unsafe { collect() };
        }
        // SAFETY: malloc_trim(3) has no preconditions.
        capture::REMEDY_MALLOC_TRIM => unsafe {
            crate::malloc::malloc_trim(0);
        },
        capture::REMEDY_POOL_TRIM => pool_trim::trim(),
        _ => {}
    }
    if remedy == capture::REMEDY_COLLECT || bare::is() {
        let now = clock::cycles();
        TOOK.fetch_add(now.wrapping_sub(before), Relaxed);
        COLLECTED.store(now, Relaxed);
    }
    if bare::is() {
        return;
    }
    match remedy {
        capture::REMEDY_COLLECT => IN_USE.store(rss::program_in_use(), Relaxed),
        capture::REMEDY_MALLOC_TRIM => {
            rss::pages_moved();
            KEPT.store(heap::stranded(), Relaxed);
            IN_USE_TRIMMED.store(rss::program_in_use(), Relaxed);
        }
        _ => {}
    }
}

/// `gc.collect()`: unlike `PyGC_Collect` it also collects where the program has switched the
/// automatic collection off. What it raises is dropped.
unsafe fn collect() {
    // SAFETY: documented API, live objects, the GIL is held; an exception that is set is put back.
    unsafe {
        let mut raised: [Object; 3] = [core::ptr::null_mut(); 3];
        let at = raised.as_mut_ptr();
        call!(
            symbols::ERR_FETCH,
            fn(at => *mut Object, at.add(1) => *mut Object, at.add(2) => *mut Object)
        );
        let module = {
            let _quiet = Quiet::new();
            call!(symbols::IMPORT, fn(c"gc".as_ptr() => *const c_char) -> Object)
        };
        if !module.is_null() {
            let f = call!(
                symbols::GET_ATTR,
                fn(module => Object, c"collect".as_ptr() => *const c_char) -> Object
            );
            if !f.is_null() {
                let end: Object = core::ptr::null_mut();
                let n = call!(symbols::CALL_OBJ_ARGS, fn(f => Object, end => Object) -> Object);
                call!(symbols::DEC_REF, fn(n => Object));
                call!(symbols::DEC_REF, fn(f => Object));
            }
            call!(symbols::DEC_REF, fn(module => Object));
        }
        call!(symbols::ERR_CLEAR, fn());
        let [kind, value, trace] = raised;
        call!(symbols::ERR_RESTORE, fn(kind => Object, value => Object, trace => Object));
    }
}

/// Resident bytes, counted page by page (smaps_rollup, Linux 4.14); where that isn't to be had,
/// what statm says, which the kernel counts in batches.
pub fn exact_rss() -> i64 {
    let mut text = [0u8; 256];
    let text = proc::read(c"/proc/self/smaps_rollup", &mut text);
    let rss = text.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(b"Rss:"));
    let kib = rss.map(|l| {
        let digits = l.iter().filter(|b| b.is_ascii_digit());
        digits.fold(0i64, |n, b| n.wrapping_mul(10) + i64::from(*b - b'0'))
    });
    kib.map_or_else(|| rss::kernel_rss().unwrap_or(0), |kib| kib * 1024)
}
