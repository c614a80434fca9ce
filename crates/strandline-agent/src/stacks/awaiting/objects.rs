//! Reading objects of the interpreter: names, attributes, closures. Nothing is called and nothing
//! changed, so that nothing can run of the program.
//!
//! What is read belongs to the thread that holds the GIL: every address comes from an object that is
//! alive, and every object's type is looked at before more than its head is read. A count that is
//! larger than what anything here could have is taken for a structure that isn't understood.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use strandline_cpython::asyncio::*;
use strandline_cpython::{Dict, DictIndex, Layout, SlotNames, Str, TPFLAGS_TUPLE, TPFLAGS_UNICODE};

use super::memo::Memo;
use crate::python::word;
use crate::symbols::{self, Symbol};

/// `Py_TPFLAGS_DICT_SUBCLASS`, `Py_TPFLAGS_LIST_SUBCLASS`, `Py_TPFLAGS_MANAGED_DICT`,
/// `Py_TPFLAGS_INLINE_VALUES` (Include/object.h).
const FLAG_DICT: u64 = 1 << 29;
const FLAG_LIST: u64 = 1 << 25;
const FLAG_MANAGED_DICT: u64 = 1 << 4;
const FLAG_INLINE_VALUES: u64 = 1 << 2;

/// Entries of a dict, names of a function's variables: more is not looked at.
const MOST: usize = 1 << 12;
/// Bases of a type that are looked at.
const MOST_BASES: usize = 32;

symbols::symbols! { resolve
    /// `PyTypeObject PyCFunction_Type`
    BUILTIN_TYPE c"PyCFunction_Type"
    /// `PyTypeObject PyMethod_Type`
    METHOD_TYPE c"PyMethod_Type"
    /// `PyTypeObject PyFunction_Type`
    FUNCTION_TYPE c"PyFunction_Type"
    /// `PyTypeObject PyCell_Type`
    CELL_TYPE c"PyCell_Type"
    /// `PyTypeObject PyMemberDescr_Type`
    MEMBER_TYPE c"PyMemberDescr_Type"
    /// `PyTypeObject PyCoro_Type`
    CORO_TYPE c"PyCoro_Type"
    /// `PyTypeObject PyGen_Type`
    GEN_TYPE c"PyGen_Type"
    /// `PyTypeObject PyAsyncGen_Type`
    ASYNC_GEN_TYPE c"PyAsyncGen_Type"
}

/// A type of C code's that was found to have a name: its address and that of the name. It isn't
/// compared again.
pub struct CType {
    names: &'static [&'static [u8]],
    found: [AtomicUsize; 2],
}

impl CType {
    /// None found yet.
    pub const fn named(names: &'static [&'static [u8]]) -> CType {
        CType { names, found: [const { AtomicUsize::new(0) }; 2] }
    }
}

/// The interpreter's structures, and asyncio's.
#[derive(Clone, Copy)]
pub struct Reader {
    pub l: &'static Layout,
    pub a: &'static Asyncio,
    /// What notes the words that may change.
    pub memo: Option<&'static Memo>,
}

/// A live object; 0: none. Not a reference: it may be another one's address later.
pub type Object = usize;

/// A byte of the interpreter's memory that doesn't change.
///
/// # Safety
/// As for [`word`].
unsafe fn byte(address: usize) -> u8 {
    // SAFETY: the caller's promise.
    unsafe { *(address as *const u8) }
}

/// A C `int` of the interpreter's memory that doesn't change.
///
/// # Safety
/// As for [`word`].
unsafe fn int(address: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { *(address as *const i32) }
}

/// True if the C string at `at` is `name`.
///
/// # Safety
/// It is one.
unsafe fn is_c_string(at: usize, name: &[u8]) -> bool {
    // SAFETY: no byte is read behind one that differs, so none behind the string's end.
    unsafe {
        at != 0
            && name.iter().enumerate().all(|(i, &b)| byte(at + i) == b)
            && byte(at + name.len()) == 0
    }
}

impl Reader {
    /// A word that may change.
    ///
    /// # Safety
    /// As for [`word`].
    #[inline]
    pub unsafe fn word(&self, at: usize) -> usize {
        // SAFETY: the caller's promise.
        let was = unsafe { word(at) };
        if let Some(memo) = self.memo {
            memo.note(at, was);
        }
        was
    }

    /// A byte that may change.
    ///
    /// # Safety
    /// As for [`word`], of the aligned word that it is in.
    pub unsafe fn byte(&self, at: usize) -> u8 {
        // SAFETY: the caller's promise.
        let around = unsafe { self.word(at & !7) };
        (around >> (8 * (at & 7))) as u8
    }

    /// A C `int` that may change.
    ///
    /// # Safety
    /// As for [`word`], of the aligned word that it is in.
    pub unsafe fn int(&self, at: usize) -> i32 {
        // SAFETY: the caller's promise.
        let around = unsafe { self.word(at & !7) };
        (around >> (8 * (at & 7))) as i32
    }

    /// A member of a live object.
    #[inline]
    pub fn member(&self, object: Object, offset: u16) -> usize {
        // SAFETY: the caller looked at the object's type, which has this member.
        unsafe { self.word(object + offset as usize) }
    }

    /// A member of a live type, code object or text, which stays what it is.
    #[inline]
    pub fn fixed(&self, object: Object, offset: u16) -> usize {
        // SAFETY: the caller knows what it is, and that it has this member.
        unsafe { word(object + offset as usize) }
    }

    #[inline]
    pub fn type_of(&self, object: Object) -> Object {
        self.member(object, self.l.object.type_)
    }

    fn flags(&self, type_: Object) -> u64 {
        self.fixed(type_, self.l.object.tp_flags) as u64
    }

    pub fn is(&self, object: Object, type_: &Symbol) -> bool {
        object != 0 && type_.found() && self.type_of(object) == type_.address()
    }

    pub fn has_flag(&self, object: Object, flag: u64) -> bool {
        object != 0 && self.flags(self.type_of(object)) & flag != 0
    }

    /// Whether `type_` is this one. The caller holds the GIL, and so do all that ask.
    #[inline]
    pub fn is_c_type(&self, type_: Object, wanted: &CType) -> bool {
        let this = [type_, self.fixed(type_, self.l.object.tp_name)];
        let [type_found, name_found] = &wanted.found;
        if [type_found.load(Relaxed), name_found.load(Relaxed)] == this {
            return true;
        }
        let is = is_c_type(self.flags(type_)) && self.is_named(type_, wanted.names);
        if is {
            type_found.store(this[0], Relaxed);
            name_found.store(this[1], Relaxed);
        }
        is
    }

    /// Whether the type's name is one of these.
    pub fn is_named(&self, type_: Object, names: &[&[u8]]) -> bool {
        let name = self.fixed(type_, self.l.object.tp_name);
        // SAFETY: a type's name is a C string that lives as long as the type.
        names.iter().any(|wanted| unsafe { is_c_string(name, wanted) })
    }

    /// `type_` and what it is derived from (`tp_base`), innermost first.
    pub fn bases(self, type_: Object) -> impl Iterator<Item = Object> {
        let mut at = type_;
        let next = move || {
            let this = at;
            if this != 0 {
                at = self.fixed(this, self.l.object.tp_base);
            }
            (this != 0).then_some(this)
        };
        core::iter::from_fn(next).take(MOST_BASES)
    }

    /// `tp_basicsize`.
    pub fn size_of(&self, type_: Object) -> usize {
        self.fixed(type_, TP_BASICSIZE)
    }

    /// Where a text's characters are, how many, and bytes of each.
    fn characters(&self, text: Object) -> Option<(usize, usize, usize)> {
        let Str::Flexible(s) = &self.l.str_ else { return None };
        if text == 0 || self.flags(self.fixed(text, self.l.object.type_)) & TPFLAGS_UNICODE == 0 {
            return None;
        }
        let len = self.fixed(text, s.length);
        // SAFETY: a text's head.
        let state = unsafe { int(text + s.state as usize) as u32 };
        let kind = (state >> s.kind_shift & s.kind_mask as u32) as usize;
        let compact = state >> s.compact_bit & 1 != 0;
        let ascii = state >> s.ascii_bit & 1 != 0;
        let data = match (compact, ascii) {
            (true, true) => text + s.ascii_data as usize,
            (true, false) => text + s.compact_data as usize,
            _ => self.fixed(text, s.data_pointer),
        };
        (data != 0 && matches!(kind, 1 | 2 | 4)).then_some((data, len, kind))
    }

    /// Whether a text is `wanted`, which is ASCII.
    pub fn text_is(&self, text: Object, wanted: &[u8]) -> bool {
        self.characters(text).is_some_and(|(_, len, _)| len == wanted.len())
            && self.text_ends(text, wanted)
    }

    /// Whether a text ends with `wanted`, which is ASCII.
    pub fn text_ends(&self, text: Object, wanted: &[u8]) -> bool {
        let Some((data, len, kind)) = self.characters(text) else { return false };
        let Some(skipped) = len.checked_sub(wanted.len()) else { return false };
        wanted.iter().enumerate().all(|(i, &b)| {
            let at = data + (skipped + i) * kind;
            // SAFETY: one of the text's characters, `kind` bytes each.
            let c = unsafe {
                match kind {
                    1 => byte(at) as u32,
                    2 => *(at as *const u16) as u32,
                    _ => int(at) as u32,
                }
            };
            c == b as u32
        })
    }

    /// The items of a tuple.
    pub fn tuple(
        self,
        tuple: Object,
    ) -> impl DoubleEndedIterator<Item = Object> + ExactSizeIterator {
        let is = self.has_flag(tuple, TPFLAGS_TUPLE);
        let len = if is { self.member(tuple, self.l.object.tuple_len).min(MOST) } else { 0 };
        let first = tuple + self.l.object.tuple_items as usize;
        // SAFETY: below the tuple's length.
        (0..len).map(move |i| unsafe { self.word(first + 8 * i) })
    }

    /// The items of a tuple whose owner doesn't change.
    fn fixed_tuple(
        self,
        tuple: Object,
    ) -> impl DoubleEndedIterator<Item = Object> + ExactSizeIterator {
        Reader { memo: None, ..self }.tuple(tuple)
    }

    /// The items of a list. `None` if they move at this moment: a block from there is just being
    /// given another size.
    pub fn list(self, list: Object) -> Option<impl ExactSizeIterator<Item = Object>> {
        let is = self.has_flag(list, FLAG_LIST);
        let (len, first) = if is {
            (self.member(list, LIST_LEN).min(MOST), self.member(list, LIST_ITEMS))
        } else {
            (0, 0)
        };
        if first != 0 && first == super::moving() {
            return None;
        }
        let len = if first == 0 { 0 } else { len };
        // SAFETY: below the list's length.
        Some((0..len).map(move |i| unsafe { self.word(first + 8 * i) }))
    }

    /// The code object of a function.
    pub fn code_of(&self, function: Object) -> Option<Object> {
        self.is(function, &FUNCTION_TYPE).then(|| self.fixed(function, self.l.function.code))
    }

    /// Whether an object is a code object.
    pub fn is_code(&self, object: Object) -> bool {
        object != 0
            && self.fixed(object, self.l.object.type_) == crate::symbols::CODE_TYPE.address()
    }

    /// Whether a function's name has so many characters.
    pub fn has_name_of(&self, code: Object, len: usize) -> bool {
        let Str::Flexible(s) = &self.l.str_ else { return false };
        self.fixed(self.fixed(code, self.l.code.name), s.length) == len
    }

    /// Whether the code is that of a function with one of these names in such a file.
    pub fn is_code_of(&self, code: Object, file: &[u8], names: &[&[u8]]) -> bool {
        let name = self.fixed(code, self.l.code.name);
        names.iter().any(|wanted| self.text_is(name, wanted))
            && self.text_ends(self.fixed(code, self.l.code.filename), file)
    }

    /// What a function's variable from an outer function is.
    pub fn outer_variable(&self, function: Object, name: &[u8]) -> Option<Object> {
        let code = self.code_of(function)?;
        let cells = self.fixed_tuple(self.member(function, self.a.function_closure));
        // From 3.11 on the names of cells are the last of all.
        let names = match self.l.code.slot_names {
            SlotNames::Three { free, .. } => free,
            SlotNames::One(all) => all,
        };
        let names = self.fixed_tuple(self.fixed(code, names));
        let (cell, _) =
            cells.rev().zip(names.rev()).find(|&(_, variable)| self.text_is(variable, name))?;
        let content = self.is(cell, &CELL_TYPE).then(|| self.member(cell, CELL_CONTENT))?;
        Some(content).filter(|&content| content != 0)
    }

    /// The name of a function of C code, and the object that it works for.
    pub fn builtin_self(&self, object: Object, name: &[u8]) -> Option<Object> {
        if !self.is(object, &BUILTIN_TYPE) {
            return None;
        }
        let method = self.fixed(object, BUILTIN_METHOD);
        // SAFETY: a PyMethodDef, which lives as long as the function; its name is a C string.
        let named = unsafe { method != 0 && is_c_string(word(method), name) };
        Some(self.member(object, BUILTIN_SELF)).filter(|&it| named && it != 0)
    }

    /// The code of a bound method's function, and the object that it is bound to.
    pub fn method(&self, object: Object) -> Option<(Object, Object)> {
        if !self.is(object, &METHOD_TYPE) {
            return None;
        }
        let code = self.code_of(self.member(object, METHOD_FUNCTION))?;
        Some((code, self.member(object, METHOD_SELF))).filter(|m| m.1 != 0)
    }

    /// An attribute of the object itself, of a class written in Python.
    pub fn attribute(&self, object: Object, name: &[u8]) -> Option<Object> {
        let type_ = self.type_of(object);
        let flags = self.flags(type_);
        let managed = flags & FLAG_MANAGED_DICT != 0;
        // SAFETY: `MANAGED_DICT`: these words stand in front of such an object.
        let in_front = |words: usize| unsafe { self.word(object - 8 * words) };
        let values = match self.a.attributes {
            Attributes::Two if managed => Some(in_front(4)).filter(|&values| values != 0),
            Attributes::Tagged if managed => Some(in_front(3) + 1).filter(|values| values & 1 == 0),
            Attributes::Inline if flags & FLAG_INLINE_VALUES != 0 => {
                let values = object + self.size_of(type_);
                // SAFETY: `INLINE_VALUES`: they follow the object.
                let valid = unsafe { self.byte(values + 3) } != 0;
                valid.then_some(values)
            }
            _ => None,
        };
        if values.is_some() {
            let keys = self.fixed(type_, self.l.object.ht_cached_keys?);
            return self.find(keys, values, name);
        }
        let dict = if managed {
            in_front(3)
        } else {
            let offset = self.fixed(type_, self.l.object.tp_dictoffset) as isize;
            // Negative: from the end of objects with items, which nothing here is.
            let place = usize::try_from(offset).ok().filter(|&offset| offset != 0)?;
            // SAFETY: the type says that its objects have a pointer to their dict there.
            unsafe { self.word(object + place) }
        };
        self.in_dict(dict, name)
    }

    /// What a dict has under a text.
    pub fn in_dict(&self, dict: Object, name: &[u8]) -> Option<Object> {
        let Dict::Keys { keys, values, .. } = self.l.dict else { return None };
        if !self.has_flag(dict, FLAG_DICT) {
            return None;
        }
        let values = Some(self.member(dict, values)).filter(|&values| values != 0);
        self.find(self.member(dict, keys), values, name)
    }

    /// What stands under a text in a `PyDictKeysObject`, or in the values that belong to it.
    fn find(&self, keys: usize, values: Option<usize>, name: &[u8]) -> Option<Object> {
        let Dict::Keys { entries, indices, index, first_value, .. } = self.l.dict else {
            return None;
        };
        if keys == 0 {
            return None;
        }
        let count = self.member(keys, entries);
        let (index_bytes, wide) = match index {
            DictIndex::Size(offset) => {
                let size = self.member(keys, offset);
                let width = match size {
                    0..=0xff => 1,
                    0x100..=0xffff => 2,
                    0x1_0000..=0xffff_ffff => 4,
                    _ => 8,
                };
                (size.wrapping_mul(width), true)
            }
            DictIndex::Log2 { bytes, kind } => {
                // SAFETY: members of the keys of a live dict or type.
                let (log2, kind) =
                    unsafe { (byte(keys + bytes as usize), byte(keys + kind as usize)) };
                (1usize.wrapping_shl(log2 as u32), kind == 0)
            }
        };
        let (step, in_entry) = if wide { (24, 8) } else { (16, 0) };
        let first = keys + indices as usize + index_bytes + in_entry;
        for i in 0..count.min(MOST) {
            // SAFETY: below the number of entries; a key is an object or null.
            let key = unsafe { self.word(first + step * i) };
            if key != 0 && self.text_is(key, name) {
                // SAFETY: as above; a table of values has as many as there are keys.
                let value = unsafe {
                    match values {
                        Some(values) => self.word(values + first_value as usize + 8 * i),
                        None => self.word(first + step * i + 8),
                    }
                };
                return Some(value).filter(|&value| value != 0);
            }
        }
        None
    }

    /// The offset of a slot (`__slots__`) that the class itself has.
    pub fn slot(&self, class: Object, name: &[u8]) -> Option<usize> {
        let descriptor = self.in_dict(self.fixed(class, self.l.object.tp_dict), name)?;
        if !self.is(descriptor, &MEMBER_TYPE) {
            return None;
        }
        // Fact: `PyMemberDef` is {name, type, offset} (Include/structmember.h).
        let member = self.fixed(descriptor, self.l.object.d_member);
        // SAFETY: a slot's PyMemberDef lives as long as its class.
        let offset = unsafe { word(member + 16) };
        Some(offset).filter(|&offset| offset % 8 == 0 && offset + 8 <= self.size_of(class))
    }
}
