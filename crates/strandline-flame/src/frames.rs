//! The frames of all processes in one table, each place in code once.

use std::collections::HashMap;

use strandline_profile::{Frame, FrameKind, Process};

use crate::columns::Columns;
use crate::error::{index, FlameError};
use crate::sources::Sources;

/// The frame of what was allocated while no code was known to run.
pub const UNKNOWN: u32 = 0;
/// The frame of what a point of the timeline doesn't tell apart.
pub const OTHERS: u32 = 1;

const KIND_PYTHON: u64 = 0;
const KIND_NATIVE: u64 = 1;
const KIND_NO_CODE: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    function: u32,
    file: u32,
    line: u32,
    kind: u64,
}

/// Texts and frames, numbered in the order in which they were met.
#[derive(Debug)]
pub struct Frames {
    texts: Vec<String>,
    known_texts: HashMap<String, u32>,
    places: Vec<Place>,
    known_places: HashMap<Place, u32>,
}

impl Frames {
    /// With the two frames that are no code.
    pub fn new() -> Frames {
        let no_code = Place { function: 0, file: 0, line: 0, kind: KIND_NO_CODE };
        Frames {
            texts: vec![String::new()],
            known_texts: HashMap::from([(String::new(), 0)]),
            places: vec![no_code; 2],
            known_places: HashMap::new(),
        }
    }

    /// Index of a process's frame, on a line that may be another than its own.
    pub fn of(&mut self, process: &Process, frame: &Frame, line: u32) -> Result<u32, FlameError> {
        let text = |at: u32| process.strings.get(at as usize).map_or("", String::as_str);
        let function = match (frame.kind, text(frame.function)) {
            (FrameKind::Native, "") => self.text(&format!("{:#x}", frame.address))?,
            (_, function) => self.text(function)?,
        };
        let kind = match frame.kind {
            FrameKind::Python => KIND_PYTHON,
            FrameKind::Native => KIND_NATIVE,
        };
        let place = Place { function, file: self.text(text(frame.file))?, line, kind };
        if let Some(&known) = self.known_places.get(&place) {
            return Ok(known);
        }
        let at = index(self.places.len(), "lines")?;
        self.places.push(place);
        self.known_places.insert(place, at);
        Ok(at)
    }

    fn text(&mut self, text: &str) -> Result<u32, FlameError> {
        if let Some(&known) = self.known_texts.get(text) {
            return Ok(known);
        }
        let at = index(self.texts.len(), "texts")?;
        self.texts.push(text.to_owned());
        self.known_texts.insert(text.to_owned(), at);
        Ok(at)
    }

    /// Adds the tables to the page's data, with the source line of every frame if asked for.
    pub fn write(
        mut self,
        sources: Option<&dyn Sources>,
        to: &mut Columns,
    ) -> Result<(), FlameError> {
        let lines = match sources {
            Some(sources) => self.lines(sources)?,
            None => Vec::new(),
        };
        to.numbers("frame.function", self.places.iter().map(|p| p.function.into()));
        to.numbers("frame.file", self.places.iter().map(|p| p.file.into()));
        to.numbers("frame.line", self.places.iter().map(|p| p.line.into()));
        to.numbers("frame.kind", self.places.iter().map(|p| p.kind));
        to.numbers("frame.source", lines.into_iter().map(u64::from));
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        to.texts("text", &texts);
        Ok(())
    }

    /// The source line of each frame, as a text's index.
    fn lines(&mut self, sources: &dyn Sources) -> Result<Vec<u32>, FlameError> {
        let mut wanted: Vec<(u32, u32, usize)> = Vec::new();
        for (at, place) in self.places.iter().enumerate() {
            if place.kind == KIND_PYTHON && place.line > 0 {
                wanted.push((place.file, place.line, at));
            }
        }
        // File by file, so that a bounded cache reads each one once.
        wanted.sort_unstable();
        let mut lines = vec![0; self.places.len()];
        for (file, line, at) in wanted {
            let file = self.texts.get(file as usize).cloned().unwrap_or_default();
            if let Some(text) = sources.line(&file, line) {
                if let Some(slot) = lines.get_mut(at) {
                    *slot = self.text(&text)?;
                }
            }
        }
        Ok(lines)
    }
}
