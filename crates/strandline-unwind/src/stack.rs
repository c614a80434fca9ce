//! Which memory is this thread's stack, and reading it.

use core::cell::Cell;

use crate::bare;

/// Bytes below rsp that a function may use without moving rsp (System V ABI, 3.2.2).
const RED_ZONE: usize = 128;
/// The kernel leaves at least this much below the top of the main thread's stack free of other
/// mappings (arch/x86/mm/mmap.c, `MIN_GAP`).
const MAIN_GAP: usize = 128 << 20;
/// How far above rsp a stack is read that isn't a thread's own: what lies higher may be unmapped
/// while the bounds are remembered.
const FOREIGN: usize = 64 << 10;

/// The memory that unwinding may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackBounds {
    /// Lowest address.
    pub low: usize,
    /// Address after the highest byte.
    pub high: usize,
}

impl StackBounds {
    /// True if `sp` points into the stack.
    #[inline(always)]
    pub fn contains(&self, sp: usize) -> bool {
        sp.wrapping_sub(self.low) < self.high.wrapping_sub(self.low)
    }

    /// Finds the stack that `sp` of the calling thread points into. It reads `/proc/self/maps`
    /// by plain system calls: it takes no lock and no memory but 2.5 KiB of the stack, but some
    /// ten microseconds to a millisecond. `None`: the kernel doesn't tell.
    ///
    /// A thread that `pthread_create` made has its thread control block right above its stack,
    /// also on a stack of the program's own (glibc, nptl/allocatestack.c); the main thread's
    /// stack is the mapping named `[stack]`. Any other mapping (coroutines, `sigaltstack`) is
    /// read up to 64 KiB above `sp`.
    #[cold]
    pub fn find(sp: usize) -> Option<StackBounds> {
        let map = mapping(sp)?;
        let block = thread_block();
        Some(if map.main {
            StackBounds { low: map.low.min(map.high.saturating_sub(MAIN_GAP)), high: map.high }
        } else if sp < block && block < map.high {
            StackBounds { low: map.low, high: block }
        } else {
            let low = map.low.max(sp.saturating_sub(FOREIGN));
            StackBounds { low, high: map.high.min(sp.saturating_add(FOREIGN)) }
        })
    }

    /// What may be read when unwinding starts at `sp`: nothing below is alive.
    #[inline(always)]
    pub(crate) fn reader(&self, sp: usize) -> Option<StackReader> {
        let start = sp.wrapping_sub(RED_ZONE).max(self.low);
        let last = self.high.checked_sub(8)?;
        (self.contains(sp) && start <= last).then(|| StackReader { start, span: last - start })
    }
}

/// The bounds of a thread's stack, found once: one of these per thread, in its thread-local
/// memory; all zero at first.
#[derive(Debug)]
#[repr(C)]
pub struct StackCache {
    low: Cell<usize>,
    high: Cell<usize>,
}

impl StackCache {
    /// Nothing is known.
    pub const fn new() -> StackCache {
        StackCache { low: Cell::new(0), high: Cell::new(0) }
    }

    /// The bounds of the stack that the calling function runs on; found anew when it isn't the
    /// one of the last time. `None`: the kernel doesn't tell.
    #[inline(always)]
    pub fn bounds(&self) -> Option<StackBounds> {
        let sp = stack_pointer();
        let bounds = StackBounds { low: self.low.get(), high: self.high.get() };
        if bounds.contains(sp) {
            return Some(bounds);
        }
        self.find(sp)
    }

    #[cold]
    #[inline(never)]
    fn find(&self, sp: usize) -> Option<StackBounds> {
        let found = StackBounds::find(sp)?;
        self.low.set(found.low);
        self.high.set(found.high);
        Some(found)
    }
}

impl Default for StackCache {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads words of the stack.
#[derive(Clone, Copy)]
pub(crate) struct StackReader {
    start: usize,
    /// Distance from the lowest to the highest address of a whole word.
    span: usize,
}

impl StackReader {
    /// The word at `address`; `None` outside the stack.
    #[inline(always)]
    pub(crate) fn word(&self, address: usize) -> Option<usize> {
        if address.wrapping_sub(self.start) > self.span {
            return None;
        }
        let word = address as *const Unaligned;
        // SAFETY: the word lies between the running function's red zone and the top of the
        // thread's stack, which is mapped as long as the thread runs on it; whoever gave the
        // bounds vouches for the top. Nobody else writes to these words: they are older than
        // this call. Volatile: they are no object of Rust's.
        let word = unsafe { core::ptr::read_volatile(word) };
        Some(word.0)
    }
}

/// A word at any address: rules are data and may lead to odd ones.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned(usize);

#[inline(always)]
fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, pure)) };
    sp
}

/// Address of the thread control block (System V TLS ABI: its first word is its own address).
fn thread_block() -> usize {
    let block: usize;
    // SAFETY: reads the first word of the block, which every thread has.
    unsafe {
        core::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) block, options(pure, readonly, nostack));
    }
    block
}

/// A line of `/proc/self/maps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    low: usize,
    high: usize,
    main: bool,
}

fn mapping(sp: usize) -> Option<Mapping> {
    let mut search = Search::new(sp);
    bare::read_file(c"/proc/self/maps", |bytes| {
        bytes.iter().for_each(|&byte| search.byte(byte));
        search.found.is_none()
    });
    search.found
}

/// Looks through the lines byte by byte, since they may be cut anywhere.
struct Search {
    sp: usize,
    numbers: [usize; 2],
    /// Part of the line: first number, second number, the rest.
    part: usize,
    /// The last eight bytes.
    tail: u64,
    found: Option<Mapping>,
}

impl Search {
    fn new(sp: usize) -> Search {
        Search { sp, numbers: [0; 2], part: 0, tail: 0, found: None }
    }

    fn byte(&mut self, byte: u8) {
        if byte == b'\n' {
            let [low, high] = self.numbers;
            if self.found.is_none() && (low..high).contains(&self.sp) {
                let main = self.tail.to_be_bytes() == *b" [stack]";
                self.found = Some(Mapping { low, high, main });
            }
            *self = Search { found: self.found, ..Search::new(self.sp) };
            return;
        }
        self.tail = self.tail << 8 | u64::from(byte);
        if let Some(number) = self.numbers.get_mut(self.part) {
            match (byte as char).to_digit(16) {
                Some(digit) => *number = *number << 4 | digit as usize,
                None => self.part += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let text = "1000-2000 r-xp 00000000 08:01 1  /bin/x\n\
                    7ffd0000-7ffe0000 rw-p 00000000 00:00 0     [stack]\n\
                    7ffe0000-7ffe1000 r--p 00000000 00:00 0     [vvar]\n";
        let look = |sp| {
            let mut s = Search::new(sp);
            for b in text.bytes() {
                s.byte(b);
            }
            s.found
        };
        assert_eq!(look(0x1fff), Some(Mapping { low: 0x1000, high: 0x2000, main: false }));
        assert_eq!(
            look(0x7ffd_0000),
            Some(Mapping { low: 0x7ffd_0000, high: 0x7ffe_0000, main: true })
        );
        assert_eq!(look(0x2000), None);
        assert_eq!(look(0x7ffe_0010).map(|m| m.main), Some(false));
    }

    #[test]
    fn a_threads_stack_ends_at_its_block() {
        let check = || {
            let cache = StackCache::new();
            let bounds = cache.bounds().expect("the kernel tells");
            let local = 0u8;
            assert!(bounds.contains(&raw const local as usize));
            assert_eq!(cache.bounds(), Some(bounds));
            bounds
        };
        for _ in 0..3 {
            let bounds = std::thread::spawn(move || {
                assert_eq!(check().high, thread_block());
                check()
            });
            bounds.join().expect("a thread");
        }
    }

    #[test]
    fn nothing_outside_is_read() {
        let words = [1usize, 2, 3, 4];
        let low = words.as_ptr() as usize;
        let reader = StackBounds { low, high: low + 32 }.reader(low + 8).expect("inside");
        assert_eq!(reader.word(low + 24), Some(4));
        assert_eq!(reader.word(low), Some(1));
        for outside in [low + 25, low - 1, 0, usize::MAX, low + 32] {
            assert_eq!(reader.word(outside), None);
        }
        assert!(StackBounds { low, high: low + 32 }.reader(low + 32).is_none());
        assert!(StackBounds { low: 0, high: 0 }.reader(0).is_none());
    }
}
