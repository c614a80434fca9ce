//! Unpacking events. Whatever the bytes are, it comes to an end, without a panic, in memory that
//! follows from their length.

use super::code::*;
use super::{tag, word, FREED_OLD, KIND, MOST_EVENTS};

/// What stands in front of a block's packed streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockHead {
    /// Which process: index of its region in the capture.
    pub region: u32,
    /// Number of events.
    pub count: u32,
    /// Number of the process's events before these.
    pub first: u64,
    /// The slice in which the first event happened.
    pub slice: u32,
    /// The slice that what is allocated first belongs to: see [`Handler::births`].
    pub births: u32,
    /// Births are told apart in steps of `1 << step` slices.
    pub step: u32,
}

/// Bytes of a [`BlockHead`] in a file: its fields in their order, little-endian.
pub const HEAD_BYTES: usize = 28;

impl BlockHead {
    /// As it stands in a file.
    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let first = [self.first as u32, (self.first >> 32) as u32];
        let words =
            [self.region, self.count, first[0], first[1], self.slice, self.births, self.step];
        let mut bytes = [0; HEAD_BYTES];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What stands in a file.
    pub fn from_bytes(bytes: &[u8; HEAD_BYTES]) -> BlockHead {
        let mut words = [0; HEAD_BYTES / 4];
        for (to, from) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *to = from.try_into().map_or(0, u32::from_le_bytes);
        }
        let [region, count, low, high, slice, births, step] = words;
        let first = u64::from(low) | u64::from(high) << 32;
        BlockHead { region, count, first, slice, births, step }
    }
}

/// Who is told what a block holds.
pub trait Handler {
    /// From here on it is this slice.
    fn mark(&mut self, slice: u32);
    /// What is allocated from here on counts as this slice's when its birth is told. That begins a
    /// little (1 KiB of allocations) later than the slice, since births are not known better.
    fn births(&mut self, slice: u32);
    /// An event; `birth`: the slice in which old memory was allocated.
    fn event(&mut self, word: u64, birth: u32);
}

/// Tells `to` what the block holds whose unpacked streams are `raw`. `None` if they aren't a whole
/// block: what was told until then counts for nothing.
pub fn decode(head: &BlockHead, raw: &[u8], to: &mut impl Handler) -> Option<()> {
    if head.count > MOST_EVENTS {
        return None;
    }
    let mut rest = raw;
    let mut lengths = [0; STREAMS];
    for length in &mut lengths {
        *length = usize::try_from(take(&mut rest)?).ok()?;
    }
    let mut streams: [&[u8]; STREAMS] = [&[]; STREAMS];
    for (stream, length) in streams.iter_mut().zip(lengths) {
        (*stream, rest) = rest.split_at_checked(length)?;
    }
    let [mut runs, mut misses, mut fresh, mut births, mut marks] = streams;
    let mut predictor = Predictor::new();
    let mut context = Context::default();
    let mut known: Vec<u64> = Vec::new();
    let (mut last_tag, mut slice, mut born) = (0i64, head.slice, head.births);
    to.mark(slice);
    to.births(born);
    let next_mark = |marks: &mut &[u8], at: u32| -> Option<(u32, u64)> {
        if marks.is_empty() {
            return Some((u32::MAX, 0));
        }
        let distance = u32::try_from(take(marks)?).ok()?;
        Some((at.checked_add(distance)?, take(marks)?))
    };
    let mut mark = next_mark(&mut marks, 0)?;
    let mut run = take(&mut runs)?;
    let mut same = 0;
    for at in 0..head.count {
        while at == mark.0 {
            let step = u32::try_from(mark.1 >> 1).ok()?;
            if mark.1 & 1 == MARK_TIME {
                slice = slice.checked_add(step)?;
                to.mark(slice);
            } else {
                born = born.checked_add(step)?;
                to.births(born);
            }
            mark = next_mark(&mut marks, at)?;
        }
        let event;
        if run > 0 {
            run -= 1;
            event = *predictor.long(context);
        } else {
            run = take(&mut runs)?;
            event = match take(&mut misses)? {
                SECOND => *predictor.short(context),
                code => {
                    let what = match code {
                        SIZED..NEW => what(*predictor.short(context)),
                        NEW..KNOWN => {
                            let told = take(&mut fresh)?;
                            last_tag = last_tag.checked_add(unfold(told >> 2))?;
                            known.push(word(told & KIND, last_tag as u32, 0));
                            *known.last()?
                        }
                        code => *known.get(usize::try_from((code - KNOWN) / WAYS).ok()?)?,
                    };
                    let sizes = predictor.sizes(tag(what));
                    let size = match (code - SIZED) % WAYS {
                        OTHER => take(&mut fresh)?,
                        which => sizes[which as usize - 1],
                    };
                    among(sizes, size);
                    let event = word(what & KIND, tag(what), size);
                    *predictor.short(context) = event;
                    event
                }
            };
            *predictor.long(context) = event;
        }
        context = context.after(event);
        let mut birth = 0;
        if event & KIND == FREED_OLD {
            let last = predictor.birth(context);
            if same > 0 {
                same -= 1;
            } else {
                match take(&mut births)? {
                    SAME => same = take(&mut births)?,
                    other => {
                        let birth = i64::from(*last).checked_add(unfold(other))?;
                        *last = u32::try_from(birth).ok()?;
                    }
                }
            }
            birth = *last;
        }
        to.event(event, birth);
    }
    Some(())
}
