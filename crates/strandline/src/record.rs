//! `run --stacks`: the profile of the run, kept in a file while the program runs.
//!
//! The agent counts in memory that this process shares, so that nothing is lost however the
//! program ends. A thread of ours looks at it now and then for the timeline, and writes the file
//! anew every few seconds, each time as a whole: a profile can be read while the program runs, and
//! should this process be killed as well, the last one stays.

mod batch;
mod events;
mod log;
mod place;
mod rings;
mod sink;
mod slices;
mod timeline;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use strandline_capture::read;
use strandline_profile::events::{Tags, Told};
use strandline_profile::{Meta, Profile, State, Types};

use crate::cli::Program;
use crate::error::Error;
use crate::launch::Ended;
use events::Drain;
use log::Log;
pub use place::Place;
use timeline::Timelines;

/// Time between two profiles of a running program, at least.
const OFTEN: Duration = Duration::from_secs(2);
/// Time until the first one, at most.
const LATE: Duration = Duration::from_secs(30);
/// Writing takes at most this part of a processor's time.
const WRITING: u32 = 100;
/// What writing takes for each call path, about, until it was done once.
const A_PATH: Duration = Duration::from_nanos(1500);
/// Looking takes at most this part of a processor's time.
const LOOKING: u32 = 200;
/// With events: so many times as many bytes of them as the profile had come before the next one,
const BESIDE: u64 = 4;
/// or this many times the usual time has passed.
const SELDOM: u32 = 30;

/// A place for the profile that was found good before the program started.
pub struct Wanted {
    place: Place,
    /// What the file is named after, if it wasn't named.
    program: Option<String>,
}

/// Where the profile of `program` is to go: to `output`, or to the usual name.
pub fn place(output: Option<&Path>, force: bool, program: &Program) -> Result<Wanted, Error> {
    if let Some(path) = output {
        return Ok(Wanted { place: Place::prepare(path, force)?, program: None });
    }
    let name = match program {
        Program::Script(name, _) | Program::Module(name, _) => name.to_string_lossy().into_owned(),
        Program::Code(..) => "c".to_owned(),
        Program::Command(name, _) => name.to_string_lossy().into_owned(),
    };
    // Any name does to find out whether the directory can be written to.
    let place = Place::prepare(&place::usual_name(&name, std::process::id()), true)?;
    Ok(Wanted { place: place.unforced(force), program: Some(name) })
}

impl Wanted {
    /// The place, now that the program's process id is known.
    pub fn place(self, pid: u32) -> Place {
        match self.program {
            Some(name) => self.place.named_for(&name, pid),
            None => self.place,
        }
    }
}

/// A run that is being recorded.
pub struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Recording>,
    drain: Option<Drain>,
}

/// What a recorder's thread works on.
struct Recording {
    capture: File,
    to: Destination,
    meta: Meta,
    timelines: Timelines,
    /// What processes told, by region, once that is known.
    told: Vec<(u32, Told)>,
    /// A profile was written.
    written: bool,
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as u64)
}

/// Processor time of this thread: on a busy machine that is what it costs, not the time it takes.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Recorder {
    /// Starts to record into `place` what `capture` holds.
    /// `command`: program and arguments; `events`: processes tell every allocation.
    pub fn start(
        capture: &File,
        mut place: Place,
        command: Vec<String>,
        events: bool,
    ) -> Result<Recorder, Error> {
        let since = Instant::now();
        let capture = capture.try_clone().map_err(Error::Thread)?;
        let stop = Arc::new(AtomicBool::new(false));
        let meta = Meta {
            strandline: env!("CARGO_PKG_VERSION").to_owned(),
            started: now(),
            command,
            ..Meta::default()
        };
        let (mut log, mut drain) = (None, None);
        if events {
            let empty = Profile { meta: meta.clone(), ..Profile::default() };
            let file = Arc::new(place.grow(&empty)?);
            drain = Some(Drain::start(&capture, file.clone(), since)?);
            log = Some(file);
        }
        let timelines = Timelines::default();
        let told = Vec::new();
        let to = Destination { place, log };
        let mut recording = Recording { capture, to, meta, timelines, told, written: false };
        let told = stop.clone();
        let thread = std::thread::Builder::new()
            .name("strandline-record".to_owned())
            .spawn(move || {
                recording.watch(&told);
                recording
            })
            .map_err(Error::Thread)?;
        Ok(Recorder { stop, thread, drain })
    }

    /// The program has ended: writes the whole profile.
    pub fn finish(self, ended: Ended) -> Result<Recorded, Error> {
        self.stop.store(true, Relaxed);
        self.thread.thread().unpark();
        let Ok(mut recording) = self.thread.join() else { return Err(Error::RecorderDied) };
        if let Some(drain) = self.drain {
            recording.told = drain.finish()?;
        }
        recording.meta.finished = true;
        match ended {
            Ended::Code(code) => recording.meta.exit_code = Some(code),
            Ended::Signal(signal) => recording.meta.signal = Some(signal),
        }
        let earlier = recording.written;
        let (profile, tags) = recording.profile()?;
        let written = recording.to.write(&profile, &tags).map_err(|e| match e {
            Error::Output(path, e) if earlier => Error::ProfileStays(path, e),
            e => e,
        })?;
        if let Some(why) = tags.iter().find_map(|tags| tags.told.missing.as_ref()) {
            crate::error::say(&format!("{}: events are missing: {why}", written.path.display()));
        }
        Ok(Recorded { to: recording.to, profile, tags, written })
    }
}

/// Where a profile is written.
struct Destination {
    place: Place,
    /// With events: the file, which is only appended to.
    log: Option<Arc<Log>>,
}

impl Destination {
    /// Writes a profile: in the place of the last one or, with events, behind them.
    fn write(&mut self, profile: &Profile, tags: &[Tags]) -> Result<Written, Error> {
        match &self.log {
            None => self.place.write(profile),
            Some(log) => log.append_profile(profile, tags, self.place.path()),
        }
    }
}

/// A profile that was written, and may be written again with more in it.
pub struct Recorded {
    to: Destination,
    profile: Profile,
    /// What the tags in its events stand for.
    tags: Vec<Tags>,
    written: Written,
}

impl Recorded {
    /// Adds what takes a while: `types`, and the names of native functions. Should somebody not
    /// want to wait, the profile without them is there.
    pub fn with(mut self, types: Option<Types>) -> Result<Written, Error> {
        if types.is_none() && !self.profile.meta.native {
            return Ok(self.written);
        }
        self.profile.types.extend(types);
        if self.profile.meta.native {
            name(&mut self.profile, &[]);
        }
        self.to.write(&self.profile, &self.tags)
    }
}

/// Gives the native frames of a profile their names; what hinders that is added to its doubts.
pub fn name(profile: &mut Profile, dirs: &[PathBuf]) {
    for doubt in strandline_symbols::symbolise(profile, dirs) {
        if !profile.doubts.contains(&doubt) {
            profile.doubts.push(doubt);
        }
    }
}

/// A profile that was written.
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// Size, bytes.
    pub bytes: u64,
}

impl Written {
    /// Says where the profile is and how it is read.
    pub fn announce(&self) {
        let path = self.path.display();
        let size = self.bytes.div_ceil(1024);
        eprintln!("strandline: the profile is in {path} ({size} KiB): strandline report {path}");
    }
}

impl Recording {
    fn watch(&mut self, stop: &AtomicBool) {
        let began = Instant::now();
        let (mut look, mut write) = (began, began + OFTEN);
        let (mut grown, mut latest) = (0, write);
        while !stop.load(Relaxed) {
            let before = cpu_time();
            if look <= Instant::now() {
                let wait = self.timelines.look(&self.capture);
                look = Instant::now() + wait.max((cpu_time() - before) * LOOKING);
            }
            let before = cpu_time();
            if write <= Instant::now() && !self.written {
                let wait = A_PATH * self.timelines.tags() * WRITING;
                write = began + wait.clamp(OFTEN, LATE);
            }
            if write <= Instant::now() {
                let length = self.to.log.as_ref().map_or(0, |log| log.length());
                // In a file that is only appended to each of them stays.
                if self.to.log.is_none() || length >= grown || latest <= Instant::now() {
                    // A full disk now may have room at the end; what is there stays.
                    let bytes = self.write().map_or(0, |written| written.bytes);
                    grown = bytes + bytes.saturating_sub(length) * BESIDE;
                    latest = Instant::now() + OFTEN * SELDOM;
                }
                write = Instant::now() + OFTEN.max((cpu_time() - before) * WRITING);
            }
            std::thread::park_timeout(look.min(write).saturating_duration_since(Instant::now()));
        }
    }

    /// The profile as it is now, and what its tags stand for.
    fn profile(&self) -> Result<(Profile, Vec<Tags>), Error> {
        let regions = read::regions(&self.capture)?;
        let (mut profile, indexes) = strandline_profile::from_capture(&regions);
        profile.meta = Meta {
            written: now(),
            temporary_distance: profile.meta.temporary_distance,
            native: profile.meta.native,
            async_stacks: profile.meta.async_stacks,
            ..self.meta.clone()
        };
        for (process, (region, paths)) in profile.processes.iter_mut().zip(&indexes) {
            process.timeline = self.timelines.of(*region, paths);
            let seen = process.timeline.points.iter().rev().find(|point| point.rss > 0);
            // Of a program that didn't come to its end this is newer than its own last reading.
            if let Some(point) = seen.filter(|_| process.state == State::Running) {
                process.totals.rss = point.rss;
            }
        }
        let told = |region: u32| {
            let told = self.told.iter().find(|(of, _)| *of == region);
            told.map(|(_, told)| told.clone()).unwrap_or_default()
        };
        let tags = indexes.into_iter();
        let tags = tags.map(|(region, paths)| Tags { region, paths, told: told(region) });
        Ok((profile, tags.collect()))
    }

    fn write(&mut self) -> Result<Written, Error> {
        let (profile, tags) = self.profile()?;
        let written = self.to.write(&profile, &tags)?;
        self.written = true;
        Ok(written)
    }
}
