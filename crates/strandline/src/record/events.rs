//! `run --events`: takes what the processes tell, packs it and appends it to the profile.
//!
//! A thread of its own looks into the rings every millisecond while there is something in them. If
//! the disk is full the processes are told that no more is wanted, and go on.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use strandline_capture::layout;
use strandline_capture::read;
use strandline_profile::events::{Told, SLICE_NANOS};

use super::batch::Batch;
use super::log::Log;
use super::rings::Rings;
use super::sink::Sink;
use crate::error::{reason, Error};

/// Between two looks while there is much to take.
const BUSY: Duration = Duration::from_millis(1);
/// Between two looks while there is nothing.
const IDLE: Duration = Duration::from_millis(8);
/// Events stand in the file after this time at the latest.
const LATEST: Duration = Duration::from_secs(1);
/// So long after the end of a process its rings are kept.
const AFTER_END: Duration = Duration::from_secs(1);
/// Words at least that make the next look an early one.
const MUCH: u64 = 256;

/// Takes the events of all processes of a run.
pub struct Drain {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(u32, Told)>>,
}

impl Drain {
    /// Starts to append to `log` what the processes of `capture` tell. `since`: the start of the
    /// run.
    pub fn start(capture: &File, log: Arc<Log>, since: Instant) -> Result<Drain, Error> {
        let capture = capture.try_clone().map_err(Error::Thread)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = crate::signals::held_back(|| {
            std::thread::Builder::new().name("strandline-events".to_owned()).spawn(move || {
                let (streams, batch) = (Vec::new(), Batch::new());
                let mut all = All { capture, log, since, streams, batch, failed: None };
                all.watch(&told);
                all.finish()
            })
        });
        Ok(Drain { stop, thread: thread.map_err(Error::Thread)? })
    }

    /// The program has ended: takes the rest. What was told, by region.
    pub fn finish(self) -> Result<Vec<(u32, Told)>, Error> {
        self.stop.store(true, Relaxed);
        self.thread.thread().unpark();
        self.thread.join().map_err(|_| Error::RecorderDied)
    }
}

struct All {
    capture: File,
    log: Arc<Log>,
    since: Instant,
    /// By region.
    streams: Vec<Stream>,
    batch: Batch,
    /// Why no more events are written.
    failed: Option<String>,
}

/// The events of one process.
struct Stream {
    region: u32,
    /// `None`: given back, or never to be had.
    rings: Option<Rings>,
    sink: Sink,
    /// The process has begun to tell.
    seen: bool,
    ended: Option<Instant>,
    lost: bool,
    /// Looks in a row that found nothing.
    quiet: u32,
}

/// After so many looks at a process that did nothing it won't any more.
const QUIET: u32 = 128;

impl All {
    fn watch(&mut self, stop: &AtomicBool) {
        let mut pause = BUSY;
        while !stop.load(Relaxed) {
            let taken = self.look();
            pause = match taken {
                0 => (pause * 2).min(IDLE),
                _ if taken < MUCH => (BUSY * 2).max(pause),
                _ => BUSY,
            };
            std::thread::park_timeout(pause);
        }
    }

    /// Takes what there is; how much that was.
    fn look(&mut self) -> u64 {
        // What can't be read now is read the next time.
        let (options, regions) = read::handed_out(&self.capture).unwrap_or((0, 0));
        while (self.streams.len() as u32) < regions {
            let region = self.streams.len() as u32;
            let rings = Rings::map(&self.capture, options, region);
            let lost = rings.is_none();
            let sink = Sink::new(region);
            let (seen, ended, quiet) = (false, None, 0);
            self.streams.push(Stream { region, rings, sink, seen, ended, lost, quiet });
        }
        let slice = (self.since.elapsed().as_nanos() / u128::from(SLICE_NANOS)) as u32 + 1;
        let mut taken = 0;
        for stream in &mut self.streams {
            taken += stream.look(slice, &mut self.batch);
            if stream.sink.began().is_some_and(|began| began.elapsed() >= LATEST) {
                stream.sink.finish_block();
            }
        }
        self.write();
        taken
    }

    fn write(&mut self) {
        for stream in &mut self.streams {
            let blocks = stream.sink.blocks();
            if !blocks.is_empty() && self.failed.is_none() {
                if let Err(e) = self.log.append(&blocks) {
                    self.failed = Some(reason(&e));
                }
            }
            self.failed = self.failed.take().or_else(|| stream.sink.failed());
        }
        if self.failed.is_some() {
            self.streams.iter().filter_map(|s| s.rings.as_ref()).for_each(Rings::enough);
        }
    }

    fn finish(mut self) -> Vec<(u32, Told)> {
        self.look();
        for stream in &mut self.streams {
            stream.sink.release();
            stream.sink.finish_block();
            if let Some(rings) = &stream.rings {
                // A child that goes on has nobody who listens.
                rings.enough();
            }
        }
        self.write();
        let failed = &self.failed;
        let told = |stream: Stream| {
            let missing = match failed {
                Some(e) => Some(format!("the file could not be written on: {e}")),
                None if stream.lost => Some("strandline stood still for too long".to_owned()),
                None => None,
            };
            (stream.region, Told { count: stream.sink.count(), missing })
        };
        self.streams.into_iter().map(told).collect()
    }
}

impl Stream {
    fn look(&mut self, slice: u32, batch: &mut Batch) -> u64 {
        let Some(rings) = &mut self.rings else { return 0 };
        let state = rings.state();
        if state == 0 {
            return 0;
        }
        let sink = &mut self.sink;
        if !self.seen {
            self.seen = true;
            sink.since(rings.clock());
        }
        rings.beat();
        let taken = rings.drain(batch, &mut |batch| sink.take(batch, slice));
        self.quiet = if taken == 0 { self.quiet.saturating_add(1) } else { 0 };
        if self.quiet == QUIET {
            sink.release();
        }
        self.lost |= state == layout::EVENTS_LOST;
        if state == layout::EVENTS_OVER {
            let ended = *self.ended.get_or_insert_with(Instant::now);
            if taken == 0 && ended.elapsed() >= AFTER_END {
                rings.give_back();
                self.rings = None;
            }
        }
        taken
    }
}
