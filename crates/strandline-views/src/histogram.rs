//! How large blocks are, and how long they live.

use serde::Serialize;
use strandline_profile::{LIFETIME_CLASSES, SIZE_CLASSES};

use crate::merge::Merged;

/// Allocations by size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sizes(
    /// The classes, the smallest first, without empty ones at the end.
    pub Vec<SizeClass>,
);

/// Blocks of about one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SizeClass {
    /// Bytes asked for, at most; none: larger than all classes before.
    pub up_to_bytes: Option<u64>,
    /// Number of blocks.
    pub blocks: u64,
}

/// Freed blocks by how long they lived, measured in what was allocated meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lifetimes(
    /// The classes, the shortest first, without empty ones at the end.
    pub Vec<LifetimeClass>,
);

/// Blocks that lived about as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LifetimeClass {
    /// Fewer bytes than this were allocated while they lived; none: more than all classes before.
    pub below_bytes: Option<u64>,
    /// Number of blocks.
    pub blocks: u64,
}

impl Sizes {
    /// Of all call paths.
    pub(crate) fn of(merged: &Merged) -> Sizes {
        let counts = counts::<SIZE_CLASSES>(merged.entries().map(|e| e.path.sizes.as_slice()));
        let class = |(i, blocks)| SizeClass { up_to_bytes: size_bound(i), blocks };
        Sizes(counts.into_iter().enumerate().map(class).collect())
    }

    /// The class that at least `percent` of the blocks are in, or in one before it.
    pub(crate) fn quantile(&self, percent: u64) -> Option<SizeClass> {
        let i = quantile(self.0.iter().map(|c| c.blocks), percent)?;
        self.0.get(i).copied()
    }
}

impl Lifetimes {
    /// Of all call paths.
    pub(crate) fn of(merged: &Merged) -> Lifetimes {
        let paths = merged.entries().map(|e| e.path.lifetimes.as_slice());
        let counts = counts::<LIFETIME_CLASSES>(paths);
        let class = |(i, blocks)| LifetimeClass { below_bytes: lifetime_bound(i), blocks };
        Lifetimes(counts.into_iter().enumerate().map(class).collect())
    }

    /// As [`Sizes::quantile`].
    pub(crate) fn quantile(&self, percent: u64) -> Option<LifetimeClass> {
        let i = quantile(self.0.iter().map(|c| c.blocks), percent)?;
        self.0.get(i).copied()
    }
}

fn size_bound(class: usize) -> Option<u64> {
    (class + 1 < SIZE_CLASSES).then_some(16 << class)
}

fn lifetime_bound(class: usize) -> Option<u64> {
    (class + 1 < LIFETIME_CLASSES).then_some(1024 << (2 * class))
}

fn counts<'a, const N: usize>(tables: impl Iterator<Item = &'a [u32]>) -> Vec<u64> {
    let mut sums = vec![0u64; N];
    for table in tables {
        for (sum, &n) in sums.iter_mut().zip(table) {
            *sum += u64::from(n);
        }
    }
    let used = sums.iter().rposition(|&n| n != 0).map_or(0, |last| last + 1);
    sums.truncate(used);
    sums
}

fn quantile(counts: impl Iterator<Item = u64> + Clone, percent: u64) -> Option<usize> {
    let all: u128 = counts.clone().map(u128::from).sum();
    let mut so_far = 0u128;
    for (i, n) in counts.enumerate() {
        so_far += u128::from(n);
        if n != 0 && so_far * 100 >= all * u128::from(percent) {
            return Some(i);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_models_bounds() {
        assert_eq!(size_bound(0), Some(16));
        assert_eq!(size_bound(SIZE_CLASSES - 2), Some(4 << 20));
        assert_eq!(size_bound(SIZE_CLASSES - 1), None);
        assert_eq!(lifetime_bound(1), Some(4096));
        assert_eq!(lifetime_bound(LIFETIME_CLASSES - 1), None);
    }

    #[test]
    fn a_quantile_is_the_first_class_that_holds_enough() {
        assert_eq!(quantile([0, 5, 5, 0].into_iter(), 50), Some(1));
        assert_eq!(quantile([0, 5, 5, 0].into_iter(), 51), Some(2));
        assert_eq!(quantile([0, 0].into_iter(), 50), None);
        assert_eq!(counts::<4>([&[1, 2][..], &[0, 1, 0, 0]].into_iter()), [1, 3]);
    }
}
