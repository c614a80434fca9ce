//! When things happened, and the counters over time.

use std::io::{self, Write};

use strandline_profile::{Point, Process, Profile};

use crate::json;

/// Moments of a process: nanoseconds since the start of the recording.
pub struct Times {
    /// When it started.
    pub start: u64,
    /// Past its highest point, at most `end`.
    pub after_peak: u64,
    /// When it was last heard of.
    pub end: u64,
}

impl Times {
    /// Of a process of a recording that starts at `origin`, nanoseconds since the epoch.
    pub fn of(profile: &Profile, process: &Process, origin: u64) -> Times {
        /// The least that is shown of a process of which no moment is known.
        const LEAST: u64 = 1_000_000;
        let start = process.started.saturating_sub(origin);
        let points = &process.timeline.points;
        let ran = match points.last() {
            Some(point) => point.time,
            None => profile.meta.written.saturating_sub(process.started),
        };
        let end = start.saturating_add(ran.max(LEAST));
        let after_peak = match highest(points) {
            // Half way to the next point, or to the end.
            Some((peak, next)) => {
                let next = next.map_or(end, |point| start.saturating_add(point.time));
                let peak = start.saturating_add(peak.time);
                peak.saturating_add(next.saturating_sub(peak) / 2)
            }
            None => start + (end - start) / 2,
        };
        Times { start, after_peak, end }
    }
}

/// The first of the highest points, and the one after it.
fn highest(points: &[Point]) -> Option<(&Point, Option<&Point>)> {
    let most = points.iter().map(|p| p.in_use).max()?;
    let at = points.iter().position(|p| p.in_use == most)?;
    Some((points.get(at)?, points.get(at + 1)))
}

/// Nanoseconds as milliseconds, exactly.
pub fn milliseconds(nanoseconds: u64) -> String {
    let (whole, rest) = (nanoseconds / 1_000_000, nanoseconds % 1_000_000);
    let text = format!("{whole}.{rest:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A figure of a point.
type Figure = fn(&Point) -> u64;

/// Writes the counters of a process, which is called `pid` and whose thread is number `thread`;
/// `first`: none was written yet.
pub fn counters(
    process: &Process,
    pid: &str,
    times: &Times,
    thread: usize,
    first: &mut bool,
    to: &mut dyn Write,
) -> io::Result<()> {
    let points = &process.timeline.points;
    let kinds: [(&str, &str, &str, Figure); 3] = [
        ("In use", "blue", "What the program had in use", |p| p.in_use),
        ("Resident", "orange", "Resident memory (RSS)", |p| p.rss),
        ("Stranded", "red", "Kept by an allocator, in no live block", |p| p.stranded),
    ];
    for (rank, (name, color, description, value)) in kinds.into_iter().enumerate() {
        if points.iter().all(|p| value(p) == 0) {
            continue;
        }
        if !std::mem::take(first) {
            to.write_all(b",")?;
        }
        // Without `display`, which older front ends skip, all would be labelled "Memory".
        write!(
            to,
            "{{\"name\":\"{name}\",\"category\":\"Memory\",\"description\":\"{description}\",\
             \"color\":\"{color}\",\"display\":{{\"graphType\":\"line-accumulated\",\
             \"unit\":\"bytes\",\"color\":\"{color}\",\"label\":\"{name}\",\
             \"markerSchemaLocation\":\"timeline-memory\",\"sortWeight\":{}}},\
             \"pid\":\"{pid}\",\"mainThreadIndex\":{thread},\"samples\":{{\"length\":{},",
            20 + rank,
            points.len()
        )?;
        let time = points.iter().map(|p| milliseconds(times.start.saturating_add(p.time)));
        json::array(to, "time", time)?;
        to.write_all(b",")?;
        // Each sample is what was added since the one before.
        let mut before = 0;
        let count = points.iter().map(|p| {
            let added = i128::from(value(p)) - i128::from(before);
            before = value(p);
            added
        });
        json::array(to, "count", count)?;
        to.write_all(b"}}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_exact() {
        for (ns, text) in [(0, "0"), (1, "0.000001"), (1_500_000, "1.5"), (100_000_000, "100")] {
            assert_eq!(milliseconds(ns), text);
        }
    }

    #[test]
    fn after_the_peak_is_before_the_next_point() {
        let point = |time, in_use| Point { time, in_use, ..Point::default() };
        let mut process = Process { started: 100, ..Process::default() };
        process.timeline.points = vec![point(0, 1), point(2_000_000, 9), point(4_000_000, 3)];
        let times = Times::of(&Profile::default(), &process, 100);
        assert_eq!((times.start, times.after_peak, times.end), (0, 3_000_000, 4_000_000));
    }
}
