//! The library that `LD_PRELOAD` maps into the target.
//!
//! It exports the libc functions that the agent takes the place of, and a constructor that
//! starts the agent. It holds no logic: every function forwards to `strandline-agent`.
#![no_std]
#![allow(missing_docs, clippy::missing_safety_doc)]

mod exec;
mod lookups;

use libc::{c_char, c_int, c_void, off_t};
use strandline_agent::{
    brk as breaks, exec as exec_hooks, malloc as hooks, process, ranges, threads,
};

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The agent doesn't panic; if the compiler kept a check that fails, ending here is all that
    // is left.
    // SAFETY: abort(3) has no preconditions.
    unsafe { libc::abort() }
}

/// Wanted by libcore's unwinding tables in unoptimised builds; never called, since panics abort.
#[cfg(debug_assertions)]
#[no_mangle]
extern "C" fn rust_eh_personality() {}

type Constructor = unsafe extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char);

#[used]
#[link_section = ".init_array"]
static CONSTRUCTOR: Constructor = process::start_c;

#[used]
#[link_section = ".fini_array"]
static DESTRUCTOR: extern "C" fn() = process::ending;

macro_rules! forward {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)? = $to:path;)*) => {
        $(#[no_mangle]
        pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $ret)? {
            // SAFETY: libc's own contract, passed on.
            unsafe { $to($($arg),*) }
        })*
    };
}

forward! {
    fn malloc(n: usize) -> *mut c_void = hooks::malloc;
    fn calloc(items: usize, size: usize) -> *mut c_void = hooks::calloc;
    fn realloc(p: *mut c_void, n: usize) -> *mut c_void = hooks::realloc;
    fn reallocarray(p: *mut c_void, items: usize, size: usize) -> *mut c_void = hooks::reallocarray;
    fn free(p: *mut c_void) = hooks::free;
    fn memalign(align: usize, n: usize) -> *mut c_void = hooks::memalign;
    fn aligned_alloc(align: usize, n: usize) -> *mut c_void = hooks::aligned_alloc;
    fn posix_memalign(out: *mut *mut c_void, align: usize, n: usize) -> c_int = hooks::posix_memalign;
    fn valloc(n: usize) -> *mut c_void = hooks::valloc;
    fn pvalloc(n: usize) -> *mut c_void = hooks::pvalloc;
    fn malloc_trim(pad: usize) -> c_int = hooks::malloc_trim;
    fn mmap(a: *mut c_void, n: usize, prot: c_int, flags: c_int, fd: c_int, at: off_t) -> *mut c_void = ranges::mmap;
    fn mmap64(a: *mut c_void, n: usize, prot: c_int, flags: c_int, fd: c_int, at: off_t) -> *mut c_void = ranges::mmap;
    fn munmap(a: *mut c_void, n: usize) -> c_int = ranges::munmap;
    fn mremap(old: *mut c_void, old_n: usize, n: usize, flags: c_int, new: *mut c_void) -> *mut c_void = ranges::mremap;
    fn brk(to: *mut c_void) -> c_int = breaks::brk;
    fn sbrk(by: isize) -> *mut c_void = breaks::sbrk;
    fn free_sized(p: *mut c_void, n: usize) = hooks::free_sized;
    fn free_aligned_sized(p: *mut c_void, align: usize, n: usize) = hooks::free_aligned_sized;
    fn prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int = threads::prctl;
    fn pthread_setname_np(thread: usize, name: *const c_char) -> c_int = threads::pthread_setname;
    fn dlclose(library: *mut c_void) -> c_int = strandline_agent::dlclose;
    fn system(command: *const c_char) -> c_int = exec_hooks::system;
    fn popen(command: *const c_char, mode: *const c_char) -> *mut c_void = exec_hooks::popen;
    fn _exit(status: c_int) -> ! = process::exit_now;
    fn _Exit(status: c_int) -> ! = process::exit_now;
}
