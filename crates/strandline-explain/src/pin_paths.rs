//! Which lines asked for what keeps arenas, where a profile by call path is at hand.

use std::collections::BTreeMap;

use serde::Serialize;
use strandline_census::Pinned;

use crate::{count, mib};

/// A line that asked for what keeps memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PinPath {
    /// What it keeps: `arena`; `heap`, the end of one of malloc's; `thread_heap`, that of a heap of
    /// a thread's arena; `hole`, large holes of malloc that lie right below it.
    pub what: &'static str,
    /// `function (file:line)`.
    pub place: String,
    /// Its callers, the nearest first, of the call path with most of these objects.
    pub callers: Vec<String>,
    /// Number of objects and buffers.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Arenas in which nothing else is in use; heaps; holes.
    pub arenas: u64,
    /// Resident bytes that would come back if these objects sat elsewhere: those of these arenas,
    /// of the holes above what is below them, of the holes.
    pub held_bytes: u64,
    /// The same in words.
    pub text: String,
}

/// Lines that are named.
const NAMED: usize = 10;

/// By line, most bytes first. `places`: for a tag its call path, innermost first, if it is known.
pub fn pin_paths(pinned: &Pinned, places: impl Fn(u32) -> Option<Vec<String>>) -> Vec<PinPath> {
    let mut known: BTreeMap<u32, Option<Vec<String>>> = BTreeMap::new();
    let mut lines: BTreeMap<String, (PinPath, u64)> = BTreeMap::new();
    for arena in &pinned.tagged {
        let mut only: Option<String> = None;
        let mut one = true;
        for &(tag, blocks, bytes) in &arena.tags {
            let path = known.entry(tag).or_insert_with(|| places(tag));
            let Some((place, callers)) = path.as_deref().and_then(<[String]>::split_first) else {
                one = false;
                continue;
            };
            one &= only.as_ref().is_none_or(|only| only == place);
            only.get_or_insert_with(|| place.clone());
            let (line, most) = lines.entry(place.clone()).or_default();
            line.blocks += blocks;
            line.bytes += bytes;
            if blocks > *most {
                *most = blocks;
                line.callers = callers.to_vec();
            }
        }
        if let Some((line, _)) = only.filter(|_| one).and_then(|place| lines.get_mut(&place)) {
            line.arenas += 1;
            line.held_bytes += arena.held_bytes;
        }
    }
    let mut all: Vec<PinPath> = lines
        .into_iter()
        .map(|(place, (line, _))| {
            let text = text(&place, &line, pinned);
            PinPath { what: "arena", place, text, ..line }
        })
        .collect();
    all.sort_by(|a, b| (b.held_bytes, b.blocks, &a.place).cmp(&(a.held_bytes, a.blocks, &b.place)));
    all.truncate(NAMED);
    all
}

fn text(place: &str, line: &PinPath, pinned: &Pinned) -> String {
    let part = line.held_bytes as f64 * 100.0 / pinned.held_bytes.max(1) as f64;
    format!(
        "if the {} blocks allocated at {place} did not sit among them, {part:.0} % of {} would \
         return",
        count(line.blocks),
        mib(pinned.held_bytes)
    )
}

#[cfg(test)]
mod tests {
    use strandline_census::TaggedArena;

    use super::*;

    #[test]
    fn an_arena_goes_back_when_one_line_is_all_that_keeps_it() {
        let arena =
            |held_bytes, tags: &[(u32, u64, u64)]| TaggedArena { held_bytes, tags: tags.to_vec() };
        let pinned = Pinned {
            held_bytes: 400,
            tagged: vec![
                arena(100, &[(1, 2, 64), (2, 1, 32)]),
                arena(100, &[(1, 1, 32)]),
                arena(100, &[(1, 1, 32), (3, 1, 32)]),
                arena(100, &[(3, 1, 32), (0, 1, 32)]),
            ],
            ..Pinned::default()
        };
        let path = |tag| match tag {
            1 => Some(vec!["f (a.py:1)".to_owned(), "g (a.py:9)".to_owned()]),
            2 => Some(vec!["f (a.py:1)".to_owned()]),
            3 => Some(vec!["h (b.py:2)".to_owned()]),
            _ => None,
        };
        let found = pin_paths(&pinned, path);
        let short: Vec<_> =
            found.iter().map(|p| (p.place.as_str(), p.blocks, p.arenas, p.held_bytes)).collect();
        assert_eq!(short, [("f (a.py:1)", 5, 2, 200), ("h (b.py:2)", 2, 0, 0)]);
        assert_eq!(found[0].callers, ["g (a.py:9)"]);
        assert!(found[0].text.contains("50 %"), "{}", found[0].text);
    }
}
