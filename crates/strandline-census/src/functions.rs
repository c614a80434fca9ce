//! Functions that run or wait, as holders of objects: which variable of which function, at which
//! line.

use strandline_interpreter::{module_data, words, Block, Frame, Frames, NATIVE};

use crate::chunks::Python;
use crate::owners::Search;

/// More than a `PyThreadState` takes in any version, bytes.
const THREAD_STATE: u64 = 4096;

/// A slot of a running function's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Number of the frame.
    frame: usize,
    /// Address of the slot.
    address: u64,
    /// It is a variable's.
    pub is_variable: bool,
}

/// The functions of all interpreters.
pub struct Functions<'a> {
    search: &'a Search<'a>,
    /// Frames that run, each with its interpreter.
    running: Vec<(&'a Python<'a>, Frame)>,
}

impl<'a> Functions<'a> {
    /// Finds those that run.
    pub fn new(search: &'a Search<'a>) -> Self {
        let image = search.image;
        let data = module_data(image);
        // Thread states are in memory of C. Where an object points to one it counts as the
        // object's.
        let may_have = |size: u64, block: Block| match block {
            Block::Raw | Block::Owned(NATIVE) => true,
            Block::Owned(_) => size <= THREAD_STATE,
            _ => false,
        };
        let chunks: Vec<(u64, &[u8])> = search
            .chunks
            .used()
            .filter(|&(chunk, block)| may_have(chunk.size(), block))
            .filter_map(|(chunk, _)| {
                Some((chunk.user(), image.slice(chunk.user(), chunk.usable() as usize)?))
            })
            .collect();
        let mut running = Vec::new();
        for python in search.pythons {
            let of_modules = data.iter().flat_map(|part| part.pieces(image));
            let frames = frames(search, python).running(of_modules.chain(chunks.iter().copied()));
            running.extend(frames.into_iter().map(|frame| (python, frame)));
        }
        Functions { search, running }
    }

    /// True if it is known what runs.
    pub fn are_known(&self) -> bool {
        !self.running.is_empty()
    }

    /// Addresses of the running frames that are objects: those up to 3.10.
    pub fn objects(&self) -> impl Iterator<Item = u64> + '_ {
        let are_objects = |p: &Python<'_>| p.interpreter.layout.frame.interpreter.is_none();
        self.running.iter().filter(move |(p, _)| are_objects(p)).map(|(_, frame)| frame.address)
    }

    /// Calls `each` with every pointer in a running frame that is no object, and its slot.
    pub fn slots(&self, mut each: impl FnMut(u64, Slot)) {
        for (number, (python, frame)) in self.running.iter().enumerate() {
            let Some(f) = &python.interpreter.layout.frame.interpreter else { continue };
            for (start, bytes) in self.search.image.slices(frame.address, frame.end()) {
                for (address, word) in words(start, bytes) {
                    let is_variable =
                        (frame.slots..frame.slots + 8 * frame.named).contains(&address);
                    let slot = Slot { frame: number, address, is_variable };
                    each(f.executable_pointer(word), slot);
                }
            }
        }
    }

    /// The slot in words: `view() at views.py:41, local rows`.
    pub fn text(&self, slot: Slot) -> String {
        let frame = self.running.get(slot.frame);
        frame.map(|(p, f)| in_words(&frames(self.search, p), f, slot.address)).unwrap_or_default()
    }

    /// The same for the pointer at `address` in an object of a type of this name, if that is a
    /// frame or has one.
    pub fn variable(&self, type_name: &str, object: u64, address: u64) -> Option<String> {
        self.search.pythons.iter().find_map(|python| {
            let frames = frames(self.search, python);
            let layout = &python.interpreter.layout;
            let frame = match type_name {
                "frame" => match layout.frame.object.f_frame {
                    Some(f_frame) => {
                        frames.at(self.search.image.word(object + f_frame as u64)?)?
                    }
                    None => frames.at(object)?,
                },
                "generator" | "coroutine" | "async_generator" => frames.of_generator(object)?,
                _ => return None,
            };
            (frame.slots..frame.end())
                .contains(&address)
                .then(|| in_words(&frames, &frame, address))
        })
    }
}

fn frames<'a>(search: &'a Search<'a>, python: &'a Python<'a>) -> Frames<'a> {
    let layout = &python.interpreter.layout;
    Frames { image: search.image, layout, types: &python.types }
}

fn in_words(frames: &Frames<'_>, frame: &Frame, address: u64) -> String {
    let function = frames.function(frame);
    match frames.variable(frame, address) {
        Some(name) => format!("{function}, local {name}"),
        None => function,
    }
}
