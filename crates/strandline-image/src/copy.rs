//! Copying memory out of a process into memory that was touched beforehand, by several threads.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use crate::error::Error;
use crate::image::Piece;
use crate::mapping::PAGE;
use crate::memory;

/// Consecutive memory that becomes one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// The parts of it that are read; the rest stays zero.
    pub pages: Vec<(u64, u64)>,
}

/// Bytes that one system call reads.
const AT_ONCE: u64 = 4 << 20;

/// Memory of this process.
struct Buffer {
    start: *mut u8,
    len: usize,
}

// SAFETY: the memory belongs to the value; parts of it are written by one thread each, before
// anybody reads.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Anonymous memory, or `file`, which is made as long as that.
    fn new(len: usize, file: Option<&File>) -> io::Result<Self> {
        let (kind, fd) = match file {
            Some(file) => {
                file.set_len(len as u64)?;
                (libc::MAP_SHARED, file.as_raw_fd())
            }
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice; the file has no name, so
        // nobody else writes to it or cuts it.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: advice on our own mapping: large pages are touched faster.
        unsafe { libc::madvise(start, len, libc::MADV_HUGEPAGE) };
        Ok(Buffer { start: start.cast(), len })
    }

    /// Touches every page, by `threads` threads.
    fn touch(&self, threads: usize) {
        let part = self.len.div_ceil(threads.max(1)).next_multiple_of(PAGE as usize);
        std::thread::scope(|scope| {
            for first in (0..self.len).step_by(part.max(PAGE as usize)) {
                scope.spawn(move || {
                    for at in (first..(first + part).min(self.len)).step_by(PAGE as usize) {
                        // SAFETY: below the mapping's length; nobody else touches this page now.
                        unsafe { self.start.add(at).write_volatile(0) };
                    }
                });
            }
        });
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// Part of a buffer.
struct Part {
    buffer: Arc<Buffer>,
    offset: usize,
    len: usize,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: within the mapping, which lives as long as the buffer; written to no more.
        unsafe { std::slice::from_raw_parts(self.buffer.start.add(self.offset), self.len) }
    }
}

/// A copy in the making.
pub struct Copy {
    pid: i32,
    threads: usize,
    /// Where the copy is if it doesn't fit into memory.
    file: Option<File>,
    buffer: Arc<Buffer>,
    placed: Vec<(u64, Part)>,
}

impl Copy {
    /// Makes room for `bytes`: in memory, which is touched, or in a file without a name if they are
    /// more than `available`.
    pub fn prepare(pid: i32, bytes: u64, available: u64, threads: usize) -> Result<Self, Error> {
        let no_room = |_| Error::TooLarge { pid, needed: bytes, available };
        let file = match bytes > available {
            true => Some(memory::file_for(bytes).ok_or(()).map_err(no_room)?),
            false => None,
        };
        let len = (bytes as usize).next_multiple_of(PAGE as usize);
        let buffer = Buffer::new(len, file.as_ref()).map_err(|_| no_room(()))?;
        if file.is_none() {
            buffer.touch(threads);
        }
        let (threads, buffer) = (threads.max(1), Arc::new(buffer));
        Ok(Copy { pid, threads, file, buffer, placed: Vec::new() })
    }

    /// True if it goes to a file.
    pub fn is_on_disk(&self) -> bool {
        self.file.is_some()
    }

    /// Copies `runs`.
    pub fn run(&mut self, runs: Vec<Run>) -> Result<(), Error> {
        let total: u64 = runs.iter().map(|r| r.end - r.start).sum();
        if total > self.buffer.len as u64 {
            // It grew, or has many small holes. This memory isn't touched yet, so it stands longer.
            let len = (total as usize).next_multiple_of(PAGE as usize);
            let buffer = Buffer::new(len, self.file.as_ref());
            self.buffer = Arc::new(buffer.map_err(|_| no_room(self.pid, total))?);
        }
        let mut jobs: Vec<(u64, u64, usize)> = Vec::new();
        let mut offset = 0;
        for run in runs {
            let len = (run.end - run.start) as usize;
            for (from, to) in run.pages {
                let mut at = from;
                while at < to {
                    let end = to.min(at + AT_ONCE);
                    jobs.push((at, end - at, offset + (at - run.start) as usize));
                    at = end;
                }
            }
            let part = Part { buffer: self.buffer.clone(), offset, len };
            self.placed.push((run.start, part));
            offset += len;
        }
        let (pid, buffer, next) = (self.pid, &*self.buffer, AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..self.threads.min(jobs.len()) {
                scope.spawn(|| {
                    while let Some(&(from, len, offset)) = jobs.get(next.fetch_add(1, Relaxed)) {
                        read(pid, from, len as usize, buffer, offset);
                    }
                });
            }
        });
        Ok(())
    }

    /// What was copied.
    pub fn pieces(self) -> Vec<Piece> {
        let piece = |(start, part)| Piece { start, bytes: Box::new(part) };
        self.placed.into_iter().map(piece).collect()
    }
}

fn no_room(pid: i32, needed: u64) -> Error {
    Error::TooLarge { pid, needed, available: memory::available() }
}

/// Reads `len` bytes at `from` into `buffer`. What can't be read stays zero: a mapping may hold
/// pages that nobody may touch (guard pages, Linux 6.13), or be gone if the process runs.
fn read(pid: i32, from: u64, len: usize, buffer: &Buffer, offset: usize) {
    let mut done = 0;
    while done < len && offset + len <= buffer.len {
        // SAFETY: within the buffer, and no other job writes this part.
        let into = unsafe { buffer.start.add(offset + done) };
        let local = libc::iovec { iov_base: into.cast(), iov_len: len - done };
        let remote =
            libc::iovec { iov_base: (from as usize + done) as *mut _, iov_len: len - done };
        // SAFETY: process_vm_readv(2) writes at most iov_len bytes into our own memory.
        let n = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
        // It stops in front of the first page that can't be read: that one is left out.
        done += match n {
            n if n > 0 => n as usize,
            _ => PAGE as usize - (from as usize + done) % PAGE as usize,
        };
    }
}
