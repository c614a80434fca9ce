//! The life of the process: start, fork, exec, exit.
//!
//! The strandline process names its two files in the environment of its child; the constructor
//! takes these names out of it again, so that the program sees the environment it was given,
//! and every `exec` and `posix_spawn` that goes through libc puts them back in for the child.
//! The new environment is an array on the caller's stack: that is safe even in a `vfork` child.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use libc::{c_char, c_int, c_void};
use strandline_capture::layout as capture;

use crate::real::{self, libc_call};
use crate::region::{self, claimed, region};
use crate::tls::Quiet;
use crate::{counters, heap, malloc, python, rss, setup, sites};

const PRELOAD: &[u8] = b"LD_PRELOAD=";
const CAPTURE: &[u8] = b"STRANDLINE_CAPTURE=";
/// Longest value of either variable that is followed, bytes.
const TEXT: usize = 4096;

struct Texts(UnsafeCell<State>);
struct State {
    /// `LD_PRELOAD=` with the agent in front of what the user had.
    preload: [u8; TEXT],
    /// `STRANDLINE_CAPTURE=...`.
    capture: [u8; TEXT],
}
// SAFETY: written in the constructor, before another thread exists; read-only after.
unsafe impl Sync for Texts {}
static TEXTS: Texts = Texts(UnsafeCell::new(State { preload: [0; TEXT], capture: [0; TEXT] }));
/// Children are given the agent.
static FOLLOWING: AtomicBool = AtomicBool::new(false);

fn preload_text() -> *const c_char {
    // SAFETY: a field's address within the static.
    unsafe { core::ptr::addr_of!((*TEXTS.0.get()).preload) as *const c_char }
}

fn capture_text() -> *const c_char {
    // SAFETY: a field's address within the static.
    unsafe { core::ptr::addr_of!((*TEXTS.0.get()).capture) as *const c_char }
}

/// The capture's file name.
fn capture_path() -> *const c_char {
    // SAFETY: the text starts with CAPTURE.
    unsafe { capture_text().add(CAPTURE.len()) }
}

/// # Safety
/// `p` is a C string.
unsafe fn bytes<'a>(p: *const c_char) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(p).to_bytes() }
}

fn keep(text: &[u8], into: *const c_char) -> bool {
    if text.len() >= TEXT {
        return false;
    }
    // SAFETY: `into` is one of the two buffers of TEXT bytes, zeroed; called in the constructor.
    unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), into as *mut u8, text.len()) };
    true
}

/// Takes the two variables out of the environment array, in place. False if they aren't there.
///
/// # Safety
/// `envp` is the process's environment, and no other thread runs.
unsafe fn take_names(envp: *mut *mut c_char) -> bool {
    let mut found = 0;
    let mut to = envp;
    let mut from = envp;
    // SAFETY: the array ends with a null pointer; entries are C strings in writable memory of
    // the initial stack.
    unsafe {
        while !(*from).is_null() {
            let text = bytes(*from);
            let mut drop = false;
            if text.starts_with(CAPTURE) {
                found += keep(text, capture_text()) as u32;
                drop = true;
            } else if text.starts_with(PRELOAD) && text.ends_with_agent() {
                found += keep(text, preload_text()) as u32;
                drop = restore_preload(*from);
            }
            if !drop {
                *to = *from;
                to = to.add(1);
            }
            from = from.add(1);
        }
        *to = core::ptr::null_mut();
    }
    found == 2
}

trait AgentText {
    fn ends_with_agent(&self) -> bool;
}

impl AgentText for [u8] {
    /// `LD_PRELOAD=/proc/...`: the strandline process puts the agent first.
    fn ends_with_agent(&self) -> bool {
        self[PRELOAD.len().min(self.len())..].starts_with(b"/proc/")
    }
}

/// Cuts the agent out of `LD_PRELOAD=agent:rest`; true if nothing is left of it.
///
/// # Safety
/// `text` is a writable C string that starts with PRELOAD.
unsafe fn restore_preload(text: *mut c_char) -> bool {
    // SAFETY: the caller's promise; the copy moves bytes to the left within the string, its NUL
    // included.
    unsafe {
        let all = bytes(text);
        let Some(colon) = all.iter().position(|b| *b == b':') else { return true };
        let rest = all.len() - colon;
        core::ptr::copy(text.add(colon + 1), text.add(PRELOAD.len()), rest);
    }
    false
}

/// Starts the agent in this process: maps the capture, installs the hooks that can be installed
/// before the interpreter runs. Does nothing if no capture was named.
///
/// # Safety
/// Called once, from a constructor: one thread, `envp` is the process's environment.
pub unsafe fn start(argc: c_int, argv: *mut *mut c_char, envp: *mut *mut c_char) {
    // Failing lookups and fork handlers allocate: not in the program's heap.
    let _quiet = Quiet::new();
    real::resolve_early();
    // SAFETY: the caller's promise.
    if envp.is_null() || !unsafe { take_names(envp) } {
        return;
    }
    FOLLOWING.store(true, Relaxed);
    if !is_python() {
        // Not worth a region; but its children may be Pythons.
        return;
    }
    if !region::claim(capture_path()) {
        return;
    }
    FOLLOWING.store(region::options() & capture::OPTION_FOLLOW != 0, Relaxed);
    sites::start();
    // SAFETY: argv as given to the constructor.
    unsafe { describe(argc, argv) };
    heap::start();
    let usable = python::detect() && region().head.refusal.load(Relaxed) == 0;
    region().head.abilities.fetch_or(capture::CAN_MALLOC, Relaxed);
    if usable {
        crate::pools::reserve();
        crate::pymem::wrap();
        crate::python27::start();
        setup::wait_for_python();
    }
    malloc::start();
    // SAFETY: handlers that live as long as the library, which is never unloaded.
    unsafe {
        libc::pthread_atfork(Some(before_fork), Some(after_fork_parent), Some(after_fork_child));
    }
}

/// `start` as a constructor.
///
/// # Safety
/// As `start`.
pub unsafe extern "C" fn start_c(argc: c_int, argv: *mut *mut c_char, envp: *mut *mut c_char) {
    // SAFETY: the caller's promise.
    unsafe { start(argc, argv, envp) }
}

/// The process ends through `exit`: measures, if the interpreter's own shutdown didn't.
pub extern "C" fn ending() {
    if claimed() && !in_vfork_child() {
        exiting();
    }
}

fn is_python() -> bool {
    crate::symbols::resolve();
    crate::symbols::GET_VERSION.found() || crate::symbols::PYPY.found()
}

/// # Safety
/// `argv` has `argc` C strings.
unsafe fn describe(argc: c_int, argv: *mut *mut c_char) {
    let mut all = [0u8; TEXT];
    let mut at = 0;
    for i in 0..argc.max(0) as usize {
        // SAFETY: the caller's promise.
        let text = unsafe { bytes(*argv.add(i)) };
        let Some(room) = all.get_mut(at..at + text.len() + 1) else { break };
        for (to, from) in room.iter_mut().zip(text) {
            *to = *from;
        }
        at += text.len() + 1;
    }
    let mut path = [0u8; TEXT];
    // SAFETY: readlink(2) writes at most the given number of bytes.
    let n = unsafe {
        libc::readlink(c"/proc/self/exe".as_ptr(), path.as_mut_ptr() as *mut c_char, TEXT)
    };
    if let Some(_guard) = crate::lock::lock() {
        region::set_text(&region().head.command, all.get(..at).unwrap_or(&[]));
        region::set_text(&region().head.executable, path.get(..n.max(0) as usize).unwrap_or(&[]));
    }
}

/// What was in use per tag at the moment of a fork.
struct Snapshot(UnsafeCell<(*mut u64, usize, usize)>);
// SAFETY: used between the fork handlers only, under the agent's lock.
unsafe impl Sync for Snapshot {}
static SNAPSHOT: Snapshot = Snapshot(UnsafeCell::new((core::ptr::null_mut(), 0, 0)));
static IN_USE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

struct Held(UnsafeCell<Option<crate::lock::Guard>>);
// SAFETY: taken before and dropped after a fork, by the forking thread.
unsafe impl Sync for Held {}
static HELD: Held = Held(UnsafeCell::new(None));

unsafe extern "C" fn before_fork() {
    if !claimed() {
        return;
    }
    let guard = crate::lock::lock();
    let tags = region().head.tags.load(Relaxed) as usize;
    // SAFETY: the lock is held until after the fork (or this is a signal handler inside the
    // agent, where nobody else runs).
    unsafe {
        let s = &mut *SNAPSHOT.0.get();
        if s.1 < tags {
            let room = tags * 2;
            s.0 = crate::memory::bump(room * 8) as *mut u64;
            s.1 = if s.0.is_null() { 0 } else { room };
        }
        s.2 = tags.min(s.1);
        for tag in 0..s.2 {
            *s.0.add(tag) = counters::in_use_of(tag as u32);
        }
        *HELD.0.get() = guard;
    }
    let h = &region().head;
    IN_USE[0].store(h.in_use.load(Relaxed) as u64, Relaxed);
    IN_USE[1].store(h.in_use_native.load(Relaxed) as u64, Relaxed);
}

unsafe extern "C" fn after_fork_parent() {
    // SAFETY: see `Held`.
    unsafe { *HELD.0.get() = None };
}

unsafe extern "C" fn after_fork_child() {
    if !claimed() {
        return;
    }
    let h = &region().head;
    // Whole-process amounts that go on from where they were.
    let kept = [
        &h.block_bytes,
        &h.arena_resident,
        &h.chunks[0],
        &h.chunks[1],
        &h.chunks[2],
        &h.chunks_native[0],
        &h.chunks_native[1],
        &h.chunks_native[2],
        &h.arena_mapped,
        &h.arenas,
        &h.maps,
    ]
    .map(|c| c.load(Relaxed));
    // SAFETY: see `Snapshot`; the child has one thread.
    let snapshot = unsafe { &*SNAPSHOT.0.get() };
    let in_use_of = |tag: u32| {
        if (tag as usize) < snapshot.2 {
            // SAFETY: below the number of tags that were stored.
            unsafe { *snapshot.0.add(tag as usize) }
        } else {
            0
        }
    };
    let follow = region::options() & capture::OPTION_FOLLOW != 0;
    region::move_to_child(capture_path(), follow, &in_use_of);
    let h = &region().head;
    let fields = [
        &h.block_bytes,
        &h.arena_resident,
        &h.chunks[0],
        &h.chunks[1],
        &h.chunks[2],
        &h.chunks_native[0],
        &h.chunks_native[1],
        &h.chunks_native[2],
        &h.arena_mapped,
        &h.arenas,
        &h.maps,
    ];
    for (field, value) in fields.into_iter().zip(kept) {
        field.store(value, Relaxed);
    }
    h.in_use.store(IN_USE[0].load(Relaxed) as i64, Relaxed);
    h.in_use_native.store(IN_USE[1].load(Relaxed) as i64, Relaxed);
    h.watermark.store(counters::in_use(), Relaxed);
    // SAFETY: see `Held`.
    unsafe { *HELD.0.get() = None };
    crate::lines::after_fork();
    rss::pages_moved();
    rss::write_ledger(&h.start);
}

/// The process is about to exit in an orderly way: the objects are still there.
pub fn exiting() {
    if claimed() {
        let h = &region().head;
        if h.exit.when.load(Relaxed) != 0 {
            return;
        }
        rss::write_ledger(&h.exit);
        h.state.store(capture::STATE_EXITED, Relaxed);
        // What the interpreter frees while it shuts down is no longer the program's doing.
        region::detach(capture_path());
    }
}

/// `environ` with the two names put in front, on the caller's stack.
///
/// # Safety
/// `envp` is null or an environment array.
#[inline(always)]
unsafe fn with_names<R>(envp: *const *mut c_char, run: impl FnOnce(*const *mut c_char) -> R) -> R {
    if !FOLLOWING.load(Relaxed) {
        return run(envp);
    }
    let mut n = 0;
    // SAFETY: the array ends with a null pointer.
    unsafe {
        while !envp.is_null() && !(*envp.add(n)).is_null() {
            n += 1;
        }
    }
    // SAFETY: as above; `fill` writes at most n + 3 pointers.
    unsafe {
        if n + 3 <= SMALL {
            let mut room = [core::ptr::null_mut::<c_char>(); SMALL];
            let mut merged = [0u8; TEXT * 2];
            fill(envp, n, &mut room, &mut merged);
            run(room.as_ptr())
        } else if n + 3 <= BIG {
            with_big(envp, n, run)
        } else {
            run(envp)
        }
    }
}

const SMALL: usize = 512;
const BIG: usize = 8192;

/// # Safety
/// As `with_names`.
#[inline(never)]
unsafe fn with_big<R>(
    envp: *const *mut c_char,
    n: usize,
    run: impl FnOnce(*const *mut c_char) -> R,
) -> R {
    let mut room = [core::ptr::null_mut::<c_char>(); BIG];
    let mut merged = [0u8; TEXT * 2];
    // SAFETY: `n + 3` fits.
    unsafe { fill(envp, n, &mut room, &mut merged) };
    run(room.as_ptr())
}

/// # Safety
/// `envp` has `n` entries; `room` has at least `n + 3`.
unsafe fn fill(
    envp: *const *mut c_char,
    n: usize,
    room: &mut [*mut c_char],
    merged: &mut [u8; TEXT * 2],
) {
    // Kept text: "LD_PRELOAD=<agent>[:what the user had at start]".
    // SAFETY: a C string in static memory.
    let kept = unsafe { bytes(preload_text()) };
    let agent_end = kept.iter().position(|b| *b == b':').unwrap_or(kept.len());
    let agent = kept.get(..agent_end).unwrap_or(kept);
    let mut len = 0;
    for b in agent {
        merged[len] = *b;
        len += 1;
    }
    let mut at = 0;
    let mut put = |p: *mut c_char| {
        if let Some(slot) = room.get_mut(at) {
            *slot = p;
            at += 1;
        }
    };
    put(capture_text() as *mut c_char);
    for i in 0..n {
        // SAFETY: the caller's promise.
        let (p, text) = unsafe { (*envp.add(i), bytes(*envp.add(i))) };
        if text.starts_with(CAPTURE) {
            continue;
        }
        if text.starts_with(PRELOAD) {
            // What the program wants preloaded comes behind the agent.
            let rest = text.get(PRELOAD.len()..).unwrap_or(&[]);
            if len + rest.len() + 2 <= merged.len() && !rest.is_empty() {
                merged[len] = b':';
                len += 1;
                for b in rest {
                    merged[len] = *b;
                    len += 1;
                }
            }
            continue;
        }
        put(p);
    }
    put(merged.as_mut_ptr() as *mut c_char);
}

/// True in the child of a vfork, which shares our memory: the region is its parent's.
fn in_vfork_child() -> bool {
    // SAFETY: getpid(2) cannot fail.
    region().head.pid.load(Relaxed) != unsafe { libc::getpid() } as u32
}

/// Says that this program is being replaced, and what was in use.
fn replaced() {
    if claimed() && !in_vfork_child() {
        rss::write_ledger(&region().head.exit);
        region().head.state.store(capture::STATE_REPLACED, Relaxed);
    }
}

fn not_replaced() {
    if claimed() && !in_vfork_child() {
        region().head.state.store(capture::STATE_RUNNING, Relaxed);
    }
}

/// `execve`, and what ends in it.
///
/// # Safety
/// As libc's.
pub unsafe fn execve(
    path: *const c_char,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    replaced();
    // SAFETY: libc's execve with a longer environment.
    let status = unsafe {
        with_names(envp, |envp| {
            libc_call!(
                real::EXECVE,
                fn(path => *const c_char, argv => *const *mut c_char, envp => *const *mut c_char) -> c_int
            )
        })
    };
    not_replaced();
    status
}

/// `execvpe`.
///
/// # Safety
/// As libc's.
pub unsafe fn execvpe(
    file: *const c_char,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    replaced();
    // SAFETY: libc's execvpe with a longer environment.
    let status = unsafe {
        with_names(envp, |envp| {
            libc_call!(
                real::EXECVPE,
                fn(file => *const c_char, argv => *const *mut c_char, envp => *const *mut c_char) -> c_int
            )
        })
    };
    not_replaced();
    status
}

/// `fexecve`.
///
/// # Safety
/// As libc's.
pub unsafe fn fexecve(fd: c_int, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int {
    replaced();
    // SAFETY: libc's fexecve with a longer environment.
    let status = unsafe {
        with_names(envp, |envp| {
            libc_call!(
                real::FEXECVE,
                fn(fd => c_int, argv => *const *mut c_char, envp => *const *mut c_char) -> c_int
            )
        })
    };
    not_replaced();
    status
}

/// `posix_spawn` (`search` false) and `posix_spawnp` (true).
///
/// # Safety
/// As libc's.
pub unsafe fn posix_spawn(
    pid: *mut libc::pid_t,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
    search: bool,
) -> c_int {
    let f = if search { &real::POSIX_SPAWNP } else { &real::POSIX_SPAWN };
    // SAFETY: libc's function with a longer environment.
    unsafe {
        with_names(envp, |envp| {
            libc_call!(
                f,
                fn(
                    pid => *mut libc::pid_t, path => *const c_char, actions => *const c_void,
                    attributes => *const c_void, argv => *const *mut c_char,
                    envp => *const *mut c_char,
                ) -> c_int
            )
        })
    }
}

extern "C" {
    static mut environ: *const *mut c_char;
}

/// The process's environment as it stands.
///
/// # Safety
/// Nobody changes the environment meanwhile (getenv's own contract).
pub unsafe fn environment() -> *const *mut c_char {
    // SAFETY: libc's variable.
    unsafe { *core::ptr::addr_of!(environ) }
}

/// Runs `call` (libc's `system` or `popen`, which take no environment) while `environ` names the
/// agent.
///
/// # Safety
/// As `environment`.
unsafe fn with_environ<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: the array outlives the call, and `environ` is put back before it goes.
    unsafe {
        let before = environment();
        with_names(before, |during| {
            *core::ptr::addr_of_mut!(environ) = during;
            let result = call();
            if environment() == during {
                *core::ptr::addr_of_mut!(environ) = before;
            }
            result
        })
    }
}

/// `system`.
///
/// # Safety
/// As libc's.
pub unsafe fn system(command: *const c_char) -> c_int {
    // SAFETY: libc's system.
    unsafe { with_environ(|| libc_call!(real::SYSTEM, fn(command => *const c_char) -> c_int)) }
}

/// `popen`.
///
/// # Safety
/// As libc's.
pub unsafe fn popen(command: *const c_char, mode: *const c_char) -> *mut c_void {
    // SAFETY: libc's popen.
    unsafe {
        with_environ(|| {
            libc_call!(
                real::POPEN,
                fn(command => *const c_char, mode => *const c_char) -> *mut c_void
            )
        })
    }
}

/// `Py_FinalizeEx`, where the interpreter is a shared library: a program so short that the exit
/// handler wasn't registered yet gets it now.
///
/// # Safety
/// As CPython's: the caller holds the GIL.
pub unsafe fn finalize() -> c_int {
    if claimed() {
        setup::finalizing();
    }
    if real::FINALIZE.address() == 0 {
        return -1;
    }
    // SAFETY: CPython's own function.
    unsafe { libc_call!(real::FINALIZE, fn() -> c_int) }
}

/// `_exit`: what can be measured at the end is measured now.
///
/// # Safety
/// As libc's.
pub unsafe fn exit_now(status: c_int) -> ! {
    if claimed() && !in_vfork_child() {
        exiting();
    }
    // SAFETY: libc's _exit does not return.
    unsafe {
        libc_call!(real::EXIT_NOW, fn(status => c_int));
        libc::syscall(libc::SYS_exit_group, status);
    }
    loop {
        core::hint::spin_loop();
    }
}
