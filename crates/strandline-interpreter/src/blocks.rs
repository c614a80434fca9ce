//! What is in every block: which type's object, a dead object on a free list, or raw memory that
//! some object points to.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rayon::prelude::*;

use strandline_cpython::{Layout, Obmalloc};
use strandline_image::Image;

use crate::arenas::{self, Arena, PoolState};
use crate::find::Interpreter;
use crate::types::{Cache, TypeId, Types};
use crate::Doubts;

/// What a block (or a chunk of malloc) holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// Nothing: it is free.
    Free,
    /// Bytes in use that are no object, and nobody was found who holds them.
    Raw,
    /// An object.
    Object(TypeId),
    /// A dead object that the interpreter keeps for its next one of this type.
    Dead(TypeId),
    /// Bytes that an object of this type holds.
    Owned(TypeId),
}

const FREE: u32 = 0;
const RAW: u32 = 1;
const KIND: u32 = 30;
const OBJECT: u32 = 1 << KIND;
const DEAD: u32 = 2 << KIND;
const OWNED: u32 = 3 << KIND;
/// Set in OWNED: the pointer that was found isn't to the first byte.
const INSIDE: u32 = 1 << 29;
/// Set in OWNED: what points to it may do so from memory that it doesn't use any more.
const WEAK: u32 = 1 << 28;
/// Lowest bit of the marks, see `Mark`.
const MARKS: u32 = 1 << 26;
const ID: u32 = MARKS - 1;
/// Owner of what no object points to, but a static variable or a stack.
pub const NATIVE: TypeId = ID;

impl Block {
    /// Packs it into 4 bytes.
    pub fn pack(self) -> u32 {
        match self {
            Block::Free => FREE,
            Block::Raw => RAW,
            Block::Object(id) => OBJECT | id & ID,
            Block::Dead(id) => DEAD | id & ID,
            Block::Owned(id) => OWNED | id & ID,
        }
    }

    /// The reverse of `pack`.
    pub fn unpack(packed: u32) -> Self {
        match (packed >> KIND << KIND, packed) {
            (OBJECT, _) => Block::Object(packed & ID),
            (DEAD, _) => Block::Dead(packed & ID),
            (OWNED, _) => Block::Owned(packed & ID),
            (_, packed) if packed & ID == FREE => Block::Free,
            _ => Block::Raw,
        }
    }
}

/// What `own` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing: another holder is more likely.
    None,
    /// Nobody was known before.
    First,
    /// This type was.
    Instead(TypeId),
}

/// Notes in `cell` that an object of type `owner` points to it; a pointer to its first byte
/// (`exact`) is believed before one to its inside, one from anywhere before one from a frame, whose
/// unused slots keep what was in them (`weak`), and then the type that is `before` the other, so
/// that the result doesn't depend on who comes first. Says who was noted before if that changed it.
pub fn own(
    cell: &AtomicU32,
    owner: TypeId,
    (exact, weak): (bool, bool),
    before: impl Fn(TypeId, TypeId) -> bool,
) -> Change {
    let doubtful = if exact { 0 } else { INSIDE } | if weak { WEAK } else { 0 };
    let new = OWNED | doubtful | owner & ID;
    let mut old = cell.load(Relaxed);
    loop {
        let doubts = |packed: u32| packed & (INSIDE | WEAK);
        let stronger = match doubts(new).cmp(&doubts(old)) {
            Ordering::Less => true,
            Ordering::Equal => before(owner, old & ID),
            Ordering::Greater => false,
        };
        if old != RAW && !(old & OWNED == OWNED && stronger) {
            return Change::None;
        }
        match cell.compare_exchange_weak(old, new, Relaxed, Relaxed) {
            Ok(RAW) => return Change::First,
            Ok(_) => return Change::Instead(old & ID),
            Err(now) => old = now,
        }
    }
}

/// What a search from the roots notes of a block in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It can be reached.
    Reached = 0,
    /// It can be reached on ways that don't lead through a certain object.
    Elsewhere = 1,
}

impl Mark {
    const fn bit(self) -> u32 {
        MARKS << self as u32
    }

    /// Notes it. False if it was noted before.
    pub fn set(self, cell: &AtomicU32) -> bool {
        !self.is_set(cell) && cell.fetch_or(self.bit(), Relaxed) & self.bit() == 0
    }

    /// Forgets it.
    pub fn clear(self, cell: &AtomicU32) {
        cell.fetch_and(!self.bit(), Relaxed);
    }

    /// Whether it was noted.
    pub fn is_set(self, cell: &AtomicU32) -> bool {
        cell.load(Relaxed) & self.bit() != 0
    }
}

/// Who `own` has noted, and whether what points to it may do so from memory that it doesn't use.
pub fn owner(cell: &AtomicU32) -> Option<(TypeId, bool)> {
    let packed = cell.load(Relaxed);
    (packed & OWNED == OWNED).then_some((packed & ID, packed & WEAK != 0))
}

/// A block's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Index of the arena.
    pub arena: usize,
    /// Index of its pool.
    pub pool: usize,
    /// Number of the block in the pool.
    pub index: u32,
    /// Address of its first byte.
    pub start: u64,
    /// Its size, bytes.
    pub size: u32,
}

/// Addresses are looked up in granules of this size, the smallest arena's: bytes.
const GRANULE: u64 = 256 << 10;
/// Longest table of granules: 16 TiB of addresses.
const MOST_GRANULES: u64 = 1 << 26;

/// What the blocks of one arena hold.
struct Kinds {
    blocks: Vec<AtomicU32>,
    /// Where each pool's blocks start in `blocks`.
    starts: Vec<u32>,
    /// Whether a pool had blocks without a holder at first.
    raw: Vec<bool>,
}

/// All blocks of one interpreter's arenas.
pub struct Blocks<'a> {
    layout: Layout,
    guard: u64,
    /// By address.
    arenas: Vec<Arena<'a>>,
    /// For each arena, what each block holds.
    kinds: Vec<Kinds>,
    low: u64,
    /// Arena that starts in or reaches into each granule from `low` on, plus one.
    granules: Vec<u32>,
}

impl<'a> Blocks<'a> {
    /// Reads the arenas of `interpreter` and finds the type of every block in use.
    pub fn read(
        image: &'a Image,
        interpreter: &Interpreter,
        types: &Types,
        doubts: &mut Doubts,
    ) -> Self {
        let o = &interpreter.layout.obmalloc;
        let arenas = arenas::read(image, &interpreter.states, o, doubts);
        let mut blocks = Blocks {
            layout: interpreter.layout,
            guard: interpreter.guard,
            kinds: Vec::new(),
            low: 0,
            granules: Vec::new(),
            arenas,
        };
        blocks.index();
        blocks.kinds = blocks
            .arenas
            .par_iter()
            .map_init(Cache::default, |cache, arena| blocks.kinds_of(image, types, cache, arena))
            .collect();
        blocks
    }

    fn index(&mut self) {
        let (Some(first), Some(last)) = (self.arenas.first(), self.arenas.last()) else { return };
        self.low = first.start / GRANULE * GRANULE;
        let granules = ((last.end() - self.low).div_ceil(GRANULE)).min(MOST_GRANULES);
        self.granules = vec![0; granules as usize];
        for (i, arena) in self.arenas.iter().enumerate() {
            // A granule may hold the end of one arena and the start of the next: the first one
            // is kept, and `arena_at` looks at the next, too.
            let (from, to) = (arena.start - self.low, arena.end() - 1 - self.low);
            for granule in from / GRANULE..=to / GRANULE {
                if let Some(cell) = self.granules.get_mut(granule as usize) {
                    if *cell == 0 {
                        *cell = i as u32 + 1;
                    }
                }
            }
        }
    }

    fn o(&self) -> &Obmalloc {
        &self.layout.obmalloc
    }

    /// All arenas, by address.
    pub fn arenas(&self) -> &[Arena<'a>] {
        &self.arenas
    }

    /// Index of the arena that `address` lies in.
    #[inline]
    pub fn arena_at(&self, address: u64) -> Option<usize> {
        let granule = address.checked_sub(self.low)? / GRANULE;
        let first = self.granules.get(usize::try_from(granule).ok()?)?.checked_sub(1)? as usize;
        for i in [first, first + 1] {
            let arena = self.arenas.get(i)?;
            if (arena.start..arena.end()).contains(&address) {
                return Some(i);
            }
        }
        None
    }

    /// The block in use that `address` lies in.
    pub fn at(&self, address: u64) -> Option<At> {
        self.at_in(self.arena_at(address)?, address, |_| true)
    }

    /// The same in the arena `arena_at(address)`.
    #[inline]
    pub fn in_arena(&self, arena: usize, address: u64) -> Option<At> {
        self.at_in(arena, address, |_| true)
    }

    /// The block in use that `address` lies in, if its pool has any that isn't an object; in the
    /// arena `arena_at(address)`.
    #[inline]
    pub fn raw_at(&self, arena: usize, address: u64) -> Option<At> {
        let raw = &self.kinds.get(arena)?.raw;
        self.at_in(arena, address, |pool| raw.get(pool).copied().unwrap_or(false))
    }

    #[inline]
    fn at_in(&self, i: usize, address: u64, wanted: impl Fn(usize) -> bool) -> Option<At> {
        let arena = &self.arenas[i];
        // A power of two (obmalloc.c).
        let shift = self.o().pool_size.trailing_zeros();
        let pool = (address.checked_sub(arena.first_pool)? >> shift) as usize;
        if !wanted(pool) {
            return None;
        }
        let p = arena.pools.get(pool)?;
        let offset = (address - arena.first_pool) & ((1 << shift) - 1);
        let offset = offset.checked_sub(self.o().pool_header as u64)? as u32;
        let index = offset.checked_div(p.block)?;
        let start = arena.pool_address(pool, self.o()) + self.o().pool_header as u64;
        p.is_live(index).then(|| At {
            arena: i,
            pool,
            index,
            start: start + (index * p.block) as u64,
            size: p.block,
        })
    }

    /// What the block holds, packed; to be changed by `own` only.
    pub fn cell(&self, at: At) -> Option<&AtomicU32> {
        let kinds = self.kinds.get(at.arena)?;
        kinds.blocks.get(*kinds.starts.get(at.pool)? as usize + at.index as usize)
    }

    /// What block `number` of a pool in use holds.
    pub fn kind(&self, arena: usize, pool: usize, number: u32) -> Block {
        let at = At { arena, pool, index: number, start: 0, size: 0 };
        self.block(at)
    }

    /// What the block holds.
    pub fn block(&self, at: At) -> Block {
        self.cell(at).map_or(Block::Raw, |cell| Block::unpack(cell.load(Relaxed)))
    }

    /// Every block in use of an arena with what it holds and its bytes.
    pub fn of_arena(&self, arena: usize) -> impl Iterator<Item = (At, Block, &[u8])> {
        let pools = self.arenas.get(arena).map_or(&[][..], |a| &a.pools);
        pools.iter().enumerate().flat_map(move |(pool, p)| {
            (0..p.capacity()).filter(|&i| p.is_live(i)).filter_map(move |index| {
                let a = &self.arenas[arena];
                let start = a.pool_address(pool, self.o())
                    + self.o().pool_header as u64
                    + (index * p.block) as u64;
                let at = At { arena, pool, index, start, size: p.block };
                let offset = (start - a.start) as usize;
                let bytes = a.bytes.get(offset..offset + p.block as usize)?;
                Some((at, self.block(at), bytes))
            })
        })
    }

    fn kinds_of(
        &self,
        image: &Image,
        types: &Types,
        cache: &mut Cache,
        arena: &Arena<'_>,
    ) -> Kinds {
        let pools = arena.pools.len();
        let blocks = arena.pools.iter().map(|p| p.capacity() as usize).sum();
        let mut kinds = Kinds {
            blocks: Vec::with_capacity(blocks),
            starts: Vec::with_capacity(pools),
            raw: vec![false; pools],
        };
        for (i, p) in arena.pools.iter().enumerate() {
            kinds.starts.push(kinds.blocks.len() as u32);
            if p.state != PoolState::Used {
                continue;
            }
            let first = arena.pool_address(i, self.o()) - arena.start + self.o().pool_header as u64;
            for index in 0..p.capacity() {
                let at = (first + (index * p.block) as u64) as usize;
                let block = match arena.bytes.get(at..at + p.block as usize) {
                    Some(bytes) if p.is_live(index) => self
                        .object_in(image, types, cache, bytes, p.block as u64)
                        .unwrap_or(Block::Raw),
                    _ => Block::Free,
                };
                kinds.raw[i] |= block == Block::Raw;
                kinds.blocks.push(AtomicU32::new(block.pack()));
            }
        }
        kinds
    }

    /// The object in the block or chunk in use of `size` bytes that begins with `bytes`.
    pub fn object_in(
        &self,
        image: &Image,
        types: &Types,
        cache: &mut Cache,
        bytes: &[u8],
        size: u64,
    ) -> Option<Block> {
        let gc = self.layout.object.gc_head as usize;
        for front in [0, gc, 16, gc + 16].map(|front| front + self.guard as usize) {
            let header = bytes.get(front..front + 16)?;
            let count = u64::from_le_bytes(header[..8].try_into().ok()?);
            let kind = u64::from_le_bytes(header[8..].try_into().ok()?);
            let Some(dead) = self.is_dead(count) else { continue };
            // No type lies in an arena: it is larger than its largest block.
            if kind < 4096 || kind % 8 != 0 || self.arena_at(kind).is_some() {
                continue;
            }
            let Some((id, wanted, least)) = types.at(image, cache, kind) else { continue };
            if wanted == front as u64 && (front as u64 + least) <= size {
                return Some(if dead { Block::Dead(id) } else { Block::Object(id) });
            }
        }
        None
    }

    /// Whether a reference count is that of a dead object; `None` if it can't be a count.
    fn is_dead(&self, count: u64) -> Option<bool> {
        if self.layout.version >= (3, 14) {
            // The count is the lower half; a free list's link goes over all of it
            // (Include/refcount.h, Include/internal/pycore_freelist.h).
            return Some(count as u32 == 0 || count >> 32 & 0xffff != 0);
        }
        (count < 1 << 40).then_some(count == 0)
    }
}
