//! What would bring memory back, worked out from a census: counterfactuals without a second run.

use strandline_census::{Census, Class};

use crate::causes::{class, is_27};
use crate::model::Remedy;
use crate::{count, mib};

/// Part of the free memory in arenas that may be free pools for the layout without pymalloc to be
/// told: one tenth. Blocks of several sizes would stand among each other there.
const FEW_POOLS: u64 = 10;

/// glibc's `DEFAULT_MMAP_THRESHOLD` (malloc/malloc.c), bytes.
const DEFAULT: u64 = 128 << 10;
/// Holes that aren't worth a word, bytes.
const FEW_HOLES: u64 = 1 << 20;

/// All remedies that can be thought of here, most bytes first; those that only a run can tell last.
pub fn remedies(c: &Census) -> Vec<Remedy> {
    let mut all = Vec::new();
    let mut add = |name, predicted_bytes, is_estimate, text: String| {
        let at_most_bytes = None;
        all.push(Remedy { name, predicted_bytes, at_most_bytes, is_estimate, text });
    };
    let r = &c.returns;
    let is_glibc = c.malloc.is_some();
    if is_glibc {
        let text = "import ctypes; ctypes.CDLL(None).malloc_trim(0)";
        add("malloc-trim", Some(r.malloc_trim_bytes), false, text.to_owned());
    }
    let text = "import gc; gc.collect()";
    add("collect", r.collect_bytes, false, text.to_owned());
    if is_glibc {
        let text = "import ctypes, gc; gc.collect(); ctypes.CDLL(None).malloc_trim(0)";
        add("collect-and-trim", r.collect_and_trim_bytes, false, text.to_owned());
        let text =
            "MALLOC_TRIM_THRESHOLD_=65536 in the environment from the start: the end of the \
                    heap goes back at once, and the thresholds stay where they are";
        add("trim-threshold", Some(r.low_threshold_bytes), true, text.to_owned());
        let text = "MALLOC_MMAP_THRESHOLD_=65536 in the environment from the start: blocks from \
                    64 KiB on get a mapping of their own, which goes back when they are freed";
        let m = c.malloc.clone().unwrap_or_default();
        // Whether a hole was one block or many can be told only where the threshold had moved.
        let moved = m.mmap_threshold_bytes.is_some_and(|bytes| bytes > DEFAULT);
        let tells = moved || class(c, Class::MallocBins) < FEW_HOLES;
        add("mmap-threshold", tells.then_some(r.low_threshold_bytes), true, text.to_owned());
        let text = match m.arenas {
            0 | 1 => "MALLOC_ARENA_MAX=1: there is one arena already".to_owned(),
            n => format!(
                "MALLOC_ARENA_MAX=1 in the environment: the free ends of the {} arenas of threads \
                 would be one",
                n - 1
            ),
        };
        add("arena-max", Some(m.thread_tops_bytes), true, text);
    }
    if !is_27(c) {
        let free = class(c, Class::FreePools) + class(c, Class::FreeBlocks);
        let tells = class(c, Class::FreePools) * FEW_POOLS <= free;
        let text = if tells {
            "PYTHONMALLOC=malloc in the environment, and malloc_trim(0) afterwards"
        } else {
            "PYTHONMALLOC=malloc in the environment, and malloc_trim(0) afterwards: objects of \
             different sizes would stand among each other, which only a run can tell"
        };
        let bytes = tells.then_some(r.without_pymalloc_bytes);
        add("pythonmalloc-trim", bytes, true, text.to_owned());
        let text =
            "strandline.trim(), or `strandline remedies PID --pool-trim`, in a program that \
                    runs under strandline: gives back the pages of free pools (3.10 and later)";
        add("pool-trim", Some(r.pool_trim_bytes), false, text.to_owned());
    }
    let p = &c.pinned;
    if p.arenas > 0 {
        let types: Vec<_> =
            p.types.iter().take(2).map(|t| format!("{} {}", count(t.count), t.name)).collect();
        let text = format!(
            "allocate what stays before or after what goes, or copy it afterwards: if the {} blocks \
             in use ({}) did not sit in {} arenas, these would go back ({} in use hold {})",
            count(p.blocks), types.join(", "), count(p.arenas), mib(p.bytes), mib(p.held_bytes),
        );
        add("move-pins", Some(p.held_bytes), true, text);
    }
    all.sort_by(|a, b| (b.predicted_bytes, a.name).cmp(&(a.predicted_bytes, b.name)));
    all
}
