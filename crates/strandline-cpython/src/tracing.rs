//! What a trace function makes the evaluation loop do besides calling it.

/// 3.9 to 3.11: while anything is traced, `trace_call_function` (Python/ceval.c) makes a bound
/// method for every call of a C method, which an untraced call doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TracedCalls {
    /// Offset of `tp_descr_get` in `PyTypeObject` (Include/cpython/object.h), bytes.
    pub tp_descr_get: u16,
    /// Opcodes of calls, specialised ones included (Include/opcode.h).
    pub opcodes: &'static [u8],
}

/// CALL_FUNCTION, CALL_FUNCTION_KW, CALL_FUNCTION_EX, CALL_METHOD.
const CALLS_39: TracedCalls = TracedCalls { tp_descr_get: 272, opcodes: &[131, 141, 142, 161] };
/// CALL, PRECALL, CALL_FUNCTION_EX and the specialised forms of the first two.
const CALLS_311: TracedCalls = TracedCalls {
    tp_descr_get: 272,
    opcodes: &[
        22, 23, 24, 64, 65, 66, 67, 72, 73, 76, 77, 78, 79, 80, 113, 121, 127, 141, 142, 143, 166,
        171,
    ],
};

/// The facts for a version; `None` where tracing allocates nothing.
pub fn traced_calls(version: (u8, u8)) -> Option<TracedCalls> {
    match version {
        (3, 9) | (3, 10) => Some(CALLS_39),
        (3, 11) => Some(CALLS_311),
        _ => None,
    }
}

/// 3.12 and later: what `sys.monitoring` allocates for every code object that runs while any
/// event is on: one `_PyCoMonitoringData`, made at the code's RESUME instruction
/// (Python/instrumentation.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instrumentation {
    /// `sizeof(_PyCoMonitoringData)`, bytes.
    pub bytes: u16,
    /// Opcodes of RESUME in all its forms (Include/opcode.h, Include/opcode_ids.h).
    pub resume: &'static [u8],
    /// Offset of `tp_vectorcall_offset` in `PyTypeObject` (Include/cpython/object.h), bytes: says
    /// where in a callable the function is that a call goes to (PEP 590).
    pub tp_vectorcall_offset: u16,
}

/// The facts for a version; `None` where there is no such thing, or it was not examined.
pub fn instrumentation(version: (u8, u8)) -> Option<Instrumentation> {
    match version {
        (3, 12) => {
            Some(Instrumentation { bytes: 72, resume: &[151, 240], tp_vectorcall_offset: 56 })
        }
        (3, 13) => {
            Some(Instrumentation { bytes: 64, resume: &[149, 207, 236], tp_vectorcall_offset: 56 })
        }
        _ => None,
    }
}
