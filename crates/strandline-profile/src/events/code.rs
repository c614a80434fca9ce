//! What packing and unpacking have in common: predicting the next event of those before it.

/// The context tables of a block. Both sides make the same predictions since both see the same
/// events.
pub struct Predictor {
    /// By the last three events: the one that followed.
    long: Vec<u64>,
    /// By the last event: the one that followed where `long` was wrong.
    short: Vec<u64>,
    /// By an event: the birth that the last such one had.
    births: Vec<u32>,
    before: [u64; 3],
}

const LONG_BITS: u32 = 14;
const SHORT_BITS: u32 = 12;
const BIRTH_BITS: u32 = 12;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn slot(hash: u64, bits: u32) -> usize {
    (hash >> (64 - bits)) as usize
}

impl Predictor {
    pub fn new() -> Predictor {
        Predictor {
            long: vec![0; 1 << LONG_BITS],
            short: vec![0; 1 << SHORT_BITS],
            births: vec![0; 1 << BIRTH_BITS],
            before: [0; 3],
        }
    }

    /// Forgets all: a block is read without those before it.
    pub fn clear(&mut self) {
        self.long.fill(0);
        self.short.fill(0);
        self.births.fill(0);
        self.before = [0; 3];
    }

    /// Where the prediction for the next event stands.
    #[inline(always)]
    pub fn long(&mut self) -> &mut u64 {
        let [a, b, c] = self.before;
        let hash =
            (a.wrapping_add(b.rotate_left(21)).wrapping_add(c.rotate_left(42))).wrapping_mul(MIX);
        // The slot is below the table's length; a slice of another would be the first entry.
        let at = slot(hash, LONG_BITS) & (self.long.len() - 1);
        &mut self.long[at]
    }

    /// Where the second prediction stands.
    #[inline(always)]
    pub fn short(&mut self) -> &mut u64 {
        let at = slot(self.before[0].wrapping_mul(MIX), SHORT_BITS) & (self.short.len() - 1);
        &mut self.short[at]
    }

    /// The birth that the last event like `word` had.
    #[inline(always)]
    pub fn birth(&mut self, word: u64) -> &mut u32 {
        let at = slot(word.wrapping_mul(MIX), BIRTH_BITS) & (self.births.len() - 1);
        &mut self.births[at]
    }

    /// `word` has happened.
    #[inline(always)]
    pub fn happened(&mut self, word: u64) {
        self.before = [word, self.before[0], self.before[1]];
    }
}

/// Appends a number in as few bytes as it needs, seven bits each (LEB128).
#[inline(always)]
pub fn put(to: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

/// Takes such a number off the front.
#[inline(always)]
pub fn take(from: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = from.split_first()?;
    *from = rest;
    if first < 0x80 {
        return Some(u64::from(first));
    }
    let (mut n, mut shift) = (u64::from(first & 0x7f), 7);
    loop {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        n |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(n);
        }
        shift += 7;
    }
}

/// A signed difference as a small number.
#[inline(always)]
pub fn fold(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// The difference again.
#[inline(always)]
pub fn unfold(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// The streams of a block, in the order in which they stand in it.
pub const STREAMS: usize = 5;
/// How many predictions in a row were right, before each that was wrong.
pub const RUNS: usize = 0;
/// What happened where the prediction was wrong: [`SECOND`], [`NEW`], or the number of a known
/// event plus [`KNOWN`].
pub const MISSES: usize = 1;
/// Events that the block has not had yet: kind and size, tag.
pub const FRESH: usize = 2;
/// Births of old memory.
pub const BIRTHS: usize = 3;
/// Marks of time: events since the last one, slices since the last one of its kind and, in the
/// lowest bit, the kind.
pub const MARKS: usize = 4;

/// A slice begins.
pub const MARK_TIME: u64 = 0;
/// A slice's births begin.
pub const MARK_BIRTHS: u64 = 1;

/// The second prediction was right.
pub const SECOND: u64 = 0;
/// An event that is described in [`FRESH`].
pub const NEW: u64 = 1;
/// First number of known events.
pub const KNOWN: u64 = 2;
