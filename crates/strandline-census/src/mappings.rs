//! What is in no arena and in no heap: libraries, files, stacks, and what is left of anonymous
//! memory.

use strandline_image::{Image, Mapping, Thread, PAGE};
use strandline_interpreter::{module_data, words, ModuleData};

use crate::class::{Class, Sums};
use crate::model::MappingReport;

/// Ranges of addresses that were counted already, by address, without overlap.
pub struct Claimed(Vec<(u64, u64)>);

impl Claimed {
    /// From ranges in any order; overlapping ones are put together.
    pub fn new(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.retain(|r| r.0 < r.1);
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        Claimed(merged)
    }

    /// The parts of `from..to` that weren't counted.
    pub fn left(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut at = from;
        let mut left = Vec::new();
        let first = self.0.partition_point(|r| r.1 <= from);
        for &(start, end) in self.0.iter().skip(first).take_while(|r| r.0 < to) {
            if at < start {
                left.push((at, start));
            }
            at = at.max(end);
        }
        if at < to {
            left.push((at, to));
        }
        left
    }
}

/// The largest chunk of the interpreter's frame stack that is believed, bytes.
const MOST_FRAMES: u64 = 1 << 30;

/// A chunk of the frame stack (3.11 and later) at `address`, a page's start: its size.
///
/// Fact: `_PyStackChunk` {previous, size, top, data} from the arena allocator
/// (Include/cpython/pystate.h); 16 KiB, doubled until a frame fits.
fn frame_chunk(image: &Image, address: u64, end: u64) -> Option<u64> {
    let (previous, size, top) =
        (image.word(address)?, image.word(address + 8)?, image.word(address + 16)?);
    let shaped = size.is_power_of_two()
        && (PAGE..=MOST_FRAMES).contains(&size)
        && address + size <= end
        && top.checked_mul(8).is_some_and(|top| top <= size);
    let linked = previous == 0
        || previous % PAGE == 0
            && image.word(previous + 8).is_some_and(|s| s.is_power_of_two() && s >= PAGE);
    (shaped && linked).then_some(size)
}

/// More than the dynamic linker takes for its lists as a rule, bytes.
const MOST_OF_THE_LINKER: u64 = 1 << 20;

/// What the mappings before say of an anonymous one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A page that nobody may touch: it is a thread's stack.
    Guard,
    Nothing,
}

/// Sorts everything that isn't claimed.
pub struct Rest<'a> {
    image: &'a Image,
    claimed: &'a Claimed,
    sums: Sums,
    frames: Vec<(u64, u64)>,
    mapped: Vec<MappingReport>,
}

/// Files and mappings that are listed.
const LISTED: usize = 10;

/// What was found outside of arenas and heaps.
pub struct Found {
    /// Resident bytes by class.
    pub sums: Sums,
    /// Where frames are: address and bytes.
    pub frames: Vec<(u64, u64)>,
    /// Files and mappings that take most.
    pub mapped: Vec<MappingReport>,
}

impl<'a> Rest<'a> {
    /// Counts what isn't in `claimed`.
    pub fn count(image: &'a Image, claimed: &'a Claimed) -> Found {
        let (sums, frames, mapped) = (Sums::default(), Vec::new(), Vec::new());
        let mut rest = Rest { image, claimed, sums, frames, mapped };
        let modules = modules(image);
        let data = module_data(image);
        let mut previous: Option<&Mapping> = None;
        for m in image.mappings() {
            let touching = previous.filter(|p| p.end == m.start);
            let before = match touching {
                Some(p) if !p.read && !p.write && p.is_anonymous() => Before::Guard,
                _ => Before::Nothing,
            };
            let counted = rest.sums;
            rest.mapping(m, before, &modules, &data);
            rest.list(m, &counted);
            previous = Some(m);
        }
        let Rest { sums, frames, mut mapped, .. } = rest;
        mapped.sort_by(|a, b| {
            b.bytes.cmp(&a.bytes).then_with(|| (&a.path, &a.class).cmp(&(&b.path, &b.class)))
        });
        mapped.truncate(LISTED);
        Found { sums, frames, mapped }
    }

    /// Notes what was added to the sums for `m` since `counted`.
    fn list(&mut self, m: &Mapping, counted: &Sums) {
        for class in Class::ALL {
            let bytes = self.sums.get(class) - counted.get(class);
            let (path, name) = (m.path.as_str(), class.name());
            if bytes == 0 {
                continue;
            }
            match self.mapped.iter_mut().find(|r| r.path == path && r.class == name) {
                Some(known) => known.bytes += bytes,
                None => {
                    let (path, class) = (path.to_owned(), name.to_owned());
                    self.mapped.push(MappingReport { path, class, bytes });
                }
            }
        }
    }

    fn add(&mut self, class: Class, from: u64, to: u64) {
        self.sums.add(class, self.image.resident_bytes(from, to));
    }

    fn mapping(&mut self, m: &Mapping, before: Before, modules: &[u64], data: &[ModuleData]) {
        for (mut from, to) in self.claimed.left(m.start, m.end) {
            if m.is_anonymous() && !m.shared {
                // A library's .bss, and what follows it without a gap.
                for part in data {
                    if part.start <= from && from < part.end {
                        let end = part.end.min(to);
                        self.add(Class::LibraryData, from, end);
                        from = end;
                    }
                }
                if from < to {
                    self.anonymous(m, before, from, to);
                }
                continue;
            }
            let class = if m.shared {
                if m.is_memory() {
                    Class::SharedMemory
                } else {
                    Class::Files
                }
            } else if !modules.contains(&m.inode) {
                Class::Files
            } else if m.write {
                Class::LibraryData
            } else {
                Class::Code
            };
            self.add(class, from, to);
        }
    }

    fn anonymous(&mut self, m: &Mapping, before: Before, from: u64, to: u64) {
        match m.path.as_str() {
            "[heap]" => return self.add(Class::MallocOverhead, from, to),
            "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]" => {
                return self.add(Class::Kernel, from, to)
            }
            _ => {}
        }
        let inside = |at: &Option<u64>| at.is_some_and(|at| (from..to).contains(&at));
        let threads = self.image.threads();
        let on_stack: Vec<&Thread> = threads.iter().filter(|t| inside(&t.stack_pointer)).collect();
        if m.path == "[stack]" || !on_stack.is_empty() {
            // Signal handlers and leaf functions use 128 bytes below the pointer (x86-64 ABI).
            let sp = on_stack.iter().filter_map(|t| t.stack_pointer).min();
            let used = sp.map_or(from, |sp| sp.saturating_sub(128).clamp(from, to));
            self.add(Class::StacksUnused, from, used);
            self.add(Class::Stacks, used, to);
        } else if threads.iter().any(|t| inside(&t.tls)) {
            // The main thread's local storage, and what lies next to it.
            self.frame_chunks(m, from, to, Class::Stacks);
        } else if before == Before::Guard && from == m.start {
            // glibc keeps the stacks of threads that ended for the next ones.
            self.frame_chunks(m, from, to, Class::StacksUnused);
        } else if self.is_of_the_linker(from, to) {
            self.add(Class::LibraryData, from, to);
        } else {
            self.frame_chunks(m, from, to, Class::Unnamed);
        }
    }

    /// True if the memory is what the dynamic linker took before there was a malloc: it lists the
    /// libraries in it, each with its address and that of its dynamic section.
    ///
    /// Fact: `__minimal_malloc` (glibc elf/dl-minimal-malloc.c) maps a few pages;
    /// `struct link_map` {l_addr, l_name, l_ld, l_next, l_prev} (elf/link.h).
    fn is_of_the_linker(&self, from: u64, to: u64) -> bool {
        if to - from > MOST_OF_THE_LINKER {
            return false;
        }
        let image = self.image;
        let is_file = |at: u64| image.mapping_at(at).filter(|m| m.inode != 0);
        let entries = image.slices(from, to).flat_map(|(start, bytes)| words(start, bytes));
        let is_entry = |&(at, base): &(u64, u64)| {
            let of_library = is_file(base).filter(|m| m.start == base && m.offset == 0);
            let section = image.word(at + 16).and_then(is_file);
            of_library.zip(section).is_some_and(|(library, section)| library.inode == section.inode)
        };
        entries.filter(is_entry).take(2).count() == 2
    }

    /// Counts chunks of the frame stack in `from..to` of `m`, and the rest as `other`.
    fn frame_chunks(&mut self, m: &Mapping, from: u64, to: u64, other: Class) {
        let mut rest = from;
        // A chunk begins with a page that was written to.
        for (first, last) in m.resident.runs() {
            let mut at = (m.start + first as u64 * PAGE).max(rest.next_multiple_of(PAGE));
            let end = (m.start + last as u64 * PAGE).min(to);
            while at + PAGE <= end {
                let Some(size) = frame_chunk(self.image, at, to) else {
                    at += PAGE;
                    continue;
                };
                self.add(other, rest, at);
                self.add(Class::Frames, at, at + size);
                self.frames.push((at, size));
                at += size;
                rest = at;
            }
        }
        self.add(other, rest, to);
    }
}

/// Inodes of files with code in them.
fn modules(image: &Image) -> Vec<u64> {
    let mut inodes: Vec<u64> =
        image.mappings().iter().filter(|m| m.execute && m.inode != 0).map(|m| m.inode).collect();
    inodes.sort_unstable();
    inodes.dedup();
    inodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_lies_between_the_claims() {
        let claimed = Claimed::new(vec![(50, 60), (10, 20), (15, 30), (60, 70), (90, 90)]);
        assert_eq!(claimed.left(0, 100), [(0, 10), (30, 50), (70, 100)]);
        assert_eq!(claimed.left(12, 28), []);
        assert_eq!(claimed.left(55, 80), [(70, 80)]);
        assert_eq!(claimed.left(30, 50), [(30, 50)]);
    }
}
