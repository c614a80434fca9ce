//! What would bring memory back, worked out from a census: counterfactuals without a second run.

use strandline_census::{Census, Class, Pinned};

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

/// Free memory of which it isn't worth a word where it would be, bytes.
const LITTLE: u64 = 512 << 10;

/// Signed, for people.
fn signed(bytes: i64) -> String {
    format!("{}{}", if bytes < 0 { "-" } else { "" }, mib(bytes.unsigned_abs()))
}

/// Worked out from what is free now, as the allocator would do it.
fn worked_out(name: &'static str, bytes: Option<u64>, text: &str) -> Remedy {
    let predicted_bytes = bytes.map(|bytes| bytes as i64);
    let text = text.to_owned();
    let (at_least_bytes, at_most_bytes) = (None, None);
    Remedy { name, predicted_bytes, at_least_bytes, at_most_bytes, is_estimate: false, text }
}

/// The run would have had to be another one: an estimate, or nothing but the bounds.
fn estimate(name: &'static str, bytes: Option<i64>, (from, to): (i64, i64), text: &str) -> Remedy {
    let what = if bytes.is_some() { "an estimate: " } else { "only a run can tell: " };
    let text = match from == to {
        true => text.to_owned(),
        false => format!("{text} ({what}between {} and {})", signed(from), signed(to)),
    };
    Remedy {
        name,
        // What is read page by page may differ a little from what is counted by block.
        predicted_bytes: bytes.map(|bytes| bytes.min(to).max(from)),
        at_least_bytes: Some(from),
        at_most_bytes: Some(to),
        is_estimate: true,
        text,
    }
}

fn of_glibc(c: &Census, all: &mut Vec<Remedy>) {
    let r = &c.returns;
    let text = "import ctypes; ctypes.CDLL(None).malloc_trim(0)";
    all.push(worked_out("malloc-trim", Some(r.malloc_trim_bytes), text));
    let text = "import ctypes, gc; gc.collect(); ctypes.CDLL(None).malloc_trim(0)";
    all.push(worked_out("collect-and-trim", r.collect_and_trim_bytes, text));
    let m = c.malloc.clone().unwrap_or_default();
    // Ends go back in any case; holes if they were large chunks. malloc_trim leaves threads' ends.
    let most = r.malloc_trim_bytes.saturating_add(m.thread_tops_bytes).max(r.heap_ends_bytes);
    let bounds = (r.heap_ends_bytes as i64, most as i64);
    let text = "MALLOC_TRIM_THRESHOLD_=65536 in the environment from the start: the end of the \
                heap goes back at once, and the thresholds stay where they are";
    all.push(estimate("trim-threshold", Some(r.low_threshold_bytes as i64), bounds, text));
    let text = "MALLOC_MMAP_THRESHOLD_=65536 in the environment from the start: blocks from \
                64 KiB on get a mapping of their own, which goes back when they are freed";
    // Whether a hole was one block or many can be told only where the threshold had moved.
    let moved = m.mmap_threshold_bytes.is_some_and(|bytes| bytes > DEFAULT);
    let tells = moved || class(c, Class::MallocBins) < FEW_HOLES;
    let bytes = tells.then_some(r.low_mmap_threshold_bytes as i64);
    all.push(estimate("mmap-threshold", bytes, bounds, text));
    let free = m.thread_tops_bytes.saturating_add(m.thread_holes_bytes);
    let (bytes, most, text) = match m.arenas {
        0 | 1 => (Some(0), 0, "MALLOC_ARENA_MAX=1: there is one arena already".to_owned()),
        n => {
            let text = format!(
                "MALLOC_ARENA_MAX=1 in the environment: what is free in the {} arenas of threads \
                 would be in one heap, and goes back where it is at its end",
                n - 1
            );
            ((free < LITTLE).then_some(0), free as i64, text)
        }
    };
    all.push(estimate("arena-max", bytes, (0, most), &text));
}

fn of_pymalloc(c: &Census, all: &mut Vec<Remedy>) {
    let r = &c.returns;
    let pools = class(c, Class::FreePools);
    let free = pools.saturating_add(class(c, Class::FreeBlocks));
    let tells = pools < LITTLE || pools.saturating_mul(FEW_POOLS) <= free;
    let text = if tells {
        "PYTHONMALLOC=malloc in the environment, and malloc_trim(0) afterwards"
    } else {
        "PYTHONMALLOC=malloc in the environment, and malloc_trim(0) afterwards: objects of \
         different sizes would stand among each other"
    };
    let bounds = (r.without_pymalloc_least_bytes, r.without_pymalloc_most_bytes);
    let bytes = tells.then_some(r.without_pymalloc_bytes);
    all.push(estimate("pythonmalloc-trim", bytes, bounds, text));
    let text =
        "strandline.trim(), or `strandline remedies PID --pool-trim`, in a program that runs \
                under strandline: gives back the pages of free pools (3.10 and later)";
    all.push(worked_out("pool-trim", Some(r.pool_trim_bytes), text));
}

/// What the arenas of pins would give back if these stood elsewhere, bytes: expected, and its bounds.
/// At most all; but what moves comes to arenas which other objects had filled before, and as many
/// as it takes stay as they are, and one that was begun.
fn moved(p: &Pinned) -> (i64, (i64, i64)) {
    let all = p.held_bytes.saturating_add(p.bytes);
    let arena = all.div_ceil(p.arenas.max(1));
    let taken = p.bytes.div_ceil(arena.max(1)).saturating_mul(arena);
    let left = |taken: u64| all.saturating_sub(taken).min(i64::MAX as u64) as i64;
    (left(taken), (left(taken.saturating_add(arena)), left(0)))
}

/// All remedies that can be thought of here, most bytes first; those that only a run can tell last.
pub fn remedies(c: &Census) -> Vec<Remedy> {
    let text = "import gc; gc.collect()";
    let mut all = vec![worked_out("collect", c.returns.collect_bytes, text)];
    if c.malloc.is_some() {
        of_glibc(c, &mut all);
    }
    if !is_27(c) {
        of_pymalloc(c, &mut all);
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
        let (bytes, bounds) = moved(p);
        all.push(estimate("move-pins", Some(bytes), bounds, &text));
    }
    all.sort_by(|a, b| (b.predicted_bytes, a.name).cmp(&(a.predicted_bytes, b.name)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_census::{ClassReport, MallocReport};

    const MIB: u64 = 1 << 20;

    fn census(malloc: MallocReport, pools: u64) -> Census {
        let class = |class: Class, bytes| ClassReport {
            name: class.name().to_owned(),
            bytes,
            text: String::new(),
        };
        let mut c = Census { malloc: Some(malloc), ..Default::default() };
        c.classes = vec![class(Class::FreePools, pools), class(Class::FreeBlocks, 10 * MIB)];
        c
    }

    fn of(c: &Census, name: &str) -> Remedy {
        remedies(c).into_iter().find(|r| r.name == name).unwrap()
    }

    #[test]
    fn one_arena_is_left_as_it_is_and_of_several_only_a_bound_is_known() {
        let one = MallocReport { arenas: 1, ..Default::default() };
        let r = of(&census(one.clone(), 0), "arena-max");
        assert_eq!((r.predicted_bytes, r.at_most_bytes), (Some(0), Some(0)));
        let few = MallocReport { arenas: 4, thread_tops_bytes: 3 * MIB, ..one };
        let r = of(&census(few, 0), "arena-max");
        assert_eq!((r.predicted_bytes, r.at_most_bytes), (None, Some(3 << 20)));
        assert!(
            r.text.ends_with("(only a run can tell: between 0.0 MiB and 3.0 MiB)"),
            "{}",
            r.text
        );
    }

    #[test]
    fn what_moves_keeps_arenas_that_others_had_filled() {
        // Thirty arenas of a MiB, of which the pins fill a third of one.
        let third = MIB / 3;
        let pinned =
            Pinned { arenas: 30, held_bytes: 30 * MIB - third, bytes: third, ..Default::default() };
        let mib = |n: i64| n << 20;
        assert_eq!(moved(&pinned), (mib(29), (mib(28), mib(30))));
        let one = Pinned { arenas: 1, held_bytes: MIB - third, bytes: third, ..Default::default() };
        assert_eq!(moved(&one), (0, (0, mib(1))));
        assert_eq!(moved(&Pinned::default()), (0, (0, 0)));
    }

    #[test]
    fn free_pools_of_several_sizes_leave_bounds() {
        let mut c = census(MallocReport::default(), 9 * MIB);
        c.returns.without_pymalloc_bytes = -(2 << 20);
        c.returns.without_pymalloc_least_bytes = -(4 << 20);
        c.returns.without_pymalloc_most_bytes = 5 << 20;
        let r = of(&c, "pythonmalloc-trim");
        assert_eq!((r.predicted_bytes, r.at_least_bytes), (None, Some(-(4 << 20))));
        assert!(r.text.contains("between -4.0 MiB and 5.0 MiB"), "{}", r.text);
        c.classes[0].bytes = 0;
        assert_eq!(of(&c, "pythonmalloc-trim").predicted_bytes, Some(-(2 << 20)));
    }

    #[test]
    fn a_census_that_says_anything_is_no_trouble() {
        let mut c = census(MallocReport { arenas: 9, ..Default::default() }, u64::MAX);
        c.pinned = Pinned { arenas: 1, held_bytes: u64::MAX / 2, bytes: u64::MAX, ..c.pinned };
        c.returns.without_pymalloc_least_bytes = i64::MAX;
        c.returns.without_pymalloc_most_bytes = i64::MIN;
        c.returns.heap_ends_bytes = u64::MAX;
        assert!(remedies(&c).len() > 5);
    }
}
