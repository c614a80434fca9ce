//! A library for tests: loaded into an interpreter (`ctypes`), it compares this crate with
//! libgcc's unwinder, when it is called and whenever a timer's signal comes.
#![allow(missing_docs)]

#[path = "../tests/common/truth.rs"]
mod truth;

use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static TOLD: AtomicBool = AtomicBool::new(false);

/// Learns what is loaded; `without`: glibc's own table isn't used.
#[no_mangle]
pub extern "C" fn witness_start(without: c_int) {
    if without != 0 {
        strandline_unwind::without_find_object();
    }
    strandline_unwind::refresh();
}

/// Compares here: 1 if both unwinders agree.
#[no_mangle]
pub extern "C" fn witness_agree() -> c_int {
    let agree = truth::agree();
    if !agree && !TOLD.swap(true, Relaxed) {
        eprintln!("{}", truth::describe());
    }
    c_int::from(agree)
}

/// Calls back into the interpreter.
#[no_mangle]
pub extern "C" fn witness_call(f: extern "C" fn(c_long) -> c_long, n: c_long) -> c_long {
    f(n) + 1
}

extern "C" fn on_tick(_: c_int) {
    // SAFETY: saves and restores this thread's errno.
    unsafe {
        let errno = *libc::__errno_location();
        witness_agree();
        *libc::__errno_location() = errno;
    }
}

/// Compares every `microseconds` of processor time, wherever the program is then; 0: no more.
#[no_mangle]
pub extern "C" fn witness_sample(microseconds: c_long) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: a handler for SIGPROF that is safe in a signal; a timer of valid values.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_tick as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut());
        libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut());
    }
}

/// Chains compared, frames in them, chains that differ, chains whose end was not found.
#[no_mangle]
pub extern "C" fn witness_report(index: c_int) -> c_long {
    let counters = [&truth::CHAINS, &truth::FRAMES, &truth::WRONG, &truth::LOST];
    counters.get(index as usize).map_or(-1, |c| c.load(Relaxed) as c_long)
}
