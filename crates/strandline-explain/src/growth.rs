//! Several looks at one process: what grows.

use strandline_census::Census;

use crate::causes::{garbage, live, native, not_python};

/// RSS has to grow by this much for anything to be said, bytes, and by one part in so many.
const LEAST: (u64, u64) = (1 << 20, 50);

/// A process that used less CPU time than this did nothing, milliseconds: to be stopped and to wait
/// anew for what it waits for takes some, too.
const STILL: u64 = 2;

/// What may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Live objects.
    Live,
    /// What waits for the collector.
    Garbage,
    /// What allocators keep.
    Freed,
    /// What C code holds.
    Native,
    /// Files and shared memory.
    NotPython,
}

impl Part {
    const ALL: [Part; 5] = [Part::Live, Part::Garbage, Part::Freed, Part::Native, Part::NotPython];

    /// Its bytes in a census.
    pub fn of(self, c: &Census) -> u64 {
        match self {
            Part::Live => live(c),
            Part::Garbage => garbage(c),
            Part::Freed => c.stranded_bytes,
            Part::Native => native(c),
            Part::NotPython => not_python(c),
        }
    }
}

/// True if a process did nothing between two looks at it: then the second says no more than the
/// first.
pub fn did_nothing(first: &Census, last: &Census) -> bool {
    match (first.cpu_ms, last.cpu_ms) {
        (Some(before), Some(after)) => after.saturating_sub(before) < STILL,
        _ => first.rss_bytes == last.rss_bytes,
    }
}

/// How RSS went from look to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trend {
    /// One look only.
    Unknown,
    /// The process did nothing meanwhile: the looks say no more than one.
    Idle,
    /// It grew from each look to the next, by so many bytes in all, most of it in one part.
    Grows(u64, Part),
    /// It went up and down, or stayed.
    Steady,
}

/// The trend of these looks, the oldest first.
pub fn trend(looks: &[Census]) -> Trend {
    let (Some(first), Some(last)) = (looks.first(), looks.last()) else { return Trend::Unknown };
    if looks.len() < 2 {
        return Trend::Unknown;
    }
    let growth = last.rss_bytes.saturating_sub(first.rss_bytes);
    let rises = looks.windows(2).all(|w| w[1].rss_bytes > w[0].rss_bytes);
    if rises && growth >= LEAST.0.max(first.rss_bytes / LEAST.1) {
        let by = |part: Part| part.of(last).saturating_sub(part.of(first));
        let most = Part::ALL.into_iter().max_by_key(|&part| by(part));
        if let Some(part) = most.filter(|&part| by(part) * 2 >= growth) {
            return Trend::Grows(growth, part);
        }
        return Trend::Steady;
    }
    if did_nothing(first, last) {
        Trend::Idle
    } else {
        Trend::Steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_census::{Class, ClassReport};

    fn look(rss: u64, objects: u64, cpu_ms: u64) -> Census {
        let class = ClassReport {
            name: Class::Objects.name().to_owned(),
            bytes: objects << 20,
            text: String::new(),
        };
        let rss_bytes = rss << 20;
        Census { rss_bytes, classes: vec![class], cpu_ms: Some(cpu_ms), ..Census::default() }
    }

    #[test]
    fn what_grows_is_told_from_what_swings() {
        let grown = [look(100, 10, 0), look(110, 20, 5), look(120, 30, 9)];
        assert_eq!(trend(&grown), Trend::Grows(20 << 20, Part::Live));
        let swung = [look(100, 10, 0), look(130, 40, 5), look(120, 30, 9)];
        assert_eq!(trend(&swung), Trend::Steady);
        assert_eq!(trend(&[look(100, 10, 7), look(100, 10, 7)]), Trend::Idle);
        assert_eq!(trend(&[look(100, 10, 7), look(100, 10, 8)]), Trend::Idle);
        assert_eq!(trend(&[look(100, 10, 7), look(100, 10, 9)]), Trend::Steady);
        assert_eq!(trend(&grown[..1]), Trend::Unknown);
        let little = [look(100, 10, 0), look(101, 11, 5)];
        assert_eq!(trend(&little), Trend::Steady);
    }
}
