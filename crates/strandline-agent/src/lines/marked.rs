//! Marked code objects and the slots of their lines.

use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::Ordering::Relaxed;

use strandline_capture::layout as capture;

use crate::lock;
use crate::map::Map;
use crate::memory;
use crate::region::{region, set_text};
use crate::sites;

/// A line of a function at run time.
#[repr(C)]
pub struct Line {
    /// Index of the capture's slot, 0 until the line first runs.
    pub slot: Cell<u32>,
    /// The context outside the line when it last ran.
    pub outside: Cell<u32>,
    /// That context plus this line's slot.
    pub inside: Cell<u32>,
    /// `rss::moved` when the line's RSS was last noted, 0: never.
    pub noted: Cell<u32>,
}

/// A function at run time: where its lines are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Function {
    /// Index of the capture's function.
    pub index: u32,
    /// Its first line.
    pub first: u32,
    /// Number of lines.
    pub count: u32,
    lines: *const Line,
}

impl Function {
    /// The line's record; `None` outside the function.
    #[inline(always)]
    pub fn line(&self, number: u32) -> Option<&'static Line> {
        let i = number.wrapping_sub(self.first);
        // SAFETY: the array has `count` entries and is never unmapped.
        (i < self.count).then(|| unsafe { &*self.lines.add(i as usize) })
    }
}

/// Functions at run time: as many as the capture can name.
struct Table(UnsafeCell<[Option<Function>; capture::MAX_FUNCTIONS]>);
// SAFETY: written and read under the GIL.
unsafe impl Sync for Table {}
static FUNCTIONS: Table = Table(UnsafeCell::new([None; capture::MAX_FUNCTIONS]));

/// Value for a code object that was looked at and isn't wanted.
const UNWANTED: u32 = 1;
/// Values above are function indices plus this.
const BASE: u32 = 2;
/// Bit of a value: nested.
const NESTED: u32 = 1 << 31;

/// Code object address -> what it is. Written and read under the GIL.
static MARKED: Map = Map::new();
/// Functions by the capture's code index: the same function decorated again keeps its table.
static BY_CODE: Map = Map::new();

/// What is known of a code object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Never looked at.
    New,
    /// Not wanted.
    Unwanted,
    /// Belongs to a function.
    Function {
        /// Its index.
        index: u32,
        /// The code object is not the function's own but one nested in it.
        nested: bool,
    },
}

/// What is known of the code object at `code`.
#[inline]
pub fn known(code: usize) -> Known {
    match MARKED.get(code as u64) {
        None => Known::New,
        Some(UNWANTED) => Known::Unwanted,
        Some(value) => {
            Known::Function { index: (value & !NESTED) - BASE, nested: value & NESTED != 0 }
        }
    }
}

/// `known`, for the code object of the last call: lines come in runs.
#[inline(always)]
pub fn known_cached(code: usize) -> Known {
    // SAFETY: see `Last`.
    let last = unsafe { &mut *LAST.0.get() };
    if last.0 != code {
        *last = (code, known(code));
    }
    last.1
}

struct Last(UnsafeCell<(usize, Known)>);
// SAFETY: read and written under the GIL.
unsafe impl Sync for Last {}
static LAST: Last = Last(UnsafeCell::new((0, Known::New)));

fn forget_last() {
    // SAFETY: see `Last`.
    unsafe { *LAST.0.get() = (0, Known::New) };
}

/// The function with this index.
#[inline(always)]
pub fn function(index: u32) -> Option<Function> {
    // SAFETY: see `Table`.
    unsafe { *(*FUNCTIONS.0.get()).get(index as usize)? }
}

/// Notes that a code object isn't wanted.
pub fn unwanted(code: usize) {
    if sites::code_entry(code) != 0 {
        MARKED.insert(code as u64, UNWANTED);
    }
}

/// A code object that was seen is freed: its address means nothing any more.
pub fn code_freed(code: usize) {
    MARKED.remove(code as u64);
    forget_last();
}

/// Texts that go with a function.
pub struct Texts<'a> {
    /// Its qualified name.
    pub name: &'a [u8],
    /// Its file, absolute, if `co_filename` isn't.
    pub path: &'a [u8],
    /// Source text if no file has it.
    pub source: &'a [u8],
    /// Line number of the first line of `source`.
    pub source_first: u32,
}

/// Makes the code object at `code`, with lines `first..=last`, a function of the capture; the
/// index of the function, or `None` if there is no room.
pub fn mark(code: usize, first: u32, last: u32, texts: &Texts) -> Option<u32> {
    let entry = sites::code_entry(code);
    if entry == 0 {
        return None;
    }
    if let Some(index) = BY_CODE.get(entry as u64) {
        let wide_enough =
            function(index).is_some_and(|f| f.first <= first && last < f.first + f.count);
        if wide_enough {
            MARKED.insert(code as u64, index + BASE);
            return Some(index);
        }
    }
    forget_last();
    let _guard = lock::lock()?;
    let r = region();
    let index = r.head.functions.load(Relaxed);
    let f = r.functions.get(index as usize)?;
    let count = last.checked_sub(first)?.checked_add(1)?;
    let lines = memory::bump(count as usize * core::mem::size_of::<Line>()) as *const Line;
    if lines.is_null() {
        return None;
    }
    f.code.store(entry, Relaxed);
    f.last_line.store(last, Relaxed);
    set_text(&f.name, texts.name);
    set_text(&f.path, texts.path);
    set_text(&f.source, texts.source);
    f.source_first_line.store(texts.source_first, Relaxed);
    // SAFETY: see `Table`.
    unsafe {
        if let Some(place) = (*FUNCTIONS.0.get()).get_mut(index as usize) {
            *place = Some(Function { index, first, count, lines });
        }
    }
    r.head.functions.store(index + 1, Relaxed);
    BY_CODE.insert(entry as u64, index);
    MARKED.insert(code as u64, index + BASE);
    Some(index)
}

/// Makes a nested code object's lines count for the function `index`.
pub fn mark_nested(code: usize, index: u32) {
    forget_last();
    if sites::code_entry(code) != 0 {
        MARKED.insert(code as u64, (index + BASE) | NESTED);
    }
}

/// The slot of a line, made at its first run; 0 if there is no room.
pub fn slot(f: &Function, line: &Line, number: u32) -> u32 {
    let known = line.slot.get();
    if known != 0 {
        return known;
    }
    let Some(_guard) = lock::lock() else { return 0 };
    let r = region();
    let slot = r.head.slots.load(Relaxed);
    let Some(s) = r.slots.get(slot as usize) else { return 0 };
    s.function.store(f.index, Relaxed);
    s.line.store(number, Relaxed);
    r.head.slots.store(slot + 1, Relaxed);
    line.slot.set(slot);
    slot
}
