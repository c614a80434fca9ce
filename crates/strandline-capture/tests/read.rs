//! Reading captures: hand-made ones, and any bytes at all.

use std::collections::BTreeMap;
use std::io;
use std::mem::{offset_of, size_of};

use proptest::prelude::*;
use strandline_capture::layout::{self, Region, RegionHead};
use strandline_capture::read::{read, regions, Bytes, Capture, ReadError, Refusal, State};

/// A sparse file: what was written, zeros elsewhere.
#[derive(Debug)]
struct Sparse {
    length: u64,
    written: BTreeMap<u64, u8>,
}

impl Bytes for Sparse {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (self.length.saturating_sub(offset) as usize).min(buffer.len());
        buffer[..n].fill(0);
        for (at, byte) in self.written.range(offset..offset + n as u64) {
            buffer[(at - offset) as usize] = *byte;
        }
        Ok(n)
    }
}

impl Sparse {
    fn new(regions: u32) -> Sparse {
        let mut s = Sparse { length: layout::FILE_BYTES as u64, written: BTreeMap::new() };
        s.put(offset_of!(layout::Header, magic) as u64, &layout::MAGIC.to_le_bytes());
        s.put(offset_of!(layout::Header, version) as u64, &layout::VERSION.to_le_bytes());
        s.put(offset_of!(layout::Header, regions) as u64, &regions.to_le_bytes());
        s
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        for (i, b) in bytes.iter().enumerate() {
            self.written.insert(at + i as u64, *b);
        }
    }

    fn region(&mut self, index: u64) -> Builder<'_> {
        let base = layout::HEADER_BYTES as u64 + index * layout::REGION_STRIDE as u64;
        let mut b = Builder { file: self, base, strings: 1 };
        b.head32(offset_of!(RegionHead, state), layout::STATE_RUNNING);
        for count in [
            offset_of!(RegionHead, tags),
            offset_of!(RegionHead, sites),
            offset_of!(RegionHead, codes),
            offset_of!(RegionHead, contexts),
            offset_of!(RegionHead, slots),
            offset_of!(RegionHead, functions),
        ] {
            b.head32(count, 1);
        }
        b.head32(offset_of!(RegionHead, tags), 4);
        b
    }
}

struct Builder<'a> {
    file: &'a mut Sparse,
    base: u64,
    strings: u32,
}

impl Builder<'_> {
    fn head32(&mut self, at: usize, value: u32) {
        self.file.put(self.base + at as u64, &value.to_le_bytes());
    }

    fn head64(&mut self, at: usize, value: i64) {
        self.file.put(self.base + at as u64, &value.to_le_bytes());
    }

    fn get32(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        self.file.read_at(self.base + at as u64, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn text(&mut self, text: &[u8]) -> [u8; 8] {
        let at = self.strings;
        self.file.put(self.base + offset_of!(Region, strings) as u64 + at as u64, text);
        self.strings += text.len() as u32;
        self.head32(offset_of!(RegionHead, strings), self.strings);
        let mut out = [0; 8];
        out[..4].copy_from_slice(&at.to_le_bytes());
        out[4..].copy_from_slice(&(text.len() as u32).to_le_bytes());
        out
    }

    /// Appends an entry: (offset within it, bytes).
    fn entry(&mut self, count: usize, table: usize, size: usize, parts: &[(usize, &[u8])]) -> u32 {
        let i = self.get32(count);
        let at = self.base + table as u64 + i as u64 * size as u64;
        for (offset, bytes) in parts {
            self.file.put(at + *offset as u64, bytes);
        }
        self.head32(count, i + 1);
        i
    }

    fn code(&mut self, file: &str, name: &str, first: u32) -> u32 {
        use layout::Code as C;
        let (file, name) = (self.text(file.as_bytes()), self.text(name.as_bytes()));
        self.entry(
            offset_of!(RegionHead, codes),
            offset_of!(Region, codes),
            size_of::<C>(),
            &[
                (offset_of!(C, file), &file),
                (offset_of!(C, name), &name),
                (offset_of!(C, first_line), &first.to_le_bytes()),
            ],
        )
    }

    fn site(&mut self, code: u32, line: u32) -> u32 {
        use layout::Site as S;
        self.entry(
            offset_of!(RegionHead, sites),
            offset_of!(Region, sites),
            size_of::<S>(),
            &[
                (offset_of!(S, code), &code.to_le_bytes()),
                (offset_of!(S, line), &line.to_le_bytes()),
            ],
        )
    }

    fn function(&mut self, code: u32, last: u32, calls: u64) -> u32 {
        use layout::Function as F;
        self.entry(
            offset_of!(RegionHead, functions),
            offset_of!(Region, functions),
            size_of::<F>(),
            &[
                (offset_of!(F, code), &code.to_le_bytes()),
                (offset_of!(F, last_line), &last.to_le_bytes()),
                (offset_of!(F, calls), &calls.to_le_bytes()),
            ],
        )
    }

    fn slot(&mut self, function: u32, line: u32, occurrences: u64, rss: i64) -> u32 {
        use layout::Slot as S;
        self.entry(
            offset_of!(RegionHead, slots),
            offset_of!(Region, slots),
            size_of::<S>(),
            &[
                (offset_of!(S, function), &function.to_le_bytes()),
                (offset_of!(S, line), &line.to_le_bytes()),
                (offset_of!(S, occurrences), &occurrences.to_le_bytes()),
                (offset_of!(S, readings), &occurrences.to_le_bytes()),
                (offset_of!(S, rss), &rss.to_le_bytes()),
                (offset_of!(S, rss_increment), &5i64.to_le_bytes()),
                (offset_of!(S, in_use_at_rss), &(rss / 2).to_le_bytes()),
                (offset_of!(S, peak), &(rss as u64).to_le_bytes()),
            ],
        )
    }

    fn context(&mut self, parent: u32, slot: u32, freed: u64) -> u32 {
        use layout::Context as C;
        self.entry(
            offset_of!(RegionHead, contexts),
            offset_of!(Region, contexts),
            size_of::<C>(),
            &[
                (offset_of!(C, parent), &parent.to_le_bytes()),
                (offset_of!(C, slot), &slot.to_le_bytes()),
                (offset_of!(C, freed), &freed.to_le_bytes()),
            ],
        )
    }

    fn tag(&mut self, site: u32, context: u32, allocated: u64, freed: u64, inherited: i64) -> u32 {
        use layout::Tag as T;
        let i = self.entry(
            offset_of!(RegionHead, tags),
            offset_of!(Region, tags),
            size_of::<T>(),
            &[
                (offset_of!(T, site), &site.to_le_bytes()),
                (offset_of!(T, context), &context.to_le_bytes()),
                (offset_of!(T, allocated), &allocated.to_le_bytes()),
                (offset_of!(T, freed), &(freed - freed / 4).to_le_bytes()),
                (offset_of!(T, freed_native), &(freed / 4).to_le_bytes()),
            ],
        );
        let at = self.base + offset_of!(Region, inherited) as u64 + i as u64 * 8;
        self.file.put(at, &inherited.to_le_bytes());
        i
    }
}

fn parse(file: &Sparse) -> Capture {
    read(file).unwrap()
}

#[test]
fn a_capture_without_a_process() {
    let c = parse(&Sparse::new(0));
    assert!(c.processes.is_empty() && c.doubts.is_empty());
    assert_eq!(c.unrecorded, 0);
}

#[test]
fn what_is_not_a_capture_is_refused() {
    assert!(matches!(read(&b""[..]), Err(ReadError::NotACapture)));
    let mut other = Sparse::new(0);
    other.put(offset_of!(layout::Header, version) as u64, &9u32.to_le_bytes());
    assert!(matches!(read(&other), Err(ReadError::Version(9))));
}

#[test]
fn sites_add_up_by_file_and_line() {
    let mut file = Sparse::new(1);
    let mut r = file.region(0);
    let (a, b) = (r.code("a.py", "f", 1), r.code("a.py", "<lambda>", 3));
    let (one, two, none) = (r.site(a, 3), r.site(b, 3), r.site(0, 0));
    r.tag(one, 0, 100, 40, 7);
    r.tag(two, 0, 10, 0, 0);
    r.tag(none, 0, 5, 9, -3);
    let p = &parse(&file).processes[0];
    assert_eq!(p.allocated, 115);
    assert_eq!(p.sites.len(), 2);
    let s = &p.sites[0];
    assert_eq!((&*s.file, s.line, s.allocated, s.freed, s.in_use), ("a.py", 3, 110, 40, 77));
    assert_eq!((&*p.sites[1].file, p.sites[1].in_use), ("", 0));
}

#[test]
fn the_profilers_own_part_is_left_out() {
    let mut file = Sparse::new(1);
    let mut r = file.region(0);
    let at = r.base + offset_of!(Region, tags) as u64;
    let at = at + layout::TAG_INDEX_PROFILER as u64 * size_of::<layout::Tag>() as u64;
    r.file.put(at + offset_of!(layout::Tag, allocated) as u64, &1000u64.to_le_bytes());
    r.head64(offset_of!(RegionHead, in_use), 1500);
    r.head64(offset_of!(RegionHead, watermark), 2500);
    r.head64(offset_of!(RegionHead, peak), 2000);
    let p = &parse(&file).processes[0];
    // The agent keeps its own bytes out of the process-wide counters; its tag is no site.
    assert_eq!((p.in_use, p.peak_in_use, p.allocated), (1500, 2500, 0));
    assert!(p.sites.is_empty());
}

#[test]
fn lines_are_charged_with_their_callees_once() {
    let mut file = Sparse::new(1);
    let mut r = file.region(0);
    let (f, g) = (r.code("a.py", "f", 1), r.code("a.py", "g", 10));
    let (f, g) = (r.function(f, 4, 2), r.function(g, 12, 3));
    let (f2, f3, g11) = (r.slot(f, 2, 1, 100), r.slot(f, 3, 2, 50), r.slot(g, 11, 4, 70));
    let in_f2 = r.context(0, f2, 1);
    let in_f2_g = r.context(in_f2, g11, 2);
    let in_f3 = r.context(0, f3, 4);
    let in_g = r.context(0, g11, 8);
    r.tag(0, in_f2, 10, 0, 0);
    r.tag(0, in_f2_g, 20, 5, 0);
    r.tag(0, in_f3, 40, 40, 0);
    r.tag(0, in_g, 80, 0, 3);
    r.tag(0, 0, 1000, 0, 0);
    let p = &parse(&file).processes[0];
    assert_eq!(p.allocated, 1150);
    let lines = |i: usize| {
        let of = |l: &strandline_capture::read::Line| (l.line, l.allocated, l.freed, l.in_use);
        p.functions[i].lines.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(lines(0), [(2, 30, 3, 25), (3, 40, 4, 0)]);
    assert_eq!(lines(1), [(11, 100, 10, 98)]);
    assert_eq!(p.functions[0].calls, 2);
    assert_eq!(&*p.functions[0].name, "f");
}

#[test]
fn one_code_identity_is_one_function() {
    let mut file = Sparse::new(1);
    let mut r = file.region(0);
    let code = r.code("a.py", "f", 1);
    let (one, two) = (r.function(code, 4, 2), r.function(code, 6, 3));
    let (s1, s2) = (r.slot(one, 2, 1, 100), r.slot(two, 2, 2, 70));
    // A recursion through both copies: charged once.
    let outer = r.context(0, s1, 0);
    let inner = r.context(outer, s2, 6);
    r.tag(0, inner, 50, 0, 0);
    let p = &parse(&file).processes[0];
    assert_eq!(p.functions.len(), 1);
    let f = &p.functions[0];
    assert_eq!((f.calls, f.last_line, f.lines.len()), (5, 6, 1));
    let l = &f.lines[0];
    assert_eq!((l.occurrences, l.rss, l.in_use_at_rss, l.rss_increment), (3, 100, 50, 10));
    assert_eq!((l.peak, l.allocated, l.freed, l.in_use), (100, 50, 6, 50));
}

#[test]
fn head_and_ledgers() {
    let mut file = Sparse::new(3);
    let mut r = file.region(0);
    r.head32(offset_of!(RegionHead, pid), 42);
    r.head32(offset_of!(RegionHead, python), 0x030b);
    r.head32(offset_of!(RegionHead, refusal), layout::REFUSED_FREE_THREADED);
    r.head32(offset_of!(RegionHead, state), layout::STATE_EXITED);
    let command = r.text(b"python\0-c\0caf\xc3\xa9 \xff\0");
    r.file.put(r.base + offset_of!(RegionHead, command) as u64, &command);
    let exit = offset_of!(RegionHead, exit);
    r.head64(exit + offset_of!(layout::Ledger, rss), 9000);
    r.head64(exit + offset_of!(layout::Ledger, when), 1);
    let mut child = file.region(2);
    child.head32(offset_of!(RegionHead, forked), 1);
    child.head32(offset_of!(RegionHead, parent_region), 1);
    let c = parse(&file);
    // Region 1 was handed out and never written.
    assert_eq!(c.processes.len(), 2);
    let p = &c.processes[0];
    assert_eq!((p.pid, p.python, p.state), (42, Some((3, 11)), State::Exited));
    assert_eq!(p.refusal, Some(Refusal::FreeThreaded));
    assert_eq!(p.command, ["python", "-c", "café \u{fffd}"]);
    assert_eq!(p.exit.unwrap().kernel_rss, 9000);
    assert!(p.start.is_none() && p.latest.is_none());
    assert_eq!(c.processes[1].forked_from, Some(0));
    assert_eq!(c.processes[1].region, 2);
}

#[test]
fn more_processes_than_regions_are_counted() {
    let mut file = Sparse::new(layout::MAX_REGIONS as u32 + 7);
    file.region(0);
    assert_eq!(parse(&file).unrecorded, 7);
}

#[test]
fn wrong_indices_become_doubts() {
    let mut file = Sparse::new(1);
    let mut r = file.region(0);
    let code = r.code("a.py", "f", 1);
    let f = r.function(code, 4, 1);
    let slot = r.slot(f, 2, 1, 1);
    r.slot(999, 2, 1, 1);
    let c = r.context(7, slot, 0);
    r.context(c, 888, 0);
    r.tag(777, 666, 1, 0, 0);
    r.site(555, 1);
    r.head32(offset_of!(RegionHead, strings), u32::MAX);
    r.head32(offset_of!(RegionHead, state), 77);
    let capture = parse(&file);
    assert_eq!(capture.processes[0].allocated, 1);
    let doubts = capture.doubts.join("\n");
    for part in ["line set's parent", "of a site", "of a code object", "of strings", "state"] {
        assert!(doubts.contains(part), "{part} in {doubts}");
    }
}

#[test]
fn a_deep_chain_of_line_sets_is_read_in_one_pass() {
    let mut file = Sparse::new(1);
    let mut r = file.region(0);
    let code = r.code("a.py", "f", 1);
    let f = r.function(code, 4, 1);
    let slot = r.slot(f, 2, 1, 1);
    let mut c = 0;
    for _ in 0..20_000 {
        c = r.context(c, slot, 1);
    }
    r.tag(0, c, 10, 0, 0);
    let p = &parse(&file).processes[0];
    let l = &p.functions[0].lines[0];
    assert_eq!((l.allocated, l.freed), (10, 20_000));
}

/// A capture whose length, counts and table contents are arbitrary.
fn arbitrary() -> impl Strategy<Value = Sparse> {
    let offsets = prop_oneof![
        Just(0usize),
        Just(offset_of!(Region, functions)),
        Just(offset_of!(Region, slots)),
        Just(offset_of!(Region, contexts)),
        Just(offset_of!(Region, codes)),
        Just(offset_of!(Region, sites)),
        Just(offset_of!(Region, tags)),
        Just(offset_of!(Region, inherited)),
        Just(offset_of!(Region, strings)),
    ];
    // Small numbers make indices that hit; anything else must miss without harm.
    let word = prop_oneof![3 => 0u32..6, 1 => any::<u32>()];
    let words = prop::collection::vec(word.clone(), 0..96);
    let counts = prop::collection::vec(prop_oneof![8 => 0u32..9, 1 => any::<u32>()], 7);
    let length = prop_oneof![
        Just(layout::FILE_BYTES as u64),
        Just((layout::HEADER_BYTES + layout::REGION_STRIDE) as u64),
        0..layout::HEADER_BYTES as u64 + layout::REGION_STRIDE as u64 * 2,
    ];
    let pieces = prop::collection::vec((0u64..2, offsets, words), 0..16);
    (word, length, counts, pieces).prop_map(|(regions, length, counts, pieces)| {
        let mut file = Sparse::new(regions.min(4));
        for (region, offset, words) in pieces {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            let base = layout::HEADER_BYTES as u64 + region * layout::REGION_STRIDE as u64;
            file.put(base + offset as u64, &bytes);
        }
        let base = layout::HEADER_BYTES as u64 + offset_of!(RegionHead, tags) as u64;
        for (i, count) in counts.iter().enumerate() {
            file.put(base + 4 * i as u64, &count.to_le_bytes());
        }
        file.length = length;
        file
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_capture_makes_the_reader_panic(file in arbitrary()) {
        let _ = regions(&file);
        if let Ok(capture) = read(&file) {
            for p in &capture.processes {
                for f in &p.functions {
                    prop_assert!(f.lines.windows(2).all(|w| w[0].line < w[1].line));
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..70_000)) {
        let _ = read(&bytes[..]);
        let _ = regions(&bytes[..]);
        for (i, b) in layout::MAGIC.to_le_bytes().into_iter().enumerate() {
            if let Some(to) = bytes.get_mut(i) {
                *to = b;
            }
        }
        if let Some(version) = bytes.get_mut(8..12) {
            version.copy_from_slice(&layout::VERSION.to_le_bytes());
        }
        let _ = read(&bytes[..]);
        let _ = regions(&bytes[..]);
    }
}
