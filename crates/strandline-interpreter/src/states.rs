//! Finding a small-object allocator's state: the word that points to its array of arena objects.
//!
//! The array is recognised by what must hold in it. Up to 3.11 the pointer is a static variable
//! (Objects/obmalloc.c: `arenas`), in 3.12 a member of the interpreter, from 3.13 a member of a
//! structure that the interpreter points to (Include/internal/pycore_obmalloc.h:
//! `struct _obmalloc_mgmt`); the main interpreter's is in the module's data in all of them.
//!
//! Fact: `struct arena_object` has 48 bytes, the same from 2.7 to 3.15: address 0, pool_address
//! 8, nfreepools 16 (4 bytes), ntotalpools 20 (4 bytes), freepools 24, nextarena 32, prevarena 40.

use strandline_cpython::{Layout, Obmalloc};
use strandline_image::Image;

use crate::find::runtimes;
use crate::modules::{words, ModuleData};
use crate::Doubts;

/// `sizeof(struct arena_object)`.
pub const ARENA_OBJECT: u64 = 48;
/// `INITIAL_ARENA_OBJECTS`: the array's first length; it doubles.
const FIRST_LENGTH: u64 = 16;
/// More arenas than any process has (16 TiB of them).
const MOST_ARENAS: u64 = 1 << 24;

/// One allocator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocatorState {
    /// Address of the word `arenas`.
    pub variable: u64,
    /// Address of the array of arena objects.
    pub arenas: u64,
    /// `maxarenas`: entries of the array.
    pub length: u64,
    /// Size of an arena, bytes. A 3.15 that uses huge pages has larger ones.
    pub arena_size: u64,
}

/// `struct arena_object`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaObject {
    /// Start of the arena; 0: none.
    pub address: u64,
    /// The next pool to be carved off.
    pub pool_address: u64,
    /// Free pools, those not yet carved included.
    pub free_pools: u32,
    /// Pools.
    pub total_pools: u32,
    /// First of the list of free pools.
    pub first_free: u64,
}

/// Reads entry `index` of the array at `arenas`.
pub fn arena_object(image: &Image, arenas: u64, index: u64) -> Option<ArenaObject> {
    let at = arenas.checked_add(index.checked_mul(ARENA_OBJECT)?)?;
    let mut bytes = [0; ARENA_OBJECT as usize];
    if !image.read(at, &mut bytes) {
        return None;
    }
    let word = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().unwrap_or_default());
    let half = |i: usize| u32::from_le_bytes(bytes[i..i + 4].try_into().unwrap_or_default());
    Some(ArenaObject {
        address: word(0),
        pool_address: word(8),
        free_pools: half(16),
        total_pools: half(20),
        first_free: word(24),
    })
}

impl ArenaObject {
    /// Whether this can be a live entry of an allocator with arenas of `arena_size`.
    fn holds(&self, image: &Image, o: &Obmalloc, arena_size: u64) -> bool {
        let pools = arena_size / o.pool_size as u64;
        let end = self.address.saturating_add(arena_size);
        let total = self.total_pools as u64;
        self.address != 0
            && self.address % 16 == 0
            && (self.address..=end).contains(&self.pool_address)
            && self.pool_address % o.pool_size as u64 == 0
            && (total == pools || total + 1 == pools)
            && self.free_pools as u64 <= total
            && image.mapping_at(self.address).is_some_and(|m| m.write)
    }

    /// Whether this can be an entry that no arena is attached to.
    fn is_unused(&self) -> bool {
        self.address == 0
    }
}

/// How many entries the array has that `variable` points to: what stands in the glibc chunk
/// around it, rounded down to what it can be; without a chunk, as far as entries hold.
fn length(image: &Image, arenas: u64, live: impl Fn(&ArenaObject) -> bool) -> u64 {
    let chunk = arenas.checked_sub(8).and_then(|at| image.word(at)).unwrap_or(0) & !7;
    let mut length = FIRST_LENGTH;
    let mut fits = 0;
    while length * ARENA_OBJECT <= chunk.saturating_sub(8) && length <= MOST_ARENAS {
        fits = length;
        length *= 2;
    }
    let holds = |i| arena_object(image, arenas, i).is_some_and(|a| a.is_unused() || live(&a));
    if fits != 0 && (0..fits).all(holds) {
        return fits;
    }
    (0..MOST_ARENAS).take_while(|&i| holds(i)).count() as u64
}

/// Sizes that arenas of this layout may have, bytes.
fn arena_sizes(o: &Obmalloc) -> impl Iterator<Item = u64> {
    let usual = o.arena_size as u64;
    // PYMALLOC_USE_HUGEPAGES (3.15): 2 MiB.
    [usual, 2 * usual].into_iter().take(if o.pool_size > 4096 { 2 } else { 1 })
}

/// The state whose array `variable` would point to, if all of it holds.
fn state_at(image: &Image, o: &Obmalloc, variable: u64, arenas: u64) -> Option<AllocatorState> {
    // The array comes from malloc.
    if arenas % 16 != 0 || image.mapping_at(arenas).is_none_or(|m| !m.write) {
        return None;
    }
    for arena_size in arena_sizes(o) {
        let live = |a: &ArenaObject| a.holds(image, o, arena_size);
        // The first arenas may be unmapped again; somewhere near the start one is alive.
        let mut first = None;
        for i in 0..FIRST_LENGTH {
            let entry = arena_object(image, arenas, i)?;
            if live(&entry) {
                first = Some(entry);
                break;
            }
            if !entry.is_unused() {
                break;
            }
        }
        let Some(first) = first else { continue };
        if !pool_holds(image, o, &first) {
            continue;
        }
        let length = length(image, arenas, live);
        if length >= FIRST_LENGTH {
            return Some(AllocatorState { variable, arenas, length, arena_size });
        }
    }
    None
}

/// Whether the first carved pool of the arena, if there is one, looks like a pool.
fn pool_holds(image: &Image, o: &Obmalloc, a: &ArenaObject) -> bool {
    let first = a.address.next_multiple_of(o.pool_size as u64);
    if first >= a.pool_address {
        return true;
    }
    let half = |offset: u16| image.half(first + offset as u64);
    let (Some(class), Some(most)) = (half(o.pool_szidx), half(o.pool_maxnextoffset)) else {
        return false;
    };
    if class == o.fresh_szidx {
        // Free, and marked by a pool trim, which gave its pages back.
        return half(o.pool_count) == Some(0);
    }
    let block = (class as u64 + 1) * o.alignment as u64;
    class < o.small_request_max as u32 / o.alignment as u32
        && most as u64 + block == o.pool_size as u64
}

/// All states that the module's data points to, and those of further interpreters.
pub fn find(
    image: &Image,
    module: &[ModuleData],
    layout: &Layout,
    doubts: &mut Doubts,
) -> Vec<AllocatorState> {
    let o = &layout.obmalloc;
    let mut states: Vec<AllocatorState> = Vec::new();
    for part in module {
        for (variable, word) in part.words(image) {
            states.extend(state_at(image, o, variable, word));
        }
    }
    if layout.version >= (3, 12) {
        for (start, bytes) in interpreters(image, module, layout) {
            for (variable, word) in words(start, &bytes) {
                states.extend(state_at(image, o, variable, word));
                // From 3.13 the interpreter points to the state; `arenas` is its 65th word.
                if word % 16 == 0 && image.mapping_at(word).is_some_and(|m| m.write) {
                    let variable = word.saturating_add(ARENAS_IN_STATE);
                    let Some(arenas) = image.word(variable) else { continue };
                    states.extend(state_at(image, o, variable, arenas));
                }
            }
        }
    }
    // Other variables point into the array (`usable_arenas`, `unused_arena_objects`, and the
    // lists of 3.8 and later by number of free pools).
    states.sort_by_key(|s| (s.arenas, s.variable));
    let mut end = 0;
    states.retain(|s| {
        let first = s.arenas >= end;
        if first {
            end = s.arenas + s.length * ARENA_OBJECT;
        }
        first
    });
    if states.is_empty() {
        let start = module.first().map_or(0, |part| part.start);
        doubts.add(start, "no arenas of CPython's small-object allocator were found");
    }
    states
}

/// Offset of `mgmt.arenas` in `struct _obmalloc_state`: after `usedpools` of 64 words (3.12 to
/// 3.15, Include/internal/pycore_obmalloc.h).
const ARENAS_IN_STATE: u64 = 64 * 8;

/// More interpreters than any process has.
const MOST_INTERPRETERS: usize = 4096;

/// The bytes of each `PyInterpreterState` outside of the module's data, by address. The runtime
/// is recognised in the module's data by the debug offsets (3.13 and later).
fn interpreters(image: &Image, module: &[ModuleData], layout: &Layout) -> Vec<(u64, Vec<u8>)> {
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    let Some(head) = layout.interp.runtime_interpreters_head else { return found };
    for runtime in runtimes(image, module) {
        let mut next = image.word(runtime + head as u64).unwrap_or(0);
        while next != 0 && found.len() < MOST_INTERPRETERS {
            let mut bytes = vec![0; layout.interp.size as usize];
            if found.iter().any(|(at, _)| *at == next) || !image.read(next, &mut bytes) {
                break;
            }
            found.push((next, bytes));
            next = image.word(next + layout.interp.next as u64).unwrap_or(0);
        }
    }
    found
}
