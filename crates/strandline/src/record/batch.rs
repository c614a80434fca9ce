//! Events that are taken out of a process's rings at once.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use strandline_capture::layout::{self, RING};

/// Words of a batch: it and what it is packed with shall stay in a processor's first cache.
const BATCH: usize = 2048;

/// Events as they came out of the rings, the oldest first. The rings' memory was written by other
/// processors: to copy from it is a wait for many lines at once, to work on it one for each.
pub struct Batch {
    /// One more than a batch is, for the birth of a last event.
    words: Box<[u64; BATCH + 1]>,
    len: usize,
    disowned: bool,
}

impl Batch {
    /// Words of a batch at most.
    pub const MOST: usize = BATCH + 1;

    pub fn new() -> Batch {
        Batch { words: Box::new([0; BATCH + 1]), len: 0, disowned: false }
    }

    /// Whole events: behind the word of a large block that was freed (`EVENT_FREED`) stands its
    /// birth.
    pub fn words(&self) -> &[u64] {
        self.words.get(..self.len).unwrap_or_default()
    }

    /// True if one of them is an `EVENT_DISOWNED`.
    pub fn disowned(&self) -> bool {
        self.disowned
    }

    /// Adds words of the ring from `at` to `until`, as far as there is room. Up to where that was.
    pub fn fill(&mut self, ring: &[AtomicU64; RING], at: u64, until: u64) -> u64 {
        let start = at as usize & (RING - 1);
        let room = (BATCH - self.len).min(RING - start);
        let wanted = (until - at).min(room as u64) as usize;
        let from = &ring[start..start + wanted];
        let to = &mut self.words[self.len..self.len + wanted];
        let (mut taken, mut kinds) = (0, 0);
        while taken < wanted {
            let told = from[taken].load(Relaxed);
            to[taken] = told;
            taken += 1;
            kinds |= told & told >> 1;
            if told & layout::EVENT_KIND == layout::EVENT_FREED {
                if taken == wanted {
                    self.words[self.len + taken] = ring[(start + taken) & (RING - 1)].load(Relaxed);
                    taken += 1;
                    break;
                }
                to[taken] = from[taken].load(Relaxed);
                taken += 1;
            }
        }
        self.len += taken;
        // Both bits of the kind.
        self.disowned |= kinds & 1 != 0;
        at + taken as u64
    }

    /// Adds one event; there has to be room.
    pub fn push(&mut self, told: u64, birth: u64) {
        let kind = told & layout::EVENT_KIND;
        let words = if kind == layout::EVENT_FREED { 2 } else { 1 };
        for (to, word) in self.words[self.len..].iter_mut().zip([told, birth]).take(words) {
            *to = word;
        }
        self.len += words;
        self.disowned |= kind == layout::EVENT_DISOWNED;
    }

    pub fn is_full(&self) -> bool {
        self.len >= BATCH
    }

    /// Hands it to `to`, and is empty.
    pub fn hand_on(&mut self, to: &mut impl FnMut(&Batch)) {
        to(self);
        (self.len, self.disowned) = (0, false);
    }
}

const _: () = assert!(layout::EVENT_DISOWNED == layout::EVENT_KIND);

#[cfg(test)]
mod tests {
    use super::*;

    /// Every third event has two words, and births look like any event.
    #[test]
    fn events_stay_whole_at_the_ends_of_batches_and_rings() {
        // So that the last word of the first batch is one of a pair.
        let mut words = vec![layout::event(layout::EVENT_ALLOCATED, 8, 1); 3];
        for i in 0..5 * RING as u64 / 8 {
            match i % 3 {
                0 => words.extend([layout::event(layout::EVENT_FREED, 7, 5000), i]),
                1 => words.push(layout::event(layout::EVENT_ALLOCATED, 8, i as usize)),
                _ => words.push(layout::event_freed_small(9, 3, i as u32)),
            }
        }
        // The ring's last word is one of a pair, in the first case the first.
        for start in [RING as u64 - 100, RING as u64 - 101, RING as u64 - 102] {
            let ring: Vec<_> = (0..RING).map(|_| AtomicU64::new(0)).collect();
            for (at, &word) in (start as usize..).zip(&words) {
                ring[at % RING].store(word, Relaxed);
            }
            let ring: Box<[AtomicU64; RING]> = ring.into_boxed_slice().try_into().unwrap();
            let (mut at, until) = (start, start + words.len() as u64);
            let (mut batch, mut found) = (Batch::new(), Vec::new());
            let mut to = |batch: &Batch| {
                assert!(!batch.disowned() && batch.words().len() <= Batch::MOST);
                found.push(batch.words().to_vec());
            };
            while at < until {
                at = batch.fill(&ring, at, until);
                if batch.is_full() || at == until {
                    batch.hand_on(&mut to);
                }
            }
            assert_eq!((at, found.concat()), (until, words.clone()));
            assert!(found.iter().any(|batch| batch.len() == Batch::MOST));
        }
    }

    #[test]
    fn a_disowned_block_is_seen() {
        let ring: Vec<_> = (0..RING).map(|_| AtomicU64::new(0)).collect();
        let ring: Box<[AtomicU64; RING]> = ring.into_boxed_slice().try_into().unwrap();
        ring[1].store(layout::event(layout::EVENT_DISOWNED, 7, 32), Relaxed);
        let mut batch = Batch::new();
        batch.fill(&ring, 0, 3);
        assert!(batch.disowned());
        batch.hand_on(&mut |batch| assert_eq!(batch.words().len(), 3));
        assert!(!batch.disowned() && batch.words().is_empty());
        batch.push(layout::event(layout::EVENT_FREED, 7, 5000), 3);
        assert!(!batch.disowned() && batch.words().len() == 2);
        batch.push(layout::event(layout::EVENT_DISOWNED, 7, 32), 0);
        assert!(batch.disowned() && batch.words().len() == 3);
    }
}
