//! Structures that several CPython versions share.

use crate::layout::*;

/// Objects/obmalloc.c up to 3.9 (`POOL_SIZE` 4 KiB, `ARENA_SIZE` 256 KiB).
pub(super) const OBMALLOC_4K: Obmalloc = Obmalloc {
    arena_size: 256 << 10,
    pool_size: 4 << 10,
    alignment: 16,
    small_request_max: 512,
    pool_header: 48,
    pool_count: 0,
    pool_freeblock: 8,
    pool_nextpool: 16,
    pool_prevpool: 24,
    pool_arenaindex: 32,
    pool_szidx: 36,
    pool_nextoffset: 40,
    pool_maxnextoffset: 44,
    fresh_szidx: 0xffff,
    free_pools_can_shrink: false,
    arena: ArenaObject {
        size: 48,
        address: 0,
        pool_address: 8,
        free_pools: 16,
        total_pools: 20,
        first_free: 24,
        first_length: 16,
    },
};

/// From 3.10, with the radix tree of arenas (`POOL_SIZE` 16 KiB, `ARENA_SIZE`
/// 1 MiB). A 3.15 built to use huge pages has arenas of 2 MiB.
pub(super) const OBMALLOC_16K: Obmalloc =
    Obmalloc { arena_size: 1 << 20, pool_size: 16 << 10, ..OBMALLOC_4K };

/// 3.10 to 3.13, whose sources were read for what happens to free pools.
pub(super) const OBMALLOC_310: Obmalloc = Obmalloc { free_pools_can_shrink: true, ..OBMALLOC_16K };

/// Include/object.h, Include/objimpl.h (`PyGC_Head` of 32 bytes).
pub(super) const OBJECT_36: Object = Object {
    gc_head: 32,
    refcnt: 0,
    type_: 8,
    tp_name: 24,
    tp_flags: 168,
    tp_dict: 264,
    tp_base: 256,
    tp_dictoffset: 288,
    ht_cached_keys: None,
    d_member: 40,
    tuple_len: 16,
    tuple_items: 24,
    long_tag: 16,
    long_digits: 24,
    int_value: None,
};

/// `PyGC_Head` of 16 bytes (bpo-33597, 3.8).
pub(super) const OBJECT_38: Object = Object { gc_head: 16, ..OBJECT_36 };

/// Attributes without a dict: `PyHeapTypeObject`, 3.11 (Include/cpython/object.h).
pub(super) const OBJECT_311: Object = Object { ht_cached_keys: Some(872), ..OBJECT_38 };

/// The same, 3.12 and 3.13.
pub(super) const OBJECT_312: Object = Object { ht_cached_keys: Some(880), ..OBJECT_38 };

/// `PyTupleObject` with the cached hash in front of its items (3.14).
pub(super) const OBJECT_314: Object = Object { tuple_items: 32, ..OBJECT_312 };

/// Include/unicodeobject.h (PEP 393) up to 3.11, with `wstr`.
pub(super) const STR_36: FlexibleStr = FlexibleStr {
    length: 16,
    state: 32,
    kind_shift: 2,
    kind_mask: 7,
    compact_bit: 5,
    ascii_bit: 6,
    ready_bit: Some(7),
    ascii_data: 48,
    compact_data: 72,
    data_pointer: 72,
};

/// Without `wstr` (PEP 623, 3.12).
pub(super) const STR_312: FlexibleStr =
    FlexibleStr { ready_bit: None, ascii_data: 40, compact_data: 56, data_pointer: 56, ..STR_36 };

/// Include/bytesobject.h.
pub(super) const BYTES: Bytes = Bytes { len: 16, data: 32 };

/// Include/funcobject.h, 3.6 to 3.9.
pub(super) const FUNCTION_36: Function =
    Function { code: 16, globals: 24, name: 64, qualname: Some(104) };

/// Include/funcobject.h, with PyFrameConstructor's fields in front (3.10).
pub(super) const FUNCTION_310: Function =
    Function { globals: 16, name: 32, qualname: Some(40), code: 48 };

/// Include/frameobject.h, 3.7 to 3.8; Include/cpython/frameobject.h, 3.9.
pub(super) const FRAME_37: FrameObject = FrameObject {
    size: 368,
    f_back: 24,
    f_code: Some(32),
    f_globals: Some(48),
    f_lasti: Some(104),
    lasti_unit: 1,
    f_lineno: 108,
    f_trace: 80,
    f_trace_lines: Some(88),
    f_trace_opcodes: Some(89),
    f_executing: Some(116),
    f_state: None,
    f_frame: None,
};

/// Include/internal/pycore_frame.h, `struct _frame`, 3.11 and 3.12.
pub(super) const FRAME_311: FrameObject = FrameObject {
    size: 56,
    f_back: 16,
    f_code: None,
    f_globals: None,
    f_lasti: None,
    lasti_unit: 2,
    f_lineno: 40,
    f_trace: 32,
    f_trace_lines: Some(44),
    f_trace_opcodes: Some(45),
    f_executing: None,
    f_state: None,
    f_frame: Some(24),
};

/// `_PyInterpreterFrame`, 3.13.
pub(super) const INTERPRETER_FRAME_313: InterpreterFrame = InterpreterFrame {
    size: 80,
    executable: 0,
    executable_tag_mask: 0,
    globals: 24,
    previous: 8,
    frame_obj: Some(48),
    instr_ptr: 56,
    instr_ptr_points_to: InstrPtrPointsTo::Current,
    owner: 70,
    owned_by_generator: 1,
    owned_by_cstack: Some(3),
    owned_by_interpreter: None,
};

/// Include/dictobject.h, 2.7.
pub(super) const DICT_27: Dict = Dict::Slots { mask: 32, table: 40 };

/// Include/dictobject.h, Objects/dict-common.h, 3.6 to 3.10.
pub(super) const DICT_36: Dict = Dict::Keys {
    keys: 32,
    values: 40,
    entries: 32,
    indices: 40,
    index: DictIndex::Size(8),
    first_value: 0,
};

/// Include/internal/pycore_dict.h, 3.11 and 3.12.
pub(super) const DICT_311: Dict = Dict::Keys {
    keys: 32,
    values: 40,
    entries: 24,
    indices: 32,
    index: DictIndex::Log2 { bytes: 9, kind: 10 },
    first_value: 0,
};

/// Include/internal/pycore_dict.h, 3.13: `PyDictValues` begins with four small numbers.
pub(super) const DICT_313: Dict = Dict::Keys {
    keys: 32,
    values: 40,
    entries: 24,
    indices: 32,
    index: DictIndex::Log2 { bytes: 9, kind: 10 },
    first_value: 8,
};
