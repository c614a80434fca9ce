//! From frame to frame.

use crate::cache::{self, Key};
use crate::compact::{Compact, Few, Step};
use crate::entry;
use crate::image::Range;
use crate::loader;
use crate::registers::Registers;
use crate::row::{Row, RETURN};
use crate::stack::{StackBounds, StackReader};

/// A frame of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Address of the next instruction it runs: a return address, except if `interrupted`.
    pub pc: usize,
    /// The frame did not call the one below: it is the first one, or a signal came.
    pub interrupted: bool,
    /// Where its part of the stack begins (its stack pointer); it ends where its caller's begins.
    pub sp: usize,
}

impl Frame {
    /// An address inside the instruction that runs: that of the call, for a return address. It
    /// is what to look up, as the return address may belong to the next line or function.
    #[inline(always)]
    pub fn instruction(&self) -> usize {
        self.pc.wrapping_sub(usize::from(!self.interrupted))
    }
}

/// Why unwinding ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All frames were visited.
    Outermost,
    /// The visitor wanted no more.
    Stopped,
    /// There are more frames, but nothing tells where.
    Lost,
}

/// Visits the frames of the calling thread, innermost first, beginning with the function that
/// calls this (inlined functions are no frames of their own). `bounds` is the stack that it runs
/// on. `visit` returns false to stop.
#[inline(always)]
pub fn capture(bounds: StackBounds, visit: impl FnMut(Frame) -> bool) -> End {
    let registers = Registers::here();
    capture_from(&registers, bounds, visit)
}

/// The same from given registers, those of a function of the calling thread that has not
/// returned: what a signal handler was given, for example.
#[inline]
pub fn capture_from(
    start: &Registers,
    bounds: StackBounds,
    mut visit: impl FnMut(Frame) -> bool,
) -> End {
    // Plain variables, so that they stay in registers.
    let Few { mut pc, mut sp, mut fp } = start.few();
    let Some(stack) = bounds.reader(sp) else { return End::Lost };
    let epoch = cache::epoch();
    let mut interrupted = true;
    let mut walk = Walk { stack, anchor: *start, interrupted, at: 0 };
    let mut visited = 0u32;
    loop {
        let frame = Frame { pc, interrupted, sp };
        if !visit(frame) {
            return End::Stopped;
        }
        visited = visited.wrapping_add(1);
        let key = Key::new(frame.instruction(), interrupted, epoch);
        let row = cache::get(key);
        if row.is_common() {
            match row.common_step(sp, fp, |address| stack.word(address)) {
                Some(caller) => (pc, sp, fp) = caller,
                None => return End::Lost,
            }
            interrupted = false;
        } else {
            match walk.uncommon(row, key, frame, Few { pc, sp, fp }, visited) {
                Step::Caller(caller, was_interrupted) => {
                    (pc, sp, fp) = (caller.pc, caller.sp, caller.fp);
                    interrupted = was_interrupted;
                }
                Step::Outermost => return End::Outermost,
                Step::Lost => return End::Lost,
            }
        }
        if pc == 0 {
            return End::Outermost;
        }
    }
}

/// What only steps need that aren't the common ones.
struct Walk {
    stack: StackReader,
    /// The last registers that are all known.
    anchor: Registers,
    /// Their frame was interrupted.
    interrupted: bool,
    /// Number of frames below theirs.
    at: u32,
}

impl Walk {
    /// A step by a row that isn't a common one, or that nobody has seen yet. `visited` is the
    /// number of frames up to `at`.
    #[cold]
    #[inline(never)]
    fn uncommon(
        &mut self,
        row: Compact,
        key: Key,
        frame: Frame,
        at: Few,
        visited: u32,
    ) -> Step<Few> {
        let row = if row == Compact::NONE { learn(frame, key) } else { row };
        if row == Compact::NONE {
            return by_frame_pointer(at, self.stack);
        }
        if !row.needs_all() {
            return row.step(at, |address| self.stack.word(address));
        }
        let steps = visited.wrapping_sub(self.at);
        match with_all(&self.anchor, self.interrupted, steps, self.stack) {
            Step::Caller(registers, interrupted) => {
                (self.anchor, self.interrupted, self.at) = (registers, interrupted, visited);
                Step::Caller(registers.few(), interrupted)
            }
            Step::Outermost => Step::Outermost,
            Step::Lost => Step::Lost,
        }
    }
}

/// Finds the row for a frame and remembers it; [`Compact::NONE`] if nobody wrote one.
fn learn(frame: Frame, key: Key) -> Compact {
    let compact = with_row(frame, Compact::new);
    match compact {
        Some(compact) => {
            cache::put(key, compact);
            compact
        }
        // Not remembered: a library may be loaded there later.
        None => Compact::NONE,
    }
}

/// Calls `f` with the row for a frame.
fn with_row<T>(frame: Frame, f: impl FnOnce(&Row<'_>) -> T) -> Option<T> {
    let address = frame.instruction();
    let tables = loader::tables(address)?;
    // SAFETY: the object holds code that this thread runs or returns to, so it is loaded and
    // stays so until this function returns.
    let (header, frames) = unsafe { tables.sections() };
    let entry = entry::find(header, frames, address as u64)?;
    Row::at(&entry, address as u64).map(|row| f(&row))
}

/// First address and the one after the last of the function that holds `address`, as its unwind
/// table has it; a part of it that the compiler put elsewhere (`.cold`) is another function.
/// `None`: nothing is loaded there, or there is no table.
///
/// The object that holds `address` must stay loaded meanwhile.
pub fn function_at(address: usize) -> Option<Range> {
    let tables = loader::tables(address)?;
    // SAFETY: the caller vouches that the object stays loaded.
    let (header, frames) = unsafe { tables.sections() };
    let entry = entry::find(header, frames, address as u64)?;
    let start = entry.start as usize;
    Some(Range { start, end: start.checked_add(entry.length as usize)? })
}

/// Goes `steps` frames from `start`, with all registers.
fn with_all(
    start: &Registers,
    interrupted: bool,
    steps: u32,
    stack: StackReader,
) -> Step<Registers> {
    let (mut at, mut interrupted) = (*start, interrupted);
    let read = |address| stack.word(address);
    for _ in 0..steps {
        let frame = Frame { pc: at.get(RETURN), interrupted, sp: at.few().sp };
        let step = with_row(frame, |row| at.step(row, interrupted, &read)).unwrap_or_else(|| {
            match by_frame_pointer(at.few(), stack) {
                Step::Caller(few, interrupted) => Step::Caller(at.with(few), interrupted),
                Step::Outermost => Step::Outermost,
                Step::Lost => Step::Lost,
            }
        });
        match step {
            Step::Caller(caller, was_interrupted) => (at, interrupted) = (caller, was_interrupted),
            end => return end,
        }
    }
    Step::Caller(at, interrupted)
}

/// Code without rules (made at run time, or assembly): if rbp points into the stack above rsp,
/// it is taken for a frame pointer (System V ABI, 3.2.2, figure 3.3).
fn by_frame_pointer(at: Few, stack: StackReader) -> Step<Few> {
    frame_pointer(at, stack).unwrap_or(Step::Lost)
}

/// Addresses of code lie between these (the first page is never mapped, user space has 47 bits).
const CODE: core::ops::Range<usize> = 0x1000..1 << 47;

fn frame_pointer(at: Few, stack: StackReader) -> Option<Step<Few>> {
    if at.fp < at.sp || at.fp % 8 != 0 {
        return None;
    }
    let (fp, pc) = (stack.word(at.fp)?, stack.word(at.fp.wrapping_add(8))?);
    let caller = Few { pc, sp: at.fp.wrapping_add(16), fp };
    (pc == 0 || CODE.contains(&pc)).then_some(Step::Caller(caller, false))
}
