//! Starting in a process that already runs: the package `strandline` loads this library with
//! `dlopen`, nobody preloaded it.
//!
//! Under the GIL: [`prepare`] fills a module with what the package needs; who only wants memory given
//! back needs no more. The package finds out where the interpreter's arenas are (a census says so) and
//! says it (`native_arena`); `native_begin` installs the hooks. The capture is private memory, which
//! `native_write` copies to a file.
//!
//! malloc can't be preloaded any more: the tables of the dynamic linker are pointed to our functions
//! in every library that is there ([`crate::got::interpose`]), and in those that come later when code
//! allocates that didn't before. What was allocated earlier isn't known: its free counts for nothing,
//! and bytes in use are counted from the beginning on. Nothing is ever taken out again.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

use libc::c_int;
use strandline_capture::layout as capture;

use crate::lines::monitoring;
use crate::lookups::{self, Hook};
use crate::map::Map;
use crate::symbols::{self, call, Object};
use crate::tls::Quiet;
use crate::{
    fork, front, got, heap, lock, malloc, module, pools, pymem, python, real, region, rss, sites,
};

static PREPARED: AtomicBool = AtomicBool::new(false);
static BEGUN: AtomicBool = AtomicBool::new(false);
/// What takes the place of libc's functions.
static HOOKS: (AtomicPtr<Hook>, AtomicUsize) =
    (AtomicPtr::new(core::ptr::null_mut()), AtomicUsize::new(0));
/// Loaded libraries when their tables were last pointed to ours.
static LIBRARIES: AtomicU64 = AtomicU64::new(0);

/// True in a process that already ran when the agent came.
#[inline(always)]
pub fn is() -> bool {
    PREPARED.load(Relaxed)
}

/// [`prepare`]: done.
const DONE: c_int = 0;
/// [`prepare`]: the process was started under strandline.
const PRESENT: c_int = 1;
/// [`prepare`]: not a CPython whose structures are known, or one without a GIL.
const UNKNOWN_PYTHON: c_int = 2;
/// [`prepare`]: malloc isn't the C library's.
const OTHER_MALLOC: c_int = 3;
/// [`prepare`]: no memory.
const NO_MEMORY: c_int = 4;

/// What the module gets beyond that of [`module::execute`].
static FUNCTIONS: [(&CStr, front::Native); 2] =
    [(c"native_arena", native_arena), (c"native_begin", native_begin)];

/// Fills `module` and hooks the arena allocator. 0, or why not. An exception may be set.
///
/// # Safety
/// The GIL is held; `module` is a live module.
pub unsafe fn prepare(module: Object, hooks: &'static [Hook]) -> c_int {
    if region::claimed() {
        return if is() { DONE } else { PRESENT };
    }
    let known = python::detect() && region::region().head.refusal.load(Relaxed) == 0;
    if !known || !symbols::MEM_SET_ALLOCATOR.found() || python::layout().is_none() {
        return UNKNOWN_PYTHON;
    }
    // SAFETY: dlsym(3) with a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) } as usize;
    let real = real::MALLOC.address();
    if real != lookups::libcs(c"malloc") || !lookups::leads_to_libcs(found, c"malloc") {
        return OTHER_MALLOC;
    }
    if !region::claim_private() {
        return NO_MEMORY;
    }
    PREPARED.store(true, Relaxed);
    HOOKS.0.store(hooks.as_ptr() as *mut Hook, Relaxed);
    HOOKS.1.store(hooks.len(), Relaxed);
    // SAFETY: the caller's promise.
    if unsafe { module::execute(module) != 0 || add(module).is_none() } {
        return NO_MEMORY;
    }
    pools::reserve();
    pymem::wrap_arenas();
    DONE
}

/// # Safety
/// As `prepare`.
unsafe fn add(module: Object) -> Option<()> {
    // SAFETY: the caller's promise.
    unsafe {
        let names = call!(symbols::MODULE_DICT, fn(module => Object) -> Object);
        for (name, f) in &FUNCTIONS {
            let object = monitoring::method_object(name, *f as usize, monitoring::VARARGS);
            front::set(names, name, object)?;
        }
    }
    Some(())
}

/// (address, bytes): pymalloc has an arena there
unsafe extern "C" fn native_arena(_: Object, args: Object) -> Object {
    // SAFETY: only the package calls this, with two ints.
    let (at, bytes) = unsafe { (front::int_item(args, 0), front::int_item(args, 1)) };
    let new = !BEGUN.load(Relaxed)
        && !pools::is_arena(at as usize, bytes as usize)
        && !is_gone(at as usize);
    if new {
        pools::arena_added(at as usize, bytes as usize);
    }
    front::none()
}

/// Arenas that were given back before they were known.
static GONE: Map = Map::new();

/// pymalloc gives the arena at `base` back, which isn't known (yet).
pub fn arena_gone(base: usize) {
    if is() && !BEGUN.load(Relaxed) {
        if let Some(_guard) = lock::lock() {
            GONE.insert(base as u64 >> 12, 1);
        }
    }
}

fn is_gone(base: usize) -> bool {
    let Some(_guard) = lock::lock() else { return true };
    GONE.get(base as u64 >> 12).is_some()
}

/// () -> the decorator `profile`, or None if lines can't be told: counting begins
unsafe extern "C" fn native_begin(_: Object, _: Object) -> Object {
    let tstate = python::current_tstate();
    if tstate == 0 || BEGUN.swap(true, Relaxed) {
        return front::none();
    }
    let h = &region::region().head;
    let _quiet = Quiet::new();
    sites::start();
    heap::start();
    sites::note_thread(tstate);
    pymem::wrap();
    interpose();
    malloc::start();
    h.abilities.fetch_or(capture::CAN_MALLOC | capture::CAME_LATE, Relaxed);
    rss::write_ledger(&h.start);
    // SAFETY: handlers that live as long as the library, which is never unloaded; the GIL is held
    // and no exception is set.
    let profile = unsafe {
        libc::pthread_atfork(
            Some(fork::before_fork),
            Some(fork::after_fork_parent),
            Some(fork::after_fork_child),
        );
        front::profile()
    };
    if profile.is_null() {
        return front::none();
    }
    h.abilities.fetch_or(capture::CAN_FRONT | capture::CAN_LINES, Relaxed);
    profile
}

/// Points the tables of libraries that came since to our functions. The agent's lock is not held,
/// since the dynamic linker has one of its own.
pub fn look_again() {
    if BEGUN.load(Relaxed) && got::libraries() != LIBRARIES.load(Relaxed) {
        interpose();
    }
}

fn interpose() {
    LIBRARIES.store(got::libraries(), Relaxed);
    let (first, count) = (HOOKS.0.load(Relaxed), HOOKS.1.load(Relaxed));
    if !first.is_null() {
        // SAFETY: the static slice that `prepare` was given.
        got::interpose(unsafe { core::slice::from_raw_parts(first, count) });
    }
}
