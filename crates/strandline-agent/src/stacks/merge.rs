//! One path of Python frames and frames of machine code.
//!
//! The interpreter's evaluator is a C function, and an activation of it runs one or several
//! Python frames: these stand in its place. From 3.11 on the activation is told by what it has
//! among its variables (see [`Evaluator`]), which is exact wherever its code lies. Before, it is
//! told by its code; a part of that may lie apart (`.cold`), so that a place in the interpreter
//! from which the evaluator was once seen to be called tells it as well. It is called from nowhere
//! by a jump there, so whatever is called from such a place is the evaluator.
//!
//! Where the machine stack can't be followed to its end the Python frames that are left stand
//! outermost.

use core::cell::UnsafeCell;
use core::mem::size_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use strandline_cpython::Evaluator;
use strandline_unwind::StackBounds;

use super::awaiting::Inner;
use super::native::{self, Native};
use super::path::{node_of, step_of, step_out, Fresh, Step, DEEPEST, HAS_NO_CODE};
use crate::memory;
use crate::python::{self, word};
use crate::sites::EPOCH;
use crate::symbols;

/// The evaluator's code: first address, bytes (up to 3.10).
static CODE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Finds the evaluator. Called once, in the constructor.
pub fn start() {
    symbols::resolve();
    let symbol = match symbols::EVAL_FRAME_DEFAULT.address() {
        0 => symbols::EVAL_FRAME_EX.address(),
        address => address,
    };
    if let Some(code) = strandline_unwind::function_at(symbol).filter(|_| symbol != 0) {
        CODE[0].store(code.start, Relaxed);
        CODE[1].store(code.end - code.start, Relaxed);
    }
}

/// Places that the evaluator is called from, at most: there are some ten.
const CALLERS: usize = 64;
/// Set in a piece of a path that is a Python frame: no address in user space has it.
const PYTHON: usize = 1 << 63;

struct Tables {
    /// Frames of machine code, innermost first.
    natives: *mut Native,
    /// The path, innermost first: Python frames with `PYTHON`, addresses of instructions.
    pieces: *mut usize,
    /// The last walk's steps, outermost first, and how many.
    last: *mut Step,
    count: usize,
    /// The epochs they are of: of Python code, of libraries.
    epochs: (u32, u32),
    /// Entries that were ever used of each table.
    deepest: usize,
    /// Addresses that the evaluator returns to (up to 3.10).
    callers: [usize; CALLERS],
    known_callers: usize,
}

struct Locked(UnsafeCell<Tables>);
// SAFETY: used under the agent's lock only.
unsafe impl Sync for Locked {}
static TABLES: Locked = Locked(UnsafeCell::new(Tables {
    natives: null_mut(),
    pieces: null_mut(),
    last: null_mut(),
    count: 0,
    epochs: (0, 0),
    deepest: 0,
    callers: [0; CALLERS],
    known_callers: 0,
}));

/// Python frames that were not yet given a place, innermost first.
struct Frames {
    how: Evaluator,
    /// The innermost; 0: none is left.
    frame: usize,
    /// 3.11: address of the `_PyCFrame` of the activation that runs it.
    cframe: usize,
    stack: StackBounds,
    /// See `step_out`.
    held: bool,
    inner: Inner,
    learned: bool,
}

/// The Python frames of an activation of the evaluator.
struct Group {
    /// Address of what it has on the machine stack, if that tells it.
    mark: Option<usize>,
    /// The frame that follows its outermost one.
    end: usize,
    cframe: usize,
}

impl Frames {
    fn of(tstate: usize, held: bool, stack: StackBounds) -> Frames {
        let version = python::layout().map_or((0, 0), |l| l.version);
        let how = strandline_cpython::evaluator(version);
        let frame = if tstate == 0 { 0 } else { python::current_frame(tstate) };
        let cframe = match how {
            Evaluator::CFrame { .. } if frame != 0 => python::cframe_of(tstate),
            _ => 0,
        };
        Frames { how, frame, cframe, stack, held, inner: Inner::NONE, learned: false }
    }

    /// The frames of the innermost activation that is left.
    fn group(&self) -> Option<Group> {
        if self.frame == 0 {
            return None;
        }
        Some(match self.how {
            Evaluator::OneFrame => {
                Group { mark: None, end: python::caller_of(self.frame), cframe: 0 }
            }
            Evaluator::CFrame { .. } if self.cframe == 0 => Group { mark: None, end: 0, cframe: 0 },
            Evaluator::CFrame { previous } => {
                // SAFETY: a `_PyCFrame` that an activation on this thread has, or the thread state.
                let outer = unsafe { word(self.cframe + previous as usize) };
                let end = if outer == 0 { 0 } else { python::frame_in_cframe(outer) };
                Group { mark: Some(self.cframe), end, cframe: outer }
            }
            Evaluator::EntryFrame => {
                let mut frame = self.frame;
                while frame != 0 && !self.stack.contains(frame) {
                    frame = python::caller_of(frame);
                }
                let end = if frame == 0 { 0 } else { python::caller_of(frame) };
                Group { mark: Some(frame).filter(|&f| f != 0), end, cframe: 0 }
            }
        })
    }

    /// Gives the frames of `group` to `put`, innermost first.
    fn take(&mut self, group: &Group, fresh: &mut Fresh, put: &mut impl FnMut(usize)) {
        while self.frame != 0 && self.frame != group.end {
            let put = &mut |frame| put(frame | PYTHON);
            self.learned |= step_out(self.frame, &mut self.inner, self.held, fresh, put);
            self.frame = python::caller_of(self.frame);
        }
        self.cframe = group.cframe;
    }
}

impl Tables {
    /// False: no memory.
    fn ready(&mut self) -> bool {
        if self.natives.is_null() {
            self.natives = memory::map(DEEPEST * size_of::<Native>()) as *mut Native;
            self.pieces = memory::map(DEEPEST * size_of::<usize>()) as *mut usize;
            self.last = memory::map(DEEPEST * size_of::<Step>()) as *mut Step;
        }
        !(self.natives.is_null() || self.pieces.is_null() || self.last.is_null())
    }

    /// What these tables touch is resident from now on.
    fn touched(&mut self, entries: usize) {
        if entries > self.deepest {
            let bytes = size_of::<Native>() + size_of::<usize>() + size_of::<Step>();
            memory::add_resident((entries - self.deepest) * bytes);
            self.deepest = entries;
        }
    }

    /// True if the frame at `address`, which returns to `caller`, is an activation of the
    /// evaluator (up to 3.10).
    fn is_evaluator(&mut self, address: usize, caller: Option<usize>) -> bool {
        let in_code = address.wrapping_sub(CODE[0].load(Relaxed)) < CODE[1].load(Relaxed);
        let Some(caller) = caller else { return in_code };
        let known = self.callers.iter().take(self.known_callers).any(|&c| c == caller);
        if in_code && !known {
            if let Some(cell) = self.callers.get_mut(self.known_callers) {
                *cell = caller;
                self.known_callers += 1;
            }
        }
        in_code || known
    }
}

/// The path of this thread, whose state is `tstate` (0: none): its node, the site of its innermost
/// Python frame, and whether the hash stands for it for good. `None`: no memory. The caller holds
/// the lock.
pub fn walk(tstate: usize, held: bool, fresh: &mut Fresh) -> Option<(u32, u32, bool)> {
    // SAFETY: the lock is held.
    let tables = unsafe { &mut *TABLES.0.get() };
    if !tables.ready() {
        return None;
    }
    // SAFETY: the tables have DEEPEST entries each, and nobody else uses them.
    let (natives, pieces, last) = unsafe {
        (
            core::slice::from_raw_parts_mut(tables.natives, DEEPEST),
            core::slice::from_raw_parts_mut(tables.pieces, DEEPEST),
            core::slice::from_raw_parts_mut(tables.last, DEEPEST),
        )
    };
    let epochs = (EPOCH.load(Relaxed), strandline_unwind::epoch());
    if tables.epochs != epochs {
        if tables.epochs.1 != epochs.1 {
            native::forget_addresses();
            tables.known_callers = 0;
        }
        tables.epochs = epochs;
        tables.count = 0;
    }
    let (count, stack, mut exact) = native::frames(natives)?;
    let natives = natives.get(..count)?;
    let mut used = 0;
    let mut put = |piece: usize| {
        if let Some(cell) = pieces.get_mut(used) {
            *cell = piece;
            used += 1;
        } else {
            exact = false;
        }
    };
    let mut frames = Frames::of(tstate, held, stack);
    let mut group = frames.group();
    for (i, frame) in natives.iter().enumerate() {
        let outer = natives.get(i + 1);
        let runs_python = if frames.how == Evaluator::OneFrame {
            let evaluator = tables.is_evaluator(frame.address, outer.map(|o| o.next));
            match group.take_if(|_| evaluator) {
                Some(next) => {
                    frames.take(&next, fresh, &mut put);
                    group = frames.group();
                    true
                }
                None => false,
            }
        } else {
            let end = outer.map_or(stack.high, |o| o.sp);
            let mut runs = false;
            while let Some(next) = group.take_if(|g| g.mark.is_some_and(|mark| mark < end)) {
                runs |= next.mark.is_some_and(|mark| mark >= frame.sp);
                frames.take(&next, fresh, &mut put);
                group = frames.group();
            }
            runs
        };
        if !runs_python && !native::is_own(frame.address) {
            put(frame.address);
        }
    }
    while let Some(next) = group {
        frames.take(&next, fresh, &mut put);
        group = frames.group();
    }
    let learned = frames.learned;
    tables.touched(used.max(count));
    let (mut node, mut site, mut same) = (0, 0, true);
    for (i, &piece) in pieces.iter().take(used).rev().enumerate() {
        let frame = piece & !PYTHON;
        let key = if piece & PYTHON != 0 { python::key_at(frame) } else { piece as u64 };
        let step = last.get_mut(i)?;
        same = same && i < tables.count && step.key == key;
        if !same {
            let (to, at, code, stays) = if piece & PYTHON != 0 {
                step_of(frame, node, fresh)
            } else {
                native_step(piece, node)
            };
            exact &= stays;
            *step = Step { key: if stays { key } else { !key }, node: to, site: at, code };
        }
        (node, site) = (step.node, if step.site == 0 { site } else { step.site });
    }
    tables.count = used;
    // A library was found to be gone: what was just learned by address may be of it.
    exact &= strandline_unwind::epoch() == epochs.1 && !learned;
    Some((node, site, exact))
}

/// As `step_of`, for machine code; it has no site that a line of Python is told by.
fn native_step(address: usize, parent: u32) -> (u32, u32, u32, bool) {
    match native::site_of(address) {
        // Code that was made at run time is left out.
        Ok(0) => (parent, 0, HAS_NO_CODE, true),
        Ok(site) => (node_of(parent, site), 0, HAS_NO_CODE, true),
        Err(()) => (parent, 0, HAS_NO_CODE, false),
    }
}
