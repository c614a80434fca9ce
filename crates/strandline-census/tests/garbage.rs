//! Whatever memory holds, a census ends, and its classes add up to what is resident.

use proptest::prelude::*;

use strandline_census::{take, Options};
use strandline_image::{Image, Mapping, PageSet, Piece, Source, PAGE};

/// Words as they occur in real memory: small numbers, addresses of the image itself, texts that
/// look like a version.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => Just(0u64),
        2 => 0u64..0x1_0000,
        4 => (0u64..0x80).prop_map(|page| 0x10_0000 + page * 0x400),
        2 => (0u64..0x8000).prop_map(|word| 0x10_0000 + word * 16),
        1 => any::<u64>(),
        1 => Just(u64::from_le_bytes(*b"3.11.7 (")),
        1 => Just(u64::from_le_bytes(*b"xdebugpy")),
    ]
}

fn image(parts: Vec<Vec<u64>>, named: Vec<bool>, holes: Vec<bool>) -> Image {
    let mut mappings = Vec::new();
    let mut pieces = Vec::new();
    let mut start = 0x10_0000;
    for (i, words) in parts.into_iter().enumerate() {
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let pages = bytes.len().div_ceil(PAGE as usize).max(1);
        bytes.resize(pages * PAGE as usize, 0);
        let mut resident = PageSet::all(pages);
        if holes.get(i) == Some(&true) {
            resident = PageSet::none(pages);
            resident.insert(0, pages / 2);
        }
        let file = named.get(i) == Some(&true);
        mappings.push(Mapping {
            start,
            end: start + bytes.len() as u64,
            read: true,
            write: i % 3 != 0,
            execute: i % 3 == 0 && file,
            inode: u64::from(file),
            path: if file { "/lib/libpython3.11.so".to_owned() } else { String::new() },
            resident,
            ..Mapping::default()
        });
        let len = bytes.len() as u64;
        pieces.push(Piece { start, bytes: Box::new(bytes) });
        start += len;
    }
    Image::new(mappings, pieces, Vec::new(), Source::Fixture, None)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_memory_is_survived(
        parts in prop::collection::vec(prop::collection::vec(word(), 1..3000), 1..6),
        named in prop::collection::vec(any::<bool>(), 6),
        holes in prop::collection::vec(any::<bool>(), 6),
    ) {
        let image = image(parts, named, holes);
        let census = take(&image, &Options { paths: 3, holders: true });
        let resident: u64 = image.resident_bytes(0, u64::MAX);
        prop_assert_eq!(census.rss_bytes, resident);
        prop_assert_eq!(census.classes.iter().map(|c| c.bytes).sum::<u64>(), resident);
    }
}
