//! A malloc made by hand. The offsets are written down here anew, from glibc's sources.

use strandline_image::{Image, Mapping, PageSet, Piece, Source};

pub const DATA: u64 = 0x7f00_0000_0000;
pub const HEAP: u64 = 0x5555_0000_0000;
pub const THREAD: u64 = 0x7e00_0000_0000;
pub const MMAPPED: u64 = 0x7d00_0000_0000;
const MAIN: u64 = DATA + 0x1000;
const PARAMS: u64 = DATA + 0x800;
pub const KEY: u64 = 0x1234_5678_9abc_def1;

/// A glibc version.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    pub name: &'static str,
    pub fast: Option<u64>,
    pub bins: u64,
    pub attached: Option<u64>,
    pub system_mem: u64,
    pub state: u64,
    pub heap_info: u64,
    /// `n_mmaps`, `mmapped_mem`, `sbrk_base` in `malloc_par`.
    pub params: [u64; 3],
    /// Lists, bytes of a number, chunk.
    pub tcache: Option<[u64; 3]>,
    pub protected: bool,
    /// Second word of a chunk in a tcache; 1: the struct's address.
    pub key: u64,
    pub mmap_short: u64,
}

const V2_43: Version = Version {
    name: "2.43",
    fast: None,
    bins: 24,
    attached: Some(2088),
    system_mem: 2096,
    state: 2112,
    heap_info: 48,
    params: [68, 88, 104],
    tcache: Some([76, 2, 0x300]),
    protected: true,
    key: KEY,
    mmap_short: 16,
};
const V2_36: Version = Version {
    name: "2.36",
    fast: Some(16),
    bins: 112,
    attached: Some(2176),
    system_mem: 2184,
    state: 2200,
    params: [60, 80, 96],
    tcache: Some([64, 2, 0x290]),
    mmap_short: 0,
    ..V2_43
};
const V2_34: Version = Version { name: "2.34", heap_info: 32, params: [40, 56, 72], ..V2_36 };
const V2_31: Version = Version { name: "2.31", protected: false, key: 1, ..V2_34 };
const V2_29: Version = Version { name: "2.29", tcache: Some([64, 1, 0x250]), ..V2_31 };
const V2_26: Version = Version {
    name: "2.26",
    fast: Some(8),
    bins: 104,
    attached: Some(2168),
    system_mem: 2176,
    state: 2192,
    key: 0,
    ..V2_29
};
const V2_23: Version = Version { name: "2.23", params: [40, 56, 80], tcache: None, ..V2_26 };
const V2_17: Version =
    Version { name: "2.17", attached: None, system_mem: 2168, state: 2184, ..V2_23 };

pub const VERSIONS: [Version; 8] = [V2_43, V2_36, V2_34, V2_31, V2_29, V2_26, V2_23, V2_17];

/// Memory: first address and words of each part.
pub type Memory = Vec<(u64, Vec<u64>)>;

fn put(memory: &mut Memory, address: u64, value: u64) {
    let part = memory.iter_mut().find(|part| (part.0..part.0 + 0x21000).contains(&address));
    let (start, words) = part.expect("an address of the fixture");
    words[((address - *start) / 8) as usize] = value;
}

/// An int, where its neighbour may be another.
fn put_half(memory: &mut Memory, address: u64, value: u64) {
    let part = memory.iter_mut().find(|part| (part.0..part.0 + 0x21000).contains(&address));
    let (start, words) = part.expect("an address of the fixture");
    words[((address - *start) / 8) as usize] |= value << (address % 8 * 8);
}

/// Chunks one after another, as sizes with a state each; returns where they start.
fn chunks(memory: &mut Memory, first: u64, list: &[(u64, char)], flag: u64) -> Vec<u64> {
    let mut at = first;
    let mut starts = Vec::new();
    let mut used = 1;
    for &(size, state) in list {
        let flag = if state == 'T' { 0 } else { flag };
        put(memory, at + 8, size | used | flag);
        used = u64::from(!"sl*".contains(state));
        starts.push(at);
        at += size;
        if used == 0 {
            put(memory, at, size);
        }
    }
    starts
}

fn state(memory: &mut Memory, v: &Version, at: u64, top: u64, next: u64, system_mem: u64) {
    put(memory, at + v.bins - 16, top);
    for bin in 0..127 {
        let bin = at + v.bins + bin * 16;
        put(memory, bin, bin - 16);
        put(memory, bin + 8, bin - 16);
    }
    put(memory, at + v.bins + 2048, next);
    if let Some(attached) = v.attached {
        put(memory, at + attached, 1);
    }
    put(memory, at + v.system_mem, system_mem);
    put(memory, at + v.system_mem + 8, system_mem);
}

/// States of the main heap's chunks: used, tcache, fast, small, large, unsorted (`*`), top.
pub fn main_heap(v: &Version) -> Vec<(u64, char)> {
    let mut list = match v.tcache {
        Some([_, _, chunk]) => vec![(chunk, 'u'), (0x30, 't'), (0x30, 't')],
        None => vec![],
    };
    let fast = if v.fast.is_some() { 'f' } else { 'u' };
    list.extend([(0x40, 'u'), (0x20, fast), (0x20, fast), (0x50, 'u'), (0x90, 's'), (0x20, 'u')]);
    list.extend([(0x500, 'l'), (0x20, 'u'), (0x110, '*'), (0x20, 'u')]);
    let used: u64 = list.iter().map(|c| c.0).sum();
    list.push((0x21000 - used, 'T'));
    list
}

/// A process with a main arena, a thread's arena, and two chunks with their own mappings, one of
/// them aligned to 64.
pub fn memory(v: &Version) -> Memory {
    let parts = [DATA, HEAP, THREAD, MMAPPED];
    let mut m: Memory = parts.map(|start| (start, vec![0; 0x21000 / 8])).to_vec();
    let list = main_heap(v);
    let starts = chunks(&mut m, HEAP, &list, 0);
    let at = |wanted: char| {
        let found = list.iter().zip(&starts).filter(move |(chunk, _)| chunk.1 == wanted);
        found.map(|(_, start)| *start).collect::<Vec<_>>()
    };
    let arena = THREAD + v.heap_info;
    state(&mut m, v, MAIN, at('T')[0], arena, 0x21000);
    let link = |at: u64, to: u64| if v.protected { to ^ (at >> 12) } else { to };
    if let (Some(fast), &[first, second]) = (v.fast, &at('f')[..]) {
        put(&mut m, MAIN + fast, first);
        put(&mut m, first + 16, link(first + 16, second));
        put(&mut m, second + 16, link(second + 16, 0));
    }
    if let (Some([lists, number, _]), &[first, second]) = (v.tcache, &at('t')[..]) {
        let tcache = HEAP + 16;
        put(&mut m, tcache, if number == 1 { 2 << 8 } else { 2 << 16 });
        put(&mut m, tcache + lists * number + 8, first + 16);
        put(&mut m, first + 16, link(first + 16, second + 16));
        put(&mut m, second + 16, link(second + 16, 0));
        for chunk in [first, second] {
            put(&mut m, chunk + 24, if v.key == 1 { tcache } else { v.key });
        }
    }
    let unsorted = at('*')[0];
    put(&mut m, MAIN + v.bins, unsorted);
    put(&mut m, MAIN + v.bins + 8, unsorted);
    put(&mut m, unsorted + 16, MAIN + v.bins - 16);
    let first = (arena + v.state).next_multiple_of(16);
    let top = THREAD + 0x21000 - first - 0x40;
    chunks(&mut m, first, &[(0x40, 'u'), (top, 'T')], 4);
    state(&mut m, v, arena, first + 0x40, MAIN, 0x21000);
    put(&mut m, THREAD, arena);
    put(&mut m, THREAD + 16, 0x21000);
    put(&mut m, THREAD + 24, 0x21000);
    put(&mut m, MMAPPED + 8, (0x3000 - v.mmap_short) | 2);
    put(&mut m, MMAPPED + 0x3000 + 8, (0x4000 - v.mmap_short) | 2);
    put(&mut m, MMAPPED + 0x3000 + 48, 48);
    put(&mut m, MMAPPED + 0x3000 + 56, (0x4000 - v.mmap_short - 48) | 2);
    for (word, value) in [(0, 0x20000), (8, 0x20000), (16, 0x20000), (24, 8)] {
        put(&mut m, PARAMS + word, value);
    }
    let [n_mmaps, mmapped_mem, sbrk_base] = v.params;
    for (half, value) in [(0, 2), (4, 65536), (8, 3)] {
        put_half(&mut m, PARAMS + n_mmaps + half, value);
    }
    put(&mut m, PARAMS + mmapped_mem, 0x7000);
    put(&mut m, PARAMS + mmapped_mem + 8, 0x9000);
    put(&mut m, PARAMS + sbrk_base, HEAP);
    m
}

pub fn image(memory: &Memory) -> Image {
    let mut mappings = Vec::new();
    let mut pieces = Vec::new();
    for (start, words) in memory {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let libc = *start == DATA;
        mappings.push(Mapping {
            start: *start,
            end: start + bytes.len() as u64,
            read: true,
            write: true,
            inode: libc.into(),
            path: if libc { "/lib/libc.so.6".into() } else { String::new() },
            resident: PageSet::all(bytes.len() / 4096),
            ..Mapping::default()
        });
        pieces.push(Piece { start: *start, bytes: Box::new(bytes) });
    }
    Image::new(mappings, pieces, Vec::new(), Source::Fixture, None)
}
