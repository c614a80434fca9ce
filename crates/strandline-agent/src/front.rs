//! The front: a small Python program that the agent runs inside the interpreter to find out what
//! is to be shown.
//!
//! It is compiled and run only when it is needed: at the first use of `profile`, or at start-up
//! for `--function` and `--all`. Until then `profile` is a C function. A program that is profiled
//! as it is gets two new objects in its interpreter, and no compiled code: interned names alone
//! would change when its tables grow, and so the layout of its heap.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::{c_char, c_int, c_void};
use strandline_capture::layout as capture;

use crate::lines::{marked, monitoring, trace};
use crate::python::{self, word};
use crate::region::{self, region};
use crate::symbols::{self, call, Object};
use crate::tls::{self, Quiet};
use crate::{bare, process};

const FRONT: &str = concat!(include_str!("front.py"), "\0");
const FRONT_MORE: &str = concat!(include_str!("front_more.py"), "\0");
/// `Py_file_input` (Include/compile.h).
const FILE_INPUT: c_int = 257;
/// `METH_VARARGS | METH_KEYWORDS` (Include/methodobject.h).
const KEYWORDS: c_int = 3;

/// The front's namespace once it ran, owned for the life of the interpreter.
static NAMESPACE: AtomicUsize = AtomicUsize::new(0);
/// What `profile` was put into: the builtins, or a dict of nobody's ([`profile`]).
static BUILTINS: AtomicUsize = AtomicUsize::new(0);

/// Makes `profile` a builtin, and runs the front if it has something to look for. False if the
/// interpreter isn't up to it.
///
/// # Safety
/// The GIL is held and no exception is set.
pub unsafe fn install() -> bool {
    // SAFETY: documented API and the caller's promise.
    let done = unsafe {
        let builtins = call!(symbols::GET_BUILTINS, fn() -> Object);
        BUILTINS.store(builtins as usize, Relaxed);
        let f: Keywords = first_profile;
        let object = monitoring::method_object(c"profile", f as usize, KEYWORDS);
        set(builtins, c"profile", object).is_some()
    };
    let looking = capture::OPTION_ALL | capture::OPTION_FUNCTIONS;
    if done && region::options() & looking != 0 {
        // SAFETY: the caller's promise.
        return unsafe { run_once() };
    }
    // SAFETY: as above.
    unsafe { call!(symbols::ERR_CLEAR, fn()) };
    done
}

/// The front's `profile`, a new reference, which is put nowhere; null if the interpreter isn't up to
/// it.
///
/// # Safety
/// The GIL is held and no exception is set.
pub unsafe fn profile() -> Object {
    // SAFETY: documented API, live objects, the caller's promise.
    unsafe {
        BUILTINS.store(call!(symbols::DICT_NEW, fn() -> Object) as usize, Relaxed);
        if !run_once() {
            return core::ptr::null_mut();
        }
        let namespace = NAMESPACE.load(Relaxed) as Object;
        let profile = call!(
            symbols::DICT_GET,
            fn(namespace => Object, c"profile".as_ptr() => *const c_char) -> Object
        );
        if !profile.is_null() {
            call!(symbols::INC_REF, fn(profile => Object));
        }
        profile
    }
}

/// Runs the front unless it ran; errors are its own and are swallowed.
unsafe fn run_once() -> bool {
    if NAMESPACE.load(Relaxed) != 0 {
        return true;
    }
    // SAFETY: the caller holds the GIL.
    unsafe {
        let done = front().is_some();
        if !done {
            call!(symbols::ERR_CLEAR, fn());
        }
        done
    }
}

type Keywords = unsafe extern "C" fn(Object, Object, Object) -> Object;

/// `profile`, the first time it is called: runs the front, which puts its own in place, and
/// calls that.
unsafe extern "C" fn first_profile(_: Object, args: Object, keywords: Object) -> Object {
    // SAFETY: called by the interpreter, with the GIL; args is a tuple with the decorated thing
    // first, or empty.
    unsafe {
        {
            let _quiet = Quiet::new();
            run_once();
        }
        let namespace = NAMESPACE.load(Relaxed) as Object;
        let profile = if namespace.is_null() {
            core::ptr::null_mut()
        } else {
            call!(
                symbols::DICT_GET,
                fn(namespace => Object, c"profile".as_ptr() => *const c_char) -> Object
            )
        };
        if profile.is_null() {
            // Without the front nothing is shown, but the program goes on: what is decorated
            // comes back as it is.
            let thing = if len(args) > 0 { item(args, 0) as Object } else { none_borrowed() };
            call!(symbols::INC_REF, fn(thing => Object));
            return thing;
        }
        call!(
            symbols::CALL,
            fn(profile => Object, args => Object, keywords => Object) -> Object
        )
    }
}

/// `None`, a borrowed reference.
pub fn none_borrowed() -> Object {
    symbols::NONE.address() as Object
}

/// The exit handler as a Python object.
static EXITING: AtomicUsize = AtomicUsize::new(0);

/// Registers the exit handler that runs last. Not to be called inside importlib, which isn't
/// made to be entered again at any place.
///
/// # Safety
/// The GIL is held and no exception is set.
pub unsafe fn watch_exit() -> bool {
    if EXITING.load(Relaxed) == 0 {
        let f: Native = native_exiting;
        let object =
            monitoring::method_object(c"strandline_exiting", f as usize, monitoring::VARARGS);
        EXITING.store(object as usize, Relaxed);
    }
    let exiting = EXITING.load(Relaxed) as Object;
    // SAFETY: documented API, live objects, the GIL is held.
    unsafe {
        let done = if python::layout().is_some_and(|l| l.version == (2, 7)) {
            // Without importing anything: the atexit module, when it comes, calls it last.
            call!(
                symbols::SYS_SET,
                fn(c"exitfunc".as_ptr() => *const c_char, exiting => Object) -> c_int
            ) == 0
        } else {
            register(exiting).is_some()
        };
        if !done {
            call!(symbols::ERR_CLEAR, fn());
        }
        done
    }
}

/// `atexit.register(exiting)`
unsafe fn register(exiting: Object) -> Option<()> {
    // SAFETY: as in `watch_exit`.
    unsafe {
        let exiting = some(exiting)?;
        let module =
            some(call!(symbols::IMPORT, fn(c"atexit".as_ptr() => *const c_char) -> Object))?;
        let f = some(call!(
            symbols::GET_ATTR,
            fn(module => Object, c"register".as_ptr() => *const c_char) -> Object
        ));
        call!(symbols::DEC_REF, fn(module => Object));
        let f = f?;
        let end: Object = core::ptr::null_mut();
        let result = call!(
            symbols::CALL_OBJ_ARGS,
            fn(f => Object, exiting => Object, end => Object) -> Object
        );
        call!(symbols::DEC_REF, fn(f => Object));
        call!(symbols::DEC_REF, fn(some(result)? => Object));
        Some(())
    }
}

/// A null pointer becomes `None`.
fn some(object: Object) -> Option<Object> {
    (!object.is_null()).then_some(object)
}

/// `dict[name] = value`; the reference to `value` stays the caller's.
///
/// # Safety
/// The GIL is held; both are live objects or null.
pub unsafe fn set(dict: Object, name: &core::ffi::CStr, value: Object) -> Option<()> {
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

/// A new `int`.
///
/// # Safety
/// The GIL is held.
pub unsafe fn new_long(value: i64) -> Object {
    // SAFETY: the GIL is held.
    unsafe { call!(symbols::FROM_LONG, fn(value => i64) -> Object) }
}

/// What the front is given.
static FUNCTIONS: [(&core::ffi::CStr, Native); 7] = [
    (c"native_mark", native_mark),
    (c"native_nested", native_nested),
    (c"native_trace", native_trace),
    (c"native_callback", native_callback),
    (c"native_consider", native_consider),
    (c"native_quiet", native_quiet),
    (c"native_more", native_more),
];

/// Runs the front in a namespace of its own.
///
/// # Safety
/// The GIL is held and no exception is set.
unsafe fn front() -> Option<()> {
    // SAFETY: documented API, live objects, the GIL is held; references that the namespace keeps
    // live as long as the interpreter.
    unsafe {
        let namespace = some(call!(symbols::DICT_NEW, fn() -> Object))?;
        let shown_in = some(BUILTINS.load(Relaxed) as Object)?;
        let builtins = some(call!(symbols::GET_BUILTINS, fn() -> Object))?;
        let modules = some(call!(symbols::MODULES, fn() -> Object))?;
        let sys = some(call!(
            symbols::DICT_GET,
            fn(modules => Object, c"sys".as_ptr() => *const c_char) -> Object
        ))?;
        set(namespace, c"__builtins__", builtins)?;
        set(namespace, c"BUILTINS", shown_in)?;
        set(namespace, c"sys", sys)?;
        set(namespace, c"OPTIONS", new_long(region::options() as i64))?;
        let patterns = region::patterns();
        let new =
            if symbols::UNICODE_NEW.found() { &symbols::UNICODE_NEW } else { &symbols::STRING_NEW };
        let text = call!(
            new,
            fn(patterns.as_ptr() => *const u8, patterns.len() as isize => isize) -> Object
        );
        set(namespace, c"PATTERN_TEXT", text)?;
        let (text, functions) =
            if bare::is() { (bare::FRONT, &bare::FUNCTIONS[..]) } else { (FRONT, &FUNCTIONS[..]) };
        for (name, f) in functions {
            let object = monitoring::method_object(name, *f as usize, monitoring::VARARGS);
            set(namespace, name, object)?;
        }
        run(text, namespace)?;
        NAMESPACE.store(namespace as usize, Relaxed);
        Some(())
    }
}

/// Compiles `text`, which ends with a NUL, and runs it in `namespace`.
///
/// # Safety
/// The GIL is held, no exception is set, and `namespace` is a live dict.
pub unsafe fn run(text: &'static str, namespace: Object) -> Option<()> {
    // SAFETY: documented API and the caller's promise.
    unsafe {
        let code = if symbols::COMPILE.found() {
            call!(
                symbols::COMPILE,
                fn(
                    text.as_ptr() => *const u8, c"<strandline>".as_ptr() => *const c_char,
                    FILE_INPUT => c_int, core::ptr::null_mut() => *mut c_void, -1 => c_int
                ) -> Object
            )
        } else {
            call!(
                symbols::COMPILE_27,
                fn(
                    text.as_ptr() => *const u8, c"<strandline>".as_ptr() => *const c_char,
                    FILE_INPUT => c_int, core::ptr::null_mut() => *mut c_void
                ) -> Object
            )
        };
        let code = some(code)?;
        let result = some(call!(
            symbols::EVAL_CODE,
            fn(code => Object, namespace => Object, namespace => Object) -> Object
        ))?;
        call!(symbols::DEC_REF, fn(result => Object));
        Some(())
    }
}

/// A function that Python calls with positional arguments.
pub type Native = unsafe extern "C" fn(Object, Object) -> Object;

/// Number of items of a tuple.
///
/// # Safety
/// `args` is a live tuple.
pub unsafe fn len(args: Object) -> usize {
    let offset = python::layout().map_or(16, |l| l.object.tuple_len) as usize;
    // SAFETY: the caller's promise.
    unsafe { word(args as usize + offset) }
}

/// Argument `i` of the tuple `args`.
///
/// # Safety
/// `args` is a live tuple with more than `i` items.
pub unsafe fn item(args: Object, i: usize) -> usize {
    let offset = python::layout().map_or(24, |l| l.object.tuple_items) as usize;
    // SAFETY: the caller's promise: PyTupleObject.ob_item.
    unsafe { word(args as usize + offset + 8 * i) }
}

/// Argument `i`, an `int`.
///
/// # Safety
/// As `item`; the item is an `int`.
pub unsafe fn int_item(args: Object, i: usize) -> i64 {
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

/// `None`, a new reference. The GIL is held.
pub fn none() -> Object {
    let none = symbols::NONE.address() as Object;
    // SAFETY: None is a live object; the caller of the function takes over one reference.
    unsafe { call!(symbols::INC_REF, fn(none => Object)) };
    none
}

/// (code, name, path, source, first line of source) -> index or -1
unsafe extern "C" fn native_mark(_: Object, args: Object) -> Object {
    // SAFETY: only the front calls this, with five arguments of these types.
    unsafe {
        let texts = marked::Texts {
            name: bytes_item(args, 1),
            path: bytes_item(args, 2),
            source: bytes_item(args, 3),
            source_first: int_item(args, 4) as u32,
        };
        let code = item(args, 0);
        let (first, last) = python::lines_of(code);
        let index = marked::mark(code, first, last, &texts);
        new_long(index.map_or(-1, |i| i as i64))
    }
}

/// (): runs the rest of the front
unsafe extern "C" fn native_more(_: Object, _: Object) -> Object {
    // SAFETY: only the front calls this; the function that runs holds its namespace.
    unsafe {
        let namespace = call!(symbols::GET_GLOBALS, fn() -> Object);
        if namespace.is_null() || run(FRONT_MORE, namespace).is_none() {
            // What needs it fails by name, and the front swallows that.
            call!(symbols::ERR_CLEAR, fn());
        }
    }
    none()
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
    monitoring::callback(which)
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
