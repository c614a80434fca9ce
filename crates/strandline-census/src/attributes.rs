//! Which attribute of an instance holds what: by its dict, its values without a dict, its slots.

use strandline_cpython::Dict;
use strandline_interpreter::{values, TypeId, TypeInfo};

use crate::chunks::Python;
use crate::names::Names;

/// Types that a type is derived from in a row, and are looked at.
const MOST_BASES: usize = 32;

impl Names<'_> {
    fn member(&self, at: u64, offset: u16) -> Option<u64> {
        self.image.word(at.checked_add(offset as u64)?)
    }

    /// True if what stands at `offset` of an object's block is its `__dict__`.
    pub fn is_dict_of_attributes(&self, id: TypeId, offset: u64) -> bool {
        let Some(info) = self.info(id) else { return false };
        // What 3.11 and later manage stands in front of the object. An object of a class of the old
        // kind (2.7) has `in_class`, then `in_dict` (Include/classobject.h).
        offset < info.front
            || info.name == "instance"
            || self.dict_offset(id, info) == Some((offset - info.front) as i64)
    }

    /// `tp_dictoffset`. Negative: from the end of an object with items (not told apart).
    fn dict_offset(&self, id: TypeId, info: &TypeInfo) -> Option<i64> {
        let offset = self.python_of(id)?.interpreter.layout.object.tp_dictoffset;
        Some(self.member(info.address, offset)? as i64).filter(|&at| at != 0)
    }

    /// Name of the attribute whose value stands at `offset` of the object in the block `thing`:
    /// of a slot, or of values that follow the object (3.13 and later).
    pub fn attribute_in(&self, id: TypeId, offset: u64) -> Option<String> {
        let info = self.info(id)?;
        let python = self.python_of(id)?;
        let offset = offset.checked_sub(info.front)?;
        if info.has_inline_values() && offset >= info.basic_size {
            let Dict::Keys { first_value, .. } = python.interpreter.layout.dict else {
                return None;
            };
            let first = info.basic_size + first_value as u64;
            return self.attribute(python, info, offset.checked_sub(first)? / 8);
        }
        self.slot(python, info, offset)
    }

    /// Name of the attribute whose value stands at `at` (block, offset) of memory that the object
    /// in the block `thing` points to from its offset `pointer`: values without a dict (3.11 and
    /// later).
    pub fn attribute_at(
        &self,
        id: TypeId,
        (thing, pointer): (u64, u64),
        at: (u64, u64),
    ) -> Option<String> {
        let info = self.info(id)?;
        let python = self.python_of(id)?;
        let Dict::Keys { first_value, .. } = python.interpreter.layout.dict else { return None };
        if pointer >= info.front {
            return None;
        }
        let values = self.image.word(thing + pointer)?;
        // 3.12 tells values from a dict by taking one off (Include/internal/pycore_object.h).
        let first = values.checked_add(values & 1)?.checked_add(first_value as u64)?;
        self.attribute(python, info, (at.0 + at.1).checked_sub(first)? / 8)
    }

    /// The attribute `number` by the keys that all objects of a type share.
    fn attribute(&self, python: &Python<'_>, info: &TypeInfo, number: u64) -> Option<String> {
        let l = &python.interpreter.layout;
        let keys = l.object.ht_cached_keys.filter(|_| info.is_heap_type())?;
        let keys = self.member(info.address, keys)?;
        self.name_at(python, values::key_in(self.image, l, keys, number)?)
    }

    fn name_at(&self, python: &Python<'_>, key: u64) -> Option<String> {
        let l = &python.interpreter.layout;
        values::text(self.image, l, key).filter(|_| self.is_text(key))
    }

    /// The name of the slot at `offset` of an object of this type or one that it is derived from.
    fn slot(&self, python: &Python<'_>, info: &TypeInfo, offset: u64) -> Option<String> {
        let l = &python.interpreter.layout;
        let mut at = info.address;
        for _ in 0..MOST_BASES {
            let dict = self.member(at, l.object.tp_dict)?;
            for (key, value) in values::entries(self.image, l, dict) {
                if self.member_offset(python, value) == Some(offset) {
                    return self.name_at(python, key);
                }
            }
            at = self.member(at, l.object.tp_base).filter(|&base| base != 0)?;
        }
        None
    }

    /// The offset that a `member_descriptor` describes.
    ///
    /// Fact: `PyMemberDef` is {name, type, offset} (Include/structmember.h).
    fn member_offset(&self, python: &Python<'_>, object: u64) -> Option<u64> {
        let l = &python.interpreter.layout;
        let id = python.types.look_up(self.image, self.member(object, l.object.type_)?)?;
        if python.types.name(id)? != "member_descriptor" {
            return None;
        }
        let member = self.member(object, l.object.d_member)?;
        self.member(member, 16)
    }
}
