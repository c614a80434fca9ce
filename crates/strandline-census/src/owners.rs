//! Who holds the memory that is no object itself: the table of a dict, the array of a list, the
//! buffer of a bytearray. It belongs to the type of the object that points to it; what such
//! memory points to in turn belongs to the same type.

use rayon::prelude::*;

use strandline_image::Image;
use strandline_interpreter::{module_data, own, words, Block, TypeId, TypeInfo, NATIVE};

use crate::chunks::{Chunks, Python};

/// Bytes at the start of a chunk that are searched for pointers.
const SEARCHED: u64 = 1 << 20;
/// Rounds of "what it points to in turn": chains longer than that are not followed to their end.
const ROUNDS: usize = 100_000;

/// Memory that just got its holder: address, bytes, holder.
type Found = (u64, u64, Owner);

/// Who holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    id: TypeId,
    /// It may point to what it doesn't use any more.
    weak: bool,
}

impl Owner {
    const STATIC: Owner = Owner { id: NATIVE, weak: false };

    fn of(id: TypeId, info: Option<&TypeInfo>) -> Self {
        const LEFT_OVERS: [&str; 4] = ["frame", "generator", "coroutine", "async_generator"];
        Owner { id, weak: info.is_some_and(|info| LEFT_OVERS.contains(&info.name.as_str())) }
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
}

impl Search<'_> {
    /// Looks at every aligned word of `bytes`: memory without a holder that one points to gets
    /// `owner`.
    fn scan(&self, bytes: &[u8], owner: Owner, found: &mut Vec<Found>) {
        for (_, word) in words(0, bytes) {
            if word < 4096 || word >> 47 != 0 {
                continue;
            }
            self.point(word, owner, found);
        }
    }

    #[inline]
    fn point(&self, word: u64, owner: Owner, found: &mut Vec<Found>) {
        for p in self.pythons {
            let Some(arena) = p.blocks.arena_at(word) else { continue };
            let Some(at) = p.blocks.raw_at(arena, word) else { return };
            if let Some(cell) = p.blocks.cell(at) {
                if own(cell, owner.id, word == at.start, owner.weak) {
                    found.push((at.start, at.size as u64, owner));
                }
            }
            return;
        }
        let Some((chunk, cell)) = self.chunks.at(word) else { return };
        if chunk.state().is_used()
            && word >= chunk.user()
            && own(cell, owner.id, word == chunk.user(), owner.weak)
        {
            found.push((chunk.user(), chunk.usable(), owner));
        }
    }

    /// How much of an object of `size` bytes can be pointers to its own memory.
    fn searched(t: &TypeInfo, size: u64) -> u64 {
        // The items of a tuple or a type are pointers; those of bytes, str and int aren't.
        if t.item_size < 8 {
            size.min(t.front + t.basic_size.max(256))
        } else {
            size.min(SEARCHED)
        }
    }

    /// Finds the holders of everything that has one.
    pub fn run(&self) {
        let mut fresh = Vec::new();
        for p in self.pythons {
            let infos = p.types.list();
            let info = |id: TypeId| infos.get(id.checked_sub(p.types.base())? as usize);
            let of_arena = |i: usize| {
                let mut found = Vec::new();
                for (_, block, bytes) in p.blocks.of_arena(i) {
                    if let Block::Object(id) = block {
                        let len = info(id).map_or(bytes.len(), |info| info.extent(bytes));
                        self.scan(&bytes[..len], Owner::of(id, info(id)), &mut found);
                    }
                }
                found
            };
            let lists: Vec<_> =
                (0..p.blocks.arenas().len()).into_par_iter().map(of_arena).collect();
            fresh.extend(lists.into_iter().flatten());
            for (chunk, block) in self.chunks.used() {
                let Block::Object(id) = block else { continue };
                let Some(info) = info(id) else { continue };
                let len = Self::searched(info, chunk.usable());
                if let Some(bytes) = self.image.slice(chunk.user(), len as usize) {
                    self.scan(&bytes[..info.extent(bytes)], Owner::of(id, Some(info)), &mut fresh);
                }
            }
        }
        self.in_turn(fresh);
        let mut fresh = Vec::new();
        self.scan_roots(&mut fresh);
        self.in_turn(fresh);
    }

    /// What memory that just got its holder points to gets the same one.
    fn in_turn(&self, mut fresh: Vec<Found>) {
        for _ in 0..ROUNDS {
            if fresh.is_empty() {
                return;
            }
            let next: Vec<Vec<Found>> = fresh
                .par_chunks(1024)
                .map(|part| {
                    let mut found = Vec::new();
                    for &(start, len, owner) in part {
                        let len = len.min(SEARCHED) as usize;
                        if let Some(bytes) = self.image.slice(start, len) {
                            self.scan(bytes, owner, &mut found);
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
    fn scan_roots(&self, found: &mut Vec<Found>) {
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
