//! The classes: what a resident byte can be.

/// What a resident byte is. Each is in exactly one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Live objects in blocks of the small-object allocator.
    Objects,
    /// Blocks of the small-object allocator that an object points to: dict tables, list arrays.
    Buffers,
    /// Live objects in chunks of malloc.
    LargeObjects,
    /// Chunks of malloc that an object points to.
    LargeBuffers,
    /// Frames of running functions (3.11 and later keep them in mappings of their own).
    Frames,
    /// Blocks in use that static variables or stacks point to: held by C code.
    NativeBlocks,
    /// Blocks in use that nobody is known to hold.
    UnknownBlocks,
    /// Dead objects that the interpreter keeps for its next ones.
    FreeLists,
    /// Free blocks in pools that are in use.
    FreeBlocks,
    /// Free pools in arenas that are in use.
    FreePools,
    /// Arenas without a block in use.
    FreeArenas,
    /// Headers, remainders and alignment of pools and arenas.
    PoolOverhead,
    /// Pools whose counts don't add up: they were read while they changed.
    TornPools,
    /// Chunks of malloc in use by C code: the interpreter's own and that of libraries.
    MallocInUse,
    /// Freed chunks in malloc's per-thread caches.
    MallocThreadCache,
    /// Freed chunks in malloc's bins.
    MallocBins,
    /// The free end of malloc's heaps.
    MallocTop,
    /// Malloc's own headers.
    MallocOverhead,
    /// Stacks of threads, as far as they are in use.
    Stacks,
    /// Stacks of threads, beyond what is in use now.
    StacksUnused,
    /// Code and constants of the executable and of libraries.
    Code,
    /// Writable data of the executable and of libraries.
    LibraryData,
    /// Files that the program mapped.
    Files,
    /// Memory that processes share.
    SharedMemory,
    /// What the kernel maps: vdso and the like.
    Kernel,
    /// strandline's own, in a program that it runs.
    Profiler,
    /// What couldn't be named.
    Unnamed,
}

impl Class {
    /// All classes, in the order of a report.
    pub const ALL: [Class; 27] = [
        Class::Objects,
        Class::Buffers,
        Class::LargeObjects,
        Class::LargeBuffers,
        Class::Frames,
        Class::NativeBlocks,
        Class::UnknownBlocks,
        Class::FreeLists,
        Class::FreeBlocks,
        Class::FreePools,
        Class::FreeArenas,
        Class::PoolOverhead,
        Class::TornPools,
        Class::MallocInUse,
        Class::MallocThreadCache,
        Class::MallocBins,
        Class::MallocTop,
        Class::MallocOverhead,
        Class::Stacks,
        Class::StacksUnused,
        Class::Code,
        Class::LibraryData,
        Class::Files,
        Class::SharedMemory,
        Class::Kernel,
        Class::Profiler,
        Class::Unnamed,
    ];

    /// Its name in JSON: stable.
    pub fn name(self) -> &'static str {
        match self {
            Class::Objects => "python_objects",
            Class::Buffers => "python_buffers",
            Class::LargeObjects => "python_large_objects",
            Class::LargeBuffers => "python_large_buffers",
            Class::Frames => "python_frames",
            Class::NativeBlocks => "python_native_blocks",
            Class::UnknownBlocks => "python_unknown_blocks",
            Class::FreeLists => "python_free_lists",
            Class::FreeBlocks => "python_free_blocks",
            Class::FreePools => "python_free_pools",
            Class::FreeArenas => "python_free_arenas",
            Class::PoolOverhead => "python_pool_overhead",
            Class::TornPools => "python_torn_pools",
            Class::MallocInUse => "malloc_in_use",
            Class::MallocThreadCache => "malloc_thread_cache",
            Class::MallocBins => "malloc_bins",
            Class::MallocTop => "malloc_top",
            Class::MallocOverhead => "malloc_overhead",
            Class::Stacks => "stacks",
            Class::StacksUnused => "stacks_unused",
            Class::Code => "code",
            Class::LibraryData => "library_data",
            Class::Files => "files",
            Class::SharedMemory => "shared_memory",
            Class::Kernel => "kernel",
            Class::Profiler => "profiler",
            Class::Unnamed => "unnamed",
        }
    }

    /// What it is, for people.
    pub fn text(self) -> &'static str {
        match self {
            Class::Objects => "live Python objects",
            Class::Buffers => "their small buffers (dict tables, list arrays)",
            Class::LargeObjects => "live Python objects over 512 bytes",
            Class::LargeBuffers => "their large buffers (bytes, lists, arrays)",
            Class::Frames => "frames of running functions",
            Class::NativeBlocks => "Python blocks that C code holds",
            Class::UnknownBlocks => "Python blocks in use, holder unknown",
            Class::FreeLists => "dead objects kept for re-use (free lists)",
            Class::FreeBlocks => "free blocks in pools that are in use",
            Class::FreePools => "free pools in arenas that are in use",
            Class::FreeArenas => "arenas that are wholly free",
            Class::PoolOverhead => "headers and remainders of pools",
            Class::TornPools => "pools read while they changed",
            Class::MallocInUse => "malloc: in use by C code",
            Class::MallocThreadCache => "malloc: freed, in thread caches",
            Class::MallocBins => "malloc: freed, in bins (holes)",
            Class::MallocTop => "malloc: free end of the heap (top)",
            Class::MallocOverhead => "malloc: its own headers",
            Class::Stacks => "thread stacks, in use",
            Class::StacksUnused => "thread stacks, no longer in use",
            Class::Code => "code and constants of libraries",
            Class::LibraryData => "data of libraries",
            Class::Files => "mapped files",
            Class::SharedMemory => "shared memory",
            Class::Kernel => "mapped by the kernel (vdso)",
            Class::Profiler => "strandline's own, not there without it",
            Class::Unnamed => "not named",
        }
    }

    /// Whose it is.
    pub fn group(self) -> Group {
        match self {
            Class::Objects
            | Class::Buffers
            | Class::LargeObjects
            | Class::LargeBuffers
            | Class::Frames
            | Class::NativeBlocks
            | Class::UnknownBlocks
            | Class::PoolOverhead
            | Class::TornPools => Group::Python,
            Class::FreeLists
            | Class::FreeBlocks
            | Class::FreePools
            | Class::FreeArenas
            | Class::MallocThreadCache
            | Class::MallocBins
            | Class::MallocTop
            | Class::StacksUnused => Group::Freed,
            Class::MallocInUse | Class::MallocOverhead | Class::Stacks => Group::Native,
            Class::Code
            | Class::LibraryData
            | Class::Files
            | Class::SharedMemory
            | Class::Kernel
            | Class::Profiler => Group::Mapped,
            Class::Unnamed => Group::Unnamed,
        }
    }
}

/// A few classes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// In use by Python, its allocator's own structures included.
    Python,
    /// Nobody uses it, and an allocator keeps it: stranded.
    Freed,
    /// In use by C code.
    Native,
    /// Libraries, files, shared memory.
    Mapped,
    /// Not named.
    Unnamed,
}

impl Group {
    /// All groups, in the order of a report.
    pub const ALL: [Group; 5] =
        [Group::Python, Group::Freed, Group::Native, Group::Mapped, Group::Unnamed];

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Group::Python => "in use by Python",
            Group::Freed => "freed, kept by an allocator",
            Group::Native => "in use by C code",
            Group::Mapped => "libraries and files",
            Group::Unnamed => "not named",
        }
    }

    /// Its classes.
    pub fn classes(self) -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(move |class| class.group() == self)
    }
}

/// Bytes by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums([u64; Class::ALL.len()]);

impl Sums {
    /// Adds `bytes` to `class`.
    pub fn add(&mut self, class: Class, bytes: u64) {
        self.0[class as usize] += bytes;
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &Sums) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Bytes of `class`.
    pub fn get(&self, class: Class) -> u64 {
        self.0[class as usize]
    }

    /// Bytes of all classes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_classes_is_whole_and_in_order() {
        for (i, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, i);
        }
        assert_eq!(Class::Unnamed as usize + 1, Class::ALL.len());
        let mut names: Vec<_> = Class::ALL.iter().map(|c| c.name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Class::ALL.len());
    }
}
