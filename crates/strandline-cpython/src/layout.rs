//! The structures that describe one CPython version.

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

/// Both kinds of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// `PyFrameObject`: every Python frame up to 3.10, made only on demand later.
    pub object: FrameObject,
    /// `_PyInterpreterFrame`: 3.11 and later.
    pub interpreter: Option<InterpreterFrame>,
    /// `gi_iframe` of a generator or coroutine, the frame itself; 3.11 and later
    /// (Include/cpython/genobject.h; Include/internal/pycore_interpframe_structs.h from 3.14).
    pub in_generator: Option<u16>,
}

/// `PyFrameObject` (Include/frameobject.h up to 3.8, Include/cpython/frameobject.h
/// in 3.9 and 3.10, Include/internal/pycore_frame.h from 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameObject {
    /// `sizeof(PyFrameObject)`, including one slot of the trailing array.
    pub size: u16,
    /// `f_back`: pointer to the calling `PyFrameObject`. From 3.11 it is set
    /// only after the frame was left; use [`InterpreterFrame::previous`].
    pub f_back: u16,
    /// `f_code`: code object pointer; up to 3.10.
    pub f_code: Option<u16>,
    /// `f_globals`: pointer to the dict of the module; up to 3.10.
    pub f_globals: Option<u16>,
    /// `f_lasti`: C `int`, the last instruction, -1 before the first; up to 3.10.
    pub f_lasti: Option<u16>,
    /// Bytes of bytecode that one step of `f_lasti` is: 1, or 2 in 3.10 (code
    /// units). From 3.11 it is 2, the size of `_Py_CODEUNIT`.
    pub lasti_unit: u8,
    /// `f_lineno`: C `int`. Not the running line, unless tracing: up to 3.9 the
    /// first line of the code, from 3.10 zero.
    pub f_lineno: u16,
    /// `f_trace`: owned object pointer, may be null.
    pub f_trace: u16,
    /// `f_trace_lines`: `char`; 3.7 and later.
    pub f_trace_lines: Option<u16>,
    /// `f_trace_opcodes`: `char`; 3.7 and later.
    pub f_trace_opcodes: Option<u16>,
    /// `f_executing`: `char`; 3.6 to 3.9.
    pub f_executing: Option<u16>,
    /// `f_state`: `signed char`, `FRAME_EXECUTING` is 0; 3.10.
    pub f_state: Option<u16>,
    /// `f_frame`: pointer to the `_PyInterpreterFrame`; 3.11 and later.
    pub f_frame: Option<u16>,
}

/// What [`InterpreterFrame::instr_ptr`] points to. (While an instruction
/// executes, either kind points to it.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstrPtrPointsTo {
    /// 3.11 and 3.12, `prev_instr`: the code unit before the next instruction.
    /// That is in the last started instruction or its inline caches, or one
    /// code unit before the first instruction in a frame not yet started.
    Previous,
    /// From 3.13, `instr_ptr`: the instruction executing, or about to begin.
    /// In a frame that made a call, it is the call.
    Current,
}

/// `_PyInterpreterFrame` (Include/internal/pycore_frame.h; 3.14 and later
/// Include/internal/pycore_interpframe_structs.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterpreterFrame {
    /// `sizeof(_PyInterpreterFrame)`, including one slot of `localsplus`.
    pub size: u16,
    /// `f_code` (3.11, 3.12) or `f_executable` (3.13 and later): the code object.
    /// Check [`InterpreterFrame::carries_code`] first and apply
    /// [`InterpreterFrame::executable_pointer`].
    pub executable: u16,
    /// Low bits of `f_executable` that are a tag and have to be cleared to get
    /// the pointer: 0 up to 3.13; 3 in 3.14 and later (`Py_TAG_BITS`,
    /// Include/internal/pycore_stackref.h).
    pub executable_tag_mask: u8,
    /// `f_globals`: pointer to the dict of the module.
    pub globals: u16,
    /// `previous`: pointer to the calling `_PyInterpreterFrame`, may be null.
    pub previous: u16,
    /// `frame_obj`: pointer to the `PyFrameObject`, null if none was made.
    /// `None` if the interpreter's structure is not the one examined.
    pub frame_obj: Option<u16>,
    /// `prev_instr` or `instr_ptr`: pointer into the code object's bytecode.
    pub instr_ptr: u16,
    /// What that points to.
    pub instr_ptr_points_to: InstrPtrPointsTo,
    /// `owner`: `char`.
    pub owner: u16,
    /// Value of `owner` in a generator's or coroutine's frame
    /// (`FRAME_OWNED_BY_GENERATOR`).
    pub owned_by_generator: u8,
    /// Value of `owner` in a frame without code (`FRAME_OWNED_BY_CSTACK`):
    /// 3.12 to 3.14.
    pub owned_by_cstack: Option<u8>,
    /// Value of `owner` in a frame without code (`FRAME_OWNED_BY_INTERPRETER`):
    /// 3.14 and later.
    pub owned_by_interpreter: Option<u8>,
}

impl FrameObject {
    /// Offset of `f_localsplus`: the slots of local variables, then those of the value stack; up
    /// to 3.10.
    pub const fn slots(&self) -> u16 {
        self.size - 8
    }
}

impl InterpreterFrame {
    /// Offset of `localsplus`: the slots of local variables, then those of the value stack.
    pub const fn slots(&self) -> u16 {
        self.size - 8
    }

    /// Whether a frame whose `owner` is this stands for Python code. If not,
    /// skip it and go on with `previous`.
    pub const fn carries_code(&self, owner: u8) -> bool {
        let cstack = matches!(self.owned_by_cstack, Some(value) if value == owner);
        let interpreter = matches!(self.owned_by_interpreter, Some(value) if value == owner);
        !(cstack || interpreter)
    }

    /// The address in the word read at `executable`, without its tag.
    pub const fn executable_pointer(&self, word: u64) -> u64 {
        word & !(self.executable_tag_mask as u64)
    }
}

/// Where the bytecode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytecode {
    /// Up to 3.10: `co_code`, a pointer to a `bytes` object ([`Bytes`]).
    Object(u16),
    /// From 3.11: `co_code_adaptive`, the bytecode itself starts here.
    Inline(u16),
}

/// Where a code object names the slots of its frames, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotNames {
    /// Up to 3.10: pointers to tuples of names.
    Three {
        /// `co_varnames`: arguments and local variables.
        variables: u16,
        /// `co_cellvars`: variables that inner functions use too; a slot has the cell.
        cells: u16,
        /// `co_freevars`: variables of outer functions; a slot has the cell.
        free: u16,
    },
    /// From 3.11, `co_localsplusnames`: pointer to one tuple of them all.
    One(u16),
}

/// `PyCodeObject` (Include/code.h up to 3.8, Include/cpython/code.h later;
/// 2.7: Include/code.h).
///
/// The `Option`s without a version are always `Some` from [`crate::layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `sizeof(PyCodeObject)`; from 3.11 with padding, the bytecode follows
    /// from [`Bytecode::Inline`] on.
    pub size: u16,
    /// `co_filename`: object pointer.
    pub filename: u16,
    /// `co_name`: object pointer.
    pub name: u16,
    /// `co_qualname`: object pointer; 3.11 and later.
    pub qualname: Option<u16>,
    /// `co_firstlineno`: C `int`.
    pub firstlineno: u16,
    /// `co_lnotab` (up to 3.9) or `co_linetable` (3.10: PEP 626's table; 3.11
    /// and later: the location table): pointer to a `bytes` object.
    pub linetable: u16,
    /// How its bytes are read.
    pub line_table: crate::LineTable,
    /// Where the bytecode is.
    pub code: Bytecode,
    /// `co_stacksize`: C `int`, slots of the frame's value stack.
    pub stack_size: u16,
    /// The names of the other slots.
    pub slot_names: SlotNames,
    /// `co_flags`: C `int`.
    pub flags: Option<u16>,
    /// `co_consts`: pointer to a tuple.
    pub consts: Option<u16>,
    /// `co_names`: pointer to a tuple of the global and attribute names that the code uses.
    pub names: Option<u16>,
    /// The instruction `DELETE_SUBSCR` (Include/opcode.h, Include/opcode_ids.h): `del a[b]`.
    pub delete_subscr: u8,
    /// The bytes in between that are no instructions.
    pub inline_caches: &'static crate::InlineCaches,
    /// `co_extra`: pointer, null if unused; 3.6 and later.
    pub extra: Option<u16>,
    /// `co_zombieframe`: pointer to a frame kept for reuse, may be null; up to 3.10.
    pub zombieframe: Option<u16>,
    /// `_co_monitoring`: pointer, null if unused; 3.12 and later.
    pub monitoring: Option<u16>,
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

/// How text is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Str {
    /// 3.x, PEP 393.
    Flexible(FlexibleStr),
    /// 2.7: `PyUnicodeObject`.
    Wide(WideStr),
}

/// `PyASCIIObject`, `PyCompactUnicodeObject` and `PyUnicodeObject`
/// (Include/unicodeobject.h up to 3.8, Include/cpython/unicodeobject.h later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlexibleStr {
    /// `length`: `Py_ssize_t`, in code points.
    pub length: u16,
    /// `state`: 4 bytes, with the bits below.
    pub state: u16,
    /// Lowest bit of the 3-bit field `kind` in `state`: bytes per code point
    /// (1, 2 or 4; 0 for a legacy string that is not ready).
    pub kind_shift: u8,
    /// Mask of `kind` after the shift.
    pub kind_mask: u8,
    /// Bit number of `compact` in `state`: the data follow the structure.
    pub compact_bit: u8,
    /// Bit number of `ascii` in `state`.
    pub ascii_bit: u8,
    /// Bit number of `ready` in `state`; up to 3.11, unneeded later.
    pub ready_bit: Option<u8>,
    /// The data of a compact ASCII string: `sizeof(PyASCIIObject)`.
    pub ascii_data: u16,
    /// The data of a compact string that is not ASCII:
    /// `sizeof(PyCompactUnicodeObject)`.
    pub compact_data: u16,
    /// `data.any`: pointer to the data of a string that is not compact.
    pub data_pointer: u16,
}

/// `PyUnicodeObject` of 2.7 (Include/unicodeobject.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WideStr {
    /// `length`: `Py_ssize_t`, in units of `Py_UNICODE`. A unit's size is the
    /// build's choice: 4 bytes if the library exports names with `UCS4`
    /// (`PyUnicodeUCS4_FromObject`), 2 if `UCS2`.
    pub length: u16,
    /// `str`: pointer to the units.
    pub data_pointer: u16,
}

/// `PyBytesObject` (Include/bytesobject.h), in 2.7 `PyStringObject`
/// (Include/stringobject.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// `ob_size`: `Py_ssize_t`, in bytes.
    pub len: u16,
    /// `ob_sval`: the data.
    pub data: u16,
}

/// Headers and small built-in objects (Include/object.h and the objects' own).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Bytes in front of an object whose type has [`TPFLAGS_HAVE_GC`]:
    /// `sizeof(PyGC_Head)`: 32 up to 3.7, 16 later (Include/objimpl.h,
    /// Include/internal/pycore_gc.h).
    pub gc_head: u16,
    /// `ob_refcnt`. From 3.14 the count itself is the lower 4 bytes of it.
    pub refcnt: u16,
    /// `ob_type`: pointer.
    pub type_: u16,
    /// `tp_name` in `PyTypeObject`: pointer to a C string.
    pub tp_name: u16,
    /// `tp_flags` in `PyTypeObject`: 8 bytes.
    pub tp_flags: u16,
    /// `tp_dict` in `PyTypeObject`: pointer; null in static types of 3.12 and later.
    pub tp_dict: u16,
    /// `tp_base`: pointer to the type that it is derived from, or null.
    pub tp_base: u16,
    /// `tp_dictoffset`: `Py_ssize_t`, where its objects have their dict.
    pub tp_dictoffset: u16,
    /// `ht_cached_keys` of `PyHeapTypeObject`: pointer to the keys of its objects' attributes
    /// where these have their values without a dict, see [`Dict::Keys`]; 3.11 and later.
    pub ht_cached_keys: Option<u16>,
    /// `d_member` of `PyMemberDescrObject`: pointer to the `PyMemberDef` {name, type, offset}
    /// (Include/descrobject.h, Include/structmember.h).
    pub d_member: u16,
    /// `ob_size` in `PyTupleObject`: `Py_ssize_t`.
    pub tuple_len: u16,
    /// `ob_item` in `PyTupleObject`: the first item's pointer.
    pub tuple_items: u16,
    /// `ob_size` (up to 3.11) or `long_value.lv_tag` (3.12 and later) in
    /// `PyLongObject`: 8 bytes (Include/longintrepr.h,
    /// Include/cpython/longintrepr.h).
    pub long_tag: u16,
    /// `ob_digit` in `PyLongObject`: digits of 30 bits, 4 bytes each.
    pub long_digits: u16,
    /// `ob_ival` in `PyIntObject` (Include/intobject.h): C `long`; 2.7.
    pub int_value: Option<u16>,
}

/// `PyFunctionObject` (Include/funcobject.h, Include/cpython/funcobject.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// `func_code`: object pointer.
    pub code: u16,
    /// `func_globals`: pointer to a dict.
    pub globals: u16,
    /// `func_name`: object pointer.
    pub name: u16,
    /// `func_qualname`: object pointer; 3.x.
    pub qualname: Option<u16>,
}

/// `PyDictObject` and the table that it points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dict {
    /// 2.7: a table of slots {hash, key, value}, a null key where there is none
    /// (Include/dictobject.h).
    Slots {
        /// `ma_mask`: number of slots less one.
        mask: u16,
        /// `ma_table`: pointer to the slots.
        table: u16,
    },
    /// 3.6 and later: a table of entries in the order of insertion, behind an index.
    Keys {
        /// `ma_keys`: pointer to the `PyDictKeysObject`.
        keys: u16,
        /// `ma_values`: pointer to the values of a dict that shares its keys, or null.
        values: u16,
        /// `dk_nentries` in the keys object: `Py_ssize_t`.
        entries: u16,
        /// `dk_indices` in the keys object: the index starts here.
        indices: u16,
        /// How long the index is.
        index: DictIndex,
        /// The first value, from where `ma_values` points.
        first_value: u16,
    },
}

/// How long the index of a dict's keys object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DictIndex {
    /// 3.6 to 3.10: `dk_size` at this offset, `Py_ssize_t`: as many numbers of 1, 2, 4 or 8 bytes
    /// as fit the size (Objects/dict-common.h). Entries are {hash, key, value}.
    Size(u16),
    /// 3.11 and later (Include/internal/pycore_dict.h).
    Log2 {
        /// `dk_log2_index_bytes`: `uint8_t`, binary logarithm of the index's bytes.
        bytes: u16,
        /// `dk_kind`: `uint8_t`, 0 for entries {hash, key, value}, else {key, value}.
        kind: u16,
    },
}

/// pymalloc (Objects/obmalloc.c; from 3.12
/// Include/internal/pycore_obmalloc.h).
///
/// A pool starts at a multiple of `pool_size`. Its block size in bytes is
/// `(szidx + 1) * alignment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obmalloc {
    /// `ARENA_SIZE`.
    pub arena_size: u32,
    /// `POOL_SIZE`.
    pub pool_size: u32,
    /// `ALIGNMENT`. 16 on every version measured; early micro versions of 2.7,
    /// 3.6 and 3.7 (before bpo-27987) had 8.
    pub alignment: u16,
    /// `SMALL_REQUEST_THRESHOLD`: larger requests go to the raw allocator.
    pub small_request_max: u16,
    /// `sizeof(struct pool_header)`: the first block of a pool starts here.
    pub pool_header: u16,
    /// `ref.count` in `struct pool_header`: `unsigned int`, blocks in use.
    pub pool_count: u16,
    /// `freeblock` in `struct pool_header`: pointer.
    pub pool_freeblock: u16,
    /// `nextpool` in `struct pool_header`: pointer.
    pub pool_nextpool: u16,
    /// `prevpool` in `struct pool_header`: pointer.
    pub pool_prevpool: u16,
    /// `arenaindex` in `struct pool_header`: `unsigned int`.
    pub pool_arenaindex: u16,
    /// `szidx` in `struct pool_header`: `unsigned int`, the size class.
    pub pool_szidx: u16,
    /// `nextoffset` in `struct pool_header`: `unsigned int`.
    pub pool_nextoffset: u16,
    /// `maxnextoffset` in `struct pool_header`: `unsigned int`.
    pub pool_maxnextoffset: u16,
    /// `DUMMY_SIZE_IDX`: the size class of a pool whose content is nothing yet. A pool that is
    /// taken into use with another class than it has is initialised anew
    /// (`allocate_from_new_pool`, in 2.7 `PyObject_Malloc`; Objects/obmalloc.c).
    pub fresh_szidx: u32,
    /// The pages of a free pool behind its first may be given back: pools have more than one
    /// page, and that nothing but `allocate_from_new_pool` reads a free pool's blocks was looked
    /// up in the sources of this version (3.10 to 3.13).
    pub free_pools_can_shrink: bool,
    /// `struct arena_object`.
    pub arena: ArenaObject,
}

/// `struct arena_object` (Objects/obmalloc.c, from 3.12
/// Include/internal/pycore_obmalloc.h): the same from 2.7 to 3.15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaObject {
    /// `sizeof(struct arena_object)`.
    pub size: u16,
    /// `address`: pointer, 0 if no arena is attached.
    pub address: u16,
    /// `pool_address`: pointer to the next pool to be carved off.
    pub pool_address: u16,
    /// `nfreepools`: `unsigned int`, pools not yet carved off included.
    pub free_pools: u16,
    /// `ntotalpools`: `unsigned int`.
    pub total_pools: u16,
    /// `freepools`: pointer to the first of the list of free pools.
    pub first_free: u16,
    /// `INITIAL_ARENA_OBJECTS`: first length of the array `arenas`; it doubles.
    pub first_length: u16,
}

/// mimalloc, which has the objects of free-threaded builds. A segment starts at a multiple of
/// `segment`; it is divided into slices, of which the first hold the segment's own data. A page is
/// one or more slices with blocks of one size; its `mi_page_t` is the entry of its first slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mimalloc {
    /// `MI_SEGMENT_SIZE`.
    pub segment: u32,
    /// `MI_SEGMENT_SLICE_SIZE`.
    pub slice: u32,
    /// `cookie` in `mi_segment_t`: its address, xor a number that is the same in all of a process.
    pub cookie: u16,
    /// `segment_slices`: `size_t`, slices of the whole segment; more than usual for a huge block.
    pub segment_slices: u16,
    /// `segment_info_slices`: `size_t`, slices in front of the first page.
    pub info_slices: u16,
    /// `slice_entries`: `size_t`, entries in `slices`.
    pub slice_entries: u16,
    /// `slices`: the entries start here. `slice_count`, a `uint32_t`, is first in each.
    pub slices: u16,
    /// `sizeof(mi_page_t)`.
    pub entry: u16,
    /// The byte with `tag` in `mi_page_t`: which heap it is of (`_mi_mem_heap` and so on,
    /// Include/internal/pycore_mimalloc.h).
    pub tag: u16,
    /// First bit of it.
    pub tag_shift: u8,
    /// Its bits, shifted down.
    pub tag_mask: u8,
    /// `capacity`: `uint16_t`, blocks.
    pub capacity: u16,
    /// `free`: pointer to the first free block, each with a pointer to the next.
    pub free: u16,
    /// `xblock_size`: `uint32_t`, 0 for slices that no page has.
    pub block_size: u16,
    /// `local_free`: the same as `free`.
    pub local_free: u16,
    /// `xthread_free`: the same, with two low bits of its own.
    pub thread_free: u16,
}
