//! The census: every resident byte of an image in exactly one class, every block in use with its
//! type or holder, and what keeps arenas from being given back.
//!
//! What this crate never does: it never touches a process (an image is all it knows), never
//! claims a byte twice, and never hides what it couldn't name: that is a class of its own.
#![forbid(unsafe_code)]

mod arenas;
mod attributes;
mod c_code;
mod chunks;
mod class;
mod collector;
mod count;
mod free_threaded;
mod functions;
mod heaps;
mod holders;
mod holes;
mod int_blocks;
mod mappings;
mod marking;
mod model;
mod names;
mod owners;
mod paths;
mod profiler;
mod returns;
mod tags;
mod take;
mod users;
mod without_pymalloc;

pub use class::{Class, Group, Sums};
pub use model::{
    AllocatorReport, ArenaReport, Census, ChunkReport, ClassReport, CollectorReport, GarbageReport,
    HeapReport, HolderReport, InterpreterReport, LargeReport, MallocReport, MappingReport, Pin,
    Pinned, Returns, SizeClassReport, TaggedArena, TaggedChunks, TypeReport, SCHEMA,
};
pub use take::{take, Options};
