//! Line events of the calling thread, from a C trace function (3.6 to 3.11) or `sys.monitoring`.
//!
//! `trace` is the object that goes with the C function: what `sys.gettrace` shows while a meter is
//! on. It is a whole trace function itself, so that a program may put it aside and back again, and
//! other trace functions may pass events on to it.
//!
//! Facts: PyTrace_CALL 0, LINE 2, RETURN 3 (Include/pystate.h); 3.11's RESUME says with its argument
//! what it resumes, 0 is the start of a function (Python/compile.c).

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::c_int;

use super::gauge::Own;
use super::threads::{self, Thread};
use crate::front;
use crate::lines::monitoring::{self, method_object, Exception, VARARGS};
use crate::python::{self, word};
use crate::symbols::{self, call, Object};

const CALL: c_int = 0;
const LINE: c_int = 2;
const RETURN: c_int = 3;
/// Line events without anyone who wants them after which they are turned off.
const IDLE: usize = 2000;

type TraceFunction = unsafe extern "C" fn(Object, Object, c_int, Object) -> c_int;

/// Offset of `f_lineno` in a frame object.
static IN_LINENO: AtomicUsize = AtomicUsize::new(0);
/// Offset of `f_trace` in a frame object.
static IN_TRACE: AtomicUsize = AtomicUsize::new(0);
/// Offset of `f_frame` in a frame object; 0 before 3.11.
static IN_FRAME: AtomicUsize = AtomicUsize::new(0);
/// Offset of the code object in the frame proper.
static IN_CODE: AtomicUsize = AtomicUsize::new(0);
/// `trace`, owned for the life of the interpreter; 0 from 3.12 on.
static TRACE: AtomicUsize = AtomicUsize::new(0);
/// What is called with a code object whose events nobody wants, owned; 0: nothing.
static FORGET: AtomicUsize = AtomicUsize::new(0);
/// Line events in a row that nobody wanted.
static UNWANTED: AtomicUsize = AtomicUsize::new(0);

/// Finds out where things are; false if lines can't be told.
pub fn prepare() -> bool {
    let Some(l) = python::layout() else { return false };
    if l.sys_monitoring {
        return l.version < (3, 14);
    }
    let o = &l.frame.object;
    let in_code = match &l.frame.interpreter {
        Some(f) => Some(f.executable),
        None => o.f_code,
    };
    let (Some(in_code), Some(_), Some(_)) = (in_code, l.tstate.c_tracefunc, l.tstate.c_traceobj)
    else {
        return false;
    };
    IN_LINENO.store(o.f_lineno as usize, Relaxed);
    IN_TRACE.store(o.f_trace as usize, Relaxed);
    IN_FRAME.store(o.f_frame.unwrap_or(0) as usize, Relaxed);
    IN_CODE.store(in_code as usize, Relaxed);
    symbols::SET_TRACE.found()
}

/// `trace`, a borrowed reference; null from 3.12 on.
pub fn trace_object() -> Object {
    let traced = python::layout().is_some_and(|l| !l.sys_monitoring);
    if traced && TRACE.load(Relaxed) == 0 {
        TRACE.store(
            method_object(c"trace", native_trace as front::Native as usize, VARARGS) as usize,
            Relaxed,
        );
    }
    TRACE.load(Relaxed) as Object
}

/// The C trace function and its object that are installed in the calling thread.
fn installed() -> (usize, usize) {
    let tstate = python::current_tstate();
    match python::layout().map(|l| (l.tstate.c_tracefunc, l.tstate.c_traceobj)) {
        // SAFETY: members of the live thread state.
        Some((Some(function), Some(object))) if tstate != 0 => unsafe {
            (word(tstate + function as usize), word(tstate + object as usize))
        },
        _ => (0, 0),
    }
}

fn ours() -> usize {
    let f: TraceFunction = on_event;
    f as usize
}

/// Makes events come in the calling thread; false if another tool has its trace function there.
///
/// # Safety
/// The GIL is held.
pub unsafe fn turn_on() -> bool {
    let trace = TRACE.load(Relaxed);
    if trace == 0 {
        return true;
    }
    let (function, object) = installed();
    if function != ours() {
        if function != 0 && object != trace {
            return false;
        }
        // SAFETY: documented API; `trace` lives as long as the interpreter.
        unsafe { set_trace(ours(), trace as Object) };
    }
    true
}

/// No events any more, unless the program has put a trace function of its own in place.
///
/// # Safety
/// The GIL is held.
pub unsafe fn turn_off() {
    let trace = TRACE.load(Relaxed);
    if trace != 0 && installed().1 == trace {
        // SAFETY: documented API: no trace function.
        unsafe { set_trace(0, core::ptr::null_mut()) };
    }
}

/// # Safety
/// The GIL is held; `function` is 0 or a trace function.
unsafe fn set_trace(function: usize, object: Object) {
    // SAFETY: the caller's promise.
    unsafe { call!(symbols::SET_TRACE, fn(function => usize, object => Object)) }
}

/// The frame proper of a frame object.
///
/// # Safety
/// `frame` is a live frame object.
#[inline(always)]
unsafe fn inner_of(frame: usize) -> usize {
    match IN_FRAME.load(Relaxed) {
        0 => frame,
        // SAFETY: the caller's promise.
        offset => unsafe { word(frame + offset) },
    }
}

/// The line of a traced frame.
///
/// # Safety
/// `frame` is a live frame object, and `inner` its frame proper.
#[inline(always)]
unsafe fn line_of(frame: usize, inner: usize) -> u32 {
    // SAFETY: the caller's promise; `f_lineno` is the line while a trace function runs.
    match unsafe { *((frame + IN_LINENO.load(Relaxed)) as *const i32) } {
        n if n > 0 => n as u32,
        _ => python::locate_frame(inner).map_or(0, |p| p.line()),
    }
}

unsafe extern "C" fn on_event(_: Object, frame: Object, what: c_int, _: Object) -> c_int {
    let Some(thread) = Thread::current() else { return 0 };
    let frame = frame as usize;
    // SAFETY: a live frame object.
    let (inner, code) = unsafe {
        let inner = inner_of(frame);
        (inner, word(inner + IN_CODE.load(Relaxed)))
    };
    if what == LINE {
        if let Some(table) = thread.hot_table(code) {
            if table.owner() == Some(inner) {
                // SAFETY: as above.
                table.line::<Own>(unsafe { line_of(frame, inner) });
                return 0;
            }
        }
    }
    // SAFETY: as above.
    unsafe { other_event(thread, what, frame, inner, code) };
    0
}

/// # Safety
/// `frame` is a live frame object, `inner` its frame proper and `code` its code object.
#[inline(never)]
unsafe fn other_event(thread: &mut Thread, what: c_int, frame: usize, inner: usize, code: usize) {
    // SAFETY: the caller's promise, here and below.
    let line = || unsafe { line_of(frame, inner) };
    match what {
        CALL => {
            let mut bound = false;
            // SAFETY: as above.
            let begins = unsafe { begins(inner) };
            thread.each(code, |table, first| {
                bound = true;
                if begins {
                    table.begin::<Own>(inner, first);
                } else {
                    table.resume::<Own>(inner, line());
                }
            });
            if bound {
                // SAFETY: as above.
                unsafe { set_frames_trace(frame) };
            }
        }
        LINE => thread.each(code, |table, _| {
            if table.owner() == Some(inner) {
                table.line::<Own>(line());
            // SAFETY: as above.
            } else if unsafe { may_run_unseen(inner) } {
                table.enter::<Own>(inner, line());
            }
        }),
        RETURN => thread.each(code, |table, _| {
            // An exception thrown into a generator ends it without its having begun to go on.
            if table.owner() == Some(inner) {
                table.leave::<Own>();
            }
        }),
        _ => {}
    }
}

/// True at the call of a function, false where a generator or coroutine goes on.
///
/// # Safety
/// `inner` is a live frame for which the interpreter tells a call.
unsafe fn begins(inner: usize) -> bool {
    let Some(l) = python::layout() else { return true };
    match (&l.frame.interpreter, l.frame.object.f_lasti) {
        // SAFETY: the caller's promise: the instruction is RESUME.
        (Some(f), _) => unsafe {
            let resume = word(inner + f.instr_ptr as usize) as *const u8;
            *resume.add(1) == 0
        },
        // SAFETY: as above.
        (None, Some(lasti)) => unsafe { *((inner + lasti as usize) as *const i32) < 0 },
        _ => true,
    }
}

/// True if the frame may have gone on without a call event: 3.11 tells none when an exception is
/// thrown into a generator. Other frames ran before the meter was turned on, and are left alone.
///
/// # Safety
/// `inner` is a live frame.
unsafe fn may_run_unseen(inner: usize) -> bool {
    python::layout().and_then(|l| l.frame.interpreter.as_ref()).is_some_and(|f| {
        // SAFETY: the caller's promise.
        unsafe { *((inner + f.owner as usize) as *const u8) == f.owned_by_generator }
    })
}

/// The frame's own trace function is `trace`: if the program puts that aside and back, the
/// interpreter calls it for this frame.
///
/// # Safety
/// `frame` is a live frame object.
unsafe fn set_frames_trace(frame: usize) {
    let trace = TRACE.load(Relaxed);
    let cell = (frame + IN_TRACE.load(Relaxed)) as *mut usize;
    // SAFETY: the caller's promise; the member owns what it points to.
    unsafe {
        if trace != 0 && *cell == 0 {
            call!(symbols::INC_REF, fn(trace as Object => Object));
            *cell = trace;
        }
    }
}

/// `trace`: (frame, event, arg) -> itself
unsafe extern "C" fn native_trace(_: Object, args: Object) -> Object {
    let trace = TRACE.load(Relaxed) as Object;
    // SAFETY: called by the interpreter, or by another trace function, with a frame and a text.
    unsafe {
        if front::len(args) == 3 {
            let event = first_byte(front::item(args, 1));
            let what = match event {
                b'c' => CALL,
                b'l' => LINE,
                b'r' => RETURN,
                _ => -1,
            };
            if Thread::current().is_some() && installed().1 == trace as usize {
                // It was put back: from here on without a detour through Python's own.
                set_trace(ours(), trace);
            }
            on_event(trace, front::item(args, 0) as Object, what, front::none_borrowed());
        }
        call!(symbols::INC_REF, fn(trace => Object));
    }
    trace
}

/// The first byte of a text.
///
/// # Safety
/// `object` is alive, and the GIL is held.
unsafe fn first_byte(object: usize) -> u8 {
    if !python::is_text(object) {
        return 0;
    }
    let Some(_guard) = crate::lock::lock() else { return 0 };
    python::text_of(object).first().copied().unwrap_or(0)
}

/// (number, function or None) -> the callback of `sys.monitoring` of this number: 0 line, 1 start,
/// 2 resume, 3 leave. The function is called with a code object whose events nobody wants.
pub unsafe extern "C" fn native_callback(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with an int and a function.
    unsafe {
        let (which, forget) = (front::int_item(args, 0), front::item(args, 1));
        call!(symbols::INC_REF, fn(forget as Object => Object));
        FORGET.store(forget, Relaxed);
        let (name, f): (_, monitoring::Fast) = match which {
            0 => (c"line", on_line),
            1 => (c"start", on_start),
            2 => (c"resume", on_resume),
            _ => (c"leave", on_leave),
        };
        monitoring::direct(name, f)
    }
}

fn none() -> Object {
    symbols::NONE.address() as Object
}

fn frame_now() -> usize {
    python::current_frame(python::current_tstate())
}

unsafe extern "C" fn on_line(_: Object, args: *const Object, _: isize) -> Object {
    // SAFETY: LINE passes (code, line number): an `int` of one digit.
    let (code, line) = unsafe {
        let number = *args.add(1) as usize;
        (*args as usize, *((number + python::long_digits()) as *const u32))
    };
    let Some(thread) = Thread::current() else {
        unwanted(code);
        return none();
    };
    if let Some(table) = thread.hot_table(code) {
        if table.owner() == Some(code) {
            table.line::<Own>(line);
            return none();
        }
    }
    let mut found = false;
    thread.each(code, |table, _| {
        found = true;
        if table.owner() == Some(code) {
            table.line::<Own>(line);
        } else {
            table.enter::<Own>(code, line);
        }
    });
    if !found {
        unwanted(code);
    }
    none()
}

/// A line event that nobody in this thread wants.
#[inline(never)]
fn unwanted(code: usize) {
    let n = UNWANTED.load(Relaxed) + 1;
    UNWANTED.store(n % IDLE, Relaxed);
    let forget = FORGET.load(Relaxed) as Object;
    if n < IDLE || forget.is_null() || threads::is_bound(code) {
        return;
    }
    let _exception = Exception::put_aside();
    // SAFETY: the package's function and a live code object; an error is swallowed.
    unsafe {
        let result = call!(
            symbols::CALL_OBJ_ARGS,
            fn(forget => Object, code as Object => Object, core::ptr::null_mut() => Object) -> Object
        );
        if result.is_null() {
            call!(symbols::ERR_CLEAR, fn());
        } else {
            call!(symbols::DEC_REF, fn(result => Object));
        }
    }
}

unsafe extern "C" fn on_start(_: Object, args: *const Object, _: isize) -> Object {
    // SAFETY: PY_START passes (code, offset).
    let code = unsafe { *args } as usize;
    if let Some(thread) = Thread::current() {
        thread.each(code, |table, first| table.begin::<Own>(code, first));
    }
    none()
}

unsafe extern "C" fn on_resume(_: Object, args: *const Object, _: isize) -> Object {
    // SAFETY: PY_RESUME and PY_THROW pass (code, offset, ...).
    let code = unsafe { *args } as usize;
    if let Some(thread) = Thread::current() {
        thread.each(code, |table, _| {
            let line = python::locate_frame(frame_now()).map_or(0, |p| p.line());
            table.resume::<Own>(code, line);
        });
    }
    none()
}

unsafe extern "C" fn on_leave(_: Object, args: *const Object, _: isize) -> Object {
    // SAFETY: PY_RETURN, PY_YIELD and PY_UNWIND pass (code, offset, ...).
    let code = unsafe { *args } as usize;
    if let Some(thread) = Thread::current() {
        thread.each(code, |table, _| {
            if table.owner() == Some(code) {
                table.leave::<Own>();
            }
        });
    }
    none()
}
