//! The image: mappings, bytes, threads.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::Duration;

use crate::mapping::{Mapping, PAGE};

/// Consecutive bytes of the target.
pub struct Piece {
    /// Address of the first.
    pub start: u64,
    /// The bytes. Pages that weren't resident are zero.
    pub bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + self.data().len() as u64
    }

    fn data(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
}

/// A thread of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Thread id as this reader sees it.
    pub tid: i32,
    /// Its name (`comm`), may be empty.
    pub name: String,
    /// Stack pointer when it stood; `None` if it ran.
    pub stack_pointer: Option<u64>,
    /// Base of its thread-local storage (FS base on x86-64); `None` if unknown.
    pub tls: Option<u64>,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A live process.
    Process {
        /// Its id as this reader sees it.
        pid: i32,
        /// How long it stood; `None` if it was never stopped.
        paused: Option<Duration>,
    },
    /// A core file.
    Core {
        /// Bytes of private memory that the core filter left out.
        left_out: u64,
    },
    /// Made by a test.
    Fixture,
}

/// Reads what wasn't copied: code and read-only data of files.
pub type Fetch = dyn Fn(u64, &mut [u8]) -> bool + Send + Sync;

/// What else is known of the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Path of its executable, as it sees it.
    pub executable: Option<String>,
    /// Its command line.
    pub command_line: Vec<String>,
    /// Page tables, bytes.
    pub page_table_bytes: Option<u64>,
    /// The most that was ever resident (`VmHWM` of /proc/PID/status), bytes.
    pub peak_rss_bytes: Option<u64>,
    /// CPU time that it had used (`clock_getcpuclockid(3)`), milliseconds.
    pub cpu_ms: Option<u64>,
    /// The copy didn't fit into the memory that was free, and is in a file.
    pub copied_to_disk: bool,
}

/// Reads what a mapping of `file` shows from its `offset` on: behind the end of the file, zeros.
pub(crate) fn read_mapped(file: &File, offset: u64, into: &mut [u8]) -> bool {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => {
                into[done..].fill(0);
                break;
            }
            Ok(n) => done += n,
            Err(_) => return false,
        }
    }
    true
}

/// Bytes that are fetched at once.
const BLOCK: usize = 64 << 10;

/// The memory of a process at one moment.
pub struct Image {
    /// Sorted by address, without overlap.
    mappings: Vec<Mapping>,
    /// Sorted by address, without overlap.
    pieces: Vec<Piece>,
    threads: Vec<Thread>,
    source: Source,
    facts: Facts,
    fetch: Option<Box<Fetch>>,
    fetched: Mutex<std::collections::HashMap<u64, Option<Box<[u8]>>>>,
}

impl Image {
    /// Puts an image together. `fetch` reads bytes that are in no piece, all or none.
    pub fn new(
        mut mappings: Vec<Mapping>,
        mut pieces: Vec<Piece>,
        threads: Vec<Thread>,
        source: Source,
        fetch: Option<Box<Fetch>>,
    ) -> Self {
        mappings.sort_by_key(|m| m.start);
        pieces.retain(|p| !p.data().is_empty());
        pieces.sort_by_key(|p| p.start);
        Image {
            mappings,
            pieces,
            threads,
            source,
            facts: Facts::default(),
            fetch,
            fetched: Mutex::default(),
        }
    }

    /// An image of these bytes alone, each in a writable, anonymous, resident mapping of its own.
    pub fn fixture(parts: Vec<(u64, Vec<u8>)>) -> Self {
        let mut mappings = Vec::new();
        let mut pieces = Vec::new();
        for (start, bytes) in parts {
            let pages = bytes.len().div_ceil(PAGE as usize);
            mappings.push(Mapping {
                start,
                end: start + bytes.len() as u64,
                read: true,
                write: true,
                resident: crate::PageSet::all(pages),
                ..Mapping::default()
            });
            pieces.push(Piece { start, bytes: Box::new(bytes) });
        }
        Self::new(mappings, pieces, Vec::new(), Source::Fixture, None)
    }

    /// All mappings, by address.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// All threads.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// The same image with `facts`.
    pub fn with_facts(self, facts: Facts) -> Self {
        Image { facts, ..self }
    }

    /// What else is known of the target.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Where the image comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The mapping that `address` lies in.
    pub fn mapping_at(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|m| m.start <= address);
        let m = self.mappings.get(after.checked_sub(1)?)?;
        (address < m.end).then_some(m)
    }

    /// The copied memory, by address: start and bytes of each piece.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|p| (p.start, p.data()))
    }

    /// The copied parts of `from..to`, by address.
    pub fn slices(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, &[u8])> {
        let first = self.pieces.partition_point(|p| p.end() <= from);
        let pieces = self.pieces.get(first..).unwrap_or_default();
        pieces.iter().take_while(move |p| p.start < to).map(move |p| {
            let (start, end) = (p.start.max(from), p.end().min(to));
            (start, &p.data()[(start - p.start) as usize..(end - p.start) as usize])
        })
    }

    /// `len` copied bytes at `address`; `None` if they weren't copied as one piece.
    #[inline]
    pub fn slice(&self, address: u64, len: usize) -> Option<&[u8]> {
        let after = self.pieces.partition_point(|p| p.start <= address);
        let piece = self.pieces.get(after.checked_sub(1)?)?;
        let at = usize::try_from(address - piece.start).ok()?;
        piece.data().get(at..at.checked_add(len)?)
    }

    /// At most `len` bytes at `address`, as far as they were copied as one piece.
    pub fn prefix(&self, address: u64, len: usize) -> Option<&[u8]> {
        let bytes = self.slice_from(address)?;
        bytes.get(..len.min(bytes.len()))
    }

    /// All copied bytes from `address` to the end of its piece.
    pub fn slice_from(&self, address: u64) -> Option<&[u8]> {
        let after = self.pieces.partition_point(|p| p.start <= address);
        let piece = self.pieces.get(after.checked_sub(1)?)?;
        if address >= piece.end() {
            return None;
        }
        piece.data().get((address - piece.start) as usize..)
    }

    /// The first copied address from `address` on.
    pub fn next_copied(&self, address: u64) -> Option<u64> {
        let next = self.pieces.get(self.pieces.partition_point(|p| p.end() <= address))?;
        Some(next.start.max(address))
    }

    /// Fills `into` from `address`, from the copy or from where else it can be read; false, and
    /// `into` in an unknown state, if any byte can't be had.
    pub fn read(&self, address: u64, into: &mut [u8]) -> bool {
        if let Some(bytes) = self.slice(address, into.len()) {
            into.copy_from_slice(bytes);
            return true;
        }
        let mut done = 0;
        while done < into.len() {
            let Some(at) = address.checked_add(done as u64) else { return false };
            if let Some(bytes) = self.slice_from(at) {
                let n = bytes.len().min(into.len() - done);
                into[done..done + n].copy_from_slice(&bytes[..n]);
                done += n;
                continue;
            }
            let n = self.read_fetched(at, &mut into[done..]);
            if n == 0 {
                return false;
            }
            done += n;
        }
        true
    }

    /// Reads up to the end of a block, or of the mapping's part in it; 0 if it can't be had.
    fn read_fetched(&self, address: u64, into: &mut [u8]) -> usize {
        let (Some(fetch), Some(m)) = (&self.fetch, self.mapping_at(address)) else { return 0 };
        let block = address & !(BLOCK as u64 - 1);
        let (from, to) = (block.max(m.start), (block + BLOCK as u64).min(m.end));
        let Ok(mut fetched) = self.fetched.lock() else { return 0 };
        let bytes = fetched.entry(from).or_insert_with(|| {
            let mut bytes = vec![0; (to - from) as usize];
            fetch(from, &mut bytes).then(|| bytes.into_boxed_slice())
        });
        let Some(bytes) = bytes else { return 0 };
        let Some(rest) = bytes.get((address - from) as usize..) else { return 0 };
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        n
    }

    /// The little-endian word (8 bytes) at `address`.
    #[inline]
    pub fn word(&self, address: u64) -> Option<u64> {
        if let Some(bytes) = self.slice(address, 8) {
            return bytes.try_into().ok().map(u64::from_le_bytes);
        }
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).then(|| u64::from_le_bytes(bytes))
    }

    /// The 4 bytes at `address`.
    #[inline]
    pub fn half(&self, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes).then(|| u32::from_le_bytes(bytes))
    }

    /// The byte at `address`.
    pub fn byte(&self, address: u64) -> Option<u8> {
        let mut bytes = [0; 1];
        self.read(address, &mut bytes).then_some(bytes[0])
    }

    /// The bytes at `address` up to a NUL, which must come within `most` bytes.
    pub fn c_string(&self, address: u64, most: usize) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        while text.len() < most {
            // Never across a page for nothing: the text may end right before the mapping does.
            let at = address.checked_add(text.len() as u64)?;
            let n = ((PAGE - at % PAGE) as usize).min(most - text.len()).min(256);
            let mut part = [0; 256];
            if !self.read(at, &mut part[..n]) {
                return None;
            }
            if let Some(end) = part[..n].iter().position(|&b| b == 0) {
                text.extend_from_slice(&part[..end]);
                return Some(text);
            }
            text.extend_from_slice(&part[..n]);
        }
        None
    }

    /// Resident bytes of `from..to`, over all mappings.
    pub fn resident_bytes(&self, from: u64, to: u64) -> u64 {
        let first = self.mappings.partition_point(|m| m.end <= from);
        let inside = self.mappings.get(first..).unwrap_or_default();
        inside.iter().take_while(|m| m.start < to).map(|m| m.resident_bytes(from, to)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cross_from_copied_to_fetched_memory() {
        let mappings = vec![
            Mapping { start: 0x1000, end: 0x2000, ..Mapping::default() },
            Mapping { start: 0x2000, end: 0x3000, ..Mapping::default() },
        ];
        let pieces = vec![Piece { start: 0x1000, bytes: Box::new(vec![1u8; 0x1000]) }];
        let fetch = |_: u64, into: &mut [u8]| {
            into.fill(2);
            true
        };
        let image =
            Image::new(mappings, pieces, Vec::new(), Source::Fixture, Some(Box::new(fetch)));
        assert_eq!(image.word(0x1ffc), Some(0x0202_0202_0101_0101));
        assert_eq!(image.word(0x2ffc), None);
        assert_eq!(image.word(u64::MAX - 3), None);
        assert_eq!(image.slice(0x1ffc, 8), None);
        assert_eq!(image.slice(0xfff, 1), None);
        let next = [0, 0x1000, 0x1fff, 0x2000].map(|a| image.next_copied(a));
        assert_eq!(next, [Some(0x1000), Some(0x1000), Some(0x1fff), None]);
    }

    #[test]
    fn text_may_end_with_its_mapping() {
        let mut bytes = vec![0u8; 0x1000];
        bytes[0xffd..].copy_from_slice(b"ab\0");
        let image = Image::fixture(vec![(0x1000, bytes)]);
        assert_eq!(image.c_string(0x1ffd, 100).as_deref(), Some(&b"ab"[..]));
        let image = Image::fixture(vec![(0x1000, vec![b'x'; 0x1000])]);
        assert_eq!(image.c_string(0x1ffd, 100), None);
        assert_eq!(image.c_string(0x1000, 100), None);
    }
}
