//! The call paths of a process that runs under `strandline run --stacks`: what its tags stand for,
//! read from its part of the capture in its memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use strandline_capture::layout;
use strandline_capture::read::{self, Bytes};
use strandline_profile::{Process, Profile};

/// Callers that are named.
const CALLERS: usize = 5;

/// The capture as one process has it mapped: its header, its region and its call paths. The rest
/// reads as zeros, as of processes that never were.
struct Mapped {
    memory: File,
    /// Offset in the capture, address, bytes.
    maps: Vec<(u64, u64, u64)>,
}

impl Bytes for Mapped {
    fn length(&self) -> io::Result<u64> {
        Ok(self.maps.iter().map(|(offset, _, bytes)| offset + bytes).max().unwrap_or(0))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(0);
        let end = offset + buffer.len() as u64;
        for &(from, address, bytes) in &self.maps {
            let (first, last) = (offset.max(from), end.min(from + bytes));
            if first < last {
                let part = (first - offset) as usize..(last - offset) as usize;
                if let Some(part) = buffer.get_mut(part) {
                    self.memory.read_exact_at(part, address + (first - from))?;
                }
            }
        }
        Ok(buffer.len())
    }
}

impl Mapped {
    fn of(pid: i32) -> io::Result<Mapped> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let map = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let (start, end) = (number(start)?, number(end)?);
            let shared = words.next()?.ends_with('s');
            let offset = number(words.next()?)?;
            let own = shared && line.contains(layout::CAPTURE_NAME);
            own.then_some((offset, start, end - start))
        };
        let memory = File::open(format!("/proc/{pid}/mem"))?;
        Ok(Mapped { memory, maps: maps.lines().filter_map(map).collect() })
    }
}

/// What the tags of a process stand for.
pub struct CallPaths {
    profile: Profile,
    /// For each tag the index of its path.
    paths: Vec<u32>,
}

impl CallPaths {
    /// Those of process `pid`; `None` if it doesn't record any, or can't be read.
    pub fn of(pid: i32) -> Option<CallPaths> {
        let mapped = Mapped::of(pid).ok()?;
        let regions = read::regions(&mapped).ok()?;
        let (profile, mut indexes) = strandline_profile::from_capture(&regions);
        let (_, paths) = indexes.pop()?;
        (profile.processes.len() == 1).then_some(CallPaths { profile, paths })
    }

    /// The call path of a tag, innermost first, some frames of it: `function (file:line)`.
    pub fn place(&self, tag: u32) -> Option<Vec<String>> {
        let process: &Process = self.profile.processes.first()?;
        let path = process.paths.get(*self.paths.get(tag as usize)? as usize)?;
        let mut places = Vec::new();
        // Who pins an arena is told by lines of Python, with native frames in between or not.
        let mut node = process.innermost_python(path.node);
        while node != 0 && places.len() <= CALLERS {
            let n = process.nodes.get(node as usize)?;
            let frame = process.frames.get(n.frame as usize)?;
            let text = |index: u32| process.strings.get(index as usize).map_or("?", String::as_str);
            places.push(format!("{} ({}:{})", text(frame.function), text(frame.file), frame.line));
            node = process.innermost_python(n.parent);
        }
        Some(places)
    }
}
