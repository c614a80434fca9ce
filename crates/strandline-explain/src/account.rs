//! The account of a line: where what it freed is now, from a census before and one after it.

use serde::Serialize;
use strandline_census::{Census, Class, Group};

use crate::causes::{class, is_27};
use crate::{count, mib};

/// What is known of one run of a line beside the two censuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Bytes that were asked for while it ran.
    pub allocated: u64,
    /// Bytes, as they had been asked for, that were given back while it ran.
    pub freed: u64,
}

/// A part of what a line stranded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Stable name: that of the class.
    pub name: &'static str,
    /// Change over the line, bytes: negative where the line used up what was stranded before.
    pub bytes: i64,
    /// For people.
    pub text: String,
}

/// Where what a line freed is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// What it freed and didn't use again: `returned_bytes + stranded_bytes`. With what allocators
    /// add to each block: headers, rounding, pools that are given back with their blocks.
    pub freed_bytes: i64,
    /// What it freed, as it had been asked for.
    pub asked_bytes: u64,
    /// Of `asked_bytes`: what the line itself allocated again in the same place, about.
    pub reused_bytes: u64,
    /// What RSS fell by; 0 if it rose.
    pub returned_bytes: i64,
    /// What RSS changed by.
    pub rss_change_bytes: i64,
    /// Change of what allocators keep freed: the sum of the parts.
    pub stranded_bytes: i64,
    /// Change of RSS that is neither in use by objects and C code nor kept by an allocator:
    /// libraries, files, stacks.
    pub other_bytes: i64,
    /// By who keeps it.
    pub parts: Vec<Part>,
}

/// Classes that aren't the program's doing in a line, or only by the way.
fn is_other(class: Class) -> bool {
    class.group() == Group::Mapped && class != Class::Profiler
        || matches!(class, Class::Stacks | Class::Unnamed)
}

/// The account of a line between two censuses.
pub fn account(before: &Census, after: &Census, line: Moment) -> Account {
    let change = |k: Class| class(after, k) as i64 - class(before, k) as i64;
    let rss: i64 = Class::ALL.into_iter().filter(|&k| k != Class::Profiler).map(change).sum();
    let mut parts: Vec<Part> = Group::Freed
        .classes()
        .filter(|&k| change(k) != 0)
        .map(|k| Part { name: k.name(), bytes: change(k), text: text(after, k) })
        .collect();
    parts.sort_by_key(|part| (std::cmp::Reverse(part.bytes), part.name));
    let stranded: i64 = parts.iter().map(|part| part.bytes).sum();
    let other: i64 = Class::ALL.into_iter().filter(|&k| is_other(k)).map(change).sum();
    let returned = (-rss).max(0);
    let freed = returned + stranded;
    let reused = if line.allocated == 0 { 0 } else { (line.freed as i64 - freed).max(0) as u64 };
    Account {
        freed_bytes: freed,
        asked_bytes: line.freed,
        reused_bytes: reused.min(line.allocated),
        returned_bytes: returned,
        rss_change_bytes: rss,
        stranded_bytes: stranded,
        other_bytes: other,
        parts,
    }
}

/// A class of freed memory, and why it stays as it was in `c`.
fn text(c: &Census, k: Class) -> String {
    let m = c.malloc.clone().unwrap_or_default();
    let free_pools: u64 =
        c.arenas.iter().filter(|a| a.live_blocks > 0).map(|a| a.free_pools as u64).sum();
    match k {
        Class::FreeBlocks => {
            let open: u64 = c.size_classes.iter().filter(|s| s.free > 0).map(|s| s.pools).sum();
            let most = c.size_classes.iter().max_by_key(|s| s.free * s.block_bytes as u64);
            let most = most
                .map_or_else(String::new, |s| format!(", most of them of {} bytes", s.block_bytes));
            format!("free blocks in {} pools that live objects keep open{most}", count(open))
        }
        Class::FreePools => {
            let pinned = c.arenas.iter().filter(|a| a.live_blocks > 0 && a.free_pools > 0).count();
            format!(
                "free pools in {} arenas, each pinned by at least one live pool ({} in all)",
                count(pinned as u64),
                count(free_pools)
            )
        }
        Class::FreeArenas => {
            "arenas without a live object, kept by Python for its next ones".to_owned()
        }
        Class::FreeLists if is_27(c) => {
            let ints: Vec<_> = c
                .free_lists
                .iter()
                .take(2)
                .map(|t| format!("{} {}", count(t.count), t.name))
                .collect();
            format!(
                "dead objects on the interpreter's free lists ({}): 2.7 keeps ints and floats \
                 without a bound, until a full collection gives their blocks to malloc",
                ints.join(", ")
            )
        }
        Class::FreeLists => "dead objects on the interpreter's free lists".to_owned(),
        Class::MallocBins => {
            let threads = match m.thread_holes_bytes {
                0 => String::new(),
                bytes => format!(" ({} of it in arenas of threads)", mib(bytes)),
            };
            format!("holes in malloc's heap, below blocks that are in use{threads}")
        }
        Class::MallocTop => match (m.trim_threshold_bytes, m.mmap_threshold_bytes) {
            (Some(trim), Some(mmap)) => format!(
                "the free end of malloc's heap (top): it goes back from {} on, as malloc's \
                 threshold is now; blocks from {} on get a mapping of their own",
                mib(trim),
                mib(mmap)
            ),
            _ => "the free end of malloc's heap (top), below its trim threshold".to_owned(),
        },
        k => k.text().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_census::ClassReport;

    fn census(classes: &[(Class, u64)]) -> Census {
        let report = |&(k, bytes): &(Class, u64)| ClassReport {
            name: k.name().to_owned(),
            bytes,
            text: String::new(),
        };
        let rss_bytes = classes.iter().map(|c| c.1).sum();
        Census { rss_bytes, classes: classes.iter().map(report).collect(), ..Census::default() }
    }

    #[test]
    fn the_parts_add_up() {
        let before = census(&[(Class::Objects, 1000), (Class::MallocTop, 50), (Class::Code, 7)]);
        let after = census(&[
            (Class::Objects, 200),
            (Class::FreeBlocks, 300),
            (Class::MallocTop, 40),
            (Class::Code, 7),
            (Class::Profiler, 99),
        ]);
        let a = account(&before, &after, Moment { allocated: 0, freed: 780 });
        assert_eq!((a.returned_bytes, a.stranded_bytes), (510, 290));
        assert_eq!(a.freed_bytes, 800);
        assert_eq!(a.parts.iter().map(|p| p.bytes).sum::<i64>(), a.stranded_bytes);
        assert_eq!(a.rss_change_bytes, -510);
        assert_eq!((a.reused_bytes, a.other_bytes), (0, 0));
    }

    #[test]
    fn what_a_line_uses_again_is_said() {
        let before = census(&[(Class::Objects, 100)]);
        let after = census(&[(Class::Objects, 150), (Class::MallocBins, 300)]);
        let a = account(&before, &after, Moment { allocated: 900, freed: 850 });
        assert_eq!((a.returned_bytes, a.stranded_bytes, a.reused_bytes), (0, 300, 550));
    }
}
