//! Frames and their callers: where each is, as a word, and all of a thread's folded into a hash.
//!
//! What a hook asks at every allocation: plain loads at the offsets that were found.

use core::sync::atomic::Ordering::Relaxed;

use super::{
    frame_of, int, kind, layout, word, DIRECT, IN_CFRAME, IN_FRAME_BACK, IN_FRAME_CODE,
    IN_FRAME_INSTR, IN_TSTATE, OBJECT,
};
use crate::stacks::awaiting;

/// The frame that called the live frame `frame`; 0 if none.
pub fn caller_of(frame: usize) -> usize {
    // SAFETY: a member of a live frame.
    unsafe { word(frame + IN_FRAME_BACK.load(Relaxed)) }
}

/// Puts `frame` and its callers into `frames`, innermost first, as many as fit: how many, and
/// whether that is all.
pub fn frames_from(mut frame: usize, frames: &mut [usize]) -> (usize, bool) {
    let back = IN_FRAME_BACK.load(Relaxed);
    let mut depth = 0;
    for slot in frames {
        if frame == 0 {
            break;
        }
        *slot = frame;
        depth += 1;
        // SAFETY: a member of a live frame.
        frame = unsafe { word(frame + back) };
    }
    (depth, frame == 0)
}

/// 3.11, 3.12: address of the `_PyCFrame` of the innermost evaluator on `tstate`.
pub fn cframe_of(tstate: usize) -> usize {
    // SAFETY: a member of a live thread state.
    unsafe { word(tstate + IN_TSTATE.load(Relaxed)) }
}

/// 3.11, 3.12: the frame that a live `_PyCFrame` says is running.
pub fn frame_in_cframe(cframe: usize) -> usize {
    // SAFETY: a member of a live `_PyCFrame`.
    unsafe { word(cframe + IN_CFRAME.load(Relaxed)) }
}

/// A word that says which instruction of which code object a live frame is at.
pub fn key_at(frame: usize) -> u64 {
    match kind() {
        OBJECT => {
            key_in::<OBJECT>(frame, IN_FRAME_CODE.load(Relaxed), IN_FRAME_INSTR.load(Relaxed))
        }
        _ => key_in::<DIRECT>(frame, 0, IN_FRAME_INSTR.load(Relaxed)),
    }
}

/// Offsets of the members of a frame that [`key_at`] reads: an instruction's address alone says
/// which code it is of.
pub fn key_offsets() -> impl Iterator<Item = usize> {
    let code = (kind() == OBJECT).then(|| IN_FRAME_CODE.load(Relaxed));
    code.into_iter().chain([IN_FRAME_INSTR.load(Relaxed)])
}

/// How many of `frames` (innermost first) are, from the outermost in, at the instructions that
/// `keys` has (outermost first): see [`key_at`].
pub fn frames_at(frames: &[usize], keys: impl Iterator<Item = u64>) -> usize {
    match kind() {
        OBJECT => frames_at_of::<OBJECT>(frames, keys),
        _ => frames_at_of::<DIRECT>(frames, keys),
    }
}

#[inline(always)]
fn frames_at_of<const KIND: u32>(frames: &[usize], keys: impl Iterator<Item = u64>) -> usize {
    let (code, instr) = (IN_FRAME_CODE.load(Relaxed), IN_FRAME_INSTR.load(Relaxed));
    let mut same = 0;
    for (&frame, key) in frames.iter().rev().zip(keys) {
        if key_in::<KIND>(frame, code, instr) != key {
            break;
        }
        same += 1;
    }
    same
}

#[inline(always)]
fn key_in<const KIND: u32>(frame: usize, in_code: usize, in_instr: usize) -> u64 {
    // SAFETY: members of a live frame.
    unsafe {
        if KIND == OBJECT {
            (word(frame + in_code) as u64) << 16 ^ (int(frame + in_instr) as u64 & 0xf_ffff)
        } else {
            word(frame + in_instr) as u64
        }
    }
}

/// What a hash is multiplied with for each frame that is folded into it: odd, and well spread.
pub const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where every frame of `tstate` is, folded into a hash that starts from `seed`. Its high bits are
/// the best mixed.
#[inline(always)]
pub fn chain_hash<const KIND: u32>(tstate: usize, seed: u64) -> u64 {
    let in_code = if KIND == OBJECT { IN_FRAME_CODE.load(Relaxed) } else { 0 };
    let in_instr = IN_FRAME_INSTR.load(Relaxed);
    let in_back = IN_FRAME_BACK.load(Relaxed);
    let mut frame = frame_of::<KIND>(tstate);
    let mut hash = seed;
    while frame != 0 {
        // One addition and one multiplication a frame: the next one waits for no more than that.
        hash = hash.wrapping_add(key_in::<KIND>(frame, in_code, in_instr)).wrapping_mul(FACTOR);
        // SAFETY: the current frame of a live thread state and its callers are alive.
        frame = unsafe { word(frame + in_back) };
    }
    hash
}

/// [`chain_hash`] with what awaits running tasks: see [`awaiting`]. `held`: this thread holds the
/// GIL.
pub fn chain_hash_with_awaiting<const KIND: u32>(tstate: usize, seed: u64, held: bool) -> u64 {
    let (in_code, in_instr) = (IN_FRAME_CODE.load(Relaxed), IN_FRAME_INSTR.load(Relaxed));
    let in_back = IN_FRAME_BACK.load(Relaxed);
    let mut frame = frame_of::<KIND>(tstate);
    let run = awaiting::run();
    if run == 0 {
        return chain_hash::<KIND>(tstate, seed);
    }
    let mut hash = seed;
    let mut inner = awaiting::Inner::NONE;
    while frame != 0 {
        // SAFETY: a member of a live frame.
        if unsafe { word(frame + in_code) } == run {
            hash = awaiting::fold(hash, frame, inner, held);
        }
        inner.push(frame);
        hash = hash.wrapping_add(key_in::<KIND>(frame, in_code, in_instr)).wrapping_mul(FACTOR);
        // SAFETY: as in `chain_hash`.
        frame = unsafe { word(frame + in_back) };
    }
    hash
}

/// The code object of a live frame, as it stands there.
pub fn code_in(frame: usize) -> usize {
    // SAFETY: a member of a live frame.
    unsafe { word(frame + IN_FRAME_CODE.load(Relaxed)) }
}

/// The globals dict of a live frame; 0 if it isn't known.
pub fn globals_of(frame: usize) -> usize {
    let Some(l) = layout() else { return 0 };
    let offset = match (&l.frame.interpreter, l.frame.object.f_globals) {
        (Some(f), _) => f.globals,
        (None, Some(offset)) => offset,
        _ => return 0,
    };
    // SAFETY: a member of a live frame.
    unsafe { word(frame + offset as usize) }
}
