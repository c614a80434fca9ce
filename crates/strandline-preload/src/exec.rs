//! The exec and spawn family. The variadic ones (`execl`, `execlp`, `execle`) can't be defined in
//! stable Rust: they are a few lines of assembly that gather their arguments into an array.

use libc::{c_char, c_int, c_void, pid_t};
use strandline_agent::process;

type Strings = *const *mut c_char;

#[no_mangle]
pub unsafe extern "C" fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: libc's own contract, passed on.
    unsafe { process::execve(path, argv, envp) }
}

#[no_mangle]
pub unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as above; execv uses the process's environment.
    unsafe { process::execve(path, argv, process::environment()) }
}

#[no_mangle]
pub unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: as above.
    unsafe { process::execvpe(file, argv, process::environment()) }
}

#[no_mangle]
pub unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: libc's own contract, passed on.
    unsafe { process::execvpe(file, argv, envp) }
}

#[no_mangle]
pub unsafe extern "C" fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
    // SAFETY: libc's own contract, passed on.
    unsafe { process::fexecve(fd, argv, envp) }
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
    unsafe { process::posix_spawn(pid, path, actions, attributes, argv, envp, false) }
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
    unsafe { process::posix_spawn(pid, path, actions, attributes, argv, envp, true) }
}
