//! Line events before 3.12: the C trace function, switched on in marked frames only.
//!
//! 3.6 to 3.11: a frame evaluation function (PEP 523), installed once something is profiled.
//! 2.7: `PyEval_EvalFrameEx` itself, through the library's own symbol table. Around a marked
//! frame the thread state's trace function is ours; around any other frame below it the
//! program's own is put back, so that unprofiled code runs at its own speed and a debugger or
//! coverage sees what it would see. Ours passes every event on to the program's.
//!
//! Facts: PyTrace_CALL 0, LINE 2 (Include/pystate.h); `use_tracing` (Python/ceval.c).

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::c_int;
use strandline_cpython::{Layout, UseTracing};

use super::marked::{self, Known};
use super::{enter, leave, line, monitoring, quiet_line, Entry};
use crate::python::{self, word};
use crate::symbols::{self, call, Object};
use crate::{pools, tls};

const CALL: c_int = 0;
const LINE: c_int = 2;
/// Stack that Python-to-Python calls may take through our evaluation function before we step
/// aside (3.11 calls don't use the C stack otherwise), bytes.
const STACK_ROOM: usize = 2 << 20;

type TraceFunction = unsafe extern "C" fn(Object, Object, c_int, Object) -> c_int;
type Eval = unsafe extern "C" fn(usize, usize, usize) -> Object;

/// The evaluation function below ours.
static BELOW: AtomicUsize = AtomicUsize::new(0);
/// Where the interpreter keeps the evaluation function, for 3.6 to 3.8, and for stepping aside.
static EVAL_CELL: AtomicUsize = AtomicUsize::new(0);
/// The frame is the second argument (3.9+), not the first.
static FRAME_SECOND: AtomicUsize = AtomicUsize::new(0);

fn ours() -> usize {
    let f: TraceFunction = on_event;
    f as usize
}

/// The thread state's words that say what is traced.
struct Tracing<'a> {
    tstate: usize,
    layout: &'a Layout,
}

impl Tracing<'_> {
    fn function(&self) -> *mut usize {
        (self.tstate + self.layout.tstate.c_tracefunc.unwrap_or(0) as usize) as *mut usize
    }

    fn profile(&self) -> usize {
        // SAFETY: a member of a live thread state.
        unsafe { word(self.tstate + self.layout.tstate.c_profilefunc.unwrap_or(0) as usize) }
    }

    fn get(&self) -> usize {
        // SAFETY: as in `profile`.
        unsafe { *self.function() }
    }

    /// Sets the trace function, and the flag that makes the evaluation loop look at it.
    fn set(&self, function: usize) {
        let on = function != 0 || self.profile() != 0;
        // SAFETY: members of a live thread state and of its C frame; the GIL is held.
        unsafe {
            *self.function() = function;
            match self.layout.tstate.use_tracing {
                UseTracing::ThreadState { offset } => {
                    *((self.tstate + offset as usize) as *mut i32) = on as i32;
                }
                UseTracing::CFrame { cframe, offset, width } => {
                    let at = word(self.tstate + cframe as usize) + offset as usize;
                    if width == 1 {
                        *(at as *mut u8) = if on { 255 } else { 0 };
                    } else {
                        *(at as *mut i32) = on as i32;
                    }
                }
                UseTracing::Absent => {}
            }
        }
    }

    /// True while a trace function runs: nothing is traced then.
    fn busy(&self) -> bool {
        let Some(offset) = self.layout.tstate.tracing else { return true };
        // SAFETY: a member of a live thread state.
        unsafe { *((self.tstate + offset as usize) as *const i32) != 0 }
    }
}

fn tracing() -> Option<Tracing<'static>> {
    let layout = python::layout()?;
    let tstate = python::current_tstate();
    (tstate != 0).then_some(Tracing { tstate, layout })
}

/// The program's own trace function, while ours is installed on this thread. One word is enough:
/// each frame that changes it puts it back.
fn program_function() -> &'static core::cell::Cell<usize> {
    &tls::tls().program_trace
}

/// Offset of `f_lineno` in a frame object.
static IN_LINENO: AtomicUsize = AtomicUsize::new(0);
/// Offset of `f_frame` in a frame object; 0 before 3.11.
static IN_FRAME: AtomicUsize = AtomicUsize::new(0);
/// Offset of the code object in the frame proper.
static IN_CODE: AtomicUsize = AtomicUsize::new(0);

/// The case of a hot loop: a line of a traced frame in which nothing happened.
#[inline(always)]
fn is_quiet(frame: usize) -> bool {
    let in_frame = IN_FRAME.load(Relaxed);
    // SAFETY: a live frame object and its version's offsets, set by `start`.
    unsafe {
        let number = *((frame + IN_LINENO.load(Relaxed)) as *const i32);
        let inner = if in_frame == 0 { frame } else { word(frame + in_frame) };
        number > 0 && quiet_line(word(inner + IN_CODE.load(Relaxed)), inner, number as u32)
    }
}

unsafe extern "C" fn on_event(object: Object, frame: Object, what: c_int, arg: Object) -> c_int {
    let below = program_function().get();
    if what == LINE && below == 0 && is_quiet(frame as usize) {
        return 0;
    }
    let mut status = 0;
    if below != 0 {
        // SAFETY: the trace function that the program installed, with its own object.
        status = unsafe {
            let f: TraceFunction = core::mem::transmute(below);
            f(object, frame, what, arg)
        };
    }
    let frame = frame as usize;
    match what {
        CALL => made_frame(frame),
        LINE => on_line(frame),
        _ => {}
    }
    status
}

/// 3.11 made this frame object only because the frame is traced.
fn made_frame(frame: usize) {
    if let Some(l) = python::layout() {
        if l.frame.interpreter.is_some() && program_function().get() == 0 {
            pools::disown(frame - l.object.gc_head as usize);
        }
    }
}

fn on_line(frame: usize) {
    let Some(l) = python::layout() else { return };
    let o = &l.frame.object;
    // SAFETY: a live frame object; f_lineno is the line while a trace function runs.
    let number = unsafe { *((frame + o.f_lineno as usize) as *const i32) };
    let inner = match (o.f_frame, o.f_code) {
        // SAFETY: as above.
        (Some(f_frame), _) => unsafe { word(frame + f_frame as usize) },
        _ => frame,
    };
    let Some(code) = code_of(inner, l) else { return };
    if let Known::Function { index, .. } = marked::known_cached(code) {
        let number = match number {
            n if n > 0 => n as u32,
            _ => python::locate_frame(inner).map_or(0, |p| p.line()),
        };
        line(index, code, inner, number);
    }
}

/// The code object of a frame of this version.
fn code_of(frame: usize, l: &Layout) -> Option<usize> {
    let offset = match &l.frame.interpreter {
        Some(f) => f.executable,
        None => l.frame.object.f_code?,
    };
    // SAFETY: a live frame.
    Some(unsafe { word(frame + offset as usize) })
}

unsafe fn call_below(a: usize, b: usize, c: usize) -> Object {
    // SAFETY: the interpreter's own evaluation function with the arguments it gave us.
    unsafe {
        let f: Eval = core::mem::transmute(BELOW.load(Relaxed));
        f(a, b, c)
    }
}

/// Our evaluation function; the meaning of the arguments differs by version.
pub unsafe extern "C" fn evaluate(a: usize, b: usize, c: usize) -> Object {
    let frame = if FRAME_SECOND.load(Relaxed) != 0 { b } else { a };
    let (Some(t), Some(l)) = (tracing(), python::layout()) else {
        // SAFETY: as given.
        return unsafe { call_below(a, b, c) };
    };
    let Some(code) = code_of(frame, l) else {
        // SAFETY: as given.
        return unsafe { call_below(a, b, c) };
    };
    let mut known = marked::known(code);
    // A frame that is entered with an exception is a generator's that goes on.
    let thrown = if FRAME_SECOND.load(Relaxed) != 0 { c } else { b } as i32 != 0;
    if known == Known::New
        && !thrown
        && monitoring::considering()
        && tls::tls().flags.get() & tls::QUIET == 0
    {
        monitoring::consider(code, python::globals_of(frame));
        known = marked::known(code);
    }
    match known {
        Known::Function { index, nested } if !t.busy() => {
            // SAFETY: as given.
            unsafe { traced(&t, index, nested, code, frame, (a, b, c)) }
        }
        // SAFETY: as given.
        _ => unsafe { untraced(&t, (a, b, c)) },
    }
}

/// Runs a frame that isn't marked: with the program's own trace function.
unsafe fn untraced(t: &Tracing, (a, b, c): (usize, usize, usize)) -> Object {
    let mine = t.get() == ours();
    if !mine {
        // SAFETY: as given.
        return unsafe { stepping_aside(a, b, c) };
    }
    let program = program_function().replace(0);
    t.set(program);
    // SAFETY: as given.
    let result = unsafe { stepping_aside(a, b, c) };
    // What the callee left installed is the program's now.
    program_function().set(t.get());
    t.set(ours());
    result
}

/// Runs a marked frame: with our trace function.
unsafe fn traced(
    t: &Tracing,
    index: u32,
    nested: bool,
    code: usize,
    frame: usize,
    (a, b, c): (usize, usize, usize),
) -> Object {
    let before = t.get();
    let outer = program_function().get();
    if before != ours() {
        program_function().set(before);
    }
    let entry = match python::locate_frame(frame) {
        Some(p) if has_started(frame) => Entry::Resume(p.line()),
        _ if nested => Entry::Nested,
        _ => Entry::Call,
    };
    enter(index, code, frame, entry);
    t.set(ours());
    // SAFETY: as given.
    let result = unsafe { stepping_aside(a, b, c) };
    leave(code, frame);
    let after = t.get();
    if before == ours() {
        if after != ours() {
            // The frame installed a trace function of its own: it is the program's.
            program_function().set(after);
        }
        t.set(ours());
    } else {
        t.set(if after == ours() { program_function().get() } else { after });
        program_function().set(outer);
    }
    result
}

/// True if the frame ran before: it is a generator's that goes on.
fn has_started(frame: usize) -> bool {
    let Some(l) = python::layout() else { return false };
    match (&l.frame.interpreter, l.frame.object.f_lasti) {
        (Some(f), _) => {
            // In 3.11 a generator function's call runs its frame up to RETURN_GENERATOR; from
            // then on the generator owns it.
            // SAFETY: a live frame.
            let owner = unsafe { *((frame + f.owner as usize) as *const u8) };
            owner == f.owned_by_generator
        }
        // SAFETY: a live frame.
        (None, Some(lasti)) => unsafe { *((frame + lasti as usize) as *const i32) >= 0 },
        _ => false,
    }
}

/// Calls on; deep in the C stack, without us from there on.
unsafe fn stepping_aside(a: usize, b: usize, c: usize) -> Object {
    let cell = EVAL_CELL.load(Relaxed) as *mut usize;
    let here = &cell as *const _ as usize;
    let t = tls::tls();
    let top = t.stack_top.get();
    if top < here || top - here > STACK_LIMIT {
        t.stack_top.set(here);
    }
    if !cell.is_null() && t.stack_top.get() - here > STACK_ROOM {
        // SAFETY: the interpreter's own member; null means its default (3.11). The GIL is held,
        // and whoever runs meanwhile merely runs without our events.
        unsafe {
            let mine = *cell;
            *cell = 0;
            let result = call_below(a, b, c);
            *cell = mine;
            return result;
        }
    }
    // SAFETY: as given.
    unsafe { call_below(a, b, c) }
}

/// Larger distances mean another stack (greenlets), bytes.
const STACK_LIMIT: usize = 64 << 20;

/// True if the frame that runs on this thread is traced by us.
pub fn is_tracing() -> bool {
    tracing().is_some_and(|t| t.get() == ours())
}

/// True once frames are evaluated through us.
pub fn installed() -> bool {
    BELOW.load(Relaxed) != 0
}

/// Installs our evaluation function and makes tracing possible. Under the GIL; once.
pub fn start() -> bool {
    let Some(l) = python::layout() else { return false };
    let tstate = python::current_tstate();
    if l.tstate.c_tracefunc.is_none() || tstate == 0 {
        return false;
    }
    if BELOW.load(Relaxed) != 0 {
        return true;
    }
    let object = &l.frame.object;
    let in_code = match &l.frame.interpreter {
        Some(f) => f.executable,
        None => object.f_code.unwrap_or(0),
    };
    IN_LINENO.store(object.f_lineno as usize, Relaxed);
    IN_FRAME.store(object.f_frame.unwrap_or(0) as usize, Relaxed);
    IN_CODE.store(in_code as usize, Relaxed);
    // SAFETY: `interp` is a member of the live thread state.
    let interp = unsafe { word(tstate + l.tstate.interp as usize) };
    if l.version == (2, 7) {
        if !crate::python27::hook_frames(&BELOW) {
            return false;
        }
    } else if !install(l, interp) {
        return false;
    }
    make_tracing_possible(&Tracing { tstate, layout: l });
    super::bound_methods::start();
    true
}

fn install(l: &Layout, interp: usize) -> bool {
    let mine: Eval = evaluate;
    let below = if symbols::GET_EVAL_FRAME.found() && symbols::SET_EVAL_FRAME.found() {
        FRAME_SECOND.store(1, Relaxed);
        // SAFETY: exported for PEP 523 (Python/pystate.c, 3.9+), with a live interpreter.
        unsafe {
            let below = call!(symbols::GET_EVAL_FRAME, fn(interp => usize) -> usize);
            BELOW.store(below, Relaxed);
            call!(symbols::SET_EVAL_FRAME, fn(interp => usize, mine as usize => usize));
            below
        }
    } else {
        let Some(offset) = l.interp.eval_frame else { return false };
        // SAFETY: the member that PEP 523 describes (3.6 to 3.8).
        unsafe {
            let cell = (interp + offset as usize) as *mut usize;
            let below = *cell;
            BELOW.store(below, Relaxed);
            *cell = mine as usize;
            below
        }
    };
    if l.version == (3, 11) {
        if let Some(offset) = l.interp.eval_frame {
            EVAL_CELL.store(interp + offset as usize, Relaxed);
        }
    }
    below != 0
}

/// Up to 3.9 the evaluation loop looks at trace functions only while a count of installed ones is
/// not zero. The count is raised through the API, so that no removal by the program ends it.
fn make_tracing_possible(t: &Tracing) {
    if matches!(t.layout.version, (3, 10..)) || !symbols::SET_TRACE.found() {
        return;
    }
    let Some(offset) = t.layout.tstate.c_traceobj else { return };
    let object = (t.tstate + offset as usize) as *mut usize;
    let before = t.get();
    // SAFETY: members of the live thread state, put back below: PyEval_SetTrace (Python/ceval.c)
    // must neither see nor release the program's own object.
    unsafe {
        let kept = *object;
        *object = 0;
        for _ in 0..8 {
            *t.function() = 0;
            call!(symbols::SET_TRACE, fn(ours() => usize, core::ptr::null_mut() => Object));
        }
        *object = kept;
    }
    t.set(before);
}
