//! From the bytes of a capture to plain owned values.
//!
//! The target could write anything into its capture, by mistake or while it was being killed.
//! So nothing is trusted: every index, every range of text and every count is checked, what
//! can't be is left out and noted as a doubt, and no input makes this code panic.
//!
//! A capture is sparse and huge; only the parts that its counts say are used are read.

mod bare;
mod glance;
mod process;
mod stacks;
mod tables;

pub use bare::{bare, Bare};
pub use glance::{glance, Glance};
pub use process::{
    Function, Ledger, Line, Process, Refusal, SiteTotal, State, MAX_COMMAND_ARGUMENTS,
};
pub use stacks::{Node, Path, Paths, Stacks, Thread};
pub use tables::{Code, Context, FunctionEntry, Head, RawLedger, Site, Slot, Tables, Tag};

use core::fmt;
use core::mem::offset_of;
use std::collections::BTreeMap;
use std::io;

use crate::layout;

/// Where a capture's bytes come from.
pub trait Bytes {
    /// Total length, bytes.
    fn length(&self) -> io::Result<u64>;

    /// Reads at `offset` into `buffer`, as much as there is; returns the bytes read, which may be
    /// fewer than asked for.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Bytes for [u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let n = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }
}

#[cfg(unix)]
impl Bytes for std::fs::File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }
}

/// Why a capture could not be read at all.
#[derive(Debug)]
pub enum ReadError {
    /// The bytes could not be read.
    Io(io::Error),
    /// The first bytes are not a capture's.
    NotACapture,
    /// The layout has another version than [`layout::VERSION`].
    Version(u32),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io(e) => write!(f, "the capture can't be read: {e}"),
            ReadError::NotACapture => f.write_str("this is not a strandline capture"),
            ReadError::Version(v) => write!(
                f,
                "the capture has layout version {v}, this strandline reads version {}: \
                 use the strandline that made it",
                layout::VERSION
            ),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Io(e) => Some(e),
            ReadError::NotACapture | ReadError::Version(_) => None,
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(e: io::Error) -> Self {
        ReadError::Io(e)
    }
}

/// All that a capture says.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// `OPTION_*` bits of [`layout`].
    pub options: u32,
    /// Process id of the strandline process that made the capture.
    pub owner_pid: u32,
    /// `--function` patterns.
    pub patterns: Vec<String>,
    /// The processes that were recorded, in the order in which they started.
    pub processes: Vec<Process>,
    /// Number of processes that found no room in the capture.
    pub unrecorded: u32,
    /// What could not be understood, one sentence each.
    pub doubts: Vec<String>,
}

/// The header, if it is one of this layout.
fn header<B: Bytes + ?Sized>(bytes: &B) -> Result<tables::Piece, ReadError> {
    let header = tables::Piece::read(bytes, 0, core::mem::size_of::<layout::Header>())?;
    if header.u64(offset_of!(layout::Header, magic)) != layout::MAGIC {
        return Err(ReadError::NotACapture);
    }
    let version = header.u32(offset_of!(layout::Header, version));
    if version != layout::VERSION {
        return Err(ReadError::Version(version));
    }
    Ok(header)
}

/// A capture's regions, as stored.
#[derive(Debug, Default)]
pub struct Regions {
    /// `OPTION_*` bits of [`layout`].
    pub options: u32,
    /// Process id of the strandline process that made the capture.
    pub owner_pid: u32,
    /// `--function` patterns.
    pub patterns: Vec<String>,
    /// [`layout::Header::temporary_distance`].
    pub temporary_distance: u32,
    /// Index and tables of each region that a process wrote to.
    pub tables: Vec<(u32, Tables)>,
    /// Number of processes that found no room in the capture.
    pub unrecorded: u32,
    /// What could not be understood.
    pub doubts: Doubts,
}

/// `OPTION_*` bits of a capture and the number of regions that were handed out so far.
pub fn handed_out<B: Bytes + ?Sized>(bytes: &B) -> Result<(u32, u32), ReadError> {
    let header = header(bytes)?;
    let count = header.u32(offset_of!(layout::Header, regions));
    Ok((header.u32(offset_of!(layout::Header, options)), count.min(layout::MAX_REGIONS as u32)))
}

/// Reads a capture's regions.
pub fn regions<B: Bytes + ?Sized>(bytes: &B) -> Result<Regions, ReadError> {
    regions_with(bytes, true)
}

/// `regions`, with or without the call paths, which are most of them.
fn regions_with<B: Bytes + ?Sized>(bytes: &B, stacks: bool) -> Result<Regions, ReadError> {
    let length = bytes.length()?;
    let header = header(bytes)?;
    let mut doubts = Doubts::default();
    let mut patterns_len = header.u32(offset_of!(layout::Header, patterns_len)) as usize;
    if patterns_len > layout::MAX_PATTERNS {
        doubts.note("the header's list of patterns is longer than its room");
        patterns_len = layout::MAX_PATTERNS;
    }
    let patterns = header.bytes(offset_of!(layout::Header, patterns), patterns_len);
    let patterns = String::from_utf8_lossy(patterns);
    let options = header.u32(offset_of!(layout::Header, options));

    let wanted = header.u32(offset_of!(layout::Header, regions));
    let room = length.saturating_sub(layout::HEADER_BYTES as u64);
    // A region that the file holds only in part counts: what is missing is zero.
    let room = room.div_ceil(layout::stride(options) as u64).min(layout::MAX_REGIONS as u64) as u32;
    let mut all = Vec::new();
    for index in 0..wanted.min(room) {
        let mut local = Doubts::default();
        let tables = Tables::read(bytes, length, options, stacks, index, &mut local)?;
        doubts.take(local, tables.head.pid);
        // A region that was handed out to a process that died before it wrote a word.
        if tables.head.state != layout::STATE_FREE {
            all.push((index, tables));
        }
    }
    Ok(Regions {
        options,
        owner_pid: header.u32(offset_of!(layout::Header, owner_pid)),
        patterns: patterns.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect(),
        temporary_distance: header.u32(offset_of!(layout::Header, temporary_distance)),
        tables: all,
        unrecorded: wanted - wanted.min(room),
        doubts,
    })
}

/// Reads what a capture says of processes and lines, whatever call paths it has.
pub fn read<B: Bytes + ?Sized>(bytes: &B) -> Result<Capture, ReadError> {
    let Regions { options, owner_pid, patterns, tables, unrecorded, mut doubts, .. } =
        regions_with(bytes, false)?;
    let mut processes = Vec::new();
    for (index, tables) in &tables {
        let mut local = Doubts::default();
        processes.push(Process::from_tables(tables, *index, &mut local));
        doubts.take(local, tables.head.pid);
    }
    Ok(Capture { options, owner_pid, patterns, processes, unrecorded, doubts: doubts.sentences() })
}

/// What could not be understood: each kind once, with a count.
#[derive(Debug, Default)]
pub struct Doubts {
    found: BTreeMap<String, u64>,
}

impl Doubts {
    /// Notes one.
    pub fn note(&mut self, what: &str) {
        match self.found.get_mut(what) {
            Some(n) => *n += 1,
            None => {
                self.found.insert(what.to_owned(), 1);
            }
        }
    }

    fn take(&mut self, other: Doubts, pid: u32) {
        for (what, n) in other.found {
            *self.found.entry(format!("process {pid}: {what}")).or_insert(0) += n;
        }
    }

    /// One sentence for each kind.
    pub fn sentences(&self) -> Vec<String> {
        let times = |n: u64| if n == 1 { String::new() } else { format!(" ({n} times)") };
        self.found.iter().map(|(what, n)| format!("{what}{}", times(*n))).collect()
    }
}
