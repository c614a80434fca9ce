//! The structures that describe one CPython version.

mod allocators;
mod frames;
mod objects;

pub use allocators::*;
pub use frames::*;
pub use objects::*;

/// Bit of `tp_flags`: the type's objects are preceded by a GC head
/// (`Py_TPFLAGS_HAVE_GC`, Include/object.h; all versions).
pub const TPFLAGS_HAVE_GC: u64 = 1 << 14;
/// Bit of `tp_flags`: subclass of `int` (2.7: of `long`)
/// (`Py_TPFLAGS_LONG_SUBCLASS`, Include/object.h; all versions).
pub const TPFLAGS_LONG: u64 = 1 << 24;
/// Bit of `tp_flags`: subclass of `tuple`
/// (`Py_TPFLAGS_TUPLE_SUBCLASS`, Include/object.h; all versions).
pub const TPFLAGS_TUPLE: u64 = 1 << 26;
/// Bit of `tp_flags`: subclass of `bytes` (2.7: of `str`)
/// (`Py_TPFLAGS_BYTES_SUBCLASS`, Include/object.h; all versions).
pub const TPFLAGS_BYTES: u64 = 1 << 27;
/// Bit of `tp_flags`: subclass of `str` (2.7: of `unicode`)
/// (`Py_TPFLAGS_UNICODE_SUBCLASS`, Include/object.h; all versions).
pub const TPFLAGS_UNICODE: u64 = 1 << 28;

/// Byte offsets for one CPython minor version (GIL build, 64-bit, non-debug).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Major and minor version, e.g. `(3, 12)`.
    pub version: (u8, u8),
    /// `PyThreadState`.
    pub tstate: ThreadState,
    /// Frames: `PyFrameObject` and, from 3.11, `_PyInterpreterFrame`.
    pub frame: Frame,
    /// `PyCodeObject`.
    pub code: Code,
    /// `PyInterpreterState` and `_PyRuntime`.
    pub interp: Interp,
    /// Text: `str`, in 2.7 `unicode`.
    pub str_: Str,
    /// `bytes`, in 2.7 `str`.
    pub bytes: Bytes,
    /// Headers and small built-in objects.
    pub object: Object,
    /// `PyFunctionObject`.
    pub function: Function,
    /// `PyDictObject`.
    pub dict: Dict,
    /// pymalloc's arenas and pools.
    pub obmalloc: Obmalloc,
    /// File and function names in code objects are byte strings ([`Bytes`])
    /// rather than text ([`Str`]). True for 2.7 only.
    pub names_are_bytes: bool,
    /// Whether `sys.monitoring` (PEP 669) exists and drives `sys.settrace`:
    /// 3.12 and later.
    pub sys_monitoring: bool,
}

/// How the running frame is reached from a `PyThreadState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurrentFrame {
    /// Up to 3.10: the thread state points to a `PyFrameObject`
    /// (Include/cpython/pystate.h; Include/pystate.h up to 3.7).
    Object {
        /// Offset of `frame` in `PyThreadState`.
        frame: u16,
    },
    /// 3.11 and 3.12: through the C stack's `_PyCFrame` to a
    /// `_PyInterpreterFrame` (Include/cpython/pystate.h).
    CFrame {
        /// Offset of the pointer `cframe` in `PyThreadState`.
        cframe: u16,
        /// Offset of the pointer `current_frame` in `_PyCFrame`.
        current_frame: u16,
    },
    /// From 3.13: the thread state points to a `_PyInterpreterFrame`
    /// (Include/cpython/pystate.h).
    Direct {
        /// Offset of `current_frame` in `PyThreadState`.
        current_frame: u16,
    },
}

/// Where the evaluation loop's flag "call the trace and profile functions" is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UseTracing {
    /// Up to 3.9: a C `int` (4 bytes) in `PyThreadState`
    /// (Include/cpython/pystate.h; Include/pystate.h up to 3.7).
    ThreadState {
        /// Offset of `use_tracing` in `PyThreadState`.
        offset: u16,
    },
    /// 3.10 and 3.11: in the C stack's `CFrame` / `_PyCFrame`
    /// (Include/cpython/pystate.h).
    CFrame {
        /// Offset of the pointer `cframe` in `PyThreadState`.
        cframe: u16,
        /// Offset of `use_tracing` in the C frame.
        offset: u16,
        /// Its width in bytes: 4 in 3.10 (`int`), 1 in 3.11 (`uint8_t`, 255
        /// while tracing).
        width: u8,
    },
    /// From 3.12: none, `sys.monitoring` events take its place.
    Absent,
}

/// `PyThreadState` (Include/cpython/pystate.h; Include/pystate.h up to 3.7).
///
/// The `Option`s are always `Some` from [`crate::layout`]. From
/// [`crate::from_debug_offsets`] they are `None` if the interpreter's
/// structure is not the one whose headers were examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadState {
    /// The way to the running frame.
    pub current_frame: CurrentFrame,
    /// `next`: pointer, the interpreter's next thread state.
    pub next: u16,
    /// `interp`: pointer to the `PyInterpreterState`.
    pub interp: u16,
    /// `thread_id`: `pthread_self()`, 8 bytes.
    pub thread_id: u16,
    /// `tracing`: C `int`, non-zero while a trace or profile function runs.
    pub tracing: Option<u16>,
    /// The loop's "tracing is on" flag.
    pub use_tracing: UseTracing,
    /// `c_profilefunc`: C function pointer.
    pub c_profilefunc: Option<u16>,
    /// `c_tracefunc`: C function pointer.
    pub c_tracefunc: Option<u16>,
    /// `c_profileobj`: owned object pointer, may be null.
    pub c_profileobj: Option<u16>,
    /// `c_traceobj`: owned object pointer, may be null.
    pub c_traceobj: Option<u16>,
}

/// `PyInterpreterState` (Include/pystate.h up to 3.7,
/// Include/internal/pycore_pystate.h in 3.8, Include/internal/pycore_interp.h
/// later) and the one fact about `_PyRuntimeState`
/// (Include/internal/pycore_runtime.h) that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interp {
    /// `sizeof(PyInterpreterState)` of the interpreter these are for.
    pub size: u32,
    /// `next`: pointer to the next interpreter.
    pub next: u32,
    /// `tstate_head` (up to 3.10) or `threads.head`: pointer to the newest
    /// `PyThreadState`.
    pub threads_head: u32,
    /// `id`: `int64_t`; 3.7 and later.
    pub id: Option<u32>,
    /// `eval_frame` (PEP 523): C function pointer; 3.6 and later. From 3.11 it
    /// is null while the default is in use.
    pub eval_frame: Option<u32>,
    /// `co_extra_user_count`: `Py_ssize_t`; 3.7 and later.
    pub co_extra_user_count: Option<u32>,
    /// `ceval.tracing_possible`: C `int`; 3.9. (Elsewhere it is not in the
    /// interpreter: a static variable up to 3.6, in `_PyRuntime` in 3.7 and
    /// 3.8, gone from 3.10.)
    pub tracing_possible: Option<u32>,
    /// `ceval.gil`: pointer to the GIL's state; 3.12 and later.
    pub gil: Option<u32>,
    /// `ceval.own_gil`: C `int`; 3.12 and later.
    pub own_gil: Option<u32>,
    /// `interpreters.head` in `_PyRuntime`: pointer to the newest interpreter;
    /// 3.7 and later.
    pub runtime_interpreters_head: Option<u32>,
}
