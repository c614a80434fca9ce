//! Reading the interpreter: which thread state, which frame, which line.
//!
//! Offsets come from `strandline-cpython`; the hot ones are copied into words of their own.
//! Nothing here calls into the interpreter but to ask for the thread state.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

use strandline_capture::layout as capture;
use strandline_cpython::{
    Bytecode, CurrentFrame, Cursor, InterpreterFrame, Layout, Str, DEBUG_OFFSETS_MAX,
};

use crate::region::region;
use crate::stacks::awaiting;
use crate::symbols;

/// Frames of this interpreter aren't understood.
pub const NONE: u32 = 0;
/// `CurrentFrame::Object`.
pub const OBJECT: u32 = 1;
/// `CurrentFrame::CFrame`.
pub const CFRAME: u32 = 2;
/// `CurrentFrame::Direct`.
pub const DIRECT: u32 = 3;
/// Any of them, with more than the stack's Python frames (`--native`, `--async-stacks`): of the
/// hooks alone, which ask [`kind`].
pub const MORE: u32 = 4;

/// How the current frame is found: one of the constants above.
static KIND: AtomicU32 = AtomicU32::new(NONE);
/// Offset in the thread state.
static IN_TSTATE: AtomicUsize = AtomicUsize::new(0);
/// Offset in the C frame (3.11, 3.12).
static IN_CFRAME: AtomicUsize = AtomicUsize::new(0);
/// Offset of the code object in the frame.
static IN_FRAME_CODE: AtomicUsize = AtomicUsize::new(0);
/// Offset of the instruction pointer, or of `f_lasti`, in the frame.
static IN_FRAME_INSTR: AtomicUsize = AtomicUsize::new(0);
/// Offset of the pointer to the caller's frame in the frame.
static IN_FRAME_BACK: AtomicUsize = AtomicUsize::new(0);
/// Function that returns the current thread state.
static GETTER: AtomicUsize = AtomicUsize::new(0);
/// 2.7: the variable that holds it.
static VARIABLE: AtomicUsize = AtomicUsize::new(0);
/// Thread states are per thread (3.12+), not one per process.
static PER_THREAD: AtomicBool = AtomicBool::new(false);
/// The main interpreter, once one is seen; others count as threads without the GIL.
static MAIN: AtomicUsize = AtomicUsize::new(0);
static IN_TSTATE_INTERP: AtomicUsize = AtomicUsize::new(0);

struct Known(core::cell::UnsafeCell<Option<Layout>>);
// SAFETY: written once in the constructor, before any other thread exists; read-only after.
unsafe impl Sync for Known {}
static LAYOUT: Known = Known(core::cell::UnsafeCell::new(None));

static LONG_DIGITS: AtomicUsize = AtomicUsize::new(0);

/// Offset of an `int`'s first digit, bytes.
#[inline(always)]
pub fn long_digits() -> usize {
    LONG_DIGITS.load(Relaxed)
}

/// The interpreter's layout, if it is one that we know.
pub fn layout() -> Option<&'static Layout> {
    // SAFETY: see `Known`.
    unsafe { (*LAYOUT.0.get()).as_ref() }
}

/// A word of the interpreter's memory.
///
/// # Safety
/// `address` must be mapped and belong to a live structure of the interpreter.
#[inline(always)]
pub unsafe fn word(address: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { *(address as *const usize) }
}

/// # Safety
/// As `word`.
#[inline(always)]
unsafe fn int(address: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { *(address as *const i32) }
}

fn number(text: &[u8]) -> (u32, &[u8]) {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (head, rest) = text.split_at(digits);
    let value = head.iter().fold(0u32, |v, b| v.wrapping_mul(10).wrapping_add((b - b'0') as u32));
    (value, rest.get(1..).unwrap_or(&[]))
}

/// Finds out which Python this process is. False if it is none; the region says what was found.
pub fn detect() -> bool {
    symbols::resolve();
    let h = &region().head;
    if symbols::PYPY.found() {
        h.refusal.store(capture::REFUSED_NOT_CPYTHON, Relaxed);
        return true;
    }
    let Some(version) = symbols::version() else { return false };
    if let Some(_guard) = crate::lock::lock() {
        crate::region::set_text(&h.version_text, version);
    }
    let (major, rest) = number(version);
    let (minor, rest) = number(rest);
    let (micro, _) = number(rest);
    h.python.store(major << 16 | minor << 8 | micro, Relaxed);
    let free_threaded = b"free-threading";
    if version.windows(free_threaded.len()).any(|w| w == free_threaded) {
        h.refusal.store(capture::REFUSED_FREE_THREADED, Relaxed);
        return true;
    }
    let found = known_layout(major as u8, minor as u8);
    if found.is_none() {
        h.refusal.store(capture::REFUSED_UNKNOWN_VERSION, Relaxed);
    }
    if let Some(l) = &found {
        set_hot(l);
    }
    // SAFETY: see `Known`: this runs in the constructor.
    unsafe { *LAYOUT.0.get() = found };
    true
}

fn known_layout(major: u8, minor: u8) -> Option<Layout> {
    let known = strandline_cpython::layout(major, minor).copied();
    if !symbols::RUNTIME.found() || (major, minor) < (3, 13) {
        return known;
    }
    // SAFETY: _PyRuntime is a static structure of some hundred KiB; its first bytes are the
    // table of debug offsets, initialised statically (Python/pylifecycle.c, 3.13+).
    let bytes = unsafe {
        core::slice::from_raw_parts(symbols::RUNTIME.address() as *const u8, DEBUG_OFFSETS_MAX)
    };
    // What the interpreter says of itself holds for its micro version, too.
    strandline_cpython::from_debug_offsets(bytes).ok().or(known)
}

fn set_hot(l: &Layout) {
    let (kind, in_tstate, in_cframe) = match l.tstate.current_frame {
        CurrentFrame::Object { frame } => (OBJECT, frame, 0),
        CurrentFrame::CFrame { cframe, current_frame } => (CFRAME, cframe, current_frame),
        CurrentFrame::Direct { current_frame } => (DIRECT, current_frame, 0),
    };
    let (code, instr) = match (&l.frame.interpreter, l.frame.object.f_code, l.frame.object.f_lasti)
    {
        (Some(f), _, _) => (f.executable, f.instr_ptr),
        (None, Some(code), Some(lasti)) => (code, lasti),
        _ => return,
    };
    if symbols::THREAD_STATE_CURRENT.found() {
        VARIABLE.store(symbols::THREAD_STATE_CURRENT.address(), Relaxed);
    } else if symbols::THREAD_STATE_GET.found() {
        GETTER.store(symbols::THREAD_STATE_GET.address(), Relaxed);
    } else if symbols::THREAD_STATE_GET_PRIVATE.found() {
        GETTER.store(symbols::THREAD_STATE_GET_PRIVATE.address(), Relaxed);
    } else {
        return;
    }
    IN_TSTATE.store(in_tstate as usize, Relaxed);
    IN_TSTATE_INTERP.store(l.tstate.interp as usize, Relaxed);
    IN_CFRAME.store(in_cframe as usize, Relaxed);
    IN_FRAME_CODE.store(code as usize, Relaxed);
    IN_FRAME_INSTR.store(instr as usize, Relaxed);
    let back = l.frame.interpreter.as_ref().map_or(l.frame.object.f_back, |f| f.previous);
    IN_FRAME_BACK.store(back as usize, Relaxed);
    LONG_DIGITS.store(l.object.long_digits as usize, Relaxed);
    PER_THREAD.store(l.sys_monitoring, Relaxed);
    KIND.store(kind, Relaxed);
    region().head.abilities.fetch_or(capture::CAN_SITES, Relaxed);
    crate::pools::set_pool_size(l.obmalloc.pool_size as usize);
}

/// The thread state that holds the GIL (before 3.12), or this thread's (3.12+); 0 if none.
#[inline(always)]
pub fn current_tstate() -> usize {
    let getter = GETTER.load(Relaxed);
    if getter != 0 {
        // SAFETY: the address of a function without preconditions (it reads one variable).
        unsafe {
            let f: unsafe extern "C" fn() -> usize = core::mem::transmute(getter);
            return f();
        }
    }
    let variable = VARIABLE.load(Relaxed);
    if variable == 0 {
        return 0;
    }
    // SAFETY: the address of 2.7's static variable.
    unsafe { word(variable) }
}

/// This thread's state if it holds the GIL of the main interpreter, else 0.
#[inline(always)]
pub fn held_tstate() -> usize {
    let tstate = current_tstate();
    if tstate == 0 {
        return 0;
    }
    if PER_THREAD.load(Relaxed) {
        // SAFETY: a thread's own current state is alive.
        let interp = unsafe { word(tstate + IN_TSTATE_INTERP.load(Relaxed)) };
        let main = MAIN.load(Relaxed);
        if main == 0 {
            MAIN.store(interp, Relaxed);
        } else if interp != main {
            // Thread states are swapped under our feet: none is to be remembered any more.
            crate::sites::never_remember_threads();
            return 0;
        }
        return tstate;
    }
    let t = crate::tls::tls();
    let mine = t.tstate.get() == tstate
        && t.tstate_epoch.get() == crate::sites::TSTATE_EPOCH.load(Relaxed);
    if mine {
        tstate
    } else {
        0
    }
}

/// The frame that runs on `tstate`, 0 if none.
pub fn current_frame(tstate: usize) -> usize {
    match kind() {
        OBJECT => frame_of::<OBJECT>(tstate),
        CFRAME => frame_of::<CFRAME>(tstate),
        DIRECT => frame_of::<DIRECT>(tstate),
        _ => 0,
    }
}

/// Which of the constants above holds for this interpreter.
pub fn kind() -> u32 {
    KIND.load(Relaxed)
}

#[inline(always)]
fn frame_of<const KIND: u32>(tstate: usize) -> usize {
    // SAFETY: `tstate` is alive: it is current, or this thread's own (see `sites`); the offsets
    // are those of its version.
    unsafe {
        match KIND {
            OBJECT | DIRECT => word(tstate + IN_TSTATE.load(Relaxed)),
            CFRAME => {
                let cframe = word(tstate + IN_TSTATE.load(Relaxed));
                if cframe == 0 {
                    0
                } else {
                    word(cframe + IN_CFRAME.load(Relaxed))
                }
            }
            _ => 0,
        }
    }
}

/// A word that says which instruction of which code object runs on `tstate`; 0 if no frame.
pub fn key(tstate: usize) -> u64 {
    match kind() {
        _ if tstate == 0 => 0,
        OBJECT => key_of::<OBJECT>(tstate),
        CFRAME => key_of::<CFRAME>(tstate),
        DIRECT => key_of::<DIRECT>(tstate),
        _ => 0,
    }
}

/// `key`, where the kind is known.
#[inline(always)]
pub fn key_of<const KIND: u32>(tstate: usize) -> u64 {
    let frame = frame_of::<KIND>(tstate);
    if frame == 0 {
        return 0;
    }
    // SAFETY: the current frame of a live thread state is alive.
    unsafe {
        if KIND == OBJECT {
            let code = word(frame + IN_FRAME_CODE.load(Relaxed)) as u64;
            let lasti = int(frame + IN_FRAME_INSTR.load(Relaxed)) as u64;
            // Code objects are 16-byte aligned, so the low 20 bits are free for the offset.
            code << 16 ^ (lasti & 0xf_ffff)
        } else {
            word(frame + IN_FRAME_INSTR.load(Relaxed)) as u64
        }
    }
}

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

/// The frame that called the live frame `frame`; 0 if none.
pub fn caller_of(frame: usize) -> usize {
    // SAFETY: a member of a live frame.
    unsafe { word(frame + IN_FRAME_BACK.load(Relaxed)) }
}

/// Puts `frame` and its callers into `frames`, innermost first, as many as fit: how many, and
/// whether that is all.
pub fn frames_from(mut frame: usize, frames: &mut [usize]) -> (usize, bool) {
    let back = IN_FRAME_BACK.load(Relaxed);
    let mut depth = 0;
    for slot in frames {
        if frame == 0 {
            break;
        }
        *slot = frame;
        depth += 1;
        // SAFETY: a member of a live frame.
        frame = unsafe { word(frame + back) };
    }
    (depth, frame == 0)
}

/// 3.11, 3.12: address of the `_PyCFrame` of the innermost evaluator on `tstate`.
pub fn cframe_of(tstate: usize) -> usize {
    // SAFETY: a member of a live thread state.
    unsafe { word(tstate + IN_TSTATE.load(Relaxed)) }
}

/// 3.11, 3.12: the frame that a live `_PyCFrame` says is running.
pub fn frame_in_cframe(cframe: usize) -> usize {
    // SAFETY: a member of a live `_PyCFrame`.
    unsafe { word(cframe + IN_CFRAME.load(Relaxed)) }
}

/// A word that says which instruction of which code object a live frame is at.
pub fn key_at(frame: usize) -> u64 {
    match kind() {
        OBJECT => {
            key_in::<OBJECT>(frame, IN_FRAME_CODE.load(Relaxed), IN_FRAME_INSTR.load(Relaxed))
        }
        _ => key_in::<DIRECT>(frame, 0, IN_FRAME_INSTR.load(Relaxed)),
    }
}

/// Offsets of the members of a frame that [`key_at`] reads: an instruction's address alone says
/// which code it is of.
pub fn key_offsets() -> impl Iterator<Item = usize> {
    let code = (kind() == OBJECT).then(|| IN_FRAME_CODE.load(Relaxed));
    code.into_iter().chain([IN_FRAME_INSTR.load(Relaxed)])
}

/// How many of `frames` (innermost first) are, from the outermost in, at the instructions that
/// `keys` has (outermost first): see [`key_at`].
pub fn frames_at(frames: &[usize], keys: impl Iterator<Item = u64>) -> usize {
    match kind() {
        OBJECT => frames_at_of::<OBJECT>(frames, keys),
        _ => frames_at_of::<DIRECT>(frames, keys),
    }
}

#[inline(always)]
fn frames_at_of<const KIND: u32>(frames: &[usize], keys: impl Iterator<Item = u64>) -> usize {
    let (code, instr) = (IN_FRAME_CODE.load(Relaxed), IN_FRAME_INSTR.load(Relaxed));
    let mut same = 0;
    for (&frame, key) in frames.iter().rev().zip(keys) {
        if key_in::<KIND>(frame, code, instr) != key {
            break;
        }
        same += 1;
    }
    same
}

#[inline(always)]
fn key_in<const KIND: u32>(frame: usize, in_code: usize, in_instr: usize) -> u64 {
    // SAFETY: members of a live frame.
    unsafe {
        if KIND == OBJECT {
            (word(frame + in_code) as u64) << 16 ^ (int(frame + in_instr) as u64 & 0xf_ffff)
        } else {
            word(frame + in_instr) as u64
        }
    }
}

/// What a hash is multiplied with for each frame that is folded into it: odd, and well spread.
pub const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where every frame of `tstate` is, folded into a hash that starts from `seed`. Its high bits are
/// the best mixed.
#[inline(always)]
pub fn chain_hash<const KIND: u32>(tstate: usize, seed: u64) -> u64 {
    let in_code = if KIND == OBJECT { IN_FRAME_CODE.load(Relaxed) } else { 0 };
    let in_instr = IN_FRAME_INSTR.load(Relaxed);
    let in_back = IN_FRAME_BACK.load(Relaxed);
    let mut frame = frame_of::<KIND>(tstate);
    let mut hash = seed;
    while frame != 0 {
        // One addition and one multiplication a frame: the next one waits for no more than that.
        hash = hash.wrapping_add(key_in::<KIND>(frame, in_code, in_instr)).wrapping_mul(FACTOR);
        // SAFETY: the current frame of a live thread state and its callers are alive.
        frame = unsafe { word(frame + in_back) };
    }
    hash
}

/// [`chain_hash`] with what awaits running tasks: see [`awaiting`]. `held`: this thread holds the
/// GIL.
pub fn chain_hash_with_awaiting<const KIND: u32>(tstate: usize, seed: u64, held: bool) -> u64 {
    let (in_code, in_instr) = (IN_FRAME_CODE.load(Relaxed), IN_FRAME_INSTR.load(Relaxed));
    let in_back = IN_FRAME_BACK.load(Relaxed);
    let mut frame = frame_of::<KIND>(tstate);
    let run = awaiting::run();
    if run == 0 {
        return chain_hash::<KIND>(tstate, seed);
    }
    let mut hash = seed;
    let mut inner = awaiting::Inner::NONE;
    while frame != 0 {
        // SAFETY: a member of a live frame.
        if unsafe { word(frame + in_code) } == run {
            hash = awaiting::fold(hash, frame, inner, held);
        }
        inner.push(frame);
        hash = hash.wrapping_add(key_in::<KIND>(frame, in_code, in_instr)).wrapping_mul(FACTOR);
        // SAFETY: as in `chain_hash`.
        frame = unsafe { word(frame + in_back) };
    }
    hash
}

/// The code object of a live frame, as it stands there.
pub fn code_in(frame: usize) -> usize {
    // SAFETY: a member of a live frame.
    unsafe { word(frame + IN_FRAME_CODE.load(Relaxed)) }
}

/// The globals dict of a live frame; 0 if it isn't known.
pub fn globals_of(frame: usize) -> usize {
    let Some(l) = layout() else { return 0 };
    let offset = match (&l.frame.interpreter, l.frame.object.f_globals) {
        (Some(f), _) => f.globals,
        (None, Some(offset)) => offset,
        _ => return 0,
    };
    // SAFETY: a member of a live frame.
    unsafe { word(frame + offset as usize) }
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
