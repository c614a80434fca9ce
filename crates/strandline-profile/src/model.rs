//! The values. All sizes and amounts are bytes unless a field's name says otherwise.

use serde::{Deserialize, Serialize};

/// Number of size classes in [`Path::sizes`]: class `i` holds requests of at most `16 << i`
/// bytes that don't fit the class before; the last one holds all larger ones.
pub const SIZE_CLASSES: usize = 20;
/// Number of classes in [`Path::lifetimes`]: class `i` holds blocks that lived while fewer than
/// `1024 << 2i` bytes were allocated by the whole process, and not fewer than the class before
/// says; the last one holds all that lived longer.
pub const LIFETIME_CLASSES: usize = 16;

/// All that was learned of one run: its processes and how it was run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// How it was made.
    pub meta: Meta,
    /// The processes of the run, in the order in which they started.
    pub processes: Vec<Process>,
    /// What objects a process had in use, by their types, if that was asked for.
    pub types: Vec<Types>,
    /// What could not be understood or is missing, one sentence each, for people.
    pub doubts: Vec<String>,
}

/// How a profile was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of the strandline that made it.
    pub strandline: String,
    /// Start of the run, nanoseconds since the epoch.
    pub started: u64,
    /// When this was written, nanoseconds since the epoch.
    pub written: u64,
    /// The run was over when this was written. False: it was running, or strandline was killed.
    pub finished: bool,
    /// The command that was run.
    pub command: Vec<String>,
    /// Exit code of the main process, if it ended by itself.
    pub exit_code: Option<i32>,
    /// Signal that ended the main process.
    pub signal: Option<i32>,
    /// A block is temporary if its thread made at most so many allocations between its birth and
    /// its end.
    pub temporary_distance: u32,
    /// Frames of C, C++ and Rust code were recorded as well.
    pub native: bool,
    /// Call paths go on through the asyncio tasks that await the one that runs.
    pub async_stacks: bool,
}

/// One process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Process id, as the process itself saw it.
    pub pid: u32,
    /// Its parent's process id.
    pub parent_pid: u32,
    /// Made by fork from a process of the run; what it had in use then is inherited.
    pub forked: bool,
    /// Command line.
    pub command: Vec<String>,
    /// Python's version; zeros: not a Python that is understood.
    pub python: (u8, u8, u8),
    /// How it ended.
    pub state: State,
    /// When it started, nanoseconds since the epoch.
    pub started: u64,
    /// Texts that others refer to by index; entry 0 is empty.
    pub strings: Vec<String>,
    /// Places in code; entry 0 is unused.
    pub frames: Vec<Frame>,
    /// Call paths as a tree: a node is a frame called from its parent's. Node 0 is the root (no
    /// frame); parents stand before their children.
    pub nodes: Vec<Node>,
    /// The libraries that native frames are in.
    pub modules: Vec<Module>,
    /// Threads; entry 0 stands for threads that could not be told apart.
    pub threads: Vec<Thread>,
    /// What was allocated, per call path, thread and domain. The same node may appear more than
    /// once with the same thread and domain: add up.
    pub paths: Vec<Path>,
    /// Whole-process figures.
    pub totals: Totals,
    /// What was in use over time.
    pub timeline: Timeline,
}

impl Process {
    /// The innermost node of a call path, from `node` outwards, that is a line of Python; 0: none.
    pub fn innermost_python(&self, node: u32) -> u32 {
        let mut at = node;
        while let Some(n) = self.nodes.get(at as usize).filter(|_| at != 0) {
            match self.frames.get(n.frame as usize) {
                Some(frame) if frame.kind == FrameKind::Python => return at,
                // A parent stands before its child: this comes to an end.
                _ => at = if n.parent < at { n.parent } else { 0 },
            }
        }
        0
    }
}

/// The objects that a process had in use when its program had ended, by a census.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Types {
    /// The process.
    pub pid: u32,
    /// Its types, those with most bytes first.
    pub rows: Vec<TypeRow>,
}

/// Objects of one type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeRow {
    /// Its name.
    pub name: String,
    /// Objects, and bytes of them and of their buffers, as allocated.
    pub in_use: Amount,
}

/// How a process ended, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It ran when the profile was written, or died without a chance to say so.
    #[default]
    Running,
    /// It ended through `exit`: what is in use is what was in use when its program had ended,
    /// before the interpreter freed its own objects.
    Exited,
    /// It replaced itself by another program.
    Replaced,
}

/// A place in code: a line of a function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Function name (`__qualname__` from 3.11 on): index into [`Process::strings`].
    pub function: u32,
    /// File (a native frame: the library's file): index into [`Process::strings`].
    pub file: u32,
    /// Line; 0: unknown.
    pub line: u32,
    /// First line of the function; 0: unknown.
    pub first_line: u32,
    /// What kind of code it is.
    pub kind: FrameKind,
    /// [`FrameKind::Native`]: where the instruction is, as an address in the library's own terms
    /// (its program headers'); else 0.
    pub address: u64,
}

/// What kind of code a frame runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FrameKind {
    /// Python code.
    #[default]
    Python,
    /// Machine code: `file` is the library, `function` its symbol, if it was looked up already.
    Native,
}

/// A frame called from its parent's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Index into [`Process::nodes`]; 0: called by nobody.
    pub parent: u32,
    /// Index into [`Process::frames`].
    pub frame: u32,
}

/// A library, by which its frames can be looked up elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its file: index into [`Process::strings`], as in [`Frame::file`].
    pub file: u32,
    /// Its build id (`NT_GNU_BUILD_ID`); empty: it has none.
    pub build_id: Vec<u8>,
}

/// A thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Name as the program gave it; empty: unknown.
    pub name: String,
    /// Kernel's thread id; 0: unknown.
    pub tid: u32,
    /// Number of allocations it made.
    pub allocations: u64,
}

/// Which allocator a program asked.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Domain {
    /// `PyObject_Malloc`: objects.
    #[default]
    Object,
    /// `PyMem_Malloc`: buffers of objects.
    Mem,
    /// `PyMem_RawMalloc`: the interpreter's own memory.
    Raw,
    /// `malloc` and its family, called by anybody else.
    Malloc,
    /// `mmap`.
    Mmap,
}

/// Bytes and blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Bytes asked for.
    pub bytes: u64,
    /// Number of blocks.
    pub blocks: u64,
}

impl Amount {
    /// The sum.
    pub fn plus(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes.saturating_add(other.bytes),
            blocks: self.blocks.saturating_add(other.blocks),
        }
    }

    /// What is left after taking `other` off; not below 0.
    pub fn minus(self, other: Amount) -> Amount {
        Amount {
            bytes: self.bytes.saturating_sub(other.bytes),
            blocks: self.blocks.saturating_sub(other.blocks),
        }
    }
}

/// What one call path allocated, on one thread in one domain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Index into [`Process::nodes`]: the innermost frame; 0: no code was known to run.
    pub node: u32,
    /// Index into [`Process::threads`].
    pub thread: u32,
    /// The allocator that was asked.
    pub domain: Domain,
    /// All that was allocated, and what a forked child had in use at its start.
    pub allocated: Amount,
    /// The part of it that was in use already when the process was made by fork.
    pub inherited: Amount,
    /// What was freed of it.
    pub freed: Amount,
    /// What of it was in use when the process had most in use.
    pub at_peak: Amount,
    /// What of it was in use when the resident memory was highest.
    pub at_rss_peak: Amount,
    /// What of it was temporary: see [`Meta::temporary_distance`].
    pub temporary: Amount,
    /// Number of allocations by size, as many as are needed: see [`SIZE_CLASSES`].
    pub sizes: Vec<u32>,
    /// Number of freed blocks by lifetime: see [`LIFETIME_CLASSES`].
    pub lifetimes: Vec<u32>,
}

impl Path {
    /// What is in use: at the end of the program, or when the profile was written.
    pub fn in_use(&self) -> Amount {
        self.allocated.minus(self.freed)
    }
}

/// Whole-process figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// In use at the end (see [`State`]).
    pub in_use: u64,
    /// Most that ever was in use, exactly.
    pub peak: u64,
    /// Resident memory at the end, the profiler's own part taken off; 0: unknown.
    pub rss: u64,
    /// Highest resident memory that was seen, the profiler's own part taken off.
    pub rss_peak: u64,
    /// Kept by CPython's small-object allocator and in no live block, at the end.
    pub stranded_arenas: u64,
    /// Kept by the C library's malloc and in no live block, at the end.
    pub stranded_heap: u64,
    /// Allocations whose call paths found no room: they are all under one function that says so.
    pub overflowed: u64,
}

/// What was in use over time: a bounded number of points.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Nanoseconds between two points, at least; doubles as the run goes on.
    pub interval: u64,
    /// The points, in order.
    pub points: Vec<Point>,
}

/// One point of a timeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Nanoseconds since the process's start.
    pub time: u64,
    /// In use.
    pub in_use: u64,
    /// Resident, the profiler's own part taken off; 0: unknown.
    pub rss: u64,
    /// Stranded: resident, kept by an allocator, in no live block.
    pub stranded: u64,
    /// The call paths with most in use then: index into [`Process::paths`], bytes. What is
    /// missing to `in_use` belongs to all others.
    pub top: Vec<(u32, u64)>,
}
