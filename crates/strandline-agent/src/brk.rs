//! Memory that the program takes by moving the program break itself: `brk`, `sbrk`.
//!
//! It is counted like mappings. glibc's malloc moves the break too, but not through these symbols.

use libc::{c_int, c_void};

use crate::malloc::counting;
use crate::ranges::{self, Leaving};
use crate::real::{self, libc_call};

/// What `sbrk` returns if it fails.
const FAILED: usize = usize::MAX;

fn real_sbrk(by: isize) -> usize {
    // SAFETY: libc's sbrk.
    unsafe { libc_call!(real::SBRK, fn(by => isize) -> usize) }
}

/// The break was moved up by `bytes` from `start`.
fn took(start: usize, bytes: usize) {
    crate::heap::break_moved();
    crate::rss::pages_moved();
    crate::rss::large_allocated(bytes);
    ranges::count(start, bytes);
}

/// Does what moves the break down to `start`, by `bytes`.
fn give_back<T>(
    start: usize,
    bytes: usize,
    real: impl FnOnce() -> T,
    ok: impl Fn(&T) -> bool,
) -> T {
    if bytes >= crate::rss::LARGE {
        crate::rss::before_release();
    }
    crate::rss::pages_moved();
    let leaving = Leaving::new(start, bytes);
    let result = real();
    let gone = ok(&result);
    if gone {
        crate::rss::large_freed(bytes);
    }
    leaving.end(gone);
    result
}

/// `sbrk`.
///
/// # Safety
/// As libc's.
pub unsafe fn sbrk(by: isize) -> *mut c_void {
    if by == 0 || !counting() {
        return real_sbrk(by) as *mut c_void;
    }
    if by > 0 {
        let start = real_sbrk(by);
        if start != FAILED {
            took(start, by as usize);
        }
        return start as *mut c_void;
    }
    let bytes = by.unsigned_abs();
    let start = real_sbrk(0).wrapping_sub(bytes);
    give_back(start, bytes, || real_sbrk(by), |&p| p != FAILED) as *mut c_void
}

/// `brk`.
///
/// # Safety
/// As libc's.
pub unsafe fn brk(to: *mut c_void) -> c_int {
    // SAFETY: libc's brk.
    let real = || unsafe { libc_call!(real::BRK, fn(to => *mut c_void) -> c_int) };
    let before = if counting() { real_sbrk(0) } else { FAILED };
    let end = to as usize;
    if before == FAILED || end == before {
        return real();
    }
    if end < before {
        return give_back(end, before - end, real, |&status| status == 0);
    }
    let status = real();
    if status == 0 {
        took(before, end - before);
    }
    status
}
