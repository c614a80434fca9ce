//! The exec and spawn family, `system` and `popen`: children are given the agent.

use core::sync::atomic::Ordering::Relaxed;

use libc::{c_char, c_int, c_void};
use strandline_capture::layout as capture;

pub use crate::environment::environment;
use crate::environment::{with_environ, with_names};
use crate::fork::in_vfork_child;
use crate::real::{self, libc_call};
use crate::region::{claimed, region};
use crate::{bare, rss};

/// Says that this program is being replaced, and what was in use.
fn replaced() {
    if claimed() && !in_vfork_child() {
        if bare::is() {
            bare::replaced(true);
        } else {
            rss::write_ledger(&region().head.exit);
        }
        region().head.state.store(capture::STATE_REPLACED, Relaxed);
    }
}

fn not_replaced() {
    if claimed() && !in_vfork_child() {
        if bare::is() {
            bare::replaced(false);
        }
        region().head.exit.when.store(0, Relaxed);
        region().head.state.store(capture::STATE_RUNNING, Relaxed);
    }
}

/// Calls one of the exec family, which take what to run (a path, a name, a descriptor), arguments
/// and environment, with the agent in the environment.
///
/// # Safety
/// As the libc function `real`, which takes a `T` first.
unsafe fn exec<T>(
    real: &real::Real,
    what: T,
    argv: *const *mut c_char,
    envp: *const *mut c_char,
) -> c_int {
    replaced();
    // SAFETY: libc's function with a longer environment.
    let status = unsafe {
        with_names(envp, |envp| {
            libc_call!(
                real,
                fn(what => T, argv => *const *mut c_char, envp => *const *mut c_char) -> c_int
            )
        })
    };
    not_replaced();
    status
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
    // SAFETY: the caller's promise.
    unsafe { exec(&real::EXECVE, path, argv, envp) }
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
    // SAFETY: the caller's promise.
    unsafe { exec(&real::EXECVPE, file, argv, envp) }
}

/// `fexecve`.
///
/// # Safety
/// As libc's.
pub unsafe fn fexecve(fd: c_int, argv: *const *mut c_char, envp: *const *mut c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { exec(&real::FEXECVE, fd, argv, envp) }
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
