//! The image of an ELF core file.
//!
//! Which pages were resident isn't in a core file. What the kernel didn't dump is a hole in the
//! file, if nobody has filled it in since; such pages count as not resident, all others as
//! resident.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use memmap2::Mmap;

use crate::elf::{self, Core, MappedFile, Segment};
use crate::error::Error;
use crate::image::{read_mapped, Facts, Fetch, Image, Piece, Source, Thread};
use crate::mapping::{Mapping, PageSet, PAGE};

/// Part of the core file.
struct Part {
    file: Arc<Mmap>,
    from: usize,
    to: usize,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        self.file.get(self.from..self.to).unwrap_or_default()
    }
}

/// Reads a core file; `exe` is the executable it is of, if that isn't where it was.
///
/// # Errors
/// [`Error::Core`] if the file can't be opened, [`Error::NotACore`] if it isn't one.
pub fn from_core(core: &Path, exe: Option<&Path>) -> Result<Image, Error> {
    let failed = |e| Error::Core(core.to_owned(), e);
    let file = File::open(core).map_err(failed)?;
    if let Some(exe) = exe {
        File::open(exe).map_err(|e| Error::Core(exe.to_owned(), e))?;
    }
    // SAFETY: a private mapping for reading. Should someone cut the file off meanwhile, reading
    // it kills this process, as it would kill any reader of mapped files; nothing else is at
    // stake.
    let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(failed)?);
    let read = elf::read(&map).map_err(|why| Error::NotACore(core.to_owned(), why))?;
    let mut mappings = Vec::new();
    let mut pieces = Vec::new();
    let mut left_out = 0;
    let mut end = 0;
    let mut segments = read.segments.clone();
    segments.sort_by_key(|s| s.start);
    for s in segments {
        let (Some(after), true) = (s.start.checked_add(s.len), s.len > 0 && s.start >= end) else {
            continue;
        };
        end = after;
        let from = (s.offset as usize).min(map.len());
        let to = from.saturating_add(s.in_file.min(s.len) as usize).min(map.len());
        let mapping = mapping(&file, &s, (to - from) as u64, &read);
        // What is in a file can be read there.
        if mapping.inode == 0 || mapping.is_memory() {
            left_out += s.len - (to - from) as u64;
        }
        mappings.push(mapping);
        pieces
            .push(Piece { start: s.start, bytes: Box::new(Part { file: map.clone(), from, to }) });
    }
    mappings.extend(not_dumped(&read));
    let threads = read.threads.iter().map(|t| Thread {
        tid: t.tid,
        name: String::new(),
        stack_pointer: Some(t.stack_pointer),
        tls: Some(t.tls),
    });
    let fetch = fetch(read.files.clone(), exe.map(Path::to_owned));
    let facts = Facts {
        executable: read.files.first().map(|f| f.path.clone()),
        command_line: Some(read.command_line.clone())
            .into_iter()
            .filter(|c| !c.is_empty())
            .collect(),
        page_table_bytes: None,
        peak_rss_bytes: None,
        cpu_ms: None,
        copied_to_disk: false,
    };
    let source = Source::Core { left_out };
    Ok(Image::new(mappings, pieces, threads.collect(), source, Some(fetch)).with_facts(facts))
}

fn mapping(file: &File, s: &Segment, in_file: u64, core: &Core) -> Mapping {
    let pages = s.len.div_ceil(PAGE) as usize;
    let mut resident = PageSet::none(pages);
    for (from, to) in data(file, s.offset, s.offset + in_file) {
        resident
            .insert(((from - s.offset) / PAGE) as usize, (to - s.offset).div_ceil(PAGE) as usize);
    }
    let named = core.files.iter().position(|f| f.start <= s.start && s.start < f.end);
    let (inode, offset, path) = match named.and_then(|i| core.files.get(i)) {
        Some(f) => (number(core, f), f.offset + (s.start - f.start), f.path.clone()),
        None => (0, 0, String::new()),
    };
    Mapping {
        start: s.start,
        end: s.start + s.len,
        read: s.flags & 4 != 0,
        write: s.flags & 2 != 0,
        execute: s.flags & 1 != 0,
        shared: false,
        offset,
        inode,
        path,
        usage: None,
        resident,
        swapped: PageSet::none(pages),
    }
}

/// Files have no inode in a core: equal paths get equal numbers.
fn number(core: &Core, file: &MappedFile) -> u64 {
    core.files.iter().position(|f| f.path == file.path).unwrap_or(0) as u64 + 1
}

/// Mapped files that the core file has no segment for: what can be read from the file itself.
/// Their permissions aren't known; code is taken to be in libraries and in the executable.
fn not_dumped(core: &Core) -> Vec<Mapping> {
    let dumped = |f: &MappedFile| {
        core.segments.iter().any(|s| s.start < f.end && f.start < s.start.saturating_add(s.len))
    };
    let is_module = |f: &MappedFile| {
        let name = f.path.rsplit('/').next().unwrap_or_default();
        name.ends_with(".so") || name.contains(".so.") || number(core, f) == 1
    };
    let files = core.files.iter().filter(|f| f.start < f.end && !dumped(f));
    files
        .map(|f| Mapping {
            start: f.start,
            end: f.end,
            read: true,
            execute: is_module(f),
            offset: f.offset,
            inode: number(core, f),
            path: f.path.clone(),
            ..Mapping::default()
        })
        .collect()
}

/// The parts of `from..to` of the file that are no holes (lseek(2)).
fn data(file: &File, from: u64, to: u64) -> Vec<(u64, u64)> {
    let seek = |at: u64, whence| {
        // SAFETY: lseek(2) on an open file.
        let found = unsafe { libc::lseek(file.as_raw_fd(), at as i64, whence) };
        u64::try_from(found).map_err(|_| io::Error::last_os_error())
    };
    let mut parts = Vec::new();
    let mut at = from;
    while at < to {
        let start = match seek(at, libc::SEEK_DATA) {
            Ok(start) if start >= to => break,
            Ok(start) => start,
            // Nothing but a hole follows.
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => break,
            // A file system without holes.
            Err(_) => at,
        };
        let end = seek(start, libc::SEEK_HOLE).unwrap_or(to).clamp(start + 1, to.max(start + 1));
        parts.push((start, end.min(to)));
        at = end;
    }
    parts
}

/// Reads what the core file doesn't hold from the files that were mapped, if they are still there.
fn fetch(files: Vec<MappedFile>, exe: Option<PathBuf>) -> Box<Fetch> {
    let executable = files.first().map(|f| f.path.clone());
    let open: Mutex<HashMap<String, Option<File>>> = Mutex::default();
    Box::new(move |address, into| {
        let Some(f) = files.iter().find(|f| f.start <= address && address < f.end) else {
            return false;
        };
        let Ok(mut open) = open.lock() else { return false };
        let file = open.entry(f.path.clone()).or_insert_with(|| match &exe {
            Some(exe) if Some(&f.path) == executable.as_ref() => File::open(exe).ok(),
            _ => File::open(&f.path).ok(),
        });
        let Some(file) = file else { return false };
        read_mapped(file, f.offset + (address - f.start), into)
    })
}
