//! mimalloc's segments, pages and blocks, where the objects of free-threaded builds are.
//!
//! A segment lies at a multiple of its size and describes itself: nothing else has to be found.

use std::collections::HashMap;

use strandline_cpython::Mimalloc;
use strandline_image::Image;

/// Slices in front of the first page that are believed.
const MOST_INFO: u64 = 8;
/// Slices of a segment that are believed: a huge block may have a segment of its own.
const MOST_SLICES: u64 = 1 << 26;

/// What a heap of CPython's holds (`_Py_MIMALLOC_HEAP_*`, Include/internal/pycore_mimalloc.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heap {
    /// Memory that is no object.
    Memory,
    /// Objects that the collector doesn't know.
    Objects,
    /// Objects of the collector.
    Collected,
    /// The same, with two words in front: dict and weak references.
    CollectedBehind,
}

impl Heap {
    fn of_tag(tag: u8) -> Option<Heap> {
        match tag {
            0 => Some(Heap::Memory),
            1 => Some(Heap::Objects),
            2 => Some(Heap::Collected),
            3 => Some(Heap::CollectedBehind),
            _ => None,
        }
    }

    /// Bytes in front of an object; `None` where there is none.
    pub fn front(self) -> Option<u64> {
        match self {
            Heap::Memory => None,
            Heap::Objects | Heap::Collected => Some(0),
            Heap::CollectedBehind => Some(16),
        }
    }
}

/// A page: slices with blocks of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// First address of its slices.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Address of the first block.
    pub first: u64,
    /// Bytes of a block.
    pub block: u64,
    /// Blocks that were ever handed out.
    pub capacity: u64,
    /// Which of them are free.
    pub free: Vec<bool>,
    /// Whose it is.
    pub heap: Heap,
}

impl Page {
    /// Addresses of the live blocks.
    pub fn live(&self) -> impl Iterator<Item = u64> + '_ {
        let free = self.free.iter().enumerate();
        free.filter(|(_, free)| !**free).map(|(i, _)| self.first + i as u64 * self.block)
    }

    /// Address after the last block that was ever handed out.
    pub fn blocks_end(&self) -> u64 {
        (self.first + self.capacity * self.block).min(self.end)
    }
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Bytes at its start that describe it.
    pub info: u64,
    /// Its pages, by address. What lies between them is free.
    pub pages: Vec<Page>,
}

fn member(image: &Image, at: u64, offset: u16) -> Option<u64> {
    image.word(at.checked_add(offset as u64)?)
}

/// The segment at `start`, if there may be one, and its number that all have in common.
fn segment_at(image: &Image, l: &Mimalloc, start: u64) -> Option<(Segment, u64)> {
    let slices = member(image, start, l.segment_slices)?;
    let info = member(image, start, l.info_slices)?;
    let entries = member(image, start, l.slice_entries)?;
    let most = (l.segment / l.slice) as u64 + 1;
    let plausible = (1..MOST_SLICES).contains(&slices)
        && (1..=MOST_INFO).contains(&info)
        && (info..=most).contains(&entries)
        && entries <= slices;
    if !plausible {
        return None;
    }
    let end = start.checked_add(slices * l.slice as u64)?;
    let mut segment = Segment { start, end, info: info * l.slice as u64, pages: Vec::new() };
    let mut at = info;
    while at < entries {
        let entry = start + l.slices as u64 + at * l.entry as u64;
        let count = u64::from(image.half(entry)?);
        if count == 0 || at + count > slices {
            return None;
        }
        segment.pages.extend(page_at(image, l, entry, start + at * l.slice as u64, count));
        at += count;
    }
    let cookie = member(image, start, l.cookie)? ^ start;
    Some((segment, cookie))
}

/// The page whose entry is at `entry`; nothing if its slices are free.
fn page_at(image: &Image, l: &Mimalloc, entry: u64, start: u64, slices: u64) -> Option<Page> {
    let end = start + slices * l.slice as u64;
    let block = u64::from(image.half(entry + l.block_size as u64)?);
    if block < 8 {
        return None;
    }
    let tag = image.byte(entry + l.tag as u64)? >> l.tag_shift & l.tag_mask;
    let capacity = u64::from(image.half(entry + l.capacity as u64 - 2)? >> 16);
    // `_mi_segment_page_start_from_slice` (Objects/mimalloc/segment.c, 3.13).
    let first = start
        + match block {
            0..=64 => 3 * block,
            65..=512 => block,
            _ => 0,
        };
    // The one block of a page of its own may be larger than 32 bits say.
    let block = block.min(end - first);
    let capacity = capacity.min((end - first) / block);
    let mut page = Page {
        start,
        end,
        first,
        block,
        capacity,
        free: vec![false; capacity as usize],
        heap: Heap::of_tag(tag)?,
    };
    for list in [l.free, l.local_free, l.thread_free] {
        let mut next = member(image, entry, list)? & !3;
        for _ in 0..capacity {
            let number = next.wrapping_sub(first) / block;
            let Some(free) = page.free.get_mut(number as usize).filter(|_| next >= first) else {
                break;
            };
            *free = true;
            next = image.word(next).unwrap_or(0);
        }
    }
    Some(page)
}

/// All segments of the image.
pub fn read(image: &Image, l: &Mimalloc) -> Vec<Segment> {
    let size = l.segment as u64;
    let mut found: Vec<(Segment, u64)> = Vec::new();
    for m in image.mappings().iter().filter(|m| m.is_anonymous() && m.write && !m.shared) {
        let mut at = m.start.checked_next_multiple_of(size).unwrap_or(u64::MAX);
        while at < m.end {
            let segment = segment_at(image, l, at)
                .filter(|(s, _)| found.last().is_none_or(|(last, _)| last.end <= s.start));
            found.extend(segment);
            // A reservation may be of terabytes: go on where there is something.
            let next = image.next_copied(at.saturating_add(size)).unwrap_or(u64::MAX);
            at = (at.saturating_add(size)).max(next / size * size);
        }
    }
    // Those of one process have one number in common.
    let mut votes: HashMap<u64, usize> = HashMap::new();
    found.iter().for_each(|(_, cookie)| *votes.entry(*cookie).or_default() += 1);
    let common = votes.into_iter().max_by_key(|&(cookie, n)| (n, cookie)).map(|(cookie, _)| cookie);
    found.into_iter().filter(|(_, c)| Some(*c) == common).map(|(s, _)| s).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 32 << 20;

    fn layout() -> &'static Mimalloc {
        strandline_cpython::free_threaded(3, 13).map(|(_, layout)| layout).expect("3.13 is known")
    }

    /// A segment with one page of 100 blocks of 48 bytes, of which every tenth is free.
    fn segment() -> Vec<u8> {
        let l = layout();
        let mut bytes = vec![0u8; 3 * l.slice as usize];
        let mut put = |at: u64, value: u64| {
            bytes[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        };
        put(l.cookie as u64, START ^ 0x1234_5678);
        put(l.segment_slices as u64, 3);
        put(l.info_slices as u64, 1);
        put(l.slice_entries as u64, 3);
        let entry = l.slices as u64 + l.entry as u64;
        put(entry, 1);
        // Tag 2, capacity 100.
        put(entry + 8, 2 << 3 | 100 << 16);
        put(entry + 24, 90 | 48 << 32);
        let first = l.slice as u64 + 3 * 48;
        put(entry + l.free as u64, START + first);
        for i in 0..10 {
            let next = if i == 9 { 0 } else { START + first + (i + 1) * 480 };
            put(first + i * 480, next);
        }
        // The third slice is free.
        put(l.slices as u64 + 2 * l.entry as u64, 1);
        bytes
    }

    #[test]
    fn a_segment_describes_itself() {
        let image = Image::fixture(vec![(START, segment())]);
        let found = read(&image, layout());
        assert_eq!(found.len(), 1);
        let s = &found[0];
        assert_eq!((s.start, s.end - s.start, s.info), (START, 3 << 16, 1 << 16));
        assert_eq!(s.pages.len(), 1);
        let page = &s.pages[0];
        assert_eq!((page.block, page.capacity, page.heap), (48, 100, Heap::Collected));
        assert_eq!(page.live().count(), 90);
        assert!(page.free.iter().enumerate().all(|(i, &free)| free == (i % 10 == 0)));
    }

    proptest! {
        #[test]
        fn any_segment_is_survived(
            changes in prop::collection::vec((0usize..70_000, prop_oneof![
                any::<u64>(), 0u64..200, (0u64..0x4000).prop_map(|w| START + 8 * w)
            ]), 0..60),
        ) {
            let mut bytes = segment();
            for (at, value) in changes {
                bytes[8 * (at / 8)..][..8].copy_from_slice(&value.to_le_bytes());
            }
            let image = Image::fixture(vec![(START, bytes)]);
            for s in read(&image, layout()) {
                let mut at = s.start + s.info;
                for page in &s.pages {
                    prop_assert!(page.start >= at && page.end <= s.end && page.block > 0);
                    prop_assert!(page.first <= page.blocks_end());
                    at = page.end;
                }
            }
        }
    }
}
