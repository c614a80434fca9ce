//! Setting up inside the interpreter, once it runs: a pending call that wraps what start-up
//! unwrapped and makes `profile` a builtin (see [`crate::front`]).
//!
//! The pending call is asked for at the first sign of a running frame, which is importlib's
//! bootstrap, long before the program's first line. What the front allocates is the profiler's.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use libc::{c_int, c_void};
use strandline_capture::layout as capture;

use crate::got::redirect;
use crate::region::region;
use crate::symbols::{self, call};
use crate::tls::Quiet;
use crate::{bare, front, pymem, python, rss};

const IDLE: u32 = 0;
const WAITING: u32 = 1;
const ASKED: u32 = 2;
/// The front ran; the exit handler isn't registered yet.
const EARLY: u32 = 3;
/// The exit handler is about to be registered.
const ASKED_EXIT: u32 = 4;
const DONE: u32 = 5;
static STATE: AtomicU32 = AtomicU32::new(IDLE);
static NEW_LINES: AtomicU32 = AtomicU32::new(0);
/// `NEW_LINES` at which to look again whether the imports are over.
static LOOK_AT: AtomicU32 = AtomicU32::new(16);

/// From now on the first running frame starts the front.
pub fn wait_for_python() {
    let finalize: unsafe extern "C" fn() -> c_int = finalize;
    let exit: unsafe extern "C" fn(c_int) = exit;
    // Where this works nothing has to be imported for the exit handler while the program runs.
    let wanted = [(&symbols::FINALIZE, finalize as usize), (&symbols::PY_EXIT, exit as usize)];
    FINALIZE_SEEN.store(redirect(&wanted), Relaxed);
    STATE.store(WAITING, Relaxed);
}

/// Calls of `Py_FinalizeEx` come through `finalize`, those of `Py_Exit` through `exit`.
static FINALIZE_SEEN: AtomicBool = AtomicBool::new(false);

/// In place of `Py_FinalizeEx`: registers the exit handler at the last moment. It runs before
/// those of the program, when all threads have ended.
unsafe extern "C" fn finalize() -> c_int {
    finalizing();
    // SAFETY: CPython's own function, called as it was called.
    unsafe { call!(symbols::FINALIZE, fn() -> c_int) }
}

/// In place of `Py_Exit` (`sys.exit`), which has its own way to the end since 3.13
/// (Python/pylifecycle.c).
unsafe extern "C" fn exit(status: c_int) {
    finalizing();
    // SAFETY: CPython's own function, called as it was called; it doesn't return.
    unsafe { call!(symbols::PY_EXIT, fn(status => c_int)) }
}

/// A frame runs on this thread, which holds the GIL and whose state is `tstate`.
#[inline]
pub fn python_runs(tstate: usize) {
    match STATE.load(Relaxed) {
        WAITING => ask(run_front, ASKED, WAITING),
        EARLY if !FINALIZE_SEEN.load(Relaxed) => {
            // Walking the frames costs more than the rest of a new line: not at each of them,
            // and the more rarely the longer the imports take.
            let n = NEW_LINES.load(Relaxed).wrapping_add(1);
            NEW_LINES.store(n, Relaxed);
            if n >= LOOK_AT.load(Relaxed) {
                if python::in_importlib(tstate) {
                    LOOK_AT.store(n.wrapping_add((n / 8).clamp(16, 256)), Relaxed);
                } else {
                    ask(watch_exit, ASKED_EXIT, EARLY);
                }
            }
        }
        _ => {}
    }
}

/// True once the interpreter runs the program, or is about to.
pub fn is_up() -> bool {
    matches!(STATE.load(Relaxed), EARLY | ASKED_EXIT | DONE)
}

/// False once nothing is to be learned from being told that Python runs.
pub fn is_waiting() -> bool {
    match STATE.load(Relaxed) {
        IDLE | DONE => false,
        EARLY => !FINALIZE_SEEN.load(Relaxed),
        _ => true,
    }
}

fn finalizing() {
    let tstate = python::held_tstate();
    if STATE.load(Relaxed) == EARLY && tstate != 0 && !python::in_importlib(tstate) {
        // SAFETY: the caller of Py_FinalizeEx holds the GIL.
        unsafe { watch_exit(core::ptr::null_mut()) };
    }
}

/// Called where it isn't known whether Python runs (no allocator hook was ever called).
#[inline(always)]
pub fn maybe_python_runs() {
    if STATE.load(Relaxed) == WAITING {
        let tstate = python::current_tstate();
        if tstate != 0 && python::current_frame(tstate) != 0 {
            ask(run_front, ASKED, WAITING);
        }
    }
}

type Pending = unsafe extern "C" fn(*mut c_void) -> c_int;

#[cold]
fn ask(f: Pending, asked: u32, again: u32) {
    if !symbols::ADD_PENDING_CALL.found() {
        STATE.store(IDLE, Relaxed);
        return;
    }
    STATE.store(asked, Relaxed);
    // SAFETY: Py_AddPendingCall may be called by any thread, with or without the GIL.
    let status = unsafe {
        call!(
            symbols::ADD_PENDING_CALL,
            fn(f as usize => usize, core::ptr::null_mut() => *mut c_void) -> c_int
        )
    };
    if status != 0 {
        // The queue is full: at the next chance.
        STATE.store(again, Relaxed);
    }
}

unsafe extern "C" fn run_front(_: *mut c_void) -> c_int {
    let tstate = python::current_tstate();
    if tstate == 0 {
        return 0;
    }
    if bare::is() {
        bare::note_main_thread(tstate);
    } else {
        crate::sites::note_thread(tstate);
        pymem::wrap();
        rss::write_ledger(&region().head.start);
    }
    let _quiet = Quiet::new();
    // SAFETY: a pending call runs with the GIL, no exception set.
    if unsafe { front::install() } {
        region().head.abilities.fetch_or(capture::CAN_FRONT | capture::CAN_LINES, Relaxed);
    }
    STATE.store(EARLY, Relaxed);
    0
}

unsafe extern "C" fn watch_exit(_: *mut c_void) -> c_int {
    let _quiet = Quiet::new();
    let inside = python::in_importlib(python::current_tstate());
    // SAFETY: a pending call runs with the GIL, no exception set.
    let done = !inside && unsafe { front::watch_exit() };
    STATE.store(if done { DONE } else { EARLY }, Relaxed);
    0
}
