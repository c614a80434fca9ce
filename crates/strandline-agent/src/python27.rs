//! Python 2.7, whose API has no allocator hooks: its calls of its own functions are redirected
//! in the tables that the dynamic linker filled ([`crate::got`]), as a preloaded definition would
//! do, but only when the process turns out to be a 2.7.
//!
//! It works where libpython is a shared library. In a static 2.7 there is no such table, so the
//! ability is not claimed and the columns that rest on it stay empty.
//!
//! Facts: `PyObject_Malloc` and its kin call malloc above 512 bytes and mmap for arenas of
//! 256 KiB (Objects/obmalloc.c, 2.7.7+).

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use libc::c_void;
use strandline_capture::layout::{self as capture, DOMAIN_OBJECT};

use crate::got::redirect;
use crate::own;
use crate::pools::{self, SHIFT_4K};
use crate::pymem;
use crate::python::{self, MORE, OBJECT};
use crate::region::region;
use crate::sites;
use crate::stacks;
use crate::symbols;
use crate::tls::{tls, Flagged, IN_OBJECT_27, QUIET};

const ARENA: usize = 256 << 10;
static MALLOC: AtomicUsize = AtomicUsize::new(0);
static REALLOC: AtomicUsize = AtomicUsize::new(0);
static FREE: AtomicUsize = AtomicUsize::new(0);

/// True if a mapping of this size, made inside `PyObject_Malloc`, is an arena.
pub fn is_arena(bytes: usize) -> bool {
    bytes == ARENA
}

fn allocated(p: *mut c_void, n: usize) {
    let p = p as usize;
    if stacks::native::on() {
        let tag = || stacks::path::now::<MORE>(DOMAIN_OBJECT);
        pools::allocated::<SHIFT_4K, false, true>(p, n, tag);
    } else if stacks::on() {
        let tag = || stacks::path::now::<OBJECT>(DOMAIN_OBJECT);
        pools::allocated::<SHIFT_4K, false, true>(p, n, tag);
    } else {
        let tag = sites::current_on_this_thread::<OBJECT>;
        pools::allocated::<SHIFT_4K, false, false>(p, n, tag);
    }
}

fn take(p: *mut c_void) -> Option<pools::Taken> {
    if stacks::on() {
        pools::take::<SHIFT_4K, false, true>(p as usize)
    } else {
        pools::take::<SHIFT_4K, false, false>(p as usize)
    }
}

fn gone(t: pools::Taken, p: *mut c_void) {
    if stacks::on() {
        pymem::gone::<true>(t, p as usize);
    } else {
        pymem::gone::<false>(t, p as usize);
    }
}

unsafe extern "C" fn object_malloc(n: usize) -> *mut c_void {
    if tls().flags.get() & QUIET != 0 {
        return own::alloc(n);
    }
    let before = tls().domain.replace(DOMAIN_OBJECT + 1);
    let p = {
        let _inside = Flagged::new(IN_OBJECT_27);
        // SAFETY: the interpreter's own PyObject_Malloc.
        unsafe {
            let f: unsafe extern "C" fn(usize) -> *mut c_void =
                core::mem::transmute(MALLOC.load(Relaxed));
            f(n)
        }
    };
    tls().domain.set(before);
    allocated(p, n);
    p
}

unsafe extern "C" fn object_realloc(p: *mut c_void, n: usize) -> *mut c_void {
    if p.is_null() && tls().flags.get() & QUIET != 0 {
        return own::alloc(n);
    }
    let taken = take(p);
    let before = tls().domain.replace(DOMAIN_OBJECT + 1);
    let fresh = {
        let _inside = Flagged::new(IN_OBJECT_27);
        // SAFETY: the interpreter's own PyObject_Realloc.
        unsafe {
            let f: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void =
                core::mem::transmute(REALLOC.load(Relaxed));
            f(p, n)
        }
    };
    tls().domain.set(before);
    if let Some(t) = taken {
        if fresh.is_null() {
            t.restore();
            return fresh;
        }
        gone(t, p);
    }
    allocated(fresh, n);
    fresh
}

unsafe extern "C" fn object_free(p: *mut c_void) {
    if let Some(t) = take(p) {
        gone(t, p);
    }
    let _inside = Flagged::new(IN_OBJECT_27);
    // SAFETY: the interpreter's own PyObject_Free.
    unsafe {
        let f: unsafe extern "C" fn(*mut c_void) = core::mem::transmute(FREE.load(Relaxed));
        f(p)
    }
}

/// Redirects the object allocator if this is a 2.7 in a shared library.
pub fn start() {
    if python::layout().is_none_or(|l| l.version != (2, 7)) {
        return;
    }
    pools::set_leaky();
    MALLOC.store(symbols::OBJECT_MALLOC.address(), Relaxed);
    REALLOC.store(symbols::OBJECT_REALLOC.address(), Relaxed);
    FREE.store(symbols::OBJECT_FREE.address(), Relaxed);
    let malloc: unsafe extern "C" fn(usize) -> *mut c_void = object_malloc;
    let realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void = object_realloc;
    let free: unsafe extern "C" fn(*mut c_void) = object_free;
    let all = redirect(&[
        (&symbols::OBJECT_MALLOC, malloc as usize),
        (&symbols::OBJECT_REALLOC, realloc as usize),
        (&symbols::OBJECT_FREE, free as usize),
    ]);
    if all {
        region().head.abilities.fetch_or(capture::CAN_BLOCKS, Relaxed);
    }
}

/// Redirects the evaluation of frames to `trace::evaluate`; false if that can't be done.
pub fn hook_frames(below: &AtomicUsize) -> bool {
    below.store(symbols::EVAL_FRAME_EX.address(), Relaxed);
    let mine: unsafe extern "C" fn(usize, usize, usize) -> symbols::Object =
        crate::lines::trace::evaluate;
    redirect(&[(&symbols::EVAL_FRAME_EX, mine as usize)])
}

/// Loaded libraries when `redirect` last looked.
static LIBRARIES: AtomicU64 = AtomicU64::new(0);

/// Extension modules that were loaded since call the originals: redirects them, too.
pub fn look_again() {
    if python::layout().is_none_or(|l| l.version != (2, 7)) || MALLOC.load(Relaxed) == 0 {
        return;
    }
    let count = crate::got::libraries();
    if count != LIBRARIES.swap(count, Relaxed) {
        start();
        if crate::lines::trace::installed() {
            let mine: unsafe extern "C" fn(usize, usize, usize) -> symbols::Object =
                crate::lines::trace::evaluate;
            redirect(&[(&symbols::EVAL_FRAME_EX, mine as usize)]);
        }
    }
}
