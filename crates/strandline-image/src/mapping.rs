//! Mappings and the state of their pages.

/// Size of a page, bytes: x86-64 and the usual arm64 kernels.
pub const PAGE: u64 = 4096;

/// Pages of one mapping, a bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
}

impl PageSet {
    /// No page of `pages`.
    pub fn none(pages: usize) -> Self {
        PageSet { words: vec![0; pages.div_ceil(64)] }
    }

    /// Every page of `pages`.
    pub fn all(pages: usize) -> Self {
        let mut set = Self::none(pages);
        set.insert(0, pages);
        set
    }

    /// Adds pages `from..to`; those beyond the set's length are ignored.
    pub fn insert(&mut self, from: usize, to: usize) {
        let to = to.min(self.words.len() * 64);
        let mut page = from;
        while page < to {
            let bit = page % 64;
            let run = (64 - bit).min(to - page);
            let mask = if run == 64 { u64::MAX } else { ((1u64 << run) - 1) << bit };
            self.words[page / 64] |= mask;
            page += run;
        }
    }

    /// True if `page` is in the set.
    pub fn contains(&self, page: usize) -> bool {
        self.words.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 != 0)
    }

    /// Number of pages of `from..to` in the set.
    pub fn count(&self, from: usize, to: usize) -> usize {
        let to = to.min(self.words.len() * 64);
        let mut page = from;
        let mut sum = 0;
        while page < to {
            let bit = page % 64;
            let run = (64 - bit).min(to - page);
            let mask = if run == 64 { u64::MAX } else { ((1u64 << run) - 1) << bit };
            sum += (self.words[page / 64] & mask).count_ones() as usize;
            page += run;
        }
        sum
    }

    /// Runs of consecutive pages in the set, as `from..to`.
    pub fn runs(&self) -> Runs<'_> {
        Runs { set: self, page: 0 }
    }
}

/// See [`PageSet::runs`].
pub struct Runs<'a> {
    set: &'a PageSet,
    page: usize,
}

impl Runs<'_> {
    /// First page at or after `page` whose membership is `wanted`.
    fn next_page(&self, page: usize, wanted: bool) -> Option<usize> {
        let words = &self.set.words;
        let flip = if wanted { 0 } else { u64::MAX };
        let mut index = page / 64;
        let mut word = (*words.get(index)? ^ flip) & (u64::MAX << (page % 64));
        while word == 0 {
            index += 1;
            word = *words.get(index)? ^ flip;
        }
        Some(index * 64 + word.trailing_zeros() as usize)
    }
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let from = self.next_page(self.page, true)?;
        let to = self.next_page(from, false).unwrap_or(self.set.words.len() * 64);
        self.page = to;
        Some((from, to))
    }
}

/// What the kernel says of a mapping (proc_pid_smaps(5)), bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident.
    pub rss: u64,
    /// Resident, each page divided by the number of processes that map it.
    pub pss: u64,
    /// Resident pages that other processes map, too.
    pub shared: u64,
    /// Resident pages that no other process maps.
    pub private: u64,
    /// Resident and not the page of a file.
    pub anonymous: u64,
    /// Swapped out.
    pub swap: u64,
    /// Resident in transparent or other huge pages of anonymous memory.
    pub huge: u64,
}

/// One mapping of the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// Offset in the file, bytes.
    pub offset: u64,
    /// Inode of the file, 0 for none.
    pub inode: u64,
    /// Path as the target sees it, or a name in brackets such as `[heap]`; empty for none.
    pub path: String,
    /// What the kernel says of it; `None` where nobody can (a core file).
    pub usage: Option<Usage>,
    /// Pages that are resident; in a core file: that were written to it.
    pub resident: PageSet,
    /// Pages that are swapped out.
    pub swapped: PageSet,
}

impl Mapping {
    /// Size, bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// True if the mapping has no bytes.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// True if no file is behind it (names in brackets are no files).
    pub fn is_anonymous(&self) -> bool {
        self.inode == 0 && !self.path.starts_with('/')
    }

    /// True if what is behind it is no file that can be opened: shared memory.
    pub fn is_memory(&self) -> bool {
        let path = self.path.trim_end_matches(" (deleted)");
        let names = ["/dev/shm/", "/memfd:", "/SYSV", "/dev/zero"];
        path.is_empty() || names.iter().any(|name| path.starts_with(name))
    }

    /// Number of the page that `address` lies in.
    pub fn page_of(&self, address: u64) -> usize {
        (address.saturating_sub(self.start) / PAGE) as usize
    }

    /// Resident bytes of `from..to`, the parts of pages at both ends included in proportion.
    pub fn resident_bytes(&self, from: u64, to: u64) -> u64 {
        let (from, to) = (from.max(self.start), to.min(self.end));
        if from >= to {
            return 0;
        }
        let (first, last) = (self.page_of(from), self.page_of(to - 1));
        if first == last {
            return if self.resident.contains(first) { to - from } else { 0 };
        }
        let mut bytes = self.resident.count(first + 1, last) as u64 * PAGE;
        if self.resident.contains(first) {
            bytes += self.start + (first as u64 + 1) * PAGE - from;
        }
        if self.resident.contains(last) {
            bytes += to - (self.start + last as u64 * PAGE);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_counts_cross_words() {
        let mut set = PageSet::none(200);
        set.insert(3, 5);
        set.insert(60, 130);
        set.insert(199, 200);
        assert_eq!(set.runs().collect::<Vec<_>>(), [(3, 5), (60, 130), (199, 200)]);
        assert_eq!(set.count(0, 200), 2 + 70 + 1);
        assert_eq!(set.count(4, 64), 1 + 4);
        assert_eq!(set.count(150, 10_000), 1);
        assert!(set.contains(129) && !set.contains(130) && !set.contains(100_000));
        assert_eq!(PageSet::all(65).count(0, 65), 65);
    }

    #[test]
    fn parts_of_pages_are_counted_in_bytes() {
        let mut resident = PageSet::none(4);
        resident.insert(1, 3);
        let m = Mapping { start: 0x10000, end: 0x14000, resident, ..Mapping::default() };
        assert_eq!(m.resident_bytes(0x10000, 0x14000), 2 * PAGE);
        assert_eq!(m.resident_bytes(0x10ff0, 0x11010), 0x10);
        assert_eq!(m.resident_bytes(0x11ff0, 0x12010), 0x20);
        assert_eq!(m.resident_bytes(0x12ff0, 0x13010), 0x10);
        assert_eq!(m.resident_bytes(0x11004, 0x11008), 4);
        assert_eq!(m.resident_bytes(0x20000, 0x30000), 0);
    }
}
