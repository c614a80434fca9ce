//! Chunks with a mapping of their own. No list leads to them: they are told by their form alone.

use strandline_image::{Image, PAGE};

use crate::chunk::{Chunk, State};
use crate::layout::Layout;
use crate::memory::Words;
use crate::model::Mmapped;
use crate::params::Thresholds;
use crate::walk::{FLAGS, IS_MMAPPED};

/// Powers of two that `memalign` may have aligned to. The first chunks don't care.
const ALIGNMENTS: std::ops::Range<u32> = 5..40;
/// Chunks in question that are looked into, see [`settle`].
const MOST_IN_QUESTION: usize = 1 << 12;

/// All in `free`, the memory that can have them: at a page's beginning (the kernel may have joined
/// the mapping with its neighbours, or split it), the flag and no other, whole pages.
pub(crate) fn find(image: &Image, free: &[(u64, u64)], layout: &Layout) -> Vec<Mmapped> {
    let mut words = Words::new(image);
    let mut found = Vec::new();
    for &(from, to) in free {
        let Some(mut base) = from.checked_next_multiple_of(PAGE) else { continue };
        while base < to && to - base >= PAGE {
            let here = chunk(&mut words, base, base, to, layout)
                .map(|first| aligned(&mut words, base, to, layout).unwrap_or(first));
            // A chunk's head is resident: what isn't may be a reservation of terabytes.
            let next = || image.next_copied(base + PAGE).unwrap_or(to) / PAGE * PAGE;
            base = here.map_or_else(next, |m| m.chunk.end());
            found.extend(here);
        }
    }
    found
}

/// The chunk at `at` of a mapping that begins at `base`.
fn chunk(words: &mut Words, base: u64, at: u64, to: u64, layout: &Layout) -> Option<Mmapped> {
    let head = words.at(at + 8)?;
    if head & FLAGS != IS_MMAPPED || words.at(at)? & !layout.mmap_flags != at - base {
        return None;
    }
    let size = (head & !FLAGS).checked_add(layout.mmap_short)?;
    let end = at.checked_add(size).filter(|end| *end <= to)?;
    let chunk = match layout.mmap_short {
        0 => Chunk::new(at, size, State::Mmapped),
        _ => Chunk::mmapped_short(at, size),
    };
    (size >= 32 && size % 16 == 0 && end % PAGE == 0).then_some(Mmapped { base, chunk })
}

/// `memalign` moves the chunk's head to where it is aligned, and leaves the first head in place
/// (`_int_memalign`): the mapping's chunk is the one behind, if there is one.
fn aligned(words: &mut Words, base: u64, to: u64, layout: &Layout) -> Option<Mmapped> {
    for shift in ALIGNMENTS {
        let user = (base + 16).checked_next_multiple_of(1 << shift)?;
        // Until 2.42 it left room for a chunk in front.
        for at in [user - 16, user.checked_add(1 << shift)? - 16] {
            if at > base && at < to && to - at >= 32 {
                if let Some(found) = chunk(words, base, at, to, layout) {
                    return Some(found);
                }
            }
        }
    }
    None
}

/// True if the chunks are as many as malloc counts. If there are more, other memory looks like
/// one of them: that one is taken out (and those inside it put in) if then all fits.
pub(crate) fn settle(
    image: &Image,
    found: &mut Vec<Mmapped>,
    known: &[Thresholds],
    layout: &Layout,
) -> bool {
    let count: u64 = known.iter().map(|t| t.n_mmaps).sum();
    let mapped = known.iter().fold(0u64, |sum, t| sum.saturating_add(t.mmapped_mem));
    let sum = |list: &[Mmapped]| list.iter().map(Mmapped::bytes).sum::<u64>();
    // Since 2.43 `mmapped_mem` grows by 16 too much with each mremap, see `Totals::hblkhd`.
    let fits = |chunks: u64, bytes: u64| {
        chunks == count
            && (bytes == mapped
                || layout.mmap_short != 0 && bytes < mapped && (mapped - bytes) % 16 == 0)
    };
    let (chunks, bytes) = (found.len() as u64, sum(found));
    if fits(chunks, bytes) {
        return true;
    }
    for number in 0..found.len().min(MOST_IN_QUESTION) {
        let wrong = found[number];
        let inside = find(image, &[(wrong.base + PAGE, wrong.chunk.end())], layout);
        let left = bytes - wrong.bytes() + sum(&inside);
        if fits(chunks - 1 + inside.len() as u64, left) {
            found.splice(number..=number, inside);
            return true;
        }
    }
    false
}
