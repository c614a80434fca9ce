//! Types by name, and the little that is read of single objects to say which they are.

use strandline_cpython::Dict;
use strandline_image::Image;
use strandline_interpreter::{values, TypeId, TypeInfo};

use crate::chunks::Python;

/// Bits of an `int`'s digit (`PyLong_SHIFT`, Include/longintrepr.h).
const DIGIT_BITS: u32 = 30;

/// The types of all interpreters.
pub struct Names<'a> {
    pub(crate) image: &'a Image,
    pythons: &'a [Python<'a>],
    infos: Vec<Vec<TypeInfo>>,
}

impl<'a> Names<'a> {
    /// Takes note of all types.
    pub fn new(image: &'a Image, pythons: &'a [Python<'a>]) -> Self {
        Names { image, pythons, infos: pythons.iter().map(|p| p.types.list()).collect() }
    }

    /// What is known of a type.
    pub fn info(&self, id: TypeId) -> Option<&TypeInfo> {
        self.pythons
            .iter()
            .zip(&self.infos)
            .find_map(|(p, infos)| infos.get(id.checked_sub(p.types.base())? as usize))
    }

    /// The interpreter that a type is of.
    pub fn python_of(&self, id: TypeId) -> Option<&'a Python<'a>> {
        let has = |p: &&Python<'_>| p.types.name(id).is_some();
        self.pythons.iter().find(has)
    }

    /// Name of a type.
    pub fn of(&self, id: TypeId) -> String {
        let name = self.info(id).map_or("?", |info| &info.name);
        // `collections.deque` and the like: static types carry their module in the name.
        match name {
            "collections.deque" | "_collections.deque" => "deque".to_owned(),
            name => name.to_owned(),
        }
    }

    /// True if its objects are what an `import` makes, see [`crate::count`].
    pub fn is_of_code(&self, id: TypeId) -> bool {
        self.info(id).is_some_and(crate::count::is_of_code)
    }

    /// Bytes in front of its objects.
    pub fn front(&self, id: TypeId) -> u64 {
        self.info(id).map_or(0, |info| info.front)
    }

    /// Offsets in an object's block that hold nothing of its own: GC head, count and type.
    pub fn head(&self, id: TypeId) -> (u64, u64) {
        let Some(info) = self.info(id) else { return (0, 16) };
        let gc = self.python_of(id).map_or(0, |p| p.interpreter.layout.object.gc_head as u64);
        let from = if info.has_gc() { info.front.saturating_sub(gc) } else { info.front };
        (from, info.front + 16)
    }

    /// True if its objects hold nothing: they refer weakly, or are plain values.
    pub fn holds_nothing(&self, id: TypeId) -> bool {
        const VALUES: [&str; 7] = ["str", "bytes", "int", "long", "float", "complex", "bool"];
        let Some(info) = self.info(id) else { return false };
        let value = !info.is_heap_type() && VALUES.contains(&info.name.as_str());
        value || info.name.to_ascii_lowercase().contains("weak")
    }

    /// Which item of a tuple stands at `offset` of its block.
    pub fn tuple_index(&self, id: TypeId, offset: u64) -> u64 {
        let items = self.python_of(id).map_or(24, |p| p.interpreter.layout.object.tuple_items);
        offset.saturating_sub(self.front(id) + items as u64) / 8
    }

    /// The key of the value at `at` (table, offset), if the object in block `dict`, of type `id`,
    /// is a dict that points to the table from its offset `pointer`.
    pub fn key_of(&self, id: TypeId, dict: u64, pointer: u64, at: (u64, u64)) -> Option<u64> {
        if self.of(id) != "dict" {
            return None;
        }
        let l = &self.python_of(id)?.interpreter.layout;
        let (own, shared) = match l.dict {
            Dict::Slots { table, .. } => (table, None),
            Dict::Keys { keys, values, first_value, .. } => (keys, Some((values, first_value))),
        };
        if pointer == own as u64 {
            // In every version the key stands right before the value.
            return self.image.word(at.0 + at.1.checked_sub(8)?);
        }
        let (values, first) = shared.filter(|&(values, _)| pointer == values as u64)?;
        let object = dict + self.front(id);
        let start = self.image.word(object + values as u64)?.wrapping_add(first as u64);
        let number = (at.0 + at.1).checked_sub(start)? / 8;
        values::key(self.image, l, object, number)
    }

    fn type_of(&self, object: u64) -> Option<(&'a Python<'a>, TypeInfo)> {
        self.pythons.iter().find_map(|p| {
            let kind = self.image.word(object + p.interpreter.layout.object.type_ as u64)?;
            let id = p.types.look_up(self.image, kind)?;
            let info = p.types.list().get((id - p.types.base()) as usize)?.clone();
            Some((p, info))
        })
    }

    /// True if the object is a `str` (in 2.7 of bytes).
    pub fn is_text(&self, object: u64) -> bool {
        self.type_of(object).is_some_and(|(_, info)| info.name == "str")
    }

    /// The value of an `int` of at most two digits.
    pub fn number(&self, object: u64) -> Option<i64> {
        let (p, info) = self.type_of(object)?;
        let l = &p.interpreter.layout;
        if info.name != "int" {
            return None;
        }
        if let Some(offset) = l.object.int_value {
            return Some(self.image.word(object + offset as u64)? as i64);
        }
        let tag = self.image.word(object + l.object.long_tag as u64)?;
        let (digits, negative) = if l.version >= (3, 12) {
            (tag >> 3, tag & 3 == 2)
        } else {
            ((tag as i64).unsigned_abs(), (tag as i64) < 0)
        };
        if digits > 2 {
            return None;
        }
        let mut value = 0i64;
        for i in 0..digits {
            let digit = self.image.half(object + l.object.long_digits as u64 + 4 * i)?;
            value |= (digit as i64) << (DIGIT_BITS * i as u32);
        }
        Some(if negative { -value } else { value })
    }

    /// The name of the module object at `object`, from its dict.
    ///
    /// Fact: `md_dict` is the first member of PyModuleObject (Objects/moduleobject.c).
    pub fn module(&self, object: u64) -> String {
        let name = self.pythons.iter().find_map(|p| {
            let l = &p.interpreter.layout;
            let dict = self.image.word(object + 16)?;
            values::text(self.image, l, values::get(self.image, l, dict, "__name__")?)
        });
        name.unwrap_or_else(|| "a module".to_owned())
    }
}
