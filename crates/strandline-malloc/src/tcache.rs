//! Threads' caches. The chunks in them look used; only the cache's lists tell.
//!
//! Where a thread's cache is, its thread-local storage knows, at an offset that no fixed place
//! tells. But it is a chunk of a known size with lists of a known form in it, and without any
//! chunk in its lists it doesn't matter.

use std::collections::HashMap;

use crate::chunk::State;
use crate::layout::{TcacheKey, TcacheLayout, TCACHES, TCACHE_SMALL};
use crate::lists::{Book, Place};

/// What was found of the caches.
#[derive(Default)]
pub(crate) struct Tcaches {
    /// Addresses of the structs.
    pub structs: Vec<u64>,
    pub key: Option<u64>,
}

/// A chunk that can be a cache.
struct Candidate {
    address: u64,
    layout: usize,
    key: Option<u64>,
    chunks: Vec<Place>,
}

/// Bytes by which the chunk may be larger than asked for: 16 where the rest couldn't be cut off;
/// 32 was seen on 2.43.
const MOST_EXCESS: u64 = 64;
/// Caches are believed up to this number, one a thread.
const MOST_CACHES: usize = 1 << 20;

impl Book<'_> {
    /// Marks what is in the threads' caches.
    pub(crate) fn tcaches(&mut self) -> Tcaches {
        let mut candidates = Vec::new();
        for (layout, form) in TCACHES.iter().enumerate() {
            for heap in &*self.heaps {
                let fits = |size| (form.chunk..=form.chunk + MOST_EXCESS).contains(&size);
                let chunks = heap.chunks().filter(|c| c.state() == State::InUse && fits(c.size()));
                candidates.extend(chunks.filter_map(|c| self.candidate(c.user(), layout)));
            }
            candidates.truncate(MOST_CACHES);
        }
        // One glibc, one layout, one key: those of most chunks.
        let mut votes: HashMap<(usize, Option<u64>), usize> = HashMap::new();
        for candidate in &candidates {
            *votes.entry((candidate.layout, candidate.key)).or_default() += candidate.chunks.len();
        }
        let elected = votes.into_iter().max_by_key(|(which, votes)| (*votes, which.0));
        let Some((elected, _)) = elected else { return Tcaches::default() };
        let mut found = Tcaches { structs: Vec::new(), key: elected.1 };
        for candidate in candidates {
            if (candidate.layout, candidate.key) == elected {
                found.structs.push(candidate.address);
                for place in candidate.chunks {
                    self.mark(place, State::Tcache);
                }
            }
        }
        found
    }

    /// The struct at `address`, if it can be one and has a chunk in any list.
    fn candidate(&self, address: u64, layout: usize) -> Option<Candidate> {
        let form = &TCACHES[layout];
        let mut chunks = Vec::new();
        let mut key = None;
        for number in 0..form.lists {
            let first = self.image.word(address + form.lists * form.number + number * 8)?;
            if form.counts && (self.count(address, form, number)? == 0) != (first == 0) {
                return None;
            }
            if first == 0 {
                continue;
            }
            let small = 32 + number * 16;
            let size = |size| {
                if number < TCACHE_SMALL {
                    size == small
                } else {
                    size >= 32 + TCACHE_SMALL * 16
                }
            };
            let word_two = |chunk: u64| self.image.word(chunk.checked_add(24)?);
            let wanted = match form.key {
                TcacheKey::None => None,
                TcacheKey::Struct => Some(address),
                TcacheKey::Random => Some(*key.get_or_insert(word_two(first.checked_sub(16)?)?)),
            };
            let fits =
                |chunk, bytes| size(bytes) && (wanted.is_none() || word_two(chunk) == wanted);
            let list = self.list(first, 16, form.protected, &fits).ok()?;
            if form.counts && list.len() as u64 != self.count(address, form, number)? {
                return None;
            }
            chunks.extend(list);
        }
        // The random number has many bits set and many clear (`tcache_key_initialize`).
        let random = key.is_none_or(|key: u64| (16..=48).contains(&key.count_ones()));
        (random && !chunks.is_empty()).then_some(Candidate { address, layout, key, chunks })
    }

    fn count(&self, address: u64, form: &TcacheLayout, list: u64) -> Option<u64> {
        match form.number {
            1 => self.image.byte(address + list).map(u64::from),
            _ => self.image.half(address + list * 2).map(|half| u64::from(half as u16)),
        }
    }
}
