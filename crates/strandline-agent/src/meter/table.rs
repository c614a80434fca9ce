//! What the lines of one function, and of the code inside it, changed in one thread.
//!
//! A change is put down for the line that was running, as the difference to the last reading in
//! this table: whatever a line calls is part of it, but for code that is in the table itself,
//! which has put down its own. `python/memory_profiler/memory_profiler/_trace.py` has the same
//! in Python, and a test compares the two.

/// How memory and time are told.
pub trait Gauge {
    /// Now, in cycles.
    fn cycles() -> u64;
    /// Resident bytes of this process, read now.
    fn resident() -> i64;
    /// True if a line that began at `since` and ends `now`, in cycles, can have changed them.
    fn may_have_changed(since: u64, now: u64) -> bool;
}

/// What is known of a line.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Entry {
    /// By how much resident memory changed while it ran, bytes.
    pub change: i64,
    /// The highest resident memory at its end, bytes.
    pub highest: i64,
    /// How often it ran to its end, less how often it went on after a `yield`.
    pub occurrences: i64,
    /// Resident memory when the function first began, at its line of `def`; else 0.
    pub first: i64,
    /// It ran.
    pub seen: bool,
}

const NOTHING: Entry = Entry { change: 0, highest: 0, occurrences: 0, first: 0, seen: false };

/// A frame that runs.
#[derive(Clone, Copy, Default)]
pub struct Level {
    /// What the events of the frame are recognised by.
    pub owner: usize,
    /// Index of the running line's entry.
    entry: usize,
}

/// The table. Its lines are `first..first + entries.len() - 1`; the last entry is that of lines
/// outside, and is never told.
pub struct Table {
    first: u32,
    entries: &'static mut [Entry],
    levels: &'static mut [Level],
    depth: usize,
    /// Entries that exist.
    seen: usize,
    /// The last reading.
    last: i64,
    /// When the running line began, in cycles.
    since: u64,
    /// It has its starting point: `Entry::first` of some line.
    pub begun: bool,
    /// Gives room for more levels in place of these, or none.
    more: fn(&'static mut [Level]) -> &'static mut [Level],
}

impl Table {
    /// An empty one. `entries` has one more than the function has lines; `more`: gives more room
    /// for levels, with those that there are, or the same.
    pub fn new(
        first: u32,
        entries: &'static mut [Entry],
        levels: &'static mut [Level],
        begun: bool,
        more: fn(&'static mut [Level]) -> &'static mut [Level],
    ) -> Table {
        Table { first, entries, levels, depth: 0, seen: 0, last: 0, since: 0, begun, more }
    }

    /// Who runs, innermost.
    #[inline(always)]
    pub fn owner(&self) -> Option<usize> {
        self.levels.get(self.depth.wrapping_sub(1)).map(|l| l.owner)
    }

    /// A function begins at the line of its `def` or first decorator.
    pub fn begin<G: Gauge>(&mut self, owner: usize, line: u32) {
        let Some(entry) = self.enter::<G>(owner, line) else { return };
        let (begun, last) = (core::mem::replace(&mut self.begun, true), self.last);
        if let Some(e) = self.entries.get_mut(entry) {
            if !begun {
                e.first = last;
            }
            e.highest = e.highest.max(last);
        }
    }

    /// A frame goes on after a `yield` or `await`; the line was counted when it yielded.
    pub fn resume<G: Gauge>(&mut self, owner: usize, line: u32) {
        let entry = self.enter::<G>(owner, line);
        if let Some(e) = entry.and_then(|i| self.entries.get_mut(i)) {
            e.occurrences -= 1;
        }
    }

    /// A frame runs from here on, in this line: the index of its entry, or none for lack of room.
    pub fn enter<G: Gauge>(&mut self, owner: usize, line: u32) -> Option<usize> {
        if self.depth == self.levels.len() {
            let levels = core::mem::take(&mut self.levels);
            self.levels = (self.more)(levels);
        }
        // Between calls anything may have changed.
        let memory = if self.depth > 0 { self.memory_now::<G>() } else { G::resident() };
        if self.depth > 0 {
            // Until here it was the line that called.
            let (last, caller) = (self.last, self.running());
            if let Some(e) = caller {
                e.change += memory - last;
                e.highest = e.highest.max(memory);
            }
        }
        self.last = memory;
        let entry = self.index(line);
        *self.levels.get_mut(self.depth)? = Level { owner, entry };
        self.depth += 1;
        self.since = G::cycles();
        Some(entry)
    }

    /// The running line ends, and its frame with it or until it goes on.
    pub fn leave<G: Gauge>(&mut self) {
        let memory = self.memory_now::<G>();
        let last = self.last;
        if let Some(e) = self.running() {
            e.change += memory - last;
            e.highest = e.highest.max(memory);
            e.occurrences += 1;
        }
        self.last = memory;
        self.depth = self.depth.saturating_sub(1);
        self.since = G::cycles();
    }

    /// The running line ends, and this one begins in the same frame: the hot path.
    #[inline(always)]
    pub fn line<G: Gauge>(&mut self, line: u32) {
        let memory = self.memory_now::<G>();
        let (last, next) = (self.last, self.index(line));
        self.last = memory;
        if let Some(level) = self.levels.get_mut(self.depth.wrapping_sub(1)) {
            if let Some(e) = self.entries.get_mut(level.entry) {
                e.change += memory - last;
                e.highest = e.highest.max(memory);
                e.occurrences += 1;
            }
            level.entry = next;
        }
        self.since = G::cycles();
    }

    /// Its room for levels, which it is left without.
    pub fn take_levels(&mut self) -> &'static mut [Level] {
        self.depth = 0;
        core::mem::take(&mut self.levels)
    }

    /// Resident memory at the end of the running line.
    #[inline(always)]
    fn memory_now<G: Gauge>(&self) -> i64 {
        if G::may_have_changed(self.since, G::cycles()) {
            G::resident()
        } else {
            self.last
        }
    }

    fn running(&mut self) -> Option<&mut Entry> {
        let level = self.levels.get(self.depth.wrapping_sub(1))?;
        self.entries.get_mut(level.entry)
    }

    /// The index of a line's entry, which exists from now on.
    #[inline(always)]
    fn index(&mut self, line: u32) -> usize {
        let outside = self.entries.len() - 1;
        let i = (line.wrapping_sub(self.first) as usize).min(outside);
        if let Some(e) = self.entries.get_mut(i) {
            if !e.seen {
                e.seen = true;
                self.seen += 1;
            }
        }
        i
    }

    /// Tells `with` what every line did that ran, by its number.
    pub fn each(&self, mut with: impl FnMut(u32, &Entry)) {
        let (_, lines) = self.entries.split_last().unwrap_or((&NOTHING, &[]));
        for (i, e) in lines.iter().enumerate().filter(|(_, e)| e.seen) {
            with(self.first + i as u32, e);
        }
    }

    /// No frame runs any more that is known. How many lines ran since it was empty.
    pub fn pause(&mut self) -> usize {
        self.depth = 0;
        self.seen
    }

    /// Empty again, but for its starting point.
    pub fn clear(&mut self) {
        self.pause();
        if core::mem::take(&mut self.seen) > 0 {
            self.entries.fill(NOTHING);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::cell::Cell;
    use std::vec::Vec;

    std::thread_local! {
        static MEMORY: Cell<i64> = const { Cell::new(0) };
        static CHANGED: Cell<bool> = const { Cell::new(true) };
    }
    struct Fake;
    impl Gauge for Fake {
        fn cycles() -> u64 {
            0
        }
        fn resident() -> i64 {
            MEMORY.get()
        }
        fn may_have_changed(_: u64, _: u64) -> bool {
            CHANGED.get()
        }
    }
    fn leak<T: Clone + Default>(n: usize) -> &'static mut [T] {
        std::vec![T::default(); n].leak()
    }
    fn twice(levels: &'static mut [Level]) -> &'static mut [Level] {
        let mut all = levels.to_vec();
        all.resize(2 * all.len(), Level::default());
        all.leak()
    }
    fn table(first: u32, lines: usize) -> Table {
        Table::new(first, leak(lines + 1), leak(1), false, twice)
    }
    fn told(t: &mut Table) -> Vec<(u32, i64, i64, i64, i64)> {
        let mut all = Vec::new();
        t.each(|line, e| all.push((line, e.change, e.highest, e.occurrences, e.first)));
        assert!(t.pause() >= all.len());
        t.clear();
        assert_eq!(t.pause(), 0);
        all
    }

    #[test]
    fn a_change_is_the_running_lines() {
        let mut t = table(10, 4);
        MEMORY.set(1000);
        t.begin::<Fake>(1, 10);
        t.line::<Fake>(11);
        MEMORY.set(1500);
        t.line::<Fake>(12);
        MEMORY.set(1200);
        t.leave::<Fake>();
        let expected = [(10, 0, 1000, 1, 1000), (11, 500, 1500, 1, 0), (12, -300, 1200, 1, 0)];
        assert_eq!(told(&mut t), expected);
        // What happened between two calls is nobody's, and there is one starting point.
        MEMORY.set(9000);
        t.begin::<Fake>(1, 10);
        t.leave::<Fake>();
        assert_eq!(told(&mut t), [(10, 0, 9000, 1, 0)]);
        assert_eq!(told(&mut t), []);
    }

    #[test]
    fn recursion_counts_every_byte_once_and_finds_room() {
        let mut t = table(1, 2);
        MEMORY.set(0);
        for depth in 0..100 {
            t.begin::<Fake>(depth, 1);
            t.line::<Fake>(2);
            MEMORY.set(MEMORY.get() + 10);
        }
        for _ in 0..100 {
            t.leave::<Fake>();
        }
        assert_eq!(told(&mut t), [(1, 0, 990, 100, 0), (2, 1000, 1000, 100, 0)]);
    }

    #[test]
    fn a_line_that_goes_on_is_counted_once() {
        let mut t = table(1, 2);
        MEMORY.set(5);
        t.begin::<Fake>(1, 1);
        t.line::<Fake>(2);
        t.leave::<Fake>();
        assert_eq!(t.owner(), None);
        MEMORY.set(100);
        t.resume::<Fake>(1, 2);
        MEMORY.set(103);
        t.leave::<Fake>();
        assert_eq!(told(&mut t), [(1, 0, 5, 1, 5), (2, 3, 103, 1, 0)]);
    }

    #[test]
    fn lines_too_short_to_change_anything_are_not_measured() {
        let mut t = table(1, 3);
        MEMORY.set(7);
        t.begin::<Fake>(1, 1);
        t.line::<Fake>(2);
        CHANGED.set(false);
        MEMORY.set(700);
        t.line::<Fake>(3);
        t.line::<Fake>(2);
        CHANGED.set(true);
        t.leave::<Fake>();
        assert_eq!(told(&mut t), [(1, 0, 7, 1, 7), (2, 693, 700, 2, 0), (3, 0, 7, 1, 0)]);
    }

    #[test]
    fn lines_outside_are_not_told() {
        let mut t = table(5, 1);
        MEMORY.set(1);
        t.begin::<Fake>(1, 5);
        t.line::<Fake>(4);
        MEMORY.set(2);
        t.line::<Fake>(6);
        t.leave::<Fake>();
        assert_eq!(told(&mut t), [(5, 0, 1, 1, 1)]);
    }
}
