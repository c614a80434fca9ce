//! A quick look at a process that runs: what is in use now, and under which tags.

use core::mem::{offset_of, size_of};
use std::io;

use super::tables::{Piece, Source};
use super::{Bytes, Doubts};
use crate::layout::{self, Ledger as L, Region, RegionHead as H, Tag as T};

/// See [`glance`]. Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glance {
    /// Process id, as the process itself sees it.
    pub pid: u32,
    /// It runs, or died without a chance to say so.
    pub running: bool,
    /// Start, nanoseconds since the epoch.
    pub started: u64,
    /// In use.
    pub in_use: u64,
    /// Resident, kept by an allocator, in no live block: pymalloc's now, the C library's when it
    /// was last counted.
    pub stranded: u64,
    /// The profiler's own resident memory when it was last counted.
    pub profiler: u64,
    /// Number of tags.
    pub tags: u32,
    /// The tags with most in use, largest first.
    pub top: Vec<(u32, u64)>,
}

/// Looks at region `index` of a capture with these `OPTION_*` bits; `None` if no process uses it.
/// `most`: how many tags are wanted.
pub fn glance<B: Bytes + ?Sized>(
    bytes: &B,
    options: u32,
    index: u32,
    most: usize,
) -> io::Result<Option<Glance>> {
    let base = layout::HEADER_BYTES as u64 + index as u64 * layout::stride(options) as u64;
    let h = Piece::read(bytes, base + offset_of!(Region, head) as u64, size_of::<H>())?;
    let state = h.u32(offset_of!(H, state));
    if state == layout::STATE_FREE {
        return Ok(None);
    }
    let source = Source { bytes, length: bytes.length()?, base };
    let mut doubts = Doubts::default();
    let count = h.u32(offset_of!(H, tags));
    let (tags, n) = source.table(
        offset_of!(Region, tags),
        size_of::<T>(),
        count,
        layout::MAX_TAGS,
        "tags",
        &mut doubts,
    )?;
    let (inherited, _) = source.table(
        offset_of!(Region, inherited),
        8,
        n as u32,
        layout::MAX_TAGS,
        "inherited amounts",
        &mut doubts,
    )?;
    let live = |i: usize| {
        let at = i * size_of::<T>();
        let word = |offset: usize| tags.u64(at + offset);
        let freed = word(offset_of!(T, freed)).wrapping_add(word(offset_of!(T, freed_native)));
        let had = inherited.u64(i * 8).wrapping_add(word(offset_of!(T, allocated)));
        had.wrapping_sub(freed) as i64
    };
    let own = (1..n).filter(|&i| i != layout::TAG_INDEX_PROFILER as usize);
    let mut top: Vec<(u32, u64)> =
        own.map(|i| (i as u32, live(i).max(0) as u64)).filter(|&(_, bytes)| bytes > 0).collect();
    let by_size = |a: &(u32, u64), b: &(u32, u64)| b.1.cmp(&a.1).then(a.0.cmp(&b.0));
    if top.len() > most {
        top.select_nth_unstable_by(most, by_size);
        top.truncate(most);
    }
    top.sort_unstable_by(by_size);
    let positive = |n: i64| n.max(0) as u64;
    let latest = |field: usize| h.i64(offset_of!(H, latest) + field);
    let arenas = h.i64(offset_of!(H, arena_resident)) - h.i64(offset_of!(H, block_bytes));
    let in_use = h.i64(offset_of!(H, in_use)).wrapping_add(h.i64(offset_of!(H, in_use_native)));
    Ok(Some(Glance {
        pid: h.u32(offset_of!(H, pid)),
        running: state == layout::STATE_RUNNING,
        started: h.u64(offset_of!(H, started)),
        in_use: positive(in_use),
        stranded: positive(arenas) + positive(latest(offset_of!(L, stranded_heap))),
        profiler: positive(latest(offset_of!(L, profiler))),
        tags: count,
        top,
    }))
}
