//! When memory was allocated that is freed now: the agent says by how many bytes had been allocated
//! in the process until then, here that becomes a slice of time.

use strandline_capture::layout::BIRTH_SHIFT;

/// Slices that are remembered. Beyond that every second one goes, and births are known half as well
/// from then on.
const MOST: usize = 1 << 17;

/// The slices of a process so far.
pub struct Slices {
    /// Bytes allocated so far.
    clock: u64,
    /// The first unit of births in a slice, and the slice; in order.
    of: Vec<(u32, u32)>,
    /// Births are told apart in steps of `1 << step` slices.
    step: u32,
    /// First unit of the last of them.
    since: u32,
    /// A slice whose births begin as soon as their units tell them from those before, and the unit
    /// of the first block that was too early.
    next: Option<(u32, Option<u32>)>,
    /// Where the last old birth was found.
    found: Found,
}

/// Births that one slice has: first unit, number of units.
#[derive(Default)]
struct Found {
    first: u32,
    units: u32,
    slice: u32,
}

fn unit(clock: u64) -> u32 {
    (clock >> BIRTH_SHIFT) as u32
}

impl Slices {
    /// From a process that had allocated `clock` bytes: what is older is in slice 0.
    pub fn new(clock: u64) -> Slices {
        let first = unit(clock);
        let found = Found::default();
        Slices { clock, of: vec![(first, 0)], step: 0, since: first, next: None, found }
    }

    /// log2 of the slices that births are told apart by.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Time has come to slice `slice`.
    pub fn now(&mut self, slice: u32) {
        let slice = slice >> self.step << self.step;
        let last = self.of.last().map_or(0, |&(_, last)| last);
        if slice > last && self.next.is_none_or(|(next, _)| slice > next) {
            self.next = Some((slice, None));
        }
    }

    /// True if a slice's births have still to begin: [`Slices::begin`] is asked before each
    /// allocation until then.
    #[inline(always)]
    pub fn awaits(&self) -> bool {
        self.next.is_some()
    }

    /// `bytes` are allocated.
    #[inline(always)]
    pub fn allocated(&mut self, bytes: u64) {
        self.clock = self.clock.wrapping_add(bytes);
    }

    /// The slice whose births begin with what is allocated next, if one does.
    pub fn begin(&mut self) -> Option<u32> {
        let unit = unit(self.clock);
        let (slice, early) = self.next?;
        if early.is_none_or(|early| early == unit) {
            self.next = Some((slice, Some(unit)));
            return None;
        }
        self.next = None;
        self.of.push((unit, slice));
        self.since = unit;
        if self.of.len() > MOST {
            self.step += 1;
            let step = self.step;
            for (_, slice) in &mut self.of {
                *slice = *slice >> step << step;
            }
            // Of those that are one now the first stays.
            self.of.dedup_by_key(|(_, slice)| *slice);
            self.found = Found::default();
        }
        Some(slice)
    }

    /// The slice in which memory was allocated that was born in this unit; `None`: the last one.
    #[inline(always)]
    pub fn of_birth(&mut self, birth: u32) -> Option<u32> {
        // Units wrap around: at 4 TiB.
        if birth.wrapping_sub(self.since) as i32 >= 0 {
            return None;
        }
        // Blocks that live long are often freed in the order in which they were allocated.
        if birth.wrapping_sub(self.found.first) >= self.found.units {
            self.look_up(birth);
        }
        Some(self.found.slice)
    }

    #[inline(never)]
    fn look_up(&mut self, birth: u32) {
        let before = |&(first, _): &(u32, u32)| first.wrapping_sub(birth) as i32 <= 0;
        let at = self.of.partition_point(before);
        let slice = self.of.get(at.saturating_sub(1)).map_or(0, |&(_, slice)| slice);
        let range = at.checked_sub(1).and_then(|last| self.of.get(last..=at));
        self.found = match range {
            Some(&[(first, _), (next, _)]) => {
                Found { first, units: next.wrapping_sub(first), slice }
            }
            // Before all of them.
            _ => Found { slice, ..Found::default() },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_birth_is_in_the_slice_that_it_was_told_in() {
        let mut slices = Slices::new(5000);
        let (mut clock, mut current, mut told) = (5000u64, 0, Vec::new());
        for i in 0..20_000u64 {
            if i % 50 == 0 {
                slices.now(i as u32 / 50 + 1);
            }
            let bytes = 1 + i * 7919 % 300;
            current = slices.begin().unwrap_or(current);
            slices.allocated(bytes);
            told.push((unit(clock), current));
            clock += bytes;
        }
        assert!(current > 300);
        for (i, (birth, slice)) in told.into_iter().enumerate() {
            assert_eq!(slices.of_birth(birth).unwrap_or(current), slice, "{i}");
        }
        assert_eq!(slices.of_birth(0), Some(0));
    }

    #[test]
    fn long_runs_are_known_less_well_and_never_wrongly() {
        let mut slices = Slices::new(0);
        let mut told = Vec::new();
        let mut current = 0;
        for i in 0..300_000u32 {
            slices.now(i + 1);
            for _ in 0..2 {
                let birth = unit(slices.clock);
                current = slices.begin().unwrap_or(current);
                slices.allocated(1024);
                told.push((birth, current));
            }
        }
        let step = slices.step();
        assert!((1..5).contains(&step) && slices.of.len() <= MOST);
        for (birth, slice) in told {
            let found = slices.of_birth(birth).unwrap_or(current);
            assert_eq!(found >> step, slice >> step);
        }
    }
}
