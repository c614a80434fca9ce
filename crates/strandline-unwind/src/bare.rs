//! System calls that leave `errno` alone: an allocation that succeeds must not change it.

use core::arch::asm;

/// A system call of up to three arguments (System V ABI, A.2.1); a result from -4095 to -1 is
/// an error.
///
/// # Safety
/// As the call itself demands.
pub(crate) unsafe fn call(number: libc::c_long, a: usize, b: usize, c: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel changes rax, rcx and r11, and what the arguments point to, for which
    // the caller vouches.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// True if the page that holds `address` is mapped.
pub(crate) fn is_mapped(address: usize) -> bool {
    let mut resident = 0u8;
    let page = address & !(PAGE - 1);
    // SAFETY: mincore(2) on one page writes one byte, and fails if nothing is mapped.
    unsafe { call(libc::SYS_mincore, page, PAGE, &raw mut resident as usize) == 0 }
}

/// Reads all of the file at `path` (with its final 0), part by part into `buffer`, until `take`
/// returns false.
pub(crate) fn read_file(path: &core::ffi::CStr, mut take: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0u8; 2048];
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: open(2) with a C string.
    let file = unsafe { call(libc::SYS_open, path.as_ptr() as usize, flags, 0) };
    let Ok(file) = usize::try_from(file) else { return };
    loop {
        let at = buffer.as_mut_ptr() as usize;
        // SAFETY: read(2) into the buffer, no more than it holds.
        let length = unsafe { call(libc::SYS_read, file, at, buffer.len()) };
        if length == -(libc::EINTR as isize) {
            continue;
        }
        let read = usize::try_from(length).ok().and_then(|l| buffer.get(..l));
        match read {
            Some(bytes) if !bytes.is_empty() && take(bytes) => {}
            _ => break,
        }
    }
    // SAFETY: close(2) of the file that was opened above.
    unsafe { call(libc::SYS_close, file, 0, 0) };
}

/// Size of a page on x86-64.
pub(crate) const PAGE: usize = 4096;
