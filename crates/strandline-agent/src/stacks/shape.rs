//! How the blocks of a call path differ: sizes, lifetimes, and how many were temporary.
//!
//! Most paths come a few times only, and their blocks are alike: which classes they have stands in
//! the tag, in the cache line that is touched anyway, and the tag's numbers of blocks say how many
//! there are. A path gets a histogram once a block is unlike those before.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use strandline_capture::layout::{
    shape_of_end, shape_of_size, Histogram, Path, Stacks, Tag, MAX_TAGS, SHAPE_END, SHAPE_MIXED,
    SHAPE_SHIFT, SHAPE_SIZE, SHAPE_TEMPORARY,
};

use crate::counters::add;

#[inline(always)]
fn is_mixed(shape: u32) -> bool {
    shape & SHAPE_SIZE == SHAPE_MIXED
}

/// The histogram of a mixed shape.
#[inline(always)]
fn histogram(s: &Stacks, shape: u32) -> &Histogram {
    // SAFETY: the index is masked to the table's length (a power of two).
    unsafe { s.histograms.get_unchecked((shape >> SHAPE_SHIFT) as usize & (MAX_TAGS - 1)) }
}

/// One more, unless it is the largest number already.
#[inline(always)]
fn count(class: Option<&AtomicU32>) {
    if let Some(class) = class {
        class.store(class.load(Relaxed).saturating_add(1), Relaxed);
    }
}

/// `count` for threads without the GIL.
fn count_native(class: Option<&AtomicU32>) {
    if let Some(class) = class {
        if class.load(Relaxed) != u32::MAX {
            class.fetch_add(1, Relaxed);
        }
    }
}

/// A block of size class `class` was counted in `t.blocks`, under the GIL.
#[inline(always)]
pub fn sized(s: &Stacks, t: &Tag, path: &Path, class: usize) {
    let shape = t.shape.load(Relaxed);
    if is_mixed(shape) {
        count(histogram(s, shape).sizes.get(class));
    } else if shape & SHAPE_SIZE != shape_of_size(class) {
        sized_otherwise(s, t, path, class);
    }
}

#[cold]
#[inline(never)]
fn sized_otherwise(s: &Stacks, t: &Tag, path: &Path, class: usize) {
    sized_native(s, t, path, class);
}

/// `sized` by a thread without the GIL.
pub fn sized_native(s: &Stacks, t: &Tag, path: &Path, class: usize) {
    loop {
        let shape = t.shape.load(Relaxed);
        if is_mixed(shape) {
            return count_native(histogram(s, shape).sizes.get(class));
        }
        let first = shape & SHAPE_SIZE == 0;
        if shape & SHAPE_SIZE == shape_of_size(class)
            || first && becomes(&t.shape, shape, shape | shape_of_size(class))
        {
            return;
        }
        if !first && !mix(s, t, path, shape, [0; 2]) {
            return;
        }
    }
}

/// A block of size class `class` was taken out of `t.blocks` again.
pub fn not_sized(s: &Stacks, t: &Tag, class: usize) {
    let shape = t.shape.load(Relaxed);
    if is_mixed(shape) {
        if let Some(n) = histogram(s, shape).sizes.get(class) {
            n.store(n.load(Relaxed).saturating_sub(1), Relaxed);
        }
    }
}

/// A block of `n` bytes was counted as freed, under the GIL: its lifetime is of class `class`.
#[inline(always)]
pub fn ended(s: &Stacks, t: &Tag, path: &Path, class: usize, temporary: bool, n: usize) {
    let shape = t.shape.load(Relaxed);
    if is_mixed(shape) {
        let h = histogram(s, shape);
        count(h.lifetimes.get(class));
        if temporary {
            add(&h.temporary[0], n as u64);
            add(&h.temporary[1], 1);
        }
    } else if shape & SHAPE_END != shape_of_end(class, temporary) {
        ended_otherwise(s, t, path, class, temporary, n);
    }
}

#[cold]
#[inline(never)]
fn ended_otherwise(s: &Stacks, t: &Tag, path: &Path, class: usize, temporary: bool, n: usize) {
    ended_native(s, t, path, class, temporary, n);
}

/// `ended` by a thread without the GIL.
pub fn ended_native(s: &Stacks, t: &Tag, path: &Path, class: usize, temporary: bool, n: usize) {
    let end = shape_of_end(class, temporary);
    loop {
        let shape = t.shape.load(Relaxed);
        if is_mixed(shape) {
            let h = histogram(s, shape);
            count_native(h.lifetimes.get(class));
            if temporary {
                h.temporary[0].fetch_add(n as u64, Relaxed);
                h.temporary[1].fetch_add(1, Relaxed);
            }
            return;
        }
        let first = shape & SHAPE_END == 0;
        if shape & SHAPE_END == end || first && becomes(&t.shape, shape, shape | end) {
            return;
        }
        if !first && !mix(s, t, path, shape, [n as u64, 1]) {
            return;
        }
    }
}

fn becomes(shape: &AtomicU32, before: u32, after: u32) -> bool {
    shape.compare_exchange(before, after, Relaxed, Relaxed).is_ok()
}

/// Gives a tag of this shape a histogram; all but `this` (bytes, blocks) of what was counted as freed
/// were as the shape says. False if there is none left: all counts as the shape says. True as well
/// if another thread has changed the shape.
fn mix(s: &Stacks, t: &Tag, path: &Path, shape: u32, this: [u64; 2]) -> bool {
    let index = s.head.histograms.fetch_add(1, Relaxed);
    let Some(h) = s.histograms.get(index as usize) else {
        s.head.histograms.store(MAX_TAGS as u32, Relaxed);
        return false;
    };
    // One class of each is what the others leave of all: the sums are right whatever threads without
    // the GIL do to the same counts at the same moment.
    let size = if shape & SHAPE_SIZE == 0 { shape_of_size(0) } else { 0 };
    let end = if shape & SHAPE_END == 0 { shape_of_end(0, false) } else { 0 };
    h.shape.store(shape | size | end, Relaxed);
    if shape & SHAPE_TEMPORARY != 0 {
        let sum = |a: &AtomicU64, b: &AtomicU64| a.load(Relaxed).wrapping_add(b.load(Relaxed));
        let [bytes, blocks] = this;
        h.temporary[0].store(sum(&t.freed, &t.freed_native).wrapping_sub(bytes), Relaxed);
        let freed = sum(&t.blocks_freed, &path.blocks_freed_native);
        h.temporary[1].store(freed.wrapping_sub(blocks), Relaxed);
    }
    becomes(&t.shape, shape, index << SHAPE_SHIFT | SHAPE_MIXED);
    true
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::boxed::Box;
    use std::vec::Vec;

    use strandline_capture::layout::{end_in_shape, size_in_shape, LIFETIME_CLASSES, SIZE_CLASSES};

    use super::*;

    /// A tag and its path, and what was counted one by one.
    struct Counted {
        s: &'static Stacks,
        t: Box<Tag>,
        path: Box<Path>,
        sizes: [u64; SIZE_CLASSES],
        lifetimes: [u64; LIFETIME_CLASSES],
        temporary: [u64; 2],
    }

    /// Tables of zeros.
    fn tables() -> &'static Stacks {
        let p = crate::memory::map(size_of::<Stacks>()) as *const Stacks;
        // SAFETY: a mapping of zeros that stays; atomics, for which zeros are valid.
        let s = unsafe { &*p };
        s.head.histograms.store(1, Relaxed);
        s
    }

    impl Counted {
        fn new(s: &'static Stacks) -> Counted {
            // SAFETY: atomics, for which zeros are valid.
            let (t, path) = unsafe { (core::mem::zeroed(), core::mem::zeroed()) };
            let (t, path) = (Box::new(t), Box::new(path));
            Counted { s, t, path, sizes: [0; 20], lifetimes: [0; 16], temporary: [0; 2] }
        }

        fn allocate(&mut self, class: usize, native: bool) {
            self.sizes[class] += 1;
            add(&self.t.blocks, 1);
            let sized: fn(&Stacks, &Tag, &Path, usize) = if native { sized_native } else { sized };
            sized(self.s, &self.t, &self.path, class);
        }

        fn take_back(&mut self, class: usize) {
            self.sizes[class] -= 1;
            add(&self.t.blocks, 1u64.wrapping_neg());
            not_sized(self.s, &self.t, class);
        }

        fn free(&mut self, class: usize, temporary: bool, n: usize, native: bool) {
            self.lifetimes[class] += 1;
            if temporary {
                self.temporary[0] += n as u64;
                self.temporary[1] += 1;
            }
            if native {
                add(&self.t.freed_native, n as u64);
                add(&self.path.blocks_freed_native, 1);
                ended_native(self.s, &self.t, &self.path, class, temporary, n);
            } else {
                add(&self.t.freed, n as u64);
                add(&self.t.blocks_freed, 1);
                ended(self.s, &self.t, &self.path, class, temporary, n);
            }
        }

        /// As a reader sees it.
        fn check(&self) {
            let number = |n: &AtomicU64| n.load(Relaxed);
            let blocks = number(&self.t.blocks);
            let freed = number(&self.t.blocks_freed) + number(&self.path.blocks_freed_native);
            let bytes = number(&self.t.freed) + number(&self.t.freed_native);
            let shape = self.t.shape.load(Relaxed);
            let mixed = is_mixed(shape).then(|| histogram(self.s, shape));
            let of = |from: Option<&[AtomicU32]>, usual: Option<usize>, len: usize, all: u64| {
                let stored =
                    |i: usize| from.map_or(0, |f: &[AtomicU32]| u64::from(f[i].load(Relaxed)));
                let not = |i: usize| if Some(i) == usual { 0 } else { stored(i) };
                let mut found: Vec<u64> = (0..len).map(not).collect();
                if let Some(usual) = usual {
                    found[usual] = all - found.iter().sum::<u64>();
                }
                found
            };
            let before = mixed.map_or(shape, |h| h.shape.load(Relaxed));
            let sizes = mixed.map(|h| &h.sizes[..]);
            let lifetimes = mixed.map(|h| &h.lifetimes[..]);
            assert_eq!(of(sizes, size_in_shape(before), SIZE_CLASSES, blocks), self.sizes);
            assert_eq!(
                of(lifetimes, end_in_shape(before), LIFETIME_CLASSES, freed),
                self.lifetimes
            );
            let temporary = match mixed {
                Some(h) => [number(&h.temporary[0]), number(&h.temporary[1])],
                None if shape & SHAPE_TEMPORARY != 0 => [bytes, freed],
                None => [0; 2],
            };
            assert_eq!(temporary, self.temporary);
        }
    }

    #[test]
    fn whatever_comes_is_counted_by_class() {
        let mut seed = 1u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below as usize
        };
        let s = tables();
        for round in 0..2000 {
            let mut c = Counted::new(s);
            let odd = [40, 4, 1 << 30][round % 3];
            let (size, end, temporary) = (random(20), random(16), random(2) == 0);
            for _ in 0..random(60) {
                let native = random(3) == 0;
                let class = if random(odd) == 0 { random(20) } else { size };
                if random(2) == 0 {
                    c.allocate(class, native);
                    if !native && random(8) == 0 {
                        c.take_back(class);
                    }
                } else {
                    let class = if random(odd) == 0 { random(16) } else { end };
                    c.free(class, temporary != (random(odd) == 0), random(1000), native);
                }
                c.check();
            }
        }
    }

    #[test]
    fn blocks_that_are_alike_have_no_histogram() {
        let s = tables();
        let mut c = Counted::new(s);
        for _ in 0..100 {
            c.allocate(3, false);
            c.free(2, true, 40, false);
        }
        c.check();
        assert_eq!(s.head.histograms.load(Relaxed), 1);
        c.allocate(4, false);
        assert_eq!(s.head.histograms.load(Relaxed), 2);
    }

    #[test]
    fn without_room_all_are_alike() {
        let s = tables();
        s.head.histograms.store(MAX_TAGS as u32, Relaxed);
        let c = Counted::new(s);
        for class in [3, 5] {
            add(&c.t.blocks, 1);
            sized(s, &c.t, &c.path, class);
        }
        assert_eq!(c.t.shape.load(Relaxed), shape_of_size(3));
        assert_eq!(s.head.histograms.load(Relaxed), MAX_TAGS as u32);
    }
}
