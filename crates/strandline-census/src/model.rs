//! What a census says: plain values, serialised as they are.

use serde::{Deserialize, Serialize};

/// Name of the JSON's form; its number is raised when a field changes its meaning or goes.
pub const SCHEMA: &str = "strandline-census/1";

/// A census.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Census {
    /// [`SCHEMA`].
    pub schema: String,
    /// The process, if it was a live one.
    pub pid: Option<i32>,
    /// Path of its executable as it sees it.
    pub executable: Option<String>,
    /// Its command line.
    pub command_line: Vec<String>,
    /// How long it stood for this, nanoseconds; `None`: never.
    pub paused_ns: Option<u64>,
    /// The process's memory was copied to a file: there was too little memory free.
    #[serde(default)]
    pub copied_to_disk: bool,
    /// Resident bytes: the sum of all classes. (In a core file: the bytes that were dumped.)
    pub rss_bytes: u64,
    /// What the kernel reported (the sum of smaps' Rss), bytes.
    pub kernel_rss_bytes: Option<u64>,
    /// Swapped out, not part of `rss_bytes`.
    pub swapped_bytes: u64,
    /// Page tables, not part of `rss_bytes`.
    pub page_table_bytes: Option<u64>,
    /// Of `rss_bytes`: in transparent huge pages; `None` for a core file.
    pub huge_page_bytes: Option<u64>,
    /// Of `rss_bytes`: private memory that a parent or child still shares (copy on write); `None`
    /// for a core file.
    pub copy_on_write_bytes: Option<u64>,
    /// Bytes of private memory that a core file left out.
    pub left_out_bytes: u64,
    /// Of `rss_bytes`: what couldn't be named.
    pub unnamed_bytes: u64,
    /// Of `rss_bytes`: freed, and kept by an allocator.
    pub stranded_bytes: u64,
    /// Every class that has bytes; they add up to `rss_bytes`.
    pub classes: Vec<ClassReport>,
    /// The interpreters.
    pub interpreters: Vec<InterpreterReport>,
    /// Live objects by type, most bytes first.
    pub types: Vec<TypeReport>,
    /// Of `types`: code, functions, modules and types with what they hold.
    #[serde(default)]
    pub imported_code_bytes: u64,
    /// Dead objects on free lists by type, most bytes first.
    pub free_lists: Vec<TypeReport>,
    /// Blocks of the small-object allocator by size class.
    pub size_classes: Vec<SizeClassReport>,
    /// All arenas by address.
    pub arenas: Vec<ArenaReport>,
    /// What keeps the emptiest arenas from being given back.
    pub pins: Vec<Pin>,
    /// The largest single objects and buffers.
    pub largest: Vec<LargeReport>,
    /// glibc's malloc, if it was found.
    pub malloc: Option<MallocReport>,
    /// Its heaps, those with most free bytes first, twenty at most.
    #[serde(default)]
    pub heaps: Vec<HeapReport>,
    /// What would come back to the system, and by what.
    #[serde(default)]
    pub returns: Returns,
    /// Objects that nothing can reach and that wait for the collector; `None` if it wasn't looked
    /// for them, or not all memory could be read.
    #[serde(default)]
    pub garbage: Option<GarbageReport>,
    /// The objects that hold most of what is live; empty if it wasn't looked for them.
    #[serde(default)]
    pub holders: Vec<HolderReport>,
    /// The arenas that little keeps from going back, taken together.
    #[serde(default)]
    pub pinned: Pinned,
    /// Chunks of malloc that C code holds, by size, those that take most.
    #[serde(default)]
    pub c_chunks: Vec<ChunkReport>,
    /// Files and mappings outside of arenas and heaps that take most.
    #[serde(default)]
    pub mappings: Vec<MappingReport>,
    /// CPU time that it had used until then, milliseconds; `None` for a core file.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
    /// The most that was ever resident (`VmHWM`), bytes; `None` for a core file.
    #[serde(default)]
    pub peak_rss_bytes: Option<u64>,
    /// Allocators other than glibc's and CPython's that the process has loaded.
    pub other_allocators: Vec<AllocatorReport>,
    /// What was read and can't be right, in words.
    pub doubts: Vec<String>,
    /// How many doubts there are, those that aren't in the list included.
    pub doubt_count: usize,
}

/// One class.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Its stable name.
    pub name: String,
    /// Resident bytes.
    pub bytes: u64,
    /// For people.
    pub text: String,
}

/// One CPython of the image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InterpreterReport {
    /// `sys.version`.
    pub version: String,
    /// Library or executable.
    pub module: String,
    /// Small-object allocators: more than one with sub-interpreters that have their own.
    pub allocators: usize,
}

/// Objects of one type.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TypeReport {
    /// Its name.
    pub name: String,
    /// Objects.
    pub count: u64,
    /// Bytes of the objects and of their buffers, as allocated.
    pub bytes: u64,
    /// Of these: the buffers.
    pub buffer_bytes: u64,
}

/// Blocks of one size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SizeClassReport {
    /// Size of a block, bytes.
    pub block_bytes: u32,
    /// Pools that hold such blocks.
    pub pools: u64,
    /// Blocks in use.
    pub in_use: u64,
    /// Blocks that are free, in those pools.
    pub free: u64,
}

/// One arena.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ArenaReport {
    /// Its address.
    pub address: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// Of these: resident.
    pub resident_bytes: u64,
    /// In blocks in use.
    pub live_bytes: u64,
    /// Blocks in use.
    pub live_blocks: u64,
    /// Pools with blocks in use.
    pub used_pools: u32,
    /// Free pools.
    pub free_pools: u32,
}

/// What keeps an arena.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pin {
    /// The arena.
    pub arena: u64,
    /// Resident bytes that would come back without it.
    pub held_bytes: u64,
    /// Type of the objects that hold it (or of the holder of the buffers that do).
    pub type_name: String,
    /// Blocks of this type in the arena.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Who refers to one of them, from a module or a running function down; `None` if nobody was
    /// found, or nobody was looked for.
    pub path: Option<String>,
}

/// A single large object, or buffer of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LargeReport {
    /// Its address.
    pub address: u64,
    /// Type of the object, or of the holder of the buffer.
    pub type_name: String,
    /// Bytes, as allocated.
    pub bytes: u64,
    /// As in [`Pin`].
    pub path: Option<String>,
}

/// glibc's malloc.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MallocReport {
    /// Arenas.
    pub arenas: usize,
    /// Chunks in mappings of their own.
    pub mmapped_chunks: usize,
    /// Their bytes.
    pub mmapped_bytes: u64,
    /// Bytes got from the kernel for heaps.
    pub heap_bytes: u64,
    /// Of these: in use.
    pub in_use_bytes: u64,
    /// Of these: free.
    pub free_bytes: u64,
    /// Size from which a request gets a mapping of its own, as it is now, bytes; `None` if unknown.
    pub mmap_threshold_bytes: Option<u64>,
    /// Size of the free end from which it goes back to the system, as it is now, bytes.
    pub trim_threshold_bytes: Option<u64>,
    /// Whether both still follow what the program frees; `None` if unknown.
    #[serde(default)]
    pub thresholds_move: Option<bool>,
    /// Resident bytes of freed chunks in the arenas of threads, caches left out: holes.
    #[serde(default)]
    pub thread_holes_bytes: u64,
    /// The same: free ends of heaps.
    #[serde(default)]
    pub thread_tops_bytes: u64,
    /// Resident bytes of the main heap's chunks in fast bins: small ones that aren't put together
    /// with their neighbours yet.
    #[serde(default)]
    pub fast_bins_bytes: u64,
}

/// A heap of glibc's malloc.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HeapReport {
    /// Its address.
    pub address: u64,
    /// Its size, bytes, as all that follow.
    pub bytes: u64,
    /// Chunks in use.
    pub in_use_bytes: u64,
    /// Free chunks below the free end.
    pub free_bytes: u64,
    /// The free end.
    pub top_bytes: u64,
    /// Whose chunks stand above the lowest hole, three at most; without a `name` C code's.
    pub holders: Vec<TypeReport>,
    /// The last chunk in use: while it is there, the heap's end can't go below it. Without a
    /// `type_name` it is C code's.
    pub last: Option<LargeReport>,
    /// It belongs to the arena of a thread.
    #[serde(default)]
    pub is_threads: bool,
    /// Of a process that runs under `strandline run --stacks`: the chunks in use above the lowest
    /// large hole from the heap's end down, those that follow each other under one tag as one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tagged: Vec<TaggedChunks>,
}

/// Chunks in use that follow each other, and who allocated them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaggedChunks {
    /// Tag of the capture; 0: not known.
    pub tag: u32,
    /// Number of chunks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Resident bytes of the holes among them and right below them.
    pub below_bytes: u64,
    /// The largest of these holes.
    pub largest_bytes: u64,
}

/// Bytes of RSS that would come back, each by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returns {
    /// malloc_trim(0).
    pub malloc_trim_bytes: u64,
    /// Giving back the pages of free pools (3.10 and later).
    pub pool_trim_bytes: u64,
    /// gc.collect(); `None` if it wasn't looked for garbage.
    pub collect_bytes: Option<u64>,
    /// gc.collect(), then malloc_trim(0).
    pub collect_and_trim_bytes: Option<u64>,
    /// A low and fixed trim threshold from the start, an estimate.
    pub low_threshold_bytes: u64,
    /// Of these: free ends of heaps, which go back in any case.
    pub heap_ends_bytes: u64,
    /// A low and fixed mmap threshold from the start, an estimate.
    pub low_mmap_threshold_bytes: u64,
    /// Small objects from malloc, and malloc_trim(0): an estimate; negative is what it would cost.
    pub without_pymalloc_bytes: i64,
    /// The least that this can be.
    pub without_pymalloc_least_bytes: i64,
    /// The most that this can be.
    pub without_pymalloc_most_bytes: i64,
}

/// An object, and what would go with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HolderReport {
    /// Who refers to it: the path from a root down, as in [`Pin`].
    pub path: String,
    /// Its address: the same path may lead to another object at the next look.
    #[serde(default)]
    pub address: u64,
    /// Its type.
    pub type_name: String,
    /// Bytes that can be reached through it only, its own included, as allocated.
    pub bytes: u64,
    /// Objects of these.
    pub count: u64,
    /// Its own items, of a dict or a list; `None` for others.
    #[serde(default)]
    pub items: Option<u64>,
    /// By type, most bytes first, a few of them.
    pub types: Vec<TypeReport>,
    /// The path starts at a module: it stays when every function has returned.
    pub is_lasting: bool,
    /// The path starts at a function that runs.
    pub is_running: bool,
    /// Part of its values that stand in memory in the order in which they were put in: about half
    /// where values are replaced again and again. `None` if it isn't known.
    pub in_order: Option<f64>,
    /// Functions that work with a global or an attribute of this name, a few of them.
    pub functions: Vec<String>,
    /// One of the functions that do takes something out of something.
    pub takes_out: bool,
}

/// Arenas less than a quarter full.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// Their number.
    pub arenas: u64,
    /// Resident bytes in them that aren't in use.
    pub held_bytes: u64,
    /// Blocks in use in them.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What these are, most blocks first, a few of them.
    pub types: Vec<TypeReport>,
    /// Of a process that runs under `strandline run --stacks`: by which tags of its capture the
    /// blocks in each of these arenas were allocated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tagged: Vec<TaggedArena>,
}

/// Who allocated what keeps an arena.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaggedArena {
    /// Resident bytes that would come back without these blocks.
    pub held_bytes: u64,
    /// Tag, number of blocks, their bytes. Tag 0: not known.
    pub tags: Vec<(u32, u64, u64)>,
}

/// Chunks of one size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChunkReport {
    /// Size of the chunk, its head included, bytes.
    pub chunk_bytes: u64,
    /// Chunks.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is resident of a file or of mappings of one name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MappingReport {
    /// Path or name; empty for anonymous ones.
    pub path: String,
    /// Name of the class that it is counted in.
    pub class: String,
    /// Resident bytes.
    pub bytes: u64,
}

/// Objects that wait for the collector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GarbageReport {
    /// Bytes of the objects and of what they hold, at least.
    pub bytes: u64,
    /// Objects.
    pub count: u64,
    /// By type, most bytes first.
    pub types: Vec<TypeReport>,
    /// What the collector knows of its youngest objects; `None` if that wasn't found.
    #[serde(default)]
    pub collector: Option<CollectorReport>,
}

/// The collector's youngest generation: objects that it hasn't looked at yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectorReport {
    /// Objects made since it last looked, less those that were freed: a collector that is on looks
    /// once there are more than `threshold`.
    pub count: u64,
    /// See `count`; 0: it never looks.
    pub threshold: u64,
    /// It was looking just then; the other two aren't known.
    #[serde(default)]
    pub at_work: bool,
}

/// Another allocator. What it keeps is in other classes, or not named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AllocatorReport {
    /// Its name.
    pub name: String,
    /// Bytes of mappings that bear its name; `None` if they bear none.
    pub mapped_bytes: Option<u64>,
    /// Of these: resident.
    pub resident_bytes: Option<u64>,
}
