//! What packing and unpacking have in common: predicting the next event of those before it.

/// Bits of the indices of [`Predictor`]'s tables.
const LONG_BITS: u32 = 14;
const SHORT_BITS: u32 = 13;
const BIRTH_BITS: u32 = 12;
const SIZE_BITS: u32 = 12;
/// By how many bits an event's part in a [`Context`] moves up with each later one: the fourth one
/// back is the last that the index of `long` has bits of.
const STEP: u32 = 4;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
/// Of an event's word: its kind and tag.
const WHAT: u64 = (1 << 22) - 1;

/// The context tables of a block. Both sides make the same predictions since both see the same
/// events.
pub struct Predictor {
    /// By the last four events: the one that followed.
    long: Box<[u64; 1 << LONG_BITS]>,
    /// By kinds and tags of the last two events: the one that followed where `long` was wrong.
    short: Box<[u64; 1 << SHORT_BITS]>,
    /// By an event: the birth that the last such one had.
    births: Box<[u32; 1 << BIRTH_BITS]>,
    /// By tag: the last two sizes where both were wrong, the newer one first. The size of what a
    /// program allocates can often not be foretold, but what it frees has the size of one of these.
    sizes: Box<[[u64; 2]; 1 << SIZE_BITS]>,
}

/// What the next event is predicted from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    /// The last four events, in the low bits.
    four: u64,
    /// The last two events themselves, the newer one first.
    last: [u64; 2],
}

impl Context {
    /// After `word` has happened, too.
    #[inline(always)]
    pub fn after(self, word: u64) -> Context {
        let four = self.four << STEP ^ word.wrapping_mul(MIX) >> (64 - LONG_BITS);
        Context { four, last: [word, self.last[0]] }
    }
}

impl Predictor {
    pub fn new() -> Predictor {
        Predictor {
            long: Box::new([0; 1 << LONG_BITS]),
            short: Box::new([0; 1 << SHORT_BITS]),
            births: Box::new([0; 1 << BIRTH_BITS]),
            sizes: Box::new([[0; 2]; 1 << SIZE_BITS]),
        }
    }

    /// Forgets all: a block is read without those before it.
    pub fn clear(&mut self) {
        self.long.fill(0);
        self.short.fill(0);
        self.births.fill(0);
        self.sizes.fill([0; 2]);
    }

    /// Where the prediction for the next event stands.
    #[inline(always)]
    pub fn long(&mut self, context: Context) -> &mut u64 {
        &mut self.long[context.four as usize & ((1 << LONG_BITS) - 1)]
    }

    /// Where the second prediction stands.
    #[inline(always)]
    pub fn short(&mut self, context: Context) -> &mut u64 {
        let [last, before] = context.last.map(|word| (word & WHAT).wrapping_mul(MIX));
        let index = last ^ before >> 5;
        &mut self.short[(index >> (64 - SHORT_BITS)) as usize]
    }

    /// The birth that the last event like the last one of `context` had.
    #[inline(always)]
    pub fn birth(&mut self, context: Context) -> &mut u32 {
        let index = context.last[0].wrapping_mul(MIX) >> (64 - BIRTH_BITS);
        &mut self.births[index as usize]
    }

    /// The last two sizes of this tag.
    #[inline(always)]
    pub fn sizes(&mut self, tag: u32) -> &mut [u64; 2] {
        let index = u64::from(tag).wrapping_mul(MIX) >> (64 - SIZE_BITS);
        &mut self.sizes[index as usize]
    }
}

/// Which of a tag's last two sizes this one is: [`OTHER`] or 1 more than its index. It is the last one
/// from then on. Without branches, since no processor can guess which it is.
#[inline(always)]
pub fn among(sizes: &mut [u64; 2], size: u64) -> u64 {
    let [last, before] = *sizes;
    let which = if before == size { 2 } else { OTHER };
    let which = if last == size { 1 } else { which };
    *sizes = [size, if last == size { before } else { last }];
    which
}

/// Kind and tag of an event.
#[inline(always)]
pub const fn what(word: u64) -> u64 {
    word & WHAT
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
/// What happened where the prediction was wrong: [`SECOND`], or kind and tag in one of three ways
/// ([`SIZED`], [`NEW`], [`KNOWN`]), with which of the tag's last two sizes it is.
pub const MISSES: usize = 1;
/// Kinds and tags that the block has not had yet, and sizes that aren't among the last two.
pub const FRESH: usize = 2;
/// Births of old memory: by how much each differs from the last one of such an event. For those
/// that don't stand [`SAME`] and how many more of them follow.
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
/// Kind and tag are those of the second prediction; plus which size.
pub const SIZED: u64 = 1;
/// Kind and tag stand in [`FRESH`]; plus which size.
pub const NEW: u64 = SIZED + WAYS;
/// Which size: one that stands in [`FRESH`].
pub const OTHER: u64 = 0;
/// That, and the last two sizes.
pub const WAYS: u64 = 3;
/// In [`BIRTHS`]: no difference.
pub const SAME: u64 = 0;
/// Number of the kind and tag among those that the block has had, times [`WAYS`]; plus which size, plus
/// this.
pub const KNOWN: u64 = NEW + WAYS;
