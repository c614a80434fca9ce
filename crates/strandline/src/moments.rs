//! Censuses of a program while it runs under `strandline run`: at its exit, where its RSS is
//! highest, at the end of lines (`--explain`), and whenever it asks for one.
//!
//! The agent asks through the capture's header and stands until it is answered. A thread of this
//! process waits for that, copies the memory, and answers; what comes at the end of the run is
//! made of the copies then.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};
use std::sync::Arc;
use std::thread::JoinHandle;

use strandline_capture::layout::{self, Header, Request};
use strandline_census::{take, Census, TypeReport};
use strandline_image::{capture, Image};
use strandline_profile::{Amount, TypeRow, Types};
use strandline_report::{LineLook, Moment};

use crate::cli::RunOptions;
use crate::error::Error;
use crate::lines::{Lines, Place};
use crate::shared;

/// The capture's header, mapped.
struct Mapped(NonNull<Header>);
// SAFETY: all of the header that changes are atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(file: &File) -> Result<Self, Error> {
        // SAFETY: a shared mapping of a file that is at least as long as its header and isn't
        // cut by anybody, at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                layout::HEADER_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        let failed = || Error::SharedMap(std::io::Error::last_os_error());
        NonNull::new(at.cast::<Header>())
            .filter(|_| at != libc::MAP_FAILED)
            .map(Mapped)
            .ok_or_else(failed)
    }

    fn request(&self) -> &Request {
        // SAFETY: mapped until the value is dropped; the fields are atomics.
        unsafe { &self.0.as_ref().request }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this value's own mapping.
        unsafe { libc::munmap(self.0.as_ptr().cast(), layout::HEADER_BYTES) };
    }
}

fn wait_while(word: &AtomicU32, value: u32) {
    let time = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: futex(2) FUTEX_WAIT on a word of a live mapping.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &time) };
}

fn wake(word: &AtomicU32) {
    // SAFETY: futex(2) FUTEX_WAKE on a word of a live mapping.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Copies of the program's memory, or why there is none.
#[derive(Default)]
struct Copies {
    exit: Option<Result<Image, Error>>,
    peak: Option<Result<Image, Error>>,
    lines: Lines,
}

/// What came of all requests.
pub struct Heard {
    /// Censuses that were asked for by options.
    pub moments: Vec<Moment>,
    /// What types of objects the main process had in use at its exit.
    pub types: Option<Types>,
    /// Accounts of lines.
    pub lines: Vec<LineLook>,
}

/// Waits for requests until it is told to finish.
pub struct Listener {
    mapped: Arc<Mapped>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<Copies>,
}

impl Listener {
    /// Starts listening. `is_ours` says whether a process has our agent: no other one is read.
    pub fn start(
        file: &File,
        is_ours: impl Fn(u32) -> bool + Send + 'static,
    ) -> Result<Self, Error> {
        let mapped = Arc::new(Mapped::new(file)?);
        let done = Arc::new(AtomicBool::new(false));
        let (theirs, finish) = (mapped.clone(), done.clone());
        let lines = Lines::new(file.try_clone().map_err(Error::SharedMap)?);
        // Signals are for the main thread, which passes them on.
        let thread = crate::signals::held_back(|| {
            std::thread::Builder::new().spawn(move || listen(&theirs, &finish, &is_ours, lines))
        });
        let thread = thread.map_err(Error::SharedMap)?;
        Ok(Listener { mapped, done, thread })
    }

    /// Ends it, and makes censuses of what was copied.
    pub fn finish(self, options: &RunOptions) -> Heard {
        self.done.store(true, Release);
        wake(&self.mapped.request().asked);
        let copies = self.thread.join().unwrap_or_default();
        let wanted = [
            ("peak", options.census_at_peak, copies.peak),
            ("exit", options.census_at_exit || options.types, copies.exit),
        ];
        let wanted = wanted.into_iter().filter(|(_, wanted, _)| *wanted);
        let mut moments: Vec<_> = wanted.map(|(moment, _, copy)| made(moment, copy)).collect();
        let exit = moments.iter().find(|m| m.moment == "exit").and_then(|m| m.census.as_ref());
        let types = exit.filter(|_| options.stacks).map(types_of);
        moments.retain(|m| m.moment != "exit" || options.census_at_exit);
        Heard { moments, types, lines: copies.lines.found() }
    }
}

fn types_of(census: &Census) -> Types {
    let row = |t: &TypeReport| TypeRow {
        name: t.name.clone(),
        in_use: Amount { bytes: t.bytes, blocks: t.count },
    };
    Types {
        pid: census.pid.map_or(0, |pid| pid as u32),
        rows: census.types.iter().map(row).collect(),
    }
}

fn made(moment: &'static str, copy: Option<Result<Image, Error>>) -> Moment {
    let none =
        "the program didn't come to it: it was killed, or is no Python that strandline follows";
    match copy {
        Some(Ok(image)) => Moment {
            moment,
            census: Some(take(&image, &strandline_census::Options::default())),
            error: None,
        },
        Some(Err(e)) => Moment { moment, census: None, error: Some(e.to_string()) },
        None => Moment { moment, census: None, error: Some(none.to_owned()) },
    }
}

fn listen(
    mapped: &Mapped,
    finish: &AtomicBool,
    is_ours: &dyn Fn(u32) -> bool,
    lines: Lines,
) -> Copies {
    let r = mapped.request();
    let mut copies = Copies { lines, ..Copies::default() };
    let mut seen = 0;
    // The file of the last answer: whoever asks next has read it.
    let mut _answer = None;
    loop {
        let asked = r.asked.load(Acquire);
        if asked == seen {
            if finish.load(Acquire) {
                return copies;
            }
            wait_while(&r.asked, asked);
            continue;
        }
        seen = asked;
        let (pid, kind) = (r.holder.load(Acquire), r.kind.load(Acquire));
        // Whatever happens here, the program must go on.
        let place = Place { slot: r.slot.load(Acquire), missed: r.missed.load(Acquire) };
        let answer =
            catch_unwind(AssertUnwindSafe(|| answer(&mut copies, kind, (pid, place), is_ours)));
        let (status, file) = answer.unwrap_or((layout::CENSUS_FAILED, None));
        let descriptor = file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        r.status.store(status, Relaxed);
        r.descriptor.store(descriptor as u32, Relaxed);
        _answer = file;
        r.answered.store(asked, Release);
        wake(&r.answered);
        // The program goes on meanwhile; its next request waits, so that there is one copy only.
        let work = catch_unwind(AssertUnwindSafe(|| copies.lines.work()));
        if work.is_err() {
            copies.lines.give_up();
        }
    }
}

fn answer(
    copies: &mut Copies,
    kind: u32,
    (pid, place): (u32, Place),
    is_ours: &dyn Fn(u32) -> bool,
) -> (u32, Option<File>) {
    let copied = || match is_ours(pid) {
        // In a thread of its own: with its end the kernel lets go of whatever it traced, also of
        // threads that were killed meanwhile.
        true => Ok(std::thread::scope(|s| {
            let copying = s.spawn(|| capture(pid as i32, &Default::default()));
            copying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?),
        false => Err(Error::NotOurs(pid)),
    };
    match kind {
        layout::CENSUS_EXIT => copies.exit = Some(copied()),
        layout::CENSUS_PEAK => {
            // Room for the new copy; should it fail, there is none.
            copies.peak = None;
            copies.peak = Some(copied());
        }
        layout::CENSUS_LINE => match copied() {
            Ok(image) => copies.lines.copied(pid, place, image),
            // The next line has nothing to be compared with.
            Err(_) => {
                copies.lines.give_up();
                return (layout::CENSUS_FAILED, None);
            }
        },
        _ => {
            let text = copied().and_then(|image| {
                let census = take(&image, &strandline_census::Options::default());
                serde_json::to_string_pretty(&census).map_err(|e| Error::Json(e.to_string()))
            });
            let (status, text) = match text {
                Ok(text) => (layout::CENSUS_TAKEN, text + "\n"),
                Err(e) => (layout::CENSUS_FAILED, e.to_string()),
            };
            return match shared::answer(text.as_bytes()) {
                Ok(file) => (status, Some(file)),
                Err(_) => (layout::CENSUS_FAILED, None),
            };
        }
    }
    (layout::CENSUS_TAKEN, None)
}
