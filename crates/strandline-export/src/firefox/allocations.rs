//! The table of allocations: what was made of each call path's figures so that the front end's
//! sums are ours.
//!
//! The front end knows allocations and frees with a time, an address that joins the two, and a
//! size. A call path becomes one allocation for each part of its memory that has the same fate:
//!
//! | | before the peak | after the peak |
//! |---|---|---|
//! | was in use at the peak and at the end | allocated | |
//! | was in use at the peak only | allocated | freed |
//! | came after the peak and was in use at the end | | allocated |
//! | all else | allocated, freed | |
//!
//! Over the whole time "Retained" is then what is in use at the end and "Allocated" is all that
//! was allocated; from the start up to the peak "Retained" is what was in use at the peak.

use std::io::{self, Write};

use crate::firefox::time::{milliseconds, Times};
use crate::json;
use crate::view::{Row, View};

/// A line of the table.
#[derive(Clone, Copy)]
struct Event {
    /// Bytes; below 0: freed.
    weight: i128,
    /// Index into the stack table.
    stack: u32,
    /// Stands for the block, and is no address of the program's.
    address: u64,
}

/// Addresses of a row: the parts of its memory.
const PARTS: u64 = 4;

/// What happened to a row's memory before the peak (`[0]`) and after it (`[1]`).
fn events(index: usize, row: &Row) -> [Vec<Event>; 2] {
    let (peak, end) = (row.at_peak.bytes, row.in_use.bytes);
    let kept = peak.min(end);
    let (lost, gained) = (peak - kept, end - kept);
    let rest = row.allocated.bytes.saturating_sub(peak).saturating_sub(gained);
    let stack = row.node.saturating_sub(1);
    let event = |part: u64, weight: i128| Event {
        weight,
        stack,
        address: (index as u64 + 1).saturating_mul(PARTS).saturating_add(part),
    };
    let allocated = |part, bytes: u64| (bytes > 0).then(|| event(part, bytes.into()));
    let freed = |part, bytes: u64| (bytes > 0).then(|| event(part, -i128::from(bytes)));
    let before = [allocated(0, kept), allocated(1, lost), allocated(3, rest), freed(3, rest)];
    let after = [freed(1, lost), allocated(2, gained)];
    [before.into_iter().flatten().collect(), after.into_iter().flatten().collect()]
}

/// Writes the table.
pub fn write(view: &View<'_>, times: &Times, to: &mut dyn Write) -> io::Result<()> {
    let events = |phase: usize| {
        let rows = view.rows.iter().enumerate();
        rows.flat_map(move |(i, row)| events(i, row).into_iter().nth(phase).unwrap_or_default())
    };
    let all = || events(0).chain(events(1));
    let (before, after) = (events(0).count(), events(1).count());
    write!(to, "\"nativeAllocations\":{{\"length\":{},\"weightType\":\"bytes\",", before + after)?;
    let (start, end) = (milliseconds(times.start), milliseconds(times.after_peak));
    let time = std::iter::repeat_n(&start, before).chain(std::iter::repeat_n(&end, after));
    json::array(to, "time", time)?;
    to.write_all(b",")?;
    json::array(to, "weight", all().map(|e| e.weight))?;
    to.write_all(b",")?;
    json::array(to, "stack", all().map(|e| e.stack))?;
    to.write_all(b",")?;
    json::array(to, "memoryAddress", all().map(|e| e.address))?;
    to.write_all(b",")?;
    json::array(to, "threadId", std::iter::repeat_n("0", before + after))?;
    to.write_all(b"}")
}

#[cfg(test)]
mod tests {
    use strandline_profile::Amount;

    use super::*;

    fn sums(allocated: u64, peak: u64, in_use: u64) -> [i128; 3] {
        let amount = |bytes| Amount { bytes, blocks: 1 };
        let row = Row {
            node: 1,
            allocated: amount(allocated),
            at_peak: amount(peak),
            in_use: amount(in_use),
            ..Row::default()
        };
        let [before, after] = events(0, &row);
        let sum = |events: &[Event]| events.iter().map(|e| e.weight).sum::<i128>();
        let positive = before.iter().chain(&after).map(|e| e.weight.max(0)).sum();
        [positive, sum(&before), sum(&before) + sum(&after)]
    }

    #[test]
    fn sums_are_the_paths_own() {
        for allocated in 0..6 {
            for peak in 0..=allocated {
                for in_use in 0..=allocated {
                    let expected = [allocated, peak, in_use].map(i128::from);
                    assert_eq!(sums(allocated, peak, in_use), expected);
                }
            }
        }
    }
}
