//! Reading `_Py_DebugOffsets`, the table at the start of `_PyRuntime`
//! (Include/internal/pycore_runtime.h in 3.13,
//! Include/internal/pycore_debug_offsets.h in 3.14 and later).
//!
//! The table is words of 8 bytes: a cookie, `PY_VERSION_HEX`, a flag, then
//! sizes and offsets. Its members differ between minor versions.
//!
//! What the table leaves out is taken from the headers of one micro version of
//! the same minor version (`debug_base` in `tables.rs`), in two ways:
//! - kept only if the table places the members around it where those headers
//!   do, else `None` (for the interpreter, only if its size is a known one, too):
//!   the tracing members of the thread state, `frame_obj`,
//!   `co_flags`, `co_consts`, `co_extra`, `_co_monitoring`, and of the
//!   interpreter `eval_frame`, `co_extra_user_count` and `own_gil`;
//! - kept always, for nothing in the table bears on it: `PyFrameObject`,
//!   `PyFunctionObject`, the GC head, the bits of strings, pymalloc, values of
//!   `owner` and the tag of `f_executable`.

use crate::layout::*;
use crate::tables::debug_base;

/// No known `_Py_DebugOffsets` is longer than this many bytes (it has 584 in
/// 3.13, 760 in 3.14 and 888 in 3.15): bytes beyond are never looked at.
pub const DEBUG_OFFSETS_MAX: usize = 888;

/// Why no layout came of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugOffsetsError {
    /// Fewer bytes than this version's table has.
    Truncated {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        have: usize,
    },
    /// The bytes do not start with `xdebugpy`: not a `_PyRuntime` of 3.13 or later.
    BadCookie,
    /// A version whose table's form is not known here.
    UnsupportedVersion {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// A build without the GIL: its structures are others.
    FreeThreaded,
    /// A value that cannot be true, such as an offset outside its structure.
    Implausible {
        /// The member's name in `_Py_DebugOffsets`.
        field: &'static str,
    },
}

impl core::fmt::Display for DebugOffsetsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated { needed, have } => {
                write!(f, "debug offsets need {needed} bytes, have {have}")
            }
            Self::BadCookie => f.write_str("no debug offsets: the cookie is missing"),
            Self::UnsupportedVersion { major, minor } => {
                write!(f, "debug offsets of Python {major}.{minor} are not known")
            }
            Self::FreeThreaded => f.write_str("a free-threaded build is not supported"),
            Self::Implausible { field } => write!(f, "debug offset {field} is implausible"),
        }
    }
}

impl core::error::Error for DebugOffsetsError {}

/// Word index of the first member of each group used, in one minor version.
/// Within the groups, the members used have kept their order.
struct Groups {
    /// Words in the whole table.
    words: usize,
    /// Sizes of `PyInterpreterState` for which its members that the table
    /// leaves out are known to be where `debug_base` has them.
    interp_sizes: [u32; 2],
    /// `interpreter_state.ceval_gil` itself.
    ceval_gil: usize,
    /// `thread_state.size`.
    thread_state: usize,
    /// `thread_state.thread_id` itself.
    thread_id: usize,
    interpreter_frame: usize,
    code_object: usize,
    /// `code_object.co_code_adaptive` itself.
    co_code_adaptive: usize,
    pyobject: usize,
    type_object: usize,
    /// `type_object.tp_flags` itself.
    tp_flags: usize,
    tuple_object: usize,
    long_object: usize,
    bytes_object: usize,
    unicode_object: usize,
}

/// Python 3.13.
const GROUPS_313: Groups = Groups {
    words: 73,
    // 3.13.0; 3.13.5.
    interp_sizes: [194_968, 194_976],
    ceval_gil: 14,
    thread_state: 19,
    thread_id: 24,
    interpreter_frame: 28,
    code_object: 34,
    co_code_adaptive: 43,
    pyobject: 44,
    type_object: 46,
    tp_flags: 49,
    tuple_object: 50,
    long_object: 61,
    bytes_object: 64,
    unicode_object: 67,
};

/// Python 3.14.
const GROUPS_314: Groups = Groups {
    words: 95,
    // 3.14.10, with and without the JIT.
    interp_sizes: [225_864, 225_864],
    ceval_gil: 15,
    thread_state: 22,
    thread_id: 27,
    interpreter_frame: 31,
    code_object: 39,
    co_code_adaptive: 48,
    pyobject: 50,
    type_object: 52,
    tp_flags: 55,
    tuple_object: 56,
    long_object: 71,
    bytes_object: 74,
    unicode_object: 77,
};

/// Python 3.15.
const GROUPS_315: Groups = Groups {
    words: 111,
    // 3.15.2 without the JIT; with it.
    interp_sizes: [226_232, 226_240],
    ceval_gil: 15,
    thread_state: 22,
    thread_id: 30,
    interpreter_frame: 39,
    code_object: 47,
    co_code_adaptive: 56,
    pyobject: 58,
    type_object: 60,
    tp_flags: 63,
    tuple_object: 68,
    long_object: 83,
    bytes_object: 86,
    unicode_object: 89,
};

/// Reads the words, with bounds.
struct Table<'a> {
    bytes: &'a [u8],
}

impl Table<'_> {
    fn word(&self, index: usize) -> Result<u64, DebugOffsetsError> {
        let at = index.saturating_mul(8);
        let needed = at.saturating_add(8);
        let truncated = DebugOffsetsError::Truncated { needed, have: self.bytes.len() };
        let word = self.bytes.get(at..needed).ok_or(truncated)?;
        let word: [u8; 8] = word.try_into().map_err(|_| truncated)?;
        Ok(u64::from_le_bytes(word))
    }

    /// The size of a structure, whose members lie within it.
    fn size(&self, index: usize, field: &'static str, max: u32) -> Result<u32, DebugOffsetsError> {
        match u32::try_from(self.word(index)?) {
            Ok(size) if size > 0 && size <= max => Ok(size),
            _ => Err(DebugOffsetsError::Implausible { field }),
        }
    }

    /// The offset of a member of `width` bytes in a structure of `size` bytes.
    fn offset32(
        &self,
        index: usize,
        field: &'static str,
        width: u32,
        size: u32,
    ) -> Result<u32, DebugOffsetsError> {
        match u32::try_from(self.word(index)?) {
            Ok(at) if at % width == 0 && at.checked_add(width).is_some_and(|end| end <= size) => {
                Ok(at)
            }
            _ => Err(DebugOffsetsError::Implausible { field }),
        }
    }

    /// As [`Table::offset32`], for structures of less than 64 KiB.
    fn offset(
        &self,
        index: usize,
        field: &'static str,
        width: u32,
        size: u32,
    ) -> Result<u16, DebugOffsetsError> {
        u16::try_from(self.offset32(index, field, width, size)?)
            .map_err(|_| DebugOffsetsError::Implausible { field })
    }
}

/// Largest size believed of a structure with 16-bit offsets.
const SMALL: u32 = 0xffff;
/// Largest size believed of `PyInterpreterState` and `_PyRuntimeState`.
const LARGE: u32 = 64 << 20;

/// The layout an interpreter states of itself. `bytes` are those at the
/// exported symbol `_PyRuntime`, at best [`DEBUG_OFFSETS_MAX`] of them.
///
/// Python 3.13, 3.14 and 3.15. The offsets the table holds are taken from it;
/// the source says where the others come from.
pub fn from_debug_offsets(bytes: &[u8]) -> Result<Layout, DebugOffsetsError> {
    let table = Table { bytes };
    if !bytes.starts_with(b"xdebugpy") {
        return match bytes.len() < 8 {
            true => Err(DebugOffsetsError::Truncated { needed: 24, have: bytes.len() }),
            false => Err(DebugOffsetsError::BadCookie),
        };
    }
    let [.., major, minor, _micro, _level] = table.word(1)?.to_be_bytes();
    let unsupported = DebugOffsetsError::UnsupportedVersion { major, minor };
    let groups = match (major, minor) {
        (3, 13) => &GROUPS_313,
        (3, 14) => &GROUPS_314,
        (3, 15) => &GROUPS_315,
        _ => return Err(unsupported),
    };
    let base = debug_base(major, minor).ok_or(unsupported)?;
    if table.word(2)? != 0 {
        return Err(DebugOffsetsError::FreeThreaded);
    }
    let needed = groups.words * 8;
    if bytes.len() < needed {
        return Err(DebugOffsetsError::Truncated { needed, have: bytes.len() });
    }
    Ok(Layout {
        tstate: thread_state(&table, groups, &base.tstate)?,
        frame: frame(&table, groups, &base.frame)?,
        code: code(&table, groups, &base.code)?,
        interp: interp(&table, groups, &base.interp)?,
        str_: text(&table, groups, &base.str_)?,
        bytes: {
            let first = groups.bytes_object;
            let size = table.size(first, "bytes_object.size", SMALL)?;
            Bytes {
                len: table.offset(first + 1, "bytes_object.ob_size", 8, size)?,
                data: table.offset(first + 2, "bytes_object.ob_sval", 1, size)?,
            }
        },
        object: object(&table, groups, &base.object)?,
        ..*base
    })
}

fn thread_state(
    table: &Table<'_>,
    groups: &Groups,
    base: &ThreadState,
) -> Result<ThreadState, DebugOffsetsError> {
    let first = groups.thread_state;
    let size = table.size(first, "thread_state.size", SMALL)?;
    let interp = table.offset(first + 3, "thread_state.interp", 8, size)?;
    let current_frame = CurrentFrame::Direct {
        current_frame: table.offset(first + 4, "thread_state.current_frame", 8, size)?,
    };
    let thread_id = table.offset(groups.thread_id, "thread_state.thread_id", 8, size)?;
    let same =
        interp == base.interp && current_frame == base.current_frame && thread_id == base.thread_id;
    Ok(ThreadState {
        current_frame,
        next: table.offset(first + 2, "thread_state.next", 8, size)?,
        interp,
        thread_id,
        tracing: base.tracing.filter(|_| same),
        use_tracing: base.use_tracing,
        c_profilefunc: base.c_profilefunc.filter(|_| same),
        c_tracefunc: base.c_tracefunc.filter(|_| same),
        c_profileobj: base.c_profileobj.filter(|_| same),
        c_traceobj: base.c_traceobj.filter(|_| same),
    })
}

fn frame(table: &Table<'_>, groups: &Groups, base: &Frame) -> Result<Frame, DebugOffsetsError> {
    let first = groups.interpreter_frame;
    let Some(interpreter) = base.interpreter else {
        return Ok(*base);
    };
    let field = "interpreter_frame.size";
    let size = table.size(first, field, SMALL)?;
    let previous = table.offset(first + 1, "interpreter_frame.previous", 8, size)?;
    let instr_ptr = table.offset(first + 3, "interpreter_frame.instr_ptr", 8, size)?;
    let same = previous == interpreter.previous && instr_ptr == interpreter.instr_ptr;
    Ok(Frame {
        interpreter: Some(InterpreterFrame {
            size: u16::try_from(size).map_err(|_| DebugOffsetsError::Implausible { field })?,
            executable: table.offset(first + 2, "interpreter_frame.executable", 8, size)?,
            globals: interpreter.globals,
            previous,
            frame_obj: interpreter.frame_obj.filter(|_| same),
            instr_ptr,
            owner: table.offset(first + 5, "interpreter_frame.owner", 1, size)?,
            ..interpreter
        }),
        ..*base
    })
}

fn code(table: &Table<'_>, groups: &Groups, base: &Code) -> Result<Code, DebugOffsetsError> {
    let first = groups.code_object;
    let field = "code_object.size";
    let size = table.size(first, field, SMALL)?;
    let filename = table.offset(first + 1, "code_object.filename", 8, size)?;
    let linetable = table.offset(first + 4, "code_object.linetable", 8, size)?;
    let firstlineno = table.offset(first + 5, "code_object.firstlineno", 4, size)?;
    let inline = groups.co_code_adaptive;
    let inline = table.offset(inline, "code_object.co_code_adaptive", 1, size)?;
    let code = Bytecode::Inline(inline);
    let front = filename == base.filename && firstlineno == base.firstlineno;
    let back = linetable == base.linetable && code == base.code;
    Ok(Code {
        size: u16::try_from(size).map_err(|_| DebugOffsetsError::Implausible { field })?,
        filename,
        name: table.offset(first + 2, "code_object.name", 8, size)?,
        qualname: Some(table.offset(first + 3, "code_object.qualname", 8, size)?),
        firstlineno,
        linetable,
        line_table: base.line_table,
        code,
        stack_size: base.stack_size,
        slot_names: SlotNames::One(table.offset(
            first + 7,
            "code_object.localsplusnames",
            8,
            size,
        )?),
        flags: base.flags.filter(|_| front),
        consts: base.consts.filter(|_| front),
        names: base.names.filter(|_| front),
        delete_subscr: base.delete_subscr,
        inline_caches: base.inline_caches,
        extra: base.extra.filter(|_| back),
        zombieframe: base.zombieframe,
        monitoring: base.monitoring.filter(|_| back),
    })
}

fn interp(table: &Table<'_>, groups: &Groups, base: &Interp) -> Result<Interp, DebugOffsetsError> {
    let runtime = table.size(3, "runtime_state.size", LARGE)?;
    let size = table.size(6, "interpreter_state.size", LARGE)?;
    let id = table.offset32(7, "interpreter_state.id", 8, size)?;
    let threads_head = table.offset32(9, "interpreter_state.threads_head", 8, size)?;
    let gil = groups.ceval_gil;
    let gil = table.offset32(gil, "interpreter_state.ceval_gil", 8, size)?;
    let same = groups.interp_sizes.contains(&size)
        && Some(id) == base.id
        && threads_head == base.threads_head;
    Ok(Interp {
        size,
        next: table.offset32(8, "interpreter_state.next", 8, size)?,
        threads_head,
        id: Some(id),
        eval_frame: base.eval_frame.filter(|_| same),
        co_extra_user_count: base.co_extra_user_count.filter(|_| same),
        tracing_possible: base.tracing_possible,
        gil: Some(gil),
        own_gil: base.own_gil.filter(|_| same && Some(gil) == base.gil),
        runtime_interpreters_head: Some(table.offset32(
            5,
            "runtime_state.interpreters_head",
            8,
            runtime,
        )?),
    })
}

fn text(table: &Table<'_>, groups: &Groups, base: &Str) -> Result<Str, DebugOffsetsError> {
    let Str::Flexible(base) = base else {
        return Ok(*base);
    };
    let first = groups.unicode_object;
    let field = "unicode_object.size";
    let size = table.size(first, field, SMALL)?;
    // PyUnicodeObject is a PyCompactUnicodeObject and one pointer.
    let data = size
        .checked_sub(8)
        .and_then(|data| u16::try_from(data).ok())
        .ok_or(DebugOffsetsError::Implausible { field })?;
    Ok(Str::Flexible(FlexibleStr {
        state: table.offset(first + 1, "unicode_object.state", 4, size)?,
        length: table.offset(first + 2, "unicode_object.length", 8, size)?,
        ascii_data: table.offset(first + 3, "unicode_object.asciiobject_size", 8, size)?,
        compact_data: data,
        data_pointer: data,
        ..*base
    }))
}

fn object(table: &Table<'_>, groups: &Groups, base: &Object) -> Result<Object, DebugOffsetsError> {
    let size = table.size(groups.pyobject, "pyobject.size", SMALL)?;
    let type_size = table.size(groups.type_object, "type_object.size", SMALL)?;
    let tuple = groups.tuple_object;
    let tuple_size = table.size(tuple, "tuple_object.size", SMALL)?;
    let long = groups.long_object;
    let long_size = table.size(long, "long_object.size", SMALL)?;
    Ok(Object {
        type_: table.offset(groups.pyobject + 1, "pyobject.ob_type", 8, size)?,
        tp_name: table.offset(groups.type_object + 1, "type_object.tp_name", 8, type_size)?,
        tp_flags: table.offset(groups.tp_flags, "type_object.tp_flags", 8, type_size)?,
        tuple_items: table.offset(tuple + 1, "tuple_object.ob_item", 8, tuple_size)?,
        tuple_len: table.offset(tuple + 2, "tuple_object.ob_size", 8, tuple_size)?,
        long_tag: table.offset(long + 1, "long_object.lv_tag", 8, long_size)?,
        long_digits: table.offset(long + 2, "long_object.ob_digit", 4, long_size)?,
        ..*base
    })
}

#[cfg(test)]
mod tests;
