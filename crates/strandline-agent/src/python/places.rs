//! Which code object runs, at which instruction, in which line.

use core::sync::atomic::Ordering::Relaxed;

use strandline_cpython::{Bytecode, Cursor, InterpreterFrame, Layout};

use super::{current_frame, identity, int, layout, word, IN_FRAME_CODE, IN_FRAME_INSTR};
use crate::symbols;

/// Where a thread is.
pub struct Place {
    /// Address of the code object.
    pub code: usize,
    /// Bytes into its bytecode; negative: not yet started.
    offset: i32,
    /// `key` stands for exactly this place.
    pub exact: bool,
}

impl Place {
    /// Line number; 0 if it has none.
    pub fn line(&self) -> u32 {
        let Some(l) = layout() else { return 0 };
        self.line_from(&mut Cursor::new(self.first_line(l)), l)
    }

    /// `line`, which goes on where the last question about this code object ended. The caller
    /// holds the agent's lock.
    pub fn line_by_cursor(&self) -> u32 {
        let Some(l) = layout() else { return 0 };
        // SAFETY: the lock makes this the only user.
        let remembered = unsafe { &mut (*CURSORS.0.get())[cursor_slot(self.code)] };
        if remembered.0 != self.code {
            *remembered = (self.code, Cursor::new(self.first_line(l)));
        }
        self.line_from(&mut remembered.1, l)
    }

    fn first_line(&self, l: &Layout) -> i32 {
        // SAFETY: a live code object and its version's offset.
        unsafe { int(self.code + l.code.firstlineno as usize) }
    }

    fn table(&self, l: &Layout) -> &[u8] {
        // SAFETY: a live code object holds a reference to its table, a `bytes` object that
        // doesn't change.
        unsafe {
            let table = word(self.code + l.code.linetable as usize);
            let len = word(table + l.bytes.len as usize);
            core::slice::from_raw_parts((table + l.bytes.data as usize) as *const u8, len)
        }
    }

    fn line_from(&self, cursor: &mut Cursor, l: &Layout) -> u32 {
        let format = l.code.line_table;
        cursor.line_at(format, self.first_line(l), self.table(l), self.offset).max(0) as u32
    }
}

/// Code objects whose cursor is remembered, by address.
const REMEMBERED: usize = 64;
struct Cursors(core::cell::UnsafeCell<[(usize, Cursor); REMEMBERED]>);
// SAFETY: used under the agent's lock only.
unsafe impl Sync for Cursors {}
static CURSORS: Cursors =
    Cursors(core::cell::UnsafeCell::new([const { (0, Cursor::new(0)) }; REMEMBERED]));

fn cursor_slot(code: usize) -> usize {
    (code.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) & (REMEMBERED - 1)
}

/// The code object at `code` is gone. The caller holds the agent's lock.
pub fn code_freed(code: usize) {
    // SAFETY: the lock makes this the only user.
    let remembered = unsafe { &mut (*CURSORS.0.get())[cursor_slot(code)] };
    if remembered.0 == code {
        remembered.0 = 0;
    }
}

/// The running code object and line of `tstate`; `None` if no Python frame runs.
pub fn locate(tstate: usize) -> Option<Place> {
    if tstate == 0 {
        return None;
    }
    let frame = current_frame(tstate);
    locate_frame(frame)
}

/// The code object and instruction of `frame`, or of the first of its callers that has code.
pub fn locate_frame(frame: usize) -> Option<Place> {
    let l = layout()?;
    if frame == 0 {
        return None;
    }
    let Some(f) = &l.frame.interpreter else {
        // SAFETY: a live PyFrameObject; see `current_frame`.
        let (code, lasti) = unsafe {
            let code = word(frame + IN_FRAME_CODE.load(Relaxed));
            (code, int(frame + IN_FRAME_INSTR.load(Relaxed)))
        };
        let offset = lasti.wrapping_mul(l.frame.object.lasti_unit as i32);
        return Some(Place { code, offset, exact: lasti < 0xf_fff0 });
    };
    let mut frame = frame;
    let mut exact = true;
    while frame != 0 {
        if let Some(place) = place_in(frame, f, l) {
            return Some(Place { exact, ..place });
        }
        exact = false;
        // SAFETY: `frame` is the current frame or one of its callers: alive.
        frame = unsafe { word(frame + f.previous as usize) };
    }
    None
}

/// The code object and instruction of a live frame of 3.11 or later; `None` if it has no code.
fn place_in(frame: usize, f: &InterpreterFrame, l: &Layout) -> Option<Place> {
    // SAFETY: the caller's frame is alive.
    let owner = unsafe { *((frame + f.owner as usize) as *const u8) };
    if !f.carries_code(owner) {
        return None;
    }
    // SAFETY: as above.
    let (raw, instr) =
        unsafe { (word(frame + f.executable as usize), word(frame + f.instr_ptr as usize)) };
    let code = f.executable_pointer(raw as u64) as usize;
    if code == 0 || !is_code(code, l) {
        return None;
    }
    let start = match l.code.code {
        Bytecode::Inline(offset) => code + offset as usize,
        Bytecode::Object(_) => return None,
    };
    let offset = instr.wrapping_sub(start) as isize;
    Some(Place { code, offset: offset as i32, exact: true })
}

/// The code object and instruction of a live frame; `None` if it is 0 or has no code.
pub fn place_at(frame: usize) -> Option<Place> {
    let l = layout()?;
    match &l.frame.interpreter {
        _ if frame == 0 => None,
        Some(f) => place_in(frame, f, l),
        None => locate_frame(frame),
    }
}

/// True if the live frame `frame` is one in which C enters the interpreter (3.12 and later): it never
/// has code.
pub fn is_entry(frame: usize) -> bool {
    let Some(f) = layout().and_then(|l| l.frame.interpreter.as_ref()) else { return false };
    // SAFETY: a member of a live frame of this version.
    let owner = unsafe { *((frame + f.owner as usize) as *const u8) };
    !f.carries_code(owner)
}

fn is_code(address: usize, l: &Layout) -> bool {
    // SAFETY: `address` is an object that a frame holds a reference to.
    let kind = unsafe { word(address + l.object.type_ as usize) };
    kind == symbols::CODE_TYPE.address()
}

/// First and last line of a code object, those of the code nested in it included.
pub fn lines_of(code: usize) -> (u32, u32) {
    let Some(l) = layout() else { return (0, 0) };
    let first = Place { code, offset: 0, exact: true }.first_line(l).max(0) as u32;
    (first, last_line(code, l, 0).max(first))
}

/// Code nested deeper than this isn't looked at.
const NESTED: u32 = 20;

fn last_line(code: usize, l: &Layout, depth: u32) -> u32 {
    let place = Place { code, offset: 0, exact: true };
    let mut last = l.code.line_table.last_line(place.first_line(l), place.table(l)).max(0) as u32;
    let (Some(consts), true) = (l.code.consts, depth < NESTED) else { return last };
    // SAFETY: a live code object holds a reference to the tuple of its constants.
    let (consts, len) = unsafe {
        let consts = word(code + consts as usize);
        (consts, word(consts + l.object.tuple_len as usize))
    };
    for i in 0..len {
        // SAFETY: below the tuple's length.
        let item = unsafe { word(consts + l.object.tuple_items as usize + 8 * i) };
        if is_code(item, l) {
            last = last.max(last_line(item, l, depth + 1));
        }
    }
    last
}

/// True if a frame of the import system runs on `tstate`, at whatever depth.
pub fn in_importlib(tstate: usize) -> bool {
    let Some(_guard) = crate::lock::lock() else { return true };
    let Some(l) = layout() else { return true };
    let mut frame = current_frame(tstate);
    while frame != 0 {
        let code = match (&l.frame.interpreter, l.frame.object.f_code) {
            (Some(f), _) => {
                // SAFETY: the running frame or one of its callers: alive.
                let (owner, raw) = unsafe {
                    let owner = *((frame + f.owner as usize) as *const u8);
                    (owner, word(frame + f.executable as usize))
                };
                if f.carries_code(owner) {
                    f.executable_pointer(raw as u64) as usize
                } else {
                    0
                }
            }
            // SAFETY: as above.
            (None, Some(offset)) => unsafe { word(frame + offset as usize) },
            _ => 0,
        };
        if code != 0 && is_code(code, l) && identity(code).file().starts_with(b"<frozen importlib")
        {
            return true;
        }
        let back = match &l.frame.interpreter {
            Some(f) => f.previous,
            None => l.frame.object.f_back,
        };
        // SAFETY: as above.
        frame = unsafe { word(frame + back as usize) };
    }
    false
}
