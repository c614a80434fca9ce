//! What the program reads and writes: the same for each run.
//!
//! Each run writes into pipes. What the first run writes goes on to where strandline's own output
//! goes; of the others only what it comes to is kept.
//!
//! Each run reads the same: a file anew from where it stood. Anything else (a pipe, a terminal)
//! can be read only once: the first run is given what comes, and the others what the first one was
//! given, and then the end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::thread::JoinHandle;

use libc::c_int;

use crate::shared::anonymous_file;
use crate::signals;

/// A pipe: what is read from, what is written to.
fn pipe() -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: pipe2(2) fills the array in; both descriptors are ours alone.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((File::from(OwnedFd::from_raw_fd(ends[0])), File::from(OwnedFd::from_raw_fd(ends[1]))))
    }
}

fn stop_blocking(file: &File) {
    // SAFETY: fcntl(2) on an open descriptor.
    unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK);
    }
}

/// Waits until one of them is ready (for what it is polled for, or closed at its other end); which
/// of them are.
fn poll<const N: usize>(of: [(RawFd, libc::c_short); N]) -> [bool; N] {
    let mut fds = of.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    // SAFETY: poll(2) with an array of the given length.
    while unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, -1) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    fds.map(|f| f.revents != 0)
}

fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    // Signals are for the main thread, which passes them on.
    signals::held_back(|| std::thread::Builder::new().spawn(f))
}

/// What was written to a stream.
#[derive(Debug, Default)]
pub struct Written {
    /// A number that stands for all of it (FNV-1a).
    pub hash: u64,
    /// Its last bytes.
    tail: Vec<u8>,
}

/// Bytes that are kept of the end.
const TAIL: usize = 4096;

impl Written {
    fn new() -> Self {
        Written { hash: 0xcbf2_9ce4_8422_2325, tail: Vec::new() }
    }

    fn add(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.hash = (self.hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        }
        self.tail.extend(bytes.iter().skip(bytes.len().saturating_sub(TAIL)));
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
    }

    /// The last line that isn't empty.
    pub fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.tail);
        text.lines().rev().map(str::trim).find(|l| !l.is_empty()).map(str::to_owned)
    }
}

/// Reads what a run writes to one of its streams.
struct Tap {
    thread: JoinHandle<Written>,
    /// Closed when the program has ended: its children may keep the pipe open.
    ended: File,
}

/// Starts reading; the end that the program writes to. `on`: where what is read goes on to.
fn tap(on: Option<RawFd>) -> io::Result<(File, Tap)> {
    let (from, to) = pipe()?;
    let (watched, ended) = pipe()?;
    stop_blocking(&from);
    let thread = spawn(move || read_all(from, &watched, on))?;
    Ok((to, Tap { thread, ended }))
}

fn read_all(mut from: File, ended: &File, on: Option<RawFd>) -> Written {
    let mut written = Written::new();
    let mut buffer = vec![0u8; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return written,
            Ok(n) => {
                let bytes = buffer.get(..n).unwrap_or(&[]);
                written.add(bytes);
                if on.is_some_and(|fd| !pass_on(fd, bytes)) {
                    // Nobody reads it: dropping the pipe tells the program so.
                    return written;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let ready =
                    poll([(from.as_raw_fd(), libc::POLLIN), (ended.as_raw_fd(), libc::POLLIN)]);
                if ready == [false, true] {
                    return written;
                }
            }
            Err(_) => return written,
        }
    }
}

/// Writes to one of strandline's own streams; false if that can't be written to.
fn pass_on(fd: RawFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: write(2) of a live buffer.
        let n = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        if n < 0 {
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => continue,
                io::ErrorKind::WouldBlock => {
                    poll([(fd, libc::POLLOUT)]);
                    continue;
                }
                _ => return false,
            }
        }
        bytes = bytes.get(n as usize..).unwrap_or(&[]);
    }
    true
}

/// The three streams of one run.
pub struct Streams {
    taps: [Option<Tap>; 2],
    relay: Option<Relay>,
    /// What the program is given; closed here once it has started.
    given: [Option<File>; 3],
}

/// What a run wrote.
#[derive(Debug)]
pub struct Output {
    /// Stands for all of it.
    pub hash: u64,
    /// The last line on stderr.
    pub last_words: Option<String>,
}

impl Streams {
    /// Those of a run that reads from `input`; `first`: its output goes on to ours.
    pub fn new(input: &mut Input, first: bool) -> io::Result<Streams> {
        let (stdin, relay) = input.open()?;
        let mut given = [stdin, None, None];
        let mut taps = [None, None];
        for (i, fd) in [(0, 1), (1, 2)] {
            // What was closed stays so.
            if signals::was_closed(fd) {
                continue;
            }
            let (to, tap) = tap(first.then_some(fd))?;
            if let (Some(place), Some(slot)) = (given.get_mut(i + 1), taps.get_mut(i)) {
                *place = Some(to);
                *slot = Some(tap);
            }
        }
        Ok(Streams { taps, relay, given })
    }

    /// Descriptors for the program.
    pub fn descriptors(&self) -> [Option<c_int>; 3] {
        [0, 1, 2].map(|i| self.given.get(i).and_then(Option::as_ref).map(File::as_raw_fd))
    }

    /// The program has started: it alone holds its ends now.
    pub fn started(&mut self) {
        self.given = [None, None, None];
    }

    /// The program has ended: all that it wrote.
    pub fn finish(mut self, input: &mut Input) -> Output {
        self.started();
        if let Some(relay) = self.relay {
            input.keep(relay);
        }
        let [out, err] = self.taps.map(|tap| {
            tap.map_or_else(Written::new, |tap| {
                drop(tap.ended);
                tap.thread.join().unwrap_or_default()
            })
        });
        Output { hash: out.hash.rotate_left(1) ^ err.hash, last_words: err.last_line() }
    }
}

/// Where runs read from.
pub enum Input {
    /// Closed, or the same for everybody (/dev/null): the program inherits it.
    Inherited,
    /// A file, read from where it stands.
    File(u64),
    /// What can be read only once, before it was.
    Once,
    /// What the first run was given.
    Recorded(File),
}

/// Hands on what comes, and keeps it.
struct Relay {
    thread: JoinHandle<File>,
    ended: File,
}

impl Input {
    /// Looks at strandline's own.
    pub fn new() -> Input {
        // SAFETY: fstat(2) fills in a struct for which all zeroes are valid; lseek(2) only asks.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            if signals::was_closed(0) || libc::fstat(0, &mut stat) != 0 {
                return Input::Inherited;
            }
            match stat.st_mode & libc::S_IFMT {
                libc::S_IFREG => Input::File(libc::lseek(0, 0, libc::SEEK_CUR).max(0) as u64),
                libc::S_IFCHR if libc::isatty(0) == 0 => Input::Inherited,
                _ => Input::Once,
            }
        }
    }

    /// True if something came that can be read only once.
    pub fn was_recorded(&self) -> bool {
        matches!(self, Input::Recorded(file) if file.metadata().is_ok_and(|m| m.len() != 0))
    }

    /// What the next run reads.
    fn open(&mut self) -> io::Result<(Option<File>, Option<Relay>)> {
        match self {
            Input::Inherited => Ok((None, None)),
            Input::File(at) => {
                let mut file = File::open("/proc/self/fd/0")?;
                file.seek(SeekFrom::Start(*at))?;
                Ok((Some(file), None))
            }
            Input::Recorded(file) => {
                Ok((Some(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?), None))
            }
            Input::Once => {
                let record = anonymous_file(&std::env::temp_dir())?;
                let (from, to) = pipe()?;
                let (watched, ended) = pipe()?;
                stop_blocking(&to);
                let thread = spawn(move || relay(record, to, &watched))?;
                Ok((Some(from), Some(Relay { thread, ended })))
            }
        }
    }

    /// The run that was given what came has ended.
    fn keep(&mut self, relay: Relay) {
        drop(relay.ended);
        *self = match relay.thread.join() {
            Ok(record) => Input::Recorded(record),
            Err(_) => Input::Inherited,
        };
    }
}

/// From strandline's own input to the program's, until it or the program ends.
fn relay(mut record: File, mut to: File, ended: &File) -> File {
    let mut buffer = vec![0u8; 64 << 10];
    let ended = (ended.as_raw_fd(), libc::POLLIN);
    loop {
        if poll([(0, libc::POLLIN), ended])[1] {
            return record;
        }
        // SAFETY: read(2) into a live buffer of the given size.
        let n = unsafe { libc::read(0, buffer.as_mut_ptr().cast(), buffer.len()) };
        if n <= 0 {
            let again = n < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            if again {
                continue;
            }
            return record;
        }
        let mut rest = buffer.get(..n as usize).unwrap_or(&[]);
        if record.write_all(rest).is_err() {
            return record;
        }
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or(&[]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if poll([(to.as_raw_fd(), libc::POLLOUT), ended])[1] {
                        return record;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The program has closed it.
                Err(_) => return record,
            }
        }
    }
}
