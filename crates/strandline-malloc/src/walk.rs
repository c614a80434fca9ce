//! From chunk to chunk.

use strandline_image::PAGE;

use crate::chunk::State;
use crate::memory::Words;

/// Flags in the low bits of a chunk's size (malloc.c).
pub(crate) const PREV_INUSE: u64 = 1;
pub(crate) const IS_MMAPPED: u64 = 2;
pub(crate) const NON_MAIN_ARENA: u64 = 4;
/// All flags.
pub(crate) const FLAGS: u64 = 7;
/// The smallest chunk, bytes.
pub(crate) const MIN_SIZE: u64 = 32;
/// Size of a fencepost, bytes.
const FENCE: u64 = 16;

/// Why a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Behind the top chunk.
    Top,
    /// Behind a heap's last fencepost.
    Fence,
    /// No chunk can be there.
    Broken,
}

/// Consecutive chunks.
pub(crate) struct Walk {
    /// Start and state of each, see [`Heap`](crate::Heap).
    pub packed: Vec<u64>,
    /// Address after the last.
    pub end: u64,
    pub stop: Stop,
    /// The first free chunk whose foot doesn't fit.
    pub foot_broken: Option<u64>,
}

/// Walks from `start` to the top chunk at `top`, or to a fencepost, never beyond `limit`.
///
/// A chunk is free if the head behind it says so; which bin it is in follows from its size. What
/// is in the unsorted list, a fast bin or a tcache, only the lists can tell.
pub(crate) fn walk(words: &mut Words, start: u64, limit: u64, top: Option<u64>) -> Walk {
    let mut out = Walk { packed: Vec::new(), end: start, stop: Stop::Broken, foot_broken: None };
    let top = top.unwrap_or(u64::MAX);
    let mut previous = 0; // Size of the chunk before.
    loop {
        let at = out.end;
        if at >= limit || limit - at < FENCE {
            return out;
        }
        let Some(head) = words.at(at + 8) else { return out };
        let size = head & !FLAGS;
        if head & PREV_INUSE == 0 && size != 0 {
            if let Some(last) = out.packed.last_mut() {
                *last = *last & !15 | State::of_bin(previous) as u64;
                if words.at(at) != Some(previous) && out.foot_broken.is_none() {
                    out.foot_broken = Some(*last & !15);
                }
            }
        }
        if at == top {
            if size >= FENCE && size % 16 == 0 && size <= limit - at {
                out.packed.push(at | State::Top as u64);
                (out.end, out.stop) = (at + size, Stop::Top);
            }
            return out;
        }
        if size < MIN_SIZE {
            fence(words, limit, head, &mut out);
            return out;
        }
        if size % 16 != 0 || head & IS_MMAPPED != 0 || size > limit - at {
            return out;
        }
        out.packed.push(at | State::InUse as u64);
        out.end = at + size;
        previous = size;
    }
}

/// The end of a heap that malloc couldn't extend (`sysmalloc`): two heads of size 16 in the main
/// arena; in a thread's, one of size 16 (or of 32, if there was no room for a chunk in front) and
/// one of size 0.
fn fence(words: &mut Words, limit: u64, head: u64, out: &mut Walk) {
    let at = out.end;
    let fencepost = |at: u64| at | State::Fencepost as u64;
    let second = if head & !FLAGS == FENCE && limit - at >= 2 * FENCE {
        words.at(at + FENCE + 8)
    } else {
        None
    };
    if second == Some(FENCE | PREV_INUSE) || second == Some(PREV_INUSE) {
        out.packed.extend([fencepost(at), fencepost(at + FENCE)]);
        (out.end, out.stop) = (at + 2 * FENCE, Stop::Fence);
    } else if head == PREV_INUSE {
        if let Some(last) = out.packed.last_mut() {
            *last = fencepost(*last & !15);
            out.packed.push(fencepost(at));
            (out.end, out.stop) = (at + FENCE, Stop::Fence);
        }
    }
}

/// Addresses that [`resume`] tries.
const MOST_TRIES: u64 = 1 << 22;
/// Chunks that must follow one another there.
const ENOUGH: usize = 64;

/// The first address from `from` on, below `limit`, where chunks follow one another again.
pub(crate) fn resume(words: &mut Words, from: u64, limit: u64, top: Option<u64>) -> Option<u64> {
    let mut at = from.checked_next_multiple_of(16)?;
    for _ in 0..MOST_TRIES {
        if at >= limit {
            return None;
        }
        // A heap's first chunk says that the one before is in use: there is none.
        match words.at(at + 8) {
            Some(head) if head & FLAGS & !NON_MAIN_ARENA == PREV_INUSE => {
                if follow(words, at, limit, top) {
                    return Some(at);
                }
                at += 16;
            }
            Some(_) => at += 16,
            // Nothing was copied here: nobody has ever written to this page.
            None => at = (at + 1).next_multiple_of(PAGE),
        }
    }
    None
}

/// True if chunks follow one another from `at`: up to the top, up to a fencepost, or long enough.
pub(crate) fn follow(words: &mut Words, mut at: u64, limit: u64, top: Option<u64>) -> bool {
    let mut previous = None;
    for _ in 0..ENOUGH {
        if at >= limit || limit - at < FENCE {
            return false;
        }
        let Some(head) = words.at(at + 8) else { return false };
        let size = head & !FLAGS;
        if head & PREV_INUSE == 0 && words.at(at) != previous {
            return false;
        }
        if Some(at) == top {
            return size <= limit - at;
        }
        if size == FENCE {
            let second = words.at(at + FENCE + 8);
            return previous.is_some() && second.is_some_and(|w| w == 17 || w == 1);
        }
        if size < MIN_SIZE || size % 16 != 0 || head & IS_MMAPPED != 0 || size > limit - at {
            return false;
        }
        previous = Some(size);
        at += size;
    }
    true
}
