//! What was in use over time, as columns: the points of all processes one after the other.

use strandline_profile::Point;

use crate::columns::Columns;
use crate::entries::Source;

/// Adds the timelines to the page's data. Times are microseconds since the process's start, each
/// as its distance from the point before.
pub fn write(sources: &[Source], to: &mut Columns) {
    let points =
        || sources.iter().flat_map(|s| s.process.timeline.points.iter().map(move |p| (s, p)));
    to.distances("point.time", points().map(|(_, p)| p.time / 1000));
    to.numbers("point.in_use", points().map(|(_, p)| p.in_use));
    to.numbers("point.rss", points().map(|(_, p)| p.rss));
    to.numbers("point.stranded", points().map(|(_, p)| p.stranded));
    to.numbers("point.top", points().map(|(_, p)| p.top.len() as u64));
    let top =
        || points().flat_map(|(s, p)| p.top.iter().map(|&(path, bytes)| (entry(s, path), bytes)));
    to.numbers("top.entry", top().map(|(entry, _)| entry));
    to.numbers("top.bytes", top().map(|(_, bytes)| bytes));
    to.numbers("others.entry", sources.iter().map(|s| s.others_entry.into()));
    to.numbers("others.bytes", points().map(|(_, p)| others(p)));
}

fn entry(source: &Source, path: u32) -> u64 {
    source.entries.get(path as usize).copied().unwrap_or(source.others_entry).into()
}

/// What belongs to no path of the point.
fn others(point: &Point) -> u64 {
    let told = point.top.iter().fold(0u64, |sum, &(_, bytes)| sum.saturating_add(bytes));
    point.in_use.saturating_sub(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_to_in_use_belongs_to_all_others() {
        let point = |in_use, top| Point { in_use, top, ..Point::default() };
        assert_eq!(others(&point(100, vec![(0, 30), (1, 20)])), 50);
        assert_eq!(others(&point(10, vec![(0, 30)])), 0);
        assert_eq!(others(&point(10, vec![(0, u64::MAX), (1, u64::MAX)])), 0);
    }
}
