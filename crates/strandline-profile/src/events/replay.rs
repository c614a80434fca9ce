//! Going through the events once more: what was in use when, and by whom.
//!
//! Blocks are unpacked by several threads and put together in their order, so that memory follows
//! from the number of call paths, not of events.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use strandline_capture::layout::TAG_INDEX_PROFILER;

use super::open::{Block, Recorded};
use super::{size, tag, Handler, ALLOCATED, FREED_OLD, KIND, SLICE_NANOS};
use crate::model::{Amount, Path, Process, Profile};

/// A part of the run. Only what is allocated in it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// First slice; 0: from the beginning, with what a forked child had at its start.
    from: u32,
    /// The slice after the last.
    to: u32,
}

impl Interval {
    /// The whole run.
    pub const ALL: Interval = Interval { from: 0, to: u32::MAX };

    /// From and to these seconds after the start of the run, as well as slices tell.
    pub fn seconds(from: Option<f64>, to: Option<f64>) -> Interval {
        let slice = |seconds: f64| (seconds * 1e9 / SLICE_NANOS as f64) as u32;
        Interval {
            from: from.filter(|&from| from > 0.0).map_or(0, |from| slice(from).saturating_add(1)),
            to: to.map_or(u32::MAX, |to| slice(to).saturating_add(1)),
        }
    }
}

/// What the events of one process say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replayed {
    /// Process id.
    pub pid: u32,
    /// Number of events.
    pub events: u64,
    /// All that was allocated and freed, without what a forked child had at its start.
    pub allocated: Amount,
    /// What was freed of it.
    pub freed: Amount,
    /// In use at the end.
    pub in_use: u64,
    /// Most that was in use.
    pub peak: u64,
    /// When that was, nanoseconds since the start of the run.
    pub peak_time: u64,
    /// First and last event, nanoseconds since the start of the run.
    pub span: [u64; 2],
    /// By [`Process::paths`]; one more for events whose path isn't known: what was allocated and
    /// freed, and what was in use at the peak.
    pub paths: Vec<[Amount; 3]>,
    /// Why there are not all events; `None`: they are all there.
    pub missing: Option<String>,
    /// What was counted while the program ran is the same to the byte: the peak, and of every path
    /// what it allocated, freed and had at the peak. `None`: not to be known, since events are
    /// missing or the run isn't over.
    pub agrees: Option<bool>,
}

/// Amounts of a path, bytes and blocks: allocated, freed.
type Sums = [[i64; 2]; 2];

/// What a block holds.
struct Part {
    paths: Vec<(u32, Sums)>,
    /// By how much more is in use after it.
    more: i64,
    /// The highest of that within it, after how many events, in which slice.
    best: (i64, u32, u32),
    last: u32,
    events: u32,
}

/// Counts a block's events.
struct Count<'a> {
    map: &'a [u32],
    unknown: u32,
    interval: Interval,
    sums: Vec<Sums>,
    touched: Vec<u32>,
    more: i64,
    best: (i64, u32, u32),
    at: u32,
    /// Events to look at.
    until: u32,
    slice: u32,
    /// The slice is before the end of the interval; births are after its start.
    wanted: bool,
    born: bool,
}

impl<'a> Count<'a> {
    fn new(map: &'a [u32], paths: usize, interval: Interval) -> Count<'a> {
        Count {
            map,
            unknown: paths as u32,
            interval,
            sums: vec![Sums::default(); paths + 1],
            touched: Vec::new(),
            more: 0,
            best: (0, 0, 0),
            at: 0,
            until: u32::MAX,
            slice: 0,
            wanted: true,
            born: true,
        }
    }

    /// What it counted; begins anew.
    fn part(&mut self) -> Part {
        let sums = &mut self.sums;
        let touched = self.touched.drain(..);
        let paths = touched.filter_map(|path| {
            let sum = sums.get_mut(path as usize)?;
            Some((path, std::mem::take(sum)))
        });
        let part = Part {
            paths: paths.collect(),
            more: self.more,
            best: self.best,
            last: self.slice,
            events: self.at,
        };
        (self.more, self.best, self.at) = (0, (0, 0, 0), 0);
        part
    }
}

impl Handler for Count<'_> {
    fn mark(&mut self, slice: u32) {
        self.slice = slice;
        self.wanted = slice < self.interval.to;
    }

    fn births(&mut self, slice: u32) {
        self.born = slice >= self.interval.from;
    }

    #[inline(always)]
    fn event(&mut self, word: u64, birth: u32) {
        self.at += 1;
        let kind = word & KIND;
        let born = if kind == FREED_OLD { birth >= self.interval.from } else { self.born };
        if !self.wanted || !born || self.at > self.until {
            return;
        }
        let tag = tag(word);
        let path = match self.map.get(tag as usize) {
            _ if tag == TAG_INDEX_PROFILER => return,
            Some(&path) if path < self.unknown => path,
            _ => self.unknown,
        };
        let Some(sum) = self.sums.get_mut(path as usize) else { return };
        if *sum == Sums::default() {
            self.touched.push(path);
        }
        let bytes = size(word) as i64;
        let [allocated, freed] = sum;
        let side = if kind == ALLOCATED { allocated } else { freed };
        side[0] += bytes;
        side[1] += 1;
        if kind == ALLOCATED {
            self.more += bytes;
            if self.more > self.best.0 {
                self.best = (self.more, self.at, self.slice);
            }
        } else {
            self.more -= bytes;
        }
    }
}

fn time(slice: u32) -> u64 {
    u64::from(slice.saturating_sub(1)) * SLICE_NANOS
}

fn positive(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn amount([bytes, blocks]: [i64; 2]) -> Amount {
    Amount { bytes: positive(bytes), blocks: positive(blocks) }
}

impl Recorded {
    /// Goes through the events of all processes, in their order in the profile. A process without
    /// events has the default.
    pub fn replay(&self, interval: Interval) -> Vec<Replayed> {
        let processes = self.profile.processes.iter().enumerate();
        processes.map(|(i, process)| self.replay_process(i, process, interval)).collect()
    }

    fn replay_process(&self, index: usize, process: &Process, interval: Interval) -> Replayed {
        let Some(tags) = self.tags.get(index) else { return Replayed::default() };
        let of_it = self.blocks.iter().filter(|block| block.events.region == tags.region);
        let blocks: Vec<Block> = of_it.copied().collect();
        // Births are told apart in steps: the interval begins with one.
        let step = blocks.iter().map(|block| block.events.step).max().unwrap_or(0).min(31);
        let interval = Interval { from: interval.from >> step << step, ..interval };
        let paths = process.paths.len();
        let inherited = |path: &Path| {
            let Amount { bytes, blocks } = path.inherited;
            let whole = interval.from == 0;
            [if whole { bytes as i64 } else { 0 }, if whole { blocks as i64 } else { 0 }]
        };
        let mut live: Vec<[i64; 2]> = process.paths.iter().map(inherited).collect();
        live.push([0; 2]);
        let mut sums = vec![Sums::default(); paths + 1];
        let mut running = live.iter().fold(0i64, |sum, [bytes, _]| sum.wrapping_add(*bytes));
        let mut replayed = Replayed { pid: process.pid, ..Replayed::default() };
        replayed.missing = tags.told.missing.clone();
        let (mut peak, mut at_peak, mut peak_block) = (running, live.clone(), None);
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut counts: Vec<Count> =
            (0..workers.min(4)).map(|_| Count::new(&tags.paths, paths, interval)).collect();
        let mut last = 0;
        for wave in blocks.chunks(counts.len() * BLOCKS) {
            let parts = self.parts(wave, &mut counts);
            for (block, part) in wave.iter().zip(parts) {
                if block.events.first != replayed.events || part.is_none() {
                    replayed.missing.get_or_insert("a part of the file is damaged".to_owned());
                }
                let Some(part) = part else { continue };
                if replayed.events == 0 {
                    replayed.span[0] = time(block.events.slice);
                }
                // A damaged file may say anything, so sums wrap.
                if part.best.0 > 0 && running.wrapping_add(part.best.0) > peak {
                    peak = running.wrapping_add(part.best.0);
                    peak_block = Some((*block, part.best.1));
                    at_peak.clone_from(&live);
                    replayed.peak_time = time(part.best.2);
                }
                for (path, [allocated, freed]) in part.paths {
                    let cells = (live.get_mut(path as usize), sums.get_mut(path as usize));
                    let (Some(live), Some(sum)) = cells else { continue };
                    for i in 0..2 {
                        let more = allocated[i].wrapping_sub(freed[i]);
                        sum[0][i] = sum[0][i].wrapping_add(allocated[i]);
                        sum[1][i] = sum[1][i].wrapping_add(freed[i]);
                        live[i] = live[i].wrapping_add(more);
                    }
                }
                running = running.wrapping_add(part.more);
                replayed.events += u64::from(part.events);
                last = part.last;
            }
        }
        if let (Some((block, until)), Some(count)) = (peak_block, counts.first_mut()) {
            count.until = until;
            // It was read a moment ago.
            let _ = self.unpack(&block, count);
            for (path, [allocated, freed]) in count.part().paths {
                let Some(at_peak) = at_peak.get_mut(path as usize) else { continue };
                for i in 0..2 {
                    at_peak[i] = at_peak[i].wrapping_add(allocated[i] - freed[i]);
                }
            }
        }
        replayed.span[1] = time(last);
        replayed.in_use = positive(running);
        replayed.peak = positive(peak);
        let all = sums.iter().zip(&at_peak);
        replayed.paths = all.map(|(&[a, f], &p)| [amount(a), amount(f), amount(p)]).collect();
        for [allocated, freed, _] in &replayed.paths {
            replayed.allocated = replayed.allocated.plus(*allocated);
            replayed.freed = replayed.freed.plus(*freed);
        }
        if self.profile.meta.finished && replayed.events != tags.told.count {
            replayed.missing.get_or_insert("the file was cut off".to_owned());
        }
        let is_whole = self.profile.meta.finished && replayed.missing.is_none();
        replayed.agrees =
            (is_whole && interval == Interval::ALL).then(|| agrees(process, &replayed));
        replayed
    }

    /// What blocks hold, in their order; `None`: damaged.
    fn parts(&self, blocks: &[Block], counts: &mut [Count]) -> Vec<Option<Part>> {
        let next = AtomicUsize::new(0);
        // Whoever is done takes the next one: blocks are not alike.
        let work = |count: &mut Count| -> Vec<(usize, Option<Part>)> {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Relaxed);
                let Some(block) = blocks.get(at) else { return done };
                let whole = self.unpack(block, count);
                let part = count.part();
                done.push((at, whole.map(|()| part)));
            }
        };
        let mut parts: Vec<Option<Part>> = blocks.iter().map(|_| None).collect();
        std::thread::scope(|scope| {
            let work = &work;
            let mut put = |done: Vec<(usize, Option<Part>)>| {
                for (at, part) in done {
                    parts[at] = part;
                }
            };
            let Some((own, others)) = counts.split_first_mut() else { return };
            let others = others.iter_mut().take(blocks.len().saturating_sub(1));
            let threads: Vec<_> = others.map(|count| scope.spawn(move || work(count))).collect();
            put(work(own));
            for thread in threads {
                // What a thread that died had is damaged.
                put(thread.join().unwrap_or_default());
            }
        });
        parts
    }

    /// The profile of a part of the run, as if it had begun with it: only what was allocated in it
    /// counts. Without temporaries, sizes and lifetimes, resident memory and the timeline.
    pub fn part(&self, interval: Interval) -> Profile {
        let mut profile = self.profile.clone();
        if interval != Interval::ALL {
            // Of the end of the run, of whatever was allocated when.
            profile.types = Vec::new();
        }
        for (process, replayed) in profile.processes.iter_mut().zip(self.replay(interval)) {
            if let Some(why) = &replayed.missing {
                profile.doubts.push(format!("process {}: events are missing: {why}", process.pid));
            }
            for (path, [allocated, freed, at_peak]) in process.paths.iter_mut().zip(replayed.paths)
            {
                let inherited = if interval.from == 0 { path.inherited } else { Amount::default() };
                *path = Path {
                    node: path.node,
                    thread: path.thread,
                    domain: path.domain,
                    allocated: allocated.plus(inherited),
                    inherited,
                    freed,
                    at_peak,
                    ..Path::default()
                };
            }
            for thread in &mut process.threads {
                thread.allocations = 0;
            }
            for path in &process.paths {
                if let Some(thread) = process.threads.get_mut(path.thread as usize) {
                    let blocks = path.allocated.minus(path.inherited).blocks;
                    thread.allocations = thread.allocations.saturating_add(blocks);
                }
            }
            process.totals.in_use = replayed.in_use;
            process.totals.peak = replayed.peak;
            process.timeline = Default::default();
        }
        profile
    }
}

/// Blocks that are unpacked before they are put together, for each thread.
const BLOCKS: usize = 4;

/// True if the events of a process say the same as was counted.
fn agrees(process: &Process, replayed: &Replayed) -> bool {
    let nothing = [Amount::default(); 3];
    let counted = process.paths.iter().map(|path| {
        let allocated = path.allocated.minus(path.inherited);
        [allocated, path.freed, path.at_peak]
    });
    process.totals.peak == replayed.peak
        && process.totals.in_use == replayed.in_use
        && counted.chain([nothing]).eq(replayed.paths.iter().copied())
}
