//! What can be reached, from where: live objects that nothing can reach any more are cycles that
//! wait for the collector; what can't be reached without going through a certain object would go
//! with that.
//!
//! Marking from the roots, as a collector would that knows nothing of C code's variables: every
//! aligned word of memory that isn't Python's own counts as a pointer. What is left unmarked is
//! garbage unless something holds it that can't be seen: then its reference count is more than the
//! references that were found, and it is no garbage. So the figure is a lower bound.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rayon::prelude::*;

use strandline_interpreter::{words, Block, Mark, TypeId, TypeInfo, NATIVE};

use crate::chunks::Python;
use crate::count::Counts;
use crate::functions::Functions;
use crate::mappings::Claimed;
use crate::model::CollectorReport;
use crate::owners::Search;

/// Things that one thread looks into before it hands over what is left.
const AT_ONCE: usize = 4096;
/// Fewer things than these are looked into by one thread.
const FEW: usize = 512;
/// An object and its buffers that a search goes around.
const MOST_AROUND: usize = 4;
/// Objects from which the collector's counters are looked for.
const TRIED: usize = 256;
/// `wr_object` (Include/weakrefobject.h): what a weak reference doesn't hold, from the object on.
const WR_OBJECT: usize = 16;
/// Reference counts from here on say that the object is immortal (3.12 and later).
const IMMORTAL: u64 = 1 << 29;

/// What is looked at in an object.
struct Rule {
    /// Bytes in front of the object.
    front: usize,
    /// Of these: the GC head, which links neighbours.
    head: usize,
    /// It refers to this word of it without holding what is there.
    weak: Option<usize>,
    /// It holds nothing.
    is_value: bool,
    /// What it holds is plain bytes.
    is_plain: bool,
}

impl Rule {
    fn of(t: &TypeInfo, gc_head: usize) -> Self {
        const VALUES: [&str; 6] = ["bytes", "int", "long", "float", "complex", "bool"];
        const PLAIN: [&str; 3] = ["bytearray", "str", "unicode"];
        const WEAK: [&str; 7] = [
            "weakref",
            "weakref.ReferenceType",
            "weakproxy",
            "weakref.ProxyType",
            "weakcallableproxy",
            "weakref.CallableProxyType",
            "weakref.KeyedRef",
        ];
        let front = t.front as usize;
        let is_one_of = |names: &[&str]| !t.is_heap_type() && names.contains(&t.name.as_str());
        Rule {
            front,
            head: front.saturating_sub(if t.has_gc() { gc_head } else { 0 }),
            weak: WEAK.contains(&t.name.as_str()).then_some(front + WR_OBJECT),
            is_value: is_one_of(&VALUES),
            is_plain: is_one_of(&PLAIN),
        }
    }
}

/// A block or chunk in use.
#[derive(Clone, Copy)]
pub struct Thing<'a> {
    /// Address of its first byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// What it holds, and the marks.
    pub cell: &'a AtomicU32,
}

impl Thing<'_> {
    /// What it holds.
    pub fn block(&self) -> Block {
        Block::unpack(self.cell.load(Relaxed))
    }
}

/// One search from the roots.
#[derive(Clone, Copy)]
struct Pass<'p> {
    mark: Mark,
    /// Starts of what it doesn't go through: an object and the buffers of its own, into which a
    /// stack may point while C code works on them.
    around: &'p [u64],
}

impl Pass<'_> {
    fn set(self, thing: &Thing<'_>) -> bool {
        !self.around.contains(&thing.start) && self.mark.set(thing.cell)
    }

    fn has(self, thing: &Thing<'_>) -> bool {
        self.mark.is_set(thing.cell)
    }
}

/// The search.
pub struct Marking<'a> {
    search: &'a Search<'a>,
    functions: &'a Functions<'a>,
    claimed: &'a Claimed,
    /// The memory that frames are in: address and bytes.
    frames: &'a [(u64, u64)],
    /// Each interpreter's types, and what is looked at in their objects.
    types: Vec<(TypeId, Vec<(TypeInfo, Rule)>)>,
}

impl<'a> Marking<'a> {
    /// Marks all that can be reached. `claimed`: arenas and heaps.
    pub fn new(
        search: &'a Search<'a>,
        functions: &'a Functions<'a>,
        claimed: &'a Claimed,
        frames: &'a [(u64, u64)],
    ) -> Self {
        let types = search.pythons.iter().map(|p| {
            let head = p.interpreter.layout.object.gc_head as usize;
            let rules = p.types.list().into_iter().map(|t| {
                let rule = Rule::of(&t, head);
                (t, rule)
            });
            (p.types.base(), rules.collect())
        });
        let types = types.collect();
        let marking = Marking { search, functions, claimed, frames, types };
        marking.run(Pass { mark: Mark::Reached, around: &[] });
        marking
    }

    fn run(&self, pass: Pass<'_>) {
        self.mark_roots(pass);
        self.mark_held(pass);
    }

    fn rule(&self, id: TypeId) -> Option<&(TypeInfo, Rule)> {
        self.types.iter().find_map(|(base, types)| types.get(id.checked_sub(*base)? as usize))
    }

    /// Bytes in front of the objects of a type.
    fn front(&self, id: TypeId) -> u64 {
        self.rule(id).map_or(0, |(_, rule)| rule.front as u64)
    }

    /// The thing that `word` refers to: an object itself, a buffer anywhere.
    fn target(&self, word: u64) -> Option<Thing<'a>> {
        if word < 4096 || word >> 47 != 0 {
            return None;
        }
        let thing = self.thing_at(word)?;
        match thing.block() {
            Block::Object(id) => {
                // The lowest bits may be a tag (`_PyStackRef`, 3.13 and later).
                (word & !7 == thing.start + self.front(id)).then_some(thing)
            }
            Block::Free | Block::Dead(_) => None,
            Block::Raw | Block::Owned(_) => Some(thing),
        }
    }

    fn thing_at(&self, word: u64) -> Option<Thing<'a>> {
        for p in self.search.pythons {
            let Some(arena) = p.blocks.arena_at(word) else { continue };
            let at = p.blocks.in_arena(arena, word)?;
            return Some(Thing { start: at.start, len: at.size as u64, cell: p.blocks.cell(at)? });
        }
        let (chunk, cell) = self.search.chunks.at(word)?;
        let used = chunk.state().is_used() && word >= chunk.user();
        used.then(|| Thing { start: chunk.user(), len: chunk.usable(), cell })
    }

    /// Calls `each` with all that the thing holds.
    fn held_by(&self, thing: Thing<'a>, mut each: impl FnMut(Thing<'a>)) {
        let image = self.search.image;
        let mut look = |bytes: &[u8], from: usize, to: usize, weak: Option<usize>| {
            for (at, word) in words(from as u64, bytes.get(from..to).unwrap_or_default()) {
                if weak != Some(at as usize) {
                    if let Some(to) = self.target(word).filter(|to| to.start != thing.start) {
                        each(to);
                    }
                }
            }
        };
        match thing.block() {
            Block::Object(id) => {
                let Some((t, rule)) = self.rule(id) else { return };
                let bytes = image.prefix(thing.start, thing.len as usize).unwrap_or_default();
                if !rule.is_value {
                    look(bytes, 0, rule.head, None);
                    look(bytes, rule.front + 8, t.extent(bytes), rule.weak);
                }
            }
            Block::Owned(id) if self.rule(id).is_some_and(|(_, rule)| rule.is_plain) => {}
            // Not all of a buffer need be resident.
            _ => {
                for (_, bytes) in image.slices(thing.start, thing.start + thing.len) {
                    look(bytes, 0, bytes.len(), None);
                }
            }
        }
    }

    /// Marks everything that can be reached from `fresh`, which is marked.
    fn spread(&self, pass: Pass<'_>, mut fresh: Vec<Thing<'a>>) {
        while !fresh.is_empty() {
            if fresh.len() < FEW {
                fresh = self.look_into(pass, fresh);
                continue;
            }
            let next: Vec<Vec<Thing<'_>>> =
                fresh.par_chunks(FEW).map(|part| self.look_into(pass, part.to_vec())).collect();
            fresh = next.into_iter().flatten().collect();
        }
    }

    /// Marks what `stack` holds, and what that holds, and so on; what is left is returned.
    fn look_into(&self, pass: Pass<'_>, mut stack: Vec<Thing<'a>>) -> Vec<Thing<'a>> {
        for _ in 0..AT_ONCE {
            let Some(thing) = stack.pop() else { break };
            self.held_by(thing, |to| {
                if pass.set(&to) {
                    stack.push(to);
                }
            });
        }
        stack
    }

    /// All memory in use: blocks and chunks.
    pub fn all(&self) -> impl Iterator<Item = Thing<'a>> + use<'a> {
        let search = self.search;
        let blocks = search.pythons.iter().flat_map(|p| {
            (0..p.blocks.arenas().len()).flat_map(move |arena| {
                p.blocks.of_arena(arena).filter_map(move |(at, _, _)| {
                    let (start, len) = (at.start, at.size as u64);
                    Some(Thing { start, len, cell: p.blocks.cell(at)? })
                })
            })
        });
        let chunks = search.chunks.all().filter(|(chunk, _)| chunk.state().is_used());
        blocks.chain(chunks.map(|(chunk, cell)| Thing {
            start: chunk.user(),
            len: chunk.usable(),
            cell,
        }))
    }

    /// Those of `all` that `keep` wants.
    fn filtered(&self, keep: impl Fn(&Thing<'a>) -> bool + Sync) -> Vec<Thing<'a>> {
        let keep = &keep;
        let search = self.search;
        let arenas: Vec<_> = search
            .pythons
            .iter()
            .flat_map(|p| (0..p.blocks.arenas().len()).map(move |arena| (p, arena)))
            .collect();
        let of_arena = |(p, arena): (&'a Python<'a>, usize)| {
            let things = p.blocks.of_arena(arena).filter_map(move |(at, _, _)| {
                let (start, len) = (at.start, at.size as u64);
                Some(Thing { start, len, cell: p.blocks.cell(at)? })
            });
            things.filter(keep).collect::<Vec<_>>()
        };
        let blocks: Vec<Vec<Thing<'a>>> = arenas.into_par_iter().map(of_arena).collect();
        let mut kept: Vec<Thing<'a>> = blocks.into_iter().flatten().collect();
        let chunks = search.chunks.all().filter(|(chunk, _)| chunk.state().is_used());
        let chunks =
            chunks.map(|(chunk, cell)| Thing { start: chunk.user(), len: chunk.usable(), cell });
        kept.extend(chunks.filter(keep));
        kept
    }

    /// Marks what the roots hold: memory that isn't Python's own.
    fn mark_roots(&self, pass: Pass<'_>) {
        let image = self.search.image;
        let in_c = |thing: &Thing<'_>| {
            matches!(thing.block(), Block::Raw | Block::Owned(NATIVE)) && pass.set(thing)
        };
        let mut fresh = self.filtered(in_c);
        let note = |word: u64, fresh: &mut Vec<Thing<'a>>| {
            fresh.extend(self.target(word).filter(|to| pass.set(to)));
        };
        let known = self.functions.are_known();
        self.functions.slots(|word, _| note(word, &mut fresh));
        self.functions.objects().for_each(|frame| note(frame, &mut fresh));
        let in_frames = |at: u64| {
            known && self.frames.iter().any(|&(start, len)| (start..start + len).contains(&at))
        };
        for m in image.mappings() {
            // What lies below a stack's pointer isn't in use any more.
            let inside = |sp: &u64| (m.start..m.end).contains(sp);
            let sp = image.threads().iter().filter_map(|t| t.stack_pointer).filter(inside).min();
            for (from, to) in self.claimed.left(m.start, m.end) {
                let from = from.max(sp.map_or(from, |sp| sp.saturating_sub(128) & !7));
                for (start, bytes) in image.slices(from, to) {
                    for (at, word) in words(start, bytes) {
                        if !in_frames(at) {
                            note(word, &mut fresh);
                        }
                    }
                }
            }
        }
        self.spread(pass, fresh);
    }

    /// Marks what has more references than were found: somebody holds it who can't be seen.
    fn mark_held(&self, pass: Pass<'_>) {
        let left = self.filtered(|thing| !pass.has(thing));
        // Where each reference goes; sorted, so that those to one thing stand together.
        let of_part = |part: &[Thing<'a>]| {
            let mut to_unmarked = Vec::new();
            for &thing in part {
                self.held_by(thing, |to| {
                    if !pass.has(&to) {
                        to_unmarked.push(to.start);
                    }
                });
            }
            to_unmarked
        };
        let parts: Vec<Vec<u64>> = left.par_chunks(AT_ONCE).map(of_part).collect();
        let mut references: Vec<u64> = parts.into_iter().flatten().collect();
        references.par_sort_unstable();
        let found = |start: u64| {
            let first = references.partition_point(|&to| to < start);
            references[first..].iter().take_while(|&&to| to == start).count() as u64
        };
        let mut fresh = Vec::new();
        for &thing in &left {
            let Block::Object(id) = thing.block() else { continue };
            let count = self.search.image.word(thing.start + self.front(id)).unwrap_or(0);
            let count = if count as u32 as u64 >= IMMORTAL { u64::MAX } else { count };
            let more = count > found(thing.start);
            if more && pass.set(&thing) {
                fresh.push(thing);
            }
        }
        self.spread(pass, fresh);
    }

    /// What nothing can reach: objects and buffers by type.
    pub fn garbage(&self) -> Counts {
        counts(self.filtered(|thing| !Mark::Reached.is_set(thing.cell)).into_iter())
    }

    /// The counters of the collector that some of the garbage waits for.
    pub fn collector(&self) -> Option<CollectorReport> {
        let image = self.search.image;
        let head_of = |thing: &Thing<'_>| match thing.block() {
            Block::Object(id) => {
                let (t, rule) = self.rule(id)?;
                t.has_gc().then_some((thing.start + rule.head as u64, rule))
            }
            _ => None,
        };
        let is_object = |address: u64| {
            self.thing_at(address).is_some_and(|thing| matches!(thing.block(), Block::Object(_)))
        };
        let waiting = self.all().filter(|thing| !Mark::Reached.is_set(thing.cell));
        // An object that the collector doesn't track (yet) is in no ring.
        let mut heads = waiting.filter_map(|thing| head_of(&thing)).take(TRIED);
        heads.find_map(|(head, rule)| {
            let gc_head = (rule.front - rule.head) as u64;
            crate::collector::of_object(image, gc_head, head, is_object)
        })
    }

    /// What can only be reached through the object in the block `around`, itself included.
    pub fn kept_by(&self, around: u64) -> Counts {
        self.filtered(|thing| {
            Mark::Elsewhere.clear(thing.cell);
            false
        });
        let mut all = vec![around];
        if let Some(thing) = self.thing_at(around) {
            self.held_by(thing, |held| {
                if matches!(held.block(), Block::Owned(_)) {
                    all.push(held.start);
                }
            });
        }
        all.truncate(MOST_AROUND);
        self.run(Pass { mark: Mark::Elsewhere, around: &all });
        let only = |thing: &Thing<'_>| {
            Mark::Reached.is_set(thing.cell) && !Mark::Elsewhere.is_set(thing.cell)
        };
        counts(self.filtered(only).into_iter())
    }
}

fn counts<'a>(things: impl Iterator<Item = Thing<'a>>) -> Counts {
    let mut counts = Counts::default();
    for thing in things {
        match thing.block() {
            Block::Object(id) => counts.object(id, thing.len),
            Block::Owned(id) => counts.buffer(id, thing.len),
            _ => {}
        }
    }
    counts
}
