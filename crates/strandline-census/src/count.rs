//! Counting objects by type.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use strandline_interpreter::{TypeId, NATIVE};

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

/// The name of type `id`.
pub fn name_of(pythons: &[Python<'_>], id: TypeId) -> Option<String> {
    pythons.iter().find_map(|p| p.types.name(id))
}
