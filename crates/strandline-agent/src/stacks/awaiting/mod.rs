//! `--async-stacks`: what awaits a running asyncio task stands in its call path, between the loop
//! and the task's own coroutine.
//!
//! A loop lets a task go on in `Handle._run`, and the frame of that is on the stack of the task's
//! coroutine. From there: the handle's callback, its task, the task's first callback that is known,
//! the task or future behind that, and so on; of every task on the way the frames of its coroutine,
//! which stands still at its `await`. The frames are folded into the hash like those of the stack,
//! at every allocation: who awaits may change at any time, and no event of the interpreter's tells.
//!
//! All of it is read under the GIL only. A thread without it, a structure that isn't understood, a
//! chain that is too long: the path has a mark there in place of what wasn't read. Without
//! `--async-stacks` nothing of this is called.

mod memo;
mod objects;
mod tasks;

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use strandline_capture::layout::{CAN_AWAIT, OPTION_ASYNC};

use crate::python::{self, FACTOR};
use crate::region::{self, region};
use crate::tls::tls;

use memo::Memo;
use objects::{Object, Reader};
use tasks::{Cut, HandleClass};

static ON: AtomicBool = AtomicBool::new(false);
/// The code of `Handle._run`; 0 until it is seen, and once it is gone.
static RUN: AtomicUsize = AtomicUsize::new(0);

struct Kept(UnsafeCell<(Option<Reader>, HandleClass)>);
// SAFETY: the reader is written once in the constructor, the class by a thread that holds the GIL
// before `RUN`; both are only read by threads that hold the GIL.
unsafe impl Sync for Kept {}
static KEPT: Kept = Kept(UnsafeCell::new((None, HandleClass { class: 0, callback: 0 })));

/// Tasks and futures that await one another, at most.
const MOST_TASKS: usize = 512;
/// Frames of one task's coroutine, at most.
const MOST_FRAMES: usize = 1024;

/// A frame that stands for what could not be read: zeros wherever a frame is asked.
#[repr(align(16))]
struct NoFrame([u8; 512]);
static CUT: NoFrame = NoFrame([0; 512]);

/// Where the function is that stands for what could not be read.
pub const CUT_NAME: &[u8] = b"(tasks that await this one, which could not be read)";

/// True if awaiting tasks are recorded.
#[inline(always)]
pub fn on() -> bool {
    ON.load(Relaxed)
}

/// Starts to record them if that is wanted and the interpreter is one that is known. Called in the
/// constructor, once the interpreter's version is known, before its allocators are wrapped.
pub fn start() {
    if !super::on() || region::options() & OPTION_ASYNC == 0 {
        return;
    }
    let Some(l) = python::layout() else { return };
    let Some(a) = strandline_cpython::asyncio::asyncio(l.version.0, l.version.1) else { return };
    objects::resolve();
    // SAFETY: see `Kept`.
    unsafe { (*KEPT.0.get()).0 = Some(Reader { l, a, memo: None }) };
    region().head.abilities.fetch_or(CAN_AWAIT, Relaxed);
    ON.store(true, Relaxed);
    super::path::will_have_more();
}

/// The code object at `code` is gone.
pub fn code_freed(code: usize) {
    if RUN.load(Relaxed) == code {
        RUN.store(0, Relaxed);
    }
}

/// While it lives, the block at the address is being given another size: what pointed to it may
/// do so although it is gone.
pub struct Moving(usize);

impl Moving {
    /// As long as this lives.
    #[inline(always)]
    pub fn new(block: usize) -> Moving {
        Moving(tls().moving.replace(block))
    }
}

impl Drop for Moving {
    #[inline(always)]
    fn drop(&mut self) {
        tls().moving.set(self.0);
    }
}

fn moving() -> usize {
    tls().moving.get()
}

/// True if `frame` stands for what could not be read.
pub fn is_cut(frame: usize) -> bool {
    frame == CUT.0.as_ptr() as usize
}

/// The frames that a walk is at, from a frame inwards.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    frames: [usize; 2],
}

impl Inner {
    /// The walk begins.
    pub const NONE: Inner = Inner { frames: [0; 2] };

    /// The walk goes on from `frame` to its caller.
    #[inline(always)]
    pub fn push(&mut self, frame: usize) {
        self.frames = [frame, self.frames[0]];
    }
}

/// Address of the code of `Handle._run`; 0 as long as it wasn't seen.
#[inline(always)]
pub fn run() -> usize {
    RUN.load(Relaxed)
}

/// Looks whether `frame`, whose code it is, is the first of `Handle._run`; `watch` sees to it that
/// the code's end is noticed. True if it is: what was folded before doesn't hold.
pub fn learn(frame: usize, code: usize, watch: impl FnOnce(usize) -> bool) -> bool {
    if RUN.load(Relaxed) != 0 {
        return false;
    }
    // SAFETY: see `Kept`.
    let kept = unsafe { &mut *KEPT.0.get() };
    let Some(reader) = kept.0 else { return false };
    let Some(class) = reader.handle_class(code, || handle_in(frame, &reader)) else { return false };
    if !watch(code) {
        return false;
    }
    kept.1 = class;
    RUN.store(code, Relaxed);
    true
}

/// `self` in a frame of `Handle._run`.
fn handle_in(frame: usize, reader: &Reader) -> Object {
    let l = reader.l;
    let slots = match &l.frame.interpreter {
        Some(f) => f.slots(),
        None => l.frame.object.slots(),
    };
    // SAFETY: the first slot of a live frame, for a function with an argument.
    unsafe { reader.word(frame + slots as usize) }
}

/// What a chain of awaiting tasks consists of.
enum Piece {
    /// A task or future awaits; the task's coroutine, 0 for a future.
    Waits(Object),
    /// What follows can't be read.
    Cut,
}

/// Gives `put` what awaits the task that goes on in `frame`, which is one of `Handle._run`, from
/// the inside out; nothing if it is no task's coroutine that runs there. `held`: this thread holds
/// the GIL. `memo` notes what is read.
fn chain(
    frame: usize,
    inner: Inner,
    held: bool,
    memo: Option<&'static Memo>,
    mut put: impl FnMut(&Reader, Piece),
) {
    // SAFETY: see `Kept`.
    let (reader, class) = unsafe { &*KEPT.0.get() };
    let Some(reader) = &reader.map(|reader| Reader { memo, ..reader }) else { return };
    if inner.frames[0] == 0 {
        return;
    }
    if !held {
        put(reader, Piece::Cut);
        return;
    }
    let Some(task) = reader.task_of(handle_in(frame, reader), class) else { return };
    if !reader.runs(task, inner.frames) {
        return;
    }
    let mut at = task;
    for _ in 0..MOST_TASKS {
        let waits = match reader.awaiter(at) {
            Ok(None) => return,
            Ok(Some(waits)) => waits,
            Err(Cut) => break,
        };
        match reader.coroutine(waits) {
            Ok(coroutine) => put(reader, Piece::Waits(coroutine.unwrap_or(0))),
            Err(Cut) => break,
        }
        at = waits;
    }
    put(reader, Piece::Cut);
}

/// `hash` with what awaits the task that goes on in `frame`: see [`chain`].
pub fn fold(hash: u64, frame: usize, inner: Inner, held: bool) -> u64 {
    let awaiting = if held && moving() == 0 {
        let memo = memo::of(frame);
        memo.recall(frame, inner).unwrap_or_else(|| {
            memo.begin();
            let hash = hash_of(frame, inner, held, Some(memo));
            memo.end(frame, inner, hash);
            hash
        })
    } else {
        hash_of(frame, inner, held, None)
    };
    hash.wrapping_add(awaiting).wrapping_mul(FACTOR)
}

/// What awaits the task that goes on in `frame`, folded into a hash.
fn hash_of(frame: usize, inner: Inner, held: bool, memo: Option<&'static Memo>) -> u64 {
    // In front of every coroutine's frames, so that it is clear which is whose.
    const WAITS: u64 = 0x5bd1_e995_9d1b_54a3;
    let mut hash = WAITS;
    let mut add = |word: u64| hash = hash.wrapping_add(word).wrapping_mul(FACTOR);
    chain(frame, inner, held, memo, |reader, piece| match piece {
        Piece::Waits(0) => {}
        Piece::Waits(coroutine) => {
            add(WAITS);
            let mut left = MOST_FRAMES;
            for frame in reader.frames(coroutine).take(MOST_FRAMES) {
                add(reader.key_at(frame));
                left -= 1;
            }
            if left == 0 || left == MOST_FRAMES {
                add(!WAITS);
            }
        }
        Piece::Cut => add(!WAITS),
    });
    hash ^ hash >> 32
}

/// Gives `put` the frames that await the task which goes on in `frame`, innermost first, as
/// [`fold`] folds them; one that [`is_cut`] stands for what could not be read.
pub fn frames(frame: usize, inner: Inner, held: bool, put: &mut dyn FnMut(usize)) {
    let cut = CUT.0.as_ptr() as usize;
    chain(frame, inner, held, None, |reader, piece| match piece {
        Piece::Waits(0) => {}
        Piece::Waits(coroutine) => {
            let count = reader.frames(coroutine).take(MOST_FRAMES).count();
            if count == 0 || count == MOST_FRAMES {
                put(cut);
            }
            // They can only be followed from the outermost in.
            let mut some = [0; 64];
            let mut end = count;
            while end > 0 {
                let start = end.saturating_sub(some.len());
                let these = reader.frames(coroutine).skip(start).take(end - start);
                for (to, frame) in some.iter_mut().zip(these) {
                    *to = frame;
                }
                for &frame in some.iter().take(end - start).rev() {
                    put(frame);
                }
                end = start;
            }
        }
        Piece::Cut => put(cut),
    });
}
