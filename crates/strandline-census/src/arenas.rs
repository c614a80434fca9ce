//! The bytes of arenas by class, and what is in each arena.

use rayon::prelude::*;

use strandline_image::Image;
use strandline_interpreter::{Arena, Block, Blocks, PoolState, NATIVE};

use crate::chunks::Python;
use crate::class::{Class, Sums};
use crate::count::{name_of, Count, Counts};
use crate::model::{ArenaReport, Pin, Pinned, SizeClassReport, TaggedArena};
use crate::tags::Tags;

/// What was found in one interpreter's arenas.
#[derive(Default)]
pub struct Found {
    /// Resident bytes by class.
    pub sums: Sums,
    /// Live objects.
    pub live: Counts,
    /// Dead objects.
    pub dead: Counts,
    /// All arenas.
    pub arenas: Vec<ArenaReport>,
    /// What holds the emptiest of them, and where one of these objects is.
    pub pins: Vec<(Pin, Option<u64>)>,
    /// Blocks by size.
    pub sizes: Vec<SizeClassReport>,
    /// The emptiest of the arenas together.
    pub pinned: Pinned,
}

/// What is in one arena.
struct OfArena {
    /// Index of the interpreter and of the arena among its own.
    place: (usize, usize),
    sums: Sums,
    live: Counts,
    dead: Counts,
    report: ArenaReport,
}

fn class_of(block: Block) -> Option<Class> {
    match block {
        Block::Object(_) => Some(Class::Objects),
        Block::Owned(NATIVE) => Some(Class::NativeBlocks),
        Block::Owned(_) => Some(Class::Buffers),
        Block::Dead(_) => Some(Class::FreeLists),
        Block::Raw => Some(Class::UnknownBlocks),
        Block::Free => None,
    }
}

/// Resident bytes of parts of a range that mostly is resident as a whole.
struct Within<'a> {
    image: &'a Image,
    whole: bool,
}

impl<'a> Within<'a> {
    fn new(image: &'a Image, from: u64, to: u64) -> Self {
        Within { image, whole: image.resident_bytes(from, to) == to - from }
    }

    fn bytes(&self, from: u64, to: u64) -> u64 {
        if self.whole {
            to - from
        } else {
            self.image.resident_bytes(from, to)
        }
    }
}

fn of_arena(
    image: &Image,
    python: &Python<'_>,
    place: (usize, usize),
    arena: &Arena<'_>,
) -> OfArena {
    let index = place.1;
    let o = &python.interpreter.layout.obmalloc;
    let resident = image.resident_bytes(arena.start, arena.end());
    let mut sums = Sums::default();
    let (mut live, mut dead) = (Counts::default(), Counts::default());
    let live_bytes: u64 = arena.pools.iter().map(|p| p.live as u64 * p.block as u64).sum();
    let free = if live_bytes == 0 { Class::FreeArenas } else { Class::FreePools };
    for (i, pool) in arena.pools.iter().enumerate() {
        let start = arena.pool_address(i, o);
        let end = start + o.pool_size as u64;
        let within = Within::new(image, start, end);
        match pool.state {
            PoolState::Free | PoolState::Uncarved => sums.add(free, within.bytes(start, end)),
            PoolState::Torn => sums.add(Class::TornPools, within.bytes(start, end)),
            PoolState::Used => {
                let first = start + o.pool_header as u64;
                let last = first + (pool.capacity() * pool.block) as u64;
                let overhead = within.bytes(start, first) + within.bytes(last, end);
                sums.add(Class::PoolOverhead, overhead);
                let size = pool.block as u64;
                for number in 0..pool.capacity() {
                    let at = first + number as u64 * size;
                    let bytes = within.bytes(at, at + size);
                    let block = python.blocks.kind(index, i, number);
                    sums.add(class_of(block).unwrap_or(Class::FreeBlocks), bytes);
                    match block {
                        Block::Object(id) => live.object(id, size),
                        Block::Dead(id) => dead.object(id, size),
                        Block::Owned(id) => live.buffer(id, size),
                        Block::Raw | Block::Free => {}
                    }
                }
            }
        }
    }
    let pools_end = arena.pool_address(arena.pools.len(), o);
    let around = image.resident_bytes(arena.start, arena.first_pool)
        + image.resident_bytes(pools_end, arena.end());
    sums.add(if live_bytes == 0 { Class::FreeArenas } else { Class::PoolOverhead }, around);
    let used = arena.pools.iter().filter(|p| p.state == PoolState::Used).count() as u32;
    let report = ArenaReport {
        address: arena.start,
        bytes: arena.size,
        resident_bytes: resident,
        live_bytes,
        live_blocks: arena.live(),
        used_pools: used,
        free_pools: arena.pools.len() as u32 - used,
    };
    OfArena { place, sums, live, dead, report }
}

/// Arenas whose holders are named.
const PINNED: usize = 10;
/// Types named for each.
const HOLDERS: usize = 3;

/// What holds the arenas that hold back most.
fn pins(all: &[OfArena], pythons: &[Python<'_>]) -> Vec<(Pin, Option<u64>)> {
    let held = |r: &ArenaReport| r.resident_bytes.saturating_sub(r.live_bytes);
    let mut order: Vec<&OfArena> = all.iter().filter(|a| a.report.live_bytes > 0).collect();
    order.sort_by_key(|a| (std::cmp::Reverse(held(&a.report)), a.report.address));
    let mut pins = Vec::new();
    for a in order.into_iter().take(PINNED) {
        let mut types: Vec<(_, Count)> = a.live.iter().collect();
        types.extend(a.dead.iter());
        types.sort_by_key(|(id, c)| (std::cmp::Reverse(c.bytes + c.buffers), *id));
        for (id, c) in types.into_iter().take(HOLDERS) {
            let blocks = pythons.get(a.place.0).map(|p| p.blocks.of_arena(a.place.1));
            let is_it = |block| block == Block::Object(id) || block == Block::Owned(id);
            let example = blocks.and_then(|mut all| all.find(|&(_, block, _)| is_it(block)));
            let pin = Pin {
                arena: a.report.address,
                held_bytes: held(&a.report),
                type_name: name_of(pythons, id).unwrap_or_default(),
                count: c.count,
                bytes: c.bytes + c.buffers,
                path: None,
            };
            pins.push((pin, example.map(|(at, _, _)| at.start)));
        }
    }
    pins
}

/// Arenas in which less than one in so many bytes is in use.
const EMPTY: u64 = 4;
/// Types named for all of them together.
const NAMED: usize = 5;

fn pinned(all: &[OfArena], pythons: &[Python<'_>], tags: Option<&Tags<'_>>) -> Pinned {
    let mut pinned = Pinned::default();
    let mut what = Counts::default();
    let is_empty = |r: &ArenaReport| r.live_bytes > 0 && r.live_bytes * EMPTY < r.bytes;
    for a in all.iter().filter(|a| is_empty(&a.report)) {
        pinned.arenas += 1;
        pinned.held_bytes += a.report.resident_bytes.saturating_sub(a.report.live_bytes);
        pinned.blocks += a.report.live_blocks;
        pinned.bytes += a.report.live_bytes;
        what.add_all(&a.live);
        what.add_all(&a.dead);
        if let (Some(tags), Some(python)) = (tags, pythons.get(a.place.0)) {
            pinned.tagged.push(TaggedArena {
                held_bytes: a.report.resident_bytes.saturating_sub(a.report.live_bytes),
                tags: tags.of_arena(python, a.place.1),
            });
        }
    }
    pinned.types = what.report(pythons);
    pinned.types.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    pinned.types.truncate(NAMED);
    pinned
}

fn size_classes(blocks: &Blocks<'_>, sizes: &mut Vec<SizeClassReport>) {
    for pool in blocks.arenas().iter().flat_map(|a| &a.pools) {
        if pool.state != PoolState::Used {
            continue;
        }
        let at = sizes.binary_search_by_key(&pool.block, |s| s.block_bytes);
        let at = at.unwrap_or_else(|at| {
            sizes.insert(at, SizeClassReport { block_bytes: pool.block, ..Default::default() });
            at
        });
        sizes[at].pools += 1;
        sizes[at].in_use += pool.live as u64;
        sizes[at].free += (pool.freed + pool.untouched) as u64;
    }
}

/// Counts everything in the arenas of all interpreters.
pub fn count(image: &Image, pythons: &[Python<'_>]) -> Found {
    let mut found = Found::default();
    let mut all = Vec::new();
    for (number, python) in pythons.iter().enumerate() {
        let arenas = python.blocks.arenas();
        let of: Vec<OfArena> = arenas
            .par_iter()
            .enumerate()
            .map(|(index, arena)| of_arena(image, python, (number, index), arena))
            .collect();
        all.extend(of);
        size_classes(&python.blocks, &mut found.sizes);
    }
    for a in &all {
        found.sums.add_all(&a.sums);
        found.live.add_all(&a.live);
        found.dead.add_all(&a.dead);
        found.arenas.push(a.report.clone());
    }
    found.pins = pins(&all, pythons);
    found.pinned = pinned(&all, pythons, Tags::find(image).as_ref());
    found
}
