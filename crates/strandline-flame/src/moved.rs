//! Functions that stand on other lines in the run after: code above them has grown or shrunk.
//! Their lines are told by where the function begins, so that they are still the same paths.

use std::collections::HashMap;

use strandline_profile::{Frame, Process, Profile};

/// Where a function of one name in one file begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Start {
    #[default]
    Nowhere,
    At(u32),
    /// Several functions have the name, or the line isn't known: which is which can't be told.
    Unclear,
}

impl Start {
    fn meet(&mut self, line: u32) {
        *self = match *self {
            Start::Nowhere if line > 0 => Start::At(line),
            Start::At(known) if known == line => Start::At(known),
            _ => Start::Unclear,
        }
    }
}

/// Where the functions of two runs begin, before and after, by name and file.
#[derive(Debug, Default)]
pub struct Moved<'a> {
    starts: HashMap<(&'a str, &'a str), [Start; 2]>,
}

impl<'a> Moved<'a> {
    /// Of a difference; with one run nothing has moved.
    pub fn new(runs: &[&'a Profile]) -> Moved<'a> {
        let mut moved = Moved::default();
        if let [before, after] = runs {
            for (run, profile) in [before, after].into_iter().enumerate() {
                for process in &profile.processes {
                    for frame in &process.frames {
                        let starts = moved.starts.entry(key(process, frame)).or_default();
                        if let Some(start) = starts.get_mut(run) {
                            start.meet(frame.first_line);
                        }
                    }
                }
            }
        }
        moved
    }

    /// The line of a frame, as the run after numbers it.
    pub fn line(&self, run: usize, process: &Process, frame: &Frame) -> u32 {
        if run > 0 || self.starts.is_empty() {
            return frame.line;
        }
        match self.starts.get(&key(process, frame)) {
            Some(&[Start::At(before), Start::At(after)]) => {
                let line = i64::from(frame.line) - i64::from(before) + i64::from(after);
                u32::try_from(line).unwrap_or(frame.line)
            }
            _ => frame.line,
        }
    }
}

fn key<'a>(process: &'a Process, frame: &Frame) -> (&'a str, &'a str) {
    let text = |at: u32| process.strings.get(at as usize).map_or("", String::as_str);
    (text(frame.function), text(frame.file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_profile::Builder;

    fn profile(frames: &[(&str, u32, u32)]) -> Profile {
        let mut builder = Builder::new();
        for &(function, first_line, line) in frames {
            let (function, file) = (builder.string(function), builder.string("a.py"));
            builder.frame(Frame { function, file, line, first_line, ..Frame::default() });
        }
        Profile { processes: vec![builder.finish()], ..Profile::default() }
    }

    #[test]
    fn lines_are_told_by_where_their_function_begins() {
        let before = profile(&[("f", 10, 12), ("<lambda>", 5, 5), ("<lambda>", 7, 7), ("h", 0, 3)]);
        let after = profile(&[("f", 30, 31), ("<lambda>", 6, 6), ("h", 0, 4)]);
        let moved = Moved::new(&[&before, &after]);
        let process = &before.processes[0];
        let lines = |run| -> Vec<u32> {
            process.frames.iter().skip(1).map(|f| moved.line(run, process, f)).collect()
        };
        assert_eq!(lines(0), [32, 5, 7, 3]);
        assert_eq!(lines(1), [12, 5, 7, 3]);
    }
}
