//! What is known of glibc's versions, as data. 64-bit; offsets and sizes in bytes.
//!
//! Source: glibc's malloc/malloc.c and malloc/arena.c at the tags named, compared field by field
//! (`struct malloc_state`, `malloc_par`, `_heap_info`, `tcache_perthread_struct`). "Run on" names
//! the versions on which all of the crate was compared with `mallinfo2` of living processes.
//!
//! Which layout a process has is told by the layout itself (a ring of arenas that closes, lists
//! that end), not by a version's number.

/// `struct malloc_state`, and what goes with it.
#[derive(Debug)]
pub(crate) struct Layout {
    /// First and last version.
    pub versions: &'static str,
    /// `fastbinsY`: 10 lists of chunks of 32, 48, ... bytes.
    pub fast: Option<u64>,
    /// `bins`: 127 pairs of pointers. `top` is 16 bytes in front, `next` [`NEXT`] behind.
    pub bins: u64,
    /// `attached_threads`, where there is one.
    pub attached: Option<u64>,
    /// `system_mem`; `max_system_mem` is the word behind.
    pub system_mem: u64,
    /// Size of the struct.
    pub size: u64,
    /// Bytes by which the size in the head of a chunk with its own mapping falls short of the
    /// mapping's end.
    pub mmap_short: u64,
    /// Bits of such a chunk's `prev_size` that are flags and not part of its offset.
    pub mmap_flags: u64,
    /// Layouts of `malloc_par` among these versions.
    pub params: &'static [ParamsLayout],
}

/// Number of bins. The first is the unsorted list.
pub(crate) const BINS: u64 = 127;
/// From `bins` to `next`: 127 pairs of pointers, 16 bytes of `binmap`.
pub(crate) const NEXT: u64 = BINS * 16 + 16;
/// From the address that an empty bin links to, to the bin: it pretends to be a chunk.
pub(crate) const BIN_AS_CHUNK: u64 = 16;
/// Number of fast bins.
pub(crate) const FAST_BINS: u64 = 10;
/// `flags`, behind the 4 bytes of `mutex`.
pub(crate) const FLAGS: u64 = 4;
/// In `flags`: the main arena's memory isn't from sbrk alone.
pub(crate) const NONCONTIGUOUS: u32 = 2;

pub(crate) static LAYOUTS: [Layout; 4] = [
    // Run on 2.43 (Debian sid).
    Layout {
        versions: "2.43",
        fast: None,
        bins: 24,
        attached: Some(2088),
        system_mem: 2096,
        size: 2112,
        mmap_short: 16,
        mmap_flags: 1,
        params: &[PARAMS_2_43],
    },
    // Run on 2.36 (Debian 12) and 2.41 (Debian 13).
    Layout {
        versions: "2.27 to 2.42",
        fast: Some(16),
        bins: 112,
        attached: Some(2176),
        system_mem: 2184,
        size: 2200,
        mmap_short: 0,
        mmap_flags: 0,
        params: &[PARAMS_2_35, PARAMS_2_24],
    },
    // From the sources alone.
    Layout {
        versions: "2.23 to 2.26",
        fast: Some(8),
        bins: 104,
        attached: Some(2168),
        system_mem: 2176,
        size: 2192,
        mmap_short: 0,
        mmap_flags: 0,
        params: &[PARAMS_2_24, PARAMS_2_10],
    },
    // From the sources alone.
    Layout {
        versions: "2.10 to 2.22",
        fast: Some(8),
        bins: 104,
        attached: None,
        system_mem: 2168,
        size: 2184,
        mmap_short: 0,
        mmap_flags: 0,
        params: &[PARAMS_2_10],
    },
];

/// `struct malloc_par`. In all versions: `trim_threshold`, `top_pad`, `mmap_threshold`,
/// `arena_test`, `arena_max` (8 bytes each) at 0; `n_mmaps`, `n_mmaps_max`, `max_n_mmaps`,
/// `no_dyn_threshold` (4 bytes each) together; `mmapped_mem`, `max_mmapped_mem` together.
#[derive(Debug)]
pub(crate) struct ParamsLayout {
    /// `n_mmaps` and the three behind.
    pub n_mmaps: u64,
    /// `mmapped_mem` and the one behind.
    pub mmapped_mem: u64,
    /// `sbrk_base`.
    pub sbrk_base: u64,
    /// `thp_pagesize`, `hp_pagesize`.
    pub page_sizes: Option<u64>,
}

const PARAMS_2_43: ParamsLayout =
    ParamsLayout { n_mmaps: 68, mmapped_mem: 88, sbrk_base: 104, page_sizes: Some(48) };
/// 2.35 to 2.42.
const PARAMS_2_35: ParamsLayout =
    ParamsLayout { n_mmaps: 60, mmapped_mem: 80, sbrk_base: 96, page_sizes: Some(40) };
/// 2.24 to 2.34.
const PARAMS_2_24: ParamsLayout =
    ParamsLayout { n_mmaps: 40, mmapped_mem: 56, sbrk_base: 72, page_sizes: None };
/// 2.10 to 2.23: `max_total_mem` in front of `sbrk_base`.
const PARAMS_2_10: ParamsLayout =
    ParamsLayout { n_mmaps: 40, mmapped_mem: 56, sbrk_base: 80, page_sizes: None };

/// Sizes of `heap_info` (`ar_ptr`, `prev`, `size`, `mprotect_size` in front in all versions):
/// with `pagesize` since 2.35, without before.
pub(crate) const HEAP_INFO_SIZES: [u64; 2] = [48, 32];
/// Alignment of heaps, by likelihood: `HEAP_MAX_SIZE` (twice `DEFAULT_MMAP_THRESHOLD_MAX`), or
/// four huge pages (2 MiB, 32 MiB, 512 MiB, 1 GiB) under glibc.malloc.hugetlb=2, since 2.35.
pub(crate) const HEAP_ALIGNMENTS: [u64; 5] = [64 << 20, 8 << 20, 128 << 20, 2 << 30, 4 << 30];
/// `DEFAULT_MMAP_THRESHOLD_MAX`: no mmap_threshold is above.
pub(crate) const MMAP_THRESHOLD_MAX: u64 = 32 << 20;

/// `tcache_perthread_struct`: 16-bit or 8-bit numbers, then as many lists.
#[derive(Debug)]
pub(crate) struct TcacheLayout {
    /// Number of lists; the first 64 hold chunks of 32, 48, ... bytes each.
    pub lists: u64,
    /// Bytes of a number.
    pub number: u64,
    /// The number says how many chunks the list holds (else: how many more it may).
    pub counts: bool,
    /// Pointers in chunks are stored xor their own address / 4096 (`PROTECT_PTR`).
    pub protected: bool,
    /// The second word of a chunk in the list.
    pub key: TcacheKey,
    /// Size of the chunk that the struct is in, if malloc cut it to fit.
    pub chunk: u64,
}

/// What stands in the second word of a chunk in a tcache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TcacheKey {
    /// Anything.
    None,
    /// The address of the thread's struct.
    Struct,
    /// A random number of the process.
    Random,
}

pub(crate) static TCACHES: [TcacheLayout; 6] = [
    // 2.42 and later: the last 12 lists hold ranges of sizes up to 4 MiB. Run on 2.43.
    tcache(76, 2, false, true, TcacheKey::Random, 0x300),
    // 2.34 to 2.41. Run on 2.36 and 2.41.
    tcache(64, 2, true, true, TcacheKey::Random, 0x290),
    // 2.32, 2.33. From the sources alone, as are those below.
    tcache(64, 2, true, true, TcacheKey::Struct, 0x290),
    // 2.30, 2.31.
    tcache(64, 2, true, false, TcacheKey::Struct, 0x290),
    // 2.29.
    tcache(64, 1, true, false, TcacheKey::Struct, 0x250),
    // 2.26 to 2.28.
    tcache(64, 1, true, false, TcacheKey::None, 0x250),
];

const fn tcache(
    lists: u64,
    number: u64,
    counts: bool,
    protected: bool,
    key: TcacheKey,
    chunk: u64,
) -> TcacheLayout {
    TcacheLayout { lists, number, counts, protected, key, chunk }
}

/// Lists of a tcache that hold chunks of one size.
pub(crate) const TCACHE_SMALL: u64 = 64;
