//! Line events from 3.12 on: C callbacks of `sys.monitoring` (PEP 669).
//!
//! The front registers them with a free tool id. Marked code objects get local events; leaving
//! a frame by an exception is a global event in every version, and cheap: it isn't instrumented.
//! The interpreter makes an `int` for each call of ours (line or offset above the small ints);
//! it is counted as the profiler's.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::{c_char, c_int};

use super::marked::{self, Known};
use super::{enter, leave, line, quiet_line, Entry};
use crate::python;
use crate::symbols::{self, call, Object};
use crate::{pools, tls};

/// `PyMethodDef`.
#[repr(C)]
pub struct MethodDef {
    name: *const c_char,
    function: usize,
    flags: c_int,
    doc: *const c_char,
}

impl MethodDef {
    /// One of our functions; `address` is filled in by `method_object`.
    pub const fn new(name: &'static core::ffi::CStr, flags: c_int) -> Self {
        MethodDef { name: name.as_ptr(), function: 0, flags, doc: core::ptr::null() }
    }
}

/// `METH_FASTCALL` (Include/methodobject.h, 3.7+).
pub const FASTCALL: c_int = 0x80;
/// `METH_VARARGS`.
pub const VARARGS: c_int = 1;

/// Numbers above this may be fresh `int` objects (`_PY_NSMALLPOSINTS`, 257 up to 3.14).
const SMALL_INTS: u64 = 256;

static DISABLE: AtomicUsize = AtomicUsize::new(0);
static CONSIDER: AtomicUsize = AtomicUsize::new(0);

/// `None`, which is immortal where there is `sys.monitoring` (PEP 683, 3.12).
#[inline(always)]
fn none() -> Object {
    symbols::NONE.address() as Object
}

/// The value of a small non-negative `int`, and the object counted as the profiler's if it was
/// made for this call.
///
/// # Safety
/// `object` is a live `int` of one digit.
#[inline(always)]
unsafe fn number(object: Object) -> u64 {
    // SAFETY: PyLongObject's first digit (Include/cpython/longintrepr.h).
    let value = unsafe { *((object as usize + python::long_digits()) as *const u32) };
    if value as u64 > SMALL_INTS {
        pools::disown(object as usize);
    }
    value as u64
}

#[inline(always)]
fn frame_now() -> usize {
    python::current_frame(python::current_tstate())
}

/// # Safety
/// `args` has two live objects: code and an `int`.
#[inline(always)]
unsafe fn arguments(args: *const Object) -> (usize, u64) {
    // SAFETY: the caller's promise.
    unsafe { (*args as usize, number(*args.add(1))) }
}

unsafe extern "C" fn on_line(_self: Object, args: *const Object, _n: isize) -> Object {
    // SAFETY: LINE passes (code, line number).
    let (code, number) = unsafe { arguments(args) };
    if quiet_line(code, 0, number as u32) {
        return none();
    }
    if let Known::Function { index, .. } = marked::known_cached(code) {
        line(index, code, 0, number as u32);
    }
    none()
}

unsafe extern "C" fn on_start(_self: Object, args: *const Object, _n: isize) -> Object {
    // SAFETY: PY_START passes (code, offset).
    let (code, _) = unsafe { arguments(args) };
    let mut known = marked::known(code);
    if known == Known::New && CONSIDER.load(Relaxed) != 0 {
        consider(code, python::globals_of(frame_now()));
        known = marked::known(code);
    }
    if let Known::Function { index, nested } = known {
        let entry = if nested { Entry::Nested } else { Entry::Call };
        enter(index, code, frame_now(), entry);
        return none();
    }
    let disable = DISABLE.load(Relaxed) as Object;
    if disable.is_null() {
        return none();
    }
    // SAFETY: sys.monitoring.DISABLE, kept alive by the front.
    unsafe { call!(symbols::INC_REF, fn(disable => Object)) };
    disable
}

unsafe extern "C" fn on_resume(_self: Object, args: *const Object, _n: isize) -> Object {
    // SAFETY: PY_RESUME passes (code, offset).
    let (code, _) = unsafe { arguments(args) };
    if let Known::Function { index, .. } = marked::known(code) {
        let frame = frame_now();
        if let Some(place) = python::locate_frame(frame) {
            enter(index, code, frame, Entry::Resume(place.line()));
        }
    }
    none()
}

unsafe extern "C" fn on_leave(_self: Object, args: *const Object, _n: isize) -> Object {
    // SAFETY: PY_RETURN, PY_YIELD and PY_UNWIND pass (code, offset, ...).
    let (code, _) = unsafe { arguments(args) };
    if tls::tls().stack.get() != 0 {
        leave(code, frame_now());
    }
    none()
}

/// The exception that is being handled while the agent runs Python code of its own; put back
/// when dropped.
pub struct Exception([Object; 3]);

impl Exception {
    /// Takes the exception, if any, out of the thread's state. The caller holds the GIL.
    pub fn put_aside() -> Self {
        let mut kept: [Object; 3] = [core::ptr::null_mut(); 3];
        let [kind, value, trace] = &mut kept;
        // SAFETY: PyErr_Fetch fills three pointers with owned references.
        unsafe {
            call!(
                symbols::ERR_FETCH,
                fn(kind as *mut Object => *mut Object, value as *mut Object => *mut Object, trace as *mut Object => *mut Object)
            )
        };
        Exception(kept)
    }
}

impl Drop for Exception {
    fn drop(&mut self) {
        let [kind, value, trace] = self.0;
        // SAFETY: gives back what PyErr_Fetch gave; replaces an error of the agent's own.
        unsafe {
            call!(symbols::ERR_RESTORE, fn(kind => Object, value => Object, trace => Object))
        };
    }
}

/// Size of the block that the interpreter makes for each code object that runs while our events
/// are on, bytes; 0 while they aren't.
static DATA_BYTES: AtomicUsize = AtomicUsize::new(0);

/// The front is about to switch events on.
fn events_on() {
    if let Some(facts) =
        python::layout().and_then(|l| strandline_cpython::instrumentation(l.version))
    {
        DATA_BYTES.store(facts.bytes as usize, Relaxed);
    }
}

/// True if an allocation of `n` bytes may be such a block. In the hot path of the MEM domain.
#[inline(always)]
pub fn may_be_data(n: usize) -> bool {
    n == DATA_BYTES.load(Relaxed)
}

/// The block at `p` was just allocated and `may_be_data`: counts it as the profiler's if it is.
#[cold]
pub fn check_data(p: usize) {
    let Some(l) = python::layout() else { return };
    let facts = strandline_cpython::instrumentation(l.version);
    let (Some(f), Some(offset), Some(facts)) = (&l.frame.interpreter, l.code.monitoring, facts)
    else {
        return;
    };
    let frame = frame_now();
    if frame == 0 {
        return;
    }
    // SAFETY: the running frame of this thread, its code object and bytecode.
    let is_data = unsafe {
        let owner = *((frame + f.owner as usize) as *const u8);
        if !f.carries_code(owner) {
            return;
        }
        let code = f.executable_pointer(python::word(frame + f.executable as usize) as u64);
        let opcode = *(python::word(frame + f.instr_ptr as usize) as *const u8);
        python::word(code as usize + offset as usize) == 0 && facts.resume.contains(&opcode)
    };
    if is_data {
        pools::disown(p);
    }
}

/// Asks the front whether the function that starts now is wanted.
///
/// `globals` is the dict of its module.
pub fn consider(code: usize, globals: usize) {
    let _quiet = tls::Quiet::new();
    let callable = CONSIDER.load(Relaxed) as Object;
    let _exception = Exception::put_aside();
    // SAFETY: the front's function and a live code object; an error is the front's own and is
    // swallowed.
    unsafe {
        let result = call!(
            symbols::CALL_OBJ_ARGS,
            fn(callable => Object, code as Object => Object, globals as Object => Object, core::ptr::null_mut() => Object) -> Object
        );
        if result.is_null() {
            call!(symbols::ERR_CLEAR, fn());
        } else {
            call!(symbols::DEC_REF, fn(result => Object));
        }
    }
    if marked::known(code) == Known::New {
        marked::unwanted(code);
    }
}

/// The front's function that decides, or null; and `sys.monitoring.DISABLE`, or null. Both are
/// kept alive by the front.
pub fn set_front(consider: Object, disable: Object) {
    CONSIDER.store(consider as usize, Relaxed);
    DISABLE.store(disable as usize, Relaxed);
}

/// True if every function that starts must be shown to the front once.
pub fn considering() -> bool {
    CONSIDER.load(Relaxed) != 0
}

/// A callback as a callable, by number, for the front: 0 line, 1 start, 2 resume, 3 leave; or
/// null.
pub fn callback(which: usize) -> Object {
    events_on();
    let table: [(&'static core::ffi::CStr, Fast); 4] =
        [(c"line", on_line), (c"start", on_start), (c"resume", on_resume), (c"leave", on_leave)];
    let Some((name, function)) = table.get(which) else { return core::ptr::null_mut() };
    direct(name, *function)
}

/// A callback of `sys.monitoring` (`METH_FASTCALL`).
pub type Fast = unsafe extern "C" fn(Object, *const Object, isize) -> Object;

/// A callable that calls `function` without a detour, or null.
pub fn direct(name: &'static core::ffi::CStr, function: Fast) -> Object {
    let object = method_object(name, function as usize, FASTCALL);
    call_directly(object, function as usize);
    object
}

/// Makes calls of `object`, one of ours, go straight to `function`: PEP 590 reads the function's
/// address from the callable, and our functions need nothing of what the usual one does first
/// (the recursion count, and a look for keyword arguments, which monitoring never passes).
fn call_directly(object: Object, function: usize) {
    let Some(l) = python::layout() else { return };
    let Some(facts) = strandline_cpython::instrumentation(l.version) else { return };
    if object.is_null() {
        return;
    }
    // SAFETY: a fresh builtin function, its type, and the member that its type points out.
    unsafe {
        let kind = python::word(object as usize + l.object.type_ as usize);
        let offset = python::word(kind + facts.tp_vectorcall_offset as usize);
        let usual = (object as usize + offset) as *mut usize;
        if offset != 0 && *usual != 0 {
            *usual = function;
        }
    }
}

struct Methods(core::cell::UnsafeCell<[MethodDef; METHODS]>);
// SAFETY: written under the GIL, each entry once.
unsafe impl Sync for Methods {}
const METHODS: usize = 24;
static METHOD_TABLE: Methods =
    Methods(core::cell::UnsafeCell::new([const { MethodDef::new(c"", 0) }; METHODS]));
static METHODS_USED: AtomicUsize = AtomicUsize::new(0);

/// A Python callable for one of our functions, or null.
pub fn method_object(name: &'static core::ffi::CStr, address: usize, flags: c_int) -> Object {
    let i = METHODS_USED.load(Relaxed);
    // SAFETY: see `Methods`; the definition must live as long as the object, and does.
    unsafe {
        let Some(def) = (*METHOD_TABLE.0.get()).get_mut(i) else { return core::ptr::null_mut() };
        def.name = name.as_ptr();
        def.function = address;
        def.flags = flags;
        METHODS_USED.store(i + 1, Relaxed);
        let none: Object = core::ptr::null_mut();
        if symbols::CFUNCTION_NEW.found() {
            call!(
                symbols::CFUNCTION_NEW,
                fn(def as *mut MethodDef => *mut MethodDef, none => Object, none => Object) -> Object
            )
        } else {
            call!(
                symbols::CMETHOD_NEW,
                fn(def as *mut MethodDef => *mut MethodDef, none => Object, none => Object, none => Object) -> Object
            )
        }
    }
}
