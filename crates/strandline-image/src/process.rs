//! The image of a live process.
//!
//! What is copied is the private memory that can differ from any file: resident pages of
//! anonymous mappings and of private mappings of files that were written to. All else is read
//! later, from the files. A page that isn't resident is never read: that would make it resident,
//! and the process larger than it was.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use crate::copy::{self, Run};
use crate::error::Error;
use crate::image::{read_mapped, Facts, Fetch, Image, Source, Thread};
use crate::mapping::{Mapping, PAGE};
use crate::stop::{self, Stopped};
use crate::{memory, pages, smaps};

/// How to read a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Stop it while its memory is copied.
    pub pause: bool,
    /// Threads that copy.
    pub threads: usize,
    /// Bytes that the copy may take of memory; `None`: what is free. A larger one goes to disk.
    pub memory: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Options { pause: true, threads: threads.min(8), memory: None }
    }
}

/// Pages between two runs that are copied as one piece, at most.
const GAP: u64 = 16;

fn read_text(pid: i32, name: &str) -> Result<String, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    std::fs::read_to_string(&path).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Error::Vanished(pid),
        Some(libc::EACCES | libc::EPERM) => stop::denied(pid),
        _ => Error::Proc(path, e),
    })
}

/// When the process started, clock ticks since the machine did (field 22 of proc_pid_stat(5)).
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// True if `m` can hold bytes that are in no file.
fn is_copied(m: &Mapping) -> bool {
    let usage = m.usage.unwrap_or_default();
    let kernels = matches!(m.path.as_str(), "[vvar]" | "[vvar_vclock]" | "[vsyscall]" | "[vdso]");
    let private = !m.shared && m.read && !kernels;
    private && usage.rss > 0 && (usage.anonymous > 0 || m.write)
}

/// The mappings as they are now, with the state of their pages.
fn mappings(pid: i32) -> Result<Vec<Mapping>, Error> {
    let mut mappings = smaps::parse(&read_text(pid, "smaps")?);
    let path = PathBuf::from(format!("/proc/{pid}/pagemap"));
    let pagemap = File::open(&path).map_err(|e| match e.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => stop::denied(pid),
        _ => Error::Proc(path.clone(), e),
    })?;
    for m in &mut mappings {
        let usage = m.usage.unwrap_or_default();
        // Addresses of the kernel's half ([vsyscall]) have no entries.
        if usage.rss + usage.swap > 0 && m.end <= 1 << 47 {
            pages::note(&pagemap, m).map_err(|e| Error::Proc(path.clone(), e))?;
        }
    }
    Ok(mappings)
}

/// What is to be copied: resident pages, small gaps between them included. A run may span
/// mappings: what the kernel keeps apart may be one block to an allocator.
fn runs(mappings: &[Mapping]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for m in mappings.iter().filter(|m| is_copied(m)) {
        for (from, to) in m.resident.runs() {
            let (from, to) = (m.start + from as u64 * PAGE, m.start + to as u64 * PAGE);
            let to = to.min(m.end);
            match runs.last_mut() {
                Some(last) if from >= last.end && from - last.end <= GAP * PAGE => {
                    last.pages.push((from, to));
                    last.end = to;
                }
                _ => runs.push(Run { start: from, end: to, pages: vec![(from, to)] }),
            }
        }
    }
    runs
}

/// Reads the memory of process `pid`.
///
/// # Errors
/// See [`Error`]: no such process, no right to read it, no room for the copy.
pub fn capture(pid: i32, options: &Options) -> Result<Image, Error> {
    let started = (pid > 0).then(|| start_time(pid)).flatten().ok_or(Error::Missing(pid))?;
    let before = smaps::parse(&read_text(pid, "smaps")?);
    if before.is_empty() {
        return Err(Error::NoMemory(pid));
    }
    let needed: u64 =
        before.iter().filter(|m| is_copied(m)).map(|m| m.usage.unwrap_or_default().rss).sum();
    // Somewhat more, for what it allocates until it stands.
    let needed = needed + needed / 16 + (1 << 20);
    let available = options.memory.unwrap_or(u64::MAX).min(memory::available());
    let mut copy = copy::Copy::prepare(pid, needed, available, options.threads)?;

    let stood = Instant::now();
    let stopped = if options.pause { Some(Stopped::new(pid)?) } else { None };
    let mappings = mappings(pid)?;
    let tids = stop::threads(pid);
    copy.run(runs(&mappings))?;
    let registers: Vec<_> =
        tids.iter().map(|&t| (t, stopped.as_ref().and_then(|s| s.registers(t)))).collect();
    // What it does after it was looked at counts for the next look.
    let cpu_ms = cpu_ms(pid);
    drop(stopped);
    let paused = options.pause.then(|| stood.elapsed());

    if start_time(pid) != Some(started) {
        return Err(Error::Vanished(pid));
    }
    let threads = registers.into_iter().map(|(tid, r)| Thread {
        tid,
        name: std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"))
            .map_or_else(|_| String::new(), |name| name.trim_end().to_owned()),
        stack_pointer: r.map(|r| r.stack_pointer),
        tls: r.map(|r| r.tls),
    });
    let source = Source::Process { pid, paused };
    let fetch = fetch(pid, mappings.clone());
    let copied_to_disk = copy.is_on_disk();
    let image = Image::new(mappings, copy.pieces(), threads.collect(), source, Some(fetch));
    Ok(image.with_facts(Facts { copied_to_disk, cpu_ms, ..facts(pid) }))
}

fn facts(pid: i32) -> Facts {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let amount = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).map(|kib| kib * 1024)
    };
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = words.strip_suffix(b"\0").unwrap_or(&words);
    Facts {
        executable: std::fs::read_link(format!("/proc/{pid}/exe"))
            .ok()
            .map(|path| path.to_string_lossy().into_owned()),
        command_line: words
            .split(|&b| b == 0)
            .filter(|_| !words.is_empty())
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect(),
        page_table_bytes: amount("VmPTE:"),
        peak_rss_bytes: amount("VmHWM:"),
        cpu_ms: None,
        copied_to_disk: false,
    }
}

/// CPU time of all threads that the process has or had, milliseconds.
fn cpu_ms(pid: i32) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both write what they are given the address of, which lives until then; a process that
    // isn't there any more is an error.
    let is_known = unsafe {
        let mut clock = 0;
        libc::clock_getcpuclockid(pid, &mut clock) == 0
            && libc::clock_gettime(clock, &mut time) == 0
    };
    is_known.then(|| time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000)
}

/// Reads what wasn't copied from the files that are mapped, never from the process.
fn fetch(pid: i32, mappings: Vec<Mapping>) -> Box<Fetch> {
    let files: Mutex<HashMap<u64, Option<File>>> = Mutex::default();
    Box::new(move |address, into| {
        let after = mappings.partition_point(|m| m.start <= address);
        let Some(m) = after.checked_sub(1).and_then(|i| mappings.get(i)) else { return false };
        let Ok(mut files) = files.lock() else { return false };
        let file = files.entry(m.inode).or_insert_with(|| open(pid, m).ok());
        let Some(file) = file.as_ref().filter(|_| m.inode != 0 && address < m.end) else {
            return false;
        };
        read_mapped(file, m.offset + (address - m.start), into)
    })
}

/// The file behind a mapping: by the mapping itself where that is allowed (root; it works for
/// deleted files and across mount namespaces), else by its path as the target sees it.
fn open(pid: i32, m: &Mapping) -> io::Result<File> {
    let by_mapping = format!("/proc/{pid}/map_files/{:x}-{:x}", m.start, m.end);
    if let Ok(file) = File::open(by_mapping) {
        return Ok(file);
    }
    // A process that has ended since has no root any more: it was this one, as a rule.
    let file =
        File::open(format!("/proc/{pid}/root{}", m.path)).or_else(|_| File::open(&m.path))?;
    if file.metadata()?.ino() != m.inode {
        return Err(io::Error::new(io::ErrorKind::NotFound, "another file by now"));
    }
    Ok(file)
}
