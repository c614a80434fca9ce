//! The environment: taking the agent's two names out of it, and giving them to children.
//!
//! The strandline process names its two files in the environment of its child; the constructor
//! takes these names out of it again, so that the program sees the environment it was given,
//! and every `exec` and `posix_spawn` that goes through libc puts them back in for the child.
//! The new environment is an array on the caller's stack: that is safe even in a `vfork` child.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use libc::c_char;

const PRELOAD: &[u8] = b"LD_PRELOAD=";
const CAPTURE: &[u8] = b"STRANDLINE_CAPTURE=";
/// Longest value of either variable that is followed, bytes.
pub const TEXT: usize = 4096;

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
pub static FOLLOWING: AtomicBool = AtomicBool::new(false);

fn preload_text() -> *const c_char {
    // SAFETY: a field's address within the static.
    unsafe { core::ptr::addr_of!((*TEXTS.0.get()).preload) as *const c_char }
}

fn capture_text() -> *const c_char {
    // SAFETY: a field's address within the static.
    unsafe { core::ptr::addr_of!((*TEXTS.0.get()).capture) as *const c_char }
}

/// The capture's file name.
pub fn capture_path() -> *const c_char {
    // SAFETY: the text starts with CAPTURE.
    unsafe { capture_text().add(CAPTURE.len()) }
}

/// A C string as bytes, its NUL left out.
///
/// # Safety
/// `p` is a C string.
pub unsafe fn bytes<'a>(p: *const c_char) -> &'a [u8] {
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
pub unsafe fn take_names(envp: *mut *mut c_char) -> bool {
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

/// `environ` with the two names put in front, on the caller's stack.
///
/// # Safety
/// `envp` is null or an environment array.
#[inline(always)]
pub unsafe fn with_names<R>(
    envp: *const *mut c_char,
    run: impl FnOnce(*const *mut c_char) -> R,
) -> R {
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
pub unsafe fn with_environ<R>(call: impl FnOnce() -> R) -> R {
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
