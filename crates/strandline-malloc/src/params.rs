//! `mp_`, malloc's parameters.

use strandline_image::{Image, PAGE};

use crate::find::Found;
use crate::layout::{ParamsLayout, MMAP_THRESHOLD_MAX};

/// malloc's parameters as they are at the moment: the thresholds move while the program runs
/// unless it has set one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Address of `mp_`.
    pub address: u64,
    /// A top chunk above this many bytes is given back to the system.
    pub trim_threshold: u64,
    /// Bytes that are asked from the system, and kept from giving back, beyond what is needed.
    pub top_pad: u64,
    /// Requests from this many bytes on get a mapping of their own.
    pub mmap_threshold: u64,
    /// `trim_threshold` and `mmap_threshold` still follow the program: freeing a chunk with its
    /// own mapping sets the latter to its size and the former to twice that.
    pub dynamic: bool,
    /// Number of arenas up to which new threads get one without further test.
    pub arena_test: u64,
    /// Most arenas there may be; 0: a multiple of the number of processors.
    pub arena_max: u64,
    /// Chunks with their own mapping.
    pub n_mmaps: u64,
    /// Most of them there may be.
    pub n_mmaps_max: u64,
    /// Bytes of their mappings, see [`Totals::hblkhd`](crate::Totals::hblkhd).
    pub mmapped_mem: u64,
    /// The most bytes there ever were.
    pub max_mmapped_mem: u64,
    /// First address of the main arena's first heap.
    pub sbrk_base: u64,
}

/// `mp_` in the mapping that has `main_arena` and outside of that: the one struct there whose
/// numbers fit one another and whose `sbrk_base` is a heap's start (`is_base`).
pub(crate) fn find(
    image: &Image,
    copy: &Found,
    is_base: &dyn Fn(u64) -> bool,
) -> Option<Thresholds> {
    let Found { data, layout, ref ring } = *copy;
    let arena = ring[0]..ring[0] + layout.size;
    let mut found = None;
    let mut at = data.0.next_multiple_of(8);
    while at < data.1 {
        let Some(bytes) = image.slice_from(at) else {
            at += PAGE;
            continue;
        };
        let most = bytes.len().min((data.1 - at) as usize);
        for word in bytes[..most].chunks_exact(8) {
            let sbrk_base = u64::from_le_bytes(word.try_into().unwrap_or_default());
            if sbrk_base >= PAGE && !arena.contains(&at) && is_base(sbrk_base) {
                for layout in layout.params {
                    let params = at.checked_sub(layout.sbrk_base);
                    let params = params.and_then(|params| read(image, params, layout));
                    if params.is_some() && found.is_some() {
                        return None; // Which of the two?
                    }
                    found = found.or(params);
                }
            }
            at += 8;
        }
        if most < 8 {
            at += 8; // Not even a word is left of this piece.
        }
    }
    found
}

fn read(image: &Image, address: u64, layout: &ParamsLayout) -> Option<Thresholds> {
    let word = |offset| image.word(address.checked_add(offset)?);
    let half = |offset| image.half(address.checked_add(offset)?).map(u64::from);
    let max_n_mmaps = half(layout.n_mmaps + 8)?;
    let no_dyn_threshold = half(layout.n_mmaps + 12)?;
    let found = Thresholds {
        address,
        trim_threshold: word(0)?,
        top_pad: word(8)?,
        mmap_threshold: word(16)?,
        dynamic: no_dyn_threshold == 0,
        arena_test: word(24)?,
        arena_max: word(32)?,
        n_mmaps: half(layout.n_mmaps)?,
        n_mmaps_max: half(layout.n_mmaps + 4)?,
        mmapped_mem: word(layout.mmapped_mem)?,
        max_mmapped_mem: word(layout.mmapped_mem + 8)?,
        sbrk_base: word(layout.sbrk_base)?,
    };
    let page_sizes = layout.page_sizes.map_or(Some([0, 0]), |at| Some([word(at)?, word(at + 8)?]));
    let fits = found.mmap_threshold <= MMAP_THRESHOLD_MAX
        && no_dyn_threshold <= 1
        && found.arena_test.max(found.arena_max) < 1 << 32
        && found.n_mmaps <= max_n_mmaps
        && max_n_mmaps <= found.n_mmaps_max
        && found.n_mmaps_max < 1 << 31
        && found.mmapped_mem <= found.max_mmapped_mem
        && found.n_mmaps * PAGE <= found.mmapped_mem
        && max_n_mmaps * PAGE <= found.max_mmapped_mem
        && (max_n_mmaps == 0) == (found.max_mmapped_mem == 0)
        && page_sizes?.iter().all(|size| *size == 0 || size.is_power_of_two());
    fits.then_some(found)
}
