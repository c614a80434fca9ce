//! Pool trim: gives the pages of free pools back to the kernel, of pools that lie in arenas which
//! something keeps alive.
//!
//! A free pool of 16 KiB needs its header only: the links of the list that it is on, and what the
//! interpreter's statistics read. The blocks in it are nobody's. They are read again in one case:
//! when a free pool is taken for the size class that it had, its list of free blocks goes on to
//! be used (`allocate_from_new_pool`, Objects/obmalloc.c, 3.10 to 3.13). So each pool is marked
//! first as having no class, after which it is initialised anew, and then its pages behind the
//! first are dropped. Pools never carved off have no content at all.
//!
//! Nothing is changed in an arena in which not all holds: each pool on the list lies in the arena
//! at a pool's boundary, has no block in use and names the arena; the list is as long as the
//! arena's count says. All of it under the GIL, which is the allocator's lock (one GIL, one
//! allocator: interpreters with a GIL of their own have an allocator of their own since 3.12; only
//! the main interpreter's is looked at).
//!
//! The allocator's variables have no names in a stripped interpreter. The array of arena objects is
//! the one chunk of malloc that a word in the interpreter's data points to, whose size is right for
//! an array of them, and whose entries are arenas. What is a chunk and what an arena is told by
//! [`Evidence`].

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use libc::{c_int, c_void};
use strandline_cpython::Obmalloc;

use crate::evidence::Evidence;
use crate::memory::PAGE;
use crate::python::{self, word};
use crate::{footprint, heap, symbols};

/// Address of the word that points to the array; 0: not found yet.
static VARIABLE: AtomicUsize = AtomicUsize::new(0);

/// What had been done to an arena could not be found in it: nothing is done any more.
static OFF: AtomicBool = AtomicBool::new(false);

/// # Safety
/// The four bytes at `address` are mapped.
unsafe fn half(address: usize) -> u32 {
    // SAFETY: the caller's promise; fields of C's `unsigned int` are aligned.
    unsafe { *(address as *const u32) }
}

/// One arena, as its arena object says.
struct Arena<'a> {
    o: &'a Obmalloc,
    evidence: &'a Evidence,
    /// Its place in the array.
    index: usize,
    /// Address of its first pool.
    first: usize,
    /// Address behind its last pool.
    end: usize,
    /// The next pool to be carved off.
    next: usize,
    /// First of the list of free pools.
    free: usize,
    /// Pools that are on that list.
    listed: usize,
}

/// The array of arena objects.
#[derive(Clone, Copy)]
struct Array {
    start: usize,
    len: usize,
}

impl Array {
    /// The array at `start`, if that is one.
    fn at(start: usize, o: &Obmalloc, evidence: &Evidence) -> Option<Array> {
        let entry = o.arena.size as usize;
        let bytes = evidence.array_at(start, entry * o.arena.first_length as usize)?;
        Some(Array { start, len: bytes / entry })
    }

    /// Entry `index`: nothing if no arena is attached, an error if it can't be one.
    fn arena<'a>(
        &self,
        index: usize,
        o: &'a Obmalloc,
        evidence: &'a Evidence,
    ) -> Result<Option<Arena<'a>>, ()> {
        let a = &o.arena;
        let mut copy = [0u64; 8];
        let copy = copy.get_mut(..a.size as usize / 8).ok_or(())?;
        if !evidence.read(self.start + index * a.size as usize, copy) {
            return Err(());
        }
        let at = copy.as_ptr() as usize;
        // SAFETY: the fields lie in an entry, of which this is a copy.
        let (base, next, free, total, first_free) = unsafe {
            (
                word(at + a.address as usize),
                word(at + a.pool_address as usize),
                half(at + a.free_pools as usize) as usize,
                half(at + a.total_pools as usize) as usize,
                word(at + a.first_free as usize),
            )
        };
        if base == 0 {
            return Ok(None);
        }
        let (pool, size) = (o.pool_size as usize, o.arena_size as usize);
        if base % PAGE != 0 || !evidence.is_arena(base, size) {
            return Err(());
        }
        let first = base.next_multiple_of(pool);
        let carvable = (base + size - first) / pool;
        let end = first + carvable * pool;
        let fits = first <= next && next <= end && (next - first) % pool == 0;
        if !fits || total != carvable || free > total {
            return Err(());
        }
        let uncarved = carvable - (next - first) / pool;
        let listed = free.checked_sub(uncarved).ok_or(())?;
        Ok(Some(Arena { o, evidence, index, first, end, next, free: first_free, listed }))
    }

    /// True if all entries hold, one of them with an arena.
    fn holds(&self, o: &Obmalloc, evidence: &Evidence) -> bool {
        let mut any = false;
        (0..self.len).all(|i| self.arena(i, o, evidence).map(|a| any |= a.is_some()).is_ok()) && any
    }
}

impl Arena<'_> {
    /// True if every pool that was carved off names the arena, as it does from then on.
    fn is_named_by_its_pools(&self) -> bool {
        let pools = (self.first..self.next).step_by(self.o.pool_size as usize);
        // SAFETY: carved pools of a mapped arena: their headers are there.
        let index = |pool| unsafe { half(pool + self.o.pool_arenaindex as usize) };
        self.first < self.next && pools.map(index).all(|i| i as usize == self.index)
    }

    /// Calls `with` for each pool on the free list; false if the list isn't what it must be. Stops
    /// there, or where `with` says false.
    fn each_free(&self, mut with: impl FnMut(usize) -> bool) -> bool {
        let o = self.o;
        let mut at = self.free;
        for _ in 0..self.listed {
            let inside = self.first <= at && at < self.next;
            if !inside || (at - self.first) % o.pool_size as usize != 0 {
                return false;
            }
            // SAFETY: a carved pool of a mapped arena: its header is there.
            let (count, index, next) = unsafe {
                (
                    half(at + o.pool_count as usize),
                    half(at + o.pool_arenaindex as usize),
                    word(at + o.pool_nextpool as usize),
                )
            };
            if count != 0 || index as usize != self.index || !with(at) {
                return false;
            }
            at = next;
        }
        at == 0
    }

    fn class(&self, pool: usize) -> u32 {
        // SAFETY: `pool` is a carved pool of this mapped arena.
        unsafe { half(pool + self.o.pool_szidx as usize) }
    }

    /// Pools whose pages can go; `None` if something isn't as expected.
    fn pending(&self) -> Option<usize> {
        let classes = self.o.small_request_max as u32 / self.o.alignment as u32;
        let mut found = 0;
        let holds = self.each_free(|pool| {
            let class = self.class(pool);
            // One that is marked has given its pages back already.
            found += usize::from(class != self.o.fresh_szidx);
            class < classes || class == self.o.fresh_szidx
        });
        holds.then_some(found)
    }

    /// True if there seem to be pages to drop. Pools come onto the list and leave it at its head,
    /// and a trim marks all that are on it: if the head is marked, they all are.
    fn is_promising(&self) -> bool {
        let inside = self.listed != 0 && self.first <= self.free && self.free < self.next;
        let head = inside && (self.free - self.first) % self.o.pool_size as usize == 0;
        (head && self.class(self.free) != self.o.fresh_szidx) || self.uncarved() != 0
    }

    /// Marks the free pools and drops their pages.
    fn trim(&self) -> usize {
        let o = self.o;
        let mut dropped = 0;
        self.each_free(|pool| {
            if self.class(pool) != o.fresh_szidx {
                // SAFETY: a free pool's header, which only the holder of the GIL writes to.
                unsafe { *((pool + o.pool_szidx as usize) as *mut u32) = o.fresh_szidx };
                if drop_pages(pool + PAGE, pool + o.pool_size as usize) {
                    self.evidence.given_back(pool);
                    dropped += 1;
                }
            }
            true
        });
        dropped
    }

    /// Bytes of resident pages that were never carved off.
    fn uncarved(&self) -> usize {
        heap::resident_pages(self.next, self.end)
    }
}

/// Gives the pages of `[start, end)` back.
fn drop_pages(start: usize, end: usize) -> bool {
    // SAFETY: whole pages of an arena in which nothing has content; errno is the program's and is
    // put back.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let status = libc::syscall(libc::SYS_madvise, start, end - start, libc::MADV_DONTNEED);
        *errno = before;
        status == 0
    }
}

/// What the search is for, and what it found.
struct Search<'a> {
    o: &'a Obmalloc,
    evidence: &'a Evidence,
    /// A function of the interpreter, by which its object file is known.
    inside: usize,
    /// Address of the variable, and of the array.
    found: [usize; 2],
    /// Arrays that were found.
    arrays: u32,
}

impl Search<'_> {
    /// Looks at the words of `[start, end)`, a part of a page of the interpreter's data.
    fn look_at(&mut self, start: usize, end: usize) {
        for at in (start.next_multiple_of(8)..end.saturating_sub(7)).step_by(8) {
            // SAFETY: a loaded object's writable segments stay mapped and readable.
            let p = unsafe { word(at) };
            if p == self.found[1] {
                continue;
            }
            if let Some(array) = array_at(p, self.o, self.evidence) {
                self.found = [at, array.start];
                self.arrays += 1;
            }
        }
    }
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
    // SAFETY: `info` describes a loaded object whose segments are mapped and readable; `data` is
    // the Search.
    unsafe {
        let (info, s) = (&*info, &mut *(data as *mut Search));
        let headers = core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum as usize);
        let base = info.dlpi_addr as usize;
        let segments = || {
            headers.iter().filter(|h| h.p_type == libc::PT_LOAD).map(|h| {
                let start = base + h.p_vaddr as usize;
                (start, start + h.p_memsz as usize, h.p_flags & libc::PF_W != 0)
            })
        };
        if !segments().any(|(start, end, _)| start <= s.inside && s.inside < end) {
            return 0;
        }
        for (start, end, _) in segments().filter(|s| s.2) {
            // A page that nobody has written to has no address of an array in it.
            footprint::each_present(start, end, |page| {
                s.look_at(page.max(start), end.min(page + PAGE))
            });
        }
    }
    1
}

/// The array at `start`, if that is one, and all its entries are what they must be.
fn array_at(start: usize, o: &Obmalloc, evidence: &Evidence) -> Option<Array> {
    Array::at(start, o, evidence).filter(|a| a.holds(o, evidence))
}

/// The array of arena objects of the interpreter that this thread runs.
fn array(o: &Obmalloc, evidence: &Evidence) -> Option<Array> {
    if VARIABLE.load(Relaxed) == 0 {
        let inside = symbols::OBJECT_MALLOC.address();
        let mut s = Search { o, evidence, inside, found: [0; 2], arrays: 0 };
        // SAFETY: `visit` gets `s`, which outlives the call.
        unsafe { libc::dl_iterate_phdr(Some(visit), &mut s as *mut Search as *mut c_void) };
        if s.arrays != 1 {
            return None;
        }
        VARIABLE.store(s.found[0], Relaxed);
    }
    // SAFETY: a word of the interpreter's data, found before.
    let start = unsafe { word(VARIABLE.load(Relaxed)) };
    if evidence.is_seen() {
        // Each of its arenas is known or left alone.
        return Array::at(start, o, evidence);
    }
    array_at(start, o, evidence)
}

/// The layout, where this interpreter's pools can be trimmed at all, and it is its turn.
fn applicable() -> Option<&'static Obmalloc> {
    let l = python::layout()?;
    // Since 3.12 an interpreter other than the main one may have an allocator of its own.
    let main = !l.sys_monitoring || python::held_tstate() != 0;
    let able = l.obmalloc.free_pools_can_shrink && !OFF.load(Relaxed);
    (able && main).then_some(&l.obmalloc)
}

/// Calls `with` for each arena.
fn each_arena(mut with: impl FnMut(&Arena)) {
    let Some(o) = applicable() else { return };
    let Some(evidence) = Evidence::now() else { return };
    let Some(array) = array(o, &evidence) else { return };
    for index in 0..array.len {
        if let Ok(Some(arena)) = array.arena(index, o, &evidence) {
            with(&arena);
        }
    }
}

/// True if there seems to be a free pool that has its pages. The caller holds the GIL.
pub fn pending() -> bool {
    let mut any = false;
    each_arena(|a| any = any || a.is_promising());
    any
}

/// Gives back what can be given back. The caller holds the GIL.
pub fn trim() {
    each_arena(|a| {
        if !a.is_named_by_its_pools() || a.pending().is_none() {
            // Not as expected: left alone.
            return;
        }
        let mut any = a.trim() != 0;
        if a.pending() != Some(0) {
            OFF.store(true, Relaxed);
        }
        if a.uncarved() != 0 {
            any |= drop_pages(a.next, a.end);
        }
        if any {
            a.evidence.pages_moved();
        }
    });
}
