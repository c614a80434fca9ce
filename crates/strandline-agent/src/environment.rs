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
            } else if let Some(place) = agent_in(text) {
                found += keep_preload(text, place) as u32;
                drop = cut(*from, place);
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

/// Where in `LD_PRELOAD=...` the agent's name stands: `/proc/PID/fd/N`. The strandline process
/// puts it first; what is run in between (fakeroot, valgrind) may have put others before it.
fn agent_in(text: &[u8]) -> Option<(usize, usize)> {
    let list = text.strip_prefix(PRELOAD)?;
    let mut start = PRELOAD.len();
    for name in list.split(|b| matches!(b, b':' | b' ')) {
        let end = start + name.len();
        if name.starts_with(b"/proc/") && name.windows(4).any(|part| part == b"/fd/") {
            return Some((start, end));
        }
        start = end + 1;
    }
    None
}

/// Keeps `LD_PRELOAD=agent:others` of a list that has the agent at `place`.
fn keep_preload(text: &[u8], (start, end): (usize, usize)) -> bool {
    let part = |range: core::ops::Range<usize>| text.get(range).unwrap_or(&[]);
    let before = part(PRELOAD.len()..start);
    let after = part((end + 1).min(text.len())..text.len());
    let between: &[u8] = if before.is_empty() && after.is_empty() { b"" } else { b":" };
    let parts = [PRELOAD, part(start..end), between, before, after];
    if parts.iter().map(|p| p.len()).sum::<usize>() >= TEXT {
        return false;
    }
    let mut at = preload_text() as *mut u8;
    for part in parts {
        // SAFETY: the buffer has TEXT bytes, more than all parts together; called in the
        // constructor.
        unsafe {
            core::ptr::copy_nonoverlapping(part.as_ptr(), at, part.len());
            at = at.add(part.len());
        }
    }
    true
}

/// Cuts the agent, which stands at `place`, and one separator out of `LD_PRELOAD=...`; true if
/// nothing is left of it.
///
/// # Safety
/// `text` is a writable C string that has the agent there.
unsafe fn cut(text: *mut c_char, (start, end): (usize, usize)) -> bool {
    // SAFETY: the caller's promise; the copy moves bytes to the left within the string, its NUL
    // included.
    unsafe {
        let length = bytes(text).len();
        let (start, end) = match end < length {
            true => (start, end + 1),
            // The last name goes with the separator before it.
            false if start > PRELOAD.len() => (start - 1, end),
            false => return true,
        };
        core::ptr::copy(text.add(end), text.add(start), length + 1 - end);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a variable, and what is kept.
    fn taken(text: &str) -> Option<(Option<String>, String)> {
        let place = agent_in(text.as_bytes())?;
        assert!(keep_preload(text.as_bytes(), place));
        let mut own = std::ffi::CString::new(text).ok()?.into_bytes_with_nul();
        // SAFETY: a writable C string, and where the agent stands in it.
        let nothing = unsafe { cut(own.as_mut_ptr().cast(), place) };
        // SAFETY: two C strings.
        let (left, kept) = unsafe { (bytes(own.as_ptr().cast()), bytes(preload_text())) };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kept = text(kept);
        // SAFETY: the buffer that was just read, as it was before.
        unsafe { core::ptr::write_bytes(preload_text() as *mut u8, 0, TEXT) };
        Some(((!nothing).then(|| text(left)), kept))
    }

    #[test]
    fn the_agent_is_taken_out_of_what_is_preloaded() {
        let agent = "/proc/12/fd/4";
        for (text, left, kept) in [
            (format!("LD_PRELOAD={agent}"), None, format!("LD_PRELOAD={agent}")),
            (
                format!("LD_PRELOAD={agent}:a.so:b.so"),
                Some("LD_PRELOAD=a.so:b.so"),
                format!("LD_PRELOAD={agent}:a.so:b.so"),
            ),
            (
                format!("LD_PRELOAD=a.so:{agent}"),
                Some("LD_PRELOAD=a.so"),
                format!("LD_PRELOAD={agent}:a.so:"),
            ),
            (
                format!("LD_PRELOAD=a.so {agent}:b.so"),
                Some("LD_PRELOAD=a.so b.so"),
                format!("LD_PRELOAD={agent}:a.so b.so"),
            ),
        ] {
            assert_eq!(taken(&text), Some((left.map(str::to_owned), kept)), "{text}");
        }
        for text in ["LD_PRELOAD=", "LD_PRELOAD=a.so:/proc/x", "PATH=/proc/1/fd/4"] {
            assert_eq!(taken(text), None);
        }
    }
}
