//! The agent's own private memory: a bump allocator over anonymous mappings.
//!
//! Never malloc: what the agent needs must neither be seen by its own hooks nor change the
//! history of the program's heap. Memory is zeroed, is never given back, and is counted, since
//! RSS figures are printed net of it.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use strandline_capture::layout::{OwnMaps, MAX_OWN_MAPS, OWN_MAPS_MAGIC};

/// Page size of x86-64, bytes.
pub const PAGE: usize = 4096;
/// Bytes mapped at a time.
const CHUNK: usize = 1 << 20;

/// What this module mapped, for a census of this process.
static OWN: OwnMaps = OwnMaps {
    magic: OWN_MAPS_MAGIC,
    count: AtomicU64::new(0),
    pools: AtomicU64::new(0),
    chunks: AtomicU64::new(0),
    reserved: 0,
    maps: [const { [const { AtomicU64::new(0) }; 2] }; MAX_OWN_MAPS],
};

/// Tells readers of this process's memory where blocks have their tags.
pub fn publish_pools(table: usize) {
    OWN.pools.store(table as u64, Relaxed);
}

/// The same of chunks of malloc.
pub fn publish_chunks(table: usize) {
    OWN.chunks.store(table as u64, Relaxed);
}

fn note(start: u64, bytes: u64) {
    let last = OWN.count.load(Relaxed).wrapping_sub(1);
    if let Some([first, _]) = OWN.maps.get(last as usize) {
        // The kernel maps downwards: most mappings lie right below the last one.
        if first.compare_exchange(start + bytes, start, Relaxed, Relaxed).is_ok() {
            return;
        }
    }
    if let Some([first, end]) = OWN.maps.get(OWN.count.fetch_add(1, Relaxed) as usize) {
        first.store(start, Relaxed);
        end.store(start + bytes, Relaxed);
    }
}

/// Resident bytes of everything that this module handed out.
static RESIDENT: AtomicI64 = AtomicI64::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// Resident bytes of the agent's private memory (touched pages, counted when handed out).
pub fn resident() -> i64 {
    RESIDENT.load(Relaxed)
}

/// Adds to the agent's resident bytes: pages of sparse tables that were touched.
pub fn add_resident(bytes: usize) {
    RESIDENT.fetch_add(bytes as i64, Relaxed);
}

/// Maps `bytes` of zeroed memory that is resident only where touched; null if the kernel
/// refuses. Goes around the interposed `mmap`.
pub fn map(bytes: usize) -> *mut u8 {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing
    // that exists; arguments are those of mmap(2).
    unsafe {
        let p = libc::syscall(
            libc::SYS_mmap,
            0usize,
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1isize,
            0usize,
        );
        if p == -1 {
            return null_mut();
        }
        note(p as u64, bytes as u64);
        let p = p as usize as *mut u8;
        libc::syscall(libc::SYS_madvise, p, bytes, libc::MADV_NOHUGEPAGE);
        p
    }
}

/// `bytes` of zeroed memory, 16-byte aligned; null if the kernel refuses. The caller holds the
/// agent's lock.
pub fn bump(bytes: usize) -> *mut u8 {
    let bytes = (bytes + 15) & !15;
    let next = NEXT.load(Relaxed);
    if next == 0 || END.load(Relaxed) - next < bytes {
        let size = if bytes > CHUNK / 4 { (bytes + PAGE - 1) & !(PAGE - 1) } else { CHUNK };
        let fresh = map(size);
        if fresh.is_null() {
            return null_mut();
        }
        if size != CHUNK {
            add_resident(size);
            return fresh;
        }
        NEXT.store(fresh as usize, Relaxed);
        END.store(fresh as usize + size, Relaxed);
    }
    let p = NEXT.load(Relaxed);
    let end = p + bytes;
    NEXT.store(end, Relaxed);
    // A page counts when the first byte of it is handed out.
    let pages = end.div_ceil(PAGE) - p.div_ceil(PAGE);
    add_resident(pages * PAGE);
    p as *mut u8
}
