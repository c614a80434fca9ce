//! Builds without the GIL: what is in the blocks of mimalloc.

use strandline_cpython::free_threaded;
use strandline_image::Image;
use strandline_interpreter::mimalloc::{self, Page, Segment};
use strandline_interpreter::{module_data, words, Block, NATIVE};

use crate::chunks::Python;
use crate::class::{Class, Sums};
use crate::count::Counts;
use crate::model::ArenaReport;

/// Blocks up to this size are small: CPython's other allocator would have them in pools, bytes.
const SMALL: u64 = 512;
/// Bytes at the start of a block that are searched for pointers.
const SEARCHED: u64 = 1 << 24;

/// What was found.
#[derive(Default)]
pub struct Found {
    /// Resident bytes by class.
    pub sums: Sums,
    /// Live objects.
    pub live: Counts,
    /// Dead objects.
    pub dead: Counts,
    /// All segments.
    pub arenas: Vec<ArenaReport>,
    /// Where they are: address and end.
    pub ranges: Vec<(u64, u64)>,
}

/// A page and what each of its blocks holds.
struct Held<'a> {
    page: &'a Page,
    blocks: Vec<Block>,
}

/// The blocks of all segments, by address.
struct Blocks<'a> {
    image: &'a Image,
    pages: Vec<Held<'a>>,
}

impl<'a> Blocks<'a> {
    fn new(image: &'a Image, python: &Python<'_>, segments: &'a [Segment]) -> Self {
        let pages = segments.iter().flat_map(|s| &s.pages).map(|page| {
            let block = |(i, &free): (usize, &bool)| match free {
                true => Block::Free,
                false => object(image, python, page, page.first + i as u64 * page.block),
            };
            Held { page, blocks: page.free.iter().enumerate().map(block).collect() }
        });
        Blocks { image, pages: pages.collect() }
    }

    /// Page and block that `address` lies in.
    fn at(&self, address: u64) -> Option<(usize, usize)> {
        let after = self.pages.partition_point(|held| held.page.first <= address);
        let number = after.checked_sub(1)?;
        let page = self.pages.get(number)?.page;
        let block = ((address - page.first) / page.block) as usize;
        (address < page.blocks_end() && block < page.free.len()).then_some((number, block))
    }

    /// Gives what `bytes` points to, and has no holder, to `owner`.
    fn point(&mut self, bytes: &[u8], owner: u32, found: &mut Vec<(u64, u64, u32)>) {
        for (_, word) in words(0, bytes) {
            let Some((page, block)) = self.at(word) else { continue };
            let held = &mut self.pages[page];
            if held.blocks[block] == Block::Raw {
                held.blocks[block] = Block::Owned(owner);
                let size = held.page.block;
                found.push((held.page.first + block as u64 * size, size, owner));
            }
        }
    }

    /// Finds who holds the blocks that are no objects: objects first, then C code.
    fn find_owners(&mut self) {
        let mut objects = Vec::new();
        for held in &self.pages {
            for (i, block) in held.blocks.iter().enumerate() {
                if let Block::Object(id) = block {
                    let size = held.page.block;
                    objects.push((held.page.first + i as u64 * size, size, *id));
                }
            }
        }
        self.follow(objects);
        let mut fresh = Vec::new();
        let image = self.image;
        for part in module_data(image) {
            for (_, bytes) in part.pieces(image) {
                self.point(bytes, NATIVE, &mut fresh);
            }
        }
        for thread in image.threads() {
            let Some(sp) = thread.stack_pointer else { continue };
            let end = image.mapping_at(sp).map_or(sp, |m| m.end);
            for (_, bytes) in image.slices(sp & !7, end) {
                self.point(bytes, NATIVE, &mut fresh);
            }
        }
        self.follow(fresh);
    }

    fn follow(&mut self, mut fresh: Vec<(u64, u64, u32)>) {
        // Every block gets a holder once: this ends.
        while !fresh.is_empty() {
            let mut next = Vec::new();
            for (start, size, owner) in fresh {
                let image = self.image;
                if let Some(bytes) = image.slice(start, size.min(SEARCHED) as usize) {
                    self.point(bytes, owner, &mut next);
                }
            }
            fresh = next;
        }
    }
}

/// What the block at `start` holds: which heap it is of says whether that is an object.
fn object(image: &Image, python: &Python<'_>, page: &Page, start: u64) -> Block {
    let Some(front) = page.heap.front() else { return Block::Raw };
    let o = &python.interpreter.layout.object;
    let at = start + front;
    let kind = image.word(at + o.type_ as u64).and_then(|kind| python.types.look_up(image, kind));
    let Some(id) = kind else { return Block::Raw };
    // `ob_ref_local` and `ob_ref_shared`, the counts of the owning thread and of all others
    // (Include/object.h).
    let local = image.half(at + o.refcnt as u64 + 4).unwrap_or(1);
    let shared = image.word(at + o.refcnt as u64 + 8).unwrap_or(1);
    match local == 0 && shared >> 2 == 0 {
        true => Block::Dead(id),
        false => Block::Object(id),
    }
}

fn class_of(block: Block, size: u64) -> Class {
    match (block, size <= SMALL) {
        (Block::Object(_), true) => Class::Objects,
        (Block::Object(_), false) => Class::LargeObjects,
        (Block::Owned(NATIVE), _) => Class::NativeBlocks,
        (Block::Owned(_), true) => Class::Buffers,
        (Block::Owned(_), false) => Class::LargeBuffers,
        (Block::Dead(_), _) => Class::FreeLists,
        (Block::Free, _) => Class::FreeBlocks,
        (Block::Raw, _) => Class::UnknownBlocks,
    }
}

impl Found {
    fn page(&mut self, image: &Image, held: &Held<'_>) {
        let page = held.page;
        let mut add = |class, from, to| self.sums.add(class, image.resident_bytes(from, to));
        add(Class::PoolOverhead, page.start, page.first);
        add(Class::FreeBlocks, page.blocks_end(), page.end);
        for (i, &block) in held.blocks.iter().enumerate() {
            let from = page.first + i as u64 * page.block;
            add(class_of(block, page.block), from, (from + page.block).min(page.blocks_end()));
            match block {
                Block::Object(id) => self.live.object(id, page.block),
                Block::Owned(id) => self.live.buffer(id, page.block),
                Block::Dead(id) => self.dead.object(id, page.block),
                Block::Free | Block::Raw => {}
            }
        }
    }

    fn segment(&mut self, image: &Image, segment: &Segment) {
        let free = match segment.pages.is_empty() {
            true => Class::FreeArenas,
            false => Class::FreePools,
        };
        let mut at = segment.start + segment.info;
        self.sums.add(Class::PoolOverhead, image.resident_bytes(segment.start, at));
        for page in &segment.pages {
            self.sums.add(free, image.resident_bytes(at, page.start));
            at = page.end;
        }
        self.sums.add(free, image.resident_bytes(at, segment.end));
        let live = |page: &Page| page.free.iter().filter(|free| !**free).count() as u64;
        let slices: u64 = segment.pages.iter().map(|p| p.end - p.start).sum();
        let slice = segment.pages.iter().map(|p| p.end - p.start).min().unwrap_or(1);
        self.arenas.push(ArenaReport {
            address: segment.start,
            bytes: segment.end - segment.start,
            resident_bytes: image.resident_bytes(segment.start, segment.end),
            live_bytes: segment.pages.iter().map(|p| live(p) * p.block).sum(),
            live_blocks: segment.pages.iter().map(live).sum(),
            used_pools: segment.pages.len() as u32,
            free_pools: ((segment.end - segment.start - segment.info - slices) / slice) as u32,
        });
        self.ranges.push((segment.start, segment.end));
    }
}

/// Counts what free-threaded interpreters have in mimalloc.
pub fn count(image: &Image, pythons: &[Python<'_>]) -> Found {
    let mut found = Found::default();
    for python in pythons.iter().filter(|p| p.interpreter.version.free_threaded) {
        let (major, minor) = python.interpreter.version.series;
        let Some((_, layout)) = free_threaded(major, minor) else { continue };
        let segments = mimalloc::read(image, layout);
        let mut blocks = Blocks::new(image, python, &segments);
        blocks.find_owners();
        for held in &blocks.pages {
            found.page(image, held);
        }
        for segment in &segments {
            found.segment(image, segment);
        }
    }
    found
}
