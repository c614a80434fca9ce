//! What the chain of awaiting asyncio tasks is read from: tasks, suspended coroutines, callbacks.
//!
//! `_asyncio`'s structures aren't public and change between minor versions; a task type whose size
//! isn't the one given here is not to be read. The numbers are from the debug information of the
//! micro versions that the tables of [`crate::layout`] are from.

/// A type was made by C code if it isn't a heap type or can't be changed: `Py_TPFLAGS_HEAPTYPE`
/// and, from 3.10, `Py_TPFLAGS_IMMUTABLETYPE` (Include/object.h).
pub const fn is_c_type(tp_flags: u64) -> bool {
    tp_flags >> 8 & 3 != 2
}

/// Structures of one CPython minor version; offsets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asyncio {
    /// `TaskObj` and `FutureObj` (Modules/_asynciomodule.c).
    pub task: Task,
    /// How a suspended coroutine is read.
    pub suspended: Suspended,
    /// Where an instance of a class has its attributes.
    pub attributes: Attributes,
    /// `func_closure` in `PyFunctionObject`: tuple of cells, or null.
    pub function_closure: u16,
}

/// `TaskObj`; a future begins the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// `tp_basicsize` of `_asyncio.Task`.
    pub size: u16,
    /// `tp_basicsize` of `_asyncio.Future`.
    pub future_size: u16,
    /// `fut_callback0`: the first callback, or null; 3.7 and later.
    pub callback0: Option<u16>,
    /// `fut_callbacks`: list of the others, or null. From 3.7 on its items are pairs of callback
    /// and context.
    pub callbacks: u16,
    /// `task_coro`: the coroutine.
    pub coro: u16,
}

/// How a coroutine, generator or asynchronous generator is read while it is suspended, and what it
/// waits for: the top of its frame's value stack, where it is in an `await` or `yield from`
/// (`_PyGen_yf`, Objects/genobject.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspended {
    /// Up to 3.10: a `PyFrameObject`; it is in an `await` if the next instruction is `YIELD_FROM`.
    Object {
        /// `gi_frame` in `PyGenObject`: pointer, null once it has ended.
        frame: u16,
        /// The value stack's top.
        top: ObjectTop,
        /// The instruction `YIELD_FROM` (Include/opcode.h).
        yield_from: u8,
    },
    /// From 3.11: the frame is in the generator (`Frame::in_generator`).
    Inside {
        /// `gi_frame_state` in `PyGenObject`: `int8_t`.
        state: u16,
        /// `stacktop` in `_PyInterpreterFrame`: C `int`, slots in use.
        stacktop: u16,
        /// How it says that it is in an `await`.
        awaits: Awaits,
    },
}

/// Where the top of a `PyFrameObject`'s value stack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectTop {
    /// Up to 3.9, `f_stacktop`: pointer to the slot after it, null while the frame runs.
    Pointer(u16),
    /// 3.10.
    Depth {
        /// `f_valuestack`: pointer to the first slot.
        stack: u16,
        /// `f_stackdepth`: C `int`, slots in use.
        depth: u16,
    },
}

/// How a frame inside a generator says that it is in an `await` or `yield from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// 3.11 and 3.12: it is suspended (`FRAME_SUSPENDED`), and the argument of the next instruction,
    /// which is a `RESUME`, says so: [`resumes_await`].
    Resume,
    /// From 3.13: a state of its own, `FRAME_SUSPENDED_YIELD_FROM`. Any negative one above
    /// [`Awaits::CREATED_313`] is suspended.
    State(i8),
}

impl Awaits {
    /// `FRAME_CREATED` of 3.13: not started yet.
    pub const CREATED_313: i8 = -3;
    /// `FRAME_SUSPENDED` of 3.11 and 3.12; below is what has not started.
    pub const SUSPENDED_311: i8 = -1;

    /// Whether `gi_frame_state` is that of a generator that has started and stands still.
    pub const fn is_suspended(&self, state: i8) -> bool {
        match self {
            Awaits::Resume => state == Awaits::SUSPENDED_311,
            Awaits::State(_) => state < 0 && state > Awaits::CREATED_313,
        }
    }
}

/// Whether the argument of a `RESUME` says that it follows a `yield from` (2) or an `await` (3;
/// Python/compile.c).
pub const fn resumes_await(argument: u8) -> bool {
    argument & 3 >= 2
}

/// Where an instance of a class has its attributes (Include/internal/pycore_object.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes {
    /// Up to 3.10: in the dict at `tp_dictoffset`.
    Dict,
    /// 3.11: the word four before the object points to the values, the one three before it to the
    /// dict; one of them is null.
    Two,
    /// 3.12: the word three before the object points to the dict, or, less one, to the values.
    Tagged,
    /// 3.13: the values follow the object and are valid if their fourth byte isn't 0; else the word
    /// three before the object points to the dict.
    Inline,
}

/// `tp_basicsize` in `PyTypeObject`: `Py_ssize_t`; 3.6 to 3.13.
pub const TP_BASICSIZE: u16 = 32;
/// `m_ml` in `PyCFunctionObject`: pointer to a `PyMethodDef`, whose first word points to the name.
pub const BUILTIN_METHOD: u16 = 16;
/// `m_self` in `PyCFunctionObject`.
pub const BUILTIN_SELF: u16 = 24;
/// `im_func` in `PyMethodObject`.
pub const METHOD_FUNCTION: u16 = 16;
/// `im_self` in `PyMethodObject`.
pub const METHOD_SELF: u16 = 24;
/// `fn` in `partialobject` (Modules/_functoolsmodule.c).
pub const PARTIAL_FUNCTION: u16 = 16;
/// `args` in `partialobject`: a tuple.
pub const PARTIAL_ARGUMENTS: u16 = 24;
/// `ob_ref` in `PyCellObject`.
pub const CELL_CONTENT: u16 = 16;
/// `ob_size` in `PyListObject`.
pub const LIST_LEN: u16 = 16;
/// `ob_item` in `PyListObject`: pointer to the items.
pub const LIST_ITEMS: u16 = 24;
/// `sw_task` in `TaskStepMethWrapper`, which a loop calls to go on with a task, and `ww_task` in
/// `TaskWakeupMethWrapper` (up to 3.9), the callback of a task that awaits a future.
pub const WRAPPED_TASK: u16 = 16;
/// What goes on in their place, in objects that stand for an asynchronous generator or coroutine
/// that is awaited: `ags_gen`, `agt_gen`, `cw_coroutine`, `wrapped` (Objects/genobject.c,
/// Objects/iterobject.c).
pub const WRAPPED_AWAITABLE: u16 = 16;

const OBJECT_TOP: Suspended =
    Suspended::Object { frame: 16, top: ObjectTop::Pointer(72), yield_from: 72 };

const PY36: Asyncio = Asyncio {
    task: Task { size: 112, future_size: 88, callback0: None, callbacks: 24, coro: 96 },
    suspended: OBJECT_TOP,
    attributes: Attributes::Dict,
    function_closure: 48,
};
const PY37: Asyncio = Asyncio {
    task: Task { size: 136, future_size: 104, callback0: Some(24), callbacks: 40, coro: 112 },
    ..PY36
};
const PY38: Asyncio = Asyncio { task: Task { size: 144, ..PY37.task }, ..PY37 };
const PY39: Asyncio =
    Asyncio { task: Task { size: 184, future_size: 144, coro: 152, ..PY37.task }, ..PY37 };
const PY310: Asyncio = Asyncio {
    task: Task { size: 192, future_size: 152, coro: 160, ..PY37.task },
    suspended: Suspended::Object {
        frame: 16,
        top: ObjectTop::Depth { stack: 64, depth: 80 },
        yield_from: 72,
    },
    attributes: Attributes::Dict,
    function_closure: 72,
};
const PY311: Asyncio = Asyncio {
    task: Task { size: 176, future_size: 128, coro: 136, ..PY37.task },
    suspended: Suspended::Inside { state: 75, stacktop: 64, awaits: Awaits::Resume },
    attributes: Attributes::Two,
    function_closure: 72,
};
const PY312: Asyncio = Asyncio {
    suspended: Suspended::Inside { state: 67, stacktop: 64, awaits: Awaits::Resume },
    attributes: Attributes::Tagged,
    ..PY311
};
const PY313: Asyncio = Asyncio {
    task: Task { size: 144, future_size: 104, coro: 120, ..PY37.task },
    suspended: Suspended::Inside { state: 67, stacktop: 64, awaits: Awaits::State(-1) },
    attributes: Attributes::Inline,
    function_closure: 72,
};

/// What is known of asyncio in a CPython version: 3.6 to 3.13, builds with the GIL.
pub fn asyncio(major: u8, minor: u8) -> Option<&'static Asyncio> {
    match (major, minor) {
        (3, 6) => Some(&PY36),
        (3, 7) => Some(&PY37),
        (3, 8) => Some(&PY38),
        (3, 9) => Some(&PY39),
        (3, 10) => Some(&PY310),
        (3, 11) => Some(&PY311),
        (3, 12) => Some(&PY312),
        (3, 13) => Some(&PY313),
        _ => None,
    }
}
