//! Reading words fast, and the memory that malloc can have its own in.

use strandline_image::{Image, Mapping};

/// Reads words of an image, fast where they follow one another.
pub(crate) struct Words<'a> {
    image: &'a Image,
    start: u64,
    bytes: &'a [u8],
}

impl<'a> Words<'a> {
    pub(crate) fn new(image: &'a Image) -> Self {
        Words { image, start: 0, bytes: &[] }
    }

    /// The word at `address`, if it was copied.
    #[inline]
    pub(crate) fn at(&mut self, address: u64) -> Option<u64> {
        let at = address.wrapping_sub(self.start) as usize;
        match self.bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(word) => Some(u64::from_le_bytes(*word)),
            None => self.elsewhere(address),
        }
    }

    #[cold]
    fn elsewhere(&mut self, address: u64) -> Option<u64> {
        let bytes = self.image.slice_from(address)?;
        let Some(word) = bytes.first_chunk() else { return self.image.word(address) };
        (self.start, self.bytes) = (address, bytes);
        Some(u64::from_le_bytes(*word))
    }
}

/// No process has memory above: sums of addresses and sizes within it don't overflow.
const USER_END: u64 = 1 << 62;

/// True if malloc's chunks can lie in it.
pub(crate) fn is_heap_like(mapping: &Mapping) -> bool {
    // Huge pages asked for by glibc.malloc.hugetlb have a name like a file's.
    let anonymous = mapping.is_anonymous() && mapping.path != "[stack]"
        || mapping.path.starts_with("/anon_hugepage");
    mapping.read && mapping.write && !mapping.shared && anonymous && mapping.end <= USER_END
}

/// Memory that malloc's chunks can lie in, by address, neighbours joined: the kernel splits and
/// joins mappings as it likes (an madvise splits one).
pub(crate) fn runs(image: &Image) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for mapping in image.mappings().iter().filter(|m| is_heap_like(m) && m.start < m.end) {
        match runs.last_mut() {
            Some((_, end)) if *end == mapping.start => *end = mapping.end,
            Some((_, end)) if *end > mapping.start => {}
            _ => runs.push((mapping.start, mapping.end)),
        }
    }
    runs
}

/// The run that `address` lies in.
pub(crate) fn run_at(runs: &[(u64, u64)], address: u64) -> Option<(u64, u64)> {
    let after = runs.partition_point(|run| run.0 <= address);
    let run = *runs.get(after.checked_sub(1)?)?;
    (address < run.1).then_some(run)
}

/// `runs` without `holes`, which may come in any order and overlap.
pub(crate) fn without(runs: &[(u64, u64)], mut holes: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    holes.sort_unstable();
    let mut left = Vec::new();
    let mut next = 0;
    for &(start, end) in runs {
        let mut from = start;
        while let Some(&(hole, hole_end)) = holes.get(next).filter(|hole| hole.0 < end) {
            if hole > from {
                left.push((from, hole));
            }
            from = from.max(hole_end);
            if hole_end > end {
                break; // It may cover the next run, too.
            }
            next += 1;
        }
        if from < end {
            left.push((from, end));
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_cut_out() {
        let runs = [(0x10, 0x20), (0x30, 0x40), (0x50, 0x60)];
        assert_eq!(without(&runs, vec![]), runs);
        let holes = vec![(0x1c, 0x38), (0x12, 0x14), (0x13, 0x15), (0x60, 0x70)];
        assert_eq!(without(&runs, holes), [(0x10, 0x12), (0x15, 0x1c), (0x38, 0x40), (0x50, 0x60)]);
        assert_eq!(without(&runs, vec![(0, 0x100)]), []);
    }

    #[test]
    fn words_cross_pieces() {
        let image = Image::fixture(vec![(0x1000, vec![1; 0x1000]), (0x2000, vec![2; 0x1000])]);
        let mut words = Words::new(&image);
        assert_eq!(words.at(0x1000), Some(0x0101_0101_0101_0101));
        assert_eq!(words.at(0x1ffc), Some(0x0202_0202_0101_0101));
        assert_eq!(words.at(0x2000), Some(0x0202_0202_0202_0202));
        assert_eq!(words.at(0x2ffc), None);
        assert_eq!(words.at(0), None);
        assert_eq!(words.at(u64::MAX), None);
        assert_eq!(runs(&image), [(0x1000, 0x3000)]);
    }
}
