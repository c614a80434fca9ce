//! Whether the collector keeps up: the counters of its youngest generation, found from an object
//! that waits for it.
//!
//! Each generation is a ring of GC heads, closed by one that belongs to no object and is followed
//! by two ints, its threshold and its count (`struct gc_generation`, Modules/gcmodule.c and
//! Include/internal/pycore_gc.h, 2.7 to 3.13); the generations stand one after the other, the
//! youngest first. Once the count of the youngest is above its threshold, a collector that is on
//! runs.

use strandline_image::Image;

use crate::model::CollectorReport;

/// Heads that are gone through to find the end of a ring.
const LONGEST: usize = 1 << 23;
/// Generations below which the one that was found may stand.
const YOUNGER: usize = 2;
/// The lowest bits of links are the collector's own (`_PyGC_PREV_SHIFT`, 3.8 and later).
const LINK: u64 = !7;

/// The rings of an image.
struct Rings<'a> {
    image: &'a Image,
    /// `sizeof(struct gc_generation)`.
    generation: u64,
    /// Offset of the threshold in it.
    threshold: u64,
}

impl Rings<'_> {
    fn next(&self, head: u64) -> Option<u64> {
        Some(self.image.word(head)? & LINK)
    }

    fn before(&self, head: u64) -> Option<u64> {
        Some(self.image.word(head.checked_add(8)?)? & LINK)
    }

    fn is_linked(&self, head: u64) -> bool {
        let next = self.next(head).and_then(|next| self.before(next));
        let before = self.before(head).and_then(|before| self.next(before));
        next == Some(head) && before == Some(head)
    }

    /// The two ints behind the head that closes a ring.
    fn counters(&self, head: u64) -> Option<CollectorReport> {
        let word = self.image.word(head.checked_add(self.threshold)?)?;
        let (threshold, count) = (word as u32 as i32, (word >> 32) as i32);
        // Objects that were made before the last collection and freed since make it negative.
        let threshold = u64::try_from(threshold).ok()?;
        Some(CollectorReport { threshold, count: count.max(0) as u64, at_work: false })
    }

    /// Whether the address is on a thread's stack: a running collection has the heads of its rings
    /// there (`collect`, Modules/gcmodule.c; `gc_collect_main`, Python/gc.c).
    fn is_on_stack(&self, address: u64) -> bool {
        let pointers = self.image.threads().iter().filter_map(|t| t.stack_pointer);
        let mut stacks = pointers.filter_map(|sp| Some((sp, self.image.mapping_at(sp)?.end)));
        stacks.any(|(sp, end)| (sp..end).contains(&address))
    }
}

/// The counters, from the GC head of an object. `gc_head`: `sizeof(PyGC_Head)`; `is_object`:
/// whether an address is that of an object's GC head.
pub fn of_object(
    image: &Image,
    gc_head: u64,
    head: u64,
    is_object: impl Fn(u64) -> bool,
) -> Option<CollectorReport> {
    // Up to 3.7 a `PyGC_Head` has a long double in it, for its alignment.
    let generation = if gc_head > 16 { gc_head + 16 } else { gc_head + 8 };
    let rings = Rings { image, generation, threshold: gc_head };
    let mut end = head;
    for _ in 0..LONGEST {
        end = rings.next(end)?;
        if !is_object(end) {
            break;
        }
    }
    if rings.is_on_stack(end) {
        return Some(CollectorReport { at_work: true, ..CollectorReport::default() });
    }
    if is_object(end) || !rings.is_linked(end) {
        return None;
    }
    for _ in 0..YOUNGER {
        match end.checked_sub(rings.generation) {
            Some(younger) if rings.is_linked(younger) => end = younger,
            _ => break,
        }
    }
    let older = end.checked_add(rings.generation)?;
    rings.is_linked(older).then(|| rings.counters(end)).flatten()
}
