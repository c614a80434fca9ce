//! Short files of /proc, read without an allocation.

use core::ffi::CStr;

/// Reads the beginning of `path` into `text`; the part that was read, empty if it can't be.
pub fn read<'a>(path: &CStr, text: &'a mut [u8]) -> &'a [u8] {
    // SAFETY: plain open(2), read(2) into a buffer of the given size, close(2).
    let n = unsafe {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags);
        if fd < 0 {
            return &[];
        }
        let n = libc::syscall(libc::SYS_read, fd, text.as_mut_ptr(), text.len());
        libc::syscall(libc::SYS_close, fd);
        n
    };
    usize::try_from(n).ok().and_then(|n| text.get(..n)).unwrap_or(&[])
}
