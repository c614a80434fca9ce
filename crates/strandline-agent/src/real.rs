//! libc's own functions, behind the symbols that this library takes the place of.
//!
//! Looked up with `dlsym(RTLD_NEXT)`, so that another preloaded allocator keeps working. While
//! `dlsym` itself allocates, [`crate::own`] serves.

use core::ffi::CStr;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::tls::{tls, Flagged, RESOLVING};

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
        // A lookup is under way on this thread: an allocation now comes from dlsym itself. Other
        // threads that look up at the same time find the same.
        if tls().flags.get() & RESOLVING != 0 {
            return 0;
        }
        let _resolving = Flagged::new(RESOLVING);
        // SAFETY: dlsym(3) with a C string.
        let p = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) } as usize;
        self.address.store(p, Relaxed);
        p
    }
}

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
    BRK c"brk"
    SBRK c"sbrk"
    EXECVE c"execve"
    EXECVPE c"execvpe"
    FEXECVE c"fexecve"
    POSIX_SPAWN c"posix_spawn"
    POSIX_SPAWNP c"posix_spawnp"
    SYSTEM c"system"
    POPEN c"popen"
    EXIT_NOW c"_exit"
    PRCTL c"prctl"
    PTHREAD_SETNAME c"pthread_setname_np"
    DLCLOSE c"dlclose"
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
