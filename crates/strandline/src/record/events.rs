//! `run --events`: takes what the processes tell, packs it and appends it to the profile.
//!
//! A thread of its own looks into the rings every millisecond while there is something in them. If
//! the disk is full the processes are told that no more is wanted, and go on.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use strandline_capture::layout::{self, EVENT_ALLOCATED, EVENT_DISOWNED, EVENT_FREED_SMALL};
use strandline_capture::read;
use strandline_profile::events::{
    self, word, Encoder, Told, ALLOCATED, FREED, FREED_OLD, SLICE_NANOS,
};

use super::log::Log;
use super::rings::Rings;
use super::slices::Slices;
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
                let mut all = All { capture, log, since, streams: Vec::new(), failed: None };
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
    /// Why no more events are written.
    failed: Option<String>,
}

/// The events of one process.
struct Stream {
    region: u32,
    /// `None`: given back, or never to be had.
    rings: Option<Rings>,
    sink: Sink,
    ended: Option<Instant>,
    lost: bool,
    /// Looks in a row that found nothing.
    quiet: u32,
}

/// Events that are held back: the profiler may say that one of them is its own.
const HELD: usize = 16;
/// After so many looks at a process that did nothing it won't any more.
const QUIET: u32 = 128;

struct Sink {
    slices: Slices,
    encoder: Encoder,
    /// What was told, the birth, the slice (0: nothing).
    held: [(u64, u64, u32); HELD],
    at: usize,
    /// When the first event of the block came.
    began: Option<Instant>,
    /// The slice of the last event.
    marked: u32,
    /// The slice of what is taken now.
    slice: u32,
    /// Whole blocks, as they stand in the file.
    blocks: Vec<u8>,
    count: u64,
    failed: Option<String>,
}

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
            self.streams.push(Stream { region, rings, sink, ended: None, lost, quiet: 0 });
        }
        let slice = (self.since.elapsed().as_nanos() / u128::from(SLICE_NANOS)) as u32 + 1;
        let mut taken = 0;
        for stream in &mut self.streams {
            taken += stream.look(slice);
            if stream.sink.began.is_some_and(|began| began.elapsed() >= LATEST) {
                stream.sink.finish_block();
            }
        }
        self.write();
        taken
    }

    fn write(&mut self) {
        for stream in &mut self.streams {
            let blocks = std::mem::take(&mut stream.sink.blocks);
            if !blocks.is_empty() && self.failed.is_none() {
                if let Err(e) = self.log.append(&blocks) {
                    self.failed = Some(reason(&e));
                }
            }
            self.failed = self.failed.take().or_else(|| stream.sink.failed.take());
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
            (stream.region, Told { count: stream.sink.count, missing })
        };
        self.streams.into_iter().map(told).collect()
    }
}

impl Stream {
    fn look(&mut self, slice: u32) -> u64 {
        let Some(rings) = &mut self.rings else { return 0 };
        let state = rings.state();
        if state == 0 {
            return 0;
        }
        if self.sink.count == 0 && self.sink.slice == 0 {
            self.sink.slices = Slices::new(rings.clock());
        }
        rings.beat();
        self.sink.slice = slice;
        let sink = &mut self.sink;
        let taken = rings.drain(&mut |word, birth| sink.take(word, birth));
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

impl Sink {
    fn new(region: u32) -> Sink {
        Sink {
            slices: Slices::new(0),
            encoder: Encoder::new(region),
            held: [(0, 0, 0); HELD],
            at: 0,
            began: None,
            marked: 0,
            slice: 0,
            blocks: Vec::new(),
            count: 0,
            failed: None,
        }
    }

    #[inline(always)]
    fn take(&mut self, told: u64, birth: u64) {
        if told & layout::EVENT_KIND == EVENT_DISOWNED {
            return self.disown(told);
        }
        let before = std::mem::replace(&mut self.held[self.at % HELD], (told, birth, self.slice));
        self.at += 1;
        if before.2 != 0 {
            self.push(before);
        }
    }

    /// A block that was allocated just now is the profiler's own.
    #[cold]
    fn disown(&mut self, told: u64) {
        let allocated = told & !layout::EVENT_KIND | EVENT_ALLOCATED;
        let own = layout::event(EVENT_ALLOCATED, layout::TAG_INDEX_PROFILER, (told >> 22) as usize);
        let at = self.at;
        for back in 1..=HELD {
            let held = &mut self.held[at.wrapping_sub(back) % HELD];
            if held.0 == allocated {
                held.0 = own;
                return;
            }
        }
    }

    /// Passes on what is held back.
    fn release(&mut self) {
        for _ in 0..HELD {
            let before = std::mem::take(&mut self.held[self.at % HELD]);
            self.at += 1;
            if before.2 != 0 {
                self.push(before);
            }
        }
    }

    #[inline(always)]
    fn push(&mut self, (told, birth, slice): (u64, u64, u32)) {
        if slice != self.marked {
            self.marked = slice;
            self.slices.now(slice);
            self.encoder.mark(slice);
        }
        if self.encoder.count() == 0 {
            self.began = Some(Instant::now());
        }
        if told & layout::EVENT_KIND == EVENT_ALLOCATED {
            if let Some(slice) = self.slices.allocated(told >> 22) {
                self.encoder.births(slice);
            }
            self.encoder.push(told, 0);
        } else {
            let (size, birth) = match told & layout::EVENT_KIND {
                EVENT_FREED_SMALL => (told >> 22 & (layout::EVENT_SMALL as u64 - 1), told >> 32),
                _ => (told >> 22, birth),
            };
            let tag = events::tag(told);
            match self.slices.of_birth(birth as u32) {
                None => self.encoder.push(word(FREED, tag, size), 0),
                Some(slice) => self.encoder.push(word(FREED_OLD, tag, size), slice),
            }
        }
        if self.encoder.is_full() {
            self.finish_block();
        }
    }

    fn finish_block(&mut self) {
        self.began = None;
        if self.encoder.count() == 0 {
            return;
        }
        self.count += u64::from(self.encoder.count());
        let block = self.encoder.finish(self.slices.step());
        let done = block.map_err(|e| reason(&e)).and_then(|block| {
            events::put_block(&block, &mut self.blocks).map_err(|e| e.to_string())
        });
        if let Err(e) = done {
            self.failed.get_or_insert(e);
        }
    }
}

const _: () = assert!(ALLOCATED == EVENT_ALLOCATED);
