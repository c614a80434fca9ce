//! The control channel: `strandline remedies PID` sends a thread of this process here.
//!
//! No thread of ours waits for requests, and no signal is used: the reader stops one thread by
//! ptrace, where that thread may be used for something else, writes the request into
//! [`Control`] and makes the thread go on at the trampoline below, and lets it go. From there on
//! nothing depends on the reader: the trampoline saves every register, does what was asked for,
//! restores them, and goes on where the thread was.
//!
//! Where a thread may be used (the reader chooses, [`entered`] looks again):
//!
//! - It waits in a system call, without the GIL, as CPython does it around everything that may
//!   take long. Any Python code may run on it once it has taken the GIL, as in a callback. Its
//!   call is made again afterwards, as the kernel does after a signal without a handler. Signals
//!   are held back meanwhile; if one with a handler has come in, the call fails with EINTR instead,
//!   as it would have.
//! - It runs in the interpreter's loop itself, not in a function that that calls: then nothing is
//!   half done that a C function called from there could see, no lock of malloc's or of ours is
//!   held, and a pending call can be asked for.

use core::sync::atomic::{AtomicU64, Ordering::*};

use libc::{c_int, c_void};
use strandline_capture::layout::{self as capture, Control};

use crate::region::{claimed, region};
use crate::symbols::{self, call};
use crate::tls::tls;
use crate::{python, remedy, setup};

// Entered with all registers as the interrupted code left them, but for the instruction pointer
// and the stack pointer: that is 136 bytes lower, which leaves the red zone (128 bytes, System V
// ABI) as it is; at it stands the address to go on at. `ret 128` takes both back at once, so that a
// signal at any instruction finds a stack that is in order.
//
// XSAVE: the size is CPUID's (leaf 13, EBX, for what XCR0 has on); the area is 64-byte aligned and
// its header must be zero before (Intel SDM vol. 1, 13.4). Without XSAVE: FXSAVE.
core::arch::global_asm!(
    ".pushsection .text.strandline_enter,\"ax\",@progbits",
    ".p2align 4",
    ".globl strandline_enter",
    ".hidden strandline_enter",
    ".type strandline_enter, @function",
    "strandline_enter:",
    "pushfq",
    "push rax",
    "push rcx",
    "push rdx",
    "push rbx",
    "push rbp",
    "push rsi",
    "push rdi",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rbp, rsp",
    "cld",
    "mov eax, 1",
    "xor ecx, ecx",
    "cpuid",
    "bt ecx, 27",
    "jnc 2f",
    "mov eax, 13",
    "xor ecx, ecx",
    "cpuid",
    "sub rsp, rbx",
    "and rsp, -64",
    "lea rdi, [rsp + 512]",
    "xor eax, eax",
    "mov ecx, 8",
    "rep stosq",
    "mov eax, -1",
    "mov edx, -1",
    "xsave64 [rsp]",
    "mov rbx, rsp",
    "mov rdi, rbp",
    "call {entered}",
    "mov eax, -1",
    "mov edx, -1",
    "xrstor64 [rbx]",
    "jmp 3f",
    "2:",
    "sub rsp, 512",
    "and rsp, -64",
    "fxsave64 [rsp]",
    "mov rbx, rsp",
    "mov rdi, rbp",
    "call {entered}",
    "fxrstor64 [rbx]",
    "3:",
    "mov rsp, rbp",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop r11",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdi",
    "pop rsi",
    "pop rbp",
    "pop rbx",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "popfq",
    "ret 128",
    ".size strandline_enter, . - strandline_enter",
    ".popsection",
    entered = sym entered,
);

extern "C" {
    fn strandline_enter();
}

/// What the trampoline pushed, from the lowest address on.
#[repr(C)]
struct Frame {
    /// r15 to rcx.
    others: [u64; 14],
    rax: u64,
    flags: u64,
    /// Where it goes on.
    next: u64,
}

/// What [`publish`] says: first byte and byte after the last of the interpreter's loop and of the
/// functions that wait for a lock or a thread.
static RANGES: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// Looks up what the reader has to know. Called once from the constructor.
pub fn start() {
    let first = |a: &'static symbols::Symbol, b| if a.found() { a } else { b };
    let eval = first(&symbols::EVAL_LOOP, &symbols::EVAL_FRAME_EX).range();
    let lock = first(&symbols::LOCK_TIMED, &symbols::LOCK).range();
    let event = symbols::EVENT_TIMED.range();
    for (to, value) in RANGES.iter().zip([eval, lock, event].into_iter().flatten()) {
        to.store(value, Relaxed);
    }
    publish();
}

/// Writes into the region where threads may be sent.
pub fn publish() {
    let c = &region().head.control;
    let to = c.eval_loop.iter().chain(c.lock_waits.iter().flatten());
    to.zip(&RANGES).for_each(|(to, value)| to.store(value.load(Relaxed), Relaxed));
    let able = [
        &symbols::GIL_ENSURE,
        &symbols::GIL_RELEASE,
        &symbols::GIL_THIS_THREAD,
        &symbols::ADD_PENDING_CALL,
        &symbols::CALL_OBJ_ARGS,
    ];
    if able.iter().all(|s| s.found()) {
        let f: unsafe extern "C" fn() = strandline_enter;
        c.trampoline.store(f as usize as u64, Release);
    }
}

/// Called by the trampoline.
unsafe extern "C" fn entered(frame: *mut Frame) {
    let c = &region().head.control;
    // SAFETY: errno of this thread, which is put back.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let able = claimed() && tls().flags.get() == 0 && setup::is_up();
        let blocked = c.entry.load(Acquire) == capture::ENTRY_BLOCKED;
        let done = able && if blocked { from_wait(c) } else { from_loop() };
        if !done {
            c.state.store(capture::CONTROL_REFUSED, Release);
        }
        if blocked {
            signals_back(c, frame);
        }
        *errno = before;
    }
}

/// The thread waits in a system call; false if it has the GIL, or isn't one of Python's.
///
/// # Safety
/// The interpreter runs.
unsafe fn from_wait(c: &Control) -> bool {
    // SAFETY: documented API, allowed to any thread while the interpreter runs.
    unsafe {
        let mine = call!(symbols::GIL_THIS_THREAD, fn() -> usize);
        if mine == 0 || python::current_tstate() == mine {
            return false;
        }
        let state = call!(symbols::GIL_ENSURE, fn() -> c_int);
        crate::sites::note_thread(mine);
        serve(c);
        call!(symbols::GIL_RELEASE, fn(state => c_int));
        true
    }
}

/// The thread runs in the interpreter's loop: asks for a pending call.
///
/// # Safety
/// The interpreter runs, and no lock of its is held by this thread.
unsafe fn from_loop() -> bool {
    let f: unsafe extern "C" fn(*mut c_void) -> c_int = pending;
    // SAFETY: Py_AddPendingCall may be called by any thread, with or without the GIL.
    unsafe {
        call!(
            symbols::ADD_PENDING_CALL,
            fn(f as usize => usize, core::ptr::null_mut() => *mut c_void) -> c_int
        ) == 0
    }
}

unsafe extern "C" fn pending(_: *mut c_void) -> c_int {
    // SAFETY: a pending call runs with the GIL, no exception set.
    unsafe { serve(&region().head.control) };
    0
}

/// Does what is asked for.
///
/// # Safety
/// The GIL is held, at a place where Python code may run.
unsafe fn serve(c: &Control) {
    c.rss[0].store(remedy::exact_rss(), Relaxed);
    // SAFETY: the caller's promise.
    unsafe { remedy::apply(c.kind.load(Relaxed)) };
    c.rss[1].store(remedy::exact_rss(), Relaxed);
    c.state.store(capture::CONTROL_DONE, Release);
}

/// The kernel's `struct sigaction`, its first two fields.
#[repr(C)]
struct Action {
    handler: usize,
    rest: [u64; 3],
}

/// Lets signals in again. If one is waiting that has a handler, the interrupted call ends with
/// EINTR instead of being made again.
///
/// # Safety
/// `frame` is the trampoline's, the thread's signals are blocked and `c.mask` is its mask.
unsafe fn signals_back(c: &Control, frame: *mut Frame) {
    let mask = c.mask.load(Relaxed);
    let bytes = core::mem::size_of::<u64>();
    // SAFETY: rt_sigpending(2), rt_sigaction(2) and rt_sigprocmask(2) with the kernel's own
    // signal sets of 8 bytes.
    unsafe {
        let mut waiting = 0u64;
        libc::syscall(libc::SYS_rt_sigpending, &mut waiting, bytes);
        let handled = (1..=64).filter(|n| (waiting & !mask) >> (n - 1) & 1 != 0).any(|n: c_int| {
            let mut action = Action { handler: 0, rest: [0; 3] };
            let none: *const Action = core::ptr::null();
            libc::syscall(libc::SYS_rt_sigaction, n, none, &mut action, bytes);
            action.handler != libc::SIG_DFL && action.handler != libc::SIG_IGN
        });
        let next = c.on_signal.load(Relaxed);
        if handled && next != 0 {
            (*frame).rax = (-i64::from(libc::EINTR)) as u64;
            (*frame).next = next;
        }
        let none: *const u64 = core::ptr::null();
        let set = &mask as *const u64;
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, set, none, bytes);
    }
}
