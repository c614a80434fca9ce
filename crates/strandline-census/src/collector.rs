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

    /// The counters of the youngest generation; `head` closes the ring of one.
    fn youngest(&self, head: u64) -> Option<CollectorReport> {
        let mut head = head;
        for _ in 0..YOUNGER {
            match head.checked_sub(self.generation) {
                Some(younger) if self.is_linked(younger) => head = younger,
                _ => break,
            }
        }
        let older = head.checked_add(self.generation)?;
        self.is_linked(older).then(|| self.counters(head)).flatten()
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
    // 3.6 and 3.7 have a long double in a `PyGC_Head`, which is aligned to 16 bytes then.
    let sizes = [gc_head + 8, gc_head + 16];
    let rings = sizes.map(|generation| Rings { image, generation, threshold: gc_head });
    let mut end = head;
    for _ in 0..LONGEST {
        end = rings[0].next(end)?;
        if !is_object(end) {
            break;
        }
    }
    if rings[0].is_on_stack(end) {
        return Some(CollectorReport { at_work: true, ..CollectorReport::default() });
    }
    if is_object(end) || !rings[0].is_linked(end) {
        return None;
    }
    rings.iter().find_map(|rings| rings.youngest(end))
}
