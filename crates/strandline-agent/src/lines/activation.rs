//! Activations: profiled frames that run, per thread, and what their current line does.
//!
//! Each thread that runs a profiled function has a stack of them, taken from a pool and given
//! back when it is empty. A line's peak comes from one process-wide watermark of bytes in use
//! that every line event folds into the lines that are active, and starts anew.

use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use strandline_capture::layout::Slot;

use super::marked::{self, Function};
use crate::counters;
use crate::explain;
use crate::memory;
use crate::python;
use crate::region::region;
use crate::rss;
use crate::sites;
use crate::tls::tls;

/// A profiled frame that runs.
#[repr(C)]
#[derive(Clone, Copy)]
struct Activation {
    function: Function,
    /// Address of the code object.
    code: usize,
    /// Address of the frame.
    frame: usize,
    /// Context outside this frame.
    outside: u32,
    /// Slot of the current line, 0 before the first.
    slot: u32,
    /// Number of the current line.
    number: u32,
    /// `rss::moved` when the current line's RSS was noted, 0: never.
    noted: u32,
    /// Bytes in use when the line started.
    in_use: i64,
    /// Most bytes in use since.
    most: i64,
    /// Most bytes in use in any line of this activation so far.
    highest: i64,
    rss: i64,
    stranded: i64,
}

/// One thread's activations, innermost last.
struct Stack {
    items: Cell<*mut Activation>,
    len: Cell<usize>,
    capacity: Cell<usize>,
    taken: Cell<bool>,
}

const STACKS: usize = 1024;

struct Pool(UnsafeCell<[Stack; STACKS]>);
// SAFETY: used under the GIL only.
unsafe impl Sync for Pool {}
static POOL: Pool = Pool(UnsafeCell::new(
    [const {
        Stack {
            items: Cell::new(core::ptr::null_mut()),
            len: Cell::new(0),
            capacity: Cell::new(0),
            taken: Cell::new(false),
        }
    }; STACKS],
));
/// Stacks that are taken; indices below `HIGHEST` may be.
static TAKEN: AtomicU32 = AtomicU32::new(0);
static HIGHEST: AtomicU32 = AtomicU32::new(0);

fn stacks() -> &'static [Stack; STACKS] {
    // SAFETY: only `Cell`s inside, used under the GIL.
    unsafe { &*POOL.0.get() }
}

/// This thread's stack, if it has one.
#[inline(always)]
fn mine() -> Option<&'static Stack> {
    let index = tls().stack.get();
    if index == 0 {
        return None;
    }
    stacks().get(index as usize - 1)
}

fn take_stack() -> Option<&'static Stack> {
    if let Some(s) = mine() {
        return Some(s);
    }
    let (i, s) = stacks().iter().enumerate().find(|(_, s)| !s.taken.get())?;
    s.taken.set(true);
    s.len.set(0);
    tls().stack.set(i as u32 + 1);
    TAKEN.store(TAKEN.load(Relaxed) + 1, Relaxed);
    HIGHEST.store(HIGHEST.load(Relaxed).max(i as u32 + 1), Relaxed);
    Some(s)
}

fn give_back(s: &Stack) {
    s.taken.set(false);
    tls().stack.set(0);
    TAKEN.store(TAKEN.load(Relaxed) - 1, Relaxed);
}

impl Stack {
    #[inline(always)]
    fn top(&self) -> Option<&'static mut Activation> {
        let len = self.len.get();
        // SAFETY: below `len`; the GIL makes this the only user.
        (len > 0).then(|| unsafe { &mut *self.items.get().add(len - 1) })
    }

    fn at(&self, i: usize) -> Option<&'static mut Activation> {
        // SAFETY: as in `top`.
        (i < self.len.get()).then(|| unsafe { &mut *self.items.get().add(i) })
    }

    fn push(&self, a: Activation) -> bool {
        if self.len.get() == self.capacity.get() {
            let Some(_guard) = crate::lock::lock() else { return false };
            let capacity = (self.capacity.get() * 2).max(16);
            let items =
                memory::bump(capacity * core::mem::size_of::<Activation>()) as *mut Activation;
            if items.is_null() {
                return false;
            }
            if self.len.get() > 0 {
                // SAFETY: both arrays hold `len` items.
                unsafe { core::ptr::copy_nonoverlapping(self.items.get(), items, self.len.get()) };
            }
            self.items.set(items);
            self.capacity.set(capacity);
        }
        // SAFETY: `len < capacity`.
        unsafe { *self.items.get().add(self.len.get()) = a };
        self.len.set(self.len.get() + 1);
        true
    }
}

/// Folds the watermark into every thread's innermost activation and starts it anew.
#[inline(always)]
pub fn fold() -> i64 {
    let h = &region().head;
    let highest = h.watermark.load(Relaxed);
    let now = counters::in_use();
    h.watermark.store(now, Relaxed);
    if highest > h.peak.load(Relaxed) {
        h.peak.store(highest, Relaxed);
    }
    crate::usage::folded(highest);
    if TAKEN.load(Relaxed) > 1 {
        fold_all(highest);
    } else if let Some(a) = mine().and_then(Stack::top) {
        a.most = a.most.max(highest);
    }
    now
}

#[cold]
fn fold_all(highest: i64) {
    for s in stacks().iter().take(HIGHEST.load(Relaxed) as usize) {
        if let (true, Some(a)) = (s.taken.get(), s.top()) {
            a.most = a.most.max(highest);
        }
    }
}

#[inline(always)]
fn slot_of(index: u32) -> Option<&'static Slot> {
    region().slots.get(index as usize)
}

/// The line that runs in `a` ends, and line `next` begins (0: none). Returns the bytes in use now
/// and the memory reading.
#[inline(always)]
fn end_line(a: &mut Activation, next: u32) -> (i64, rss::Reading) {
    let now = fold();
    let r = rss::reading();
    a.highest = a.highest.max(a.most);
    if a.slot != 0 {
        if let Some(s) = slot_of(a.slot) {
            let above = (a.most.max(now) - a.in_use).max(0) as u64;
            if above > s.peak.load(Relaxed) {
                s.peak.store(above, Relaxed);
            }
            if r.rss != a.rss {
                counters::add_signed(&s.rss_increment, r.rss - a.rss);
            }
            if r.stranded != a.stranded {
                counters::add_signed(&s.stranded_increment, r.stranded - a.stranded);
            }
            note_rss(s, &r);
            if let Some(line) = a.function.line(a.number) {
                line.noted.set(r.at);
            }
            if explain::is_wanted() {
                let (rss, stranded) = (r.rss - a.rss, r.stranded - a.stranded);
                let change = explain::Change { rss, stranded, in_use: now - a.in_use };
                explain::line_ended(a.slot, &change, next != a.number);
            }
        }
    }
    (now, r)
}

/// Keeps the highest RSS seen after a line, with what goes with it.
#[inline(always)]
fn note_rss(s: &Slot, r: &rss::Reading) {
    let first = s.readings.load(Relaxed) == 0;
    if first || r.rss > s.rss.load(Relaxed) {
        s.rss.store(r.rss, Relaxed);
        s.in_use_at_rss.store(rss::program_in_use(), Relaxed);
        s.stranded_at_rss.store(r.stranded, Relaxed);
        s.readings.store(1, Relaxed);
    }
}

/// A line ends and the next begins while nothing happened that any figure shows: true if that
/// is so and was noted. The case of a hot loop.
#[inline(always)]
pub fn quiet_line(code: usize, frame: usize, number: u32) -> bool {
    let t = tls();
    let Some(stack) = stacks().get((t.stack.get() as usize).wrapping_sub(1)) else { return false };
    let Some(a) = stack.top() else { return false };
    let h = &region().head;
    let moved = rss::moved();
    let now = counters::in_use();
    let same = a.code == code
        && (frame == 0 || a.frame == frame)
        && now == a.in_use
        && now == a.most
        && now == h.watermark.load(Relaxed)
        && a.noted == moved;
    if !same || rss::untouched_memory() {
        return false;
    }
    let Some(line) = a.function.line(number) else { return false };
    if line.noted.get() != moved || line.outside.get() != a.outside {
        return false;
    }
    t.context.set(line.inside.get());
    let slot = line.slot.get();
    a.slot = slot;
    a.number = number;
    if let Some(s) = slot_of(slot) {
        counters::add(&s.occurrences, 1);
    }
    true
}

/// Line `number` starts in `a`. `counted`: it is a run of its own, not the rest of one that was
/// suspended.
#[inline(always)]
fn begin_line(a: &mut Activation, number: u32, counted: bool, now: i64, r: &rss::Reading) {
    let Some(line) = a.function.line(number) else {
        a.slot = 0;
        a.noted = 0;
        tls().context.set(a.outside);
        return;
    };
    let slot = marked::slot(&a.function, line, number);
    if line.outside.get() != a.outside || line.inside.get() == 0 {
        line.outside.set(a.outside);
        line.inside.set(sites::context_with(a.outside, slot));
    }
    tls().context.set(line.inside.get());
    a.slot = slot;
    a.number = number;
    a.noted = line.noted.get();
    a.in_use = now;
    a.most = now;
    a.rss = r.rss;
    a.stranded = r.stranded;
    if counted {
        if let Some(s) = slot_of(slot) {
            counters::add(&s.occurrences, 1);
        }
    }
}

/// How a profiled frame comes to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A call of the function itself.
    Call,
    /// A call of a code object nested in it, or one whose start wasn't seen.
    Nested,
    /// A generator or coroutine goes on with this line.
    Resume(u32),
}

/// A profiled frame starts or resumes.
pub fn enter(function: u32, code: usize, frame: usize, entry: Entry) {
    let Some(function) = marked::function(function) else { return };
    let Some(stack) = take_stack() else { return };
    sites::note_thread(python::current_tstate());
    let now = fold();
    let r = rss::reading();
    let a = Activation {
        function,
        code,
        frame,
        outside: tls().context.get(),
        slot: 0,
        number: 0,
        noted: 0,
        in_use: now,
        most: now,
        highest: now,
        rss: r.rss,
        stranded: r.stranded,
    };
    if !stack.push(a) {
        return;
    }
    if explain::is_wanted() && stack.len.get() == 1 {
        explain::function_entered();
    }
    let Some(a) = stack.top() else { return };
    match entry {
        Entry::Resume(number) => begin_line(a, number, false, now, &r),
        Entry::Call => first_line(&function, &r),
        Entry::Nested => {}
    }
}

/// The `def` line's row says what was resident when the function was entered.
fn first_line(function: &Function, r: &rss::Reading) {
    if let Some(f) = region().functions.get(function.index as usize) {
        counters::add(&f.calls, 1);
    }
    let Some(line) = function.line(function.first) else { return };
    let slot = marked::slot(function, line, function.first);
    if let Some(s) = slot_of(slot) {
        if s.readings.load(Relaxed) == 0 {
            s.rss_increment.store(r.rss, Relaxed);
        }
        counters::add(&s.occurrences, 1);
        note_rss(s, r);
    }
}

/// Line `number` starts in the profiled frame `frame` of `code`, which belongs to `function`.
#[inline]
pub fn line(function: u32, code: usize, frame: usize, number: u32) {
    let top = match mine().and_then(Stack::top) {
        Some(a) if a.code == code && (a.frame == frame || frame == 0) => a,
        _ => match find(function, code, frame) {
            Some(a) => a,
            None => return,
        },
    };
    sites::note_thread(python::current_tstate());
    let (now, r) = end_line(top, number);
    begin_line(top, number, true, now, &r);
}

/// The frame isn't on top: its entry wasn't seen (it was marked while it ran, or a generator
/// that an exception was thrown into), or a switch of stacks (greenlets) put others on top.
#[cold]
fn find(function: u32, code: usize, frame: usize) -> Option<&'static mut Activation> {
    if let Some(stack) = mine() {
        let found = (0..stack.len.get())
            .find(|i| stack.at(*i).is_some_and(|a| a.frame == frame && a.code == code));
        if let Some(i) = found {
            while stack.len.get() > i + 1 {
                pop(stack);
            }
            return stack.top();
        }
    }
    enter(function, code, frame, Entry::Nested);
    mine().and_then(Stack::top)
}

/// The innermost activation ends.
fn pop(stack: &Stack) {
    let Some(a) = stack.top() else { return };
    end_line(a, 0);
    tls().context.set(a.outside);
    let highest = a.highest;
    stack.len.set(stack.len.get() - 1);
    if let Some(caller) = stack.top() {
        caller.most = caller.most.max(highest);
    }
}

/// The profiled frame `frame` of `code` returns, yields, or is left by an exception. Frames
/// above it, whose end wasn't seen, end with it.
pub fn leave(code: usize, frame: usize) {
    let Some(stack) = mine() else { return };
    let known = (0..stack.len.get())
        .rev()
        .find(|i| stack.at(*i).is_some_and(|a| a.code == code && (a.frame == frame || frame == 0)));
    let Some(i) = known else { return };
    while stack.len.get() > i {
        pop(stack);
    }
    if stack.len.get() == 0 {
        give_back(stack);
    }
}

/// In the child of a fork: only this thread goes on.
pub fn after_fork() {
    let own = tls().stack.get() as usize;
    for (i, s) in stacks().iter().enumerate().take(HIGHEST.load(Relaxed) as usize) {
        if i + 1 != own && s.taken.get() {
            s.taken.set(false);
            TAKEN.store(TAKEN.load(Relaxed) - 1, Relaxed);
        }
    }
}
