//! What a hole in glibc's heap was before its chunks were put together.
//!
//! Facts: a chunk's size word stands 8 bytes from its start, flags in the low three bits. `free`
//! writes the size of the whole into the first of the chunks that it puts together and leaves the
//! others' words where they are (`_int_free`, glibc malloc/malloc.c): the size of the chunk as it
//! was in use, or, where what lies behind was free already, the size up to the end of that.

use std::collections::HashMap;

/// Flag in a size word: the chunk has a mapping of its own.
const IS_MMAPPED: u64 = 2;
/// `MINSIZE`: the smallest chunk, bytes.
const LEAST: u64 = 32;
/// So many heads in a row that fit each other are no accident.
const ROW: usize = 16;
/// So many heads of chunks that end at the same address are none, either.
const SAME_END: usize = 4;

/// The parts of the hole from `from` to `to` that may have been chunks of `large` bytes or more:
/// what is left without rows of heads of smaller ones. `word` reads memory.
pub fn large_parts(
    from: u64,
    to: u64,
    large: u64,
    word: impl Fn(u64) -> Option<u64>,
) -> Vec<(u64, u64)> {
    // Where the chunk at `at` ends, if one may have begun there.
    let end = |at: u64| {
        let word = word(at + 8)?;
        let bytes = word & !7;
        let fits = word & IS_MMAPPED == 0 && bytes % 16 == 0 && bytes >= LEAST;
        (fits && bytes <= to.saturating_sub(at)).then(|| at + bytes)
    };
    let mut parts = Vec::new();
    let mut add = |from: u64, to: u64| {
        if to.saturating_sub(from) >= large {
            parts.push((from, to));
        }
    };
    let mut at = from;
    // The hole's own head says nothing of what it was.
    while let Some(row) = find_row(at + 16, to, large, &end) {
        add(at, row.start);
        at = row.start;
        match row.end {
            None => {
                while let Some(next) = end(at) {
                    add(at, next);
                    at = next;
                }
            }
            Some(common) => {
                let next = |at: u64| {
                    let mut near = (at + 16..common.min(at + large)).step_by(16);
                    near.find(|&near| end(near) == Some(common))
                };
                while let Some(next) = next(at) {
                    at = next;
                }
                if common - at < large {
                    at = common;
                }
            }
        }
    }
    add(at, to);
    parts
}

/// Heads of small chunks in a row.
struct Row {
    /// The first.
    start: u64,
    /// `None`: each ends where the next begins. Else where all of them end.
    end: Option<u64>,
}

fn find_row(from: u64, to: u64, large: u64, end: &impl Fn(u64) -> Option<u64>) -> Option<Row> {
    let mut ends: HashMap<u64, (u64, usize)> = HashMap::new();
    // Between two heads of small chunks lie less than `large` bytes.
    let reach = large.saturating_mul(SAME_END as u64);
    for start in (from..to.min(from.saturating_add(reach))).step_by(16) {
        let Some(first) = end(start) else { continue };
        let mut at = start;
        let follows = (0..ROW).all(|_| {
            let next = end(at).filter(|next| next - at < large);
            next.is_some_and(|next| {
                at = next;
                true
            })
        });
        if follows {
            return Some(Row { start, end: None });
        }
        let (start, count) = ends.entry(first).or_insert((start, 0));
        *count += 1;
        if *count == SAME_END {
            return Some(Row { start: *start, end: Some(first) });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 1000 * 16;

    fn parts(to: u64, heads: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let words: HashMap<u64, u64> =
            heads.iter().map(|&(at, bytes)| (at + 8, bytes | 1)).collect();
        large_parts(0, to, LARGE, |address| Some(words.get(&address).copied().unwrap_or(0)))
    }

    #[test]
    fn what_has_no_heads_was_one_chunk() {
        assert_eq!(parts(50_000, &[(0, 50_000)]), [(0, 50_000)]);
        assert_eq!(parts(1600, &[(0, 1600)]), []);
        // A few that fit are an accident.
        assert_eq!(parts(50_000, &[(160, 32), (192, 32)]), [(0, 50_000)]);
    }

    #[test]
    fn small_chunks_that_were_freed_one_after_the_other() {
        let heads: Vec<_> = (1..500).map(|i| (i * 160, 160)).collect();
        assert_eq!(parts(80_000, &heads), []);
        // A large one between them.
        let mut heads: Vec<_> = (1..100).map(|i| (i * 160, 160)).collect();
        heads.push((16_000, 32_000));
        heads.extend((0..200).map(|i| (48_000 + i * 160, 160)));
        assert_eq!(parts(80_000, &heads), [(16_000, 48_000)]);
    }

    #[test]
    fn small_chunks_that_were_freed_from_the_last_to_the_first() {
        let heads: Vec<_> = (1..500).map(|i| (i * 160, 80_000 - i * 160)).collect();
        assert_eq!(parts(80_000, &heads), []);
        // Chunks just below the bound, from the last to the first, and the other way round.
        let heads: Vec<_> = (1..20).map(|i| (i * 15_984, 319_680 - i * 15_984)).collect();
        assert_eq!(parts(319_680, &heads), []);
        let heads: Vec<_> = (1..40).map(|i| (i * 15_984, 15_984)).collect();
        assert_eq!(parts(40 * 15_984, &heads), []);
        // In front of a hole that a large one had left.
        let heads: Vec<_> = (1..=100).map(|i| (i * 160, 80_000 - i * 160)).collect();
        assert_eq!(parts(80_000, &heads), [(16_000, 80_000)]);
    }

    proptest::proptest! {
        #[test]
        fn any_memory_ends_and_stays_inside(
            words in proptest::collection::vec(0u64..6000, 0..600),
            to in 0u64..5000,
        ) {
            let to = to / 16 * 16;
            let word = |at: u64| words.get(at as usize / 8).map(|word| word * 16 + 1);
            let mut last = 0;
            for (from, end) in large_parts(0, to, 320, word) {
                proptest::prop_assert!(last <= from && from < end && end <= to);
                last = end;
            }
        }
    }
}
