//! From frame to frame.

use crate::cache::{self, Key};
use crate::compact::{Compact, Few, Step};
use crate::entry;
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
    let mut at = start.few();
    let Some(stack) = bounds.reader(at.sp) else { return End::Lost };
    let epoch = cache::epoch();
    let mut interrupted = true;
    // Registers that are fully known, and the number of frames from there.
    let (mut anchor, mut since, mut anchor_interrupted) = (*start, 0u32, true);
    loop {
        let frame = Frame { pc: at.pc, interrupted };
        if !visit(frame) {
            return End::Stopped;
        }
        let key = Key::new(frame.instruction(), interrupted, epoch);
        let mut row = cache::get(key);
        if row == Compact::NONE {
            row = learn(frame, key);
        }
        let step = if row.needs_all() {
            match with_all(&anchor, anchor_interrupted, since, stack) {
                Step::Caller(registers, interrupted) => {
                    (anchor, since, anchor_interrupted) = (registers, 0, interrupted);
                    Step::Caller(registers.few(), interrupted)
                }
                Step::Outermost => Step::Outermost,
                Step::Lost => Step::Lost,
            }
        } else if row == Compact::NONE {
            since += 1;
            by_frame_pointer(at, stack)
        } else {
            since += 1;
            row.step(at, |address| stack.word(address))
        };
        match step {
            Step::Caller(caller, was_interrupted) if caller.pc != 0 => {
                (at, interrupted) = (caller, was_interrupted);
            }
            Step::Lost => return End::Lost,
            _ => return End::Outermost,
        }
    }
}

/// Finds the row for a frame and remembers it; [`Compact::NONE`] if nobody wrote one.
#[cold]
#[inline(never)]
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

/// Goes `since` frames and one more from `start`, with all registers.
#[cold]
#[inline(never)]
fn with_all(
    start: &Registers,
    interrupted: bool,
    since: u32,
    stack: StackReader,
) -> Step<Registers> {
    let (mut at, mut interrupted) = (*start, interrupted);
    let read = |address| stack.word(address);
    for _ in 0..=since {
        let frame = Frame { pc: at.get(RETURN), interrupted };
        let step = with_row(frame, |row| at.step(row, &read)).unwrap_or_else(|| {
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
#[cold]
#[inline(never)]
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
