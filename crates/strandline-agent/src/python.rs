//! Reading the interpreter: which thread state, which frame, which line.
//!
//! Offsets come from `strandline-cpython`; the hot ones are copied into words of their own.
//! Nothing here calls into the interpreter but to ask for the thread state.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

use strandline_capture::layout as capture;
use strandline_cpython::{CurrentFrame, Layout, DEBUG_OFFSETS_MAX};

use crate::region::region;
use crate::symbols;

mod frames;
mod places;
mod text;

pub use frames::{
    caller_of, cframe_of, chain_hash, chain_hash_with_awaiting, code_in, frame_in_cframe,
    frames_at, frames_from, globals_of, key_at, key_offsets, FACTOR,
};
pub use places::{code_freed, in_importlib, is_entry, lines_of, locate, locate_frame, place_at};
pub use text::{identity, is_text, text_of, Identity};

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
