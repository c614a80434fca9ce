//! `--explain`: censuses at the end of lines, each compared with the one before.

use std::fs::File;

use strandline_capture::read;
use strandline_census::{take, Census, Options};
use strandline_explain::{account, Moment};
use strandline_image::Image;
use strandline_report::{Alive, LineLook};

/// Objects for which it is looked who refers to them, for each line.
const PATHS: usize = 4;
/// What a line holds is worth a word from here on, bytes.
const LEAST: u64 = 1 << 20;

/// What a request says of where the program stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Slot of the line that ended; 0: a function was entered.
    pub slot: u32,
    /// Bytes that lines without a look moved since the last one, at least.
    pub missed: u64,
}

/// What lines had done up to a look.
#[derive(Debug, Clone, Default)]
struct Amounts {
    slots: Vec<u32>,
    file: String,
    first_line: u32,
    line: u32,
    allocated: u64,
    freed: u64,
    in_use: u64,
}

struct Waiting {
    pid: u32,
    place: Place,
    image: Image,
    amounts: Vec<Amounts>,
}

/// Looks at lines.
#[derive(Default)]
pub struct Lines {
    capture: Option<File>,
    waiting: Option<Waiting>,
    /// The look before.
    before: Option<(Census, Vec<Amounts>)>,
    found: Vec<LineLook>,
}

impl Lines {
    /// `capture`: where lines are counted.
    pub fn new(capture: File) -> Self {
        Lines { capture: Some(capture), ..Lines::default() }
    }

    /// The memory was copied: to be worked on when the program runs again.
    pub fn copied(&mut self, pid: u32, place: Place, image: Image) {
        let amounts = self.capture.as_ref().map(|file| amounts(file, pid)).unwrap_or_default();
        self.waiting = Some(Waiting { pid, place, image, amounts });
    }

    /// There is no look to compare the next one with.
    pub fn give_up(&mut self) {
        self.waiting = None;
        self.before = None;
    }

    /// Takes the census of what was copied, and compares.
    pub fn work(&mut self) {
        let Some(Waiting { pid, place, image, amounts }) = self.waiting.take() else { return };
        let holders = place.slot != 0;
        let after = take(&image, &Options { paths: if holders { PATHS } else { 0 }, holders });
        drop(image);
        if let Some((before, old)) = &self.before {
            if let Some(line) = amounts.iter().find(|a| a.slots.contains(&place.slot)) {
                self.found.push(look(pid, place, (before, old), (&after, &amounts), line));
            }
        }
        self.before = Some((after, amounts));
    }

    /// All accounts, in the order of the run.
    pub fn found(self) -> Vec<LineLook> {
        self.found
    }
}

fn look(
    pid: u32,
    place: Place,
    (before, old): (&Census, &[Amounts]),
    (after, amounts): (&Census, &[Amounts]),
    line: &Amounts,
) -> LineLook {
    let was = old.iter().find(|a| a.slots.contains(&place.slot)).cloned().unwrap_or_default();
    let moment = Moment {
        allocated: line.allocated.saturating_sub(was.allocated),
        freed: line.freed.saturating_sub(was.freed),
    };
    let same_function = |a: &&Amounts| a.file == line.file && a.first_line == line.first_line;
    let others = amounts.iter().filter(same_function).filter(|a| a.line != line.line);
    LineLook {
        pid,
        file: line.file.clone(),
        first_line: line.first_line,
        line: line.line,
        account: account(before, after, moment),
        missed_bytes: place.missed,
        alive: others
            .filter(|a| a.in_use >= LEAST)
            .map(|a| Alive { line: a.line, in_use_bytes: a.in_use })
            .collect(),
        garbage_bytes: after.garbage.as_ref().map(|g| g.bytes),
        holders: after.holders.iter().filter(|h| h.bytes >= LEAST).cloned().collect(),
    }
}

/// What the lines of process `pid` have done; nothing if the capture can't be read.
fn amounts(capture: &File, pid: u32) -> Vec<Amounts> {
    let Ok(capture) = read::read(capture) else { return Vec::new() };
    let process = capture.processes.iter().rfind(|p| p.pid == pid);
    let functions = process.into_iter().flat_map(|p| &p.functions);
    let of_function = |f: &read::Function| {
        let (file, first_line) = (f.file.to_string(), f.first_line);
        let amounts = |l: &read::Line| Amounts {
            slots: l.slots.clone(),
            file: file.clone(),
            first_line,
            line: l.line,
            allocated: l.allocated,
            freed: l.freed,
            in_use: l.in_use,
        };
        f.lines.iter().map(amounts).collect::<Vec<_>>()
    };
    functions.flat_map(of_function).collect()
}
