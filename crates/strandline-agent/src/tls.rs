//! The agent's thread-local words.
//!
//! Initial-exec TLS: one `mov` and one `add`, no call, no allocation, valid from the first
//! instruction of a thread to its last. `#[thread_local]` isn't stable Rust and
//! `std::thread_local!` in a shared library goes through `__tls_get_addr`, which may allocate;
//! so the block is declared to the assembler.

use core::cell::Cell;

/// The agent itself runs Python code on this thread: what it allocates is the profiler's own.
pub const QUIET: u32 = 1;
/// The thread is inside the agent's slow path (it holds, or waits for, the lock).
pub const IN_AGENT: u32 = 2;
/// The thread is inside pymalloc's arena allocator: mapping calls belong to it.
pub const IN_ARENA: u32 = 4;
/// 2.7: the thread is inside `PyObject_Malloc`, `PyObject_Realloc` or `PyObject_Free`.
pub const IN_OBJECT_27: u32 = 8;
/// The thread looks one of libc's functions up.
pub const RESOLVING: u32 = 16;

/// Words of one thread; all zero in a new thread.
#[repr(C)]
pub struct Tls {
    /// Set of profiled lines that are active on this thread: index of a capture context.
    pub context: Cell<u32>,
    /// `--stacks`: this thread's index into the capture's table plus one, 0 if it has none.
    pub thread: Cell<u32>,
    /// `QUIET`, `IN_AGENT`, `IN_ARENA`, `IN_OBJECT_27`, `RESOLVING`.
    pub flags: Cell<u32>,
    /// Value of `sites::TSTATE_EPOCH` when `tstate` was stored.
    pub tstate_epoch: Cell<u32>,
    /// Address of this thread's `PyThreadState`, 0 if never seen.
    pub tstate: Cell<usize>,
    /// Tag of the last allocation without the GIL.
    pub native_tag: Cell<u32>,
    /// Site key of the last allocation without the GIL.
    pub native_key: Cell<u64>,
    /// Context and epoch of the last allocation without the GIL.
    pub native_context: Cell<u64>,
    /// Index + 1 of this thread's line stack (`lines::stacks`), 0 if it has none.
    pub stack: Cell<u32>,
    /// Context to go back to after `native_quiet`.
    pub before_quiet: Cell<u32>,
    /// Address of the program's own trace function while ours is installed (before 3.12).
    pub program_trace: Cell<usize>,
    /// Highest stack address at which our evaluation function ran (before 3.12).
    pub stack_top: Cell<usize>,
    /// How many calls of functions under `@profile` are under way (bare runs).
    pub depth: Cell<usize>,
    /// `--stacks`: how often its name was looked for.
    pub named: Cell<u32>,
    /// `--stacks`: the allocator that is passing a request on (`DOMAIN_*` plus one), 0: none.
    pub domain: Cell<u32>,
    /// `--native`: where this thread's machine stack is.
    pub native: strandline_unwind::StackCache,
    /// `--async-stacks`: the block that is being given another size, 0: none.
    pub moving: Cell<usize>,
    /// Address of what this thread feeds (`meter::threads`), 0 if nothing.
    pub meter: Cell<usize>,
    /// `--stacks`: number of allocations of this thread.
    pub recent_at: Cell<u32>,
    /// `--stacks`: addresses of its last ones, the newest at `recent_at - 1`; for the usual
    /// distance, at 0.
    pub recent: [Cell<usize>; strandline_capture::layout::MOST_RECENT as usize],
}

const _: () = assert!(core::mem::size_of::<Tls>() <= 256);

core::arch::global_asm!(
    ".pushsection .tbss.strandline_tls,\"awT\",@nobits",
    ".p2align 6",
    ".globl strandline_tls",
    ".hidden strandline_tls",
    ".type strandline_tls, @tls_object",
    "strandline_tls:",
    ".zero 256",
    ".size strandline_tls, 256",
    ".popsection",
);

impl Tls {
    /// `context`, and above it `thread`.
    #[inline(always)]
    pub fn context_and_thread(&self) -> u64 {
        // SAFETY: the block is aligned to a cache line and these are its first two words.
        unsafe { *(self as *const Tls as *const u64) }
    }
}

const _: () =
    assert!(core::mem::offset_of!(Tls, context) == 0 && core::mem::offset_of!(Tls, thread) == 4);

/// This thread's block.
#[inline(always)]
pub fn tls() -> &'static Tls {
    let block: *const Tls;
    // SAFETY: the two instructions compute the address of `strandline_tls` for this thread
    // (System V TLS ABI, initial-exec model); the block is zeroed by the loader, lives as long
    // as the thread, and is only touched through `Cell` on its own thread.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr fs:[0]",
            "add {0}, qword ptr [rip + strandline_tls@GOTTPOFF]",
            out(reg) block,
            options(pure, nomem, nostack),
        );
        &*block
    }
}

/// While it lives, this thread works for the profiler: what it allocates is counted apart.
pub struct Quiet {
    context: u32,
    flags: u32,
}

impl Quiet {
    /// The context of the profiler's own work: the last of the table, which no line gets.
    pub const CONTEXT: u32 = strandline_capture::layout::MAX_CONTEXTS as u32 - 1;

    /// Starts working for the profiler.
    pub fn new() -> Self {
        let t = tls();
        let before = Quiet { context: t.context.get(), flags: t.flags.get() };
        t.context.set(Self::CONTEXT);
        t.flags.set(before.flags | QUIET);
        before
    }
}

impl Default for Quiet {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        tls().context.set(self.context);
        tls().flags.set(self.flags);
    }
}

/// Sets bits of `Tls::flags` until dropped; restores what was there.
pub struct Flagged {
    before: u32,
}

impl Flagged {
    /// Sets `bits` on this thread.
    #[inline(always)]
    pub fn new(bits: u32) -> Self {
        let t = tls();
        let before = t.flags.get();
        t.flags.set(before | bits);
        Flagged { before }
    }
}

impl Drop for Flagged {
    #[inline(always)]
    fn drop(&mut self) {
        tls().flags.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn every_thread_has_its_own_zeroed_block() {
        tls().context.set(7);
        let other = std::thread::spawn(|| (tls().context.get(), tls() as *const Tls as usize));
        let (context, address) = other.join().unwrap_or((1, 0));
        assert_eq!(context, 0);
        assert_ne!(address, tls() as *const Tls as usize);
        assert_eq!(tls().context.get(), 7);
        tls().context.set(0);
    }
}
