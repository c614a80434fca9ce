//! Which lines asked for what keeps malloc's heaps long, where a profile by call path is at hand.

use std::collections::BTreeMap;

use strandline_census::{HeapReport, TaggedChunks};

use crate::pin_paths::PinPath;
use crate::{count, mib};

/// Lines that are named, of each kind.
const NAMED: usize = 5;
/// A hole of this size is large, bytes.
const LARGE: u64 = 64 << 10;

/// The line that asked for the last chunks of a heap, and what would go back with them elsewhere;
/// and the lines right above large holes. `places` as in [`crate::pin_paths`].
///
/// Fact: `free` moves the end of a heap down to the last chunk in use (`systrim` and `heap_trim`,
/// glibc malloc/malloc.c and malloc/arena.c).
pub fn heap_paths(
    heaps: &[HeapReport],
    places: impl Fn(u32) -> Option<Vec<String>>,
) -> Vec<PinPath> {
    let mut known: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for run in heaps.iter().flat_map(|heap| &heap.tagged) {
        known.entry(run.tag).or_insert_with(|| places(run.tag).unwrap_or_default());
    }
    let path = |run: &TaggedChunks| known.get(&run.tag).and_then(|path| path.split_first());
    let mut ends: BTreeMap<(&'static str, &str), PinPath> = BTreeMap::new();
    let mut holes: BTreeMap<&str, PinPath> = BTreeMap::new();
    for heap in heaps {
        if let Some((last, callers)) = heap.tagged.first().and_then(path) {
            let of_line = |run: &&TaggedChunks| path(run).is_some_and(|(place, _)| place == last);
            let what = if heap.is_threads { "thread_heap" } else { "heap" };
            let line = ends.entry((what, last)).or_default();
            line.callers = callers.to_vec();
            line.arenas += 1;
            for run in heap.tagged.iter().take_while(of_line) {
                line.blocks += run.blocks;
                line.bytes += run.bytes;
                line.held_bytes += run.below_bytes;
            }
        }
        for run in heap.tagged.iter().filter(|run| run.largest_bytes >= LARGE) {
            let Some((place, callers)) = path(run) else { continue };
            let line = holes.entry(place).or_default();
            line.callers = callers.to_vec();
            line.arenas += 1;
            line.blocks += run.blocks;
            line.bytes += run.bytes;
            line.held_bytes += run.below_bytes;
        }
    }
    let mut ends: Vec<PinPath> = ends
        .into_iter()
        .map(|((what, place), line)| {
            let whose = if what == "heap" { "malloc's heap" } else { "a thread's heap" };
            let text = format!(
                "if the {} blocks allocated at {place} did not sit at the end of {whose}, {} below \
                 them would return",
                count(line.blocks),
                mib(line.held_bytes)
            );
            PinPath { what, place: place.to_owned(), text, ..line }
        })
        .collect();
    let mut holes: Vec<PinPath> = holes
        .into_iter()
        .map(|(place, line)| {
            let text = format!(
                "{} of free chunks lie right below {} blocks allocated at {place}; malloc_trim(0) \
                 gives back their pages",
                mib(line.held_bytes),
                count(line.blocks),
            );
            PinPath { what: "hole", place: place.to_owned(), text, ..line }
        })
        .collect();
    for list in [&mut ends, &mut holes] {
        list.sort_by(|a, b| (b.held_bytes, &a.place).cmp(&(a.held_bytes, &b.place)));
        list.truncate(NAMED);
    }
    ends.extend(holes);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(tag: u32, blocks: u64, below_bytes: u64) -> TaggedChunks {
        TaggedChunks { tag, blocks, bytes: 100, below_bytes, largest_bytes: below_bytes }
    }

    fn place(tag: u32) -> Option<Vec<String>> {
        match tag {
            1 | 2 => Some(vec!["f (a.py:1)".to_owned(), format!("g (a.py:{tag})")]),
            3 => Some(vec!["h (b.py:2)".to_owned()]),
            _ => None,
        }
    }

    #[test]
    fn the_end_goes_back_down_to_the_next_line() {
        let tagged =
            vec![run(1, 2, 0), run(2, 1, 300 << 10), run(3, 4, 5 << 20), run(1, 9, 1 << 20)];
        let heap = HeapReport { tagged, ..HeapReport::default() };
        let found = heap_paths(&[heap], place);
        let short: Vec<_> =
            found.iter().map(|p| (p.what, p.place.as_str(), p.blocks, p.held_bytes)).collect();
        assert_eq!(
            short,
            [
                ("heap", "f (a.py:1)", 3, 300 << 10),
                ("hole", "h (b.py:2)", 4, 5 << 20),
                ("hole", "f (a.py:1)", 10, (1 << 20) + (300 << 10)),
            ]
        );
        assert_eq!(found[0].callers, ["g (a.py:1)"]);
        assert!(found[0].text.contains("0.3 MiB below them would return"), "{}", found[0].text);
    }

    #[test]
    fn what_nobody_is_known_for_names_no_line() {
        let tagged = vec![run(0, 1, 5 << 20)];
        let heap = HeapReport { is_threads: true, tagged, ..HeapReport::default() };
        assert_eq!(heap_paths(&[heap], place), []);
    }
}
