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

/// Bytes of a line that `lines` hands over: of maps, all but the end of a long name.
const LINE: usize = 128;

/// Calls `with` for the beginning of each line of `path`; false if it can't be read to its end.
pub fn lines(path: &CStr, mut with: impl FnMut(&[u8])) -> bool {
    let mut text = [0u8; 4096];
    let (mut line, mut len) = ([0u8; LINE], 0);
    // SAFETY: plain open(2), read(2) into a buffer of the given size, close(2).
    unsafe {
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags);
        if fd < 0 {
            return false;
        }
        let complete = loop {
            let n = libc::syscall(libc::SYS_read, fd, text.as_mut_ptr(), text.len());
            let Some(read) = usize::try_from(n).ok().and_then(|n| text.get(..n)) else {
                break false;
            };
            if read.is_empty() {
                break len == 0;
            }
            for b in read {
                if *b == b'\n' {
                    with(line.get(..len).unwrap_or(&[]));
                    len = 0;
                } else if let Some(cell) = line.get_mut(len) {
                    *cell = *b;
                    len += 1;
                }
            }
        };
        libc::syscall(libc::SYS_close, fd);
        complete
    }
}
