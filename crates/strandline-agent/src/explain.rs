//! `--explain`: asks for a census when a line that moved much memory has ended, so that the
//! strandline process can tell where what it freed is by comparing it with the one before.
//!
//! Costs one comparison at the end of a line that moved anything, and nothing without the option.

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU8, Ordering::Relaxed};

use strandline_capture::layout as capture;

use crate::census;
use crate::region;

/// A line that moves less has no census of its own, bytes.
const LEAST: i64 = 1 << 20;
/// Looks at one line.
const MOST_OF_LINE: u8 = 3;
/// Looks of a whole run.
const MOST: u32 = 200;

/// Looks so far, by line.
static LOOKS: [AtomicU8; capture::MAX_SLOTS] = [const { AtomicU8::new(0) }; capture::MAX_SLOTS];
/// Looks so far.
static ALL: AtomicU32 = AtomicU32::new(0);
/// Bytes that lines without a look moved since the last one, at least.
static MISSED: AtomicI64 = AtomicI64::new(0);
/// The line that did, if it was only one: its slot.
static MISSED_BY: AtomicU32 = AtomicU32::new(0);
/// Several lines did.
const SEVERAL: u32 = u32::MAX;

/// What a line changed, bytes.
#[derive(Clone, Copy)]
pub struct Change {
    /// Resident memory.
    pub rss: i64,
    /// Stranded memory.
    pub stranded: i64,
    /// Memory in use.
    pub in_use: i64,
}

impl Change {
    fn most(&self) -> i64 {
        self.rss.abs().max(self.stranded.abs()).max(self.in_use.abs())
    }
}

/// True if lines are to be looked at.
#[inline(always)]
pub fn is_wanted() -> bool {
    region::options() & capture::OPTION_EXPLAIN != 0
}

/// An outermost profiled function was entered: the next line needs something to be compared with.
#[cold]
pub fn function_entered() {
    if ALL.load(Relaxed) == 0 || MISSED.load(Relaxed) >= LEAST {
        look(0);
    }
}

/// The line of `slot` has ended; `is_left`: the next one is another line. A line that moves much
/// in many small runs in a row counts as one run.
#[cold]
pub fn line_ended(slot: u32, change: &Change, is_left: bool) {
    let moved = change.most();
    if moved < LEAST {
        let by = if MISSED.fetch_add(moved, Relaxed) == 0 { slot } else { MISSED_BY.load(Relaxed) };
        MISSED_BY.store(if by == slot || moved == 0 { by } else { SEVERAL }, Relaxed);
    }
    let much = moved >= LEAST || is_left && MISSED.load(Relaxed) >= LEAST;
    let looks = LOOKS.get(slot as usize);
    if !much {
        return;
    }
    if looks.is_some_and(|n| n.load(Relaxed) < MOST_OF_LINE) && look(slot) {
        if let Some(n) = looks {
            n.store(n.load(Relaxed).saturating_add(1), Relaxed);
        }
    } else if moved >= LEAST {
        MISSED.fetch_add(moved, Relaxed);
        MISSED_BY.store(SEVERAL, Relaxed);
    }
}

/// Asks for a census; false if there was none.
fn look(slot: u32) -> bool {
    if ALL.load(Relaxed) >= MOST {
        return false;
    }
    let own = MISSED_BY.load(Relaxed) == slot;
    let missed = if own { 0 } else { MISSED.load(Relaxed) };
    let asked = census::ask_for_line(slot, missed);
    if asked {
        ALL.fetch_add(1, Relaxed);
        MISSED.store(0, Relaxed);
    }
    asked
}
