//! Which type an object's header names: type objects are read, checked once and remembered.
//!
//! Facts: PyTypeObject (Include/object.h, Include/cpython/object.h) has ob_refcnt 0, ob_type 8,
//! tp_name 24, tp_basicsize 32, tp_itemsize 40, tp_flags 168 in every GIL build from 2.7 to 3.15;
//! `Py_TPFLAGS_READY` 1 << 12, `HAVE_GC` 1 << 14, `HEAPTYPE` 1 << 9, `TYPE_SUBCLASS` 1 << 31;
//! `MANAGED_WEAKREF` 1 << 3 (3.12), `MANAGED_DICT` 1 << 4 (3.11): two words in front of the GC head.

use std::sync::RwLock;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use strandline_cpython::{Layout, TPFLAGS_HAVE_GC, TPFLAGS_UNICODE};
use strandline_image::Image;

use crate::values;

const READY: u64 = 1 << 12;
const HEAPTYPE: u64 = 1 << 9;
const TYPE_SUBCLASS: u64 = 1 << 31;
const INLINE_VALUES: u64 = 1 << 2;
const MANAGED_WEAKREF: u64 = 1 << 3;
const MANAGED_DICT: u64 = 1 << 4;
/// Size of what managed dicts and weak references put in front of the GC head, bytes.
const PRE_HEADER: u64 = 16;
/// Bytes of a type object that are read.
const HEAD: usize = 192;
/// Longest type name that is believed.
const LONGEST_NAME: usize = 512;
/// Larger objects of fixed size don't exist.
const LARGEST: u64 = 1 << 24;
/// The smallest str: `PyASCIIObject`, 3.12 and later (2.7's unicode is larger).
const SMALLEST_STR: u64 = 40;

/// Addresses that a thread remembers, types or not.
const MOST_CACHED: usize = 1 << 20;

/// More types than any interpreter has.
const MOST_TYPES: TypeId = 1 << 20;

/// Number of a type in [`Types`].
pub type TypeId = u32;

/// A type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeInfo {
    /// Address of the type object.
    pub address: u64,
    /// `tp_name`; with the module in front where it is known.
    pub name: String,
    /// `tp_basicsize`, bytes.
    pub basic_size: u64,
    /// `tp_itemsize`, bytes.
    pub item_size: u64,
    /// `tp_flags`.
    pub flags: u64,
    /// Bytes in front of the object in its block: GC head and what is in front of that.
    pub front: u64,
    /// Address of the metaclass.
    pub metaclass: u64,
    /// Its objects are of different sizes and don't say of which: generators and coroutines, whose
    /// frame follows them (Include/internal/pycore_genobject.h, 3.11 and later).
    pub uncounted: bool,
}

/// Types of objects with items but without `ob_size`.
const UNCOUNTED: [&str; 3] = ["generator", "coroutine", "async_generator"];

impl TypeInfo {
    /// True if the collector knows its objects.
    pub fn has_gc(&self) -> bool {
        self.flags & TPFLAGS_HAVE_GC != 0
    }

    /// True if it was made by a class statement or the like, not static in a library.
    pub fn is_heap_type(&self) -> bool {
        self.flags & HEAPTYPE != 0
    }

    /// True if its objects are types.
    pub fn is_metaclass(&self) -> bool {
        self.flags & TYPE_SUBCLASS != 0
    }

    /// True if the values of its objects' attributes follow the object; 3.13 and later.
    pub fn has_inline_values(&self) -> bool {
        self.flags & INLINE_VALUES != 0
    }

    /// True if its objects are text.
    pub fn is_text(&self) -> bool {
        self.flags & TPFLAGS_UNICODE != 0
    }

    /// True if pointers to its attributes' values stand in front of the GC head; 3.11 and later.
    pub fn has_pre_header(&self) -> bool {
        self.flags & (MANAGED_DICT | MANAGED_WEAKREF) != 0
    }

    /// True if [`TypeInfo::extent`] can tell how large its objects are.
    pub fn has_extent(&self) -> bool {
        !(self.has_inline_values() || self.is_text() || self.uncounted)
    }

    /// How many of the `bytes` of a block (or chunk) belong to the object of this type in it: what
    /// follows is left over from before. All of them where it can't be told.
    ///
    /// Fact: `ob_size` at 16 in objects with items; `Py_TPFLAGS_INLINE_VALUES` 1 << 2 (3.13): the
    /// values of attributes follow the object.
    pub fn extent(&self, bytes: &[u8]) -> usize {
        if !self.has_extent() {
            return bytes.len();
        }
        let fixed = (self.front + self.basic_size) as usize;
        if self.item_size == 0 {
            return fixed.min(bytes.len());
        }
        let at = self.front as usize + 16;
        let count = bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        match count {
            Some(count) if count < bytes.len() as u64 => {
                (fixed + (count * self.item_size) as usize).min(bytes.len())
            }
            _ => bytes.len(),
        }
    }

    /// The smallest that an object of it can be, without what is in front of it, bytes.
    fn least(&self) -> u64 {
        if self.is_text() {
            SMALLEST_STR.min(self.basic_size)
        } else {
            self.basic_size
        }
    }
}

type Known = HashMap<u64, TypeId, FixedState>;

/// The types of one interpreter that were met.
pub struct Types {
    layout: Layout,
    /// Bytes in front of every block, see [`crate::Interpreter::guard`].
    guard: u64,
    /// Number of the first type: ids of several interpreters don't meet.
    base: TypeId,
    known: RwLock<Known>,
    infos: RwLock<Vec<TypeInfo>>,
}

/// What is kept per thread, so that nothing is locked for a type that was met before.
#[derive(Default)]
pub struct Cache {
    /// The last one that was asked for: neighbours are often of one type.
    last: (u64, Option<(TypeId, u64, u64)>),
    known: HashMap<u64, Option<(TypeId, u64, u64)>, FixedState>,
}

impl Types {
    /// An empty table for the `number`th interpreter of an image.
    pub fn new(layout: Layout, number: usize, guard: u64) -> Self {
        let base = number as TypeId * MOST_TYPES;
        Types { layout, guard, base, known: RwLock::default(), infos: RwLock::default() }
    }

    /// The name of type `id`; `None` if it is of another table.
    pub fn name(&self, id: TypeId) -> Option<String> {
        let infos = self.infos.read().ok()?;
        infos.get(id.checked_sub(self.base)? as usize).map(|info| info.name.clone())
    }

    /// Number of the first type.
    pub fn base(&self) -> TypeId {
        self.base
    }

    /// All types that were met, in the order of their ids.
    pub fn list(&self) -> Vec<TypeInfo> {
        self.infos.read().map(|i| i.clone()).unwrap_or_default()
    }

    /// The type object at `address`: id, bytes in front of its objects, and their least size.
    pub fn at(&self, image: &Image, cache: &mut Cache, address: u64) -> Option<(TypeId, u64, u64)> {
        if cache.last.0 == address {
            return cache.last.1;
        }
        if let Some(known) = cache.known.get(&address) {
            cache.last = (address, *known);
            return *known;
        }
        let found = self.look_up(image, address).and_then(|id| {
            let infos = self.infos.read().ok()?;
            let info = infos.get((id - self.base) as usize)?;
            Some((id, info.front, info.least()))
        });
        if cache.known.len() >= MOST_CACHED {
            cache.known.clear();
        }
        cache.known.insert(address, found);
        found
    }

    /// The id of the type object at `address`, if there is one.
    pub fn look_up(&self, image: &Image, address: u64) -> Option<TypeId> {
        if let Some(id) = self.known.read().ok()?.get(&address) {
            return Some(*id);
        }
        let info = self.read(image, address)?;
        let mut known = self.known.write().ok()?;
        if let Some(id) = known.get(&address) {
            return Some(*id);
        }
        let mut infos = self.infos.write().ok()?;
        if infos.len() as TypeId >= MOST_TYPES {
            return None;
        }
        let id = self.base + infos.len() as TypeId;
        infos.push(info);
        known.insert(address, id);
        Some(id)
    }

    fn read(&self, image: &Image, address: u64) -> Option<TypeInfo> {
        let head = self.head(image, address)?;
        // Its type is `type` or a subclass of it, whose type is, and so on.
        let mut meta = head.metaclass;
        for depth in 0.. {
            if depth == 4 {
                return None;
            }
            let up = self.head(image, meta)?;
            if up.flags & TYPE_SUBCLASS == 0 {
                return None;
            }
            if up.metaclass == meta {
                break;
            }
            meta = up.metaclass;
        }
        let name = image
            .c_string(image.word(address + self.layout.object.tp_name as u64)?, LONGEST_NAME)?;
        let name = String::from_utf8(name).ok()?;
        if name.is_empty() || name.chars().any(|c| c.is_control()) {
            return None;
        }
        let managed = if self.layout.version >= (3, 12) {
            MANAGED_DICT | MANAGED_WEAKREF
        } else if self.layout.version >= (3, 11) {
            MANAGED_DICT
        } else {
            0
        };
        let mut front = self.guard;
        if head.flags & TPFLAGS_HAVE_GC != 0 {
            front += self.layout.object.gc_head as u64;
        }
        if head.flags & managed != 0 {
            front += PRE_HEADER;
        }
        let name = match self.module_of(image, &head).filter(|_| !name.contains('.')) {
            Some(module) => format!("{module}.{name}"),
            None => name,
        };
        let uncounted = head.item_size != 0 && UNCOUNTED.contains(&name.as_str());
        Some(TypeInfo { name, front, uncounted, ..head })
    }

    /// `__module__` of a type that isn't a builtin one.
    fn module_of(&self, image: &Image, head: &TypeInfo) -> Option<String> {
        if !head.is_heap_type() {
            return None;
        }
        let dict = image.word(head.address + self.layout.object.tp_dict as u64)?;
        let module = values::get(image, &self.layout, dict, "__module__")?;
        let module = values::text(image, &self.layout, module)?;
        (module != "builtins" && module != "__builtin__").then_some(module)
    }

    /// What of a type object is plain numbers, if they can be right.
    fn head(&self, image: &Image, address: u64) -> Option<TypeInfo> {
        if address % 8 != 0 || address == 0 {
            return None;
        }
        // Type objects are written to (their reference count, their caches): they lie in memory
        // that was copied.
        let bytes = image.slice(address, HEAD)?;
        let word = |at: u16| {
            let at = at as usize;
            bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
        };
        let o = &self.layout.object;
        let flags = word(o.tp_flags)?;
        let basic_size = word(o.tp_name + 8)?;
        let item_size = word(o.tp_name + 16)?;
        let plausible = word(o.refcnt)? != 0
            && flags & READY != 0
            && (16..LARGEST).contains(&basic_size)
            && item_size < LARGEST
            && word(o.tp_name)? != 0;
        plausible.then_some(TypeInfo {
            address,
            name: String::new(),
            basic_size,
            item_size,
            flags,
            front: 0,
            metaclass: word(o.type_)?,
            uncounted: false,
        })
    }
}
