//! CPython's allocators (3.6+): wrapping the OBJ and MEM domains and the arena allocator.
//!
//! The RAW domain isn't wrapped: it ends in malloc, which is seen there. A request that pymalloc
//! passes on to malloc is seen there too, so a hook here counts only blocks that lie in arenas:
//! nothing is counted twice.
//!
//! Facts: PyMemAllocatorEx, PyObjectArenaAllocator, domains RAW 0, MEM 1, OBJ 2
//! (Include/cpython/pymem.h, Include/cpython/objimpl.h); the tables are static, so they can be
//! set before the interpreter starts; start-up sets them again in 3.6, and in every version under
//! PYTHONMALLOC and `-X dev`, hence `wrap` is called again once the interpreter runs.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::{c_int, c_void};
use strandline_capture::layout as capture;

use crate::counters;
use crate::lines::monitoring;
use crate::own;
use crate::pools::{self, SHIFT_16K, SHIFT_4K};
use crate::python::{self, CFRAME, DIRECT, MORE, OBJECT};
use crate::region::region;
use crate::sites;
use crate::stacks;
use crate::symbols::{self, call};
use crate::tls::{tls, Flagged, IN_ARENA, QUIET};

const RAW: c_int = 0;
const MEM: c_int = 1;
const OBJ: c_int = 2;

/// `PyMemAllocatorEx`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Allocator {
    /// What its functions are given first.
    pub ctx: *mut c_void,
    /// Bytes wanted.
    pub malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    /// Items, bytes of one.
    pub calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    /// The block.
    pub free: unsafe extern "C" fn(*mut c_void, *mut c_void),
}

unsafe extern "C" fn no_malloc(_: *mut c_void, _: usize) -> *mut c_void {
    core::ptr::null_mut()
}

unsafe extern "C" fn no_calloc(_: *mut c_void, _: usize, _: usize) -> *mut c_void {
    core::ptr::null_mut()
}

unsafe extern "C" fn no_realloc(_: *mut c_void, _: *mut c_void, _: usize) -> *mut c_void {
    core::ptr::null_mut()
}

unsafe extern "C" fn no_free(_: *mut c_void, _: *mut c_void) {}

/// What stands in a table before it is filled.
const EMPTY: Allocator = Allocator {
    ctx: core::ptr::null_mut(),
    malloc: no_malloc,
    calloc: no_calloc,
    realloc: no_realloc,
    free: no_free,
};

/// `PyObjectArenaAllocator`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ArenaAllocator {
    ctx: *mut c_void,
    alloc: Option<unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void>,
    free: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, usize)>,
}

struct Kept<T>(UnsafeCell<T>);
// SAFETY: written in the constructor or, under the GIL, by `wrap`; a hook that reads a table is
// only installed after it was written.
unsafe impl<T> Sync for Kept<T> {}

static BELOW_RAW: Kept<Allocator> = Kept(UnsafeCell::new(EMPTY));
static BELOW_MEM: Kept<Allocator> = Kept(UnsafeCell::new(EMPTY));
static BELOW_OBJ: Kept<Allocator> = Kept(UnsafeCell::new(EMPTY));
static BELOW_ARENA: Kept<ArenaAllocator> =
    Kept(UnsafeCell::new(ArenaAllocator { ctx: core::ptr::null_mut(), alloc: None, free: None }));

/// The allocator that was wrapped.
///
/// # Safety
/// `ctx` is what `wrap_domain` gave the interpreter: the address of a static table.
#[inline(always)]
pub unsafe fn below(ctx: *mut c_void) -> &'static Allocator {
    // SAFETY: as the caller vouches.
    unsafe { &*(ctx as *const Allocator) }
}

/// While it lives, what reaches malloc was asked of the allocator behind `ctx`.
struct Passing<const STACKS: bool>(u32);

impl<const STACKS: bool> Passing<STACKS> {
    /// `n`: bytes asked for.
    #[inline(always)]
    fn on<const FAST: bool>(ctx: *mut c_void, n: usize) -> Self {
        if !STACKS || FAST && is_small(n) {
            return Passing(OWN);
        }
        // A request that goes through several allocators was asked of the first.
        let before = tls().domain.get();
        if before == 0 {
            tls().domain.set(domain_of(ctx) + 1);
        }
        Passing(before)
    }
}

/// What stands in [`Passing`] if nothing reaches malloc.
const OWN: u32 = u32::MAX;

/// True if pymalloc serves so many bytes itself, unless memory is short.
#[inline(always)]
pub fn is_small(n: usize) -> bool {
    n.wrapping_sub(1) < pools::LARGEST
}

impl<const STACKS: bool> Drop for Passing<STACKS> {
    #[inline(always)]
    fn drop(&mut self) {
        if STACKS && self.0 != OWN {
            tls().domain.set(self.0);
        }
    }
}

/// `DOMAIN_*` of the allocator whose table is at `ctx`.
#[inline(always)]
fn domain_of(ctx: *mut c_void) -> u32 {
    if ctx == BELOW_OBJ.0.get() as *mut c_void {
        capture::DOMAIN_OBJECT
    } else if ctx == BELOW_MEM.0.get() as *mut c_void {
        capture::DOMAIN_MEM
    } else {
        capture::DOMAIN_RAW
    }
}

/// Records a block if it lies in an arena; true if so.
#[inline(always)]
fn allocated<const SHIFT: u32, const KIND: u32, const FAST: bool, const STACKS: bool>(
    ctx: *mut c_void,
    p: usize,
    n: usize,
) -> bool {
    if STACKS {
        let tag = || stacks::path::now::<KIND>(domain_of(ctx));
        pools::allocated::<SHIFT, FAST, true>(p, n, tag)
    } else {
        pools::allocated::<SHIFT, FAST, false>(p, n, sites::current_on_this_thread::<KIND>)
    }
}

/// malloc of a domain, whatever lies below.
///
/// # Safety
/// As `PyMemAllocatorEx.malloc`; `ctx` is the address of a wrapped allocator.
pub unsafe extern "C" fn hook_malloc<
    const SHIFT: u32,
    const KIND: u32,
    const FAST: bool,
    const STACKS: bool,
>(
    ctx: *mut c_void,
    n: usize,
) -> *mut c_void {
    if tls().flags.get() & QUIET != 0 {
        return own::alloc(n);
    }
    // SAFETY: the interpreter hands on what it was given.
    let b = unsafe { below(ctx) };
    let passing = Passing::<STACKS>::on::<FAST>(ctx, n);
    // SAFETY: the wrapped allocator's own function with its own context.
    let p = unsafe { (b.malloc)(b.ctx, n) };
    drop(passing);
    let in_arena = allocated::<SHIFT, KIND, FAST, STACKS>(ctx, p as usize, n);
    if KIND != OBJECT && monitoring::may_be_data(n) && in_arena {
        monitoring::check_data(p as usize);
    }
    p
}

/// calloc of a domain, whatever lies below.
///
/// # Safety
/// As `PyMemAllocatorEx.calloc`; `ctx` is the address of a wrapped allocator.
pub unsafe extern "C" fn hook_calloc<
    const SHIFT: u32,
    const KIND: u32,
    const FAST: bool,
    const STACKS: bool,
>(
    ctx: *mut c_void,
    items: usize,
    size: usize,
) -> *mut c_void {
    if tls().flags.get() & QUIET != 0 {
        return own::alloc(items.saturating_mul(size));
    }
    // SAFETY: the interpreter hands on what it was given.
    let (b, n) = (unsafe { below(ctx) }, items.wrapping_mul(size));
    let passing = Passing::<STACKS>::on::<FAST>(ctx, n);
    // SAFETY: as in `hook_malloc`.
    let p = unsafe { (b.calloc)(b.ctx, items, size) };
    drop(passing);
    allocated::<SHIFT, KIND, FAST, STACKS>(ctx, p as usize, n);
    p
}

unsafe extern "C" fn hook_realloc<
    const SHIFT: u32,
    const KIND: u32,
    const FAST: bool,
    const STACKS: bool,
>(
    ctx: *mut c_void,
    p: *mut c_void,
    n: usize,
) -> *mut c_void {
    if p.is_null() && tls().flags.get() & QUIET != 0 {
        return own::alloc(n);
    }
    // SAFETY: the interpreter hands on what it was given.
    let b = unsafe { below(ctx) };
    if !FAST && own::owns(p as usize) {
        return own::realloc(p, n);
    }
    let taken = pools::take::<SHIFT, FAST, STACKS>(p as usize);
    let _moving = (KIND == MORE).then(|| stacks::awaiting::Moving::new(p as usize));
    let passing = Passing::<STACKS>::on::<false>(ctx, n);
    // SAFETY: as in `hook_malloc`.
    let fresh = unsafe { (b.realloc)(b.ctx, p, n) };
    drop(passing);
    if let Some(t) = taken {
        if fresh.is_null() {
            t.restore();
            return fresh;
        }
        gone::<STACKS>(t, p as usize);
    }
    allocated::<SHIFT, KIND, false, STACKS>(ctx, fresh as usize, n);
    fresh
}

/// free of a domain, whatever lies below.
///
/// # Safety
/// As `PyMemAllocatorEx.free`; `ctx` is the address of a wrapped allocator.
pub unsafe extern "C" fn hook_free<
    const SHIFT: u32,
    const KIND: u32,
    const FAST: bool,
    const STACKS: bool,
>(
    ctx: *mut c_void,
    p: *mut c_void,
) {
    // Below FAST hooks is pymalloc, which passes on to libc what isn't its own. A debug allocator
    // wants blocks that it has made itself.
    if !FAST && own::owns(p as usize) {
        own::free(p as usize);
        return;
    }
    if let Some(t) = pools::take::<SHIFT, FAST, STACKS>(p as usize) {
        gone::<STACKS>(t, p as usize);
    }
    // SAFETY: the interpreter hands on what it was given.
    let b = unsafe { below(ctx) };
    // SAFETY: as in `hook_malloc`.
    unsafe { (b.free)(b.ctx, p) };
}

/// Counts a block as freed, and tells who waits for it.
#[inline(always)]
pub fn gone<const STACKS: bool>(t: pools::Taken, p: usize) {
    if STACKS {
        t.count_path(p);
    } else {
        t.count();
    }
    if counters::is_watched(t.tag()) {
        if t.tag() == sites::PROFILER {
            counters::not_the_programs(t.size());
        } else {
            sites::watched_block_freed(p);
        }
    }
}

/// The arena allocator also serves the frames' stack (3.11+, `_PyObject_VirtualAlloc`), in
/// smaller pieces.
fn is_arena(bytes: usize) -> bool {
    python::layout().is_some_and(|l| bytes >= l.obmalloc.arena_size as usize)
}

unsafe extern "C" fn arena_alloc(_ctx: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: written before this hook was installed.
    let b = unsafe { &*BELOW_ARENA.0.get() };
    let Some(f) = b.alloc else { return core::ptr::null_mut() };
    if !is_arena(bytes) {
        // A chunk of the frames' stack (3.11+): counted as the mapping that it is.
        // SAFETY: the wrapped arena allocator's own function.
        return unsafe { f(b.ctx, bytes) };
    }
    let p = {
        let _inside = Flagged::new(IN_ARENA);
        // SAFETY: as above.
        unsafe { f(b.ctx, bytes) }
    };
    if !p.is_null() {
        pools::arena_added(p as usize, bytes);
    }
    p
}

unsafe extern "C" fn arena_free(_ctx: *mut c_void, p: *mut c_void, bytes: usize) {
    // SAFETY: written before this hook was installed.
    let b = unsafe { &*BELOW_ARENA.0.get() };
    let Some(f) = b.free else { return };
    if !is_arena(bytes) {
        // SAFETY: the wrapped arena allocator's own function.
        unsafe { f(b.ctx, p, bytes) };
    } else {
        crate::rss::before_release();
        if !pools::is_arena(p as usize, bytes) {
            crate::attach::arena_gone(p as usize);
        }
        pools::arena_removed(p as usize, bytes);
        let _inside = Flagged::new(IN_ARENA);
        // SAFETY: the wrapped arena allocator's own function.
        unsafe { f(b.ctx, p, bytes) };
    }
}

fn get(domain: c_int) -> Allocator {
    let mut a = EMPTY;
    // SAFETY: PyMem_GetAllocator fills the table.
    unsafe {
        call!(symbols::MEM_GET_ALLOCATOR, fn(domain => c_int, &mut a as *mut Allocator => *mut Allocator))
    };
    a
}

fn hooks<const SHIFT: u32, const KIND: u32, const FAST: bool>(ctx: *mut c_void) -> Allocator {
    if stacks::native::on() {
        hooks_of::<SHIFT, MORE, FAST, true>(ctx)
    } else if stacks::path::has_more() {
        stack_hooks::<SHIFT, MORE, FAST>(ctx)
    } else if stacks::on() {
        stack_hooks::<SHIFT, KIND, FAST>(ctx)
    } else {
        hooks_of::<SHIFT, KIND, FAST, false>(ctx)
    }
}

/// The hooks of `--stacks`.
fn stack_hooks<const SHIFT: u32, const KIND: u32, const FAST: bool>(ctx: *mut c_void) -> Allocator {
    let all = hooks_of::<SHIFT, KIND, FAST, true>(ctx);
    match (FAST && stacks::is_usual_distance(), stacks::events::are_on()) {
        (false, _) => all,
        (true, false) => usual_hooks::<SHIFT, KIND, false>(all),
        (true, true) => usual_hooks::<SHIFT, KIND, true>(all),
    }
}

/// `all`, with those of [`stacks::hooks`] where there are any.
fn usual_hooks<const SHIFT: u32, const KIND: u32, const EVENTS: bool>(all: Allocator) -> Allocator {
    if domain_of(all.ctx) == capture::DOMAIN_OBJECT {
        usual_hooks_of::<SHIFT, KIND, { capture::DOMAIN_OBJECT }, EVENTS>(all)
    } else {
        usual_hooks_of::<SHIFT, KIND, { capture::DOMAIN_MEM }, EVENTS>(all)
    }
}

fn usual_hooks_of<const SHIFT: u32, const KIND: u32, const DOMAIN: u32, const EVENTS: bool>(
    all: Allocator,
) -> Allocator {
    Allocator {
        malloc: stacks::hooks::malloc::<SHIFT, KIND, DOMAIN, EVENTS>,
        calloc: stacks::hooks::calloc::<SHIFT, KIND, DOMAIN, EVENTS>,
        free: stacks::hooks::free::<SHIFT, EVENTS>,
        ..all
    }
}

fn hooks_of<const SHIFT: u32, const KIND: u32, const FAST: bool, const STACKS: bool>(
    ctx: *mut c_void,
) -> Allocator {
    Allocator {
        ctx,
        malloc: hook_malloc::<SHIFT, KIND, FAST, STACKS>,
        calloc: hook_calloc::<SHIFT, KIND, FAST, STACKS>,
        realloc: hook_realloc::<SHIFT, KIND, FAST, STACKS>,
        free: hook_free::<SHIFT, KIND, FAST, STACKS>,
    }
}

fn wrap_domain(domain: c_int, kept: &'static Kept<Allocator>) -> bool {
    let now = get(domain);
    let ctx = kept.0.get() as *mut c_void;
    // A table that was wrapped again, or late, may have the debug allocator below it: the size class
    // doesn't follow from the request then.
    // SAFETY: see `Kept`.
    let again = unsafe { (*kept.0.get()).malloc as usize != EMPTY.malloc as usize };
    let fast = pools::is_flat() && !again && !crate::attach::is();
    let hooks = match (pools::is_16k(), python::kind(), fast) {
        (false, _, true) => hooks::<SHIFT_4K, OBJECT, true>(ctx),
        (false, _, false) => hooks::<SHIFT_4K, OBJECT, false>(ctx),
        (true, CFRAME, true) => hooks::<SHIFT_16K, CFRAME, true>(ctx),
        (true, CFRAME, false) => hooks::<SHIFT_16K, CFRAME, false>(ctx),
        (true, DIRECT, true) => hooks::<SHIFT_16K, DIRECT, true>(ctx),
        (true, DIRECT, false) => hooks::<SHIFT_16K, DIRECT, false>(ctx),
        (true, _, true) => hooks::<SHIFT_16K, OBJECT, true>(ctx),
        (true, _, false) => hooks::<SHIFT_16K, OBJECT, false>(ctx),
    };
    if is_ours(now.malloc as usize) {
        return false;
    }
    // Somebody wrapped ours (tracemalloc): then ours is still called. Only asked of a running
    // interpreter, which has been wrapped once before.
    if again && is_below(&now) {
        return false;
    }
    // SAFETY: see `Kept`.
    unsafe { *kept.0.get() = now };
    OURS[(domain == OBJ) as usize][again as usize].store(hooks.malloc as usize, Relaxed);
    let mut hooks = hooks;
    // SAFETY: PyMem_SetAllocator copies the table.
    unsafe {
        call!(
            symbols::MEM_SET_ALLOCATOR,
            fn(domain => c_int, &mut hooks as *mut Allocator => *mut Allocator)
        )
    };
    true
}

/// Our malloc functions that were installed, of MEM and of OBJ: at first, and over a table set anew.
static OURS: [[AtomicUsize; 2]; 2] = [const { [const { AtomicUsize::new(0) }; 2] }; 2];

fn is_ours(function: usize) -> bool {
    OURS.iter().flatten().any(|f| f.load(Relaxed) == function)
}

/// True if a wrapper on top of ours is installed: an allocation through it reaches our hooks.
fn is_below(now: &Allocator) -> bool {
    let before = region().head.block_bytes.load(Relaxed);
    // SAFETY: the installed allocator's own functions.
    unsafe {
        let p = (now.malloc)(now.ctx, 16);
        let tracked = region().head.block_bytes.load(Relaxed) != before;
        if !p.is_null() {
            (now.free)(now.ctx, p);
        }
        tracked
    }
}

unsafe extern "C" fn raw_malloc(ctx: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: the interpreter hands on what it was given.
    let b = unsafe { below(ctx) };
    let _passing = Passing::<true>::on::<false>(ctx, n);
    // SAFETY: as in `hook_malloc`.
    unsafe { (b.malloc)(b.ctx, n) }
}

unsafe extern "C" fn raw_calloc(ctx: *mut c_void, items: usize, size: usize) -> *mut c_void {
    // SAFETY: the interpreter hands on what it was given.
    let b = unsafe { below(ctx) };
    let _passing = Passing::<true>::on::<false>(ctx, items);
    // SAFETY: as in `hook_malloc`.
    unsafe { (b.calloc)(b.ctx, items, size) }
}

unsafe extern "C" fn raw_realloc(ctx: *mut c_void, p: *mut c_void, n: usize) -> *mut c_void {
    // SAFETY: the interpreter hands on what it was given.
    let b = unsafe { below(ctx) };
    let _passing = Passing::<true>::on::<false>(ctx, n);
    // SAFETY: as in `hook_malloc`.
    unsafe { (b.realloc)(b.ctx, p, n) }
}

unsafe extern "C" fn raw_free(ctx: *mut c_void, p: *mut c_void) {
    // SAFETY: the interpreter hands on what it was given.
    let b = unsafe { below(ctx) };
    // SAFETY: as in `hook_malloc`.
    unsafe { (b.free)(b.ctx, p) }
}

/// Wraps the RAW domain, only to know which requests come from it (`--stacks`).
fn wrap_raw() {
    let now = get(RAW);
    let mine: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void = raw_malloc;
    // SAFETY: see `Kept`.
    let again = unsafe { (*BELOW_RAW.0.get()).malloc as usize != EMPTY.malloc as usize };
    // A table that was set anew over ours is left alone: it may call ours.
    if now.malloc as usize == mine as usize || again {
        return;
    }
    // SAFETY: see `Kept`.
    unsafe { *BELOW_RAW.0.get() = now };
    let ctx = BELOW_RAW.0.get() as *mut c_void;
    let mut hooks = Allocator {
        ctx,
        malloc: raw_malloc,
        calloc: raw_calloc,
        realloc: raw_realloc,
        free: raw_free,
    };
    // SAFETY: PyMem_SetAllocator copies the table.
    unsafe {
        call!(
            symbols::MEM_SET_ALLOCATOR,
            fn(RAW => c_int, &mut hooks as *mut Allocator => *mut Allocator)
        )
    };
}

/// Wraps what isn't wrapped. Returns true if hooks were installed by this call. The caller holds
/// the GIL, or no interpreter runs yet.
pub fn wrap() -> bool {
    if !symbols::MEM_SET_ALLOCATOR.found() || !symbols::MEM_GET_ALLOCATOR.found() {
        return false;
    }
    wrap_arenas();
    if stacks::on() {
        wrap_raw();
    }
    let obj = wrap_domain(OBJ, &BELOW_OBJ);
    let mem = wrap_domain(MEM, &BELOW_MEM);
    if obj {
        region().head.abilities.fetch_or(capture::CAN_BLOCKS, Relaxed);
    }
    obj || mem
}

/// Wraps the arena allocator, if it isn't. The caller holds the GIL, or no interpreter runs yet.
pub fn wrap_arenas() {
    if !symbols::SET_ARENA_ALLOCATOR.found() || !symbols::GET_ARENA_ALLOCATOR.found() {
        return;
    }
    let mut now = ArenaAllocator { ctx: core::ptr::null_mut(), alloc: None, free: None };
    // SAFETY: PyObject_GetArenaAllocator fills the table.
    unsafe {
        call!(symbols::GET_ARENA_ALLOCATOR, fn(&mut now as *mut ArenaAllocator => *mut ArenaAllocator))
    };
    let mine: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void = arena_alloc;
    if now.alloc.is_none_or(|f| f as usize == mine as usize) {
        return;
    }
    // SAFETY: see `Kept`.
    unsafe { *BELOW_ARENA.0.get() = now };
    let mut hooks = ArenaAllocator { alloc: Some(arena_alloc), free: Some(arena_free), ..now };
    // SAFETY: PyObject_SetArenaAllocator copies the table.
    unsafe {
        call!(
            symbols::SET_ARENA_ALLOCATOR,
            fn(&mut hooks as *mut ArenaAllocator => *mut ArenaAllocator)
        )
    };
}
