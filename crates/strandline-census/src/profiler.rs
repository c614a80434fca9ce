//! strandline's own memory in a program that it runs: its library, the capture, and anonymous
//! memory that a list in the library's data names.

use strandline_capture::layout::{AGENT_NAME, CAPTURE_NAME, MAX_OWN_MAPS, OWN_MAPS_MAGIC};
use strandline_image::{Image, Mapping};

/// `OwnMaps` lies at a multiple of this, bytes.
const ALIGNMENT: usize = 16;

/// Address and end of every part, without overlap.
pub fn ranges(image: &Image) -> Vec<(u64, u64)> {
    let is = |m: &Mapping, name: &str| m.path.contains(name);
    let mut found = Vec::new();
    let mut library: Option<u64> = None;
    for m in image.mappings() {
        // The library's .bss follows its data without a gap.
        let continues = library == Some(m.start) && m.path.is_empty() && !m.shared;
        if is(m, AGENT_NAME) || is(m, CAPTURE_NAME) || continues {
            found.push((m.start, m.end));
        }
        if is(m, AGENT_NAME) || continues || is(m, CAPTURE_NAME) && library == Some(m.start) {
            library = Some(m.end);
            if m.write && !m.shared {
                found.extend(listed(image, m));
            }
        }
    }
    found.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in found {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// The agent's library's writable parts.
fn writable(image: &Image) -> impl Iterator<Item = &Mapping> {
    let mut library: Option<u64> = None;
    image.mappings().iter().filter(move |m| {
        let continues = library == Some(m.start) && m.path.is_empty() && !m.shared;
        let own = m.path.contains(AGENT_NAME) || continues;
        if own {
            library = Some(m.end);
        }
        own && m.write && !m.shared
    })
}

/// Addresses of the tables of pools and of chunks by which a block's tag is found (`run --stacks`).
pub fn tables(image: &Image) -> Option<(u64, u64)> {
    let at = writable(image).find_map(|m| list_in(image, m))?;
    let table = |offset| image.word(at + offset).filter(|&table| table != 0);
    Some((table(24)?, table(32)?))
}

/// Address of the list in `m`, if it is there.
fn list_in(image: &Image, m: &Mapping) -> Option<u64> {
    image.slices(m.start, m.end).into_iter().find_map(|(start, bytes)| {
        let words = bytes.chunks_exact(ALIGNMENT).position(|two| {
            let word = |i: usize| {
                two.get(8 * i..8 * i + 8)
                    .map(|w| u64::from_le_bytes(w.try_into().unwrap_or_default()))
            };
            [word(0), word(1)] == OWN_MAPS_MAGIC.map(Some)
        });
        words.map(|i| start + (i * ALIGNMENT) as u64)
    })
}

/// The ranges that the list in `m` names, if it is there.
fn listed(image: &Image, m: &Mapping) -> Vec<(u64, u64)> {
    let Some(at) = list_in(image, m) else { return Vec::new() };
    let count = image.word(at + 16).unwrap_or(0).min(MAX_OWN_MAPS as u64);
    let entry = |i| {
        let (from, to) = (image.word(at + 48 + 16 * i)?, image.word(at + 56 + 16 * i)?);
        // Anonymous memory that is there, not something else by accident.
        let inside = |a: u64| image.mapping_at(a).is_some_and(|m| m.inode == 0 && !m.shared);
        (from < to && inside(from) && inside(to - 1)).then_some((from, to))
    };
    (0..count).filter_map(entry).collect()
}
