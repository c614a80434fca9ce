//! Signals: what the target inherits, what is passed on to it, and dying as it died.
//!
//! Strandline and the target are in one process group, so what the terminal sends reaches both:
//! strandline lets it pass. What somebody sends to strandline alone is handed on.

use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering::SeqCst};

use libc::{c_int, c_void, sigaction, sigset_t};

/// SIGPIPE was ignored when strandline started; Rust's runtime ignores it in any case.
static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);
/// Standard descriptors (bit 0 to 2) that were closed when strandline started; Rust's runtime
/// opens /dev/null in their place.
static CLOSED: AtomicU8 = AtomicU8::new(0);
/// The process that signals are passed on to; 0: none.
static TARGET: AtomicI32 = AtomicI32::new(0);

#[used]
#[link_section = ".init_array"]
static BEFORE_MAIN: extern "C" fn() = record;

/// Notes what Rust's runtime is about to change.
extern "C" fn record() {
    PIPE_WAS_IGNORED.store(is_ignored(libc::SIGPIPE), SeqCst);
    for fd in 0..3 {
        // SAFETY: F_GETFD only asks whether the descriptor is open.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            CLOSED.fetch_or(1 << fd, SeqCst);
        }
    }
}

/// True if stderr was closed when strandline started.
pub fn stderr_was_closed() -> bool {
    was_closed(2)
}

/// True if descriptor `fd`, one of the first three, was closed when strandline started.
pub fn was_closed(fd: c_int) -> bool {
    CLOSED.load(SeqCst) & 1 << fd != 0
}

/// The signal that was to end the target, if one came.
pub fn asked_to_end() -> Option<c_int> {
    Some(ASKED_TO_END.load(SeqCst)).filter(|signal| *signal != 0)
}

fn action_of(signal: c_int) -> Option<sigaction> {
    let mut action = MaybeUninit::<sigaction>::uninit();
    // SAFETY: sigaction(2) only reads the disposition, and fills `action` in if it succeeds.
    unsafe {
        (libc::sigaction(signal, null(), action.as_mut_ptr()) == 0).then(|| action.assume_init())
    }
}

fn is_ignored(signal: c_int) -> bool {
    action_of(signal).is_some_and(|a| a.sa_sigaction == libc::SIG_IGN)
}

fn set(signal: c_int, handler: usize, flags: c_int) {
    // SAFETY: an all-zero sigaction is a valid value; `handler` is SIG_DFL, SIG_IGN or an
    // async-signal-safe function of the type that `flags` says.
    unsafe {
        let mut action: sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, null_mut());
    }
}

/// A signal that is ignored until this is dropped.
pub struct Ignored(c_int, Option<sigaction>);

impl Ignored {
    /// Ignores `signal`.
    pub fn new(signal: c_int) -> Ignored {
        let before = action_of(signal);
        set(signal, libc::SIG_IGN, 0);
        Ignored(signal, before)
    }
}

impl Drop for Ignored {
    fn drop(&mut self) {
        if let Some(before) = &self.1 {
            // SAFETY: puts back what sigaction(2) gave.
            unsafe { libc::sigaction(self.0, before, null_mut()) };
        }
    }
}

/// All signals of this thread, held back until `release`.
pub struct Blocked {
    before: sigset_t,
    child_was_ignored: bool,
}

impl Blocked {
    /// Holds all signals back. SIGCHLD stops being ignored, or the target's exit code would be
    /// lost.
    pub fn new() -> Blocked {
        let child_was_ignored = is_ignored(libc::SIGCHLD);
        if child_was_ignored {
            set(libc::SIGCHLD, libc::SIG_DFL, 0);
        }
        // SAFETY: sigfillset(3) and pthread_sigmask(3) fill the sets they are given.
        let before = unsafe {
            let mut all: sigset_t = std::mem::zeroed();
            let mut before: sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            before
        };
        Blocked { before, child_was_ignored }
    }

    /// In the forked child: makes signals and standard descriptors what they were when
    /// strandline started. Async-signal-safe.
    pub fn restore_for_target(&self) {
        if !PIPE_WAS_IGNORED.load(SeqCst) {
            set(libc::SIGPIPE, libc::SIG_DFL, 0);
        }
        if self.child_was_ignored {
            set(libc::SIGCHLD, libc::SIG_IGN, 0);
        }
        let closed = CLOSED.load(SeqCst);
        for fd in (0..3).filter(|fd| closed & 1 << fd != 0) {
            // SAFETY: closes the /dev/null that Rust's runtime opened there.
            unsafe { libc::close(fd) };
        }
        self.release();
    }

    /// Lets signals through again.
    pub fn release(&self) {
        // SAFETY: sets the mask that was in force before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, null_mut()) };
    }
}

/// Runs `f` with all signals held back from this thread, and from threads that it starts.
pub fn held_back<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: sigfillset(3) and pthread_sigmask(3) fill the sets they are given, and put back
    // the mask that was in force.
    unsafe {
        let mut all: sigset_t = std::mem::zeroed();
        let mut before: sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let result = f();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, null_mut());
        result
    }
}

/// Signals that are passed on if somebody sends them to strandline.
const PASSED_ON: [c_int; 6] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// Passes signals on to a process until this is dropped.
pub struct Forwarding(Vec<(c_int, sigaction)>);

impl Forwarding {
    /// Starts to. A signal that was ignored stays so: the target ignores it too.
    pub fn to(pid: c_int) -> Forwarding {
        TARGET.store(pid, SeqCst);
        let mut before = Vec::new();
        for signal in PASSED_ON {
            if let Some(action) = action_of(signal).filter(|a| a.sa_sigaction != libc::SIG_IGN) {
                before.push((signal, action));
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = pass_on;
                set(signal, handler as usize, libc::SA_SIGINFO | libc::SA_RESTART);
            }
        }
        Forwarding(before)
    }

    /// The process is gone: its number may mean another one soon.
    pub fn stop() {
        TARGET.store(0, SeqCst);
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        Forwarding::stop();
        for (signal, before) in &self.0 {
            // SAFETY: puts back what sigaction(2) gave.
            unsafe { libc::sigaction(*signal, before, null_mut()) };
        }
    }
}

/// Signals that mean: come to an end.
const ENDING: [c_int; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP];
static ASKED_TO_END: AtomicI32 = AtomicI32::new(0);

extern "C" fn pass_on(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    if ENDING.contains(&signal) {
        ASKED_TO_END.store(signal, SeqCst);
    }
    let pid = TARGET.load(SeqCst);
    // SAFETY: the kernel hands a valid siginfo to a handler that was set with SA_SIGINFO; kill(2)
    // is async-signal-safe, and errno is put back for the code that was interrupted.
    unsafe {
        // What the kernel sends (a positive code) comes from the terminal, and went to the
        // target as well.
        if pid > 0 && !info.is_null() && (*info).si_code <= 0 {
            let errno = libc::__errno_location();
            let before = *errno;
            libc::kill(pid, signal);
            *errno = before;
        }
    }
}

/// Ends this process by `signal`, as the target was ended, without leaving a second core dump.
/// Returns if the signal doesn't end a process.
pub fn die_by(signal: c_int) {
    set(signal, libc::SIG_DFL, 0);
    // SAFETY: plain system calls on this process; the sets are filled before they are used.
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        // The limit doesn't hold where dumps go to a program.
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        let mut set: sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, null_mut());
        libc::kill(libc::getpid(), signal);
    }
}
