//! Resident memory of this process from `/proc/self/statm`, and when it can't have changed.
//!
//! A page comes with a page fault and goes with a system call that costs more. A line that took
//! less than half of the cheapest fault of this machine has changed nothing, and isn't measured.
//! What other threads change meanwhile is seen with the next reading, [`STALE`] cycles after the
//! last one at the latest.

use core::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering::Relaxed};

use super::table::Gauge;
use crate::clock::cycles;
use crate::memory::{self, PAGE};

/// Cycles after which a reading is taken in any case: 1 ms at 2.5 GHz.
const STALE: u64 = 2_500_000;
/// Pages that are touched to find out what a fault costs.
const PAGES: usize = 64;

/// `/proc/self/statm`, kept open by the package, which opens it again in the child of a fork.
static STATM: AtomicI32 = AtomicI32::new(-1);
/// Cycles in which resident memory can't change; 0: not known, or every line is to be measured.
static QUIET: AtomicU64 = AtomicU64::new(0);
/// When it was last read, in cycles.
static READ_AT: AtomicU64 = AtomicU64::new(0);
/// What was read then, bytes.
static LAST: AtomicI64 = AtomicI64::new(0);

/// The gauge of this process.
pub struct Own;

impl Gauge for Own {
    #[inline(always)]
    fn cycles() -> u64 {
        cycles()
    }

    #[inline(always)]
    fn may_have_changed(since: u64, now: u64) -> bool {
        now.wrapping_sub(since) >= QUIET.load(Relaxed)
            || now.wrapping_sub(READ_AT.load(Relaxed)) > STALE
    }

    #[inline(never)]
    fn resident() -> i64 {
        let now = read().unwrap_or(LAST.load(Relaxed));
        LAST.store(now, Relaxed);
        READ_AT.store(cycles(), Relaxed);
        now
    }
}

fn read() -> Option<i64> {
    let mut text = [0u8; 96];
    // SAFETY: pread(2) into a buffer of the given size.
    let n = unsafe {
        libc::syscall(libc::SYS_pread64, STATM.load(Relaxed), text.as_mut_ptr(), text.len(), 0usize)
    };
    let pages = usize::try_from(n).ok().and_then(|n| resident_pages(text.get(..n)?));
    // The program closed a descriptor that it doesn't know, and perhaps uses the number again.
    let pages = pages.or_else(|| resident_pages(crate::proc::read(c"/proc/self/statm", &mut text)));
    pages.map(|n| n * PAGE as i64)
}

/// The second of the seven numbers of statm (proc(5)); none if the text is something else.
fn resident_pages(text: &[u8]) -> Option<i64> {
    let mut fields = [0i64; 7];
    let mut at = 0;
    let line = text.strip_suffix(b"\n")?;
    for part in line.split(|b| *b == b' ') {
        let field = fields.get_mut(at)?;
        if part.is_empty() || part.len() > 15 {
            return None;
        }
        for b in part {
            let digit = b.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            *field = *field * 10 + digit as i64;
        }
        at += 1;
    }
    let [size, resident, shared, _, library, _, dirty] = fields;
    // The fifth and the last are 0 since Linux 2.6.
    let is = at == 7 && library == 0 && dirty == 0 && shared <= resident && resident <= size;
    is.then_some(resident)
}

/// `fd`: `/proc/self/statm`. `every`: every line is to be measured.
pub fn start(fd: i32, every: bool) {
    STATM.store(fd, Relaxed);
    match QUIET.load(Relaxed) {
        _ if every => QUIET.store(0, Relaxed),
        0 => QUIET.store(cheapest_fault() / 2, Relaxed),
        _ => {}
    }
}

/// Cycles that the kernel takes at least to give this process one page; 0 if it gives none.
fn cheapest_fault() -> u64 {
    let area = memory::map(PAGES * PAGE);
    if area.is_null() {
        return 0;
    }
    // The first round faults, the second is the same without.
    let [with, without] = [touch(area), touch(area)];
    // SAFETY: the mapping made above, which nobody else knows.
    unsafe { libc::syscall(libc::SYS_madvise, area, PAGES * PAGE, libc::MADV_DONTNEED) };
    with.saturating_sub(without)
}

fn touch(area: *mut u8) -> u64 {
    let mut least = u64::MAX;
    for page in 0..PAGES {
        let begin = cycles();
        // SAFETY: within the mapping of `PAGES` pages.
        unsafe { area.add(page * PAGE).write_volatile(1) };
        least = least.min(cycles().wrapping_sub(begin));
    }
    least
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernels_text_is_understood() {
        assert_eq!(resident_pages(b"3507 2310 1494 690 0 820 0\n"), Some(2310));
        for other in [
            &b""[..],
            b"\n",
            b"3507 2310 1494 690 0 820 0",
            b"3507 2310 1494 690 0 820\n",
            b"3507 2310 1494 690 0 820 0 0\n",
            b"3507 2310 1494 690 1 820 0\n",
            b"3507  2310 1494 690 0 820 0\n",
            b"3507 99999999999999999999 1494 690 0 820 0\n",
            b"3507 2310x 1494 690 0 820 0\n",
        ] {
            assert_eq!(resident_pages(other), None, "{other:?}");
        }
        let own = std::fs::read("/proc/self/statm").unwrap_or_default();
        assert!(resident_pages(&own).is_some_and(|n| n > 0));
    }

    #[test]
    fn a_descriptor_of_something_else_is_not_believed() {
        start(-1, true);
        let without = Own::resident();
        assert!(without > 0);
        // SAFETY: open(2) with a C string.
        let other = unsafe { libc::open(c"/proc/self/stat".as_ptr(), libc::O_RDONLY) };
        assert!(other >= 0);
        start(other, false);
        assert!(Own::resident() > 0);
        assert!(QUIET.load(Relaxed) > 0);
        assert!(Own::may_have_changed(0, u64::MAX / 2));
        start(-1, true);
        assert!(Own::may_have_changed(cycles(), cycles()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_number_or_none(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let found = resident_pages(&bytes);
            prop_assert!(found.is_none_or(|n| n >= 0));
        }

        #[test]
        fn numbers_come_back(n in prop::array::uniform5(0i64..1 << 40)) {
            let [a, b, c, d, e] = n;
            let text = std::format!("{} {} {} {d} 0 {e} 0\n", a + b + c, b + c, c);
            prop_assert_eq!(resident_pages(text.as_bytes()), Some(b + c));
        }
    }
}
