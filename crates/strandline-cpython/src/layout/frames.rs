//! Frames and code objects.

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
