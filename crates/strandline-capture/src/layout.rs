//! The bytes of a capture: `repr(C)` structures of atomics, little-endian, 64-bit.
//!
//! All sizes and amounts are bytes unless a field's name says otherwise. An index of 0 means
//! "none" in every table: entry 0 is reserved.

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

/// First eight bytes of every capture.
pub const MAGIC: u64 = u64::from_le_bytes(*b"strandln");
/// Version of this layout. A reader refuses any other.
pub const VERSION: u32 = 7;
/// Bytes in front of the first region.
pub const HEADER_BYTES: usize = 64 * 1024;
/// Room for a region, and the distance between two if there are no [`Stacks`]. The file is
/// sparse: only touched pages exist.
pub const REGION_STRIDE: usize = 160 << 20;
/// Room for a region's [`Stacks`], right behind it.
pub const STACKS_ROOM: usize = 288 << 20;
/// Room for a region's [`Events`], behind its [`Stacks`]: the last of its stride.
pub const EVENTS_ROOM: usize = 2 << 20;
/// Number of processes that one run can record.
pub const MAX_REGIONS: usize = 1024;
/// Bytes of a whole capture without [`Stacks`] (sparse).
pub const FILE_BYTES: usize = HEADER_BYTES + REGION_STRIDE * MAX_REGIONS;

/// Distance between two regions in a capture with these options.
pub const fn stride(options: u32) -> usize {
    let mut stride = REGION_STRIDE;
    if options & OPTION_STACKS != 0 {
        stride += STACKS_ROOM;
    }
    if options & OPTION_EVENTS != 0 {
        stride += EVENTS_ROOM;
    }
    stride
}

/// Capacity of [`Region::tags`]; a tag index fits in 20 bits.
pub const MAX_TAGS: usize = 1 << 20;
/// Capacity of [`Region::sites`].
pub const MAX_SITES: usize = 1 << 19;
/// Capacity of [`Region::codes`].
pub const MAX_CODES: usize = 1 << 17;
/// Capacity of [`Region::contexts`].
pub const MAX_CONTEXTS: usize = 1 << 16;
/// Capacity of [`Region::slots`].
pub const MAX_SLOTS: usize = 1 << 16;
/// Capacity of [`Region::functions`].
pub const MAX_FUNCTIONS: usize = 1 << 13;
/// Bytes of [`Region::strings`].
pub const MAX_STRINGS: usize = 32 << 20;
/// Bytes of [`Header::patterns`].
pub const MAX_PATTERNS: usize = 16 * 1024;

/// A piece of [`Region::strings`].
#[repr(C)]
#[derive(Debug, Default)]
pub struct Text {
    /// Offset of the first byte.
    pub offset: AtomicU32,
    /// Length, bytes of UTF-8 (invalid input is stored as it was).
    pub len: AtomicU32,
}

/// A process asks the strandline process for a census of itself, and stands until it has it. One
/// at a time; `asked` and `answered` are futexes (futex(2)) shared by all.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Request {
    /// Process id of the one that asks; 0: nobody.
    pub holder: AtomicU32,
    /// `CENSUS_*`: why.
    pub kind: AtomicU32,
    /// Number of requests so far.
    pub asked: AtomicU32,
    /// Number of the last request that was answered.
    pub answered: AtomicU32,
    /// `CENSUS_TAKEN` or `CENSUS_FAILED`.
    pub status: AtomicU32,
    /// Descriptor of the answer's text in the strandline process: JSON, or why there is none.
    pub descriptor: AtomicU32,
    /// `CENSUS_LINE`: index into [`Region::slots`]; 0: a profiled function was entered.
    pub slot: AtomicU32,
    /// Padding.
    pub reserved: AtomicU32,
    /// `CENSUS_LINE`: bytes that lines without a census moved since the last one, at least.
    pub missed: AtomicU64,
}

/// A remedy that `strandline remedies PID` wants done in this process. It writes the request into
/// the process's memory while it holds the thread that it then sends to `trampoline`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Control {
    /// `CONTROL_*`.
    pub state: AtomicU32,
    /// `REMEDY_*`.
    pub kind: AtomicU32,
    /// `ENTRY_*`: how the thread was found.
    pub entry: AtomicU32,
    /// Padding.
    pub reserved: AtomicU32,
    /// Where a thread may be sent; 0: nowhere (no CPython that the agent knows).
    pub trampoline: AtomicU64,
    /// First byte and byte after the last of the interpreter's loop.
    pub eval_loop: [AtomicU64; 2],
    /// The same of the functions that wait for a lock (`threading.Lock`) and, from 3.13, for the
    /// end of a thread; zeros where there is none.
    pub lock_waits: [[AtomicU64; 2]; 2],
    /// Where the thread goes on if a signal came in meanwhile, its call having failed with EINTR;
    /// 0: where it was.
    pub on_signal: AtomicU64,
    /// The thread's signal mask, which is put back at the end (`ENTRY_BLOCKED`).
    pub mask: AtomicU64,
    /// RSS before and after, as smaps_rollup says.
    pub rss: [AtomicI64; 2],
}

/// Start of the file; written by the strandline process before the target starts.
#[repr(C)]
#[derive(Debug)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// `OPTION_*` bits.
    pub options: u32,
    /// Number of regions handed out; may pass [`MAX_REGIONS`], the rest was not recorded.
    pub regions: AtomicU32,
    /// Bytes used in `patterns`.
    pub patterns_len: u32,
    /// Process id of the strandline process.
    pub owner_pid: u32,
    /// Number of regions that the file is long enough for, at most [`MAX_REGIONS`]; 0 means
    /// [`MAX_REGIONS`]. A limit on file sizes can make it smaller, and a region behind the end
    /// of the file must not be touched.
    pub room: u32,
    /// A block is temporary if its thread made at most so many allocations between its birth and
    /// its end; below [`MOST_RECENT`].
    pub temporary_distance: u32,
    /// Padding.
    pub reserved: u32,
    /// A census that a process wants of itself.
    pub request: Request,
    /// `--function` patterns, one a line, UTF-8.
    pub patterns: [u8; MAX_PATTERNS],
}

/// A place in the source: a line of a code object.
#[repr(C)]
#[derive(Debug)]
pub struct Site {
    /// Index into [`Region::codes`]; 0: no Python frame was running.
    pub code: AtomicU32,
    /// Line number, from 1; 0 if unknown.
    pub line: AtomicU32,
}

/// A code object's identity; two code objects with the same one share an entry.
#[repr(C)]
#[derive(Debug)]
pub struct Code {
    /// `co_filename`.
    pub file: Text,
    /// `co_qualname` where there is one (3.11+), else `co_name`.
    pub name: Text,
    /// `co_firstlineno`.
    pub first_line: AtomicU32,
    /// Not 0: no code object but a library of machine code. `file` is its path, `name` its build
    /// id in hexadecimal (empty: it has none), and the line of a [`Site`] in it is an address
    /// inside an instruction, in the library's own terms.
    pub native: AtomicU32,
}

/// What was allocated at one site, while one set of profiled lines ran.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Tag {
    /// Index into [`Region::sites`].
    pub site: AtomicU32,
    /// Index into [`Region::contexts`].
    pub context: AtomicU32,
    /// `TAG_*` bits.
    pub flags: AtomicU32,
    /// `--stacks`: what the path's blocks have in common, see [`shape_of_size`]. What is as it says
    /// is counted by `blocks` and `blocks_freed` alone.
    pub shape: AtomicU32,
    /// Bytes asked for.
    pub allocated: AtomicU64,
    /// Bytes given back by threads that held the GIL.
    pub freed: AtomicU64,
    /// Bytes given back by other threads.
    pub freed_native: AtomicU64,
    /// `--stacks`: number of allocations.
    pub blocks: AtomicU64,
    /// `--stacks`: number of blocks given back by threads that held the GIL.
    pub blocks_freed: AtomicU64,
    /// `--stacks`: [`StacksHead::peak_state`] when [`Path::at_peak`] was saved.
    pub peak_state: AtomicU32,
    /// `--stacks`: [`StacksHead::rss_epoch`] when [`Path::at_rss_peak`] was saved.
    pub rss_epoch: AtomicU32,
}

// All that most allocations and frees touch lies in one cache line.
const _: () = assert!(core::mem::size_of::<Tag>() == 64);

/// A set of profiled lines that run at the same time: `slot` on top of `parent`'s set.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Context {
    /// Index into [`Region::contexts`]; 0 is the empty set.
    pub parent: AtomicU32,
    /// Index into [`Region::slots`].
    pub slot: AtomicU32,
    /// Bytes freed while exactly this set was active, by threads that held the GIL.
    pub freed: AtomicU64,
    /// Bytes freed by other threads.
    pub freed_native: AtomicU64,
}

/// A profiled line.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Slot {
    /// Index into [`Region::functions`].
    pub function: AtomicU32,
    /// Line number.
    pub line: AtomicU32,
    /// How often the line ran.
    pub occurrences: AtomicU64,
    /// Number of RSS readings that `rss` rests on; 0: never read.
    pub readings: AtomicU64,
    /// Highest RSS seen after the line.
    pub rss: AtomicI64,
    /// Sum of the RSS changes over the line.
    pub rss_increment: AtomicI64,
    /// Bytes in use in the whole process when `rss` was read.
    pub in_use_at_rss: AtomicI64,
    /// Bytes stranded in the whole process when `rss` was read.
    pub stranded_at_rss: AtomicI64,
    /// Sum of the changes of stranded bytes over the line.
    pub stranded_increment: AtomicI64,
    /// Highest in-use memory above that at the line's start.
    pub peak: AtomicU64,
}

/// A profiled function.
#[repr(C)]
#[derive(Debug)]
pub struct Function {
    /// Index into [`Region::codes`].
    pub code: AtomicU32,
    /// Last line that has code, nested functions included.
    pub last_line: AtomicU32,
    /// Calls that were traced.
    pub calls: AtomicU64,
    /// Name as the front knows it (`__qualname__` where the code object has none).
    pub name: Text,
    /// Source text if no file can be read later; empty otherwise.
    pub source: Text,
    /// File name made absolute, if `co_filename` is relative.
    pub path: Text,
    /// Line number of the first line of `source`.
    pub source_first_line: AtomicU32,
    /// Padding.
    pub reserved: AtomicU32,
}

/// Whole-process amounts at one moment, bytes.
#[repr(C)]
#[derive(Debug)]
pub struct Ledger {
    /// Resident memory as the kernel says, the profiler's own part included.
    pub rss: AtomicI64,
    /// The profiler's own resident memory.
    pub profiler: AtomicI64,
    /// Asked for and not given back.
    pub in_use: AtomicI64,
    /// Resident, kept by pymalloc, not in a live block.
    pub stranded_arenas: AtomicI64,
    /// Resident, kept by glibc malloc, not in a live chunk.
    pub stranded_heap: AtomicI64,
    /// Nanoseconds since the epoch; 0: never taken.
    pub when: AtomicU64,
}

/// Resident memory at a point of the program that may come more than once.
#[repr(C)]
#[derive(Debug)]
pub struct Noted {
    /// How often the program came to it; 0: never.
    pub count: AtomicU64,
    /// Resident bytes the last time.
    pub rss: AtomicI64,
}

/// What a bare run notes, and in any run the marks.
#[repr(C)]
#[derive(Debug)]
pub struct Bare {
    /// `strandline.mark()`.
    pub marks: Noted,
    /// An outermost function under `@profile` returned.
    pub returns: Noted,
    /// Right before a remedy acted.
    pub before: Noted,
    /// Right after it had acted.
    pub after: Noted,
    /// The program is about to exit.
    pub end: Noted,
    /// Highest resident bytes that the kernel saw until then.
    pub peak: AtomicI64,
    /// Highest resident bytes of the largest child process that was waited for until then.
    pub children_peak: AtomicI64,
    /// `BARE_*` bits.
    pub flags: AtomicU32,
    /// Padding.
    pub reserved: AtomicU32,
}

/// Counters of one process.
#[repr(C)]
#[derive(Debug)]
pub struct RegionHead {
    /// `STATE_*`.
    pub state: AtomicU32,
    /// Process id, as the process itself sees it.
    pub pid: AtomicU32,
    /// Its parent's process id.
    pub parent_pid: AtomicU32,
    /// Python's version as `major << 16 | minor << 8 | micro`; 0: not a Python.
    pub python: AtomicU32,
    /// `CAN_*` bits.
    pub abilities: AtomicU32,
    /// `REFUSED_*`.
    pub refusal: AtomicU32,
    /// 1: made by fork from the region `parent_region`.
    pub forked: AtomicU32,
    /// Region of the parent plus one; 0: none.
    pub parent_region: AtomicU32,
    /// Entries used in each table (0 is reserved, so at least 1).
    pub tags: AtomicU32,
    /// Entries used.
    pub sites: AtomicU32,
    /// Entries used.
    pub codes: AtomicU32,
    /// Entries used.
    pub contexts: AtomicU32,
    /// Entries used.
    pub slots: AtomicU32,
    /// Entries used.
    pub functions: AtomicU32,
    /// Bytes used in `strings`.
    pub strings: AtomicU32,
    /// Allocations that no tag could be made for (a table was full): counted as "unknown".
    pub overflowed: AtomicU32,
    /// The process's command line, arguments ended by NUL.
    pub command: Text,
    /// `sys.executable` or the main program's path.
    pub executable: Text,
    /// `Py_GetVersion()`.
    pub version_text: Text,
    /// Padding to a cache line of its own for what follows.
    pub reserved: [AtomicU64; 5],
    /// Bytes in use: allocations minus frees by threads that held the GIL, what the profiler had
    /// the interpreter allocate left out; may be negative on its own, only the sum with
    /// `in_use_native` means something.
    pub in_use: AtomicI64,
    /// Highest sum of `in_use` and `in_use_native` since the last time it was folded into `peak`.
    pub watermark: AtomicI64,
    /// Highest sum of `in_use` and `in_use_native` before that. The peak is the larger of both.
    pub peak: AtomicI64,
    /// Bytes of live blocks in arenas, block sizes rather than requests.
    pub block_bytes: AtomicI64,
    /// Pages of arenas that were touched, bytes.
    pub arena_resident: AtomicI64,
    /// Chunk bytes of live chunks by threads that held the GIL: main heap, thread arenas,
    /// chunks with a mapping of their own. Only the sum with `chunks_native` means something.
    pub chunks: [AtomicI64; 3],
    /// Bytes in use, allocations minus frees by threads without the GIL.
    pub in_use_native: AtomicI64,
    /// Chunk bytes, likewise.
    pub chunks_native: [AtomicI64; 3],
    /// Bytes of arenas mapped.
    pub arena_mapped: AtomicI64,
    /// Number of arenas mapped.
    pub arenas: AtomicI64,
    /// Bytes of anonymous mappings that the program made itself.
    pub maps: AtomicI64,
    /// Bytes that were freed but never seen allocated (allocated before the agent started).
    pub unseen_frees: AtomicU64,
    /// When the interpreter started running code.
    pub start: Ledger,
    /// Last taken while running.
    pub latest: Ledger,
    /// When the interpreter began to shut down (exit handlers), before it frees its objects.
    pub exit: Ledger,
    /// Highest RSS that the kernel reported, the profiler's own part included.
    pub rss_peak: AtomicI64,
    /// Wall-clock start, nanoseconds since the epoch.
    pub started: AtomicU64,
    /// A remedy that is to be applied.
    pub control: Control,
    /// Points of a bare run.
    pub bare: Bare,
}

/// One process's part of the capture.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Region {
    /// Counters and table sizes.
    pub head: RegionHead,
    /// Functions.
    pub functions: [Function; MAX_FUNCTIONS],
    /// Lines.
    pub slots: [Slot; MAX_SLOTS],
    /// Sets of active lines.
    pub contexts: [Context; MAX_CONTEXTS],
    /// Code objects.
    pub codes: [Code; MAX_CODES],
    /// Sites.
    pub sites: [Site; MAX_SITES],
    /// Tags.
    pub tags: [Tag; MAX_TAGS],
    /// What the process had in use per tag when it was forked.
    pub inherited: [AtomicU64; MAX_TAGS],
    /// Text.
    pub strings: [AtomicU8Cell; MAX_STRINGS],
}

/// A byte of [`Region::strings`].
pub type AtomicU8Cell = core::sync::atomic::AtomicU8;

const _: () = assert!(core::mem::size_of::<Region>() <= REGION_STRIDE);
const _: () = assert!(core::mem::size_of::<Header>() <= HEADER_BYTES);
const _: () = assert!(core::mem::size_of::<Tag>() == 64);
const _: () = assert!(core::mem::size_of::<Context>() == 64);
const _: () = assert!(REGION_STRIDE % 4096 == 0 && HEADER_BYTES % 4096 == 0);

mod chunks;
mod events;
mod flags;
mod own_maps;
mod stacks;
pub use chunks::*;
pub use events::*;
pub use flags::*;
pub use own_maps::*;
pub use stacks::*;

/// Tag of what can't be attributed: no Python frame, or a table is full.
pub const TAG_INDEX_UNKNOWN: u32 = 2;
/// Tag of what the agent made the interpreter allocate for the agent itself.
pub const TAG_INDEX_PROFILER: u32 = 3;
/// `--stacks`: tag of call paths that found no room in a table.
pub const TAG_INDEX_NO_ROOM: u32 = 4;
