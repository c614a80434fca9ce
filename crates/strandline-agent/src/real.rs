//! libc's own functions, behind the symbols that this library takes the place of.
//!
//! Looked up with `dlsym(RTLD_NEXT)`, so that another preloaded allocator keeps working. While
//! `dlsym` itself allocates, a small static buffer serves.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// One of libc's functions.
pub struct Real {
    name: &'static CStr,
    address: AtomicUsize,
}

impl Real {
    const fn new(name: &'static CStr) -> Self {
        Real { name, address: AtomicUsize::new(0) }
    }

    /// Its address; 0 if libc doesn't have it, or while it is being looked up.
    #[inline(always)]
    pub fn address(&self) -> usize {
        let p = self.address.load(Relaxed);
        if p != 0 {
            return p;
        }
        self.resolve()
    }

    #[cold]
    fn resolve(&self) -> usize {
        if RESOLVING.swap(true, Relaxed) {
            return 0;
        }
        // SAFETY: dlsym(3) with a C string.
        let p = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) } as usize;
        RESOLVING.store(false, Relaxed);
        self.address.store(p, Relaxed);
        p
    }
}

/// A lookup is under way: an allocation now comes from dlsym itself.
static RESOLVING: AtomicBool = AtomicBool::new(false);

macro_rules! real {
    ($($id:ident $name:literal)*) => {
        $(#[allow(missing_docs)] pub static $id: Real = Real::new($name);)*
    };
}

real! {
    MALLOC c"malloc"
    FREE c"free"
    CALLOC c"calloc"
    REALLOC c"realloc"
    MEMALIGN c"memalign"
    ALIGNED_ALLOC c"aligned_alloc"
    POSIX_MEMALIGN c"posix_memalign"
    VALLOC c"valloc"
    PVALLOC c"pvalloc"
    MALLOC_TRIM c"malloc_trim"
    MMAP c"mmap"
    MUNMAP c"munmap"
    MREMAP c"mremap"
    EXECVE c"execve"
    EXECVPE c"execvpe"
    FEXECVE c"fexecve"
    POSIX_SPAWN c"posix_spawn"
    POSIX_SPAWNP c"posix_spawnp"
    SYSTEM c"system"
    POPEN c"popen"
    EXIT_NOW c"_exit"
}

/// Looks the functions up that every program uses, while there is one thread.
pub fn resolve_early() {
    for f in [&MALLOC, &FREE, &CALLOC, &REALLOC, &MMAP, &MUNMAP, &MREMAP] {
        f.address();
    }
}

/// Calls one of libc's functions by its type.
macro_rules! libc_call {
    ($real:expr, fn($($arg:expr => $type:ty),* $(,)?) $(-> $ret:ty)?) => {{
        let f: unsafe extern "C" fn($($type),*) $(-> $ret)? =
            core::mem::transmute::<usize, _>($real.address());
        f($($arg),*)
    }};
}
pub(crate) use libc_call;

const BOOT_BYTES: usize = 16 * 1024;

#[repr(align(16))]
struct Boot(UnsafeCell<[u8; BOOT_BYTES]>);
// SAFETY: handed out in disjoint pieces by an atomic counter.
unsafe impl Sync for Boot {}
static BOOT: Boot = Boot(UnsafeCell::new([0; BOOT_BYTES]));
static BOOT_USED: AtomicUsize = AtomicUsize::new(0);

/// Zeroed memory from the static buffer, for allocations made while `dlsym` runs; null when it
/// is used up.
pub fn boot_alloc(bytes: usize) -> *mut u8 {
    let bytes = (bytes.max(1) + 15) & !15;
    let at = BOOT_USED.fetch_add(bytes, Relaxed);
    if at + bytes > BOOT_BYTES {
        return core::ptr::null_mut();
    }
    // SAFETY: `at + bytes` is within the buffer.
    unsafe { (BOOT.0.get() as *mut u8).add(at) }
}

/// True if `p` came from `boot_alloc`: it must not reach libc's free.
#[inline(always)]
pub fn is_boot(p: usize) -> bool {
    p.wrapping_sub(BOOT.0.get() as usize) < BOOT_BYTES
}

/// Bytes from `p` to the end of the static buffer.
pub fn boot_room(p: usize) -> usize {
    BOOT.0.get() as usize + BOOT_BYTES - p
}
