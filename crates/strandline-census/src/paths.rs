//! Who refers to an object: a path from a module's global or a running function down to it, found
//! by searching memory for pointers, level by level, for all wanted objects at once.

mod text;

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use strandline_interpreter::{module_data, words, Block, TypeId};

use crate::chunks::{Chunks, Python};
use crate::functions::{Functions, Slot};
use crate::names::Names;
use crate::owners::Search;

/// Levels that are searched.
const LEVELS: usize = 16;
/// Holders that are followed for each thing.
const HOLDERS: usize = 3;
/// Things that are searched for at a time.
const MOST: usize = 4096;
/// `ob_size` of a variable-sized object (Include/object.h).
const OB_SIZE: u64 = 16;
/// Bytes at the start of a chunk that are searched.
const SEARCHED: u64 = 64 << 20;

/// Something in memory: an object or a buffer, by the address of its block or chunk.
pub type Thing = u64;

/// A pointer that was found: where in which thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    /// The thing that holds it.
    by: Thing,
    /// Offset of the pointer in it, bytes.
    at: u64,
    /// It points into a buffer, not to its start.
    inside: bool,
}

/// Why something that looks like a pointer may be none. Where there are others without a doubt,
/// they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// Nothing speaks against it.
    None,
    /// Who holds a buffer mostly points to its start. Text that ends within a word that was a
    /// pointer before makes one that points somewhere near.
    Inside,
    /// A link of a list of free blocks, from before both were allocated: the first word of a
    /// buffer is written late, or never.
    LeftOver,
}

/// What stands at an address.
#[derive(Debug, Clone, Copy)]
struct Place {
    thing: Thing,
    block: Block,
    len: u64,
}

/// Where a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    /// A module object.
    Module,
    /// A function that runs: this slot of its frame.
    Running(Slot),
    /// The frame of a function that runs, an object of its own.
    Frame,
    /// A thread's stack, or memory that frames are in.
    Stack,
    /// Static memory of the interpreter or a library.
    Static,
}

/// A way from a root down to a thing.
#[derive(Debug, Clone)]
pub struct Path {
    /// Each thing, and the offset of the pointer to the next one in it.
    steps: Vec<(Thing, Option<u64>)>,
    root: Option<Root>,
}

impl Path {
    /// True if the root stays when all functions that run have ended.
    pub fn is_lasting(&self) -> bool {
        self.root == Some(Root::Module)
    }

    /// True if the root is a function that runs.
    pub fn is_running(&self) -> bool {
        matches!(self.root, Some(Root::Running(_) | Root::Frame | Root::Stack))
    }
}

/// Kinds of roots, see [`Root::kind`].
const ROOTS: std::ops::RangeInclusive<u8> = 0..=3;
/// The last kind of root that tells where to look.
const TELLING: u8 = 1;
/// Levels that a root of kind 0 is looked for when one of kind [`TELLING`] was found.
const FOR_BETTER: usize = 6;

impl Root {
    /// How much it tells, less is better: what stays; what stays while a function runs; what may
    /// be left over.
    fn kind(self) -> u8 {
        match self {
            Root::Module => 0,
            Root::Running(slot) if slot.is_variable => 1,
            Root::Frame => 1,
            Root::Running(_) => 2,
            Root::Stack | Root::Static => 3,
        }
    }
}

/// The search.
pub struct Paths<'a> {
    search: &'a Search<'a>,
    names: Names<'a>,
    functions: Functions<'a>,
    /// Memory of frames and stacks: address and length.
    stacks: Vec<(u64, u64)>,
}

impl<'a> Paths<'a> {
    /// `frames`: ranges of the frame stacks.
    pub fn new(search: &'a Search<'a>, frames: &[(u64, u64)]) -> Self {
        let functions = Functions::new(search);
        // Behind the frames that run the memory has what is left of others.
        let mut ranges = if functions.are_known() { Vec::new() } else { frames.to_vec() };
        for thread in search.image.threads() {
            let Some(sp) = thread.stack_pointer else { continue };
            if let Some(m) = search.image.mapping_at(sp) {
                ranges.push((sp & !7, (m.end - (sp & !7)).min(1 << 20)));
            }
        }
        let names = Names::new(search.image, search.pythons);
        Paths { search, names, functions, stacks: ranges }
    }

    /// Types by name.
    pub fn names(&self) -> &Names<'a> {
        &self.names
    }

    /// The interpreters.
    pub fn pythons(&self) -> &'a [Python<'a>] {
        self.search.pythons
    }

    /// malloc's chunks.
    pub fn chunks(&self) -> &'a Chunks<'a> {
        self.search.chunks
    }

    /// The functions that run.
    pub fn functions(&self) -> &Functions<'a> {
        &self.functions
    }

    fn place(&self, address: u64) -> Option<Place> {
        for p in self.search.pythons {
            if let Some(at) = p.blocks.at(address) {
                let block = p.blocks.block(at);
                return Some(Place { thing: at.start, block, len: at.size as u64 });
            }
        }
        let (chunk, cell) = self.search.chunks.at(address)?;
        let block = Block::unpack(cell.load(std::sync::atomic::Ordering::Relaxed));
        let used = chunk.state().is_used() && address >= chunk.user();
        used.then(|| Place { thing: chunk.user(), block, len: chunk.usable() })
    }

    /// Whether a pointer to `address` refers to the thing at `place`: to an object itself, not to
    /// its GC head; to a buffer anywhere.
    fn refers(&self, address: u64, place: &Place) -> bool {
        match place.block {
            Block::Object(id) => address == place.thing + self.names.front(id),
            Block::Free | Block::Dead(_) => false,
            _ => true,
        }
    }

    /// The thing that the word `word` refers to if it stands at offset `at` of `bytes`, the thing
    /// `by` with what it holds, and is wanted.
    fn wanted_by(
        &self,
        (by, block, bytes): (Thing, Block, &[u8]),
        at: u64,
        word: u64,
        wanted: &Wanted,
    ) -> Option<(Thing, Held)> {
        let place = self.place(word)?;
        if place.thing == by || !wanted.things.contains(&place.thing) || !self.refers(word, &place)
        {
            return None;
        }
        match block {
            Block::Object(id) => {
                // The links of the GC head refer to neighbours, the type is no holder's business,
                // and what follows the object is left over from before.
                let (from, to) = self.names.head(id);
                let extent = self.names.info(id).map_or(bytes.len(), |info| info.extent(bytes));
                let own = !(from..to).contains(&at) && at < extent as u64;
                (own && !self.names.holds_nothing(id)).then_some(())?;
            }
            Block::Free | Block::Dead(_) => return None,
            _ => {}
        }
        let inside = word & !7 != place.thing && !matches!(place.block, Block::Object(_));
        Some((place.thing, Held { by, at, inside }))
    }

    /// All pointers in objects and buffers to `wanted`.
    fn holders(&self, wanted: &Wanted) -> Vec<(Thing, Held)> {
        let image = self.search.image;
        let mut all = Vec::new();
        for p in self.search.pythons {
            let lists: Vec<Vec<_>> = (0..p.blocks.arenas().len())
                .into_par_iter()
                .map(|arena| {
                    let mut found = Vec::new();
                    let a = &p.blocks.arenas()[arena];
                    // Nearly all words fail the quick test: blocks are looked at afterwards.
                    for (address, word) in words(a.start, &a.bytes) {
                        if !wanted.may(word) {
                            continue;
                        }
                        let Some(at) = p.blocks.at(address) else { continue };
                        let first = (at.start - a.start) as usize;
                        let Some(bytes) = a.bytes.get(first..first + at.size as usize) else {
                            continue;
                        };
                        let thing = (at.start, p.blocks.block(at), bytes);
                        found.extend(self.wanted_by(thing, address - at.start, word, wanted));
                    }
                    found
                })
                .collect();
            all.extend(lists.into_iter().flatten());
        }
        let chunks: Vec<_> = self.search.chunks.used().filter(|(_, b)| *b != Block::Free).collect();
        let lists: Vec<Vec<_>> = chunks
            .par_chunks(4096)
            .map(|part| {
                let mut found = Vec::new();
                for &(chunk, block) in part {
                    let (start, len) = (chunk.user(), chunk.usable().min(SEARCHED));
                    let Some(head) = image.prefix(start, len as usize) else { continue };
                    // Not all of a buffer need be resident.
                    for (from, bytes) in image.slices(start, start + len) {
                        let words = words(from - start, bytes);
                        for (at, word) in words.filter(|&(_, word)| wanted.may(word)) {
                            let thing = (start, block, head);
                            found.extend(self.wanted_by(thing, at, word, wanted));
                        }
                    }
                }
                found
            })
            .collect();
        all.extend(lists.into_iter().flatten());
        all
    }

    /// Things that static memory or running functions point to.
    fn rooted(&self, wanted: &Wanted) -> HashMap<Thing, Root> {
        let mut roots = HashMap::new();
        let image = self.search.image;
        let mut note = |word: u64, root| {
            if !wanted.may(word) {
                return;
            }
            let Some(place) = self.place(word) else { return };
            if wanted.things.contains(&place.thing) && self.refers(word, &place) {
                better(&mut roots, place.thing, root);
            }
        };
        self.functions.slots(|word, slot| note(word, Root::Running(slot)));
        for frame in self.functions.objects() {
            note(frame, Root::Frame);
        }
        for &(start, len) in &self.stacks {
            for (_, bytes) in image.slices(start, start.saturating_add(len)) {
                words(0, bytes).for_each(|(_, word)| note(word, Root::Stack));
            }
        }
        for part in module_data(image) {
            part.words(image).for_each(|(_, word)| note(word, Root::Static));
        }
        roots
    }

    /// A path to each of `objects` (addresses inside of their blocks); `None` where nobody was
    /// found within the levels that are searched.
    pub fn find(&self, objects: &[u64]) -> Vec<Option<Path>> {
        let places: Vec<Option<Place>> = objects.iter().map(|&o| self.place(o)).collect();
        let mut above: HashMap<Thing, Vec<Held>> = HashMap::new();
        let mut roots: HashMap<Thing, Root> = HashMap::new();
        let mut level: Vec<Thing> = places.iter().flatten().map(|p| p.thing).collect();
        level.sort_unstable();
        level.dedup();
        for number in 1..=LEVELS {
            if level.is_empty() {
                break;
            }
            let wanted = Wanted::new(&level, |thing| self.place(thing).map_or(0, |p| p.len));
            let mut found = self.holders(&wanted);
            // Who tells most comes first: a module, a container. And the same order every time,
            // whoever found what first.
            let mut ranks: HashMap<Thing, u8> = HashMap::new();
            for (_, held) in &found {
                ranks.entry(held.by).or_insert_with(|| self.rank(held.by));
            }
            found.sort_unstable_by_key(|(thing, held)| {
                (*thing, self.doubt(*thing, *held), ranks.get(&held.by), *held)
            });
            for (thing, held) in found {
                let list = above.entry(thing).or_default();
                let doubt = self.doubt(thing, held);
                let is_less = |first: &Held| doubt > self.doubt(thing, *first).min(Doubt::Inside);
                if list.first().is_some_and(is_less) {
                    continue;
                }
                if list.len() < HOLDERS && !list.iter().any(|h| h.by == held.by) {
                    list.push(held);
                }
            }
            for (thing, root) in self.rooted(&wanted) {
                better(&mut roots, thing, root);
            }
            let mut next: Vec<Thing> = Vec::new();
            for thing in &level {
                for held in above.get(thing).into_iter().flatten() {
                    if self.is_module(held.by) {
                        better(&mut roots, held.by, Root::Module);
                    } else if !above.contains_key(&held.by) && !level.contains(&held.by) {
                        next.push(held.by);
                    }
                }
            }
            next.sort_unstable();
            next.dedup();
            next.truncate(MOST);
            level = next;
            let enough = if number < FOR_BETTER { 0 } else { TELLING };
            let reached = |p: &Place| {
                (0..=enough).any(|kind| self.shortest(p.thing, &above, &roots, kind).is_some())
            };
            if places.iter().flatten().all(reached) {
                break;
            }
        }
        let path = |p: &Place| {
            let steps =
                ROOTS.into_iter().find_map(|k| self.shortest(p.thing, &above, &roots, k))?;
            let root = steps.first().and_then(|(thing, _)| roots.get(thing)).copied();
            Some(Path { steps, root })
        };
        places.iter().map(|p| p.as_ref().and_then(path)).collect()
    }

    /// The objects on the path, the root first, each with its number for `text_to` and its type.
    pub fn objects<'p>(
        &'p self,
        path: &'p Path,
    ) -> impl Iterator<Item = (usize, Thing, TypeId)> + 'p {
        path.steps.iter().enumerate().filter_map(|(i, &(thing, _))| {
            match self.place(thing)?.block {
                Block::Object(id) => Some((i, thing, id)),
                _ => None,
            }
        })
    }

    /// Why this may be no pointer.
    fn doubt(&self, thing: Thing, held: Held) -> Doubt {
        let blocks = || (self.place(thing), self.place(held.by));
        if held.at == 0
            && matches!(blocks(), (Some(to), Some(by))
                if matches!(by.block, Block::Owned(_) | Block::Raw)
                    && !matches!(to.block, Block::Object(_))
                    && to.len == by.len)
        {
            return Doubt::LeftOver;
        }
        match held.inside {
            true => Doubt::Inside,
            false => Doubt::None,
        }
    }

    /// How much a holder says of whose its thing is; less is better.
    fn rank(&self, thing: Thing) -> u8 {
        match self.place(thing).map(|p| p.block) {
            Some(Block::Object(id)) => match self.names.of(id).as_str() {
                "module" => 0,
                "dict" | "list" | "tuple" | "set" | "deque" => 1,
                "frame" | "function" | "cell" | "code" | "traceback" => 3,
                _ => 2,
            },
            Some(Block::Owned(_)) => 1,
            _ => 4,
        }
    }

    fn is_module(&self, thing: Thing) -> bool {
        let block = self.place(thing).map(|p| p.block);
        matches!(block, Some(Block::Object(id)) if self.names.of(id) == "module")
    }

    /// The shortest way from `thing` up to a root of this kind, the root first.
    fn shortest(
        &self,
        thing: Thing,
        above: &HashMap<Thing, Vec<Held>>,
        roots: &HashMap<Thing, Root>,
        kind: u8,
    ) -> Option<Vec<(Thing, Option<u64>)>> {
        let mut came: HashMap<Thing, (Thing, u64)> = HashMap::new();
        let mut seen: HashSet<Thing> = [thing].into();
        let mut level = vec![thing];
        while !level.is_empty() {
            for &t in &level {
                if roots.get(&t).is_some_and(|root| root.kind() == kind) {
                    let mut path = vec![(t, None)];
                    let mut at = t;
                    while let Some(&(below, offset)) = came.get(&at) {
                        if let Some(last) = path.last_mut() {
                            last.1 = Some(offset);
                        }
                        path.push((below, None));
                        at = below;
                    }
                    return Some(path);
                }
            }
            let mut next = Vec::new();
            for &t in &level {
                for held in above.get(&t).into_iter().flatten() {
                    let item = came.get(&t).map(|c| c.1);
                    if self.holds(held.by, t, item) && seen.insert(held.by) {
                        came.insert(held.by, (t, held.at));
                        next.push(held.by);
                    }
                }
            }
            level = next;
        }
        None
    }

    /// False if `by` is a list, `buffer` its array, and the item at offset `item` of that is left
    /// over from before: an array is longer than its list.
    fn holds(&self, by: Thing, buffer: Thing, item: Option<u64>) -> bool {
        let Some(Block::Object(id)) = self.place(by).map(|p| p.block) else { return true };
        let is_array = matches!(self.place(buffer).map(|p| p.block), Some(Block::Owned(_)));
        let (true, true, Some(item)) = (is_array, self.names.of(id) == "list", item) else {
            return true;
        };
        let len = self.search.image.word(by + self.names.front(id) + OB_SIZE);
        len.is_some_and(|len| item / 8 < len)
    }
}

/// Notes a root of `thing` unless a better one is known.
fn better(roots: &mut HashMap<Thing, Root>, thing: Thing, root: Root) {
    let known = roots.entry(thing).or_insert(root);
    if root.kind() < known.kind() {
        *known = root;
    }
}

/// What is searched for, with a quick test that most words fail.
struct Wanted {
    things: HashSet<Thing>,
    pages: Vec<u64>,
}

impl Wanted {
    fn new(things: &[Thing], len: impl Fn(Thing) -> u64) -> Self {
        let mut wanted =
            Wanted { things: things.iter().copied().collect(), pages: vec![0; 1 << 12] };
        for &thing in things {
            let last = thing + len(thing).max(1) - 1;
            // A buffer may be pointed into anywhere; large ones are, at their start.
            for page in (thing >> 12)..=(last >> 12).min((thing >> 12) + 16) {
                let (word, bit) = Self::bit(page << 12);
                wanted.pages[word] |= bit;
            }
        }
        wanted
    }

    fn bit(address: u64) -> (usize, u64) {
        let hash = (address >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 46;
        ((hash >> 6) as usize, 1 << (hash & 63))
    }

    #[inline]
    fn may(&self, word: u64) -> bool {
        let (index, bit) = Self::bit(word);
        self.pages[index] & bit != 0
    }
}
