//! Builds without the GIL (`--disable-gil`), whose objects have a larger header and lie in
//! mimalloc: 3.13.15, from `offsetof` compiled against its headers.

use super::interpreter_frames::PY313;
use super::shared::*;
use crate::layout::*;

/// What the header of an object is larger by (`struct _object`, Include/object.h): the thread that
/// owns it, a mutex, the collector's bits, and two counts instead of one.
const MORE: u16 = 16;

/// 3.13. Only what a reader from outside needs is stated: objects, text and dicts.
pub(super) static PY313T: Layout = Layout {
    object: Object {
        // The collector's bits are in the header.
        gc_head: 0,
        // The bits, and `ob_ref_local`.
        refcnt: 8,
        type_: 8 + MORE,
        tp_name: OBJECT_312.tp_name + MORE,
        tp_flags: OBJECT_312.tp_flags + MORE,
        tp_dict: OBJECT_312.tp_dict + MORE,
        tp_base: OBJECT_312.tp_base + MORE,
        tp_dictoffset: OBJECT_312.tp_dictoffset + MORE,
        ht_cached_keys: Some(880 + MORE),
        d_member: OBJECT_312.d_member + MORE,
        tuple_len: OBJECT_312.tuple_len + MORE,
        tuple_items: OBJECT_312.tuple_items + MORE,
        long_tag: OBJECT_312.long_tag + MORE,
        long_digits: OBJECT_312.long_digits + MORE,
        ..OBJECT_312
    },
    str_: Str::Flexible(FlexibleStr {
        length: STR_312.length + MORE,
        state: STR_312.state + MORE,
        ascii_data: STR_312.ascii_data + MORE,
        compact_data: STR_312.compact_data + MORE,
        data_pointer: STR_312.data_pointer + MORE,
        ..STR_312
    }),
    bytes: Bytes { len: BYTES.len + MORE, data: BYTES.data + MORE },
    dict: Dict::Keys {
        keys: 32 + MORE,
        values: 40 + MORE,
        entries: 24,
        indices: 32,
        index: DictIndex::Log2 { bytes: 9, kind: 10 },
        first_value: 8,
    },
    ..PY313
};

/// mimalloc 2.1.2 as CPython 3.13 and 3.14 have it without the GIL
/// (Include/internal/mimalloc/mimalloc/types.h).
pub(super) static MIMALLOC: Mimalloc = Mimalloc {
    segment: 32 << 20,
    slice: 64 << 10,
    cookie: 216,
    segment_slices: 224,
    info_slices: 232,
    slice_entries: 248,
    slices: 264,
    entry: 96,
    tag: 8,
    tag_shift: 3,
    tag_mask: 15,
    capacity: 10,
    free: 16,
    block_size: 28,
    local_free: 32,
    thread_free: 40,
};
