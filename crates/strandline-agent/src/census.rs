//! A census of this process, asked for by itself: the strandline process reads its memory from
//! outside while it stands, here or in the call of a program.

use core::ffi::CStr;
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::*};

use strandline_capture::layout::{self as capture, Request};

use crate::clock;
use crate::region;

/// Longest wait until it is looked whether the strandline process still lives: nanoseconds.
const LOOK_NS: i64 = 100_000_000;
/// Looks for the slot at exit, when another thread may be about to read its answer: 2 seconds.
const EXIT_LOOKS: u32 = 20;

fn pid() -> u32 {
    // SAFETY: getpid(2) has no preconditions; libc's would be as good.
    unsafe { libc::syscall(libc::SYS_getpid) as u32 }
}

/// True if the process is there, or can't be asked. One that ended and that nobody has waited for
/// yet isn't there.
fn alive(pid: u32) -> bool {
    // SAFETY: kill(2) with signal 0 only looks; errno is the program's and is put back.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let gone =
            libc::syscall(libc::SYS_kill, pid as libc::pid_t, 0) != 0 && *errno == libc::ESRCH;
        let ended = !gone && ended(pid);
        *errno = before;
        !gone && !ended
    }
}

/// True if /proc/PID/stat says that the process is a zombie.
fn ended(pid: u32) -> bool {
    let (mut name, mut text) = ([0u8; 32], [0u8; 128]);
    let (mut digits, mut n, mut rest) = ([0u8; 10], 0, pid);
    while n == 0 || rest != 0 {
        digits[n] = b'0' + (rest % 10) as u8;
        (n, rest) = (n + 1, rest / 10);
    }
    let parts = b"/proc/".iter().chain(digits[..n].iter().rev()).chain(b"/stat");
    name.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
    let Ok(name) = CStr::from_bytes_until_nul(&name) else { return false };
    let text = crate::proc::read(name, &mut text);
    // The name of the program, in parentheses, may hold anything; the state follows the last one.
    let end = text.iter().rposition(|&b| b == b')');
    end.is_some_and(|at| matches!(text.get(at + 2), Some(b'Z' | b'X')))
}

fn wait_while(word: &AtomicU32, value: u32) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: LOOK_NS };
    // SAFETY: futex(2) FUTEX_WAIT on a word of a shared mapping; errno is put back.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &time);
        *errno = before;
    }
}

fn wake(word: &AtomicU32) {
    // SAFETY: futex(2) FUTEX_WAKE on a word of a shared mapping.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Nobody answers: what `ask` says then.
pub const NO_ANSWER: i64 = -1;
/// Another thread or process asks at this moment: what `ask` says then.
pub const BUSY: i64 = -2;

/// Takes the slot for requests; waits at most `looks` looks until whoever has it gives it back.
fn take(r: &Request, owner: u32, looks: u32) -> Result<(), i64> {
    let mine = pid();
    let mut left = looks;
    loop {
        match r.holder.compare_exchange(0, mine, AcqRel, Acquire) {
            Ok(_) => return Ok(()),
            // It ended without giving the slot back.
            Err(other) if other != mine && !alive(other) => {
                let _ = r.holder.compare_exchange(other, 0, AcqRel, Acquire);
            }
            Err(_) if left == 0 => return Err(BUSY),
            Err(other) => {
                left -= 1;
                wait_while(&r.holder, other);
                if !alive(owner) {
                    return Err(NO_ANSWER);
                }
            }
        }
    }
}

/// Asks for a census and waits for the answer: descriptor * 4 + status, or one of the negative
/// numbers above. `release` is to be called afterwards unless it was busy.
///
/// Whoever asks may hold the GIL, and who has the slot may need it to give it back: so the wait
/// for the slot is bounded.
pub fn ask(kind: u32, looks: u32) -> i64 {
    let Some(h) = region::header() else { return NO_ANSWER };
    let (r, owner) = (&h.request, h.owner_pid);
    if let Err(why) = take(r, owner, looks) {
        return why;
    }
    r.kind.store(kind, Release);
    let number = r.asked.fetch_add(1, AcqRel).wrapping_add(1);
    wake(&r.asked);
    loop {
        let answered = r.answered.load(Acquire);
        if answered == number {
            let status = r.status.load(Relaxed) as i64 & 3;
            return r.descriptor.load(Relaxed) as i64 * 4 + status;
        }
        wait_while(&r.answered, answered);
        if !alive(owner) {
            return NO_ANSWER;
        }
    }
}

/// Asks for a census of the end of the line in `slot` (0: of a function's start), `missed` bytes
/// having moved since the last one without a look. False if there is none.
pub fn ask_for_line(slot: u32, missed: i64) -> bool {
    let Some(h) = region::header() else { return false };
    if !wanted(capture::OPTION_EXPLAIN) {
        return false;
    }
    h.request.slot.store(slot, Relaxed);
    h.request.missed.store(missed as u64, Relaxed);
    let answer = ask(capture::CENSUS_LINE, 0);
    if answer != BUSY {
        release();
    }
    answer >= 0 && answer & 3 == capture::CENSUS_TAKEN as i64
}

/// Asks for a copy that the strandline process keeps.
fn ask_and_release(kind: u32, looks: u32) {
    if ask(kind, looks) != BUSY {
        release();
    }
}

/// Gives the slot back.
pub fn release() {
    let Some(h) = region::header() else { return };
    if h.request.holder.compare_exchange(pid(), 0, AcqRel, Acquire).is_ok() {
        wake(&h.request.holder);
    }
}

/// True if this is the process that strandline started, and `option` is set.
fn wanted(option: u32) -> bool {
    let Some(h) = region::header() else { return false };
    // SAFETY: getppid(2) has no preconditions.
    h.options & option != 0 && unsafe { libc::syscall(libc::SYS_getppid) } as u32 == h.owner_pid
}

/// The process is about to exit.
pub fn at_exit(rss: i64) {
    if rss > TAKEN_AT.load(Relaxed) && wanted(capture::OPTION_CENSUS_PEAK) {
        ask_and_release(capture::CENSUS_PEAK, EXIT_LOOKS);
    }
    if wanted(capture::OPTION_CENSUS_EXIT) {
        ask_and_release(capture::CENSUS_EXIT, EXIT_LOOKS);
    }
}

/// RSS at the last census of a peak, bytes.
static TAKEN_AT: AtomicI64 = AtomicI64::new(0);
/// When it was done, cycles.
static DONE: AtomicU64 = AtomicU64::new(0);
/// How long it took, cycles.
static TOOK: AtomicU64 = AtomicU64::new(0);
/// A thread is asking.
static ASKING: AtomicU32 = AtomicU32::new(0);

/// A new peak has to be higher than the last one by its 32nd part and this many bytes.
const HIGHER: i64 = 1 << 20;
/// While memory only grows, at most this part of the time goes into censuses: one 20th.
const PAUSES: u64 = 20;

/// True if it is to be looked for peaks at all.
#[inline(always)]
pub fn looks_for_peak() -> bool {
    region::options() & capture::OPTION_CENSUS_PEAK != 0
}

/// RSS is `rss`. Takes a census if that is a new peak, and either the memory is about to be given
/// back (`falling`) or the last census is long enough ago.
pub fn maybe_peak(rss: i64, falling: bool) {
    let last = TAKEN_AT.load(Relaxed);
    if rss < last + last / 32 + HIGHER || !wanted(capture::OPTION_CENSUS_PEAK) {
        return;
    }
    let now = clock::cycles();
    let long_ago = now.wrapping_sub(DONE.load(Relaxed)) > TOOK.load(Relaxed).saturating_mul(PAUSES);
    if !(falling || long_ago) || ASKING.swap(1, AcqRel) != 0 {
        return;
    }
    TAKEN_AT.store(rss, Relaxed);
    ask_and_release(capture::CENSUS_PEAK, 0);
    let done = clock::cycles();
    TOOK.store(done.wrapping_sub(now), Relaxed);
    DONE.store(done, Relaxed);
    ASKING.store(0, Release);
}
