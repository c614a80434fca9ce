//! Which pages this process has. What this library itself has resident: for bare runs, whose
//! figures are those of the program alone. Which pages of the interpreter's data it has written to:
//! to look at the others would make them resident.
//!
//! Bit 63 of an entry of /proc/self/pagemap says that a page is mapped, which is what RSS counts,
//! bit 62 that it is swapped out (Linux Documentation/admin-guide/mm/pagemap.rst); a process may
//! read its own.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::{c_int, c_void};
use strandline_capture::layout;

use crate::memory::PAGE;
use crate::region;

/// Where this library lies; the region is mapped over a part of it.
static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// Finds out where the library lies. Called in the constructor.
pub fn start() {
    // SAFETY: dl_iterate_phdr(3) with a callback that keeps to its contract.
    unsafe { libc::dl_iterate_phdr(Some(look), core::ptr::null_mut()) };
}

unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _: libc::size_t, _: *mut c_void) -> c_int {
    let here = &raw const START as usize;
    let (mut start, mut end) = (usize::MAX, 0);
    // SAFETY: the linker hands over a live description with that many headers.
    unsafe {
        for i in 0..(*info).dlpi_phnum as usize {
            let h = &*(*info).dlpi_phdr.add(i);
            if h.p_type == libc::PT_LOAD {
                let at = ((*info).dlpi_addr + h.p_vaddr) as usize;
                start = start.min(at & !(PAGE - 1));
                end = end.max(at + h.p_memsz as usize);
            }
        }
    }
    if (start..end).contains(&here) {
        START.store(start, Relaxed);
        END.store(end, Relaxed);
        return 1;
    }
    0
}

/// Opens the page map; negative if that can't be.
fn open() -> c_int {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let name = c"/proc/self/pagemap".as_ptr();
    // SAFETY: plain open(2) of a C string.
    unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, name, flags) as c_int }
}

fn close(fd: c_int) {
    // SAFETY: plain close(2) of a descriptor that `open` made.
    unsafe { libc::syscall(libc::SYS_close, fd) };
}

/// Bytes of the library and of the mapped capture that are resident.
pub fn resident() -> i64 {
    let fd = open();
    if fd < 0 {
        return 0;
    }
    let mut pages = mapped(fd, START.load(Relaxed), END.load(Relaxed));
    if let Some(header) = region::header() {
        let at = header as *const layout::Header as usize;
        pages += mapped(fd, at, at + layout::HEADER_BYTES);
    }
    close(fd);
    pages * PAGE as i64
}

/// Pages of `[start, end)` that are mapped.
fn mapped(fd: c_int, start: usize, end: usize) -> i64 {
    let mut found = 0;
    entries(fd, start, end, |_, entry| found += i64::from(entry >> 63 != 0));
    found
}

/// Calls `with` for the start of each page of `[start, end)` that is in memory or swapped out; for
/// all of them, if the kernel doesn't say.
pub fn each_present(start: usize, end: usize, mut with: impl FnMut(usize)) {
    let fd = open();
    let behind = entries(fd, start, end, |page, entry| {
        if entry >> 62 != 0 {
            with(page * PAGE);
        }
    });
    if fd >= 0 {
        close(fd);
    }
    (behind..end.div_ceil(PAGE)).for_each(|page| with(page * PAGE));
}

/// Calls `with` for each page of `[start, end)`, its number and its entry; the number of the first
/// page that the kernel said nothing of.
fn entries(fd: c_int, start: usize, end: usize, mut with: impl FnMut(usize, u64)) -> usize {
    const AT_A_TIME: usize = 512;
    let mut entries = [0u64; AT_A_TIME];
    let (mut page, last) = (start / PAGE, end.div_ceil(PAGE));
    while page < last {
        let wanted = (last - page).min(AT_A_TIME);
        // SAFETY: reads at most as many bytes as `entries` has.
        let n = unsafe {
            libc::syscall(
                libc::SYS_pread64,
                fd,
                entries.as_mut_ptr(),
                wanted * size_of::<u64>(),
                page * size_of::<u64>(),
            )
        };
        let n = usize::try_from(n).unwrap_or(0) / size_of::<u64>();
        if n == 0 {
            break;
        }
        entries.iter().take(n).enumerate().for_each(|(i, entry)| with(page + i, *entry));
        page += n;
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_pages_are_counted() {
        start();
        assert!(resident() > 0);
        let at = crate::memory::map(8 * PAGE) as usize;
        let fd = open();
        assert_eq!(mapped(fd, at, at + 8 * PAGE), 0);
        // SAFETY: our own fresh mapping.
        unsafe { *((at + 5 * PAGE) as *mut u8) = 1 };
        assert_eq!(mapped(fd, at, at + 8 * PAGE), 1);
        assert_eq!(mapped(fd, at, at + 5 * PAGE), 0);
        close(fd);
        let mut seen = (0, 0);
        each_present(at + 8, at + 8 * PAGE - 8, |page| seen = (seen.0 + 1, page));
        assert_eq!(seen, (1, at + 5 * PAGE));
    }
}
