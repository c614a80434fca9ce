//! Python 2.7's ints and floats: they don't live in pymalloc, but in blocks of 41 that come from
//! malloc and are given back only by a full collection that finds a block without a live one.
//!
//! Facts: `struct _intblock` and `struct _floatblock` {next, objects[41]} of 992 bytes
//! (Objects/intobject.c, Objects/floatobject.c, 2.7); a free slot's `ob_type` is the link to the
//! next free one.

use strandline_image::Image;
use strandline_interpreter::{module_data, TypeId, TypeInfo};

use crate::chunks::Python;

/// Objects of a block.
const SLOTS: usize = 41;
/// Bytes of an object: refcnt, type, value.
const SLOT: usize = 24;
/// Bytes of the block: the link to the next block, the objects.
const BLOCK: usize = 8 + SLOTS * SLOT;
/// Bytes that malloc makes of it.
const USABLE: u64 = 1000;

/// What is in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntBlock {
    /// The type, if a slot is in use.
    pub id: Option<TypeId>,
    /// Slots in use.
    pub live: u64,
    /// Slots that are free.
    pub free: u64,
}

/// Finds the blocks among chunks.
pub struct IntBlocks {
    /// Address and id of `int` and `float`.
    types: Vec<(u64, TypeId)>,
}

impl IntBlocks {
    /// For the 2.7 among `pythons`; `None` if there is none.
    pub fn new(image: &Image, pythons: &[Python<'_>]) -> Option<Self> {
        let python = pythons.iter().find(|p| p.interpreter.layout.version == (2, 7))?;
        let is_static = |info: &TypeInfo| !info.is_heap_type();
        let kind = python.types.list().iter().find(|t| is_static(t)).map(|t| t.metaclass)?;
        // No int or float lies where types were looked for so far: the two are static objects of
        // type `type` in the module's data.
        for part in module_data(image) {
            for (address, _) in part.words(image).filter(|&(_, word)| word == kind) {
                python.types.look_up(image, address - 8);
            }
        }
        let mut types = Vec::new();
        for (i, info) in python.types.list().iter().enumerate() {
            if is_static(info) && matches!(info.name.as_str(), "int" | "float") {
                types.push((info.address, python.types.base() + i as TypeId));
            }
        }
        Some(IntBlocks { types })
    }

    /// The block at `user`, the start of a chunk of `usable` bytes in use, if it is one.
    pub fn at(&self, image: &Image, user: u64, usable: u64) -> Option<IntBlock> {
        if usable != USABLE {
            return None;
        }
        let bytes = image.slice(user, BLOCK)?;
        let word = |at: usize| {
            bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let mut block = IntBlock { id: None, live: 0, free: 0 };
        let mut counted_out = 0;
        for slot in 0..SLOTS {
            let at = 8 + slot * SLOT;
            let (count, kind) = (word(at), word(at + 8));
            match self.types.iter().find(|t| t.0 == kind) {
                Some(&(_, id)) if count != 0 => {
                    block.id = Some(id);
                    block.live += 1;
                }
                // Dead, with its type still in place: only until the slot is linked.
                Some(_) => block.free += 1,
                // A slot that was never used has any count.
                None if kind % 8 == 0 && (kind == 0 || image.word(kind).is_some()) => {
                    block.free += 1;
                    counted_out += (count == 0) as usize;
                }
                None => return None,
            }
        }
        // Without a live one the links alone have to tell: zeros would, too.
        let linked = (0..SLOTS).filter(|slot| word(8 + slot * SLOT + 8) != 0).count();
        let believable = block.live > 0 || counted_out >= SLOTS / 2 && linked >= SLOTS - 1;
        believable.then_some(block)
    }

    /// The bytes of `n` slots.
    pub fn bytes(n: u64) -> u64 {
        n * SLOT as u64
    }
}
