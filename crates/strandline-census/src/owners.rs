//! Who holds the memory that is no object itself: the table of a dict, the array of a list, the
//! buffer of a bytearray. It belongs to the type of the object that points to it; what such
//! memory points to in turn belongs to the same type.

use std::sync::atomic::AtomicU32;

use rayon::prelude::*;

use strandline_image::Image;
use strandline_interpreter::{
    module_data, own, owner, words, Block, Change, TypeId, TypeInfo, NATIVE,
};

use crate::chunks::{Chunks, Python};

/// Bytes at the start of a chunk that are searched for pointers.
const SEARCHED: u64 = 1 << 20;
/// Rounds of "what it points to in turn": chains longer than that are not followed to their end.
const ROUNDS: usize = 100_000;

/// Memory that just got its holder.
struct Found<'a> {
    start: u64,
    len: u64,
    /// Who that is. It may still change while others are looked at.
    cell: &'a AtomicU32,
}

/// Who holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    id: TypeId,
    /// It may point to what it doesn't use any more.
    weak: bool,
    /// What it holds has pointers to objects in it, or none: nothing more is found there.
    last: bool,
}

impl Owner {
    const STATIC: Owner = Owner { id: NATIVE, weak: false, last: false };
}

/// What is searched for pointers in an object, and what that says.
struct Rule {
    owner: Owner,
    /// Offset of the first byte that can be a pointer to its own memory.
    from: usize,
    /// Bytes up to the end of what can be.
    to: usize,
}

/// Block of the largest size class, bytes (`SMALL_REQUEST_THRESHOLD`, Objects/obmalloc.c).
const LARGEST_BLOCK: u64 = 512;

/// Types whose objects are plain values.
const VALUES: [&str; 6] = ["bytes", "int", "long", "float", "complex", "bool"];
/// Types that hold arrays of objects or plain bytes.
const ARRAYS: [&str; 6] = ["list", "dict", "set", "frozenset", "bytearray", "str"];
/// Types with memory of a frame in them, whose unused slots keep what was in them.
const LEFT_OVERS: [&str; 4] = ["frame", "generator", "coroutine", "async_generator"];

impl Rule {
    fn of(id: TypeId, t: &TypeInfo) -> Self {
        let own = |names: &[&str]| !t.is_heap_type() && names.contains(&t.name.as_str());
        let weak = LEFT_OVERS.contains(&t.name.as_str());
        let owner = Owner { id, weak, last: own(&ARRAYS) };
        // The count and the type are none, nor is the GC head; values of attributes may stand in
        // front of that.
        let from = if t.has_pre_header() { 0 } else { t.front as usize + 16 };
        let to = match t.item_size {
            _ if own(&VALUES) => 0,
            // The items of a tuple or a type are pointers; text isn't.
            _ if t.is_text() => (t.front + t.basic_size) as usize,
            0..8 => (t.front + t.basic_size.max(LARGEST_BLOCK)) as usize,
            _ => SEARCHED as usize,
        };
        Rule { owner, from, to }
    }
}

/// What the search works on.
pub struct Search<'a> {
    /// The memory.
    pub image: &'a Image,
    /// The interpreters.
    pub pythons: &'a [Python<'a>],
    /// malloc's chunks.
    pub chunks: &'a Chunks<'a>,
    /// What is found in objects of each interpreter's types, and where these are.
    rules: Vec<Vec<(Rule, u64)>>,
}

impl<'a> Search<'a> {
    /// Prepares the search.
    pub fn new(image: &'a Image, pythons: &'a [Python<'a>], chunks: &'a Chunks<'a>) -> Self {
        let of = |p: &Python<'_>| {
            let all = p.types.list();
            (p.types.base()..).zip(&all).map(|(id, t)| (Rule::of(id, t), t.address)).collect()
        };
        Search { image, pythons, chunks, rules: pythons.iter().map(of).collect() }
    }

    fn rule(&self, id: TypeId) -> Option<&(Rule, u64)> {
        let mut all = self.pythons.iter().zip(&self.rules);
        all.find_map(|(p, rules)| rules.get(id.checked_sub(p.types.base())? as usize))
    }

    fn is_last(&self, id: TypeId) -> bool {
        self.rule(id).is_some_and(|(rule, _)| rule.owner.last)
    }

    /// Whether type `a` is noted rather than `b`. Ids are given in the order in which threads meet
    /// the types: they say nothing.
    fn before(&self, a: TypeId, b: TypeId) -> bool {
        let order = |id| self.rule(id).map_or((true, u64::MAX), |(r, at)| (!r.owner.last, *at));
        order(a) < order(b)
    }

    /// Looks at every aligned word of `bytes`: memory without a holder that one points to gets
    /// `owner`.
    fn scan(&'a self, bytes: &[u8], owner: Owner, found: &mut Vec<Found<'a>>) {
        for (_, word) in words(0, bytes) {
            if word < 4096 || word >> 47 != 0 {
                continue;
            }
            self.point(word, owner, found);
        }
    }

    #[inline]
    fn point(&'a self, word: u64, owner: Owner, found: &mut Vec<Found<'a>>) {
        let mut note = |start: u64, len: u64, cell| {
            let doubts = (word == start, owner.weak);
            let is_new = match own(cell, owner.id, doubts, |a, b| self.before(a, b)) {
                Change::None => false,
                Change::First => true,
                Change::Instead(other) => self.is_last(other),
            };
            if is_new && !owner.last {
                found.push(Found { start, len, cell });
            }
        };
        for p in self.pythons {
            let Some(arena) = p.blocks.arena_at(word) else { continue };
            let Some(at) = p.blocks.raw_at(arena, word) else { return };
            if let Some(cell) = p.blocks.cell(at) {
                note(at.start, at.size as u64, cell);
            }
            return;
        }
        let Some((chunk, cell)) = self.chunks.at(word) else { return };
        if chunk.state().is_used() && word >= chunk.user() {
            note(chunk.user(), chunk.usable(), cell);
        }
    }

    /// Looks at an object.
    fn object(&'a self, t: &TypeInfo, rule: &Rule, bytes: &[u8], found: &mut Vec<Found<'a>>) {
        let bytes = &bytes[..rule.to.min(bytes.len())];
        if let Some(bytes) = bytes.get(rule.from..t.extent(bytes)) {
            self.scan(bytes, rule.owner, found);
        }
    }

    /// Finds the holders of everything that has one.
    pub fn run(&'a self) {
        let mut fresh = Vec::new();
        for (p, rules) in self.pythons.iter().zip(&self.rules) {
            let infos = p.types.list();
            let of_type = |id: TypeId| {
                let number = id.checked_sub(p.types.base())? as usize;
                Some((infos.get(number)?, &rules.get(number)?.0))
            };
            let of_arena = |i: usize| {
                let mut found = Vec::new();
                for (_, block, bytes) in p.blocks.of_arena(i) {
                    let Block::Object(id) = block else { continue };
                    if let Some((t, rule)) = of_type(id) {
                        self.object(t, rule, bytes, &mut found);
                    }
                }
                found
            };
            let lists: Vec<_> =
                (0..p.blocks.arenas().len()).into_par_iter().map(of_arena).collect();
            fresh.extend(lists.into_iter().flatten());
            for (chunk, block) in self.chunks.used() {
                let Block::Object(id) = block else { continue };
                let Some((t, rule)) = of_type(id) else { continue };
                let len = chunk.usable().min(rule.to as u64) as usize;
                if let Some(bytes) = self.image.prefix(chunk.user(), len) {
                    self.object(t, rule, bytes, &mut fresh);
                }
            }
        }
        self.in_turn(fresh);
        let mut fresh = Vec::new();
        self.scan_roots(&mut fresh);
        self.in_turn(fresh);
    }

    /// What memory that just got its holder points to gets the same one.
    fn in_turn(&'a self, mut fresh: Vec<Found<'a>>) {
        for _ in 0..ROUNDS {
            if fresh.is_empty() {
                return;
            }
            // All of a round have their holders before any is looked at, so that the result
            // doesn't depend on who comes first.
            let settled: Vec<_> = fresh.iter().map(|f| (f.start, f.len, owner(f.cell))).collect();
            let next: Vec<Vec<Found<'_>>> = settled
                .par_chunks(1024)
                .map(|part| {
                    let mut found = Vec::new();
                    for &(start, len, holder) in part {
                        let Some((id, weak)) = holder else { continue };
                        if self.is_last(id) {
                            continue;
                        }
                        // Not all of it need be resident.
                        for (_, bytes) in self.image.slices(start, start + len.min(SEARCHED)) {
                            self.scan(bytes, Owner { id, weak, last: false }, &mut found);
                        }
                    }
                    found
                })
                .collect();
            fresh = next.into_iter().flatten().collect();
        }
    }

    /// Static types and variables of libraries, and the stacks: what they point to is held by C
    /// code, or by a static object.
    fn scan_roots(&'a self, found: &mut Vec<Found<'a>>) {
        for part in module_data(self.image) {
            for (_, bytes) in part.pieces(self.image) {
                self.scan(bytes, Owner::STATIC, found);
            }
        }
        for thread in self.image.threads() {
            let Some(m) = thread.stack_pointer.and_then(|sp| self.image.mapping_at(sp)) else {
                continue;
            };
            let sp = thread.stack_pointer.unwrap_or(m.start) & !7;
            for (_, bytes) in self.image.slices(sp, m.end.min(sp.saturating_add(SEARCHED))) {
                self.scan(bytes, Owner::STATIC, found);
            }
        }
    }
}
