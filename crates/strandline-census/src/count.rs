//! Counting objects by type.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use strandline_interpreter::{TypeId, TypeInfo, NATIVE};

use crate::chunks::Python;
use crate::model::TypeReport;

/// Objects of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Objects.
    pub count: u64,
    /// Their bytes, as allocated.
    pub bytes: u64,
    /// Bytes of what they hold.
    pub buffers: u64,
}

/// Counts by type.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    by_type: HashMap<TypeId, Count, FixedState>,
}

impl Counts {
    /// Adds an object.
    pub fn object(&mut self, id: TypeId, bytes: u64) {
        self.objects(id, 1, bytes);
    }

    /// Adds `count` objects of `bytes` together.
    pub fn objects(&mut self, id: TypeId, count: u64, bytes: u64) {
        let c = self.by_type.entry(id).or_default();
        c.count += count;
        c.bytes += bytes;
    }

    /// Adds memory that an object holds.
    pub fn buffer(&mut self, id: TypeId, bytes: u64) {
        if id != NATIVE {
            self.by_type.entry(id).or_default().buffers += bytes;
        }
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &Counts) {
        for (&id, c) in &other.by_type {
            let mine = self.by_type.entry(id).or_default();
            mine.count += c.count;
            mine.bytes += c.bytes;
            mine.buffers += c.buffers;
        }
    }

    /// Types with anything, by id.
    pub fn iter(&self) -> impl Iterator<Item = (TypeId, Count)> + '_ {
        self.by_type.iter().map(|(&id, &c)| (id, c))
    }

    /// By name, most bytes first; types of the same name are put together.
    pub fn report(&self, pythons: &[Python<'_>]) -> Vec<TypeReport> {
        let mut by_name: HashMap<String, TypeReport> = HashMap::new();
        for (id, c) in self.iter() {
            let Some(name) = name_of(pythons, id) else { continue };
            let r = by_name.entry(name).or_default();
            r.count += c.count;
            r.bytes += c.bytes + c.buffers;
            r.buffer_bytes += c.buffers;
        }
        let mut all: Vec<_> =
            by_name.into_iter().map(|(name, report)| TypeReport { name, ..report }).collect();
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        all
    }
}

/// Types of what an `import` makes, types themselves aside.
const OF_CODE: [&str; 16] = [
    "builtin_function_or_method",
    "classmethod",
    "classmethod_descriptor",
    "code",
    "function",
    "getset_descriptor",
    "member_descriptor",
    "method-wrapper",
    "method_descriptor",
    "module",
    "property",
    "staticmethod",
    "instancemethod",
    "importlib._bootstrap.ModuleSpec",
    "_frozen_importlib.ModuleSpec",
    "wrapper_descriptor",
];

/// True if the type's objects are code, functions, modules, types and the like.
pub fn is_of_code(info: &TypeInfo) -> bool {
    info.is_metaclass() || OF_CODE.contains(&info.name.as_str())
}

impl Counts {
    /// Bytes of code, functions, modules and types, with what they hold: the interpreter's own and
    /// those of all that was imported. Their names, constants and the dicts of modules are counted
    /// under their own types.
    pub fn imported_code(&self, pythons: &[Python<'_>]) -> u64 {
        let lists: Vec<_> = pythons.iter().map(|p| (p.types.base(), p.types.list())).collect();
        let is_code = |id: TypeId| {
            lists.iter().any(|(base, list)| {
                let info = id.checked_sub(*base).and_then(|i| list.get(i as usize));
                info.is_some_and(is_of_code)
            })
        };
        self.iter().filter(|(id, _)| is_code(*id)).map(|(_, c)| c.bytes + c.buffers).sum()
    }
}

/// The name of type `id`.
pub fn name_of(pythons: &[Python<'_>], id: TypeId) -> Option<String> {
    pythons.iter().find_map(|p| p.types.name(id))
}
