//! The interpreter's texts: names of code objects and files, and what a `str` says.

use strandline_cpython::{Layout, Str};

use super::{int, layout, word};
use crate::symbols;

/// Who a code object is; the text lives as long as the code object, or until the next call.
pub struct Identity {
    file: (*const u8, usize),
    name: (*const u8, usize),
    /// `co_firstlineno`.
    pub first_line: u32,
}

impl Identity {
    /// Of a function that isn't one.
    pub fn named(name: &'static [u8]) -> Identity {
        Identity { file: (b"".as_ptr(), 0), name: (name.as_ptr(), name.len()), first_line: 0 }
    }

    /// `co_filename`, UTF-8.
    pub fn file(&self) -> &[u8] {
        // SAFETY: see `Identity`.
        unsafe { core::slice::from_raw_parts(self.file.0, self.file.1) }
    }

    /// `co_qualname` or `co_name`, UTF-8.
    pub fn name(&self) -> &[u8] {
        // SAFETY: see `Identity`.
        unsafe { core::slice::from_raw_parts(self.name.0, self.name.1) }
    }
}

const SCRATCH: usize = 4096;
struct Scratch(core::cell::UnsafeCell<[[u8; SCRATCH]; 2]>);
// SAFETY: used under the agent's lock only.
unsafe impl Sync for Scratch {}
static TEXT: Scratch = Scratch(core::cell::UnsafeCell::new([[0; SCRATCH]; 2]));

/// Reads a code object's identity. The caller holds the agent's lock and uses the result before
/// it lets go.
pub fn identity(code: usize) -> Identity {
    let empty = Identity { file: (b"?".as_ptr(), 1), name: (b"?".as_ptr(), 1), first_line: 0 };
    let Some(l) = layout() else { return empty };
    // SAFETY: a live code object and its version's offsets; the lock protects TEXT.
    unsafe {
        let scratch = &mut *TEXT.0.get();
        let [first, second] = scratch;
        let name = l.code.qualname.unwrap_or(l.code.name);
        Identity {
            file: text(word(code + l.code.filename as usize), l, first),
            name: text(word(code + name as usize), l, second),
            first_line: int(code + l.code.firstlineno as usize).max(0) as u32,
        }
    }
}

/// True if the live object at `object` is a text (`str`; 2.7: `str` of bytes), of no subclass.
pub fn is_text(object: usize) -> bool {
    let Some(l) = layout() else { return false };
    let wanted = if l.names_are_bytes { &symbols::BYTES_TYPE } else { &symbols::UNICODE_TYPE };
    // SAFETY: a live object's header.
    wanted.found() && unsafe { word(object + l.object.type_ as usize) } == wanted.address()
}

/// UTF-8 of the live text at `object`. The caller holds the agent's lock and uses the result
/// before it lets go.
pub fn text_of<'a>(object: usize) -> &'a [u8] {
    let Some(l) = layout() else { return &[] };
    // SAFETY: a live text; the lock protects TEXT.
    unsafe {
        let [first, _] = &mut *TEXT.0.get();
        let (start, len) = text(object, l, first);
        core::slice::from_raw_parts(start, len)
    }
}

/// UTF-8 of a text object.
///
/// # Safety
/// `object` is 0 or a live `str` (2.7: `str` of bytes).
unsafe fn text(object: usize, l: &Layout, scratch: &mut [u8; SCRATCH]) -> (*const u8, usize) {
    if object == 0 {
        return (b"?".as_ptr(), 1);
    }
    if l.names_are_bytes {
        // SAFETY: the caller's promise: PyStringObject.
        let len = unsafe { word(object + l.bytes.len as usize) };
        return ((object + l.bytes.data as usize) as *const u8, len);
    }
    let Str::Flexible(s) = &l.str_ else { return (b"?".as_ptr(), 1) };
    // SAFETY: the caller's promise: PyASCIIObject and what follows it.
    let (len, state) =
        unsafe { (word(object + s.length as usize), int(object + s.state as usize) as u32) };
    let compact = state >> s.compact_bit & 1 != 0;
    if compact && state >> s.ascii_bit & 1 != 0 {
        return ((object + s.ascii_data as usize) as *const u8, len);
    }
    let data = if compact {
        object + s.compact_data as usize
    } else {
        // SAFETY: as above; a string that isn't compact points to its data.
        unsafe { word(object + s.data_pointer as usize) }
    };
    let kind = state >> s.kind_shift & s.kind_mask as u32;
    let mut at = 0;
    for i in 0..len {
        // SAFETY: `i` is below the string's length in units of `kind` bytes.
        let point = unsafe {
            match kind {
                1 => *((data + i) as *const u8) as u32,
                2 => *((data + 2 * i) as *const u16) as u32,
                4 => *((data + 4 * i) as *const u32),
                _ => break,
            }
        };
        let c = char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER);
        let Some(room) = scratch.get_mut(at..at + c.len_utf8()) else { break };
        at += c.encode_utf8(room).len();
    }
    (scratch.as_ptr(), at)
}
