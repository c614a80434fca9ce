//! What the pool trim may believe of an address: that a chunk of malloc or an arena is there.
//!
//! Where the hooks count, they have seen it made. In a bare run they have not, nor where the agent
//! came to a process that already ran, and the kernel and glibc are asked instead: /proc/self/maps
//! says what is private anonymous memory, the header in front of a chunk how long it is. Addresses
//! that may be wrong are read through /proc/self/mem, which fails where another thread has unmapped
//! them meanwhile, instead of ending the program.
//!
//! Facts: malloc_chunk's size word with its flags, `PREV_INUSE` of the chunk behind it, MINSIZE
//! (glibc malloc/malloc.c, 2.17 to 2.43); the columns of /proc/PID/maps (proc(5)).

use core::sync::atomic::Ordering::Relaxed;

use libc::c_int;
use strandline_capture::layout as capture;

use crate::chunks::{self, OWN_MAPPING, THREAD_ARENA};
use crate::memory::PAGE;
use crate::region::region;
use crate::{attach, bare, pools, proc, rss};

/// Where what is known comes from.
pub enum Evidence {
    Hooks,
    Kernel(Kernel),
}

impl Evidence {
    /// What is known now; nothing if no arena is, or the kernel or glibc can't be asked.
    pub fn now() -> Option<Evidence> {
        if bare::is() || attach::is() {
            // `attach` takes no other malloc.
            let other = region().head.bare.flags.load(Relaxed) & capture::BARE_OTHER_MALLOC != 0;
            return if other { None } else { Kernel::ask().map(Evidence::Kernel) };
        }
        pools::any_arena().then_some(Evidence::Hooks)
    }

    /// True if the hooks saw it.
    pub fn is_seen(&self) -> bool {
        matches!(self, Evidence::Hooks)
    }

    /// Bytes of the array at `p`, which may be any number: `None` unless that is a chunk of malloc
    /// for `unit` bytes, doubled any number of times.
    pub fn array_at(&self, p: usize, unit: usize) -> Option<usize> {
        let doubled = |bytes: usize| bytes % unit == 0 && (bytes / unit).is_power_of_two();
        match self {
            Evidence::Hooks => chunks::size_at(p).filter(|bytes| doubled(*bytes)),
            Evidence::Kernel(k) => k.array_at(p, unit),
        }
    }

    /// Copies what is at `at`, in an array that `array_at` found; false if it isn't there.
    pub fn read(&self, at: usize, to: &mut [u64]) -> bool {
        match self {
            // SAFETY: a live chunk that the hooks know: only the holder of the GIL, this thread,
            // can free the array that the interpreter's own variable points to.
            Evidence::Hooks => unsafe {
                core::ptr::copy_nonoverlapping(at as *const u64, to.as_mut_ptr(), to.len());
                true
            },
            Evidence::Kernel(k) => k.read(at, to),
        }
    }

    /// True if an arena of `bytes` may be at `base`.
    pub fn is_arena(&self, base: usize, bytes: usize) -> bool {
        match self {
            Evidence::Hooks => pools::is_arena(base, bytes),
            Evidence::Kernel(k) => {
                k.range(base).is_some_and(|r| !r.is_brk && bytes <= r.end - base)
            }
        }
    }

    /// All pages but the first of the free pool at `pool` were given back.
    pub fn given_back(&self, pool: usize) {
        if !bare::is() {
            pools::given_back(pool);
        }
    }

    /// Resident memory has changed.
    pub fn pages_moved(&self) {
        if !bare::is() {
            rss::pages_moved();
        }
    }
}

/// Private anonymous memory that may be read and written.
#[derive(Clone, Copy)]
struct Range {
    start: usize,
    end: usize,
    /// It is the heap that brk(2) moves.
    is_brk: bool,
}

/// As many mappings as a process may have (`vm.max_map_count`), unless it was told otherwise.
const MAX_RANGES: usize = 65536;
const TABLE: usize = MAX_RANGES * size_of::<Range>();

/// What the kernel says.
pub struct Kernel {
    /// `MAX_RANGES` of them, in order: a mapping of its own for as long as this lives.
    table: *mut Range,
    len: usize,
    /// /proc/self/mem
    memory: c_int,
}

impl Kernel {
    fn ask() -> Option<Kernel> {
        // SAFETY: a fresh private mapping at an address of the kernel's choice, and plain open(2);
        // `drop` takes both back.
        let mut kernel = unsafe {
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let table = libc::syscall(libc::SYS_mmap, 0usize, TABLE, access, kind, -1isize, 0usize);
            if table == -1 {
                return None;
            }
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            let name = c"/proc/self/mem".as_ptr();
            let memory = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, name, flags) as c_int;
            Kernel { table: table as *mut Range, len: 0, memory }
        };
        let mut fits = true;
        let read = proc::lines(c"/proc/self/maps", |line| {
            if let Some(range) = private_anonymous(line) {
                fits &= kernel.add(range);
            }
        });
        (read && fits && kernel.memory >= 0).then_some(kernel)
    }

    /// Adds the range behind the last one; false if there is no room, or it isn't behind it.
    fn add(&mut self, range: Range) -> bool {
        let len = self.len;
        // SAFETY: `len` is at most the table's length, and entries below it are written.
        let ranges = unsafe { core::slice::from_raw_parts_mut(self.table, len) };
        match ranges.last_mut() {
            Some(last) if last.end > range.start => return false,
            Some(last) if last.end == range.start && last.is_brk == range.is_brk => {
                last.end = range.end;
                return true;
            }
            _ => {}
        }
        if len == MAX_RANGES {
            return false;
        }
        // SAFETY: below the table's length.
        unsafe { self.table.add(len).write(range) };
        self.len += 1;
        true
    }

    /// The range that `address` lies in.
    fn range(&self, address: usize) -> Option<Range> {
        // SAFETY: the first `len` entries are written.
        let ranges = unsafe { core::slice::from_raw_parts(self.table, self.len) };
        let behind = ranges.partition_point(|r| r.end <= address);
        ranges.get(behind).copied().filter(|r| r.start <= address)
    }

    fn read(&self, at: usize, to: &mut [u64]) -> bool {
        let bytes = size_of_val(to);
        // SAFETY: pread(2) writes at most `bytes` to `to`; errno is the program's and put back.
        unsafe {
            let errno = libc::__errno_location();
            let before = *errno;
            let n = libc::syscall(libc::SYS_pread64, self.memory, to.as_mut_ptr(), bytes, at);
            *errno = before;
            n == bytes as i64
        }
    }

    /// As [`Evidence::array_at`].
    fn array_at(&self, p: usize, unit: usize) -> Option<usize> {
        if p % 16 != 0 || p < PAGE {
            return None;
        }
        let range = self.range(p - 16)?;
        let mut words = [0u64; 2];
        if !self.read(p - 16, &mut words) {
            return None;
        }
        let [previous, word] = words;
        let h = chunks::header_of(word as usize);
        // The doubling that fills it best.
        let room = h.bytes.checked_sub(8)?;
        let bytes = unit << (room / unit).checked_ilog2()?;
        let own_mapping = h.kind == OWN_MAPPING;
        let whole = h.bytes % 16 == 0 && h.bytes <= range.end - (p - 16);
        let fits = room - bytes <= chunks::spare(h);
        let placed = match h.kind {
            OWN_MAPPING => (previous as usize + h.bytes) % PAGE == 0 && p % PAGE == 16,
            THREAD_ARENA => !range.is_brk,
            _ => true,
        };
        if !whole || !fits || !placed || (own_mapping && range.is_brk) {
            return None;
        }
        // The chunk behind it says that this one is in use.
        let mut next = [0u64; 1];
        let in_use = own_mapping || (self.read(p - 8 + h.bytes, &mut next) && next[0] & 1 != 0);
        in_use.then_some(bytes)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // SAFETY: the mapping and the descriptor are ours, and nothing refers to them any more.
        unsafe {
            libc::syscall(libc::SYS_munmap, self.table, TABLE);
            if self.memory >= 0 {
                libc::syscall(libc::SYS_close, self.memory);
            }
        }
    }
}

/// What a line of maps says, if it is private anonymous memory that may be read and written. What
/// has a name of its own (stacks, huge pages, memory that somebody named) isn't pymalloc's.
fn private_anonymous(line: &[u8]) -> Option<Range> {
    let mut fields = line.split(|b| *b == b' ').filter(|f| !f.is_empty());
    let mut ends = fields.next()?.split(|b| *b == b'-').map(hexadecimal);
    let (start, end) = (ends.next()??, ends.next()??);
    if fields.next()? != b"rw-p" {
        return None;
    }
    let (_offset, device, inode) = (fields.next()?, fields.next()?, fields.next()?);
    let name = fields.next();
    let fits = device == b"00:00" && inode == b"0" && start < end;
    let is_brk = name == Some(b"[heap]");
    (fits && (name.is_none() || is_brk)).then_some(Range { start, end, is_brk })
}

fn hexadecimal(text: &[u8]) -> Option<usize> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let fits = !text.is_empty() && text.len() <= 16;
    fits.then(|| text.iter().try_fold(0, |v, b| Some(v << 4 | digit(b)? as usize)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let of =
            |line: &str| private_anonymous(line.as_bytes()).map(|r| (r.start, r.end, r.is_brk));
        assert_eq!(of("7f00-7f10 rw-p 00000000 00:00 0 "), Some((0x7f00, 0x7f10, false)));
        let heap = "7f00-7f10 rw-p 00000000 00:00 0            [heap]";
        assert_eq!(of(heap), Some((0x7f00, 0x7f10, true)));
        for line in [
            "7f00-7f10 r--p 00000000 00:00 0 ",
            "7f00-7f10 rw-s 00000000 00:00 0 ",
            "7f00-7f10 rw-p 00000000 08:01 77         /lib/x.so",
            "7f00-7f10 rw-p 00000000 00:0f 77         /anon_hugepage (deleted)",
            "7f00-7f10 rw-p 00000000 00:00 0          [stack]",
            "7f00-7f10 rw-p 00000000 00:00 0          [anon:a name]",
            "7f00-7f1g rw-p 00000000 00:00 0 ",
            "7f10-7f10 rw-p 00000000 00:00 0 ",
            "7f00 rw-p 00000000 00:00 0 ",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn chunks_are_arrays_by_their_headers_alone() {
        // From a heap, and from mappings of their own.
        for doublings in [0, 1, 5, 8, 12, 14] {
            let bytes = 768usize << doublings;
            // SAFETY: malloc(3); the block is freed behind its last use.
            let p = unsafe { libc::malloc(bytes) };
            let kernel = Kernel::ask();
            let at = |p| kernel.as_ref().and_then(|k| k.array_at(p, 768));
            assert_eq!(at(p as usize), Some(bytes));
            for other in [p as usize + 16, p as usize + 4096, p as usize + 8, 0, 16, usize::MAX] {
                assert_eq!(at(other), None, "{other:#x}");
            }
            // SAFETY: as above.
            unsafe { libc::free(p) };
        }
        // SAFETY: malloc(3); the block is freed behind its last use.
        let p = unsafe { libc::malloc(1000) };
        let found = Kernel::ask().map(|kernel| kernel.array_at(p as usize, 768));
        assert_eq!(found, Some(None));
        // SAFETY: as above.
        unsafe { libc::free(p) };
    }

    #[test]
    fn only_whole_private_mappings_are_arenas() {
        let at = crate::memory::map(1 << 20) as usize;
        let end = at + (1 << 20);
        // SAFETY: protects pages of our own fresh mapping, which nothing uses.
        unsafe { libc::mprotect((end - PAGE) as *mut _, PAGE, libc::PROT_READ) };
        let e = Kernel::ask().map(Evidence::Kernel);
        let found = e.map(|e| {
            let mut to = [0u64; 1];
            let arenas = [e.is_arena(at, (1 << 20) - PAGE), e.is_arena(at, 1 << 20)];
            (arenas, [e.read(at, &mut to), e.read(8, &mut to)])
        });
        assert_eq!(found, Some(([true, false], [true, false])));
    }
}
