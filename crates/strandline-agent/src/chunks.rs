//! Chunks of glibc malloc: which tag and size each has.
//!
//! The chunk's header, in front of the pointer, decides the table: its size doesn't change while
//! the chunk is in use, so a free looks where the allocation wrote. Below 512 bytes: one `u32`
//! per 32 bytes (glibc's smallest chunk), size (10 bits) and tag (20 bits). From 512 bytes on:
//! one 16-byte entry per 512 bytes. From 128 KiB on: one 16-byte entry per 128 KiB, in which only
//! one such chunk can start; otherwise a buffer that grows and moves would leave a leaf wherever
//! it was. An entry is written only by the holder of its chunk, so no lock is needed. Leaves are
//! a page, made at first use.
//!
//! Fact: malloc_chunk's size word at -8, flags PREV_INUSE 1, IS_MMAPPED 2, NON_MAIN_ARENA 4
//! (glibc malloc/malloc.c).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout::{CHUNK_HUGE, CHUNK_LARGE};

use crate::lock;
use crate::memory::{self, PAGE};
use crate::shadow::{gib, gib_or_new, Gib};
use crate::stacks;

const LARGE: usize = CHUNK_LARGE as usize;
const HUGE: usize = CHUNK_HUGE as usize;
const FLAGS: usize = 7;
const IS_MMAPPED: usize = 2;
const NON_MAIN_ARENA: usize = 4;
const _: () = assert!(core::mem::offset_of!(LargeEntry, tag) == 8);
/// Where a chunk lives: index into `RegionHead::chunks`.
pub const MAIN_HEAP: usize = 0;
/// In a thread's arena.
pub const THREAD_ARENA: usize = 1;
/// In a mapping of its own.
pub const OWN_MAPPING: usize = 2;

/// What is remembered of a chunk of 512 bytes or more. Readers of this process's memory know where
/// `tag` is ([`strandline_capture::layout::chunk_entry`]).
#[repr(C)]
pub struct LargeEntry {
    size: AtomicU64,
    tag: AtomicU32,
    /// `--stacks`: when it was allocated.
    birth: AtomicU32,
}

/// What the chunk's header says.
#[derive(Clone, Copy)]
pub struct Header {
    /// Chunk size, its header included, bytes.
    pub bytes: usize,
    /// `MAIN_HEAP`, `THREAD_ARENA` or `OWN_MAPPING`.
    pub kind: usize,
}

/// Reads the header in front of `p`, a live pointer from malloc.
#[inline(always)]
pub fn header(p: usize) -> Header {
    // SAFETY: glibc keeps the chunk's size word in the 8 bytes before every pointer it hands
    // out, and the caller owns this one.
    let word = unsafe { *((p - 8) as *const usize) };
    header_of(word)
}

/// What the size word of a chunk says.
#[inline(always)]
pub fn header_of(word: usize) -> Header {
    let kind = if word & IS_MMAPPED != 0 {
        OWN_MAPPING
    } else if word & NON_MAIN_ARENA != 0 {
        THREAD_ARENA
    } else {
        MAIN_HEAP
    };
    Header { bytes: word & !FLAGS, kind }
}

#[inline(always)]
fn small_leaf(g: &Gib, p: usize) -> &AtomicU64 {
    // SAFETY: 15 bits index a table of 2^15.
    unsafe { g.small.get_unchecked((p >> 15) & 0x7fff) }
}

#[inline(always)]
fn large_leaf(g: &Gib, p: usize) -> &AtomicU64 {
    // SAFETY: 13 bits index a table of 2^13.
    unsafe { g.large.get_unchecked((p >> 17) & 0x1fff) }
}

/// The entry for a small chunk at `p` within its leaf.
#[inline(always)]
fn small_at(leaf: u64, p: usize) -> &'static AtomicU32 {
    // SAFETY: a leaf is a page of 1024 entries, mapped for ever; 10 bits index it.
    unsafe { &*(leaf as *const AtomicU32).add((p >> 5) & 0x3ff) }
}

/// The birth of the small chunk at `p` within its leaf (`--stacks`): in a second page of it.
#[inline(always)]
fn small_birth_at(leaf: u64, p: usize) -> &'static AtomicU32 {
    // SAFETY: under `--stacks` a leaf has a second page of 1024 entries; 10 bits index it.
    unsafe { &*((leaf + PAGE as u64) as *const AtomicU32).add((p >> 5) & 0x3ff) }
}

#[inline(always)]
fn large_at(leaf: u64, p: usize) -> &'static LargeEntry {
    // SAFETY: a leaf is a page of 256 entries, mapped for ever; 8 bits index it.
    unsafe { &*(leaf as *const LargeEntry).add((p >> 9) & 0xff) }
}

#[inline(always)]
fn huge_at(g: &'static Gib, p: usize) -> &'static LargeEntry {
    // SAFETY: 13 bits index a table of 2^13.
    unsafe { g.huge.get_unchecked((p >> 17) & 0x1fff) }
}

/// A leaf for the table cell that `pick` chooses; 0 if there is no memory.
#[cold]
fn make_leaf(p: usize, pick: fn(&Gib, usize) -> &AtomicU64) -> u64 {
    let Some(_guard) = lock::lock() else { return 0 };
    let Some(g) = gib_or_new(p) else { return 0 };
    let cell = pick(g, p);
    let leaf = cell.load(Relaxed);
    if leaf != 0 {
        return leaf;
    }
    let pages = if stacks::on() { 2 } else { 1 };
    let fresh = memory::bump(pages * PAGE) as u64;
    if fresh != 0 {
        g.set(cell, fresh);
    }
    fresh
}

/// Remembers the chunk at `p`, and under `--stacks` when it was allocated; false if there is no
/// memory for it.
#[inline(always)]
pub fn remember<const STACKS: bool>(p: usize, h: Header, n: usize, tag: u32, birth: u32) -> bool {
    if h.bytes < LARGE {
        let mut leaf = gib(p).map_or(0, |g| small_leaf(g, p).load(Relaxed));
        if leaf == 0 {
            leaf = make_leaf(p, small_leaf);
            if leaf == 0 {
                return false;
            }
        }
        small_at(leaf, p).store(tag << 10 | n as u32, Relaxed);
        if STACKS {
            small_birth_at(leaf, p).store(birth, Relaxed);
        }
    } else {
        let e = if h.bytes < HUGE {
            let mut leaf = gib(p).map_or(0, |g| large_leaf(g, p).load(Relaxed));
            if leaf == 0 {
                leaf = make_leaf(p, large_leaf);
                if leaf == 0 {
                    return false;
                }
            }
            large_at(leaf, p)
        } else {
            let Some(g) = gib_or_new(p) else { return false };
            let e = huge_at(g, p);
            g.note_touched(e);
            e
        };
        e.size.store(n as u64, Relaxed);
        if STACKS {
            e.birth.store(birth, Relaxed);
        }
        e.tag.store(tag, Relaxed);
    }
    true
}

/// A chunk as it was remembered.
#[derive(Clone, Copy)]
pub struct Taken {
    /// What its header says.
    pub header: Header,
    /// The tag it was allocated under.
    pub tag: u32,
    /// Bytes asked for.
    pub size: usize,
    /// When it was allocated (`--stacks`).
    pub birth: u32,
}

/// Forgets the chunk at `p`, a live pointer from malloc; `None` if it was never remembered.
#[inline(always)]
pub fn take<const STACKS: bool>(p: usize) -> Option<Taken> {
    let g = gib(p)?;
    let header = header(p);
    if header.bytes < LARGE {
        let leaf = small_leaf(g, p).load(Relaxed);
        if leaf == 0 {
            return None;
        }
        let e = small_at(leaf, p);
        let value = e.load(Relaxed);
        if value == 0 {
            return None;
        }
        e.store(0, Relaxed);
        let birth = if STACKS { small_birth_at(leaf, p).load(Relaxed) } else { 0 };
        Some(Taken { header, tag: value >> 10, size: (value & 0x3ff) as usize, birth })
    } else {
        let e = if header.bytes < HUGE {
            let leaf = large_leaf(g, p).load(Relaxed);
            if leaf == 0 {
                return None;
            }
            large_at(leaf, p)
        } else {
            huge_at(g, p)
        };
        let tag = e.tag.load(Relaxed);
        if tag == 0 {
            return None;
        }
        e.tag.store(0, Relaxed);
        let (size, birth) = (e.size.load(Relaxed) as usize, e.birth.load(Relaxed));
        Some(Taken { header, tag, size, birth })
    }
}

/// So many bytes at most has a chunk beyond its size word and what was asked for: what is too small
/// for a chunk of its own (MINSIZE, glibc malloc/malloc.c), or what is left of its last page.
pub fn spare(h: Header) -> usize {
    if h.kind == OWN_MAPPING {
        PAGE + 16
    } else {
        15 + 32
    }
}

/// Bytes asked for of the live chunk at `p`, which may be any number: `None` unless it is the
/// address of a remembered chunk of 512 bytes or more.
pub fn size_at(p: usize) -> Option<usize> {
    if p % 16 != 0 || p < PAGE {
        return None;
    }
    let g = gib(p)?;
    let leaf = large_leaf(g, p).load(Relaxed);
    let large = (leaf != 0).then(|| large_at(leaf, p));
    let mut sizes = large.into_iter().chain([huge_at(g, p)]);
    let entry = sizes.find(|e| {
        let (tag, size) = (e.tag.load(Relaxed), e.size.load(Relaxed) as usize);
        // A chunk starts near `p`; if it is at `p`, the header in front of it says its size.
        tag != 0 && size >= LARGE - 8 && crate::heap::mapped(p - 8) && {
            let h = header(p);
            (size + 8..=size + 8 + spare(h)).contains(&h.bytes)
        }
    })?;
    Some(entry.size.load(Relaxed) as usize)
}

/// Changes the tag of the chunk at `p` with `change`; false if it isn't remembered.
pub fn retag(p: usize, change: impl FnOnce(u32) -> u32) -> bool {
    // Its birth stays where it is.
    let Some(t) = take::<false>(p) else { return false };
    remember::<false>(p, t.header, t.size, change(t.tag), 0)
}
