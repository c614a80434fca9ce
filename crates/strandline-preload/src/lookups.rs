//! Looking up symbols by name: [`strandline_agent::lookups`].

use libc::{c_char, c_int, c_void};
use strandline_agent::lookups::{self as hooks, Hook};

macro_rules! by_name {
    ($($function:ident)*) => {
        [$(Hook {
            name: match core::ffi::CStr::from_bytes_with_nul(
                concat!(stringify!($function), "\0").as_bytes(),
            ) {
                Ok(name) => name,
                Err(_) => c"",
            },
            ours: crate::$function as *const c_void,
        }),*]
    };
}

/// The functions that count memory.
static FAMILY: [Hook; 19] = by_name! {
    malloc calloc realloc reallocarray free free_sized free_aligned_sized
    memalign aligned_alloc posix_memalign valloc pvalloc malloc_trim
    mmap mmap64 munmap mremap brk sbrk
};

#[no_mangle]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: libc's own contract, passed on.
    unsafe { hooks::dlsym(handle, name, &FAMILY) }
}

#[no_mangle]
pub unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    // SAFETY: libc's own contract, passed on.
    unsafe { hooks::dlvsym(handle, name, version, &FAMILY) }
}

/// For the package `strandline`, which loads this library into a process that already runs: fills
/// the module `_strandline`. Called with the GIL. 0, or why not ([`strandline_agent::attach`]).
#[no_mangle]
pub unsafe extern "C" fn strandline_attach(module: *mut c_void) -> c_int {
    // SAFETY: the contract of the function, passed on.
    unsafe { strandline_agent::attach::prepare(module, &FAMILY) }
}

/// For the drop-in for memory_profiler: fills a module with [`strandline_agent::meter`]'s functions.
/// Called with the GIL. 0, or why not.
#[no_mangle]
pub unsafe extern "C" fn strandline_meter(module: *mut c_void) -> c_int {
    // SAFETY: the contract of the function, passed on.
    unsafe { strandline_agent::meter::prepare(module) }
}
