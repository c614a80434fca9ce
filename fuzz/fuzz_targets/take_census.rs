//! Any memory: a census must return, must not panic, and its classes must add up to what is
//! resident.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strandline_census::{take, Options};
use strandline_image::{Image, Mapping, PageSet, Piece, Source, Thread, PAGE};

/// Where the memory begins. The fuzzer finds it, and so pointers, by itself.
const START: u64 = 0x10_0000;

fuzz_target!(|data: &[u8]| {
    let [parts, rest @ ..] = data else { return };
    let parts = usize::from(parts % 6) + 1;
    let (mut mappings, mut pieces, mut start) = (Vec::new(), Vec::new(), START);
    for (i, part) in rest.chunks(rest.len() / parts + 1).enumerate() {
        let mut bytes = part.to_vec();
        let pages = bytes.len().div_ceil(PAGE as usize);
        bytes.resize(pages * PAGE as usize, 0);
        let end = start + bytes.len() as u64;
        let is_library = i == 1;
        mappings.push(Mapping {
            start,
            end,
            read: true,
            write: i != 0,
            inode: u64::from(is_library),
            path: if is_library { "/lib/libpython3.11.so".to_owned() } else { String::new() },
            resident: PageSet::all(pages),
            ..Mapping::default()
        });
        pieces.push(Piece { start, bytes: Box::new(bytes) });
        start = end;
    }
    let thread = Thread { tid: 1, name: String::new(), stack_pointer: Some(START + 64), tls: Some(START) };
    let image = Image::new(mappings, pieces, vec![thread], Source::Fixture, None);
    let census = take(&image, &Options { paths: 3, holders: true });
    let resident = image.resident_bytes(0, u64::MAX);
    assert_eq!(census.rss_bytes, resident);
    assert_eq!(census.classes.iter().map(|c| c.bytes).sum::<u64>(), resident);
});
