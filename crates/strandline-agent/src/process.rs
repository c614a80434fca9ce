//! The life of the process: start and end.

use core::sync::atomic::Ordering::Relaxed;

use libc::{c_char, c_int};
use strandline_capture::layout as capture;

use crate::environment::{bytes, capture_path, take_names, FOLLOWING, TEXT};
use crate::fork::{after_fork_child, after_fork_parent, before_fork, in_vfork_child};
use crate::real::{self, libc_call};
use crate::region::{self, claimed, region};
use crate::tls::Quiet;
use crate::{bare, census, heap, malloc, python, rss, setup, sites};

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
    if bare::is() {
        bare::start();
        return;
    }
    sites::start();
    crate::stacks::native::start();
    // SAFETY: argv as given to the constructor.
    unsafe { describe(argc, argv) };
    heap::start();
    let usable = python::detect() && region().head.refusal.load(Relaxed) == 0;
    region().head.abilities.fetch_or(capture::CAN_MALLOC, Relaxed);
    if usable {
        crate::stacks::awaiting::start();
        crate::pools::reserve();
        crate::pymem::wrap();
        crate::python27::start();
        crate::module::offer();
        crate::control::start();
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

/// The process is about to exit in an orderly way: the objects are still there.
pub fn exiting() {
    if claimed() {
        let h = &region().head;
        if h.exit.when.load(Relaxed) != 0 {
            return;
        }
        if bare::is() {
            // A forked child has its parent's region in front of it.
            if !in_vfork_child() {
                h.exit.when.store(crate::clock::wall(), Relaxed);
                bare::end();
                h.state.store(capture::STATE_EXITED, Relaxed);
            }
            return;
        }
        rss::write_ledger(&h.exit);
        census::at_exit(h.exit.rss.load(Relaxed));
        h.state.store(capture::STATE_EXITED, Relaxed);
        // What the interpreter frees while it shuts down is no longer the program's doing.
        crate::counters::native_ends();
        crate::stacks::events::end();
        region::detach(capture_path());
    }
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
