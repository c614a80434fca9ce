//! What is in use over time: a bounded number of points per process, whose distance doubles as
//! the run goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use strandline_capture::read::{self, Glance};
use strandline_profile::{Point, Timeline};

/// Points of a process at most.
const MOST_POINTS: usize = 400;
/// Call paths of a point at most.
const MOST_PATHS: usize = 100;
/// Time between the first points.
const FIRST: Duration = Duration::from_millis(5);
const PAGE: u64 = 4096;

/// The timelines of all processes, by region.
#[derive(Default)]
pub struct Timelines {
    of: BTreeMap<u32, Line>,
}

struct Line {
    interval: Duration,
    last: Instant,
    started: u64,
    /// Tags at the last look.
    tags: u32,
    /// Paths are still tags.
    points: Vec<Point>,
    over: bool,
}

impl Timelines {
    /// Looks at every process whose turn it is; how long to wait until the next look.
    pub fn look(&mut self, capture: &File) -> Duration {
        let before = Instant::now();
        // What can't be read now leaves a gap.
        let (options, regions) = read::handed_out(capture).unwrap_or((0, 0));
        let mut wait = Duration::from_secs(1);
        for region in 0..regions {
            let line = self.of.entry(region).or_insert_with(|| Line {
                interval: FIRST,
                last: before,
                started: 0,
                tags: 0,
                points: Vec::new(),
                over: false,
            });
            let due = line.points.is_empty() || line.last.elapsed() >= line.interval;
            if due && !line.over {
                if let Ok(Some(glance)) = read::glance(capture, options, region, MOST_PATHS) {
                    line.add(glance);
                }
            }
            if !line.over {
                wait = wait.min(line.interval.saturating_sub(line.last.elapsed()));
            }
        }
        wait.clamp(FIRST, Duration::from_secs(1))
    }

    /// Tags of all processes at the last looks.
    pub fn tags(&self) -> u32 {
        self.of.values().fold(0, |sum, line| sum.saturating_add(line.tags))
    }

    /// The timeline of a process whose tags have these paths.
    pub fn of(&self, region: u32, paths: &[u32]) -> Timeline {
        let Some(line) = self.of.get(&region) else { return Timeline::default() };
        let of_path = |&(tag, bytes): &(u32, u64)| {
            let path = *paths.get(tag as usize)?;
            (path != u32::MAX).then_some((path, bytes))
        };
        let mut points = line.points.clone();
        for point in &mut points {
            // Several tags can be one path.
            let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
            for (path, bytes) in point.top.iter().filter_map(of_path) {
                *sums.entry(path).or_default() += bytes;
            }
            point.top = sums.into_iter().collect();
            point.top.sort_by_key(|&(path, bytes)| (std::cmp::Reverse(bytes), path));
        }
        Timeline { interval: line.interval.as_nanos() as u64, points }
    }
}

impl Line {
    fn add(&mut self, glance: Glance) {
        self.last = Instant::now();
        self.started = glance.started;
        self.tags = glance.tags;
        self.over = !glance.running;
        let rss = resident(glance.pid).map_or(0, |rss| rss.saturating_sub(glance.profiler));
        self.points.push(Point {
            time: super::now().saturating_sub(self.started),
            in_use: glance.in_use,
            rss,
            stranded: glance.stranded,
            top: glance.top,
        });
        if self.points.len() > MOST_POINTS {
            self.halve();
        }
    }

    /// Of every two points the one with more in use stays, so that peaks do.
    fn halve(&mut self) {
        self.interval *= 2;
        let mut kept: Vec<Point> = Vec::with_capacity(MOST_POINTS / 2 + 1);
        for (i, point) in self.points.drain(..).enumerate() {
            match kept.last_mut() {
                Some(last) if i % 2 == 1 => {
                    if point.in_use > last.in_use {
                        *last = point;
                    }
                }
                _ => kept.push(point),
            }
        }
        self.points = kept;
    }
}

/// Resident bytes of a process; `None` if it is gone, or in another pid namespace.
fn resident(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_stay_bounded_and_peaks_stay() {
        let mut line = Line {
            interval: FIRST,
            last: Instant::now(),
            started: 0,
            tags: 0,
            points: Vec::new(),
            over: false,
        };
        for i in 0..10 * MOST_POINTS as u64 {
            let in_use = if i == 1234 { 1 << 30 } else { i };
            line.add(Glance { in_use, running: true, ..Glance::default() });
            assert!(line.points.len() <= MOST_POINTS);
        }
        assert!(line.interval >= FIRST * 8);
        assert_eq!(line.points.iter().filter(|p| p.in_use == 1 << 30).count(), 1);
    }
}
