//! Opening a file with events: its profile, and where its blocks of events stand.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;

use super::{decode, BlockHead, Handler, Tags, HEAD_BYTES, MOST_EVENTS};
use crate::file::{self, read_from, sum, FileError, Head, Input, BLOCK_HEAD};
use crate::model::Profile;

/// Bytes of unpacked streams that an event takes at most: five for each of a run, a miss, a mark,
/// and twice as many for a new one and a birth.
const MOST_BYTES: usize = 48 * MOST_EVENTS as usize;

/// A block of events in a file.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Where its bytes begin: its [`BlockHead`].
    offset: u64,
    head: Head,
    pub(super) events: BlockHead,
}

/// A profile's file.
pub struct Recorded {
    /// The profile, as [`crate::read`] gives it.
    pub profile: Profile,
    pub(super) tags: Vec<Tags>,
    pub(super) blocks: Vec<Block>,
    file: File,
}

struct Blocks {
    from: BufReader<File>,
    length: u64,
    blocks: Vec<Block>,
}

impl Input for Blocks {
    fn next(&mut self) -> &mut dyn Read {
        &mut self.from
    }

    fn events(&mut self, head: &Head) -> io::Result<bool> {
        let offset = self.from.stream_position()?;
        let length = u64::from(head.words[1]);
        if length < HEAD_BYTES as u64 || self.length.saturating_sub(offset) < length {
            return Ok(false);
        }
        let mut bytes = [0; HEAD_BYTES];
        self.from.read_exact(&mut bytes)?;
        let events = BlockHead::from_bytes(&bytes);
        self.blocks.push(Block { offset, head: *head, events });
        self.from.seek_relative(length as i64 - HEAD_BYTES as i64)?;
        Ok(true)
    }
}

impl Recorded {
    /// Opens a profile; its events are passed over.
    pub fn open(file: File) -> Result<Recorded, FileError> {
        let length = file.metadata()?.len();
        let mut from =
            Blocks { from: BufReader::new(file.try_clone()?), length, blocks: Vec::new() };
        let (profile, tags) = read_from(&mut from)?;
        Ok(Recorded { profile, tags, blocks: from.blocks, file })
    }

    /// True if every allocation was recorded by itself.
    pub fn has_events(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Writes a file with `profile` in the place of the one that was read (with the same processes
    /// and paths), and with the same events.
    pub fn write(&self, profile: &Profile, to: &mut dyn Write) -> Result<(), FileError> {
        if !self.has_events() {
            return file::write(profile, to);
        }
        file::write_start(to)?;
        for block in &self.blocks {
            let mut bytes = vec![0; BLOCK_HEAD + block.head.words[1] as usize];
            self.file.read_exact_at(&mut bytes, block.offset - BLOCK_HEAD as u64)?;
            to.write_all(&bytes)?;
        }
        file::write_again(profile, &self.tags, to)
    }

    /// Tells `to` what a block holds. `None`: it is damaged.
    pub(super) fn unpack(&self, block: &Block, to: &mut impl Handler) -> Option<()> {
        let [_, packed_len, raw_len] = block.head.words;
        let raw_len = raw_len as usize;
        if raw_len > MOST_BYTES {
            return None;
        }
        let mut packed = vec![0; packed_len as usize];
        self.file.read_exact_at(&mut packed, block.offset).ok()?;
        if sum(block.head.words, &packed) != block.head.sum {
            return None;
        }
        let raw = zstd::bulk::decompress(packed.get(HEAD_BYTES..)?, raw_len).ok()?;
        decode(&block.events, &raw, to)
    }
}
