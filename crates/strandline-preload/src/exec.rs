//! The exec and spawn family. The variadic ones (`execl`, `execlp`, `execle`) can't be defined in
//! stable Rust: a C program that uses them starts its child without the agent. CPython doesn't.

use libc::{c_char, c_int, c_void, pid_t};
use strandline_agent::exec as hooks;

type Strings = *const *mut c_char;

#[no_mangle]
pub unsafe extern "C" fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: libc's own contract, passed on.
    unsafe { hooks::execve(path, argv, envp) }
}

#[no_mangle]
pub unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as above; execv uses the process's environment.
    unsafe { hooks::execve(path, argv, hooks::environment()) }
}

#[no_mangle]
pub unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as above.
    unsafe { hooks::execvpe(file, argv, hooks::environment()) }
}

#[no_mangle]
pub unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: libc's own contract, passed on.
    unsafe { hooks::execvpe(file, argv, envp) }
}

#[no_mangle]
pub unsafe extern "C" fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: libc's own contract, passed on.
    unsafe { hooks::fexecve(fd, argv, envp) }
}

#[no_mangle]
pub unsafe extern "C" fn posix_spawn(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    // SAFETY: libc's own contract, passed on.
    unsafe { hooks::posix_spawn(pid, path, actions, attributes, argv, envp, false) }
}

#[no_mangle]
pub unsafe extern "C" fn posix_spawnp(
    pid: *mut pid_t,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    // SAFETY: libc's own contract, passed on.
    unsafe { hooks::posix_spawn(pid, path, actions, attributes, argv, envp, true) }
}
