//! Setting up inside the interpreter, once it runs: a pending call that wraps what start-up
//! unwrapped and runs the front.
//!
//! The pending call is asked for at the first sign of a running frame, which is importlib's
//! bootstrap, long before the program's first line. What the front allocates is the profiler's.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use libc::{c_char, c_int, c_void};
use strandline_capture::layout as capture;

use crate::lines::{marked, monitoring, trace};
use crate::process;
use crate::python::{self, word};
use crate::region::{self, region};
use crate::symbols::{self, call, Object};
use crate::tls::{self, Quiet};
use crate::{pymem, rss};

const IDLE: u32 = 0;
const WAITING: u32 = 1;
const ASKED: u32 = 2;
/// The front ran; the exit handler isn't registered yet.
const EARLY: u32 = 3;
const ASKED_EXIT: u32 = 4;
const DONE: u32 = 5;
static STATE: AtomicU32 = AtomicU32::new(IDLE);

const FRONT: &str = concat!(include_str!("front.py"), "\0");
/// `Py_file_input` (Include/compile.h).
const FILE_INPUT: c_int = 257;

/// From now on the first running frame starts the front.
pub fn wait_for_python() {
    STATE.store(WAITING, Relaxed);
}

/// A frame runs on this thread, which holds the GIL.
#[inline]
pub fn python_runs() {
    match STATE.load(Relaxed) {
        WAITING => ask(run_front, ASKED, WAITING),
        EARLY => {
            // Not at every new line of start-up: modules must come in first.
            let n = NEW_LINES.load(Relaxed).wrapping_add(1);
            NEW_LINES.store(n, Relaxed);
            if n % 32 == 0 {
                ask(watch_exit, ASKED_EXIT, EARLY);
            }
        }
        _ => {}
    }
}

static NEW_LINES: AtomicU32 = AtomicU32::new(0);
/// The front's namespace, owned for the life of the interpreter.
static NAMESPACE: AtomicUsize = AtomicUsize::new(0);

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
    crate::sites::note_thread(tstate);
    pymem::wrap();
    rss::write_ledger(&region().head.start);
    let _quiet = Quiet::new();
    // SAFETY: a pending call runs with the GIL, no exception set.
    if unsafe { front() }.is_some() {
        region().head.abilities.fetch_or(capture::CAN_FRONT | capture::CAN_LINES, Relaxed);
    } else if symbols::ERR_CLEAR.found() {
        // SAFETY: the GIL is held; the error is the front's own.
        unsafe { call!(symbols::ERR_CLEAR, fn()) };
    }
    STATE.store(EARLY, Relaxed);
    0
}

/// Registers the exit handler, if the import system is up.
unsafe extern "C" fn watch_exit(_: *mut c_void) -> c_int {
    let _quiet = Quiet::new();
    let namespace = NAMESPACE.load(Relaxed) as Object;
    let mut done = true;
    // SAFETY: a pending call runs with the GIL, no exception set; the namespace is kept alive.
    unsafe {
        let f = call!(
            symbols::DICT_GET,
            fn(namespace => Object, c"watch_exit".as_ptr() => *const c_char) -> Object
        );
        if !f.is_null() {
            let end: Object = core::ptr::null_mut();
            let result = call!(symbols::CALL_OBJ_ARGS, fn(f => Object, end => Object) -> Object);
            if result.is_null() {
                done = false;
                call!(symbols::ERR_CLEAR, fn());
            } else {
                call!(symbols::DEC_REF, fn(result => Object));
            }
        }
    }
    STATE.store(if done { DONE } else { EARLY }, Relaxed);
    0
}

/// A null pointer becomes `None`.
fn some(object: Object) -> Option<Object> {
    (!object.is_null()).then_some(object)
}

unsafe fn set(dict: Object, name: &core::ffi::CStr, value: Object) -> Option<()> {
    let value = some(value)?;
    // SAFETY: live objects; the caller holds the GIL.
    let status = unsafe {
        call!(
            symbols::DICT_SET,
            fn(dict => Object, name.as_ptr() => *const c_char, value => Object) -> c_int
        )
    };
    (status == 0).then_some(())
}

unsafe fn new_long(value: i64) -> Object {
    // SAFETY: the GIL is held.
    unsafe { call!(symbols::FROM_LONG, fn(value => i64) -> Object) }
}

/// Runs the front in a namespace of its own.
///
/// # Safety
/// The GIL is held and no exception is set.
unsafe fn front() -> Option<()> {
    // SAFETY: documented API, live objects, the GIL is held; references that the namespace keeps
    // live as long as the interpreter.
    unsafe {
        let namespace = some(call!(symbols::DICT_NEW, fn() -> Object))?;
        let builtins = some(call!(symbols::GET_BUILTINS, fn() -> Object))?;
        let modules = some(call!(symbols::MODULES, fn() -> Object))?;
        let sys = some(call!(
            symbols::DICT_GET,
            fn(modules => Object, c"sys".as_ptr() => *const c_char) -> Object
        ))?;
        set(namespace, c"__builtins__", builtins)?;
        set(namespace, c"BUILTINS", builtins)?;
        set(namespace, c"sys", sys)?;
        set(namespace, c"OPTIONS", new_long(region::options() as i64))?;
        let patterns = region::patterns();
        let new =
            if symbols::BYTES_NEW.found() { &symbols::BYTES_NEW } else { &symbols::STRING_NEW };
        let text = call!(
            new,
            fn(patterns.as_ptr() => *const u8, patterns.len() as isize => isize) -> Object
        );
        set(namespace, c"PATTERN_BYTES", text)?;
        let functions: [(&core::ffi::CStr, Native); 7] = [
            (c"native_mark", native_mark),
            (c"native_nested", native_nested),
            (c"native_trace", native_trace),
            (c"native_callback", native_callback),
            (c"native_consider", native_consider),
            (c"native_quiet", native_quiet),
            (c"native_exiting", native_exiting),
        ];
        for (name, f) in functions {
            let object = monitoring::method_object(name, f as usize, monitoring::VARARGS);
            set(namespace, name, object)?;
        }
        let code = if symbols::COMPILE.found() {
            call!(
                symbols::COMPILE,
                fn(
                    FRONT.as_ptr() => *const u8, c"<strandline>".as_ptr() => *const c_char,
                    FILE_INPUT => c_int, core::ptr::null_mut() => *mut c_void, -1 => c_int
                ) -> Object
            )
        } else {
            call!(
                symbols::COMPILE_27,
                fn(
                    FRONT.as_ptr() => *const u8, c"<strandline>".as_ptr() => *const c_char,
                    FILE_INPUT => c_int, core::ptr::null_mut() => *mut c_void
                ) -> Object
            )
        };
        let code = some(code)?;
        NAMESPACE.store(namespace as usize, Relaxed);
        let result = some(call!(
            symbols::EVAL_CODE,
            fn(code => Object, namespace => Object, namespace => Object) -> Object
        ))?;
        call!(symbols::DEC_REF, fn(result => Object));
        Some(())
    }
}

type Native = unsafe extern "C" fn(Object, Object) -> Object;

/// Argument `i` of the tuple `args`.
///
/// # Safety
/// `args` is a live tuple with more than `i` items.
unsafe fn item(args: Object, i: usize) -> usize {
    let offset = python::layout().map_or(24, |l| l.object.tuple_items) as usize;
    // SAFETY: the caller's promise: PyTupleObject.ob_item.
    unsafe { word(args as usize + offset + 8 * i) }
}

/// # Safety
/// As `item`; the item is an `int`.
unsafe fn int_item(args: Object, i: usize) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { call!(symbols::AS_LONG, fn(item(args, i) => usize) -> i64) }
}

/// # Safety
/// As `item`; the item is `bytes` (2.7: `str`) that outlives the use.
unsafe fn bytes_item<'a>(args: Object, i: usize) -> &'a [u8] {
    let Some(l) = python::layout() else { return &[] };
    // SAFETY: the caller's promise.
    unsafe {
        let object = item(args, i);
        let len = word(object + l.bytes.len as usize);
        core::slice::from_raw_parts((object + l.bytes.data as usize) as *const u8, len)
    }
}

fn none() -> Object {
    let none = symbols::NONE.address() as Object;
    // SAFETY: None is a live object; the caller of the function takes over one reference.
    unsafe { call!(symbols::INC_REF, fn(none => Object)) };
    none
}

/// (code, first line, last line, name, path, source, first line of source) -> index or -1
unsafe extern "C" fn native_mark(_: Object, args: Object) -> Object {
    // SAFETY: only the front calls this, with seven arguments of these types.
    unsafe {
        let texts = marked::Texts {
            name: bytes_item(args, 3),
            path: bytes_item(args, 4),
            source: bytes_item(args, 5),
            source_first: int_item(args, 6) as u32,
        };
        let (first, last) = (int_item(args, 1) as u32, int_item(args, 2) as u32);
        let index = marked::mark(item(args, 0), first, last, &texts);
        new_long(index.map_or(-1, |i| i as i64))
    }
}

/// (code, index of the function it is nested in)
unsafe extern "C" fn native_nested(_: Object, args: Object) -> Object {
    // SAFETY: only the front calls this, with two arguments of these types.
    unsafe { marked::mark_nested(item(args, 0), int_item(args, 1) as u32) };
    none()
}

/// () -> 1 if line events can come from the trace function
unsafe extern "C" fn native_trace(_: Object, _: Object) -> Object {
    let works = trace::start();
    if !works {
        region().head.abilities.fetch_and(!capture::CAN_LINES, Relaxed);
    }
    // SAFETY: the GIL is held.
    unsafe { new_long(works as i64) }
}

/// (number) -> callable
unsafe extern "C" fn native_callback(_: Object, args: Object) -> Object {
    // SAFETY: only the front calls this, with one int.
    let which = unsafe { int_item(args, 0) } as usize;
    match monitoring::callback(which) {
        Some((name, f)) => monitoring::method_object(name, f, monitoring::FASTCALL),
        None => none(),
    }
}

/// (function, sys.monitoring.DISABLE or None)
unsafe extern "C" fn native_consider(_: Object, args: Object) -> Object {
    // SAFETY: only the front calls this, with two objects that its namespace keeps alive.
    unsafe {
        let (consider, disable) = (item(args, 0) as Object, item(args, 1) as Object);
        call!(symbols::INC_REF, fn(consider => Object));
        call!(symbols::INC_REF, fn(disable => Object));
        let is_none = disable as usize == symbols::NONE.address();
        let disable = if is_none { core::ptr::null_mut() } else { disable };
        monitoring::set_front(consider, disable);
    }
    none()
}

/// (1): this thread works for the profiler; (0): no longer. Only around `profile`.
unsafe extern "C" fn native_quiet(_: Object, args: Object) -> Object {
    let t = tls::tls();
    // SAFETY: only the front calls this, with one int.
    if unsafe { int_item(args, 0) } != 0 {
        t.before_quiet.set(t.context.get());
        t.context.set(Quiet::CONTEXT);
        t.flags.set(t.flags.get() | tls::QUIET);
    } else {
        t.context.set(t.before_quiet.get());
        t.flags.set(t.flags.get() & !tls::QUIET);
    }
    none()
}

/// (): the interpreter begins to shut down
unsafe extern "C" fn native_exiting(_: Object, _: Object) -> Object {
    process::exiting();
    none()
}
