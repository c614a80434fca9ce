//! Compares this library with libgcc's unwinder, which knows nothing of it.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use strandline_unwind::{capture, End, StackCache};

#[link(name = "gcc_s")]
extern "C" {
    fn _Unwind_Backtrace(
        f: unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        arg: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
    fn _Unwind_Find_FDE(pc: *const c_void, bases: *mut c_void) -> *const c_void;
}

pub const MOST: usize = 4096;

/// Return addresses, innermost first.
pub struct Trace {
    pub pcs: [usize; MOST],
    pub length: usize,
}

impl Trace {
    pub const fn new() -> Self {
        Trace { pcs: [0; MOST], length: 0 }
    }

    pub fn push(&mut self, pc: usize) -> bool {
        let Some(slot) = self.pcs.get_mut(self.length) else { return false };
        *slot = pc;
        self.length += 1;
        true
    }

    pub fn get(&self) -> &[usize] {
        &self.pcs[..self.length]
    }
}

unsafe extern "C" fn collect(context: *mut c_void, trace: *mut c_void) -> c_int {
    // SAFETY: libgcc gives its context, and the pointer that it was given.
    let more = unsafe { (*trace.cast::<Trace>()).push(_Unwind_GetIP(context)) };
    if more {
        0
    } else {
        5
    }
}

thread_local! {
    static STACK: StackCache = const { StackCache::new() };
    static TRACES: std::cell::UnsafeCell<[Trace; 2]> =
        const { std::cell::UnsafeCell::new([Trace::new(), Trace::new()]) };
}

pub static CHAINS: AtomicU64 = AtomicU64::new(0);
pub static FRAMES: AtomicU64 = AtomicU64::new(0);
pub static WRONG: AtomicU64 = AtomicU64::new(0);
pub static LOST: AtomicU64 = AtomicU64::new(0);

/// Unwinds from here with both; true if they agree. Safe in a signal handler.
#[inline(never)]
pub fn agree() -> bool {
    let bounds = STACK.with(|s| s.bounds()).expect("the kernel tells");
    TRACES.with(|traces| {
        // SAFETY: one user at a time: a signal handler that comes while this runs uses it again
        // only if the test lets it.
        let [ours, theirs] = unsafe { &mut *traces.get() };
        (ours.length, theirs.length) = (0, 0);
        let end = capture(bounds, |frame| ours.push(frame.pc));
        // SAFETY: `collect` keeps to libgcc's contract.
        unsafe { _Unwind_Backtrace(collect, theirs as *mut Trace as *mut c_void) };
        while theirs.length > 0 && theirs.pcs[theirs.length - 1] == 0 {
            theirs.length -= 1;
        }
        // The first ones are two places in this function (or closures of it, without
        // optimisation); the frames above must be the same.
        let own = |trace: &Trace| trace.length - common_end(ours.get(), theirs.get());
        let same = own(ours) <= 3 && own(theirs) <= 3 && own(ours) > 0;
        let same = same || gave_up(ours.get(), theirs.get());
        CHAINS.fetch_add(1, Relaxed);
        FRAMES.fetch_add(ours.length as u64, Relaxed);
        if end == End::Lost {
            LOST.fetch_add(1, Relaxed);
        }
        if !same {
            WRONG.fetch_add(1, Relaxed);
        }
        same && end == End::Outermost
    })
}

/// True if libgcc saw what we saw and stopped at a place that has no table (a linkage table: not
/// every linker describes it), where we go on.
fn gave_up(ours: &[usize], theirs: &[usize]) -> bool {
    let Some((last, before)) = theirs.split_last() else { return false };
    // All but the places in the function that called both.
    let from = 3.min(before.len());
    let alike = theirs.len() > from
        && theirs.len() < ours.len()
        && ours.windows(theirs.len() - from).take(4).any(|w| w == &theirs[from..]);
    alike && !has_table(*last)
}

/// True if libgcc finds a table for the function that `pc` is in. `pc` may be its first byte, so
/// the byte itself is looked for, as libgcc does in the frame of a signal.
fn has_table(pc: usize) -> bool {
    let mut bases = [0usize; 3];
    // SAFETY: looks an address up, whatever it is; `bases` has room for what it writes
    // (`struct dwarf_eh_bases`, three pointers).
    !unsafe { _Unwind_Find_FDE(pc as *const c_void, bases.as_mut_ptr().cast()) }.is_null()
}

fn common_end(a: &[usize], b: &[usize]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// What both said the last time on this thread, for people.
pub fn describe() -> String {
    TRACES.with(|traces| {
        // SAFETY: as above.
        let [ours, theirs] = unsafe { &*traces.get() };
        let mut text = String::new();
        for (name, trace) in [("ours", ours), ("libgcc's", theirs)] {
            text += &format!("{name}: {}\n", trace.length);
            for pc in trace.get().iter().take(60) {
                text += &format!("  {:#x} {}\n", pc, place(*pc));
            }
        }
        text
    })
}

fn place(pc: usize) -> String {
    match strandline_unwind::modules::find(pc) {
        Some((_, module)) => format!(
            "{}+{:#x}",
            String::from_utf8_lossy(module.path.rsplit(|&b| b == b'/').next().unwrap_or(&[])),
            pc - module.bias
        ),
        None => "?".into(),
    }
}
