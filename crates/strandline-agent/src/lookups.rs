//! `dlsym` and `dlvsym`: who asks a library's handle for one of libc's functions that the agent
//! takes the place of is given the agent's, as who links to it is.
//!
//! Only if what was asked for is the very function that ours forwards to: a library that brings its
//! own malloc is answered its own. `RTLD_NEXT` and `RTLD_DEFAULT` are answered by libc alone, since
//! the answer depends on who asks: the call is the last one of the function, which leaves the
//! return address as it was (tests/lookups.rs of the crate `strandline` checks it).
//!
//! Facts: DT_GNU_HASH as in glibc's elf/dl-lookup.c; `link_map` as in link.h.

use core::ffi::CStr;
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libc::{c_char, c_int, c_void};

use crate::got::{symbol_in, Dynamic};
use crate::malloc::counting;
use crate::tls::{tls, QUIET, RESOLVING};

/// A function that the agent takes the place of.
pub struct Hook {
    /// Its name.
    pub name: &'static CStr,
    /// What it is replaced by.
    pub ours: *const c_void,
}

// SAFETY: both are addresses of what is never written.
unsafe impl Sync for Hook {}

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;

static DLSYM: AtomicUsize = AtomicUsize::new(0);
static DLVSYM: AtomicUsize = AtomicUsize::new(0);

extern "C" {
    fn dladdr1(
        address: *const c_void,
        info: *mut libc::Dl_info,
        extra: *mut *const c_void,
        flags: c_int,
    ) -> c_int;
}

/// `dladdr1`'s flag: the object's `link_map` is wanted (dlfcn.h).
const RTLD_DL_LINKMAP: c_int = 2;

/// The public part of `link_map`.
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: *const Dynamic,
}

/// Where the library that `address` lies in is loaded, and its dynamic section; null if there is none.
fn library_of(address: *const c_void) -> (usize, *const Dynamic) {
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let mut map: *const LinkMap = null_mut();
    // SAFETY: dladdr1(3) fills both in; a link_map lives as long as its library.
    unsafe {
        let to = &mut map as *mut _ as *mut *const c_void;
        if dladdr1(address, info.as_mut_ptr(), to, RTLD_DL_LINKMAP) == 0 || map.is_null() {
            return (0, core::ptr::null());
        }
        ((*map).base, (*map).dynamic)
    }
}

fn defined_beside(address: *const c_void, name: &CStr) -> usize {
    let (base, dynamic) = library_of(address);
    if dynamic.is_null() {
        return 0;
    }
    // SAFETY: the dynamic section of a loaded library.
    unsafe { symbol_in(base, dynamic, name) }
}

/// This library's function of that name; 0 if it has none.
pub fn ours(name: &CStr) -> usize {
    defined_beside(ours as *const c_void, name)
}

/// libc's function of that name, whatever is in front of it; 0 if it has none.
pub fn libcs(name: &CStr) -> usize {
    defined_beside(dladdr1 as *const c_void, name)
}

/// True if `found`, what everybody finds under that name, leads to libc's function: it is that, or a
/// jump to it in a program that is not position-independent.
pub fn leads_to_libcs(found: usize, name: &CStr) -> bool {
    found != 0 && (found == libcs(name) || defined_beside(found as *const c_void, name) == 0)
}

/// Finds libc's two functions: beside `dladdr1`, which nothing takes the place of.
#[cold]
#[inline(never)]
fn find() {
    let mut info = core::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let mut map: *const c_void = core::ptr::null();
    // SAFETY: dladdr1(3) fills both in; a loaded object's link_map stays as long as the object,
    // and libc is never unloaded.
    unsafe {
        let here = dladdr1 as *const c_void;
        if dladdr1(here, info.as_mut_ptr(), &mut map, RTLD_DL_LINKMAP) == 0 || map.is_null() {
            return;
        }
        let map = &*(map as *const LinkMap);
        let libcs = symbol_in(map.base, map.dynamic, c"dlsym");
        if libcs == 0 {
            return;
        }
        // Another preloaded library may take the place of them as well: it comes first.
        let ask: Dlsym = transmute(libcs);
        let next = |name: &CStr, or: usize| match ask(libc::RTLD_NEXT, name.as_ptr()) as usize {
            0 => or,
            found => found,
        };
        let versioned = symbol_in(map.base, map.dynamic, c"dlvsym");
        DLVSYM.store(next(c"dlvsym", versioned), Relaxed);
        DLSYM.store(next(c"dlsym", libcs), Relaxed);
    }
}

fn real(which: &AtomicUsize) -> usize {
    if which.load(Relaxed) == 0 {
        find();
    }
    which.load(Relaxed)
}

/// The hook for `name` if a lookup in `handle` may be answered by it.
fn hook_for(handle: *mut c_void, name: *const c_char, hooks: &[Hook]) -> Option<&Hook> {
    let special = handle == libc::RTLD_DEFAULT || handle == libc::RTLD_NEXT;
    if special || name.is_null() || !counting() || tls().flags.get() & (RESOLVING | QUIET) != 0 {
        return None;
    }
    // SAFETY: libc's own contract: a C string.
    let name = unsafe { CStr::from_ptr(name) };
    hooks.iter().find(|hook| hook.name == name)
}

/// What `found` is replaced by. `next` is what ours forwards to.
fn instead(hook: &Hook, found: *mut c_void, next: *mut c_void) -> *mut c_void {
    if found == next && !found.is_null() {
        hook.ours as *mut c_void
    } else {
        found
    }
}

#[inline(never)]
unsafe fn answer(handle: *mut c_void, name: *const c_char, hooks: &[Hook]) -> *mut c_void {
    let real = real(&DLSYM);
    let Some(hook) = hook_for(handle, name, hooks).filter(|_| real != 0) else {
        return null_mut();
    };
    // SAFETY: libc's function, found by its name. What was asked for comes last, so that
    // dlerror(3) says what it would.
    unsafe {
        let real: Dlsym = transmute(real);
        let next = real(libc::RTLD_NEXT, name);
        instead(hook, real(handle, name), next)
    }
}

#[inline(never)]
unsafe fn answer_versioned(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    hooks: &[Hook],
) -> *mut c_void {
    let (plain, real) = (real(&DLSYM), real(&DLVSYM));
    let Some(hook) = hook_for(handle, name, hooks).filter(|_| plain != 0 && real != 0) else {
        return null_mut();
    };
    // SAFETY: as in `answer`.
    unsafe {
        let plain = transmute::<usize, Dlsym>(plain);
        let real = transmute::<usize, Dlvsym>(real);
        let next = plain(libc::RTLD_NEXT, name);
        instead(hook, real(handle, name, version), next)
    }
}

/// `dlsym`; `hooks` are all functions that the agent takes the place of.
///
/// # Safety
/// As libc's. To be the only expression of an exported function.
#[inline(always)]
pub unsafe fn dlsym(handle: *mut c_void, name: *const c_char, hooks: &[Hook]) -> *mut c_void {
    // SAFETY: the caller's promise; the last call is libc's function of that type.
    unsafe {
        let ours = answer(handle, name, hooks);
        let real = DLSYM.load(Relaxed);
        if !ours.is_null() || real == 0 {
            return ours;
        }
        transmute::<usize, Dlsym>(real)(handle, name)
    }
}

/// `dlvsym`, likewise.
///
/// # Safety
/// As `dlsym`.
#[inline(always)]
pub unsafe fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    hooks: &[Hook],
) -> *mut c_void {
    // SAFETY: as in `dlsym`.
    unsafe {
        let ours = answer_versioned(handle, name, version, hooks);
        let real = DLVSYM.load(Relaxed);
        if !ours.is_null() || real == 0 {
            return ours;
        }
        transmute::<usize, Dlvsym>(real)(handle, name, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libcs_functions_are_found() {
        // SAFETY: dlsym(3) with C strings.
        let wanted = [c"dlsym", c"dlvsym"]
            .map(|name| unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) } as usize);
        assert_eq!([real(&DLSYM), real(&DLVSYM)], wanted);
    }

    #[test]
    fn only_what_ours_forwards_to_is_replaced() {
        let place = |n: usize| n as *mut c_void;
        let hook = Hook { name: c"malloc", ours: place(3) };
        assert_eq!(instead(&hook, place(1), place(1)), place(3));
        assert_eq!(instead(&hook, place(2), place(1)), place(2));
        assert_eq!(instead(&hook, place(0), place(0)), place(0));
    }
}
