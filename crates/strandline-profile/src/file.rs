//! The `.strand` file: a header and a sequence of blocks, each compressed by itself and with a
//! check sum, so that a file that was cut off or damaged is read up to there.
//!
//! | bytes | |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`VERSION`], little-endian |
//! | … | blocks: kind (4), bytes in the file (4), bytes unpacked (4), CRC-32 of these and the packed bytes (4), packed bytes (zstd) |
//!
//! The first block is the run ([`Meta`] and doubts), then comes one block for each process
//! (postcard of [`crate::Process`]), one with the types of objects ([`Types`]) if there are any, then an
//! end block. A reader skips kinds that it doesn't know.
//!
//! A file with events ([`crate::events`]) is only ever appended to: blocks of events, and now and
//! then again the run, its processes and an end, as they were then. The last of these that is whole
//! counts.

use std::fmt;
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::check::check;
use crate::events::Tags;
use crate::model::{Meta, Profile, Types};

/// First eight bytes of every file.
pub const MAGIC: [u8; 8] = *b"strand\x0d\x0a";
/// Version of the format. A reader refuses any other.
pub const VERSION: u32 = 4;
/// Largest block, unpacked: what a damaged length can make a reader reserve at most.
pub(crate) const LARGEST_BLOCK: usize = 1 << 30;
const LEVEL: i32 = 3;

const RUN: u32 = 1;
const PROCESS: u32 = 2;
const END: u32 = 3;
/// See [`crate::events`].
pub(crate) const EVENTS: u32 = 4;
/// [`Tags`] of all processes.
const TAGS: u32 = 5;
const TYPES: u32 = 16;
/// Bytes of a block in front of its packed ones.
pub(crate) const BLOCK_HEAD: usize = 16;

#[derive(Serialize, Deserialize)]
struct Run {
    meta: Meta,
    doubts: Vec<String>,
}

/// Why a file could not be read or written.
#[derive(Debug)]
pub enum FileError {
    /// The system says no.
    Io(io::Error),
    /// The first bytes are not such a file's.
    NotAProfile,
    /// It has another version than [`VERSION`].
    Version(u32),
    /// It ends, or is damaged, before the first whole block.
    Nothing,
    /// A value is too large for the format.
    TooLarge,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Io(e) => write!(f, "{e}"),
            FileError::NotAProfile => {
                f.write_str("this is not a strandline profile (strandline run --stacks writes one)")
            }
            FileError::Version(v) => write!(
                f,
                "the profile has format version {v}, this strandline reads version {VERSION}: \
                 use the strandline that made it"
            ),
            FileError::Nothing => {
                f.write_str("the profile is damaged: it ends before anything was written")
            }
            FileError::TooLarge => f.write_str("the profile is larger than its format can hold"),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FileError::Io(e) => Some(e),
            _ => None,
        }
    }
}

impl From<io::Error> for FileError {
    fn from(e: io::Error) -> Self {
        FileError::Io(e)
    }
}

/// True if a file that starts with these bytes is a profile of any version.
pub fn is_profile(start: &[u8]) -> bool {
    start.starts_with(&MAGIC)
}

fn write_block<T: Serialize>(to: &mut dyn Write, kind: u32, value: &T) -> Result<(), FileError> {
    let raw = postcard::to_stdvec(value).map_err(|_| FileError::TooLarge)?;
    if raw.len() > LARGEST_BLOCK {
        return Err(FileError::TooLarge);
    }
    let packed = zstd::bulk::compress(&raw, LEVEL)?;
    write_packed(to, kind, &packed, raw.len())
}

/// Writes a block whose bytes are packed already.
pub(crate) fn write_packed(
    to: &mut dyn Write,
    kind: u32,
    packed: &[u8],
    raw_len: usize,
) -> Result<(), FileError> {
    let lengths = [packed.len(), raw_len].map(u32::try_from);
    let [Ok(packed_len), Ok(raw_len)] = lengths else { return Err(FileError::TooLarge) };
    let sum = sum([kind, packed_len, raw_len], packed);
    for word in [kind, packed_len, raw_len, sum] {
        to.write_all(&word.to_le_bytes())?;
    }
    to.write_all(packed)?;
    Ok(())
}

pub(crate) fn sum(head: [u32; 3], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for word in head {
        hasher.update(&word.to_le_bytes());
    }
    hasher.update(packed);
    hasher.finalize()
}

/// Writes a whole file.
pub fn write(profile: &Profile, to: &mut dyn Write) -> Result<(), FileError> {
    write_start(to)?;
    write_blocks(profile, None, to)
}

/// Writes what stands in front of all blocks.
pub(crate) fn write_start(to: &mut dyn Write) -> io::Result<()> {
    to.write_all(&MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())
}

/// Writes what is appended to a file with events: the profile as it is now. `tags`: of each process,
/// in their order.
pub fn write_again(profile: &Profile, tags: &[Tags], to: &mut dyn Write) -> Result<(), FileError> {
    write_blocks(profile, Some(tags), to)
}

fn write_blocks(
    profile: &Profile,
    tags: Option<&[Tags]>,
    to: &mut dyn Write,
) -> Result<(), FileError> {
    let run = Run { meta: profile.meta.clone(), doubts: profile.doubts.clone() };
    write_block(to, RUN, &run)?;
    for process in &profile.processes {
        write_block(to, PROCESS, process)?;
    }
    if !profile.types.is_empty() {
        write_block(to, TYPES, &profile.types)?;
    }
    if let Some(tags) = tags {
        write_block(to, TAGS, &tags)?;
    }
    write_block(to, END, &())
}

/// A block's header.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// Kind, bytes in the file, bytes unpacked.
    pub(crate) words: [u32; 3],
    pub(crate) sum: u32,
}

/// Reads as much as there is into `buffer`; the bytes read.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|r| !r.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn head(from: &mut dyn Read) -> io::Result<Option<Head>> {
    let mut bytes = [0; BLOCK_HEAD];
    if fill(from, &mut bytes)? < bytes.len() {
        return Ok(None);
    }
    Ok(Some(Head { words: [0, 4, 8].map(|at| word(&bytes, at)), sum: word(&bytes, 12) }))
}

/// The next whole block's kind and bytes; `None` at the end, or where it is damaged.
fn block(from: &mut dyn Read, head: &Head) -> io::Result<Option<(u32, Vec<u8>)>> {
    let [kind, packed_len, raw_len] = head.words;
    // What isn't there is not reserved: a length alone costs nothing.
    let mut packed = Vec::new();
    from.take(packed_len as u64).read_to_end(&mut packed)?;
    let whole = packed.len() == packed_len as usize && sum(head.words, &packed) == head.sum;
    if !whole || raw_len as usize > LARGEST_BLOCK {
        return Ok(None);
    }
    Ok(zstd::bulk::decompress(&packed, raw_len as usize).ok().map(|raw| (kind, raw)))
}

fn value<T: DeserializeOwned>(raw: &[u8]) -> Option<T> {
    postcard::from_bytes(raw).ok()
}

/// Where a profile is read from.
pub(crate) trait Input {
    /// What is read next.
    fn next(&mut self) -> &mut dyn Read;
    /// A block of events comes next: goes behind it. False: the file ends before.
    fn events(&mut self, head: &Head) -> io::Result<bool>;
}

impl Input for &mut dyn Read {
    fn next(&mut self) -> &mut dyn Read {
        *self
    }

    fn events(&mut self, head: &Head) -> io::Result<bool> {
        let length = u64::from(head.words[1]);
        let mut block = (&mut **self).take(length);
        Ok(io::copy(&mut block, &mut io::sink())? == length)
    }
}

/// Reads a file. One that was cut off or is damaged gives what stands before that, with a doubt
/// that says so. Events are passed over.
pub fn read(mut from: &mut dyn Read) -> Result<Profile, FileError> {
    read_from(&mut from).map(|(profile, _)| profile)
}

/// The profile and, of a file with events, the tags of each process.
pub(crate) fn read_from(from: &mut impl Input) -> Result<(Profile, Vec<Tags>), FileError> {
    let mut start = [0; 12];
    let have = fill(from.next(), &mut start)?;
    if !start.get(..have).is_some_and(is_profile) {
        return Err(FileError::NotAProfile);
    }
    if have < start.len() {
        return Err(FileError::Nothing);
    }
    match word(&start, 8) {
        VERSION => {}
        version => return Err(FileError::Version(version)),
    }
    // The last whole one, and what has been read of the next.
    let (mut whole, mut part) = (None, None);
    let mut ended = true;
    while let Some(head) = head(from.next())? {
        ended = false;
        if head.words[0] == EVENTS {
            if !from.events(&head)? {
                break;
            }
            ended = part.is_none();
            continue;
        }
        let Some((kind, raw)) = block(from.next(), &head)? else { break };
        match (kind, &mut part) {
            (RUN, _) => {
                let Some(run) = value::<Run>(&raw) else { break };
                let profile = Profile { meta: run.meta, doubts: run.doubts, ..Profile::default() };
                part = Some((profile, Vec::new()));
            }
            (_, None) => break,
            (PROCESS, Some((profile, _))) => match value(&raw) {
                Some(process) => profile.processes.push(process),
                None => break,
            },
            (TYPES, Some((profile, _))) => match value::<Vec<Types>>(&raw) {
                Some(types) => profile.types = types,
                None => break,
            },
            (TAGS, Some((_, tags))) => match value(&raw) {
                Some(all) => *tags = all,
                None => break,
            },
            (END, _) => whole = part.take(),
            _ => {}
        }
        ended = part.is_none();
    }
    let Some((mut profile, tags)) = whole.or(part) else { return Err(FileError::Nothing) };
    if !ended {
        profile.doubts.push(
            "The file is damaged or was cut off: what follows is what stands before that.".into(),
        );
    }
    check(&mut profile);
    Ok((profile, tags))
}
