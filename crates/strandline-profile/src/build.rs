//! Making a process's tables from call stacks: each text, frame and node once.

use hashbrown::HashMap;

use crate::model::{Frame, FrameKind, Node, Process, Thread};

/// Adds to a [`Process`]'s tables without repeating anything.
#[derive(Debug, Default)]
pub struct Builder {
    process: Process,
    strings: HashMap<String, u32>,
    frames: HashMap<Frame, u32>,
    nodes: HashMap<Node, u32>,
}

impl Builder {
    /// With the reserved entries.
    pub fn new() -> Builder {
        let mut builder = Builder::default();
        builder.process.strings.push(String::new());
        builder.process.frames.push(Frame::default());
        builder.process.nodes.push(Node::default());
        builder.process.threads.push(Thread::default());
        builder.strings.insert(String::new(), 0);
        builder
    }

    /// `new`, with room for so many frames and nodes.
    pub fn with_room(frames: usize, nodes: usize) -> Builder {
        let mut builder = Builder::new();
        builder.frames.reserve(frames);
        builder.process.frames.reserve(frames);
        builder.nodes.reserve(nodes);
        builder.process.nodes.reserve(nodes);
        builder
    }

    /// The process, to fill in what isn't a table.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Index of a text.
    pub fn string(&mut self, text: &str) -> u32 {
        if let Some(&known) = self.strings.get(text) {
            return known;
        }
        let index = self.process.strings.len() as u32;
        self.process.strings.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    /// Index of a frame.
    pub fn frame(&mut self, frame: Frame) -> u32 {
        *self.frames.entry(frame).or_insert_with(|| {
            self.process.frames.push(frame);
            self.process.frames.len() as u32 - 1
        })
    }

    /// Index of the node for `frame` called from `parent`.
    pub fn node(&mut self, parent: u32, frame: u32) -> u32 {
        let node = Node { parent, frame };
        *self.nodes.entry(node).or_insert_with(|| {
            self.process.nodes.push(node);
            self.process.nodes.len() as u32 - 1
        })
    }

    /// Index of the innermost node of a Python call path, outermost first: function, file, line.
    pub fn python_path<'a>(
        &mut self,
        path: impl IntoIterator<Item = (&'a str, &'a str, u32)>,
    ) -> u32 {
        let mut node = 0;
        for (function, file, line) in path {
            let (function, file) = (self.string(function), self.string(file));
            let frame = Frame { function, file, line, kind: FrameKind::Python, ..Frame::default() };
            let frame = self.frame(frame);
            node = self.node(node, frame);
        }
        node
    }

    /// What was built.
    pub fn finish(self) -> Process {
        self.process
    }
}
