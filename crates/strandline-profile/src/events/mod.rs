//! Every single allocation and free (`run --stacks --events`): how they are packed into the blocks
//! of a `.strand` file, and what is worked out of them.
//!
//! An event is a word: what happened, the tag (which the process's [`Tags`] turn into a call path)
//! and the size. Time is kept in *slices* of [`SLICE_NANOS`]: a block's events lie between marks that
//! say which slice has begun. Of a block of memory that is freed in a later slice than it was
//! allocated in, the event says in which.

mod code;
mod decode;
mod encode;
mod open;
mod replay;

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::file::{write_packed, FileError, EVENTS};

pub use decode::{decode, BlockHead, Handler, HEAD_BYTES};
pub use encode::Encoder;
pub use open::Recorded;
pub use replay::{Interval, Replayed};

/// Nanoseconds of a slice of time.
pub const SLICE_NANOS: u64 = 1_000_000;
/// Events of a block at most.
pub const MOST_EVENTS: u32 = 1 << 19;

/// Low bits of an event's word: what happened.
pub const KIND: u64 = 3;
/// Memory was allocated.
pub const ALLOCATED: u64 = 0;
/// Memory was freed in the slice in which it was allocated.
pub const FREED: u64 = 1;
/// Memory was freed that an earlier slice allocated.
pub const FREED_OLD: u64 = 2;

/// The tag of an event.
#[inline(always)]
pub const fn tag(word: u64) -> u32 {
    (word >> 2) as u32 & 0xf_ffff
}

/// The size of an event, bytes.
#[inline(always)]
pub const fn size(word: u64) -> u64 {
    word >> 22
}

/// The word of an event.
#[inline(always)]
pub const fn word(kind: u64, tag: u32, size: u64) -> u64 {
    kind | (tag as u64 & 0xf_ffff) << 2 | size << 22
}

/// What the tags in the events of a process stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// [`BlockHead::region`] of the process's events.
    pub region: u32,
    /// For each tag the index of its path ([`crate::Process::paths`]); `u32::MAX`: none.
    pub paths: Vec<u32>,
    /// What of its events is there.
    pub told: Told,
}

/// What of a process's events is in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Number of events, once the run has ended; else 0.
    pub count: u64,
    /// Why there are not all of them; `None`: they are all there.
    pub missing: Option<String>,
}

/// Appends a block as [`Encoder::finish`] made it, as it stands in a file.
pub fn put_block(
    (head, packed, raw_len): &(BlockHead, Vec<u8>, usize),
    to: &mut dyn Write,
) -> Result<(), FileError> {
    let mut bytes = head.to_bytes().to_vec();
    bytes.extend_from_slice(packed);
    write_packed(to, EVENTS, &bytes, *raw_len)
}
