//! Texts, dicts, and what stands at the start of every object.

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
    /// Bytes in front of an object whose type has [`TPFLAGS_HAVE_GC`](super::TPFLAGS_HAVE_GC):
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
